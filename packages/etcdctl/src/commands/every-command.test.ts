// Each command once, by its plainest line: what it asks the cluster for, what it prints. A command without a row fails
// the last test. What is particular to single commands is in the tests beside them.
import { createHash } from "node:crypto";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { expect, test } from "vitest";
import type { CommandSpec } from "../cli/command.ts";
import { root } from "../cli/tree.ts";
import { type Answers, etcdctl, type FakeOptions, header, kv, watchResponse } from "../testing/harness.ts";

const MEMBER = 10276657743932975437n;
const member = {
  id: MEMBER,
  name: "default",
  peerUrls: ["http://localhost:2380"],
  clientUrls: ["http://127.0.0.1:2379"],
  isLearner: false,
};
const done = () => ({ header: header(5) });
const members = () => ({ header: header(0), members: [member] });
const status = () => ({
  header: header(5),
  version: "3.5.16",
  dbSize: 20480,
  leader: MEMBER,
  raftIndex: 9,
  raftTerm: 2,
  raftAppliedIndex: 9,
  errors: [],
  dbSizeInUse: 16384,
  isLearner: false,
});
const folder = fs.mkdtempSync(path.join(os.tmpdir(), "every-command-"));
const stop = AbortSignal.abort("SIGINT");

interface Row extends FakeOptions {
  /** The command's name, then its arguments. */
  readonly line: readonly [string, ...string[]];
  /** Names of the calls, in order; those of a session come through the client's own classes. */
  readonly calls?: readonly string[];
  readonly out: string;
  readonly err?: string;
  readonly exit?: number;
}

const row = (
  line: Row["line"],
  answers: Answers,
  out: string,
  rest: Omit<Row, "line" | "answers" | "out"> = {},
): Row => ({ line, answers, out, calls: Object.keys(answers), ...rest });

/** For those who get what they came for at once, and are then told to stop. */
const contender: Answers = {
  LeaseGrant: () => ({ header: header(5), id: 0x1fn, ttl: 10 }),
  Txn: () => ({
    header: header(5),
    succeeded: true,
    responses: [{ response: { kind: "responsePut", value: {} } }, { response: { kind: "responseRange", value: {} } }],
  }),
  Range: () => ({ header: header(5), kvs: [kv("l/1f", "me")], count: 1 }),
  DeleteRange: () => ({ header: header(6), deleted: 1 }),
};

const etcdutl = { child: () => ({ kind: "exited", code: 0 }) as const, calls: [] };

