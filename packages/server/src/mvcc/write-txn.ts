/**
 * One write transaction: all changes made under one main revision, each with the next sub revision. It writes history
 * (`key`), index (`live`, `past`), lease rows (`leased`) into the backend transaction it is given and remembers the
 * changes for watchers. Reads through it see what it has written.
 */
import type {
  DeleteRangeRequest,
  DeleteRangeResponse,
  KeyValue,
  PutRequest,
  PutResponse,
  RangeRequest,
  RangeResponse,
} from "@etcd-ts/client/wire";
import { EtcdError } from "@etcd-ts/client/wire";
import { EMPTY_BYTES } from "../lib/bytes.ts";
import {
  type BackendTxn,
  decodeLiveRow,
  encodeInlineLiveRow,
  encodeKeyValue,
  encodePastRow,
  encodeTombstone,
  INLINE_KEY_VALUE_BYTES_MAX,
  keyValueLength,
  type LiveRow,
  leasedKey,
  liveKey,
  pastKey,
  putLiveRow,
  putPastRow,
  REVISION_BYTES,
  readKeyValue,
  tombstoneKey,
  writeKeyValue,
  writeRevisionKey,
} from "../storage/index.ts";
import type { Counts } from "./counts.ts";
import { readLive, walkLive } from "./key-index.ts";
import { type KeyRange, keyRange } from "./key-range.ts";
import { isOfOnePair, loadLive, type RangeView, runRange } from "./range.ts";
import { DecodedKeyValues } from "./range-body.ts";
import { revisionHeader } from "./response-header.ts";
import type { LeaseAttacher } from "./types.ts";
import { EventLog } from "./watch/event.ts";

/** What a write transaction finds; the same object for all of them. */
export interface WriteTxnContext {
  readonly leases: LeaseAttacher;
  readonly counts: Counts;
  readonly currentRevision: number;
  readonly compactRevision: number;
  /** Whether anybody is to be told: otherwise the changes are not kept. */
  readonly isWatched: boolean;
}

/** For keys, which are short: a call for it would cost more. */
function isSame(a: Uint8Array, b: Uint8Array): boolean {
  const { length } = a;
  if (length !== b.length) return false;
  for (let i = 0; i < length; i++) if (a[i] !== b[i]) return false;
  return true;
}

export class WriteTxn implements RangeView {
  readonly reader: BackendTxn;
  readonly compactRevision: number;
  /** The main revision of everything written here. */
  readonly revision: number;
  /** For watchers; undefined unless there are any, and something has been written. */
  #log: EventLog | undefined;
  /** Operations that are still to come, where that is known. */
  following = 0;
  /** Changes so far, and so the sub revision of the next one. */
  #count = 0;
  /** Bytes of keys and values put, for the metric. */
  putBytes = 0;
  /**
   * The key that was looked up or written last, what `live` has of it, and its pair if it was written here: what a transaction
   * compares, puts and reads is often one key.
   */
  #lastKey: Uint8Array | undefined;
  #lastRow: LiveRow | undefined;
  #lastPair: { readonly bytes: Uint8Array; readonly start: number; readonly end: number } | undefined;
  /** The answer of every put that does not ask for the pair before. */
  #plainPut: PutResponse | undefined;
  readonly #context: WriteTxnContext;
  readonly #tx: BackendTxn;

  constructor(tx: BackendTxn, context: WriteTxnContext) {
    this.#tx = tx;
    this.#context = context;
    this.reader = tx;
    this.compactRevision = context.compactRevision;
    this.revision = context.currentRevision + 1;
  }

  /** What to tell watchers; undefined when there is nothing, or nobody. */
  get log(): EventLog | undefined {
    return this.#log;
  }

