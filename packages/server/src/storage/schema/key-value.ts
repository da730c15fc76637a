/**
 * Values of the `key` table: mvccpb.KeyValue, written in one go and read without decoding, because ranges splice them
 * into answers and only rarely look inside.
 */
import { copyInto, EMPTY_BYTES } from "../../lib/bytes.ts";
import { VarintCursor, varintLength, writeVarint } from "./varint.ts";

export interface KeyValueFields {
  readonly key: Uint8Array;
  readonly createRevision: number;
  readonly modRevision: number;
  readonly version: number;
  readonly value: Uint8Array;
  readonly lease: bigint;
}

const TAG_KEY = 0x0a;
const TAG_CREATE_REVISION = 0x10;
const TAG_MOD_REVISION = 0x18;
const TAG_VERSION = 0x20;
const TAG_VALUE = 0x2a;
const TAG_LEASE = 0x30;

function int64Length(value: bigint): number {
  if (value < 0n) return 10;
  if (value <= 0x1f_ffff_ffff_ffffn) return varintLength(Number(value));
  return value < 1n << 56n ? 8 : 9;
}

function writeInt64(into: Uint8Array, offset: number, value: bigint): number {
  if (value >= 0n && value <= 0x1f_ffff_ffff_ffffn) return writeVarint(into, offset, Number(value));
  let at = offset;
  let rest = BigInt.asUintN(64, value);
  while (rest >= 128n) {
    into[at++] = Number(rest & 0x7fn) | 0x80;
    rest >>= 7n;
  }
  into[at++] = Number(rest);
  return at;
}

/** Zero and empty fields are left out, as in etcd. The caller owns the result. */
export function encodeKeyValue(fields: KeyValueFields): Buffer {
  const into = Buffer.allocUnsafe(keyValueLength(fields));
  writeKeyValue(into, 0, fields);
  return into;
}

/** Bytes that {@link writeKeyValue} writes. */
export function keyValueLength(fields: KeyValueFields): number {
  const { key, createRevision, modRevision, version, value, lease } = fields;
  let length = 0;
  if (key.length > 0) length += 1 + varintLength(key.length) + key.length;
  if (createRevision !== 0) length += 1 + varintLength(createRevision);
  if (modRevision !== 0) length += 1 + varintLength(modRevision);
  if (version !== 0) length += 1 + varintLength(version);
  if (value.length > 0) length += 1 + varintLength(value.length) + value.length;
  if (lease !== 0n) length += 1 + int64Length(lease);
  return length;
}

/** Returns the offset behind it. */
export function writeKeyValue(into: Uint8Array, offset: number, fields: KeyValueFields): number {
  const { key, createRevision, modRevision, version, value, lease } = fields;
  let at = offset;
  if (key.length > 0) {
    into[at++] = TAG_KEY;
    at = writeVarint(into, at, key.length);
    copyInto(into, at, key);
    at += key.length;
  }
  if (createRevision !== 0) {
    into[at++] = TAG_CREATE_REVISION;
    at = writeVarint(into, at, createRevision);
  }
  if (modRevision !== 0) {
    into[at++] = TAG_MOD_REVISION;
    at = writeVarint(into, at, modRevision);
  }
  if (version !== 0) {
    into[at++] = TAG_VERSION;
    at = writeVarint(into, at, version);
  }
  if (value.length > 0) {
    into[at++] = TAG_VALUE;
    at = writeVarint(into, at, value.length);
    copyInto(into, at, value);
    at += value.length;
  }
  if (lease !== 0n) {
    into[at++] = TAG_LEASE;
    at = writeInt64(into, at, lease);
  }
  return at;
}

/** What a tombstone's row holds: the key alone. */
export function encodeTombstone(key: Uint8Array): Buffer {
  return encodeKeyValue({ key, createRevision: 0, modRevision: 0, version: 0, value: EMPTY_BYTES, lease: 0n });
}

/**
 * The fields of a stored row. `key` and `value` are views of `stored`. Throws RangeError when the bytes are no
 * KeyValue. Unknown fields are skipped; an empty row (written by `restore --bump-revision`) has an empty key.
 */
export function readKeyValue(stored: Uint8Array): KeyValueFields {
  let key = EMPTY_BYTES;
  let createRevision = 0;
  let modRevision = 0;
  let version = 0;
  let value = EMPTY_BYTES;
  let lease = 0n;
  const cursor = new VarintCursor(stored);
  while (!cursor.isAtEnd) {
    const tag = cursor.next();
    switch (tag) {
      case TAG_KEY: {
        const length = cursor.next();
        cursor.skip(length);
        key = stored.subarray(cursor.at - length, cursor.at);
        break;
      }
      case TAG_CREATE_REVISION:
        createRevision = cursor.next();
        break;
      case TAG_MOD_REVISION:
        modRevision = cursor.next();
        break;
      case TAG_VERSION:
        version = cursor.next();
        break;
      case TAG_VALUE: {
        const length = cursor.next();
        cursor.skip(length);
        value = stored.subarray(cursor.at - length, cursor.at);
        break;
      }
      case TAG_LEASE:
        lease = cursor.nextInt64();
        break;
      default:
        skipField(cursor, tag);
    }
  }
  return { key, createRevision, modRevision, version, value, lease };
}

/** The user key alone, as a view of `stored`: the first field, unless someone else's writer ordered them otherwise. */
export function keyOfKeyValue(stored: Uint8Array): Uint8Array {
  if (stored[0] !== TAG_KEY) return readKeyValue(stored).key;
  const cursor = new VarintCursor(stored, 1);
  const length = cursor.next();
  cursor.skip(length);
  return stored.subarray(cursor.at - length, cursor.at);
}

function skipField(cursor: VarintCursor, tag: number): void {
  switch (tag & 7) {
    case 0:
      cursor.nextInt64();
      return;
    case 1:
      cursor.skip(8);
      return;
    case 2:
      cursor.skip(cursor.next());
      return;
    case 5:
      cursor.skip(4);
      return;
    default:
      throw new RangeError(`wire type ${tag & 7} in a stored KeyValue`);
  }
}
