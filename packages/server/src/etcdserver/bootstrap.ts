/**
 * From a data dir to a member that can start: a new one is made to look like one that was stopped a moment ago, then both
 * go the same way.
 *
 *   new      the WAL gets the first configuration: one entry for each member of `--initial-cluster`, term 1, committed
 *   restart  newest `.snap` that the WAL vouches for -> members; WAL behind it -> the log; the backend's consistent index
 *            says which of its entries have had their effect
 */
import { hexId } from "../lib/bytes.ts";
import { humanBytes } from "../lib/go-format.ts";
import type { Logger } from "../lib/log.ts";
import { Cluster, type ClusterOptions, encodeConfChangeContext, type Member } from "../membership/index.ts";
import { Metadata } from "../pb/etcdserverpb.ts";
import {
  ConfChange,
  ConfChangeType,
  type ConfState,
  Entry,
  EntryType,
  type HardState,
  type Snapshot as RaftSnapshot,
} from "../pb/raftpb.ts";
import { emptyConfState, MemoryStorage } from "../raft/index.ts";
import {
  type Backend,
  createWal,
  openWal,
  type OpenedWal,
  readConsistentIndex,
  type SnapObserver,
  SnapStore,
  validSnapshots,
  type Wal,
  WalError,
  type WalOptions,
  walExists,
} from "../storage/index.ts";
import { BootstrapError } from "./bootstrap-error.ts";
import { joinRunningCluster, type RemoteMembers, verifyInitialCluster } from "./join.ts";
import { SERVER_VERSION } from "./limits.ts";
import type { PeerUrlDeps, ResolveHost } from "./peer-urls.ts";
import type { ServerConfig } from "./server-config.ts";

export interface BootstrapDeps {
  readonly config: ServerConfig;
  readonly logger: Logger;
  readonly backend: Backend;
  readonly walDir: string;
  readonly snapDir: string;
  readonly walOptions: WalOptions;
  readonly snapObserver?: SnapObserver | undefined;
  readonly onVersion: NonNullable<ClusterOptions["onVersion"]>;
  /** Puts the database that came with the leader's snapshot at this index in the place of the backend's content. */
  adoptDatabase(snaps: SnapStore, snapshotIndex: number): Promise<void>;
  /** Members that may be running already. */
  readonly remote: RemoteMembers;
  readonly resolveHost: ResolveHost;
}

/** What a member starts from. The WAL is open; its new owner closes it. */
export interface Bootstrapped {
  readonly cluster: Cluster;
  readonly storage: MemoryStorage;
  readonly wal: Wal;
  readonly snaps: SnapStore;
  /** 0 without a snapshot. */
  readonly snapshotIndex: number;
  readonly confState: ConfState;
  readonly consistentIndex: number;
  readonly isNew: boolean;
  /** Members of the cluster that is being joined: to be talked to before the log says who they are. */
  readonly remotes: readonly Member[];
}

