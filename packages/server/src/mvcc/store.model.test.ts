import {
  CompareResult,
  CompareTarget,
  EtcdError,
  type KeyValue,
  PutRequest,
  RangeRequest,
  RangeResponse,
  type RequestOp,
  SortTarget,
  TxnRequest,
  type TxnResponse,
} from "@etcd-ts/client/wire";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { concatBytes, type KeyString, keyBytes, keyString } from "../lib/bytes.ts";
import { crc32c } from "../lib/crc32c.ts";
import { encodeKeyValue, encodeTombstone, revisionKey, type Table, tombstoneKey } from "../storage/index.ts";
import { checkTxnRequest } from "./check-request.ts";
import { Harness } from "./testing/harness.ts";
import { isInModelRange, Model, type ModelRange, type ModelRow } from "./testing/model.ts";
import type { WatchStream } from "./watch/stream.ts";

const LONG = "x".repeat(2000);
const ZEROS = "\0".repeat(1000);

/** Few, so that they meet; and every kind that the rows treat in their own way. */
const keys = [
  "a",
  "a\0",
  "a\0\xff",
  "a\0\0",
  "ab",
  "b",
  "\0",
  "\0\0",
  "\xff",
  "\xff\xff",
  "x".repeat(1936),
  `${"x".repeat(1936)}\0`,
  LONG,
  `${LONG}a`,
  `${LONG}b`,
  `${LONG}\0`,
  `${LONG}\xff`,
  `${"x".repeat(1920)}y`,
  ZEROS,
  `${ZEROS}a`,
  `${ZEROS}\0`,
] as KeyString[];

const LEASES = [0n, 0n, 0n, 1n, -7n, 2n ** 62n];

const key = fc.constantFrom(...keys);
const rangeEnd = fc.oneof(
  { weight: 2, arbitrary: fc.constant("" as KeyString) },
  { weight: 2, arbitrary: fc.constant("\0" as KeyString) },
  { weight: 4, arbitrary: key },
);
const value = fc.constantFrom("", "v", "w", "value".repeat(100)) as fc.Arbitrary<KeyString>;
const lease = fc.constantFrom(...LEASES);
/** A place in history: 0 = the oldest readable, 1 = now, rarely beyond either. */
const place = fc.oneof(
  { weight: 2, arbitrary: fc.constant("now" as const) },
  { weight: 3, arbitrary: fc.double({ min: 0, max: 1, noNaN: true }) },
  { weight: 1, arbitrary: fc.constantFrom("future" as const, "compacted" as const) },
);

const rangeRequest = fc.record({
  key,
  rangeEnd,
  at: place,
  limit: fc.constantFrom(0, 0, 1, 2, 3, 10),
  sortOrder: fc.constantFrom(0, 0, 1, 2),
  sortTarget: fc.constantFrom(0, 0, 1, 2, 3, 4),
  keysOnly: fc.boolean(),
  countOnly: fc.constantFrom(false, false, false, true),
  min: fc.constantFrom(0, 0, 0, 3, 6),
  max: fc.constantFrom(0, 0, 0, 5, 9),
  onCreate: fc.boolean(),
});

const compare = fc.record({
  key,
  rangeEnd,
  result: fc.constantFrom(...Object.values(CompareResult)),
  target: fc.constantFrom(...Object.values(CompareTarget)),
  number: fc.nat(4),
  value,
  lease,
});

type Operation =
  | { kind: "put"; key: KeyString; value: KeyString; lease: bigint; keep: "" | "value" | "lease" }
  | { kind: "delete"; key: KeyString; rangeEnd: KeyString }
  | { kind: "range"; key: KeyString; rangeEnd: KeyString }
  | { kind: "txn"; txn: Txn };
interface Txn {
  compares: {
    key: KeyString;
    rangeEnd: KeyString;
    result: number;
    target: number;
    number: number;
    value: KeyString;
    lease: bigint;
  }[];
  success: Operation[];
  failure: Operation[];
}

