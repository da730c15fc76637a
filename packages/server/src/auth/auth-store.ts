/**
 * Users, roles and what they may do: the part of auth that every member computes alike. It is a function of the log:
 * {@link AuthStore.apply} changes rows inside the open batch, and all else asks.
 *
 * The auth revision rises with every effective change and when auth is switched off. It is written into each proposal
 * beside the caller's name, so that a change of permissions between asking and applying is noticed.
 *
 * What a user may read and write is worked out when it is first asked for, from all roles of that user at once, and
 * forgotten at the next change. Invariant: the cache holds nothing of an older revision than {@link AuthStore.revision}.
 */
import {
  EtcdError,
  type Permission,
  PermissionType,
  type PutRequest,
  stringBytes,
  type TxnRequest,
} from "@etcd-ts/client/wire";
import { compareBytes, EMPTY_BYTES, equalBytes, utf8Text } from "../lib/bytes.ts";
import type { Logger } from "../lib/log.ts";
import { Role, User } from "../pb/authpb.ts";
import type { InternalRaftRequest, RequestHeader } from "../pb/etcdserverpb.ts";
import type { Backend, BackendReader, BackendTxn } from "../storage/index.ts";
import { KeyRanges } from "./key-ranges.ts";
import { hashOldPassword } from "./passwords.ts";
import {
  checkNewName,
  compareNames,
  deleteRole,
  deleteUser,
  nameOf,
  readIsEnabled,
  readRevision,
  readRole,
  readRoles,
  readUser,
  readUsers,
  writeIsEnabled,
  writeRevision,
  writeRole,
  writeUser,
} from "./rows.ts";
import type { TokenStore } from "./tokens.ts";
import type { Caller, LeaseKeys } from "./types.ts";

const ROOT = "root";
const NOBODY: Caller = { username: "", authRevision: 0 };

export interface AuthStoreOptions {
  readonly backend: Backend;
  readonly leases: LeaseKeys;
  readonly tokens: TokenStore;
  readonly bcryptCost: number;
  readonly logger: Logger;
}

interface UserPermissions {
  readonly isRoot: boolean;
  readonly read: KeyRanges;
  readonly write: KeyRanges;
}

type Access = "read" | "write";

/** A store of etcd says from its first start on at which revision its auth records are. */
function writeFirstRevision(backend: Backend): void {
  if (readRevision(backend) === 0) backend.write((tx) => writeRevision(tx, 1));
}

export class AuthStore {
  readonly #leases: LeaseKeys;
  readonly #tokens: TokenStore;
  readonly #bcryptCost: number;
  readonly #logger: Logger;
  #reader: BackendReader;
  #isEnabled = false;
  #revision = 0;
  readonly #permissions = new Map<string, UserPermissions>();

  constructor({ backend, leases, tokens, bcryptCost, logger }: AuthStoreOptions) {
    this.#leases = leases;
    this.#tokens = tokens;
    this.#bcryptCost = bcryptCost;
    this.#logger = logger;
    this.#reader = backend;
    writeFirstRevision(backend);
    this.reload(backend);
  }

  get isEnabled(): boolean {
    return this.#isEnabled;
  }

  get revision(): number {
    return this.#revision;
  }

