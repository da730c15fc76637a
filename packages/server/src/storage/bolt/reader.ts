/**
 * Reads bbolt files of any size and age by page. A window of neighbouring pages is read at a time and a few windows are
 * kept, so memory does not grow with the file; rows are views of a window, and stay valid for as long as they are held.
 *
 * Nothing in the file is trusted: page numbers, counts, offsets and lengths are checked against the page and the file
 * before they are used, and a page is refused by number.
 */
import fs from "node:fs";
import { compareBytes, keyString, utf8Text } from "../../lib/bytes.ts";
import {
  BoltError,
  BUCKET_HEADER_BYTES,
  decodeMeta,
  ELEMENT_BYTES,
  ELEMENT_IS_BUCKET,
  FLAG_BRANCH,
  FLAG_FREELIST,
  FLAG_LEAF,
  FREELIST_COUNT_OVERFLOW,
  META_BYTES,
  type Meta,
  PAGE_HEADER_BYTES,
  pageNumber,
} from "./format.ts";
import type { BoltFile, Row } from "./types.ts";

const WINDOW_BYTES = 256 * 1024;
const WINDOWS_MAX = 32;
const FIRST_READ_BYTES = 4096;
const DEPTH_MAX = 64;

interface Page {
  readonly number: number;
  readonly flags: number;
  readonly count: number;
  readonly overflow: number;
  readonly bytes: Buffer;
}

interface BucketRoot {
  /** Page of the tree's root; `undefined` when the whole bucket is inline. */
  readonly root: number | undefined;
  readonly inline: Page | undefined;
}

/** Opens a bbolt file for reading. Throws {@link BoltError} in bbolt's words when neither meta page is valid. */
export function openBolt(path: string): BoltFile {
  const descriptor = fs.openSync(path, "r");
  try {
    return new BoltReader(path, descriptor);
  } catch (error) {
    fs.closeSync(descriptor);
    throw error;
  }
}

class BoltReader implements BoltFile {
  readonly path: string;
  readonly pageSizeBytes: number;
  readonly transactionId: bigint;
  readonly sizeBytes: number;
  readonly fileBytes: number;
  readonly #descriptor: number;
  readonly meta: Meta;
  readonly #windows = new Map<number, Buffer>();
  readonly #windowPages: number;
  #bucketNames: readonly string[] | undefined;
  #isOpen = true;

  constructor(path: string, descriptor: number) {
    this.path = path;
    this.#descriptor = descriptor;
    this.fileBytes = fs.fstatSync(descriptor).size;
    this.pageSizeBytes = this.#findPageSize();
    this.meta = this.#chooseMeta();
    this.transactionId = this.meta.transactionId;
    this.sizeBytes = this.meta.highWater * this.pageSizeBytes;
    this.#windowPages = Math.max(1, Math.floor(WINDOW_BYTES / this.pageSizeBytes));
    if (this.fileBytes < 2 * this.pageSizeBytes) throw new BoltError("file size too small");
    if (this.sizeBytes > this.fileBytes) {
      throw new BoltError(`file is truncated: ${this.fileBytes} bytes of ${this.sizeBytes}`);
    }
  }

  get buckets(): readonly string[] {
    this.#bucketNames ??= [...this.#tree(this.meta.root, undefined, DEPTH_MAX)].map(({ key }) => utf8Text(key));
    return this.#bucketNames;
  }

  scan(bucket: string, start: Uint8Array | undefined, visit: (key: Uint8Array, value: Uint8Array) => unknown): void {
    for (const [key, value] of this.rows(bucket, start)) if (visit(key, value) === false) return;
  }

  *rows(bucket: string, start?: Uint8Array): Generator<Row> {
    const found = this.#bucket(bucket);
    if (!found) return;
    const elements = found.inline
      ? this.#leaf(found.inline, start)
      : this.#tree(found.root as number, start, DEPTH_MAX);
    for (const { key, value } of elements) yield [key, value];
  }

  get(bucket: string, key: Uint8Array): Uint8Array | undefined {
    for (const [found, value] of this.rows(bucket, key)) return compareBytes(found, key) === 0 ? value : undefined;
    return undefined;
  }

  lastKey(bucket: string): Uint8Array | undefined {
    const found = this.#bucket(bucket);
    if (!found) return undefined;
    let page = found.inline ?? this.#page(found.root as number);
    for (let depth = 0; page.flags === FLAG_BRANCH && page.count > 0; depth++) {
      if (depth === DEPTH_MAX) throw new BoltError(`page ${page.number}: the tree is deeper than any can be`);
      page = this.#page(branchElement(page, page.count - 1).child);
    }
    return page.count === 0 ? undefined : leafElement(page, page.count - 1).key;
  }

