import fs from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import tls from "node:tls";
import { once } from "node:events";
import { describe, expect, it } from "vitest";
import { systemClock } from "../lib/clock.ts";
import { type LogFields, silentLogger } from "../lib/log.ts";
import { systemRandom } from "../lib/random.ts";
import { selfSignedFiles } from "../rpc/index.ts";
import { type GatewayNames, runGateway } from "./gateway.ts";

type Srv = Awaited<ReturnType<GatewayNames["resolveSrv"]>>;

async function run(args: readonly string[], records: Readonly<Record<string, Srv>> = {}) {
  let [stdout, stderr] = ["", ""];
  const lines: string[] = [];
  const note = (msg: string, fields: LogFields = {}) => void lines.push(`${msg} ${JSON.stringify(fields)}`);
  const outcome = await runGateway(args, {
    argv: ["etcd", "gateway", ...args],
    clock: systemClock,
    random: systemRandom,
    names: {
      resolveSrv: async (name) => {
        const found = records[name];
        if (found) return found;
        throw Object.assign(new Error(`querySrv ENOTFOUND ${name}`), { code: "ENOTFOUND" });
      },
      lookup: async (host) => {
        if (host === "nowhere") throw new Error("not found");
        return [host === "localhost" ? "127.0.0.1" : host];
      },
    },
    logger: () => ({ ...silentLogger, info: note, warn: note }),
    print: (text) => {
      stdout += text;
    },
    printError: (text) => {
      stderr += text;
    },
    ready: () => note("ready"),
  });
  if ("stop" in outcome) await outcome.stop();
  return { code: "code" in outcome ? outcome.code : "serves", stdout, stderr, lines };
}

