import {
  Compare,
  CompareResult,
  CompareTarget,
  DeleteRangeRequest,
  EtcdError,
  Event,
  EventType,
  type KeyValue,
  PutRequest,
  RangeRequest,
  RangeResponse,
  type RequestOp,
  SortOrder,
  SortTarget,
  TxnRequest,
  type TxnResponse,
  WatchResponse,
} from "@etcd-ts/client/wire";
import { describe, expect, it } from "vitest";
import { deferred } from "../lib/wait.ts";
import { readCompactRevisions } from "../storage/index.ts";
import { LISTS_MAX } from "./limits.ts";
import { Harness } from "./testing/harness.ts";
import type { EncodedRange } from "./types.ts";
import { piecesOf } from "./watch/event.ts";

const bytes = (text: string): Buffer => Buffer.from(text, "latin1");
const text = (value: Uint8Array): string => Buffer.from(value).toString("latin1");
const names = (kvs: readonly KeyValue[]): string => kvs.map((kv) => text(kv.key)).join(" ");

function put(harness: Harness, key: string, value = "", more: Partial<PutRequest> = {}) {
  const request = PutRequest.create({ key: bytes(key), value: bytes(value), ...more });
  return harness.write((tx) => harness.store.put(tx, request));
}

function del(harness: Harness, key: string, rangeEnd = "") {
  const request = { key: bytes(key), rangeEnd: bytes(rangeEnd), prevKv: false };
  return harness.write((tx) => harness.store.deleteRange(tx, request));
}

const get = (harness: Harness, key: string, rangeEnd = "", more: Partial<RangeRequest> = {}) =>
  harness.store.range(RangeRequest.create({ key: bytes(key), rangeEnd: bytes(rangeEnd), ...more }));

const op = {
  put: (key: string, value = "", more: Partial<PutRequest> = {}): RequestOp => ({
    request: { kind: "requestPut", value: PutRequest.create({ key: bytes(key), value: bytes(value), ...more }) },
  }),
  del: (key: string, rangeEnd = ""): RequestOp => ({
    request: { kind: "requestDeleteRange", value: { key: bytes(key), rangeEnd: bytes(rangeEnd), prevKv: false } },
  }),
  range: (key: string, more: Partial<RangeRequest> = {}): RequestOp => ({
    request: { kind: "requestRange", value: RangeRequest.create({ key: bytes(key), ...more }) },
  }),
  txn: (request: TxnRequest): RequestOp => ({ request: { kind: "requestTxn", value: request } }),
};

function txn(harness: Harness, success: RequestOp[], compare: Compare[] = [], failure: RequestOp[] = []): TxnResponse {
  return harness.write((tx) => harness.store.txn(tx, TxnRequest.create({ compare, success, failure })));
}

/** A listing as bytes, read again. */
const decoded = ({ pieces }: { readonly pieces: readonly Uint8Array[] }) => RangeResponse.decode(Buffer.concat(pieces));
/** Pairs as lines: thousands of them are compared in no time, and their difference can be read. */
const lines = ({ kvs }: { readonly kvs: readonly KeyValue[] }): string[] =>
  kvs.map((kv) => [text(kv.key), text(kv.value), kv.createRevision, kv.modRevision, kv.version].join(" "));

