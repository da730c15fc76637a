import { createHash } from "node:crypto";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { expect, test } from "vitest";
import { etcdctl, etcdError, header, rpcError } from "../testing/harness.ts";

const MEMBER = 10276657743932975437n;
const member = {
  id: MEMBER,
  name: "default",
  peerUrls: ["http://localhost:2380"],
  clientUrls: ["http://127.0.0.1:2379"],
  isLearner: false,
};
const noRevision = { ...header(0) };

test("lease grant, revoke and timetolive speak of the lease in 16 digits", async () => {
  const granted = await etcdctl(["lease", "grant", "10"], {
    answers: { LeaseGrant: () => ({ header: header(1), id: 0x1fn, ttl: 10 }) },
  });
  expect(granted.out).toBe("lease 000000000000001f granted with TTL(10s)\n");
  const revoked = await etcdctl(["lease", "revoke", "1f"], { answers: { LeaseRevoke: () => ({ header: header(2) }) } });
  expect(revoked.out).toBe("lease 000000000000001f revoked\n");
  const alive = { header: header(2), id: 0x1fn, ttl: 9, grantedTtl: 10, keys: [Buffer.from("a"), Buffer.from("b")] };
  const keys = await etcdctl(["lease", "timetolive", "1f", "--keys"], { answers: { LeaseTimeToLive: () => alive } });
  expect(keys.out).toBe("lease 000000000000001f granted with TTL(10s), remaining(9s), attached keys([a b])\n");
  const gone = { header: header(2), id: -1n, ttl: -1, grantedTtl: 0, keys: [] };
  const past = await etcdctl(["lease", "timetolive", "-w", "simple", "--", "-1"], {
    answers: { LeaseTimeToLive: () => gone },
  });
  expect(past.out).toBe("lease -000000000000001 already expired\n");
});

test("lease commands have the exit codes of etcdctl", async () => {
  const fail = () => {
    throw etcdError("etcdserver: requested lease not found");
  };
  const answers = { LeaseRevoke: fail, LeaseLeases: fail, LeaseTimeToLive: fail };
  expect(await etcdctl(["lease", "revoke", "1f"], { answers })).toMatchObject({
    exit: 1,
    err: "Error: failed to revoke lease (etcdserver: requested lease not found)\n",
  });
  expect(await etcdctl(["lease", "list"], { answers })).toMatchObject({ exit: 2 });
  expect(await etcdctl(["lease", "keep-alive", "--once", "1f"])).toMatchObject({
    exit: 2,
    err: "Error: etcdserver: requested lease not found\n",
  });
});

test("lease keep-alive prints renewals and the end", async () => {
  const keepAlive = (id: bigint) => [
    { header: header(1), id, ttl: 10 },
    { header: header(1), id, ttl: 10 },
  ];
  const { out, exit } = await etcdctl(["lease", "keep-alive", "1f"], { keepAlive });
  const line = "lease 000000000000001f keepalived with TTL(10)\n";
  expect({ out, exit }).toEqual({ out: `${line}${line}lease 000000000000001f expired or revoked.\n`, exit: 0 });
});

test("member list has all formats", async () => {
  const learner = { id: 5n, name: "", peerUrls: ["http://a:1", "http://b:1"], clientUrls: [], isLearner: true };
  const answers = { MemberList: () => ({ header: noRevision, members: [member, learner] }) };
  const out = async (...words: string[]) => (await etcdctl(["member", "list", ...words], { answers })).out;
  expect(await out()).toBe(
    "8e9e05c52164694d, started, default, http://localhost:2380, http://127.0.0.1:2379, false\n" +
      "5, unstarted, , http://a:1,http://b:1, , true\n",
  );
  expect(await out("-w", "json", "--hex")).toContain(
    '{"ID":"5","name":"","peerURLs":["http://a:1","http://b:1"],"clientURLS":null}',
  );
  expect(await out("-w", "table")).toBe(
    [
      "+------------------+-----------+---------+-----------------------+-----------------------+------------+",
      "|        ID        |  STATUS   |  NAME   |      PEER ADDRS       |     CLIENT ADDRS      | IS LEARNER |",
      "+------------------+-----------+---------+-----------------------+-----------------------+------------+",
      "| 8e9e05c52164694d |   started | default | http://localhost:2380 | http://127.0.0.1:2379 |      false |",
      "|                5 | unstarted |         | http://a:1,http://b:1 |                       |       true |",
      "+------------------+-----------+---------+-----------------------+-----------------------+------------+",
      "",
    ].join("\n"),
  );
});

