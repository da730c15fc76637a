/**
 * Reads LMDB files by page, without mapping them: a damaged file gives an error that names the page, where LMDB itself
 * would follow a wild number and take the process with it. Nothing in the file is trusted.
 *
 * A file that is written to meanwhile may be read as long as a read transaction that began before stays open: what the
 * newest of the two meta pages reaches is not written over then, as no page is used again that a transaction gave up
 * after the oldest reader began. The meta page that a commit may be at is the older one until that is done; both are read
 * until they stay the same.
 */
import fs from "node:fs";
import { SUM_BYTES, SUMS_MARK, sumBytesOf } from "../backend/sums.ts";
import { TABLES, type Table } from "../backend/types.ts";
import { crc32c } from "../../lib/crc32c.ts";
import { compareRanges, copyRange, PageFile } from "../page-file.ts";
import { RowCursor, type RowStore } from "../rows.ts";
import {
  decodeLmdbMeta,
  decodeTree,
  LmdbFileError,
  type LmdbMeta,
  LONG_VALUE_BYTES,
  MAGIC,
  META_BYTES,
  NODE_HEADER_BYTES,
  NODE_LONG,
  NODE_TREE,
  nodeBytesMax,
  PAGE_BRANCH,
  PAGE_BYTES_MAX,
  PAGE_BYTES_MIN,
  PAGE_HEADER_BYTES,
  PAGE_LEAF,
  PAGE_META,
  PAGE_OVERFLOW,
  pagesOfValue,
  TREE_BYTES,
  type TreeRecord,
  VERSION,
} from "./format.ts";

const DEPTH_MAX = 32;

/** A problem found on the way that does not stop the walk. */
export type Report = (problem: string, page?: number) => void;

export interface Metas {
  readonly pageBytes: number;
  /** As they stand in pages 0 and 1; undefined when that is no meta page. */
  readonly both: readonly [LmdbMeta | undefined, LmdbMeta | undefined];
  readonly newest: LmdbMeta;
}

function readPage(fd: number, position: number): Buffer {
  const bytes = Buffer.alloc(PAGE_HEADER_BYTES + META_BYTES);
  const count = fs.readSync(fd, bytes, 0, bytes.length, position);
  return bytes.subarray(0, count);
}

function soundMeta(page: Buffer, number: number): LmdbMeta | undefined {
  if (page.length < PAGE_HEADER_BYTES + META_BYTES || page.readUInt16LE(18) !== PAGE_META) return undefined;
  if (page.readBigUInt64LE(0) !== BigInt(number)) return undefined;
  const meta = decodeLmdbMeta(page);
  if (meta.magic !== MAGIC || meta.version !== VERSION) return undefined;
  const bytes = meta.free.pad;
  return bytes < PAGE_BYTES_MIN || bytes > PAGE_BYTES_MAX || (bytes & (bytes - 1)) !== 0 ? undefined : meta;
}

/** What is in the places of both meta pages. */
function readHead(fd: number): readonly [Buffer, Buffer] {
  const first = readPage(fd, 0);
  // The page size is in the first one; without it, that of every file made here.
  return [first, readPage(fd, soundMeta(first, 0)?.free.pad ?? 4096)];
}

/** Throws when LMDB itself would refuse the file: it wants both meta pages. */
export function readMetas(path: string, fd: number): Metas {
  let head = readHead(fd);
  let before: readonly [Buffer, Buffer];
  // A commit may be at one of them: read in the middle of that, it may have its number and the roots of the one before.
  do {
    before = head;
    head = readHead(fd);
  } while (!head[0].equals(before[0]) || !head[1].equals(before[1]));
  const [first, second] = [soundMeta(head[0], 0), soundMeta(head[1], 1)];
  const pageBytes = first?.free.pad ?? 4096;
  const newest = !first ? second : second && second.transaction > first.transaction ? second : first;
  if (!newest) throw new LmdbFileError(`${path} is not an LMDB file, or its head is damaged`);
  return { pageBytes, both: [first, second], newest };
}

export class LmdbFile implements RowStore {
  readonly path: string;
  readonly metas: Metas;
  readonly meta: LmdbMeta;
  readonly pageBytes: number;
  readonly pages: PageFile;
  /** Records of the tables by name. */
  readonly tables: ReadonlyMap<string, TreeRecord>;
  readonly hasSums: boolean;
  /** Pages of trees that were walked, once more for each walk. */
  pagesSeen = 0;
  readonly #isOwn: boolean;

