// The response message as it came, nothing around it. Of lease answers the 3.5 tool prints the header alone.
import {
  AlarmResponse,
  AuthRoleGetResponse,
  AuthRoleListResponse,
  AuthStatusResponse,
  AuthUserGetResponse,
  AuthUserListResponse,
  DeleteRangeResponse,
  MemberAddResponse,
  MemberListResponse,
  MemberPromoteResponse,
  MemberRemoveResponse,
  MemberUpdateResponse,
  PutResponse,
  RangeResponse,
  ResponseHeader,
  TxnResponse,
  WatchResponse,
} from "@etcd-ts/client/wire";
import { BAD_FEATURE, ExitError } from "../exit.ts";
import type { Format, HeaderOnly, PrintTarget } from "./answers.ts";

const header = (target: PrintTarget, r: HeaderOnly): void => {
  if (r.header) target.out(ResponseHeader.encode(r.header));
};

/** Messages that hold a header and nothing else have one encoding, whatever they are called. */
const headerMessage = (target: PrintTarget, r: HeaderOnly): void =>
  target.out(PutResponse.encode({ header: r.header }));

export const protobuf: Format = {
  // Messages put one behind the other are one message, and these pieces follow the order of its fields.
  pagedRange: {
    first: (target, { header: h }) => target.out(RangeResponse.encode({ header: h })),
    keys: (target, kvs) => target.out(RangeResponse.encode({ kvs })),
    last: (target, { more, count }) => target.out(RangeResponse.encode({ more, count })),
  },
  get: (target, r) => target.out(RangeResponse.encode(r)),
  put: (target, r) => target.out(PutResponse.encode(r)),
  del: (target, r) => target.out(DeleteRangeResponse.encode(r)),
  txn: (target, r) => target.out(TxnResponse.encode(r)),
  watch: (target, { header: h, created, canceled, compactRevision, events }) =>
    target.out(WatchResponse.encode({ header: h ?? {}, created, canceled, compactRevision, events: events ?? [] })),
  leaseGrant: header,
  leaseRevoke: (_target, r) => {
    const h = r.header;
    const text = [
      h?.clusterId && `cluster_id:${h.clusterId} `,
      h?.memberId && `member_id:${h.memberId} `,
      h?.revision && `revision:${h.revision} `,
      h?.raftTerm && `raft_term:${h.raftTerm} `,
    ];
    const value = h ? text.filter(Boolean).join("") : "<nil>";
    throw new ExitError(BAD_FEATURE, `marshal unsupported for type clientv3.LeaseRevokeResponse ({${value} {} [] 0})`);
  },
  leaseKeepAlive: header,
  leaseTimeToLive: header,
  leaseList: header,
  memberAdd: (target, r) => target.out(MemberAddResponse.encode(r)),
  memberUpdate: (target, r) => target.out(MemberUpdateResponse.encode(r)),
  memberRemove: (target, r) => target.out(MemberRemoveResponse.encode(r)),
  memberPromote: (target, r) => target.out(MemberPromoteResponse.encode(r)),
  memberList: (target, r) => target.out(MemberListResponse.encode(r)),
  alarm: (target, r) => target.out(AlarmResponse.encode(r)),
  moveLeader: headerMessage,
  authStatus: (target, r) => target.out(AuthStatusResponse.encode(r)),
  userAdd: headerMessage,
  userDelete: headerMessage,
  userPasswd: headerMessage,
  userGrantRole: headerMessage,
  userRevokeRole: headerMessage,
  userGet: (target, r) => target.out(AuthUserGetResponse.encode(r)),
  userList: (target, r) => target.out(AuthUserListResponse.encode(r)),
  roleAdd: headerMessage,
  roleDelete: headerMessage,
  roleGet: (target, r) => target.out(AuthRoleGetResponse.encode(r)),
  roleList: (target, r) => target.out(AuthRoleListResponse.encode(r)),
  roleGrantPermission: headerMessage,
  roleRevokePermission: headerMessage,
};
