import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { describe, expect, it } from "vitest";
import { collector, GROWN_BYTES_MIN, type Heap, IdleHeap, tidyHeapWhenIdle } from "./idle-heap.ts";
import { VirtualClock } from "./clock.ts";

describe("IdleHeap", () => {
  it("collects when a thread has become idle, and again only when it has grown since", () => {
    const state = { bytes: 50e6, busy: 1, collections: 0 };
    const heap: Heap = {
      bytes: () => state.bytes,
      collect: () => {
        state.collections++;
        state.bytes = 50e6;
      },
      busyPart: () => state.busy,
    };
    const idle = new IdleHeap(heap);
    const lookTimes = (times: number): number => {
      for (let i = 0; i < times; i++) idle.look();
      return state.collections;
    };
    state.bytes = 100e6;
    expect(lookTimes(5)).toBe(0);
    state.busy = 0.01;
    expect(lookTimes(5)).toBe(1);
    expect(lookTimes(5)).toBe(2);
    expect(lookTimes(20)).toBe(2);
    state.bytes = 50e6 + GROWN_BYTES_MIN - 1;
    expect(lookTimes(5)).toBe(2);
    state.busy = 0.5;
    expect(lookTimes(1)).toBe(2);
    state.busy = 0;
    expect(lookTimes(5)).toBe(2);
    state.busy = 0.5;
    state.bytes = 50e6 + GROWN_BYTES_MIN;
    expect(lookTimes(1)).toBe(2);
    state.busy = 0;
    expect(lookTimes(3)).toBe(3);
    // Interrupted, there is no second pass.
    state.busy = 1;
    expect(lookTimes(1)).toBe(3);
    state.busy = 0;
    expect(lookTimes(20)).toBe(3);
  });

  it("does without the collector when another thread hides it in between", () => {
    const hidden = (code: string): unknown => {
      setFlagsFromString("--no-expose-gc");
      return runInNewContext(code);
    };
    expect(collector(hidden)).toBeUndefined();
    expect(collector()).toBeTypeOf("function");
  });

  it("collects the garbage of this very thread", async () => {
    const clock = new VirtualClock();
    const timer = tidyHeapWhenIdle(clock);
    const isAlive = (() => {
      const ref = new WeakRef(new Uint8Array(2 * GROWN_BYTES_MIN));
      return () => ref.deref() !== undefined;
    })();
    // Idle for long enough that what this test did before is a small part of the time.
    for (let i = 0; i < 100 && isAlive(); i++) {
      await new Promise((resolve) => setTimeout(resolve, 20));
      clock.advance(1000);
    }
    expect(isAlive()).toBe(false);
    timer.cancel();
  });
});
