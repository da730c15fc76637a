/**
 * Builds every room of a member and joins them. The order in which they start and stop lives here and only here:
 *
 *   start   ports bound -> data dir locked -> backend -> members, log -> lessor, store -> raft loop
 *           -> peers served -> name published through raft -> clients served
 *   stop    clients (with time to finish) -> leadership handed over -> raft loop, apply, jobs -> WAL -> store -> backend
 *           -> lock -> ports
 */
import os from "node:os";
import path from "node:path";
import { EtcdError } from "@etcd-ts/client/wire";
import { type BoundListeners, bindListeners } from "./api/index.ts";
import { Auth } from "./auth/index.ts";
import type { Config } from "./config.ts";
import { type Discovered, discoverCluster, type Names, systemNames } from "./discovery.ts";
import {
  type Bootstrapped,
  bootstrap,
  checkInitially,
  type EtcdServer,
  electionTimeoutMs,
  MemberDisk,
  MemberRemovedError,
  minLeaseTtlSeconds,
  RAFT_INFLIGHT_MAX,
  RAFT_MESSAGE_BYTES_MAX,
  requestTimeoutMs,
  SERVER_VERSION,
  Server,
  type ServerConfig,
} from "./etcdserver/index.ts";
import type { Clock } from "./lib/clock.ts";
import { goDuration, humanBytes } from "./lib/go-format.ts";
import type { Logger } from "./lib/log.ts";
import { Pace } from "./lib/pace.ts";
import type { Random } from "./lib/random.ts";
import { ETCD_VERSION, OWN_VERSION } from "./lib/version.ts";
import { Lessor } from "./lease/index.ts";
import { HttpTransport, PeerClient, type PeerTls } from "./transport/index.ts";
import { MemberMetrics } from "./metrics.ts";
import { hexId } from "./lib/bytes.ts";
import { storedMembers } from "./membership/index.ts";
import { MvccStore } from "./mvcc/index.ts";
import { RawNode } from "./raft/index.ts";
import type { Tracing } from "./tracing.ts";
import {
  type Backend,
  type BackendOptions,
  type DataDirPaths,
  dataDirPaths,
  exportBolt,
  importBolt,
  importBoltInWorker,
  indexOfDatabase,
  lockDataDir,
  openBackend,
  prepareDataDir,
  readConsistentIndex,
  type SnapStore,
  systemFiles,
  walExists,
} from "./storage/index.ts";

export interface BootDeps {
  readonly logger: Logger;
  readonly clock: Clock;
  readonly random: Random;
  /** Memory can no longer be trusted, or the disk refuses: the process must end. */
  readonly onFatal: (error: unknown) => void;
  /** How other members are dialled where their URLs are `https` or `unixs`; by what Node trusts without. */
  readonly peerTls?: PeerTls | undefined;
  /** In place of the machine's resolver. */
  readonly names?: Names | undefined;
  /** For tests without worker threads. */
  readonly backendCommits?: BackendOptions["commits"];
}

export interface RunningEtcd {
  readonly server: EtcdServer;
  /** Resolves when everything is closed. */
  stop(): Promise<void>;
}

export interface RunningMember extends RunningEtcd {
  readonly server: Server;
  readonly metrics: MemberMetrics;
  /** Answers the requests of other members. */
  readonly peerHandler: HttpTransport["handler"];
}

const RECOMMENDED_REQUEST_BYTES_MAX = 10 * 1024 * 1024;

