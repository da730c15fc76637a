// Runs some hundreds of command lines with two etcdctls, each against fresh servers of the same kind, and prints where
// standard output, standard error or exit code differ, log lines field by field included.
//
//   node scripts/compare-etcdctl.mjs --real DIR [--ours DIR] [--server-bin DIR] [--only REGEX] [--quick] [--list] [-v]
//
// --quick runs our side inside this process where that makes no difference: the same code without the start of Node.
//
// DIR holds etcd and etcdctl; --ours is bin/ of this checkout, --server-bin the real one. What can only be chance is
// made equal (ports, temporary paths, times, durations, lease ids); of helps, names and defaults of flags are compared.
// Wanted differences are named in `knownDifferences`. Ends with `N compared, N different`.
import { spawn } from "node:child_process";
import fs from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { scenarios } from "./compare-etcdctl-cases.mjs";

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const { values: options } = parseArgs({
  options: {
    real: { type: "string", default: process.env.ETCD_REAL_BIN ?? "" },
    ours: { type: "string", default: path.join(root, "bin") },
    "server-bin": { type: "string" },
    only: { type: "string", default: "" },
    quick: { type: "boolean", default: false },
    list: { type: "boolean", default: false },
    verbose: { type: "boolean", short: "v", default: false },
  },
});
if (options.real === "") {
  console.error("--real DIR (or ETCD_REAL_BIN) must name a folder with the real etcd and etcdctl");
  process.exit(2);
}
const serverBin = options["server-bin"] ?? options.real;

/** `a 'b c' "d\n"` -> words. */
function split(line) {
  const words = [];
  let word;
  for (let i = 0; i < line.length; i++) {
    const c = line[i];
    if (c === " ") {
      if (word !== undefined) words.push(word);
      word = undefined;
    } else if (c === "'") {
      const end = line.indexOf("'", i + 1);
      word = (word ?? "") + line.slice(i + 1, end);
      i = end;
    } else if (c === '"') {
      word ??= "";
      for (i++; line[i] !== '"'; i++) {
        if (line[i] !== "\\") word += line[i];
        else if (line[++i] === "n") word += "\n";
        else if (line[i] === "t") word += "\t";
        else word += line[i];
      }
    } else word = (word ?? "") + c;
  }
  if (word !== undefined) words.push(word);
  return words;
}

const usedPorts = new Set();

/** A free port of five digits, so that tables have the same widths. */
async function freePort() {
  for (;;) {
    const server = net.createServer();
    await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address();
    await new Promise((resolve) => server.close(resolve));
    if (port > 9999 && !usedPorts.has(port)) {
      usedPorts.add(port);
      return port;
    }
  }
}

function run(file, words, { env = {}, stdin = "", cwd, timeoutMs = 60_000 }) {
  return new Promise((resolve) => {
    const child = spawn(file, words, { cwd, env: { PATH: process.env.PATH, HOME: cwd, ...env } });
    const out = [];
    const err = [];
    child.stdout.on("data", (chunk) => out.push(chunk));
    child.stderr.on("data", (chunk) => err.push(chunk));
    child.stdin.on("error", () => {});
    if (stdin !== undefined && stdin !== null) child.stdin.end(stdin);
    let isLate = false;
    const timer = setTimeout(() => {
      isLate = true;
      child.kill("SIGKILL");
    }, timeoutMs);
    const done = new Promise((finish) => {
      child.on("error", (error) => finish({ exit: `not started: ${error.message}` }));
      child.on("close", (code, signal) => {
        clearTimeout(timer);
        finish({ exit: isLate ? "timed out" : (signal ?? code) });
      });
    });
    const text = (chunks) => Buffer.concat(chunks).toString("latin1");
    resolve({ child, done: done.then(({ exit }) => ({ exit, out: text(out), err: text(err) })), out, err, text });
  });
}

/** Steps that need a process of their own: they are signalled, start others, or write past the streams we hand in. */
const NEEDS_PROCESS = /^(lock|elect|watch|snapshot (restore|status)|make-mirror)|--data-dir|--debug| -- /;
let inProcess;

