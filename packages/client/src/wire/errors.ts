/**
 * The errors etcd 3.5 sends, as one table: clients match on code and text, so both are contract. The server throws
 * {@link EtcdError} by kind where it detects something; the client turns a status back into one by its text.
 */

/** gRPC status codes. */
export const Code = {
  Ok: 0,
  Canceled: 1,
  Unknown: 2,
  InvalidArgument: 3,
  DeadlineExceeded: 4,
  NotFound: 5,
  AlreadyExists: 6,
  PermissionDenied: 7,
  ResourceExhausted: 8,
  FailedPrecondition: 9,
  Aborted: 10,
  OutOfRange: 11,
  Unimplemented: 12,
  Internal: 13,
  Unavailable: 14,
  DataLoss: 15,
  Unauthenticated: 16,
} as const;
export type Code = (typeof Code)[keyof typeof Code];

const codeNames: readonly string[] = Object.keys(Code).map((name) => (name === "Ok" ? "OK" : name));

/** `PermissionDenied`, `OK`; `Code(42)` for numbers gRPC does not know: as Go prints them. */
export function codeName(code: number): string {
  return codeNames[code] ?? `Code(${code})`;
}

/** Kind of error -> the gRPC code it is sent with, and its exact text. */
export const errorTable = {
  // Key-value.
  EmptyKey: [Code.InvalidArgument, "etcdserver: key is not provided"],
  KeyNotFound: [Code.InvalidArgument, "etcdserver: key not found"],
  ValueProvided: [Code.InvalidArgument, "etcdserver: value is provided"],
  LeaseProvided: [Code.InvalidArgument, "etcdserver: lease is provided"],
  TooManyOps: [Code.InvalidArgument, "etcdserver: too many operations in txn request"],
  DuplicateKey: [Code.InvalidArgument, "etcdserver: duplicate key given in txn request"],
  /** A text of 3.6; 3.5 does not check. */
  InvalidSortOption: [Code.InvalidArgument, "etcdserver: invalid sort option"],
  Compacted: [Code.OutOfRange, "etcdserver: mvcc: required revision has been compacted"],
  FutureRevision: [Code.OutOfRange, "etcdserver: mvcc: required revision is a future revision"],
  NoSpace: [Code.ResourceExhausted, "etcdserver: mvcc: database space exceeded"],

  // Leases and watches.
  LeaseNotFound: [Code.NotFound, "etcdserver: requested lease not found"],
  LeaseExist: [Code.FailedPrecondition, "etcdserver: lease already exists"],
  LeaseTTLTooLarge: [Code.OutOfRange, "etcdserver: too large lease TTL"],
  NotPrimaryLessor: [Code.Unknown, "not a primary lessor"],
  WatchCanceled: [Code.Canceled, "etcdserver: watch canceled"],

  // Members.
  MemberExist: [Code.FailedPrecondition, "etcdserver: member ID already exist"],
  PeerURLExist: [Code.FailedPrecondition, "etcdserver: Peer URLs already exists"],
  /** Meant to be FailedPrecondition; 3.5 sends Unknown. */
  MemberNotEnoughStarted: [Code.Unknown, "etcdserver: re-configuration failed due to not enough started members"],
  MemberBadURLs: [Code.InvalidArgument, "etcdserver: given member URLs are invalid"],
  MemberNotFound: [Code.NotFound, "etcdserver: member not found"],
  MemberNotLearner: [Code.FailedPrecondition, "etcdserver: can only promote a learner member"],
  LearnerNotReady: [
    Code.FailedPrecondition,
    "etcdserver: can only promote a learner member which is in sync with leader",
  ],
  TooManyLearners: [Code.FailedPrecondition, "etcdserver: too many learner members in cluster"],
  ClusterIDMismatch: [Code.FailedPrecondition, "etcdserver: cluster ID mismatch"],

  // Requests as such.
  RequestTooLarge: [Code.InvalidArgument, "etcdserver: request is too large"],
  /** Meant to be ResourceExhausted; 3.5 sends Unknown. */
  TooManyRequests: [Code.Unknown, "etcdserver: too many requests"],

  // Auth.
  RootUserNotExist: [Code.FailedPrecondition, "etcdserver: root user does not exist"],
  RootRoleNotExist: [Code.FailedPrecondition, "etcdserver: root user does not have root role"],
  UserAlreadyExist: [Code.FailedPrecondition, "etcdserver: user name already exists"],
  UserEmpty: [Code.InvalidArgument, "etcdserver: user name is empty"],
  UserNotFound: [Code.FailedPrecondition, "etcdserver: user name not found"],
  RoleAlreadyExist: [Code.FailedPrecondition, "etcdserver: role name already exists"],
  RoleNotFound: [Code.FailedPrecondition, "etcdserver: role name not found"],
  RoleEmpty: [Code.InvalidArgument, "etcdserver: role name is empty"],
  AuthFailed: [Code.InvalidArgument, "etcdserver: authentication failed, invalid user ID or password"],
  PermissionNotGiven: [Code.InvalidArgument, "etcdserver: permission not given"],
  PermissionDenied: [Code.PermissionDenied, "etcdserver: permission denied"],
  RoleNotGranted: [Code.FailedPrecondition, "etcdserver: role is not granted to the user"],
  PermissionNotGranted: [Code.FailedPrecondition, "etcdserver: permission is not granted to the role"],
  AuthNotEnabled: [Code.FailedPrecondition, "etcdserver: authentication is not enabled"],
  InvalidAuthToken: [Code.Unauthenticated, "etcdserver: invalid auth token"],
  InvalidAuthManagement: [Code.InvalidArgument, "etcdserver: invalid auth management"],
  AuthOldRevision: [Code.InvalidArgument, "etcdserver: revision of auth store is old"],

  // Leadership and time.
  NoLeader: [Code.Unavailable, "etcdserver: no leader"],
  NotLeader: [Code.FailedPrecondition, "etcdserver: not leader"],
  LeaderChanged: [Code.Unavailable, "etcdserver: leader changed"],
  NotCapable: [Code.Unavailable, "etcdserver: not capable"],
  Stopped: [Code.Unavailable, "etcdserver: server stopped"],
  Timeout: [Code.Unavailable, "etcdserver: request timed out"],
  TimeoutDueToLeaderFail: [Code.Unavailable, "etcdserver: request timed out, possibly due to previous leader failure"],
  TimeoutDueToConnectionLost: [Code.Unavailable, "etcdserver: request timed out, possibly due to connection lost"],
  TimeoutWaitAppliedIndex: [
    Code.Unavailable,
    "etcdserver: request timed out, waiting for the applied index took too long",
  ],
  /** MoveLeader did not end in time. */
  TimeoutLeaderTransfer: [Code.Unknown, "etcdserver: request timed out, leader transfer took too long"],
  Unhealthy: [Code.Unavailable, "etcdserver: unhealthy cluster"],
  Corrupt: [Code.DataLoss, "etcdserver: corrupt cluster"],
  NotSupportedForLearner: [Code.Unavailable, "etcdserver: rpc not supported for learner"],
  BadLeaderTransferee: [Code.FailedPrecondition, "etcdserver: bad leader transferee"],

  // Downgrade.
  ClusterVersionUnavailable: [Code.Unavailable, "etcdserver: cluster version not found during downgrade"],
  WrongDowngradeVersionFormat: [Code.InvalidArgument, "etcdserver: wrong downgrade target version format"],
  InvalidDowngradeTargetVersion: [Code.InvalidArgument, "etcdserver: invalid downgrade target version"],
  DowngradeInProcess: [Code.FailedPrecondition, "etcdserver: cluster has a downgrade job in progress"],
  NoInflightDowngrade: [Code.FailedPrecondition, "etcdserver: no inflight downgrade job"],
  /** Downgrade with an action nobody knows. */
  UnknownMethod: [Code.Unknown, "etcdserver: unknown method"],

  // Calls that ended early.
  /** In etcd's table, never sent. */
  Canceled: [Code.Canceled, "etcdserver: request canceled"],
  /** In etcd's table, never sent. */
  DeadlineExceeded: [Code.DeadlineExceeded, "etcdserver: context deadline exceeded"],
  /** The caller's deadline, or the server's own before a proposal reached raft. */
  ContextDeadlineExceeded: [Code.DeadlineExceeded, "context deadline exceeded"],
  ContextCanceled: [Code.Canceled, "context canceled"],
  /** A proposal was given up after raft had it. */
  RequestCancelled: [Code.Unknown, "etcdserver: request cancelled"],

  // Auth texts that Defragment, Snapshot, Hash and HashKV pass on as they are.
  AuthInnerUserEmpty: [Code.Unknown, "auth: user name is empty"],
  AuthInnerPermissionDenied: [Code.Unknown, "auth: permission denied"],
  AuthInnerInvalidToken: [Code.Unknown, "auth: invalid auth token"],
  AuthInnerUserNotFound: [Code.Unknown, "auth: user not found"],
  AuthInnerOldRevision: [Code.Unknown, "auth: revision in header is old"],
  NoPasswordUser: [Code.Unknown, "auth: authentication failed, password was given for no password user"],
  VerifyOnlyKey: [Code.Unknown, "auth: token signing attempted with verify-only key"],
  PasswordTooLong: [Code.Unknown, "bcrypt: password length exceeds 72 bytes"],

  // The lock and election services.
  SessionExpired: [Code.Unknown, "mutex: session is expired"],
  ElectionNoLeader: [Code.Unknown, "election: no leader"],
  ElectionNotLeader: [Code.Unknown, "election: not leader"],
  LeaderFieldMissing: [Code.Unknown, '"leader" field must be provided'],
  /** Client side: a lock that is tried, not waited for. */
  Locked: [Code.Unknown, "mutex: Locked by another session"],
} as const satisfies Record<string, readonly [Code, string]>;

export type ErrorKind = keyof typeof errorTable;

const kindByText = new Map<string, ErrorKind>(
  (Object.keys(errorTable) as ErrorKind[]).map((kind) => [errorTable[kind][1], kind]),
);

/** An error of the table. `message` is its exact text. */
export class EtcdError extends Error {
  override readonly name: string = "EtcdError";
  readonly kind: ErrorKind;
  /** As in the table, unless it came over the wire with another one (Lock and Election send Unknown). */
  readonly code: Code;

  constructor(kind: ErrorKind, options: { readonly cause?: unknown; readonly code?: Code } = {}) {
    super(errorTable[kind][1], options.cause === undefined ? undefined : { cause: options.cause });
    this.kind = kind;
    this.code = options.code ?? errorTable[kind][0];
  }
}

/** The error of the table with the text of a gRPC status, or undefined when the text is none of etcd's. */
export function etcdErrorFromStatus(code: number, details: string): EtcdError | undefined {
  const kind = kindByText.get(details);
  return kind === undefined ? undefined : new EtcdError(kind, { code: code as Code });
}
