/**
 * Listings: whole pairs of an interval in the order of keys, as they were at one revision, read a bounded piece at a time
 * while the store goes on.
 *
 * The interval is walked block by block (counts.ts). Pairs that are kept, and are the block's at that revision, are a
 * reference to bytes. Where keys have changed between the two, the block is copied from those that are kept, with these keys
 * read anew. One that is not kept and has not changed since the revision is read from `live` as it is now, and kept. Only
 * the rest is read pair by pair as of the older revision: from a snapshot where there is one, else from `live` and `past`. So
 * a listing of ordinary length needs no snapshot, which would cost a commit, and what is written meanwhile costs it a key
 * at a time.
 */
import { assert, verifyAll } from "../lib/assert.ts";
import { compareBytes, equalBytes, keyBytes, keyString } from "../lib/bytes.ts";
import type { BackendReader } from "../storage/index.ts";
import type { Block, Counts } from "./counts.ts";
import { walkAt } from "./key-index.ts";
import { type KeyRange, keyAfter } from "./key-range.ts";
import { OLD_RANGE_CHUNK_KEYS, PAIR_CACHE_BLOCK_BYTES_MAX } from "./limits.ts";
import { type BlockPairs, cutPairs, PairWriter, patched } from "./pair-cache.ts";
import { listLive, loadAt, loadKeyValue, peekStored } from "./range.ts";
import type { EncodedKeyValues } from "./range-body.ts";

/** Pairs that are copied from a block to the next one cost as much as one that is read. */
const PATCHED_KEYS_FREE = 16;

export interface ListSource {
  /** The store as it is now. */
  readonly reader: BackendReader;
  /** The store at `revision`. */
  readonly snapshot?: BackendReader | undefined;
  /** Tracking: see {@link Counts.track}. */
  readonly counts: Counts;
  /** The revision to be read. Without a snapshot it must not be compacted. */
  readonly revision: number;
  readonly nowMs: number;
}

export interface ListBounds {
  /** Pairs of the answer. */
  readonly keysMax: number;
  /** Pairs that are read, and their bytes; what is kept costs nothing. The block with which one is passed is finished. */
  readonly readKeysMax: number;
  readonly readBytesMax: number;
  /** Bytes that are added, kept ones included, but for one block or pair that is larger. */
  readonly addedBytesMax: number;
}

export interface ListProgress {
  readonly keys: number;
  /** Where the rest begins; there may be nothing there. `undefined`: the interval's end was reached. */
  readonly next: Uint8Array | undefined;
}

/** One block's share of the work. */
interface Step extends ListProgress {
  readonly readKeys: number;
  readonly readBytes: number;
}

/** The beginning of an interval, as far as the bounds let it come. `range` is no single key. */
export function listAt(source: ListSource, range: KeyRange, bounds: ListBounds, sink: EncodedKeyValues): ListProgress {
  const addedStart = sink.addedBytes;
  const addedEnd = addedStart + bounds.addedBytesMax;
  let start = range.start;
  let keys = 0;
  let readKeys = 0;
  let readBytes = 0;
  for (;;) {
    if (range.end && compareBytes(start, range.end) >= 0) return { keys, next: undefined };
    if (keys >= bounds.keysMax || sink.addedBytes >= addedEnd) return { keys, next: start };
    const key = keyString(start);
    let block = source.counts.blockOf(key);
    if (block && !block.pairs && source.counts.refine(source.reader, key)) block = source.counts.blockOf(key);
    assert(block, "a listing by blocks without tracking");
    const kept = block.pairs && block.pairs.since <= source.revision ? block.pairs : undefined;
    const isAsKept = kept !== undefined && source.revision < kept.changedAt;
    if (!isAsKept && (readKeys >= bounds.readKeysMax || readBytes >= bounds.readBytesMax)) return { keys, next: start };
    const end = block.end === undefined ? undefined : keyBytes(block.end);
    const isLast = end === undefined || (range.end !== undefined && compareBytes(range.end, end) <= 0);
    const part: KeyRange = { start, end: isLast ? range.end : end, isSingle: false };
    const max: StepMax = { keys: bounds.keysMax - keys, bytes: addedEnd - sink.addedBytes };
    const isWorthIt = isAsKept || isWorthKeeping(block, range, part, isLast, max.keys);
    let found: Found | undefined;
    if (isAsKept) found = { pairs: kept, next: undefined };
    else if (kept && isWorthIt) {
      found = { pairs: patchBlock(source, block, kept), next: undefined };
      readKeys += kept.changes + Math.ceil(found.pairs.keys / PATCHED_KEYS_FREE);
      readBytes += found.pairs.bytes.length / PATCHED_KEYS_FREE;
    } else if (isWorthIt && block.changedAt <= source.revision) {
      found = readBlock(source, block);
      readKeys += found.pairs.keys;
      readBytes += found.pairs.bytes.length;
    }
    let step: Step;
    if (found) {
      if (sink.addedBytes > addedStart && found.pairs.bytes.length > max.bytes) return { keys, next: start };
      step = addFrom(source, found, part, max, sink);
    } else if (block.changedAt <= source.revision) step = listNow(source, part, max, sink);
    else step = listOld(source, part, max, sink);
    keys += step.keys;
    readKeys += step.readKeys;
    readBytes += step.readBytes;
    if (step.next) start = step.next;
    else if (isLast) return { keys, next: undefined };
    else start = end as Uint8Array;
  }
}

interface StepMax {
  readonly keys: number;
  readonly bytes: number;
}

