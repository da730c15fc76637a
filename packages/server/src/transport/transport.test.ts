import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import http from "node:http";
import type net from "node:net";
import os from "node:os";
import path from "node:path";
import { EtcdError } from "@etcd-ts/client/wire";
import { afterEach, describe, expect, it } from "vitest";
import type { TransportSink } from "../etcdserver/index.ts";
import { hexId } from "../lib/bytes.ts";
import { systemClock } from "../lib/clock.ts";
import { silentLogger } from "../lib/log.ts";
import { systemRandom } from "../lib/random.ts";
import { attributesToJson, type Member, membersFromJson } from "../membership/index.ts";
import { InternalRaftRequest, Request } from "../pb/etcdserverpb.ts";
import { ConfChange, type Entry, EntryType, Message, MessageType } from "../pb/raftpb.ts";
import { MemoryStorage, RawNode } from "../raft/index.ts";
import { HttpTransport, type OutgoingSnapshot, PeerClient, type PeerServices, type TransportDeps } from "./index.ts";

const CLUSTER_ID = 0xcdf818194e3a8c32n;

const cleanups: (() => Promise<void> | void)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function until(what: string, condition: () => boolean, timeoutMs = 20_000): Promise<void> {
  const deadline = systemClock.monotonicMs() + timeoutMs;
  while (!condition()) {
    if (systemClock.monotonicMs() > deadline) throw new Error(`waited in vain: ${what}`);
    await systemClock.sleep(5);
  }
}

/** A port with a transport behind it; the handler can be put in later. */
class Endpoint {
  readonly server: http.Server;
  readonly sockets = new Set<net.Socket>();
  url = "";
  handler: http.RequestListener = (_request, response) => void response.writeHead(404).end();

  constructor() {
    this.server = http.createServer((request, response) => this.handler(request, response));
    this.server.on("connection", (socket) => {
      this.sockets.add(socket);
      socket.once("close", () => this.sockets.delete(socket));
    });
  }

  static async open(): Promise<Endpoint> {
    const endpoint = new Endpoint();
    endpoint.server.listen(0, "127.0.0.1");
    await once(endpoint.server, "listening");
    endpoint.url = `http://127.0.0.1:${(endpoint.server.address() as net.AddressInfo).port}`;
    cleanups.push(async () => {
      for (const socket of endpoint.sockets) socket.destroy();
      if (endpoint.server.listening) {
        endpoint.server.close();
        await once(endpoint.server, "close");
      }
    });
    return endpoint;
  }
}

interface Side {
  readonly id: bigint;
  readonly endpoint: Endpoint;
  readonly transport: HttpTransport;
  readonly received: Message[];
  readonly unreachable: bigint[];
  readonly snapshots: [bigint, boolean][];
  readonly removed: Set<bigint>;
  readonly databases: Map<number, Buffer>;
  removedHere: number;
}

async function side(id: bigint, over: Partial<TransportDeps> & { clusterId?: bigint } = {}): Promise<Side> {
  const endpoint = await Endpoint.open();
  const made = {
    id,
    endpoint,
    received: [] as Message[],
    unreachable: [] as bigint[],
    snapshots: [] as [bigint, boolean][],
    removed: new Set<bigint>(),
    databases: new Map<number, Buffer>(),
    removedHere: 0,
  };
  const sink: TransportSink = {
    process: (message) => void made.received.push(message),
    reportUnreachable: (peer) => void made.unreachable.push(peer),
    reportSnapshot: (peer, ok) => void made.snapshots.push([peer, ok]),
    isRemoved: (peer) => made.removed.has(peer),
  };
  const transport = new HttpTransport({
    identity: {
      memberId: id,
      clusterId: over.clusterId ?? CLUSTER_ID,
      serverVersion: "3.5.16",
      peerUrls: [endpoint.url],
    },
    sink,
    clock: systemClock,
    logger: silentLogger,
    dialTimeoutMs: 2000,
    readTimeoutMs: 5000,
    writeTimeoutMs: 5000,
    openSnapshot: () => Promise.reject(new Error("no snapshot here")),
    saveDatabase: async (source, index) => {
      const pieces: Uint8Array[] = [];
      for await (const piece of source) pieces.push(piece);
      const all = Buffer.concat(pieces);
      made.databases.set(index, all);
      return all.length;
    },
    onRemoved: () => {
      result.removedHere++;
    },
    ...over,
  });
  const result: Side = Object.assign(made, { transport });
  endpoint.handler = transport.handler;
  cleanups.push(() => transport.stop());
  return result;
}