const rows: readonly Row[] = [
  row(["get", "k"], { Range: () => ({ header: header(5), kvs: [kv("k", "v")], count: 1 }) }, "k\nv\n"),
  row(["put", "k", "v"], { Put: done }, "OK\n"),
  row(["del", "k"], { DeleteRange: () => ({ header: header(5), deleted: 1 }) }, "1\n"),
  row(["txn"], { Txn: () => ({ header: header(5), succeeded: true, responses: [] }) }, "SUCCESS\n", {
    stdin: "\n\n\n",
  }),
  row(["compaction", "4"], { Compact: done }, "compacted revision 4\n"),
  row(
    ["alarm list"],
    { Alarm: () => ({ alarms: [{ memberId: MEMBER, alarm: 1 }] }) },
    `memberID:${MEMBER} alarm:NOSPACE \n`,
  ),
  row(["alarm disarm"], { Alarm: () => ({ alarms: [] }) }, ""),
  row(["defrag"], { Defragment: done }, "Finished defragmenting etcd member[127.0.0.1:2379]\n"),
  row(
    ["endpoint health"],
    { Range: done, Alarm: () => ({ alarms: [] }) },
    "127.0.0.1:2379 is healthy: successfully committed proposal: took = 1.5ms\n",
  ),
  row(
    ["endpoint status"],
    { Status: status },
    "127.0.0.1:2379, 8e9e05c52164694d, 3.5.16, 20 kB, true, false, 2, 9, 9, \n",
  ),
  row(
    ["endpoint hashkv"],
    { HashKV: () => ({ header: header(5), hash: 7, compactRevision: -1 }) },
    "127.0.0.1:2379, 7\n",
  ),
  row(
    ["move-leader", "1f"],
    { Status: status, MoveLeader: done },
    "Leadership transferred from 8e9e05c52164694d to 1f\n",
  ),
  row(["watch", "k"], {}, "PUT\nk\nv\n", {
    watch: () => [watchResponse({ events: [{ type: 0, kv: kv("k", "v"), prevKv: undefined }] })],
    calls: ["Watch"],
    exit: 5,
    err: "Error: watch is canceled by the server\n",
  }),
  row(["version"], {}, "etcdctl version: 3.5.16\nAPI version: 3.5\n"),
  row(
    ["lease grant", "10"],
    { LeaseGrant: () => ({ header: header(5), id: 0x1fn, ttl: 10 }) },
    "lease 000000000000001f granted with TTL(10s)\n",
  ),
  row(["lease revoke", "1f"], { LeaseRevoke: done }, "lease 000000000000001f revoked\n"),
  row(
    ["lease timetolive", "1f"],
    { LeaseTimeToLive: () => ({ header: header(5), id: 0x1fn, ttl: 7, grantedTtl: 10, keys: [] }) },
    "lease 000000000000001f granted with TTL(10s), remaining(7s)\n",
  ),
  row(
    ["lease list"],
    { LeaseLeases: () => ({ header: header(5), leases: [{ id: 0x1fn }] }) },
    "found 1 leases\n000000000000001f\n",
  ),
  row(
    ["lease keep-alive", "1f"],
    {},
    "lease 000000000000001f keepalived with TTL(10)\nlease 000000000000001f expired or revoked.\n",
    {
      keepAlive: (id) => [{ header: header(5), id, ttl: 10 }],
      calls: [],
    },
  ),
  row(
    ["member add", "new", "--peer-urls=http://h:2380"],
    {
      MemberAdd: () => {
        const added = { ...member, id: 0x1fn, name: "", peerUrls: ["http://h:2380"], clientUrls: [] };
        return { header: header(0), member: added, members: [member, added] };
      },
    },
    `Member 000000000000001f added to cluster cdf818194e3a8c32

ETCD_NAME="new"
ETCD_INITIAL_CLUSTER="default=http://localhost:2380,new=http://h:2380"
ETCD_INITIAL_ADVERTISE_PEER_URLS="http://h:2380"
ETCD_INITIAL_CLUSTER_STATE="existing"
`.replace("000000000000001f", "              1f"),
  ),
  row(
    ["member remove", "1f"],
    { MemberRemove: members },
    "Member               1f removed from cluster cdf818194e3a8c32\n",
  ),
  row(
    ["member update", "1f", "--peer-urls=http://h:2380"],
    { MemberUpdate: members },
    "Member               1f updated in cluster cdf818194e3a8c32\n",
  ),
  row(
    ["member list"],
    { MemberList: members },
    "8e9e05c52164694d, started, default, http://localhost:2380, http://127.0.0.1:2379, false\n",
  ),
  row(
    ["member promote", "1f"],
    { MemberPromote: members },
    "Member               1f promoted in cluster cdf818194e3a8c32\n",
  ),
  row(["snapshot save", path.join(folder, "s.db")], {}, `Snapshot saved at ${path.join(folder, "s.db")}\n`, {
    stream: () => [{ header: undefined, remainingBytes: 0, blob: createHash("sha256").digest() }],
    calls: [],
  }),
  row(["snapshot restore", "s.db"], {}, "", etcdutl),
  row(["snapshot status", "s.db"], {}, "", etcdutl),
  row(["make-mirror", "dest:2379"], { Range: () => ({ header: header(5), kvs: [], count: 0 }) }, "", {
    watch: () => [],
    calls: ["Range", "Watch"],
    exit: 1,
    err: "Error: the watch of the source ended\n",
  }),
  row(["lock", "l"], contender, "l/1f\nme\n", { signal: stop, calls: ["LeaseGrant", "Txn", "Range", "DeleteRange"] }),
  row(["elect", "e", "me"], contender, "", {
    signal: stop,
    calls: ["LeaseGrant", "Txn", "Range", "Watch", "Txn"],
    exit: 1,
    err: "Error: context canceled\n",
  }),
  row(["auth enable"], { AuthEnable: done }, "Authentication Enabled\n"),
  row(["auth disable"], { AuthDisable: done }, "Authentication Disabled\n"),
  row(
    ["auth status"],
    { AuthStatus: () => ({ header: header(5), enabled: true, authRevision: 3 }) },
    "Authentication Status: true\nAuthRevision: 3\n",
  ),
  row(["user add", "alice:secret"], { UserAdd: done }, "User alice created\n"),
  row(["user get", "alice"], { UserGet: () => ({ header: header(5), roles: ["r"] }) }, "User: alice\nRoles: r\n"),
  row(["user list"], { UserList: () => ({ header: header(5), users: ["alice", "root"] }) }, "alice\nroot\n"),
  row(["user delete", "alice"], { UserDelete: done }, "User alice deleted\n"),
  row(["user passwd", "alice", "--interactive=false"], { UserChangePassword: done }, "Password updated\n", {
    stdin: "new\n",
  }),
  row(["user grant-role", "alice", "r"], { UserGrantRole: done }, "Role r is granted to user alice\n"),
  row(["user revoke-role", "alice", "r"], { UserRevokeRole: done }, "Role r is revoked from user alice\n"),
  row(["role add", "r"], { RoleAdd: done }, "Role r created\n"),
  row(
    ["role get", "r"],
    {
      RoleGet: () => ({
        header: header(5),
        perm: [{ permType: 0, key: Buffer.from("k"), rangeEnd: new Uint8Array(0) }],
      }),
    },
    "Role r\nKV Read:\n\tk\nKV Write:\n",
  ),
  row(["role list"], { RoleList: () => ({ header: header(5), roles: ["r", "root"] }) }, "r\nroot\n"),
  row(["role delete", "r"], { RoleDelete: done }, "Role r deleted\n"),
  row(["role grant-permission", "r", "read", "k"], { RoleGrantPermission: done }, "Role r updated\n"),
  row(
    ["role revoke-permission", "r", "k"],
    { RoleRevokePermission: done },
    "Permission of key k is revoked from role r\n",
  ),
  row(["check perf"], { Range: () => ({ header: header(5), kvs: [kv("x", "")], count: 1 }) }, "", {
    exit: 3,
    err: "Error: prefix \"/etcdctl-check-perf/\" has keys. Delete with 'etcdctl del --prefix /etcdctl-check-perf/' first\n",
  }),
  row(["check datascale"], { Range: () => ({ header: header(5), kvs: [kv("x", "")], count: 1 }) }, "", {
    exit: 3,
    err: 'Error: prefix "/etcdctl-check-datascale/" has keys. Delete with etcdctl del --prefix /etcdctl-check-datascale/ first\n',
  }),
];

