/**
 * Errors of apply as etcd's log lines show them: there they are still those of the room in which they arose, in its
 * own words; only on the way to the caller they become the ones of the API.
 */
import { type ErrorKind, EtcdError } from "@etcd-ts/client/wire";

const innerTexts: Partial<Record<ErrorKind, string>> = {
  Compacted: "mvcc: required revision has been compacted",
  FutureRevision: "mvcc: required revision is a future revision",
  NoSpace: "etcdserver: no space",
  LeaseNotFound: "lease not found",
  LeaseExist: "lease already exists",
  LeaseTTLTooLarge: "too large lease TTL",
  RootUserNotExist: "auth: root user does not exist",
  RootRoleNotExist: "auth: root user does not have root role",
  UserAlreadyExist: "auth: user already exists",
  UserEmpty: "auth: user name is empty",
  UserNotFound: "auth: user not found",
  RoleAlreadyExist: "auth: role already exists",
  RoleNotFound: "auth: role not found",
  RoleEmpty: "auth: role name is empty",
  AuthFailed: "auth: authentication failed, invalid user ID or password",
  PermissionNotGiven: "auth: permission not given",
  PermissionDenied: "auth: permission denied",
  RoleNotGranted: "auth: role is not granted to the user",
  PermissionNotGranted: "auth: permission is not granted to the role",
  AuthNotEnabled: "auth: authentication is not enabled",
  InvalidAuthToken: "auth: invalid auth token",
  InvalidAuthManagement: "auth: invalid auth management",
  AuthOldRevision: "auth: revision in header is old",
};

export function applyErrorText(error: Error): string {
  return (error instanceof EtcdError ? innerTexts[error.kind] : undefined) ?? error.message;
}
