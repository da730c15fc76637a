/**
 * Every flag of etcd 3.5, as a table: its type, its default, its key in a config file, and what becomes of it here.
 * Parsing, environment variables, config files and `--help` all read this table.
 */

export type FlagKind =
  | "string"
  | "bool"
  | "int"
  | "int64"
  | "uint"
  | "uint32"
  | "uint64"
  | "duration"
  | "urls"
  | "cors"
  | "strings"
  | "uniqueStrings"
  | "enum"
  | "ignored";

export interface FlagSpec {
  readonly name: string;
  readonly kind: FlagKind;
  /** In the syntax of the command line. */
  readonly fallback: string;
  readonly section: string;
  readonly help: string;
  /** Allowed values of an enum, the default first. */
  readonly choices?: readonly string[];
  /** Key in a config file; null: it has none. Absent: the flag's own name. A dot leads into a nested object. */
  readonly fileKey?: string | null;
  /** Why the flag is accepted but changes nothing here. Said in the log when it is set. */
  readonly withoutEffect?: string;
  /** Left out of `--help`. */
  readonly hidden?: boolean;
}

const bbolt = "the backend is LMDB, not bbolt";
const v2 = "the v2 API is not served";
const proxy = "the v2 proxy is not served";

export const DEFAULT_ROTATION = '{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}';

type Row = readonly [name: string, kind: FlagKind, fallback: string, help: string, more?: Partial<FlagSpec>];

