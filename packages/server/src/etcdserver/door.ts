/**
 * What the rooms above (api, gateway, transport's HTTP side) may ask of a running member. One call per request of
 * the public API; each takes the request as decoded, and answers with the response complete, header included, or
 * throws: `EtcdError` for what clients are told.
 */
import type {
  AlarmRequest,
  AlarmResponse,
  AuthDisableRequest,
  AuthDisableResponse,
  AuthenticateRequest,
  AuthenticateResponse,
  AuthEnableRequest,
  AuthEnableResponse,
  AuthRoleAddRequest,
  AuthRoleAddResponse,
  AuthRoleDeleteRequest,
  AuthRoleDeleteResponse,
  AuthRoleGetRequest,
  AuthRoleGetResponse,
  AuthRoleGrantPermissionRequest,
  AuthRoleGrantPermissionResponse,
  AuthRoleListRequest,
  AuthRoleListResponse,
  AuthRoleRevokePermissionRequest,
  AuthRoleRevokePermissionResponse,
  AuthStatusRequest,
  AuthStatusResponse,
  AuthUserAddRequest,
  AuthUserAddResponse,
  AuthUserChangePasswordRequest,
  AuthUserChangePasswordResponse,
  AuthUserDeleteRequest,
  AuthUserDeleteResponse,
  AuthUserGetRequest,
  AuthUserGetResponse,
  AuthUserGrantRoleRequest,
  AuthUserGrantRoleResponse,
  AuthUserListRequest,
  AuthUserListResponse,
  AuthUserRevokeRoleRequest,
  AuthUserRevokeRoleResponse,
  CompactionRequest,
  CompactionResponse,
  DefragmentResponse,
  DeleteRangeRequest,
  DeleteRangeResponse,
  DowngradeRequest,
  DowngradeResponse,
  HashKVRequest,
  HashKVResponse,
  HashResponse,
  KeyValue,
  LeaseGrantRequest,
  LeaseGrantResponse,
  LeaseKeepAliveResponse,
  LeaseLeasesResponse,
  LeaseRevokeRequest,
  LeaseRevokeResponse,
  LeaseTimeToLiveRequest,
  LeaseTimeToLiveResponse,
  MemberAddRequest,
  MemberAddResponse,
  MemberListRequest,
  MemberListResponse,
  MemberPromoteRequest,
  MemberPromoteResponse,
  MemberRemoveRequest,
  MemberRemoveResponse,
  MemberUpdateRequest,
  MemberUpdateResponse,
  MoveLeaderRequest,
  MoveLeaderResponse,
  PutRequest,
  PutResponse,
  RangeRequest,
  RangeResponse,
  ResponseHeader,
  StatusResponse,
  TxnRequest,
  TxnResponse,
} from "@etcd-ts/client/wire";
import type { Outcome } from "../lib/wait.ts";
import type { LargeRange, WatchHub } from "../mvcc/index.ts";
import type { Status as RaftStatus } from "../raft/index.ts";

/** What a caller brings. The rpc layer answers cancelled and overdue calls itself; the signal only frees the wait. */
export interface RequestContext {
  readonly signal?: AbortSignal | undefined;
  /** The text of metadata `token` (or `authorization`). */
  readonly token?: string | undefined;
  /** The subject CN of a verified client certificate. */
  readonly certCommonName?: string | undefined;
  /** The call came through the JSON gateway, where the certificate is not taken for the caller's. */
  readonly isFromGateway?: boolean | undefined;
  /** The member asks on its own behalf, and may do everything. Never set for a call that came over a connection. */
  readonly asRoot?: true | undefined;
}

/** The image of the whole backend as etcd's `.db` file. Whoever asked for it closes it. */
export interface SnapshotStream {
  /** Bytes of the image, without the SHA-256 that the API appends. */
  readonly totalBytes: number;
  /**
   * Chunks in order, each of 256 KiB but the last; made as they are taken. Their bytes are good until the next one is asked
   * for.
   */
  chunks(): AsyncIterable<Uint8Array>;
  /** Of all of it, when the last piece was taken; only of images for clients. */
  sha256(): Uint8Array;
  close(): Promise<void>;
}