  check(): string[] {
    return checkFile({
      meta: this.meta,
      page: (number) => this.#page(number),
      isInFile: (number) => number >= 2 && number < this.meta.highWater,
    });
  }

  close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#windows.clear();
    fs.closeSync(this.#descriptor);
  }

  // Finding the meta page in force.

  #read(position: number, length: number): Buffer {
    const bytes = Buffer.allocUnsafeSlow(length);
    let filled = 0;
    while (filled < length) {
      const count = fs.readSync(this.#descriptor, bytes, filled, length - filled, position + filled);
      if (count === 0) return bytes.subarray(0, filled);
      filled += count;
    }
    return bytes;
  }

  #metaAt(position: number): Meta | { readonly refusal: string } {
    return decodeMeta(this.#read(position + PAGE_HEADER_BYTES, META_BYTES));
  }

  #findPageSize(): number {
    if (this.fileBytes < FIRST_READ_BYTES) throw new BoltError("invalid database");
    const first = this.#metaAt(0);
    if (!("refusal" in first)) return this.#plausiblePageSize(first.pageSizeBytes);
    for (let size = 1024; size <= 1024 * 2 ** 14; size *= 2) {
      if (size + PAGE_HEADER_BYTES + META_BYTES > this.fileBytes) break;
      const second = this.#metaAt(size);
      if (!("refusal" in second)) return this.#plausiblePageSize(second.pageSizeBytes);
    }
    return FIRST_READ_BYTES;
  }

  #plausiblePageSize(size: number): number {
    if (size < 512 || size > 2 ** 24 || (size & (size - 1)) !== 0) throw new BoltError("invalid database");
    return size;
  }

  #chooseMeta(): Meta {
    const metas = [this.#metaAt(0), this.#metaAt(this.pageSizeBytes)] as const;
    const [first, second] = metas;
    if ("refusal" in first && "refusal" in second) throw new BoltError(first.refusal);
    if ("refusal" in first) return second as Meta;
    if ("refusal" in second) return first;
    return second.transactionId > first.transactionId ? second : first;
  }

  // Pages.

  #page(number: number): Page {
    if (!(number >= 2 && number < this.meta.highWater)) {
      throw new BoltError(`page ${number}: out of bounds (the file ends before page ${this.meta.highWater})`);
    }
    const index = Math.floor(number / this.#windowPages);
    const window = this.#window(index);
    const at = (number - index * this.#windowPages) * this.pageSizeBytes;
    const header = window.subarray(at, at + PAGE_HEADER_BYTES);
    if (header.length < PAGE_HEADER_BYTES) throw new BoltError(`page ${number}: the file ends inside it`);
    const overflow = header.readUInt32LE(12);
    if (number + overflow >= this.meta.highWater) {
      throw new BoltError(`page ${number}: ${overflow} overflow pages reach beyond the file`);
    }
    const length = (overflow + 1) * this.pageSizeBytes;
    const bytes =
      at + length <= window.length ? window.subarray(at, at + length) : this.#read(number * this.pageSizeBytes, length);
    if (bytes.length < length) throw new BoltError(`page ${number}: the file ends inside it`);
    const id = pageNumber(bytes.readBigUInt64LE(0));
    if (id !== number) throw new BoltError(`page ${number}: says that it is page ${id}`);
    return { number, flags: bytes.readUInt16LE(8), count: bytes.readUInt16LE(10), overflow, bytes };
  }

  #window(index: number): Buffer {
    const known = this.#windows.get(index);
    if (known) {
      this.#windows.delete(index);
      this.#windows.set(index, known);
      return known;
    }
    const bytes = this.#windowPages * this.pageSizeBytes;
    const window = this.#read(index * bytes, Math.min(bytes, Math.max(0, this.fileBytes - index * bytes)));
    this.#windows.set(index, window);
    if (this.#windows.size > WINDOWS_MAX) {
      const [oldest] = this.#windows.keys();
      this.#windows.delete(oldest as number);
    }
    return window;
  }

  // Trees.

  #bucket(name: string): BucketRoot | undefined {
    const wanted = Buffer.from(name, "utf8");
    for (const { key, value, isBucket } of this.#tree(this.meta.root, wanted, DEPTH_MAX)) {
      if (compareBytes(key, wanted) !== 0) return undefined;
      if (!isBucket) throw new BoltError(`"${name}" is not a bucket`);
      return bucketRoot(value, name);
    }
    return undefined;
  }

  *#tree(number: number, start: Uint8Array | undefined, depth: number): Generator<LeafElement> {
    if (depth === 0) throw new BoltError(`page ${number}: the tree is deeper than any can be`);
    const page = this.#page(number);
    if (page.flags === FLAG_LEAF) {
      yield* this.#leaf(page, start);
      return;
    }
    if (page.flags !== FLAG_BRANCH) throw new BoltError(`page ${number}: neither branch nor leaf (${page.flags})`);
    let first = 0;
    if (start) {
      // The last child whose first key is not above the wanted one; below all of them, the first.
      let low = 0;
      let high = page.count;
      while (low < high) {
        const middle = (low + high) >>> 1;
        if (compareBytes(branchElement(page, middle).key, start) <= 0) low = middle + 1;
        else high = middle;
      }
      first = Math.max(0, low - 1);
    }
    for (let i = first; i < page.count; i++) {
      yield* this.#tree(branchElement(page, i).child, i === first ? start : undefined, depth - 1);
    }
  }

  *#leaf(page: Page, start: Uint8Array | undefined): Generator<LeafElement> {
    let first = 0;
    if (start) {
      let high = page.count;
      while (first < high) {
        const middle = (first + high) >>> 1;
        if (compareBytes(leafElement(page, middle).key, start) < 0) first = middle + 1;
        else high = middle;
      }
    }
    for (let i = first; i < page.count; i++) yield leafElement(page, i);
  }
}