export async function bootstrap(deps: BootstrapDeps): Promise<Bootstrapped> {
  const { config, logger, backend, walDir } = deps;
  const clusterOptions: ClusterOptions = { logger, serverVersion: SERVER_VERSION, onVersion: deps.onVersion };
  const snaps = new SnapStore({ dir: deps.snapDir, clock: deps.walOptions.clock, logger, observer: deps.snapObserver });
  await snaps.removeTemporaries();
  const isNew = !(await walExists(walDir));
  const remotes: Member[] = [];
  if (!isNew && config.discoveryUrl !== "") {
    logger.warn("discovery token is ignored since cluster already initialized; valid logs are found", {
      "wal-dir": walDir,
    });
  }
  if (isNew) {
    const wal = config.isNewCluster ? await createFirstWal(deps, clusterOptions) : await joinCluster(deps, remotes);
    await wal.close();
  }

  const newest = isNew ? undefined : await openAtNewestSnapshot(deps, snaps);
  const snapshot = isNew
    ? undefined
    : (newest?.snapshot ?? (await snaps.loadNewestAvailable(await readWalError(validSnapshots(walDir, deps)))));
  let { index: consistentIndex } = readConsistentIndex(backend);
  const snapshotIndex = snapshot?.metadata.index ?? 0;
  if (snapshot) {
    logger.info("recovered v2 store from snapshot", {
      "snapshot-index": snapshotIndex,
      "snapshot-size": humanBytes(snapshot.data?.length ?? 0),
    });
    if (consistentIndex < snapshotIndex) {
      // Stopped between the saving of a received snapshot and its installation.
      try {
        await deps.adoptDatabase(snaps, snapshotIndex);
      } catch (error) {
        await newest?.opened.wal.close();
        const reason = error instanceof Error ? error.message : String(error);
        throw new BootstrapError(`failed to recover v3 backend from snapshot: ${reason}`, { cause: error });
      }
      ({ index: consistentIndex } = readConsistentIndex(backend));
    }
    logger.info("recovered v3 backend from snapshot", {
      "backend-size-bytes": backend.sizeBytes(),
      "backend-size": humanBytes(backend.sizeBytes()),
      "backend-size-in-use-bytes": backend.sizeInUseBytes(),
      "backend-size-in-use": humanBytes(backend.sizeInUseBytes()),
    });
  } else if (!isNew) {
    logger.info("No snapshot found. Recovering WAL from scratch!");
  }

  const start = { index: snapshotIndex, term: snapshot?.metadata.term ?? 0 };
  const opened = newest?.opened ?? (await readWalError(openWal(walDir, start, deps.walOptions)));
  try {
    const { nodeId, clusterId } = Metadata.decode(opened.metadata);
    const cluster = new Cluster(clusterOptions);
    cluster.setId(nodeId, clusterId);
    cluster.recover(snapshot?.data, backend);
    let { hardState, entries } = opened;
    if (entries.length === 0 && snapshotIndex === 0 && hardState.term === 0 && config.isNewCluster) {
      // Stopped between the making of the log and its first entries.
      ({ hardState, entries } = await writeFirstEntries(deps, clusterOptions, opened.wal, nodeId));
    }
    const standsAlone = config.forceNewCluster && !isNew;
    if (standsAlone) {
      ({ hardState, entries } = await standAlone(deps, opened.wal, {
        hardState,
        entries,
        snapshot,
        nodeId,
        clusterId,
        consistentIndex,
      }));
    }
    // A commit that only moved on may not have been synced; what the backend has applied was committed.
    const lastIndex = entries.at(-1)?.index ?? snapshotIndex;
    const commit = Math.max(hardState.commit, Math.min(consistentIndex, lastIndex), snapshotIndex);
    if (consistentIndex > lastIndex) {
      throw new BootstrapError(
        `the backend has applied index ${consistentIndex}, but the write-ahead log ends at ${lastIndex}: ` +
          "they do not belong together, or a part of the log is missing",
      );
    }
    if (!standsAlone) {
      logger.info(isNew ? "starting local member" : "restarting local member", {
        "cluster-id": hexId(clusterId),
        "local-member-id": hexId(nodeId),
        ...(isNew ? {} : { "commit-index": commit }),
      });
    }
    const storage = new MemoryStorage();
    if (snapshot) storage.applySnapshot(snapshot);
    storage.setHardState({ ...hardState, commit });
    storage.append(entries);
    return {
      cluster,
      storage,
      wal: opened.wal,
      snaps,
      snapshotIndex,
      confState: snapshot?.metadata.confState ?? emptyConfState(),
      consistentIndex,
      isNew,
      remotes,
    };
  } catch (error) {
    await opened.wal.close();
    throw error;
  }
}

/**
 * The usual start: the newest `.snap` file is one that the log vouches for, so only the log behind it has to be read.
 * `undefined` when that is not so, or something is damaged: then all of the log says which snapshots may be used.
 */
