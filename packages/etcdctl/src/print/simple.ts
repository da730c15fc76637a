// The format for people and shell scripts.
import type { KeyValue, Permission } from "@etcd-ts/client/wire";
import { noColors } from "../color.ts";
import { fromBytes } from "../go/bytes.ts";
import { blankHex16, hex16, hexId } from "../go/strconv.ts";
import { prefixEnd } from "../keys.ts";
import { type Answers, enumName, eventNames, type Format, type PrintTarget } from "./answers.ts";
import { alarmText, hashRows, memberRows, type Rows, statusRows } from "./rows.ts";

export const simple: Format = {
  pagedRange: {
    keys(target, kvs) {
      for (const kv of kvs) keyValue(target, kv);
    },
  },
  get(target, { kvs }) {
    for (const kv of kvs) keyValue(target, kv);
  },
  put(target, { prevKv }) {
    target.out("OK\n");
    if (prevKv) keyValue(target, prevKv);
  },
  del(target, { deleted, prevKvs }) {
    target.out(`${deleted}\n`);
    for (const kv of prevKvs) keyValue(target, kv);
  },
  txn(target, { succeeded, responses }) {
    target.out(succeeded ? "SUCCESS\n" : "FAILURE\n");
    for (const { response } of responses) {
      target.out("\n");
      switch (response?.kind) {
        case "responseRange":
          simple.get?.(target, response.value);
          break;
        case "responsePut":
          simple.put?.(target, response.value);
          break;
        case "responseDeleteRange":
          simple.del?.(target, response.value);
          break;
        case "responseTxn":
          simple.txn?.(target, response.value);
          break;
      }
    }
  },
  watch(target, { events }) {
    for (const event of events ?? []) {
      const name = enumName(eventNames, event.type);
      target.out(`${event.type === 1 ? target.colors.bad(name) : target.colors.good(name)}\n`);
      if (event.prevKv) keyValue(target, event.prevKv);
      if (event.kv) keyValue(target, event.kv);
    }
  },

  leaseGrant: (target, { id, ttl }) => target.out(`lease ${hex16(id)} granted with TTL(${ttl}s)\n`),
  leaseRevoke: (target, { id }) => target.out(`lease ${hex16(id)} revoked\n`),
  leaseKeepAlive: (target, { id, ttl }) =>
    target.out(
      ttl > 0 ? `lease ${hex16(id)} keepalived with TTL(${ttl})\n` : `lease ${hex16(id)} expired or revoked.\n`,
    ),
  leaseTimeToLive(target, { id, ttl, grantedTtl, keys, withKeys }) {
    if (grantedTtl === 0 && ttl === -1) {
      target.out(`lease ${hex16(id)} already expired\n`);
      return;
    }
    target.out(`lease ${hex16(id)} granted with TTL(${grantedTtl}s), remaining(${ttl}s)`);
    if (withKeys) target.out(`, attached keys([${keys.map(fromBytes).join(" ")}])`);
    target.out("\n");
  },
  leaseList(target, { leases }) {
    target.out(`found ${leases.length} leases\n`);
    for (const { id } of leases) target.out(`${hex16(id)}\n`);
  },

  memberAdd: (target, { header, member }) =>
    target.out(`Member ${blankHex16(member?.id ?? 0n)} added to cluster ${blankHex16(header?.clusterId ?? 0n)}\n`),
  memberUpdate: (target, { header, id }) =>
    target.out(`Member ${blankHex16(id)} updated in cluster ${blankHex16(header?.clusterId ?? 0n)}\n`),
  memberRemove: (target, { header, id }) =>
    target.out(`Member ${blankHex16(id)} removed from cluster ${blankHex16(header?.clusterId ?? 0n)}\n`),
  memberPromote: (target, { header, id }) =>
    target.out(`Member ${blankHex16(id)} promoted in cluster ${blankHex16(header?.clusterId ?? 0n)}\n`),
  memberList: (target, answer) => joined(target, memberRows(answer)),

  endpointHealth(target, list) {
    for (const { endpoint, took, error } of list) {
      if (error === "") target.out(`${endpoint} is healthy: successfully committed proposal: took = ${took}\n`);
      else target.complain(`${endpoint} is unhealthy: failed to commit proposal: ${error}`);
    }
  },
  endpointStatus: (target, list) => joined(target, statusRows(list)),
  endpointHash: (target, list) => joined(target, hashRows(list)),
  alarm(target, { alarms }) {
    for (const alarm of alarms) target.out(`${alarmText(alarm)}\n`);
  },
  moveLeader: (target, { from, to }) => target.out(`Leadership transferred from ${hexId(from)} to ${hexId(to)}\n`),

  authStatus(target, { enabled, authRevision }) {
    target.out(`Authentication Status: ${enabled}\nAuthRevision: ${authRevision}\n`);
  },
  userAdd: (target, { user }) => target.out(`User ${user} created\n`),
  userDelete: (target, { user }) => target.out(`User ${user} deleted\n`),
  userPasswd: (target) => target.out("Password updated\n"),
  userGrantRole: (target, { user, role }) => target.out(`Role ${role} is granted to user ${user}\n`),
  userRevokeRole: (target, { user, role }) => target.out(`Role ${role} is revoked from user ${user}\n`),
  userGet(target, { user, roles }) {
    target.out(`User: ${user}\nRoles:${roles.map((role) => ` ${role}`).join("")}\n`);
  },
  userList(target, { users }) {
    for (const user of users) target.out(`${user}\n`);
  },
  roleAdd: (target, { role }) => target.out(`Role ${role} created\n`),
  roleDelete: (target, { role }) => target.out(`Role ${role} deleted\n`),
  roleGet,
  roleList(target, { roles }) {
    for (const role of roles) target.out(`${role}\n`);
  },
  roleGrantPermission: (target, { role }) => target.out(`Role ${role} updated\n`),
  roleRevokePermission(target, { role, key, rangeEnd }) {
    if (rangeEnd === "") target.out(`Permission of key ${key} is revoked from role ${role}\n`);
    else if (rangeEnd === "\0") target.out(`Permission of range [${key}, <open ended> is revoked from role ${role}\n`);
    else target.out(`Permission of range [${key}, ${rangeEnd}) is revoked from role ${role}\n`);
  },
};