const put = fc.record({
  kind: fc.constant("put" as const),
  key,
  value,
  lease,
  keep: fc.constantFrom("" as const, "" as const, "" as const, "value" as const, "lease" as const),
});
const remove = fc.record({ kind: fc.constant("delete" as const), key, rangeEnd });
const { txn } = fc.letrec<{ operation: Operation; txn: Txn }>((tie) => ({
  operation: fc.oneof(
    { maxDepth: 2, depthIdentifier: "txn" },
    put,
    remove,
    fc.record({ kind: fc.constant("range" as const), key, rangeEnd }),
    fc.record({ kind: fc.constant("txn" as const), txn: tie("txn") }),
  ),
  txn: fc.record({
    compares: fc.array(compare, { maxLength: 2 }),
    success: fc.array(tie("operation"), { maxLength: 4 }),
    failure: fc.array(tie("operation"), { maxLength: 3 }),
  }),
}));

type Step =
  | { kind: "put"; key: KeyString; value: KeyString; lease: bigint; keep: "" | "value" | "lease" }
  | { kind: "delete"; key: KeyString; rangeEnd: KeyString }
  | { kind: "txn"; txn: Txn }
  | { kind: "compact"; at: number; wait: boolean }
  | { kind: "restart"; withoutIndex: boolean }
  | { kind: "flush" }
  | {
      kind: "watch";
      key: KeyString;
      rangeEnd: KeyString;
      at: "now" | "future" | "compacted" | number;
      noPut: boolean;
      noDelete: boolean;
      prevKv: boolean;
    }
  | { kind: "pump"; takes: number; slices: number }
  | { kind: "revoke"; lease: bigint }
  | { kind: "range"; range: unknown };

const step = fc.oneof(
  { weight: 10, arbitrary: put },
  { weight: 4, arbitrary: remove },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant("txn" as const), txn }) },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant("compact" as const),
      at: fc.double({ min: 0, max: 1, noNaN: true }),
      wait: fc.boolean(),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("restart" as const), withoutIndex: fc.boolean() }) },
  { weight: 1, arbitrary: fc.constant({ kind: "flush" as const }) },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant("watch" as const),
      key,
      rangeEnd,
      at: place,
      noPut: fc.constantFrom(false, false, true),
      noDelete: fc.constantFrom(false, false, true),
      prevKv: fc.boolean(),
    }),
  },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("pump" as const), takes: fc.nat(5), slices: fc.nat(2) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("revoke" as const), lease }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant("range" as const), range: rangeRequest }) },
) as fc.Arbitrary<Step>;

type KvTuple = readonly [key: string, value: string, create: number, mod: number, version: number, lease: bigint];
const modelKv = (row: ModelRow): KvTuple => [row.key, row.value, row.createRevision, row.main, row.version, row.lease];
const wireKv = (kv: KeyValue): KvTuple => [
  keyString(kv.key),
  keyString(kv.value),
  kv.createRevision,
  kv.modRevision,
  kv.version,
  kv.lease,
];

function expectRange(actual: { kvs: KeyValue[]; more: boolean; count: number }, expected: ModelRange): void {
  expect({ ...actual, kvs: actual.kvs.map(wireKv) }).toMatchObject({
    kvs: expected.kvs.map(modelKv),
    more: expected.more,
    count: expected.count,
  });
}

function rows(harness: Harness, table: Table): [string, string][] {
  const all: [string, string][] = [];
  harness.backend.scan(table, {}, (rowKey, row) => {
    all.push([keyString(rowKey), keyString(row)]);
  });
  return all;
}

interface WatchedEvent {
  readonly revision: number;
  readonly isDelete: boolean;
  readonly key: string;
  readonly value: string;
  readonly prev: KvTuple | undefined;
}

/** A watcher, what it should be told of, and what it has been told. */
class Watched {
  readonly from: number;
  readonly got: WatchedEvent[] = [];
  compactRevision = 0;
  lastRevision = 0;
  readonly request: Extract<Step, { kind: "watch" }>;

  constructor(request: Extract<Step, { kind: "watch" }>, from: number) {
    this.request = request;
    this.from = from;
  }

