/**
 * How many keys are alive in an interval, in O(log n + one block): a range with a limit reports it, and walking a million
 * keys to say "a million" is what etcd spends its time on.
 *
 * The rows of `live` are cut into blocks of neighbours by fences, and the number of rows in each block is kept:
 *
 *   fences   ""        "b3"       "k"              "t41"
 *   blocks   [ 301 keys )[ 256 keys )[ 412 keys     )[ 87 keys ...
 *   count of [c, u):      walk c.."k" + 412 + walk "t41"..u
 *
 * Blocks stand in groups with a sum each, so a count adds up a few numbers and walks at most the two blocks at its ends.
 * A fence is a short user key, so a group of long keys (see index-rows.ts) is never cut. Memory: one fence for a few
 * hundred keys.
 *
 * Each block also carries the pairs of its keys, if a listing has left them (pair-cache.ts), and the revision of its last
 * change, as far as that is being kept: `track` begins it, and only then are listings interested. Of pairs that are there
 * it is known at which revisions they are the block's, and which of its keys have changed since.
 *
 * Nothing is stored: after a start the blocks are made in slices of a walk in native code, which takes a second for some ten
 * million keys. Who needs a count meanwhile waits for it, or has the range walked if it cannot wait. Writes keep them up.
 */
import { assert, verifyAll } from "../lib/assert.ts";
import { type KeyString, keyBytes, keyString } from "../lib/bytes.ts";
import { yieldToEventLoop } from "../lib/wait.ts";
import { type BackendReader, isLongLiveKey, liveGroupEnd, liveKey, SHORT_KEY_BYTES_MAX } from "../storage/index.ts";
import { countLive } from "./key-index.ts";
import { isEmptyRange, type KeyRange } from "./key-range.ts";
import type { BlockPairs, PairCache } from "./pair-cache.ts";

/** Keys of a block when it is made. */
export const COUNT_BLOCK_KEYS = 256;

/** A block is cut into blocks of that size when it has this many times as many keys: each cut has to sort what is buffered. */
export const CUT_AT_BLOCKS = 4;

/** Blocks of a group; it is cut in two at twice as many. */
export const COUNT_GROUP_BLOCKS = 512;

/** Blocks that one slice of the first scan makes. */
const SCAN_SLICE_BLOCKS = 8;

interface Group {
  /** Ascending; block i holds the row keys from `fences[i]` to the next fence. Never empty. */
  readonly fences: KeyString[];
  readonly counts: number[];
  /** What is kept of the block for listings. */
  readonly pairs: (BlockPairs | undefined)[];
  /** Revision of the block's last change since tracking began; 0: none. */
  readonly changedAt: number[];
  sum: number;
}

/** A block as a listing sees it, good until something is written. */
export interface Block {
  /** First row key that belongs to it, and the first that no longer does; `undefined` for the last block. */
  readonly start: KeyString;
  readonly end: KeyString | undefined;
  readonly keys: number;
  /** It has been the same at all revisions from this one on. */
  readonly changedAt: number;
  /** As they were at some revisions: see there. */
  readonly pairs: BlockPairs | undefined;
}

interface Position {
  readonly group: number;
  readonly block: number;
}

const FIRST = "" as KeyString;

function newGroup(fences: KeyString[], counts: number[], changedAt: number[] = counts.map(() => 0)): Group {
  const sum = counts.reduce((all, count) => all + count, 0);
  return { fences, counts, pairs: counts.map(() => undefined), changedAt, sum };
}

/** The last index whose entry is at most `key`; the first entry always is. */
function lastAtMost(length: number, at: (index: number) => KeyString, key: KeyString): number {
  let low = 0;
  let high = length - 1;
  while (low < high) {
    const middle = (low + high + 1) >>> 1;
    if (at(middle) <= key) low = middle;
    else high = middle - 1;
  }
  return low;
}

export class Counts {
  /** Invariant: the blocks before {@link #scannedTo} hold as many rows of `live` as their counts say. */
  #groups: Group[] = [newGroup([FIRST], [0])];
  /** Row keys from here on are not counted yet; `undefined` when all are. */
  #scannedTo: KeyString | undefined = FIRST;
  #building: Promise<void> = Promise.resolve();
  #isBuilding = false;
  readonly #blockKeys: number;
  readonly #groupBlocks: number;
  readonly #cache: PairCache | undefined;
  /** Changes after this revision are kept; `undefined`: none are. */
  #trackedFrom: number | undefined;