describe("list()", () => {
  const all = RangeRequest.create({ key: bytes("k"), rangeEnd: bytes("l") });
  /** More keys than a slice takes, long ones with the same beginning among them. */
  const keys = [
    ...Array.from({ length: 2500 }, (_, i) => `k${String(i * 7).padStart(6, "0")}`),
    ...Array.from({ length: 5 }, (_, i) => `k007${"x".repeat(2000)}${i}`),
  ].sort();

  async function filled(): Promise<Harness> {
    const harness = await Harness.open();
    for (const key of keys) put(harness, key, `value of ${key.slice(0, 20)}`);
    put(harness, "j", "outside");
    put(harness, "l", "outside");
    return harness;
  }

  it("gives in slices what a range gives at once", async () => {
    await using harness = await filled();
    expect(harness.store.rangeEncodedAtOnce(all)).toBeUndefined();
    const listed = await harness.store.list(all, undefined);
    expect(listed).toMatchObject({ count: keys.length, more: false, revision: harness.store.currentRevision });
    expect(lines(decoded(listed))).toEqual(lines(get(harness, "k", "l")));
    expect(decoded(listed).kvs.map(({ key }) => text(key))).toEqual(keys);
  });

  it("gives older revisions and keys alone in slices, too", async () => {
    await using harness = await filled();
    const revision = harness.store.currentRevision;
    for (let i = 0; i < keys.length; i += 3) {
      if (i % 2 === 0) del(harness, keys[i] as string);
      else put(harness, keys[i] as string, "newer");
    }
    for (const more of [
      { keysOnly: true },
      { revision },
      { revision, keysOnly: true },
      { revision: revision - 2000 },
      { revision, limit: 1700 },
      { revision, limit: keys.length },
      { keysOnly: true, limit: 2000 },
    ]) {
      const request = { ...all, ...more };
      const expected = harness.store.range(request);
      const listed = await harness.store.list(request, undefined);
      expect(listed).toMatchObject({ count: expected.count, more: expected.more });
      expect(listed.revision).toBe(harness.store.currentRevision);
      expect(lines(decoded(listed))).toEqual(lines(expected));
    }
    expect(harness.store.rangeEncodedAtOnce({ ...all, revision })).toBeUndefined();
    expect(harness.store.rangeEncodedAtOnce({ ...all, keysOnly: true })).toBeUndefined();
    await expect(harness.store.list({ ...all, revision: 1_000_000 }, undefined)).rejects.toThrow(/future revision/);
  });

  it("is the store of one moment, whatever is written between its slices", async () => {
    await using harness = await filled();
    const before = get(harness, "k", "l");
    const revision = harness.store.currentRevision;
    const listing = harness.store.list(all, undefined);
    let isDone = false;
    const done = listing.finally(() => {
      isDone = true;
    });
    // The state is pinned when what was written before is durable; from then on nothing shows.
    await harness.backend.flush();
    await new Promise((resolve) => setImmediate(resolve));
    let turns = 0;
    for (; !isDone; turns++) {
      put(harness, keys[turns * 13] as string, "changed");
      del(harness, keys.at(-1 - turns) as string);
      put(harness, `k${"z".repeat(turns + 1)}`, "new");
      await new Promise((resolve) => setImmediate(resolve));
    }
    const listed = await done;
    expect(turns).toBeGreaterThan(1);
    expect(listed.revision).toBe(revision);
    expect(lines(decoded(listed))).toEqual(lines(before));
    expect(lines(get(harness, "k", "l", { revision }))).toEqual(lines(before));
  });

  it("is only measured when it is more than may be held, and read again as it was", async () => {
    await using harness = await Harness.open({ heldAnswersBytesMax: 0 });
    for (let i = 0; i < 1200; i++) put(harness, `k${String(i).padStart(4, "0")}`, "v".repeat(5000));
    const before = get(harness, "k", "l");
    const { pieces, rest, revision, count } = await harness.store.list(all, undefined);
    expect({ pieces, count, revision }).toEqual({ pieces: [], count: 1200, revision: harness.store.currentRevision });
    put(harness, "k0007", "changed");
    del(harness, "k1100");
    const parts = [...(rest?.pieces() ?? [])];
    expect(parts.length).toBeGreaterThan(2);
    const bytesOfParts = Buffer.concat(parts.flat());
    expect(bytesOfParts.length).toBe(rest?.byteLength);
    expect(lines(decoded({ pieces: [bytesOfParts] }))).toEqual(lines(before));
  });

  it("counts behind its limit", async () => {
    await using harness = await filled();
    const limited = { ...all, limit: 1500 };
    const listed = await harness.store.list(limited, undefined);
    expect(listed).toMatchObject({ count: keys.length, more: true });
    expect(decoded(listed).kvs.map(({ key }) => text(key))).toEqual(keys.slice(0, 1500));
    const atOnce = harness.store.rangeEncodedAtOnce(limited) as EncodedRange;
    expect(atOnce).toMatchObject({ count: keys.length, more: true });
    expect(lines(decoded(atOnce))).toEqual(lines(decoded(listed)));
    const exact = await harness.store.list({ ...all, limit: keys.length }, undefined);
    expect(exact).toMatchObject({ count: keys.length, more: false });
  });

  it("is cut off by its signal, while it waits and while it runs, and lets the next one in", async () => {
    await using harness = await filled();
    const abort = new AbortController();
    const running = Array.from({ length: LISTS_MAX + 2 }, () => harness.store.list(all, abort.signal));
    const outcomes = Promise.allSettled(running);
    abort.abort(new Error("gone"));
    for (const outcome of await outcomes) {
      expect(outcome).toMatchObject({ status: "rejected", reason: new Error("gone") });
    }
    const again = await Promise.all(
      Array.from({ length: LISTS_MAX + 2 }, () => harness.store.list(all, new AbortController().signal)),
    );
    expect(again.map(({ count }) => count)).toEqual(new Array(LISTS_MAX + 2).fill(keys.length));
  });

  it("answers at once what is small, and what it cannot cut", async () => {
    await using harness = await filled();
    for (const more of [
      { limit: 10 },
      { countOnly: true },
      { sortOrder: SortOrder.Descend },
      { sortTarget: SortTarget.Mod, sortOrder: SortOrder.Ascend },
      { minModRevision: 5 },
      { limit: 10, keysOnly: true },
      { limit: 10, revision: harness.store.currentRevision - 1 },
      { limit: 1500, keysOnly: true },
    ]) {
      const request = { ...all, ...more };
      const expected = harness.store.range(request);
      const answer = harness.store.rangeEncodedAtOnce(request) as EncodedRange;
      expect(answer).toMatchObject({ count: expected.count, more: expected.more });
      expect(lines(decoded(answer))).toEqual(lines(expected));
    }
  });
});

