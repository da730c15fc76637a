/**
 * The store: every change of every key, numbered by revision. It promises etcd's semantics of range, put, delete,
 * transaction, compaction and hash, on rows that are etcd's own; that of the keyspace no more is held in memory than some
 * fences, and pairs of recent listings up to a bound; and that opening costs the same whatever it holds.
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
import type { Clock, Timer } from "../lib/clock.ts";
import { goDuration, humanBytes } from "../lib/go-format.ts";
import { exponentialBounds, Histogram } from "../lib/metrics.ts";
import type { Logger } from "../lib/log.ts";
import {
  type Backend,
  type BackendReader,
  type BackendSnapshot,
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
import { COUNT_BLOCK_KEYS, Counts, CUT_AT_BLOCKS } from "./counts.ts";
import { hashAll, hashKeyTable } from "./hash.ts";
import { countLive, readLive } from "./key-index.ts";
import { isEmptyRange, type KeyRange, keyRange } from "./key-range.ts";
import {
  ANSWER_BYTES_MAX,
  COMPACTION_BATCH_ROWS,
  COMPACTION_HASHES_MAX,
  COUNT_SLICE_KEYS,
  HELD_ANSWERS_BYTES_MAX,
  LIMITED_LIST_KEYS_MAX,
  LIST_AT_ONCE_KEYS,
  LIST_ATTEMPTS_MAX,
  LIST_SLICE_BYTES,
  LIST_SLICE_KEYS,
  LISTS_MAX,
  LONG_RANGE_HELD_MS,
  LONG_RANGES_HELD_MAX,
  OUTBOX_RESPONSES_MAX,
  PAIR_CACHE_BYTES_MAX,
  PAIR_CACHE_IDLE_MS,
} from "./limits.ts";
import { listAt, type ListSource } from "./listing.ts";
import { addSlice, HeldBytes, HeldSnapshot, inParts, sliceKeysMax } from "./long-range.ts";
import {
  countOn,
  isInStoreOrder,
  isPlainList,
  type ListProgress,
  loadLive,
  type RangeResult,
  type RangeView,
  revisionToRead,
  runPart,
  runRange,
} from "./range.ts";
import { DecodedKeyValues, EncodedKeyValues } from "./range-body.ts";
import { PairCache } from "./pair-cache.ts";
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
import { WriteTxn, type WriteTxnContext } from "./write-txn.ts";

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
  readonly #context: WriteTxnContext;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #limits: MvccLimits;
  readonly #giveWay: () => Promise<void>;
  readonly #onFatal: (error: unknown) => void;
  #backend: Backend;
  readonly #pairs = new PairCache(PAIR_CACHE_BYTES_MAX);
  #counts: Counts;
  /** Listings under way that rely on changes being noted, and the timer that ends the noting when nobody does. */
  #trackers = 0;
  #sweep: Timer | undefined;
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
  /** Snapshots of answers that are being sent. */
  readonly #held = new Set<HeldSnapshot>();
  /** Bytes of lists that are being made or sent, those of ordinary length left out. */
  #heldBytes = 0;
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
    this.#context = this.#contextOfWrites();
    this.#clock = options.clock;
    this.#logger = options.logger;
    this.#onFatal =
      options.onFatal ??
      ((error) => {
        throw error;
      });
    this.#giveWay = options.giveWay ?? yieldToEventLoop;
    this.#limits = {
      compactionBatchRows: COMPACTION_BATCH_ROWS,
      compactionPauseMs: 0,
      outboxResponsesMax: OUTBOX_RESPONSES_MAX,
      longRangeHeldMs: LONG_RANGE_HELD_MS,
      countBlockKeys: COUNT_BLOCK_KEYS,
      listSliceKeys: LIST_SLICE_KEYS,
      heldAnswersBytesMax: HELD_ANSWERS_BYTES_MAX,
      ...options.limits,
    };
    this.#counts = new Counts({ blockKeys: this.#limits.countBlockKeys }, this.#pairs);
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
    this.#logger.info("kvstore restored", { "current-rev": this.#currentRevision });
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
    this.#pairs.clear();
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
    this.#counts = new Counts({ blockKeys: this.#limits.countBlockKeys }, this.#pairs);
    this.#compactionHashes = [];
    await this.#load(false);
    this.watch.restart(toldRevision);
  }

  async close(): Promise<void> {
    this.watch.close();
    for (const held of this.#held) held.release();
    this.#sweep?.cancel();
    await this.#stopJobs();
  }

  async #stopJobs(): Promise<void> {
    this.#jobs.abort();
    await this.#compactions;
    await this.#counts.stopped();
  }

  /** For write transactions: what stands here now. */
  #contextOfWrites(): WriteTxnContext {
    const store = this;
    return {
      leases: this.#leases,
      get counts() {
        return store.#counts;
      },
      get currentRevision() {
        return store.#currentRevision;
      },
      get compactRevision() {
        return store.#compactRevision;
      },
      get isWatched() {
        return store.watch.isWatched;
      },
    };
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

  /** The same without decoding what is stored, all of it at once. */
  rangeEncoded(request: RangeRequest): EncodedRange {
    this.#stats.ranges++;
    const sink = new EncodedKeyValues();
    const result = runRange(this, request, sink);
    return { pieces: sink.finish(result), pairs: sink.pairs, ...result };
  }

  /** Pairs of an answer that {@link isInStoreOrder}, up to the limit; the others are not counted. */
  rangePart(request: RangeRequest): { readonly kvs: readonly KeyValue[]; readonly more: boolean } {
    const sink = new DecodedKeyValues();
    const { more } = runPart(this, request, sink);
    return { kvs: sink.kvs, more };
  }

  /**
   * The same for a listing that may be large: what is read at once is bounded. `undefined` when there is more than that;
   * {@link list} then reads all of it. What is not in the order of the store is read at once, whatever it is.
   */
  rangeEncodedAtOnce(request: RangeRequest): EncodedRange | undefined {
    if (!isInStoreOrder(request)) return this.rangeEncoded(request);
    const limit = request.limit > 0 ? request.limit : Number.POSITIVE_INFINITY;
    const range = keyRange(request.key, request.rangeEnd);
    const atRevision = revisionToRead(this, request.revision);
    // With a limit the count comes from blocks, so that the pairs are all there is to read.
    const isLimited = limit > LIST_AT_ONCE_KEYS && limit <= LIMITED_LIST_KEYS_MAX;
    const bounds = isLimited
      ? { keysMax: limit, bytesMax: ANSWER_BYTES_MAX }
      : { keysMax: Math.min(limit, LIST_AT_ONCE_KEYS), bytesMax: LIST_SLICE_BYTES };
    const sink = new EncodedKeyValues();
    if (this.#mayUseBlocks(request) && limit >= this.#limits.countBlockKeys / 2 && this.#track()) {
      return this.#listBlocks(range, limit, bounds, sink);
    }
    const { keys, next } = addSlice(this, undefined, request, range, { ...bounds, leftMax: limit }, sink);
    if (next && keys < limit) return undefined;
    let count = keys;
    if (next && atRevision === undefined) count = this.countLive(range);
    else if (next) {
      const behind = countOn(this.#backend, { ...range, start: next }, COUNT_SLICE_KEYS, atRevision);
      if (behind.next) return undefined;
      count += behind.keys;
    }
    this.#stats.ranges++;
    const result = { more: next !== undefined, count };
    return { pieces: sink.finish(result), pairs: keys, ...result };
  }

  /** Whether a request's pairs are those of blocks: whole, and as they are now. */
  #mayUseBlocks(request: RangeRequest): boolean {
    return isPlainList(request) && !isEmptyRange(keyRange(request.key, request.rangeEnd));
  }

  /** Has changes noted for listings from here on; false while that cannot be. */
  #track(): boolean {
    if (!this.#counts.track(this.#currentRevision)) return false;
    this.#sweep ??= this.#clock.after(PAIR_CACHE_IDLE_MS, () => this.#sweepPairs(), { unref: true });
    return true;
  }

  #sweepPairs(): void {
    this.#sweep = undefined;
    this.#pairs.sweep(this.#clock.monotonicMs(), PAIR_CACHE_IDLE_MS);
    if (this.#pairs.isEmpty && this.#trackers === 0) this.#counts.untrack();
    else this.#sweep = this.#clock.after(PAIR_CACHE_IDLE_MS, () => this.#sweepPairs(), { unref: true });
  }

  #blocksAt(revision: number, snapshot?: BackendReader): ListSource | undefined {
    if (!this.#counts.isTracking) return undefined;
    return {
      reader: this.#backend,
      snapshot,
      counts: this.#counts,
      revision,
      nowMs: this.#clock.monotonicMs(),
    };
  }

  /** {@link rangeEncodedAtOnce} by blocks. */
  #listBlocks(
    range: KeyRange,
    limit: number,
    bounds: { readonly keysMax: number; readonly bytesMax: number },
    sink: EncodedKeyValues,
  ): EncodedRange | undefined {
    const source = this.#blocksAt(this.#currentRevision);
    assert(source, "a listing by blocks without tracking");
    const { keys, next } = listAt(
      source,
      range,
      {
        keysMax: limit,
        // Of the blocks at both ends more may be read than is wanted.
        readKeysMax:
          bounds.keysMax + (limit < Number.POSITIVE_INFINITY ? 2 * CUT_AT_BLOCKS * this.#limits.countBlockKeys : 0),
        readBytesMax: bounds.bytesMax,
        addedBytesMax: ANSWER_BYTES_MAX,
      },
      sink,
    );
    if (next && keys < limit) return undefined;
    this.#stats.ranges++;
    const count = next ? this.countLive(range) : keys;
    const result = { more: count > keys, count };
    return { pieces: sink.finish(result), pairs: keys, ...result };
  }

  /**
   * A list of whole pairs as they are now, in slices and without a snapshot. `undefined` when that cannot be: its bytes are
   * too many to be held, or a compaction or a new state was quicker each time.
   */
  async #listHeld(
    request: RangeRequest,
    signal: AbortSignal | undefined,
  ): Promise<(EncodedRange & { revision: number }) | undefined> {
    const range = keyRange(request.key, request.rangeEnd);
    const limit = request.limit > 0 ? request.limit : Number.POSITIVE_INFINITY;
    for (let attempt = 0; attempt < LIST_ATTEMPTS_MAX; attempt++) {
      if (!this.#track()) return undefined;
      const revision = this.#currentRevision;
      const counts = this.#counts;
      const count = this.countLive(range);
      const sink = new EncodedKeyValues();
      const held = new HeldBytes((bytes) => this.#mayHold(bytes));
      try {
        let keys = 0;
        let next: Uint8Array | undefined = range.start;
        while (next && keys < limit) {
          if (counts !== this.#counts || this.#compactRevision > revision) break;
          const source = this.#blocksAt(revision);
          if (!source) return undefined;
          const bounds = {
            keysMax: limit - keys,
            readKeysMax: this.#limits.listSliceKeys,
            readBytesMax: LIST_SLICE_BYTES,
            addedBytesMax: ANSWER_BYTES_MAX,
          };
          const part: ListProgress = listAt(source, { ...range, start: next }, bounds, sink);
          keys += part.keys;
          next = part.next;
          // What will certainly not fit is not begun.
          const expectedBytes = (sink.addedBytes / Math.max(1, keys)) * Math.min(count, limit);
          if (expectedBytes > ANSWER_BYTES_MAX + 2 * this.#limits.heldAnswersBytesMax) return undefined;
          if (!held.growTo(sink.addedBytes - ANSWER_BYTES_MAX)) return undefined;
          await this.#giveWay();
          signal?.throwIfAborted();
        }
        if (next && keys < limit) continue;
        assert(keys === Math.min(count, limit), "a listing found other keys than were counted when it began");
        this.#stats.ranges++;
        const result = { more: count > keys, count };
        const byteLength = sink.byteLength(result);
        const pieces = sink.finish(result);
        if (held.bytes === 0) return { pieces, pairs: keys, ...result, revision };
        return {
          pieces: [],
          pairs: keys,
          ...result,
          rest: { byteLength, pieces: held.whileSent(pieces, signal), giveWay: this.#giveWay },
          revision,
        };
      } finally {
        held.releaseUnlessSent();
      }
    }
    return undefined;
  }

  /** Whether so many more bytes may be held; negative: fewer are. */
  #mayHold(bytes: number): boolean {
    if (bytes > 0 && this.#heldBytes + bytes > this.#limits.heldAnswersBytesMax) return false;
    this.#heldBytes += bytes;
    return true;
  }

  /**
   * A listing (see {@link isInStoreOrder}) in slices between which others work, all of it as the store was at one moment,
   * not before the call; `revision` is the newest of that moment. Throws Compacted or FutureRevision; rejects with the
   * signal's reason when it is aborted, which must also happen when the answer is not wanted any more.
   */
  async list(request: RangeRequest, signal: AbortSignal | undefined): Promise<EncodedRange & { revision: number }> {
    assert(isInStoreOrder(request), "a list of what is not in the order of the store");
    await this.#lists.enter(signal);
    let snapshot: BackendSnapshot | undefined;
    this.#trackers++;
    try {
      const held = this.#mayUseBlocks(request) ? await this.#listHeld(request, signal) : undefined;
      if (held) return held;
      const pinned = await this.#backend.openSnapshot();
      snapshot = pinned;
      // Rows and revision come from the same snapshot, so writes that go on meanwhile cannot part them.
      const revision = headRevision(pinned);
      const view: RangeView = {
        reader: pinned,
        currentRevision: revision,
        compactRevision: this.#compactRevision,
        countLive: (range) => countLive(pinned, range),
      };
      const atRevision = revisionToRead(view, request.revision);
      this.#stats.ranges++;
      const whole = keyRange(request.key, request.rangeEnd);
      const isByBlocks = this.#mayUseBlocks(request);
      const limit = request.limit > 0 ? request.limit : Number.POSITIVE_INFINITY;
      // Beyond what may be held it is only measured, and read again as it is sent.
      const sink = new EncodedKeyValues(ANSWER_BYTES_MAX);
      let keys = 0;
      let count = 0;
      let next: Uint8Array | undefined = whole.start;
      while (next) {
        const rest: KeyRange = { ...whole, start: next };
        const keysMax = Math.min(limit - keys, sliceKeysMax(request, this.#limits.listSliceKeys));
        // Behind the limit only the number of keys is asked for, and it has to be the number of that moment.
        const part: ListProgress =
          keysMax > 0
            ? addSlice(
                view,
                isByBlocks ? this.#blocksAt(revision, pinned) : undefined,
                request,
                rest,
                { keysMax, bytesMax: LIST_SLICE_BYTES, leftMax: limit - keys },
                sink,
              )
            : countOn(pinned, rest, COUNT_SLICE_KEYS, atRevision);
        if (keysMax > 0) keys += part.keys;
        count += part.keys;
        next = part.next;
        await this.#giveWay();
        signal?.throwIfAborted();
      }
      const result = { more: count > keys, count };
      if (!sink.isTooLarge) return { pieces: sink.finish(result), pairs: keys, ...result, revision };
      const pieces = this.#piecesOf(view, pinned, request, result, signal);
      snapshot = undefined;
      return {
        pieces: [],
        pairs: keys,
        ...result,
        rest: { byteLength: sink.byteLength(result), pieces, giveWay: this.#giveWay },
        revision,
      };
    } finally {
      snapshot?.close();
      this.#trackers--;
      this.#lists.leave();
    }
  }

  /** How a measured answer is read again: from its snapshot as long as that may be kept, then from the store. */
  #piecesOf(
    view: RangeView,
    snapshot: BackendSnapshot,
    request: RangeRequest,
    result: RangeResult,
    signal: AbortSignal | undefined,
  ): () => Iterable<readonly Uint8Array[]> {
    const revision = request.revision > 0 ? request.revision : view.currentRevision;
    const held: HeldSnapshot = new HeldSnapshot(snapshot, {
      clock: this.#clock,
      heldMs: this.#held.size < LONG_RANGES_HELD_MAX ? this.#limits.longRangeHeldMs : 0,
      signal,
      onRelease: () => this.#held.delete(held),
    });
    this.#held.add(held);
    const source = (): RangeView => (held.reader ? view : this);
    const mayUseBlocks = this.#mayUseBlocks(request);
    const blocks = (): ListSource | undefined => (mayUseBlocks ? this.#blocksAt(revision, held.reader) : undefined);
    return function* () {
      try {
        yield* inParts(source, blocks, request, revision, result);
      } finally {
        held.release();
      }
    };
  }

  nowMs(): number {
    return this.#clock.monotonicMs();
  }

  /**
   * For a moment after a start the keys are still being counted. Resolves when that is done, `undefined` when a request need
   * not wait for it. Must be asked again then.
   */
  waitToCount(request: RangeRequest): Promise<void> | undefined {
    if ((!request.countOnly && request.limit <= 0) || request.revision > 0) return undefined;
    return this.#counts.waitFor(keyRange(request.key, request.rangeEnd));
  }

  countLive(range: KeyRange): number {
    return this.#counts.count(this.#backend, range);
  }

  /** A transaction that {@link isTxnReadOnly}. The header of the answer is the caller's to fill. */
  txnRead(request: TxnRequest): TxnResponse {
    this.#stats.txns++;
    const backend = this.#backend;
    const path = choosePath({ reader: backend, live: (key) => readLive(backend, key) }, request);
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
    return new WriteTxn(tx, this.#context);
  }

  #end(txn: WriteTxn): void {
    if (!txn.hasChanges) return;
    this.#stats.putBytes += txn.putBytes;
    assert(txn.revision === this.#currentRevision + 1, "two write transactions were open at once");
    this.#currentRevision = txn.revision;
    if (txn.log) this.watch.written(txn.revision, txn.log);
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
    const txn = this.#begin(tx);
    const path = choosePath(txn, request);
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
