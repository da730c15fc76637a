// Listings by blocks, whose pairs are kept from one to the next, against a map that remembers every revision.
import { DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse } from "@etcd-ts/client/wire";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { utf8Text } from "../lib/bytes.ts";
import { Counts } from "./counts.ts";
import { OLD_RANGE_CHUNK_KEYS } from "./limits.ts";
import { listAt } from "./listing.ts";
import { type BlockPairs, PairCache, PairWriter } from "./pair-cache.ts";
import { EncodedKeyValues } from "./range-body.ts";
import { Harness } from "./testing/harness.ts";
import type { EncodedRange } from "./types.ts";
import { encodeKeyValue } from "../storage/index.ts";

const keyOf = (n: number): string => (n % 17 === 16 ? `k${"x".repeat(1950)}${n}` : `k${String(n).padStart(2, "0")}`);
const number = fc.integer({ min: 0, max: 79 });
const bounds = fc.record({
  from: number,
  to: number,
  limit: fc.constantFrom(0, 0, 0, 1, 3, 7, 20),
  isOpen: fc.boolean(),
});

const step = fc.oneof(
  { weight: 6, arbitrary: fc.record({ kind: fc.constant("put" as const), n: number }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("delete" as const), n: number, width: fc.nat({ max: 9 }) }) },
  { weight: 6, arbitrary: fc.record({ kind: fc.constant("list" as const), bounds }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("slices" as const), bounds, writes: fc.array(number) }) },
  { weight: 1, arbitrary: fc.constant({ kind: "compact" as const }) },
  { weight: 1, arbitrary: fc.constant({ kind: "rest" as const }) },
  { weight: 1, arbitrary: fc.constant({ kind: "restart" as const }) },
);

const linesOf = ({ pieces, rest }: EncodedRange): string[] => {
  const bytes = Buffer.concat([...pieces, ...[...(rest?.pieces() ?? [])].flat()]);
  return RangeResponse.decode(bytes).kvs.map(
    ({ key, value, modRevision }) => `${utf8Text(key)}=${utf8Text(value)}@${modRevision}`,
  );
};

describe("listings by blocks", () => {
  it("give the pairs of one revision, whatever is kept and whatever is written between their slices", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 120, size: "max" }), async (steps) => {
        await using harness = await Harness.open({ countBlockKeys: 4, listSliceKeys: 3 });
        const living = new Map<string, string>();
        const history = new Map<number, string[]>();
        let writes = 0;
        const remember = (): void => {
          const sorted = [...living].sort(([a], [b]) => (a < b ? -1 : 1));
          history.set(
            harness.store.currentRevision,
            sorted.map(([key, value]) => `${key}=${value}`),
          );
        };
        const put = (n: number): void => {
          const value = `v${writes++}`;
          const request = PutRequest.create({ key: Buffer.from(keyOf(n)), value: Buffer.from(value) });
          harness.write((tx) => harness.store.put(tx, request));
          living.set(keyOf(n), `${value}@${harness.store.currentRevision}`);
          remember();
        };
        const remove = (from: string, end: string): void => {
          const request = DeleteRangeRequest.create({ key: Buffer.from(from), rangeEnd: Buffer.from(end) });
          harness.write((tx) => harness.store.deleteRange(tx, request));
          for (const key of living.keys()) if (key >= from && key < end) living.delete(key);
          remember();
        };
        const requestOf = ({ from, to, limit, isOpen }: { from: number; to: number; limit: number; isOpen: boolean }) =>
          RangeRequest.create({
            key: Buffer.from(keyOf(from)),
            rangeEnd: isOpen ? Uint8Array.of(0) : Buffer.from(keyOf(to)),
            limit,
          });
        const check = (request: RangeRequest, found: EncodedRange, revision: number): void => {
          const [from, end] = [utf8Text(request.key), utf8Text(request.rangeEnd)];
          const all = (history.get(revision) ?? []).filter((line) => {
            const key = line.slice(0, line.indexOf("="));
            return key >= from && (end === "\0" || key < end);
          });
          const wanted = request.limit > 0 ? all.slice(0, request.limit) : all;
          expect(linesOf(found)).toEqual(wanted);
          expect([found.count, found.more]).toEqual([all.length, wanted.length < all.length]);
        };
        remember();
        for (let n = 0; n < 40; n++) put(n);
        while (harness.store.stats.keys === undefined) await new Promise(setImmediate);
        for (const one of steps) {
          if (one.kind === "put") put(one.n);
          else if (one.kind === "delete") remove(keyOf(one.n), `${keyOf(one.n + one.width)}~`);
          else if (one.kind === "compact") {
            const { currentRevision, compactRevision } = harness.store;
            if (currentRevision > compactRevision) harness.write((tx) => harness.store.compact(tx, currentRevision));
          } else if (one.kind === "rest") harness.clock.advance(60_000);
          else if (one.kind === "restart") await harness.restart();
          else if (one.kind === "list") {
            const request = requestOf(one.bounds);
            check(request, harness.store.rangeEncodedAtOnce(request) as EncodedRange, harness.store.currentRevision);
          } else {
            const request = requestOf(one.bounds);
            let isDone = false;
            const listing = harness.store.list(request, undefined).finally(() => {
              isDone = true;
            });
            for (const n of one.writes) {
              if (n % 5 === 4) remove(keyOf(n), `${keyOf(n + 2)}~`);
              else put(n);
              if (n === 7) harness.write((tx) => harness.store.compact(tx, harness.store.currentRevision));
              await new Promise(setImmediate);
              if (isDone) break;
            }
            const found = await listing;
            check(request, found, found.revision);
          }
        }
      }),
      { numRuns: 20 },
    );
  });
});

