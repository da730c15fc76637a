// Go's JSON of the responses: names and order of the .proto files, zero values left out, bytes in base64.
import type {
  DeleteRangeResponse,
  Event,
  HashKVResponse,
  KeyValue,
  Member,
  Permission,
  PutResponse,
  RangeResponse,
  ResponseHeader,
  ResponseOp,
  StatusResponse,
  TxnResponse,
} from "@etcd-ts/client/wire";
import { encodeJson, type Json, omitEmpty } from "../go/json.ts";
import { hexId } from "../go/strconv.ts";
import type { Answers, Format, HeaderOnly, PagedRange, PrintTarget } from "./answers.ts";

const headerFields = (header: ResponseHeader | undefined) => ({
  cluster_id: omitEmpty(header?.clusterId ?? 0n),
  member_id: omitEmpty(header?.memberId ?? 0n),
  revision: omitEmpty(header?.revision ?? 0),
  raft_term: omitEmpty(header?.raftTerm ?? 0),
});

const headerJson = (header: ResponseHeader | undefined): Json | undefined => header && headerFields(header);

/** A key-value pair. */
export const kvJson = (kv: KeyValue): Json => ({
  key: omitEmpty(kv.key),
  create_revision: omitEmpty(kv.createRevision),
  mod_revision: omitEmpty(kv.modRevision),
  version: omitEmpty(kv.version),
  value: omitEmpty(kv.value),
  lease: omitEmpty(kv.lease),
});

const rangeJson = (r: RangeResponse): Json => ({
  header: headerJson(r.header),
  kvs: omitEmpty(r.kvs.map(kvJson)),
  more: omitEmpty(r.more),
  count: omitEmpty(r.count),
});

const putJson = (r: PutResponse): Json => ({ header: headerJson(r.header), prev_kv: r.prevKv && kvJson(r.prevKv) });

const deleteJson = (r: DeleteRangeResponse): Json => ({
  header: headerJson(r.header),
  deleted: omitEmpty(r.deleted),
  prev_kvs: omitEmpty(r.prevKvs.map(kvJson)),
});

const txnJson = (r: TxnResponse): Json => ({
  header: headerJson(r.header),
  succeeded: omitEmpty(r.succeeded),
  responses: omitEmpty(r.responses.map(responseOpJson)),
});

function responseOpJson({ response }: ResponseOp): Json {
  switch (response?.kind) {
    case "responseRange":
      return { Response: { response_range: rangeJson(response.value) } };
    case "responsePut":
      return { Response: { response_put: putJson(response.value) } };
    case "responseDeleteRange":
      return { Response: { response_delete_range: deleteJson(response.value) } };
    case "responseTxn":
      return { Response: { response_txn: txnJson(response.value) } };
    case undefined:
      return { Response: null };
  }
}

/** An event of a watch. */
export const eventJson = (event: Event): Json => ({
  type: omitEmpty(event.type),
  kv: event.kv && kvJson(event.kv),
  prev_kv: event.prevKv && kvJson(event.prevKv),
});

/** A member of the cluster. */
export const memberJson = (member: Member): Json => ({
  ID: omitEmpty(member.id),
  name: omitEmpty(member.name),
  peerURLs: omitEmpty(member.peerUrls),
  clientURLs: omitEmpty(member.clientUrls),
  isLearner: omitEmpty(member.isLearner),
});

const statusJson = (r: StatusResponse): Json => ({
  header: headerJson(r.header),
  version: omitEmpty(r.version),
  dbSize: omitEmpty(r.dbSize),
  leader: omitEmpty(r.leader),
  raftIndex: omitEmpty(r.raftIndex),
  raftTerm: omitEmpty(r.raftTerm),
  raftAppliedIndex: omitEmpty(r.raftAppliedIndex),
  errors: omitEmpty(r.errors),
  dbSizeInUse: omitEmpty(r.dbSizeInUse),
  isLearner: omitEmpty(r.isLearner),
});

const hashJson = (r: HashKVResponse): Json => ({
  header: headerJson(r.header),
  hash: omitEmpty(r.hash),
  compact_revision: omitEmpty(r.compactRevision),
});

const permissionJson = (permission: Permission): Json => ({
  permType: omitEmpty(permission.permType),
  key: omitEmpty(permission.key),
  range_end: omitEmpty(permission.rangeEnd),
});

const headerOnly = ({ header }: HeaderOnly): Json => ({ header: headerJson(header) });
const members = (r: HeaderOnly & { readonly members: readonly Member[] }): Json => ({
  header: headerJson(r.header),
  members: omitEmpty(r.members.map(memberJson)),
});