test("member add says what the new member's environment must hold", async () => {
  const added = { id: 0x1fn, name: "", peerUrls: ["http://b:1"], clientUrls: [], isLearner: false };
  const answers = { MemberAdd: () => ({ header: noRevision, member: added, members: [member, added] }) };
  const { out, calls } = await etcdctl(["member", "add", "two", "--peer-urls=http://b:1"], { answers });
  expect(calls[0]?.request).toEqual({ peerUrls: ["http://b:1"], isLearner: false });
  expect(out).toBe(
    "Member               1f added to cluster cdf818194e3a8c32\n\n" +
      'ETCD_NAME="two"\nETCD_INITIAL_CLUSTER="default=http://localhost:2380,two=http://b:1"\n' +
      'ETCD_INITIAL_ADVERTISE_PEER_URLS="http://b:1"\nETCD_INITIAL_CLUSTER_STATE="existing"\n',
  );
});

test.each([
  [["member", "add"], 128, "member name not provided"],
  [["member", "add", "x", "HTTP://a:1", "y"], 128, "too many arguments, did you mean --peer-urls=HTTP://a:1"],
  [["member", "add", "x"], 128, "member peer urls not provided"],
  [["member", "add", "x", "--peer-urls=bad"], 1, "URL scheme must be http, https, unix, or unixs: bad"],
  [
    ["member", "add", "x", "--peer-urls=127.0.0.1:1"],
    1,
    'parse "127.0.0.1:1": first path segment in URL cannot contain colon',
  ],
  [["member", "add", "x", "--peer-urls=http://a"], 1, 'URL address does not have the form "host:port": http://a'],
  [["member", "add", "x", "--peer-urls=http://a:1/p"], 1, "URL must not contain a path: http://a:1/p"],
  [
    ["member", "remove", "zz"],
    128,
    'bad member ID arg (strconv.ParseUint: parsing "zz": invalid syntax), expecting ID in Hex',
  ],
  [["member", "promote"], 128, "member ID is not provided"],
  [["member", "update", "1"], 128, "member peer urls not provided"],
  [["move-leader"], 128, "move-leader command needs 1 argument"],
  [["move-leader", "zz"], 128, 'strconv.ParseUint: parsing "zz": invalid syntax'],
  [["lease", "grant", "x"], 128, 'bad TTL (strconv.ParseInt: parsing "x": invalid syntax)'],
  [
    ["lease", "keep-alive", "zz"],
    128,
    'bad lease ID arg (strconv.ParseInt: parsing "zz": invalid syntax), expecting ID in Hex',
  ],
  [["alarm", "list", "x"], 128, "alarm list command accepts no arguments"],
  [["snapshot", "save"], 128, "snapshot save expects one argument"],
  [
    ["snapshot", "save", "x", "--endpoints=a,b"],
    5,
    "snapshot must be requested to one selected node, not multiple [a b]",
  ],
])("%j is refused", async (words, code, message) => {
  const { exit, err } = await etcdctl(words);
  expect({ exit, err }).toEqual({ exit: code, err: `Error: ${message}\n` });
});

