/**
 * Rows of the index tables, which stand where etcd has an in-memory tree. Everything in them follows from the `key`
 * table, so they are rebuilt rather than exported; offline tools do that with {@link indexKeyRow}.
 *
 *   live    user key                                 -> where the newest put is, and its numbers
 *   past    user key (escaped), end mark, revision   -> main revision that superseded it; empty for a tombstone
 *   leased  lease id, live row key                   -> empty
 *
 *   history of k:  put@5   put@7   delete@9   put@12
 *     past:        k 5->7  k 7->9  k 9 (tombstone)
 *     live:                                   k -> 12
 *
 * A key was visible at revision N by the past row with main <= N < superseding main, or by its live row when main <= N.
 *
 * Long keys. LMDB's keys end at 1,978 bytes and etcd's may have 1.5 MB. A key above {@link SHORT_KEY_BYTES_MAX} is
 * stored under its first bytes followed by the SHA-256 of the whole: all long keys with the same beginning stand together, at
 * the right place among the short ones, but among themselves in the order of their hashes. Who walks the table sorts
 * such a group by the whole keys, which are in the `key` rows.
 *
 * `past` needs keys of different lengths to sort as the keys do although a revision follows. So 0x00 is escaped as
 * 0x00 0xff, and the key ends with 0x00 0x01, or with 0x00 0x02 and the hash when it is long.
 */
import { createHash } from "node:crypto";
import { copyInto, EMPTY_BYTES } from "../../lib/bytes.ts";
import { keyOfKeyValue, readKeyValue } from "./key-value.ts";
import { isTombstoneKey, mainOfRevisionKey, readCounter, subOfRevisionKey, writeCounter } from "./revision.ts";
import { VarintCursor, varintLength, writeVarint } from "./varint.ts";

const HASH_BYTES = 32;

/**
 * Bytes. A longer user key is represented by a prefix of this length and a hash in `live`. Leaves room for the hash, for
 * the lease id of `leased`, and for a byte that bounds a group, within LMDB's 1,978.
 */
export const SHORT_KEY_BYTES_MAX = 1_936;

/** Bytes of the escaped key in `past`: with its end mark, the hash and the revision it stays within LMDB's 1,978. */
const ESCAPED_KEY_BYTES_MAX = 1_920;

const PAST_REVISION_BYTES = 16;
const END_SHORT = 0x01;
const END_LONG = 0x02;

function hashOf(userKey: Uint8Array): Buffer {
  return createHash("sha256").update(userKey).digest();
}

// ---------------------------------------------------------------------------------------------------------- live

/** The row key of a user key in `live`. Short keys are themselves: the result may be the argument. */
export function liveKey(userKey: Uint8Array): Uint8Array {
  if (userKey.length <= SHORT_KEY_BYTES_MAX) return userKey;
  return Buffer.concat([userKey.subarray(0, SHORT_KEY_BYTES_MAX), hashOf(userKey)]);
}

/** Whether a row of `live` stands for a long key, so that its user key has to be read from the `key` row. */
export function isLongLiveKey(rowKey: Uint8Array): boolean {
  return rowKey.length > SHORT_KEY_BYTES_MAX;
}

/** Where the group of a long key begins in `live`: behind the short key that is its prefix. */
export function liveGroupStart(longKey: Uint8Array): Uint8Array {
  const bound = Buffer.alloc(SHORT_KEY_BYTES_MAX + 1);
  bound.set(longKey.subarray(0, SHORT_KEY_BYTES_MAX));
  return bound;
}

/** Behind the last row of the group of a long key in `live`, and before whatever follows. */
export function liveGroupEnd(longKey: Uint8Array): Uint8Array {
  const bound = Buffer.alloc(SHORT_KEY_BYTES_MAX + HASH_BYTES + 1, 0xff);
  bound.set(longKey.subarray(0, SHORT_KEY_BYTES_MAX));
  return bound;
}

/** Which group of long keys a user key or a row key of `live` belongs to; both arguments are long. */
export function isSameLiveGroup(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a.subarray(0, SHORT_KEY_BYTES_MAX), b.subarray(0, SHORT_KEY_BYTES_MAX)) === 0;
}

/** What `live` knows of a key: its newest put. */
export interface LiveRow {
  readonly main: number;
  readonly sub: number;
  readonly createRevision: number;
  readonly version: number;
  readonly lease: bigint;
  /** The stored KeyValue, a view of the row, when it is kept here as well. */
  readonly inline: Uint8Array | undefined;
}

const FLAG_LEASE = 1;
const FLAG_INLINE = 2;

