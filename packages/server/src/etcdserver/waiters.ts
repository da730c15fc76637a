/**
 * Who waits for what: proposals for the result of their apply, reads for an applied index. Every wait has an end: the
 * result, a deadline that is the same for all (so one timer serves the oldest), or the stop of the server.
 */
import type { Clock, Timer } from "../lib/clock.ts";

/** Requests by number, each with the same time to live. Insertion order is deadline order. */
export class RequestWaiters<T> {
  readonly #clock: Clock;
  readonly #timeoutMs: number;
  readonly #timedOut: (startMs: number, suffix: number) => Error;
  readonly #waiting = new Map<number, { startMs: number; resolve: (value: T) => void; reject: (e: Error) => void }>();
  #timer: Timer | undefined;

  constructor(options: {
    clock: Clock;
    timeoutMs: number;
    /** Makes the error for a request that began at `startMs` and got no result. */
    timedOut: (startMs: number, suffix: number) => Error;
  }) {
    this.#clock = options.clock;
    this.#timeoutMs = options.timeoutMs;
    this.#timedOut = options.timedOut;
  }

  get size(): number {
    return this.#waiting.size;
  }

  has(suffix: number): boolean {
    return this.#waiting.has(suffix);
  }

  register(suffix: number): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      this.#waiting.set(suffix, { startMs: this.#clock.monotonicMs(), resolve, reject });
      if (!this.#timer) this.#arm(this.#timeoutMs);
    });
  }

  /** False when nobody waits for it (any more). */
  resolve(suffix: number, value: T): boolean {
    const waiter = this.#waiting.get(suffix);
    if (!waiter) return false;
    this.#waiting.delete(suffix);
    waiter.resolve(value);
    return true;
  }

  reject(suffix: number, error: Error): void {
    const waiter = this.#waiting.get(suffix);
    if (!waiter) return;
    this.#waiting.delete(suffix);
    waiter.reject(error);
  }

  rejectAll(makeError: () => Error): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const waiter of waiting) waiter.reject(makeError());
  }

  #arm(delayMs: number): void {
    this.#timer = this.#clock.after(delayMs, () => this.#expire(), { unref: true });
  }

  #expire(): void {
    this.#timer = undefined;
    const now = this.#clock.monotonicMs();
    for (const [suffix, waiter] of this.#waiting) {
      const leftMs = waiter.startMs + this.#timeoutMs - now;
      if (leftMs > 0) {
        this.#arm(leftMs);
        return;
      }
      this.#waiting.delete(suffix);
      waiter.reject(this.#timedOut(waiter.startMs, suffix));
    }
  }
}

/** Waits for an index to be reached. Few wait at a time, so a list does. */
export class IndexWaiters {
  #reached = 0;
  #waiting: { readonly index: number; readonly resolve: () => void; readonly reject: (e: Error) => void }[] = [];

  get reached(): number {
    return this.#reached;
  }

  /** Raises the index; never lowers it. */
  reach(index: number): void {
    if (index <= this.#reached) return;
    this.#reached = index;
    if (this.#waiting.length === 0) return;
    const still = [];
    for (const waiter of this.#waiting) {
      if (waiter.index <= index) waiter.resolve();
      else still.push(waiter);
    }
    this.#waiting = still;
  }

  wait(index: number): Promise<void> {
    if (index <= this.#reached) return Promise.resolve();
    return new Promise((resolve, reject) => this.#waiting.push({ index, resolve, reject }));
  }

  rejectAll(makeError: () => Error): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const waiter of waiting) waiter.reject(makeError());
  }
}