async function pair(over: Partial<TransportDeps> = {}): Promise<[Side, Side]> {
  const a = await side(0xaan, over);
  const b = await side(0xbbn);
  a.transport.addPeer(b.id, [b.endpoint.url]);
  b.transport.addPeer(a.id, [a.endpoint.url]);
  return [a, b];
}

const heartbeat = (from: Side, to: Side, commit = 0) =>
  Message.create({ type: MessageType.MsgHeartbeat, from: from.id, to: to.id, term: 1, commit });
const append = (from: Side, to: Side, index: number, data = "v") =>
  Message.create({
    type: MessageType.MsgApp,
    from: from.id,
    to: to.id,
    term: 1,
    logTerm: 1,
    index,
    commit: index,
    entries: [{ type: 0, term: 1, index: index + 1, data: Buffer.from(data) }],
  });

interface Answer {
  status: number;
  headers: http.IncomingHttpHeaders;
  text: string;
}

function ask(url: string, options: http.RequestOptions & { body?: Uint8Array | string } = {}): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const request = http.request(url, { agent: false, ...options }, (response) => {
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (piece) => {
        text += piece;
        // A stream never ends: its head is what is asked for.
      });
      response.on("end", () => resolve({ status: response.statusCode ?? 0, headers: response.headers, text }));
      if (response.statusCode === 200 && url.includes("/raft/stream/")) {
        resolve({ status: 200, headers: response.headers, text: "" });
        request.destroy();
      }
    });
    request.on("error", reject);
    request.end(options.body);
  });
}

const peerHeaders = (from: bigint, over: Record<string, string> = {}) => ({
  "X-Server-From": hexId(from),
  "X-Server-Version": "3.5.9",
  "X-Min-Cluster-Version": "3.0.0",
  "X-Etcd-Cluster-ID": hexId(CLUSTER_ID),
  ...over,
});

