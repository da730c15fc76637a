// Clients that mean ill or are merely slow: the server bounds what they hold, cuts off what never comes to an end, and
// serves the others. bench/overload measures the same in full size; here structures are asserted, not times.
import { once } from "node:events";
import fs from "node:fs";
import net from "node:net";
import { connect as connectClient } from "@etcd-ts/client";
import { KV, RangeRequest, RangeResponse, RangeStreamResponse, WatchRequest } from "@etcd-ts/client/wire";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { httpGet, isOnReferenceTransport, Member, temporaryFolder, until } from "./harness/processes.ts";
import { call, connect, framed, unframed } from "./harness/raw-grpc.ts";

const folder = temporaryFolder("overload");
let member: Member;

beforeAll(async () => {
  member = await Member.start({ dataDir: `${folder.path}/data` });
});
afterAll(async () => {
  await member.kill();
  folder[Symbol.dispose]();
});

/** Memory of the server that is its own, without pages of files; -1 where /proc does not tell. */
function ownMegabytes(): number {
  try {
    const status = fs.readFileSync(`/proc/${member.process.pid}/status`, "utf8");
    return Number(/^RssAnon:\s+(\d+) kB/m.exec(status)?.[1]) / 1024;
  } catch {
    return -1;
  }
}

async function metric(name: string): Promise<number> {
  const text = await httpGet(`${member.clientUrl}/metrics`);
  return Number(new RegExp(`^${name} (\\S+)$`, "m").exec(text)?.[1]);
}

const isServing = async () => {
  const client = await connectClient({ endpoints: [member.endpoint] });
  await client.kv.put("served", "yes");
  const { count } = await client.kv.get("served");
  client.close();
  return count === 1;
};

async function dial(first: Uint8Array): Promise<net.Socket> {
  const socket = net.connect(Number(new URL(member.clientUrl).port), "127.0.0.1");
  socket.on("error", () => {});
  await once(socket, "connect");
  socket.write(first);
  return socket;
}

const PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
const SETTINGS = Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]);

function frame(type: number, flags: number, streamId: number, payload: Uint8Array): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(streamId, 5);
  return Buffer.concat([head, payload]);
}

/** Waits for the server to close the connection, whatever it says before. */
async function closed(socket: net.Socket): Promise<void> {
  socket.resume();
  // A reset is as good an end as any.
  if (!socket.closed) await new Promise((resolve) => socket.once("close", resolve));
}

describe("a connection is cut off that floods with", () => {
  const flood = async (piece: Buffer, times: number) => {
    const socket = await dial(Buffer.concat([PREFACE, SETTINGS]));
    const many = Buffer.concat(Array.from({ length: 1000 }, () => piece));
    for (let i = 0; i < times && !socket.destroyed; i += 1000) socket.write(many);
    await closed(socket);
  };

  it("SETTINGS", () => flood(SETTINGS, 30_000));
  it("pings", () => flood(frame(6, 0, 0, Buffer.alloc(8)), 30_000));
  // Node's HTTP/2, on which the reference transport stands, takes these for ever.
  it.skipIf(isOnReferenceTransport)("empty DATA and WINDOW_UPDATE on nothing", () =>
    flood(frame(8, 0, 0, Buffer.from([0, 0, 0, 1])), 30_000),
  );

  it("resets of what it has just begun", async () => {
    const socket = await dial(Buffer.concat([PREFACE, SETTINGS]));
    const pieces: Buffer[] = [];
    // HEADERS of a call, spelt out, and RST_STREAM at once, again and again.
    const text = (value: string) => [value.length, ...Buffer.from(value)];
    const path = text("/etcdserverpb.KV/Range");
    const block = Buffer.from([0x83, 0x86, 0x04, ...path, 0x0f, 0x10, ...text("application/grpc")]);
    for (let id = 1; id < 20_000; id += 2) {
      pieces.push(frame(1, 4, id, block), frame(3, 0, id, Buffer.from([0, 0, 0, 8])));
    }
    socket.write(Buffer.concat(pieces));
    await closed(socket);
  });

  it("a header block without an end", async () => {
    const socket = await dial(Buffer.concat([PREFACE, SETTINGS, frame(1, 0, 1, Buffer.alloc(16_000, 0x83))]));
    for (let i = 0; i < 20; i++) socket.write(frame(9, 0, 1, Buffer.alloc(16_000, 0x83)));
    await closed(socket);
  });

  it("HTTP/1 headers beyond any measure", async () => {
    const socket = await dial(Buffer.from("GET /health HTTP/1.1\r\n"));
    for (let i = 0; i < 100 && !socket.destroyed; i++) socket.write(`X-${i}: ${"x".repeat(1000)}\r\n`);
    await closed(socket);
  });

  it("and the others are served", async () => expect(await isServing()).toBe(true));
});

