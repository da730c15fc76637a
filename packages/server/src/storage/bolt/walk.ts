/**
 * A walk over the leaves of a bbolt file in key order that makes no objects for rows: what `snapshot status`, restore,
 * defragmentation and migration run on. Every number is checked before it is used, as in reader.ts.
 */
import fs from "node:fs";
import { utf8Bytes, utf8Text } from "../../lib/bytes.ts";
import { crc32c, crc32cCombine } from "../../lib/crc32c.ts";
import { compareRanges, PageFile, viewOf } from "../page-file.ts";
import { RowCursor } from "../rows.ts";
import {
  BoltError,
  BUCKET_HEADER_BYTES,
  ELEMENT_BYTES,
  ELEMENT_IS_BUCKET,
  FLAG_BRANCH,
  FLAG_LEAF,
  type Meta,
  PAGE_HEADER_BYTES,
  pageNumber,
} from "./format.ts";
import type { DatabaseSummary } from "./hash.ts";

const DEPTH_MAX = 64;

interface Branch {
  readonly page: Buffer;
  readonly number: number;
  readonly count: number;
  next: number;
  /** Where its part of the walk ends: `count`, but in the root when only a part of its children is wanted. */
  readonly end: number;
  /** Where the keys of the whole branch end: the key behind it in its parent. */
  readonly high: Bound;
}

/** A key that bounds others, where it lies in a branch page; `page` undefined: there is no bound. */
interface Bound {
  readonly page: Buffer | undefined;
  readonly at: number;
  readonly end: number;
}

const UNBOUNDED: Bound = { page: undefined, at: 0, end: 0 };

export class BoltPages {
  readonly file: PageFile;
  readonly meta: Meta;
  /** One bit a page that was reached; undefined when nobody asked. */
  readonly reached: Uint8Array | undefined;
  reachedPages = 0;
  // The page that `page` went to.
  buffer: Buffer = Buffer.alloc(0);
  at = 0;
  bytes = 0;
  flags = 0;
  count = 0;

  constructor(path: string, meta: Meta, wantsReached: boolean) {
    this.file = new PageFile(fs.openSync(path, "r"));
    this.meta = meta;
    this.reached = wantsReached ? new Uint8Array(Math.ceil(meta.highWater / 8)) : undefined;
  }

  page(number: number): void {
    const { meta, file } = this;
    if (!(number >= 2 && number < meta.highWater)) {
      throw new BoltError(`page ${number}: out of bounds (the file ends before page ${meta.highWater})`);
    }
    const position = number * meta.pageSizeBytes;
    if (!file.locate(position, meta.pageSizeBytes)) throw new BoltError(`page ${number}: the file ends inside it`);
    let { buffer, at } = file;
    const overflow = buffer.readUInt32LE(at + 12);
    if (number + overflow >= meta.highWater) {
      throw new BoltError(`page ${number}: ${overflow} overflow pages reach beyond the file`);
    }
    this.bytes = (overflow + 1) * meta.pageSizeBytes;
    if (overflow > 0) {
      if (!file.locate(position, this.bytes)) throw new BoltError(`page ${number}: the file ends inside it`);
      ({ buffer, at } = file);
    }
    if (
      buffer.readUInt32LE(at) !== number % 0x1_0000_0000 ||
      buffer.readUInt32LE(at + 4) !== Math.floor(number / 0x1_0000_0000)
    ) {
      throw new BoltError(`page ${number}: says that it is page ${pageNumber(buffer.readBigUInt64LE(at))}`);
    }
    this.buffer = buffer;
    this.at = at;
    this.flags = buffer.readUInt16LE(at + 8);
    this.count = buffer.readUInt16LE(at + 10);
    if (this.count * ELEMENT_BYTES + PAGE_HEADER_BYTES > this.bytes) {
      throw new BoltError(`page ${number}: an element reaches beyond the page`);
    }
    this.reachedPages += overflow + 1;
    if (this.reached) this.#mark(number, overflow);
  }

  #mark(number: number, overflow: number): void {
    const bits = this.reached as Uint8Array;
    for (let n = number; n <= number + overflow; n++) {
      const bit = 1 << (n & 7);
      const before = bits[n >>> 3] as number;
      if (before & bit) throw new BoltError(`page ${n}: multiple references`);
      bits[n >>> 3] = before | bit;
    }
  }

  close(): void {
    this.file.close();
  }
}

/** Some of the children of a tree's root. */
export interface RootPart {
  readonly from: number;
  readonly to: number;
}

