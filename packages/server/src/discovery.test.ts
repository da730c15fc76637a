import dgram from "node:dgram";
import { Resolver } from "node:dns/promises";
import { mkdtempSync, rmSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { startEtcd } from "./boot.ts";
import { configFromArguments } from "./config.ts";
import { discoverCluster, type Names, type SrvRecord } from "./discovery.ts";
import { systemClock } from "./lib/clock.ts";
import { type LogFields, type Logger, silentLogger } from "./lib/log.ts";
import { systemRandom } from "./lib/random.ts";

const cleanUps: (() => void)[] = [];
afterEach(() => {
  for (const cleanUp of cleanUps.splice(0)) cleanUp();
});

/** Answers SRV questions from a table, and says of other names that they are not there. */
async function dnsServer(table: Readonly<Record<string, readonly SrvRecord[]>>): Promise<number> {
  const socket = dgram.createSocket("udp4");
  const label = (name: string) =>
    Buffer.concat([...name.split(".").map((part) => Buffer.from([part.length, ...Buffer.from(part)])), Buffer.of(0)]);
  socket.on("message", (query, from) => {
    const parts: string[] = [];
    let at = 12;
    for (let length = query[at] ?? 0; length > 0; length = query[at] ?? 0) {
      parts.push(query.subarray(at + 1, at + 1 + length).toString());
      at += 1 + length;
    }
    const question = query.subarray(12, at + 5);
    const records = table[parts.join(".")];
    const head = Buffer.alloc(12);
    query.copy(head, 0, 0, 2);
    head.writeUInt16BE(records ? 0x8180 : 0x8183, 2);
    head.writeUInt16BE(1, 4);
    head.writeUInt16BE(records?.length ?? 0, 6);
    const answers = (records ?? []).map(({ name, port, priority, weight }) => {
      const data = Buffer.concat([Buffer.alloc(6), label(name)]);
      data.writeUInt16BE(priority, 0);
      data.writeUInt16BE(weight, 2);
      data.writeUInt16BE(port, 4);
      const fixed = Buffer.from([0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 60, 0, data.length]);
      return Buffer.concat([fixed, data]);
    });
    socket.send(Buffer.concat([head, question, ...answers]), from.port, from.address);
  });
  await new Promise<void>((resolve) => socket.bind(0, "127.0.0.1", resolve));
  cleanUps.push(() => socket.close());
  return (socket.address() as AddressInfo).port;
}

const hosts: Readonly<Record<string, string>> = {
  "m0.example.test": "10.0.0.1",
  "m1.example.test": "10.0.0.2",
  "m2.example.test": "10.0.0.3",
};

async function namesFrom(table: Readonly<Record<string, readonly SrvRecord[]>>): Promise<Names> {
  const resolver = new Resolver();
  resolver.setServers([`127.0.0.1:${await dnsServer(table)}`]);
  return {
    resolveSrv: (name) => resolver.resolveSrv(name),
    resolveHost: async (host) => {
      if (/^[\d.]+$/.test(host)) return host;
      const address = hosts[host];
      if (address === undefined) throw Object.assign(new Error("none"), { code: "ENOTFOUND", hostname: host });
      return address;
    },
  };
}

const srv = (name: string, port = 2380): SrvRecord => ({ name, port, priority: 0, weight: 0 });
const three = Object.keys(hosts).map((name) => srv(name));

function discover(names: Names, ...args: string[]) {
  const lines: LogFields[] = [];
  const keep = (message: string, fields?: LogFields) => void lines.push({ message, ...fields });
  const logger: Logger = { debug: keep, info: keep, warn: keep, error: keep, isDebugEnabled: false };
  const config = configFromArguments([
    ...["--name", "b", "--discovery-srv", "example.test"],
    ...["--initial-advertise-peer-urls", "http://10.0.0.2:2380", ...args],
  ]);
  return { result: discoverCluster(config, names, logger), lines };
}

describe("discovery by DNS", () => {
  it("makes the initial cluster of the records, with the own name where it advertises", async () => {
    const { result, lines } = discover(await namesFrom({ "_etcd-server._tcp.example.test": three }));
    const { config, peerServerName } = await result;
    expect(config.initialClusterText).toBe(
      "0=http://m0.example.test:2380,b=http://m1.example.test:2380,1=http://m2.example.test:2380",
    );
    expect([...config.initialCluster]).toEqual([
      ["0", ["http://m0.example.test:2380"]],
      ["b", ["http://m1.example.test:2380"]],
      ["1", ["http://m2.example.test:2380"]],
    ]);
    expect(peerServerName).toBe("");
    expect(lines).toContainEqual(
      expect.objectContaining({
        message: "get cluster for etcd-server-ssl SRV",
        error:
          "error querying DNS SRV records for _etcd-server-ssl lookup _etcd-server-ssl._tcp.example.test: no such host",
      }),
    );
    expect(lines.filter(({ message }) => message === "got bootstrap from DNS for etcd-server")).toHaveLength(3);
  });

  it("takes https from its own records, and judges peers by the domain unless there is an authority", async () => {
    const names = await namesFrom({ "_etcd-server-ssl-blue._tcp.example.test": three });
    const https = [
      ...["--discovery-srv-name", "blue"],
      ...["--initial-advertise-peer-urls", "https://m1.example.test:2380"],
    ];
    const { config, peerServerName } = await discover(names, ...https).result;
    expect(config.initialCluster.get("b")).toEqual(["https://m1.example.test:2380"]);
    expect(peerServerName).toBe("example.test");
    const judged = await discover(names, ...https, "--peer-trusted-ca-file", "ca.pem").result;
    expect(judged.peerServerName).toBe("");
  });

  it("refuses records that do not name this member", async () => {
    const names = await namesFrom({ "_etcd-server._tcp.example.test": three });
    await expect(discover(names, "--initial-advertise-peer-urls", "http://10.0.0.9:2380").result).rejects.toThrow(
      'error setting up initial cluster: cannot find local etcd member "b" in SRV records',
    );
  });

  it("says what was asked when there are no records", async () => {
    await expect(discover(await namesFrom({})).result).rejects.toThrow(
      "error setting up initial cluster: " +
        "error querying DNS SRV records for _etcd-server-ssl lookup _etcd-server-ssl._tcp.example.test: no such host; " +
        "error querying DNS SRV records for _etcd-server lookup _etcd-server._tcp.example.test: no such host",
    );
  });

  it("refuses a record of the other scheme for a place that this member advertises", async () => {
    const names = await namesFrom({ "_etcd-server-ssl._tcp.example.test": [srv("m1.example.test")] });
    await expect(discover(names).result).rejects.toThrow(
      "bootstrap at https://m1.example.test:2380 from DNS for etcd-server-ssl has scheme mismatch with expected peer " +
        "http://10.0.0.2:2380",
    );
  });

  it("leaves out hosts that cannot be resolved", async () => {
    const names = await namesFrom({ "_etcd-server._tcp.example.test": [...three, srv("gone.example.test")] });
    const { config } = await discover(names).result;
    expect(config.initialCluster.size).toBe(3);
  });
});

it("a member starts in the cluster that the records name, and the next time without them", async () => {
  const folder = mkdtempSync(path.join(tmpdir(), "etcd-srv-"));
  cleanUps.push(() => rmSync(folder, { recursive: true, force: true }));
  const port = await new Promise<number>((resolve) => {
    const probe = createServer().listen(0, "127.0.0.1", () => {
      const { port: free } = probe.address() as AddressInfo;
      probe.close(() => resolve(free));
    });
  });
  const config = configFromArguments([
    ...["--name", "b", "--data-dir", path.join(folder, "b.etcd"), "--discovery-srv", "example.test"],
    ...["--listen-peer-urls", `http://127.0.0.1:${port}`, "--initial-advertise-peer-urls", `http://127.0.0.1:${port}`],
    ...["--listen-client-urls", "http://127.0.0.1:0", "--advertise-client-urls", "http://127.0.0.1:0"],
  ]);
  const start = (names: Names) =>
    startEtcd(config, {
      clock: systemClock,
      random: systemRandom,
      logger: silentLogger,
      onFatal: (error) => {
        throw error;
      },
      backendCommits: "inline",
      names,
    });
  const resolveHost = async () => "127.0.0.1";
  const first = await start({ resolveHost, resolveSrv: async () => [srv("m1.example.test", port)] });
  const { members } = await first.server.memberList({ linearizable: true }, {});
  expect(members.map(({ name, peerUrls }) => [name, peerUrls])).toEqual([["b", [`http://m1.example.test:${port}`]]]);
  await first.stop();
  const again = await start({ resolveHost, resolveSrv: () => Promise.reject(new Error("nobody asks")) });
  expect(again.server.member).toEqual(first.server.member);
  await again.stop();
}, 120_000);
