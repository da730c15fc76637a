/**
 * One frozen {@link Config} out of flags, environment and file. What is refused here is refused with etcd's words and
 * in etcd's order; what can only be found out while starting (a port in use, a name that is not in the cluster) is
 * left to the start.
 */
import { readFileSync } from "node:fs";
import { isDeepStrictEqual } from "node:util";
import { parse as parseYaml } from "yaml";
import { flagSpecs } from "./config/flags.ts";
import { ConfigError, type FlagSet, flagsFromFile, parseArguments } from "./config/parse.ts";
import { checkBindUrls, checkHostUrls, parseInitialCluster } from "./lib/listen-url.ts";
import type { ServerConfig } from "./etcdserver/index.ts";
import { goDuration, parseGoDuration } from "./lib/go-format.ts";

/** The TLS settings of one kind of listener. Empty texts stand for what was not given. */
export interface TlsSettings {
  readonly certFile: string;
  readonly keyFile: string;
  readonly clientCertFile: string;
  readonly clientKeyFile: string;
  readonly clientCertAuth: boolean;
  readonly crlFile: string;
  readonly trustedCaFile: string;
  readonly autoTls: boolean;
  readonly allowedCns: readonly string[];
  readonly allowedHostnames: readonly string[];
  readonly skipClientSanVerification: boolean;
}

/** The default of --max-concurrent-streams, as in etcd. */
const STREAMS_UNBOUNDED = 2 ** 32 - 1;

export interface Config extends ServerConfig {
  readonly listenPeerUrls: readonly string[];
  readonly listenClientUrls: readonly string[];
  readonly listenClientHttpUrls: readonly string[];
  readonly listenMetricsUrls: readonly string[];
  /** `--initial-cluster` as given; {@link ServerConfig.initialCluster} is what it means. */
  readonly initialClusterText: string;

  readonly discoverySrv: string;
  readonly discoverySrvName: string;

  readonly clientTls: TlsSettings;
  readonly peerTls: TlsSettings;
  readonly selfSignedCertValidityYears: number;
  readonly cipherSuites: readonly string[];
  readonly tlsMinVersion: string;
  readonly tlsMaxVersion: string;
  /** Origins; `*` among them allows all. */
  readonly cors: readonly string[];
  readonly hostWhitelist: readonly string[];

  readonly maxConcurrentStreams: number;
  readonly grpcKeepAliveMinTimeMs: number;
  readonly grpcKeepAliveIntervalMs: number;
  readonly grpcKeepAliveTimeoutMs: number;
  readonly grpcTransport: "grpc-js" | "native";
  readonly socketReusePort: boolean;
  readonly socketReuseAddress: boolean;

  readonly enableGrpcGateway: boolean;
  readonly enablePprof: boolean;
  readonly metrics: string;

  readonly logger: string;
  readonly logOutputs: readonly string[];
  readonly logLevel: string;
  readonly enableLogRotation: boolean;
  readonly logRotationConfigJson: string;

  readonly tracing: {
    readonly isEnabled: boolean;
    readonly address: string;
    readonly serviceName: string;
    readonly instanceId: string;
    readonly samplesPerMillion: number;
  };

  readonly stopGrpcServiceOnDefrag: boolean;

  /** Flags that were given, but mean nothing here, with the reason. For the log. */
  readonly withoutEffect: readonly { readonly flag: string; readonly reason: string }[];
}

const DEFAULT_NAME = "default";
const DEFAULT_PEER_URL = "http://localhost:2380";
const DEFAULT_CLIENT_URL = "http://localhost:2379";
const ELECTION_MS_MAX = 50_000;
export const UNSET_ADVERTISE = "--advertise-client-urls is required when --listen-client-urls is set explicitly";

/** The content of a config file as flags. Throws ConfigError, with etcd's text for a file that cannot be read. */
export function readConfigFile(path: string): FlagSet {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    const reason =
      code === "ENOENT"
        ? "no such file or directory"
        : code === "EACCES"
          ? "permission denied"
          : code === "EISDIR"
            ? "is a directory"
            : String(code).toLowerCase();
    throw new ConfigError(`${code === "EISDIR" ? "read" : "open"} ${path}: ${reason}`);
  }
  let content: unknown;
  try {
    // Repeated keys: the last one wins.
    content = parseYaml(text, { uniqueKeys: false });
  } catch (error) {
    const [reason] = (error as Error).message.split("\n");
    throw new ConfigError(`error converting YAML to JSON: yaml: ${reason}`);
  }
  return flagsFromFile(content);
}

