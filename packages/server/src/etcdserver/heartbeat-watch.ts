/**
 * Whether a leader's heartbeats leave in time. One that is more than an interval late says that this member is
 * overloaded, and its followers may soon stand for election: operators look for the line that is written then.
 */
import { hexId } from "../lib/bytes.ts";
import type { Clock } from "../lib/clock.ts";
import { goDuration } from "../lib/go-format.ts";
import type { Logger } from "../lib/log.ts";

export class HeartbeatWatch {
  readonly #deps: { readonly clock: Clock; readonly logger: Logger; readonly intervalMs: number; late?(): void };
  /** When each follower was last sent one. */
  readonly #sentMs = new Map<bigint, number>();

  constructor(deps: { clock: Clock; logger: Logger; intervalMs: number; late?: (() => void) | undefined }) {
    const { clock, logger, intervalMs, late } = deps;
    this.#deps = { clock, logger, intervalMs, ...(late && { late }) };
  }

  /** A heartbeat leaves for a follower. */
  sent(to: bigint): void {
    const { clock, logger, intervalMs, late } = this.#deps;
    const nowMs = clock.monotonicMs();
    const exceededMs = nowMs - (this.#sentMs.get(to) ?? nowMs) - 2 * intervalMs;
    this.#sentMs.set(to, nowMs);
    if (exceededMs <= 0) return;
    logger.warn(
      "leader failed to send out heartbeat on time; took too long, leader is overloaded likely from slow disk",
      {
        to: hexId(to),
        "heartbeat-interval": goDuration(intervalMs),
        "expected-duration": goDuration(2 * intervalMs),
        "exceeded-duration": goDuration(exceededMs),
      },
    );
    late?.();
  }

  /** Another leader, or none: what was sent before says nothing of what is sent next. */
  reset(): void {
    this.#sentMs.clear();
  }
}