describe("two transports", () => {
  it("bring every message over, appends in their order, and know that the other is active", async () => {
    const [a, b] = await pair();
    await until("streams", () => [a, b].every((s) => s.transport.activeSinceMs(s === a ? b.id : a.id) !== undefined));
    a.transport.send([heartbeat(a, b, 3)]);
    await until("a first message", () => b.received.length === 1);
    for (let i = 1; i <= 500; i++) a.transport.send([append(a, b, i, `value ${i}`), heartbeat(a, b, i)]);
    await until("all messages", () => b.received.length === 1001);
    const appends = b.received.filter((message) => message.type === MessageType.MsgApp);
    expect(appends.map((message) => message.index)).toEqual(Array.from({ length: 500 }, (_, i) => i + 1));
    expect(Buffer.from(appends[499]?.entries[0]?.data ?? []).toString()).toBe("value 500");
    b.transport.send([heartbeat(b, a)]);
    await until("an answer", () => a.received.length === 1);
    expect(a.unreachable).toEqual([]);
  });

  it("bring over what is larger than a socket takes at once", async () => {
    const [a, b] = await pair();
    a.transport.send([append(a, b, 1, "x".repeat(5_000_000))]);
    await until("the message", () => b.received.length === 1, 60_000);
    expect(b.received[0]?.entries[0]?.data?.length).toBe(5_000_000);
  });

  it("find each other again after every connection broke, and report what may be lost", async () => {
    const [a, b] = await pair();
    await until(
      "streams",
      () => a.transport.activeSinceMs(b.id) !== undefined && b.transport.activeSinceMs(a.id) !== undefined,
    );
    for (let round = 0; round < 3; round++) {
      for (const socket of [...a.endpoint.sockets, ...b.endpoint.sockets]) socket.destroy();
      const before = b.received.length;
      await until("a message after the break", () => {
        a.transport.send([heartbeat(a, b, round)]);
        return b.received.length > before;
      });
    }
  });

  it("post when the other opened no stream, and report it unreachable when it is gone", async () => {
    const a = await side(0xaan);
    const b = await side(0xbbn);
    a.transport.addRemote(b.id, ["http://127.0.0.1:1", b.endpoint.url]);
    a.transport.send([heartbeat(a, b)]);
    await until("unreachable at its first URL", () => a.unreachable.length === 1);
    a.transport.send([heartbeat(a, b)]);
    await until("reached at its second", () => b.received.length === 1);
    // The receiver learnt where to answer.
    b.transport.send([heartbeat(b, a)]);
    await until("an answer", () => a.received.length === 1);
  });

  it("drop what waits beyond the bound, and say so", async () => {
    const a = await side(0xaan);
    const b = await side(0xbbn);
    b.endpoint.handler = () => {};
    a.transport.addRemote(b.id, [b.endpoint.url]);
    for (let i = 0; i < 200; i++) a.transport.send([heartbeat(a, b)]);
    expect(a.unreachable.length).toBe(200 - 64 - 4);
  });

  it("do not send to nobody, nor to whom they do not know", async () => {
    const a = await side(0xaan);
    a.transport.send([
      Message.create({ type: MessageType.MsgHeartbeat, to: 0n }),
      Message.create({ type: MessageType.MsgHeartbeat, to: 77n }),
      Message.create({ type: MessageType.MsgSnap, to: 77n }),
    ]);
    expect(a.snapshots).toEqual([[77n, false]]);
  });
});

