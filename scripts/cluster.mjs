// `npm run cluster`: three members on free ports of this machine, as one cluster. Prints the endpoints, and stops all of
// them at Ctrl-C. Installs and builds first when needed.
//
//   npm run cluster -- [--members N] [--data DIR] [-- ETCD FLAGS]
//
//   --members N   1 to 7 members (default 3)
//   --data DIR    keep the data there and go on with it the next time; without it the data goes when the members stop
//   ETCD FLAGS    for every member, for instance: npm run cluster -- -- --snapshot-count 1000
//
// Each member logs into DIR/NAME.log. Exit code 0 after Ctrl-C or SIGTERM, 1 when a member cannot run, 2 for wrong words.
import { spawn } from "node:child_process";
import fs from "node:fs";
import http from "node:http";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";
import { ensure, root } from "./ensure.mjs";

const READY_LIMIT_MS = 120_000;
const STOP_LIMIT_MS = 20_000;
const HOST = "127.0.0.1";

class Refusal extends Error {
  constructor(message, code = 1) {
    super(message);
    this.code = code;
  }
}

function readArguments() {
  const words = process.argv.slice(2);
  const split = words.indexOf("--");
  const own = split === -1 ? words : words.slice(0, split);
  let values;
  try {
    ({ values } = parseArgs({
      args: own,
      options: { members: { type: "string", default: "3" }, data: { type: "string" }, help: { type: "boolean" } },
    }));
  } catch (error) {
    throw new Refusal(`${error.message}\nusage: npm run cluster -- [--members N] [--data DIR] [-- ETCD FLAGS]`, 2);
  }
  if (!/^[1-7]$/.test(values.members)) throw new Refusal(`--members takes 1 to 7, not ${values.members}`, 2);
  const flags = split === -1 ? [] : words.slice(split + 1);
  return { members: Number(values.members), data: values.data, isHelp: values.help === true, flags };
}

/** Ports that are free now, held together so that all differ. */
async function freePorts(count) {
  const servers = await Promise.all(
    Array.from({ length: count }, async () => {
      const server = net.createServer();
      await new Promise((resolve, reject) => {
        server.once("error", reject);
        server.listen(0, HOST, resolve);
      });
      return server;
    }),
  );
  const ports = servers.map((server) => server.address().port);
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}

/** Where the members live: as it was the last time in this folder, or new. */
async function planMembers(folder, count) {
  const file = path.join(folder, "cluster.json");
  if (fs.existsSync(file)) {
    const plan = JSON.parse(fs.readFileSync(file, "utf8"));
    if (plan.length !== count) {
      throw new Refusal(`${folder} holds a cluster of ${plan.length} members: say --members ${plan.length}`);
    }
    return plan;
  }
  const ports = await freePorts(2 * count);
  const plan = Array.from({ length: count }, (_, i) => ({
    name: `m${i + 1}`,
    clientPort: ports[2 * i],
    peerPort: ports[2 * i + 1],
  }));
  fs.writeFileSync(file, `${JSON.stringify(plan, undefined, 2)}\n`);
  return plan;
}

function isHealthy(port) {
  return new Promise((resolve) => {
    const request = http.get({ host: HOST, port, path: "/health", timeout: 2000, agent: false }, (response) => {
      let text = "";
      response.on("data", (chunk) => {
        text += chunk;
      });
      response.on("end", () => resolve(text.includes('"health":"true"')));
      response.on("error", () => resolve(false));
    });
    request.on("timeout", () => request.destroy());
    request.on("error", () => resolve(false));
  });
}

/** The last thing that a member had to say: why it could not start. */
function lastWords(logFile) {
  const lines = fs.readFileSync(logFile, "utf8").trim().split("\n");
  for (const line of lines.reverse()) {
    try {
      const { level, msg, error } = JSON.parse(line);
      // The last line is always `discovery failed`, whatever the reason.
      if (level === "fatal" || (level === "warn" && error))
        return msg === "discovery failed" ? error : `${msg}: ${error}`;
    } catch {
      if (line !== "") return line;
    }
  }
  return "it said nothing";
}

class Cluster {
  #folder;
  #isTemporary;
  #members = [];
  #isReady = false;
  #stopping;

  constructor(folder, isTemporary) {
    this.#folder = folder;
    this.#isTemporary = isTemporary;
  }