describe("range()", () => {
  it("reads nothing, not an error, where the end is not above the start", async () => {
    await using harness = await Harness.open();
    put(harness, "a");
    expect(get(harness, "b", "a")).toMatchObject({ kvs: [], count: 0, more: false });
    expect(get(harness, "a", "a")).toMatchObject({ kvs: [], count: 0 });
  });

  it("takes a negative revision for the newest, and the compacted one for readable", async () => {
    await using harness = await Harness.open();
    put(harness, "a", "1");
    put(harness, "a", "2");
    await harness.write((tx) => harness.store.compact(tx, 2)).done;
    expect(text((get(harness, "a", "", { revision: -5 }).kvs[0] as KeyValue).value)).toBe("2");
    expect(text((get(harness, "a", "", { revision: 2 }).kvs[0] as KeyValue).value)).toBe("1");
    expect(() => get(harness, "a", "", { revision: 1 })).toThrow(new EtcdError("Compacted"));
    expect(() => get(harness, "a", "", { revision: 4 })).toThrow(new EtcdError("FutureRevision"));
  });

  it("counts before filters and limit, and says more after them", async () => {
    await using harness = await Harness.open();
    for (const key of ["a", "b", "c", "d"]) put(harness, key);
    expect(get(harness, "a", "\0", { limit: 2 })).toMatchObject({ count: 4, more: true });
    expect(get(harness, "a", "\0", { limit: 4 })).toMatchObject({ count: 4, more: false });
    const filtered = get(harness, "a", "\0", { limit: 1, minModRevision: 4 });
    expect([names(filtered.kvs), filtered.count, filtered.more]).toEqual(["c", 4, true]);
    expect(get(harness, "a", "\0", { countOnly: true, limit: 1 })).toMatchObject({ kvs: [], count: 4, more: false });
  });

  it("sorts only the first limit + 1 keys when a target comes without an order", async () => {
    await using harness = await Harness.open();
    for (const key of ["c", "b", "a"]) put(harness, key);
    const byMod = { sortTarget: SortTarget.Mod, limit: 1 };
    expect(names(get(harness, "a", "\0", byMod).kvs)).toBe("b");
    expect(names(get(harness, "a", "\0", { ...byMod, sortOrder: SortOrder.Ascend }).kvs)).toBe("c");
    expect(names(get(harness, "a", "\0", { sortOrder: SortOrder.Descend }).kvs)).toBe("c b a");
  });

  it("answers pinned history while keys with many revisions lie in between", async () => {
    await using harness = await Harness.open();
    put(harness, "a", "old");
    put(harness, "hot", "first");
    put(harness, "z", "old");
    for (let i = 0; i < 100; i++) put(harness, "hot", String(i));
    del(harness, "a");
    expect(get(harness, "a", "\0", { revision: 4 }).kvs.map((kv) => text(kv.value))).toEqual(["old", "first", "old"]);
    expect(get(harness, "a", "\0", { revision: 60 }).kvs.map((kv) => text(kv.value))).toEqual(["old", "55", "old"]);
    expect(get(harness, "hot", "", { revision: 60 }).kvs.map((kv) => text(kv.value))).toEqual(["55"]);
  });

  it("takes chunk after chunk of an old range, with the living and the dead interleaved", async () => {
    await using harness = await Harness.open();
    const keys = Array.from({ length: 2500 }, (_, i) => `k${String(i).padStart(4, "0")}`);
    harness.write((tx) => {
      for (const key of keys) harness.store.put(tx, PutRequest.create({ key: bytes(key), value: bytes("old") }));
    });
    const revision = harness.store.currentRevision;
    del(harness, "k0100", "k2300");
    for (const key of keys.slice(2000, 2400)) put(harness, key, "new");
    const old = get(harness, "k", "l", { revision });
    expect(names(old.kvs)).toBe(keys.join(" "));
    expect(new Set(old.kvs.map((kv) => text(kv.value)))).toEqual(new Set(["old"]));
    expect(get(harness, "k", "l", { revision, limit: 7 })).toMatchObject({ count: 2500, more: true });
  });

  it("keeps keys of a megabyte apart and in order", async () => {
    await using harness = await Harness.open();
    const long = "k".repeat(1_000_000);
    for (const end of ["b", "", "a"]) put(harness, long + end, end);
    expect(get(harness, "k", "l").kvs.map((kv) => text(kv.value))).toEqual(["", "a", "b"]);
    expect(get(harness, `${long}a`).count).toBe(1);
    expect(get(harness, `${long}a`, "\0", { keysOnly: true }).kvs.length).toBe(2);
    expect(get(harness, "k", `${long}b`).count).toBe(2);
    expect(get(harness, `${long}a`, "\0", { countOnly: true }).count).toBe(2);
    for (let i = 0; i < 2000; i++) put(harness, `l${i}`);
    await harness.backend.flush();
    expect(get(harness, `${long}a`, "\0", { countOnly: true }).count).toBe(2002);
    expect(get(harness, `${long}a`, `l${long}`, { countOnly: true }).count).toBe(2002);
    del(harness, "l", "m");
    await harness.restart({ withoutIndex: true });
    del(harness, `${long}a`);
    expect(get(harness, "k", "l", { revision: 4 }).count).toBe(3);
    expect(get(harness, "k", "l").count).toBe(2);
  });
});