describe("snapshots", () => {
  const DATABASE = Buffer.alloc(3_000_000, "db");
  const outgoing =
    (fail: boolean, closed: { count: number }) =>
    async (message: Message): Promise<OutgoingSnapshot> => ({
      message: {
        ...message,
        snapshot: {
          data: Buffer.from("{}"),
          metadata: {
            index: 99,
            term: 3,
            confState: { voters: [1n], learners: [], votersOutgoing: [], learnersNext: [], autoLeave: false },
          },
        },
      },
      totalBytes: DATABASE.length,
      async *chunks() {
        for (let at = 0; at < DATABASE.length; at += 100_000) {
          if (fail && at > 1_000_000) throw new Error("disk gone");
          yield DATABASE.subarray(at, at + 100_000);
        }
      },
      close: async () => {
        closed.count++;
      },
    });
  const snap = (from: Side, to: Side) =>
    Message.create({ type: MessageType.MsgSnap, from: from.id, to: to.id, term: 3 });

  it("arrive whole, with their message behind them", async () => {
    const closed = { count: 0 };
    const [a, b] = await pair({ openSnapshot: outgoing(false, closed) });
    a.transport.send([snap(a, b)]);
    expect(a.transport.snapshotsInFlight).toBe(1);
    await until("the report", () => a.snapshots.length === 1);
    expect(a.snapshots).toEqual([[b.id, true]]);
    expect(b.databases.get(99)?.equals(DATABASE)).toBe(true);
    const [message] = b.received.filter((m) => m.type === MessageType.MsgSnap);
    expect([message?.snapshot?.metadata.index, message?.from]).toEqual([99, a.id]);
    await until("closed", () => closed.count === 1 && a.transport.snapshotsInFlight === 0);
  });

  it("that break are reported and never handed on", async () => {
    const closed = { count: 0 };
    const [a, b] = await pair({ openSnapshot: outgoing(true, closed) });
    a.transport.send([snap(a, b)]);
    await until("the report", () => a.snapshots.length === 1);
    expect(a.snapshots).toEqual([[b.id, false]]);
    expect(closed.count).toBe(1);
    expect(b.received.filter((m) => m.type === MessageType.MsgSnap)).toEqual([]);
  });

  it("may come in the same memory again and again, as each chunk has left before the next is asked for", async () => {
    const closed = { count: 0 };
    const memory = Buffer.from(new SharedArrayBuffer(100_000));
    const whole = outgoing(false, closed);
    const [a, b] = await pair({
      openSnapshot: async (message) => {
        const snapshot = await whole(message);
        return {
          ...snapshot,
          async *chunks() {
            for await (const chunk of snapshot.chunks()) {
              memory.set(chunk);
              yield memory.subarray(0, chunk.length);
              memory.fill(0xff);
            }
          },
        };
      },
    });
    a.transport.send([snap(a, b)]);
    await until("the report", () => a.snapshots.length === 1);
    expect(b.databases.get(99)?.equals(DATABASE)).toBe(true);
  });

  it("whose receiver goes away in the middle are reported, and given up", async () => {
    const closed = { count: 0 };
    let begun: () => void = () => {};
    const hasBegun = new Promise<void>((resolve) => {
      begun = resolve;
    });
    const endless = outgoing(false, closed);
    const a = await side(0xaan, {
      openSnapshot: async (message) => ({
        ...(await endless(message)),
        async *chunks() {
          for (;;) yield DATABASE;
        },
      }),
    });
    const b = await side(0xbbn, {
      // Takes a little, and then nothing.
      saveDatabase: async (source) => {
        for await (const _piece of source) break;
        begun();
        return new Promise(() => {});
      },
    });
    a.transport.addPeer(b.id, [b.endpoint.url]);
    a.transport.send([snap(a, b)]);
    await hasBegun;
    expect(a.snapshots).toEqual([]);
    b.endpoint.server.closeAllConnections();
    await until("the report", () => a.snapshots.length === 1);
    expect(a.snapshots).toEqual([[b.id, false]]);
    await until("closed", () => closed.count === 1 && a.transport.snapshotsInFlight === 0);
  });

  it("that the receiver cannot keep are reported as failed", async () => {
    const closed = { count: 0 };
    const a = await side(0xaan, { openSnapshot: outgoing(false, closed) });
    const b = await side(0xbbn, { saveDatabase: () => Promise.reject(new Error("no space left on device")) });
    a.transport.addPeer(b.id, [b.endpoint.url]);
    a.transport.send([snap(a, b), snap(a, b)]);
    await until("both reports", () => a.snapshots.length === 2);
    expect(a.snapshots).toEqual([
      [b.id, false],
      [b.id, false],
    ]);
    expect(b.received).toEqual([]);
  });
});