it("hundreds of idle connections cost little and keep nobody out", async () => {
  const before = ownMegabytes();
  const sockets: net.Socket[] = [];
  for (let i = 0; i < 600; i++)
    sockets.push(await dial(i % 2 === 0 ? Buffer.concat([PREFACE, SETTINGS]) : Buffer.alloc(0)));
  expect(await isServing()).toBe(true);
  expect(ownMegabytes() - before).toBeLessThan(100);
  for (const socket of sockets) socket.destroy();
});

it("watchers that never read become slow ones, whose events wait in history and not in memory", async () => {
  const session = await connect(member.clientUrl);
  const create = WatchRequest.encode({
    requestUnion: {
      kind: "createRequest",
      value: { key: Buffer.from("flood/"), rangeEnd: Buffer.from("flood0") } as never,
    },
  });
  const watchers = 40;
  for (let i = 0; i < watchers; i++) {
    const stream = session.request({
      ":method": "POST",
      ":path": "/etcdserverpb.Watch/Watch",
      "content-type": "application/grpc",
      te: "trailers",
    });
    stream.on("error", () => {});
    stream.pause();
    stream.write(framed(create));
  }
  await until("all watch", async () => (await metric("etcd_debugging_mvcc_watcher_total")) >= watchers);
  const client = await connectClient({ endpoints: [member.endpoint] });
  const value = "x".repeat(20_000);
  for (let i = 0; i < 1_000; i += 50) {
    await Promise.all(Array.from({ length: 50 }, (_, j) => client.kv.put(`flood/${i + j}`, value)));
  }
  // 20 MB for each of 40 watchers would be 800 MB.
  await until("all are slow", async () => (await metric("etcd_debugging_mvcc_slow_watcher_total")) === watchers);
  expect(await metric("etcd_debugging_mvcc_pending_events_total")).toBeLessThanOrEqual(watchers * 128);
  expect(ownMegabytes()).toBeLessThan(400);
  client.close();
  session.destroy();
  await until("nothing is left of them", async () => (await metric("etcd_debugging_mvcc_watcher_total")) === 0);
});