/** Whole blocks are, and those at the ends of an interval that goes on beyond them, if enough of it is wanted. */
function isWorthKeeping(block: Block, range: KeyRange, part: KeyRange, isLast: boolean, keysMax: number): boolean {
  if (keysMax * 2 < block.keys) return false;
  const beginsHere = compareBytes(part.start, range.start) === 0;
  if (!beginsHere) return true;
  return !isLast || keyString(range.start) === block.start;
}

function addKept(source: ListSource, pairs: BlockPairs, part: KeyRange, keysMax: number, sink: EncodedKeyValues): Step {
  pairs.usedMs = source.nowMs;
  const { bytes, keys, cutAfter } = cutPairs(pairs, part, keysMax);
  sink.addEncoded(bytes);
  return { keys, next: cutAfter && keyAfter(cutAfter), readKeys: 0, readBytes: 0 };
}

/** Pairs of a block, all of them unless they go on at `next`. */
interface Found {
  readonly pairs: BlockPairs;
  readonly next: Uint8Array | undefined;
}

/** One at a time is being made: nothing here waits. */
const writer = new PairWriter();

/** A block as it is now. `next`: it has more than `bytesMax`, and this is only its beginning. */
function readRows(reader: BackendReader, block: Block, bytesMax: number): Found {
  const whole: KeyRange = {
    start: keyBytes(block.start),
    end: block.end === undefined ? undefined : keyBytes(block.end),
    isSingle: false,
  };
  writer.reset();
  const { next } = listLive(reader, whole, { keysMax: Number.POSITIVE_INFINITY, bytesMax }, writer);
  return { pairs: writer.finish(block.changedAt), next };
}

/** Reads a block as it is now and keeps it, if it is not too large for that. */
function readBlock({ reader, counts, nowMs }: ListSource, block: Block): Found {
  const found = readRows(reader, block, PAIR_CACHE_BLOCK_BYTES_MAX);
  if (!found.next) {
    assert(found.pairs.keys === block.keys, "the counted blocks do not fit the rows");
    counts.keep(block.start, found.pairs, nowMs);
  }
  return found;
}

/** A block as it is at the revision, made of what it was before and the keys that have changed. As it is now it is kept. */
function patchBlock(
  { reader, snapshot, counts, revision, nowMs }: ListSource,
  block: Block,
  kept: BlockPairs,
): BlockPairs {
  if (block.changedAt > revision) {
    return patched(kept, writer, revision, (key) =>
      snapshot ? peekStored(snapshot, key) : loadAt(reader, key, revision),
    );
  }
  const pairs = patched(kept, writer, block.changedAt, (key) => peekStored(reader, key));
  if (verifyAll) {
    const { pairs: read } = readRows(reader, block, Number.POSITIVE_INFINITY);
    assert(equalBytes(read.bytes, pairs.bytes), "a block made of an older one differs from what is stored");
  }
  assert(pairs.keys === block.keys, "the counted blocks do not fit the rows");
  if (pairs.bytes.length <= PAIR_CACHE_BLOCK_BYTES_MAX) counts.keep(block.start, pairs, nowMs);
  return pairs;
}

/** Takes from a block, or from its beginning up to `next`, what is wanted. */
function addFrom(
  source: ListSource,
  { pairs, next }: Found,
  part: KeyRange,
  max: StepMax,
  sink: EncodedKeyValues,
): Step {
  if (!next) return addKept(source, pairs, part, max.keys, sink);
  // What has been read is of use, unless it ends before the part begins.
  if (compareBytes(next, part.start) <= 0) return listNow(source, part, max, sink);
  const isDone = part.end !== undefined && compareBytes(part.end, next) <= 0;
  const step = addKept(source, pairs, isDone ? part : { ...part, end: next }, max.keys, sink);
  return step.next || isDone ? step : { ...step, next };
}

function listNow({ reader }: ListSource, part: KeyRange, max: StepMax, sink: EncodedKeyValues): Step {
  const before = sink.addedBytes;
  const bytesMax = Math.min(max.bytes, PAIR_CACHE_BLOCK_BYTES_MAX);
  const { keys, next } = listLive(reader, part, { keysMax: max.keys, bytesMax }, sink);
  return { keys, next, readKeys: keys, readBytes: sink.addedBytes - before };
}

/** A block that has changed since: pairs as they were then. */
function listOld(source: ListSource, part: KeyRange, max: StepMax, sink: EncodedKeyValues): Step {
  const { reader, snapshot, revision } = source;
  if (snapshot) return listNow({ ...source, reader: snapshot }, part, max, sink);
  const before = sink.addedBytes;
  // A block may have had any number of keys then.
  const keysMax = Math.min(max.keys, OLD_RANGE_CHUNK_KEYS);
  const found: { readonly userKey: Uint8Array; readonly main: number; readonly sub: number }[] = [];
  let next: Uint8Array | undefined;
  walkAt(reader, part, revision, (userKey, { main, sub }) => {
    if (found.length === keysMax) {
      next = userKey;
      return false;
    }
    found.push({ userKey, main, sub });
    return true;
  });
  const bytesMax = Math.min(max.bytes, PAIR_CACHE_BLOCK_BYTES_MAX);
  let keys = 0;
  for (const { userKey, main, sub } of found) {
    if (sink.addedBytes - before >= bytesMax) {
      next = userKey;
      break;
    }
    const stored = loadKeyValue(reader, main, sub, false);
    if (verifyAll) assert(main <= revision, "a listing sees what was written after it began");
    sink.add(stored);
    keys++;
  }
  return { keys, next, readKeys: found.length, readBytes: sink.addedBytes - before };
}
