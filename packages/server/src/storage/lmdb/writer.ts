/**
 * Writes a whole LMDB file in one pass from sorted rows, as bolt/writer.ts does bbolt files: leaves are filled to the
 * brim and written at once, branches follow bottom up, and the two meta pages, which make the file valid, come last.
 * Several tables may be open at once. Nothing is mapped, and the file operations are ordinary ones.
 */
import { assert } from "../../lib/assert.ts";
import { crc32c } from "../../lib/crc32c.ts";
import { SUMS_MARK, sumBytesOf } from "../backend/sums.ts";
import { TABLES, type Table } from "../backend/types.ts";
import { type OpenFile, writeFully } from "../file-system.ts";
import { compareRanges, copyRange, type PageFile, viewOf } from "../page-file.ts";
import { PageOutput } from "../page-output.ts";
import type { RowCursor } from "../rows.ts";
import { type Child, TreeLevels } from "../tree-levels.ts";
import {
  EMPTY_TREE,
  encodeLmdbMetaPage,
  encodeTree,
  LmdbFileError,
  LONG_VALUE_BYTES,
  MAGIC,
  NODE_HEADER_BYTES,
  NODE_LONG,
  NODE_TREE,
  nodeBytesMax,
  PAGE_BRANCH,
  PAGE_HEADER_BYTES,
  PAGE_LEAF,
  PAGE_OVERFLOW,
  pagesOfValue,
  type TreeRecord,
  VERSION,
} from "./format.ts";

const PAGE_BYTES = 4096;
const ROOM_BYTES = PAGE_BYTES - PAGE_HEADER_BYTES;
const NODE_BYTES_MAX = nodeBytesMax(PAGE_BYTES);
const KEY_BYTES_MAX = NODE_BYTES_MAX - (NODE_HEADER_BYTES + 48);
/** Pages are of the first transaction; the newest meta page is the second's. */
const PAGE_TRANSACTION = 1;
/** For the first keys of some hundred leaves. */
const KEPT_BYTES = 16 * 1024;
const MAP_SIZE = 2n ** 38n;
/** Of the tree of free pages, whose record also has the page size and the settings of the file: a file, integer keys. */
const FREE_TREE_FLAGS = 0x4008;

const even = (bytes: number): number => (bytes + 1) & -2;

export class LmdbWriter {
  readonly #file: OpenFile;
  readonly output: PageOutput;
  readonly #trees = new Map<string, TreeRecord>();

  constructor(file: OpenFile) {
    this.#file = file;
    this.output = new PageOutput(file, 2 * PAGE_BYTES);
  }