describe("the peer port", () => {
  it("answers as etcd does to what it refuses", async () => {
    const a = await side(0xaan);
    const b = await side(0xbbn);
    a.transport.addPeer(b.id, [b.endpoint.url]);
    a.removed.add(0xddn);
    const url = a.endpoint.url;
    const stream = (type: string, from: string, headers: Record<string, string>) =>
      ask(`${url}/raft/stream/${type}/${from}`, { headers });
    const to = { "X-Raft-To": "aa" };
    const good = peerHeaders(b.id, to);
    const without = (name: string) => Object.fromEntries(Object.entries(good).filter(([key]) => key !== name));
    const cases: [string, Promise<Answer>, number, string][] = [
      ["stream", stream("message", "bb", good), 200, ""],
      ["msgapp stream", stream("msgapp", "bb", good), 200, ""],
      ["no version", stream("message", "bb", without("X-Server-Version")), 412, "incompatible version\n"],
      ["no minimum is 2.0.0", stream("message", "bb", without("X-Min-Cluster-Version")), 200, ""],
      ["old", stream("message", "bb", { ...good, "X-Server-Version": "2.3.8" }), 412, "incompatible version\n"],
      ["new", stream("message", "bb", { ...good, "X-Min-Cluster-Version": "3.6.0" }), 412, "incompatible version\n"],
      ["malformed", stream("message", "bb", { ...good, "X-Server-Version": "x" }), 412, "incompatible version\n"],
      ["cluster", stream("message", "bb", { ...good, "X-Etcd-Cluster-ID": "1" }), 412, "cluster ID mismatch\n"],
      ["type", stream("nope", "bb", good), 404, "invalid path\n"],
      ["id", stream("message", "xyz", good), 404, "invalid from\n"],
      ["removed", stream("message", "dd", good), 410, "removed member\n"],
      ["unknown", stream("message", "cc", good), 404, "error sender not found\n"],
      ["for another", stream("message", "bb", { ...good, "X-Raft-To": "ab" }), 412, "to field mismatch\n"],
      ["method", ask(`${url}/raft/stream/message/bb`, { method: "POST", headers: good }), 405, "Method Not Allowed\n"],
      ["post by GET", ask(`${url}/raft`, { headers: good }), 405, "Method Not Allowed\n"],
      [
        "post garbage",
        ask(`${url}/raft`, { method: "POST", headers: good, body: Buffer.from([0xff]) }),
        400,
        "error unmarshalling raft message\n",
      ],
      [
        "post for another",
        ask(`${url}/raft`, { method: "POST", headers: good, body: Message.encode({ to: 5n, from: b.id }) }),
        500,
        "error processing raft message\n",
      ],
      [
        "post of a removed member",
        ask(`${url}/raft`, { method: "POST", headers: good, body: Message.encode({ to: 0xaan, from: 0xddn }) }),
        403,
        '{"message":"cannot process message from removed member"}',
      ],
      ["post", ask(`${url}/raft`, { method: "POST", headers: good, body: Message.encode({ to: 0xaan }) }), 204, ""],
      [
        "snapshot of another type",
        ask(`${url}/raft/snapshot`, {
          method: "POST",
          headers: good,
          body: Buffer.concat([Buffer.alloc(7), Buffer.of(2), Buffer.of(8, 3)]),
        }),
        400,
        "wrong raft message type\n",
      ],
      [
        "snapshot cut short",
        ask(`${url}/raft/snapshot`, { method: "POST", headers: good, body: Buffer.alloc(4) }),
        400,
        "failed to decode raft message (unexpected EOF)\n",
      ],
      ["elsewhere", ask(`${url}/nope`), 404, "404 page not found\n"],
    ];
    for (const [what, asked, status, text] of cases) {
      const answer = await asked;
      expect([what, answer.status, answer.text]).toEqual([what, status, text]);
      if (what !== "elsewhere" && status !== 405)
        expect(answer.headers["x-etcd-cluster-id"], what).toBe(hexId(CLUSTER_ID));
      if (/stream/.test(what)) expect(answer.headers["x-server-version"]).toBe("3.5.16");
    }
    const probing = await ask(`${url}/raft/probing`);
    expect(probing.text).toMatch(/^\{"OK":true,"Now":"\d{4}-\d\d-\d\dT[\d:.]+Z"\}\n$/);
  });

  it("tells a member that was removed, and nobody else", async () => {
    const [a, b] = await pair();
    await until("streams", () => b.transport.activeSinceMs(a.id) !== undefined);
    a.removed.add(b.id);
    a.transport.removePeer(b.id);
    await until("told", () => b.removedHere > 0);
    expect(a.removedHere).toBe(0);
  });

  it("answers for the member behind it", async () => {
    const a = await side(0xaan);
    expect((await ask(`${a.endpoint.url}/members`)).status).toBe(404);
    const members: Member[] = [
      { id: 2n ** 64n - 1n, name: "m", peerUrls: ["http://p"], clientUrls: ["http://c"], isLearner: false },
    ];
    let version: string | undefined;
    const services: PeerServices = {
      members: () => members,
      clusterVersion: () => version,
      isDowngradeEnabled: async () => true,
      hashKv: async (revision) => {
        if (revision === 1) throw new EtcdError("Compacted");
        return { currentRevision: 9, hash: 123, compactRevision: -1 };
      },
      promoteMember: async (id, _signal, token) => {
        if (id === 5n && token === "ann") throw new EtcdError("MemberNotFound");
        if (id === 1n) throw new EtcdError("MemberNotFound");
        if (id === 2n) throw new EtcdError("MemberNotLearner");
        if (id === 3n) throw new EtcdError("LearnerNotReady");
        if (id === 4n) throw new EtcdError("Timeout");
        return members;
      },
      renewLease: async (id) => {
        if (id === 1n) throw new EtcdError("LeaseNotFound");
        if (id === 2n) throw new EtcdError("TimeoutWaitAppliedIndex");
        return 60;
      },
      leaseTimeToLive: async ({ id }) => {
        if (id === 1n) throw new EtcdError("LeaseNotFound");
        return { header: undefined, id, ttl: 7, grantedTtl: 60, keys: [Buffer.from("k")] };
      },
    };
    a.transport.serve(services);
    const url = a.endpoint.url;
    const list = await ask(`${url}/members`);
    expect(list.text).toBe(
      '[{"id":18446744073709551615,"peerURLs":["http://p"],"name":"m","clientURLs":["http://c"]}]\n',
    );
    expect((await ask(`${url}/version`)).text).toBe('{"etcdserver":"3.5.16","etcdcluster":"not_decided"}');
    version = "3.5.0";

    const client = new PeerClient({ timeoutMs: 2000 });
    const urls = ["http://127.0.0.1:1", url];
    expect(await client.members(urls)).toEqual({ clusterId: CLUSTER_ID, members });
    expect(membersFromJson(list.text)).toEqual(members);
    expect(await client.versions(urls)).toEqual({ server: "3.5.16", cluster: "3.5.0" });
    expect(await client.isDowngradeEnabled(urls)).toBe(true);
    const hashKv = (at: string, revision: number, clusterId: string) =>
      client.hashKv(at, revision, clusterId, new AbortController().signal);
    expect(await hashKv(url, 0, hexId(CLUSTER_ID))).toEqual({ currentRevision: 9, hash: 123, compactRevision: -1 });
    await expect(hashKv(url, 1, hexId(CLUSTER_ID))).rejects.toMatchObject({ kind: "Compacted" });
    await expect(hashKv(url, 0, "1")).rejects.toMatchObject({ kind: "ClusterIDMismatch" });
    await expect(hashKv("http://127.0.0.1:1", 0, "1")).rejects.toThrow(
      'Get "http://127.0.0.1:1/members/hashkv": dial tcp 127.0.0.1:1: connect: connection refused',
    );
    expect(await client.renewLease(urls, 5n)).toBe(60);
    expect(await client.renewLease(urls, 1n)).toBe(0);
    expect(await client.renewLease(urls, 2n)).toBeUndefined();
    expect((await client.leaseTimeToLive(urls, { id: 5n, keys: true }))?.ttl).toBe(7);
    await expect(client.leaseTimeToLive(urls, { id: 1n, keys: false })).rejects.toMatchObject({
      kind: "LeaseNotFound",
    });
    expect(await client.promoteMember(urls, 2n ** 63n)).toEqual(members);
    for (const [id, kind] of [
      [1n, "MemberNotFound"],
      [2n, "MemberNotLearner"],
      [3n, "LearnerNotReady"],
      [4n, "Timeout"],
    ] as const) {
      await expect(client.promoteMember(urls, id)).rejects.toMatchObject({ kind });
    }
    expect(await client.promoteMember(urls, 5n)).toEqual(members);
    await expect(client.promoteMember(urls, 5n, { token: "ann" })).rejects.toMatchObject({ kind: "MemberNotFound" });
    expect(await client.versions(["http://127.0.0.1:1"])).toBeUndefined();
    expect(await client.members([])).toBeUndefined();
  });
});