/** The leaves of one tree, left to right. */
export class LeafWalk {
  readonly pages: BoltPages;
  readonly #root: number;
  readonly #part: RootPart | undefined;
  readonly #branches: Branch[] = [];
  #isStarted = false;
  // The leaf at hand, and the bounds that its parents give.
  buffer: Buffer = Buffer.alloc(0);
  at = 0;
  bytes = 0;
  count = 0;
  number = 0;
  low: Bound = UNBOUNDED;
  high: Bound = UNBOUNDED;

  /** `part`: only what hangs below these children of the root, which is a branch. */
  constructor(pages: BoltPages, root: number, part?: RootPart) {
    this.pages = pages;
    this.#root = root;
    this.#part = part;
  }

  next(): boolean {
    if (!this.#isStarted) {
      this.#isStarted = true;
      this.#descend(this.#root, UNBOUNDED, UNBOUNDED);
      return true;
    }
    for (;;) {
      const branch = this.#branches.at(-1);
      if (!branch) return false;
      if (branch.next === branch.end) {
        this.#branches.pop();
        continue;
      }
      this.#child(branch);
      return true;
    }
  }

  #child(branch: Branch): void {
    const i = branch.next++;
    const { page } = branch;
    const low = branchKey(branch, i);
    const high = i + 1 < branch.count ? branchKey(branch, i + 1) : branch.high;
    if (high.page && compareRanges(page, low.at, low.end, high.page, high.at, high.end) >= 0) {
      throw new BoltError(`page ${branch.number}: keys out of order`);
    }
    const at = PAGE_HEADER_BYTES + i * ELEMENT_BYTES;
    // Numbers above 2^53 are refused as out of bounds, exact or not.
    this.#descend(page.readUInt32LE(at + 8) + page.readUInt32LE(at + 12) * 0x1_0000_0000, low, high);
  }

  #descend(number: number, low: Bound, high: Bound): void {
    const { pages } = this;
    if (this.#branches.length >= DEPTH_MAX) throw new BoltError(`page ${number}: the tree is deeper than any can be`);
    pages.page(number);
    if (pages.flags === FLAG_LEAF) {
      this.buffer = pages.buffer;
      this.at = pages.at;
      this.bytes = pages.bytes;
      this.count = pages.count;
      this.number = number;
      this.low = low;
      this.high = high;
      return;
    }
    if (pages.flags !== FLAG_BRANCH) throw new BoltError(`page ${number}: neither branch nor leaf (${pages.flags})`);
    if (pages.count === 0) throw new BoltError(`page ${number}: a branch without children`);
    const page = Buffer.from(pages.buffer.subarray(pages.at, pages.at + pages.bytes));
    const { from, to } = (this.#branches.length === 0 ? this.#part : undefined) ?? { from: 0, to: pages.count };
    const branch: Branch = { page, number, count: pages.count, next: from, end: to, high };
    const first = branchKey(branch, 0);
    if (low.page && compareRanges(page, first.at, first.end, low.page, low.at, low.end) < 0) {
      throw new BoltError(`page ${number}: its first key is below its parent's`);
    }
    this.#branches.push(branch);
    this.#child(branch);
  }
}

function branchKey({ page, number }: Branch, i: number): Bound {
  const at = PAGE_HEADER_BYTES + i * ELEMENT_BYTES;
  const start = at + page.readUInt32LE(at);
  const end = start + page.readUInt32LE(at + 4);
  if (end > page.length) throw new BoltError(`page ${number}: an element reaches beyond the page`);
  return { page, at: start, end };
}

export interface BucketPlace {
  readonly name: string;
  /** Undefined: the bucket is inline, a page of its own in `inline`. */
  readonly root: number | undefined;
  readonly inline: Buffer | undefined;
}

/** The buckets of a file, in order. */
export function bucketPlaces(pages: BoltPages): BucketPlace[] {
  const places: BucketPlace[] = [];
  const walk = new LeafWalk(pages, pages.meta.root);
  while (walk.next()) {
    for (let i = 0; i < walk.count; i++) {
      const at = walk.at + PAGE_HEADER_BYTES + i * ELEMENT_BYTES;
      const keyAt = at + walk.buffer.readUInt32LE(at + 4);
      const valueAt = keyAt + walk.buffer.readUInt32LE(at + 8);
      const valueEnd = valueAt + walk.buffer.readUInt32LE(at + 12);
      if (valueEnd > walk.at + walk.bytes)
        throw new BoltError(`page ${walk.number}: an element reaches beyond the page`);
      const name = utf8Text(walk.buffer.subarray(keyAt, valueAt));
      if ((walk.buffer.readUInt32LE(at) & ELEMENT_IS_BUCKET) === 0) throw new BoltError(`"${name}" is not a bucket`);
      const value = Buffer.from(walk.buffer.subarray(valueAt, valueEnd));
      if (value.length < BUCKET_HEADER_BYTES) throw new BoltError(`bucket "${name}": its header is cut short`);
      const root = pageNumber(value.readBigUInt64LE(0));
      const inline = value.subarray(BUCKET_HEADER_BYTES);
      if (root === 0 && (inline.length < PAGE_HEADER_BYTES || inline.readUInt16LE(8) !== FLAG_LEAF)) {
        throw new BoltError(`bucket "${name}": its inline page is no leaf`);
      }
      places.push(root === 0 ? { name, root: undefined, inline } : { name, root, inline: undefined });
    }
  }
  return places;
}

