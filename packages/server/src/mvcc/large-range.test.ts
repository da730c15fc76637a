// Answers that are too large to be held are read again while they are sent: the bytes must be the same.
import { PutRequest, RangeRequest, SortOrder, SortTarget } from "@etcd-ts/client/wire";
import { expect, it } from "vitest";
import { yieldToEventLoop } from "../lib/wait.ts";
import { EncodedKeyValues } from "./range-body.ts";
import { runRange } from "./range.ts";
import { ANSWER_BYTES_MAX, ANSWER_PART_BYTES } from "./limits.ts";
import type { BackendSnapshot } from "../storage/index.ts";
import { Harness } from "./testing/harness.ts";
import type { EncodedRange, LargeRange } from "./types.ts";

const ALL = { key: Buffer.from("k"), rangeEnd: Buffer.from("l") };

function putMany(harness: Harness, keys: number, valueBytes: (i: number) => number): void {
  for (let i = 0; i < keys; i++) {
    put(harness, `k${String(i).padStart(5, "0")}`, Buffer.alloc(valueBytes(i), i));
  }
}

function put(harness: Harness, key: string, value: Uint8Array): void {
  harness.write((tx) => harness.store.put(tx, PutRequest.create({ key: Buffer.from(key), value })));
}

/** The answer made at once, as a small one is. */
function whole(harness: Harness, request: RangeRequest) {
  const sink = new EncodedKeyValues();
  const result = runRange(harness.store, request, sink);
  return { bytes: Buffer.concat(sink.finish(result)), ...result };
}

it("a large range gives the same bytes in parts, at its own revision, whatever is written meanwhile", async () => {
  await using harness = await Harness.open({ heldAnswersBytesMax: 0 });
  // Many small ones, then few large ones: parts must neither grow nor shrink without bound.
  putMany(harness, 300, (i) => (i < 200 ? 100 : 60_000));
  const { store } = harness;
  const requests = [
    RangeRequest.create(ALL),
    RangeRequest.create({ ...ALL, limit: 290 }),
    RangeRequest.create({ ...ALL, limit: 300 }),
    RangeRequest.create({ ...ALL, revision: store.currentRevision - 5 }),
    RangeRequest.create({ ...ALL, sortOrder: SortOrder.Ascend, sortTarget: SortTarget.Key }),
    RangeRequest.create({ key: Buffer.from("k"), rangeEnd: Uint8Array.of(0) }),
  ];
  for (const request of requests) {
    const expected = whole(harness, request);
    expect(expected.bytes.length).toBeGreaterThan(ANSWER_BYTES_MAX);
    expect(store.rangeEncodedAtOnce(request)).toBeUndefined();
    const { pieces, rest, count, more } = await store.list(request, undefined);
    expect([pieces, rest?.byteLength, count, more]).toEqual([[], expected.bytes.length, expected.count, expected.more]);
    const parts: Buffer[] = [];
    for (const some of rest?.pieces() ?? []) {
      parts.push(Buffer.concat(some));
      // Somebody writes in between: over what was read, over what was not, and new keys.
      if (parts.length % 3 === 1) {
        put(harness, `k${String(parts.length * 37).padStart(5, "0")}x`, Buffer.alloc(10));
        put(harness, "k00250", Buffer.alloc(70_000 + parts.length));
      }
    }
    expect(Buffer.concat(parts).equals(expected.bytes)).toBe(true);
    expect(Math.max(...parts.map((part) => part.length))).toBeLessThan(ANSWER_PART_BYTES + 71_000);
  }
});

it("what is not in the order of the store, and what is small, is made at once", async () => {
  await using harness = await Harness.open();
  putMany(harness, 100, () => 60_000);
  const { store } = harness;
  for (const request of [
    RangeRequest.create({ ...ALL, sortOrder: SortOrder.Descend, sortTarget: SortTarget.Key }),
    RangeRequest.create({ ...ALL, minModRevision: 1 }),
    RangeRequest.create({ ...ALL, keysOnly: true }),
    RangeRequest.create({ ...ALL, countOnly: true }),
    RangeRequest.create({ ...ALL, limit: 3 }),
    RangeRequest.create({ ...ALL, limit: 3, revision: store.currentRevision - 1 }),
  ]) {
    const { pieces, rest } = store.rangeEncodedAtOnce(request) as EncodedRange;
    expect(rest).toBeUndefined();
    expect(Buffer.concat(pieces).equals(whole(harness, request).bytes)).toBe(true);
  }
});

/** Reads an answer of 6 MB to its end while the store moves on; true when what was sent is what was measured. */
async function readBesideCompaction(harness: Harness, request: RangeRequest, between: () => void): Promise<boolean> {
  const { store } = harness;
  const expected = whole(harness, request);
  const { rest } = await store.list(request, undefined);
  const reading = (rest as LargeRange).pieces()[Symbol.iterator]();
  const parts = [...(reading.next().value as Uint8Array[])];
  for (let i = 0; i < 100; i++) put(harness, `k${String(i).padStart(5, "0")}`, Buffer.alloc(1));
  const { done } = harness.write((tx) => store.compact(tx, store.currentRevision));
  await done;
  between();
  for (let next = reading.next(); !next.done; next = reading.next()) parts.push(...next.value);
  return Buffer.concat(parts).equals(expected.bytes);
}

