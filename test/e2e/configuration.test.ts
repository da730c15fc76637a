// Flags, variables and files at a whole server: all of them at once in each form, and those whose effect shows only
// from outside.
import { spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import http from "node:http";
import path from "node:path";
import { connect } from "@etcd-ts/client";
import { describe, expect, it } from "vitest";
import { freePort, httpGet, Member, must, ourBin, run, temporaryFolder, until } from "./harness/processes.ts";

interface HelpFlag {
  readonly name: string;
  readonly fallback: string;
}

/** Every flag that `--help` names, with its default. */
async function allFlags(): Promise<HelpFlag[]> {
  const { stdout } = await run("etcd", ["--help"]);
  return [...stdout.matchAll(/^ {2}--([a-z0-9-]+) '(.*)'$/gm)].map(([, name = "", fallback = ""]) => ({
    name,
    fallback,
  }));
}

/** Values under which a server can start: the defaults, but for addresses and folders. */
async function workingValues(folder: string): Promise<Map<string, string>> {
  const [client, peer] = [`http://127.0.0.1:${await freePort()}`, `http://127.0.0.1:${await freePort()}`];
  const values = new Map((await allFlags()).map(({ name, fallback }) => [name, fallback]));
  for (const name of ["version", "config-file"]) values.delete(name);
  const own: Record<string, string> = {
    "data-dir": path.join(folder, "data"),
    "listen-client-urls": client,
    "advertise-client-urls": client,
    "listen-peer-urls": peer,
    "initial-advertise-peer-urls": peer,
    "initial-cluster": `default=${peer}`,
    "enable-pprof": "true",
    "socket-reuse-address": "true",
  };
  for (const [name, value] of Object.entries(own)) values.set(name, value);
  return values;
}

/** Starts a server in its own way and waits for its health; ends it when `use` is done. */
async function withServer(
  args: readonly string[],
  env: Readonly<Record<string, string>>,
  cwd: string,
  clientUrl: string,
  use: (log: () => string) => Promise<void>,
): Promise<void> {
  const kept = Object.entries(process.env).filter(([name]) => !/^ETCD/.test(name));
  const child = spawn(path.join(ourBin, "etcd"), args, {
    cwd,
    env: { ...Object.fromEntries(kept), ...env },
    stdio: ["ignore", "ignore", "pipe"],
  });
  let log = "";
  child.stderr.on("data", (piece: Buffer) => {
    log += piece.toString();
  });
  try {
    await until("the server is healthy", async () => {
      if (child.exitCode !== null) throw new Error(log);
      return (await httpGet(`${clientUrl}/health`)).includes('"health":"true"');
    });
    await use(() => log);
  } finally {
    if (child.exitCode === null) {
      child.kill("SIGKILL");
      await once(child, "close");
    }
  }
}

describe("all flags at once", () => {
  it("on the command line", async () => {
    using folder = temporaryFolder("flags");
    const values = await workingValues(folder.path);
    expect(values.size).toBeGreaterThan(105);
    const args = [...values].map(([name, value]) => `--${name}=${value}`);
    await withServer(args, {}, folder.path, values.get("listen-client-urls") as string, async (log) => {
      expect(log()).toContain('"msg":"configuring socket options","reuse-address":true,"reuse-port":false');
      expect(log()).toContain('"flag":"experimental-memory-mlock","reason":"Node cannot lock memory"');
    });
  });

  it("as variables", async () => {
    using folder = temporaryFolder("flags");
    const values = await workingValues(folder.path);
    const env: Record<string, string> = {};
    for (const [name, value] of values) {
      if (value !== "") env[`ETCD_${name.toUpperCase().replaceAll("-", "_")}`] = value;
    }
    await withServer([], env, folder.path, values.get("listen-client-urls") as string, async (log) => {
      const used = log().match(/"msg":"recognized and used environment variable"/g) ?? [];
      expect(used).toHaveLength(Object.keys(env).length);
      expect(log()).not.toContain("unrecognized environment variable");
    });
  });

  it("in a file", async () => {
    using folder = temporaryFolder("flags");
    const values = await workingValues(folder.path);
    // The page that is made from the table of flags says how each is called in a file and what it takes.
    const page = fs.readFileSync(new URL("../../docs/flags.md", import.meta.url), "utf8");
    const content: Record<string, unknown> = {};
    for (const [, name = "", type = "", key = ""] of page.matchAll(
      /^\| `--([^`]+)` \| ([^|]+) \| [^|]* \| [^|]+ \| ([^|]+) \|/gm,
    )) {
      const value = values.get(name);
      if (key === "none" || value === undefined) continue;
      const steps = (key === "same" ? name : key.replaceAll("`", "")).split(".");
      const last = steps.pop() as string;
      const holder = steps.reduce<Record<string, unknown>>((inner, step) => {
        inner[step] ??= {};
        return inner[step] as Record<string, unknown>;
      }, content);
      if (type === "bool") holder[last] = value === "true";
      else if (/int/.test(type)) holder[last] = Number(value);
      else if (type === "duration") holder[last] = 1_000_000_000;
      else if (type === "list" && name !== "host-whitelist") holder[last] = value === "" ? [] : [value];
      else holder[last] = value;
    }
    expect(Object.keys(content).length).toBeGreaterThan(80);
    const file = path.join(folder.path, "etcd.conf.json");
    fs.writeFileSync(file, JSON.stringify(content));
    const args = ["--config-file", file, "--name", "ignored"];
    await withServer(args, {}, folder.path, values.get("listen-client-urls") as string, async (log) => {
      expect(log()).toContain("loaded server configuration, other configuration command line flags");
      expect(log()).toContain('"data-dir":"');
      expect(log()).not.toContain('"name":"ignored"');
    });
  });
});

