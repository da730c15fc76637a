/**
 * The rows of a frozen layer, brought into the order in which LMDB should get them: table by table, by key, and where a key
 * was written more than once the last row alone. Neighbours then share the pages that they touch.
 *
 * No object is made for a row. The layer's bytes are copied into one buffer, since lmdb takes the address of a value's
 * memory, which it can do only for memory that is not shared; a row is a number, and where its key and value lie stands in
 * arrays.
 *
 * Sorting goes by words of 64 bits, which the engine sorts without calling back: five bytes of the key behind what all keys
 * have in common, then the row's place, so that equal keys stay in the order in which they were written. Rows whose five
 * bytes are the same are sorted among themselves in the same way.
 */
import { DEAD, DELETED, HEADER_BYTES } from "./layer.ts";
import { SUM_BYTES } from "./sums.ts";

const PREFIX_BYTES = 5;
/** Bits of a word that are left for a row's place. */
const PLACES_MAX = 2 ** 24;
/** So few rows are sorted by comparing them. */
const FEW_ROWS = 12;
const FIRST_ROWS = 1024;
/** Of a word, as two halves in memory. */
const HIGH = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1 ? 1 : 0;
const LOW = 1 - HIGH;

export const NO_VALUE = -1;

function grown(array: Int32Array<ArrayBuffer>): Int32Array<ArrayBuffer> {
  const larger = new Int32Array(array.length * 2);
  larger.set(array);
  return larger;
}

export class BatchRows {
  /** Behind the last value there is room for a checksum. */
  readonly bytes: Buffer;
  /** By row: where its key lies, how long it is, and how long its value behind it (NO_VALUE: the row is deleted). */
  keyAt = new Int32Array(FIRST_ROWS);
  keyBytes = new Int32Array(FIRST_ROWS);
  valueBytes = new Int32Array(FIRST_ROWS);
  #count = 0;
  readonly #tables: { rows: Int32Array<ArrayBuffer>; count: number }[] = [];

  /** `chunks` and `used` as a {@link Layer} has them. */
  constructor(chunks: readonly Uint8Array[], used: readonly number[]) {
    this.bytes = Buffer.allocUnsafeSlow(used.reduce((sum, end) => sum + end, 0) + SUM_BYTES);
    let start = 0;
    chunks.forEach((chunk, index) => {
      const length = used[index] as number;
      this.bytes.set(chunk.subarray(0, length), start);
      this.#read(start, start + length);
      start += length;
    });
  }

