/**
 * Encoded pairs of whole blocks of neighbouring keys (see counts.ts), kept from one listing for the next: clients list the
 * same keys again and again, and most of them have not changed in between. Then an answer is made of references to these
 * bytes, without a look at the database; and of a block in which some keys have changed only those are read.
 *
 * Bounded in bytes. What is in use stays: when all is full and in use, nothing new comes in, so that a listing larger than
 * the bound, read in a loop, still finds a part of itself. What nobody has asked for goes after a while.
 */
import { compareBytes, copyBytes, type KeyString, keyBytes } from "../lib/bytes.ts";
import { keyOfKeyValue } from "../storage/index.ts";
import { PAIR_CACHE_BLOCK_BYTES_MAX, PAIR_CACHE_RESIDENT_MS } from "./limits.ts";
import { type KeyValueSink, PAIR_FRAME_BYTES_MAX, writePairFrame } from "./range-body.ts";

/** Pairs of which more than one in so many keys have changed are read anew. */
const CHANGED_PART_MAX = 2;

const WRITER_BYTES_FIRST = 64 * 1024;
const WRITER_BYTES_KEPT_MAX = 2 * PAIR_CACHE_BLOCK_BYTES_MAX;

/**
 * The living pairs of a block, as the `kvs` of a RangeResponse. The bytes never change once made: they are the block's pairs
 * at all revisions from `since` on and before `changedAt`, and of what has changed from then on the keys are noted, so that
 * the next ones can be made of these (see {@link patched}).
 */
export class BlockPairs {
  readonly bytes: Uint8Array;
  /** Where each pair begins, ascending, and behind them where the last one ends. */
  readonly #offsets: Uint32Array;
  readonly since: number;
  #changedAt = Number.POSITIVE_INFINITY;
  readonly #changed = new Set<KeyString>();
  usedMs = 0;
  /** Given up by the cache; whoever still refers to it forgets it. */
  isDropped = false;

  constructor(bytes: Uint8Array, offsets: Uint32Array, since: number) {
    this.bytes = bytes;
    this.#offsets = offsets;
    this.since = since;
  }

  get keys(): number {
    return this.#offsets.length - 1;
  }

  /** Revision of the first change that is not in the bytes. */
  get changedAt(): number {
    return this.#changedAt;
  }

  /** How many keys have changed since. */
  get changes(): number {
    return this.#changed.size;
  }

