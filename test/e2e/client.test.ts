/** The client library against a running server: one example of each service, and what happens when the server goes. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Client, compare, connect, deleteOp, getOp, putOp, toText, watchInit } from "@etcd-ts/client";
import { Election, Mutex, Session } from "@etcd-ts/client/concurrency";
import { AlarmType, PermissionType, SortOrder, SortTarget } from "@etcd-ts/client/wire";
import { Member, temporaryFolder, until } from "./harness/processes.ts";

const folder = temporaryFolder("client");
let member: Member;
let client: Client;

beforeAll(async () => {
  member = await Member.start({ dataDir: `${folder.path}/data` });
  client = await connect({ endpoints: [member.endpoint] });
});

afterAll(async () => {
  client?.close();
  await member?.kill();
  folder[Symbol.dispose]();
});

describe("kv", () => {
  it("puts, gets, deletes, at any revision", async () => {
    const first = await client.kv.put("kv/a", "1");
    await client.kv.put("kv/a", "2");
    const { kvs, count } = await client.kv.get("kv/a");
    expect([toText(kvs[0]?.value ?? new Uint8Array()), count, kvs[0]?.version]).toEqual(["2", 1, 2]);
    const then = await client.kv.get("kv/a", { revision: first.header?.revision });
    expect(toText(then.kvs[0]?.value ?? new Uint8Array())).toBe("1");
    const { deleted, prevKvs } = await client.kv.delete("kv/a", { prevKv: true });
    expect([deleted, toText(prevKvs[0]?.value ?? new Uint8Array())]).toEqual([1, "2"]);
    await expect(client.kv.get("")).rejects.toMatchObject({ kind: "EmptyKey" });
  });

  it("lists a prefix, sorted and limited", async () => {
    for (const name of ["c", "a", "b"]) await client.kv.put(`list/${name}`, name);
    const { kvs, more, count } = await client.kv.get("list/", {
      prefix: true,
      limit: 2,
      sortOrder: SortOrder.Descend,
      sortTarget: SortTarget.Key,
    });
    expect([kvs.map((kv) => toText(kv.key)), more, count]).toEqual([["list/c", "list/b"], true, 3]);
  });

  it("transactions take one branch or the other", async () => {
    await client.kv.put("txn/a", "1");
    const swap = (from: string, to: string) =>
      client.kv
        .txn()
        .if(compare("txn/a", "value", "=", from))
        .then(putOp("txn/a", to))
        .else(getOp("txn/a"))
        .commit();
    expect((await swap("1", "2")).succeeded).toBe(true);
    const failed = await swap("1", "3");
    expect(failed.succeeded).toBe(false);
    expect(failed.responses[0]?.response).toMatchObject({ kind: "responseRange", value: { count: 1 } });
    await client.kv
      .txn()
      .then(deleteOp("txn/", { prefix: true }))
      .commit();
    expect((await client.kv.get("txn/a")).count).toBe(0);
  });

  it("compaction makes old revisions unreadable", async () => {
    const { header } = await client.kv.put("compact/a", "1");
    const revision = header?.revision ?? 0;
    await client.kv.put("compact/a", "2");
    await client.kv.compact(revision + 1, { physical: true });
    await expect(client.kv.get("compact/a", { revision })).rejects.toMatchObject({ kind: "Compacted" });
  });
});

describe("watch", () => {
  it("tells of every change, from the past on", async () => {
    const { header } = await client.kv.put("watch/a", "1");
    await client.kv.put("watch/b", "2");
    await client.kv.delete("watch/a");
    const seen: string[] = [];
    const start = { prefix: true, startRevision: header?.revision ?? 0, prevKv: true } as const;
    for await (const { events } of client.watch(watchInit("watch/", start))) {
      for (const { type, kv, prevKv } of events) {
        seen.push(`${type}:${toText(kv?.key ?? new Uint8Array())}${prevKv ? `<${toText(prevKv.value)}` : ""}`);
      }
      if (seen.length === 3) break;
    }
    expect(seen).toEqual(["0:watch/a", "0:watch/b", "1:watch/a<1"]);
  });

  it("answers progress requests and cancels", async () => {
    const watcher = client.watch(watchInit("watch/"), { createdNotify: true });
    const seen: string[] = [];
    for await (const { created, canceled, watchId } of watcher) {
      if (created) watcher.requestProgress();
      else if (canceled) seen.push("canceled");
      else {
        seen.push(`progress ${watchId}`);
        watcher.cancel(0n);
      }
    }
    expect(seen).toEqual(["progress -1", "canceled"]);
  });

  it("a watch from before the compacted revision is cancelled with that revision", async () => {
    const { header } = await client.kv.put("watch/c", "1");
    const compacted = header?.revision ?? 0;
    await client.kv.compact(compacted);
    const answers: number[] = [];
    for await (const { canceled, compactRevision } of client.watch(watchInit("watch/c", { startRevision: 1 }))) {
      if (canceled) answers.push(compactRevision);
    }
    expect(answers).toEqual([compacted]);
  });
});

describe("lease", () => {
  it("a key goes with its lease", async () => {
    const { id } = await client.lease.grant(60);
    await client.kv.put("lease/a", "1", { lease: id });
    const { keys, grantedTtl } = await client.lease.timeToLive(id, { keys: true });
    expect([keys.map(toText), grantedTtl]).toEqual([["lease/a"], 60]);
    expect((await client.lease.list()).leases.map((lease) => lease.id)).toContain(id);
    expect((await client.lease.keepAliveOnce(id)).ttl).toBe(60);
    await client.lease.revoke(id);
    expect((await client.kv.get("lease/a")).count).toBe(0);
    expect((await client.lease.timeToLive(id)).ttl).toBe(-1);
  });

  it("a lease that is kept alive outlives its time, and ends when nobody keeps it", async () => {
    const { id, ttl } = await client.lease.grant(2);
    await client.kv.put("lease/b", "1", { lease: id });
    const until = Date.now() + ttl * 2000;
    for await (const answer of client.lease.keepAlive(id)) {
      expect(answer.ttl).toBe(ttl);
      if (Date.now() > until) break;
    }
    expect((await client.kv.get("lease/b")).count).toBe(1);
    for await (const { events } of client.watch(watchInit("lease/b"))) {
      expect(events.map((event) => event.type)).toEqual([1]);
      break;
    }
  });
});

describe("cluster and maintenance", () => {
  it("lists its one member and tells its state", async () => {
    const { members } = await client.cluster.memberList();
    expect(members.map((each) => [each.name, each.clientUrls, each.isLearner])).toEqual([
      ["default", [member.clientUrl], false],
    ]);
    const status = await client.maintenance.status({ endpoint: member.endpoint });
    expect(status.leader).toBe(members[0]?.id);
    expect(status.version).toMatch(/^3\.5\./);
    expect(status.raftIndex).toBeGreaterThan(0);
  });

  it("hashes, defragments, raises and takes back an alarm", async () => {
    const first = await client.maintenance.hashKv();
    await client.maintenance.defragment();
    expect((await client.maintenance.hashKv()).hash).toBe(first.hash);
    const memberId = (await client.maintenance.status()).header?.memberId ?? 0n;
    await client.maintenance.alarm(1, AlarmType.NoSpace, memberId);
    await expect(client.kv.put("full", "1")).rejects.toMatchObject({ kind: "NoSpace" });
    expect((await client.maintenance.alarmList()).alarms).toEqual([{ memberId, alarm: AlarmType.NoSpace }]);
    await client.maintenance.alarmDisarm(memberId, AlarmType.NoSpace);
    await client.kv.put("full", "1");
  });

  it("a snapshot is a bbolt file and its checksum, which holds", async () => {
    const parts: Uint8Array[] = [];
    for await (const part of client.maintenance.snapshot()) parts.push(part);
    const whole = Buffer.concat(parts);
    expect(whole.length % 512).toBe(32);
    expect(whole.readUInt32LE(16)).toBe(0xed0cdaed);
  });
});

describe("concurrency", () => {
  it("a mutex goes from one session to the next", async () => {
    await using one = await Session.open(client, { ttlSeconds: 10 });
    await using two = await Session.open(client, { ttlSeconds: 10 });
    const [first, second] = [new Mutex(one, "mutex"), new Mutex(two, "mutex")];
    await first.lock();
    await expect(second.tryLock()).rejects.toMatchObject({ kind: "Locked" });
    const next = second.lock();
    await until("the second waits", async () => (await client.kv.get("mutex/", { prefix: true })).count === 2);
    await first.unlock();
    await next;
    expect(toText(second.key ?? new Uint8Array())).toBe(`mutex/${two.leaseId.toString(16)}`);
  });

  it("an election is seen by an observer", async () => {
    await using one = await Session.open(client, { ttlSeconds: 10 });
    await using two = await Session.open(client, { ttlSeconds: 10 });
    const [a, b] = [new Election(one, "election"), new Election(two, "election")];
    const seen: string[] = [];
    const observing = (async () => {
      for await (const { kv } of a.observe()) {
        seen.push(toText(kv.value));
        if (seen.at(-1) === "b") return;
      }
    })();
    await a.campaign("a");
    await until("the first is seen", () => seen.includes("a"));
    await a.proclaim("a2");
    const second = b.campaign("b");
    await until("the second waits", async () => (await client.kv.get("election/", { prefix: true })).count === 2);
    await one.close();
    await second;
    await observing;
    expect(seen[0]).toBe("a");
    expect(seen.at(-1)).toBe("b");
  });

  it("a session is lost when its lease is revoked", async () => {
    const session = await Session.open(client, { ttlSeconds: 2 });
    await client.lease.revoke(session.leaseId);
    await session.lost;
  });
});

describe("auth", () => {
  it("users, roles and permissions; the client logs in", async () => {
    await using own = await Member.start({ dataDir: `${folder.path}/auth` });
    const endpoints = [own.endpoint];
    await using open = await connect({ endpoints });
    await open.auth.userAdd("root", "rootpw");
    await open.auth.roleAdd("root");
    await open.auth.userGrantRole("root", "root");
    await open.auth.userAdd("alice", "secret");
    await open.auth.roleAdd("reader");
    await open.auth.roleGrantPermission("reader", PermissionType.Read, "app/", { prefix: true });
    await open.auth.userGrantRole("alice", "reader");
    await open.kv.put("app/a", "1");
    await open.auth.enable();
    await expect(open.kv.get("app/a")).rejects.toMatchObject({ kind: "UserEmpty" });

    await using alice = await connect({ endpoints, username: "alice", password: "secret" });
    expect((await alice.kv.get("app/", { prefix: true })).count).toBe(1);
    await expect(alice.kv.put("app/a", "2")).rejects.toMatchObject({ kind: "PermissionDenied" });
    await expect(connect({ endpoints, username: "alice", password: "wrong" })).rejects.toMatchObject({
      kind: "AuthFailed",
    });
    await using root = await connect({ endpoints, username: "root", password: "rootpw" });
    expect((await root.auth.userGet("alice")).roles).toEqual(["reader"]);
    expect((await root.auth.roleGet("reader")).perm).toHaveLength(1);

    // A restarted member knows no simple token any more: a call gets a new one, and so does a watch.
    const seen: string[] = [];
    const watching = (async () => {
      for await (const { events } of alice.watch(watchInit("app/", { prefix: true }), { createdNotify: true })) {
        seen.push(...events.map((event) => toText(event.kv?.value ?? new Uint8Array())), "|");
        if (seen.includes("3")) return;
      }
    })();
    await until("the watch stands", () => seen.length > 0);
    await own.kill();
    const port = Number(own.endpoint.split(":")[1]);
    await using again = await Member.start({ dataDir: own.dataDir, clientPort: port });
    await root.kv.put("app/a", "3");
    await watching;
    expect((await alice.kv.get("app/a")).count).toBe(1);
    await root.auth.disable();
    expect((await root.auth.status()).enabled).toBe(false);
    expect(again.isRunning).toBe(true);
  });
});

describe("a server that goes and comes back", () => {
  it("reads wait for it; a watch misses nothing and repeats nothing; a lease is kept", async () => {
    const dataDir = `${folder.path}/restart`;
    let own = await Member.start({ dataDir });
    try {
      await using c = await connect({ endpoints: [own.endpoint] });
      const { header } = await c.kv.put("r/0", "0");
      const seen: number[] = [];
      const wanted = 60;
      const watching = (async () => {
        const start = { prefix: true, startRevision: header?.revision ?? 0 } as const;
        for await (const { events } of c.watch(watchInit("r/", start))) {
          for (const event of events) seen.push(event.kv?.modRevision ?? 0);
          if (seen.length >= wanted) return;
        }
      })();
      await using session = await Session.open(c, { ttlSeconds: 10 });
      for (let i = 1; i < wanted; i++) {
        if (i % 20 === 0) {
          await own.kill();
          own = await Member.start({ dataDir, clientPort: Number(own.endpoint.split(":")[1]) });
          expect((await c.kv.get("r/0")).count).toBe(1);
        }
        await c.kv.put(`r/${i}`, String(i));
      }
      await watching;
      const first = header?.revision ?? 0;
      expect(new Set(seen).size).toBe(wanted);
      expect(seen).toEqual([...seen].sort((a, b) => a - b));
      expect(seen[0]).toBe(first);
      expect(session.isLost).toBe(false);
      expect((await c.lease.timeToLive(session.leaseId)).ttl).toBeGreaterThan(0);
    } finally {
      await own.kill();
    }
  });
});
