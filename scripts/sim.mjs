// Runs raft's simulator: clusters of 1 to 7 members on virtual time, each from one seed.
//
//   npm run sim -- [--seeds N] [--from SEED]     N seeds (default 200); ends with seeds/s and simulated hours
//   npm run sim -- --seed SEED --trace           one seed, with everything that happens
//
// Exit code 1 when an invariant broke; the output names the command that replays it.
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { rolldown } from "rolldown";
import { ensure, root } from "./ensure.mjs";

const { values } = parseArgs({
  options: {
    seeds: { type: "string", default: "200" },
    from: { type: "string", default: "1" },
    seed: { type: "string" },
    trace: { type: "boolean", default: false },
  },
});

function wholeNumber(text, name) {
  if (/^\d{1,9}$/.test(text)) return Number(text);
  process.stderr.write(`--${name} takes a whole number, not ${text}\n`);
  process.exit(2);
}

ensure({ installOnly: true });
const build = await rolldown({
  input: "packages/server/src/raft/sim/main.ts",
  cwd: root,
  platform: "node",
  external: [/^node:/],
  resolve: { conditionNames: ["etcd-ts-source", "import", "node", "default"] },
  transform: { target: "node20.19" },
});
const folder = fs.mkdtempSync(path.join(os.tmpdir(), "etcd-ts-sim-"));
const bundle = path.join(folder, "sim.mjs");
await build.write({ file: bundle, format: "esm", codeSplitting: false, sourcemap: "inline" });
await build.close();
process.setSourceMapsEnabled(true);
const { runSimulations } = await import(pathToFileURL(bundle).href);

process.exitCode = runSimulations(
  {
    seeds: wholeNumber(values.seeds, "seeds"),
    from: wholeNumber(values.from, "from"),
    seed: values.seed === undefined ? undefined : wholeNumber(values.seed, "seed"),
    trace: values.trace,
  },
  { write: (text) => process.stdout.write(text), nowMs: () => performance.now() },
);
fs.rmSync(folder, { recursive: true });
