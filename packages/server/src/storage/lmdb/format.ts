/**
 * The layout of our LMDB files, as the `lmdb` library writes them on 64-bit little-endian machines: pages of equal
 * size; 0 and 1 hold the two meta records, and every other page is a branch, a leaf, the first of a run that holds one
 * long value, the continuation of such a run, or free. Offsets inside a page count from behind its header.
 *
 *     page   number u64 | transaction u64 | pad u16 | flags u16 | lower u16, upper u16 (a run: pages u32)
 *     node   size or child, low 32 bits | flags u16, of a branch the child's top 16 bits | key length u16 | key | value
 *     tree   pad u32 | flags u16 | depth u16 | branch, leaf, overflow pages u64 | entries u64 | root u64
 *     meta   magic u32 | version u32 | address u64 | map size u64 | tree of free pages | tree of names |
 *            last page u64 | transaction u64 | boot id u64
 */
export const PAGE_HEADER_BYTES = 24;
export const META_BYTES = 144;
export const NODE_HEADER_BYTES = 8;
export const TREE_BYTES = 48;
/** In place of a long value: page u64, transaction u64, pages u64. */
export const LONG_VALUE_BYTES = 24;

export const PAGE_BRANCH = 0x01;
export const PAGE_LEAF = 0x02;
export const PAGE_OVERFLOW = 0x04;
export const PAGE_META = 0x08;

export const NODE_LONG = 0x01;
export const NODE_TREE = 0x02;

export const MAGIC = 0xbeefc0de;
export const VERSION = 2;
export const NO_PAGE = 0xffff_ffff_ffff_ffffn;
export const PAGE_BYTES_MIN = 512;
export const PAGE_BYTES_MAX = 65_536;

/** A file that cannot be what it should be, or a page or row of it. */
export class LmdbFileError extends Error {
  override readonly name = "LmdbFileError";
}

/** What a tree says of itself. */
export interface TreeRecord {
  readonly pad: number;
  readonly flags: number;
  readonly depth: number;
  readonly branchPages: number;
  readonly leafPages: number;
  readonly overflowPages: number;
  readonly entries: number;
  /** Undefined: an empty tree. */
  readonly root: number | undefined;
}

export interface LmdbMeta {
  readonly magic: number;
  readonly version: number;
  readonly address: bigint;
  readonly mapSize: bigint;
  readonly free: TreeRecord;
  readonly names: TreeRecord;
  readonly lastPage: number;
  readonly transaction: number;
}

/** Numbers of a sound file are far below 2^53; others become infinite and fail every comparison with a bound. */
function counter(bytes: Buffer, at: number): number {
  const value = bytes.readBigUInt64LE(at);
  return value > BigInt(Number.MAX_SAFE_INTEGER) ? Number.POSITIVE_INFINITY : Number(value);
}

export function decodeTree(bytes: Buffer, at: number): TreeRecord {
  return {
    pad: bytes.readUInt32LE(at),
    flags: bytes.readUInt16LE(at + 4),
    depth: bytes.readUInt16LE(at + 6),
    branchPages: counter(bytes, at + 8),
    leafPages: counter(bytes, at + 16),
    overflowPages: counter(bytes, at + 24),
    entries: counter(bytes, at + 32),
    root: bytes.readBigUInt64LE(at + 40) === NO_PAGE ? undefined : counter(bytes, at + 40),
  };
}

export function encodeTree(tree: TreeRecord): Buffer {
  const bytes = Buffer.alloc(TREE_BYTES);
  bytes.writeUInt32LE(tree.pad, 0);
  bytes.writeUInt16LE(tree.flags, 4);
  bytes.writeUInt16LE(tree.depth, 6);
  bytes.writeBigUInt64LE(BigInt(tree.branchPages), 8);
  bytes.writeBigUInt64LE(BigInt(tree.leafPages), 16);
  bytes.writeBigUInt64LE(BigInt(tree.overflowPages), 24);
  bytes.writeBigUInt64LE(BigInt(tree.entries), 32);
  bytes.writeBigUInt64LE(tree.root === undefined ? NO_PAGE : BigInt(tree.root), 40);
  return bytes;
}

export const EMPTY_TREE: TreeRecord = {
  pad: 0,
  flags: 0,
  depth: 0,
  branchPages: 0,
  leafPages: 0,
  overflowPages: 0,
  entries: 0,
  root: undefined,
};

/** The record that begins behind the header of a meta page. */
export function decodeLmdbMeta(page: Buffer): LmdbMeta {
  const at = PAGE_HEADER_BYTES;
  return {
    magic: page.readUInt32LE(at),
    version: page.readUInt32LE(at + 4),
    address: page.readBigUInt64LE(at + 8),
    mapSize: page.readBigUInt64LE(at + 16),
    free: decodeTree(page, at + 24),
    names: decodeTree(page, at + 24 + TREE_BYTES),
    lastPage: counter(page, at + 120),
    transaction: counter(page, at + 128),
  };
}

export function encodeLmdbMetaPage(number: number, pageBytes: number, meta: LmdbMeta): Buffer {
  const page = Buffer.alloc(pageBytes);
  page.writeUInt32LE(number, 0);
  page.writeUInt16LE(PAGE_META, 18);
  const at = PAGE_HEADER_BYTES;
  page.writeUInt32LE(meta.magic, at);
  page.writeUInt32LE(meta.version, at + 4);
  page.writeBigUInt64LE(meta.address, at + 8);
  page.writeBigUInt64LE(meta.mapSize, at + 16);
  page.set(encodeTree(meta.free), at + 24);
  page.set(encodeTree(meta.names), at + 24 + TREE_BYTES);
  page.writeBigUInt64LE(BigInt(meta.lastPage), at + 120);
  page.writeBigUInt64LE(BigInt(meta.transaction), at + 128);
  return page;
}

/** Pages that a long value takes. */
export const pagesOfValue = (bytes: number, pageBytes: number): number =>
  Math.floor((PAGE_HEADER_BYTES - 1 + bytes) / pageBytes) + 1;

/** The largest node that stays in its leaf. */
export const nodeBytesMax = (pageBytes: number): number => (((pageBytes - PAGE_HEADER_BYTES) >> 1) & -2) - 2;
