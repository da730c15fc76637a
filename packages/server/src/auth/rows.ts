/**
 * The rows of the tables `auth`, `authUsers` and `authRoles`, with etcd's bytes. Names are strings on the wire and keys
 * of rows here; one that is no row key (empty, or too long) names nobody.
 */
import { bytesString, EtcdError, stringBytes } from "@etcd-ts/client/wire";
import { compareBytes, utf8Bytes } from "../lib/bytes.ts";
import { Role, User } from "../pb/authpb.ts";
import { type BackendReader, type BackendTxn, encodeCounter } from "../storage/index.ts";
import { NAME_BYTES_MAX } from "./limits.ts";

const ENABLED = utf8Bytes("authEnabled");
const REVISION = utf8Bytes("authRevision");

export function readIsEnabled(reader: BackendReader): boolean {
  const value = reader.get("auth", ENABLED);
  return value?.length === 1 && value[0] === 1;
}

export function writeIsEnabled(tx: BackendTxn, isEnabled: boolean): void {
  tx.put("auth", ENABLED, Uint8Array.of(isEnabled ? 1 : 0));
}

/** 0 in a store that never had one. */
export function readRevision(reader: BackendReader): number {
  const value = reader.get("auth", REVISION);
  if (!value) return 0;
  const view = new DataView(value.buffer, value.byteOffset, value.byteLength);
  return view.getUint32(0) * 2 ** 32 + view.getUint32(4);
}

export function writeRevision(tx: BackendTxn, revision: number): void {
  tx.put("auth", REVISION, encodeCounter(revision));
}

function rowKey(name: string): Uint8Array | undefined {
  const key = stringBytes(name);
  return key.length === 0 || key.length > NAME_BYTES_MAX ? undefined : key;
}

/** A name that is given to something new. */
export function checkNewName(name: string): void {
  if (stringBytes(name).length > NAME_BYTES_MAX) throw new EtcdError("InvalidAuthManagement");
}

export function readUser(reader: BackendReader, name: string): User | undefined {
  const key = rowKey(name);
  const value = key && reader.get("authUsers", key);
  return value && User.decode(value);
}

export function readUsers(reader: BackendReader): User[] {
  const users: User[] = [];
  reader.scan("authUsers", {}, (_key, value) => {
    users.push(User.decode(value));
  });
  return users;
}

export function writeUser(tx: BackendTxn, user: User): void {
  tx.put("authUsers", user.name, User.encode(user));
}

export function deleteUser(tx: BackendTxn, name: string): void {
  tx.delete("authUsers", stringBytes(name));
}

export function readRole(reader: BackendReader, name: string): Role | undefined {
  const key = rowKey(name);
  const value = key && reader.get("authRoles", key);
  return value && Role.decode(value);
}

export function readRoles(reader: BackendReader): Role[] {
  const roles: Role[] = [];
  reader.scan("authRoles", {}, (_key, value) => {
    roles.push(Role.decode(value));
  });
  return roles;
}

export function writeRole(tx: BackendTxn, role: Role): void {
  tx.put("authRoles", role.name, Role.encode(role));
}

export function deleteRole(tx: BackendTxn, name: string): void {
  tx.delete("authRoles", stringBytes(name));
}

export const nameOf = (row: { readonly name: Uint8Array }): string => bytesString(row.name);

/** In the order of the names' bytes, as stored. */
export function compareNames(a: string, b: string): number {
  return compareBytes(stringBytes(a), stringBytes(b));
}