  expected(model: Model): ModelRow[] {
    const { key: start, rangeEnd: end, noPut, noDelete } = this.request;
    return model.rows.filter(
      (row) => row.main >= this.from && isInModelRange(row.key, start, end) && !(row.isDelete ? noDelete : noPut),
    );
  }
}

class Run {
  readonly harness: Harness;
  readonly model = new Model();
  stream: WatchStream;
  readonly watched = new Map<bigint, Watched>();

  constructor(harness: Harness) {
    this.harness = harness;
    for (const id of LEASES) harness.leases.add(id);
    this.stream = harness.store.watch.newStream();
  }

  revisionAt(at: "now" | "future" | "compacted" | number): number {
    const { currentRevision, compactRevision } = this.model;
    if (at === "now") return 0;
    if (at === "future") return currentRevision + 2;
    if (at === "compacted") return compactRevision > 1 ? compactRevision - 1 : 1;
    const first = Math.max(1, compactRevision);
    return first + Math.round(at * (currentRevision - first));
  }

  request(raw: unknown): RangeRequest {
    const range = raw as {
      key: KeyString;
      rangeEnd: KeyString;
      at: "now" | number;
      limit: number;
      sortOrder: 0;
      sortTarget: 0;
      keysOnly: boolean;
      countOnly: boolean;
      min: number;
      max: number;
      onCreate: boolean;
    };
    const { min, max, onCreate } = range;
    return RangeRequest.create({
      key: keyBytes(range.key),
      rangeEnd: keyBytes(range.rangeEnd),
      revision: this.revisionAt(range.at),
      limit: range.limit,
      sortOrder: range.sortOrder,
      sortTarget: range.sortTarget,
      keysOnly: range.keysOnly,
      countOnly: range.countOnly,
      ...(onCreate ? { minCreateRevision: min, maxCreateRevision: max } : { minModRevision: min, maxModRevision: max }),
    });
  }

  checkRange(request: RangeRequest): void {
    const { store } = this.harness;
    const { currentRevision, compactRevision } = this.model;
    if (request.revision > currentRevision || (request.revision > 0 && request.revision < compactRevision)) {
      const kind = request.revision > currentRevision ? "FutureRevision" : "Compacted";
      expect(() => store.range(request)).toThrow(new EtcdError(kind));
      return;
    }
    const expected = this.model.range(request);
    expectRange(store.range(request), expected);
    const encoded = store.rangeEncoded(request);
    expectRange(RangeResponse.decode(concatBytes(...encoded.pieces)), expected);
  }

  operations(operations: readonly Operation[]): RequestOp[] {
    return operations.map((operation): RequestOp => {
      switch (operation.kind) {
        case "put": {
          const { keep } = operation;
          const value = PutRequest.create({
            key: keyBytes(operation.key),
            value: keep === "value" ? new Uint8Array() : keyBytes(operation.value),
            lease: keep === "lease" ? 0n : operation.lease,
            ignoreValue: keep === "value",
            ignoreLease: keep === "lease",
          });
          return { request: { kind: "requestPut", value } };
        }
        case "delete":
          return {
            request: {
              kind: "requestDeleteRange",
              value: { key: keyBytes(operation.key), rangeEnd: keyBytes(operation.rangeEnd), prevKv: true },
            },
          };
        case "range":
          return {
            request: {
              kind: "requestRange",
              value: RangeRequest.create({ key: keyBytes(operation.key), rangeEnd: keyBytes(operation.rangeEnd) }),
            },
          };
        default:
          return { request: { kind: "requestTxn", value: this.txnRequest(operation.txn) } };
      }
    });
  }

  txnRequest(txn: Txn): TxnRequest {
    return TxnRequest.create({
      compare: txn.compares.map(({ target, ...one }) => ({
        key: keyBytes(one.key),
        rangeEnd: keyBytes(one.rangeEnd),
        result: one.result as CompareResult,
        target: target as CompareTarget,
        targetUnion:
          target === CompareTarget.Value
            ? { kind: "value", value: keyBytes(one.value) }
            : target === CompareTarget.Lease
              ? { kind: "lease", value: one.lease }
              : target === CompareTarget.Version
                ? { kind: "version", value: one.number }
                : target === CompareTarget.Create
                  ? { kind: "createRevision", value: one.number }
                  : { kind: "modRevision", value: one.number },
      })),
      success: this.operations(txn.success),
      failure: this.operations(txn.failure),
    });
  }