interface LeafElement {
  readonly key: Buffer;
  readonly value: Buffer;
  readonly isBucket: boolean;
}

function part(page: Page, start: number, length: number): Buffer {
  const end = start + length;
  if (end > page.bytes.length) throw new BoltError(`page ${page.number}: an element reaches beyond the page`);
  return page.bytes.subarray(start, end);
}

function leafElement(page: Page, index: number): LeafElement {
  const at = PAGE_HEADER_BYTES + index * ELEMENT_BYTES;
  const element = part(page, at, ELEMENT_BYTES);
  const keyStart = at + element.readUInt32LE(4);
  const keyLength = element.readUInt32LE(8);
  return {
    key: part(page, keyStart, keyLength),
    value: part(page, keyStart + keyLength, element.readUInt32LE(12)),
    isBucket: (element.readUInt32LE(0) & ELEMENT_IS_BUCKET) !== 0,
  };
}

function branchElement(page: Page, index: number): { key: Buffer; child: number } {
  const at = PAGE_HEADER_BYTES + index * ELEMENT_BYTES;
  const element = part(page, at, ELEMENT_BYTES);
  return {
    key: part(page, at + element.readUInt32LE(0), element.readUInt32LE(4)),
    child: pageNumber(element.readBigUInt64LE(8)),
  };
}

function bucketRoot(value: Buffer, name: string): BucketRoot {
  if (value.length < BUCKET_HEADER_BYTES) throw new BoltError(`bucket "${name}": its header is cut short`);
  const root = pageNumber(value.readBigUInt64LE(0));
  if (root !== 0) return { root, inline: undefined };
  const bytes = value.subarray(BUCKET_HEADER_BYTES);
  if (bytes.length < PAGE_HEADER_BYTES || bytes.readUInt16LE(8) !== FLAG_LEAF) {
    throw new BoltError(`bucket "${name}": its inline page is no leaf`);
  }
  return {
    root: undefined,
    inline: { number: 0, flags: FLAG_LEAF, count: bytes.readUInt16LE(10), overflow: 0, bytes },
  };
}

// The integrity check.

interface Checked {
  readonly meta: Meta;
  page(number: number): Page;
  isInFile(number: number): boolean;
}

/** At most this many problems are told apart; a broken file has no end of them. */
const PROBLEMS_MAX = 100;

/**
 * bbolt's check: every page is reached exactly once or free or part of the freelist, none is both, each is what it says
 * it is, and keys ascend within pages and across them. Memory: one bit a page.
 */