const NO_VIEW = new DataView(new ArrayBuffer(0));

/** The rows of one bucket. */
export class BoltCursor extends RowCursor {
  readonly #walk: LeafWalk | undefined;
  readonly #pages: BoltPages;
  /** Of what the leaf lies in. */
  #view: DataView = NO_VIEW;
  #page = 0;
  #bytes = 0;
  #count = 0;
  #next = 0;
  #number = 0;

  constructor(pages: BoltPages, place: BucketPlace) {
    super();
    this.#pages = pages;
    if (place.root !== undefined) this.#walk = new LeafWalk(pages, place.root);
    else {
      const inline = place.inline as Buffer;
      this.keyIn = inline;
      this.#view = new DataView(inline.buffer, inline.byteOffset, inline.length);
      this.#bytes = inline.length;
      this.#count = inline.readUInt16LE(10);
    }
  }

  next(): boolean {
    while (this.#next === this.#count) {
      const walk = this.#walk;
      if (!walk?.next()) return false;
      this.keyIn = walk.buffer;
      this.#view = viewOf(walk.buffer);
      this.#page = walk.at;
      this.#bytes = walk.bytes;
      this.#count = walk.count;
      this.#number = walk.number;
      this.#next = 0;
    }
    const bytes = this.keyIn;
    const view = this.#view;
    const at = this.#page + PAGE_HEADER_BYTES + this.#next++ * ELEMENT_BYTES;
    // Other flags there are none, and bbolt does not look at them.
    if ((view.getUint32(at, true) & ELEMENT_IS_BUCKET) !== 0) {
      throw new BoltError(`page ${this.#number}: a bucket among the rows of a bucket`);
    }
    this.keyAt = at + view.getUint32(at + 4, true);
    this.keyEnd = this.keyAt + view.getUint32(at + 8, true);
    this.valueIn = bytes;
    this.valueAt = this.keyEnd;
    this.valueEnd = this.keyEnd + view.getUint32(at + 12, true);
    if (this.valueEnd > this.#page + this.#bytes) {
      throw new BoltError(`page ${this.#number}: an element reaches beyond the page`);
    }
    return true;
  }

  get bytesRead(): number {
    return this.#pages.file.bytesRead;
  }
}

/** What rows one behind the other come to; sums of neighbours can be joined. */
export interface RowSum {
  hash: number;
  /** Of what the hash is over. */
  bytes: number;
  totalKeys: number;
  /** Main revision of the last row of `key`; 0: none was among them. */
  revision: number;
}

const emptySum = (): RowSum => ({ hash: 0, bytes: 0, totalKeys: 0, revision: 0 });

export function joinSums(a: RowSum, b: RowSum): RowSum {
  return {
    hash: crc32cCombine(a.hash, b.hash, b.bytes),
    bytes: a.bytes + b.bytes,
    totalKeys: a.totalKeys + b.totalKeys,
    revision: b.revision || a.revision,
  };
}

export interface BoltSummary extends DatabaseSummary {
  readonly reachedPages: number;
  readonly buckets: number;
}

/**
 * Checks the whole file and sums it up in one pass. Undefined when anything at all is not as it should be: who wants to
 * know what asks the slower `BoltFile.check`. Not for files with a stored freelist.
 */
export function inspectBolt(pages: BoltPages, onProgress?: (bytesRead: number) => void): BoltSummary | undefined {
  return soundOnly(() => {
    const { before, buckets } = inspect(pages, onProgress);
    return { ...before, reachedPages: pages.reachedPages, buckets };
  });
}