const sections: readonly (readonly [section: string, rows: readonly Row[]])[] = [
  [
    "Member",
    [
      ["name", "string", "default", "The name of this member."],
      ["data-dir", "string", "", "Where the member keeps its state. Empty: <name>.etcd."],
      ["wal-dir", "string", "", "Where the write-ahead log goes. Empty: below the data dir."],
      ["snapshot-count", "uint64", "100000", "Applied entries between two raft snapshots."],
      [
        "experimental-snapshot-catchup-entries",
        "uint64",
        "5000",
        "Log entries kept behind a snapshot for slow followers.",
        { fileKey: "experimental-snapshot-catch-up-entries", hidden: true },
      ],
      ["heartbeat-interval", "uint", "100", "Time between heartbeats, in milliseconds."],
      ["election-timeout", "uint", "1000", "Time without a heartbeat before an election, in milliseconds."],
      ["initial-election-tick-advance", "bool", "true", "Shorten the wait for the first election after a start."],
      ["listen-peer-urls", "urls", "http://localhost:2380", "Where to listen for peers."],
      ["listen-client-urls", "urls", "http://localhost:2379", "Where to listen for clients, gRPC and HTTP."],
      [
        "listen-client-http-urls",
        "urls",
        "",
        "Where to listen for HTTP clients alone; the URLs above then speak gRPC alone.",
      ],
      ["max-snapshots", "uint", "5", "Snapshot files to keep; 0 keeps all."],
      ["max-wals", "uint", "5", "WAL segments to keep; 0 keeps all."],
      [
        "quota-backend-bytes",
        "int64",
        "0",
        "Size of the store at which writes are refused; 0 is 2 GiB, below 0 is no limit.",
      ],
      ["backend-bbolt-freelist-type", "string", "", "Free list of bbolt: array or map.", { withoutEffect: bbolt }],
      [
        "backend-batch-interval",
        "duration",
        "0s",
        "Longest time before the backend commits, unless it rests, which it does for thirty times as long after each commit; 0 is 100ms.",
      ],
      [
        "backend-batch-limit",
        "int",
        "0",
        "Operations that make the backend commit early, unless it rests and less than 90,000 have gathered; 0 is 10000.",
      ],
      ["max-txn-ops", "uint", "128", "Most operations in one transaction."],
      ["max-request-bytes", "uint", "1572864", "Largest request, in bytes."],
      ["max-concurrent-streams", "uint32", "4294967295", "Most streams open on one client connection."],
      ["enable-grpc-gateway", "bool", "true", "Serve JSON under /v3."],
      [
        "grpc-keepalive-min-time",
        "duration",
        "5s",
        "Shortest time between pings of one client; 0 turns the check off.",
      ],
      [
        "grpc-keepalive-interval",
        "duration",
        "2h0m0s",
        "Time of silence before the server pings a client; 0 is never.",
      ],
      [
        "grpc-keepalive-timeout",
        "duration",
        "20s",
        "How long the server waits for the answer to its ping; 0 is for ever.",
      ],
      [
        "socket-reuse-port",
        "bool",
        "false",
        "Set SO_REUSEPORT on listeners; needs Node 22.12.",
        { fileKey: "socket-options.reuse-port" },
      ],
      [
        "socket-reuse-address",
        "bool",
        "false",
        "Set SO_REUSEADDR on listeners; Node always does.",
        { fileKey: "socket-options.reuse-address" },
      ],
      ["raft-read-timeout", "duration", "5s", "Read timeout of peer connections.", { fileKey: null }],
      ["raft-write-timeout", "duration", "5s", "Write timeout of peer connections.", { fileKey: null }],
    ],
  ],
  [
    "Clustering",
    [
      ["initial-advertise-peer-urls", "urls", "http://localhost:2380", "This member's peer URLs, told to the others."],
      ["advertise-client-urls", "urls", "http://localhost:2379", "This member's client URLs, told to all."],
      ["initial-cluster", "string", "default=http://localhost:2380", "The members at bootstrap: name=url,..."],
      [
        "initial-cluster-state",
        "enum",
        "new",
        "new to bootstrap, existing to join; of no meaning once there is data.",
        { choices: ["new", "existing"] },
      ],
      ["initial-cluster-token", "string", "etcd-cluster", "Keeps the ids of different clusters apart."],
      ["discovery", "string", "", "URL of a v2 discovery service."],
      [
        "discovery-fallback",
        "enum",
        "proxy",
        "What to do when the discovered cluster is full: exit or proxy.",
        { choices: ["proxy", "exit"], withoutEffect: proxy },
      ],
      [
        "discovery-proxy",
        "string",
        "",
        "HTTP proxy towards the discovery service.",
        { withoutEffect: "the v2 discovery service is not asked" },
      ],
      ["discovery-srv", "string", "", "DNS domain whose SRV records name the members."],
      ["discovery-srv-name", "string", "", "Suffix of the SRV service names."],
      ["strict-reconfig-check", "bool", "true", "Refuse membership changes that would lose the quorum."],
      ["pre-vote", "bool", "true", "Ask before an election whether it could be won."],
      ["auto-compaction-retention", "string", "0", "History to keep when compacting by itself; 0 is off."],
      [
        "auto-compaction-mode",
        "string",
        "periodic",
        "How to read the retention: periodic (a time) or revision (a number).",
      ],
      ["enable-v2", "bool", "false", "Serve the v2 API.", { withoutEffect: v2 }],
      ["experimental-enable-v2v3", "string", "", "Prefix under which v3 emulates v2.", { withoutEffect: v2 }],
      [
        "v2-deprecation",
        "enum",
        "not-yet",
        "How far v2 has been given up.",
        { choices: ["not-yet", "write-only", "write-only-drop-data", "gone"], withoutEffect: v2 },
      ],
    ],
  ],
  [
    "Security",
    [
      [
        "cert-file",
        "string",
        "",
        "Certificate of the client listeners.",
        { fileKey: "client-transport-security.cert-file" },
      ],
      ["key-file", "string", "", "Its key.", { fileKey: "client-transport-security.key-file" }],
      [
        "client-cert-file",
        "string",
        "",
        "Certificate with which the server dials itself.",
        { fileKey: "client-transport-security.client-cert-file" },
      ],
      ["client-key-file", "string", "", "Its key.", { fileKey: "client-transport-security.client-key-file" }],
      [
        "client-cert-auth",
        "bool",
        "false",
        "Ask clients for certificates, and take their CN as user.",
        { fileKey: "client-transport-security.client-cert-auth" },
      ],
      ["client-crl-file", "string", "", "Revoked client certificates.", { fileKey: null }],
      [
        "client-cert-allowed-hostname",
        "strings",
        "",
        "Names of which a client certificate must carry one.",
        { fileKey: "client-transport-security.allowed-hostname" },
      ],
      [
        "trusted-ca-file",
        "string",
        "",
        "Authorities that sign client certificates.",
        { fileKey: "client-transport-security.trusted-ca-file" },
      ],
      [
        "auto-tls",
        "bool",
        "false",
        "Make a certificate for the client listeners.",
        { fileKey: "client-transport-security.auto-tls" },
      ],
      ["peer-cert-file", "string", "", "Certificate towards peers.", { fileKey: "peer-transport-security.cert-file" }],
      ["peer-key-file", "string", "", "Its key.", { fileKey: "peer-transport-security.key-file" }],
      [
        "peer-client-cert-file",
        "string",
        "",
        "Certificate used when dialling peers.",
        { fileKey: "peer-transport-security.client-cert-file" },
      ],
      ["peer-client-key-file", "string", "", "Its key.", { fileKey: "peer-transport-security.client-key-file" }],
      [
        "peer-client-cert-auth",
        "bool",
        "false",
        "Ask peers for certificates.",
        { fileKey: "peer-transport-security.client-cert-auth" },
      ],
      [
        "peer-trusted-ca-file",
        "string",
        "",
        "Authorities that sign peer certificates.",
        { fileKey: "peer-transport-security.trusted-ca-file" },
      ],
      [
        "peer-auto-tls",
        "bool",
        "false",
        "Make a certificate for peers.",
        { fileKey: "peer-transport-security.auto-tls" },
      ],
      [
        "peer-cert-allowed-cn",
        "strings",
        "",
        "Common names allowed to peers.",
        { fileKey: "peer-transport-security.allowed-cn" },
      ],
      [
        "peer-cert-allowed-hostname",
        "strings",
        "",
        "Names of which a peer certificate must carry one.",
        { fileKey: "peer-transport-security.allowed-hostname" },
      ],
      ["peer-crl-file", "string", "", "Revoked peer certificates.", { fileKey: null }],
      [
        "experimental-peer-skip-client-san-verification",
        "bool",
        "false",
        "Do not compare a peer's certificate with its address.",
        { fileKey: null },
      ],
      ["self-signed-cert-validity", "uint", "1", "Lifetime of generated certificates, in years."],
      ["cipher-suites", "strings", "", "TLS 1.2 cipher suites to allow, by their names in Go."],
      ["cors", "cors", "*", "Origins that browsers may call from."],
      ["host-whitelist", "uniqueStrings", "*", "Host names accepted in plain HTTP requests."],
      ["tls-min-version", "string", "TLS1.2", "Lowest TLS version: TLS1.2 or TLS1.3."],
      ["tls-max-version", "string", "", "Highest TLS version: TLS1.2 or TLS1.3; empty is the newest."],
    ],
  ],
  [
    "Auth",
    [
      ["auth-token", "string", "simple", "simple, or jwt with its options."],
      ["bcrypt-cost", "uint", "10", "Cost of hashing passwords, 4 to 31."],
      ["auth-token-ttl", "uint", "300", "Lifetime of simple tokens, in seconds."],
    ],
  ],
  [
    "Profiling and monitoring",
    [
      ["enable-pprof", "bool", "false", "Serve profiles under /debug/pprof."],
      ["metrics", "string", "basic", "basic, or extensive for times of each gRPC call."],
      ["listen-metrics-urls", "urls", "", "Further addresses for metrics and health."],
    ],
  ],
  [
    "Logging",
    [
      ["logger", "string", "zap", "The shape of log lines; zap is the only one."],
      ["log-outputs", "uniqueStrings", "default", "default, stderr, stdout, systemd/journal, or file names."],
      ["log-level", "string", "info", "debug, info, warn, error, panic or fatal."],
      ["enable-log-rotation", "bool", "false", "Rotate the log file."],
      ["log-rotation-config-json", "string", DEFAULT_ROTATION, "When to rotate and what to keep."],
    ],
  ],
  [
    "Experimental distributed tracing",
    [
      ["experimental-enable-distributed-tracing", "bool", "false", "Export OpenTelemetry spans."],
      ["experimental-distributed-tracing-address", "string", "localhost:4317", "The collector, host:port."],
      ["experimental-distributed-tracing-service-name", "string", "etcd", "Service name of the spans."],
      ["experimental-distributed-tracing-instance-id", "string", "", "Instance id of the spans."],
      ["experimental-distributed-tracing-sampling-rate", "int", "0", "Root spans taken of a million."],
    ],
  ],
  [
    "v2 proxy",
    [
      ["proxy", "enum", "off", "off, readonly or on.", { choices: ["off", "readonly", "on"], withoutEffect: proxy }],
      ["proxy-failure-wait", "uint", "5000", "Milliseconds.", { withoutEffect: proxy }],
      ["proxy-refresh-interval", "uint", "30000", "Milliseconds.", { withoutEffect: proxy }],
      ["proxy-dial-timeout", "uint", "1000", "Milliseconds.", { withoutEffect: proxy }],
      ["proxy-write-timeout", "uint", "5000", "Milliseconds.", { withoutEffect: proxy }],
      ["proxy-read-timeout", "uint", "0", "Milliseconds.", { withoutEffect: proxy }],
    ],
  ],
  [
    "Experimental",
    [
      ["experimental-initial-corrupt-check", "bool", "false", "Compare the store with the peers' before serving."],
      ["experimental-corrupt-check-time", "duration", "0s", "Time between comparisons with the peers; 0 is never."],
      ["experimental-compact-hash-check-enabled", "bool", "false", "Compare compaction hashes with the peers'."],
      ["experimental-compact-hash-check-time", "duration", "1m0s", "Time between those comparisons."],
      ["experimental-enable-lease-checkpoint", "bool", "false", "Keep remaining TTLs over a change of leader."],
      ["experimental-enable-lease-checkpoint-persist", "bool", "false", "Keep remaining TTLs on disk."],
      ["experimental-compaction-batch-limit", "int", "0", "Revisions removed in one step of a compaction; 0 is 1000."],
      ["experimental-compaction-sleep-interval", "duration", "0s", "Pause between two steps; 0 is 10ms."],
      [
        "experimental-watch-progress-notify-interval",
        "duration",
        "0s",
        "Time between progress notifications; 0 is 10m.",
      ],
      ["experimental-downgrade-check-time", "duration", "5s", "Time between looks at a downgrade; 0 is never."],
      ["experimental-warning-apply-duration", "duration", "100ms", "Requests slower than this are logged."],
      [
        "experimental-memory-mlock",
        "bool",
        "false",
        "Keep the store in RAM.",
        { withoutEffect: "Node cannot lock memory" },
      ],
      [
        "experimental-txn-mode-write-with-shared-buffer",
        "bool",
        "true",
        "Share the read buffer with write transactions.",
        { withoutEffect: "reads always see the write buffer in place" },
      ],
      [
        "experimental-bootstrap-defrag-threshold-megabytes",
        "uint",
        "0",
        "Defragment at start when at least this much would be freed; 0 is never.",
      ],
      ["experimental-stop-grpc-service-on-defrag", "bool", "false", "Report NOT_SERVING during a defragmentation."],
      [
        "experimental-grpc-transport",
        "enum",
        "native",
        "Who carries gRPC: native, HTTP/2 of our own, or grpc-js. Not a flag of etcd.",
        { choices: ["grpc-js", "native"] },
      ],
    ],
  ],
  [
    "Unsafe",
    [
      ["force-new-cluster", "bool", "false", "Make a cluster of this member alone out of its data."],
      ["unsafe-no-fsync", "bool", "false", "Never wait for the disk. Loses data when the machine stops."],
    ],
  ],
  [
    "Other",
    [
      ["config-file", "string", "", "A YAML or JSON file. Flags and variables are then ignored.", { fileKey: null }],
      ["version", "bool", "false", "Print the version.", { fileKey: null }],
    ],
  ],
];

