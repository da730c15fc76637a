/**
 * The lines that operators and log parsers know a server by: a member is started, used, stopped and started again, and each
 * line of a recording of the real server's log must be there with the same fields. Where the real one is at hand, the
 * recording is checked against it; UPDATE_GOLDEN=1 writes it anew.
 */
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { freePort, Member, must, ourBin, realBin, run, temporaryFolder, until } from "./harness/processes.ts";

const recording = fileURLToPath(new URL("testdata/log-lines.json", import.meta.url));

/** Fields by level, logger and message; numbers and ids in messages are replaced. */
type Lines = Record<string, readonly string[]>;

/** What the real server says and ours need not. */
const NOT_OURS = [
  // Its listeners are closed under its servers; ours are closed in order.
  /due to error$/,
];

async function linesOf(bin: string): Promise<Lines> {
  using folder = temporaryFolder("log-lines");
  const dataDir = path.join(folder.path, "data");
  const [clientPort, peerPort] = [await freePort(), await freePort()];
  const url = `http://127.0.0.1:${peerPort}`;
  const flags = ["--initial-advertise-peer-urls", url, "--initial-cluster", `default=${url}`, "--snapshot-count=10"];
  const options = { bin, dataDir, clientPort, peerPort, flags };
  const ctl = (...args: string[]) => must("etcdctl", ["--endpoints", `127.0.0.1:${clientPort}`, ...args], { bin });
  let log = "";
  {
    await using member = await Member.start(options);
    for (let i = 0; i < 5; i++) await ctl("put", `k${i}`, "v");
    await ctl("member", "list");
    await ctl("compact", "4", "--physical");
    await ctl("defrag");
    await ctl("snapshot", "save", path.join(folder.path, "snap.db"));
    await ctl("role", "add", "r");
    await ctl("role", "grant-permission", "r", "readwrite", "k");
    for (const user of ["root", "u"]) await ctl("user", "add", `${user}:pw`);
    await ctl("user", "grant-role", "root", "root");
    await ctl("user", "grant-role", "u", "r");
    await ctl("auth", "enable");
    await run("etcdctl", ["--endpoints", member.endpoint, "--user", "u:bad", "get", "k"], { bin });
    const root = ["--user", "root:pw"];
    await ctl(...root, "user", "revoke-role", "u", "r");
    await ctl(...root, "role", "revoke-permission", "r", "k");
    await ctl(...root, "user", "delete", "u");
    await ctl(...root, "role", "delete", "r");
    await ctl(...root, "auth", "disable");
    await until("a snapshot was made", () => member.log.includes("compacted Raft logs"));
    await member.stop();
    log += member.log;
  }
  await using again = await Member.start(options);
  await ctl("get", "k0");
  await again.stop();
  log += again.log;
  const lines: Record<string, Set<string>> = {};
  for (const text of log.split("\n")) {
    if (!text.startsWith("{")) continue;
    const { level, logger, msg, ts: _ts, caller: _caller, stacktrace: _stack, ...fields } = JSON.parse(text);
    const message = String(msg)
      .replace(/\b[0-9a-f]{12,16}\b/g, "ID")
      .replace(/\b\d+\b/g, "N");
    // What is slow on a busy machine is no part of the script.
    if (
      /^(?:request stats|apply request took too long|slow fdatasync|trace\[|leader failed to send|.* A tick missed)/.test(
        message,
      )
    )
      continue;
    const key = [level, logger, message].filter(Boolean).join(" ");
    lines[key] ??= new Set();
    for (const name of Object.keys(fields)) lines[key].add(name);
  }
  return Object.fromEntries(
    Object.entries(lines)
      .map(([key, fields]) => [key, [...fields].sort()] as const)
      .sort(([a], [b]) => (a < b ? -1 : 1)),
  );
}

function expectAll(told: Lines, recorded: Lines): void {
  for (const [key, fields] of Object.entries(recorded)) expect(told[key], key).toEqual(fields);
}

it("a member logs what the real one logs, with the same fields", async () => {
  if (realBin) {
    const told = await linesOf(realBin);
    if (process.env["UPDATE_GOLDEN"]) fs.writeFileSync(recording, `${JSON.stringify(told, undefined, 2)}\n`);
    expectAll(told, JSON.parse(fs.readFileSync(recording, "utf8")));
  }
  const recorded = Object.entries(JSON.parse(fs.readFileSync(recording, "utf8")) as Lines);
  expect(recorded.length).toBeGreaterThan(60);
  const wanted = recorded.filter(([key]) => !NOT_OURS.some((pattern) => pattern.test(key)));
  expectAll(await linesOf(ourBin), Object.fromEntries(wanted));
});

async function failuresOf(bin: string): Promise<unknown[]> {
  using folder = temporaryFolder("log-failures");
  await using member = await Member.start({ bin, dataDir: path.join(folder.path, "data") });
  const refused = async (...args: string[]) => {
    const { code } = await run("etcdctl", ["--endpoints", member.endpoint, ...args], { bin });
    expect(code, args.join(" ")).not.toBe(0);
  };
  await refused("compact", "1000");
  await refused("lease", "revoke", "77");
  await refused("put", "k", "v", "--lease", "77");
  await refused("put", "k", "--ignore-value");
  await refused("user", "delete", "nobody");
  await refused("role", "get", "nothing");
  await member.stop();
  return member.log
    .split("\n")
    .filter((line) => line.includes('"msg":"failed to apply request"'))
    .map((line) => JSON.parse(line).error);
}

it("a request that fails is logged with the error of the room in which it arose", async () => {
  const errors = [
    "mvcc: required revision is a future revision",
    "lease not found",
    "lease not found",
    "etcdserver: key not found",
    "auth: user not found",
    "auth: role not found",
  ];
  if (realBin) expect(await failuresOf(realBin)).toEqual(errors);
  expect(await failuresOf(ourBin)).toEqual(errors);
});