function keyValue(target: PrintTarget, { key, value }: KeyValue): void {
  if (!target.valueOnly) {
    if (target.colors === noColors) line(target, key);
    else target.out(`${target.colors.name(target.hex ? escaped(key) : fromBytes(key))}\n`);
  }
  line(target, value);
}

const NEWLINE = Uint8Array.of(10);

function line(target: PrintTarget, bytes: Uint8Array): void {
  target.out(target.hex ? escaped(bytes) : bytes);
  target.out(NEWLINE);
}

const escaped = (bytes: Uint8Array): string =>
  Array.from(bytes, (byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join("");

function joined(target: PrintTarget, { rows }: Rows): void {
  for (const row of rows) target.out(`${row.join(", ")}\n`);
}

const READ = 0;
const WRITE = 1;

function roleGet(target: PrintTarget, { role, perm }: Answers["roleGet"]): void {
  target.out(`Role ${role}\nKV Read:\n`);
  for (const permission of perm) if (permission.permType !== WRITE) target.out(`\t${rangeText(permission)}\n`);
  target.out("KV Write:\n");
  for (const permission of perm) if (permission.permType !== READ) target.out(`\t${rangeText(permission)}\n`);
}

function rangeText({ key, rangeEnd }: Permission): string {
  const from = fromBytes(key);
  const to = fromBytes(rangeEnd);
  if (to === "") return from;
  const range = to === "\0" ? `[${from}, <open ended>` : `[${from}, ${to})`;
  return fromBytes(prefixEnd(key)) === to ? `${range} (prefix ${from})` : range;
}