  /** Reads again what it keeps in memory: at the start, and after a snapshot was installed. */
  reload(reader: BackendReader): void {
    this.#reader = reader;
    this.#isEnabled = readIsEnabled(reader);
    this.#revision = readRevision(reader);
    this.#permissions.clear();
    if (this.#isEnabled) this.#tokens.enable();
    else this.#tokens.disable();
  }

  user(name: string): User | undefined {
    return readUser(this.#reader, name);
  }

  // May they? All of these pass while auth is off.

  /** Throws unless every key of the range may be read. */
  checkRange(caller: Caller | undefined, key: Uint8Array, rangeEnd: Uint8Array): void {
    this.#checkKeys(caller ?? NOBODY, key, rangeEnd, "read");
  }

  checkPut(caller: Caller | undefined, request: PutRequest): void {
    if (!this.#isEnabled) return;
    const who = caller ?? NOBODY;
    this.#checkKeys(who, request.key, EMPTY_BYTES, "write");
    // Who hangs a key on a lease must be able to revoke it.
    if (request.lease !== 0n) this.checkLeaseWrite(who, request.lease);
    if (request.prevKv) this.#checkKeys(who, request.key, EMPTY_BYTES, "read");
  }

  checkDeleteRange(
    caller: Caller | undefined,
    request: { readonly key: Uint8Array; readonly rangeEnd: Uint8Array; readonly prevKv: boolean },
  ): void {
    const who = caller ?? NOBODY;
    this.#checkKeys(who, request.key, request.rangeEnd, "write");
    if (request.prevKv) this.#checkKeys(who, request.key, request.rangeEnd, "read");
  }

  /** All that either branch might do, at every level of nesting. */
  checkTxn(caller: Caller | undefined, request: TxnRequest): void {
    if (!this.#isEnabled) return;
    for (const { key, rangeEnd } of request.compare) this.checkRange(caller, key, rangeEnd);
    for (const branch of [request.success, request.failure]) {
      for (const { request: operation } of branch) {
        switch (operation?.kind) {
          case "requestRange":
            this.checkRange(caller, operation.value.key, operation.value.rangeEnd);
            break;
          case "requestPut":
            this.checkPut(caller, operation.value);
            break;
          case "requestDeleteRange":
            this.checkDeleteRange(caller, operation.value);
            break;
          case "requestTxn":
            this.checkTxn(caller, operation.value);
            break;
        }
      }
    }
  }

  /** Throws unless the caller may write every key of the lease. */
  checkLeaseWrite(caller: Caller | undefined, leaseId: bigint): void {
    this.#checkLeases(caller, [leaseId], "write");
  }

  /** Throws unless the caller may read every key of all the leases. */
  checkLeaseRead(caller: Caller | undefined, leaseIds: Iterable<bigint>): void {
    this.#checkLeases(caller, leaseIds, "read");
  }

  /** Throws unless the caller may read these keys, which a lease has. */
  checkLeaseKeys(caller: Caller | undefined, keys: readonly Uint8Array[]): void {
    if (!this.#isEnabled || this.#adminRefusal(caller) === undefined) return;
    for (const key of keys) this.#checkKeys(caller ?? NOBODY, key, EMPTY_BYTES, "read");
  }

  #checkLeases(caller: Caller | undefined, leaseIds: Iterable<bigint>, access: Access): void {
    if (!this.#isEnabled || this.#adminRefusal(caller) === undefined) return;
    for (const id of leaseIds) {
      for (const key of this.#leases.keysOfLease(id)) this.#checkKeys(caller ?? NOBODY, key, EMPTY_BYTES, access);
    }
  }

  /** Throws unless the caller has named itself. */
  checkNamed(caller: Caller | undefined): void {
    if (this.#isEnabled && !caller) throw new EtcdError("UserEmpty");
  }

  /** Throws unless the caller has the role root. */
  checkAdmin(caller: Caller | undefined): void {
    const refusal = this.#adminRefusal(caller);
    if (refusal) throw refusal;
  }

  #adminRefusal(caller: Caller | undefined): EtcdError | undefined {
    if (!this.#isEnabled) return undefined;
    if (!caller || caller.username === "") return new EtcdError("UserEmpty");
    const permissions = this.#permissionsOf(caller.username);
    if (!permissions) return new EtcdError("UserNotFound");
    return permissions.isRoot ? undefined : new EtcdError("PermissionDenied");
  }

  #checkKeys(caller: Caller, key: Uint8Array, rangeEnd: Uint8Array, access: Access): void {
    if (!this.#isEnabled) return;
    if (caller.authRevision === 0) throw new EtcdError("UserEmpty");
    if (caller.authRevision < this.#revision) {
      const error = new EtcdError("AuthOldRevision");
      this.#logger.warn("request auth revision is less than current node auth revision", {
        "current node auth revision": this.#revision,
        "request auth revision": caller.authRevision,
        "request key": utf8Text(key),
        error: innerText(error),
      });
      throw error;
    }
    const permissions = this.#permissionsOf(caller.username);
    if (!permissions) {
      this.#logger.error("cannot find a user for permission check", { "user-name": caller.username });
      throw new EtcdError("PermissionDenied");
    }
    if (!permissions.isRoot && !permissions[access].covers(key, rangeEnd)) throw new EtcdError("PermissionDenied");
  }

  #permissionsOf(username: string): UserPermissions | undefined {
    const cached = this.#permissions.get(username);
    if (cached) return cached;
    const user = readUser(this.#reader, username);
    if (!user) return undefined;
    const granted = user.roles.flatMap((role) => readRole(this.#reader, role)?.keyPermission ?? []);
    const rangesOf = (type: number) =>
      new KeyRanges(granted.filter(({ permType }) => permType === type || permType === PermissionType.ReadWrite));
    const permissions = {
      isRoot: user.roles.includes(ROOT),
      read: rangesOf(PermissionType.Read),
      write: rangesOf(PermissionType.Write),
    };
    this.#permissions.set(username, permissions);
    return permissions;
  }

  /** At apply: may who is named in the header do this? */
  checkApply(request: InternalRaftRequest, header: RequestHeader | undefined): void {
    if (!this.#isEnabled) return;
    const caller = header ?? NOBODY;
    if (request.put) this.checkPut(caller, request.put);
    else if (request.range) this.checkRange(caller, request.range.key, request.range.rangeEnd);
    else if (request.deleteRange) this.checkDeleteRange(caller, request.deleteRange);
    else if (request.txn) this.checkTxn(caller, request.txn);
    else if (request.leaseRevoke) this.checkLeaseWrite(caller, request.leaseRevoke.id);
    else if (request.authUserGet) {
      const refusal = this.#adminRefusal(caller);
      if (refusal && request.authUserGet.name !== caller.username) throw refusal;
    } else if (request.authRoleGet) {
      const refusal = this.#adminRefusal(caller);
      if (refusal && !this.#hasRole(caller.username, request.authRoleGet.role)) throw refusal;
    } else if (isForAdmins(request)) this.checkAdmin(caller);
  }

  #hasRole(username: string, role: string): boolean {
    const user = readUser(this.#reader, username);
    if (user) return user.roles.includes(role);
    this.#logger.warn("'has-role' requested for non-existing user", { "user-name": username, "role-name": role });
    return false;
  }

  // Changes and questions that came through the log.

  /** Gives the response without header, or undefined when the request is none of auth's. */
  apply(tx: BackendTxn, request: InternalRaftRequest, index: number): object | undefined {
    if (request.authenticate) return this.#authenticate(tx, request.authenticate, index);
    if (request.authEnable) return this.#enable(tx);
    if (request.authDisable) return this.#disable(tx);
    if (request.authStatus) return { enabled: this.#isEnabled, authRevision: this.#revision };
    if (request.authUserAdd) return this.#userAdd(tx, request.authUserAdd, index);
    if (request.authUserDelete) return this.#userDelete(tx, request.authUserDelete.name);
    if (request.authUserChangePassword) return this.#userChangePassword(tx, request.authUserChangePassword, index);
    if (request.authUserGrantRole) return this.#userGrantRole(tx, request.authUserGrantRole);
    if (request.authUserGet) return { roles: existingUser(tx, request.authUserGet.name).roles };
    if (request.authUserRevokeRole) return this.#userRevokeRole(tx, request.authUserRevokeRole);
    if (request.authRoleAdd) return this.#roleAdd(tx, request.authRoleAdd.name);
    if (request.authRoleGrantPermission) return this.#roleGrantPermission(tx, request.authRoleGrantPermission);
    if (request.authRoleGet) return { perm: existingRole(tx, request.authRoleGet.role).keyPermission };
    if (request.authRoleRevokePermission) return this.#roleRevokePermission(tx, request.authRoleRevokePermission);
    if (request.authRoleDelete) return this.#roleDelete(tx, request.authRoleDelete.role);
    if (request.authUserList) return { users: readUsers(tx).map(nameOf) };
    if (request.authRoleList) return { roles: readRoles(tx).map(nameOf) };
    return undefined;
  }

  #changed(tx: BackendTxn): void {
    this.#revision++;
    writeRevision(tx, this.#revision);
    this.#permissions.clear();
  }

  #enable(tx: BackendTxn): object {
    if (this.#isEnabled) {
      this.#logger.info("authentication is already enabled; ignored auth enable request");
      return {};
    }
    const root = readUser(tx, ROOT);
    if (!root) throw new EtcdError("RootUserNotExist");
    if (!root.roles.includes(ROOT)) throw new EtcdError("RootRoleNotExist");
    writeIsEnabled(tx, true);
    this.#isEnabled = true;
    this.#tokens.enable();
    this.#permissions.clear();
    this.#logger.info("enabled authentication");
    return {};
  }

  #disable(tx: BackendTxn): object {
    if (!this.#isEnabled) return {};
    writeIsEnabled(tx, false);
    this.#changed(tx);
    this.#isEnabled = false;
    this.#tokens.disable();
    this.#logger.info("disabled authentication");
    return {};
  }

  /** The password was compared before this was proposed. */
  #authenticate(tx: BackendTxn, request: { name: string; simpleToken: string }, index: number): object {
    if (!this.#isEnabled) throw new EtcdError("AuthNotEnabled");
    const user = readUser(tx, request.name);
    if (!user || user.options?.noPassword) throw new EtcdError("AuthFailed");
    return { token: this.#tokens.assign({ username: request.name, prefix: request.simpleToken, index }) };
  }

  #userAdd(tx: BackendTxn, request: NonNullable<InternalRaftRequest["authUserAdd"]>, index: number): object {
    const { name, options = { noPassword: false } } = request;
    if (name === "") throw new EtcdError("UserEmpty");
    if (readUser(tx, name)) throw new EtcdError("UserAlreadyExist");
    checkNewName(name);
    const password = options.noPassword ? EMPTY_BYTES : this.#selectPassword(request, index);
    writeUser(tx, { ...User.create(), name: stringBytes(name), password, options });
    this.#changed(tx);
    this.#logger.info("added a user", { "user-name": name });
    return {};
  }

  #userDelete(tx: BackendTxn, name: string): object {
    if (this.#isEnabled && name === ROOT) {
      this.#logger.error("cannot delete 'root' user", { "user-name": name });
      throw new EtcdError("InvalidAuthManagement");
    }
    const user = existingUser(tx, name);
    deleteUser(tx, name);
    this.#changed(tx);
    this.#tokens.forget(name);
    this.#logger.info("deleted a user", { "user-name": name, "user-roles": user.roles });
    return {};
  }

  #userChangePassword(
    tx: BackendTxn,
    request: NonNullable<InternalRaftRequest["authUserChangePassword"]>,
    index: number,
  ): object {
    const user = existingUser(tx, request.name);
    const password = user.options?.noPassword ? EMPTY_BYTES : this.#selectPassword(request, index);
    writeUser(tx, { ...user, password });
    this.#changed(tx);
    this.#tokens.forget(request.name);
    this.#logger.info("changed a password of a user", { "user-name": request.name, "user-roles": user.roles });
    return {};
  }

  /** The bcrypt text to store. */
  #selectPassword(request: { name: string; password: string; hashedPassword: string }, index: number): Uint8Array {
    const { name, password, hashedPassword } = request;
    if (password !== "" && hashedPassword === "") {
      // A log entry of a server before 3.5, which left the hashing to apply.
      return hashOldPassword({ password, cost: this.#bcryptCost, seed: `${name}/${index}` });
    }
    if (!/^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/.test(hashedPassword)) {
      throw new EtcdError("NoPasswordUser");
    }
    return Buffer.from(hashedPassword, "base64");
  }

  #userGrantRole(tx: BackendTxn, { user: name, role }: { user: string; role: string }): object {
    const user = existingUser(tx, name);
    // The role root needs no row of its own.
    if (role !== ROOT) existingRole(tx, role);
    if (user.roles.includes(role)) {
      this.#logger.warn("ignored grant role request to a user", {
        "user-name": name,
        "user-roles": user.roles,
        "duplicate-role-name": role,
      });
      return {};
    }
    const roles = [...user.roles, role].sort(compareNames);
    writeUser(tx, { ...user, roles });
    this.#changed(tx);
    this.#logger.info("granted a role to a user", { "user-name": name, "user-roles": roles, "added-role-name": role });
    return {};
  }

  #userRevokeRole(tx: BackendTxn, { name, role }: { name: string; role: string }): object {
    if (this.#isEnabled && name === ROOT && role === ROOT) {
      this.#logger.error("'root' user cannot revoke 'root' role", { "user-name": name, "role-name": role });
      throw new EtcdError("InvalidAuthManagement");
    }
    const user = existingUser(tx, name);
    const roles = user.roles.filter((each) => each !== role);
    if (roles.length === user.roles.length) throw new EtcdError("RoleNotGranted");
    writeUser(tx, { ...user, roles });
    this.#changed(tx);
    this.#logger.info("revoked a role from a user", {
      "user-name": name,
      "old-user-roles": user.roles,
      "new-user-roles": roles,
      "revoked-role-name": role,
    });
    return {};
  }

  #roleAdd(tx: BackendTxn, name: string): object {
    if (name === "") throw new EtcdError("RoleEmpty");
    if (readRole(tx, name)) throw new EtcdError("RoleAlreadyExist");
    checkNewName(name);
    writeRole(tx, Role.create({ name: stringBytes(name) }));
    this.#changed(tx);
    this.#logger.info("created a role", { "role-name": name });
    return {};
  }

  #roleGrantPermission(tx: BackendTxn, request: { name: string; perm: Permission | undefined }): object {
    const { name, perm } = request;
    if (!perm) throw new EtcdError("PermissionNotGiven");
    if (!isPermissionRange(perm.key, perm.rangeEnd)) throw new EtcdError("InvalidAuthManagement");
    const role = existingRole(tx, name);
    // As etcd does it: of several permissions that begin at one key, only the first is looked at for being the same.
    const at = role.keyPermission.findIndex(({ key }) => compareBytes(key, perm.key) >= 0);
    const first = role.keyPermission[at];
    const keyPermission =
      first && equalBytes(first.key, perm.key) && equalBytes(first.rangeEnd, perm.rangeEnd)
        ? role.keyPermission.with(at, { ...first, permType: perm.permType })
        : [...role.keyPermission, perm].sort((a, b) => compareBytes(a.key, b.key));
    writeRole(tx, { ...role, keyPermission });
    this.#changed(tx);
    this.#logger.info("granted/updated a permission to a user", {
      "user-name": name,
      "permission-name": permissionNames[perm.permType] ?? "",
    });
    return {};
  }

  #roleRevokePermission(tx: BackendTxn, request: { role: string; key: Uint8Array; rangeEnd: Uint8Array }): object {
    const { role: name, key, rangeEnd } = request;
    const role = existingRole(tx, name);
    const keyPermission = role.keyPermission.filter(
      (perm) => !equalBytes(perm.key, key) || !equalBytes(perm.rangeEnd, rangeEnd),
    );
    if (keyPermission.length === role.keyPermission.length) throw new EtcdError("PermissionNotGranted");
    writeRole(tx, { ...role, keyPermission });
    this.#changed(tx);
    this.#logger.info("revoked a permission on range", {
      "role-name": name,
      key: utf8Text(key),
      "range-end": utf8Text(rangeEnd),
    });
    return {};
  }

  #roleDelete(tx: BackendTxn, name: string): object {
    if (this.#isEnabled && name === ROOT) {
      this.#logger.error("cannot delete 'root' role", { "role-name": name });
      throw new EtcdError("InvalidAuthManagement");
    }
    existingRole(tx, name);
    deleteRole(tx, name);
    for (const user of readUsers(tx)) {
      if (user.roles.includes(name)) writeUser(tx, { ...user, roles: user.roles.filter((role) => role !== name) });
    }
    this.#changed(tx);
    this.#logger.info("deleted a role", { "role-name": name });
    return {};
  }
}