  /** `descriptor`: of the file, open for reading; whoever opened it closes it. */
  constructor(path: string, descriptor?: number) {
    this.path = path;
    this.#isOwn = descriptor === undefined;
    const fd = descriptor ?? fs.openSync(path, "r");
    try {
      // Before the length is asked for: what a meta page names has been written.
      this.metas = readMetas(path, fd);
      this.pages = new PageFile(fd);
      this.meta = this.metas.newest;
      this.pageBytes = this.metas.pageBytes;
      const tables = new Map<string, TreeRecord>();
      const names = new TreeCursor(this, this.meta.names, 0, "names");
      while (names.next()) {
        const name = names.key.toString("latin1").replace(/\0$/, "");
        if (!names.isTree || names.value.length !== TREE_BYTES) {
          throw new LmdbFileError(`page ${names.page}: ${JSON.stringify(name)} is no table`);
        }
        tables.set(name, decodeTree(names.value, 0));
      }
      this.tables = tables;
      this.hasSums = tables.size === 0 || tables.has(SUMS_MARK);
    } catch (error) {
      if (this.#isOwn) fs.closeSync(fd);
      throw error;
    }
  }

  get sizeBytes(): number {
    return (this.meta.lastPage + 1) * this.pageBytes;
  }

  /** What the tables' own records say; a sound file's are right. */
  get inUseBytes(): number {
    let pages = 2;
    for (const tree of [this.meta.free, this.meta.names, ...this.tables.values()]) {
      pages += tree.branchPages + tree.leafPages + tree.overflowPages;
    }
    return Math.min(pages * this.pageBytes, this.sizeBytes);
  }

  /** Rows as the server sees them, their checksums verified: a row whose checksum is wrong is an error. */
  cursor(table: string): RowCursor {
    const tree = this.tables.get(table);
    if (!tree) return new EmptyCursor();
    return new TreeCursor(this, tree, this.sumBytes(table), table);
  }

  /** The same without a look at the checksums, which stay part of the values. */
  rawCursor(table: string): TreeCursor {
    return new TreeCursor(this, this.tables.get(table) ?? NO_TREE, 0, table);
  }

  /**
   * How long key and value of each row are, in order. Rows and their long values are not looked at: what is wrong with
   * them is found when they are read.
   */
  eachSize(table: string, visit: (keyBytes: number, valueBytes: number) => void): void {
    const root = this.tables.get(table)?.root;
    if (root !== undefined) this.#sizesBelow(root, 0, this.sumBytes(table), visit);
  }

  #sizesBelow(
    number: number,
    depth: number,
    sumBytes: number,
    visit: (keyBytes: number, valueBytes: number) => void,
  ): void {
    const { pages, pageBytes, meta } = this;
    const fail = (problem: string): never => {
      throw new LmdbFileError(`page ${number}: ${problem}`);
    };
    if (depth > DEPTH_MAX) fail("the tree is deeper than any can be");
    if (!(number >= 2 && number <= meta.lastPage)) fail(`out of bounds, the last is ${meta.lastPage}`);
    if (!pages.locate(number * pageBytes, pageBytes)) fail("the file ends before it");
    const { buffer, at } = pages;
    const isLeaf = buffer.readUInt16LE(at + 18) === PAGE_LEAF;
    if (!isLeaf && buffer.readUInt16LE(at + 18) !== PAGE_BRANCH) fail("neither branch nor leaf");
    const lower = buffer.readUInt16LE(at + 20);
    if (lower > pageBytes - PAGE_HEADER_BYTES) fail(`its bound ${lower} cannot be`);
    const count = lower >> 1;
    const last = pageBytes - NODE_HEADER_BYTES;
    const children: number[] = [];
    for (let i = 0; i < count; i++) {
      const slot = at + PAGE_HEADER_BYTES + 2 * i;
      const offset = PAGE_HEADER_BYTES + ((buffer[slot] as number) | ((buffer[slot + 1] as number) << 8));
      if (offset > last) fail(`node ${i} reaches beyond the page`);
      const node = at + offset;
      const low =
        (buffer[node] as number) |
        ((buffer[node + 1] as number) << 8) |
        ((buffer[node + 2] as number) << 16) |
        ((buffer[node + 3] as number) << 24);
      if (isLeaf) visit((buffer[node + 6] as number) | ((buffer[node + 7] as number) << 8), (low >>> 0) - sumBytes);
      else children.push((low >>> 0) + buffer.readUInt16LE(node + 4) * 0x1_0000_0000);
    }
    // The page's memory is used again from here on.
    for (const child of children) this.#sizesBelow(child, depth + 1, sumBytes, visit);
  }

