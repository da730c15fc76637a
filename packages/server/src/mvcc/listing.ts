/**
 * Listings: whole pairs of an interval in the order of keys, as they were at one revision, read a bounded piece at a time
 * while the store goes on.
 *
 * The interval is walked block by block (counts.ts). A block whose pairs are kept, and which has not changed since that
 * revision, is a reference to bytes. One that is not kept and has not changed is read from `live` as it is now, and kept.
 * Only a block that has changed is read as of the older revision: from a snapshot where there is one, else from `live` and
 * `past`. So a listing of ordinary length needs no snapshot, which would cost a commit, and what is written meanwhile costs
 * it a block at a time.
 */
import { assert, verifyAll } from "../lib/assert.ts";
import { compareBytes, keyBytes, keyString } from "../lib/bytes.ts";
import type { BackendReader } from "../storage/index.ts";
import type { Block, Counts } from "./counts.ts";
import { walkAt } from "./key-index.ts";
import { type KeyRange, keyAfter } from "./key-range.ts";
import { OLD_RANGE_CHUNK_KEYS, PAIR_CACHE_BLOCK_BYTES_MAX } from "./limits.ts";
import { BlockPairs, cutPairs } from "./pair-cache.ts";
import { listLive, loadKeyValue } from "./range.ts";
import { EncodedKeyValues } from "./range-body.ts";

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
    const isKept = block.pairs !== undefined && block.changedAt <= source.revision;
    if (!isKept && (readKeys >= bounds.readKeysMax || readBytes >= bounds.readBytesMax)) return { keys, next: start };
    const end = block.end === undefined ? undefined : keyBytes(block.end);
    const isLast = end === undefined || (range.end !== undefined && compareBytes(range.end, end) <= 0);
    const part: KeyRange = { start, end: isLast ? range.end : end, isSingle: false };
    const max: StepMax = { keys: bounds.keysMax - keys, bytes: addedEnd - sink.addedBytes };
    let step: Step;
    if (block.changedAt > source.revision) step = listOld(source, part, max, sink);
    else if (block.pairs || isWorthKeeping(block, range, part, isLast, max.keys)) {
      const found = block.pairs ? { pairs: block.pairs, next: undefined } : readBlock(source, block);
      if (!block.pairs) {
        readKeys += found.pairs.keys;
        readBytes += found.pairs.bytes.length;
      }
      if (sink.addedBytes > addedStart && found.pairs.bytes.length > max.bytes) return { keys, next: start };
      step = addFrom(source, found, part, max, sink);
    } else step = listNow(source, part, max, sink);
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
  const { first, last } = pairs;
  if (
    first !== undefined &&
    last !== undefined &&
    pairs.keys <= keysMax &&
    keyString(part.start) <= first &&
    (part.end === undefined || last < keyString(part.end))
  ) {
    sink.addEncoded(pairs.bytes);
    return { keys: pairs.keys, next: undefined, readKeys: 0, readBytes: 0 };
  }
  const cut = cutPairs(pairs, part, keysMax);
  sink.addEncoded(cut.bytes);
  const next = cut.cutAfter && keyAfter(cut.cutAfter);
  return { keys: cut.keys, next, readKeys: 0, readBytes: 0 };
}

/** Reads a block as it is now and keeps it. `next`: it is too large for that, and this is only its beginning. */
function readBlock(
  source: ListSource,
  block: Block,
): { readonly pairs: BlockPairs; readonly next: Uint8Array | undefined } {
  const { reader, counts, nowMs } = source;
  const whole: KeyRange = {
    start: keyBytes(block.start),
    end: block.end === undefined ? undefined : keyBytes(block.end),
    isSingle: false,
  };
  const body = new EncodedKeyValues();
  const bounds = { keysMax: Number.POSITIVE_INFINITY, bytesMax: PAIR_CACHE_BLOCK_BYTES_MAX };
  const { keys, next } = listLive(reader, whole, bounds, body);
  const pairs = new BlockPairs(Buffer.concat(body.finish()), keys);
  if (!next) {
    assert(keys === block.keys, "the counted blocks do not fit the rows");
    counts.keep(block.start, pairs, nowMs);
  }
  return { pairs, next };
}

/** Takes from a block, or from its beginning up to `next`, what is wanted. */
function addFrom(
  source: ListSource,
  { pairs, next }: { readonly pairs: BlockPairs; readonly next: Uint8Array | undefined },
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
