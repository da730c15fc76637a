import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  adoptDefaultHost,
  buildConfig,
  type Config,
  configFromArguments,
  readConfigFile,
  settle,
  validate,
} from "../config.ts";
import { envName, flagSpecs } from "./flags.ts";
import { applyEnvironment, FlagSet, flagsFromFile, parseArguments } from "./parse.ts";

const fromArguments = (...args: string[]): Config => configFromArguments(args);

const problemOf = (fn: () => unknown): string => {
  try {
    fn();
  } catch (error) {
    return (error as Error).message;
  }
  return "";
};

describe("parseArguments()", () => {
  it.each([
    [["--nope"], "flag provided but not defined: -nope"],
    [["-nope=1"], "flag provided but not defined: -nope"],
    [["--heartbeat-interval", "abc"], 'invalid value "abc" for flag -heartbeat-interval: parse error'],
    [["--heartbeat-interval", "-1"], 'invalid value "-1" for flag -heartbeat-interval: parse error'],
    [["--pre-vote=maybe"], 'invalid boolean value "maybe" for -pre-vote: parse error'],
    [["--data-dir"], "flag needs an argument: -data-dir"],
    [["---x"], "bad flag syntax: ---x"],
    [["-=x"], "bad flag syntax: -=x"],
    [["--initial-cluster-state", "foo"], 'invalid value "foo" for flag -initial-cluster-state: invalid value'],
    [
      ["--listen-peer-urls", "foo"],
      'invalid value "foo" for flag -listen-peer-urls: URL scheme must be http, https, unix, or unixs: foo',
    ],
    [
      ["--max-concurrent-streams", "99999999999"],
      'invalid value "99999999999" for flag -max-concurrent-streams: strconv.ParseUint: parsing "99999999999": value out of range',
    ],
    [["--grpc-keepalive-interval", "5"], 'invalid value "5" for flag -grpc-keepalive-interval: parse error'],
  ])("refuses %j as Go's flag package does", (args, message) => {
    expect(problemOf(() => parseArguments(args))).toBe(message);
  });

  it("takes one dash or two, a value after = or in the next word, and Go's integers and durations", () => {
    const config = fromArguments(
      "-name=a",
      "--initial-cluster",
      "a=http://localhost:2380",
      "--snapshot-count=0x10",
      "--pre-vote=false",
      "--unsafe-no-fsync",
      "--grpc-keepalive-timeout",
      "1m30s",
    );
    expect(config).toMatchObject({
      name: "a",
      snapshotCount: 16,
      preVote: false,
      unsafeNoFsync: true,
      grpcKeepAliveTimeoutMs: 90_000,
    });
  });

  it("leaves a value word of a boolean over", () => {
    expect(parseArguments(["--pre-vote", "false", "--name", "x"]).rest).toEqual(["false", "--name", "x"]);
  });

  it("accepts the flags of long ago", () => {
    expect(parseArguments(["--vv", "--snapshot", "--test.coverprofile=x"]).rest).toEqual([]);
  });
});

describe("applyEnvironment()", () => {
  it("fills what the command line left open, and says so", () => {
    const { flags } = parseArguments(["--name", "a"]);
    const { notes, error } = applyEnvironment(flags, { ETCD_DATA_DIR: "/d", ETCD_WAL_DIR: "", PATH: "/bin" });
    expect(error).toBeUndefined();
    expect(flags.text("data-dir")).toBe("/d");
    expect(notes).toEqual([
      {
        level: "info",
        message: "recognized and used environment variable",
        fields: { "variable-name": "ETCD_DATA_DIR", "variable-value": "/d" },
      },
      {
        level: "warn",
        message: "unrecognized environment variable",
        fields: { "environment-variable": "ETCD_WAL_DIR=" },
      },
    ]);
  });

  it("is fatal when flag and variable are both set", () => {
    const { flags } = parseArguments(["--name", "a"]);
    expect(applyEnvironment(flags, { ETCD_NAME: "b" }).notes.at(-1)).toEqual({
      level: "fatal",
      message:
        "conflicting environment variable is shadowed by corresponding command-line flag (either unset environment variable or disable flag))",
      fields: { "environment-variable": "ETCD_NAME" },
    });
  });

  it("names the variable of a bad value", () => {
    const { error } = applyEnvironment(new FlagSet(), { ETCD_HEARTBEAT_INTERVAL: "abc" });
    expect(error?.message).toBe('invalid value "abc" for ETCD_HEARTBEAT_INTERVAL: parse error');
  });

  it("warns of variables that no flag has, and of ETCD_VERSION", () => {
    const { notes } = applyEnvironment(new FlagSet(), { ETCD_NOPE: "1", ETCD_VERSION: "3" });
    expect(notes.map(({ message }) => message)).toEqual([
      "cannot set special environment variable",
      "unrecognized environment variable",
    ]);
  });

  it("has a variable for every flag", () => {
    for (const spec of flagSpecs) expect(envName(spec.name)).toMatch(/^ETCD_[A-Z0-9_.]+$/);
  });
});

