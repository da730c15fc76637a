/**
 * The layout of a bbolt file, version 2, as etcd has it on every platform (little endian). Pages of equal size; 0 and 1
 * hold the two meta records, every other page is a branch, a leaf, the freelist, or the continuation of the one before.
 */
export const PAGE_HEADER_BYTES = 16;
export const ELEMENT_BYTES = 16;
export const META_BYTES = 64;
export const BUCKET_HEADER_BYTES = 16;

export const FLAG_BRANCH = 0x01;
export const FLAG_LEAF = 0x02;
export const FLAG_META = 0x04;
export const FLAG_FREELIST = 0x10;
/** Of a leaf element: its value is a bucket. */
export const ELEMENT_IS_BUCKET = 0x01;

export const MAGIC = 0xed0cdaed;
export const VERSION = 2;
/** In place of the freelist's page: the list is not stored. */
export const NO_FREELIST = 0xffffffffffffffffn;
export const FREELIST_COUNT_OVERFLOW = 0xffff;

/** A file that cannot be what it should be. The message alone is meant for the user. */
export class BoltError extends Error {
  override readonly name = "BoltError";
}

export interface Meta {
  readonly pageSizeBytes: number;
  readonly root: number;
  readonly freelist: number | undefined;
  /** Pages that were ever allocated: the first page number that is not. */
  readonly highWater: number;
  readonly transactionId: bigint;
}

const FNV_OFFSET = 0xcbf29ce484222325n;
const FNV_PRIME = 0x100000001b3n;

/** FNV-1a, 64 bits. Only ever over the 56 bytes of a meta record. */
export function fnv1a64(bytes: Uint8Array): bigint {
  let hash = FNV_OFFSET;
  for (const byte of bytes) hash = ((hash ^ BigInt(byte)) * FNV_PRIME) & 0xffffffffffffffffn;
  return hash;
}

/** Page numbers of a file that exists are far below 2^53; what is not is told from the sound by one comparison. */
export function pageNumber(value: bigint): number {
  return value > BigInt(Number.MAX_SAFE_INTEGER) ? Number.POSITIVE_INFINITY : Number(value);
}

/** Reads the 64 bytes of a meta record. The text of a refusal is bbolt's. */
export function decodeMeta(record: Buffer): Meta | { readonly refusal: string } {
  if (record.length < META_BYTES) return { refusal: "invalid database" };
  if (record.readUInt32LE(0) !== MAGIC) return { refusal: "invalid database" };
  if (record.readUInt32LE(4) !== VERSION) return { refusal: "version mismatch" };
  if (record.readBigUInt64LE(56) !== fnv1a64(record.subarray(0, 56))) return { refusal: "checksum error" };
  const freelist = record.readBigUInt64LE(32);
  return {
    pageSizeBytes: record.readUInt32LE(8),
    root: pageNumber(record.readBigUInt64LE(16)),
    freelist: freelist === NO_FREELIST ? undefined : pageNumber(freelist),
    highWater: pageNumber(record.readBigUInt64LE(40)),
    transactionId: record.readBigUInt64LE(48),
  };
}

/** A whole meta page. */
export function encodeMetaPage(
  page: number,
  meta: {
    readonly pageSizeBytes: number;
    readonly root: number;
    readonly freelist: number | undefined;
    readonly highWater: number;
    readonly transactionId: bigint;
  },
): Buffer {
  const bytes = Buffer.alloc(meta.pageSizeBytes);
  bytes.writeBigUInt64LE(BigInt(page), 0);
  bytes.writeUInt16LE(FLAG_META, 8);
  const record = bytes.subarray(PAGE_HEADER_BYTES, PAGE_HEADER_BYTES + META_BYTES);
  record.writeUInt32LE(MAGIC, 0);
  record.writeUInt32LE(VERSION, 4);
  record.writeUInt32LE(meta.pageSizeBytes, 8);
  record.writeBigUInt64LE(BigInt(meta.root), 16);
  record.writeBigUInt64LE(meta.freelist === undefined ? NO_FREELIST : BigInt(meta.freelist), 32);
  record.writeBigUInt64LE(BigInt(meta.highWater), 40);
  record.writeBigUInt64LE(meta.transactionId, 48);
  record.writeBigUInt64LE(fnv1a64(record.subarray(0, 56)), 56);
  return bytes;
}