describe("put()", () => {
  it("refuses an unknown lease, and what is to be kept of no key, before anything is written", async () => {
    await using harness = await Harness.open();
    expect(() => put(harness, "a", "", { lease: 5n })).toThrow(new EtcdError("LeaseNotFound"));
    expect(() => put(harness, "a", "", { ignoreValue: true })).toThrow(new EtcdError("KeyNotFound"));
    expect(() => put(harness, "a", "", { ignoreLease: true })).toThrow(new EtcdError("KeyNotFound"));
    expect(harness.store.currentRevision).toBe(1);
  });

  it("keeps value or lease when asked to", async () => {
    await using harness = await Harness.open();
    harness.leases.add(5n);
    put(harness, "a", "v", { lease: 5n });
    put(harness, "a", "w", { ignoreLease: true });
    expect(get(harness, "a").kvs[0]).toMatchObject({ lease: 5n, version: 2, createRevision: 2 });
    put(harness, "a", "", { ignoreValue: true });
    expect(get(harness, "a").kvs[0]).toMatchObject({ lease: 0n, value: bytes("w"), version: 3 });
    expect(harness.store.keysOfLease(5n)).toEqual([]);
  });
});

describe("txn()", () => {
  it("shows each range what came before it, and heads answers with the revision at that place", async () => {
    await using harness = await Harness.open();
    put(harness, "a", "1");
    const { responses, header, succeeded } = txn(harness, [
      op.range("a"),
      op.put("a", "2"),
      op.range("a"),
      op.range("a", { revision: 2 }),
      op.txn(TxnRequest.create({ success: [op.range("a")] })),
      op.del("x"),
    ]);
    expect([succeeded, header?.revision]).toEqual([true, 0]);
    const seen = responses.map(({ response }) => {
      if (response?.kind === "responseRange") {
        return [response.value.header?.revision, text((response.value.kvs[0] as KeyValue).value)];
      }
      return [response?.value.header?.revision];
    });
    expect(seen).toEqual([[2, "1"], [3], [3, "2"], [3, "1"], [0], [3]]);
  });

  it("leaves the revision where it was when nothing changes", async () => {
    await using harness = await Harness.open();
    const { responses } = txn(harness, [op.del("x"), op.range("x")]);
    expect(responses.map(({ response }) => response?.value.header?.revision)).toEqual([1, 1]);
    expect(harness.store.currentRevision).toBe(1);
  });

  it("is refused as a whole when one operation of the chosen branch cannot be done", async () => {
    await using harness = await Harness.open();
    const cases: [RequestOp, "LeaseNotFound" | "KeyNotFound" | "FutureRevision" | "Compacted"][] = [
      [op.put("b", "", { lease: 9n }), "LeaseNotFound"],
      [op.put("b", "", { ignoreValue: true }), "KeyNotFound"],
      [op.range("b", { revision: 2 }), "FutureRevision"],
      [op.range("b", { revision: -2 }), "Compacted"],
      [op.txn(TxnRequest.create({ success: [op.put("c", "", { lease: 9n })] })), "LeaseNotFound"],
      [
        op.txn(TxnRequest.create({ success: [op.range("b", { revision: 9 }), op.put("c", "", { lease: 9n })] })),
        "LeaseNotFound",
      ],
    ];
    for (const [operation, kind] of cases) {
      expect(() => txn(harness, [op.put("a"), operation])).toThrow(new EtcdError(kind));
      expect(txn(harness, [], [], [operation]).succeeded).toBe(true);
    }
    expect(harness.store.currentRevision).toBe(1);
  });

  it("decides all levels on the state before, and ranges of keys by all that are in them", async () => {
    await using harness = await Harness.open();
    put(harness, "a", "1");
    put(harness, "b", "1");
    const compare = (init: Parameters<typeof Compare.create>[0]): Compare => Compare.create(init);
    const holds = (one: Compare): boolean => txn(harness, [], [one]).succeeded;
    const value = { target: CompareTarget.Value, targetUnion: { kind: "value", value: bytes("1") } } as const;
    expect(holds(compare({ key: bytes("a"), rangeEnd: bytes("\0"), ...value }))).toBe(true);
    put(harness, "c", "2");
    expect(holds(compare({ key: bytes("a"), rangeEnd: bytes("\0"), ...value }))).toBe(false);
    // Missing keys: numbers are zero, a value compare never holds.
    const missing = { key: bytes("none") };
    expect(holds(compare({ ...missing, target: CompareTarget.Version }))).toBe(true);
    expect(holds(compare({ ...missing, ...value, result: CompareResult.NotEqual }))).toBe(false);
    expect(holds(compare({ ...missing, target: CompareTarget.Value }))).toBe(false);
    // Unknown numbers of other writers: an unknown result is true, an unknown target equal.
    expect(holds(compare({ key: bytes("a"), result: 9 as 0 }))).toBe(true);
    expect(holds(compare({ key: bytes("a"), target: 9 as 0 }))).toBe(true);
    const nested = TxnRequest.create({
      compare: [{ key: bytes("new"), target: CompareTarget.Version, result: CompareResult.Greater }],
      success: [op.put("saw-it")],
      failure: [op.put("did-not-see-it")],
    });
    txn(harness, [op.put("new"), op.txn(nested)]);
    expect(get(harness, "did-not-see-it").count).toBe(1);
  });

  it("puts a key that an open-ended delete in front has taken, as a new life at the same revision", async () => {
    await using harness = await Harness.open();
    harness.leases.add(5n);
    put(harness, "k", "1", { lease: 5n });
    txn(harness, [op.del("a", "\0"), op.put("k", "2")]);
    expect(get(harness, "k").kvs[0]).toMatchObject({ version: 1, createRevision: 3, value: bytes("2"), lease: 0n });
    // Nothing is left to keep by then: 3.5.16 dies here.
    txn(harness, [op.del("a", "\0"), op.put("k", "", { ignoreValue: true })]);
    expect(get(harness, "k").kvs[0]).toMatchObject({ version: 1, createRevision: 4, value: new Uint8Array() });
    // Compacted at that very revision the new life stays: 3.5.16 loses it.
    await harness.write((tx) => harness.store.compact(tx, 4)).done;
    expect(get(harness, "k").count).toBe(1);
    txn(harness, [op.put("k", "3"), op.del("a", "\0")]);
    expect(get(harness, "k").count).toBe(0);
    await harness.write((tx) => harness.store.compact(tx, 5)).done;
    const hash = await harness.store.hashKv(0);
    await harness.restart({ withoutIndex: true });
    expect(await harness.store.hashKv(0)).toEqual(hash);
    expect(get(harness, "a", "\0").count).toBe(0);
  });
});

