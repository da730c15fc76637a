/**
 * The store: every change of every key, numbered by revision. It promises etcd's semantics of range, put, delete,
 * transaction, compaction and hash, on rows that are etcd's own; that nothing of the keyspace is held in memory; and that
 * opening costs the same whatever it holds.
 *
 *   apply --- put, deleteRange, txn, deleteKeys, compact ---> WriteTxn ---> backend (key, live, past, leased)
 *        \--- endWrite, when the backend's write has returned ------------> watchers
 *   readers - range, txnRead, hash ---------------------------------------> backend
 *
 * Synchronous but for hashes and the removal of compacted rows, so nobody sees a half-made change.
 */
import type {
  DeleteRangeRequest,
  DeleteRangeResponse,
  PutRequest,
  PutResponse,
  RangeRequest,
  RangeResponse,
  TxnRequest,
  TxnResponse,
} from "@etcd-ts/client/wire";
import { EtcdError, type KeyValue } from "@etcd-ts/client/wire";
import { assert } from "../lib/assert.ts";
import { copyBytes } from "../lib/bytes.ts";
import type { Clock } from "../lib/clock.ts";
import { goDuration, humanBytes } from "../lib/go-format.ts";
import { exponentialBounds, Histogram } from "../lib/metrics.ts";
import type { Logger } from "../lib/log.ts";
import {
  type Backend,
  type BackendReader,
  type BackendTxn,
  decodeLiveRow,
  isLongLiveKey,
  keyOfKeyValue,
  leasedPrefix,
  liveKeyOfLeasedKey,
  mainOfRevisionKey,
  readCompactRevisions,
  writeScheduledCompactRevision,
} from "../storage/index.ts";
import { Slots, yieldToEventLoop } from "../lib/wait.ts";
import { removeCompacted } from "./compaction.ts";
import { COUNT_BLOCK_KEYS, Counts } from "./counts.ts";
import { hashAll, hashKeyTable } from "./hash.ts";
import { type KeyRange, keyAfter, keyRange } from "./key-range.ts";
import {
  ANSWER_BYTES_MAX,
  ANSWER_PART_KEYS,
  COMPACTION_BATCH_ROWS,
  COMPACTION_HASHES_MAX,
  COUNT_SLICE_KEYS,
  LIMITED_LIST_KEYS_MAX,
  LIST_AT_ONCE_KEYS,
  LIST_SLICE_BYTES,
  LIST_SLICE_KEYS,
  LISTS_MAX,
  OUTBOX_RESPONSES_MAX,
} from "./limits.ts";
import {
  countOn,
  isInStoreOrder,
  isPlainList,
  type ListProgress,
  listLive,
  loadLive,
  type RangeResult,
  type RangeView,
  runPart,
  runRange,
} from "./range.ts";
import { DecodedKeyValues, EncodedKeyValues, EncodedPart } from "./range-body.ts";
import { isIndexUsable, rebuildIndex } from "./rebuild.ts";
import { checkPath, choosePath, runPath, runReadOnlyPath } from "./txn.ts";
import type {
  EncodedRange,
  HashAt,
  KeyValueHash,
  LeaseAttacher,
  MvccLimits,
  MvccOptions,
  MvccStats,
  MvccTimes,
} from "./types.ts";
import { WatchHub } from "./watch/hub.ts";
import { WriteTxn } from "./write-txn.ts";

/** Of a store that was never compacted. Below every revision, so that a compaction at 0 is accepted once. */
const NEVER_COMPACTED = -1;

/** The revision at which rows stand: of the newest, or of a compaction that removed it. */
function headRevision(reader: BackendReader): number {
  const newest = reader.first("key", { reverse: true, keysOnly: true });
  const { scheduled, finished } = readCompactRevisions(reader);
  return Math.max(1, newest ? mainOfRevisionKey(newest.key) : 0, scheduled ?? 0, finished ?? 0);
}

interface ScheduledCompaction {
  readonly revision: number;
  readonly previousRevision: number;
  /** All earlier compactions had finished when this one was asked for; only then members agree on its hash. */
  readonly isHashStored: boolean;
}