it("a compaction takes nothing from an answer that is being sent, now or of an older revision", async () => {
  await using harness = await Harness.open({ heldAnswersBytesMax: 0 });
  putMany(harness, 100, () => 60_000);
  const { currentRevision } = harness.store;
  expect(await readBesideCompaction(harness, RangeRequest.create(ALL), () => {})).toBe(true);
  putMany(harness, 100, () => 60_000);
  const older = RangeRequest.create({ ...ALL, revision: harness.store.currentRevision });
  put(harness, "k00001", Buffer.alloc(1));
  expect(await readBesideCompaction(harness, older, () => {})).toBe(true);
  // And its revision is not for others any more.
  expect(() => harness.store.rangeEncodedAtOnce({ ...older, revision: currentRevision })).toThrow(/has been compacted/);
  await expect(harness.store.list({ ...older, revision: currentRevision }, undefined)).rejects.toThrow(
    /has been compacted/,
  );
});

it("an answer that takes too long goes on from the store, and fails once a compaction was quicker", async () => {
  await using harness = await Harness.open({ longRangeHeldMs: 60_000, heldAnswersBytesMax: 0 });
  putMany(harness, 100, () => 60_000);
  const { store } = harness;
  const { rest } = await store.list(RangeRequest.create(ALL), undefined);
  const expected = whole(harness, RangeRequest.create(ALL));
  harness.clock.advance(60_001);
  expect(Buffer.concat([...(rest as LargeRange).pieces()].flat()).equals(expected.bytes)).toBe(true);
  const reading = readBesideCompaction(harness, RangeRequest.create(ALL), () => harness.clock.advance(60_001));
  await expect(reading).rejects.toThrow(/required revision has been compacted/);
});

it("an answer that is not wanted any more lets go of its snapshot", async () => {
  await using harness = await Harness.open({ heldAnswersBytesMax: 0 });
  putMany(harness, 100, () => 60_000);
  const opened: BackendSnapshot[] = [];
  const open = harness.backend.openSnapshot.bind(harness.backend);
  let closed = 0;
  harness.backend.openSnapshot = async () => {
    const snapshot = await open();
    opened.push(snapshot);
    const close = snapshot.close.bind(snapshot);
    snapshot.close = () => {
      closed++;
      close();
    };
    return snapshot;
  };
  const abort = new AbortController();
  await harness.store.list(RangeRequest.create(ALL), abort.signal);
  expect([opened.length, closed]).toEqual([1, 0]);
  abort.abort(new Error("gone"));
  expect(closed).toBe(1);
  const { rest } = await harness.store.list(RangeRequest.create(ALL), undefined);
  for (const _part of (rest as LargeRange).pieces()) break;
  expect([opened.length, closed]).toEqual([2, 2]);
});

it("an answer that may be held is read once and needs no snapshot, and counts until it has been sent", async () => {
  await using harness = await Harness.open({ heldAnswersBytesMax: 3_000_000 });
  putMany(harness, 100, () => 60_000);
  const { store, backend } = harness;
  while (store.stats.keys === undefined) await yieldToEventLoop();
  const request = RangeRequest.create(ALL);
  const expected = whole(harness, request);
  let snapshots = 0;
  const open = backend.openSnapshot.bind(backend);
  backend.openSnapshot = () => {
    snapshots++;
    return open();
  };
  const abort = new AbortController();
  const first = await store.list(request, abort.signal);
  expect([first.rest?.byteLength, first.pieces, snapshots]).toEqual([expected.bytes.length, [], 0]);
  // There is no room for a second one, so it is measured, and pins what it will read.
  const second = await store.list(request, undefined);
  expect(snapshots).toBe(1);
  put(harness, "k00050", Buffer.alloc(10));
  harness.write((tx) => store.compact(tx, store.currentRevision));
  for (const { rest } of [first, second]) {
    const parts = [...(rest as LargeRange).pieces()].map((some) => Buffer.concat(some));
    expect(Buffer.concat(parts).equals(expected.bytes)).toBe(true);
    expect(Math.max(...parts.map((part) => part.length))).toBeLessThan(2 * ANSWER_PART_BYTES);
  }
  // The first has been sent; another that is given up leaves room as well.
  for (const how of ["sent", "aborted"]) {
    const third = await store.list(request, abort.signal);
    expect(snapshots).toBe(1);
    if (how === "sent") for (const _part of (third.rest as LargeRange).pieces()) break;
    else abort.abort();
  }
  await store.list(request, undefined);
  expect(snapshots).toBe(1);
});