describe("compact()", () => {
  it("accepts 0 once on a store that was never compacted", async () => {
    await using harness = await Harness.open();
    await harness.write((tx) => harness.store.compact(tx, 0)).done;
    expect(() => harness.write((tx) => harness.store.compact(tx, 0))).toThrow(new EtcdError("Compacted"));
    expect(() => harness.write((tx) => harness.store.compact(tx, -1))).toThrow(new EtcdError("Compacted"));
    expect(() => harness.write((tx) => harness.store.compact(tx, 2))).toThrow(new EtcdError("FutureRevision"));
  });

  it("is taken up again after a stop, and then stores no hash", async () => {
    await using harness = await Harness.open({ compactionBatchRows: 2 });
    for (let i = 0; i < 20; i++) put(harness, "a", String(i));
    harness.write((tx) => harness.store.compact(tx, 15));
    await harness.restart();
    expect(harness.store.compactRevision).toBe(15);
    expect(() => get(harness, "a", "", { revision: 14 })).toThrow(new EtcdError("Compacted"));
    await harness.write((tx) => harness.store.compact(tx, 16)).done;
    expect(readCompactRevisions(harness.backend)).toEqual({ scheduled: 16, finished: 16 });
    expect(harness.store.compactionHashes).toEqual([]);
    let rows = 0;
    harness.backend.scan("key", {}, () => {
      rows++;
    });
    expect(rows).toBe(6);
    await harness.write((tx) => harness.store.compact(tx, 17)).done;
    expect(harness.store.compactionHashes.map((hash) => hash.revision)).toEqual([17]);
  });

  it("remembers the newest ten hashes, and answers them for their revisions", async () => {
    await using harness = await Harness.open();
    for (let i = 0; i < 12; i++) put(harness, "a", String(i));
    const before: number[] = [];
    for (let revision = 2; revision <= 13; revision++) {
      before.push((await harness.store.hashKv(revision)).hash);
      await harness.write((tx) => harness.store.compact(tx, revision)).done;
    }
    expect(harness.store.compactionHashes.map((hash) => hash.hash)).toEqual(before.slice(2));
    expect(await harness.store.hashKv(5)).toMatchObject({ revision: 5, compactRevision: 4, hash: before[3] });
    await expect(harness.store.hashKv(3)).rejects.toThrow(new EtcdError("Compacted"));
    await expect(harness.store.hashKv(14)).rejects.toThrow(new EtcdError("FutureRevision"));
  });
});

