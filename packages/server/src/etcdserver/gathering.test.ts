import { describe, expect, it } from "vitest";
import { Gathering } from "./gathering.ts";

/** Saves of so many ms, so often that the mean is about that. */
function after(saveMs: number): Gathering {
  const gathering = new Gathering();
  for (let i = 0; i < 40; i++) gathering.saved(saveMs);
  return gathering;
}

/** Callers come at these times of a group's wait; gives when the group goes, and how many it has. */
function group(gathering: Gathering, callers: number, arrivals: readonly number[]): { at: number; size: number } {
  for (let now = 0; ; now += 0.01) {
    const size = arrivals.filter((at) => at <= now).length;
    if (size > 0 && !gathering.goesOn(size, callers, now)) {
      gathering.took(size);
      return { at: now, size };
    }
  }
}

describe("a group of proposals", () => {
  it("has half of many callers, or what has come in a few turns", () => {
    const gathering = after(1);
    expect(gathering.goesOn(50, 100, 0)).toBe(false);
    expect([1, 2, 3, 4].map(() => gathering.goesOn(20, 100, 0))).toEqual([true, true, true, false]);
    gathering.took(20);
    expect(gathering.goesOn(49, 100, 0)).toBe(true);
  });

  it("grows to all of a few callers who come in two parts, and then waits for no more", () => {
    const gathering = after(2);
    const sizes: number[] = [];
    for (let i = 0; i < 16; i++) {
      // Five are there, five come back a little later; who has been with all of them comes with all of them.
      const { size, at } = group(gathering, 10, [0, 0, 0, 0, 0, 0.1, 0.12, 0.14, 0.16, 0.18]);
      sizes.push(size);
      if (i % 8 !== 0) expect(at).toBeLessThan(0.19);
    }
    expect(sizes).toEqual(sizes.map(() => 10));
  });

  it("lets a single caller go, but for a look now and then whether there are others", () => {
    const gathering = after(2);
    const times = Array.from({ length: 16 }, () => group(gathering, 1, [0]).at);
    expect(times.filter((at) => at > 0).length).toBe(2);
    expect(Math.max(...times)).toBeLessThan(0.27);
  });

  it("forgets callers who do not come any more", () => {
    const gathering = after(2);
    for (let i = 0; i < 4; i++) expect(group(gathering, 8, [0, 0, 0, 0, 0.1, 0.1, 0.1, 0.1]).size).toBe(8);
    const times = Array.from({ length: 20 }, () => group(gathering, 1, [0]).at);
    expect(times.slice(-12).filter((at) => at > 0).length).toBeLessThanOrEqual(2);
  });

  it("never waits for longer than a third of a save", () => {
    const gathering = after(3);
    const { at, size } = group(
      gathering,
      60,
      Array.from({ length: 60 }, (_, i) => i * 0.1),
    );
    expect(at).toBeLessThan(1.02);
    expect(size).toBe(11);
  });
});