function tlsVersion(text: string): number {
  switch (text) {
    case "":
      return 0;
    case "TLS1.2":
      return 12;
    case "TLS1.3":
      return 13;
    default:
      throw new ConfigError(`unexpected TLS version ${JSON.stringify(text)} (must be one of: TLS1.2, TLS1.3)`);
  }
}

function refuse(condition: boolean, message: string): void {
  if (condition) throw new ConfigError(message);
}

function asConfigError(check: () => void, wrap: (reason: string) => string = (reason) => reason): void {
  try {
    check();
  } catch (error) {
    throw new ConfigError(wrap((error as Error).message));
  }
}

/** Settings in between: read, with the cluster text and the defaults that depend on others in place, not checked. */
export interface Settings {
  readonly flags: FlagSet;
  readonly isFromFile: boolean;
  advertiseClientUrls: readonly string[] | undefined;
  initialCluster: string;
}

/** Applies etcd's rules about defaults that fall away when something else is given. */
export function settle(flags: FlagSet, isFromFile: boolean): Settings {
  const settings: Settings = {
    flags,
    isFromFile,
    advertiseClientUrls: flags.list("advertise-client-urls"),
    initialCluster: flags.text("initial-cluster"),
  };
  const hasDiscovery = flags.text("discovery") !== "" || flags.text("discovery-srv") !== "";
  if (isFromFile) {
    const fallback = `${DEFAULT_NAME}=${DEFAULT_PEER_URL}`;
    if (hasDiscovery && settings.initialCluster === fallback) settings.initialCluster = "";
    return settings;
  }
  const mayBeProxy =
    flags.text("proxy") !== "off" || (flags.text("discovery") !== "" && flags.text("discovery-fallback") === "proxy");
  const isMissing = flags.isSet("listen-client-urls") && !flags.isSet("advertise-client-urls");
  if (isMissing && !mayBeProxy) settings.advertiseClientUrls = undefined;
  if ((hasDiscovery || flags.text("discovery-srv-name") !== "") && !flags.isSet("initial-cluster")) {
    settings.initialCluster = "";
  }
  return settings;
}

/** Throws ConfigError for the first rule that is broken, in etcd's order. `warn` gets what is only worth a line. */
export function validate(settings: Settings, warn: (message: string) => void): void {
  const { flags } = settings;
  for (const name of ["listen-peer-urls", "listen-client-urls", "listen-client-http-urls"]) {
    asConfigError(() => checkBindUrls(flags.list(name)));
  }
  if (flags.list("listen-client-http-urls").length === 0) {
    warn("Running http and grpc server on single port. This is not recommended for production.");
  }
  asConfigError(() => checkBindUrls(flags.list("listen-metrics-urls")));
  const mustBeHosts = (name: string, urls: readonly string[]) =>
    asConfigError(
      () => checkHostUrls(urls),
      (reason) => `--${name} ${JSON.stringify(urls.join(","))} must be "host:port" (${reason})`,
    );
  mustBeHosts("initial-advertise-peer-urls", flags.list("initial-advertise-peer-urls"));
  mustBeHosts("advertise-client-urls", settings.advertiseClientUrls ?? []);

  const bootstraps = [flags.text("discovery"), settings.initialCluster, flags.text("discovery-srv")];
  refuse(
    bootstraps.filter((text) => text !== "").length > 1,
    'multiple discovery or bootstrap flags are set. Choose one of "initial-cluster", "discovery" or "discovery-srv"',
  );
  const tickMs = flags.number("heartbeat-interval");
  const electionMs = flags.number("election-timeout");
  refuse(tickMs === 0, "--heartbeat-interval must be >0 (set to 0ms)");
  refuse(electionMs === 0, "--election-timeout must be >0 (set to 0ms)");
  refuse(
    5 * tickMs > electionMs,
    `--election-timeout[${electionMs}ms] should be at least as 5 times as --heartbeat-interval[${tickMs}ms]`,
  );
  refuse(
    electionMs > ELECTION_MS_MAX,
    `--election-timeout[${electionMs}ms] is too long, and should be set less than ${ELECTION_MS_MAX}ms`,
  );
  refuse(settings.advertiseClientUrls === undefined, UNSET_ADVERTISE);
  const mode = flags.text("auto-compaction-mode");
  refuse(!["", "periodic", "revision"].includes(mode), `unknown auto-compaction-mode ${JSON.stringify(mode)}`);
  const checkpoint = flags.bool("experimental-enable-lease-checkpoint");
  const persist = flags.bool("experimental-enable-lease-checkpoint-persist");
  if (checkpoint && !persist) {
    warn(
      "Detected that checkpointing is enabled without persistence. Consider enabling experimental-enable-lease-checkpoint-persist",
    );
  }
  refuse(
    persist && !checkpoint,
    "setting experimental-enable-lease-checkpoint-persist requires experimental-enable-lease-checkpoint",
  );
  const hashCheckMs = flags.number("experimental-compact-hash-check-time");
  refuse(hashCheckMs <= 0, `--experimental-compact-hash-check-time must be >0 (set to ${goDuration(hashCheckMs)})`);
  const minText = flags.text("tls-min-version");
  const maxText = flags.text("tls-max-version");
  const min = tlsVersion(minText);
  const max = tlsVersion(maxText);
  refuse(max !== 0 && min > max, `min version (${minText}) is greater than max version (${maxText})`);
  refuse(
    min === 13 && flags.list("cipher-suites").length > 0,
    "cipher suites cannot be configured when only TLS1.3 is enabled",
  );
  if (flags.bool("experimental-enable-distributed-tracing")) {
    const rate = flags.number("experimental-distributed-tracing-sampling-rate");
    const wrap = (reason: string) => `distributed tracing configurition is not valid: (${reason})`;
    refuse(rate < 0, wrap("tracing sampling rate must be positive"));
    refuse(rate > 1_000_000, wrap("tracing sampling rate must be less than 1000000"));
  }
}

