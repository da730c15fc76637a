/** Three members in this process that talk to each other over their peer ports. */
import fs from "node:fs";
import { createServer, type Server as HttpServer } from "node:http";
import type { AddressInfo } from "node:net";
import os from "node:os";
import path from "node:path";
import {
  AlarmAction,
  AlarmType,
  CompactionRequest,
  DowngradeAction,
  HashKVRequest,
  MemberListRequest,
  PutRequest,
  RangeRequest,
  TxnRequest,
} from "@etcd-ts/client/wire";
import { afterEach, describe, expect, it } from "vitest";
import { type RunningMember, startMember } from "./boot.ts";
import { defaultServerConfig, type Server, type ServerConfig } from "./etcdserver/index.ts";
import { utf8Bytes, utf8Text } from "./lib/bytes.ts";
import { systemClock } from "./lib/clock.ts";
import { silentLogger } from "./lib/log.ts";
import { systemRandom } from "./lib/random.ts";

const cleanUps: (() => Promise<void> | void)[] = [];
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp();
});

interface Place {
  readonly name: string;
  readonly dataDir: string;
  readonly url: string;
  readonly port: HttpServer;
  member: RunningMember | undefined;
}

/** Ports that answer for whoever runs behind them. */
async function places(names: readonly string[]): Promise<Place[]> {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "cluster-test-"));
  cleanUps.push(() => fs.rmSync(folder, { recursive: true, force: true }));
  return Promise.all(
    names.map(async (name) => {
      const port = createServer((request, response) => {
        if (place.member) place.member.peerHandler(request, response);
        else response.destroy();
      });
      await new Promise<void>((resolve) => port.listen(0, "127.0.0.1", resolve));
      cleanUps.push(async () => {
        await place.member?.stop();
        port.closeAllConnections();
        await new Promise((resolve) => port.close(resolve));
      });
      const url = `http://127.0.0.1:${(port.address() as AddressInfo).port}`;
      const place: Place = { name, dataDir: path.join(folder, name), url, port, member: undefined };
      return place;
    }),
  );
}

async function start(
  place: Place,
  all: readonly Place[],
  changes: Partial<ServerConfig> = {},
  logger = silentLogger,
): Promise<RunningMember> {
  place.member = await startMember(
    {
      ...defaultServerConfig(place.dataDir),
      name: place.name,
      initialCluster: new Map(all.map(({ name, url }) => [name, [url]])),
      advertisePeerUrls: [place.url],
      tickMs: 50,
      snapshotCount: 50,
      snapshotCatchupEntries: 10,
      ...changes,
    },
    {
      clock: systemClock,
      random: systemRandom,
      logger,
      onFatal: (error) => {
        throw error;
      },
      backendCommits: "inline",
    },
  );
  await place.member.server.ready;
  return place.member;
}

async function stop(place: Place): Promise<void> {
  const { member } = place;
  place.member = undefined;
  place.port.closeAllConnections();
  await member?.stop();
}

it("a member that was away for longer than the log reaches back catches up by a snapshot", async () => {
  const all = await places(["a", "b", "c"]);
  const [a, , c] = all as [Place, Place, Place];
  await Promise.all(all.map((place) => start(place, all)));
  const put = (key: string, value: string) =>
    (a.member as RunningMember).server.put(PutRequest.create({ key: utf8Bytes(key), value: utf8Bytes(value) }), {});
  await put("before", "1");
  await stop(c);
  for (let i = 0; i < 200; i++) await put(`k${i}`, `${i}`);
  const { server } = await start(c, all);

  // Linearizable: answered when the leader's commit is applied here.
  const { kvs } = await server.range(RangeRequest.create({ key: utf8Bytes("k199") }), {});
  expect(kvs.map((kv) => utf8Text(kv.value))).toEqual(["199"]);
  const hashes = await Promise.all(
    all.map(async (place) => (await place.member?.server.hashKv(HashKVRequest.create({}), {}))?.hash),
  );
  expect(new Set(hashes).size).toBe(1);
  const snaps = fs.readdirSync(path.join(c.dataDir, "member", "snap"));
  expect(snaps.some((name) => name.endsWith(".snap"))).toBe(true);
  expect(snaps.filter((name) => name.endsWith(".snap.db") || name.startsWith("tmp"))).toEqual([]);

  // And it stays: the snapshot is where the next start begins.
  await stop(c);
  const again = await start(c, all);
  const { kvs: kept } = await again.server.range(RangeRequest.create({ key: utf8Bytes("before") }), {});
  expect(kept.map((kv) => utf8Text(kv.value))).toEqual(["1"]);
}, 180_000);

