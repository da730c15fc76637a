/**
 * Keys of the `key` table, etcd's bytes: 8 bytes big endian main, `_`, 8 bytes big endian sub; a deletion (tombstone)
 * has `t` behind it. So the table's order is that of history.
 */

/** One change: the main revision of its transaction, and its place inside it, from 0. */
export interface Revision {
  readonly main: number;
  readonly sub: number;
}

export const REVISION_BYTES = 17;
export const TOMBSTONE_REVISION_BYTES = 18;

const SEPARATOR = 0x5f;
const TOMBSTONE = 0x74;

/** Writes 8 bytes big endian; `value` is an integer, 0 to 2^53 - 1. */
export function writeCounter(into: Uint8Array, offset: number, value: number): void {
  let high = Math.floor(value / 0x1_0000_0000);
  let low = value >>> 0;
  for (let i = 7; i >= 4; i--) {
    into[offset + i] = low & 0xff;
    low >>>= 8;
  }
  for (let i = 3; i >= 0; i--) {
    into[offset + i] = high & 0xff;
    high >>>= 8;
  }
}

/** Reads 8 bytes big endian. Throws RangeError above 2^53 - 1. */
export function readCounter(bytes: Uint8Array, offset: number): number {
  const b = bytes as { readonly [i: number]: number };
  const high =
    (((b[offset] as number) << 24) |
      ((b[offset + 1] as number) << 16) |
      ((b[offset + 2] as number) << 8) |
      (b[offset + 3] as number)) >>>
    0;
  const low =
    (((b[offset + 4] as number) << 24) |
      ((b[offset + 5] as number) << 16) |
      ((b[offset + 6] as number) << 8) |
      (b[offset + 7] as number)) >>>
    0;
  if (high > 0x1f_ffff) throw new RangeError("counter is no safe integer");
  return high * 0x1_0000_0000 + low;
}

/** The key of a put's row. */
export function revisionKey(main: number, sub: number): Buffer {
  const key = Buffer.allocUnsafe(REVISION_BYTES);
  writeRevisionKey(key, main, sub);
  return key;
}

/** The same into 17 bytes of the caller's. */
export function writeRevisionKey(into: Uint8Array, main: number, sub: number, at = 0): void {
  writeCounter(into, at, main);
  into[at + 8] = SEPARATOR;
  writeCounter(into, at + 9, sub);
}

/** The key of a deletion's row. */
export function tombstoneKey(main: number, sub: number): Buffer {
  const key = Buffer.allocUnsafe(TOMBSTONE_REVISION_BYTES);
  writeRevisionKey(key, main, sub);
  key[REVISION_BYTES] = TOMBSTONE;
  return key;
}

export function isTombstoneKey(key: Uint8Array): boolean {
  return key.length === TOMBSTONE_REVISION_BYTES && key[REVISION_BYTES] === TOMBSTONE;
}

export function mainOfRevisionKey(key: Uint8Array): number {
  return readCounter(key, 0);
}

export function subOfRevisionKey(key: Uint8Array): number {
  return readCounter(key, 9);
}