/** The answers as JSON values; `hex` turns the ids of a member list into hexadecimal texts. */
export const jsonOf: { readonly [K in keyof Answers]: (answer: Answers[K], hex: boolean) => Json } = {
  get: rangeJson,
  put: putJson,
  del: deleteJson,
  txn: txnJson,
  watch: (r) => ({
    Header: headerJson(r.header) ?? {},
    Events: r.events ? r.events.map(eventJson) : null,
    CompactRevision: r.compactRevision,
    Canceled: r.canceled,
    Created: r.created,
  }),
  leaseGrant: (r) => ({ ...headerFields(r.header), ID: r.id, TTL: r.ttl, Error: r.error }),
  leaseRevoke: headerOnly,
  leaseKeepAlive: (r) => ({ ...headerFields(r.header), ID: r.id, TTL: r.ttl }),
  leaseTimeToLive: (r) => ({
    ...headerFields(r.header),
    id: r.id,
    ttl: r.ttl,
    "granted-ttl": r.grantedTtl,
    keys: r.keys.length === 0 ? null : r.keys,
  }),
  leaseList: (r) => ({ ...headerFields(r.header), leases: r.leases.map(({ id }) => ({ id: id })) }),
  memberAdd: (r) => ({
    header: headerJson(r.header),
    member: r.member && memberJson(r.member),
    members: omitEmpty(r.members.map(memberJson)),
  }),
  memberUpdate: members,
  memberRemove: members,
  memberPromote: members,
  memberList: (r, hex) => (hex ? hexMemberList(r) : members(r)),
  endpointHealth: (all) =>
    all.map(({ endpoint, health, took, error }) => ({
      endpoint: endpoint,
      health: health,
      took: took,
      error: omitEmpty(error),
    })),
  endpointStatus: (all) => all.map(({ endpoint, status }) => ({ Endpoint: endpoint, Status: statusJson(status) })),
  endpointHash: (all) => all.map(({ endpoint, hash }) => ({ Endpoint: endpoint, HashKV: hashJson(hash) })),
  alarm: (r) => ({
    header: headerJson(r.header),
    alarms: omitEmpty(
      r.alarms.map(({ memberId, alarm }) => ({ memberID: omitEmpty(memberId), alarm: omitEmpty(alarm) })),
    ),
  }),
  moveLeader: headerOnly,
  authStatus: (r) => ({
    header: headerJson(r.header),
    enabled: omitEmpty(r.enabled),
    authRevision: omitEmpty(r.authRevision),
  }),
  userAdd: headerOnly,
  userDelete: headerOnly,
  userPasswd: headerOnly,
  userGrantRole: headerOnly,
  userRevokeRole: headerOnly,
  userGet: (r) => ({ header: headerJson(r.header), roles: omitEmpty(r.roles) }),
  userList: (r) => ({ header: headerJson(r.header), users: omitEmpty(r.users) }),
  roleAdd: headerOnly,
  roleDelete: headerOnly,
  roleGet: (r) => ({ header: headerJson(r.header), perm: omitEmpty(r.perm.map(permissionJson)) }),
  roleList: (r) => ({ header: headerJson(r.header), roles: omitEmpty(r.roles) }),
  roleGrantPermission: headerOnly,
  roleRevokePermission: headerOnly,
};

/** With --hex null is left out, clientURLS has a capital S, and learners are not marked: so the 3.5 tool has it. */
function hexMemberList(r: Answers["memberList"]): Json {
  const texts = (values: readonly string[]): Json => (values.length === 0 ? null : values);
  return {
    header: {
      cluster_id: hexId(r.header?.clusterId ?? 0n),
      member_id: hexId(r.header?.memberId ?? 0n),
      raft_term: r.header?.raftTerm ?? 0,
    },
    members: r.members.map((member) => ({
      ID: hexId(member.id),
      name: member.name,
      peerURLs: texts(member.peerUrls),
      clientURLS: texts(member.clientUrls),
    })),
  };
}

/** Any range of keys, a page at a time: the same text as in one piece. */
const pagedRange: PagedRange = {
  first(target, { header }) {
    target.out(`{"header":${encodeJson(headerJson(header) ?? {})}`);
  },
  keys(target, kvs, isFirst) {
    if (kvs.length === 0) return;
    target.out(`${isFirst ? ',"kvs":[' : ","}${kvs.map((kv) => encodeJson(kvJson(kv))).join(",")}`);
  },
  last(target, { more, count }, hasKeys) {
    target.out(`${hasKeys ? "]" : ""}${more ? ',"more":true' : ""}${count > 0 ? `,"count":${count}` : ""}}\n`);
  },
};

const printAll = <K extends keyof Answers>(kind: K) => [
  kind,
  (target: PrintTarget, answer: Answers[K]) => target.out(`${encodeJson(jsonOf[kind](answer, target.hex))}\n`),
];

export const json: Format = {
  ...(Object.fromEntries((Object.keys(jsonOf) as (keyof Answers)[]).map(printAll)) as Format),
  pagedRange,
};