  #logged(): EventLog {
    this.#log ??= new EventLog(this.revision);
    return this.#log;
  }

  get hasChanges(): boolean {
    return this.#count > 0;
  }

  /** What a range in here may ask for: its own revision only once something has been written under it. */
  get currentRevision(): number {
    return this.hasChanges ? this.revision : this.revision - 1;
  }

  countLive(range: KeyRange): number {
    return this.#context.counts.count(this.#tx, range);
  }

  /** The row of `live`. */
  live(key: Uint8Array): LiveRow | undefined {
    if (this.#lastKey && isSame(this.#lastKey, key)) return this.#lastRow;
    const row = readLive(this.#tx, key);
    // One that holds its pair is a view, which the next look-up may take.
    if (!row?.inline) this.#last(key, row);
    return row;
  }

  #last(key: Uint8Array | undefined, row: LiveRow | undefined): void {
    this.#lastKey = key;
    this.#lastRow = row;
    this.#lastPair = undefined;
  }

  range(request: RangeRequest): RangeResponse {
    const sink = new DecodedKeyValues();
    const pair = this.#lastPair;
    if (pair && this.#lastKey && isSame(this.#lastKey, request.key) && isOfOnePair(request)) {
      sink.add(pair.bytes.subarray(pair.start, pair.end));
      return { header: revisionHeader(this.currentRevision), kvs: sink.kvs, more: false, count: 1 };
    }
    const { more, count } = runRange(this, request, sink);
    return { header: revisionHeader(this.currentRevision), kvs: sink.kvs, more, count };
  }

  /**
   * Throws KeyNotFound when a value or lease is to be kept and the key does not exist, LeaseNotFound for a lease that is
   * not there; nothing has been written then.
   */
  put(request: PutRequest): PutResponse {
    const { key } = request;
    if (request.lease !== 0n && !this.#context.leases.has(request.lease)) throw new EtcdError("LeaseNotFound");
    const before = this.live(key);
    if (!before && (request.ignoreValue || request.ignoreLease)) throw new EtcdError("KeyNotFound");
    return this.putUnchecked(request, before);
  }

  /** For operations of a transaction, which are checked together beforehand. */
  putUnchecked(request: PutRequest, before = this.live(request.key)): PutResponse {
    const needsStored = request.prevKv || request.ignoreValue;
    const previous = before && needsStored ? (readKeyValue(loadLive(this.#tx, before, true)) as KeyValue) : undefined;
    // A delete by an open-ended range in front may have taken the key away: then there is nothing to keep.
    const value = request.ignoreValue ? (previous?.value ?? EMPTY_BYTES) : request.value;
    const lease = request.ignoreLease ? (before?.lease ?? 0n) : request.lease;
    this.#write(request.key, value, lease, before);
    if (request.prevKv) return { header: revisionHeader(this.revision), prevKv: previous };
    this.#plainPut ??= { header: revisionHeader(this.revision), prevKv: undefined };
    return this.#plainPut;
  }

  #write(key: Uint8Array, value: Uint8Array, lease: bigint, before: LiveRow | undefined): void {
    const tx = this.#tx;
    const main = this.revision;
    const sub = this.#count++;
    const createRevision = before ? before.createRevision : main;
    const version = before ? before.version + 1 : 1;
    const fields = { key, createRevision, modRevision: main, version, value, lease };
    const bytes = keyValueLength(fields);
    const place = tx.reserve("key", REVISION_BYTES, bytes);
    writeRevisionKey(place.bytes, main, sub, place.keyAt);
    writeKeyValue(place.bytes, place.valueAt, fields);
    if (this.#context.isWatched) this.#logged().addPut(key, place.bytes, place.valueAt, bytes, this.following);
    const rowKey = liveKey(key);
    if (bytes > INLINE_KEY_VALUE_BYTES_MAX) {
      const start = place.valueAt;
      const pair = { bytes: place.bytes, start, end: start + bytes };
      const row = { main, sub, createRevision, version, lease, inline: undefined };
      putLiveRow(tx, rowKey, row);
      this.#last(key, row);
      // Rows of the open batch stay where they are for as long as this transaction does.
      this.#lastPair = pair;
    } else {
      tx.put("live", rowKey, encodeInlineLiveRow(sub, encodeKeyValue(fields)));
      this.#last(undefined, undefined);
    }
    if (before) {
      putPastRow(tx, key, before, main);
      this.#context.counts.changed(rowKey, main);
    } else this.#context.counts.added(tx, rowKey, main);
    const leaseBefore = before?.lease ?? 0n;
    if (leaseBefore !== lease) {
      if (leaseBefore !== 0n) tx.delete("leased", leasedKey(leaseBefore, rowKey));
      if (lease !== 0n) tx.put("leased", leasedKey(lease, rowKey), EMPTY_BYTES);
    }
    this.putBytes += key.length + value.length;
  }

  deleteRange(request: DeleteRangeRequest): DeleteRangeResponse {
    const doomed: { key: Uint8Array; row: LiveRow }[] = [];
    walkLive(this.#tx, keyRange(request.key, request.rangeEnd), (key, row) => {
      doomed.push({ key, row: decodeLiveRow(row) });
    });
    const prevKvs = request.prevKv
      ? doomed.map(({ row }) => readKeyValue(loadLive(this.#tx, row, true)) as KeyValue)
      : [];
    for (const { key, row } of doomed) this.#remove(key, row);
    return { header: revisionHeader(this.currentRevision), deleted: doomed.length, prevKvs };
  }

  /** Deletes those of the keys that are alive, in the order given; how many they were. */
  deleteKeys(keys: readonly Uint8Array[]): number {
    let deleted = 0;
    for (const key of keys) {
      const row = readLive(this.#tx, key);
      if (!row) continue;
      this.#remove(key, row);
      deleted++;
    }
    return deleted;
  }

  #remove(key: Uint8Array, row: LiveRow): void {
    const tx = this.#tx;
    const main = this.revision;
    const sub = this.#count++;
    const stored = encodeTombstone(key);
    const rowKey = liveKey(key);
    this.#last(undefined, undefined);
    tx.put("key", tombstoneKey(main, sub), stored);
    tx.delete("live", rowKey);
    tx.put("past", pastKey(key, row.main, row.sub), encodePastRow(main));
    tx.put("past", pastKey(key, main, sub), EMPTY_BYTES);
    if (row.lease !== 0n) tx.delete("leased", leasedKey(row.lease, rowKey));
    this.#context.counts.removed(rowKey, main);
    if (this.#context.isWatched) this.#logged().addDelete(key, stored);
  }
}
