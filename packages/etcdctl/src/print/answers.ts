// What can be printed: each kind of answer by name, and how a format lists the kinds it knows.
import type {
  AlarmResponse,
  AuthRoleGetResponse,
  AuthRoleListResponse,
  AuthStatusResponse,
  AuthUserGetResponse,
  AuthUserListResponse,
  DeleteRangeResponse,
  Event,
  HashKVResponse,
  KeyValue,
  LeaseGrantResponse,
  LeaseKeepAliveResponse,
  LeaseLeasesResponse,
  LeaseTimeToLiveResponse,
  MemberAddResponse,
  MemberListResponse,
  MemberPromoteResponse,
  MemberRemoveResponse,
  MemberUpdateResponse,
  PutResponse,
  RangeResponse,
  ResponseHeader,
  StatusResponse,
  TxnResponse,
} from "@etcd-ts/client/wire";
import type { Colors } from "../color.ts";

export interface HeaderOnly {
  readonly header: ResponseHeader | undefined;
}

export interface WatchAnswer extends HeaderOnly {
  /** Undefined when the watch was refused. */
  readonly events: readonly Event[] | undefined;
  readonly compactRevision: number;
  readonly canceled: boolean;
  readonly created: boolean;
}

export interface EndpointHealth {
  readonly endpoint: string;
  readonly health: boolean;
  /** As Go prints a duration. */
  readonly took: string;
  /** Empty when healthy. */
  readonly error: string;
}

export interface EndpointStatus {
  readonly endpoint: string;
  readonly status: StatusResponse;
}

export interface EndpointHash {
  readonly endpoint: string;
  readonly hash: HashKVResponse;
}

export interface Answers {
  get: RangeResponse;
  put: PutResponse;
  del: DeleteRangeResponse;
  txn: TxnResponse;
  watch: WatchAnswer;
  leaseGrant: LeaseGrantResponse;
  leaseRevoke: HeaderOnly & { readonly id: bigint };
  leaseKeepAlive: LeaseKeepAliveResponse;
  leaseTimeToLive: LeaseTimeToLiveResponse & { readonly withKeys: boolean };
  leaseList: LeaseLeasesResponse;
  memberAdd: MemberAddResponse & { readonly name: string; readonly peerUrls: string };
  memberUpdate: MemberUpdateResponse & { readonly id: bigint };
  memberRemove: MemberRemoveResponse & { readonly id: bigint };
  memberPromote: MemberPromoteResponse & { readonly id: bigint };
  memberList: MemberListResponse;
  endpointHealth: readonly EndpointHealth[];
  endpointStatus: readonly EndpointStatus[];
  endpointHash: readonly EndpointHash[];
  alarm: AlarmResponse;
  moveLeader: HeaderOnly & { readonly from: bigint; readonly to: bigint };
  authStatus: AuthStatusResponse;
  userAdd: HeaderOnly & { readonly user: string };
  userDelete: HeaderOnly & { readonly user: string };
  userPasswd: HeaderOnly;
  userGrantRole: HeaderOnly & { readonly user: string; readonly role: string };
  userRevokeRole: HeaderOnly & { readonly user: string; readonly role: string };
  userGet: AuthUserGetResponse & { readonly user: string };
  userList: AuthUserListResponse;
  roleAdd: HeaderOnly & { readonly role: string };
  roleDelete: HeaderOnly & { readonly role: string };
  roleGet: AuthRoleGetResponse & { readonly role: string };
  roleList: AuthRoleListResponse;
  roleGrantPermission: HeaderOnly & { readonly role: string };
  roleRevokePermission: HeaderOnly & { readonly role: string; readonly key: string; readonly rangeEnd: string };
}

export type AnswerKind = keyof Answers;

/** Where a format writes to. */
export interface PrintTarget {
  /** Appends text or bytes to standard output. */
  out(piece: string | Uint8Array): void;
  /** One line on standard error. */
  complain(line: string): void;
  /** Bytes as \x61\x62, ids as hex where a format does that. */
  readonly hex: boolean;
  /** Values only (simple). */
  readonly valueOnly: boolean;
  readonly colors: Colors;
}

/** How a format prints a range that comes page by page; the pages together read as the range in one piece. */
export interface PagedRange {
  first?(target: PrintTarget, page: RangeResponse): void;
  keys(target: PrintTarget, kvs: readonly KeyValue[], isFirst: boolean): void;
  last?(target: PrintTarget, total: { readonly more: boolean; readonly count: number }, hasKeys: boolean): void;
}

/** How a format prints the kinds it knows; the others are refused. */
export type Format = { readonly [K in AnswerKind]?: (target: PrintTarget, answer: Answers[K]) => void } & {
  readonly pagedRange?: PagedRange;
};

/** Go's names of the alarm types, events and permissions. */
export const alarmNames: readonly string[] = ["NONE", "NOSPACE", "CORRUPT"];
export const eventNames: readonly string[] = ["PUT", "DELETE"];
export const permissionNames: readonly string[] = ["READ", "WRITE", "READWRITE"];

export const enumName = (names: readonly string[], value: number): string => names[value] ?? String(value);
