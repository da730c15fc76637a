/**
 * Range: the pairs of an interval at one revision, filtered, sorted and cut as the request asks. Works on any reader, so
 * that a big range may later be cut into pieces over a pinned BackendSnapshot.
 *
 *   no sorting, no filter   walk until the limit, hand each stored KeyValue on; count the rest without reading values
 *   otherwise               gather the numbers of all keys, filter, sort, cut; read values only of what is left
 */
import { EtcdError, type RangeRequest, SortOrder, SortTarget } from "@etcd-ts/client/wire";
import { assert } from "../lib/assert.ts";
import { compareBytes, copyBytes, EMPTY_BYTES } from "../lib/bytes.ts";
import {
  type BackendReader,
  decodeLiveRow,
  encodeKeyValue,
  inlineOfLiveRow,
  readLiveRevision,
  type LiveRow,
  liveKey,
  readKeyValue,
  REVISION_BYTES,
  writeRevisionKey,
} from "../storage/index.ts";
import { findAt, walkAt, walkLive } from "./key-index.ts";
import { type KeyRange, keyRange } from "./key-range.ts";
import type { KeyValueSink, PartSink } from "./range-body.ts";

/** The state that a range reads: rows, and which revisions may be asked for. */
export interface RangeView {
  readonly reader: BackendReader;
  /** Newest revision that may be asked for; inside a transaction the one before it. */
  readonly currentRevision: number;
  /** -1 before the first compaction. */
  readonly compactRevision: number;
  /** Number of living keys in a range. */
  countLive(range: KeyRange): number;
  /** Monotonic milliseconds, to tell how long parts of a range took. */
  nowMs?(): number;
}

export interface RangeResult {
  /** The limit cut something off. */
  readonly more: boolean;
  /** Keys in the interval at that revision, before filters and limit. */
  readonly count: number;
  /** Of a sorted range, for traces: when its keys had been gathered, and when they were sorted, by the view's clock. */
  readonly marks?: { readonly gatheredMs: number; readonly sortedMs: number };
}

/** The revision to read at, or `undefined` for the newest. Throws Compacted or FutureRevision. */
export function revisionToRead(view: RangeView, requested: number): number | undefined {
  if (requested > view.currentRevision) throw new EtcdError("FutureRevision");
  if (requested <= 0) return undefined;
  if (requested < view.compactRevision) throw new EtcdError("Compacted");
  return requested === view.currentRevision ? undefined : requested;
}

const isFiltered = (request: RangeRequest): boolean =>
  request.minModRevision !== 0 ||
  request.maxModRevision !== 0 ||
  request.minCreateRevision !== 0 ||
  request.maxCreateRevision !== 0;

/** Whether a request wants a single key's pair as it is now, whole. */
export function isOfOnePair(request: RangeRequest): boolean {
  return (
    keyRange(request.key, request.rangeEnd).isSingle &&
    request.revision === 0 &&
    !request.countOnly &&
    !request.keysOnly &&
    !isFiltered(request)
  );
}

const revisionRowKey = Buffer.alloc(REVISION_BYTES);

/** The stored KeyValue of a put. With `keep` the caller's own bytes, otherwise valid until the next read. */
export function loadKeyValue(reader: BackendReader, main: number, sub: number, keep: boolean): Uint8Array {
  writeRevisionKey(revisionRowKey, main, sub);
  const stored = keep ? reader.get("key", revisionRowKey) : reader.peek("key", revisionRowKey);
  assert(stored, () => `revision ${main}.${sub} is in the index but not in the key table`);
  return stored;
}

/** The stored KeyValue of a living key. */
export function loadLive(reader: BackendReader, row: LiveRow, keep: boolean): Uint8Array {
  if (!row.inline) return loadKeyValue(reader, row.main, row.sub, keep);
  return keep ? copyBytes(row.inline) : row.inline;
}

/** The stored KeyValue of a key as it was at a revision, the caller's to keep; `undefined` when it was not alive. */
export function loadAt(reader: BackendReader, userKey: Uint8Array, atRevision: number): Uint8Array | undefined {
  const revision = findAt(reader, userKey, atRevision);
  return revision && loadKeyValue(reader, revision.main, revision.sub, true);
}

