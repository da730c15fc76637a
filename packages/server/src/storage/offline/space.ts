/**
 * How much disk a database takes that is written anew, before it is: what some of the pages of the old one would become.
 * An estimate, as only the writing itself could tell; should it be too low, the command fails on the full disk and takes
 * away what it had begun.
 */
import fs from "node:fs";
import path from "node:path";
import { humanBytes } from "../../lib/go-format.ts";
import { sumBytesOf } from "../backend/sums.ts";
import { ELEMENT_BYTES, FLAG_LEAF, PAGE_HEADER_BYTES as BOLT_HEADER_BYTES, ELEMENT_IS_BUCKET } from "../bolt/format.ts";
import {
  NODE_HEADER_BYTES,
  NODE_LONG,
  nodeBytesMax,
  PAGE_HEADER_BYTES as LMDB_HEADER_BYTES,
  PAGE_LEAF,
  pagesOfValue,
} from "../lmdb/format.ts";
import { LmdbFile } from "../lmdb/walk.ts";
import { REVISION_BYTES, TOMBSTONE_REVISION_BYTES } from "../schema/revision.ts";
import { OfflineError } from "./errors.ts";
import type { JobOptions } from "./job.ts";
import type { BackendKind } from "./member-dir.ts";
import { boltMeta, isDamage } from "./store.ts";

const SAMPLES = 192;
const PAGE_BYTES = 4096;
/** Branches, the root, the small buckets, a log and a snapshot. */
const MARGIN = 1.02;
const MARGIN_BYTES = 128 * 1024;
/** Of a row in `live` or `past`, and of its record on the way there, beside the user key. */
const INDEX_ROW_BYTES = 45;
const SORT_ROW_BYTES = 52;

function freeBytesOf(dir: string): number | undefined {
  try {
    const { bavail, bsize } = fs.statfsSync(dir);
    return bavail * bsize;
  } catch {
    // It will be said by the attempt to write there, and in better words.
    return undefined;
  }
}

/** Refuses to begin what cannot end. `dir`, or the nearest of its parents that exists, says which disk it is. */
export function requireSpace(dir: string, neededBytes: number, options: JobOptions): void {
  let nearest = path.resolve(dir);
  while (!fs.existsSync(nearest)) nearest = path.dirname(nearest);
  const free = (options.freeBytes ?? freeBytesOf)(nearest);
  if (free === undefined || free >= neededBytes) return;
  throw new OfflineError(
    `not enough space on the disk of ${dir}: ${humanBytes(neededBytes)} are needed, ${humanBytes(free)} are free`,
  );
}

/** The lengths of a row of `key`. */
interface RowLengths {
  readonly key: number;
  readonly value: number;
  readonly userKey: number;
}

/** What the new file is made of, counted as its writer would. */
class Packing {
  /** Of whole pages. */
  bytes = 0;
  readonly #to: BackendKind;
  readonly #leafBytes: number;
  #open = 0;

  constructor(to: BackendKind, fill: number) {
    this.#to = to;
    this.#leafBytes =
      to === "bbolt" ? Math.floor(fill * PAGE_BYTES) - BOLT_HEADER_BYTES : PAGE_BYTES - LMDB_HEADER_BYTES;
  }