const put = (server: Server, key: string, value: string) =>
  server.put(PutRequest.create({ key: utf8Bytes(key), value: utf8Bytes(value) }), {});

async function get(server: Server, key: string): Promise<string | undefined> {
  const { kvs } = await server.range(RangeRequest.create({ key: utf8Bytes(key) }), {});
  return kvs[0] && utf8Text(kvs[0].value);
}

/** Resolves when the condition holds; the test's time limit ends the wait. */
async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) await systemClock.sleep(20);
}

const serverOf = (place: Place): Server => (place.member as RunningMember).server;

/** Bits that fell over on a disk: in every place of the database file where `from` stands, `to` stands now. */
function corrupt(dataDir: string, from: string, to: string): void {
  const file = path.join(dataDir, "member", "snap", "db.lmdb");
  const bytes = fs.readFileSync(file);
  let found = 0;
  for (let at = bytes.indexOf(from); at >= 0; at = bytes.indexOf(from, at + 1)) {
    bytes.write(to, at, "latin1");
    found++;
  }
  expect(found).toBeGreaterThan(0);
  fs.writeFileSync(file, bytes);
}

describe("a member whose database was corrupted", () => {
  /** Three members with some history; then the last one is stopped and a value in its database changed. */
  async function corrupted(changes: Partial<ServerConfig> = {}): Promise<Place[]> {
    const all = await places(["a", "b", "c"]);
    await Promise.all(all.map((place) => start(place, all, changes)));
    const [a, , c] = all as [Place, Place, Place];
    for (let i = 0; i < 10; i++) await put(serverOf(a), `k${i}`, `value-${i}-right`);
    await until(async () => (await get(serverOf(c), "k9")) !== undefined);
    await stop(c);
    corrupt(c.dataDir, "value-3-right", "value-3-wrong");
    return all;
  }

  const hasCorruptAlarm = (server: Server) => server.alarms().some(({ alarm }) => alarm === AlarmType.Corrupt);

  it("does not start with --experimental-initial-corrupt-check, and starts without", async () => {
    const all = await corrupted();
    const c = all[2] as Place;
    await expect(start(c, all, { initialCorruptCheck: true })).rejects.toThrow(
      /^[0-9a-f]+ found data inconsistency with peers$/,
    );
    // One that is right passes; that it was told of two members and could ask one is no reason to stay away.
    const b = all[1] as Place;
    const members = (await serverOf(b).memberList(MemberListRequest.create({}), {})).members.length;
    await stop(b);
    await start(b, all, { initialCorruptCheck: true });
    expect((await serverOf(b).memberList(MemberListRequest.create({}), {})).members).toHaveLength(members);
    await start(c, all);
    expect(await get(serverOf(c), "k3")).toBe("value-3-wrong");
  }, 180_000);

  it("makes the leader raise CORRUPT, which ends writes and not reads, until it is disarmed", async () => {
    const changes = { corruptCheckIntervalMs: 200 };
    const all = await corrupted(changes);
    const [a, b, c] = all as [Place, Place, Place];
    expect(hasCorruptAlarm(serverOf(a))).toBe(false);
    await start(c, all, changes);
    await until(() => all.every((place) => hasCorruptAlarm(serverOf(place))));
    const leader = all.find((place) => serverOf(place).raftView().isLeader) as Place;
    expect(serverOf(a).alarms()).toEqual([{ memberId: 0n, alarm: AlarmType.Corrupt }]);
    await expect(put(serverOf(a), "k", "v")).rejects.toMatchObject({ kind: "Corrupt" });
    await expect(serverOf(b).leaseGrant({ id: 0n, ttl: 60 }, {})).rejects.toMatchObject({ kind: "Corrupt" });
    await expect(serverOf(b).compact(CompactionRequest.create({ revision: 2 }), {})).rejects.toMatchObject({
      kind: "Corrupt",
    });
    expect(await get(serverOf(b), "k1")).toBe("value-1-right");

    // The way out: the bad member goes, and comes back with what the others have.
    await stop(c);
    if (c === leader) await until(() => serverOf(a).raftView().leaderId !== 0n && !serverOf(a).raftView().isLearner);
    corrupt(c.dataDir, "value-3-wrong", "value-3-right");
    await start(c, all, changes);
    const disarm = { action: AlarmAction.Deactivate, memberId: 0n, alarm: AlarmType.Corrupt };
    await serverOf(a).alarm(disarm, {});
    await put(serverOf(a), "k", "v");
  }, 180_000);

  it("is found by the hashes that compactions leave behind", async () => {
    const changes = { compactHashCheck: true, compactHashCheckIntervalMs: 200 };
    const all = await corrupted(changes);
    const [a, , c] = all as [Place, Place, Place];
    await start(c, all, changes);
    expect(all.some((place) => hasCorruptAlarm(serverOf(place)))).toBe(false);
    const revision = serverOf(a).header().revision;
    await serverOf(a).compact(CompactionRequest.create({ revision, physical: true }), {});
    await until(() => all.every((place) => hasCorruptAlarm(serverOf(place))));
    expect(serverOf(a).alarms()).toEqual([{ memberId: 0n, alarm: AlarmType.Corrupt }]);
  }, 180_000);
});

