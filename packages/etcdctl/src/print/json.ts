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
import { base64, boolean, type Json, list, nothing, number, object, optional, string } from "../go/json.ts";
import { hexId } from "../go/strconv.ts";
import type { Answers, Format, HeaderOnly, PrintTarget } from "./answers.ts";

const headerFields = (header: ResponseHeader | undefined) => ({
  cluster_id: optional.number(header?.clusterId ?? 0n),
  member_id: optional.number(header?.memberId ?? 0n),
  revision: optional.number(header?.revision ?? 0),
  raft_term: optional.number(header?.raftTerm ?? 0),
});

const headerJson = (header: ResponseHeader | undefined): Json | undefined => header && object(headerFields(header));

const kvJson = (kv: KeyValue): Json =>
  object({
    key: optional.base64(kv.key),
    create_revision: optional.number(kv.createRevision),
    mod_revision: optional.number(kv.modRevision),
    version: optional.number(kv.version),
    value: optional.base64(kv.value),
    lease: optional.number(kv.lease),
  });

const rangeJson = (r: RangeResponse): Json =>
  object({
    header: headerJson(r.header),
    kvs: optional.list(r.kvs, kvJson),
    more: optional.boolean(r.more),
    count: optional.number(r.count),
  });

const putJson = (r: PutResponse): Json =>
  object({ header: headerJson(r.header), prev_kv: r.prevKv && kvJson(r.prevKv) });

const deleteJson = (r: DeleteRangeResponse): Json =>
  object({
    header: headerJson(r.header),
    deleted: optional.number(r.deleted),
    prev_kvs: optional.list(r.prevKvs, kvJson),
  });

const txnJson = (r: TxnResponse): Json =>
  object({
    header: headerJson(r.header),
    succeeded: optional.boolean(r.succeeded),
    responses: optional.list(r.responses, responseOpJson),
  });

function responseOpJson({ response }: ResponseOp): Json {
  switch (response?.kind) {
    case "responseRange":
      return object({ Response: object({ response_range: rangeJson(response.value) }) });
    case "responsePut":
      return object({ Response: object({ response_put: putJson(response.value) }) });
    case "responseDeleteRange":
      return object({ Response: object({ response_delete_range: deleteJson(response.value) }) });
    case "responseTxn":
      return object({ Response: object({ response_txn: txnJson(response.value) }) });
    case undefined:
      return object({ Response: nothing });
  }
}

const eventJson = (event: Event): Json =>
  object({
    type: optional.number(event.type),
    kv: event.kv && kvJson(event.kv),
    prev_kv: event.prevKv && kvJson(event.prevKv),
  });

const memberJson = (member: Member): Json =>
  object({
    ID: optional.number(member.id),
    name: optional.string(member.name),
    peerURLs: optional.list(member.peerUrls, string),
    clientURLs: optional.list(member.clientUrls, string),
    isLearner: optional.boolean(member.isLearner),
  });

const statusJson = (r: StatusResponse): Json =>
  object({
    header: headerJson(r.header),
    version: optional.string(r.version),
    dbSize: optional.number(r.dbSize),
    leader: optional.number(r.leader),
    raftIndex: optional.number(r.raftIndex),
    raftTerm: optional.number(r.raftTerm),
    raftAppliedIndex: optional.number(r.raftAppliedIndex),
    errors: optional.list(r.errors, string),
    dbSizeInUse: optional.number(r.dbSizeInUse),
    isLearner: optional.boolean(r.isLearner),
  });

const hashJson = (r: HashKVResponse): Json =>
  object({
    header: headerJson(r.header),
    hash: optional.number(r.hash),
    compact_revision: optional.number(r.compactRevision),
  });

const permissionJson = (permission: Permission): Json =>
  object({
    permType: optional.number(permission.permType),
    key: optional.base64(permission.key),
    range_end: optional.base64(permission.rangeEnd),
  });

const headerOnly = ({ header }: HeaderOnly): Json => object({ header: headerJson(header) });
const members = (r: HeaderOnly & { readonly members: readonly Member[] }): Json =>
  object({ header: headerJson(r.header), members: optional.list(r.members, memberJson) });

