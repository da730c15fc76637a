/**
 * One layer of the write buffer: the rows of a batch, last write first served, deletions as tombstones.
 *
 * Rows lie as records in chunks of shared memory, in the order written, so that handing a layer to the worker copies
 * nothing and the main thread goes on reading it meanwhile:
 *
 *     table u8 | state u8 | key length u16 LE | value length u32 LE (all ones: a deletion) | key | value
 *
 * Writing appends a record and notes where it lies; nothing else. Tables that are only written to, as `past` mostly is,
 * cost no more. Who looks a key up has the records that came since the last look-up entered into a hash table over the
 * bytes of their keys, so no strings are made; who scans has the keys made into strings and sorted, again only those that
 * are new.
 *
 * A record that a later one of the same key is found to replace is marked dead in place (state 1), but only while the layer
 * is open: a frozen layer's chunks never change. Replaced records that nobody looked at stay, and come to nothing because
 * the worker writes the records of a key in their order.
 */
import { assert } from "../../lib/assert.ts";
import { type KeyString, keyString } from "../../lib/bytes.ts";
import { systemRandom } from "../../lib/random.ts";
import { KEY_BYTES_MAX } from "./types.ts";

/** Where a row that was reserved is to be written. */
export interface ReservedSpace {
  bytes: Uint8Array;
  keyAt: number;
  valueAt: number;
}

/** Bytes of an ordinary chunk. A record that needs more than half of it gets a chunk of its own. */
export const CHUNK_BYTES = 256 * 1024;
export const HEADER_BYTES = 8;
export const DELETED = 0xffffffff;
export const DEAD = 1;

/** Positions count bytes through the chunks as if each were this long; oversized ones hold one record at their start. */
const CHUNK_SPAN = CHUNK_BYTES;

/** Chunks that can be written again, so that a steady load allocates none. */
export class ChunkPool {
  readonly #free: Buffer[] = [];
  readonly #keepMax: number;

  constructor(keepMax = 32) {
    this.#keepMax = keepMax;
  }

  take(bytes: number): Buffer {
    if (bytes <= CHUNK_BYTES) {
      const chunk = this.#free.pop();
      if (chunk) return chunk;
    }
    return Buffer.from(new SharedArrayBuffer(Math.max(bytes, CHUNK_BYTES)));
  }

  give(chunks: readonly Buffer[]): void {
    for (const chunk of chunks) {
      if (chunk.length === CHUNK_BYTES && this.#free.length < this.#keepMax) this.#free.push(chunk);
    }
  }
}

/** `undefined`: this layer says nothing of the key; `null`: it deletes it. */
export type LayerValue = Buffer | null | undefined;

const FIRST_RECORDS = 64;
/** Of a table's hash table, a power of two; at most half of them are taken. */
const FIRST_SLOTS = 128;
const NO_ENTRY = -1;

function grown(array: Int32Array<ArrayBuffer>): Int32Array<ArrayBuffer> {
  const larger = new Int32Array(array.length * 2);
  larger.set(array);
  return larger;
}

/** Of this process alone: which keys share a slot must not be known outside. */
const HASH_SEED = systemRandom.below(2 ** 31);

/** FNV-1a over the bytes, its upper bits folded into the lower ones, which choose the slot. */
function hashBytes(bytes: Uint8Array, start: number, end: number): number {
  let hash = 0x811c9dc5 ^ HASH_SEED;
  for (let i = start; i < end; i++) hash = Math.imul(hash ^ (bytes[i] as number), 0x01000193);
  return hash ^ (hash >>> 15);
}

/** Keys of a table in order. An entry stands for a key and leads to its newest record. */
export interface SortedKeys {
  readonly length: number;
  key(index: number): KeyString;
  entry(index: number): number;
}

class LayerTable implements SortedKeys {
  readonly #chunks: readonly Buffer[];
  /** Where the records lie, in the order written. */
  #records = new Int32Array(FIRST_RECORDS);
  #count = 0;
  /** Records before this one have been entered into the index. */
  #indexed = 0;
  /** Entry + 1 by hash, with linear probing; 0 where none is. */
  #slots = new Int32Array(FIRST_SLOTS);
  /** By entry: where the newest record of its key lies, and the key's hash. */
  #newest = new Int32Array(FIRST_RECORDS);
  #hashes = new Int32Array(FIRST_RECORDS);
  #entries = 0;
  /** By entry, for those before #named. */
  readonly #names: KeyString[] = [];
  /** Entries before the length of #names, in the order of their keys. */
  #sorted: number[] = [];

  constructor(chunks: readonly Buffer[]) {
    this.#chunks = chunks;
  }