function checkFile(file: Checked): string[] {
  const { meta } = file;
  const problems: string[] = [];
  const report = (problem: string): void => {
    if (problems.length < PROBLEMS_MAX) problems.push(problem);
  };
  const reached = new Uint8Array(Math.ceil(meta.highWater / 8));
  const isMarked = (bits: Uint8Array, n: number): boolean => ((bits[n >>> 3] as number) & (1 << (n & 7))) !== 0;
  const mark = (bits: Uint8Array, n: number): void => {
    bits[n >>> 3] = (bits[n >>> 3] as number) | (1 << (n & 7));
  };
  let free: Uint8Array | undefined;

  const reach = (page: Page): boolean => {
    let isFirst = true;
    for (let n = page.number; n <= page.number + page.overflow; n++) {
      if (isMarked(reached, n)) {
        report(`page ${n}: multiple references`);
        isFirst = false;
      }
      if (free && isMarked(free, n)) report(`page ${n}: reachable freed`);
      mark(reached, n);
    }
    return isFirst;
  };

  const readFreelist = (): void => {
    if (meta.freelist === undefined) return;
    free = new Uint8Array(reached.length);
    const page = file.page(meta.freelist);
    if (page.flags !== FLAG_FREELIST) {
      report(`page ${page.number}: invalid type: it should be the freelist`);
      return;
    }
    for (let n = page.number; n <= page.number + page.overflow; n++) mark(reached, n);
    const isLong = page.count === FREELIST_COUNT_OVERFLOW;
    const count = isLong ? pageNumber(part(page, PAGE_HEADER_BYTES, 8).readBigUInt64LE(0)) : page.count;
    const start = PAGE_HEADER_BYTES + (isLong ? 8 : 0);
    if (count > (page.bytes.length - start) / 8) {
      report(`page ${page.number}: a freelist of ${count} pages does not fit in it`);
      return;
    }
    for (let i = 0; i < count; i++) {
      const n = pageNumber(page.bytes.readBigUInt64LE(start + 8 * i));
      if (!file.isInFile(n)) report(`page ${n}: out of bounds: ${meta.highWater} (freelist)`);
      else if (isMarked(free, n)) report(`page ${n}: already freed`);
      else mark(free, n);
    }
  };

  /** Keys of the subtree lie at or after `low` and before `high`. */
  const walk = (number: number, low: Buffer | undefined, high: Buffer | undefined, depth: number): void => {
    if (problems.length >= PROBLEMS_MAX) return;
    if (!file.isInFile(number)) {
      report(`page ${number}: out of bounds: ${meta.highWater}`);
      return;
    }
    if (depth === 0) {
      report(`page ${number}: the tree is deeper than any can be`);
      return;
    }
    let page: Page;
    try {
      page = file.page(number);
    } catch (error) {
      report((error as Error).message);
      return;
    }
    if (!reach(page)) return;
    if (page.flags === FLAG_LEAF) checkLeaf(page, low, high);
    else if (page.flags === FLAG_BRANCH) checkBranch(page, low, high, depth);
    else report(`page ${number}: invalid type: ${page.flags}`);
  };

  const checkOrder = (
    page: Page,
    key: Buffer,
    previous: Buffer | undefined,
    low: Buffer | undefined,
    high: Buffer | undefined,
  ): void => {
    const name = () => JSON.stringify(keyString(key).slice(0, 40));
    if (previous && compareBytes(previous, key) >= 0) report(`page ${page.number}: key ${name()} is out of order`);
    if (low && compareBytes(key, low) < 0) report(`page ${page.number}: key ${name()} is below its parent's`);
    if (high && compareBytes(key, high) >= 0) report(`page ${page.number}: key ${name()} is above its parent's next`);
  };

  const checkLeaf = (page: Page, low: Buffer | undefined, high: Buffer | undefined): void => {
    let previous: Buffer | undefined;
    for (let i = 0; i < page.count; i++) {
      const { key, value, isBucket } = leafElement(page, i);
      checkOrder(page, key, previous, low, high);
      previous = key;
      if (!isBucket) continue;
      const bucket = bucketRoot(value, utf8Text(key));
      if (bucket.inline) checkLeaf(bucket.inline, undefined, undefined);
      else walkSafely(bucket.root as number);
    }
  };

  const checkBranch = (page: Page, low: Buffer | undefined, high: Buffer | undefined, depth: number): void => {
    if (page.count === 0) report(`page ${page.number}: a branch without children`);
    let previous: Buffer | undefined;
    for (let i = 0; i < page.count; i++) {
      const { key, child } = branchElement(page, i);
      checkOrder(page, key, previous, low, high);
      previous = key;
      const next = i + 1 < page.count ? branchElement(page, i + 1).key : high;
      walk(child, i === 0 ? low : key, next, depth - 1);
    }
  };

  const walkSafely = (root: number): void => {
    try {
      walk(root, undefined, undefined, DEPTH_MAX);
    } catch (error) {
      if (!(error instanceof BoltError)) throw error;
      report(error.message);
    }
  };

  try {
    readFreelist();
  } catch (error) {
    if (!(error instanceof BoltError)) throw error;
    report(error.message);
  }
  walkSafely(meta.root);
  if (free && problems.length === 0) {
    for (let n = 2; n < meta.highWater; n++) {
      if (!isMarked(reached, n) && !isMarked(free, n)) report(`page ${n}: unreachable unfreed`);
    }
  }
  return problems;
}