/** The answers as JSON values; `hex` turns the ids of a member list into hexadecimal texts. */
export const jsonOf: { readonly [K in keyof Answers]: (answer: Answers[K], hex: boolean) => Json } = {
  get: rangeJson,
  put: putJson,
  del: deleteJson,
  txn: txnJson,
  watch: (r) =>
    object({
      Header: headerJson(r.header) ?? object({}),
      Events: r.events ? list(r.events.map(eventJson)) : nothing,
      CompactRevision: number(r.compactRevision),
      Canceled: boolean(r.canceled),
      Created: boolean(r.created),
    }),
  leaseGrant: (r) =>
    object({ ...headerFields(r.header), ID: number(r.id), TTL: number(r.ttl), Error: string(r.error) }),
  leaseRevoke: headerOnly,
  leaseKeepAlive: (r) => object({ ...headerFields(r.header), ID: number(r.id), TTL: number(r.ttl) }),
  leaseTimeToLive: (r) =>
    object({
      ...headerFields(r.header),
      id: number(r.id),
      ttl: number(r.ttl),
      "granted-ttl": number(r.grantedTtl),
      keys: r.keys.length === 0 ? nothing : list(r.keys.map(base64)),
    }),
  leaseList: (r) =>
    object({ ...headerFields(r.header), leases: list(r.leases.map(({ id }) => object({ id: number(id) }))) }),
  memberAdd: (r) =>
    object({
      header: headerJson(r.header),
      member: r.member && memberJson(r.member),
      members: optional.list(r.members, memberJson),
    }),
  memberUpdate: members,
  memberRemove: members,
  memberPromote: members,
  memberList: (r, hex) => (hex ? hexMemberList(r) : members(r)),
  endpointHealth: (all) =>
    list(
      all.map(({ endpoint, health, took, error }) =>
        object({
          endpoint: string(endpoint),
          health: boolean(health),
          took: string(took),
          error: optional.string(error),
        }),
      ),
    ),
  endpointStatus: (all) =>
    list(all.map(({ endpoint, status }) => object({ Endpoint: string(endpoint), Status: statusJson(status) }))),
  endpointHash: (all) =>
    list(all.map(({ endpoint, hash }) => object({ Endpoint: string(endpoint), HashKV: hashJson(hash) }))),
  alarm: (r) =>
    object({
      header: headerJson(r.header),
      alarms: optional.list(r.alarms, ({ memberId, alarm }) =>
        object({ memberID: optional.number(memberId), alarm: optional.number(alarm) }),
      ),
    }),
  moveLeader: headerOnly,
  authStatus: (r) =>
    object({
      header: headerJson(r.header),
      enabled: optional.boolean(r.enabled),
      authRevision: optional.number(r.authRevision),
    }),
  userAdd: headerOnly,
  userDelete: headerOnly,
  userPasswd: headerOnly,
  userGrantRole: headerOnly,
  userRevokeRole: headerOnly,
  userGet: (r) => object({ header: headerJson(r.header), roles: optional.list(r.roles, string) }),
  userList: (r) => object({ header: headerJson(r.header), users: optional.list(r.users, string) }),
  roleAdd: headerOnly,
  roleDelete: headerOnly,
  roleGet: (r) => object({ header: headerJson(r.header), perm: optional.list(r.perm, permissionJson) }),
  roleList: (r) => object({ header: headerJson(r.header), roles: optional.list(r.roles, string) }),
  roleGrantPermission: headerOnly,
  roleRevokePermission: headerOnly,
};

/** With --hex nothing is left out, clientURLS has a capital S, and learners are not marked: so the 3.5 tool has it. */
function hexMemberList(r: Answers["memberList"]): Json {
  const texts = (values: readonly string[]): Json => (values.length === 0 ? nothing : list(values.map(string)));
  return object({
    header: object({
      cluster_id: string(hexId(r.header?.clusterId ?? 0n)),
      member_id: string(hexId(r.header?.memberId ?? 0n)),
      raft_term: number(r.header?.raftTerm ?? 0),
    }),
    members: list(
      r.members.map((member) =>
        object({
          ID: string(hexId(member.id)),
          name: string(member.name),
          peerURLs: texts(member.peerUrls),
          clientURLS: texts(member.clientUrls),
        }),
      ),
    ),
  });
}

const printAll = <K extends keyof Answers>(kind: K) => [
  kind,
  (target: PrintTarget, answer: Answers[K]) => target.out(`${jsonOf[kind](answer, target.hex).json}\n`),
];

export const json = Object.fromEntries((Object.keys(jsonOf) as (keyof Answers)[]).map(printAll)) as Format;