/** `periodic`: hours or a duration; `revision`: a number, or a duration whose nanoseconds are taken as one. */
export function parseRetention(mode: string, text: string): number {
  if (text === "") return 0;
  if (/^[+]?\d+$/.test(text)) {
    const number = Number(text);
    return mode === "periodic" ? number * 3_600_000 : number;
  }
  try {
    const ms = parseGoDuration(text);
    return mode === "revision" ? ms * 1e6 : ms;
  } catch (error) {
    throw new Error(`error parsing CompactionRetention: ${(error as Error).message}`);
  }
}

/**
 * The configuration of a member that is embedded: what `etcd` would make of these arguments, with no look at environment
 * or files. Throws what is wrong with them, in etcd's words.
 */
export function configFromArguments(
  args: readonly string[],
  options: { readonly warn?: ((message: string) => void) | undefined } = {},
): Config {
  const settings = settle(parseArguments(args).flags, false);
  validate(settings, options.warn ?? (() => {}));
  return buildConfig(settings);
}

/**
 * The frozen configuration. Throws a plain Error for what etcd finds out only while starting (fatal `discovery
 * failed`, exit code 1): the texts of the initial cluster and of the retention. Once a member has data, nobody asks
 * what the initial cluster was.
 */
export function buildConfig(settings: Settings, isInitialized = false): Config {
  const { flags } = settings;
  const tls = (prefix: "" | "peer-", more: Pick<TlsSettings, "allowedCns" | "skipClientSanVerification">) => {
    const side = prefix === "" ? "client-" : "peer-";
    return {
      certFile: flags.text(`${prefix}cert-file`),
      keyFile: flags.text(`${prefix}key-file`),
      clientCertFile: flags.text(`${prefix}client-cert-file`),
      clientKeyFile: flags.text(`${prefix}client-key-file`),
      clientCertAuth: flags.bool(`${prefix}client-cert-auth`),
      crlFile: flags.text(`${side}crl-file`),
      trustedCaFile: flags.text(`${prefix}trusted-ca-file`),
      autoTls: flags.bool(`${prefix}auto-tls`),
      allowedHostnames: flags.list(`${side}cert-allowed-hostname`),
      ...more,
    };
  };
  const name = flags.text("name");
  const dataDir = flags.text("data-dir");
  const advertisePeerUrls = flags.list("initial-advertise-peer-urls");
  let clusterText = settings.initialCluster;
  // Only the name was given: the cluster is this member.
  if (name !== DEFAULT_NAME && clusterText === `${DEFAULT_NAME}=${DEFAULT_PEER_URL}`) {
    clusterText = advertisePeerUrls.map((url) => `${name === "" ? DEFAULT_NAME : name}=${url}`).join(",");
  }
  const mode = flags.text("auto-compaction-mode");
  const retention = parseRetention(mode, flags.text("auto-compaction-retention"));
  if (mode === "" && retention !== 0 && !/^\d+$/.test(flags.text("auto-compaction-retention"))) {
    throw new Error("unsupported compaction mode ");
  }
  // A v2 proxy holds no data; a member that starts in its place would found a cluster of its own.
  if (flags.text("proxy") !== "off" && !isInitialized) {
    throw new Error(`--proxy=${flags.text("proxy")}: the v2 proxy is not served`);
  }
  if (flags.text("discovery") !== "" && !isInitialized) {
    throw new Error("--discovery: the v2 discovery service is not asked; use --initial-cluster or --discovery-srv");
  }
  const deprecation = flags.text("v2-deprecation");
  if (flags.bool("enable-v2") && deprecation !== "not-yet") {
    throw new Error(`--enable-v2 and --v2-deprecation=${deprecation} are mutually exclusive`);
  }
  const positiveOr = (value: number, fallback: number) => (value > 0 ? value : fallback);
  const tickMs = flags.number("heartbeat-interval");
  const config: Config = {
    name,
    dataDir: dataDir === "" ? `${name}.etcd` : dataDir,
    walDir: flags.text("wal-dir") === "" ? undefined : flags.text("wal-dir"),
    initialCluster: initialClusterOf(clusterText, isInitialized),
    initialClusterText: clusterText,
    initialClusterToken: flags.text("initial-cluster-token"),
    isNewCluster: flags.text("initial-cluster-state") === "new",
    forceNewCluster: flags.bool("force-new-cluster"),
    advertisePeerUrls,
    advertiseClientUrls: settings.advertiseClientUrls ?? [],
    listenPeerUrls: flags.list("listen-peer-urls"),
    listenClientUrls: flags.list("listen-client-urls"),
    listenClientHttpUrls: flags.list("listen-client-http-urls"),
    listenMetricsUrls: flags.list("listen-metrics-urls"),
    discoveryUrl: flags.text("discovery"),
    discoverySrv: flags.text("discovery-srv"),
    discoverySrvName: flags.text("discovery-srv-name"),
    tickMs,
    electionTicks: Math.floor(flags.number("election-timeout") / tickMs),
    initialElectionTickAdvance: flags.bool("initial-election-tick-advance"),
    preVote: flags.bool("pre-vote"),
    strictReconfigCheck: flags.bool("strict-reconfig-check"),
    snapshotCount: positiveOr(flags.number("snapshot-count"), 100_000),
    snapshotCatchupEntries: positiveOr(flags.number("experimental-snapshot-catchup-entries"), 5000),
    maxSnapshotFiles: flags.number("max-snapshots"),
    maxWalFiles: flags.number("max-wals"),
    quotaBackendBytes: flags.number("quota-backend-bytes"),
    maxRequestBytes: flags.number("max-request-bytes"),
    maxTxnOps: flags.number("max-txn-ops"),
    warningApplyDurationMs: flags.number("experimental-warning-apply-duration"),
    backendBatchIntervalMs: positiveOr(flags.number("backend-batch-interval"), 100),
    backendBatchLimit: positiveOr(flags.number("backend-batch-limit"), 10_000),
    unsafeNoFsync: flags.bool("unsafe-no-fsync"),
    autoCompactionMode: mode === "revision" ? "revision" : "periodic",
    // Without a mode, which only a config file can say, etcd does not compact.
    autoCompactionRetention: mode === "" ? 0 : retention,
    compactionBatchLimit: positiveOr(flags.number("experimental-compaction-batch-limit"), 1000),
    compactionSleepIntervalMs: positiveOr(flags.number("experimental-compaction-sleep-interval"), 10),
    leaseCheckpoint: flags.bool("experimental-enable-lease-checkpoint"),
    leaseCheckpointPersist: flags.bool("experimental-enable-lease-checkpoint-persist"),
    initialCorruptCheck: flags.bool("experimental-initial-corrupt-check"),
    corruptCheckIntervalMs: flags.number("experimental-corrupt-check-time"),
    compactHashCheck: flags.bool("experimental-compact-hash-check-enabled"),
    compactHashCheckIntervalMs: flags.number("experimental-compact-hash-check-time"),
    downgradeCheckIntervalMs: flags.number("experimental-downgrade-check-time"),
    watchProgressNotifyIntervalMs: positiveOr(flags.number("experimental-watch-progress-notify-interval"), 600_000),
    clientTls: tls("", { allowedCns: [], skipClientSanVerification: false }),
    peerTls: tls("peer-", {
      allowedCns: flags.list("peer-cert-allowed-cn"),
      skipClientSanVerification: flags.bool("experimental-peer-skip-client-san-verification"),
    }),
    selfSignedCertValidityYears: settings.isFromFile
      ? positiveOr(flags.number("self-signed-cert-validity"), 1)
      : flags.number("self-signed-cert-validity"),
    cipherSuites: flags.list("cipher-suites"),
    tlsMinVersion: flags.text("tls-min-version"),
    tlsMaxVersion: flags.text("tls-max-version"),
    cors: flags.list("cors"),
    hostWhitelist: flags.list("host-whitelist"),
    // To grpc 0 is no bound.
    maxConcurrentStreams: flags.number("max-concurrent-streams") || STREAMS_UNBOUNDED,
    grpcKeepAliveMinTimeMs: flags.number("grpc-keepalive-min-time"),
    grpcKeepAliveIntervalMs: flags.number("grpc-keepalive-interval"),
    grpcKeepAliveTimeoutMs: flags.number("grpc-keepalive-timeout"),
    grpcTransport: flags.text("experimental-grpc-transport") === "grpc-js" ? "grpc-js" : "native",
    socketReusePort: flags.bool("socket-reuse-port"),
    socketReuseAddress: flags.bool("socket-reuse-address"),
    raftReadTimeoutMs: Math.max(flags.number("raft-read-timeout"), 5000),
    raftWriteTimeoutMs: Math.max(flags.number("raft-write-timeout"), 5000),
    authToken: flags.text("auth-token"),
    clientCertAuth: flags.bool("client-cert-auth"),
    bcryptCost: flags.number("bcrypt-cost"),
    authTokenTtlSeconds: flags.number("auth-token-ttl"),
    enableGrpcGateway: flags.bool("enable-grpc-gateway"),
    enablePprof: flags.bool("enable-pprof"),
    metrics: flags.text("metrics"),
    logger: flags.text("logger"),
    logOutputs: flags.list("log-outputs"),
    logLevel: flags.text("log-level"),
    enableLogRotation: flags.bool("enable-log-rotation"),
    logRotationConfigJson: flags.text("log-rotation-config-json"),
    tracing: {
      isEnabled: flags.bool("experimental-enable-distributed-tracing"),
      address: flags.text("experimental-distributed-tracing-address"),
      serviceName: flags.text("experimental-distributed-tracing-service-name"),
      instanceId: flags.text("experimental-distributed-tracing-instance-id"),
      samplesPerMillion: flags.number("experimental-distributed-tracing-sampling-rate"),
    },
    stopGrpcServiceOnDefrag: flags.bool("experimental-stop-grpc-service-on-defrag"),
    bootstrapDefragThresholdMegabytes: flags.number("experimental-bootstrap-defrag-threshold-megabytes"),
    withoutEffect: flagSpecs
      .filter((spec) => spec.withoutEffect !== undefined && flags.isSet(spec.name))
      .map((spec) => ({ flag: spec.name, reason: spec.withoutEffect ?? "" })),
  };
  return Object.freeze(config);
}