/** main, sub, main - create, version as varints after a byte of flags; then 8 bytes of lease id if there is one. */
export function encodeLiveRow(row: Omit<LiveRow, "inline">): Buffer {
  const into = Buffer.allocUnsafe(liveRowLength(row));
  writeLiveRow(into, 0, row);
  return into;
}

function liveRowLength(row: Omit<LiveRow, "inline">): number {
  return (
    1 +
    varintLength(row.main) +
    varintLength(row.sub) +
    varintLength(row.main - row.createRevision) +
    varintLength(row.version) +
    (row.lease !== 0n ? 8 : 0)
  );
}

/** Writes what {@link encodeLiveRow} makes at `offset`, and returns where it ends. */
export function writeLiveRow(into: Uint8Array, offset: number, row: Omit<LiveRow, "inline">): number {
  const hasLease = row.lease !== 0n;
  into[offset] = hasLease ? FLAG_LEASE : 0;
  let at = writeVarint(into, offset + 1, row.main);
  at = writeVarint(into, at, row.sub);
  at = writeVarint(into, at, row.main - row.createRevision);
  at = writeVarint(into, at, row.version);
  if (!hasLease) return at;
  new DataView(into.buffer, into.byteOffset + at, 8).setBigInt64(0, row.lease);
  return at + 8;
}

/** The other form: the whole KeyValue, so that a range finds it without a second look-up. */
export function encodeInlineLiveRow(sub: number, keyValue: Uint8Array): Buffer {
  const subBytes = varintLength(sub);
  const into = Buffer.allocUnsafe(1 + subBytes + keyValue.length);
  into[0] = FLAG_INLINE;
  writeVarint(into, 1, sub);
  into.set(keyValue, 1 + subBytes);
  return into;
}

/** The stored KeyValue of a row that keeps it, a view of the row, without a look at its numbers. */
export function inlineOfLiveRow(row: Uint8Array): Uint8Array | undefined {
  if (((row[0] as number) & FLAG_INLINE) === 0) return undefined;
  let at = 1;
  while ((row[at] as number) >= 0x80) at++;
  return row.subarray(at + 1);
}

/** Where the newest put is, of a row that does not keep it: no more is read, and nothing made. */
export function readLiveRevision(row: Uint8Array, into: { main: number; sub: number }): void {
  let at = 1;
  for (const part of ["main", "sub"] as const) {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = row[at++] as number;
      value += (byte & 0x7f) * scale;
      if (!(byte >= 0x80)) break;
    }
    into[part] = value;
  }
}

export function decodeLiveRow(value: Uint8Array): LiveRow {
  const flags = value[0] as number;
  const cursor = new VarintCursor(value, 1);
  if (flags & FLAG_INLINE) {
    const sub = cursor.next();
    const inline = value.subarray(cursor.at);
    const { modRevision, createRevision, version, lease } = readKeyValue(inline);
    return { main: modRevision, sub, createRevision, version, lease, inline };
  }
  const main = cursor.next();
  const sub = cursor.next();
  const createRevision = main - cursor.next();
  const version = cursor.next();
  const lease = flags & FLAG_LEASE ? new DataView(value.buffer, value.byteOffset + cursor.at, 8).getBigInt64(0) : 0n;
  return { main, sub, createRevision, version, lease, inline: undefined };
}

// ---------------------------------------------------------------------------------------------------------- past

/** The part of a `past` row key that stands for the user key: escaped, with its end mark, without a revision. */
export function pastPrefix(userKey: Uint8Array): Buffer {
  const firstZero = userKey.indexOf(0);
  if (firstZero < 0 && userKey.length <= ESCAPED_KEY_BYTES_MAX) {
    const prefix = Buffer.allocUnsafe(userKey.length + 2);
    prefix.set(userKey);
    prefix[userKey.length] = 0;
    prefix[userKey.length + 1] = END_SHORT;
    return prefix;
  }
  const into = Buffer.allocUnsafe(ESCAPED_KEY_BYTES_MAX + 2 + HASH_BYTES);
  let at = 0;
  let taken = 0;
  for (; taken < userKey.length; taken++) {
    const byte = userKey[taken] as number;
    if (at + (byte === 0 ? 2 : 1) > ESCAPED_KEY_BYTES_MAX) break;
    into[at++] = byte;
    if (byte === 0) into[at++] = 0xff;
  }
  into[at++] = 0;
  if (taken === userKey.length) {
    into[at++] = END_SHORT;
    return into.subarray(0, at);
  }
  into[at++] = END_LONG;
  into.set(hashOf(userKey), at);
  return into.subarray(0, at + HASH_BYTES);
}

/** A row key of `past`. */
export function pastKey(userKey: Uint8Array, main: number, sub: number): Buffer {
  return appendPastRevision(pastPrefix(userKey), main, sub);
}

