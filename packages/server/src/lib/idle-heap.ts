/**
 * Gives memory back after a load. What a heap has grown to under load the engine keeps, for minutes at least, and buffers
 * that are garbage with it, as nothing is allocated that would make it look. So a thread that has hardly anything to do looks
 * itself, and collects while a pause disturbs nobody.
 */
import { performance } from "node:perf_hooks";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import type { Clock, Timer } from "./clock.ts";

const LOOK_MS = 1000;

/** Part of the time in which a thread that counts as idle may be busy. */
const BUSY_PART_MAX = 0.05;

/** So much it has to have grown since it was last tidied. */
export const GROWN_BYTES_MIN = 24 * 1024 * 1024;

/**
 * The first pass finds what is garbage; a second one, when the engine has seen for five seconds that little is allocated, gives
 * back the pages in which that stood. This many looks later.
 */
const SECOND_PASS_LOOKS = 6;

/** What is looked at; for tests another one than this thread. */
export interface Heap {
  /** Bytes that are taken, garbage included. */
  bytes(): number;
  collect(): void;
  /** 0 to 1, of the time since it was asked last. */
  busyPart(): number;
}

export class IdleHeap {
  readonly #heap: Heap;
  #tidiedBytes: number;
  /** Idle looks since the first pass, as long as the second one is due; undefined otherwise. */
  #looks: number | undefined;

  constructor(heap: Heap) {
    this.#heap = heap;
    this.#tidiedBytes = heap.bytes();
  }

  look(): void {
    const heap = this.#heap;
    if (heap.busyPart() > BUSY_PART_MAX) {
      this.#looks = undefined;
      return;
    }
    if (this.#looks === undefined) {
      if (heap.bytes() < this.#tidiedBytes + GROWN_BYTES_MIN) return;
      this.#looks = 0;
    } else if (++this.#looks < SECOND_PASS_LOOKS) return;
    else this.#looks = undefined;
    heap.collect();
    this.#tidiedBytes = heap.bytes();
  }
}

/**
 * The engine's own function, which it shows only to those who ask for it before a context is made. All threads share that
 * question: undefined when another one has taken it back in between.
 */
export function collector(evaluate: (code: string) => unknown = runInNewContext): (() => void) | undefined {
  setFlagsFromString("--expose-gc");
  try {
    return evaluate("globalThis.gc") as (() => void) | undefined;
  } finally {
    setFlagsFromString("--no-expose-gc");
  }
}

function ownHeap(): Heap {
  let collect: (() => void) | undefined;
  let before = performance.eventLoopUtilization();
  return {
    bytes: () => {
      const { heapTotal, external } = process.memoryUsage();
      return heapTotal + external;
    },
    collect: () => {
      collect ??= collector();
      // Without it this pass is left out; the next one asks again.
      collect?.();
      // What that took is nobody's work.
      before = performance.eventLoopUtilization();
    },
    busyPart: () => {
      const now = performance.eventLoopUtilization();
      const { utilization } = performance.eventLoopUtilization(now, before);
      before = now;
      return utilization;
    },
  };
}

/** Looks after the heap of the thread that calls, until the timer is cancelled. Keeps nothing alive. */
export function tidyHeapWhenIdle(clock: Clock): Timer {
  const heap = new IdleHeap(ownHeap());
  let timer: Timer;
  const look = (): void => {
    heap.look();
    timer = clock.after(LOOK_MS, look, { unref: true });
  };
  timer = clock.after(LOOK_MS, look, { unref: true });
  return { cancel: () => timer.cancel() };
}