const realBin = process.env["ETCD_REAL_BIN"];

describe.skipIf(!realBin)("with a real etcd (ETCD_REAL_BIN)", () => {
  it("follows it as a learner, votes, leads it, and is removed by it", { timeout: 120_000 }, async () => {
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), "transport-test-"));
    cleanups.push(() => fs.rmSync(dir, { recursive: true, force: true }));
    const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("ETCD_")));
    const ports = await Promise.all([Endpoint.open(), Endpoint.open()]);
    const [client, peer] = ports.map((port) => port.url) as [string, string];
    for (const port of ports) {
      port.server.close();
      await once(port.server, "close");
    }
    const flags = ["--name", "real", "--data-dir", dir, "--log-level", "error", "--initial-cluster", `real=${peer}`];
    flags.push("--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer);
    flags.push("--initial-advertise-peer-urls", peer);
    const etcd = spawn(path.join(realBin as string, "etcd"), flags, { env, stdio: ["ignore", "ignore", "inherit"] });
    cleanups.push(async () => {
      if (etcd.exitCode !== null || etcd.signalCode !== null) return;
      etcd.kill("SIGKILL");
      await once(etcd, "exit");
    });
    const etcdctl = async (...args: string[]): Promise<string> => {
      const child = spawn(
        path.join(realBin as string, "etcdctl"),
        ["--endpoints", client, "--dial-timeout=20s", "--command-timeout=20s", ...args],
        { env },
      );
      let out = "";
      for (const stream of [child.stdout, child.stderr]) {
        stream.on("data", (piece) => {
          out += piece;
        });
      }
      await once(child, "close");
      return out;
    };
    expect(await etcdctl("put", "before", "1")).toBe("OK\n");
    const asked = await new PeerClient({ timeoutMs: 2000 }).members([peer]);
    const realId = asked?.members[0]?.id as bigint;

    // A member of ours: raft in memory behind the transport.
    const mine = await Endpoint.open();
    const added = await etcdctl("member", "add", "ours", "--learner", `--peer-urls=${mine.url}`);
    const id = BigInt(`0x${/Member ([0-9a-f]+) added/.exec(added)?.[1]}`);
    let isRemoved = false;
    const storage = new MemoryStorage();
    const node = new RawNode({
      id,
      electionTicks: 10,
      heartbeatTicks: 1,
      storage,
      messageBytesMax: 1024 * 1024,
      inflightMessagesMax: 512,
      checkQuorum: true,
      preVote: true,
      logger: silentLogger,
      random: systemRandom,
    });
    const applied: Entry[] = [];
    let isPumping = false;
    const pump = () => {
      if (isPumping) return;
      isPumping = true;
      while (node.hasReady()) {
        const ready = node.ready();
        if (ready.hardState) storage.setHardState(ready.hardState);
        storage.append(ready.entries);
        transport.send([...ready.messages, ...ready.messagesAfterAppend].filter((message) => message.to !== id));
        for (const entry of ready.committedEntries) {
          applied.push(entry);
          if (entry.type === EntryType.EntryConfChange) {
            const change = ConfChange.decode(entry.data as Uint8Array);
            node.applyConfChange(change);
            if (change.nodeId === realId) transport.addPeer(realId, [peer]);
          }
        }
        node.advance(ready);
      }
      isPumping = false;
    };
    const transport = new HttpTransport({
      identity: { memberId: id, clusterId: asked?.clusterId as bigint, serverVersion: "3.5.16", peerUrls: [mine.url] },
      sink: {
        process: (message) => {
          node.step(message);
          pump();
        },
        reportUnreachable: (peerId) => node.reportUnreachable(peerId),
        reportSnapshot: (peerId, ok) => node.reportSnapshot(peerId, ok),
        isRemoved: () => false,
      },
      clock: systemClock,
      logger: silentLogger,
      dialTimeoutMs: 2000,
      readTimeoutMs: 5000,
      writeTimeoutMs: 5000,
      openSnapshot: () => Promise.reject(new Error("none")),
      saveDatabase: () => Promise.reject(new Error("none")),
      onRemoved: () => {
        isRemoved = true;
      },
    });
    mine.handler = transport.handler;
    transport.serve({
      members: () => asked?.members ?? [],
      clusterVersion: () => "3.5.0",
      isDowngradeEnabled: async () => false,
      hashKv: () => Promise.reject(new Error("none")),
      promoteMember: () => Promise.reject(new EtcdError("NoLeader")),
      renewLease: () => Promise.reject(new EtcdError("NoLeader")),
      leaseTimeToLive: () => Promise.reject(new EtcdError("NoLeader")),
    });
    const ticking = new AbortController();
    const ticks = (async () => {
      for await (const _tick of systemClock.every(100, ticking.signal)) {
        node.tick();
        pump();
      }
    })();
    cleanups.push(async () => {
      ticking.abort();
      await ticks;
      await transport.stop();
    });
    transport.addRemote(realId, [peer]);

    const values = () =>
      applied.flatMap((entry) => {
        try {
          const put = InternalRaftRequest.decode(entry.data as Uint8Array).put;
          return put ? [Buffer.from(put.value).toString()] : [];
        } catch {
          return []; // Version 2 requests, conf changes.
        }
      });
    await until("the log so far", () => values().includes("1"));
    // Published, or a voter more would be one that is not started.
    const published = Request.encode({
      id: 4711n,
      method: "PUT",
      path: `/0/members/${hexId(id)}/attributes`,
      val: attributesToJson({ name: "ours", clientUrls: ["http://127.0.0.1:1"] }),
    });
    node.propose(published);
    pump();
    await until("published through the leader", () =>
      applied.some((entry) => entry.data !== undefined && Buffer.from(entry.data).equals(Buffer.from(published))),
    );

    let promoted = "";
    for (let i = 0; i < 50 && !promoted.includes("promoted"); i++)
      promoted = await etcdctl("member", "promote", hexId(id));
    expect(promoted).toContain("promoted");
    // From now on nothing is committed without our acknowledgement.
    expect(await etcdctl("put", "together", "2")).toBe("OK\n");
    await until("the second value", () => values().includes("2"));

    // We lead: the real member forwards its proposals and reads to us.
    expect(await etcdctl("move-leader", hexId(id))).toContain("Leadership transferred");
    await until("leadership", () => node.status().state === "leader");
    expect(await etcdctl("put", "ours leads", "3")).toBe("OK\n");
    expect(await etcdctl("get", "ours leads")).toBe("ours leads\n3\n");
    for (let i = 0; i < 20; i++) expect(await etcdctl("put", "more", `m${i}`)).toBe("OK\n");
    await until("all values", () => values().includes("m19"));

    // And back: it removes us, and tells us so.
    node.transferLeadership(realId);
    pump();
    await until("leadership given back", () => node.status().state !== "leader");
    // It does so once it has been connected to every member for a while.
    let removal = "";
    for (let i = 0; i < 100 && !removal.includes("removed"); i++)
      removal = await etcdctl("member", "remove", hexId(id));
    expect(removal).toContain("removed from cluster");
    await until("told of the removal", () => isRemoved);
    expect(
      spawnSync(path.join(realBin as string, "etcdctl"), ["--endpoints", client, "get", "more"], {
        env,
        encoding: "utf8",
      }).stdout,
    ).toBe("more\nm19\n");
  });
});