async function openAtNewestSnapshot(
  { walDir, walOptions }: BootstrapDeps,
  snaps: SnapStore,
): Promise<{ readonly snapshot: RaftSnapshot; readonly opened: OpenedWal } | undefined> {
  const snapshot = await snaps.newest();
  if (!snapshot) return undefined;
  const { index, term } = snapshot.metadata;
  try {
    const opened = await openWal(walDir, { index, term }, walOptions);
    if (opened.hardState.commit >= index) return { snapshot, opened };
    await opened.wal.close();
  } catch (error) {
    if (!(error instanceof WalError)) throw error;
  }
  return undefined;
}

/** Damage of the log, in etcd's words. */
async function readWalError<T>(reading: Promise<T>): Promise<T> {
  try {
    return await reading;
  } catch (error) {
    if (error instanceof WalError) {
      throw new BootstrapError(`failed to read WAL, cannot be repaired: ${error.message}`, { cause: error });
    }
    throw error;
  }
}

async function createFirstWal(deps: BootstrapDeps, clusterOptions: ClusterOptions): Promise<Wal> {
  const { config } = deps;
  await verifyInitialCluster(config, urlDeps(deps));
  const { cluster, localId } = initialCluster(config, clusterOptions);
  const others = cluster.members().filter((member) => member.id !== localId);
  if (others.length > 0) {
    const urls = others.flatMap((member) => member.peerUrls).sort();
    const existing = await deps.remote.members(urls, { isQuiet: true });
    if (existing?.members.some((member) => member.id === localId && member.clientUrls.length > 0)) {
      throw new BootstrapError(`member ${hexId(localId)} has already been bootstrapped`);
    }
  }
  const metadata = Metadata.encode({ nodeId: localId, clusterId: cluster.id });
  const wal = await createWal(deps.walDir, metadata, deps.walOptions);
  try {
    await writeFirstEntries(deps, clusterOptions, wal, localId);
  } catch (error) {
    await wal.close();
    throw error;
  }
  return wal;
}

function urlDeps({ walOptions, logger, resolveHost }: BootstrapDeps): PeerUrlDeps {
  return { clock: walOptions.clock, logger, resolveHost };
}

function initialCluster(config: ServerConfig, clusterOptions: ClusterOptions): { cluster: Cluster; localId: bigint } {
  const urls = config.initialCluster;
  const cluster = Cluster.fromInitial({ urls, token: config.initialClusterToken }, clusterOptions);
  const local = cluster.memberByName(config.name);
  if (!local) {
    throw new BootstrapError(
      `couldn't find local name ${JSON.stringify(config.name)} in the initial cluster configuration`,
    );
  }
  return { cluster, localId: local.id };
}

/**
 * `--initial-cluster-state=existing`: ids come from the running cluster, which knows this member by its peer URLs. The
 * log begins empty; the leader sends what is in it.
 */
async function joinCluster(deps: BootstrapDeps, remotes: Member[]): Promise<Wal> {
  const { localId, clusterId, others } = await joinRunningCluster(deps.config, deps.remote, urlDeps(deps));
  remotes.push(...others);
  return createWal(deps.walDir, Metadata.encode({ nodeId: localId, clusterId }), deps.walOptions);
}

/** One entry for each member, in the order of their ids, as all members of the cluster write them. */
async function writeFirstEntries(
  deps: BootstrapDeps,
  clusterOptions: ClusterOptions,
  wal: Wal,
  localId: bigint,
): Promise<{ hardState: HardState; entries: Entry[] }> {
  const { cluster, localId: expectedId } = initialCluster(deps.config, clusterOptions);
  if (localId !== expectedId) {
    throw new BootstrapError(
      `the write-ahead log belongs to member ${hexId(localId)}, the configuration names ${hexId(expectedId)}`,
    );
  }
  const entries = cluster.members().map((member, i) => {
    const context = encodeConfChangeContext({ member, isPromote: false });
    const change = { id: 0n, type: ConfChangeType.ConfChangeAddNode, nodeId: member.id, context };
    return Entry.create({ term: 1, index: i + 1, type: EntryType.EntryConfChange, data: ConfChange.encode(change) });
  });
  const hardState = { term: 1, vote: 0n, commit: entries.length };
  await wal.save(hardState, entries);
  return { hardState, entries };
}