/** A member without ports: what tests and embedders with a transport of their own start. */
export async function startMember(config: ServerConfig, deps: BootDeps): Promise<RunningMember> {
  const { logger, clock, random } = deps;
  if (config.maxRequestBytes > RECOMMENDED_REQUEST_BYTES_MAX) {
    logger.warn("exceeded recommended request limit", {
      "max-request-bytes": config.maxRequestBytes,
      "max-request-size": humanBytes(config.maxRequestBytes),
      "recommended-request-bytes": RECOMMENDED_REQUEST_BYTES_MAX,
      "recommended-request-size": humanBytes(RECOMMENDED_REQUEST_BYTES_MAX),
    });
  }
  const isInline = deps.backendCommits === "inline";
  const metrics = new MemberMetrics();
  const pace = new Pace(clock);
  const dialTimeoutMs = 1000 + electionTimeoutMs(config);
  const closers: (() => Promise<void> | void)[] = [];
  // Before there is a server to stop, a disk that refuses is met by the next step of the start.
  let fail = (error: unknown): void => logger.error("the start cannot succeed", { error });
  /** Everything is closed, whatever refuses; that one of them did is told at the end. */
  const closeAll = async () => {
    let refusal: unknown;
    for (const close of closers.splice(0).reverse()) {
      try {
        await close();
      } catch (error) {
        refusal ??= error;
      }
    }
    if (refusal !== undefined) logger.warn("failed to close the member in good order", { error: refusal });
  };
  try {
    const paths = dataDirPaths(config.dataDir, config.walDir);
    await prepareDataDir(paths, logger);
    const lock = await lockDataDir(paths);
    closers.push(() => lock.release());
    await adoptBoltFile(paths, logger);
    const openedAtMs = clock.monotonicMs();
    const backend = await openBackend({
      path: paths.backendFile,
      clock,
      logger,
      onFatal: (error) => fail(error),
      unsafeNoFsync: config.unsafeNoFsync,
      batchIntervalMs: config.backendBatchIntervalMs,
      batchOperationsMax: config.backendBatchLimit,
      commits: deps.backendCommits,
      observer: metrics.backend,
    });
    closers.push(() => backend.close());
    logger.info("opened backend db", { path: paths.backendFile, took: goDuration(clock.monotonicMs() - openedAtMs) });
    await defragmentIfWorthwhile(backend, config.bootstrapDefragThresholdMegabytes, logger);

    const peers = new PeerClient({ tls: deps.peerTls, timeoutMs: dialTimeoutMs });

    const booted: Bootstrapped = await bootstrap({
      config,
      logger,
      backend,
      walDir: paths.walDir,
      snapDir: paths.snapDir,
      walOptions: { clock, logger, unsafeNoFsync: config.unsafeNoFsync, observer: metrics.wal },
      snapObserver: metrics.snap,
      adoptDatabase: async (snaps, snapshotIndex) => {
        await refuseIfOvertaken(paths, snaps, snapshotIndex);
        await backend.replaceWith(await importDatabase(snaps, snapshotIndex, isInline));
        await snaps.releaseDatabases(snapshotIndex + 1, { isOrphaned: true });
      },
      remote: {
        members: (urls, { isQuiet }) =>
          peers.members(urls, isQuiet ? undefined : (line, fields) => logger.warn(line, fields)),
        version: (urls) => peers.versions(urls),
        isDowngradeEnabled: (urls) => peers.isDowngradeEnabled(urls),
      },
      resolveHost: (deps.names ?? systemNames).resolveHost,
      onVersion: (version) =>
        logger.info("enabled capabilities for version", { "cluster-version": version.replace(/\.0$/, "") }),
    });
    closers.push(() => booted.wal.close());
    const { cluster, storage } = booted;
    metrics.setLocalId(cluster.localId);

    const lessor = Lessor.open(backend, {
      clock,
      minTtlSeconds: minLeaseTtlSeconds(config),
      expiredRetryMs: requestTimeoutMs(config),
      checkpoints: config.leaseCheckpoint,
      persistsCheckpoints: () => config.leaseCheckpointPersist,
    });
    const store = await MvccStore.open({
      backend,
      leases: lessor,
      clock,
      logger,
      onFatal: (error) => fail(error),
      limits: {
        compactionBatchRows: config.compactionBatchLimit,
        compactionPauseMs: config.compactionSleepIntervalMs,
      },
      giveWay: () => pace.giveWay(),
    });
    closers.push(() => store.close());
    if (config.initialCorruptCheck && !booted.isNew) {
      try {
        await checkInitially({
          clock,
          logger,
          memberId: cluster.localId,
          requestTimeoutMs: requestTimeoutMs(config),
          hashKv: (revision, signal) => store.hashKv(revision, signal),
          members: () => storedMembers(backend),
          peerHashKv: (url, revision, signal) => peers.hashKv(url, revision, hexId(cluster.id), signal),
        });
      } catch (error) {
        logger.error("checkInitialHashKV failed", { error });
        throw error;
      }
    }
    const node = new RawNode({
      id: cluster.localId,
      electionTicks: config.electionTicks,
      heartbeatTicks: 1,
      storage,
      applied: booted.snapshotIndex,
      asyncStorageWrites: true,
      messageBytesMax: RAFT_MESSAGE_BYTES_MAX,
      inflightMessagesMax: RAFT_INFLIGHT_MAX,
      checkQuorum: true,
      checkQuorumEachTick: true,
      preVote: config.preVote,
      logger: logger.named?.("raft") ?? logger,
      random,
    });
    const transport = new HttpTransport({
      identity: {
        memberId: cluster.localId,
        clusterId: cluster.id,
        serverVersion: SERVER_VERSION,
        peerUrls: config.advertisePeerUrls,
      },
      sink: {
        process: (message) => server.process(message),
        reportUnreachable: (id) => server.reportUnreachable(id),
        reportSnapshot: (id, ok) => server.reportSnapshot(id, ok),
        isRemoved: (id) => server.isRemoved(id),
        heartbeatSent: (id) => server.heartbeatSent(id),
      },
      clock,
      logger,
      observer: metrics.transport,
      tls: deps.peerTls,
      dialTimeoutMs,
      readTimeoutMs: config.raftReadTimeoutMs,
      writeTimeoutMs: config.raftWriteTimeoutMs,
      openSnapshot: (message) => server.openRaftSnapshot(message),
      saveDatabase: (source, index) => booted.snaps.saveDatabase(source, index),
      onRemoved: () => server.abort(new MemberRemovedError()),
    });
    const auth = await Auth.open({
      backend,
      leases: store,
      tokenSpec: config.authToken,
      tokenTtlSeconds: config.authTokenTtlSeconds,
      bcryptCost: config.bcryptCost,
      usesCertificates: config.clientCertAuth,
      waitForIndex: (index, signal) => server.waitUntilApplied(index, signal),
      clock,
      random,
      logger,
      passwordThreads: deps.backendCommits,
    });
    closers.push(() => auth.stop());
    const server: Server = new Server(
      {
        config,
        clock,
        logger,
        cluster,
        backend,
        store,
        lessor,
        auth,
        node,
        storage,
        disk: new MemberDisk(booted.wal, booted.snaps, config),
        snapshotIndex: booted.snapshotIndex,
        confState: booted.confState,
        consistentIndex: booted.consistentIndex,
        exportImage: (options) => exportBolt(backend, { ...options, isInline }),
        installSnapshot: async ({ data, metadata }) => {
          const incoming = await importDatabase(booted.snaps, metadata.index, isInline);
          await store.pause();
          logger.info("closing old backend file");
          await backend.replaceWith(incoming);
          logger.info("closed old backend file");
          logger.info("restoring mvcc store");
          await store.reload(backend);
          logger.info("restored mvcc store", { "consistent-index": readConsistentIndex(backend).index });
          logger.info("restoring lease store");
          lessor.reload(backend);
          logger.info("restored lease store");
          logger.info("restoring cluster configuration");
          cluster.recover(data, backend);
          logger.info("restored cluster configuration");
          await booted.snaps.releaseDatabases(metadata.index + 1);
        },
        observer: { ...metrics.server, proposed: () => pace.touch() },
      },
      transport,
    );
    transport.serve({
      members: () => server.members(),
      clusterVersion: () => server.clusterVersion(),
      isDowngradeEnabled: async (signal) => {
        await server.linearizableReadNotify({ signal });
        return server.isDowngradeEnabled();
      },
      hashKv: (revision, signal) => store.hashKv(revision, signal),
      promoteMember: (id, signal, token) => server.promoteForPeer(id, { signal, token }),
      renewLease: async (id, signal) => {
        const ttl = await server.renewAsLeader(id, { signal });
        if (ttl === undefined) throw new EtcdError("NotPrimaryLessor");
        if (ttl === 0) throw new EtcdError("LeaseNotFound");
        return ttl;
      },
      leaseTimeToLive: (request) => server.leaseTimeToLiveAsLeader(request),
    });
    for (const { id, peerUrls } of booted.remotes) transport.addRemote(id, peerUrls);
    metrics.attach({ server, store, backend, quotaBytes: server.quotaBytes });
    fail = (error) => server.abort(error);
    server.start();
    closers.push(() => server.stop());
    return { server, metrics, peerHandler: transport.handler, stop: closeAll };
  } catch (error) {
    await closeAll();
    throw error;
  }
}