describe("flags whose effect shows from outside", () => {
  it("--proxy and --discovery are refused rather than ignored", async () => {
    using folder = temporaryFolder("flags");
    const proxy = await run("etcd", ["--proxy=on"], { cwd: folder.path });
    expect([proxy.code, proxy.stderr]).toEqual([1, expect.stringContaining("the v2 proxy is not served")]);
    const found = await run("etcd", ["--discovery=http://127.0.0.1:1/x", "--discovery-fallback=exit"], {
      cwd: folder.path,
    });
    expect([found.code, found.stderr]).toEqual([1, expect.stringContaining("the v2 discovery service is not asked")]);
  });

  it("--experimental-bootstrap-defrag-threshold-megabytes frees space before serving", async () => {
    using folder = temporaryFolder("flags");
    const dataDir = path.join(folder.path, "data");
    const flags = ["--experimental-bootstrap-defrag-threshold-megabytes=4"];
    {
      await using member = await Member.start({ dataDir, flags });
      expect(member.log).toContain('"msg":"Skipping defragmentation"');
      await using client = await connect({ endpoints: [member.endpoint] });
      for (let i = 0; i < 8; i++) await client.kv.put(`k${i}`, "x".repeat(1_000_000));
      const { header } = await client.kv.delete("k", { prefix: true });
      await client.kv.compact(header?.revision ?? 0, { physical: true });
      await member.stop();
    }
    const database = path.join(dataDir, "member/snap/db.lmdb");
    const before = fs.statSync(database).size;
    expect(before).toBeGreaterThan(8_000_000);
    await using member = await Member.start({ dataDir, flags });
    expect(fs.statSync(database).size).toBeLessThan(before - 4_000_000);
    expect(member.log).not.toContain('"msg":"Skipping defragmentation"');
  });

  it("--socket-reuse-port lets two servers share an address, where Node can", async () => {
    using folder = temporaryFolder("flags");
    const [clientPort, peerPort] = [await freePort(), await freePort()];
    const start = (name: string) => {
      const dataDir = path.join(folder.path, name);
      return Member.launch({ dataDir, clientPort, peerPort, flags: ["--socket-reuse-port"] });
    };
    await using first = await start("a");
    await first.ready();
    expect(first.log).toContain('"msg":"configuring socket options","reuse-address":false,"reuse-port":true');
    await using second = await start("b");
    if (first.log.includes("this version of Node cannot set SO_REUSEPORT")) {
      await second.ended();
      expect(second.log).toContain("bind: address already in use");
    } else {
      await until("the second one serves too", () => second.log.includes("ready to serve client requests"));
    }
  });

  it("unix sockets serve gRPC and HTTP, and are gone after a clean stop", async () => {
    using folder = temporaryFolder("flags");
    const url = "unix://localhost:12379";
    const peer = "unix://localhost:12380";
    const args = [
      ...["--data-dir", "data", "--listen-client-urls", url, "--advertise-client-urls", url],
      ...["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", `default=${peer}`],
    ];
    const child = spawn(path.join(ourBin, "etcd"), args, { cwd: folder.path, stdio: ["ignore", "ignore", "pipe"] });
    let log = "";
    child.stderr.on("data", (piece: Buffer) => {
      log += piece.toString();
    });
    const socketPath = path.join(folder.path, "localhost:12379");
    const get = (path: string) =>
      new Promise<string>((resolve, reject) => {
        http
          .get({ socketPath, path, agent: false }, async (response) => {
            let body = "";
            for await (const piece of response) body += String(piece);
            resolve(body);
          })
          .on("error", reject);
      });
    try {
      await until("the server is healthy", async () => {
        if (child.exitCode !== null) throw new Error(log);
        return (await get("/health")).includes('"health":"true"');
      });
      const text = await must("etcdctl", ["--endpoints", `unix:///${socketPath}`, "put", "a", "b"]);
      expect(text).toBe("OK\n");
    } finally {
      child.kill("SIGTERM");
      await once(child, "close");
    }
    expect(fs.readdirSync(folder.path)).toEqual(["data"]);
  });
});

describe("a hangup", () => {
  it("does not end a server that stands on no terminal, as under nohup", async () => {
    using folder = temporaryFolder("hangup");
    const [client, peer] = [`http://127.0.0.1:${await freePort()}`, `http://127.0.0.1:${await freePort()}`];
    const args = [
      ...["--data-dir", path.join(folder.path, "data"), "--listen-client-urls", client],
      ...["--advertise-client-urls", client, "--listen-peer-urls", peer],
      ...["--initial-advertise-peer-urls", peer, "--initial-cluster", `default=${peer}`],
    ];
    // What nohup does: the signal is ignored from before the program starts, and all three streams lead elsewhere.
    const words = ["trap '' HUP; exec \"$@\"", "sh", path.join(ourBin, "etcd"), ...args];
    const child = spawn("sh", ["-c", ...words], { stdio: "ignore" });
    try {
      const isHealthy = async () => (await httpGet(`${client}/health`)).includes('"health":"true"');
      await until("the server is healthy", () => child.exitCode === null && isHealthy());
      child.kill("SIGHUP");
      // Both wait for it; a hangup that ended it would come first, as the lower number.
      child.kill("SIGTERM");
      expect(await once(child, "close")).toEqual([null, "SIGTERM"]);
    } finally {
      if (child.exitCode === null && child.signalCode === null) child.kill("SIGKILL");
    }
  });
});