test("move-leader asks each endpoint until it meets the leader", async () => {
  const answers = {
    Status: (_: unknown, { endpoint }: { endpoint?: string | undefined }) => ({
      header: { ...header(1), memberId: endpoint === "b" ? 2n : 1n },
      leader: 2n,
    }),
    MoveLeader: () => ({}),
  };
  const { out, calls } = await etcdctl(["move-leader", "1", "--endpoints=a,b,c"], { answers });
  expect(out).toBe("Leadership transferred from 2 to 1\n");
  expect(calls.map(({ method, endpoint }) => `${method} ${endpoint}`)).toEqual([
    "Status a",
    "Status b",
    "MoveLeader b",
  ]);
  const nobody = await etcdctl(["move-leader", "1", "--endpoints=a,c"], { answers });
  expect(nobody).toMatchObject({ exit: 128, err: "Error: no leader endpoint given at [a c]\n" });
});

test("endpoint health tells the healthy from the sick", async () => {
  const answers = {
    Range: () => ({ header: header(1) }),
    Alarm: () => ({ header: header(1), alarms: [{ memberId: 1n, alarm: 1 }] }),
  };
  const sick = await etcdctl(["endpoint", "health", "--endpoints=a"], { answers });
  expect(sick).toMatchObject({
    exit: 1,
    out: "",
    err: "a is unhealthy: failed to commit proposal: Active Alarm(s): NOSPACE \nError: unhealthy cluster\n",
  });
  const denied = {
    Range: () => {
      throw etcdError("etcdserver: permission denied");
    },
    Alarm: () => ({ header: header(1), alarms: [] }),
  };
  const well = await etcdctl(["endpoint", "health", "--endpoints=a", "-w", "json"], { answers: denied });
  expect(well).toMatchObject({ exit: 0, out: '[{"endpoint":"a","health":true,"took":"1.5ms"}]\n' });
});

test("endpoint status goes on after one that fails", async () => {
  const answers = {
    Status: (_: unknown, { endpoint }: { endpoint?: string | undefined }) => {
      if (endpoint === "a") throw rpcError(4, "context deadline exceeded");
      return {
        header: header(3),
        version: "3.5.16",
        dbSize: 20480,
        leader: MEMBER,
        raftIndex: 9,
        raftTerm: 2,
        raftAppliedIndex: 8,
        errors: ["e1", "e2"],
      };
    },
  };
  const { exit, out, err } = await etcdctl(["endpoint", "status", "--endpoints=a,b"], { answers });
  expect(exit).toBe(1);
  expect(err).toBe("Failed to get the status of endpoint a (context deadline exceeded)\n");
  expect(out).toBe("b, 8e9e05c52164694d, 3.5.16, 20 kB, true, false, 2, 9, 8, e1, e2\n");
});

test("endpoint hashkv --cluster asks the members that are listed", async () => {
  const answers = {
    MemberList: () => ({ header: noRevision, members: [member] }),
    HashKV: () => ({ header: header(4), hash: 7, compactRevision: -1 }),
  };
  const { out, calls } = await etcdctl(["endpoint", "hashkv", "--cluster", "--rev=3", "-w", "json"], { answers });
  expect(out).toContain('[{"Endpoint":"http://127.0.0.1:2379","HashKV":{"header":');
  expect(out).toContain('"hash":7,"compact_revision":-1}}]');
  expect(calls[1]).toMatchObject({ method: "HashKV", endpoint: "http://127.0.0.1:2379", request: { revision: 3 } });
});

test("alarm disarm clears and prints what there is", async () => {
  const raised = { memberId: MEMBER, alarm: 1 };
  const answers = {
    Alarm: ({ action }: { action: number }) => ({ alarms: action === 0 ? [raised] : [raised] }),
  };
  const { out, calls } = await etcdctl(["alarm", "disarm"], { answers });
  expect(out).toBe("memberID:10276657743932975437 alarm:NOSPACE \n");
  expect(calls.map(({ request }) => request)).toEqual([
    { action: 0, memberId: 0n, alarm: 0 },
    { action: 2, ...raised },
  ]);
});

