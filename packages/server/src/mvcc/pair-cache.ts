/**
 * Encoded pairs of whole blocks of neighbouring keys (see counts.ts), kept from one listing for the next: clients list the
 * same keys again and again, and most blocks have not changed in between. Then an answer is made of references to these
 * bytes, without a look at the database.
 *
 * Bounded in bytes. What is in use stays: when all is full and in use, nothing new comes in, so that a listing larger than
 * the bound, read in a loop, still finds a part of itself. What nobody has asked for goes after a while.
 */
import { compareBytes, type KeyString, keyString } from "../lib/bytes.ts";
import { keyOfKeyValue } from "../storage/index.ts";
import { PAIR_CACHE_RESIDENT_MS } from "./limits.ts";

/** All living pairs of a block, as the `kvs` of a RangeResponse. Never changed once made. */
export class BlockPairs {
  readonly bytes: Uint8Array;
  readonly keys: number;
  /** Of the first and the last pair; undefined when there is none. */
  readonly first: KeyString | undefined;
  readonly last: KeyString | undefined;
  usedMs = 0;
  /** Given up by the cache; whoever still refers to it forgets it. */
  isDropped = false;

  constructor(bytes: Uint8Array, keys: number) {
    this.bytes = bytes;
    this.keys = keys;
    let first: Uint8Array | undefined;
    let last: Uint8Array | undefined;
    for (let at = 0; at < bytes.length; ) {
      const pair = pairAt(bytes, at);
      first ??= pair.stored;
      last = pair.stored;
      at = pair.end;
    }
    this.first = first && keyString(keyOfKeyValue(first));
    this.last = last && keyString(keyOfKeyValue(last));
  }
}

/** The pair whose field begins at `at`, and where the next one begins. */
function pairAt(bytes: Uint8Array, at: number): { readonly stored: Uint8Array; readonly end: number } {
  let length = 0;
  let from = at + 1;
  for (let scale = 1; ; scale *= 128) {
    const byte = bytes[from++] as number;
    length += (byte & 0x7f) * scale;
    if (byte < 0x80) break;
  }
  return { stored: bytes.subarray(from, from + length), end: from + length };
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
  const { bytes } = pairs;
  let from: number | undefined;
  let keys = 0;
  let at = 0;
  let lastKey: Uint8Array | undefined;
  while (at < bytes.length) {
    const { stored, end } = pairAt(bytes, at);
    const key = keyOfKeyValue(stored);
    if (from === undefined && compareBytes(key, range.start) >= 0) from = at;
    if (from !== undefined) {
      if (range.end && compareBytes(key, range.end) >= 0) break;
      if (keys === keysMax) return { bytes: bytes.subarray(from, at), keys, cutAfter: lastKey };
      keys++;
      lastKey = key;
    }
    at = end;
  }
  return { bytes: bytes.subarray(from ?? at, at), keys, cutAfter: undefined };
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
