/**
 * Checksums of rows. LMDB has none, so a bit that a disk turns would be served as data. The rows of etcd's own buckets
 * therefore carry the CRC-32C of key and value, four bytes little endian, behind the value. Rows of the index tables
 * carry none: they follow from `key`, and `etcdutl verify` compares them with it.
 * Reads that serve requests do not look at them; exports, `etcdutl verify` and what else copies rows do.
 *
 * A file that has such rows says so by a database named {@link SUMS_MARK}; one that was made before there were
 * checksums has none, and none are added until it is rewritten by a defragmentation or a migration.
 */
import { crc32c } from "../../lib/crc32c.ts";
import { BUCKETS, type Table } from "./types.ts";

export const SUM_BYTES = 4;
export const SUMS_MARK = "sums";

const summed: ReadonlySet<Table> = new Set(BUCKETS);

/** Bytes of checksum behind the values of a table. */
export function sumBytesOf(table: Table, hasSums: boolean): number {
  return hasSums && summed.has(table) ? SUM_BYTES : 0;
}

export function rowSum(key: Uint8Array, value: Uint8Array): number {
  return crc32c(value, crc32c(key));
}

/** The value as it is stored: with its checksum behind it. */
export function withSum(key: Uint8Array, value: Uint8Array): Buffer {
  const stored = Buffer.allocUnsafeSlow(value.length + SUM_BYTES);
  stored.set(value);
  stored.writeUInt32LE(rowSum(key, value), value.length);
  return stored;
}

/** Whether the checksum behind a stored value fits. */
export function hasRightSum(key: Uint8Array, stored: Uint8Array): boolean {
  const length = stored.length - SUM_BYTES;
  if (length < 0) return false;
  const sum = new DataView(stored.buffer, stored.byteOffset + length, SUM_BYTES).getUint32(0, true);
  return sum === rowSum(key, stored.subarray(0, length));
}
