/** A whole member in this process, on a temporary data dir, without ports. */
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import {
  AlarmAction,
  AlarmType,
  CompactionRequest,
  DeleteRangeRequest,
  EtcdError,
  HashKVRequest,
  LeaseGrantRequest,
  LeaseTimeToLiveRequest,
  MemberListRequest,
  PutRequest,
  RangeRequest,
  RangeResponse,
  TxnRequest,
} from "@etcd-ts/client/wire";
import { afterEach, describe, expect, it } from "vitest";
import { type RunningEtcd, startMember } from "./boot.ts";
import { utf8Bytes, utf8Text } from "./lib/bytes.ts";
import { type Clock, systemClock } from "./lib/clock.ts";
import { silentLogger } from "./lib/log.ts";
import { systemRandom } from "./lib/random.ts";
import { defaultServerConfig, type Server, type ServerConfig } from "./etcdserver/index.ts";

type Member = RunningEtcd & { readonly server: Server };

const cleanUps: (() => Promise<void> | void)[] = [];
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp();
});

function temporaryDir(): string {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), "etcdserver-test-"));
  cleanUps.push(() => fs.rmSync(dir, { recursive: true, force: true }));
  return dir;
}

async function start(
  dataDir: string,
  changes: Partial<ServerConfig> = {},
  options: { clock?: Clock; logger?: typeof silentLogger } = {},
): Promise<Member> {
  const member = await startMember(
    { ...defaultServerConfig(dataDir), ...changes },
    {
      clock: options.clock ?? systemClock,
      random: systemRandom,
      logger: options.logger ?? silentLogger,
      onFatal: (error) => {
        throw error;
      },
      backendCommits: "inline",
    },
  );
  cleanUps.push(() => member.stop());
  await member.server.ready;
  return member;
}

const put = async (server: Server, key: string, value: string, lease = 0n) =>
  server.put(PutRequest.create({ key: utf8Bytes(key), value: utf8Bytes(value), lease }), {});

async function get(server: Server, key: string, init: Partial<RangeRequest> = {}): Promise<string | undefined> {
  const response = await server.range(RangeRequest.create({ key: utf8Bytes(key), ...init }), {});
  const kv = response.kvs[0];
  return kv && utf8Text(kv.value);
}

const kindOf = (error: unknown) => (error instanceof EtcdError ? error.kind : error);
const refusal = (answer: PromiseLike<unknown>) => answer.then(() => "ok", kindOf);

/** A copy of the data dir as a crash would leave it: whatever was not written is not there. */
function crashCopy(dataDir: string): string {
  const copy = temporaryDir();
  fs.cpSync(dataDir, copy, { recursive: true, filter: (source) => !source.endsWith(".sock") });
  return copy;
}