/** Whether the pairs come in the order of the store, all of them: then the rest of an answer begins behind its last key. */
export function isInStoreOrder(request: RangeRequest): boolean {
  return (
    request.rangeEnd.length > 0 &&
    !request.countOnly &&
    !isFiltered(request) &&
    request.sortTarget === SortTarget.Key &&
    request.sortOrder !== SortOrder.Descend
  );
}

/**
 * One part of an answer that {@link isInStoreOrder}: up to `request.limit` pairs, and none after the sink is full; the others
 * are not counted.
 */
export function runPart(view: RangeView, request: RangeRequest, sink: PartSink): { readonly more: boolean } {
  const range = keyRange(request.key, request.rangeEnd);
  return rangeInKeyOrder(view, range, revisionToRead(view, request.revision), request, sink, sink);
}

/** Whether a request wants whole pairs of an interval as they are now, in the order of the store. */
export function isPlainList(request: RangeRequest): boolean {
  return isInStoreOrder(request) && !request.keysOnly && request.revision <= 0;
}

/** How far a listing has come. */
export interface ListProgress {
  readonly keys: number;
  /** Where the rest begins; `undefined` when there is none. */
  readonly next: Uint8Array | undefined;
}

const liveRevision = { main: 0, sub: 0 };

/** The living pairs of a range in order, up to some bound: the walk that most listings are made of. */
export function listLive(
  reader: BackendReader,
  range: KeyRange,
  bounds: { readonly keysMax: number; readonly bytesMax: number },
  sink: KeyValueSink & { readonly addedBytes: number },
): ListProgress {
  const endBytes = sink.addedBytes + bounds.bytesMax;
  let keys = 0;
  let next: Uint8Array | undefined;
  walkLive(reader, range, (userKey, row) => {
    if (keys === bounds.keysMax || sink.addedBytes >= endBytes) {
      next = copyBytes(userKey);
      return false;
    }
    keys++;
    sink.add(storedOf(reader, row));
    return true;
  });
  return { keys, next };
}

/** The stored KeyValue that a row of `live` stands for, valid until the next read. */
function storedOf(reader: BackendReader, row: Uint8Array): Uint8Array {
  const inline = inlineOfLiveRow(row);
  if (inline) return inline;
  readLiveRevision(row, liveRevision);
  return loadKeyValue(reader, liveRevision.main, liveRevision.sub, false);
}

/** The stored KeyValue of a key as it is now, valid until the next read; `undefined` when it is not alive. */
export function peekStored(reader: BackendReader, userKey: Uint8Array): Uint8Array | undefined {
  const row = reader.peek("live", liveKey(userKey));
  return row && storedOf(reader, row);
}

/** Counts on where a listing ended, up to some bound; at the newest revision when `atRevision` is undefined. */
export function countOn(
  reader: BackendReader,
  range: KeyRange,
  keysMax: number,
  atRevision: number | undefined,
): ListProgress {
  let keys = 0;
  let next: Uint8Array | undefined;
  const visit = (userKey: Uint8Array): boolean => {
    if (keys === keysMax) {
      next = copyBytes(userKey);
      return false;
    }
    keys++;
    return true;
  };
  if (atRevision === undefined) walkLive(reader, range, visit);
  else walkAt(reader, range, atRevision, visit);
  return { keys, next };
}

/** Puts what the request asks for into `sink`. Throws Compacted or FutureRevision before anything is added. */
export function runRange(view: RangeView, request: RangeRequest, sink: KeyValueSink): RangeResult {
  const range = keyRange(request.key, request.rangeEnd);
  const atRevision = revisionToRead(view, request.revision);
  if (request.countOnly) return { more: false, count: countAt(view, range, atRevision) };
  if (range.isSingle && !isFiltered(request)) return rangeOne(view, range.start, atRevision, request, sink);
  const isKeyOrder = request.sortTarget === SortTarget.Key && request.sortOrder !== SortOrder.Descend;
  if (isKeyOrder) return rangeInKeyOrder(view, range, atRevision, request, sink);
  return rangeSorted(view, range, atRevision, request, sink);
}

