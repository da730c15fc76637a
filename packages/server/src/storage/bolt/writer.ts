/**
 * Writes a compact bbolt file in one pass from sorted rows. Nodes are closed as they fill up and written at once; only
 * one unfinished node a level is held in memory. The meta pages, which make the file valid, come last.
 */
import {
  BoltError,
  BUCKET_HEADER_BYTES,
  ELEMENT_BYTES,
  ELEMENT_IS_BUCKET,
  encodeMetaPage,
  FLAG_BRANCH,
  FLAG_LEAF,
  PAGE_HEADER_BYTES,
} from "./format.ts";
import { compareRanges, copyRange } from "../page-file.ts";
import type { RowCursor } from "../rows.ts";
import { type Child, TreeLevels } from "../tree-levels.ts";

/** Room for pages, one behind the other: after `page`, the bytes of `buffer` from `at` on. */
export interface PageRoom {
  page(length: number): void;
  readonly buffer: Buffer;
  readonly at: number;
}

/** Where the writer puts bytes. Positions ascend, but for the meta pages at the end. */
export interface BoltSink {
  write(bytes: Uint8Array, position: number): void;
  /** Takes the pages instead, so that they are made where they are written from; `write` gets the meta pages then. */
  readonly output?: PageRoom | undefined;
}

export interface BoltWriterOptions {
  readonly pageSizeBytes?: number | undefined;
  /** Share of a page that is filled. 1 leaves no room for later inserts between keys, of which etcd makes few. */
  readonly fill?: number | undefined;
}

const KEY_BYTES_MAX = 32768;
export const NODE_ELEMENTS_MAX = 0xfffe;
/** Even, so that etcd's first commit goes over the older of the two meta pages. */
const TRANSACTION_ID = 2n;

/** The largest bucket that is kept in the page of its name. */
export const inlineBytesMax = (pageSizeBytes: number): number => Math.floor(pageSizeBytes / 4);

/** How much of a page is taken up by a node of so many bytes: whole pages. */
export const pagesOf = (bytes: number, pageSizeBytes: number): number => Math.max(1, Math.ceil(bytes / pageSizeBytes));

/** Both meta pages of a file that ends before page `highWater` and whose tree of buckets begins at page `root`. */
export function encodeMetaPages(pageSizeBytes: number, root: number, highWater: number): readonly [Buffer, Buffer] {
  // The list of free pages is not stored, as etcd leaves it on Linux: it is derived from the pages that are reached.
  const meta = { pageSizeBytes, root, freelist: undefined, highWater };
  return [
    encodeMetaPage(0, { ...meta, transactionId: TRANSACTION_ID }),
    encodeMetaPage(1, { ...meta, transactionId: TRANSACTION_ID - 1n }),
  ];
}

interface Element {
  readonly key: Uint8Array;
  readonly value: Uint8Array;
  readonly flags: number;
}

/** A leaf as it fills up: keys and values in a row, and their lengths. */
class Leaf {
  data = Buffer.allocUnsafeSlow(16 * 1024);
  keyLengths = new Uint32Array(512);
  valueLengths = new Uint32Array(512);
  count = 0;
  dataBytes = 0;

  get bytes(): number {
    return PAGE_HEADER_BYTES + this.count * ELEMENT_BYTES + this.dataBytes;
  }

  add(keyIn: Uint8Array, keyAt: number, keyEnd: number, valueIn: Uint8Array, valueAt: number, valueEnd: number): void {
    const keyLength = keyEnd - keyAt;
    const length = keyLength + valueEnd - valueAt;
    if (this.dataBytes + length > this.data.length) this.#grow(length);
    if (this.count === this.keyLengths.length) {
      this.keyLengths = doubled(this.keyLengths);
      this.valueLengths = doubled(this.valueLengths);
    }
    copyRange(keyIn, keyAt, keyEnd, this.data, this.dataBytes);
    copyRange(valueIn, valueAt, valueEnd, this.data, this.dataBytes + keyLength);
    this.keyLengths[this.count] = keyLength;
    this.valueLengths[this.count] = valueEnd - valueAt;
    this.count++;
    this.dataBytes += length;
  }

