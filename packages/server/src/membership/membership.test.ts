import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { EtcdError } from "@etcd-ts/client/wire";
import { describe, expect, it } from "vitest";
import { utf8Bytes, utf8Text } from "../lib/bytes.ts";
import { parseJson } from "../lib/json.ts";
import { silentLogger } from "../lib/log.ts";
import { Metadata } from "../pb/etcdserverpb.ts";
import { ConfChange, ConfChangeType } from "../pb/raftpb.ts";
import { Record } from "../pb/walpb.ts";
import {
  type BackendTxn,
  decodeSnapFile,
  encodeSnapFile,
  type ScanOptions,
  type ScanVisitor,
  snapFileName,
} from "../storage/index.ts";
import {
  Cluster,
  type ClusterOptions,
  computeMemberId,
  decodeConfChangeContext,
  decodeV2Store,
  encodeConfChangeContext,
  encodeV2Store,
  InvalidDowngradeError,
  isValidVersionChange,
  type Member,
  membersToJson,
  memberToJson,
  parseVersion,
} from "./index.ts";

const testdata = (name: string) => path.join(import.meta.dirname, "../storage", name);
const GOLDEN_SNAP = decodeSnapFile(fs.readFileSync(testdata("snap/testdata/0000000000000002-000000000000000c.snap")));
const OPTIONS: ClusterOptions = { logger: silentLogger, serverVersion: "3.5.16" };

