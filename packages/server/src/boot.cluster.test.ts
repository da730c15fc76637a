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
  HashKVRequest,
  MemberListRequest,
  PutRequest,
  RangeRequest,
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

async function start(place: Place, all: readonly Place[], changes: Partial<ServerConfig> = {}): Promise<RunningMember> {
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
      logger: silentLogger,
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
  const serverOf = (place: Place): Server => (place.member as RunningMember).server;

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