  runTxn(txn: Txn): void {
    const { harness, model } = this;
    const request = this.txnRequest(txn);
    try {
      checkTxnRequest(request, 128);
    } catch {
      return;
    }
    if (hasHiddenOverlap(request)) return;
    const before = { current: harness.store.currentRevision, keys: rows(harness, "key") };
    let response: TxnResponse;
    try {
      response = harness.write((tx) => harness.store.txn(tx, request));
    } catch (error) {
      // Something was to be kept of a key that is not there: refused as a whole.
      expect(error).toEqual(new EtcdError("KeyNotFound"));
      expect({ current: harness.store.currentRevision, keys: rows(harness, "key") }).toEqual(before);
      return;
    }
    const expected = model.txn(request);
    expect(response.succeeded).toBe(expected.succeeded);
    const ranges: { kvs: KeyValue[]; more: boolean; count: number }[] = [];
    const collect = (responses: TxnResponse["responses"]): void => {
      for (const { response: one } of responses) {
        if (one?.kind === "responseRange") ranges.push(one.value);
        if (one?.kind === "responseTxn") collect(one.value.responses);
      }
    };
    collect(response.responses);
    expect(ranges.length).toBe(expected.ranges.length);
    ranges.forEach((range, i) => {
      expectRange(range, expected.ranges[i] as ModelRange);
    });
  }

  async run(one: Step): Promise<void> {
    const { harness, model } = this;
    const { store } = harness;
    switch (one.kind) {
      case "put": {
        const [{ request }] = this.operations([one]) as [RequestOp];
        const before = model.at(model.currentRevision).find((row) => row.key === one.key);
        if (request?.kind !== "requestPut") throw new Error("not a put");
        const value = { ...request.value, prevKv: true };
        if (one.keep !== "" && !before) {
          expect(() => harness.write((tx) => store.put(tx, value))).toThrow(new EtcdError("KeyNotFound"));
          break;
        }
        const { prevKv } = harness.write((tx) => store.put(tx, value));
        expect(prevKv && wireKv(prevKv)).toEqual(before && modelKv(before));
        model.put(
          one.key,
          one.keep === "value" ? (before?.value ?? "") : one.value,
          one.keep === "lease" ? (before?.lease ?? 0n) : one.lease,
        );
        break;
      }
      case "delete": {
        const request = { key: keyBytes(one.key), rangeEnd: keyBytes(one.rangeEnd), prevKv: true };
        const response = harness.write((tx) => store.deleteRange(tx, request));
        const expected = model.deleteRange(one.key, one.rangeEnd);
        expect(response.deleted).toBe(expected.length);
        expect(response.prevKvs.map(wireKv)).toEqual(expected.map(modelKv));
        break;
      }
      case "txn":
        this.runTxn(one.txn);
        break;
      case "compact": {
        const revision = this.revisionAt(one.at);
        if (revision <= model.compactRevision) {
          expect(() => harness.write((tx) => store.compact(tx, revision))).toThrow(new EtcdError("Compacted"));
          break;
        }
        const before = this.hashOf(revision, true);
        const previous = model.compactRevision;
        const { done } = harness.write((tx) => store.compact(tx, revision));
        model.compact(revision);
        if (!one.wait) break;
        await done;
        const stored = store.compactionHashes.find((hash) => hash.revision === revision);
        if (stored) expect(stored).toEqual({ hash: before, revision, compactRevision: previous });
        this.checkRows();
        break;
      }
      case "restart":
        await harness.restart(one);
        this.stream = harness.store.watch.newStream();
        this.watched.clear();
        break;
      case "flush":
        await harness.backend.flush();
        break;
      case "watch": {
        const startRevision = this.revisionAt(one.at);
        const request = {
          key: keyBytes(one.key),
          rangeEnd: one.rangeEnd === "" ? undefined : one.rangeEnd === "\0" ? new Uint8Array() : keyBytes(one.rangeEnd),
          startRevision,
          noPut: one.noPut,
          noDelete: one.noDelete,
          prevKv: one.prevKv,
        };
        if (one.rangeEnd !== "" && one.rangeEnd !== "\0" && one.rangeEnd <= one.key) {
          expect(() => this.stream.create(request)).toThrow("mvcc: watcher range is empty");
          break;
        }
        const id = this.stream.create(request);
        this.watched.set(id, new Watched(one, startRevision === 0 ? model.currentRevision + 1 : startRevision));
        break;
      }
      case "pump":
        for (let i = 0; i < one.slices; i++) store.watch.catchUpSlice();
        for (let i = 0; i < one.takes; i++) this.take();
        break;
      case "revoke": {
        const attached = model.at(model.currentRevision).filter((row) => row.lease === one.lease && one.lease !== 0n);
        const keysOfLease = store.keysOfLease(one.lease);
        if (one.lease !== 0n) expect(keysOfLease.map(keyString)).toEqual(attached.map((row) => row.key));
        harness.write((tx) => store.deleteKeys(tx, keysOfLease));
        const doomed = attached.map((row) => row.key);
        if (doomed.length > 0) {
          model.txn(
            TxnRequest.create({
              success: doomed.map((one) => ({
                request: { kind: "requestDeleteRange", value: { key: keyBytes(one) } },
              })),
            }),
          );
        }
        break;
      }
      default:
        this.checkRange(this.request((one as { range: unknown }).range));
    }
    expect(harness.store.currentRevision).toBe(model.currentRevision);
    expect(harness.store.compactRevision).toBe(model.compactRevision);
  }

