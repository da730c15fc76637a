// Measures etcdutl against the real one on the same file in the same run: status, restore, defrag, migrate, each in
// turn (A B A B ...), and prints medians, ratios and the highest resident memory.
//
//   node bench/offline/run.mjs --real DIR [--keys 1000000] [--value-bytes 650] [--rounds 3] [--dir DIR] [--keep] [--only REGEX]
//
// DIR of --real has the real etcdutl. The file of the defaults has 1 GB. Needs about six times as much disk. The real 3.5
// has no `migrate`; what comes nearest is its defrag, which rewrites the database too, and that is what the row is
// held against. Runs dist/: build first.
import { spawn } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { rolldown } from "rolldown";

const root = path.dirname(path.dirname(path.dirname(fileURLToPath(import.meta.url))));
const { values: options } = parseArgs({
  options: {
    real: { type: "string" },
    keys: { type: "string", default: "1000000" },
    "value-bytes": { type: "string", default: "650" },
    rounds: { type: "string", default: "3" },
    dir: { type: "string" },
    keep: { type: "boolean", default: false },
    only: { type: "string", default: "" },
  },
});
if (!options.real) throw new Error("--real DIR: where the real etcdutl is");
const ours = path.join(root, "bin", "etcdutl");
const real = path.join(options.real, "etcdutl");
const folder = options.dir ?? fs.mkdtempSync(path.join(os.tmpdir(), "bench-offline-"));
fs.mkdirSync(folder, { recursive: true });
const snapshot = path.join(folder, `${options.keys}-${options["value-bytes"]}.db`);

/** Seconds and highest resident memory of one run. */
async function measure(program, args) {
  const started = process.hrtime.bigint();
  const child = spawn(program, args, { stdio: ["ignore", "ignore", "pipe"], cwd: folder });
  let err = "";
  child.stderr.on("data", (piece) => {
    err += piece;
  });
  let peakBytes = 0;
  let cpuSeconds = 0;
  const look = setInterval(() => {
    try {
      const kb = /VmHWM:\s+(\d+) kB/.exec(fs.readFileSync(`/proc/${child.pid}/status`, "utf8"))?.[1];
      peakBytes = Math.max(peakBytes, Number(kb ?? 0) * 1024);
      const stat = fs.readFileSync(`/proc/${child.pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
      // User and system time of all threads, in ticks of a hundredth of a second.
      cpuSeconds = Math.max(cpuSeconds, (Number(stat[11]) + Number(stat[12])) / 100);
    } catch {
      // It has just ended, or this is no Linux.
    }
  }, 10);
  const code = await new Promise((resolve) => child.once("close", resolve));
  clearInterval(look);
  if (code !== 0) throw new Error(`${program} ${args.join(" ")}: exit code ${code}\n${err}`);
  return { seconds: Number(process.hrtime.bigint() - started) / 1e9, cpuSeconds, peakBytes };
}

async function make() {
  if (fs.existsSync(snapshot)) return;
  const bundle = await rolldown({
    input: path.join(root, "bench", "offline", "make-snapshot.ts"),
    platform: "node",
    external: [/^node:/, "lmdb", /^@lmdb\//],
    resolve: { conditionNames: ["etcd-ts-source", "import", "node", "default"] },
  });
  const script = path.join(folder, "make-snapshot.mjs");
  await bundle.write({ file: script, format: "esm" });
  await bundle.close();
  await measure(process.execPath, [script, snapshot, options.keys, options["value-bytes"]]);
}

const fresh = (name) => {
  fs.rmSync(path.join(folder, name), { recursive: true, force: true });
  return name;
};

/** Rows of the table: what ours does, and what the real one does beside it. */
const rows = {
  status: [
    () => measure(ours, ["snapshot", "status", snapshot]),
    () => measure(real, ["snapshot", "status", snapshot]),
  ],
  "restore (lmdb)": [
    () => measure(ours, ["snapshot", "restore", snapshot, "--data-dir", fresh("ours")]),
    () => measure(real, ["snapshot", "restore", snapshot, "--data-dir", fresh("real")]),
  ],
  "restore (bbolt)": [
    () => measure(ours, ["snapshot", "restore", snapshot, "--data-dir", fresh("ours-bbolt"), "--backend", "bbolt"]),
    () => measure(real, ["snapshot", "restore", snapshot, "--data-dir", fresh("real")]),
  ],
  "defrag (lmdb)": [
    () => measure(ours, ["defrag", "--data-dir", "ours"]),
    () => measure(real, ["defrag", "--data-dir", "real"]),
  ],
  "defrag (bbolt)": [
    () => measure(ours, ["defrag", "--data-dir", "ours-bbolt"]),
    () => measure(real, ["defrag", "--data-dir", "real"]),
  ],
  "migrate --to bbolt": [
    () => measure(ours, ["migrate", "--data-dir", "ours", "--to", "bbolt"]),
    () => measure(real, ["defrag", "--data-dir", "real"]),
    () => measure(ours, ["migrate", "--data-dir", "ours", "--to", "lmdb"]),
  ],
  "migrate --to lmdb": [
    () => measure(ours, ["migrate", "--data-dir", "ours-bbolt", "--to", "lmdb"]),
    () => measure(real, ["defrag", "--data-dir", "real"]),
    () => measure(ours, ["migrate", "--data-dir", "ours-bbolt", "--to", "bbolt"]),
  ],
};

const median = (numbers) => numbers.toSorted((a, b) => a - b)[numbers.length >> 1];

await make();
const { size } = fs.statSync(snapshot);
console.log(
  `${options.keys} keys, ${(size / 1e9).toFixed(2)} GB, ${options.rounds} rounds, load ${os.loadavg()[0].toFixed(1)}`,
);
console.log(
  "| command | ours, s | real, s | ratio | ours, CPU s | real, CPU s | ours, MB resident | real, MB resident |\n|---|---|---|---|---|---|---|---|",
);
for (const [name, [a, b, back]] of Object.entries(rows)) {
  // What a row works on, the restores before it have made.
  if (!new RegExp(options.only).test(name)) continue;
  const [mine, theirs] = [[], []];
  for (let round = 0; round < Number(options.rounds); round++) {
    mine.push(await a());
    theirs.push(await b());
    await back?.();
  }
  const [x, y] = [mine, theirs].map((runs) => median(runs.map(({ seconds }) => seconds)));
  const [u, v] = [mine, theirs].map((runs) => median(runs.map(({ cpuSeconds }) => cpuSeconds)));
  const [p, q] = [mine, theirs].map((runs) => Math.max(...runs.map(({ peakBytes }) => peakBytes)) / 1e6);
  console.log(
    `| ${name} | ${x.toFixed(2)} | ${y.toFixed(2)} | ${(x / y).toFixed(2)} | ${u.toFixed(2)} | ${v.toFixed(2)} | ${p.toFixed(0)} | ${q.toFixed(0)} |`,
  );
}
if (!options.keep && !options.dir) fs.rmSync(folder, { recursive: true, force: true });