/** Names of long ago that scripts may still pass. */
const forgotten = [
  "cluster-active-size",
  "cluster-remove-delay",
  "cluster-sync-interval",
  "config",
  "force",
  "max-result-buffer",
  "max-retry-attempts",
  "peer-heartbeat-interval",
  "peer-election-timeout",
  "retry-interval",
  "snapshot",
  "v",
  "vv",
  "test.coverprofile",
  "test.outputdir",
];

export const flagSpecs: readonly FlagSpec[] = [
  ...sections.flatMap(([section, rows]) =>
    rows.map(([name, kind, fallback, help, more]): FlagSpec => ({ name, kind, fallback, section, help, ...more })),
  ),
  ...forgotten.map(
    (name): FlagSpec => ({
      name,
      kind: "ignored",
      fallback: "false",
      section: "Other",
      help: "Accepted and ignored.",
      fileKey: null,
      hidden: true,
    }),
  ),
];

export function envName(flag: string): string {
  return `ETCD_${flag.toUpperCase().replaceAll("-", "_")}`;
}

const usageLines = [
  "Usage:",
  "",
  "  etcd [flags]            start a server",
  "  etcd --version          print the version",
  "  etcd -h | --help        print all flags",
  "  etcd --config-file F    start a server by a YAML or JSON file; flags and variables are then ignored",
  "",
];

export function usageText(): string {
  return `${usageLines.join("\n")}\n`;
}

/** What `--help` prints on stdout. */
export function flagsText(): string {
  const lines: string[] = [];
  for (const [section] of sections) {
    lines.push(`${section}:`);
    for (const spec of flagSpecs) {
      if (spec.section !== section || spec.hidden) continue;
      lines.push(`  --${spec.name} '${spec.fallback}'`);
      lines.push(`    ${spec.help}${spec.withoutEffect ? ` Without effect: ${spec.withoutEffect}.` : ""}`);
    }
    lines.push("");
  }
  return `${lines.join("\n")}\n`;
}