  constructor(
    size: { readonly blockKeys?: number; readonly groupBlocks?: number } = {},
    cache: PairCache | undefined = undefined,
  ) {
    this.#blockKeys = size.blockKeys ?? COUNT_BLOCK_KEYS;
    this.#groupBlocks = size.groupBlocks ?? COUNT_GROUP_BLOCKS;
    this.#cache = cache;
  }

  /**
   * From here on changes are noted for listings; `revision` is the present one. False while the blocks are still being
   * counted, or when there is no cache.
   */
  track(revision: number): boolean {
    if (!this.#cache || this.#scannedTo !== undefined) return false;
    this.#trackedFrom ??= revision;
    return true;
  }

  get isTracking(): boolean {
    return this.#trackedFrom !== undefined;
  }

  /** No listing is interested any more. The cache must be empty. */
  untrack(): void {
    assert(!this.#cache || this.#cache.isEmpty, "pairs are kept and changes no longer noted");
    if (this.#trackedFrom === undefined) return;
    this.#trackedFrom = undefined;
    for (const group of this.#groups) {
      group.pairs.fill(undefined);
      group.changedAt.fill(0);
    }
  }

  /** The block that a key belongs to; `undefined` unless changes are being tracked. */
  blockOf(key: KeyString): Block | undefined {
    const trackedFrom = this.#trackedFrom;
    if (trackedFrom === undefined || this.#scannedTo !== undefined) return undefined;
    const at = this.#find(key);
    const group = this.#groups[at.group] as Group;
    const pairs = group.pairs[at.block];
    return {
      start: group.fences[at.block] as KeyString,
      end: this.#fenceAfter(at),
      keys: group.counts[at.block] as number,
      changedAt: Math.max(trackedFrom, group.changedAt[at.block] as number),
      pairs: pairs?.isDropped ? undefined : pairs,
    };
  }

  /** Cuts the block of a key if it has grown: what a listing reads and keeps of it at a time is to be small. */
  refine(reader: BackendReader, key: KeyString): boolean {
    const at = this.#find(key);
    const count = (this.#groups[at.group] as Group).counts[at.block] as number;
    if (count < 2 * this.#blockKeys) return false;
    this.#cut(reader, at);
    return true;
  }

  /** The pairs of the block at `start`, as they are now, take the place of those that were kept, if there is room. */
  keep(start: KeyString, pairs: BlockPairs, nowMs: number): void {
    const { group: index, block } = this.#find(start);
    const group = this.#groups[index] as Group;
    assert(group.fences[block] === start && group.counts[block] === pairs.keys, "pairs that are not those of a block");
    this.#forget(group, block);
    if (this.#cache?.offer(pairs, nowMs)) group.pairs[block] = pairs;
  }

  #forget(group: Group, block: number): void {
    const pairs = group.pairs[block];
    if (!pairs) return;
    group.pairs[block] = undefined;
    this.#cache?.drop(pairs);
  }

  /** A key of a block was put or deleted at a revision; without a key, the block is another one now. */
  #note(group: Group, block: number, revision: number, key?: KeyString): void {
    if (this.#trackedFrom === undefined) return;
    group.changedAt[block] = revision;
    const pairs = group.pairs[block];
    if (!pairs) return;
    // The place of a long key among its like is not known from its row.
    const isNoted = key !== undefined && key.length <= SHORT_KEY_BYTES_MAX && pairs.noteChange(key, revision);
    if (!isNoted || pairs.isDropped) this.#forget(group, block);
  }

  /** The row of a key that stays alive has changed. */
  changed(rowKey: Uint8Array, revision: number): void {
    if (this.#trackedFrom === undefined) return;
    const key = keyString(rowKey);
    const { group, block } = this.#find(key);
    this.#note(this.#groups[group] as Group, block, revision, key);
  }

  /** Counts what is there, in the background. Writes may go on; ranges are walked as far as it has not come. */
  start(reader: BackendReader, signal: AbortSignal): void {
    this.#isBuilding = true;
    this.#building = this.#build(reader, signal).finally(() => {
      this.#isBuilding = false;
    });
  }

  /** Resolves when the background scan has ended, by completion or by its signal. Rejects as it failed. */
  stopped(): Promise<void> {
    return this.#building;
  }

  /** Resolves when ranges can be counted by blocks; `undefined`: they can. Must be asked again then. */
  waitFor(range: KeyRange): Promise<void> | undefined {
    if (!this.#isBuilding || this.#scannedTo === undefined || range.isSingle) return undefined;
    return range.end && keyString(range.end) <= this.#scannedTo ? undefined : this.#building;
  }

  /** All living keys; `undefined` while that is not known yet. */
  get total(): number | undefined {
    return this.#scannedTo === undefined ? this.#groups.reduce((sum, group) => sum + group.sum, 0) : undefined;
  }

  async #build(reader: BackendReader, signal: AbortSignal): Promise<void> {
    await yieldToEventLoop();
    while (this.#scannedTo !== undefined && !signal.aborted) {
      for (let i = 0; i < SCAN_SLICE_BLOCKS && this.#scannedTo !== undefined; i++)
        this.#append(reader, this.#scannedTo);
      await yieldToEventLoop();
    }
  }

  /** The next block of the scan, behind all that are counted. */
  #append(reader: BackendReader, from: KeyString): void {
    const start = keyBytes(from);
    const ahead = reader.ahead("live", start, this.#blockKeys);
    let end = this.#shortKeyFrom(reader, ahead.key);
    let count = end === ahead.key ? ahead.count : reader.count("live", { start, end });
    if (count > 2 * this.#blockKeys) {
      // Many that are not in the file yet, or long ones: a short key in between has to be looked for.
      let seen = 0;
      reader.scan("live", { start, end, keysOnly: true }, (rowKey) => {
        if (seen >= this.#blockKeys && !isLongLiveKey(rowKey)) {
          end = rowKey;
          return false;
        }
        seen++;
        return true;
      });
      count = seen;
    }
    let group = this.#groups.at(-1) as Group;
    if (from === FIRST) {
      group.counts[0] = count;
      group.sum = count;
    } else {
      if (group.counts.length >= this.#groupBlocks) {
        group = newGroup([], []);
        this.#groups.push(group);
      }
      group.fences.push(from);
      group.counts.push(count);
      group.pairs.push(undefined);
      group.changedAt.push(0);
      group.sum += count;
    }
    this.#scannedTo = end && keyString(end);
  }

  /** The first short row key at or behind this one. */
  #shortKeyFrom(reader: BackendReader, rowKey: Uint8Array | undefined): Uint8Array | undefined {
    let key = rowKey;
    while (key && isLongLiveKey(key)) key = reader.first("live", { start: liveGroupEnd(key), keysOnly: true })?.key;
    return key;
  }

  #find(key: KeyString): Position {
    const groups = this.#groups;
    const group = lastAtMost(groups.length, (index) => (groups[index] as Group).fences[0] as KeyString, key);
    const { fences } = groups[group] as Group;
    return { group, block: lastAtMost(fences.length, (index) => fences[index] as KeyString, key) };
  }

  /** A row has come into `live` at a revision, and `reader` sees it. */
  added(reader: BackendReader, rowKey: Uint8Array, revision: number): void {
    const key = keyString(rowKey);
    if (this.#scannedTo !== undefined && key >= this.#scannedTo) return;
    const at = this.#find(key);
    const group = this.#groups[at.group] as Group;
    const count = (group.counts[at.block] as number) + 1;
    group.counts[at.block] = count;
    group.sum++;
    this.#note(group, at.block, revision, key);
    if (count >= CUT_AT_BLOCKS * this.#blockKeys && count % this.#blockKeys === 0) this.#cut(reader, at);
  }

  /** A row has gone from `live` at a revision. */
  removed(rowKey: Uint8Array, revision: number): void {
    const key = keyString(rowKey);
    if (this.#scannedTo !== undefined && key >= this.#scannedTo) return;
    const { group: index, block } = this.#find(key);
    const group = this.#groups[index] as Group;
    const count = (group.counts[block] as number) - 1;
    assert(count >= 0, "a block of keys has lost more than it had");
    group.counts[block] = count;
    group.sum--;
    this.#note(group, block, revision, key);
    // A block that has become small joins the one before it, if both fit.
    if (count >= this.#blockKeys / 4) return;
    if (block > 0) {
      const before = group.counts[block - 1] as number;
      if (before + count > this.#blockKeys) return;
      group.counts[block - 1] = before + count;
      this.#note(group, block - 1, revision);
    } else if (count > 0 || index === 0) {
      return;
    } else {
      // Its keys, of which there are none, go to the last block of the group before.
      const previous = this.#groups[index - 1] as Group;
      this.#note(previous, previous.counts.length - 1, revision);
    }
    this.#forget(group, block);
    group.fences.splice(block, 1);
    group.counts.splice(block, 1);
    group.pairs.splice(block, 1);
    group.changedAt.splice(block, 1);
    if (group.fences.length === 0) this.#groups.splice(index, 1);
  }

  /** Puts fences into a block. */
  #cut(reader: BackendReader, { group: index, block }: Position): void {
    const group = this.#groups[index] as Group;
    const end = this.#fenceAfter({ group: index, block });
    const fences: KeyString[] = [];
    const counts: number[] = [];
    let left = group.counts[block] as number;
    let inBlock = 0;
    reader.scan(
      "live",
      {
        start: keyBytes(group.fences[block] as KeyString),
        end: end === undefined ? undefined : keyBytes(end),
        keysOnly: true,
      },
      (rowKey) => {
        if (inBlock >= this.#blockKeys && !isLongLiveKey(rowKey)) {
          fences.push(keyString(rowKey));
          counts.push(inBlock);
          left -= inBlock;
          inBlock = 0;
          if (left <= this.#blockKeys) return false;
        }
        inBlock++;
        return true;
      },
    );
    // A block of nothing but long keys of one beginning cannot be cut.
    if (fences.length === 0) return;
    assert(left > 0, "a block of keys has more rows than were counted");
    this.#forget(group, block);
    const changedAt = group.changedAt[block] as number;
    group.fences.splice(block + 1, 0, ...fences);
    group.counts.splice(block, 1, ...counts, left);
    group.pairs.splice(block + 1, 0, ...fences.map(() => undefined));
    group.changedAt.splice(block + 1, 0, ...fences.map(() => changedAt));
    if (group.fences.length < 2 * this.#groupBlocks) return;
    const pairs = group.pairs.splice(this.#groupBlocks);
    const second = newGroup(
      group.fences.splice(this.#groupBlocks),
      group.counts.splice(this.#groupBlocks),
      group.changedAt.splice(this.#groupBlocks),
    );
    pairs.forEach((one, i) => {
      second.pairs[i] = one;
    });
    group.sum -= second.sum;
    this.#groups.splice(index + 1, 0, second);
  }

  /** Where the block ends; `undefined` for the last one, which is cut off where the scan has come to. */
  #fenceAfter({ group, block }: Position): KeyString | undefined {
    const fences = (this.#groups[group] as Group).fences;
    return fences[block + 1] ?? this.#groups[group + 1]?.fences[0] ?? this.#scannedTo;
  }

  /** How many keys of the range are alive, as `reader`, to whose rows all changes have been told, has them. */
  count(reader: BackendReader, range: KeyRange): number {
    if (range.isSingle) return reader.has("live", liveKey(range.start)) ? 1 : 0;
    if (isEmptyRange(range)) return 0;
    const count = this.#count(reader, range);
    if (verifyAll) assert(count === countLive(reader, range), "the counted blocks do not fit the rows");
    return count;
  }

  #count(reader: BackendReader, range: KeyRange): number {
    const start = keyString(range.start);
    const end = range.end && keyString(range.end);
    if (this.#scannedTo !== undefined && (end === undefined || end > this.#scannedTo)) return countLive(reader, range);
    const from = this.#find(start);
    const to = end === undefined ? { group: this.#groups.length, block: 0 } : this.#find(end);
    if (from.group === to.group && from.block === to.block) return countLive(reader, range);
    let count = 0;
    let { group, block } = from;
    if (!this.#isWholeFrom(reader, from, start)) {
      const fence = this.#fenceAfter(from);
      count += countLive(reader, { ...range, end: fence && keyBytes(fence) });
      block++;
    }
    for (; group < to.group; group++, block = 0) {
      const { counts, sum } = this.#groups[group] as Group;
      if (block === 0) count += sum;
      else for (; block < counts.length; block++) count += counts[block] as number;
    }
    const last = this.#groups[to.group];
    if (!last || end === undefined) return count;
    for (; block < to.block; block++) count += last.counts[block] as number;
    const fence = last.fences[to.block] as KeyString;
    if (fence === end) return count;
    if (this.#isWholeTo(reader, to, end)) return count + (last.counts[to.block] as number);
    return count + countLive(reader, { ...range, start: keyBytes(fence) });
  }

  /** Whether a block has no row before `start`, which lies in it. One look, where walking would be many. */
  #isWholeFrom(reader: BackendReader, at: Position, start: KeyString): boolean {
    const fence = (this.#groups[at.group] as Group).fences[at.block] as KeyString;
    if (fence === start) return true;
    if (start.length > SHORT_KEY_BYTES_MAX) return false;
    return !reader.first("live", { start: keyBytes(fence), end: keyBytes(start), keysOnly: true });
  }

  /** Whether a block has no row at or behind `end`, which lies in it. */
  #isWholeTo(reader: BackendReader, at: Position, end: KeyString): boolean {
    if (end.length > SHORT_KEY_BYTES_MAX) return false;
    const fence = this.#fenceAfter(at);
    return !reader.first("live", { start: keyBytes(end), end: fence && keyBytes(fence), keysOnly: true });
  }
}
