/** `npm run cluster`: what a new user tries next. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import net from "node:net";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { must, repoRoot, temporaryFolder, until } from "./harness/processes.ts";

const started = new Set<ChildProcess>();
process.on("exit", () => {
  for (const child of started) child.kill("SIGTERM");
});

function start(...args: string[]) {
  const child = spawn(process.execPath, [path.join(repoRoot, "scripts", "cluster.mjs"), ...args], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  started.add(child);
  let out = "";
  let err = "";
  child.stdout.on("data", (chunk: Buffer) => {
    out += chunk;
  });
  child.stderr.on("data", (chunk: Buffer) => {
    err += chunk;
  });
  const ended = once(child, "close").then(([code]) => {
    started.delete(child);
    return { code: code as number | null, out, err };
  });
  return { child, ended, out: () => out };
}

async function isOpen(port: number): Promise<boolean> {
  const socket = net.connect(port, "127.0.0.1");
  const isConnected = await Promise.race([
    once(socket, "connect").then(() => true),
    once(socket, "error").then(() => false),
  ]).catch(() => false);
  socket.destroy();
  return isConnected;
}

describe("npm run cluster", () => {
  it("starts members that are one cluster, keeps their data where it is told to, and stops them all", async () => {
    using folder = temporaryFolder("run-cluster");
    const first = start("--data", folder.path);
    const ended = { value: false };
    void first.ended.then(() => {
      ended.value = true;
    });
    await until("the cluster is ready, or the start failed", () => ended.value || first.out().includes("Ctrl-C stops"));
    const endpoints = /ETCDCTL_ENDPOINTS=(\S+)/.exec(first.out())?.[1] ?? "";
    expect(endpoints.split(",")).toHaveLength(3);
    const list = await must("etcdctl", ["--endpoints", endpoints, "member", "list"]);
    expect(list.trim().split("\n")).toHaveLength(3);
    await must("etcdctl", ["--endpoints", endpoints, "put", "foo", "bar"]);
    first.child.kill("SIGINT");
    expect((await first.ended).code).toBe(0);
    for (const url of endpoints.split(",")) expect(await isOpen(Number(new URL(url).port))).toBe(false);

    const again = start("--data", folder.path);
    await until("the cluster is back", () => again.out().includes("Ctrl-C stops"));
    expect(again.out()).toContain(endpoints);
    expect(await must("etcdctl", ["--endpoints", endpoints, "get", "foo", "--print-value-only"])).toBe("bar\n");
    again.child.kill("SIGTERM");
    expect((await again.ended).code).toBe(0);
    expect(fs.readdirSync(folder.path).sort()).toContain("cluster.json");

    const other = await start("--data", folder.path, "--members", "5").ended;
    expect([other.code, other.err]).toEqual([
      1,
      `cluster: ${folder.path} holds a cluster of 3 members: say --members 3\n`,
    ]);
  });

  it("says why a member cannot run, and what it takes", async () => {
    const refused = await start("--members", "1", "--", "--heartbeat-interval", "0").ended;
    expect(refused.code).toBe(1);
    expect(refused.err).toContain(
      "cluster: m1 ended: failed to verify flags: --heartbeat-interval must be >0 (set to 0ms)",
    );
    const wrong = await start("--members", "none").ended;
    expect([wrong.code, wrong.err]).toEqual([2, "cluster: --members takes 1 to 7, not none\n"]);
    expect((await start("--nope").ended).code).toBe(2);
    expect((await start("--help").ended).out).toContain("npm run cluster -- [--members N]");
  });
});
