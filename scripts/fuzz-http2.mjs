// Bent clients against the server's HTTP/2: millions of frames, no crash, no leak, no hang.
//
//   node --expose-gc scripts/fuzz-http2.mjs [--frames N] [--from SEED]    N frames (default 5,000,000)
//   node scripts/fuzz-http2.mjs --seed SEED                               one connection
//
// Prints frames a second and the heap after each tenth. Exit code 1 when something broke, with the seed that replays it, or
// when the heap of the second half grew by more than 20 MB (with --expose-gc).
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { rolldown } from "rolldown";
import { ensure, root } from "./ensure.mjs";

const { values } = parseArgs({
  options: {
    frames: { type: "string", default: "5000000" },
    from: { type: "string", default: "1" },
    seed: { type: "string" },
  },
});
const HEAP_GROWTH_BYTES_MAX = 20e6;

ensure({ installOnly: true });
const build = await rolldown({
  input: "packages/server/src/rpc/http2/testing/fuzz.ts",
  cwd: root,
  platform: "node",
  external: [/^node:/],
  resolve: { conditionNames: ["etcd-ts-source", "import", "node", "default"] },
  transform: { target: "node20.19" },
});
const folder = fs.mkdtempSync(path.join(os.tmpdir(), "etcd-ts-fuzz-"));
const bundle = path.join(folder, "fuzz.mjs");
await build.write({ file: bundle, format: "esm", codeSplitting: false, sourcemap: "inline" });
await build.close();
process.setSourceMapsEnabled(true);
const { fuzzConnection } = await import(pathToFileURL(bundle).href);
fs.rmSync(folder, { recursive: true });

let seed = Number(values.seed ?? values.from);
const fail = (error) => {
  process.stdout.write(`${error.stack ?? error}\nreplay: node scripts/fuzz-http2.mjs --seed ${seed}\n`);
  process.exit(1);
};
process.on("uncaughtException", fail);
process.on("unhandledRejection", fail);

const wanted = values.seed === undefined ? Number(values.frames) : 1;
const heaps = [];
const start = performance.now();
let frames = 0;
let calls = 0;
for (let next = wanted / 10; frames < wanted; seed++) {
  const result = await fuzzConnection(seed);
  frames += result.frames;
  calls += result.calls;
  if (frames < next) continue;
  next += wanted / 10;
  globalThis.gc?.();
  heaps.push(process.memoryUsage().heapUsed);
  const perSecond = Math.round((frames / (performance.now() - start)) * 1000);
  const megabytes = (heaps.at(-1) / 1e6).toFixed(1);
  process.stdout.write(`${frames} frames, ${calls} calls, ${perSecond} frames/s, heap ${megabytes} MB, seed ${seed}\n`);
}
const growth = heaps.at(-1) - heaps[Math.floor(heaps.length / 2)];
if (globalThis.gc && growth > HEAP_GROWTH_BYTES_MAX) {
  process.stdout.write(`the heap grew by ${(growth / 1e6).toFixed(1)} MB in the second half\n`);
  process.exit(1);
}