  add(position: number): void {
    if (this.#count === this.#records.length) this.#records = grown(this.#records);
    this.#records[this.#count++] = position;
  }

  /** The entry of a key, or NO_ENTRY. `mayMark`: records that are found to be replaced are marked dead. */
  find(key: Uint8Array, mayMark: boolean): number {
    this.#index(mayMark);
    if (this.#entries === 0) return NO_ENTRY;
    const slot = this.#slotOf(key, 0, key.length, hashBytes(key, 0, key.length));
    return (this.#slots[slot] as number) - 1;
  }

  /** Where the newest record of an entry's key lies. */
  positionOf(entry: number): number {
    return this.#newest[entry] as number;
  }

  /** The slot that holds the entry of these bytes, or the free one in which it belongs. */
  #slotOf(bytes: Uint8Array, start: number, end: number, hash: number): number {
    const slots = this.#slots;
    const mask = slots.length - 1;
    const length = end - start;
    for (let slot = hash & mask; ; slot = (slot + 1) & mask) {
      const entry = (slots[slot] as number) - 1;
      if (entry < 0) return slot;
      if (this.#hashes[entry] !== hash) continue;
      const position = this.#newest[entry] as number;
      const chunk = this.#chunks[Math.floor(position / CHUNK_SPAN)] as Buffer;
      const at = position % CHUNK_SPAN;
      if (((chunk[at + 2] as number) | ((chunk[at + 3] as number) << 8)) !== length) continue;
      let i = 0;
      while (i < length && chunk[at + HEADER_BYTES + i] === bytes[start + i]) i++;
      if (i === length) return slot;
    }
  }

  #index(mayMark: boolean): void {
    for (; this.#indexed < this.#count; this.#indexed++) {
      const position = this.#records[this.#indexed] as number;
      const chunk = this.#chunks[Math.floor(position / CHUNK_SPAN)] as Buffer;
      const start = (position % CHUNK_SPAN) + HEADER_BYTES;
      const end = start + ((chunk[start - 6] as number) | ((chunk[start - 5] as number) << 8));
      const hash = hashBytes(chunk, start, end);
      const slot = this.#slotOf(chunk, start, end, hash);
      const known = (this.#slots[slot] as number) - 1;
      if (known >= 0) {
        const replaced = this.#newest[known] as number;
        this.#newest[known] = position;
        if (mayMark) {
          const old = this.#chunks[Math.floor(replaced / CHUNK_SPAN)] as Buffer;
          old[(replaced % CHUNK_SPAN) + 1] = DEAD;
        }
        continue;
      }
      const entry = this.#entries++;
      if (entry === this.#newest.length) {
        this.#newest = grown(this.#newest);
        this.#hashes = grown(this.#hashes);
      }
      this.#newest[entry] = position;
      this.#hashes[entry] = hash;
      this.#slots[slot] = entry + 1;
      if (this.#entries * 2 > this.#slots.length) this.#rehash();
    }
  }

  #rehash(): void {
    const slots = new Int32Array(this.#slots.length * 2);
    const mask = slots.length - 1;
    for (let entry = 0; entry < this.#entries; entry++) {
      let slot = (this.#hashes[entry] as number) & mask;
      while (slots[slot] !== 0) slot = (slot + 1) & mask;
      slots[slot] = entry + 1;
    }
    this.#slots = slots;
  }

  /** Brings the order of keys up to date; then the table can be read as {@link SortedKeys}. */
  sort(mayMark: boolean): this {
    this.#index(mayMark);
    const fresh: number[] = [];
    for (let entry = this.#names.length; entry < this.#entries; entry++) {
      const position = this.#newest[entry] as number;
      const chunk = this.#chunks[Math.floor(position / CHUNK_SPAN)] as Buffer;
      const start = (position % CHUNK_SPAN) + HEADER_BYTES;
      const end = start + ((chunk[start - 6] as number) | ((chunk[start - 5] as number) << 8));
      this.#names.push(keyString(chunk.subarray(start, end)));
      fresh.push(entry);
    }
    if (fresh.length === 0) return this;
    const names = this.#names;
    const order = (a: number, b: number): number => {
      const [left, right] = [names[a] as KeyString, names[b] as KeyString];
      return left < right ? -1 : left > right ? 1 : 0;
    };
    const sorted = this.#sorted;
    const last = sorted.at(-1);
    if (isAscending(fresh, order) && (last === undefined || order(last, fresh[0] as number) < 0)) {
      for (const entry of fresh) sorted.push(entry);
    } else if (fresh.length < 16) {
      for (const entry of fresh) sorted.splice(lowerBound(this, names[entry] as KeyString), 0, entry);
    } else {
      this.#sorted = merge(sorted, fresh.sort(order), order);
    }
    return this;
  }

  get length(): number {
    return this.#sorted.length;
  }

  key(index: number): KeyString {
    return this.#names[this.#sorted[index] as number] as KeyString;
  }

  entry(index: number): number {
    return this.#sorted[index] as number;
  }
}

type Order = (a: number, b: number) => number;

function isAscending(entries: readonly number[], order: Order): boolean {
  for (let i = 1; i < entries.length; i++) if (order(entries[i - 1] as number, entries[i] as number) > 0) return false;
  return true;
}

function merge(a: readonly number[], b: readonly number[], order: Order): number[] {
  const merged: number[] = new Array(a.length + b.length);
  let i = 0;
  let j = 0;
  for (let k = 0; k < merged.length; k++) {
    const takeA = j >= b.length || (i < a.length && order(a[i] as number, b[j] as number) < 0);
    merged[k] = (takeA ? a[i++] : b[j++]) as number;
  }
  return merged;
}

/** Index of the first key that is not below `key`. */
export function lowerBound(keys: SortedKeys, key: KeyString): number {
  let low = 0;
  let high = keys.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (keys.key(middle) < key) low = middle + 1;
    else high = middle;
  }
  return low;
}

const NO_KEYS: SortedKeys = {
  length: 0,
  key: () => "" as KeyString,
  entry: () => NO_ENTRY,
};

export class Layer {
  readonly #pool: ChunkPool;
  readonly #tables: (LayerTable | undefined)[] = [];
  readonly chunks: Buffer[] = [];
  /** Bytes written in each chunk. */
  readonly used: number[] = [];
  #current: Buffer | undefined;
  #free = 0;
  #operations = 0;
  #bytes = 0;
  #isFrozen = false;

  constructor(pool: ChunkPool) {
    this.#pool = pool;
  }

  /** Puts and deletions so far, replaced ones included: what the batch limit counts. */
  get operations(): number {
    return this.#operations;
  }

  /** Keys and values so far, replaced ones included. */
  get bytes(): number {
    return this.#bytes;
  }

  /** From here on nothing is written to it, and its chunks stay as they are. */
  freeze(): void {
    this.#isFrozen = true;
  }

  /** `valueLength` undefined: a deletion. Gives the chunk; the key belongs at `space.keyAt`, the value at `space.valueAt`. */
  reserve(table: number, keyLength: number, valueLength: number | undefined, space: ReservedSpace): void {
    assert(keyLength > 0 && keyLength <= KEY_BYTES_MAX, () => `a backend key of ${keyLength} bytes`);
    assert(!this.#isFrozen, "a write to a frozen layer");
    const valueBytes = valueLength ?? 0;
    const bytes = HEADER_BYTES + keyLength + valueBytes;
    if (bytes > this.#free) this.#nextChunk(bytes);
    const chunk = this.#current as Buffer;
    const index = this.chunks.length - 1;
    const at = this.used[index] as number;
    const stored = valueLength ?? DELETED;
    chunk[at] = table;
    chunk[at + 1] = 0;
    chunk[at + 2] = keyLength & 0xff;
    chunk[at + 3] = keyLength >>> 8;
    chunk[at + 4] = stored & 0xff;
    chunk[at + 5] = (stored >>> 8) & 0xff;
    chunk[at + 6] = (stored >>> 16) & 0xff;
    chunk[at + 7] = stored >>> 24;
    this.used[index] = at + bytes;
    this.#free -= bytes;
    this.#operations++;
    this.#bytes += keyLength + valueBytes;
    let rows = this.#tables[table];
    if (!rows) {
      rows = new LayerTable(this.chunks);
      this.#tables[table] = rows;
    }
    rows.add(index * CHUNK_SPAN + at);
    space.bytes = chunk;
    space.keyAt = at + HEADER_BYTES;
    space.valueAt = at + HEADER_BYTES + keyLength;
  }

  /** A view into the layer: valid until the batch is durable, so only until the caller lets other work in. */
  find(table: number, key: Uint8Array): LayerValue {
    const rows = this.#tables[table];
    if (!rows) return undefined;
    const entry = rows.find(key, !this.#isFrozen);
    return entry === NO_ENTRY ? undefined : this.#at(rows.positionOf(entry));
  }

  /** The newest value of an entry of {@link keys}. */
  valueOf(table: number, entry: number): Buffer | null {
    return this.#at((this.#tables[table] as LayerTable).positionOf(entry));
  }

  has(table: number): boolean {
    return this.#tables[table] !== undefined;
  }

  /** All keys that the layer knows of a table, deleted ones too, in order. Good until the table is written to. */
  keys(table: number): SortedKeys {
    return this.#tables[table]?.sort(!this.#isFrozen) ?? NO_KEYS;
  }

  /** Gives the memory back; the layer must not be read any more. */
  release(): void {
    this.#pool.give(this.chunks);
    this.chunks.length = 0;
    this.#tables.length = 0;
  }

  #at(position: number): Buffer | null {
    const chunk = this.chunks[Math.floor(position / CHUNK_SPAN)] as Buffer;
    const at = position % CHUNK_SPAN;
    const length = chunk.readUInt32LE(at + 4);
    if (length === DELETED) return null;
    const start = at + HEADER_BYTES + chunk.readUInt16LE(at + 2);
    return chunk.subarray(start, start + length);
  }

  #nextChunk(bytes: number): void {
    // What needs much room gets a chunk for itself, which is full at once, so that positions stay unambiguous.
    const own = bytes > CHUNK_BYTES / 2;
    const chunk = this.#pool.take(own ? Math.max(bytes, CHUNK_BYTES + 1) : CHUNK_BYTES);
    this.chunks.push(chunk);
    assert(this.chunks.length < 2 ** 31 / CHUNK_SPAN, "a layer of more than 2 GiB");
    this.used.push(0);
    this.#current = chunk;
    this.#free = own ? bytes : CHUNK_BYTES;
  }
}
