// Answers that are too large to be held are read again while they are sent: the bytes must be the same.
import { PutRequest, RangeRequest, SortOrder, SortTarget } from "@etcd-ts/client/wire";
import { expect, it } from "vitest";
import { EncodedKeyValues } from "./range-body.ts";
import { runRange } from "./range.ts";
import { ANSWER_BYTES_MAX, ANSWER_PART_BYTES } from "./limits.ts";
import { Harness } from "./testing/harness.ts";

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
  await using harness = await Harness.open();
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
    const { pieces, rest, count, more } = store.rangeEncoded(request);
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
  ]) {
    const { pieces, rest } = store.rangeEncoded(request);
    expect(rest).toBeUndefined();
    expect(Buffer.concat(pieces).equals(whole(harness, request).bytes)).toBe(true);
  }
});

it("a compaction that is quicker than the reader ends the answer with an error", async () => {
  await using harness = await Harness.open();
  putMany(harness, 100, () => 60_000);
  const { store } = harness;
  const { rest } = store.rangeEncoded(RangeRequest.create(ALL));
  const reading = rest?.pieces()[Symbol.iterator]();
  expect(reading?.next().done).toBe(false);
  put(harness, "k00001", Buffer.alloc(1));
  harness.write((tx) => store.compact(tx, store.currentRevision));
  expect(() => {
    while (reading?.next().done === false);
  }).toThrow(/required revision has been compacted/);
});
