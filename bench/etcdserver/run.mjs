// Durable puts and linearizable reads a second through one member in one process, without ports: what propose, raft,
// WAL, apply and mvcc cost together.
//
//   node bench/etcdserver/run.mjs [--clients 1,10,100,1000] [--seconds 3] [--value 300] [--keys 100000] [--dir DIR]
//                                 [--only put|read|"serializable read"] [--profile]
//
// Prints one line for each number of concurrent callers. The data dir is temporary unless --dir names its parent; take
// one on the disk that is to be measured. --profile writes a CPU profile to the working directory.
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { rolldown } from "rolldown";

const here = path.dirname(fileURLToPath(import.meta.url));
const root = path.resolve(here, "../..");
const out = path.join(root, "dist", `bench-${process.pid}`);
const build = await rolldown({
  input: {
    bench: path.join(here, "bench.ts"),
    "backend-worker": path.join(root, "packages/server/src/storage/backend/backend-worker.ts"),
  },
  cwd: root,
  platform: "node",
  external: [/^node:/, "lmdb", /^@lmdb\//],
  resolve: { conditionNames: ["etcd-ts-source", "import", "node", "default"] },
  transform: { target: "node20.19", define: { __ETCD_TS_VERSION__: JSON.stringify("bench") } },
  onLog() {},
});
await build.write({ dir: out, format: "esm", entryFileNames: "[name].mjs", chunkFileNames: "[name]-[hash].mjs" });

const argument = (name, fallback) => {
  const at = process.argv.indexOf(`--${name}`);
  return at < 0 ? fallback : process.argv[at + 1];
};
const dir = fs.mkdtempSync(path.join(argument("dir", os.tmpdir()), "bench-etcdserver-"));
let session;
if (process.argv.includes("--profile")) {
  const { Session } = await import("node:inspector/promises");
  session = new Session();
  session.connect();
  await session.post("Profiler.enable");
  await session.post("Profiler.start");
}
try {
  const { bench } = await import(pathToFileURL(path.join(out, "bench.mjs")).href);
  await bench({
    dir,
    clients: argument("clients", "1,10,100,1000").split(",").map(Number),
    seconds: Number(argument("seconds", "3")),
    valueBytes: Number(argument("value", "300")),
    keys: Number(argument("keys", "100000")),
    only: argument("only", undefined),
  });
} finally {
  if (session) {
    const { profile } = await session.post("Profiler.stop");
    fs.writeFileSync("etcdserver.cpuprofile", JSON.stringify(profile));
  }
  fs.rmSync(dir, { recursive: true, force: true });
  fs.rmSync(out, { recursive: true, force: true });
}