test.each(rows.map((each) => [each.line.join(" "), each] as const))("etcdctl %s", async (_, each) => {
  const { line, out, err, exit = 0, calls = [], ...options } = each;
  const [name, ...args] = line;
  const outcome = await etcdctl([...name.split(" "), ...args], options);
  expect({ exit: outcome.exit, out: outcome.out }).toEqual({ exit, out });
  if (err !== undefined) expect(outcome.err).toBe(err);
  expect(outcome.calls.map(({ method }) => method)).toEqual(calls);
});

test("snapshot restore, status and defrag of a directory are etcdutl's work", async () => {
  const { children } = await etcdctl(["snapshot", "restore", "s.db", "--name=n"], etcdutl);
  expect(children[0]?.words).toEqual([
    "/our/etcdutl",
    "snapshot",
    "restore",
    "--data-dir=n.etcd",
    "--initial-memory-map-size=0",
    "--name=n",
    "--write-out=simple",
    "--",
    "s.db",
  ]);
  // A database that both servers start on.
  expect(children[0]?.env).toEqual({ ETCDUTL_BACKEND: "bbolt" });
  const chosen = await etcdctl(["snapshot", "restore", "s.db"], { ...etcdutl, env: { ETCDUTL_BACKEND: "lmdb" } });
  expect(chosen.children[0]?.env).toEqual({ ETCDUTL_BACKEND: "lmdb" });
});

test("every command has its row", () => {
  const leaves = (command: CommandSpec, prefix: string): string[] =>
    (command.subcommands ?? []).flatMap((sub) =>
      sub.subcommands ? leaves(sub, `${prefix}${sub.name} `) : [`${prefix}${sub.name}`],
    );
  const tested = new Set(rows.map(({ line }) => line[0]));
  const missing = leaves(root, "").filter((name) => !tested.has(name) && !/^(help|completion)/.test(name));
  expect(missing).toEqual([]);
});
