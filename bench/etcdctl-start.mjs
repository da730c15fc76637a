// How long etcdctl takes to start: `version`, and `get k` against a running server, beside `node -e 0` and, where
// ETCD_REAL_BIN names a folder with them, the real tools. Goal on an idle machine: at most 1.3 times `node -e 0` + 25 ms.
//
//   node bench/etcdctl-start.mjs [--endpoints=127.0.0.1:2379] [--runs=20]
import { spawnSync } from "node:child_process";
import path from "node:path";
import { fileURLToPath } from "node:url";

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const option = (name, preset) =>
  process.argv.find((word) => word.startsWith(`--${name}=`))?.slice(name.length + 3) ?? preset;
const endpoints = `--endpoints=${option("endpoints", "127.0.0.1:2379")}`;
const runs = Number(option("runs", "20"));
const real = process.env.ETCD_REAL_BIN;

const ours = path.join(root, "bin", "etcdctl");
const commands = {
  "node -e 0": [process.execPath, "-e", "0"],
  "etcdctl version": [process.execPath, ours, "version"],
  "etcdctl get k": [process.execPath, ours, endpoints, "get", "k"],
  ...(real
    ? {
        "real etcdctl version": [path.join(real, "etcdctl"), "version"],
        "real etcdctl get k": [path.join(real, "etcdctl"), endpoints, "get", "k"],
      }
    : {}),
};

const times = Object.fromEntries(Object.keys(commands).map((name) => [name, []]));
// Interleaved, so that other load on the machine meets all of them alike.
for (let i = 0; i < runs; i++) {
  for (const [name, [program, ...args]] of Object.entries(commands)) {
    const start = performance.now();
    const { status } = spawnSync(program, args, { stdio: "ignore" });
    if (status !== 0) throw new Error(`${name} ended with ${status}: is a server running at ${endpoints}?`);
    times[name].push(performance.now() - start);
  }
}

const median = (list) => list.toSorted((a, b) => a - b)[Math.floor(list.length / 2)];
const goal = 1.3 * median(times["node -e 0"]) + 25;
console.log(`node ${process.version}, ${runs} runs, median and least in ms; the goal is ${goal.toFixed(0)}`);
for (const [name, list] of Object.entries(times)) {
  console.log(
    `${name.padEnd(22)} ${median(list).toFixed(0).padStart(6)} ${Math.min(...list)
      .toFixed(0)
      .padStart(6)}`,
  );
}