  start(plan, flags) {
    const initial = plan.map(({ name, peerPort }) => `${name}=http://${HOST}:${peerPort}`).join(",");
    for (const { name, clientPort, peerPort } of plan) {
      const logFile = path.join(this.#folder, `${name}.log`);
      const log = fs.openSync(logFile, "a");
      const child = spawn(
        process.execPath,
        [
          path.join(root, "bin", "etcd"),
          ...["--name", name, "--data-dir", path.join(this.#folder, `${name}.etcd`)],
          ...["--listen-client-urls", `http://${HOST}:${clientPort}`],
          ...["--advertise-client-urls", `http://${HOST}:${clientPort}`],
          ...["--listen-peer-urls", `http://${HOST}:${peerPort}`],
          ...["--initial-advertise-peer-urls", `http://${HOST}:${peerPort}`],
          ...["--initial-cluster", initial, "--initial-cluster-token", "npm-run-cluster"],
          ...flags,
        ],
        // A group of its own: Ctrl-C in the terminal reaches this process alone, which stops the members in order.
        { stdio: ["ignore", log, log], detached: true },
      );
      fs.closeSync(log);
      const member = { name, clientPort, logFile, child, isEnded: false, signal: null, ended: undefined };
      member.ended = new Promise((resolve) => {
        child.once("error", (error) => {
          fs.appendFileSync(logFile, `${error.message}\n`);
          resolve();
        });
        child.once("exit", (_code, signal) => {
          member.signal = signal;
          resolve();
        });
      }).then(() => {
        member.isEnded = true;
      });
      this.#members.push(member);
    }
  }

  /** Rejects with the words of the first member that ends by itself. */
  async ready() {
    const deadline = Date.now() + READY_LIMIT_MS;
    for (const member of this.#members) {
      while (!(await isHealthy(member.clientPort))) {
        if (this.#stopping) return;
        const ended = this.#members.find(({ isEnded }) => isEnded);
        if (ended) throw this.#failure(ended);
        if (Date.now() > deadline)
          throw new Refusal(`${member.name} is not ready after two minutes; see ${member.logFile}`);
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    }
    this.#isReady = true;
  }

  get isStopping() {
    return this.#stopping !== undefined;
  }

  #failure({ name, logFile, signal }) {
    if (signal) return new Refusal(`${name} ended by ${signal}`);
    const words = lastWords(logFile);
    return new Refusal(`${name} ended: ${words}${this.#isTemporary ? "" : ` (${logFile})`}`);
  }

  /** Resolves when the members were stopped on purpose; rejects when they have all ended otherwise. */
  async run() {
    for (const member of this.#members) {
      member.ended.then(() => {
        if (this.#isReady && !this.#stopping) process.stderr.write(`${this.#failure(member).message}\n`);
      });
    }
    await Promise.all(this.#members.map(({ ended }) => ended));
    if (!this.#stopping) throw new Refusal("no member is left");
    await this.#stopping;
  }

  /** Ends all members in good order, whatever they do, and throws their data away when it was only for now. */
  stop() {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  async #stop() {
    // One after the other: a leader hands over before it goes, which needs somebody who stays.
    for (const member of this.#members) {
      if (member.isEnded) continue;
      member.child.kill("SIGTERM");
      const timer = setTimeout(() => member.child.kill("SIGKILL"), STOP_LIMIT_MS);
      await member.ended;
      clearTimeout(timer);
    }
    if (this.#isTemporary) fs.rmSync(this.#folder, { recursive: true, force: true });
  }
}

async function main() {
  const options = readArguments();
  if (options.isHelp) {
    const [head] = fs.readFileSync(new URL(import.meta.url), "utf8").split("\nimport ");
    process.stdout.write(`${head.replaceAll(/^\/\/ ?/gm, "")}\n`);
    return;
  }
  ensure();
  const isTemporary = options.data === undefined;
  const folder = isTemporary ? fs.mkdtempSync(path.join(os.tmpdir(), "etcd-ts-cluster-")) : path.resolve(options.data);
  fs.mkdirSync(folder, { recursive: true });
  const cluster = new Cluster(folder, isTemporary);
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => void cluster.stop());
  try {
    const plan = await planMembers(folder, options.members);
    cluster.start(plan, options.flags);
    const running = cluster.run();
    running.catch(() => {});
    await cluster.ready();
    if (cluster.isStopping) return;
    const endpoints = plan.map(({ clientPort }) => `http://${HOST}:${clientPort}`).join(",");
    const members = plan.map(
      ({ name, clientPort, peerPort }) => `  ${name}  http://${HOST}:${clientPort}  (peers: ${peerPort})`,
    );
    process.stdout.write(
      [
        `A cluster of ${plan.length} is ready:`,
        "",
        ...members,
        "",
        "In another terminal:",
        "",
        `  export ETCDCTL_ENDPOINTS=${endpoints}`,
        "  bin/etcdctl endpoint status --cluster -w table",
        "  bin/etcdctl put foo bar",
        "",
        `Logs are in ${folder}${isTemporary ? ", which goes with the cluster" : ""}. Ctrl-C stops all members.`,
        "",
      ].join("\n"),
    );
    await running;
  } finally {
    await cluster.stop();
  }
}

try {
  await main();
} catch (error) {
  process.stderr.write(`cluster: ${error.message}\n`);
  process.exitCode = error.code === 2 ? 2 : 1;
}