const permissionNames: readonly string[] = ["READ", "WRITE", "READWRITE"];

function existingUser(reader: BackendReader, name: string): User {
  const user = readUser(reader, name);
  if (!user) throw new EtcdError("UserNotFound");
  return user;
}

function existingRole(reader: BackendReader, name: string): Role {
  const role = readRole(reader, name);
  if (!role) throw new EtcdError("RoleNotFound");
  return role;
}

/** One key; or keys up to a greater one; or all from a key on. */
function isPermissionRange(key: Uint8Array, rangeEnd: Uint8Array): boolean {
  if (key.length === 0) return false;
  if (rangeEnd.length === 0 || (rangeEnd.length === 1 && rangeEnd[0] === 0)) return true;
  return compareBytes(key, rangeEnd) < 0;
}

/** Everything of auth but Authenticate, and what users may ask about themselves. */
function isForAdmins(request: InternalRaftRequest): boolean {
  return (
    request.authEnable !== undefined ||
    request.authDisable !== undefined ||
    request.authStatus !== undefined ||
    request.authUserAdd !== undefined ||
    request.authUserDelete !== undefined ||
    request.authUserChangePassword !== undefined ||
    request.authUserGrantRole !== undefined ||
    request.authUserRevokeRole !== undefined ||
    request.authUserList !== undefined ||
    request.authRoleAdd !== undefined ||
    request.authRoleGrantPermission !== undefined ||
    request.authRoleRevokePermission !== undefined ||
    request.authRoleDelete !== undefined ||
    request.authRoleList !== undefined
  );
}

/** The text of an error as it stands in the log: there it is auth's own, not yet that of the API. */
export function innerText(error: EtcdError): string {
  if (error.kind === "AuthOldRevision") return "auth: revision in header is old";
  return error.message.replace(/^etcdserver: /, "auth: ");
}
