/** The checks of watches must find each broken promise. */
import { describe, expect, it } from "vitest";
import type { Change } from "./linearizability.ts";
import { checkStream, type RecordedEvent, type RecordedResponse, type RecordedStream } from "./watching.ts";

const changes: readonly Change[] = [
  { revision: 2, key: "a", value: "1" },
  { revision: 3, key: "a", value: "2" },
  { revision: 3, key: "b", value: "3" },
  { revision: 5, key: "a", value: undefined },
  { revision: 6, key: "b", value: "4" },
];
const previous = [undefined, "1", undefined, "2", "3"];
const events: readonly RecordedEvent[] = changes.map((change, i) => ({ ...change, previous: previous[i] }));

const told = (...numbers: number[]): RecordedResponse => {
  const some = numbers.map((n) => events[n] as RecordedEvent);
  return { revision: some.at(-1)?.revision ?? 0, isForAll: false, events: some };
};
const progress = (revision: number): RecordedResponse => ({ revision, isForAll: false, events: [] });
const check = (from: number, ...responses: RecordedResponse[]): string[] => {
  const stream: RecordedStream = { name: "w", endpoint: "e", from, responses };
  return checkStream(stream, changes);
};

describe("checkStream()", () => {
  it("accepts what a watch may tell, however it is cut into responses", () => {
    expect(check(1, told(0, 1, 2, 3, 4))).toEqual([]);
    expect(check(1, told(0), progress(2), told(1, 2), progress(4), told(3), told(4), progress(6))).toEqual([]);
    expect(check(4, told(3, 4))).toEqual([]);
    expect(check(7, progress(6))).toEqual([]);
  });

  it.each<[string, number, RecordedResponse[], RegExp]>([
    ["an event that is missing", 1, [told(0), told(3)], /revision 5 delete a where revision 3 put a=2 was due/],
    ["one that comes twice", 1, [told(0), told(0)], /later response/],
    ["events out of order", 1, [told(3), told(0)], /where revision 2/],
    ["a revision that is told in part", 1, [told(0, 1)], /revision 3 was told in part/],
    ["a revision in two responses", 1, [told(0, 1), told(2)], /told in part/],
    ["a start too late", 3, [told(3)], /where revision 3 put a=2 was due/],
    ["a start too early", 3, [told(0)], /where revision 3 put a=2 was due/],
    ["progress ahead of its events", 1, [told(0), progress(3)], /all up to 3 was told/],
  ])("catches %s", (_what, from, responses, problem) => {
    expect(check(from, ...responses).join()).toMatch(problem);
  });

  it("catches a wrong value, an invented event, a wrong value before", () => {
    const bent = (n: number, change: Partial<RecordedEvent>): RecordedResponse => ({
      revision: 2,
      isForAll: false,
      events: [{ ...(events[n] as RecordedEvent), ...change }],
    });
    expect(check(1, bent(0, { value: "x" })).join()).toMatch(/put a=x where revision 2 put a=1/);
    expect(check(7, bent(0, { revision: 7 })).join()).toMatch(/where nothing was due/);
    expect(check(5, bent(3, { previous: "1" })).join()).toMatch(/came with 1 as the value before, not 2/);
  });
});
