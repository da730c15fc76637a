import { describe, expect, it } from "vitest";
import { Later } from "./wait.ts";

function listenerOf(told: unknown[]) {
  return {
    resolved: (value: unknown) => told.push(value),
    rejected: (error: unknown) => told.push(["failed", error]),
  };
}

describe("Later", () => {
  it("tells its listener in the turn in which it settles, and only once", () => {
    const told: unknown[] = [];
    const later = new Later<string>();
    later.observe((value) => told.push(["seen", value]));
    later.listen(listenerOf(told));
    expect(later.isSettled).toBe(false);
    later.resolve("a");
    later.resolve("b");
    later.reject("c");
    expect(told).toEqual([["seen", "a"], "a"]);
    expect(later.isSettled).toBe(true);
  });

  it("tells who comes after it has settled, too", () => {
    const told: unknown[] = [];
    const value = new Later<string>();
    value.resolve("a");
    value.observe((seen) => told.push(["seen", seen]));
    value.listen(listenerOf(told));
    const failure = new Later<string>();
    failure.reject("why");
    failure.observe((seen) => told.push(["seen", seen]));
    failure.listen(listenerOf(told));
    expect(told).toEqual([["seen", "a"], "a", ["seen", undefined], ["failed", "why"]]);
  });

  it("has one listener and one observer", () => {
    const later = new Later<number>();
    later.observe(() => {});
    later.listen(listenerOf([]));
    expect(() => later.observe(() => {})).toThrow("a Later has one observer");
    expect(() => later.listen(listenerOf([]))).toThrow("a Later has one listener");
  });

  it("can be awaited", async () => {
    const value = new Later<number>();
    const failure = new Later<number>();
    const outcomes = Promise.allSettled([value, failure]);
    value.resolve(1);
    failure.reject("why");
    expect(await outcomes).toEqual([
      { status: "fulfilled", value: 1 },
      { status: "rejected", reason: "why" },
    ]);
  });

  it("has one listener", () => {
    const later = new Later<number>();
    later.listen(listenerOf([]));
    expect(() => later.listen(listenerOf([]))).toThrow("one listener");
  });
});