describe("a list that is larger than anybody wants to hold", () => {
  const KEYS = 400;
  const all = { key: Buffer.from("large/"), rangeEnd: Buffer.from("large0") };
  beforeAll(async () => {
    const client = await connectClient({ endpoints: [member.endpoint] });
    const value = "y".repeat(250_000);
    for (let i = 0; i < KEYS; i += 20) {
      await Promise.all(
        Array.from({ length: 20 }, (_, j) =>
          client.kv.put(`large/${String(i + j).padStart(4, "0")}`, `${i + j} ${value}`),
        ),
      );
    }
    client.close();
  });

  // The reference transport wants each answer in one piece.
  it.skipIf(isOnReferenceTransport)(
    "is not held for a client that does not read it, whole or as a stream",
    async () => {
      const before = ownMegabytes();
      const sessions = await Promise.all(Array.from({ length: 6 }, () => connect(member.clientUrl)));
      const streams = sessions.map((session, i) => {
        const stream = session.request({
          ":method": "POST",
          ":path": i % 2 === 0 ? KV.methods.range.path : KV.methods.rangeStream.path,
          "content-type": "application/grpc",
          te: "trailers",
        });
        stream.on("error", () => {});
        stream.pause();
        stream.end(framed(RangeRequest.encode(all)));
        return stream;
      });
      await Promise.all(streams.map((stream) => once(stream, "response")));
      expect(await isServing()).toBe(true);
      // Six answers of 100 MB.
      expect(ownMegabytes() - before).toBeLessThan(250);
      for (const session of sessions) session.destroy();
    },
  );

  it("arrives whole, and the same both ways, while others write", async () => {
    const session = await connect(member.clientUrl);
    const request = RangeRequest.encode(all);
    const writing = (async () => {
      const client = await connectClient({ endpoints: [member.endpoint] });
      for (let i = 0; i < 40; i++) await client.kv.put(`large/0399/${i}`, "z".repeat(100_000));
      client.close();
    })();
    const [whole, streamed] = await Promise.all([
      call(session, KV.methods.range.path, request),
      call(session, KV.methods.rangeStream.path, request),
    ]);
    await writing;
    expect([whole.status, whole.messages.length, streamed.status]).toEqual([0, 1, 0]);
    const answer = RangeResponse.decode(whole.messages[0] as Buffer);
    expect(answer.kvs.length).toBeGreaterThanOrEqual(KEYS);
    expect(answer.count).toBe(answer.kvs.length);
    const chunks = streamed.messages.map(
      (message) => RangeStreamResponse.decode(message).rangeResponse as RangeResponse,
    );
    expect(chunks.length).toBeGreaterThan(10);
    for (const chunk of chunks.slice(0, -1))
      expect([chunk.header, chunk.count, chunk.more]).toEqual([undefined, 0, false]);
    const last = chunks.at(-1) as RangeResponse;
    const keys = chunks.flatMap(({ kvs }) => kvs).map(({ key }) => Buffer.from(key).toString());
    expect(last.count).toBe(keys.length);
    expect(keys.slice(0, KEYS)).toEqual(answer.kvs.slice(0, KEYS).map(({ key }) => Buffer.from(key).toString()));
    // Nothing that was written after the revision of the header is among the pairs.
    const revision = last.header?.revision ?? 0;
    for (const { kvs } of chunks) for (const kv of kvs) expect(kv.modRevision).toBeLessThanOrEqual(revision);
    session.destroy();
  });

  it("is refused as a stream where it cannot be streamed", async () => {
    const session = await connect(member.clientUrl);
    const ask = (init: object) =>
      call(session, KV.methods.rangeStream.path, RangeRequest.encode(RangeRequest.create({ ...all, ...init })));
    expect(await ask({ key: new Uint8Array(0) })).toMatchObject({
      status: 3,
      message: "etcdserver: key is not provided",
    });
    expect(await ask({ sortOrder: 2 })).toMatchObject({
      status: 12,
      message: "RangeStream does not support custom sort orders",
    });
    expect(await ask({ minModRevision: 3 })).toMatchObject({
      status: 12,
      message: "RangeStream does not support revision filters",
    });
    const counted = await ask({ countOnly: true });
    const only = unframed(Buffer.concat(counted.messages.map(framed)));
    expect(only).toHaveLength(1);
    expect(RangeStreamResponse.decode(only[0] as Buffer).rangeResponse?.count).toBeGreaterThanOrEqual(KEYS);
    const limited = await ask({ limit: 25, keysOnly: true });
    const parts = limited.messages.map((message) => RangeStreamResponse.decode(message).rangeResponse as RangeResponse);
    expect(parts.flatMap(({ kvs }) => kvs)).toHaveLength(25);
    expect([parts.at(-1)?.more, (parts.at(-1)?.count ?? 0) >= KEYS]).toEqual([true, true]);
    session.destroy();
  });
});