function countAt(view: RangeView, range: KeyRange, atRevision: number | undefined): number {
  if (atRevision === undefined) return view.countLive(range);
  let count = 0;
  walkAt(view.reader, range, atRevision, () => {
    count++;
  });
  return count;
}

function rangeOne(
  view: RangeView,
  key: Uint8Array,
  atRevision: number | undefined,
  request: RangeRequest,
  sink: KeyValueSink,
): RangeResult {
  if (atRevision === undefined) {
    const row = view.reader.peek("live", liveKey(key));
    if (!row) return { more: false, count: 0 };
    const inline = request.keysOnly ? undefined : inlineOfLiveRow(row);
    if (inline) sink.add(sink.keepsBytes ? copyBytes(inline) : inline);
    else {
      const decoded = decodeLiveRow(row);
      if (request.keysOnly) sink.add(withoutValue({ userKey: key, ...decoded }));
      else sink.add(loadLive(view.reader, decoded, sink.keepsBytes));
    }
    return { more: false, count: 1 };
  }
  const revision = findAt(view.reader, key, atRevision);
  if (!revision) return { more: false, count: 0 };
  addStored(sink, loadKeyValue(view.reader, revision.main, revision.sub, sink.keepsBytes), request.keysOnly);
  return { more: false, count: 1 };
}

function addStored(sink: KeyValueSink, stored: Uint8Array, keysOnly: boolean): void {
  sink.add(keysOnly ? encodeKeyValue({ ...readKeyValue(stored), value: EMPTY_BYTES }) : stored);
}

/** The numbers of a pair: all that filters and most sortings look at. */
interface Candidate {
  readonly userKey: Uint8Array;
  readonly main: number;
  readonly sub: number;
  readonly createRevision: number;
  readonly version: number;
  readonly lease: bigint;
}

function withoutValue(pair: Candidate): Uint8Array {
  return encodeKeyValue({
    key: pair.userKey,
    createRevision: pair.createRevision,
    modRevision: pair.main,
    version: pair.version,
    value: EMPTY_BYTES,
    lease: pair.lease,
  });
}

function passes(request: RangeRequest, mod: number, create: number): boolean {
  return (
    (request.maxModRevision === 0 || mod <= request.maxModRevision) &&
    (request.minModRevision === 0 || mod >= request.minModRevision) &&
    (request.maxCreateRevision === 0 || create <= request.maxCreateRevision) &&
    (request.minCreateRevision === 0 || create >= request.minCreateRevision)
  );
}

/** All pairs of a range in key order, with their numbers. */
function walkCandidates(
  view: RangeView,
  range: KeyRange,
  atRevision: number | undefined,
  visit: (pair: Candidate, inline: Uint8Array | undefined) => boolean,
): void {
  const { reader } = view;
  if (atRevision === undefined) {
    walkLive(reader, range, (userKey, value) => {
      const row = decodeLiveRow(value);
      const { main, sub, createRevision, version, lease } = row;
      return visit({ userKey, main, sub, createRevision, version, lease }, row.inline);
    });
    return;
  }
  walkAt(reader, range, atRevision, (userKey, { main, sub }) => {
    const { createRevision, version, lease } = readKeyValue(loadKeyValue(reader, main, sub, false));
    return visit({ userKey, main, sub, createRevision, version, lease }, undefined);
  });
}

