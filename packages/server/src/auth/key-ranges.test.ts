import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { EMPTY_BYTES, utf8Bytes } from "../lib/bytes.ts";
import { KeyRanges } from "./key-ranges.ts";
import { Atoms } from "./testing/atoms.ts";

const range = (key: string, rangeEnd = "") => ({ key: utf8Bytes(key), rangeEnd: utf8Bytes(rangeEnd) });
const covers = (ranges: KeyRanges, key: string, end = "") => ranges.covers(utf8Bytes(key), utf8Bytes(end));

describe("KeyRanges", () => {
  it("joins what overlaps or touches", () => {
    const ranges = new KeyRanges([range("c", "e"), range("a", "c"), range("b", "d"), range("x")]);
    expect(covers(ranges, "a", "e")).toBe(true);
    expect(covers(ranges, "a", "f")).toBe(false);
    expect(covers(ranges, "b")).toBe(true);
    expect(covers(ranges, "e")).toBe(false);
  });

  it("one key is itself alone, and joins with the keys right behind it", () => {
    const ranges = new KeyRanges([range("k"), range("k\0", "l")]);
    expect(covers(ranges, "k")).toBe(true);
    expect(covers(ranges, "k", "l")).toBe(true);
    expect(covers(new KeyRanges([range("k")]), "k\0")).toBe(false);
    expect(covers(new KeyRanges([range("k")]), "k", "k\0")).toBe(true);
  });

  it("an end of one zero byte is the end of the key space", () => {
    const ranges = new KeyRanges([range("m", "\0"), range("z", "zz")]);
    expect(covers(ranges, "m", "\0")).toBe(true);
    expect(covers(ranges, "\x7fz", "\0")).toBe(true);
    expect(covers(ranges, "l", "\0")).toBe(false);
    expect(covers(new KeyRanges([range("\0", "\0")]), "\0", "\0")).toBe(true);
    expect(covers(new KeyRanges([range("a", "z")]), "b", "\0")).toBe(false);
  });

  it("nothing covers nothing", () => {
    expect(new KeyRanges([]).covers(utf8Bytes("k"), EMPTY_BYTES)).toBe(false);
    expect(covers(new KeyRanges([range("c", "a")]), "c")).toBe(false);
  });

  it("agrees with a list of all pieces of the key space", () => {
    const keys = ["\0", "a", "aa", "b", "b\0", "c", "d", "e"].map(utf8Bytes);
    const atoms = new Atoms([...keys, Uint8Array.of(0xff), Uint8Array.of(0xff, 0xff)]);
    const key = fc.constantFrom(...keys, Uint8Array.of(0xff), Uint8Array.of(0xff, 0xff));
    const anyRange = fc.record({ key, rangeEnd: fc.oneof(key, fc.constant(EMPTY_BYTES)) });
    fc.assert(
      fc.property(fc.array(anyRange, { maxLength: 6 }), anyRange, (granted, asked) => {
        const allowed = atoms.starts.map((_, i) => granted.some((each) => atoms.inRange(each)[i]));
        const expected = atoms.asked(asked).every((i) => allowed[i]);
        expect(new KeyRanges(granted).covers(asked.key, asked.rangeEnd)).toBe(expected);
      }),
      { numRuns: 2000 },
    );
  });
});
