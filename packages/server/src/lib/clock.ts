/**
 * Time. The only place (with lib/random) that touches `Date` and timers: every room takes a {@link Clock}, so a
 * virtual one replays everything from a seed.
 */

export interface Timer {
  /** Stops the timer; harmless when it has fired. */
  cancel(): void;
}

export interface Clock {
  /** Wall clock, milliseconds since 1970. May jump. */
  nowMs(): number;
  /** Milliseconds that only grow, with fractions; for measuring and deadlines. */
  monotonicMs(): number;
  /** Runs `fn` once after `delayMs` (>= 0). An unref'ed timer does not keep the process alive. */
  after(delayMs: number, fn: () => void, options?: { unref?: boolean }): Timer;
  /** Resolves after `delayMs`, or rejects with the signal's reason when it is aborted first. */
  sleep(delayMs: number, signal?: AbortSignal): Promise<void>;
  /** Yields at most once every `intervalMs` until the signal is aborted, then ends. A slow consumer skips ticks. */
  every(intervalMs: number, signal: AbortSignal): AsyncIterable<void>;
}

function sleepWith(clock: Pick<Clock, "after">, delayMs: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) {
      reject(signal.reason);
      return;
    }
    const onAbort = () => {
      timer.cancel();
      reject(signal?.reason);
    };
    const timer = clock.after(delayMs, () => {
      signal?.removeEventListener("abort", onAbort);
      resolve();
    });
    signal?.addEventListener("abort", onAbort, { once: true });
  });
}

async function* everyWith(clock: Clock, intervalMs: number, signal: AbortSignal): AsyncGenerator<void> {
  let next = clock.monotonicMs() + intervalMs;
  while (!signal.aborted) {
    try {
      await clock.sleep(Math.max(0, next - clock.monotonicMs()), signal);
    } catch {
      return;
    }
    yield;
    const now = clock.monotonicMs();
    next += intervalMs;
    if (next < now) next = now + intervalMs;
  }
}

class SystemClock implements Clock {
  nowMs(): number {
    return Date.now();
  }

  monotonicMs(): number {
    return performance.now();
  }

  after(delayMs: number, fn: () => void, options?: { unref?: boolean }): Timer {
    const handle = setTimeout(fn, delayMs);
    if (options?.unref) handle.unref();
    return { cancel: () => clearTimeout(handle) };
  }

  sleep(delayMs: number, signal?: AbortSignal): Promise<void> {
    return sleepWith(this, delayMs, signal);
  }

  every(intervalMs: number, signal: AbortSignal): AsyncIterable<void> {
    return everyWith(this, intervalMs, signal);
  }
}

export const systemClock: Clock = new SystemClock();

interface VirtualTimer {
  readonly at: number;
  readonly sequence: number;
  readonly fn: () => void;
}

/** Time that moves only when told to: for tests and simulation. */
export class VirtualClock implements Clock {
  #nowMs: number;
  readonly #startMs: number;
  #sequence = 0;
  #timers: VirtualTimer[] = [];

  constructor(startMs = 1_700_000_000_000) {
    this.#startMs = startMs;
    this.#nowMs = startMs;
  }

  nowMs(): number {
    return this.#nowMs;
  }

  monotonicMs(): number {
    return this.#nowMs - this.#startMs;
  }

  after(delayMs: number, fn: () => void): Timer {
    const timer: VirtualTimer = { at: this.#nowMs + Math.max(0, delayMs), sequence: this.#sequence++, fn };
    this.#timers.push(timer);
    return {
      cancel: () => {
        this.#timers = this.#timers.filter((other) => other !== timer);
      },
    };
  }

  sleep(delayMs: number, signal?: AbortSignal): Promise<void> {
    return sleepWith(this, delayMs, signal);
  }

  every(intervalMs: number, signal: AbortSignal): AsyncIterable<void> {
    return everyWith(this, intervalMs, signal);
  }

  /** Moves time on, firing what is due in order of its time, then of its creation. */
  advance(ms: number): void {
    const end = this.#nowMs + ms;
    for (;;) {
      let due: VirtualTimer | undefined;
      for (const timer of this.#timers) {
        if (timer.at > end) continue;
        if (!due || timer.at < due.at || (timer.at === due.at && timer.sequence < due.sequence)) due = timer;
      }
      if (!due) break;
      const fired = due;
      this.#timers = this.#timers.filter((other) => other !== fired);
      this.#nowMs = Math.max(this.#nowMs, fired.at);
      fired.fn();
    }
    this.#nowMs = end;
  }
}

/** `2026-11-23T07:52:22.325Z`. A function of its argument alone: no clock is read. */
export function isoTime(ms: number): string {
  return new Date(ms).toISOString();
}

/** The inverse of {@link isoTime}, for any RFC 3339 text; undefined for anything else. */
export function parseTimeMs(text: string): number | undefined {
  const ms = Date.parse(text);
  return Number.isNaN(ms) ? undefined : ms;
}

/** Minutes that local time is ahead of UTC at the given moment. */
export function zoneOffsetMinutes(ms: number): number {
  return -new Date(ms).getTimezoneOffset();
}

/** For interfaces that want a Date. A function of its argument alone. */
export function dateAt(ms: number): Date {
  return new Date(ms);
}