/** A member with its ports. Resolves when clients are served; rejects, with everything closed, when it cannot start. */
export async function startEtcd(given: Config, deps: BootDeps): Promise<RunningEtcd> {
  const { clock, random, logger, onFatal } = deps;
  const tracing = await openTracing(given, deps);
  let ports: BoundListeners;
  try {
    ports = await bindListeners(given, { clock, random, logger, onFatal, around: tracing?.around });
  } catch (error) {
    await tracing?.stop();
    throw error;
  }
  if (tracing) logger.info("distributed tracing setup enabled");
  try {
    const { config, peerServerName } = await discovered(given, deps);
    logger.info("starting an etcd server", await describe(config));
    const member = await startMember(config, { ...deps, peerTls: ports.peerDialler(peerServerName) });
    const { server } = member;
    ports.addFamilies(() => member.metrics.families());
    try {
      logger.info("now serving peer/client/metrics", {
        "local-member-id": hexId(server.member.id),
        "initial-advertise-peer-urls": config.advertisePeerUrls,
        "listen-peer-urls": config.listenPeerUrls,
        "advertise-client-urls": config.advertiseClientUrls,
        "listen-client-urls": config.listenClientUrls,
        "listen-metrics-urls": config.listenMetricsUrls,
      });
      await ports.servePeers(server, member.peerHandler);
      await server.ready;
      await ports.serveClients(server);
    } catch (error) {
      await member.stop();
      // The member may have ended by itself: then that is the reason.
      throw (await server.stopped) ?? error;
    }
    let stopping: Promise<void> | undefined;
    return { server, stop: () => (stopping ??= stop(config, member, ports, logger, tracing)) };
  } catch (error) {
    ports.close();
    await tracing?.stop();
    throw error;
  }
}