  take(): boolean {
    const delivery = this.stream.take();
    if (!delivery) return false;
    const watched = this.watched.get(delivery.watchId) as Watched;
    expect(watched.compactRevision).toBe(0);
    watched.compactRevision = delivery.compactRevision;
    const revisions = new Set<number>();
    for (const event of delivery.events) {
      const { kv, prevKv } = event;
      revisions.add(kv.modRevision);
      watched.got.push({
        revision: kv.modRevision,
        isDelete: event.type === 1,
        key: keyString(kv.key),
        value: keyString(kv.value),
        prev: prevKv && wireKv(prevKv),
      });
      // A revision is never split over answers, and none is told twice.
      expect(kv.modRevision).toBeGreaterThan(watched.lastRevision);
      expect(kv.modRevision).toBeLessThanOrEqual(delivery.revision);
    }
    watched.lastRevision = Math.max(watched.lastRevision, ...revisions);
    return true;
  }

  /** After everything has been delivered each watcher has all that is its, or was told why not. */
  checkWatchers(): void {
    const { store } = this.harness;
    for (let i = 0; i < 1000 && (store.watch.stats.slowWatchers > 0 || this.stream.pendingEvents > 0); i++) {
      store.watch.catchUpSlice();
      while (this.take()) {}
    }
    while (this.take()) {}
    expect(store.watch.stats.slowWatchers).toBe(0);
    for (const watched of this.watched.values()) {
      const all = watched.expected(this.model);
      const expected = watched.compactRevision === 0 ? all : all.slice(0, watched.got.length);
      expect(watched.got.map((event) => [event.revision, event.isDelete, event.key, event.value])).toEqual(
        expected.map((row) => [row.main, row.isDelete, row.key, row.value]),
      );
      for (const event of watched.got) this.checkPrevious(watched, event);
      if (watched.compactRevision === 0) continue;
      // What it was not given begins with something that is no longer there, or it had started below.
      const next = all[watched.got.length]?.main ?? watched.from;
      expect(Math.min(next, watched.from)).toBeLessThan(watched.compactRevision);
    }
  }

  checkPrevious(watched: Watched, event: WatchedEvent): void {
    if (!watched.request.prevKv) {
      expect(event.prev).toBeUndefined();
      return;
    }
    // Where it is given it is right; missing is right for a new key, and where it may have been compacted.
    const before = this.model.at(event.revision - 1).find((row) => row.key === event.key);
    if (event.prev || event.revision - 1 >= this.model.compactRevision) {
      expect(event.prev).toEqual(before && modelKv(before));
    }
  }

