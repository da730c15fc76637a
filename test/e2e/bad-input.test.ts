/** Wrong, hostile or half-written input: one clear line, etcd's exit code or status, and nothing lost. */
import fs from "node:fs";
import http2 from "node:http2";
import net from "node:net";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { freePort, Member, must, ourBin, run, temporaryFolder } from "./harness/processes.ts";

const STACK_LINE = /^\s+at .*\(?.*:\d+:\d+\)?$/m;

/** Starts a server that must refuse, and gives its exit code and what it said. */
async function refused(dataDir: string, flags: string[], ports: { clientPort?: number; peerPort?: number } = {}) {
  await using member = await Member.launch({ dataDir, flags, ...ports });
  await member.ended();
  expect(member.log).not.toMatch(STACK_LINE);
  return { code: member.process.exitCode, log: member.log };
}

/** One gRPC call made by hand: the payload may be anything. */
async function rawCall(
  endpoint: string,
  method: string,
  payload: Uint8Array,
): Promise<{ status: number; text: string }> {
  const session = http2.connect(`http://${endpoint}`);
  try {
    return await new Promise((resolve, reject) => {
      session.on("error", reject);
      const stream = session.request({
        ":method": "POST",
        ":path": `/etcdserverpb.${method}`,
        "content-type": "application/grpc",
        te: "trailers",
      });
      let status = -1;
      let text = "";
      const look = (headers: http2.IncomingHttpHeaders) => {
        if (headers["grpc-status"] !== undefined) {
          status = Number(headers["grpc-status"]);
          text = decodeURIComponent(String(headers["grpc-message"] ?? ""));
        }
      };
      stream.on("response", look);
      stream.on("trailers", look);
      stream.on("error", reject);
      stream.on("close", () => resolve({ status, text }));
      stream.resume();
      const head = Buffer.alloc(5);
      head.writeUInt32BE(payload.length, 1);
      stream.end(Buffer.concat([head, payload]));
    });
  } finally {
    session.destroy();
  }
}

describe("the server refuses", () => {
  it("a client port in use", async () => {
    using folder = temporaryFolder("port");
    const taken = net.createServer().listen(0, "127.0.0.1");
    try {
      await new Promise((resolve) => taken.once("listening", resolve));
      const { port } = taken.address() as net.AddressInfo;
      const { code, log } = await refused(path.join(folder.path, "d"), [], { clientPort: port });
      expect(code).toBe(1);
      expect(log).toMatch(/"level":"fatal".*address already in use/);
    } finally {
      taken.close();
    }
  });

  it("a data dir that another server holds, and serves on once that one is gone", async () => {
    using folder = temporaryFolder("locked");
    const dataDir = path.join(folder.path, "d");
    {
      await using first = await Member.start({ dataDir });
      await must("etcdctl", ["--endpoints", first.endpoint, "put", "a", "1"]);
      const { code } = await refused(dataDir, []);
      expect(code).not.toBe(0);
      expect(await must("etcdctl", ["--endpoints", first.endpoint, "get", "a"])).toBe("a\n1\n");
    }
    await using second = await Member.start({ dataDir });
    expect(await must("etcdctl", ["--endpoints", second.endpoint, "get", "a"])).toBe("a\n1\n");
  });

  it("a data dir that is a file", async () => {
    using folder = temporaryFolder("file");
    const dataDir = path.join(folder.path, "d");
    fs.writeFileSync(dataDir, "not a folder");
    const { code, log } = await refused(dataDir, []);
    expect(code).toBe(1);
    expect(log).toMatch(/not a directory/);
  });

  it("unknown flags and bad values, with etcd's exit codes", async () => {
    const cases: [string[], number, RegExp][] = [
      [["--no-such-flag"], 2, /flag provided but not defined: -no-such-flag/],
      [["--heartbeat-interval", "abc"], 2, /invalid value "abc" for flag -heartbeat-interval: parse error/],
      [["--data-dir"], 2, /flag needs an argument: -data-dir/],
      [["word"], 1, /'word' is not a valid flag/],
    ];
    for (const [args, code, text] of cases) {
      const ended = await run("etcd", args);
      expect(ended.code, args.join(" ")).toBe(code);
      expect(ended.stdout + ended.stderr).toMatch(text);
      expect(ended.stderr).not.toMatch(STACK_LINE);
    }
  });

  it("a WAL that is damaged in the middle, naming it, and touches nothing", async () => {
    using folder = temporaryFolder("wal");
    const dataDir = path.join(folder.path, "d");
    {
      await using member = await Member.start({ dataDir });
      for (let i = 0; i < 20; i++) {
        await must("etcdctl", ["--endpoints", member.endpoint, "put", `k${i}`, `marker-${i}-${"v".repeat(300)}`]);
      }
      await member.stop();
    }
    const wal = path.join(dataDir, "member", "wal");
    const name = fs.readdirSync(wal).find((file) => file.endsWith(".wal")) as string;
    const file = path.join(wal, name);
    const bytes = fs.readFileSync(file);
    const at = bytes.indexOf("marker-7-") + 20;
    bytes[at] = (bytes[at] as number) ^ 0x40;
    fs.writeFileSync(file, bytes);
    const { code, log } = await refused(dataDir, []);
    expect(code).not.toBe(0);
    expect(log).toMatch(/crc mismatch/);
    expect(fs.readFileSync(file).equals(bytes)).toBe(true);
  });
});