export function appendPastRevision(prefix: Uint8Array, main: number, sub: number): Buffer {
  const key = Buffer.allocUnsafe(prefix.length + PAST_REVISION_BYTES);
  key.set(prefix);
  writeCounter(key, prefix.length, main);
  writeCounter(key, prefix.length + 8, sub);
  return key;
}

/** Behind all rows of a user key in `past`: revisions begin with a zero byte. */
export function pastPrefixEnd(prefix: Uint8Array): Buffer {
  const end = Buffer.allocUnsafe(prefix.length + 1);
  end.set(prefix);
  end[prefix.length] = 0xff;
  return end;
}

/**
 * The place of a user key among the rows of `past`: as start bound it lets in the key itself and all above, as end
 * bound it keeps them out. For a long key it is the beginning of its group, so who walks also compares whole keys.
 */
export function pastBound(userKey: Uint8Array): Uint8Array {
  const prefix = pastPrefix(userKey);
  return isLongPastPrefix(prefix) ? prefix.subarray(0, prefix.length - HASH_BYTES) : prefix;
}

/** Behind the group of a long key in `past`. */
export function pastGroupEnd(longKey: Uint8Array): Uint8Array {
  const prefix = pastPrefix(longKey);
  const end = Buffer.from(prefix.subarray(0, prefix.length - HASH_BYTES));
  end[end.length - 1] = END_LONG + 1;
  return end;
}

function isLongPastPrefix(prefix: Uint8Array): boolean {
  // An escaped key ends with 0x00 0x01; a hash behind 0x00 0x02 may end so too, but is then too long for a short one.
  return prefix.length > ESCAPED_KEY_BYTES_MAX + 2;
}

export function isLongKeyForPast(userKey: Uint8Array): boolean {
  if (userKey.length > ESCAPED_KEY_BYTES_MAX) return true;
  if (userKey.length * 2 <= ESCAPED_KEY_BYTES_MAX) return false;
  let length = userKey.length;
  for (const byte of userKey) if (byte === 0) length++;
  return length > ESCAPED_KEY_BYTES_MAX;
}

/** The row key of `past` without its revision: equal for the rows of one user key and different otherwise. */
export function prefixOfPastKey(rowKey: Uint8Array): Uint8Array {
  return rowKey.subarray(0, rowKey.length - PAST_REVISION_BYTES);
}

export function mainOfPastKey(rowKey: Uint8Array): number {
  return readCounter(rowKey, rowKey.length - PAST_REVISION_BYTES);
}

export function subOfPastKey(rowKey: Uint8Array): number {
  return readCounter(rowKey, rowKey.length - PAST_REVISION_BYTES + 8);
}

/** The user key of a `past` prefix; `undefined` when it is a long one. A view where nothing was escaped. */
export function userKeyOfPastPrefix(prefix: Uint8Array): Uint8Array | undefined {
  if (isLongPastPrefix(prefix)) return undefined;
  const escaped = prefix.subarray(0, prefix.length - 2);
  let zero = escaped.indexOf(0);
  if (zero < 0) return escaped;
  const key = Buffer.allocUnsafe(escaped.length);
  let at = 0;
  let from = 0;
  while (zero >= 0) {
    key.set(escaped.subarray(from, zero + 1), at);
    at += zero + 1 - from;
    from = zero + 2;
    zero = escaped.indexOf(0, from);
  }
  key.set(escaped.subarray(from), at);
  return key.subarray(0, at + escaped.length - from);
}

/** The value of a superseded put's row. */
export function encodePastRow(supersededBy: number): Buffer {
  const into = Buffer.allocUnsafe(varintLength(supersededBy));
  writeVarint(into, 0, supersededBy);
  return into;
}

/** Main revision that superseded a put; `undefined` for a tombstone. */
export function decodePastRow(value: Uint8Array): number | undefined {
  return value.length === 0 ? undefined : new VarintCursor(value).next();
}

// -------------------------------------------------------------------------------------------------------- leased

export function leasedKey(lease: bigint, rowKey: Uint8Array): Buffer {
  const key = Buffer.allocUnsafe(8 + rowKey.length);
  key.writeBigInt64BE(lease, 0);
  key.set(rowKey, 8);
  return key;
}

/** The first byte sequence of all row keys of a lease. */
export function leasedPrefix(lease: bigint): Buffer {
  return leasedKey(lease, EMPTY_BYTES);
}

export function liveKeyOfLeasedKey(rowKey: Uint8Array): Uint8Array {
  return rowKey.subarray(8);
}

// --------------------------------------------------------------------------------------------- straight into place