/** The configuration with the members of the first cluster in it, wherever it names them. */
async function discovered(config: Config, deps: BootDeps): Promise<Discovered> {
  const { walDir } = dataDirPaths(config.dataDir, config.walDir);
  // Once there is a log, it says who the members are.
  if (config.discoverySrv === "" || (await walExists(walDir))) return { config, peerServerName: "" };
  return discoverCluster(config, deps.names ?? systemNames, deps.logger);
}

/** OpenTelemetry is read from disk only by a member that is told to trace. */
async function openTracing(config: Config, { clock, logger }: BootDeps): Promise<Tracing | undefined> {
  if (!config.tracing.isEnabled) return undefined;
  const { startTracing } = await import("./tracing.ts");
  return startTracing(config.tracing, { clock, logger });
}

async function stop(
  config: Config,
  member: RunningEtcd,
  ports: BoundListeners,
  logger: Logger,
  tracing: Tracing | undefined,
): Promise<void> {
  const fields = {
    name: config.name,
    "data-dir": config.dataDir,
    "advertise-peer-urls": config.advertisePeerUrls,
    "advertise-client-urls": config.advertiseClientUrls,
  };
  logger.info("closing etcd server", fields);
  await ports.stopClients(requestTimeoutMs(config));
  await member.stop();
  ports.close();
  await tracing?.stop();
  logger.info("closed etcd server", fields);
}

/** Makes a backend's file of the database that a leader sent with its snapshot; the path of the new file. */
async function importDatabase(snaps: SnapStore, snapshotIndex: number, isInline: boolean): Promise<string> {
  const boltPath = await snaps.findDatabase(snapshotIndex);
  const backendPath = path.join(snaps.dir, "tmp-incoming.lmdb");
  await systemFiles.removeTree(backendPath);
  await (isInline ? importBolt : importBoltInWorker)({ boltPath, backendPath });
  return backendPath;
}

/** `--experimental-bootstrap-defrag-threshold-megabytes`: before anybody is served, when enough would be freed. */
async function defragmentIfWorthwhile(backend: Backend, thresholdMegabytes: number, logger: Logger): Promise<void> {
  if (thresholdMegabytes === 0) return;
  const size = backend.sizeBytes();
  const sizeInUse = backend.sizeInUseBytes();
  const threshold = thresholdMegabytes * 1024 * 1024;
  if (size - sizeInUse < threshold) {
    logger.info("Skipping defragmentation", {
      "current-db-size-bytes": size,
      "current-db-size": humanBytes(size),
      "current-db-size-in-use-bytes": sizeInUse,
      "current-db-size-in-use": humanBytes(sizeInUse),
      "experimental-bootstrap-defrag-threshold-bytes": threshold,
      "experimental-bootstrap-defrag-threshold": humanBytes(threshold),
    });
    return;
  }
  await backend.defragment();
}