  #read(start: number, end: number): void {
    const { bytes } = this;
    for (let at = start; at < end; ) {
      const keyBytes = bytes.readUInt16LE(at + 2);
      const length = bytes.readUInt32LE(at + 4);
      const valueBytes = length === DELETED ? NO_VALUE : length;
      if (bytes[at + 1] !== DEAD) this.#add(bytes[at] as number, at + HEADER_BYTES, keyBytes, valueBytes);
      at += HEADER_BYTES + keyBytes + Math.max(0, valueBytes);
    }
  }

  #add(table: number, keyAt: number, keyBytes: number, valueBytes: number): void {
    const row = this.#count++;
    if (row === this.keyAt.length) {
      this.keyAt = grown(this.keyAt);
      this.keyBytes = grown(this.keyBytes);
      this.valueBytes = grown(this.valueBytes);
    }
    this.keyAt[row] = keyAt;
    this.keyBytes[row] = keyBytes;
    this.valueBytes[row] = valueBytes;
    let list = this.#tables[table];
    if (!list) {
      list = { rows: new Int32Array(FIRST_ROWS), count: 0 };
      this.#tables[table] = list;
    }
    if (list.count === list.rows.length) list.rows = grown(list.rows);
    list.rows[list.count++] = row;
  }

  /** The rows of a table by their keys, each key once. */
  inOrder(table: number): Int32Array {
    const list = this.#tables[table];
    if (!list) return new Int32Array(0);
    const rows = list.rows.subarray(0, list.count);
    // Most tables of most batches come sorted, and no key twice: revisions ascend.
    if (this.#isAscending(rows)) return rows;
    this.#sort(rows, 0);
    let kept = 0;
    for (let i = 0; i < rows.length; i++) {
      const row = rows[i] as number;
      if (i + 1 < rows.length && this.#compare(row, rows[i + 1] as number) === 0) continue;
      rows[kept++] = row;
    }
    return rows.subarray(0, kept);
  }

  #compare(a: number, b: number): number {
    const { bytes } = this;
    const atA = this.keyAt[a] as number;
    const atB = this.keyAt[b] as number;
    const lengthA = this.keyBytes[a] as number;
    const lengthB = this.keyBytes[b] as number;
    const common = Math.min(lengthA, lengthB);
    for (let i = 0; i < common; i++) {
      const difference = (bytes[atA + i] as number) - (bytes[atB + i] as number);
      if (difference !== 0) return difference;
    }
    return lengthA - lengthB;
  }

  #isAscending(rows: Int32Array): boolean {
    for (let i = 1; i < rows.length; i++) {
      if (this.#compare(rows[i - 1] as number, rows[i] as number) >= 0) return false;
    }
    return true;
  }

  /** The first `depth` bytes of the keys are the same, where a key that ends before counts as zeros. */
  #sort(rows: Int32Array, depth: number): void {
    const count = rows.length;
    if (count <= FEW_ROWS) {
      this.#sortFew(rows);
      return;
    }
    const from = this.#commonBytes(rows, depth);
    if (from === undefined || count > PLACES_MAX) {
      rows.sort((a, b) => this.#compare(a, b) || a - b);
      return;
    }
    const { bytes } = this;
    const words = new BigUint64Array(count);
    const halves = new Uint32Array(words.buffer);
    for (let i = 0; i < count; i++) {
      const row = rows[i] as number;
      const length = this.keyBytes[row] as number;
      const at = this.keyAt[row] as number;
      const byte = (offset: number): number => (from + offset < length ? (bytes[at + from + offset] as number) : 0);
      halves[2 * i + HIGH] = (byte(0) << 24) | (byte(1) << 16) | (byte(2) << 8) | byte(3);
      halves[2 * i + LOW] = (byte(4) << 24) | i;
    }
    words.sort();
    const before = rows.slice();
    let runStart = 0;
    for (let i = 0; i < count; i++) {
      rows[i] = before[(halves[2 * i + LOW] as number) & (PLACES_MAX - 1)] as number;
      const isEnd =
        i + 1 === count ||
        halves[2 * i + HIGH] !== halves[2 * i + 2 + HIGH] ||
        (halves[2 * i + LOW] as number) >>> 24 !== (halves[2 * i + 2 + LOW] as number) >>> 24;
      if (!isEnd) continue;
      if (i > runStart) this.#sort(rows.subarray(runStart, i + 1), from + PREFIX_BYTES);
      runStart = i + 1;
    }
  }

  /** Insertion sort, which leaves equal keys in their order. */
  #sortFew(rows: Int32Array): void {
    for (let i = 1; i < rows.length; i++) {
      const row = rows[i] as number;
      let at = i;
      while (at > 0 && this.#compare(rows[at - 1] as number, row) > 0) {
        rows[at] = rows[at - 1] as number;
        at--;
      }
      rows[at] = row;
    }
  }

  /** How many bytes at their beginning all keys share; undefined when there is nothing behind `depth` in any of them. */
  #commonBytes(rows: Int32Array, depth: number): number | undefined {
    const { bytes, keyAt, keyBytes } = this;
    const first = rows[0] as number;
    const firstAt = keyAt[first] as number;
    let common = keyBytes[first] as number;
    let longest = common;
    for (let i = 1; i < rows.length; i++) {
      const row = rows[i] as number;
      const at = keyAt[row] as number;
      const length = keyBytes[row] as number;
      longest = Math.max(longest, length);
      const bound = Math.min(common, length);
      let same = Math.min(depth, bound);
      while (same < bound && bytes[firstAt + same] === bytes[at + same]) same++;
      common = same;
    }
    if (longest <= depth) return undefined;
    return Math.max(depth, common);
  }
}