export class MvccStore implements RangeView {
  readonly watch: WatchHub;
  readonly #leases: LeaseAttacher;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #limits: MvccLimits;
  readonly #onFatal: (error: unknown) => void;
  #backend: Backend;
  #counts: Counts;
  /**
   * Main revision of the last finished write transaction; 1 in an empty store, so the first write is 2.
   * Invariant: with no write open, each revision in the key table is <= this, and compactRevision <= this.
   * Raised only by #end, after the backend holds the rows.
   */
  #currentRevision = 1;
  /** Reads below it fail. Raised by compact() before any row goes. */
  #compactRevision = NEVER_COMPACTED;
  /** Oldest first. */
  #compactionHashes: KeyValueHash[] = [];
  /** Compactions run one after the other; this ends with the last one asked for. Never rejects. */
  #compactions: Promise<void> = Promise.resolve();
  #jobs = new AbortController();
  readonly #lists = new Slots(LISTS_MAX);
  #stats = { ranges: 0, puts: 0, deletes: 0, txns: 0, putBytes: 0, compactedRows: 0, lastCompactionMs: 0 };

  /** Reads where history stands, rebuilds an index that is missing, and takes up a compaction that was interrupted. */
  static async open(options: MvccOptions): Promise<MvccStore> {
    const store = new MvccStore(options);
    await store.#load(true);
    return store;
  }