function initialClusterOf(text: string, isInitialized: boolean): ReadonlyMap<string, readonly string[]> {
  try {
    return parseInitialCluster(text);
  } catch (error) {
    if (isInitialized) return new Map();
    throw new Error(`error setting up initial cluster: ${(error as Error).message}`);
  }
}

/**
 * `0.0.0.0` says nothing to others, so an untouched default advertise URL takes the machine's own address. Returns
 * the address when it was used.
 */
export function adoptDefaultHost(settings: Settings, findHost: () => string | undefined): string | undefined {
  const { flags } = settings;
  const anyPort = (name: string) => /^https?:\/\/0\.0\.0\.0:(\d+)$/.exec(flags.list(name)[0] ?? "")?.[1];
  const peerPort = isDeepStrictEqual(flags.list("initial-advertise-peer-urls"), [DEFAULT_PEER_URL])
    ? anyPort("listen-peer-urls")
    : undefined;
  const clientPort = isDeepStrictEqual(settings.advertiseClientUrls, [DEFAULT_CLIENT_URL])
    ? anyPort("listen-client-urls")
    : undefined;
  if (peerPort === undefined && clientPort === undefined) return undefined;
  const host = findHost();
  if (host === undefined) return undefined;
  if (peerPort !== undefined) flags.setQuietly("initial-advertise-peer-urls", [`http://${host}:${peerPort}`]);
  if (clientPort !== undefined) settings.advertiseClientUrls = [`http://${host}:${clientPort}`];
  return host;
}