  /** Key of a table's last row, by the last child of each branch. */
  lastKey(table: string): Buffer | undefined {
    let number = this.tables.get(table)?.root;
    for (let depth = 0; number !== undefined; depth++) {
      const { pages, pageBytes, meta } = this;
      if (
        depth > DEPTH_MAX ||
        !(number >= 2 && number <= meta.lastPage) ||
        !pages.locate(number * pageBytes, pageBytes)
      ) {
        throw new LmdbFileError(`page ${number}: cannot be read`);
      }
      const page = Buffer.from(pages.buffer.subarray(pages.at, pages.at + pageBytes));
      const last = page.readUInt16LE(20) / 2 - 1;
      if (last < 0) return undefined;
      const node = nodeAt(page, 0, last, number);
      if ((page.readUInt16LE(18) & PAGE_BRANCH) === 0) {
        const start = node + NODE_HEADER_BYTES;
        return page.subarray(start, start + page.readUInt16LE(node + 6));
      }
      number = page.readUInt32LE(node) + page.readUInt16LE(node + 4) * 0x1_0000_0000;
    }
    return undefined;
  }

  sumBytes(table: string): number {
    return (TABLES as readonly string[]).includes(table) ? sumBytesOf(table as Table, this.hasSums) : 0;
  }

  close(): void {
    if (this.#isOwn) this.pages.close();
  }
}

class EmptyCursor extends RowCursor {
  next(): boolean {
    return false;
  }
}

const NO_TREE: TreeRecord = {
  pad: 0,
  flags: 0,
  depth: 0,
  branchPages: 0,
  leafPages: 0,
  overflowPages: 0,
  entries: 0,
  root: undefined,
};

interface Branch {
  readonly page: Buffer;
  readonly number: number;
  readonly count: number;
  next: number;
  readonly low: Buffer | undefined;
  readonly high: Buffer | undefined;
}

/** Told of each page of a tree, in the order of the walk; `pages` more than one for a long value. */
export type PageVisitor = (number: number, pages: number, kind: "branch" | "leaf" | "overflow") => void;

export class TreeCursor extends RowCursor {
  readonly #file: LmdbFile;
  readonly #name: string;
  readonly #sumBytes: number;
  readonly #root: number | undefined;
  readonly #visit: PageVisitor | undefined;
  readonly #branches: Branch[] = [];
  #isStarted = false;
  // The leaf at hand.
  #buffer: Buffer = Buffer.alloc(0);
  #at = 0;
  #count = 0;
  #next = 0;
  #low: Buffer | undefined;
  #high: Buffer | undefined;
  #previous: Buffer = Buffer.alloc(64);
  #previousLength = -1;
  /** Number of the leaf at hand. */
  page = 0;
  /** Of the row at hand: its value is the record of a tree. */
  isTree = false;
  /** Of the row at hand: where its long value is. */
  longPage: number | undefined;
  branchPages = 0;
  leafPages = 0;
  overflowPages = 0;
  entries = 0;
  depth = 0;

  constructor(file: LmdbFile, tree: TreeRecord, sumBytes: number, name: string, visit?: PageVisitor) {
    super();
    this.#file = file;
    this.#name = name;
    this.#sumBytes = sumBytes;
    this.#root = tree.root;
    this.#visit = visit;
  }

  next(): boolean {
    if (!this.#isStarted) {
      this.#isStarted = true;
      if (this.#root === undefined) return false;
      this.#descend(this.#root, undefined, undefined);
    }
    while (this.#next === this.#count) {
      const branch = this.#branches.at(-1);
      if (!branch) return false;
      if (branch.next === branch.count) this.#branches.pop();
      else this.#child(branch);
    }
    this.#row();
    return true;
  }

  #fail(problem: string, page = this.page): never {
    throw new LmdbFileError(`page ${page}: ${problem}`);
  }

  #child(branch: Branch): void {
    const i = branch.next++;
    const node = nodeAt(branch.page, 0, i, branch.number);
    const key = i === 0 ? branch.low : branchKey(branch, i);
    const high = i + 1 < branch.count ? branchKey(branch, i + 1) : branch.high;
    if (key && high && compareRanges(key, 0, key.length, high, 0, high.length) >= 0) {
      this.#fail("its keys are out of order", branch.number);
    }
    const child = branch.page.readUInt32LE(node) + branch.page.readUInt16LE(node + 4) * 0x1_0000_0000;
    this.#descend(child, key, high);
  }