/** The command line as a call of our runCli. */
async function call(words, { env, stdin, cwd }) {
  if (!inProcess) {
    const { rolldown } = await import("rolldown");
    const build = await rolldown({
      input: path.join(root, "packages/etcdctl/src/index.ts"),
      cwd: root,
      platform: "node",
      external: [/^node:/],
      resolve: { conditionNames: ["etcd-ts-source", "import", "node", "default"] },
      transform: { target: "node20.19", define: { __ETCD_TS_VERSION__: '"0"' } },
      onLog() {},
    });
    const folder = fs.mkdtempSync(path.join(root, "dist", "compare-"));
    await build.write({
      dir: folder,
      format: "esm",
      entryFileNames: "[name].mjs",
      chunkFileNames: "[name]-[hash].mjs",
    });
    process.once("exit", () => fs.rmSync(folder, { recursive: true, force: true }));
    inProcess = await import(path.join(folder, "index.mjs"));
  }
  const { runCli, processIo } = inProcess;
  const collect = (chunks) => ({
    isTerminal: false,
    write: (piece) => chunks.push(typeof piece === "string" ? Buffer.from(piece) : Buffer.from(piece)),
  });
  const out = [];
  const err = [];
  let left = Buffer.from(stdin ?? "");
  const input = {
    isTerminal: false,
    readAll: () => Promise.resolve(left),
    async *lines() {
      for (let end = left.indexOf(10); end >= 0; end = left.indexOf(10)) {
        yield left.toString("utf8", 0, end);
        left = left.subarray(end + 1);
      }
    },
    readLine: () => {
      const end = left.indexOf(10);
      const line = left.toString("utf8", 0, end < 0 ? left.length : end).replace(/\r$/, "");
      left = end < 0 ? Buffer.alloc(0) : left.subarray(end + 1);
      return Promise.resolve(line);
    },
  };
  process.chdir(cwd);
  const exit = await runCli({ ...processIo(words), env, input, out: collect(out), err: collect(err) });
  process.chdir(root);
  const text = (chunks) => Buffer.concat(chunks).toString("latin1");
  return { exit, out: text(out), err: text(err) };
}

class World {
  constructor(etcdctl, scenario, isQuick) {
    this.etcdctl = etcdctl;
    this.isQuick = isQuick;
    this.scenario = scenario;
    this.dir = fs.mkdtempSync(path.join(os.tmpdir(), "compare-"));
    this.vars = { tmp: this.dir, root };
    this.servers = [];
    this.jobs = new Map();
    this.replacements = [];
  }

  async start() {
    for (const name of ["dead", "p1", "p2"]) this.addPort(name, await freePort());
    const { servers = [{}] } = this.scenario;
    for (const [i, server] of servers.entries()) {
      const name = server.name ?? (i === 0 ? "ep" : `ep${i + 1}`);
      const port = await freePort();
      const peer = await freePort();
      this.addPort(name, port);
      this.addPort(`${name}.peer`, peer);
      const url = `${server.tls ? "https" : "http"}://127.0.0.1:${port}`;
      const args = [`--data-dir=${path.join(this.dir, `${name}.etcd`)}`, "--log-level=error"];
      if (server.cluster) {
        // Members of one cluster: the peers' ports must be known first.
        throw new Error("clusters are not made here");
      }
      args.push(
        `--listen-client-urls=${url}`,
        `--advertise-client-urls=${url}`,
        `--listen-peer-urls=http://127.0.0.1:${peer}`,
      );
      args.push(...(server.flags ?? []).map((flag) => this.fill(flag)));
      const log = fs.openSync(path.join(this.dir, `${name}.log`), "w");
      const child = spawn(path.join(serverBin, "etcd"), args, {
        stdio: ["ignore", log, log],
        env: { PATH: process.env.PATH },
      });
      this.servers.push(child);
      await this.untilReady(port, child);
    }
  }

  addPort(name, port) {
    this.vars[name] = `127.0.0.1:${port}`;
    this.vars[`${name}.port`] = String(port);
    this.replacements.push([
      new RegExp(`\\b${port}\\b`, "g"),
      `<${name}>`.padEnd(5, "_").slice(0, Math.max(5, name.length + 2)),
    ]);
  }

