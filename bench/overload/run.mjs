// What clients that mean ill, or are merely slow, cost the server: its memory before, during and after, and how long a
// well-behaved client waited for a put and a get meanwhile.
//
//   node bench/overload/run.mjs [--bin DIR] [--only NAME] [--seconds N]
//
// Scenarios: loris, idle, watchers, range. Prints a Markdown table. 10,000 connections need `ulimit -n` of 21,000.
import { spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import http2 from "node:http2";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const root = path.dirname(path.dirname(path.dirname(fileURLToPath(import.meta.url))));
const { values: options } = parseArgs({
  options: {
    bin: { type: "string", default: path.join(root, "bin") },
    only: { type: "string" },
    seconds: { type: "string", default: "10" },
    connections: { type: "string", default: "10000" },
  },
});
const SECONDS = Number(options.seconds);
const PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
const SETTINGS = Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]);
/** INITIAL_WINDOW_SIZE of 2^31 - 1, and as much for the connection: whatever holds the server back is its own limit. */
const OPEN_SETTINGS = Buffer.from([0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0x7f, 0xff, 0xff, 0xff]);
const OPEN_WINDOW = Buffer.from([0, 0, 4, 8, 0, 0, 0, 0, 0, 0x7f, 0xff, 0, 0]);

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function freePort() {
  const server = net.createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

// ---- the few messages that are needed, by hand: field number, type, value

function field(number, bytes) {
  const length = [];
  for (let rest = bytes.length; ; rest >>>= 7) {
    if (rest < 0x80) {
      length.push(rest);
      break;
    }
    length.push((rest & 0x7f) | 0x80);
  }
  return Buffer.concat([Buffer.from([number * 8 + 2, ...length]), bytes]);
}
const putRequest = (key, value) => Buffer.concat([field(1, Buffer.from(key)), field(2, value)]);
const rangeRequest = (key, end) =>
  Buffer.concat([field(1, Buffer.from(key)), ...(end ? [field(2, Buffer.from(end))] : [])]);
const watchRequest = (key, end) => field(1, rangeRequest(key, end));

function framed(message) {
  const prefix = Buffer.alloc(5);
  prefix.writeUInt32BE(message.length, 1);
  return Buffer.concat([prefix, message]);
}

function frame(type, flags, streamId, payload) {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(streamId, 5);
  return Buffer.concat([head, payload]);
}

/** HEADERS of a gRPC call, all of it spelt out. */
function callHeaders(streamId, method) {
  const text = (value) => [value.length, ...Buffer.from(value)];
  const block = [0x83, 0x86, 0x04, ...text(method), 0x0f, 0x10, ...text("application/grpc"), 0x00, ...text("te")];
  return frame(1, 4, streamId, Buffer.from([...block, ...text("trailers")]));
}

const servers = new Set();

function killServers() {
  for (const child of servers) child.kill("SIGKILL");
}

function closeAll(connections) {
  for (const connection of connections) connection.destroy();
}

process.on("exit", () => killServers());
for (const signal of ["SIGTERM", "SIGINT"]) process.on(signal, () => process.exit(1));

function connect(url, settings) {
  const session = http2.connect(url, settings);
  session.on("error", () => {});
  return session;
}

function open(session, method) {
  const stream = session.request({
    ":method": "POST",
    ":path": method,
    "content-type": "application/grpc",
    te: "trailers",
  });
  stream.on("error", () => {});
  return stream;
}

async function unary(session, method, message) {
  const stream = open(session, method);
  stream.resume();
  let status = "";
  stream.on("response", (headers) => (status = headers["grpc-status"] ?? status));
  stream.on("trailers", (headers) => (status = headers["grpc-status"] ?? status));
  stream.end(framed(message));
  await once(stream, "close");
  if (status !== "0") throw new Error(`${method}: status ${status}`);
}

const put = (session, key, value) => unary(session, "/etcdserverpb.KV/Put", putRequest(key, value));

// ---- the server, and what is read off it

async function startServer() {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "etcd-overload-"));
  const [client, peer] = [`http://127.0.0.1:${await freePort()}`, `http://127.0.0.1:${await freePort()}`];
  const args = [
    ...(process.env.OVERLOAD_FLAGS ?? "").split(" ").filter(Boolean),
    ...["--data-dir", path.join(folder, "data"), "--log-level", "error", "--quota-backend-bytes", String(8 * 2 ** 30)],
    ...["--listen-client-urls", client, "--advertise-client-urls", client],
    ...["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", `default=${peer}`],
  ];
  const child = spawn(path.join(options.bin, "etcd"), args, { stdio: ["ignore", "ignore", "inherit"] });
  servers.add(child);
  const session = connect(client);
  for (;;) {
    if (child.exitCode !== null) throw new Error("the server ended");
    const probe = connect(client);
    const isUp = await unary(probe, "/etcdserverpb.KV/Range", rangeRequest("a")).then(
      () => true,
      () => false,
    );
    probe.destroy();
    if (isUp) break;
    await sleep(100);
  }
  session.destroy();
  const megabytes = (name) => {
    const status = fs.readFileSync(`/proc/${child.pid}/status`, "utf8");
    return Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(status)?.[1]) / 1024;
  };
  return {
    url: client,
    port: Number(new URL(client).port),
    rss: () => megabytes("VmRSS"),
    /** Without the pages of files, which the kernel takes back when it needs them. */
    anonymous: () => megabytes("RssAnon"),
    async stop() {
      child.kill("SIGKILL");
      await once(child, "close");
      fs.rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** A client that behaves: a put and a get in turn, until it is told to end. */
function wellBehaved(url) {
  const session = connect(url);
  const waits = [];
  let isOver = false;
  const running = (async () => {
    for (let i = 0; !isOver; i++) {
      const start = performance.now();
      await put(session, `probe/${i % 100}`, Buffer.from("x"));
      await unary(session, "/etcdserverpb.KV/Range", rangeRequest(`probe/${i % 100}`));
      waits.push(performance.now() - start);
      await sleep(20);
    }
  })();
  return async () => {
    isOver = true;
    await running;
    session.destroy();
    waits.sort((a, b) => a - b);
    const at = (share) => waits[Math.min(waits.length - 1, Math.floor(waits.length * share))] ?? Number.NaN;
    return { count: waits.length, median: at(0.5), worst: at(1) };
  };
}

const rows = [];

async function measure(name, scenario) {
  if (options.only && options.only !== name) return;
  const server = await startServer();
  const end = [];
  try {
    const run = await scenario(server, end);
    const before = server.anonymous();
    let most = before;
    const watchMemory = setInterval(() => (most = Math.max(most, server.anonymous())), 100);
    const stopProbe = wellBehaved(server.url);
    const said = await run();
    const { count, median, worst } = await stopProbe();
    clearInterval(watchMemory);
    const after = server.anonymous();
    rows.push([name, said, before, most, after, count, median, worst]);
    process.stderr.write(
      `${name}: ${said}; ${before.toFixed(0)} MB before, at most ${most.toFixed(0)}, ${after.toFixed(0)} after\n`,
    );
  } finally {
    for (const close of end) close();
    await server.stop();
  }
}

function dial(port, first) {
  return new Promise((resolve, reject) => {
    const socket = net.connect(port, "127.0.0.1", () => {
      if (first) socket.write(first);
      resolve(socket);
    });
    socket.on("error", reject);
    socket.resume();
  });
}

async function dialMany(port, count, first, sockets) {
  for (let i = 0; i < count; i += 200) {
    sockets.push(...(await Promise.all(Array.from({ length: Math.min(200, count - i) }, () => dial(port, first(i))))));
  }
}

// 1,000 clients that send the headers of a request one byte a second, half of them over HTTP/1.
await measure("loris", async (server, end) => {
  const sockets = [];
  end.push(() => closeAll(sockets));
  return async () => {
    await dialMany(server.port, 500, () => Buffer.from("GET /health HTTP/1.1\r\n"), sockets);
    // A header block that is never finished: HEADERS without END_HEADERS, then nothing.
    const headers = Buffer.from([0, 0, 1, 1, 0, 0, 0, 0, 1, 0x83]);
    await dialMany(server.port, 500, () => Buffer.concat([PREFACE, SETTINGS, headers]), sockets);
    for (let i = 0; i < SECONDS; i++) {
      for (const socket of sockets.slice(0, 500)) if (!socket.destroyed) socket.write("X");
      await sleep(1000);
    }
    return "1,000 clients that never finish their headers";
  };
});

await measure("idle", async (server, end) => {
  const sockets = [];
  const count = Number(options.connections);
  end.push(() => closeAll(sockets));
  return async () => {
    await dialMany(server.port, count / 2, () => Buffer.concat([PREFACE, SETTINGS]), sockets);
    await dialMany(server.port, count / 2, () => undefined, sockets);
    await sleep(SECONDS * 1000);
    return `${count} connections, half HTTP/2 and half silent`;
  };
});

// 1,000 streams on 50 connections that watch everything and never read, while 5,000 keys a second are put.
await measure("watchers", async (server, end) => {
  const sockets = [];
  const sessions = [];
  end.push(() => closeAll(sockets));
  end.push(() => closeAll(sessions));
  return async () => {
    const streams = Array.from({ length: 20 }, (_, i) => i * 2 + 1);
    const first = Buffer.concat([
      ...[PREFACE, OPEN_SETTINGS, OPEN_WINDOW],
      ...streams.flatMap((id) => [
        callHeaders(id, "/etcdserverpb.Watch/Watch"),
        frame(0, 0, id, framed(watchRequest("w", "x"))),
      ]),
    ]);
    for (let c = 0; c < 50; c++) {
      const socket = net.connect(server.port, "127.0.0.1");
      socket.on("error", () => {});
      socket.pause();
      socket.write(first);
      sockets.push(socket);
    }
    await sleep(1000);
    const writer = connect(server.url);
    sessions.push(writer);
    const value = Buffer.alloc(300, 120);
    const start = performance.now();
    let sent = 0;
    let done = 0;
    while (performance.now() - start < SECONDS * 1000) {
      const due = Math.floor(((performance.now() - start) / 1000) * 5000);
      while (sent < due && sent - done < 1000) {
        sent++;
        put(writer, `w/${sent % 10_000}`, value).then(
          () => done++,
          () => done++,
        );
      }
      await sleep(5);
    }
    const drainedBy = performance.now() + SECONDS * 2000;
    while (done < sent && performance.now() < drainedBy) await sleep(10);
    const rate = Math.round(done / ((performance.now() - start) / 1000));
    return `1,000 watchers that never read, ${rate} puts/s`;
  };
});

// A range of 1 GB, of which the client takes 1 kB a second.
await measure("range", async (server, end) => {
  const writer = connect(server.url);
  const value = Buffer.alloc(1_000_000, 121);
  for (let i = 0; i < 1000; i += 10) {
    await Promise.all(Array.from({ length: 10 }, (_, j) => put(writer, `r/${String(i + j).padStart(4, "0")}`, value)));
  }
  writer.destroy();
  await sleep(2000);
  return async () => {
    const sessions = Array.from({ length: 5 }, () => connect(server.url));
    end.push(() => closeAll(sessions));
    let taken = 0;
    const streams = sessions.map((session) => {
      const stream = open(session, "/etcdserverpb.KV/Range");
      stream.end(framed(rangeRequest("r/", "r0")));
      stream.pause();
      return stream;
    });
    for (let i = 0; i < SECONDS; i++) {
      await sleep(1000);
      for (const stream of streams) taken += stream.read(1000)?.length ?? 0;
    }
    return `5 clients that take 1 kB/s of 1 GB each (${taken} bytes taken)`;
  };
});

const number = (value) => value.toFixed(0);
const one = (value) => value.toFixed(1);
console.log(
  "| scenario | memory before, most, after (MB) | put and get of another client: number, median, longest (ms) |",
);
console.log("|---|---|---|");
for (const [, said, before, most, after, count, median, worst] of rows) {
  console.log(
    `| ${said} | ${number(before)}, ${number(most)}, ${number(after)} | ${count}, ${one(median)}, ${one(worst)} |`,
  );
}
process.exit(0);