describe("the store's hash", () => {
  it("does not see where the log stands", async () => {
    await using harness = await Harness.open();
    put(harness, "a");
    const { hash, revision } = await harness.store.hash();
    expect(revision).toBe(2);
    harness.backend.write((tx) => tx.put("meta", bytes("consistent_index"), Buffer.alloc(8, 1)));
    expect((await harness.store.hash()).hash).toBe(hash);
    harness.backend.write((tx) => tx.put("meta", bytes("confState"), bytes("{}")));
    expect((await harness.store.hash()).hash).not.toBe(hash);
  });
});

describe("watching", () => {
  it("hands the same encoded event to all watchers, as the codec would write it", async () => {
    await using harness = await Harness.open();
    put(harness, "k", "0");
    const stream = harness.store.watch.newStream();
    for (let i = 0; i < 3; i++) stream.create({ key: bytes("k"), rangeEnd: undefined });
    stream.create({ key: bytes("k"), rangeEnd: undefined, prevKv: true });
    put(harness, "k", "1");
    del(harness, "k");
    const deliveries = Array.from({ length: 8 }, () => stream.take());
    for (const revision of [3, 4]) {
      const events = deliveries.filter((one) => one?.revision === revision).map((one) => one?.events[0]);
      expect(new Set(events).size).toBe(2);
      for (const event of events) {
        if (!event) throw new Error("an event is missing");
        expect(text(event.bytes)).toBe(text(Event.encode(event)));
      }
    }
  });

  it("gives the events of a transaction in one piece to who gets all, and only theirs to others", async () => {
    await using harness = await Harness.open();
    put(harness, "b", "before");
    put(harness, "d", "before");
    const stream = harness.store.watch.newStream();
    const all = stream.create({ key: bytes("a"), rangeEnd: bytes("z") });
    const some = stream.create({ key: bytes("b"), rangeEnd: bytes("d") });
    const withPrev = stream.create({ key: bytes("a"), rangeEnd: bytes("z"), prevKv: true });
    const noDelete = stream.create({ key: bytes("a"), rangeEnd: bytes("z"), noDelete: true });
    const putOf = (key: string, value: string) => ({
      request: { kind: "requestPut" as const, value: PutRequest.create({ key: bytes(key), value: bytes(value) }) },
    });
    const deleteOf = (key: string) => ({
      request: { kind: "requestDeleteRange" as const, value: DeleteRangeRequest.create({ key: bytes(key) }) },
    });
    const told = (success: RequestOp[]) => {
      harness.write((tx) => harness.store.txn(tx, TxnRequest.create({ success })));
      const found = new Map<bigint, { keys: string; pieces: number }>();
      for (let delivery = stream.take(); delivery; delivery = stream.take()) {
        const pieces = piecesOf(delivery.events);
        const { events } = WatchResponse.decode(Buffer.concat(pieces));
        expect(events.map((event) => text(Event.encode(event)))).toEqual(
          delivery.events.map((event) => text(Event.encode(event))),
        );
        expect(delivery.events.map((event) => text(event.bytes))).toEqual(
          events.map((event) => text(Event.encode(event))),
        );
        const keys = events.map(({ type, kv, prevKv }) => {
          const before = prevKv ? `<${text(prevKv.value)}>` : "";
          return `${type === EventType.Delete ? "-" : ""}${text(kv?.key ?? bytes(""))}${before}`;
        });
        found.set(delivery.watchId, { keys: keys.join(" "), pieces: pieces.length });
      }
      return found;
    };
    expect(told(["a", "b", "c", "d"].map((key) => putOf(key, "value of the same length")))).toEqual(
      new Map([
        [all, { keys: "a b c d", pieces: 1 }],
        [some, { keys: "b c", pieces: 2 }],
        [withPrev, { keys: "a b<before> c d<before>", pieces: 4 }],
        [noDelete, { keys: "a b c d", pieces: 1 }],
      ]),
    );
    // Events of different lengths, with a deletion among them, and one that is larger than what events share.
    const longer = told([putOf("a", ""), deleteOf("b"), putOf("c", "x".repeat(100_000)), putOf("d", "y".repeat(500))]);
    expect(longer.get(all)?.keys).toBe("a -b c d");
    expect(longer.get(some)?.keys).toBe("-b c");
    expect(longer.get(withPrev)?.keys).toMatch(/^a<value[^>]*> -b<value[^>]*> c<value[^>]*> d<value[^>]*>$/);
    expect(longer.get(noDelete)?.keys).toBe("a c d");
  });

  it("tells the handler once that there is something to take", async () => {
    await using harness = await Harness.open();
    const stream = harness.store.watch.newStream();
    stream.create({ key: bytes("k"), rangeEnd: undefined });
    let readable = deferred();
    let calls = 0;
    stream.onReadable = () => {
      calls++;
      readable.resolve();
    };
    put(harness, "k");
    put(harness, "k");
    await readable.promise;
    expect(calls).toBe(1);
    while (stream.take()) {}
    readable = deferred();
    put(harness, "k");
    await readable.promise;
    expect(calls).toBe(2);
    stream.close();
    put(harness, "k");
    expect(harness.store.watch.stats).toMatchObject({ streams: 0, watchers: 0, pendingEvents: 0 });
  });

  it("catches up by its own timer", async () => {
    await using harness = await Harness.open();
    for (let i = 0; i < 3000; i++) put(harness, "k", String(i));
    const stream = harness.store.watch.newStream();
    stream.create({ key: bytes("k"), rangeEnd: undefined, startRevision: 2 });
    harness.clock.advance(10);
    const sizes = [];
    for (let one = stream.take(); one; one = stream.take()) sizes.push(one.events.length);
    expect(sizes).toEqual([1000, 1000, 1000]);
    expect(harness.store.watch.stats.slowWatchers).toBe(0);
  });
});
