// One `"Name" : value` a line; texts are quoted as Go quotes them.
import type { KeyValue, ResponseHeader } from "@etcd-ts/client/wire";
import { quote } from "../go/quote.ts";
import {
  alarmNames,
  enumName,
  eventNames,
  type Format,
  type HeaderOnly,
  type PrintTarget,
  permissionNames,
} from "./answers.ts";

const field = (target: PrintTarget, name: string, value: string | number | bigint | boolean): void =>
  target.out(`"${name}" : ${value}\n`);

function headerBlock(target: PrintTarget, header: ResponseHeader | undefined): void {
  field(target, "ClusterID", header?.clusterId ?? 0);
  field(target, "MemberID", header?.memberId ?? 0);
  field(target, "Revision", header?.revision ?? 0);
  field(target, "RaftTerm", header?.raftTerm ?? 0);
}

function kvBlock(target: PrintTarget, prefix: "" | "Prev", kv: KeyValue): void {
  field(target, `${prefix}Key`, quote(kv.key));
  field(target, `${prefix}CreateRevision`, kv.createRevision);
  field(target, `${prefix}ModRevision`, kv.modRevision);
  field(target, `${prefix}Version`, kv.version);
  field(target, `${prefix}Value`, quote(kv.value));
  field(target, `${prefix}Lease`, kv.lease);
}

const headerOnly = (target: PrintTarget, { header }: HeaderOnly): void => headerBlock(target, header);

export const fields: Format = {
  pagedRange: {
    first: (target, { header }) => headerBlock(target, header),
    keys(target, kvs) {
      for (const kv of kvs) kvBlock(target, "", kv);
    },
    last(target, { more, count }) {
      field(target, "More", more);
      field(target, "Count", count);
    },
  },
  get(target, { header, kvs, more, count }) {
    headerBlock(target, header);
    for (const kv of kvs) kvBlock(target, "", kv);
    field(target, "More", more);
    field(target, "Count", count);
  },
  put(target, { header, prevKv }) {
    headerBlock(target, header);
    if (prevKv) kvBlock(target, "Prev", prevKv);
  },
  del(target, { header, deleted, prevKvs }) {
    headerBlock(target, header);
    field(target, "Deleted", deleted);
    for (const kv of prevKvs) kvBlock(target, "Prev", kv);
  },
  txn(target, { header, succeeded, responses }) {
    headerBlock(target, header);
    field(target, "Succeeded", succeeded);
    for (const { response } of responses) {
      switch (response?.kind) {
        case "responseRange":
          fields.get?.(target, response.value);
          break;
        case "responsePut":
          fields.put?.(target, response.value);
          break;
        case "responseDeleteRange":
          fields.del?.(target, response.value);
          break;
        case "responseTxn":
          fields.txn?.(target, response.value);
          break;
      }
    }
  },
  watch(target, { header, events }) {
    headerBlock(target, header);
    for (const event of events ?? []) {
      field(target, "Type", enumName(eventNames, event.type));
      if (event.prevKv) kvBlock(target, "Prev", event.prevKv);
      if (event.kv) kvBlock(target, "", event.kv);
    }
  },
  leaseGrant(target, { header, id, ttl }) {
    headerBlock(target, header);
    field(target, "ID", id);
    field(target, "TTL", ttl);
  },
  leaseRevoke: headerOnly,
  leaseKeepAlive(target, { header, id, ttl }) {
    headerBlock(target, header);
    field(target, "ID", id);
    field(target, "TTL", ttl);
  },
  leaseTimeToLive(target, { header, id, ttl, grantedTtl, keys }) {
    headerBlock(target, header);
    field(target, "ID", id);
    field(target, "TTL", ttl);
    field(target, "GrantedTTL", grantedTtl);
    for (const key of keys) field(target, "Key", quote(key));
  },
  leaseList(target, { header, leases }) {
    headerBlock(target, header);
    for (const { id } of leases) field(target, "ID", id);
  },
  memberList(target, { header, members }) {
    headerBlock(target, header);
    for (const member of members) {
      field(target, "ID", member.id);
      field(target, "Name", quote(member.name));
      for (const url of member.peerUrls) field(target, "PeerURL", quote(url));
      for (const url of member.clientUrls) field(target, "ClientURL", quote(url));
      field(target, "IsLearner", member.isLearner);
      target.out("\n");
    }
  },
  endpointHealth(target, list) {
    for (const { endpoint, health, took, error } of list) {
      field(target, "Endpoint", quote(endpoint));
      field(target, "Health", health);
      field(target, "Took", took);
      field(target, "Error", error);
      target.out("\n");
    }
  },
  endpointStatus(target, list) {
    for (const { endpoint, status } of list) {
      headerBlock(target, status.header);
      field(target, "Version", quote(status.version));
      field(target, "DBSize", status.dbSize);
      field(target, "Leader", status.leader);
      field(target, "IsLearner", status.isLearner);
      field(target, "RaftIndex", status.raftIndex);
      field(target, "RaftTerm", status.raftTerm);
      field(target, "RaftAppliedIndex", status.raftAppliedIndex);
      field(target, "Errors", `[${status.errors.join(" ")}]`);
      field(target, "Endpoint", quote(endpoint));
      target.out("\n");
    }
  },
  endpointHash(target, list) {
    for (const { endpoint, hash } of list) {
      headerBlock(target, hash.header);
      field(target, "Endpoint", quote(endpoint));
      field(target, "Hash", hash.hash);
      target.out("\n");
    }
  },
  alarm(target, { header, alarms }) {
    headerBlock(target, header);
    for (const { memberId, alarm } of alarms) {
      field(target, "MemberID", memberId);
      field(target, "AlarmType", enumName(alarmNames, alarm));
      target.out("\n");
    }
  },
  userAdd: headerOnly,
  userDelete: headerOnly,
  userPasswd: headerOnly,
  userGrantRole: headerOnly,
  userRevokeRole: headerOnly,
  roleAdd: headerOnly,
  roleDelete: headerOnly,
  roleGet(target, { header, perm }) {
    headerBlock(target, header);
    for (const { permType, key, rangeEnd } of perm) {
      field(target, "PermType", ` ${enumName(permissionNames, permType)}`);
      field(target, "Key", quote(key));
      field(target, "RangeEnd", quote(rangeEnd));
    }
  },
  roleList(target, { header, roles }) {
    headerBlock(target, header);
    target.out(`"Roles" :${roles.map((role) => ` ${quote(role)}`).join("")}\n`);
  },
  roleGrantPermission: headerOnly,
  roleRevokePermission: headerOnly,
};