/** The effective configuration, as etcd's log tells it. */
async function describe(config: Config): Promise<Record<string, unknown>> {
  const { memberDir, walDir } = dataDirPaths(config.dataDir, config.walDir);
  return {
    "etcd-version": ETCD_VERSION,
    "git-sha": `etcd-ts-${OWN_VERSION}`,
    "go-version": `node${process.versions.node}`,
    "go-os": process.platform,
    "go-arch": process.arch === "x64" ? "amd64" : process.arch,
    "max-cpu-set": os.availableParallelism(),
    "max-cpu-available": os.cpus().length,
    "member-initialized": await walExists(walDir),
    name: config.name,
    "data-dir": config.dataDir,
    "wal-dir": config.walDir ?? "",
    "wal-dir-dedicated": config.walDir ?? "",
    "member-dir": memberDir,
    "force-new-cluster": config.forceNewCluster,
    "heartbeat-interval": goDuration(config.tickMs),
    "election-timeout": goDuration(electionTimeoutMs(config)),
    "initial-election-tick-advance": config.initialElectionTickAdvance,
    "snapshot-count": config.snapshotCount,
    "max-wals": config.maxWalFiles,
    "max-snapshots": config.maxSnapshotFiles,
    "snapshot-catchup-entries": config.snapshotCatchupEntries,
    "initial-advertise-peer-urls": config.advertisePeerUrls,
    "listen-peer-urls": config.listenPeerUrls,
    "advertise-client-urls": config.advertiseClientUrls,
    "listen-client-urls": config.listenClientUrls,
    "listen-metrics-urls": config.listenMetricsUrls,
    cors: config.cors,
    "host-whitelist": config.hostWhitelist,
    "initial-cluster": config.initialClusterText,
    "initial-cluster-state": config.isNewCluster ? "new" : "existing",
    "initial-cluster-token": config.initialClusterToken,
    "quota-backend-bytes": config.quotaBackendBytes,
    "max-request-bytes": config.maxRequestBytes,
    "max-concurrent-streams": config.maxConcurrentStreams,
    "pre-vote": config.preVote,
    "initial-corrupt-check": config.initialCorruptCheck,
    "corrupt-check-time-interval": goDuration(config.corruptCheckIntervalMs),
    "compact-check-time-enabled": config.compactHashCheck,
    "compact-check-time-interval": goDuration(config.compactHashCheckIntervalMs),
    "auto-compaction-mode": config.autoCompactionMode,
    "auto-compaction-retention":
      config.autoCompactionMode === "periodic"
        ? goDuration(config.autoCompactionRetention)
        : String(config.autoCompactionRetention),
    "auto-compaction-interval":
      config.autoCompactionMode === "periodic" ? goDuration(config.autoCompactionRetention) : "",
    "discovery-url": config.discoveryUrl,
    "discovery-proxy": "",
    "downgrade-check-interval": goDuration(config.downgradeCheckIntervalMs),
  };
}

/**
 * A real etcd went on with the directory while our database lay beside, and its snapshot let the log before it go: what
 * was acknowledged then is in its database alone. Which of the two is to be kept is not for us to say.
 */
async function refuseIfOvertaken(paths: DataDirPaths, snaps: SnapStore, snapshotIndex: number): Promise<void> {
  const { boltFile, backendFile } = paths;
  if ((await systemFiles.exists(snaps.databasePath(snapshotIndex))) || !(await systemFiles.exists(boltFile))) return;
  const index = indexOfDatabase(boltFile, "bbolt");
  if (index === undefined || index < snapshotIndex) return;
  throw new Error(
    `${boltFile} is at index ${index} and ${backendFile} before ${snapshotIndex}: another etcd went on with the one; ` +
      "move the other one away",
  );
}

/** The data dir of a real etcd that was stopped: its database is taken over once, and left as it is. */
async function adoptBoltFile(paths: DataDirPaths, logger: Logger): Promise<void> {
  const { boltFile, backendFile } = paths;
  if ((await systemFiles.exists(backendFile)) || !(await systemFiles.exists(boltFile))) return;
  const { rows, revision } = await importBolt({ boltPath: boltFile, backendPath: backendFile });
  logger.info("took over the database of another etcd", { path: boltFile, rows, revision });
}
