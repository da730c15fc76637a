/**
 * Simple tokens: 16 random letters, a dot, and the index of the log entry before the one that made it, which is what etcd
 * has applied when it makes a token: members of both kinds must agree. Every member learns of a token when it applies
 * that entry, and keeps it in memory alone. A member that has not come that far yet waits before it judges. A token that is not used for its time to live is forgotten; each use starts that time again.
 */
import type { Clock, Timer } from "../lib/clock.ts";
import type { Random } from "../lib/random.ts";
import { TOKEN_PREFIX_LETTERS, TOKEN_SWEEP_MS, TOKEN_TTL_DEFAULT_SECONDS, TOKENS_MAX } from "./limits.ts";
import type { TokenProvider } from "./tokens.ts";
import type { Caller } from "./types.ts";

const LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
const FORM = /^[a-zA-Z]+\.([0-9]{1,15})$/;

/** Undefined when the index is applied already; otherwise resolves with whether it came to be. */
export type WaitForIndex = (index: number, signal: AbortSignal | undefined) => Promise<boolean> | undefined;

interface Known {
  readonly username: string;
  /** On the monotonic clock. */
  validUntilMs: number;
}

export class SimpleTokens implements TokenProvider {
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #ttlMs: number;
  readonly #waitForIndex: WaitForIndex;
  /** Invariant: empty while auth is off. */
  readonly #known = new Map<string, Known>();
  #isEnabled = false;
  /** Runs while there are tokens. */
  #sweep: Timer | undefined;

  constructor(options: {
    readonly clock: Clock;
    readonly random: Random;
    readonly simpleTtlSeconds: number;
    readonly waitForIndex: WaitForIndex;
  }) {
    this.#clock = options.clock;
    this.#random = options.random;
    const { simpleTtlSeconds } = options;
    this.#ttlMs = (simpleTtlSeconds > 0 ? simpleTtlSeconds : TOKEN_TTL_DEFAULT_SECONDS) * 1000;
    this.#waitForIndex = options.waitForIndex;
  }

  get size(): number {
    return this.#known.size;
  }

  newPrefix(): string {
    let prefix = "";
    for (let i = 0; i < TOKEN_PREFIX_LETTERS; i++) prefix += LETTERS[this.#random.below(LETTERS.length)];
    return prefix;
  }

  assign({ username, prefix, index }: { username: string; prefix: string; index: number }): string {
    const token = `${prefix}.${index - 1}`;
    if (!this.#isEnabled) return token;
    if (this.#known.size >= TOKENS_MAX) {
      for (const oldest of this.#known.keys()) {
        this.#known.delete(oldest);
        break;
      }
    }
    this.#known.set(token, { username, validUntilMs: this.#clock.monotonicMs() + this.#ttlMs });
    if (!this.#sweep) this.#startSweep();
    return token;
  }

  issue(_caller: Caller, assigned: string): string {
    return assigned;
  }

  callerOf(
    token: string,
    authRevision: number,
    signal: AbortSignal | undefined,
  ): Caller | undefined | Promise<Caller | undefined> {
    const known = this.#use(token);
    if (known) return { username: known.username, authRevision };
    const index = Number(FORM.exec(token)?.[1] ?? Number.NaN);
    if (Number.isNaN(index)) return undefined;
    const waiting = this.#waitForIndex(index + 1, signal);
    if (!waiting) return undefined;
    return waiting.then((isApplied) => {
      const found = isApplied ? this.#use(token) : undefined;
      return found && { username: found.username, authRevision };
    });
  }

  #use(token: string): Known | undefined {
    const known = this.#known.get(token);
    if (!known) return undefined;
    const now = this.#clock.monotonicMs();
    if (now > known.validUntilMs) {
      this.#known.delete(token);
      return undefined;
    }
    known.validUntilMs = now + this.#ttlMs;
    return known;
  }

  #startSweep(): void {
    this.#sweep = this.#clock.after(
      TOKEN_SWEEP_MS,
      () => {
        this.#sweep = undefined;
        const now = this.#clock.monotonicMs();
        for (const [token, { validUntilMs }] of this.#known) if (now > validUntilMs) this.#known.delete(token);
        if (this.#known.size > 0) this.#startSweep();
      },
      { unref: true },
    );
  }

  enable(): void {
    this.#isEnabled = true;
  }

  disable(): void {
    this.#isEnabled = false;
    this.#known.clear();
  }

  forget(username: string): void {
    for (const [token, known] of this.#known) if (known.username === username) this.#known.delete(token);
  }

  stop(): void {
    this.#sweep?.cancel();
    this.#known.clear();
    this.#isEnabled = false;
  }
}