/** Of a request that raft decides. Refusals of some kinds are thrown at once. */
export type Answer<T> = Promise<T> | Outcome<T>;

export interface LocalMember {
  readonly id: bigint;
  readonly clusterId: bigint;
  readonly name: string;
}

/** A RangeResponse as bytes, header included, in pieces that follow each other; what is stored is not decoded. */
export interface EncodedRange {
  readonly pieces: readonly Uint8Array[];
  readonly count: number;
  readonly more: boolean;
  /** What follows the pieces, when that is too much to be held. */
  readonly rest?: LargeRange | undefined;
}

/** Numbers for health, metrics and Status, as of now. */
export interface RaftView {
  readonly leaderId: bigint;
  readonly term: number;
  readonly committedIndex: number;
  readonly appliedIndex: number;
  readonly isLearner: boolean;
  readonly isLeader: boolean;
}

export type { RaftStatus };

export interface AlarmView {
  readonly memberId: bigint;
  /** AlarmType. */
  readonly alarm: number;
}

export interface EtcdServer {
  readonly member: LocalMember;
  /** Settles when the member has stopped: with undefined after `stop()`, with the error that ended it otherwise. */
  readonly stopped: Promise<Error | undefined>;
  /** Resolves when name and client URLs went through raft: clients may be served. */
  readonly ready: Promise<void>;
  stop(): Promise<void>;

  /** A fresh header: this member's ids, its term, the store's revision. */
  header(): ResponseHeader;
  raftView(): RaftView;
  /** All of raft's state, for those who look at it rarely. */
  raftStatus(): RaftStatus;
  /** "3.5.0", or undefined while the members have not agreed on one ("not_decided" over HTTP). */
  clusterVersion(): string | undefined;
  /** Of users, roles and permissions; rises with each change of them. */
  authRevision(): number;
  alarms(): readonly AlarmView[];
  /** When the current absence of a leader began, on the monotonic clock; undefined while there is one. */
  leaderLostSinceMs(): number | undefined;
  /** Calls `fn` whenever a leader is found, lost or replaced; returns the way to stop that. */
  onLeaderChange(fn: (leaderId: bigint) => void): () => void;

  /** Resolves when everything committed before the call has been applied here. Callers share rounds. */
  linearizableReadNotify(ctx: RequestContext): Promise<void>;

  range(request: RangeRequest, ctx: RequestContext): Promise<RangeResponse>;
  /** Pairs in key order at `request.revision`, up to its limit, as a part of an answer; the others are not counted. */
  rangePart(
    request: RangeRequest,
    ctx: RequestContext,
  ): Promise<{ readonly kvs: readonly KeyValue[]; readonly more: boolean }>;
  /** At once where nothing has to be waited for: then what it refuses is thrown, not rejected. */
  rangeEncoded(request: RangeRequest, ctx: RequestContext): EncodedRange | Promise<EncodedRange>;
  put(request: PutRequest, ctx: RequestContext): Answer<PutResponse>;
  deleteRange(request: DeleteRangeRequest, ctx: RequestContext): Answer<DeleteRangeResponse>;
  txn(request: TxnRequest, ctx: RequestContext): Answer<TxnResponse>;
  compact(request: CompactionRequest, ctx: RequestContext): Promise<CompactionResponse>;

  readonly watch: WatchHub;
  /** Throws, or rejects, unless the caller may watch the range, written as in requests. */
  checkWatchPermission(key: Uint8Array, rangeEnd: Uint8Array, ctx: RequestContext): void | Promise<void>;

