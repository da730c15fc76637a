/**
 * A look at an LMDB file before LMDB maps it. LMDB trusts its file: it follows page numbers through the mapping, and
 * where the file has been cut short or is something else the process is killed by a signal, without a word. So the
 * two meta pages are read here, and a file that ends before its last page has its trees walked. (The latter is legal
 * as long as only free pages are missing: LMDB does not write pages that a commit took and gave back.)
 *
 * Only for a file that nobody writes: a commit under the walk would reuse the pages that it is reading.
 */
import fs from "node:fs";

const MAGIC = 0xbeefc0de;
const VERSION = 2;
const PAGE_HEADER_BYTES = 24;
const META_BYTES = PAGE_HEADER_BYTES + 144;
const PAGE_BYTES_MIN = 512;
const PAGE_BYTES_MAX = 65_536;
const NO_PAGE = 0xffff_ffff_ffff_ffffn;

const PAGE_BRANCH = 0x01;
const PAGE_LEAF = 0x02;
const PAGE_META = 0x08;

const NODE_HEADER_BYTES = 8;
const NODE_OVERFLOW = 0x01;
const NODE_TREE = 0x02;
/** Within the record of a tree. */
const TREE_ROOT_OFFSET = 40;
const TREE_BYTES = 48;

interface Meta {
  readonly pageBytes: number;
  readonly roots: readonly bigint[];
  readonly lastPage: bigint;
  readonly transaction: bigint;
}

function readAt(fd: number, bytes: number, position: number): Buffer {
  const buffer = Buffer.alloc(bytes);
  let length = 0;
  while (length < bytes) {
    const count = fs.readSync(fd, buffer, length, bytes - length, position + length);
    if (count === 0) break;
    length += count;
  }
  return buffer.subarray(0, length);
}

function readMeta(fd: number, position: number): Meta | undefined {
  const page = readAt(fd, META_BYTES, position);
  if (page.length < META_BYTES || (page.readUInt16LE(18) & PAGE_META) === 0) return undefined;
  const meta = page.subarray(PAGE_HEADER_BYTES);
  if (meta.readUInt32LE(0) !== MAGIC || meta.readUInt32LE(4) !== VERSION) return undefined;
  const pageBytes = meta.readUInt32LE(24);
  if (pageBytes < PAGE_BYTES_MIN || pageBytes > PAGE_BYTES_MAX) return undefined;
  return {
    pageBytes,
    roots: [meta.readBigUInt64LE(24 + TREE_ROOT_OFFSET), meta.readBigUInt64LE(24 + TREE_BYTES + TREE_ROOT_OFFSET)],
    lastPage: meta.readBigUInt64LE(120),
    transaction: meta.readBigUInt64LE(128),
  };
}

/** The pages that a page of a tree refers to; undefined when it is no such page. */
function childrenOf(page: Buffer, number: bigint): bigint[] | undefined {
  const isLeaf = (page.readUInt16LE(18) & PAGE_LEAF) !== 0;
  const isBranch = (page.readUInt16LE(18) & PAGE_BRANCH) !== 0;
  const lower = page.readUInt16LE(20);
  if (page.readBigUInt64LE(0) !== number || isLeaf === isBranch || PAGE_HEADER_BYTES + lower > page.length) {
    return undefined;
  }
  const children: bigint[] = [];
  for (let at = PAGE_HEADER_BYTES; at < PAGE_HEADER_BYTES + lower; at += 2) {
    const node = PAGE_HEADER_BYTES + page.readUInt16LE(at);
    if (node + NODE_HEADER_BYTES > page.length) return undefined;
    const flags = page.readUInt16LE(node + 4);
    if (isBranch) {
      children.push(BigInt(page.readUInt32LE(node)) | (BigInt(flags) << 32n));
      continue;
    }
    const data = node + NODE_HEADER_BYTES + page.readUInt16LE(node + 6);
    const root = flags & NODE_OVERFLOW ? data : flags & NODE_TREE ? data + TREE_ROOT_OFFSET : undefined;
    if (root === undefined) continue;
    if (root + 8 > page.length) return undefined;
    children.push(page.readBigUInt64LE(root));
  }
  return children;
}

/** Throws unless every page that the trees refer to is in the file. */
function walk(fd: number, file: string, meta: Meta, fileBytes: number): void {
  const waiting = meta.roots.filter((root) => root !== NO_PAGE);
  for (let number = waiting.pop(); number !== undefined; number = waiting.pop()) {
    const position = Number(number) * meta.pageBytes;
    if (position + meta.pageBytes > fileBytes) {
      throw new Error(`backend file ${file} is truncated: it has ${fileBytes} bytes, and page ${number} is missing`);
    }
    const page = readAt(fd, meta.pageBytes, position);
    const flags = page.readUInt16LE(18);
    if (flags & (PAGE_BRANCH | PAGE_LEAF)) {
      const children = childrenOf(page, number);
      if (!children) throw new Error(`backend file ${file} is corrupt: page ${number} cannot be read`);
      for (const child of children) if (child !== NO_PAGE) waiting.push(child);
      continue;
    }
    // A long value: pages in a row, their number in the header of the first.
    const end = position + page.readUInt32LE(20) * meta.pageBytes;
    if (page.readBigUInt64LE(0) !== number) {
      throw new Error(`backend file ${file} is corrupt: page ${number} cannot be read`);
    }
    if (end > fileBytes) {
      throw new Error(`backend file ${file} is truncated: it has ${fileBytes} bytes, and needs ${end}`);
    }
  }
}

/** LMDB's own lock file; one that cannot be opened kills the process too. Not opened here: closing it would drop locks. */
function verifyLockFile(file: string): void {
  try {
    if (!fs.statSync(file).isFile()) throw new Error("not a regular file");
    fs.accessSync(file, fs.constants.R_OK | fs.constants.W_OK);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return;
    throw new Error(`cannot use the backend's lock file ${file}: ${(error as Error).message}`, { cause: error });
  }
}

/** Throws when the file is there, not empty, and LMDB could not be trusted with it. */
export function verifyBackendFile(file: string): void {
  verifyLockFile(`${file}-lock`);
  let fd: number;
  try {
    fd = fs.openSync(file, "r");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return;
    throw error;
  }
  try {
    const stat = fs.fstatSync(fd);
    if (!stat.isFile()) throw new Error(`backend file ${file} is not a regular file`);
    const fileBytes = stat.size;
    if (fileBytes === 0) return;
    const first = readMeta(fd, 0);
    const second = first && readMeta(fd, first.pageBytes);
    if (!first || !second) throw new Error(`backend file ${file} is not an LMDB file, or its head is damaged`);
    const newest = second.transaction > first.transaction ? second : first;
    if ((Number(newest.lastPage) + 1) * newest.pageBytes > fileBytes) walk(fd, file, newest, fileBytes);
  } finally {
    fs.closeSync(fd);
  }
}