  /** `source`: where most rows come from, for one table at a time: its page is used, which they reach soonest. */
  table(name: Table, source?: PageFile): TableWriter {
    return new TableWriter(this.output, sumBytesOf(name, true), 0, (tree) => this.#trees.set(name, tree), source);
  }

  /** Writes what is left. Returns the size. */
  async finish(): Promise<number> {
    const root = new TableWriter(this.output, 0, NODE_TREE, (tree) => this.#trees.set("", tree));
    for (const name of [...TABLES, SUMS_MARK].sort()) {
      root.put(Buffer.from(`${name}\0`, "latin1"), encodeTree(this.#trees.get(name) ?? EMPTY_TREE));
    }
    root.finish();
    const lastPage = this.output.position / PAGE_BYTES - 1;
    await this.output.finish();
    const meta = {
      magic: MAGIC,
      version: VERSION,
      address: 0n,
      mapSize: MAP_SIZE,
      free: { ...EMPTY_TREE, pad: PAGE_BYTES, flags: FREE_TREE_FLAGS },
      names: this.#trees.get("") as TreeRecord,
      lastPage,
    };
    // Transaction n is in page n % 2.
    const pages = Buffer.concat([
      encodeLmdbMetaPage(0, PAGE_BYTES, { ...meta, transaction: 2 }),
      encodeLmdbMetaPage(1, PAGE_BYTES, { ...meta, transaction: PAGE_TRANSACTION }),
    ]);
    await writeFully(this.#file, pages, pages.length, 0);
    return (lastPage + 1) * PAGE_BYTES;
  }

  /** Before the file is closed, whatever happened. */
  settle(): Promise<void> {
    return this.output.settle();
  }
}

export class TableWriter {
  readonly #output: PageOutput;
  readonly #sumBytes: number;
  readonly #nodeFlags: number;
  readonly #done: (tree: TreeRecord) => void;
  readonly #levels: TreeLevels;
  readonly #source: PageFile | undefined;
  readonly #page: Buffer;
  readonly #view: DataView;
  #lower = 0;
  #upper = ROOM_BYTES;
  // Keys of the leaf at hand, or of the one before until the next row is in.
  #firstAt = 0;
  #firstEnd = 0;
  #lastAt = 0;
  #lastEnd = 0;
  // Keys of leaves that no branch has yet.
  #keys = Buffer.alloc(0);
  #keysUsed = 0;
  #branchPages = 0;
  #leafPages = 0;
  #overflowPages = 0;
  #entries = 0;

  constructor(
    output: PageOutput,
    sumBytes: number,
    nodeFlags: number,
    done: (tree: TreeRecord) => void,
    source?: PageFile,
  ) {
    this.#source = source;
    this.#page = source?.takePage() ?? Buffer.from(new ArrayBuffer(PAGE_BYTES));
    this.#view = new DataView(this.#page.buffer, this.#page.byteOffset, PAGE_BYTES);
    this.#output = output;
    this.#sumBytes = sumBytes;
    this.#nodeFlags = nodeFlags;
    this.#done = done;
    this.#levels = new TreeLevels({
      bytesMax: ROOM_BYTES,
      childrenMax: ROOM_BYTES,
      // The first child needs no key; so three fit, however long their keys.
      childBytes: ({ key }, isFirst) => even(NODE_HEADER_BYTES + (isFirst ? 0 : key.length)) + 2,
      write: (children) => this.#writeBranch(children),
    });
  }

  /** Keys ascend. */
  put(key: Uint8Array, value: Uint8Array): void {
    this.putRange(asBuffer(key), 0, key.length, asBuffer(value), 0, value.length);
  }

  /** The row that a cursor is at. */
  putRow({ keyIn, keyAt, keyEnd, valueIn, valueAt, valueEnd }: RowCursor, sum?: number): void {
    this.putRange(keyIn, keyAt, keyEnd, valueIn, valueAt, valueEnd, sum);
  }

  /** Both are copied. `knownSum`: the checksum of the row, for a table that has them. */
  putRange(
    keyIn: Buffer,
    keyAt: number,
    keyEnd: number,
    valueIn: Buffer,
    valueAt: number,
    valueEnd: number,
    knownSum?: number,
  ): void {
    const keyLength = keyEnd - keyAt;
    if (keyLength === 0 || keyLength > KEY_BYTES_MAX) throw new LmdbFileError(`a key of ${keyLength} bytes`);
    const page = this.#page;
    const view = this.#view;
    if (compareRanges(page, this.#lastAt, this.#lastEnd, keyIn, keyAt, keyEnd) >= 0) {
      throw new LmdbFileError("keys out of order");
    }
    const valueLength = valueEnd - valueAt;
    const stored = valueLength + this.#sumBytes;
    const isLong = NODE_HEADER_BYTES + keyLength + stored > NODE_BYTES_MAX;
    const nodeBytes = even(NODE_HEADER_BYTES + keyLength + (isLong ? LONG_VALUE_BYTES : stored));
    if (this.#upper - this.#lower < nodeBytes + 2) this.#closeLeaf();
    const isFirst = this.#lower === 0;
    this.#upper -= nodeBytes;
    const node = PAGE_HEADER_BYTES + this.#upper;
    view.setUint16(PAGE_HEADER_BYTES + this.#lower, this.#upper, true);
    this.#lower += 2;
    view.setUint32(node, stored, true);
    view.setUint16(node + 4, this.#nodeFlags | (isLong ? NODE_LONG : 0), true);
    view.setUint16(node + 6, keyLength, true);
    const at = node + NODE_HEADER_BYTES;
    const data = at + keyLength;
    // As a page of bbolt has them: the value right behind the key.
    const isWhole = !isLong && keyIn === valueIn && keyEnd === valueAt;
    if (!isWhole) copyRange(keyIn, keyAt, keyEnd, page, at);
    else if (!this.#source?.copyToPage(keyIn, keyAt, valueEnd, at)) copyRange(keyIn, keyAt, valueEnd, page, at);
    this.#lastAt = at;
    this.#lastEnd = data;
    if (isFirst) {
      this.#firstAt = at;
      this.#firstEnd = data;
    }
    this.#entries++;
    if (!isLong) {
      if (!isWhole) copyRange(valueIn, valueAt, valueEnd, page, data);
      if (this.#sumBytes > 0) {
        const sum = knownSum ?? crc32c(page.subarray(at, data + valueLength));
        view.setUint32(data + valueLength, sum, true);
      }
      return;
    }
    const pages = pagesOfValue(stored, PAGE_BYTES);
    const number = this.#output.position / PAGE_BYTES;
    this.#output.page(pages * PAGE_BYTES);
    const { buffer, at: start } = this.#output;
    writeHeader(buffer, start, number, PAGE_OVERFLOW);
    buffer.writeUInt32LE(pages, start + 20);
    let end = start + PAGE_HEADER_BYTES;
    end += valueIn.copy(buffer, end, valueAt, valueEnd);
    if (this.#sumBytes > 0) {
      const sum = knownSum ?? crc32c(buffer.subarray(start + PAGE_HEADER_BYTES, end), crc32c(page.subarray(at, data)));
      end = buffer.writeUInt32LE(sum, end);
    }
    buffer.fill(0, end, start + pages * PAGE_BYTES);
    page.writeBigUInt64LE(BigInt(number), data);
    page.writeBigUInt64LE(BigInt(PAGE_TRANSACTION), data + 8);
    page.writeBigUInt64LE(BigInt(pages), data + 16);
    this.#overflowPages += pages;
  }

  #closeLeaf(): void {
    const page = this.#page;
    const number = this.#output.position / PAGE_BYTES;
    writeHeader(page, 0, number, PAGE_LEAF);
    this.#view.setUint16(20, this.#lower, true);
    this.#view.setUint16(22, this.#upper, true);
    page.fill(0, PAGE_HEADER_BYTES + this.#lower, PAGE_HEADER_BYTES + this.#upper);
    this.#output.page(PAGE_BYTES);
    this.#output.buffer.set(page, this.#output.at);
    this.#leafPages++;
    this.#lower = 0;
    this.#upper = ROOM_BYTES;
    this.#levels.addLeaf({ key: this.#keptKey(this.#firstAt, this.#firstEnd), page: number });
  }

  /** A copy of a key of the page, in memory that it shares with its neighbours. */
  #keptKey(at: number, end: number): Uint8Array {
    const from = this.#keysUsed;
    const to = from + end - at;
    if (to > this.#keys.length) {
      this.#keys = Buffer.allocUnsafeSlow(KEPT_BYTES);
      this.#keysUsed = 0;
      return this.#keptKey(at, end);
    }
    copyRange(this.#page, at, end, this.#keys, from);
    this.#keysUsed = to;
    return this.#keys.subarray(from, to);
  }

  #writeBranch(children: readonly Child[]): number {
    const number = this.#output.position / PAGE_BYTES;
    this.#output.page(PAGE_BYTES);
    const { buffer, at } = this.#output;
    buffer.fill(0, at, at + PAGE_BYTES);
    writeHeader(buffer, at, number, PAGE_BRANCH);
    let upper = ROOM_BYTES;
    for (let i = 0; i < children.length; i++) {
      const { key, page: child } = children[i] as Child;
      // The first child holds all that is below the second's key, so it has no key of its own.
      const keyLength = i === 0 ? 0 : key.length;
      upper -= even(NODE_HEADER_BYTES + keyLength);
      assert(upper >= 2 * (i + 1), "a branch of the backend file that does not fit");
      const node = at + PAGE_HEADER_BYTES + upper;
      buffer.writeUInt16LE(upper, at + PAGE_HEADER_BYTES + 2 * i);
      buffer.writeUInt32LE(child % 0x1_0000_0000, node);
      buffer.writeUInt16LE(Math.floor(child / 0x1_0000_0000), node + 4);
      buffer.writeUInt16LE(keyLength, node + 6);
      copyRange(key, 0, keyLength, buffer, node + NODE_HEADER_BYTES);
    }
    buffer.writeUInt16LE(2 * children.length, at + 20);
    buffer.writeUInt16LE(upper, at + 22);
    this.#branchPages++;
    return number;
  }

  finish(): void {
    if (this.#entries > 0) this.#closeLeaf();
    this.#source?.givePageBack();
    if (this.#entries === 0) {
      this.#done(EMPTY_TREE);
      return;
    }
    const root = this.#levels.close();
    this.#done({
      ...EMPTY_TREE,
      depth: this.#levels.height + 1,
      branchPages: this.#branchPages,
      leafPages: this.#leafPages,
      overflowPages: this.#overflowPages,
      entries: this.#entries,
      root,
    });
  }
}

function writeHeader(page: Buffer, at: number, number: number, flags: number): void {
  const view = viewOf(page);
  view.setUint32(at, number % 0x1_0000_0000, true);
  view.setUint32(at + 4, Math.floor(number / 0x1_0000_0000), true);
  view.setUint32(at + 8, PAGE_TRANSACTION, true);
  view.setUint32(at + 12, 0, true);
  view.setUint16(at + 16, 0, true);
  view.setUint16(at + 18, flags, true);
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
}