/** How many children the root of `key` has: what a check can be divided by. 0: it is no branch, or the file is damaged. */
export function keyRootChildren(pages: BoltPages): { readonly root: number; readonly children: number } {
  const found = soundOnly(() => {
    const root = bucketPlaces(pages).find(({ name }) => name === "key")?.root;
    if (root === undefined) return undefined;
    pages.page(root);
    return { root, children: pages.flags === FLAG_BRANCH ? pages.count : 0 };
  });
  return found ?? { root: 0, children: 0 };
}

/** The two ends of a file whose `key` is walked elsewhere from child `splitAt` of its root on; else as inspectBolt. */
export function inspectEnds(
  pages: BoltPages,
  splitAt: number,
  onProgress?: (bytesRead: number) => void,
): { readonly before: RowSum; readonly after: RowSum; readonly buckets: number } | undefined {
  return soundOnly(() => inspect(pages, onProgress, splitAt));
}

/** What hangs below some children of the root of `key`. Its pages are counted, the root among them. */
export function inspectKeyPart(pages: BoltPages, root: number, part: RootPart): RowSum | undefined {
  return soundOnly(() => {
    const sum = emptySum();
    const walk = new LeafWalk(pages, root, part);
    while (walk.next()) sumLeaf(pages, walk, true, sum);
    return sum;
  });
}

function soundOnly<T>(run: () => T): T | undefined {
  try {
    return run();
  } catch (error) {
    if (error instanceof BoltError) return undefined;
    throw error;
  }
}

function inspect(pages: BoltPages, onProgress?: (bytesRead: number) => void, splitAt?: number) {
  const before = emptySum();
  const after = emptySum();
  let sum = before;
  const places = bucketPlaces(pages);
  for (const place of places) {
    const name = utf8Bytes(place.name);
    sum.hash = crc32c(name, sum.hash);
    sum.bytes += name.length;
    const isKey = place.name === "key";
    if (place.inline) {
      const { inline } = place;
      const leaf = { buffer: inline, at: 0, bytes: inline.length, count: inline.readUInt16LE(10) };
      sumLeaf(pages, { ...leaf, low: UNBOUNDED, high: UNBOUNDED }, isKey, sum);
      continue;
    }
    const part = isKey && splitAt !== undefined ? { from: 0, to: splitAt } : undefined;
    const walk = new LeafWalk(pages, place.root as number, part);
    while (walk.next()) {
      sumLeaf(pages, walk, isKey, sum);
      onProgress?.(pages.file.bytesRead);
    }
    if (part) sum = after;
  }
  return { before, after, buckets: places.length };
}

interface Leaf {
  readonly buffer: Buffer;
  readonly at: number;
  readonly bytes: number;
  readonly count: number;
  readonly low: Bound;
  readonly high: Bound;
}

/** Keys and values of a leaf usually lie one behind the other, so that they are summed as one. */
function sumLeaf({ file }: BoltPages, leaf: Leaf, isKey: boolean, total: RowSum): void {
  const { buffer, at: page, count, low, high } = leaf;
  const view = viewOf(buffer);
  const end = page + leaf.bytes;
  let { hash } = total;
  let runFrom = 0;
  let runTo = 0;
  let previousAt = 0;
  let previousEnd = 0;
  for (let i = 0; i < count; i++) {
    const at = page + PAGE_HEADER_BYTES + i * ELEMENT_BYTES;
    const keyAt = at + view.getUint32(at + 4, true);
    const keyEnd = keyAt + view.getUint32(at + 8, true);
    const valueEnd = keyEnd + view.getUint32(at + 12, true);
    if (valueEnd > end || view.getUint32(at, true) !== 0) throw new BoltError("an element that cannot be");
    if (i > 0) {
      if (compareRanges(buffer, previousAt, previousEnd, buffer, keyAt, keyEnd) >= 0) throw new BoltError("order");
    } else if (low.page && compareRanges(buffer, keyAt, keyEnd, low.page, low.at, low.end) < 0) {
      throw new BoltError("order");
    }
    previousAt = keyAt;
    previousEnd = keyEnd;
    if (keyAt !== runTo) {
      if (runTo > runFrom) hash = file.crc(buffer, runFrom, runTo - runFrom, hash);
      runFrom = keyAt;
    }
    total.bytes += valueEnd - keyAt;
    runTo = valueEnd;
    if (isKey && i === count - 1 && keyEnd - keyAt >= 8) total.revision = Number(buffer.readBigUInt64BE(keyAt));
  }
  if (count > 0 && high.page && compareRanges(buffer, previousAt, previousEnd, high.page, high.at, high.end) >= 0) {
    throw new BoltError("order");
  }
  if (runTo > runFrom) hash = file.crc(buffer, runFrom, runTo - runFrom, hash);
  total.hash = hash;
  total.totalKeys += count;
}