  leaseGrant(request: LeaseGrantRequest, ctx: RequestContext): Answer<LeaseGrantResponse>;
  leaseRevoke(request: LeaseRevokeRequest, ctx: RequestContext): Answer<LeaseRevokeResponse>;
  /** One message of the keep-alive stream; an unknown lease answers TTL 0. */
  leaseKeepAlive(leaseId: bigint, ctx: RequestContext): LeaseKeepAliveResponse | Promise<LeaseKeepAliveResponse>;
  leaseTimeToLive(request: LeaseTimeToLiveRequest, ctx: RequestContext): Promise<LeaseTimeToLiveResponse>;
  leaseLeases(ctx: RequestContext): Promise<LeaseLeasesResponse>;

  memberAdd(request: MemberAddRequest, ctx: RequestContext): Promise<MemberAddResponse>;
  memberRemove(request: MemberRemoveRequest, ctx: RequestContext): Promise<MemberRemoveResponse>;
  memberUpdate(request: MemberUpdateRequest, ctx: RequestContext): Promise<MemberUpdateResponse>;
  memberPromote(request: MemberPromoteRequest, ctx: RequestContext): Promise<MemberPromoteResponse>;
  memberList(request: MemberListRequest, ctx: RequestContext): Promise<MemberListResponse>;

  alarm(request: AlarmRequest, ctx: RequestContext): Promise<AlarmResponse>;
  status(ctx: RequestContext): Promise<StatusResponse>;
  /** Calls `started` when the caller may, before the work begins. */
  defragment(ctx: RequestContext, started?: () => void): Promise<DefragmentResponse>;
  hash(ctx: RequestContext): Promise<HashResponse>;
  hashKv(request: HashKVRequest, ctx: RequestContext): Promise<HashKVResponse>;
  snapshot(ctx: RequestContext): Promise<SnapshotStream>;
  moveLeader(request: MoveLeaderRequest, ctx: RequestContext): Promise<MoveLeaderResponse>;
  downgrade(request: DowngradeRequest, ctx: RequestContext): Promise<DowngradeResponse>;

  authEnable(request: AuthEnableRequest, ctx: RequestContext): Promise<AuthEnableResponse>;
  authDisable(request: AuthDisableRequest, ctx: RequestContext): Promise<AuthDisableResponse>;
  authStatus(request: AuthStatusRequest, ctx: RequestContext): Promise<AuthStatusResponse>;
  authenticate(request: AuthenticateRequest, ctx: RequestContext): Promise<AuthenticateResponse>;
  userAdd(request: AuthUserAddRequest, ctx: RequestContext): Promise<AuthUserAddResponse>;
  userGet(request: AuthUserGetRequest, ctx: RequestContext): Promise<AuthUserGetResponse>;
  userList(request: AuthUserListRequest, ctx: RequestContext): Promise<AuthUserListResponse>;
  userDelete(request: AuthUserDeleteRequest, ctx: RequestContext): Promise<AuthUserDeleteResponse>;
  userChangePassword(
    request: AuthUserChangePasswordRequest,
    ctx: RequestContext,
  ): Promise<AuthUserChangePasswordResponse>;
  userGrantRole(request: AuthUserGrantRoleRequest, ctx: RequestContext): Promise<AuthUserGrantRoleResponse>;
  userRevokeRole(request: AuthUserRevokeRoleRequest, ctx: RequestContext): Promise<AuthUserRevokeRoleResponse>;
  roleAdd(request: AuthRoleAddRequest, ctx: RequestContext): Promise<AuthRoleAddResponse>;
  roleGet(request: AuthRoleGetRequest, ctx: RequestContext): Promise<AuthRoleGetResponse>;
  roleList(request: AuthRoleListRequest, ctx: RequestContext): Promise<AuthRoleListResponse>;
  roleDelete(request: AuthRoleDeleteRequest, ctx: RequestContext): Promise<AuthRoleDeleteResponse>;
  roleGrantPermission(
    request: AuthRoleGrantPermissionRequest,
    ctx: RequestContext,
  ): Promise<AuthRoleGrantPermissionResponse>;
  roleRevokePermission(
    request: AuthRoleRevokePermissionRequest,
    ctx: RequestContext,
  ): Promise<AuthRoleRevokePermissionResponse>;
}
