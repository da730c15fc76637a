/**
 * Users, roles and permissions. The client itself logs in by `username` and `password` of its options; these calls
 * are for administering.
 *
 * ```ts
 * await client.auth.userAdd("alice", "secret");
 * await client.auth.roleAdd("reader");
 * await client.auth.roleGrantPermission("reader", PermissionType.Read, "app/", { prefix: true });
 * await client.auth.userGrantRole("alice", "reader");
 * ```
 */
import { type BytesLike, type KeyRange, keyAndEnd } from "./bytes.ts";
import type { Client } from "./client.ts";
import type { CallOptions } from "./options.ts";
import {
  Auth,
  type AuthDisableResponse,
  type AuthEnableResponse,
  type AuthenticateResponse,
  type AuthRoleAddResponse,
  type AuthRoleDeleteResponse,
  type AuthRoleGetResponse,
  type AuthRoleGrantPermissionResponse,
  type AuthRoleListResponse,
  type AuthRoleRevokePermissionResponse,
  type AuthStatusResponse,
  type AuthUserAddResponse,
  type AuthUserChangePasswordResponse,
  type AuthUserDeleteResponse,
  type AuthUserGetResponse,
  type AuthUserGrantRoleResponse,
  type AuthUserListResponse,
  type AuthUserRevokeRoleResponse,
} from "./wire/index.ts";

/** Users, roles and permissions. */
export class AuthClient {
  readonly #client: Client;

  constructor(client: Client) {
    this.#client = client;
  }

  /** Turns authentication on; needs a user `root` that holds the role `root`. */
  enable(options: CallOptions = {}): Promise<AuthEnableResponse> {
    return this.#client.call(Auth.methods.authEnable, {}, options);
  }

  /** Turns authentication off. */
  disable(options: CallOptions = {}): Promise<AuthDisableResponse> {
    return this.#client.call(Auth.methods.authDisable, {}, options);
  }

  /** Whether authentication is on, and the revision of its records. */
  status(options: CallOptions = {}): Promise<AuthStatusResponse> {
    return this.#client.call(Auth.methods.authStatus, {}, options);
  }

  /** A token for these credentials; the client's own is not touched. */
  authenticate(name: string, password: string, options: CallOptions = {}): Promise<AuthenticateResponse> {
    return this.#client.call(Auth.methods.authenticate, { name, password }, options);
  }

  /** A user with a password, or, with `noPassword`, one that logs in by client certificate alone. */
  userAdd(
    name: string,
    password: string,
    options: CallOptions & { noPassword?: boolean | undefined } = {},
  ): Promise<AuthUserAddResponse> {
    const request = { name, password, options: { noPassword: options.noPassword ?? false } };
    return this.#client.call(Auth.methods.userAdd, request, options);
  }

  /** The roles of a user. */
  userGet(name: string, options: CallOptions = {}): Promise<AuthUserGetResponse> {
    return this.#client.call(Auth.methods.userGet, { name }, options);
  }

  /** The names of all users. */
  userList(options: CallOptions = {}): Promise<AuthUserListResponse> {
    return this.#client.call(Auth.methods.userList, {}, options);
  }

  /** Deletes a user. */
  userDelete(name: string, options: CallOptions = {}): Promise<AuthUserDeleteResponse> {
    return this.#client.call(Auth.methods.userDelete, { name }, options);
  }

  /** Replaces a password; tokens that were given out before stay good until they expire. */
  userChangePassword(
    name: string,
    password: string,
    options: CallOptions = {},
  ): Promise<AuthUserChangePasswordResponse> {
    return this.#client.call(Auth.methods.userChangePassword, { name, password }, options);
  }

  /** Gives a role to a user. */
  userGrantRole(user: string, role: string, options: CallOptions = {}): Promise<AuthUserGrantRoleResponse> {
    return this.#client.call(Auth.methods.userGrantRole, { user, role }, options);
  }

  /** Takes a role from a user. */
  userRevokeRole(name: string, role: string, options: CallOptions = {}): Promise<AuthUserRevokeRoleResponse> {
    return this.#client.call(Auth.methods.userRevokeRole, { name, role }, options);
  }

  /** Makes a role that allows nothing yet. */
  roleAdd(name: string, options: CallOptions = {}): Promise<AuthRoleAddResponse> {
    return this.#client.call(Auth.methods.roleAdd, { name }, options);
  }

  /** The permissions of a role. */
  roleGet(role: string, options: CallOptions = {}): Promise<AuthRoleGetResponse> {
    return this.#client.call(Auth.methods.roleGet, { role }, options);
  }

  /** The names of all roles. */
  roleList(options: CallOptions = {}): Promise<AuthRoleListResponse> {
    return this.#client.call(Auth.methods.roleList, {}, options);
  }

  /** Deletes a role and takes it from all users. */
  roleDelete(role: string, options: CallOptions = {}): Promise<AuthRoleDeleteResponse> {
    return this.#client.call(Auth.methods.roleDelete, { role }, options);
  }

  /** Lets a role read, write or both on a key or a range; granting the same range again replaces the type. */
  roleGrantPermission(
    role: string,
    permType: number,
    key: BytesLike,
    options: CallOptions & KeyRange = {},
  ): Promise<AuthRoleGrantPermissionResponse> {
    const request = { name: role, perm: { permType, ...keyAndEnd(key, options) } };
    return this.#client.call(Auth.methods.roleGrantPermission, request, options);
  }

  /** Takes a permission away; key and range must be those it was granted with. */
  roleRevokePermission(
    role: string,
    key: BytesLike,
    options: CallOptions & KeyRange = {},
  ): Promise<AuthRoleRevokePermissionResponse> {
    return this.#client.call(Auth.methods.roleRevokePermission, { role, ...keyAndEnd(key, options) }, options);
  }
}
