/** Three members in this process that talk to each other over their peer ports. */
import fs from "node:fs";
import { createServer, type Server as HttpServer } from "node:http";
import type { AddressInfo } from "node:net";
import os from "node:os";
import path from "node:path";
import { HashKVRequest, PutRequest, RangeRequest } from "@etcd-ts/client/wire";
import { afterEach, expect, it } from "vitest";
import { type RunningMember, startMember } from "./boot.ts";
import { defaultServerConfig } from "./etcdserver/index.ts";
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

async function start(place: Place, all: readonly Place[]): Promise<RunningMember> {
  place.member = await startMember(
    {
      ...defaultServerConfig(place.dataDir),
      name: place.name,
      initialCluster: new Map(all.map(({ name, url }) => [name, [url]])),
      advertisePeerUrls: [place.url],
      tickMs: 50,
      snapshotCount: 50,
      snapshotCatchupEntries: 10,
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