describe("etcd gateway", () => {
  it("tells of its subcommand, and of its flags, as cobra does", async () => {
    const help = `gateway related command

Usage:
  etcd gateway [command]

Available Commands:
  start       start the gateway

Flags:
  -h, --help   help for gateway

Use "etcd gateway [command] --help" for more information about a command.
`;
    for (const args of [[], ["--help"], ["bogus"]]) {
      expect(await run(args)).toEqual({ code: 0, stdout: help, stderr: "", lines: [] });
    }
    const usage = `Usage:
  etcd gateway start [flags]

Flags:
      --discovery-srv string        DNS domain used to bootstrap initial cluster
      --discovery-srv-name string   service name to query when using DNS discovery
      --endpoints strings           comma separated etcd cluster endpoints (default [127.0.0.1:2379])
  -h, --help                        help for start
      --insecure-discovery          accept insecure SRV records
      --listen-addr string          listen address (default "127.0.0.1:23790")
      --retry-delay duration        duration of delay before retrying failed endpoints (default 1m0s)
      --trusted-ca-file string      path to the client server TLS CA file for verifying the discovered endpoints when discovery-srv is provided.
`;
    expect(await run(["start", "-h"])).toMatchObject({ code: 0, stdout: `start the gateway\n\n${usage}` });
    for (const [arg, text] of [
      ["--bogus", "unknown flag: --bogus"],
      ["-x", "unknown shorthand flag: 'x' in -x"],
      ["--endpoints", "flag needs an argument: --endpoints"],
      ["--retry-delay=x", 'invalid argument "x" for "--retry-delay" flag: time: invalid duration "x"'],
      [
        "--insecure-discovery=maybe",
        'invalid argument "maybe" for "--insecure-discovery" flag: strconv.ParseBool: parsing "maybe": invalid syntax',
      ],
      [
        "--help=maybe",
        'invalid argument "maybe" for "-h, --help" flag: strconv.ParseBool: parsing "maybe": invalid syntax',
      ],
    ] as const) {
      const stderr = `Error: ${text}\n${usage}\n${text}`;
      expect(await run(["start", arg])).toEqual({ code: 1, stdout: "", stderr, lines: [] });
    }
  });

  it("refuses what it cannot listen on or forward to, in etcd's words", async () => {
    const free = "--listen-addr=127.0.0.1:0";
    for (const [args, stdout] of [
      [["--endpoints", "foo", free], 'error parsing endpoint "foo"'],
      [["--listen-addr", "x"], "failed to validate listen address: x\n"],
      [["--listen-addr", "nowhere:1"], "failed to resolve listen host: nowhere\n"],
      [["--endpoints", "nowhere:2379", free], "failed to resolve endpoint host: nowhere\n"],
      [["--endpoints", "", free], "no endpoints found\n"],
      [
        ["--endpoints", "http://localhost:23790"],
        "SRV or endpoint (localhost:23790->127.0.0.1:23790) should not resolve to the gateway listen addr (127.0.0.1:23790)\n",
      ],
    ] as const) {
      expect(await run(["start", ...args])).toMatchObject({ code: 1, stdout, stderr: "" });
    }
    for (const [port, text] of [
      ["99999", "listen tcp: address 99999: invalid port"],
      ["-1", "listen tcp: address -1: invalid port"],
      ["no-service", "listen tcp: lookup tcp/no-service: unknown port"],
    ]) {
      const refused = await run(["start", `--listen-addr=127.0.0.1:${port}`, "--endpoints=127.0.0.1:1"]);
      expect(refused).toMatchObject({ code: 1, stdout: "", stderr: `${text}\n` });
    }
    const taken = net.createServer().listen(0, "127.0.0.1");
    await once(taken, "listening");
    const { port } = taken.address() as net.AddressInfo;
    expect(await run(["start", `--listen-addr=127.0.0.1:${port}`])).toMatchObject({
      code: 1,
      stdout: "",
      stderr: `listen tcp 127.0.0.1:${port}: bind: address already in use\n`,
    });
    taken.close();
  });

  it("takes a port of an endpoint that is none for 0, and no help that is not wanted", async () => {
    const endpoints = "a:70000,a:-5,a:12x";
    const { code, lines } = await run(["start", "-h=false", "--listen-addr=127.0.0.1:0", "--endpoints", endpoints]);
    expect([code, lines.at(-1)]).toEqual([
      "serves",
      'ready to proxy client requests {"endpoints":["a:0","a:0","a:12"]}',
    ]);
  });

  it("serves endpoints with and without a scheme", async () => {
    const args = ["start", "--listen-addr", "127.0.0.1:0", "--endpoints", "https://127.0.0.1:1,127.0.0.1:2"];
    expect(await run([...args, "--endpoints=127.0.0.1:3"])).toMatchObject({
      code: "serves",
      lines: [
        expect.stringMatching(/^Running: {2}\{"args":\["etcd","gateway","start",/),
        "ready {}",
        'ready to proxy client requests {"endpoints":["127.0.0.1:1","127.0.0.1:2","127.0.0.1:3"]}',
      ],
    });
  });

  it("takes members from SRV records: all of them when told, else those with a certificate for the domain", async () => {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), "gateway-"));
    const { certFile, keyFile } = await selfSignedFiles({
      folder,
      hosts: ["example.test:1"],
      validityYears: 1,
      clock: systemClock,
      random: systemRandom,
      logger: silentLogger,
    });
    const secure = tls.createServer({ cert: fs.readFileSync(certFile), key: fs.readFileSync(keyFile) });
    secure.on("tlsClientError", () => {});
    secure.listen(0, "127.0.0.1");
    await once(secure, "listening");
    const { port } = secure.address() as net.AddressInfo;
    const record = { name: "127.0.0.1", priority: 2, weight: 0 };
    const records = {
      "_etcd-client-ssl._tcp.example.test": [
        { ...record, port },
        { ...record, port: 1, priority: 1 },
      ],
      "_etcd-client._tcp.example.test": [{ ...record, port: 2 }],
    };
    const args = ["start", "--listen-addr=127.0.0.1:0", "--discovery-srv", "example.test"];
    const all = `["https://127.0.0.1:1","https://127.0.0.1:${port}","http://127.0.0.1:2"]`;
    const insecure = await run([...args, "--insecure-discovery"], records);
    expect(insecure.lines.slice(1)).toEqual([
      `discovered cluster from SRV {"srv-server":"example.test","endpoints":${all}}`,
      "ready {}",
      `ready to proxy client requests {"endpoints":["127.0.0.1:1","127.0.0.1:${port}","127.0.0.1:2"]}`,
    ]);
    const checked = await run([...args, "--trusted-ca-file", certFile], records);
    expect(checked.lines.slice(2)).toEqual([
      `validating discovered SRV endpoints {"srv-server":"example.test","endpoints":${all}}`,
      expect.stringContaining(
        `failed to validate discovered endpoints {"srv-server":"example.test","endpoints":["https://127.0.0.1:${port}"],"error":"\\"https://127.0.0.1:1\\" failed to dial (dial tcp 127.0.0.1:1: connect: connection refused),\\"http://127.0.0.1:2\\" is insecure"`,
      ),
      "ready {}",
      `ready to proxy client requests {"endpoints":["127.0.0.1:${port}"]}`,
    ]);
    const only = { "_etcd-client-ssl-x._tcp.example.test": [{ ...record, port }] };
    const good = await run([...args, "--discovery-srv-name=x", "--trusted-ca-file", certFile], only);
    expect(good.lines[3]).toContain("using validated discovered SRV endpoints");
    expect(await run(args)).toMatchObject({
      code: 1,
      stderr:
        "dns lookup errors: lookup _etcd-client-ssl._tcp.example.test: no such host and lookup _etcd-client._tcp.example.test: no such host\n",
    });
    secure.close();
    fs.rmSync(folder, { recursive: true });
  });
});