/** Hands leadership to another member, and waits until all have heard of it. */
async function moveLeader(all: readonly Place[], to: Place): Promise<void> {
  const targetId = serverOf(to).member.id;
  await until(async () => {
    const leader = all.find((place) => serverOf(place).raftView().isLeader);
    if (leader && leader !== to)
      await serverOf(leader)
        .moveLeader({ targetId }, {})
        .catch(() => {});
    return all.every((place) => serverOf(place).raftView().leaderId === targetId);
  });
}

it("leases live through changes of leader: none ends early, none is forgotten, and each ends once", async () => {
  const all = await places(["a", "b", "c"]);
  await Promise.all(all.map((place) => start(place, all)));
  const [a] = all as [Place, Place, Place];
  const ttl = 3;
  const kept = await serverOf(a).leaseGrant({ id: 0n, ttl: 3600 }, {});
  const ids: bigint[] = [];
  for (let i = 0; i < 40; i++) {
    const { id } = await serverOf(all[i % 3] as Place).leaseGrant({ id: 0n, ttl }, {});
    ids.push(id);
  }
  const lastGrantMs = systemClock.monotonicMs();
  await Promise.all(
    ids.map((lease, i) =>
      serverOf(a).put(PutRequest.create({ key: utf8Bytes(`leased-${i}`), value: utf8Bytes("1"), lease }), {}),
    ),
  );
  for (let round = 0; round < 6; round++) {
    await moveLeader(all, all[round % 3] as Place);
    const { leases } = await serverOf(a).leaseLeases({});
    const isEarly = systemClock.monotonicMs() < lastGrantMs + ttl * 1000;
    if (isEarly) expect(leases).toContainEqual({ id: ids.at(-1) });
  }
  for (const place of all) {
    await until(async () => (await serverOf(place).leaseLeases({})).leases.length === 1);
    expect((await serverOf(place).leaseLeases({})).leases).toEqual([{ id: kept.id }]);
  }
  // A put and a deletion for each, and nothing else.
  expect(serverOf(a).header().revision).toBe(1 + 2 * ids.length);
  const { count } = await serverOf(a).range(
    RangeRequest.create({ key: utf8Bytes("leased-"), rangeEnd: utf8Bytes("leased."), countOnly: true }),
    {},
  );
  expect(count).toBe(0);

  // A leader that stops has handed over before: the others are not without one.
  const leader = all.find((place) => serverOf(place).raftView().isLeader) as Place;
  const { term } = serverOf(leader).raftView();
  await stop(leader);
  const heir = all.find((place) => place.member && serverOf(place).raftView().isLeader);
  expect(heir && serverOf(heir).raftView().term).toBe(term + 1);
}, 180_000);

