import { once } from "node:events";
import net from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { VirtualClock } from "../lib/clock.ts";
import { type LogFields, silentLogger } from "../lib/log.ts";
import { SeededRandom } from "../lib/random.ts";
import { type Target, TcpProxy } from "./tcp-proxy.ts";

const cleanUps: (() => void)[] = [];
afterEach(() => {
  for (const cleanUp of cleanUps.splice(0).reverse()) cleanUp();
});

async function listen(onConnection: (socket: net.Socket) => void): Promise<{ server: net.Server; port: number }> {
  const server = net.createServer({ allowHalfOpen: true }, (socket) => {
    socket.on("error", () => {});
    onConnection(socket);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  cleanUps.push(() => server.close());
  return { server, port: (server.address() as net.AddressInfo).port };
}

/** A member that says its name and then repeats what it hears. */
const member = (name: string) =>
  listen((socket) => {
    socket.write(name);
    socket.pipe(socket);
  });

const target = (port: number, more: Partial<Target> = {}): Target => ({
  host: "127.0.0.1",
  port,
  priority: 0,
  weight: 0,
  ...more,
});

interface Line {
  readonly msg: string;
  readonly fields: LogFields;
}

async function setUp(targets: readonly Target[]) {
  const clock = new VirtualClock();
  const lines: Line[] = [];
  const note = (msg: string, fields: LogFields = {}) => void lines.push({ msg, fields });
  const proxy = new TcpProxy({
    targets,
    monitorIntervalMs: 60_000,
    clock,
    random: new SeededRandom(7),
    logger: { ...silentLogger, info: note, warn: note },
  });
  const { server, port } = await listen(() => {});
  proxy.serve(server);
  cleanUps.push(() => proxy.stop());
  return { clock, lines, proxy, port };
}

async function dial(port: number): Promise<net.Socket> {
  const socket = net.connect({ port, host: "127.0.0.1" });
  socket.on("error", () => {});
  cleanUps.push(() => socket.destroy());
  await once(socket, "connect");
  return socket;
}

/** The name of the member that a new connection reaches; "" when it is closed. */
async function reached(port: number): Promise<string> {
  const socket = await dial(port);
  socket.resume();
  const name = await Promise.race([
    once(socket, "data").then(([chunk]) => String(chunk)),
    once(socket, "close").then(() => ""),
  ]);
  socket.destroy();
  return name;
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve));
}

describe("TcpProxy", () => {
  it("takes members in turn, and carries bytes both ways until one side ends", async () => {
    const [a, b] = [await member("a"), await member("b")];
    const { port, lines } = await setUp([target(a.port), target(b.port)]);
    expect(lines).toEqual([
      {
        msg: "ready to proxy client requests",
        fields: { endpoints: [`127.0.0.1:${a.port}`, `127.0.0.1:${b.port}`] },
      },
    ]);
    expect([await reached(port), await reached(port), await reached(port)]).toEqual(["a", "b", "a"]);
    const socket = await dial(port);
    const chunks: Buffer[] = [];
    socket.on("data", (chunk: Buffer) => chunks.push(chunk));
    // More than any buffer on the way holds.
    const sent = Buffer.alloc(8 * 1024 * 1024, "etcd");
    socket.write(sent);
    await until(() => chunks.reduce((sum, chunk) => sum + chunk.length, 0) >= sent.length + 1);
    expect(Buffer.concat(chunks).equals(Buffer.concat([Buffer.from("b"), sent]))).toBe(true);
    socket.end();
    await once(socket, "close");
  });

  it("leaves a member out that cannot be dialled, and takes it back once it can", async () => {
    const a = await member("a");
    const gone = await listen(() => {});
    gone.server.close();
    await once(gone.server, "close");
    const { port, lines, clock } = await setUp([target(gone.port), target(a.port)]);
    expect([await reached(port), await reached(port), await reached(port)]).toEqual(["a", "a", "a"]);
    const address = `127.0.0.1:${gone.port}`;
    const error = `dial tcp ${address}: connect: connection refused`;
    const fields = { address, interval: "1m0s", error };
    expect(lines.slice(1)).toEqual([{ msg: "deactivated endpoint", fields }]);
    clock.advance(60_000);
    await until(() => lines.length === 3);
    expect(lines[2]).toEqual({ msg: "failed to activate endpoint (stay inactive for another interval)", fields });

    const back = net.createServer((socket) => socket.on("error", () => {}).end("back"));
    back.listen(gone.port, "127.0.0.1");
    cleanUps.push(() => back.close());
    await once(back, "listening");
    // An attempt that was under way may still fail; the next interval brings the next one.
    while (lines.at(-1)?.msg !== "activated") {
      const before = lines.length;
      await new Promise((resolve) => setImmediate(resolve));
      clock.advance(60_000);
      await until(() => lines.length > before);
    }
    expect(lines.at(-1)).toEqual({ msg: "activated", fields: { address } });
    expect(new Set([await reached(port), await reached(port)])).toEqual(new Set(["a", "back"]));
  });

  it("closes what it can take nowhere", async () => {
    const gone = await listen(() => {});
    gone.server.close();
    await once(gone.server, "close");
    const { port, proxy } = await setUp([target(gone.port)]);
    expect(await reached(port)).toBe("");
    expect(proxy.pick()).toBeUndefined();
  });

  it("picks by priority, then by weight, and seldom one without", async () => {
    const { proxy } = await setUp([
      target(1, { priority: 5, weight: 1000 }),
      target(2, { priority: 1, weight: 30 }),
      target(3, { priority: 1, weight: 10 }),
      target(4, { priority: 1 }),
    ]);
    const counts = new Map<number, number>();
    for (let i = 0; i < 20_000; i++) {
      const { port } = proxy.pick() as Target;
      counts.set(port, (counts.get(port) ?? 0) + 1);
    }
    const [first, second, third, fourth] = [1, 2, 3, 4].map((port) => counts.get(port) ?? 0) as number[];
    expect(first).toBe(0);
    expect((second as number) / (third as number)).toBeGreaterThan(2.7);
    expect((second as number) / (third as number)).toBeLessThan(3.3);
    expect(fourth).toBeGreaterThan(100);
    expect(fourth).toBeLessThan(400);
  });

  it("stop() cuts what it carries", async () => {
    const a = await member("a");
    const { port, proxy } = await setUp([target(a.port)]);
    const socket = await dial(port);
    await once(socket, "data");
    socket.resume();
    proxy.stop();
    await once(socket, "close");
  });
});