/** The few tables of membership, in a Map. */
class MapTxn implements BackendTxn {
  readonly rows = new Map<string, Uint8Array>();
  #id = (table: string, key: Uint8Array) => `${table}/${utf8Text(key)}`;
  get = (table: string, key: Uint8Array) => this.rows.get(this.#id(table, key));
  peek = this.get;
  has = (table: string, key: Uint8Array) => this.rows.has(this.#id(table, key));
  put = (table: string, key: Uint8Array, value: Uint8Array) => void this.rows.set(this.#id(table, key), value);
  reserve = (): never => {
    throw new Error("records of members are put whole");
  };
  delete = (table: string, key: Uint8Array) => void this.rows.delete(this.#id(table, key));
  first = () => undefined;
  count = (table: string) => [...this.rows.keys()].filter((id) => id.startsWith(`${table}/`)).length;
  ahead = () => ({ key: undefined, count: 0 });
  scan = (table: string, _options: ScanOptions, visit: ScanVisitor) => {
    for (const [id, value] of [...this.rows].sort()) {
      if (id.startsWith(`${table}/`)) visit(utf8Bytes(id.substring(table.length + 1)), value);
    }
  };
  texts = () => Object.fromEntries([...this.rows].sort().map(([id, value]) => [id, utf8Text(value)]));
}

const member = (id: bigint, over: Partial<Member> = {}): Member => ({
  id,
  name: "",
  peerUrls: [`http://p${id}:2380`],
  clientUrls: [],
  isLearner: false,
  ...over,
});

const change = (type: number, nodeId: bigint, m?: Member, isPromote = false): ConfChange =>
  ConfChange.create({
    type,
    nodeId,
    ...(m ? { context: encodeConfChangeContext({ member: m, isPromote }) } : {}),
  });

function three(): Cluster {
  return Cluster.fromInitial(
    {
      token: "etcd-cluster",
      urls: new Map([1, 2, 3].map((n) => [`m${n}`, [`http://127.0.0.1:${n}2380`]])),
    },
    OPTIONS,
  );
}

function kindOf(fn: () => void): string {
  try {
    fn();
  } catch (error) {
    if (error instanceof EtcdError) return error.kind;
    throw error;
  }
  return "ok";
}

describe("ids", () => {
  it("are those that etcd 3.5.16 wrote into its log", () => {
    const golden = fs.readFileSync(testdata("wal/testdata/etcd-3.5.16.wal"));
    // The second record of a segment is the metadata.
    const at = 16;
    const length = golden.readUInt32LE(at);
    const record = Record.decode(golden.subarray(at + 8, at + 8 + length));
    const metadata = Metadata.decode(record.data as Uint8Array);
    const cluster = Cluster.fromInitial(
      { token: "etcd-cluster", urls: new Map([["m1", ["http://127.0.0.1:23801"]]]) },
      OPTIONS,
    );
    expect(cluster.memberIds()).toEqual([metadata.nodeId]);
    expect(cluster.id).toBe(metadata.clusterId);
    expect(GOLDEN_SNAP.metadata.confState.voters).toEqual([metadata.nodeId]);
  });

  it("do not depend on the order of URLs, and differ by the time when a member is added", () => {
    const [a, b] = ["http://a:1", "http://b:2"];
    expect(computeMemberId([b, a], { token: "t" })).toBe(computeMemberId([a, b], { token: "t" }));
    expect(computeMemberId([a], { addedAtSeconds: 1 })).not.toBe(computeMemberId([a], { addedAtSeconds: 2 }));
  });
});

describe("the v2 store", () => {
  it("is read as etcd 3.5.16 wrote it, and back from our own form", () => {
    const content = decodeV2Store(GOLDEN_SNAP.data as Uint8Array);
    expect(content.version).toBe("3.5.0");
    expect([...content.members.values()]).toEqual([
      {
        id: GOLDEN_SNAP.metadata.confState.voters[0],
        name: "m1",
        peerUrls: ["http://127.0.0.1:23801"],
        clientUrls: ["http://127.0.0.1:23791"],
        isLearner: false,
      },
    ]);
    const again = decodeV2Store(encodeV2Store(content));
    expect(again.members).toEqual(content.members);
    expect(again.version).toBe(content.version);
    expect(Buffer.from(encodeV2Store(again)).equals(encodeV2Store(content))).toBe(true);
  });

  it("carries along what the version 2 API left, and keeps learners and removed members", () => {
    const cluster = three();
    const [first, second] = cluster.memberIds() as [bigint, bigint];
    cluster.removeMember(undefined, first);
    cluster.addMember(undefined, member(99n, { isLearner: true, name: "<&>", clientUrls: ["http://c:1"] }));
    cluster.setVersion(undefined, "3.5.0");
    const bytes = Buffer.from(
      utf8Text(cluster.v2StoreBytes()).replace(
        '"1":{"Path":"/1","Children":{}}',
        '"1":{"Path":"/1","Children":{"k":{"Path":"/1/k","Value":"v","CreatedIndex":18446744073709551615}}}',
      ),
    );
    const again = new Cluster(OPTIONS);
    again.recover(bytes, undefined);
    expect(again.hasV2UserData()).toBe(true);
    expect(cluster.hasV2UserData()).toBe(false);
    expect(again.members()).toEqual(cluster.members());
    expect(again.member(second)?.name).toBe(cluster.member(second)?.name);
    expect(again.isRemoved(first)).toBe(true);
    expect(again.version()).toBe("3.5.0");
    expect(utf8Text(again.v2StoreBytes())).toContain("18446744073709551615");
  });

  it("refuses what etcd refuses", () => {
    const store = (children: object) =>
      Buffer.from(JSON.stringify({ Root: { Path: "/", Children: { "0": { Path: "/0", Children: children } } } }));
    const members = (node: object) => store({ members: { Path: "/0/members", Children: { ab: node } } });
    for (const data of [
      Buffer.from("{}"),
      Buffer.from("nonsense"),
      members({ Children: { attributes: { Value: "{}" } } }),
      members({ Children: { raftAttributes: { Value: '{"peerURLs":["u"]}' }, other: { Value: "" } } }),
      members({ Children: { raftAttributes: { Value: "{" } } }),
      store({ members: { Children: { "not hex": {} } } }),
    ]) {
      expect(() => decodeV2Store(data)).toThrow(/./);
    }
  });
});

describe("JSON records", () => {
  it("have etcd's fields in etcd's order, ids in bare digits", () => {
    const id = 18446744073709551615n;
    expect(memberToJson(member(id, { peerUrls: ["http://a:1"] }))).toBe(
      '{"id":18446744073709551615,"peerURLs":["http://a:1"]}',
    );
    expect(
      membersToJson([member(7n, { isLearner: true, name: "n", clientUrls: ["http://c"], peerUrls: ["http://p"] })]),
    ).toBe('[{"id":7,"peerURLs":["http://p"],"isLearner":true,"name":"n","clientURLs":["http://c"]}]');
    const promote = encodeConfChangeContext({ member: member(id, { peerUrls: [] }), isPromote: true });
    expect(utf8Text(promote)).toBe('{"id":18446744073709551615,"peerURLs":null,"isPromote":true}');
    expect(decodeConfChangeContext(promote)).toEqual({ member: member(id, { peerUrls: [] }), isPromote: true });
    expect(() => parseJson(utf8Text(promote).replace("}", ""))).toThrow();
  });
});

describe("validateConfChange()", () => {
  it("judges as etcd does, in the same words", () => {
    const cluster = three();
    const [one, two, gone] = cluster.memberIds() as [bigint, bigint, bigint];
    cluster.removeMember(undefined, gone);
    const { ConfChangeAddNode: add, ConfChangeAddLearnerNode: addLearner } = ConfChangeType;
    const { ConfChangeRemoveNode: remove, ConfChangeUpdateNode: update } = ConfChangeType;
    const takenUrls = cluster.member(two)?.peerUrls as string[];
    const check = (cc: ConfChange) => kindOf(() => cluster.validateConfChange(cc));
    for (const type of [add, addLearner, remove, update]) {
      expect(check(change(type, gone, member(gone)))).toBe("MemberNotFound");
    }
    expect(check(change(add, 50n, member(50n)))).toBe("ok");
    expect(check(change(add, one, member(one)))).toBe("MemberExist");
    expect(check(change(add, 50n, member(50n, { peerUrls: takenUrls })))).toBe("PeerURLExist");
    expect(check(change(add, 50n, member(50n, { peerUrls: [] }), true))).toBe("MemberNotFound");
    expect(check(change(add, one, member(one, { peerUrls: [] }), true))).toBe("MemberNotLearner");
    expect(check(change(addLearner, 50n, member(50n, { isLearner: true })))).toBe("ok");
    cluster.addMember(undefined, member(51n, { isLearner: true }));
    expect(check(change(addLearner, 50n, member(50n, { isLearner: true })))).toBe("TooManyLearners");
    expect(check(change(add, 51n, member(51n, { peerUrls: [] }), true))).toBe("ok");
    expect(check(change(remove, 50n))).toBe("MemberNotFound");
    expect(check(change(remove, one))).toBe("ok");
    expect(check(change(update, 50n, member(50n)))).toBe("MemberNotFound");
    expect(check(change(update, one, member(one, { peerUrls: takenUrls })))).toBe("PeerURLExist");
    expect(check(change(update, two, member(two, { peerUrls: takenUrls })))).toBe("ok");
  });
});

describe("Cluster", () => {
  it("writes each change into the backend's tables, and none of what is replayed", () => {
    const tx = new MapTxn();
    const cluster = new Cluster(OPTIONS);
    cluster.addMember(undefined, member(1n));
    expect(tx.rows.size).toBe(0);
    cluster.addMember(tx, member(0xabn, { isLearner: true }));
    cluster.promoteMember(tx, 0xabn);
    cluster.updateAttributes(tx, 0xabn, { name: "n", clientUrls: ["http://c"] });
    cluster.updateRaftAttributes(tx, 0xabn, { peerUrls: ["http://q"], isLearner: false });
    cluster.setVersion(tx, "3.5.0");
    cluster.addMember(tx, member(0xcdn));
    cluster.removeMember(tx, 0xcdn);
    cluster.setDowngradeInfo(tx, { enabled: false, targetVersion: "" });
    expect(tx.texts()).toEqual({
      "cluster/clusterVersion": "3.5.0",
      "cluster/downgrade": '{"target-version":"","enabled":false}',
      "members/ab": '{"id":171,"peerURLs":["http://q"],"name":"n","clientURLs":["http://c"]}',
      "members_removed/cd": "removed",
    });
  });

  it("ignores attributes of a removed member and dies of an unknown one", () => {
    const cluster = three();
    const [one] = cluster.memberIds() as [bigint];
    cluster.removeMember(undefined, one);
    cluster.updateAttributes(undefined, one, { name: "late", clientUrls: [] });
    expect(cluster.member(one)).toBeUndefined();
    expect(() => cluster.updateAttributes(undefined, 42n, { name: "x", clientUrls: [] })).toThrow(/unknown/);
  });

  it("does not run below the cluster's version, nor through a downgrade to another", () => {
    const cluster = new Cluster(OPTIONS);
    expect(() => cluster.setVersion(undefined, "3.6.0")).toThrow(InvalidDowngradeError);
    const tx = new MapTxn();
    tx.put("cluster", utf8Bytes("downgrade"), utf8Bytes('{"target-version":"3.4.0","enabled":true}'));
    expect(() => new Cluster(OPTIONS).recover(undefined, tx)).toThrow(/not allowed to join/);
    tx.put("cluster", utf8Bytes("downgrade"), utf8Bytes('{"target-version":"3.5.0","enabled":true}'));
    expect(() => new Cluster(OPTIONS).recover(undefined, tx)).not.toThrow();
  });

  it("knows when a change would cost the quorum of started members", () => {
    const empty = new Cluster(OPTIONS);
    for (const id of [1n, 2n, 3n]) empty.addMember(undefined, member(id, id === 3n ? {} : { name: `m${id}` }));
    expect(empty.isReadyToAddVotingMember()).toBe(false);
    expect(empty.isReadyToRemoveVotingMember(3n)).toBe(true);
    expect(empty.isReadyToRemoveVotingMember(1n)).toBe(false);
    expect(empty.isReadyToPromoteMember()).toBe(true);
    const single = new Cluster(OPTIONS);
    single.addMember(undefined, member(1n, { name: "m1" }));
    expect(single.isReadyToAddVotingMember()).toBe(true);
  });

  it("lets versions rise, and fall by one minor release only", () => {
    const valid = (from: string, to: string) =>
      isValidVersionChange(parseVersion(from) as never, parseVersion(to) as never);
    expect([
      valid("3.0.0", "3.5.0"),
      valid("3.5.0", "3.4.0"),
      valid("3.5.0", "3.3.0"),
      valid("3.5.0", "3.5.2"),
    ]).toEqual([true, true, false, false]);
  });
});

const realBin = process.env["ETCD_REAL_BIN"];

async function freePort(): Promise<number> {
  const server = net.createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as net.AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}

describe.skipIf(!realBin)("a real etcd (ETCD_REAL_BIN)", () => {
  it("starts on a snapshot whose v2 store we wrote", async () => {
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), "membership-test-"));
    const [client, peer] = [`http://127.0.0.1:${await freePort()}`, `http://127.0.0.1:${await freePort()}`];
    const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("ETCD_")));
    const etcdctl = (...args: string[]) =>
      spawnSync(
        path.join(realBin as string, "etcdctl"),
        ["--endpoints", client, "--dial-timeout=20s", "--command-timeout=20s", ...args],
        { env, encoding: "utf8" },
      ).stdout;
    const flags = ["--name", "m1", "--data-dir", dir, "--log-level", "error", "--snapshot-count", "4"];
    flags.push("--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer);
    flags.push("--initial-advertise-peer-urls", peer, "--initial-cluster", `m1=${peer}`);
    const running = async (use: () => void) => {
      const etcd = spawn(path.join(realBin as string, "etcd"), flags, { env, stdio: ["ignore", "ignore", "inherit"] });
      try {
        use();
      } finally {
        etcd.kill("SIGTERM");
        await once(etcd, "exit");
      }
    };
    try {
      let members = "";
      await running(() => {
        for (let i = 0; i < 12; i++) expect(etcdctl("put", `k${i}`, "v")).toBe("OK\n");
        members = etcdctl("member", "list");
      });
      const snapDir = path.join(dir, "member/snap");
      const names = fs.readdirSync(snapDir).filter((name) => name.endsWith(".snap"));
      expect(names.length).toBeGreaterThan(0);
      for (const name of names) {
        const snapshot = decodeSnapFile(fs.readFileSync(path.join(snapDir, name)));
        expect(snapFileName(snapshot.metadata)).toBe(name);
        const data = encodeV2Store(decodeV2Store(snapshot.data as Uint8Array));
        fs.writeFileSync(path.join(snapDir, name), encodeSnapFile({ ...snapshot, data }));
      }
      await running(() => {
        expect(etcdctl("get", "k0")).toBe("k0\nv\n");
        expect(etcdctl("member", "list")).toBe(members);
        for (let i = 0; i < 6; i++) expect(etcdctl("put", "more", "v")).toBe("OK\n");
      });
      expect(fs.readdirSync(snapDir).filter((name) => name.endsWith(".broken"))).toEqual([]);
    } finally {
      fs.rmSync(dir, { recursive: true, force: true });
    }
  });
});