test("defrag goes on after one that fails, and leaves directories to etcdutl", async () => {
  const answers = {
    Defragment: (_: unknown, { endpoint }: { endpoint?: string | undefined }) => {
      if (endpoint === "a") throw rpcError(2, "auth: permission denied");
      return {};
    },
  };
  expect(await etcdctl(["defrag", "--endpoints=a,b"], { answers })).toMatchObject({
    exit: 1,
    out: "Finished defragmenting etcd member[b]\n",
    err: "Failed to defragment etcd member[a] (rpc error: code = Unknown desc = auth: permission denied)\n",
  });
  const offline = await etcdctl(["defrag", "--data-dir=d"], { child: () => ({ kind: "exited", code: 3 }) });
  expect(offline.exit).toBe(3);
  expect(offline.children[0]?.words).toEqual(["/our/etcdutl", "defrag", "--data-dir", "d", "--write-out=simple", "--"]);
});

test("snapshot save writes the stream to a file and leaves no part behind", async () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "ctl-"));
  try {
    const file = path.join(folder, "s.db");
    const pages = Buffer.alloc(1024, "abc");
    const hash = createHash("sha256").update(pages).digest();
    const whole = Buffer.concat([pages, hash]);
    const stream = () => [whole.subarray(0, 1030), whole.subarray(1030)].map((blob) => ({ blob }));
    const { out, err, exit } = await etcdctl(["snapshot", "save", file], { stream });
    expect({ out, exit }).toEqual({ out: `Snapshot saved at ${file}\n`, exit: 0 });
    expect(
      err
        .trimEnd()
        .split("\n")
        .map((line) => (JSON.parse(line) as { msg: string }).msg),
    ).toEqual([
      "created temporary db file",
      "opened snapshot stream; downloading",
      "fetching snapshot",
      "completed snapshot read; closing",
      "fetched snapshot",
      "saved",
    ]);
    expect(fs.readdirSync(folder)).toEqual(["s.db"]);
    expect(fs.readFileSync(file).equals(whole)).toBe(true);
    const cut = await etcdctl(["snapshot", "save", file], { stream: () => [{ blob: whole.subarray(0, 900) }] });
    expect(cut).toMatchObject({ exit: 5, out: "" });
    expect(cut.err).toMatch(/Error: sha256 checksum not found \[bytes: 900\]\n$/);
    const damaged = Buffer.from(whole);
    damaged[7] = 0;
    const wrong = await etcdctl(["snapshot", "save", file], { stream: () => [{ blob: damaged }] });
    expect(wrong).toMatchObject({ exit: 5, out: "" });
    expect(wrong.err).toMatch(/checksum does not match/);
    const broken = function* () {
      yield { blob: Buffer.from("abc") };
      throw rpcError(14, "gone");
    };
    const failed = await etcdctl(["snapshot", "save", path.join(folder, "t.db")], { stream: broken });
    expect(failed).toMatchObject({ exit: 5, out: "" });
    expect(failed.err).toContain("Error: rpc error: code = Unavailable desc = gone\n");
    const missing = path.join(folder, "no", "t.db");
    expect(await etcdctl(["snapshot", "save", missing], { stream })).toMatchObject({
      exit: 5,
      err: `Error: could not open ${missing}.part (open ${missing}.part: no such file or directory)\n`,
    });
    expect(fs.readdirSync(folder)).toEqual(["s.db"]);
  } finally {
    fs.rmSync(folder, { recursive: true });
  }
});

test("snapshot status and restore are handed to etcdutl with a note", async () => {
  const restore = await etcdctl([
    "snapshot",
    "restore",
    "s.db",
    "--name",
    "n",
    "--mark-compacted",
    "--bump-revision=5",
  ]);
  expect(restore.err).toBe("Deprecated: Use `etcdutl snapshot restore` instead.\n\n");
  expect(restore.children[0]?.words).toEqual(
    "/our/etcdutl snapshot restore --data-dir=n.etcd --initial-memory-map-size=0 --name=n --bump-revision=5 --mark-compacted=true --write-out=simple -- s.db".split(
      " ",
    ),
  );
  const status = await etcdctl(["snapshot", "status", "s.db", "-w", "json"]);
  expect(status.children[0]?.words).toEqual(["/our/etcdutl", "snapshot", "status", "--write-out=json", "--", "s.db"]);
});
