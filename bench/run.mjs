// `npm run bench`: the server beside the real etcd, row by row, A B A B, on the same machine from the same generator.
//
//   npm run bench -- --peer DIR            DIR holds the real etcd; without it only ours is measured
//     --only REGEX     rows whose name or title matches (see --list)
//     --rounds N       how often each row is measured on each server, in turn (default 3)
//     --seconds N      length of one measurement (default 5)
//     --quick          one round of 2 s, and fixtures of a tenth of the size
//     --dir DIR        where data dirs are made; take the disk that is to be measured (default: the temporary folder)
//     --fixtures DIR   keep the filled data dirs there and use them again
//     --ours DIR       programs to measure as ours (default: bin/); --ours-flags 'FLAGS' more flags for them
//     --profile        a CPU profile of our server for each row, beside the results
//
// Prints a table, and writes it as Markdown, with all figures as JSON and as an SVG plot, to bench/results/. Each row starts
// from a fresh data dir, or a fresh copy of a filled one. Memory is read when a row's load ends: `own` is anonymous
// resident memory, `mapped` what is backed by files. The generator's own CPU is in the last columns: on a machine with
// few cores it is taken from the server's share. `CPU ratio` compares what an operation costs the servers in CPU: of all
// figures the one that other load on the machine bends least.
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { ensure } from "../scripts/ensure.mjs";
import { sleep } from "./generator/measure.mjs";
import { h2loadRange, hasH2load } from "./side-by-side/h2load.mjs";
import { markdown, median, number, plain, summarize, svg } from "./side-by-side/report.mjs";
import { fixtures, rows } from "./side-by-side/rows.mjs";
import { Cluster, generate, memoryOf } from "./side-by-side/servers.mjs";

const here = path.dirname(fileURLToPath(import.meta.url));
const root = path.dirname(here);
const { values } = parseArgs({
  options: {
    peer: { type: "string" },
    only: { type: "string" },
    rounds: { type: "string" },
    seconds: { type: "string" },
    quick: { type: "boolean" },
    dir: { type: "string" },
    fixtures: { type: "string" },
    ours: { type: "string" },
    "ours-flags": { type: "string" },
    list: { type: "boolean" },
    profile: { type: "boolean" },
  },
});
const quick = values.quick ?? false;
const rounds = Number(values.rounds ?? (quick ? 1 : 3));
const seconds = Number(values.seconds ?? (quick ? 2 : 5));
const SETTLE_SECONDS = 5;

const wanted = Object.entries(rows).filter(([name, { title }]) => {
  if (values.only === undefined) return true;
  const only = new RegExp(values.only);
  return only.test(name) || only.test(title);
});
if (values.list) {
  for (const [name, { title }] of wanted) console.log(`${name.padEnd(20)} ${title}`);
  process.exit(0);
}

if (values.ours === undefined) ensure();
const results = path.join(here, "results");
fs.mkdirSync(results, { recursive: true });
const stamp = new Date().toISOString().replaceAll(":", "").slice(0, 15);
const work = fs.mkdtempSync(path.join(values.dir ?? os.tmpdir(), "etcd-bench-"));
process.on("exit", () => fs.rmSync(work, { recursive: true, force: true }));
const keptFixtures = values.fixtures ?? path.join(work, "fixtures");

const kinds = {
  ours: {
    name: "ours",
    bin: path.resolve(values.ours ?? path.join(root, "bin")),
    flags: values["ours-flags"]?.split(" ") ?? [],
  },
  ...(values.peer ? { peer: { name: "peer", bin: path.resolve(values.peer), flags: [] } } : {}),
};
for (const { bin } of Object.values(kinds)) {
  if (!fs.existsSync(path.join(bin, "etcd"))) throw new Error(`${bin} holds no etcd`);
}

/** A data dir that holds what a fixture says, made by the server itself once. */
async function fixtureDir(kind, name) {
  const spec = fixtures[name];
  if (!spec) return undefined;
  const keys = quick ? Math.min(spec.keys, Math.max(10_000, spec.keys / 10)) : spec.keys;
  const dir = path.join(keptFixtures, `${kind.name}-${name}-${keys}`);
  if (fs.existsSync(path.join(dir, "complete"))) return { dir, keys };
  fs.rmSync(dir, { recursive: true, force: true });
  fs.mkdirSync(dir, { recursive: true });
  const cluster = new Cluster({ kind, dir, flags: kind.flags });
  await cluster.start();
  const load = spec.perTxn > 1 ? { connections: 4, streams: 4 } : { connections: 50, streams: 10 };
  const { perSecond } = await generate({ kind: "fill", endpoints: cluster.endpoints, ...load, ...spec, keys });
  await cluster.stop();
  process.stderr.write(`  ${kind.name}: ${keys} keys put at ${number(perSecond)}/s\n`);
  fs.writeFileSync(path.join(dir, "complete"), "");
  return { dir, keys };
}