describe("config file", () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(path.join(tmpdir(), "etcd-config-"));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  const load = (text: string): Config => {
    const file = path.join(folder, "etcd.yml");
    writeFileSync(file, text);
    const settings = settle(readConfigFile(file), true);
    validate(settings, () => {});
    return buildConfig(settings);
  };

  it("takes durations as nanoseconds, nested security and lists", () => {
    const config = load(
      [
        "name: 1a",
        "initial-cluster: 1a=http://localhost:2380",
        "grpc-keepalive-min-time: 7000000000",
        "client-transport-security:",
        "  cert-file: c.pem",
        "  client-cert-auth: true",
        "socket-options: {reuse-port: true}",
        "log-outputs: [stderr, out.log]",
        "listen-client-urls: http://127.0.0.1:1, http://127.0.0.1:0",
      ].join("\n"),
    );
    expect(config).toMatchObject({
      name: "1a",
      grpcKeepAliveMinTimeMs: 7000,
      clientTls: { certFile: "c.pem", clientCertAuth: true },
      socketReusePort: true,
      logOutputs: ["stderr", "out.log"],
      listenClientUrls: ["http://127.0.0.1:0", "http://127.0.0.1:1"],
      advertiseClientUrls: ["http://localhost:2379"],
      autoCompactionRetention: 0,
      tlsMinVersion: "",
    });
  });

  it("is off when a retention has no mode, and refuses a duration without one", () => {
    expect(load("auto-compaction-retention: '1'").autoCompactionRetention).toBe(0);
    expect(problemOf(() => load("auto-compaction-retention: '5m'"))).toContain("unsupported compaction mode");
  });

  it.each([
    [
      "heartbeat-interval: abc",
      "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal string into Go struct field configYAML.Config.heartbeat-interval of type uint",
    ],
    ["initial-cluster-state: foo", 'unexpected clusterState "foo"'],
    [
      "listen-client-urls: foo",
      "unexpected error setting up listen-client-urls: URL scheme must be http, https, unix, or unixs: foo",
    ],
    [
      "advertise-client-urls: foo",
      "unexpected error setting up advertise-peer-urls: URL scheme must be http, https, unix, or unixs: foo",
    ],
    ["proxy: maybe", "unexpected error setting up proxyFlag: invalid value"],
  ])("refuses %j", (text, message) => {
    expect(problemOf(() => load(text))).toBe(message);
  });

  it("says that a file is not there as Go does", () => {
    expect(problemOf(() => readConfigFile("nofile.yml"))).toBe("open nofile.yml: no such file or directory");
  });

  it("ignores unknown keys, and takes JSON", () => {
    expect(flagsFromFile({ nope: 1, name: "x" }).text("name")).toBe("x");
    expect(load('{"name": "default", "max-txn-ops": 7}').maxTxnOps).toBe(7);
  });
});

