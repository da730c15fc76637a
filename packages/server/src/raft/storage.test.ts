// The storage in memory, whose older entries are packed, against a plain array.
import fc from "fast-check";
import { expect, it } from "vitest";
import type { Entry } from "../pb/raftpb.ts";
import { entriesSize } from "./entry-size.ts";
import { emptyConfState, MemoryStorage, RaftStorageError } from "./storage.ts";

const data = fc.oneof(
  { weight: 6, arbitrary: fc.uint8Array({ maxLength: 12 }) },
  { weight: 1, arbitrary: fc.constant(undefined) },
  { weight: 1, arbitrary: fc.constant(new Uint8Array(20_000).fill(7)) },
);
const step = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      kind: fc.constant("append" as const),
      data: fc.array(data, { maxLength: 9 }),
      back: fc.nat(3),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constant("replace" as const), part: fc.double({ min: 0, max: 1, noNaN: true }) }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constant("compact" as const), part: fc.double({ min: 0, max: 1, noNaN: true }) }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("receive" as const), ahead: fc.nat(20) }) },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant("read" as const),
      from: fc.double({ min: 0, max: 1, noNaN: true }),
      count: fc.nat(40),
      bytesMax: fc.constantFrom(0, 10, 100, 30_000, Number.POSITIVE_INFINITY),
    }),
  },
);

const textOf = (entries: readonly Entry[]): string =>
  entries
    .map(({ term, index, type, data }) => {
      return `${index} of ${term}, ${type}: ${data && Buffer.from(data).toString("base64")}`;
    })
    .join("\n");

it("MemoryStorage gives what was appended, whatever is packed, replaced and forgotten", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 80, size: "max" }), (steps) => {
      const storage = new MemoryStorage(4);
      let model: Entry[] = [];
      let offset = 0;
      let offsetTerm = 0;
      let term = 1;
      const last = (): number => offset + model.length;
      const append = (first: number, all: readonly (Uint8Array | undefined)[]): void => {
        const entries = all.map((bytes, i) => ({ term, index: first + i, type: i % 3, data: bytes }) as Entry);
        storage.append(entries);
        const kept = entries.filter(({ index }) => index > offset);
        const start = kept[0];
        if (start) model = [...model.slice(0, start.index - offset - 1), ...kept];
      };
      for (const one of steps) {
        if (one.kind === "append")
          append(Math.max(1, last() + 1 - (one.data.length > one.back ? one.back : 0)), one.data);
        else if (one.kind === "replace") {
          term++;
          append(offset + 1 + Math.floor(one.part * model.length), [Uint8Array.of(term)]);
        } else if (one.kind === "compact" && model.length > 0) {
          const index = offset + 1 + Math.floor(one.part * (model.length - 1));
          offsetTerm = (model[index - offset - 1] as Entry).term;
          storage.compact(index);
          model = model.slice(index - offset);
          offset = index;
        } else if (one.kind === "receive") {
          offset = last() + 1 + one.ahead;
          offsetTerm = term;
          model = [];
          storage.applySnapshot({ data: undefined, metadata: { index: offset, term, confState: emptyConfState() } });
        } else if (one.kind === "read" && model.length > 0) {
          const lo = offset + 1 + Math.floor(one.from * (model.length - 1));
          const hi = Math.min(last() + 1, lo + one.count);
          const expected = model.slice(lo - offset - 1, hi - offset - 1);
          while (expected.length > 1 && entriesSize(expected) > one.bytesMax) expected.pop();
          expect(textOf(storage.entries(lo, hi, one.bytesMax))).toBe(textOf(expected));
        }
        expect([storage.firstIndex(), storage.lastIndex(), storage.term(offset)]).toEqual([
          offset + 1,
          last(),
          offsetTerm,
        ]);
        expect(model.map(({ index }) => storage.term(index)).join()).toBe(model.map((entry) => entry.term).join());
        if (offset > 0) expect(() => storage.entries(offset, last() + 1, 0)).toThrow(RaftStorageError);
      }
      if (model.length > 0) {
        expect(textOf(storage.entries(offset + 1, last() + 1, Number.POSITIVE_INFINITY))).toBe(textOf(model));
      }
    }),
    { numRuns: 60 },
  );
});
