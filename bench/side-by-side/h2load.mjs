// h2load (nghttp2's load generator) where its shape fits: the same request over and over.
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { framed } from "../generator/connection.mjs";
import { cpuOf } from "../generator/measure.mjs";
import { paths, range } from "../generator/messages.mjs";

export const hasH2load = () => spawnSync("h2load", ["--version"]).status === 0;

/** Ranges of one key. Answers are not looked at, so a refused call would count: the caller checks one beforehand. */
export function h2loadRange({ port, connections, streams, seconds, serializable, scratch, pids }) {
  const body = path.join(scratch, "h2load-body");
  const log = path.join(scratch, "h2load-log");
  fs.rmSync(log, { force: true });
  fs.writeFileSync(body, framed(range({ key: "k/0000000007", serializable })));
  const serversBefore = cpuOf(pids);
  const childCpu = () => {
    // utime and stime of children that have been waited for.
    const stat = fs.readFileSync("/proc/self/stat", "latin1");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return (Number(fields[13]) + Number(fields[14])) * 10;
  };
  const cpuBefore = childCpu();
  const { status, stdout, stderr } = spawnSync(
    "h2load",
    [
      ...["-c", String(connections), "-m", String(streams), "-D", String(seconds), "--warm-up-time", "1"],
      ...["-d", body, "-H", "content-type: application/grpc", "-H", "te: trailers", "--log-file", log],
      `http://127.0.0.1:${port}${paths.range}`,
    ],
    { encoding: "utf8", maxBuffer: 2 ** 26 },
  );
  if (status !== 0) throw new Error(`h2load ended with ${status}: ${stderr}`);
  const count = Number(/requests: \d+ total, \d+ started, (\d+) done, \d+ succeeded/.exec(stdout)?.[1]);
  const perSecond = Number(/finished in [\d.]+s, ([\d.]+) req\/s/.exec(stdout)?.[1]);
  const generatorCpuMs = childCpu() - cpuBefore;
  // Lines of start, HTTP status and microseconds.
  const times = [];
  for (const line of fs.readFileSync(log, "latin1").split("\n")) {
    const tab = line.lastIndexOf("\t");
    if (tab > 0) times.push(Number(line.slice(tab + 1)) / 1000);
  }
  fs.rmSync(log);
  times.sort((a, b) => a - b);
  const at = (part) => times[Math.min(times.length - 1, Math.floor(times.length * part))] ?? null;
  // CPU is of the warm-up too.
  const ratio = seconds / (seconds + 1);
  return {
    count,
    perSecond,
    latencyMs: { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: at(1) },
    errors: 0,
    errorTexts: [],
    tookMs: seconds * 1000,
    generatorCpuMs: generatorCpuMs * ratio,
    serverCpuMs: (cpuOf(pids) - serversBefore) * ratio,
  };
}
