/**
 * Keys of `authUsers` and `authRoles`: the names themselves, which etcd does not bound and LMDB does. A name too long
 * for a key is stored under its beginning and its SHA-256; the record in the value has the whole of it.
 */
import { createHash } from "node:crypto";
import { Role, User } from "../../pb/authpb.ts";

/** Bytes. A row key of exactly this length stands for a longer name. */
const LONG_NAME_KEY_BYTES = 1978;
const HASH_BYTES = 32;

/** bbolt's bound on keys, and so etcd's on names: a longer one could not be exported. */
export const NAME_BYTES_MAX = 32_768;

export function nameKey(name: Uint8Array): Uint8Array {
  if (name.length < LONG_NAME_KEY_BYTES) return name;
  return Buffer.concat([
    name.subarray(0, LONG_NAME_KEY_BYTES - HASH_BYTES),
    createHash("sha256").update(name).digest(),
  ]);
}

export function isLongNameKey(rowKey: Uint8Array): boolean {
  return rowKey.length === LONG_NAME_KEY_BYTES;
}

/** The name that a row stands for: its key in etcd's own file. */
export function nameOfRow(table: "authUsers" | "authRoles", rowKey: Uint8Array, value: Uint8Array): Uint8Array {
  if (!isLongNameKey(rowKey)) return rowKey;
  return (table === "authUsers" ? User.decode(value).name : Role.decode(value).name) ?? new Uint8Array(0);
}