describe("validate()", () => {
  it.each([
    [["--listen-peer-urls", "http://foo.example:2380"], "expected IP in URL for binding (http://foo.example:2380)"],
    [
      ["--advertise-client-urls", "http://:2379"],
      '--advertise-client-urls "http://:2379" must be "host:port" (unexpected empty host (http://:2379))',
    ],
    [["--heartbeat-interval", "0"], "--heartbeat-interval must be >0 (set to 0ms)"],
    [["--election-timeout", "0"], "--election-timeout must be >0 (set to 0ms)"],
    [
      ["--heartbeat-interval", "300"],
      "--election-timeout[1000ms] should be at least as 5 times as --heartbeat-interval[300ms]",
    ],
    [["--election-timeout", "50001"], "--election-timeout[50001ms] is too long, and should be set less than 50000ms"],
    [
      ["--listen-client-urls", "http://127.0.0.1:2379"],
      "--advertise-client-urls is required when --listen-client-urls is set explicitly",
    ],
    [["--auto-compaction-mode", "foo"], 'unknown auto-compaction-mode "foo"'],
    [
      ["--experimental-enable-lease-checkpoint-persist"],
      "setting experimental-enable-lease-checkpoint-persist requires experimental-enable-lease-checkpoint",
    ],
    [["--experimental-compact-hash-check-time", "0s"], "--experimental-compact-hash-check-time must be >0 (set to 0s)"],
    [["--tls-min-version", "TLS1.1"], 'unexpected TLS version "TLS1.1" (must be one of: TLS1.2, TLS1.3)'],
    [
      ["--tls-min-version", "TLS1.3", "--tls-max-version", "TLS1.2"],
      "min version (TLS1.3) is greater than max version (TLS1.2)",
    ],
    [
      ["--tls-min-version", "TLS1.3", "--cipher-suites", "A"],
      "cipher suites cannot be configured when only TLS1.3 is enabled",
    ],
    [
      ["--discovery", "http://x", "--initial-cluster", "a=http://localhost:1", "--discovery-fallback", "exit"],
      'multiple discovery or bootstrap flags are set. Choose one of "initial-cluster", "discovery" or "discovery-srv"',
    ],
    [
      ["--experimental-enable-distributed-tracing", "--experimental-distributed-tracing-sampling-rate", "1000001"],
      "distributed tracing configurition is not valid: (tracing sampling rate must be less than 1000000)",
    ],
  ])("refuses %j", (args, message) => {
    expect(problemOf(() => fromArguments(...args))).toBe(message);
  });

  it("accepts an election timeout of exactly 50 s", () => {
    expect(fromArguments("--election-timeout", "50000").electionTicks).toBe(500);
  });
});

describe("buildConfig()", () => {
  it("has etcd's defaults, frozen", () => {
    const config = fromArguments();
    expect(Object.isFrozen(config)).toBe(true);
    expect(config).toMatchObject({
      name: "default",
      dataDir: "default.etcd",
      walDir: undefined,
      snapshotCount: 100_000,
      snapshotCatchupEntries: 5000,
      tickMs: 100,
      electionTicks: 10,
      maxRequestBytes: 1_572_864,
      maxTxnOps: 128,
      maxConcurrentStreams: 4_294_967_295,
      backendBatchIntervalMs: 100,
      backendBatchLimit: 10_000,
      watchProgressNotifyIntervalMs: 600_000,
      autoCompactionRetention: 0,
      isNewCluster: true,
      strictReconfigCheck: true,
      withoutEffect: [],
    });
    expect([...config.initialCluster]).toEqual([["default", ["http://localhost:2380"]]]);
  });

  it("makes the cluster of the name when only that is given", () => {
    const { initialClusterText, dataDir } = fromArguments("--name", "abc");
    expect([initialClusterText, dataDir]).toEqual(["abc=http://localhost:2380", "abc.etcd"]);
  });

  it.each([
    ["periodic", "2", 2 * 3_600_000],
    ["periodic", "5m", 300_000],
    ["revision", "1000", 1000],
  ])("reads a retention in mode %s: %s", (mode, text, expected) => {
    const config = fromArguments("--auto-compaction-mode", mode, "--auto-compaction-retention", text);
    expect(config.autoCompactionRetention).toBe(expected);
  });

  it.each([
    ["foo", 'error parsing CompactionRetention: time: invalid duration "foo"'],
    ["-1", 'error parsing CompactionRetention: time: missing unit in duration "-1"'],
  ])("refuses the retention %s", (text, message) => {
    expect(problemOf(() => fromArguments("--auto-compaction-retention", text))).toBe(message);
  });

  it("names flags that were given but mean nothing here", () => {
    expect(fromArguments("--experimental-memory-mlock").withoutEffect).toEqual([
      { flag: "experimental-memory-mlock", reason: "Node cannot lock memory" },
    ]);
  });

  it("puts the machine's address in the place of 0.0.0.0", () => {
    const settings = settle(
      parseArguments([
        "--listen-client-urls=http://0.0.0.0:2379",
        "--advertise-client-urls=http://localhost:2379",
        "--listen-peer-urls=http://0.0.0.0:2380",
      ]).flags,
      false,
    );
    expect(adoptDefaultHost(settings, () => "10.0.0.7")).toBe("10.0.0.7");
    const config = buildConfig(settings);
    expect(config.advertiseClientUrls).toEqual(["http://10.0.0.7:2379"]);
    expect(config.advertisePeerUrls).toEqual(["http://10.0.0.7:2380"]);
  });
});

it("no concurrent streams means any number of them, as to grpc", () => {
  expect(fromArguments("--max-concurrent-streams", "0").maxConcurrentStreams).toBe(2 ** 32 - 1);
  expect(fromArguments("--max-concurrent-streams", "3").maxConcurrentStreams).toBe(3);
});