/** Names of keys go as far as the fixture does, in a quick run too. */
function within(job, keys) {
  if (keys === undefined) return job;
  const narrow = (spec) => (spec.keys > keys ? { ...spec, keys } : spec);
  return {
    ...job,
    ...(job.operations ? { operations: job.operations.map(narrow) } : {}),
    ...(job.backlog > keys ? { backlog: keys } : {}),
  };
}

async function measure(name, row, kind, round) {
  const dir = path.join(work, `${name}-${kind.name}`);
  const fixture = await fixtureDir(kind, row.fixture ?? "empty");
  fs.rmSync(dir, { recursive: true, force: true });
  if (fixture) fs.cpSync(fixture.dir, dir, { recursive: true });
  else fs.mkdirSync(dir, { recursive: true });
  const profile =
    values.profile && kind.name === "ours"
      ? ["--cpu-prof", `--cpu-prof-dir=${path.join(results, `${stamp}-${name}-${round}`)}`]
      : undefined;
  const cluster = new Cluster({ kind, dir, size: row.members ?? 1, flags: kind.flags, nodeFlags: profile });
  const withServer = (job) =>
    generate({ ...within(job, fixture?.keys), endpoints: cluster.endpoints, pids: cluster.pids });
  try {
    if (!row.startsItself) await cluster.start();
    const found = await row.run({
      cluster,
      seconds,
      quick,
      scratch: work,
      generate: withServer,
      h2load: (load) => h2loadRange({ ...load, port: cluster.endpoints[0].port, scratch: work, pids: cluster.pids }),
      firstRead: () => generate({ kind: "firstRead", endpoints: cluster.endpoints }),
      settle: () => sleep((quick ? 2 : SETTLE_SECONDS) * 1000),
      memoryNow: () => memoryOf(cluster.pids),
    });
    found.memory ??= memoryOf(cluster.pids);
    return found;
  } finally {
    await cluster.stop(values.profile ? "SIGTERM" : "SIGKILL");
    fs.rmSync(dir, { recursive: true, force: true });
  }
}

const all = {};
const summaries = {};
const cpu = os.cpus();
const context = {
  what:
    `${os.availableParallelism()} cores (${cpu[0]?.model.trim()}), node ${process.version}, ` +
    `${rounds} round(s) of ${seconds} s, ${new Date().toISOString().slice(0, 10)}`,
};

function write() {
  const file = path.join(results, stamp);
  const data = { ...context, rounds, seconds, quick, load: os.loadavg(), summaries, runs: all };
  fs.writeFileSync(`${file}.json`, `${JSON.stringify(data, null, 1)}\n`);
  fs.writeFileSync(`${file}.md`, markdown(summaries, context));
  fs.writeFileSync(`${file}.svg`, svg(summaries, context));
  return file;
}

for (const [name, row] of wanted) {
  if (name.startsWith("h2load") && !hasH2load()) {
    process.stderr.write(`${name}: left out, there is no h2load here\n`);
    continue;
  }
  const runs = Object.fromEntries(Object.keys(kinds).map((kind) => [kind, []]));
  // The one that goes first changes from round to round, so that neither always meets the warmer machine.
  for (let round = 0; round < rounds; round++) {
    const order = Object.entries(kinds);
    if (round % 2 === 1) order.reverse();
    for (const [kind, what] of order) {
      const found = await measure(name, row, what, round);
      runs[kind].push(found);
      for (const text of found.errorTexts ?? []) process.stderr.write(`${name}, ${kind}: ${text}\n`);
    }
  }
  all[name] = runs;
  summaries[name] = summarize(row, runs);
  const each = Object.entries(runs).map(
    ([kind, list]) => `${kind} ${list.map((run) => number(row.figure(run))).join(" ")}${row.unit}`,
  );
  const { ratio, isMet } = summaries[name];
  process.stderr.write(
    `${row.title}: ${each.join(" | ")}${ratio === undefined ? "" : ` | ${ratio.toFixed(2)}x`}${isMet === undefined ? "" : isMet ? "" : "  (short of the goal)"}\n`,
  );
  write();
}
const met = Object.values(summaries).filter((row) => row.isMet !== undefined);
const shares = Object.values(summaries).map((row) => row.ours.generatorShare);
console.log(`\n${context.what}\n\n${plain(summaries)}\n`);
console.log(
  `${met.filter((row) => row.isMet).length} of ${met.length} goals met; the generator took ${number(100 * (median(shares) ?? 0))}% of a core (median of the rows)`,
);
console.log(`results: ${path.relative(process.cwd(), write())}.{md,json,svg}`);