  /** Those keys in ascending order. None is long. */
  changedKeys(): Buffer[] {
    return [...this.#changed].sort().map(keyBytes);
  }

  /** A key, no long one, has been put or deleted at a revision. False: so many have that these pairs are of no use. */
  noteChange(key: KeyString, revision: number): boolean {
    if (this.#changedAt > revision) this.#changedAt = revision;
    this.#changed.add(key);
    return this.#changed.size * CHANGED_PART_MAX <= this.keys;
  }

  /** Where the pair of this number begins; the end of the bytes for {@link keys}. */
  offset(index: number): number {
    return this.#offsets[index] as number;
  }

  key(index: number): Uint8Array {
    const { bytes } = this;
    // A tag, then the length of what is stored.
    let from = this.offset(index) + 1;
    while ((bytes[from++] as number) >= 0x80);
    return keyOfKeyValue(bytes.subarray(from, this.offset(index + 1)));
  }

  /** The number of the first pair whose key is not before this one; {@link keys} when there is none. */
  indexOf(key: Uint8Array, from = 0): number {
    let low = from;
    let high = this.keys;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (compareBytes(this.key(middle), key) < 0) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/**
 * Puts encoded pairs in a row, in memory that is used again and again, of which the finished block is a copy. So a block
 * costs as much memory as it has bytes, and not what growing to them would take.
 */
export class PairWriter implements KeyValueSink {
  readonly keepsBytes = false;
  #bytes: Buffer = Buffer.allocUnsafeSlow(WRITER_BYTES_FIRST);
  #offsets = new Uint32Array(1024);
  #at = 0;
  #pairs = 0;

  get addedBytes(): number {
    return this.#at;
  }

  add(stored: Uint8Array): void {
    this.#room(PAIR_FRAME_BYTES_MAX + stored.length);
    this.#beginsAt(this.#at);
    const bytes = this.#bytes;
    const at = writePairFrame(bytes, this.#at, stored.length);
    bytes.set(stored, at);
    this.#at = at + stored.length;
  }

  /** Pairs `from` to `to` of a block, the latter not included. */
  addPairs(pairs: BlockPairs, from: number, to: number): void {
    const start = pairs.offset(from);
    const end = pairs.offset(to);
    this.#room(end - start);
    const shift = this.#at - start;
    for (let i = from; i < to; i++) this.#beginsAt(pairs.offset(i) + shift);
    this.#bytes.set(pairs.bytes.subarray(start, end), this.#at);
    this.#at += end - start;
  }

  /** What has been added since the last one, as the state from revision `since` on. */
  finish(since: number): BlockPairs {
    this.#beginsAt(this.#at);
    const pairs = new BlockPairs(
      copyBytes(this.#bytes.subarray(0, this.#at)),
      new Uint32Array(this.#offsets.subarray(0, this.#pairs)),
      since,
    );
    this.reset();
    return pairs;
  }

  /** Forgets what has been added. */
  reset(): void {
    this.#at = 0;
    this.#pairs = 0;
    // One pair of a megabyte is not a reason to keep as much for ever.
    if (this.#bytes.length > WRITER_BYTES_KEPT_MAX) this.#bytes = Buffer.allocUnsafeSlow(WRITER_BYTES_FIRST);
  }

  #beginsAt(at: number): void {
    if (this.#pairs === this.#offsets.length) {
      const grown = new Uint32Array(this.#pairs * 2);
      grown.set(this.#offsets);
      this.#offsets = grown;
    }
    this.#offsets[this.#pairs++] = at;
  }

  #room(bytes: number): void {
    if (this.#at + bytes <= this.#bytes.length) return;
    const grown = Buffer.allocUnsafeSlow(Math.max(this.#at + bytes, this.#bytes.length * 2));
    grown.set(this.#bytes.subarray(0, this.#at));
    this.#bytes = grown;
  }
}

/** The pairs of a block with those that have changed as `stored` gives them: `undefined` for a key that is not alive. */
export function patched(
  pairs: BlockPairs,
  writer: PairWriter,
  since: number,
  stored: (key: Uint8Array) => Uint8Array | undefined,
): BlockPairs {
  writer.reset();
  let from = 0;
  for (const key of pairs.changedKeys()) {
    const index = pairs.indexOf(key, from);
    writer.addPairs(pairs, from, index);
    const now = stored(key);
    if (now) writer.add(now);
    from = index < pairs.keys && compareBytes(pairs.key(index), key) === 0 ? index + 1 : index;
  }
  writer.addPairs(pairs, from, pairs.keys);
  return writer.finish(since);
}

/** A part of a block's pairs. */
export interface PairsCut {
  readonly bytes: Uint8Array;
  readonly keys: number;
  /** The key of its last pair, when `keysMax` ended it. */
  readonly cutAfter: Uint8Array | undefined;
}

/** The pairs from `start` on and before `end`, `keysMax` at most. */
export function cutPairs(
  pairs: BlockPairs,
  range: { readonly start: Uint8Array; readonly end: Uint8Array | undefined },
  keysMax: number,
): PairsCut {
  const from = pairs.indexOf(range.start);
  let to = range.end ? pairs.indexOf(range.end, from) : pairs.keys;
  const isCut = to - from > keysMax;
  if (isCut) to = from + keysMax;
  return {
    bytes: pairs.bytes.subarray(pairs.offset(from), pairs.offset(to)),
    keys: to - from,
    cutAfter: isCut && to > from ? pairs.key(to - 1) : undefined,
  };
}

export class PairCache {
  readonly #bytesMax: number;
  readonly #all = new Set<BlockPairs>();
  #bytes = 0;
  #sweptMs = Number.NEGATIVE_INFINITY;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get isEmpty(): boolean {
    return this.#all.size === 0;
  }

  /** Keeps the pairs if there is room, or can be made; says whether. */
  offer(pairs: BlockPairs, nowMs: number): boolean {
    const { length } = pairs.bytes;
    if (this.#bytes + length > this.#bytesMax) {
      if (nowMs - this.#sweptMs < PAIR_CACHE_RESIDENT_MS / 4) return false;
      this.sweep(nowMs, PAIR_CACHE_RESIDENT_MS);
      if (this.#bytes + length > this.#bytesMax) return false;
    }
    pairs.usedMs = nowMs;
    this.#all.add(pairs);
    this.#bytes += length;
    return true;
  }

  drop(pairs: BlockPairs): void {
    pairs.isDropped = true;
    if (this.#all.delete(pairs)) this.#bytes -= pairs.bytes.length;
  }

  /** Drops what nobody has used for so long. */
  sweep(nowMs: number, unusedMs: number): void {
    this.#sweptMs = nowMs;
    for (const pairs of this.#all) if (nowMs - pairs.usedMs >= unusedMs) this.drop(pairs);
  }

  clear(): void {
    for (const pairs of this.#all) this.drop(pairs);
  }
}