  #grow(length: number): void {
    const larger = Buffer.allocUnsafeSlow(Math.max(2 * this.data.length, this.dataBytes + length));
    larger.set(this.data.subarray(0, this.dataBytes));
    this.data = larger;
  }

  firstKey(): Buffer {
    return Buffer.from(this.data.subarray(0, this.keyLengths[0]));
  }

  clear(): void {
    this.count = 0;
    this.dataBytes = 0;
    // One huge value must not be carried about for ever.
    if (this.data.length > 1024 * 1024) this.data = Buffer.allocUnsafeSlow(16 * 1024);
  }

  /** The page without its number: header, elements, then keys and values. */
  writeTo(page: Buffer, at: number): void {
    page.writeUInt16LE(FLAG_LEAF, at + 8);
    page.writeUInt16LE(this.count, at + 10);
    let data = PAGE_HEADER_BYTES + this.count * ELEMENT_BYTES;
    this.data.copy(page, at + data, 0, this.dataBytes);
    for (let i = 0; i < this.count; i++) {
      const element = PAGE_HEADER_BYTES + i * ELEMENT_BYTES;
      const keyLength = this.keyLengths[i] as number;
      const valueLength = this.valueLengths[i] as number;
      page.writeUInt32LE(0, at + element);
      page.writeUInt32LE(data - element, at + element + 4);
      page.writeUInt32LE(keyLength, at + element + 8);
      page.writeUInt32LE(valueLength, at + element + 12);
      data += keyLength + valueLength;
    }
  }
}

function doubled(lengths: Uint32Array<ArrayBuffer>): Uint32Array<ArrayBuffer> {
  const larger = new Uint32Array(2 * lengths.length);
  larger.set(lengths);
  return larger;
}

export class BoltWriter {
  readonly #sink: BoltSink;
  readonly #pageSizeBytes: number;
  readonly #nodeBytesMax: number;
  readonly #inlineBytesMax: number;
  readonly #buckets: Element[] = [];
  #nextPage = 2;
  #lastBucket: Buffer | undefined;

  constructor(sink: BoltSink, options: BoltWriterOptions = {}) {
    this.#sink = sink;
    this.#pageSizeBytes = options.pageSizeBytes ?? 4096;
    this.#nodeBytesMax = Math.floor((options.fill ?? 1) * this.#pageSizeBytes);
    this.#inlineBytesMax = inlineBytesMax(this.#pageSizeBytes);
  }

  /** Begins the next bucket; names ascend. Rows go to what it returns, keys ascending, until its `finish()`. */
  bucket(name: string): BucketWriter {
    const nameBytes = Buffer.from(name, "utf8");
    if (this.#lastBucket && this.#lastBucket.compare(nameBytes) >= 0) throw new BoltError("buckets out of order");
    this.#lastBucket = nameBytes;
    return new BucketWriter(
      {
        nodeBytesMax: this.#nodeBytesMax,
        inlineBytesMax: this.#inlineBytesMax,
        writeLeaf: (leaf) => this.#writeLeaf(leaf),
        writeRows: (rows, count) => this.#writeRows(rows, count),
        writeBranch: (children) => this.#writeBranch(children),
      },
      (header) => this.#buckets.push({ key: nameBytes, value: header, flags: ELEMENT_IS_BUCKET }),
    );
  }

  /** Writes the root and the meta pages. Returns the size of the file. */
  finish(): number {
    const root = this.#writeRoot();
    const [first, second] = encodeMetaPages(this.#pageSizeBytes, root, this.#nextPage);
    this.#sink.write(first, 0);
    this.#sink.write(second, this.#pageSizeBytes);
    return this.#nextPage * this.#pageSizeBytes;
  }

  #writeLeaf(leaf: Leaf): number {
    const place = this.#allocate(leaf.bytes);
    leaf.writeTo(place.page, place.at);
    return this.#commit(place);
  }

  /** A leaf of the row that the cursor is at and those behind it, `count` in all; leaves the cursor at the last one. */
  #writeRows(rows: RowCursor, count: number): number {
    let data = PAGE_HEADER_BYTES + count * ELEMENT_BYTES;
    const place = this.#allocate(data + rowBytes(rows), false);
    const { page, at } = place;
    const end = at + place.length;
    page.writeUInt16LE(FLAG_LEAF, at + 8);
    page.writeUInt16LE(count, at + 10);
    let element = at + PAGE_HEADER_BYTES;
    data += at;
    for (let n = 0; n < count; n++, element += ELEMENT_BYTES) {
      if (n > 0 && !rows.next()) throw new BoltError("fewer rows than there were");
      const { keyIn, keyAt, keyEnd, valueIn, valueAt, valueEnd } = rows;
      const keyLength = keyEnd - keyAt;
      const valueLength = valueEnd - valueAt;
      checkKeyLength(keyLength);
      if (data + keyLength + valueLength > end) throw new BoltError("rows that are longer than they were");
      writeUint32(page, element, 0);
      writeUint32(page, element + 4, data - element);
      writeUint32(page, element + 8, keyLength);
      writeUint32(page, element + 12, valueLength);
      // In a leaf of LMDB, too, the value lies behind the key.
      if (keyIn === valueIn && keyEnd === valueAt) copyRange(keyIn, keyAt, valueEnd, page, data);
      else {
        copyRange(keyIn, keyAt, keyEnd, page, data);
        copyRange(valueIn, valueAt, valueEnd, page, data + keyLength);
      }
      data += keyLength + valueLength;
    }
    // The engine's own; what Buffer has instead looks at its arguments for longer than this takes.
    Uint8Array.prototype.fill.call(page, 0, data, end);
    return this.#commit(place);
  }

