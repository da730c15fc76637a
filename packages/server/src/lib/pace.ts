/**
 * How long work that is cut into slices gives way to short requests. A turn of the event loop between two slices lets in who
 * waits already; but it leaves to the others only what the slices leave of this thread, of the cores beside it, and of memory.
 * So while somebody is at work who waits for an answer, a slice is followed by a rest. With nobody else there is none.
 */
import type { Clock } from "./clock.ts";
import { yieldToEventLoop } from "./wait.ts";

/** Milliseconds for which one who has come counts as being at work. */
const BUSY_MS = 5;

/** Milliseconds of a rest. With slices of a quarter of that, others have four fifths of the time. */
const REST_MS = 1;

export class Pace {
  readonly #clock: Clock;
  #busyUntilMs = Number.NEGATIVE_INFINITY;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Somebody has come who is to be answered soon. */
  touch(): void {
    this.#busyUntilMs = this.#clock.monotonicMs() + BUSY_MS;
  }

  /** Between two slices. */
  giveWay(): Promise<void> {
    return this.#clock.monotonicMs() < this.#busyUntilMs ? this.#clock.sleep(REST_MS) : yieldToEventLoop();
  }
}