  async untilReady(port, child) {
    for (let i = 0; i < 600; i++) {
      if (child.exitCode !== null) throw new Error("the server ended");
      const args = [
        `--endpoints=${this.scenario.servers?.[0]?.tls ? "https://" : ""}127.0.0.1:${port}`,
        "get",
        "x",
        "--command-timeout=1s",
      ];
      const tls = this.scenario.servers?.[0]?.tlsArgs ?? [];
      const job = await run(path.join(options.real, "etcdctl"), [...args, ...tls.map((word) => this.fill(word))], {
        cwd: this.dir,
      });
      if ((await job.done).exit === 0) return;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    throw new Error("the server does not answer");
  }

  fill(text) {
    return text.replace(/\{\{([\w.]+)\}\}/g, (all, name) => {
      if (this.vars[name] === undefined) throw new Error(`${all} is not known in ${this.scenario.name}`);
      return this.vars[name];
    });
  }

  clean(text) {
    let clean = text.replaceAll(this.dir, "<tmp>");
    for (const [pattern, by] of this.replacements) clean = clean.replace(pattern, by);
    return normalise(clean);
  }

  /** @returns what is to be compared, or undefined */
  async step(given) {
    const step = typeof given === "string" ? { run: given } : given;
    if (step.write !== undefined) {
      this.jobs.get(step.to).child.stdin.write(this.fill(step.write));
      return undefined;
    }
    if (step.close !== undefined) {
      this.jobs.get(step.close).child.stdin.end();
      return undefined;
    }
    if (step.file !== undefined) {
      fs.writeFileSync(this.fill(step.file), this.fill(step.text ?? ""));
      return undefined;
    }
    if (step.wait !== undefined) {
      const job = this.jobs.get(step.wait);
      for (let i = 0; i < 200; i++) {
        if ((job.text(job.out) + job.text(job.err)).includes(this.fill(step.for))) return undefined;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      return {
        line: `wait ${step.wait} for ${step.for}`,
        exit: "never seen",
        out: this.clean(job.text(job.out)),
        err: this.clean(job.text(job.err)),
      };
    }
    if (step.sleep !== undefined) {
      await new Promise((resolve) => setTimeout(resolve, step.sleep));
      return undefined;
    }
    if (step.signal !== undefined || step.finish !== undefined) {
      const name = step.signal ?? step.finish;
      const job = this.jobs.get(name);
      if (step.signal) job.child.kill(step.sig ?? "SIGINT");
      return this.record(`${step.sig ?? (step.signal ? "SIGINT" : "end")} ${name}`, await job.done, step);
    }
    const words = typeof step.run === "string" ? split(this.fill(step.run)) : step.run.map((word) => this.fill(word));
    const hasEndpoints =
      words.some((word) => word.startsWith("--endpoints")) || step.env?.ETCDCTL_ENDPOINTS !== undefined || step.bare;
    const all = hasEndpoints ? words : [`--endpoints=${this.vars.ep ?? this.vars.dead}`, ...words];
    const env = Object.fromEntries(Object.entries(step.env ?? {}).map(([key, value]) => [key, this.fill(value)]));
    const stdin = step.open || (step.bg && step.stdin === undefined) ? null : this.fill(step.stdin ?? "");
    if (this.isQuick && !step.bg && !step.open && !step.timeoutMs && !NEEDS_PROCESS.test(words.join(" "))) {
      return this.end(step, await call(all, { env, stdin, cwd: this.dir }));
    }
    const job = await run(this.etcdctl, all, { env, stdin, cwd: this.dir, timeoutMs: step.timeoutMs });
    if (step.bg) {
      this.jobs.set(step.bg, job);
      return undefined;
    }
    return this.end(step, await job.done);
  }

  end(step, end) {
    if (step.capture) {
      for (const [name, pattern] of Object.entries(step.capture)) {
        const found = new RegExp(pattern).exec(end.out)?.[1];
        if (found === undefined) return this.record(step.run, { ...end, exit: `no ${name}` }, step);
        this.vars[name] = found;
        this.replacements.push([new RegExp(`\\b${found}\\b`, "g"), `<${name}>`]);
        if (/^[0-9a-f]{16}$/.test(found))
          this.replacements.push([new RegExp(`\\b${BigInt(`0x${found}`)}\\b`, "g"), `<${name} dec>`]);
      }
    }
    return this.record(step.run, end, step);
  }

  record(line, { exit, out, err }, step) {
    const env = step.env
      ? `${Object.entries(step.env)
          .map(([k, v]) => `${k}=${v}`)
          .join(" ")} `
      : "";
    const stdin = step.stdin ? ` <<< ${JSON.stringify(step.stdin)}` : "";
    const sorted = (text) => (step.sort ? text.split("\n").sort().join("\n") : text);
    const loose = (text) =>
      (step.rules ?? []).reduce((all, [pattern, by]) => all.replace(new RegExp(pattern, "g"), by), text);
    return {
      line: `${env}${Array.isArray(line) ? line.join(" ") : line}${stdin}`,
      exit,
      out: sorted(loose(this.clean(out))),
      err: sorted(loose(this.clean(err))),
    };
  }

  async stop() {
    for (const { child, done } of this.jobs.values()) {
      if (child.exitCode === null && child.signalCode === null) child.kill("SIGKILL");
      await done;
    }
    for (const child of this.servers) {
      const ended = new Promise((resolve) => child.once("exit", resolve));
      if (child.exitCode === null && child.signalCode === null) {
        child.kill("SIGKILL");
        await ended;
      }
    }
    fs.rmSync(this.dir, { recursive: true, force: true });
  }
}

/** Names and defaults of flags and commands of a help; its words may differ. */
function helpShape(text) {
  const shape = [];
  for (const line of text.split("\n")) {
    const flag = /^ {2}(?:-\w, )? *(--[a-z-]+[^\t]*)/.exec(line);
    if (flag) shape.push(flag[1]);
    else if (/^[A-Z ]+:$/.test(line)) shape.push(line);
    else if (/^\t[a-z-]+( [a-z-]+)*\t/.test(line)) shape.push(line.trim().split("\t")[0]);
  }
  const own = shape.indexOf("FURTHER OPTIONS:");
  return (own < 0 ? shape : shape.slice(0, own)).filter((line) => line !== "EXAMPLES:" && line !== "DESCRIPTION:");
}

function normalise(text) {
  let clean = text;
  const help = /NAME:\n[\s\S]*/.exec(clean);
  if (help) clean = `${clean.slice(0, help.index)}<help ${helpShape(help[0]).join(" | ")}>`;
  return clean
    .replace(/"ts":"[^"]*"/g, '"ts":"T"')
    .replace(/0xc[0-9a-f]{9}/g, "PTR")
    .replace(/etcd-endpoints:\/\/[^/]*\//g, "etcd-endpoints://PTR/")
    .replace(/"took":"[^"]*"/g, '"took":"T"')
    .replace(/took = [0-9.]+(ms|µs|Âµs|s)/g, "took = T")
    .replace(/\b[0-9]+(\.[0-9]+)?(ms|Âµs)/g, "T")
    .replace(/\b[0-9]+\.[0-9]+s/g, "T")
    .replace(/stty: [^\n]*\n/g, "")
    .replace(/"stack[tT]race":"[^"]*"/g, '"stacktrace":"S"');
}

const names = new RegExp(options.only);
let compared = 0;
let different = 0;
let running = [];
for (const name of ["SIGINT", "SIGTERM"]) {
  process.once(name, () => void Promise.all(running.map((world) => world.stop())).finally(() => process.exit(130)));
}
for (const scenario of scenarios) {
  if (!names.test(scenario.name)) continue;
  if (options.list) {
    console.log(`${scenario.name} (${scenario.steps.length})`);
    continue;
  }
  const worlds = [
    new World(path.join(options.real, "etcdctl"), scenario),
    new World(path.join(options.ours, "etcdctl"), scenario, options.quick),
  ];
  running = worlds;
  try {
    await Promise.all(worlds.map((world) => world.start()));
    for (const step of scenario.steps) {
      const [real, ours] = await Promise.all(worlds.map((world) => world.step(step)));
      if (real === undefined && ours === undefined) continue;
      compared++;
      const same = real && ours && real.exit === ours.exit && real.out === ours.out && real.err === ours.err;
      if (options.verbose)
        console.log(`${same ? "same" : "DIFF"} ${scenario.name}: ${(real ?? ours).line} -> ${real?.exit}`);
      if (same || (typeof step === "object" && step.known)) continue;
      different++;
      console.log(`\n--- ${scenario.name}: etcdctl ${(real ?? ours).line}`);
      for (const what of ["exit", "out", "err"]) {
        if (real?.[what] === ours?.[what]) continue;
        console.log(`  real ${what}: ${JSON.stringify(real?.[what])}\n  ours ${what}: ${JSON.stringify(ours?.[what])}`);
      }
    }
  } catch (error) {
    different++;
    console.log(`\n--- ${scenario.name}: ${error.stack}`);
  } finally {
    await Promise.all(worlds.map((world) => world.stop()));
  }
}
console.log(`${compared} compared, ${different} different`);
process.exitCode = different === 0 ? 0 : 1;