  #writeRoot(): number {
    let size = PAGE_HEADER_BYTES;
    for (const { key, value } of this.#buckets) size += ELEMENT_BYTES + key.length + value.length;
    const place = this.#allocate(size);
    const { page, at: start } = place;
    page.writeUInt16LE(FLAG_LEAF, start + 8);
    page.writeUInt16LE(this.#buckets.length, start + 10);
    let data = PAGE_HEADER_BYTES + this.#buckets.length * ELEMENT_BYTES;
    for (const [i, { key, value, flags }] of this.#buckets.entries()) {
      const at = PAGE_HEADER_BYTES + i * ELEMENT_BYTES;
      page.writeUInt32LE(flags, start + at);
      page.writeUInt32LE(data - at, start + at + 4);
      page.writeUInt32LE(key.length, start + at + 8);
      page.writeUInt32LE(value.length, start + at + 12);
      page.set(key, start + data);
      page.set(value, start + data + key.length);
      data += key.length + value.length;
    }
    return this.#commit(place);
  }

  #writeBranch(children: readonly Child[]): number {
    let size = PAGE_HEADER_BYTES;
    for (const { key } of children) size += ELEMENT_BYTES + key.length;
    const place = this.#allocate(size);
    const { page, at: start } = place;
    page.writeUInt16LE(FLAG_BRANCH, start + 8);
    page.writeUInt16LE(children.length, start + 10);
    let data = PAGE_HEADER_BYTES + children.length * ELEMENT_BYTES;
    for (let i = 0; i < children.length; i++) {
      const { key, page: child } = children[i] as Child;
      const at = PAGE_HEADER_BYTES + i * ELEMENT_BYTES;
      page.writeUInt32LE(data - at, start + at);
      page.writeUInt32LE(key.length, start + at + 4);
      page.writeBigUInt64LE(BigInt(child), start + at + 8);
      page.set(key, start + data);
      data += key.length;
    }
    return this.#commit(place);
  }

  /** `clears`: what follows the content is made zeros, so that equal rows give equal files; otherwise the caller does. */
  #allocate(size: number, clears = true): Place {
    const pages = pagesOf(size, this.#pageSizeBytes);
    const number = this.#nextPage;
    this.#nextPage += pages;
    const length = pages * this.#pageSizeBytes;
    const { output } = this.#sink;
    let page: Buffer;
    let at = 0;
    if (output) {
      output.page(length);
      page = output.buffer;
      at = output.at;
      if (clears) page.fill(0, at + size, at + length);
    } else page = Buffer.alloc(length);
    page.writeUInt32LE(number % 0x1_0000_0000, at);
    page.writeUInt32LE(Math.floor(number / 0x1_0000_0000), at + 4);
    page.writeUInt32LE(pages - 1, at + 12);
    return { page, at, length, number };
  }

  #commit({ page, number }: Place): number {
    if (!this.#sink.output) this.#sink.write(page, number * this.#pageSizeBytes);
    return number;
  }
}

interface Place {
  readonly page: Buffer;
  readonly at: number;
  readonly length: number;
  readonly number: number;
}

const rowBytes = ({ keyAt, keyEnd, valueAt, valueEnd }: RowCursor): number => keyEnd - keyAt + valueEnd - valueAt;