  /** hashKv by its definition, over all that was ever written. */
  hashOf(revision: number, isOfCompaction = false): number {
    const { rows: all, compactRevision } = this.model;
    const kept = this.model.at(revision);
    const isNothingKept =
      kept.length === 0 && !(isOfCompaction && all.some((row) => row.isDelete && row.main === revision));
    const alive = new Set(isNothingKept ? this.model.at(compactRevision) : kept);
    let hash = crc32c(Buffer.from("key"));
    for (const row of all) {
      if (row.main > revision) break;
      if (row.main <= compactRevision && !alive.has(row)) continue;
      const [rowKey, stored] = stored_(row);
      hash = crc32c(stored, crc32c(rowKey, hash));
    }
    return hash;
  }

  /** Once compactions are done, the tables hold what they should and nothing else. */
  checkRows(): void {
    const { compactRevision } = this.model;
    const alive = new Set(compactRevision < 0 ? [] : this.model.at(compactRevision));
    const kept = this.model.rows.filter(
      (row) => row.main > compactRevision || alive.has(row) || (row.isDelete && row.main === compactRevision),
    );
    expect(rows(this.harness, "key")).toEqual(
      kept.map((row) => {
        const [rowKey, stored] = stored_(row);
        return [keyString(rowKey), keyString(stored)];
      }),
    );
  }
}

function stored_(row: ModelRow): [Uint8Array, Uint8Array] {
  if (row.isDelete) return [tombstoneKey(row.main, row.sub), encodeTombstone(keyBytes(row.key))];
  const stored = encodeKeyValue({
    key: keyBytes(row.key),
    createRevision: row.createRevision,
    modRevision: row.main,
    version: row.version,
    value: keyBytes(row.value as KeyString),
    lease: row.lease,
  });
  return [revisionKey(row.main, row.sub), stored];
}

/** A delete "from a key on" is not seen by etcd's check for keys written twice; its special cases have their own test. */
function hasHiddenOverlap(request: TxnRequest): boolean {
  const operations = [...request.success, ...request.failure].flatMap(function flat(operation): RequestOp[] {
    if (operation.request?.kind !== "requestTxn") return [operation];
    const nested = operation.request.value;
    return [...nested.success, ...nested.failure].flatMap(flat);
  });
  const openDelete = operations.some(
    ({ request: one }) => one?.kind === "requestDeleteRange" && keyString(one.value.rangeEnd) === "\0",
  );
  const twice = operations.filter(({ request: one }) => one?.kind === "requestDeleteRange").length > 0;
  return openDelete || (twice && operations.some(({ request: one }) => one?.kind === "requestPut"));
}

describe("MvccStore against a model of full history", () => {
  it("answers ranges, transactions, watches and hashes alike, through compactions and restarts", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 60, size: "max" }), async (steps) => {
        await using harness = await Harness.open({ compactionBatchRows: 3, outboxResponsesMax: 2, countBlockKeys: 2 });
        const run = new Run(harness);
        for (const one of steps) await run.run(one);
        run.checkWatchers();
        const { currentRevision, compactRevision } = run.model;
        for (let revision = Math.max(1, compactRevision); revision <= currentRevision; revision++) {
          const request = { key: keyBytes("\0" as KeyString), rangeEnd: keyBytes("\0" as KeyString), revision };
          run.checkRange(RangeRequest.create({ ...request, sortTarget: SortTarget.Key }));
        }
        const hash = await harness.store.hashKv(0);
        expect(hash).toEqual({
          hash: run.hashOf(currentRevision),
          revision: currentRevision,
          compactRevision,
          currentRevision,
        });
        // What the writes kept up is what a rebuild makes of history.
        await harness.restart();
        await harness.store.close();
        const kept = (["live", "past", "leased"] as const).map((table) => rows(harness, table));
        await harness.restart({ withoutIndex: true });
        expect((["live", "past", "leased"] as const).map((table) => rows(harness, table))).toEqual(kept);
      }),
      { numRuns: process.env["ETCD_VERIFY"] === "all" ? 1000 : 60 },
    );
  });
});