function rangeInKeyOrder(
  view: RangeView,
  range: KeyRange,
  atRevision: number | undefined,
  request: RangeRequest,
  sink: KeyValueSink,
  part?: PartSink,
): RangeResult {
  const limit = request.limit > 0 ? request.limit : Number.POSITIVE_INFINITY;
  const filtered = isFiltered(request);
  const { reader } = view;
  let seen = 0;
  let taken = 0;
  let more = false;
  const wanted: { main: number; sub: number }[] = [];
  // One walk fills `sink` directly when what it needs is in the row; else it remembers where to look.
  const take = (pair: Candidate, inline: Uint8Array | undefined): boolean => {
    seen++;
    if (filtered && !passes(request, pair.main, pair.createRevision)) return true;
    if (taken === limit || part?.isFull) {
      more = true;
      return false;
    }
    taken++;
    if (request.keysOnly) sink.add(withoutValue(pair));
    else if (inline) sink.add(sink.keepsBytes ? copyBytes(inline) : inline);
    else sink.add(loadKeyValue(reader, pair.main, pair.sub, sink.keepsBytes));
    return true;
  };
  if (atRevision !== undefined && !filtered && !request.keysOnly) {
    walkAt(reader, range, atRevision, (_userKey, revision) => {
      seen++;
      if (taken === limit) {
        more = true;
        return false;
      }
      taken++;
      wanted.push(revision);
      return true;
    });
    for (const { main, sub } of wanted) {
      if (part?.isFull) {
        more = true;
        break;
      }
      sink.add(loadKeyValue(reader, main, sub, sink.keepsBytes));
    }
  } else {
    walkCandidates(view, range, atRevision, take);
  }
  if (part) return { more, count: 0 };
  return { more, count: more ? countAt(view, range, atRevision) : seen };
}

function rangeSorted(
  view: RangeView,
  range: KeyRange,
  atRevision: number | undefined,
  request: RangeRequest,
  sink: KeyValueSink,
): RangeResult {
  const { reader } = view;
  const filtered = isFiltered(request);
  const limit = request.limit > 0 ? request.limit : Number.POSITIVE_INFINITY;
  // Without an order only the first limit + 1 keys are fetched, and those are sorted: 3.5's way.
  const fetchMax = request.sortOrder === SortOrder.None && !filtered ? limit + 1 : Number.POSITIVE_INFINITY;
  const pairs: Candidate[] = [];
  let seen = 0;
  walkCandidates(view, range, atRevision, (pair) => {
    if (seen === fetchMax) return false;
    seen++;
    if (!filtered || passes(request, pair.main, pair.createRevision)) pairs.push(pair);
    return true;
  });
  const gatheredMs = view.nowMs?.() ?? 0;
  const load = (pair: Candidate, keep: boolean): Uint8Array => loadKeyValue(reader, pair.main, pair.sub, keep);
  const isDescending = request.sortOrder === SortOrder.Descend;
  if (request.sortTarget === SortTarget.Key) {
    if (isDescending) pairs.reverse();
  } else {
    const ascending = comparatorFor(request.sortTarget, (pair) => readKeyValue(load(pair, true)).value);
    pairs.sort(isDescending ? (a, b) => ascending(b, a) : ascending);
  }
  const sortedMs = view.nowMs?.() ?? 0;
  const more = pairs.length > limit;
  if (more) pairs.length = limit;
  for (const pair of pairs) sink.add(request.keysOnly ? withoutValue(pair) : load(pair, sink.keepsBytes));
  const count = seen === fetchMax ? countAt(view, range, atRevision) : seen;
  return { more, count, marks: { gatheredMs, sortedMs } };
}

function comparatorFor(
  target: number,
  readValue: (pair: Candidate) => Uint8Array,
): (a: Candidate, b: Candidate) => number {
  switch (target) {
    case SortTarget.Version:
      return (a, b) => a.version - b.version;
    case SortTarget.Create:
      return (a, b) => a.createRevision - b.createRevision;
    case SortTarget.Mod:
      return (a, b) => a.main - b.main;
    case SortTarget.Value: {
      const values = new Map<Candidate, Uint8Array>();
      const value = (pair: Candidate): Uint8Array => {
        let known = values.get(pair);
        if (!known) {
          known = readValue(pair);
          values.set(pair, known);
        }
        return known;
      };
      return (a, b) => compareBytes(value(a), value(b));
    }
    default:
      // Refused at the door; an entry of another writer that has it is answered in key order.
      return () => 0;
  }
}