const pairsOf = (valueBytes: number): BlockPairs => {
  const writer = new PairWriter();
  const fields = { createRevision: 2, modRevision: 2, version: 1, value: Buffer.alloc(valueBytes), lease: 0n };
  writer.add(encodeKeyValue({ ...fields, key: Buffer.from("a") }));
  return writer.finish(2);
};

it("a block is made of the one that was kept, as of a revision that changes came before and after", async () => {
  await using harness = await Harness.open({ countBlockKeys: 4, listSliceKeys: 3 });
  const { store } = harness;
  const all = Array.from({ length: 40 }, (_, n) => `k${String(n).padStart(2, "0")}`);
  const living = new Map<string, string>();
  const put = (key: string, value: string): void => {
    const request = PutRequest.create({ key: Buffer.from(key), value: Buffer.from(value) });
    harness.write((tx) => store.put(tx, request));
    living.set(key, `${key}=${value}@${store.currentRevision}`);
  };
  const remove = (key: string): void => {
    harness.write((tx) => store.deleteRange(tx, DeleteRangeRequest.create({ key: Buffer.from(key) })));
    living.delete(key);
  };
  const lines = (): string[] => [...living].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, line]) => line);
  for (const key of all) put(key, "first");
  while (store.stats.keys === undefined) await new Promise(setImmediate);
  const request = RangeRequest.create({ key: Buffer.from("k"), rangeEnd: Buffer.from("l") });
  expect(linesOf(store.rangeEncodedAtOnce(request) as EncodedRange)).toEqual(lines());
  // Two blocks fill the first slice; those of the last keys come in the second one.
  put("k02", "second");
  put("k11", "second");
  put("k30", "second");
  remove("k35");
  put("k38x", "second");
  const expected = lines();
  const listing = store.list(request, undefined);
  await new Promise(setImmediate);
  for (const key of ["k30", "k35", "k38x", "k39"]) put(key, "third");
  remove("k31");
  const found = await listing;
  expect(linesOf(found)).toEqual(expected);
  expect(found.revision).toBeLessThan(store.currentRevision);
  expect(linesOf(store.rangeEncodedAtOnce(request) as EncodedRange)).toEqual(lines());
});

it("a listing of what has been deleted since reads it a bounded piece at a time", async () => {
  await using harness = await Harness.open({ countBlockKeys: 4 });
  const { store, backend } = harness;
  for (let i = 0; i < 25; i++) {
    harness.write((tx) => {
      for (let n = 0; n < 60; n++) {
        const key = Buffer.from(`k${String(i * 60 + n).padStart(5, "0")}`);
        store.put(tx, PutRequest.create({ key, value: Buffer.from("v") }));
      }
    });
  }
  const counts = new Counts({ blockKeys: 4 }, new PairCache(1));
  counts.start(backend, new AbortController().signal);
  await counts.stopped();
  const revision = store.currentRevision;
  expect(counts.track(revision)).toBe(true);
  const request = DeleteRangeRequest.create({ key: Buffer.from("k"), rangeEnd: Buffer.from("l") });
  harness.write((tx) => store.deleteRange(tx, request));
  for (let i = 0; i < 1500; i++) counts.removed(Buffer.from(`k${String(i).padStart(5, "0")}`), revision + 1);
  const source = { reader: backend, counts, revision, nowMs: 0 };
  const bounds = { keysMax: 1e9, readKeysMax: 8, readBytesMax: 1e9, addedBytesMax: 1e9 };
  const steps: number[] = [];
  for (let start: Uint8Array | undefined = Buffer.from("k"); start; ) {
    const end = Buffer.from("l");
    const { keys, next } = listAt(source, { start, end, isSingle: false }, bounds, new EncodedKeyValues());
    steps.push(keys);
    start = next;
  }
  expect(steps.reduce((sum, keys) => sum + keys, 0)).toBe(1500);
  expect(Math.max(...steps)).toBeLessThanOrEqual(OLD_RANGE_CHUNK_KEYS);
});

describe("PairCache", () => {
  it("keeps what is in use, and takes nothing in when that is all it has room for", () => {
    const cache = new PairCache(2500);
    const [first, second, third] = [pairsOf(1000), pairsOf(1000), pairsOf(1000)];
    expect([cache.offer(first, 0), cache.offer(second, 0), cache.offer(third, 5_000)]).toEqual([true, true, false]);
    first.usedMs = 9_000;
    expect(cache.offer(third, 12_000)).toBe(true);
    expect([first.isDropped, second.isDropped]).toEqual([false, true]);
    cache.drop(first);
    cache.drop(third);
    expect([cache.bytes, cache.isEmpty]).toEqual([0, true]);
  });
});