  #descend(number: number, low: Buffer | undefined, high: Buffer | undefined): void {
    const { pages, pageBytes, meta } = this.#file;
    if (this.#branches.length >= DEPTH_MAX) this.#fail("the tree is deeper than any can be", number);
    if (!(number >= 2 && number <= meta.lastPage)) this.#fail(`out of bounds, the last is ${meta.lastPage}`, number);
    if (!pages.locate(number * pageBytes, pageBytes)) this.#fail("the file ends before it", number);
    const { buffer, at } = pages;
    this.#file.pagesSeen++;
    if (buffer.readUInt32LE(at) + buffer.readUInt32LE(at + 4) * 0x1_0000_0000 !== number) {
      this.#fail(`says that it is page ${buffer.readBigUInt64LE(at)}`, number);
    }
    if (buffer.readBigUInt64LE(at + 8) > BigInt(meta.transaction)) this.#fail("written by a later transaction", number);
    const flags = buffer.readUInt16LE(at + 18);
    const lower = buffer.readUInt16LE(at + 20);
    const upper = buffer.readUInt16LE(at + 22);
    if (
      (lower & 1) !== 0 ||
      lower > upper ||
      upper > pageBytes - PAGE_HEADER_BYTES ||
      buffer.readUInt16LE(at + 16) !== 0
    ) {
      this.#fail(`its bounds ${lower} and ${upper} cannot be`, number);
    }
    const count = lower / 2;
    if (flags === PAGE_LEAF) {
      this.#visit?.(number, 1, "leaf");
      this.leafPages++;
      this.#buffer = buffer;
      this.#at = at;
      this.#count = count;
      this.#next = 0;
      this.#low = low;
      this.#high = high;
      this.page = number;
      this.depth = Math.max(this.depth, this.#branches.length + 1);
      if (count === 0) this.#fail("a leaf without rows");
      return;
    }
    if (flags !== PAGE_BRANCH) this.#fail(`neither branch nor leaf (${flags})`, number);
    if (count === 0) this.#fail("a branch without children", number);
    this.#visit?.(number, 1, "branch");
    this.branchPages++;
    const page = Buffer.from(buffer.subarray(at, at + pageBytes));
    for (let i = 0; i < count; i++) {
      const node = nodeAt(page, 0, i, number);
      if (node < PAGE_HEADER_BYTES + upper) this.#fail("a node lies in its free space", number);
    }
    this.#branches.push({ page, number, count, next: 0, low, high });
    this.#child(this.#branches.at(-1) as Branch);
  }

  #row(): void {
    const { pageBytes } = this.#file;
    const buffer = this.#buffer;
    const page = this.#at;
    const node = nodeAt(buffer, page, this.#next, this.page);
    const size = buffer.readUInt32LE(node);
    const flags = buffer.readUInt16LE(node + 4);
    this.keyIn = buffer;
    this.keyAt = node + NODE_HEADER_BYTES;
    this.keyEnd = this.keyAt + buffer.readUInt16LE(node + 6);
    if (flags > NODE_TREE) this.#fail(`row ${this.#next} has flags ${flags}`);
    const isLong = flags === NODE_LONG;
    const end = this.keyEnd + (isLong ? LONG_VALUE_BYTES : size);
    if (end > page + pageBytes || node < page + PAGE_HEADER_BYTES + buffer.readUInt16LE(page + 22)) {
      this.#fail(`row ${this.#next} reaches beyond the page`);
    }
    this.#checkOrder();
    this.isTree = flags === NODE_TREE;
    this.longPage = undefined;
    if (isLong) this.#longValue(size);
    else {
      this.valueIn = buffer;
      this.valueAt = this.keyEnd;
      this.valueEnd = end;
    }
    this.#next++;
    this.entries++;
    if (this.#sumBytes > 0) this.#takeSum();
  }

  #checkOrder(): void {
    const { keyIn, keyAt, keyEnd } = this;
    if (
      this.#previousLength >= 0 &&
      compareRanges(this.#previous, 0, this.#previousLength, keyIn, keyAt, keyEnd) >= 0
    ) {
      this.#fail(`row ${this.#next} is out of order`);
    }
    if (this.#next === 0 && this.#low && compareRanges(keyIn, keyAt, keyEnd, this.#low, 0, this.#low.length) < 0) {
      this.#fail("its first row is below its parent's key");
    }
    if (
      this.#next === this.#count - 1 &&
      this.#high &&
      compareRanges(keyIn, keyAt, keyEnd, this.#high, 0, this.#high.length) >= 0
    ) {
      this.#fail("its last row is above its parent's next key");
    }
    const length = keyEnd - keyAt;
    if (length > this.#previous.length) this.#previous = Buffer.alloc(2 * length);
    copyRange(keyIn, keyAt, keyEnd, this.#previous, 0);
    this.#previousLength = length;
  }

  #longValue(size: number): void {
    const { pages, pageBytes, meta } = this.#file;
    const at = this.keyEnd;
    const number = Number(this.#buffer.readBigUInt64LE(at));
    const count = Number(this.#buffer.readBigUInt64LE(at + 16));
    const wanted = pagesOfValue(size, pageBytes);
    if (count !== wanted) this.#fail(`the value of row ${this.#next} has ${count} pages instead of ${wanted}`);
    if (this.#buffer.readBigUInt64LE(at + 8) > BigInt(meta.transaction)) {
      this.#fail(`the value of row ${this.#next} is of a later transaction`);
    }
    if (NODE_HEADER_BYTES + this.keyEnd - this.keyAt + size <= nodeBytesMax(pageBytes)) {
      this.#fail(`the value of row ${this.#next} has ${size} bytes and pages of its own`);
    }
    if (!(number >= 2 && number + count - 1 <= meta.lastPage)) this.#fail(`out of bounds, as a value`, number);
    // Its pages come before the leaf's memory is needed again, but reading them may take that memory.
    const key = Buffer.from(this.key);
    const leaf = Buffer.from(this.#buffer.subarray(this.#at, this.#at + pageBytes));
    this.#buffer = leaf;
    this.#at = 0;
    this.keyIn = key;
    this.keyAt = 0;
    this.keyEnd = key.length;
    if (!pages.locate(number * pageBytes, PAGE_HEADER_BYTES + size)) this.#fail("the file ends inside a value", number);
    const { buffer, at: from } = pages;
    if (buffer.readBigUInt64LE(from) !== BigInt(number)) {
      this.#fail(`says that it is page ${buffer.readBigUInt64LE(from)}`, number);
    }
    if (buffer.readUInt16LE(from + 18) !== PAGE_OVERFLOW || buffer.readUInt32LE(from + 20) !== count) {
      this.#fail("is no value of its row", number);
    }
    if (buffer.readBigUInt64LE(from + 8) > BigInt(meta.transaction) || buffer.readUInt16LE(from + 16) !== 0) {
      this.#fail("its header cannot be", number);
    }
    this.#visit?.(number, count, "overflow");
    this.#file.pagesSeen += count;
    this.overflowPages += count;
    this.longPage = number;
    this.valueIn = buffer;
    this.valueAt = from + PAGE_HEADER_BYTES;
    this.valueEnd = this.valueAt + size;
  }

  #takeSum(): void {
    const length = this.valueEnd - this.valueAt - SUM_BYTES;
    if (length < 0) this.#fail(`row ${this.#next - 1} of "${this.#name}" has no checksum`);
    const { pages } = this.#file;
    let sum: number;
    if (this.valueIn === this.keyIn && this.valueAt === this.keyEnd) {
      sum = pages.crc(this.keyIn, this.keyAt, this.keyEnd - this.keyAt + length, 0);
    } else {
      sum = pages.crc(this.valueIn, this.valueAt, length, crc32c(this.key));
    }
    if (this.valueIn.readUInt32LE(this.valueEnd - SUM_BYTES) !== sum) {
      this.#fail(
        `row ${this.#next - 1} of "${this.#name}" is damaged: its checksum is wrong`,
        this.longPage ?? this.page,
      );
    }
    this.valueEnd -= SUM_BYTES;
  }
}

function nodeAt(buffer: Buffer, page: number, i: number, number: number): number {
  const pageBytes = buffer.length;
  const offset = buffer.readUInt16LE(page + PAGE_HEADER_BYTES + 2 * i);
  const node = page + PAGE_HEADER_BYTES + offset;
  if (node + NODE_HEADER_BYTES > pageBytes)
    throw new LmdbFileError(`page ${number}: node ${i} reaches beyond the page`);
  return node;
}

function branchKey({ page, number }: Branch, i: number): Buffer {
  const node = nodeAt(page, 0, i, number);
  const start = node + NODE_HEADER_BYTES;
  const end = start + page.readUInt16LE(node + 6);
  if (end > page.length) throw new LmdbFileError(`page ${number}: node ${i} reaches beyond the page`);
  return page.subarray(start, end);
}
