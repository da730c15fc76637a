// Servers under measurement: started on free ports and fresh data dirs, looked at through /proc, ended by their pids.
import { spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import net from "node:net";
import path from "node:path";
import { fileURLToPath } from "node:url";

const generatorFile = path.join(path.dirname(fileURLToPath(import.meta.url)), "../generator/main.mjs");
const START_LIMIT_MS = 180_000;

/** Whatever ends the bench, no server outlives it. */
const running = new Set();
process.on("exit", () => {
  for (const child of running) child.kill("SIGKILL");
});
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(1));

export async function freePort() {
  const server = net.createServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

/** Runs the generator with a job to its end and gives its findings. */
export async function generate(job) {
  const child = spawn(process.execPath, [generatorFile, JSON.stringify(job)], { stdio: ["ignore", "pipe", "pipe"] });
  running.add(child);
  let out = "";
  let err = "";
  child.stdout.on("data", (chunk) => {
    out += chunk;
  });
  child.stderr.on("data", (chunk) => {
    err += chunk;
  });
  const [code] = await once(child, "close");
  running.delete(child);
  if (code !== 0) throw new Error(`the generator ended with ${code}: ${err.slice(-2000)}`);
  return JSON.parse(out);
}

export const endpointOf = (port) => ({ host: "127.0.0.1", port });

/** Memory of processes in bytes: what is their own, and what is mapped from files and could be dropped. */
export function memoryOf(pids) {
  let anonymous = 0;
  let mapped = 0;
  for (const pid of pids) {
    const text = fs.readFileSync(`/proc/${pid}/smaps_rollup`, "latin1");
    const kilobytes = (name) => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(text)?.[1] ?? 0);
    const own = kilobytes("Anonymous");
    anonymous += own * 1024;
    mapped += (kilobytes("Rss") - own) * 1024;
  }
  return { anonymous, mapped };
}

/** One or more members of one cluster, of one kind of server. */
export class Cluster {
  /** `nodeFlags`: the program is a script, to be started by node with these. */
  constructor({ kind, dir, size = 1, flags = [], nodeFlags }) {
    this.kind = kind;
    this.dir = dir;
    this.size = size;
    this.flags = flags;
    this.nodeFlags = nodeFlags;
    this.members = [];
  }

  get pids() {
    return this.members.map((member) => member.child.pid);
  }

  get endpoints() {
    return this.members.map((member) => endpointOf(member.port));
  }

  dataDir(index) {
    return path.join(this.dir, `member-${index}`);
  }

  /** Gives the moment of the start on the machine's monotonic clock, in ns. */
  async launch() {
    const ports = await Promise.all(
      Array.from({ length: this.size }, async () => ({ client: await freePort(), peer: await freePort() })),
    );
    const initial = ports.map(({ peer }, i) => `m${i}=http://127.0.0.1:${peer}`).join(",");
    const startedAt = process.hrtime.bigint();
    this.members = ports.map(({ client, peer }, i) => {
      const url = `http://127.0.0.1:${client}`;
      const peerUrl = `http://127.0.0.1:${peer}`;
      const log = fs.openSync(path.join(this.dir, `member-${i}.log`), "a");
      const program = path.join(this.kind.bin, "etcd");
      const child = spawn(
        this.nodeFlags ? process.execPath : program,
        [
          ...(this.nodeFlags ? [...this.nodeFlags, program] : []),
          ...["--name", `m${i}`, "--data-dir", this.dataDir(i), "--log-level", "error"],
          ...["--listen-client-urls", url, "--advertise-client-urls", url],
          ...["--listen-peer-urls", peerUrl, "--initial-advertise-peer-urls", peerUrl],
          ...["--initial-cluster", initial, "--initial-cluster-state", "new"],
          ...["--quota-backend-bytes", String(8 * 2 ** 30)],
          ...this.flags,
        ],
        { stdio: ["ignore", log, log] },
      );
      fs.closeSync(log);
      running.add(child);
      const ended = once(child, "close").then(() => running.delete(child));
      return { child, port: client, ended };
    });
    return startedAt;
  }

  async ready() {
    const answer = Promise.all(
      this.endpoints.map((endpoint) =>
        generate({ kind: "firstRead", endpoints: [endpoint], mustFind: false, limitMs: START_LIMIT_MS }),
      ),
    );
    const early = this.members.map((member, i) =>
      member.ended.then(() => {
        const log = fs.readFileSync(path.join(this.dir, `member-${i}.log`), "utf8").slice(-2000);
        throw new Error(`${this.kind.name}: member ${i} ended early: ${log}`);
      }),
    );
    const all = Promise.race([answer, ...early]);
    // A member that ends later does so because it is told to.
    for (const promise of [answer, ...early]) promise.catch(() => {});
    await all;
  }

  async start() {
    await this.launch();
    await this.ready();
  }

  async stop(signal = "SIGTERM") {
    for (const { child } of this.members) child.kill(signal);
    await Promise.all(this.members.map((member) => member.ended));
    this.members = [];
  }
}