describe("a member", () => {
  it("agrees on writes and reads them back, with revisions and headers", async () => {
    const { server } = await start(temporaryDir());
    const first = await put(server, "foo", "bar");
    expect(first.header).toMatchObject({ clusterId: server.member.clusterId, memberId: server.member.id, revision: 2 });
    expect((await put(server, "foo", "baz")).header?.revision).toBe(3);
    expect(await get(server, "foo")).toBe("baz");
    expect(await get(server, "foo", { revision: 2 })).toBe("bar");
    const deleted = await server.deleteRange(DeleteRangeRequest.create({ key: utf8Bytes("foo") }), {});
    expect(deleted).toMatchObject({ deleted: 1 });
    expect(deleted.header?.revision).toBe(4);
    expect(await get(server, "foo", { serializable: true })).toBeUndefined();
    expect(server.clusterVersion()).toBe("3.5.0");
    expect(server.raftView()).toMatchObject({ isLeader: true, isLearner: false, leaderId: server.member.id });
  });

  it("has etcd's ids, and publishes its name and client URLs", async () => {
    const { server } = await start(temporaryDir());
    expect(server.member.id.toString(16)).toBe("8e9e05c52164694d");
    expect(server.member.clusterId.toString(16)).toBe("cdf818194e3a8c32");
    const { members, header } = await server.memberList(MemberListRequest.create({ linearizable: true }), {});
    expect(header?.revision).toBe(0);
    expect(members).toEqual([
      {
        id: server.member.id,
        name: "default",
        peerUrls: ["http://localhost:2380"],
        clientUrls: ["http://localhost:2379"],
        isLearner: false,
      },
    ]);
  });

  it("gives each of many concurrent writes a revision of its own", async () => {
    const { server } = await start(temporaryDir());
    const responses = await Promise.all(Array.from({ length: 500 }, (_, i) => put(server, `k${i}`, `${i}`)));
    const revisions = responses.map((response) => response.header?.revision as number);
    expect(new Set(revisions).size).toBe(500);
    expect(Math.max(...revisions)).toBe(501);
    const reads = await Promise.all(Array.from({ length: 500 }, (_, i) => get(server, `k${i}`)));
    expect(reads).toEqual(Array.from({ length: 500 }, (_, i) => `${i}`));
  });

  it("sends encoded ranges that decode to the same answer", async () => {
    const { server } = await start(temporaryDir());
    await put(server, "a", "1");
    await put(server, "b", "2");
    const request = RangeRequest.create({ key: utf8Bytes("a"), rangeEnd: utf8Bytes("z") });
    const { pieces } = await server.rangeEncoded(request, {});
    expect(Buffer.concat(pieces)).toEqual(RangeResponse.encode(await server.range(request, {})));
  });

  it("refuses a request that is too large, and reports errors of apply as they are", async () => {
    const { server } = await start(temporaryDir());
    expect(await refusal(put(server, "k", "x".repeat(2 * 1024 * 1024)))).toBe("RequestTooLarge");
    expect(await refusal(put(server, "k", "v", 12345n))).toBe("LeaseNotFound");
    const future = CompactionRequest.create({ revision: 100 });
    expect(await refusal(server.compact(future, {}))).toBe("FutureRevision");
    expect(await get(server, "k")).toBeUndefined();
  });

  it("runs transactions; those that only read do not go through the log", async () => {
    const { server } = await start(temporaryDir());
    await put(server, "a", "1");
    const before = server.raftView().committedIndex;
    const read = await server.txn(
      TxnRequest.create({
        success: [{ request: { kind: "requestRange", value: RangeRequest.create({ key: utf8Bytes("a") }) } }],
      }),
      {},
    );
    expect(server.raftView().committedIndex).toBe(before);
    expect(read.succeeded).toBe(true);
    const written = await server.txn(
      TxnRequest.create({
        success: [
          { request: { kind: "requestPut", value: PutRequest.create({ key: utf8Bytes("b"), value: utf8Bytes("2") }) } },
          { request: { kind: "requestRange", value: RangeRequest.create({ key: utf8Bytes("b") }) } },
        ],
      }),
      {},
    );
    expect(written.header?.revision).toBe(3);
    const second = written.responses[1]?.response;
    expect(second?.kind === "responseRange" && utf8Text(second.value.kvs[0]?.value ?? new Uint8Array())).toBe("2");
  });

  it("keeps everything over a restart, and goes on with the same ids and revisions", async () => {
    const dataDir = temporaryDir();
    const before = await start(dataDir);
    for (let i = 0; i < 20; i++) await put(before.server, `k${i}`, `${i}`);
    const hash = await before.server.hashKv(HashKVRequest.create({}), {});
    await before.stop();
    const { server } = await start(dataDir);
    expect(await get(server, "k7")).toBe("7");
    expect((await server.hashKv(HashKVRequest.create({}), {})).hash).toBe(hash.hash);
    expect((await put(server, "more", "x")).header?.revision).toBe(22);
    expect(server.member.id).toBe(before.server.member.id);
  });

  it("loses nothing that was acknowledged when it is cut off, and applies nothing twice", async () => {
    const dataDir = temporaryDir();
    const { server } = await start(dataDir, { backendBatchIntervalMs: 3_600_000 });
    for (let round = 0; round < 3; round++) {
      await Promise.all(Array.from({ length: 50 }, (_, i) => put(server, `r${round}-${i}`, "v")));
      if (round === 1) await server.hash({}); // flushes: the rest must come from the log
    }
    const hash = await server.hashKv(HashKVRequest.create({}), {});
    const copy = crashCopy(dataDir);
    const after = await start(copy);
    expect((await after.server.hashKv(HashKVRequest.create({}), {})).hash).toBe(hash.hash);
    expect(after.server.header().revision).toBe(151);
  });

  it("takes snapshots, cuts its log, and starts from the newest one", async () => {
    const dataDir = temporaryDir();
    const changes = { snapshotCount: 50, snapshotCatchupEntries: 10 };
    const before = await start(dataDir, changes);
    for (let i = 0; i < 200; i++) await put(before.server, `k${i}`, `${i}`);
    await before.stop();
    const snaps = fs.readdirSync(path.join(dataDir, "member", "snap")).filter((name) => name.endsWith(".snap"));
    expect(snaps.length).toBeGreaterThanOrEqual(2);
    const { server } = await start(dataDir, changes);
    expect(await get(server, "k199")).toBe("199");
    expect(await get(server, "k0")).toBe("0");
    const { members } = await server.memberList(MemberListRequest.create({}), {});
    expect(members.map((member) => member.name)).toEqual(["default"]);
    expect(server.clusterVersion()).toBe("3.5.0");
  });

  it("stops with an answer for everyone who waits", async () => {
    const { server, stop } = await start(temporaryDir());
    const writes = Array.from({ length: 20 }, (_, i) => refusal(put(server, `k${i}`, "v")));
    await stop();
    for (const outcome of await Promise.all(writes)) expect(["ok", "Stopped"]).toContain(outcome);
    expect(await refusal(put(server, "late", "v"))).toBe("Stopped");
    expect(await server.stopped).toBeUndefined();
  });
});

