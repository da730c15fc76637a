/** The checks of listings must find each broken promise. */
import { describe, expect, it } from "vitest";
import type { Change } from "./linearizability.ts";
import { checkListings, type ListedRow, type Listing } from "./listings.ts";

const changes: readonly Change[] = [
  { revision: 2, key: "a", value: "1" },
  { revision: 3, key: "a", value: "2" },
  { revision: 3, key: "b", value: "3" },
  { revision: 5, key: "a", value: undefined },
  { revision: 6, key: "a", value: "4" },
];
const row = (key: string, value: string, createRevision: number, modRevision: number, version: number): ListedRow => ({
  key,
  value,
  createRevision,
  modRevision,
  version,
});
const b = row("b", "3", 3, 3, 1);
const rowsAt: Readonly<Record<number, readonly ListedRow[]>> = {
  1: [],
  2: [row("a", "1", 2, 2, 1)],
  3: [row("a", "2", 2, 3, 2), b],
  4: [row("a", "2", 2, 3, 2), b],
  5: [b],
  6: [row("a", "4", 6, 6, 1), b],
};
/** What an honest member answers. */
const honest = (shown: number, bent: Partial<Listing> = {}): Listing => {
  const rows = bent.rows ?? rowsAt[shown] ?? [];
  return {
    endpoint: "e",
    revision: 0,
    isSerializable: false,
    knownBefore: 0,
    answeredAt: shown,
    count: rows.length,
    rows,
    ...bent,
  };
};

describe("checkListings()", () => {
  it("accepts the past and the present, in any order", () => {
    const past = [4, 1, 3, 2, 5, 6].map((revision) => honest(revision, { revision, answeredAt: 6, knownBefore: 6 }));
    const present = [6, 3, 5].map((revision) => honest(revision, { knownBefore: revision }));
    expect(checkListings([...past, ...present], changes)).toEqual([]);
  });

  it("lets one member alone answer with what it has", () => {
    expect(checkListings([honest(3, { isSerializable: true, knownBefore: 6 })], changes)).toEqual([]);
  });

  it.each<[string, Listing, RegExp]>([
    ["a present that is past", honest(3, { knownBefore: 5 }), /5 was known already/],
    ["an answer from before what it shows", honest(5, { revision: 5, answeredAt: 3 }), /before the revision it shows/],
    ["a key that is missing", honest(3, { rows: [b], count: 2 }), /b=3 .* is listed where a=2/],
    ["a key that was deleted", honest(5, { rows: rowsAt[3] ?? [] }), /2 keys are counted where 1 live/],
    ["a value of another revision", honest(3, { rows: [row("a", "1", 2, 3, 2), b] }), /a=1 .* where a=2/],
    ["a version that counts over a deletion", honest(6, { rows: [row("a", "4", 6, 6, 3), b] }), /version 3.*version 1/],
    ["a creation that was another's", honest(6, { rows: [row("a", "4", 2, 6, 1), b] }), /created 2.*created 6/],
    ["a wrong count", honest(6, { count: 3 }), /3 keys are counted where 2 live/],
  ])("catches %s", (_what, listing, problem) => {
    expect(checkListings([listing], changes).join()).toMatch(problem);
  });
});
