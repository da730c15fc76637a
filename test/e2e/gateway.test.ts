// `etcd gateway` as a process: it forwards to members, leaves out those that are gone, and says what etcd's says.
import { spawn } from "node:child_process";
import { once } from "node:events";
import path from "node:path";
import { connect, watchInit } from "@etcd-ts/client";
import { expect, it } from "vitest";
import { freePort, Member, must, ourBin, realBin, run, temporaryFolder, until } from "./harness/processes.ts";

it("forwards to the members that are there, and takes those back that return", async () => {
  using folder = temporaryFolder("gateway");
  const dataDir = path.join(folder.path, "data");
  const [port, deadPort, clientPort] = [await freePort(), await freePort(), await freePort()];
  const gateway = spawn(
    path.join(ourBin, "etcd"),
    [
      ...["gateway", "start", "--listen-addr", `127.0.0.1:${port}`, "--retry-delay=200ms"],
      `--endpoints=http://127.0.0.1:${deadPort},127.0.0.1:${clientPort}`,
    ],
    { cwd: folder.path, stdio: ["ignore", "pipe", "pipe"] },
  );
  let log = "";
  gateway.stderr.on("data", (chunk: Buffer) => {
    log += chunk.toString();
  });
  const ended = once(gateway, "close");
  const lines = () =>
    log
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => JSON.parse(line) as Record<string, unknown>);
  const has = (msg: string, address: string) =>
    lines().some((line) => line["msg"] === msg && line["address"] === address);
  try {
    const member = await Member.start({ dataDir, clientPort });
    await until("the gateway serves", () => log.includes("ready to proxy client requests"));
    const endpoint = `127.0.0.1:${port}`;
    const ctl = (...args: string[]) => must("etcdctl", ["--endpoints", endpoint, ...args]);
    expect(await ctl("put", "a", "1")).toBe("OK\n");
    expect(await ctl("get", "a")).toBe("a\n1\n");
    expect(has("deactivated endpoint", `127.0.0.1:${deadPort}`)).toBe(true);
    await using client = await connect({ endpoints: [endpoint] });
    const watcher = client.watch(watchInit("b"));
    const seen = (async () => {
      for await (const { events } of watcher) if (events.length > 0) return events[0]?.kv?.value.length;
      return undefined;
    })();
    await client.kv.put("b", "x".repeat(1_000_000));
    // The watch may have begun behind the put.
    await until("the watcher is told", async () => {
      await client.kv.put("b", "x".repeat(1_000_000));
      return Promise.race([seen, new Promise<undefined>((resolve) => setTimeout(() => resolve(undefined), 100))]);
    });
    expect(await seen).toBe(1_000_000);

    await member.stop();
    await using other = await Member.start({ dataDir: path.join(folder.path, "other"), clientPort: deadPort });
    await until("the other one is taken in", () => has("activated", `127.0.0.1:${deadPort}`));
    expect(await ctl("put", "c", "2")).toBe("OK\n");
    await until("the first one is found gone", async () => {
      await ctl("get", "c");
      return has("deactivated endpoint", `127.0.0.1:${clientPort}`);
    });
    expect(await must("etcdctl", ["--endpoints", other.endpoint, "get", "c"])).toBe("c\n2\n");
    expect(lines().map(({ msg }) => msg)).toEqual(
      expect.arrayContaining(["Running: ", "notifying init daemon", "successfully notified init daemon"]),
    );
  } finally {
    gateway.kill("SIGTERM");
    expect(await ended).toEqual([null, "SIGTERM"]);
  }
});

it("has etcd's words", async (context) => {
  if (!realBin) return context.skip("ETCD_REAL_BIN is not set");
  const listen = `--listen-addr=127.0.0.1:${await freePort()}`;
  for (const args of [
    ["gateway"],
    ["gateway", "start", "--help"],
    ["gateway", "start", "--bogus"],
    ["gateway", "start", "--retry-delay=x"],
    ["gateway", "start", "--endpoints", "foo", listen],
    ["gateway", "start", "--endpoints=", listen],
    ["gateway", "start", "--listen-addr", "x"],
    ["gateway", "start", "--listen-addr=127.0.0.1:23790", "--endpoints=http://localhost:23790"],
  ]) {
    const said = async (bin: string) => {
      const { code, stdout, stderr } = await run("etcd", args, { bin });
      return { code, stdout, stderr: stderr.replace(/^\{.*\}\n/gm, "") };
    };
    expect(await said(ourBin), args.join(" ")).toEqual(await said(realBin));
  }
});