describe("leases of a member", () => {
  it("are granted, found, renewed and revoked with their keys", async () => {
    const { server } = await start(temporaryDir());
    const grant = await server.leaseGrant(LeaseGrantRequest.create({ ttl: 100 }), {});
    expect(grant.id).toBeGreaterThan(0n);
    await put(server, "b", "1", grant.id);
    await put(server, "a", "1", grant.id);
    const info = await server.leaseTimeToLive(LeaseTimeToLiveRequest.create({ id: grant.id, keys: true }), {});
    expect(info.grantedTtl).toBe(100);
    expect(info.keys.map(utf8Text)).toEqual(["a", "b"]);
    expect((await server.leaseKeepAlive(grant.id, {})).ttl).toBe(100);
    expect((await server.leaseKeepAlive(4711n, {})).ttl).toBe(0);
    expect((await server.leaseLeases({})).leases).toEqual([{ id: grant.id }]);
    const revoked = await server.leaseRevoke({ id: grant.id }, {});
    expect(revoked.header?.revision).toBe(4);
    expect(await get(server, "a")).toBeUndefined();
    expect((await server.leaseTimeToLive(LeaseTimeToLiveRequest.create({ id: grant.id }), {})).ttl).toBe(-1);
    expect(await refusal(server.leaseRevoke({ id: grant.id }, {}))).toBe("LeaseNotFound");
  });

  it("survive a restart and expire by the leader's clock", async () => {
    const dataDir = temporaryDir();
    const before = await start(dataDir);
    const { id, ttl } = await before.server.leaseGrant(LeaseGrantRequest.create({ ttl: 1 }), {});
    expect(ttl).toBe(2);
    await put(before.server, "gone", "1", id);
    await before.stop();
    const { server } = await start(dataDir, { tickMs: 10 });
    expect((await server.leaseLeases({})).leases).toEqual([{ id }]);
    const stream = server.watch.newStream();
    cleanUps.push(() => stream.close());
    while ((await server.leaseLeases({})).leases.length > 0) await systemClock.sleep(20);
    expect(await get(server, "gone")).toBeUndefined();
  });
});

describe("space", () => {
  it("over the quota raises NOSPACE, refuses writes, and lets them in again when it is cleared", async () => {
    const dataDir = temporaryDir();
    const { server } = await start(dataDir, { quotaBackendBytes: 2 * 1024 * 1024 });
    let outcome: unknown = "ok";
    for (let i = 0; i < 200 && outcome === "ok"; i++) outcome = await refusal(put(server, `k${i}`, "x".repeat(50_000)));
    expect(outcome).toBe("NoSpace");
    expect(server.alarms()).toEqual([{ memberId: server.member.id, alarm: AlarmType.NoSpace }]);
    expect(await refusal(put(server, "small", "1"))).toBe("NoSpace");
    expect((await server.status({})).errors.join()).toContain("alarm:NOSPACE");
    await server.deleteRange(DeleteRangeRequest.create({ key: utf8Bytes("k"), rangeEnd: utf8Bytes("l") }), {});
    const revision = server.header().revision;
    await server.compact(CompactionRequest.create({ revision, physical: true }), {});
    await server.defragment({});
    const alarm = { action: AlarmAction.Deactivate, memberId: server.member.id, alarm: AlarmType.NoSpace };
    expect((await server.alarm(alarm, {})).alarms).toHaveLength(1);
    expect(await refusal(put(server, "small", "1"))).toBe("ok");
  });
});