/** A row whose bytes are written where they will lie; a BackendTxn can reserve them. */
export interface RowPlaces {
  reserve(
    table: "key" | "live" | "past",
    keyBytes: number,
    valueBytes: number,
  ): { readonly bytes: Uint8Array; readonly keyAt: number; readonly valueAt: number };
}

/** The row of `live` for a put whose KeyValue is not kept there as well. */
export function putLiveRow(tx: RowPlaces, rowKey: Uint8Array, row: Omit<LiveRow, "inline">): void {
  const { bytes, keyAt, valueAt } = tx.reserve("live", rowKey.length, liveRowLength(row));
  copyInto(bytes, keyAt, rowKey);
  writeLiveRow(bytes, valueAt, row);
}

/** The row of `past` for a put at a revision that was superseded. */
export function putPastRow(
  tx: RowPlaces & Pick<IndexRows, "put">,
  userKey: Uint8Array,
  at: { readonly main: number; readonly sub: number },
  supersededBy: number,
): void {
  const { length } = userKey;
  if (length > ESCAPED_KEY_BYTES_MAX || userKey.includes(0)) {
    tx.put("past", pastKey(userKey, at.main, at.sub), encodePastRow(supersededBy));
    return;
  }
  const { bytes, keyAt, valueAt } = tx.reserve("past", length + 2 + PAST_REVISION_BYTES, varintLength(supersededBy));
  copyInto(bytes, keyAt, userKey);
  bytes[keyAt + length] = 0;
  bytes[keyAt + length + 1] = END_SHORT;
  writeCounter(bytes, keyAt + length + 2, at.main);
  writeCounter(bytes, keyAt + length + 10, at.sub);
  writeVarint(bytes, valueAt, supersededBy);
}

// ------------------------------------------------------------------------------------------------------- rebuild

/** What rebuilding needs of a store of rows; a BackendTxn is one. */
export interface IndexRows {
  get(table: "live", key: Uint8Array): Uint8Array | undefined;
  put(table: "live" | "past" | "leased", key: Uint8Array, value: Uint8Array): void;
  delete(table: "live" | "leased", key: Uint8Array): void;
}

/** Keeps the KeyValue in `live` too when it has at most so many bytes. Set by measurement: docs/adr/0003-index.md. */
export const INLINE_KEY_VALUE_BYTES_MAX = 0;

/** The row of `live` for a put, in the form that its size asks for. */
export function liveRowFor(row: Omit<LiveRow, "inline">, keyValue: Uint8Array): Buffer {
  return keyValue.length <= INLINE_KEY_VALUE_BYTES_MAX ? encodeInlineLiveRow(row.sub, keyValue) : encodeLiveRow(row);
}

/**
 * Enters one row of the `key` table into the index. Called for every row in ascending order, on index tables that were
 * empty at first, it leaves them as the server's own writes would have. A row with an empty user key is not indexed.
 */
export function indexKeyRow(rows: IndexRows, revisionRowKey: Uint8Array, stored: Uint8Array): void {
  const userKey = keyOfKeyValue(stored);
  if (userKey.length === 0) return;
  const main = mainOfRevisionKey(revisionRowKey);
  const sub = subOfRevisionKey(revisionRowKey);
  const rowKey = liveKey(userKey);
  const before = rows.get("live", rowKey);
  if (before) {
    const superseded = decodeLiveRow(before);
    rows.put("past", pastKey(userKey, superseded.main, superseded.sub), encodePastRow(main));
    if (superseded.lease !== 0n) rows.delete("leased", leasedKey(superseded.lease, rowKey));
  }
  if (isTombstoneKey(revisionRowKey)) {
    rows.put("past", pastKey(userKey, main, sub), EMPTY_BYTES);
    if (before) rows.delete("live", rowKey);
    return;
  }
  const { createRevision, version, lease } = readKeyValue(stored);
  rows.put("live", rowKey, liveRowFor({ main, sub, createRevision, version, lease }, stored));
  if (lease !== 0n) rows.put("leased", leasedKey(lease, rowKey), EMPTY_BYTES);
}

/** Sorts before every other row of `past`: those have at least 19 bytes and begin with 0x00 0xff or above. */
export const INDEX_MARKER_KEY: Uint8Array = Uint8Array.of(0);
const INDEX_FORMAT = Uint8Array.of(1);

/** Written when the index is complete. Without it, or with another format, the index is rebuilt at the next start. */
export function writeIndexMarker(rows: Pick<IndexRows, "put">): void {
  rows.put("past", INDEX_MARKER_KEY, INDEX_FORMAT);
}

export function hasIndexMarker(rows: { get(table: "past", key: Uint8Array): Uint8Array | undefined }): boolean {
  const format = rows.get("past", INDEX_MARKER_KEY);
  return format?.length === 1 && format[0] === INDEX_FORMAT[0];
}
