/**
 * One layer of the write buffer: the rows of a batch, last write first served, deletions as tombstones.
 *
 * Rows lie as records in chunks of shared memory, in the order written, so that handing a layer to the worker copies
 * nothing and the main thread goes on reading it meanwhile:
 *
 *     table u8 | state u8 | key length u16 LE | value length u32 LE (all ones: a deletion) | key | value
 *
 * A record that a later one of the same layer replaces is marked dead in place (state 1). A frozen layer never changes.
 * Lookups go through one Map a table, from the key's string to the record's position; sorted keys are made when a scan
 * first wants them and kept up with what is written afterwards.
 */
import { assert } from "../../lib/assert.ts";
import { type KeyString, keyString } from "../../lib/bytes.ts";
import { KEY_BYTES_MAX } from "./types.ts";

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

class LayerTable {
  readonly positions = new Map<KeyString, number>();
  /** Keys in order, without those in `#fresh`. */
  #sorted: KeyString[] = [];
  /** Keys that came since `#sorted` was made, in order of their coming. */
  #fresh: KeyString[] = [];

  add(key: KeyString, position: number): number | undefined {
    const previous = this.positions.get(key);
    this.positions.set(key, position);
    if (previous === undefined) this.#fresh.push(key);
    return previous;
  }

  sorted(): readonly KeyString[] {
    const fresh = this.#fresh;
    if (fresh.length === 0) return this.#sorted;
    this.#fresh = [];
    const sorted = this.#sorted;
    const last = sorted.at(-1);
    if (isAscending(fresh) && (last === undefined || last < (fresh[0] as KeyString))) {
      for (const key of fresh) sorted.push(key);
    } else if (fresh.length < 16) {
      for (const key of fresh) sorted.splice(lowerBound(sorted, key), 0, key);
    } else {
      this.#sorted = merge(sorted, fresh.sort(byOrder));
    }
    return this.#sorted;
  }
}

const byOrder = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

function isAscending(keys: readonly string[]): boolean {
  for (let i = 1; i < keys.length; i++) if ((keys[i - 1] as string) > (keys[i] as string)) return false;
  return true;
}

function merge(a: readonly KeyString[], b: readonly KeyString[]): KeyString[] {
  const merged: KeyString[] = new Array(a.length + b.length);
  let i = 0;
  let j = 0;
  for (let k = 0; k < merged.length; k++) {
    const takeA = j >= b.length || (i < a.length && (a[i] as KeyString) < (b[j] as KeyString));
    merged[k] = (takeA ? a[i++] : b[j++]) as KeyString;
  }
  return merged;
}

/** Index of the first key that is not below `key`. */
export function lowerBound(keys: readonly KeyString[], key: KeyString): number {
  let low = 0;
  let high = keys.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((keys[middle] as KeyString) < key) low = middle + 1;
    else high = middle;
  }
  return low;
}

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

  write(table: number, key: Uint8Array, value: Uint8Array | undefined): void {
    const keyLength = key.length;
    assert(keyLength > 0 && keyLength <= KEY_BYTES_MAX, () => `a backend key of ${keyLength} bytes`);
    const valueLength = value === undefined ? 0 : value.length;
    const bytes = HEADER_BYTES + keyLength + valueLength;
    if (bytes > this.#free) this.#nextChunk(bytes);
    const chunk = this.#current as Buffer;
    const index = this.chunks.length - 1;
    let at = this.used[index] as number;
    const position = index * CHUNK_SPAN + at;
    const stored = value === undefined ? DELETED : valueLength;
    chunk[at] = table;
    chunk[at + 1] = 0;
    chunk[at + 2] = keyLength & 0xff;
    chunk[at + 3] = keyLength >>> 8;
    chunk[at + 4] = stored & 0xff;
    chunk[at + 5] = (stored >>> 8) & 0xff;
    chunk[at + 6] = (stored >>> 16) & 0xff;
    chunk[at + 7] = stored >>> 24;
    at += HEADER_BYTES;
    chunk.set(key, at);
    at += keyLength;
    if (value !== undefined) chunk.set(value, at);
    this.used[index] = at + valueLength;
    this.#free -= bytes;
    this.#operations++;
    this.#bytes += keyLength + valueLength;
    let rows = this.#tables[table];
    if (!rows) {
      rows = new LayerTable();
      this.#tables[table] = rows;
    }
    const previous = rows.add(keyString(key), position);
    if (previous !== undefined) {
      const old = this.chunks[Math.floor(previous / CHUNK_SPAN)] as Buffer;
      old[(previous % CHUNK_SPAN) + 1] = DEAD;
    }
  }

  /** A view into the layer: valid until the batch is durable, so only until the caller lets other work in. */
  find(table: number, key: KeyString): LayerValue {
    const position = this.#tables[table]?.positions.get(key);
    return position === undefined ? undefined : this.#at(position);
  }

  has(table: number): boolean {
    return this.#tables[table] !== undefined;
  }

  /** All keys that the layer knows of a table, deleted ones too, in order. */
  keys(table: number): readonly KeyString[] {
    return this.#tables[table]?.sorted() ?? [];
  }

  /** Gives the memory back; the layer must not be read any more. */
  release(): void {
    this.#pool.give(this.chunks);
    this.chunks.length = 0;
    this.#tables.length = 0;
  }

  #at(position: number): LayerValue {
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
    this.used.push(0);
    this.#current = chunk;
    this.#free = own ? bytes : CHUNK_BYTES;
  }
}