  private constructor(options: MvccOptions) {
    this.#backend = options.backend;
    this.#leases = options.leases;
    this.#clock = options.clock;
    this.#logger = options.logger;
    this.#onFatal =
      options.onFatal ??
      ((error) => {
        throw error;
      });
    this.#limits = {
      compactionBatchRows: COMPACTION_BATCH_ROWS,
      compactionPauseMs: 0,
      outboxResponsesMax: OUTBOX_RESPONSES_MAX,
      countBlockKeys: COUNT_BLOCK_KEYS,
      ...options.limits,
    };
    this.#counts = new Counts({ blockKeys: this.#limits.countBlockKeys });
    this.watch = new WatchHub({
      source: {
        reader: () => this.#backend,
        currentRevision: () => this.#currentRevision,
        compactRevision: () => this.#compactRevision,
      },
      clock: options.clock,
      outboxResponsesMax: this.#limits.outboxResponsesMax,
      onFatal: this.#onFatal,
    });
  }

  async #load(isStart: boolean): Promise<void> {
    const backend = this.#backend;
    if (!isIndexUsable(backend)) await rebuildIndex(backend, this.#logger);
    this.#readHead(backend, isStart);
    this.#counts.start(backend, this.#jobs.signal);
    this.#counts.stopped().catch(this.#onFatal);
  }

  /** Where history stands, by its last row and the marks of compactions. */
  #readHead(backend: Backend, isStart: boolean): void {
    const { revision, scheduled, finished } = historyHead(backend);
    this.#currentRevision = revision;
    this.#compactRevision = finished ?? NEVER_COMPACTED;
    if (finished !== undefined && isStart) {
      this.#logger.info("restored last compact revision", {
        "meta-bucket-name": "meta",
        "meta-bucket-name-key": "finishedCompactRev",
        "restored-compact-revision": finished,
      });
    }
    if (scheduled !== undefined && scheduled > this.#compactRevision) {
      const previousRevision = this.#compactRevision;
      this.#compactRevision = scheduled;
      this.#logger.info("resume scheduled compaction", {
        "meta-bucket-name": "meta",
        "meta-bucket-name-key": "scheduledCompactRev",
        "scheduled-compact-revision": scheduled,
      });
      void this.#startCompaction({ revision: scheduled, previousRevision, isHashStored: false });
    }
  }

  /**
   * Ends background work on the backend, because its content is about to be replaced by a received snapshot. Reads may go
   * on; {@link reload} must follow.
   */
  async pause(): Promise<void> {
    this.watch.deliver();
    await this.#stopJobs();
    // Blocks that nobody keeps up any more would count wrong; these let ranges be walked.
    this.#counts = new Counts();
  }

  /**
   * Takes in the content of another backend, or new content of the same one, after {@link pause}. Watchers catch up from
   * where they were. What is seen changes before the first await, unless the index has to be rebuilt.
   */
  async reload(backend: Backend): Promise<void> {
    const toldRevision = this.#currentRevision;
    if (!this.#jobs.signal.aborted) await this.pause();
    this.#jobs = new AbortController();
    this.#backend = backend;
    this.#counts = new Counts({ blockKeys: this.#limits.countBlockKeys });
    this.#compactionHashes = [];
    await this.#load(false);
    this.watch.restart(toldRevision);
  }

  async close(): Promise<void> {
    this.watch.close();
    await this.#stopJobs();
  }

  async #stopJobs(): Promise<void> {
    this.#jobs.abort();
    await this.#compactions;
    await this.#counts.stopped();
  }

  get currentRevision(): number {
    return this.#currentRevision;
  }

  /** -1 before the first compaction. */
  get compactRevision(): number {
    return this.#compactRevision;
  }

  get reader(): Backend {
    return this.#backend;
  }

  /** etcd's buckets. */
  readonly times: MvccTimes = {
    compactionPause: new Histogram(exponentialBounds(1, 2, 13)),
    compactionTotal: new Histogram(exponentialBounds(100, 2, 14)),
    hash: new Histogram(exponentialBounds(0.01, 2, 15)),
    hashAtRevision: new Histogram(exponentialBounds(0.01, 2, 15)),
  };

  get stats(): MvccStats {
    return { ...this.#stats, keys: this.#counts.total };
  }

  // --------------------------------------------------------------------------------------------------- reads

  /** Throws Compacted or FutureRevision. The header is the caller's to fill. */
  range(request: RangeRequest): RangeResponse {
    this.#stats.ranges++;
    const sink = new DecodedKeyValues();
    const { more, count } = runRange(this, request, sink);
    return { header: undefined, kvs: sink.kvs, more, count };
  }

  /** The same without decoding what is stored. */
  rangeEncoded(request: RangeRequest): EncodedRange {
    this.#stats.ranges++;
    const sink = new EncodedKeyValues(isInStoreOrder(request) ? ANSWER_BYTES_MAX : Number.POSITIVE_INFINITY);
    const result = runRange(this, request, sink);
    if (!sink.isTooLarge) return { pieces: sink.finish(result), ...result };
    const revision = request.revision > 0 ? request.revision : this.currentRevision;
    const rest = { byteLength: sink.byteLength(result), pieces: () => this.#rangeInParts(request, revision, result) };
    return { pieces: [], ...result, rest };
  }

  /** Pairs of an answer that {@link isInStoreOrder}, up to the limit; the others are not counted. */
  rangePart(request: RangeRequest): { readonly kvs: readonly KeyValue[]; readonly more: boolean } {
    const sink = new DecodedKeyValues();
    const { more } = runPart(this, request, sink);
    return { kvs: sink.kvs, more };
  }

  /** The same answer again, a part at a time, at the revision at which it was measured. */
  *#rangeInParts(request: RangeRequest, revision: number, result: RangeResult): Generator<readonly Uint8Array[]> {
    let key = request.key;
    let left = request.limit > 0 ? request.limit : Number.POSITIVE_INFINITY;
    for (;;) {
      const part = new EncodedPart();
      const { more } = runPart(this, { ...request, key, revision, limit: Math.min(ANSWER_PART_KEYS, left) }, part);
      const { lastKey, pairs } = part;
      if (lastKey) yield part.finish();
      left -= pairs;
      if (!more || left <= 0 || !lastKey) break;
      key = keyAfter(lastKey);
    }
    yield new EncodedKeyValues().finish(result);
  }

  /**
   * The same for a listing that may be large: what is read at once is bounded. `undefined` when there is more than that;
   * {@link list} then reads all of it.
   */
  rangeEncodedAtOnce(request: RangeRequest): EncodedRange | undefined {
    if (!isPlainList(request)) return this.rangeEncoded(request);
    if (request.limit > LIST_AT_ONCE_KEYS && request.limit <= LIMITED_LIST_KEYS_MAX) return this.rangeEncoded(request);
    const limit = request.limit > 0 ? request.limit : Number.POSITIVE_INFINITY;
    const range = keyRange(request.key, request.rangeEnd);
    const bounds = { keysMax: Math.min(limit, LIST_AT_ONCE_KEYS), bytesMax: LIST_SLICE_BYTES };
    const sink = new EncodedKeyValues();
    const { keys, next } = listLive(this.#backend, range, bounds, sink);
    if (next && keys < limit) return undefined;
    this.#stats.ranges++;
    const result = next ? { more: true, count: this.countLive(range) } : { more: false, count: keys };
    return { pieces: sink.finish(result), ...result };
  }

  /**
   * A listing (see {@link isPlainList}) in slices between which others work, all of it as the store was at one moment, not
   * before the call; `revision` says which. Rejects with the signal's reason when it is aborted.
   */
  async list(request: RangeRequest, signal: AbortSignal | undefined): Promise<EncodedRange & { revision: number }> {
    assert(isPlainList(request), "a list of what is no plain interval");
    await this.#lists.enter(signal);
    try {
      await using snapshot = await this.#backend.openSnapshot();
      // Rows and revision come from the same snapshot, so writes that go on meanwhile cannot part them.
      const revision = headRevision(snapshot);
      this.#stats.ranges++;
      const whole = keyRange(request.key, request.rangeEnd);
      const limit = request.limit > 0 ? request.limit : Number.POSITIVE_INFINITY;
      // Beyond what may be held it is only measured, and read again as it is sent.
      const sink = new EncodedKeyValues(ANSWER_BYTES_MAX);
      let keys = 0;
      let count = 0;
      let next: Uint8Array | undefined = whole.start;
      while (next) {
        const rest: KeyRange = { ...whole, start: next };
        const keysMax = Math.min(limit - keys, LIST_SLICE_KEYS);
        // Behind the limit only the number of keys is asked for, and it has to be the number of that moment.
        const part: ListProgress =
          keysMax > 0
            ? listLive(snapshot, rest, { keysMax, bytesMax: LIST_SLICE_BYTES }, sink)
            : countOn(snapshot, rest, COUNT_SLICE_KEYS);
        if (keysMax > 0) keys += part.keys;
        count += part.keys;
        next = part.next;
        await yieldToEventLoop();
        signal?.throwIfAborted();
      }
      const result = { more: count > keys, count };
      if (!sink.isTooLarge) return { pieces: sink.finish(result), ...result, revision };
      const rest = { byteLength: sink.byteLength(result), pieces: () => this.#rangeInParts(request, revision, result) };
      return { pieces: [], ...result, rest, revision };
    } finally {
      this.#lists.leave();
    }
  }

  countLive(range: KeyRange): number {
    return this.#counts.count(this.#backend, range);
  }

  /** A transaction that {@link isTxnReadOnly}. The header of the answer is the caller's to fill. */
  txnRead(request: TxnRequest): TxnResponse {
    this.#stats.txns++;
    const path = choosePath(this.#backend, request);
    checkPath(this, this.#leases, path);
    return runReadOnlyPath(this, path);
  }

  /** Keys that hang on a lease, in ascending order, the caller's to keep. */
  keysOfLease(lease: bigint): Uint8Array[] {
    const prefix = leasedPrefix(lease);
    const keys: Uint8Array[] = [];
    this.#backend.scan("leased", { start: prefix, keysOnly: true }, (rowKey) => {
      if (Buffer.compare(rowKey.subarray(0, prefix.length), prefix) !== 0) return false;
      keys.push(copyBytes(liveKeyOfLeasedKey(rowKey)));
      return true;
    });
    if (!keys.some(isLongLiveKey)) return keys;
    return keys.map((rowKey) => (isLongLiveKey(rowKey) ? this.#wholeKey(rowKey) : rowKey)).sort(Buffer.compare);
  }

  #wholeKey(rowKey: Uint8Array): Uint8Array {
    const row = this.#backend.get("live", rowKey);
    assert(row, "a key of a lease is not alive");
    return copyBytes(keyOfKeyValue(loadLive(this.#backend, decodeLiveRow(row), true)));
  }

  // -------------------------------------------------------------------------------------------------- writes

  #begin(tx: BackendTxn): WriteTxn {
    return new WriteTxn(tx, {
      leases: this.#leases,
      counts: this.#counts,
      currentRevision: this.#currentRevision,
      compactRevision: this.#compactRevision,
      isWatched: this.watch.isWatched,
    });
  }

  #end(txn: WriteTxn): void {
    if (!txn.hasChanges) return;
    this.#stats.putBytes += txn.putBytes;
    assert(txn.revision === this.#currentRevision + 1, "two write transactions were open at once");
    this.#currentRevision = txn.revision;
    this.watch.written(txn.revision, txn.changes);
  }

  /** Tells watchers of what was written. Called when the backend's write, of one entry or several, has returned. */
  endWrite(): void {
    this.watch.deliver();
  }

  /**
   * Throws LeaseNotFound, and KeyNotFound when value or lease are to be kept and the key is not alive; nothing has been
   * written then. Like all refusals here it must be caught inside the backend's write, which takes a throw for a broken
   * state.
   */
  put(tx: BackendTxn, request: PutRequest): PutResponse {
    this.#stats.puts++;
    const txn = this.#begin(tx);
    const response = txn.put(request);
    this.#end(txn);
    return response;
  }

  deleteRange(tx: BackendTxn, request: DeleteRangeRequest): DeleteRangeResponse {
    this.#stats.deletes++;
    const txn = this.#begin(tx);
    const response = txn.deleteRange(request);
    this.#end(txn);
    return response;
  }

  /** Throws, before anything is written, what one of its operations would: see checkPath in txn.ts. */
  txn(tx: BackendTxn, request: TxnRequest): TxnResponse {
    this.#stats.txns++;
    const path = choosePath(tx, request);
    const txn = this.#begin(tx);
    checkPath(txn, this.#leases, path);
    const response = runPath(txn, path);
    this.#end(txn);
    return response;
  }

  /** Deletes the keys of a revoked lease in one revision, in the order given. Returns how many were alive. */
  deleteKeys(tx: BackendTxn, keys: readonly Uint8Array[]): number {
    const txn = this.#begin(tx);
    const deleted = txn.deleteKeys(keys);
    this.#end(txn);
    return deleted;
  }

  // ---------------------------------------------------------------------------------------------- compaction

  /**
   * From its return on reads below `revision` fail. `done` resolves when the rows are gone and that is durable; it never
   * rejects, and resolves early when the store is closed. Throws Compacted or FutureRevision.
   */
  compact(tx: BackendTxn, revision: number): { readonly done: Promise<void> } {
    if (revision <= this.#compactRevision) throw new EtcdError("Compacted");
    if (revision > this.#currentRevision) throw new EtcdError("FutureRevision");
    const { scheduled, finished } = readCompactRevisions(tx);
    const previousRevision = this.#compactRevision;
    writeScheduledCompactRevision(tx, revision);
    this.#compactRevision = revision;
    return { done: this.#startCompaction({ revision, previousRevision, isHashStored: scheduled === finished }) };
  }

  #startCompaction(compaction: ScheduledCompaction): Promise<void> {
    const { signal } = this.#jobs;
    const run = async (): Promise<void> => {
      if (signal.aborted) return;
      try {
        await this.#runCompaction(compaction, signal);
      } catch (error) {
        if (!signal.aborted) this.#onFatal(error);
      }
    };
    this.#compactions = this.#compactions.then(run);
    return this.#compactions;
  }

  /** Others work in between: at least whatever waits now, and for as long as the configuration says. */
  async #pauseCompaction(signal: AbortSignal): Promise<void> {
    const { compactionPauseMs } = this.#limits;
    if (compactionPauseMs > 0) await this.#clock.sleep(compactionPauseMs, signal);
    else await yieldToEventLoop();
    await this.#backend.pressure();
  }

  async #runCompaction(compaction: ScheduledCompaction, signal: AbortSignal): Promise<void> {
    const { revision, previousRevision, isHashStored } = compaction;
    const startMs = this.#clock.monotonicMs();
    const backend = this.#backend;
    this.#logger.info("compact tree index", { revision });
    // The scheduled mark is durable before anything goes, so that an interrupted removal is taken up again.
    await backend.flush();
    // Rows up to the compacted revision change only below, so the hash needs no snapshot.
    const hash = await hashKeyTable(
      backend,
      { revision, compactRevision: previousRevision, isOfCompaction: true },
      signal,
    );
    this.#stats.compactedRows += await removeCompacted(backend, revision, {
      batchRows: this.#limits.compactionBatchRows,
      took: (durationMs) => this.times.compactionPause.observe(durationMs),
      clock: this.#clock,
      pause: () => this.#pauseCompaction(signal),
      signal,
    });
    await backend.flush();
    const sizeBytes = backend.sizeBytes();
    const sizeInUseBytes = backend.sizeInUseBytes();
    this.#stats.lastCompactionMs = this.#clock.nowMs();
    this.times.compactionTotal.observe(this.#clock.monotonicMs() - startMs);
    this.#logger.info("finished scheduled compaction", {
      "compact-revision": revision,
      took: goDuration(this.#clock.monotonicMs() - startMs),
      hash,
      "current-db-size-bytes": sizeBytes,
      "current-db-size": humanBytes(sizeBytes),
      "current-db-size-in-use-bytes": sizeInUseBytes,
      "current-db-size-in-use": humanBytes(sizeInUseBytes),
    });
    if (isHashStored) this.#storeHash({ hash, revision, compactRevision: previousRevision });
    else this.#logger.info("previous compaction was interrupted, skip storing compaction hash value");
  }

  #storeHash(stored: KeyValueHash): void {
    this.#logger.info("storing new hash", {
      hash: stored.hash,
      revision: stored.revision,
      "compact-revision": stored.compactRevision,
    });
    this.#compactionHashes.push(stored);
    if (this.#compactionHashes.length > COMPACTION_HASHES_MAX) this.#compactionHashes.shift();
  }

  // ------------------------------------------------------------------------------------------------- hashes

  /** Hashes that finished compactions left, oldest first. */
  get compactionHashes(): readonly KeyValueHash[] {
    return this.#compactionHashes;
  }

  /** Of all tables, for what Maintenance.Hash answers; `revision` is the newest of what was hashed. */
  async hash(signal?: AbortSignal): Promise<{ readonly hash: number; readonly revision: number }> {
    const startMs = this.#clock.monotonicMs();
    await using snapshot = await this.#backend.openSnapshot();
    const { revision } = historyHead(snapshot);
    const hash = await hashAll(snapshot, signal);
    this.times.hash.observe((this.#clock.monotonicMs() - startMs) / 1000);
    return { hash, revision };
  }

  /**
   * Of history up to `revision` (0 = now). For a revision at which a remembered compaction was made, the hash from
   * before it. Throws Compacted or FutureRevision.
   */
  async hashKv(revision: number, signal?: AbortSignal): Promise<HashAt> {
    const currentRevision = this.#currentRevision;
    const stored = this.#compactionHashes.find((hash) => hash.revision === revision);
    if (stored) return { ...stored, currentRevision };
    const upTo = revision === 0 ? this.#currentRevision : revision;
    this.#checkHashRevision(upTo);
    await using snapshot = await this.#backend.openSnapshot();
    this.#checkHashRevision(upTo);
    const compactRevision = this.#compactRevision;
    const startMs = this.#clock.monotonicMs();
    const hash = await hashKeyTable(snapshot, { revision: upTo, compactRevision }, signal);
    this.times.hashAtRevision.observe((this.#clock.monotonicMs() - startMs) / 1000);
    return { hash, revision: upTo, compactRevision, currentRevision };
  }

  #checkHashRevision(revision: number): void {
    if (revision > this.#currentRevision) throw new EtcdError("FutureRevision");
    if (revision > 0 && revision < this.#compactRevision) throw new EtcdError("Compacted");
  }
}

/** The newest revision that a database knows of, and its marks of compactions. */
function historyHead(reader: BackendReader): {
  readonly revision: number;
  readonly scheduled: number | undefined;
  readonly finished: number | undefined;
} {
  const newest = reader.first("key", { reverse: true, keysOnly: true });
  const { scheduled, finished } = readCompactRevisions(reader);
  const revision = Math.max(1, newest ? mainOfRevisionKey(newest.key) : 0, scheduled ?? 0, finished ?? 0);
  return { revision, scheduled, finished };
}