  add({ key, value, userKey }: RowLengths): void {
    if (this.#to === "bbolt") this.#take(ELEMENT_BYTES + key + value);
    else {
      this.bytes += 2 * userKey + INDEX_ROW_BYTES + SORT_ROW_BYTES;
      const stored = value + sumBytesOf("key", true);
      const node = NODE_HEADER_BYTES + key + stored;
      if (node <= nodeBytesMax(PAGE_BYTES)) this.#take(node + 2);
      else {
        this.bytes += pagesOfValue(stored, PAGE_BYTES) * PAGE_BYTES;
        this.#take(NODE_HEADER_BYTES + key + 26);
      }
    }
  }

  #take(bytes: number): void {
    if (this.#open + bytes > this.#leafBytes) this.finish();
    this.#open += bytes;
  }

  /** Closes the leaf that is being filled; of a bbolt file, one may have more than a page. */
  finish(): void {
    if (this.#open > 0)
      this.bytes += Math.max(1, Math.ceil((this.#open + BOLT_HEADER_BYTES) / PAGE_BYTES)) * PAGE_BYTES;
    this.#open = 0;
  }
}

/** The rows of `key` on a page of either kind; undefined: it has none, and becomes what it is now. */
type PageReader = (page: Buffer, number: number) => RowLengths[] | "other" | undefined;

const isRevision = (page: Buffer, at: number, length: number): boolean =>
  (length === REVISION_BYTES || length === TOMBSTONE_REVISION_BYTES) && page[at + 8] === 0x5f;

/** A KeyValue begins with the user key; what is no such thing counts as one of 32 bytes. */
function userKeyLength(page: Buffer, at: number, end: number): number {
  if (page[at] !== 0x0a) return 0;
  let length = 0;
  for (let i = at + 1, shift = 1; i < end && shift <= 2 ** 21; i++, shift *= 128) {
    const byte = page[i] as number;
    length += (byte & 0x7f) * shift;
    if (byte < 128) return length;
  }
  return 32;
}

const boltPage: PageReader = (page, number) => {
  if (page.readUInt32LE(0) !== number % 2 ** 32 || page.readUInt16LE(8) !== FLAG_LEAF) return undefined;
  const rows: RowLengths[] = [];
  const count = page.readUInt16LE(10);
  const isLong = page.readUInt32LE(12) > 0;
  for (let i = 0; i < count; i++) {
    const at = BOLT_HEADER_BYTES + i * ELEMENT_BYTES;
    if (at + ELEMENT_BYTES > page.length) break;
    const keyAt = at + page.readUInt32LE(at + 4);
    const [key, value] = [page.readUInt32LE(at + 8), page.readUInt32LE(at + 12)];
    if ((page.readUInt32LE(at) & ELEMENT_IS_BUCKET) !== 0 || keyAt + key >= page.length) return undefined;
    if (!isRevision(page, keyAt, key)) return undefined;
    // Of a value that goes on in other pages, those pages are met by themselves.
    const here = Math.min(value, page.length - keyAt - key);
    rows.push({ key, value: isLong ? here : value, userKey: userKeyLength(page, keyAt + key, page.length) });
  }
  return rows;
};

const lmdbPage: PageReader = (page, number) => {
  if (page.readUInt32LE(0) !== number % 2 ** 32 || page.readUInt16LE(18) !== PAGE_LEAF) return undefined;
  const rows: RowLengths[] = [];
  const count = page.readUInt16LE(20) / 2;
  for (let i = 0; i < count; i++) {
    if (LMDB_HEADER_BYTES + 2 * i + 2 > page.length) return "other";
    const node = LMDB_HEADER_BYTES + page.readUInt16LE(LMDB_HEADER_BYTES + 2 * i);
    if (node + NODE_HEADER_BYTES + REVISION_BYTES > page.length) return "other";
    const key = page.readUInt16LE(node + 6);
    // Rows of the index tables, which are not taken along.
    if (!isRevision(page, node + NODE_HEADER_BYTES, key)) return "other";
    const isLong = (page.readUInt16LE(node + 4) & NODE_LONG) !== 0;
    rows.push({ key, value: isLong ? 0 : page.readUInt32LE(node), userKey: 0 });
  }
  return rows;
};

export interface Rewrite {
  readonly path: string;
  readonly from: BackendKind;
  readonly to: BackendKind;
  /** Of the new bbolt pages. */
  readonly fill?: number | undefined;
  /** Bytes of the old file that are in use, where that is known; otherwise all of them. */
  readonly usedBytes?: number | undefined;
}

/** Bytes that writing the database anew takes on the disk while it goes on. What is damaged counts as it is. */
export function bytesToWrite(rewrite: Rewrite): number {
  try {
    return estimate(rewrite);
  } catch (error) {
    if (!isDamage(error)) throw error;
    return fs.statSync(rewrite.path).size;
  }
}

function estimate({ path: file, from, to, fill = 1, usedBytes }: Rewrite): number {
  const { pageBytes, pages, used } = from === "bbolt" ? boltPages(file) : lmdbPages(file);
  const packing = new Packing(to, fill);
  let read = 0;
  let kept = 0;
  const fd = fs.openSync(file, "r");
  try {
    const page = Buffer.alloc(pageBytes);
    const step = Math.max(1, pages / SAMPLES);
    for (let at = 2; at < pages; at += step) {
      const number = Math.floor(at);
      if (fs.readSync(fd, page, 0, pageBytes, number * pageBytes) < pageBytes) break;
      const rows = (from === "bbolt" ? boltPage : lmdbPage)(page, number);
      if (rows === "other") continue;
      read += pageBytes;
      if (rows === undefined || rows.length === 0) kept += pageBytes;
      else for (const row of rows) packing.add(row);
    }
  } finally {
    fs.closeSync(fd);
  }
  packing.finish();
  const factor = read === 0 ? 1 : (kept + packing.bytes) / read;
  return Math.ceil((usedBytes ?? used) * factor * MARGIN) + MARGIN_BYTES;
}

function boltPages(file: string) {
  const { pageSizeBytes, highWater } = boltMeta(file);
  return { pageBytes: pageSizeBytes, pages: highWater, used: highWater * pageSizeBytes };
}

const INDEX_TABLES: ReadonlySet<string> = new Set(["live", "past", "leased"]);

function lmdbPages(file: string) {
  const lmdb = new LmdbFile(file);
  try {
    let used = 2;
    for (const [name, tree] of lmdb.tables) {
      if (!INDEX_TABLES.has(name)) used += tree.branchPages + tree.leafPages + tree.overflowPages;
    }
    return { pageBytes: lmdb.pageBytes, pages: lmdb.meta.lastPage + 1, used: used * lmdb.pageBytes };
  } finally {
    lmdb.close();
  }
}
