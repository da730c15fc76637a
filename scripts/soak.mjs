// Runs the cluster tests of test/e2e in their long form: real processes under load, and all that can happen to them.
//
//   npm run soak                                  every scenario in its full length
//   npm run soak -- kills links [--rounds N]      these only, and how often each thing is done
//   npm run soak -- kills --election-ms 500       with another election time-out (default 1000)
//   npm run soak -- robustness [--seed N]         random faults; histories checked for linearizability, watches for gaps
//   npm run soak -- lag [--entries N] [--value-bytes N]    how far behind the follower is (default 200,000 and 5,120)
//
// ETCD_REAL_BIN names a folder with the real etcd, etcdctl and etcdutl for the scenarios that mix both; without it they
// are left out. Exit code 1 when a promise was broken.
//
//   npm run soak -- --help                        prints this
import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { rolldown } from "rolldown";
import { ensure, root } from "./ensure.mjs";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    help: { type: "boolean", short: "h", default: false },
    rounds: { type: "string" },
    "election-ms": { type: "string", default: "1000" },
    seed: { type: "string" },
    entries: { type: "string", default: "200000" },
    "value-bytes": { type: "string", default: "5120" },
  },
});

if (values.help) {
  const lines = fs.readFileSync(new URL(import.meta.url), "utf8").split("\n");
  const end = lines.findIndex((line) => !line.startsWith("//"));
  process.stdout.write(
    `${lines
      .slice(0, end)
      .map((line) => line.replace(/^\/\/ ?/, ""))
      .join("\n")}\n`,
  );
  process.exit(0);
}

function wholeNumber(text, name) {
  if (/^\d{1,9}$/.test(text)) return Number(text);
  process.stderr.write(`--${name} takes a whole number, not ${text}\n`);
  process.exit(2);
}

ensure();
process.env.ETCD_TEST_BIN ??= path.join(root, "bin");
const build = await rolldown({
  input: "test/e2e/harness/soak.ts",
  cwd: root,
  platform: "node",
  // From the repository's own node_modules, since the bundle lies inside it.
  external: [/^node:/, /^@grpc\//],
  resolve: { conditionNames: ["etcd-ts-source", "import", "node", "default"] },
  transform: { target: "node20.19" },
});
const bundle = path.join(root, "node_modules", ".cache", `soak-${process.pid}.mjs`);
await build.write({ file: bundle, format: "esm", codeSplitting: false, sourcemap: "inline" });
await build.close();
process.setSourceMapsEnabled(true);
let soak;
try {
  soak = await import(pathToFileURL(bundle).href);
} finally {
  fs.rmSync(bundle, { force: true });
}

// Ending at once, which also ends the members.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => process.exit(130));

const scenarios = positionals.length > 0 ? positionals : Object.keys(soak.soaks);
for (const name of scenarios) {
  if (soak.soaks[name]) continue;
  process.stderr.write(`no scenario ${name}; there are ${Object.keys(soak.soaks).join(", ")}\n`);
  process.exit(2);
}
const isGood = await soak.runSoaks({
  scenarios,
  rounds: values.rounds === undefined ? undefined : wholeNumber(values.rounds, "rounds"),
  electionMs: wholeNumber(values["election-ms"], "election-ms"),
  seed: values.seed === undefined ? Math.floor(Math.random() * 1e9) : wholeNumber(values.seed, "seed"),
  entries: wholeNumber(values.entries, "entries"),
  valueBytes: wholeNumber(values["value-bytes"], "value-bytes"),
  say: (line) => process.stdout.write(`${line}\n`),
});
process.exit(isGood ? 0 : 1);