function checkKeyLength(bytes: number): void {
  if (bytes === 0 || bytes > KEY_BYTES_MAX) throw new BoltError(`a key of ${bytes} bytes`);
}

function writeUint32(page: Buffer, at: number, value: number): void {
  page[at] = value;
  page[at + 1] = value >>> 8;
  page[at + 2] = value >>> 16;
  page[at + 3] = value >>> 24;
}

interface Nodes {
  readonly nodeBytesMax: number;
  readonly inlineBytesMax: number;
  writeLeaf(leaf: Leaf): number;
  writeRows(rows: RowCursor, count: number): number;
  writeBranch(children: readonly Child[]): number;
}

export class BucketWriter {
  readonly #nodes: Nodes;
  readonly #done: (header: Buffer) => void;
  readonly #leaf = new Leaf();
  readonly #levels: TreeLevels;
  #leaves = 0;
  #lastKey: Buffer = Buffer.alloc(64);
  #lastKeyLength = 0;

  constructor(nodes: Nodes, done: (header: Buffer) => void) {
    this.#nodes = nodes;
    this.#done = done;
    this.#levels = new TreeLevels({
      bytesMax: nodes.nodeBytesMax - PAGE_HEADER_BYTES,
      childrenMax: NODE_ELEMENTS_MAX,
      childBytes: ({ key }) => ELEMENT_BYTES + key.length,
      write: (children) => nodes.writeBranch(children),
    });
  }

  put(key: Uint8Array, value: Uint8Array): void {
    this.putRange(key, 0, key.length, value, 0, value.length);
  }

  /** The row that a cursor is at. Both are copied. */
  putRow({ keyIn, keyAt, keyEnd, valueIn, valueAt, valueEnd }: RowCursor): void {
    this.putRange(keyIn, keyAt, keyEnd, valueIn, valueAt, valueEnd);
  }

  putRange(
    keyIn: Uint8Array,
    keyAt: number,
    keyEnd: number,
    valueIn: Uint8Array,
    valueAt: number,
    valueEnd: number,
  ): void {
    const keyLength = keyEnd - keyAt;
    checkKeyLength(keyLength);
    if (compareRanges(this.#lastKey, 0, this.#lastKeyLength, keyIn, keyAt, keyEnd) >= 0) {
      throw new BoltError("keys out of order");
    }
    if (keyLength > this.#lastKey.length) this.#lastKey = Buffer.alloc(2 * keyLength);
    copyRange(keyIn, keyAt, keyEnd, this.#lastKey, 0);
    this.#lastKeyLength = keyLength;
    const leaf = this.#leaf;
    const bytes = ELEMENT_BYTES + keyLength + valueEnd - valueAt;
    if (leaf.count > 0 && (leaf.bytes + bytes > this.#nodes.nodeBytesMax || leaf.count === NODE_ELEMENTS_MAX)) {
      this.#closeLeaf();
    }
    leaf.add(keyIn, keyAt, keyEnd, valueIn, valueAt, valueEnd);
  }

  /**
   * A whole leaf, made where it will lie: of the row that the cursor is at and those behind it, `count` in all, as
   * planBolt told. Whether keys ascend is the cursor's business. Not together with the other ways to put rows.
   */
  putLeaf(rows: RowCursor, count: number): void {
    const key = Buffer.from(rows.key);
    const page = this.#nodes.writeRows(rows, count);
    this.#leaves++;
    this.#levels.addLeaf({ key, page });
  }

  finish(): void {
    const header = Buffer.alloc(BUCKET_HEADER_BYTES);
    if (this.#leaves === 0 && this.#leaf.bytes <= this.#nodes.inlineBytesMax) {
      const inline = Buffer.alloc(this.#leaf.bytes);
      this.#leaf.writeTo(inline, 0);
      this.#done(Buffer.concat([header, inline]));
      return;
    }
    if (this.#leaf.count > 0 || this.#leaves === 0) this.#closeLeaf();
    header.writeBigUInt64LE(BigInt(this.#levels.close()), 0);
    this.#done(header);
  }

  #closeLeaf(): void {
    const key = this.#leaf.firstKey();
    const page = this.#nodes.writeLeaf(this.#leaf);
    this.#leaf.clear();
    this.#leaves++;
    this.#levels.addLeaf({ key, page });
  }
}