it("members are added, promoted, updated and removed, by whichever member is asked", async () => {
  const all = await places(["a", "b", "c", "d"]);
  const [a, b, c, d] = all as [Place, Place, Place, Place];
  const three = [a, b, c];
  await Promise.all(three.map((place) => start(place, three)));
  await moveLeader(three, a);
  const asked = serverOf(b);
  const add = () => asked.memberAdd({ peerUrls: [d.url], isLearner: true }, {});
  // Not before the members have been connected for five seconds.
  await expect(add()).rejects.toMatchObject({ kind: "Unhealthy" });
  await until(() =>
    add().then(
      () => true,
      () => false,
    ),
  );
  const dId = (await asked.memberList({ linearizable: true }, {})).members.find(({ isLearner }) => isLearner)?.id ?? 0n;
  await expect(asked.memberAdd({ peerUrls: [a.url], isLearner: false }, {})).rejects.toMatchObject({
    kind: "PeerURLExist",
  });
  await expect(asked.memberAdd({ peerUrls: ["http://127.0.0.1:1"], isLearner: true }, {})).rejects.toMatchObject({
    kind: "TooManyLearners",
  });
  await expect(asked.memberPromote({ id: dId }, {})).rejects.toMatchObject({ kind: "LearnerNotReady" });
  await expect(asked.memberPromote({ id: 4711n }, {})).rejects.toMatchObject({ kind: "MemberNotFound" });
  await expect(asked.memberPromote({ id: serverOf(c).member.id }, {})).rejects.toMatchObject({
    kind: "MemberNotLearner",
  });
  await expect(serverOf(a).moveLeader({ targetId: dId }, {})).rejects.toMatchObject({ kind: "BadLeaderTransferee" });
  await expect(asked.moveLeader({ targetId: asked.member.id }, {})).rejects.toMatchObject({ kind: "NotLeader" });

  await start(d, all, { isNewCluster: false });
  expect(serverOf(d).raftView().isLearner).toBe(true);
  await until(() =>
    asked.memberPromote({ id: dId }, {}).then(
      () => true,
      () => false,
    ),
  );
  await until(() => !serverOf(d).raftView().isLearner);
  await moveLeader(all, d);

  // The leader removes itself, once it has been connected for long enough: the others go on, and it ends.
  let left: (string | undefined)[] = [];
  await until(() =>
    serverOf(d)
      .memberRemove({ id: dId }, {})
      .then(
        ({ members }) => {
          left = members.map(({ name }) => name).sort();
          return true;
        },
        () => false,
      ),
  );
  expect(left).toEqual(["a", "b", "c"]);
  expect(await serverOf(d).stopped).toMatchObject({ name: "MemberRemovedError" });
  await stop(d);
  await until(() => three.some((place) => serverOf(place).raftView().isLeader));
  await put(serverOf(c), "after", "removal");
  const updated = await serverOf(c).memberUpdate(
    { id: serverOf(c).member.id, peerUrls: [c.url, "http://127.0.0.1:1"] },
    {},
  );
  expect(updated.members.find(({ id }) => id === serverOf(c).member.id)?.peerUrls).toEqual([
    c.url,
    "http://127.0.0.1:1",
  ]);

  // Without a quorum the linearizable list fails, the plain one does not, and nothing is removed.
  await stop(a);
  await stop(b);
  const last = serverOf(c);
  await expect(last.memberList({ linearizable: true }, {})).rejects.toMatchObject({ kind: "Timeout" });
  expect((await last.memberList({ linearizable: false }, {})).members).toHaveLength(3);
}, 180_000);

it("a compaction that is under way when a snapshot comes holds up neither apply nor reads", async () => {
  const all = await places(["a", "b", "c"]);
  const [a, , c] = all as [Place, Place, Place];
  // Ten rows, then a rest: what the others do at once takes this member longer than the rest of the test.
  const slow = { compactionBatchLimit: 10, compactionSleepIntervalMs: 500 };
  await Promise.all(all.map((place) => start(place, all, place === c ? slow : {})));
  const puts = Array.from({ length: 100 }, (_, i) => ({
    request: {
      kind: "requestPut" as const,
      value: PutRequest.create({ key: utf8Bytes(`k${i}`), value: utf8Bytes("v") }),
    },
  }));
  for (let i = 0; i < 20; i++) await serverOf(a).txn(TxnRequest.create({ success: puts }), {});
  const { revision } = serverOf(a).header();
  await serverOf(a).compact(CompactionRequest.create({ revision }), {});
  // Linearizable: the compaction has been applied there, and is at work.
  expect(await get(serverOf(c), "k0")).toBe("v");
  await stop(c);
  for (let i = 0; i < 200; i++) await put(serverOf(a), `later-${i}`, `${i}`);

  const lines: string[] = [];
  await start(c, all, slow, { ...silentLogger, info: (line) => lines.push(line) });
  expect(await get(serverOf(c), "later-199")).toBe("199");
  const [resumed, installing] = ["resume scheduled compaction", "applying snapshot"].map((line) => lines.indexOf(line));
  expect(resumed).toBeGreaterThanOrEqual(0);
  expect(installing).toBeGreaterThan(resumed as number);
  expect(lines).toContain("applied snapshot");
  expect(lines).not.toContain("finished scheduled compaction");
  // Nothing of the old one is left, and the next one is made as everywhere.
  const now = serverOf(a).header().revision;
  await serverOf(c).compact(CompactionRequest.create({ revision: now, physical: true }), {});
  const hashes = all.map(async (place) => (await serverOf(place).hashKv(HashKVRequest.create({}), {})).hash);
  expect(new Set(await Promise.all(hashes)).size).toBe(1);
}, 180_000);