/**
 * `--force-new-cluster`: what was not committed is dropped, and changes that remove every other member are appended as
 * committed, so that this one goes on alone with its data and ids.
 */
async function standAlone(
  deps: BootstrapDeps,
  wal: Wal,
  from: {
    readonly hardState: HardState;
    readonly entries: Entry[];
    readonly snapshot: RaftSnapshot | undefined;
    readonly nodeId: bigint;
    readonly clusterId: bigint;
    readonly consistentIndex: number;
  },
): Promise<{ hardState: HardState; entries: Entry[] }> {
  const { logger } = deps;
  const { hardState, snapshot, nodeId } = from;
  const commit = Math.max(hardState.commit, from.consistentIndex);
  const entries = from.entries.filter((entry) => entry.index <= commit);
  const dropped = from.entries.length - entries.length;
  if (dropped > 0) {
    logger.info("discarding uncommitted WAL entries", {
      "entry-index": from.entries[entries.length]?.index,
      "commit-index-from-wal": commit,
      "number-of-discarded-entries": dropped,
    });
  }
  const { voters = [], learners: first = [] } = snapshot?.metadata.confState ?? {};
  const ids = new Set<bigint>([...voters, ...first]);
  const learners = new Set<bigint>(first);
  for (const entry of entries) {
    if (entry.type !== EntryType.EntryConfChange || !entry.data) continue;
    const change = ConfChange.decode(entry.data);
    if (change.type === ConfChangeType.ConfChangeUpdateNode) continue;
    if (change.type === ConfChangeType.ConfChangeRemoveNode) ids.delete(change.nodeId);
    else ids.add(change.nodeId);
    if (change.type === ConfChangeType.ConfChangeAddLearnerNode) learners.add(change.nodeId);
    else learners.delete(change.nodeId);
  }
  let index = commit;
  const appended: Entry[] = [];
  const append = (change: Parameters<typeof ConfChange.encode>[0]) => {
    index++;
    appended.push(
      Entry.create({ term: hardState.term, index, type: EntryType.EntryConfChange, data: ConfChange.encode(change) }),
    );
  };
  for (const id of [...ids].sort((a, b) => (a < b ? -1 : 1))) {
    if (id !== nodeId) append({ id: 0n, type: ConfChangeType.ConfChangeRemoveNode, nodeId: id });
  }
  if (!ids.has(nodeId)) {
    const member = { id: nodeId, name: "", peerUrls: deps.config.advertisePeerUrls, clientUrls: [], isLearner: false };
    const context = encodeConfChangeContext({ member, isPromote: false });
    append({ id: 0n, type: ConfChangeType.ConfChangeAddNode, nodeId, context });
  } else if (learners.has(nodeId)) {
    // One that is alone must have a vote.
    const member = { id: nodeId, name: "", peerUrls: [], clientUrls: [], isLearner: false };
    const context = encodeConfChangeContext({ member, isPromote: true });
    append({ id: 0n, type: ConfChangeType.ConfChangeAddNode, nodeId, context });
  }
  const standing = { ...hardState, commit: index };
  await wal.save(standing, appended);
  logger.info("forcing restart member", {
    "cluster-id": hexId(from.clusterId),
    "local-member-id": hexId(nodeId),
    "wal-commit-index": hardState.commit,
    "commit-index": index,
  });
  return { hardState: standing, entries: [...entries, ...appended] };
}