describe("the server answers", () => {
  it("malformed, oversized and empty requests with a status, and serves on", async () => {
    using folder = temporaryFolder("requests");
    await using member = await Member.start({ dataDir: path.join(folder.path, "d") });
    const malformed = await rawCall(member.endpoint, "KV/Put", Uint8Array.of(0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f));
    expect(malformed.status).toBe(13);
    expect((await rawCall(member.endpoint, "KV/Put", new Uint8Array(0))).text).toBe("etcdserver: key is not provided");
    expect((await rawCall(member.endpoint, "KV/NoSuchMethod", new Uint8Array(0))).status).toBe(12);
    const large = await run("etcdctl", ["--endpoints", member.endpoint, "put", "big"], {
      stdin: "x".repeat(1_600_000),
    });
    expect(large.code).toBe(1);
    expect(large.stderr).toContain("etcdserver: request is too large");
    expect(await must("etcdctl", ["--endpoints", member.endpoint, "put", "a", "b"])).toBe("OK\n");
  });

  it("keys of one megabyte and keys that share their first 2,000 bytes", async () => {
    using folder = temporaryFolder("long-keys");
    await using member = await Member.start({ dataDir: path.join(folder.path, "d") });
    const text = "k".repeat(2_000);
    const ctl = (args: string[], stdin = "") => must("etcdctl", ["--endpoints", member.endpoint, ...args], { stdin });
    for (const end of ["", "a", "b", "ba"]) await ctl(["put", `${text}${end}`, `value-${end}`]);
    expect(await ctl(["get", `${text}b`, "--print-value-only"])).toBe("value-b\n");
    expect(await ctl(["get", text, "--prefix", "--print-value-only"])).toBe("value-\nvalue-a\nvalue-b\nvalue-ba\n");
    // A megabyte does not fit into one argument of a command line, so this one goes through a transaction's input.
    const huge = "h".repeat(1_000_000);
    expect(await ctl(["txn"], `\nput ${huge} deep\n\n\n`)).toContain("SUCCESS");
    expect(await ctl(["get", "h", "--prefix", "--count-only", "-w", "fields"])).toContain('"Count" : 1');
    await member.stop();
    await using again = await Member.start({ dataDir: member.dataDir });
    const keys = await must("etcdctl", ["--endpoints", again.endpoint, "get", "", "--prefix", "--keys-only"]);
    expect(
      keys
        .split("\n")
        .filter((line) => line !== "")
        .map((line) => line.length),
    ).toEqual([1_000_000, 2_000, 2_001, 2_001, 2_002]);
  });
});

describe("the tools", () => {
  it("answer unknown commands and flags without a stack trace", async () => {
    for (const program of ["etcdctl", "etcdutl"] as const) {
      for (const args of [["no-such-command"], ["version", "--no-such-flag"]]) {
        const ended = await run(program, args);
        expect(ended.code).toBe(1);
        expect(ended.stderr).toMatch(/^Error: unknown /);
        expect(ended.stderr).not.toMatch(STACK_LINE);
      }
    }
  });

  it("say that nobody answers, in one line, when the server is not there", async () => {
    const port = await freePort();
    const ended = await run("etcdctl", ["--endpoints", `127.0.0.1:${port}`, "--command-timeout=1s", "get", "a"]);
    expect(ended.code).toBe(1);
    expect(ended.stderr.trimEnd().split("\n").at(-1)).toBe("Error: context deadline exceeded");
  });

  it("work from any directory and through a symbolic link", async () => {
    using folder = temporaryFolder("link");
    for (const program of ["etcd", "etcdctl", "etcdutl"] as const) {
      fs.symlinkSync(path.join(ourBin, program), path.join(folder.path, program));
      const args = program === "etcd" ? ["--version"] : ["version"];
      const ended = await run(program, args, { bin: folder.path, cwd: folder.path });
      expect(ended.code).toBe(0);
      expect(ended.stdout).toMatch(/^etcd(ctl|utl)? version: 3\.5\.|^etcd Version: 3\.5\./);
    }
  });
});