it("a learner is promoted when it has nine tenths of what its leader has, and not before", async () => {
  const all = await places(["a", "b", "c", "d"]);
  const [a, , , d] = all as [Place, Place, Place, Place];
  const three = all.slice(0, 3);
  await Promise.all(three.map((place) => start(place, three)));
  await moveLeader(three, a);
  const leader = serverOf(a);
  await until(() =>
    leader.memberAdd({ peerUrls: [d.url], isLearner: true }, {}).then(
      () => true,
      () => false,
    ),
  );
  const { members } = await leader.memberList({ linearizable: true }, {});
  const id = members.find(({ isLearner }) => isLearner)?.id as bigint;
  const matchOf = (member: bigint) => leader.raftStatus().progress.get(member)?.match ?? 0;
  const [own, learner] = [() => matchOf(leader.member.id), () => matchOf(id)];
  const isCaughtUp = () => own() > 0 && learner() === own();
  const promote = () =>
    leader.memberPromote({ id }, {}).then(
      () => "promoted",
      (error: { readonly kind?: string }) => error.kind,
    );
  await start(d, all, { isNewCluster: false });
  for (let i = 0; i < 30; i++) await put(leader, "k", `${i}`);
  await until(isCaughtUp);
  await stop(d);
  const far = Math.floor(learner() / 0.9) + 1;
  while (own() < far) await put(leader, "k", "v");
  expect(learner()).toBeLessThan(own() * 0.9);
  expect(await promote()).toBe("LearnerNotReady");

  await start(d, all, { isNewCluster: false });
  await until(isCaughtUp);
  await stop(d);
  const near = Math.floor(learner() / 0.9);
  while (own() < near) await put(leader, "k", "v");
  expect(learner()).toBeLessThan(own());
  expect(learner()).toBeGreaterThanOrEqual(own() * 0.9);
  expect(await promote()).toBe("promoted");
}, 180_000);

it("a downgrade is validated, allowed and taken back; while it is allowed, this release does not start", async () => {
  const [a] = (await places(["a"])) as [Place];
  const { server } = await start(a, [a]);
  await until(() => server.clusterVersion() === "3.5.0");
  const ask = (action: number, version = "") => server.downgrade({ action, version }, {});
  const kindOf = (action: number, version?: string) =>
    ask(action, version).then(
      (response) => response.version,
      (error: { readonly kind?: string }) => error.kind,
    );
  const { Validate, Enable, Cancel } = DowngradeAction;
  expect(await kindOf(Validate, "3.4")).toBe("3.5.0");
  expect(await kindOf(Validate, "3.4.23")).toBe("3.5.0");
  for (const version of ["3.3", "3.5.0", "3.6", "2.5"]) {
    expect(await kindOf(Validate, version)).toBe("InvalidDowngradeTargetVersion");
  }
  for (const version of ["", "3", "latest"]) expect(await kindOf(Enable, version)).toBe("WrongDowngradeVersionFormat");
  expect(await kindOf(Cancel)).toBe("NoInflightDowngrade");
  expect(await kindOf(7)).toBe("UnknownMethod");
  expect(await kindOf(Enable, "3.4.0")).toBe("3.5.0");
  expect(server.isDowngradeEnabled()).toBe(true);
  expect(await kindOf(Validate, "3.4")).toBe("DowngradeInProcess");
  expect(await kindOf(Cancel)).toBe("3.5.0");
  expect(await kindOf(Enable, "3.4")).toBe("3.5.0");
  await put(server, "still", "served");
  await stop(a);
  await expect(start(a, [a])).rejects.toMatchObject({
    message: "invalid downgrade; server version is not allowed to join when downgrade is enabled",
    fields: { "current-server-version": "3.5.16", "target-cluster-version": "3.4.0" },
  });
}, 120_000);
