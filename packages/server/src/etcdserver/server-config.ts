/**
 * What the server's heart needs to know of its configuration. `config.ts` makes it from flags, environment and file
 * (its `Config` has everything here, and what only listeners and logs need); tests make it with
 * {@link defaultServerConfig}.
 */

export interface ServerConfig {
  readonly name: string;
  readonly dataDir: string;
  /** Where WAL segments go when not below the data dir. */
  readonly walDir: string | undefined;

  /** Member name -> its advertised peer URLs, as `--initial-cluster` says. A name may stand for several URLs. */
  readonly initialCluster: ReadonlyMap<string, readonly string[]>;
  readonly initialClusterToken: string;
  /** `--initial-cluster-state`: true for `new`. */
  readonly isNewCluster: boolean;
  readonly forceNewCluster: boolean;
  /** Of the v2 discovery service, which is not asked. */
  readonly discoveryUrl: string;
  readonly advertisePeerUrls: readonly string[];
  readonly advertiseClientUrls: readonly string[];

  readonly tickMs: number;
  /** Election timeout in ticks: `--election-timeout` / `--heartbeat-interval`, whole. */
  readonly electionTicks: number;
  readonly initialElectionTickAdvance: boolean;
  readonly preVote: boolean;
  readonly strictReconfigCheck: boolean;

  /** Entries applied between two raft snapshots. */
  readonly snapshotCount: number;
  /** Entries the log keeps behind a snapshot, for followers that are a little late. */
  readonly snapshotCatchupEntries: number;
  /** Files kept by the purge; 0 keeps all. */
  readonly maxSnapshotFiles: number;
  readonly maxWalFiles: number;

  /** 0: the default of 2 GiB. Negative: no quota. */
  readonly quotaBackendBytes: number;
  readonly maxRequestBytes: number;
  readonly maxTxnOps: number;
  readonly warningApplyDurationMs: number;

  readonly backendBatchIntervalMs: number;
  readonly backendBatchLimit: number;
  readonly unsafeNoFsync: boolean;

  readonly autoCompactionMode: "periodic" | "revision";
  /** For mode periodic: milliseconds; for mode revision: revisions to keep. 0: off. */
  readonly autoCompactionRetention: number;
  readonly compactionBatchLimit: number;
  readonly compactionSleepIntervalMs: number;

  readonly leaseCheckpoint: boolean;
  readonly leaseCheckpointPersist: boolean;

  readonly initialCorruptCheck: boolean;
  /** 0: off. */
  readonly corruptCheckIntervalMs: number;
  readonly compactHashCheck: boolean;
  readonly compactHashCheckIntervalMs: number;
  readonly downgradeCheckIntervalMs: number;
  /** Defragment at start when at least this many MiB would be freed; 0: never. */
  readonly bootstrapDefragThresholdMegabytes: number;
  /** After so long without a byte a connection to or from a peer is given up. */
  readonly raftReadTimeoutMs: number;
  readonly raftWriteTimeoutMs: number;
  readonly watchProgressNotifyIntervalMs: number;

  /** `simple`, or `jwt` with its options; empty: no tokens are given out. */
  readonly authToken: string;
  readonly authTokenTtlSeconds: number;
  readonly bcryptCost: number;
  /** Callers without a token are named by their client certificates. */
  readonly clientCertAuth: boolean;
}

/** etcd's defaults, for a new cluster of one member named `default` in `dataDir`. */
export function defaultServerConfig(dataDir: string): ServerConfig {
  return {
    name: "default",
    dataDir,
    walDir: undefined,
    initialCluster: new Map([["default", ["http://localhost:2380"]]]),
    initialClusterToken: "etcd-cluster",
    isNewCluster: true,
    forceNewCluster: false,
    discoveryUrl: "",
    advertisePeerUrls: ["http://localhost:2380"],
    advertiseClientUrls: ["http://localhost:2379"],
    tickMs: 100,
    electionTicks: 10,
    initialElectionTickAdvance: true,
    preVote: true,
    strictReconfigCheck: true,
    snapshotCount: 100_000,
    snapshotCatchupEntries: 5000,
    maxSnapshotFiles: 5,
    maxWalFiles: 5,
    quotaBackendBytes: 0,
    maxRequestBytes: 1.5 * 1024 * 1024,
    maxTxnOps: 128,
    warningApplyDurationMs: 100,
    backendBatchIntervalMs: 100,
    backendBatchLimit: 10_000,
    unsafeNoFsync: false,
    autoCompactionMode: "periodic",
    autoCompactionRetention: 0,
    compactionBatchLimit: 1000,
    compactionSleepIntervalMs: 10,
    leaseCheckpoint: false,
    leaseCheckpointPersist: false,
    initialCorruptCheck: false,
    corruptCheckIntervalMs: 0,
    compactHashCheck: false,
    compactHashCheckIntervalMs: 60_000,
    downgradeCheckIntervalMs: 5000,
    bootstrapDefragThresholdMegabytes: 0,
    raftReadTimeoutMs: 5000,
    raftWriteTimeoutMs: 5000,
    watchProgressNotifyIntervalMs: 600_000,
    authToken: "simple",
    authTokenTtlSeconds: 300,
    bcryptCost: 10,
    clientCertAuth: false,
  };
}

/** 5 s for the disks and the network, and twice the election timeout for a leader that was just lost. */
export function requestTimeoutMs(config: ServerConfig): number {
  return 5000 + 2 * electionTimeoutMs(config);
}

export function electionTimeoutMs(config: ServerConfig): number {
  return config.electionTicks * config.tickMs;
}

/** A lease must outlive an election: the floor of every TTL, in seconds. */
export function minLeaseTtlSeconds(config: ServerConfig): number {
  return Math.ceil((Math.floor((3 * config.electionTicks) / 2) * config.tickMs) / 1000);
}
