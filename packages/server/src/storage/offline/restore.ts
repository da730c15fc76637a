/**
 * `snapshot restore`: a data directory for the first start of a member, from a database that `snapshot save` wrote or
 * that was copied from a stopped member, of either kind. Keys, leases, users and alarms stay; the members are those of the new cluster.
 */
import fs from "node:fs";
import path from "node:path";
import { hexId, utf8Bytes } from "../../lib/bytes.ts";
import { type Clock, systemClock } from "../../lib/clock.ts";
import type { Logger } from "../../lib/log.ts";
import { Metadata } from "../../pb/etcdserverpb.ts";
import { ConfChange, ConfChangeType, Entry, EntryType } from "../../pb/raftpb.ts";
import type { Row } from "../bolt/index.ts";
import { dataDirPaths } from "../data-dir.ts";
import type { FileSystem } from "../file-system.ts";
import { encodeConfChangeContext, encodeV2Store, type Member, memberToJson, revisionKey } from "../schema/index.ts";
import { mainOfRevisionKey } from "../schema/revision.ts";
import { SnapStore } from "../snap/index.ts";
import { createWal } from "../wal/index.ts";
import { type Converted, convert, tellLeftOut } from "./convert.ts";
import { counterBytes, metaKeys, type SnapshotFile, startHashCheck } from "./database-file.ts";
import { OfflineError } from "./errors.ts";
import { FreshMember } from "./fresh-member.ts";
import { type InitialCluster, resolveInitialCluster } from "./initial-cluster.ts";
import { type Job, type JobOptions, jobOf } from "./job.ts";
import type { BackendKind } from "./member-dir.ts";
import { bytesToWrite, requireSpace } from "./space.ts";
import { type Changes, kindOfFile, openStore, type Store } from "./store.ts";

export interface RestoreOptions extends JobOptions {
  readonly snapshotPath: string;
  readonly dataDir: string;
  /** Empty: inside the data directory. */
  readonly walDir: string;
  readonly name: string;
  readonly initialCluster: string;
  readonly initialClusterToken: string;
  /** Comma-separated. */
  readonly initialAdvertisePeerUrls: string;
  readonly skipHashCheck: boolean;
  /** How far the revision moves on; more than 0 only with `markCompacted`. */
  readonly bumpRevision: bigint;
  readonly markCompacted: boolean;
  /** Only told in the log: address space costs nothing here. */
  readonly initialMemoryMapSize: bigint;
  readonly backend: BackendKind;
  readonly clock?: Clock | undefined;
  readonly logger: Logger;
  /** Only looks whether it could be done, and says what would be. */
  readonly isDryRun?: boolean | undefined;
}

/** What was made, or with `isDryRun` would be. */
export interface Restored {
  readonly dataDir: string;
  readonly walDir: string;
  readonly database: string;
  readonly backend: BackendKind;
  readonly clusterId: bigint;
  readonly memberId: bigint;
  readonly members: readonly Member[];
  readonly revision: number;
  /** Of the new database; of the snapshot when nothing was made. */
  readonly sizeBytes: number;
}

const TERM = 1;

export async function restoreSnapshot(options: RestoreOptions): Promise<Restored> {
  const { dataDir, logger, isDryRun = false } = options;
  const job = jobOf(options);
  const cluster = await resolveInitialCluster({
    name: options.name,
    initialCluster: options.initialCluster,
    token: options.initialClusterToken,
    peerUrls: options.initialAdvertisePeerUrls,
  });
  requireEmpty(dataDir);
  const fresh = new FreshMember(options, job.files);
  if (!isDryRun) await fresh.removeLeftovers();
  if (options.walDir !== "" && fs.existsSync(options.walDir))
    throw new OfflineError(`wal-dir "${options.walDir}" exists`);
  const paths = dataDirPaths(dataDir, options.walDir);
  const fields = {
    path: options.snapshotPath,
    "wal-dir": paths.walDir,
    "data-dir": dataDir,
    "snap-dir": paths.snapDir,
    "initial-memory-map-size": options.initialMemoryMapSize,
  };
  if (!isDryRun) logger.info("restoring snapshot", fields);
  const snapshot = startHashCheck(options.snapshotPath, { isRequired: !options.skipHashCheck, job });
  try {
    const database = options.backend === "lmdb" ? paths.backendFile : paths.boltFile;
    const result = (revision: number, sizeBytes: number): Restored => ({
      dataDir,
      walDir: paths.walDir,
      database,
      backend: options.backend,
      clusterId: cluster.clusterId,
      memberId: cluster.localId,
      members: cluster.members,
      revision,
      sizeBytes,
    });
    const kind = kindOfFile(options.snapshotPath);
    requireSpace(dataDir, bytesToWrite({ path: options.snapshotPath, from: kind, to: options.backend }), options);
    if (isDryRun) {
      await snapshot.verified();
      const store = openStore(options.snapshotPath, kind);
      const latest = latestRevision(store) + Number(options.bumpRevision);
      store.close();
      return result(latest, snapshot.bytes);
    }
    const { sizeBytes, revision } = await build(options, cluster, fresh, { job, snapshot });
    logger.info("restored snapshot", fields);
    return result(revision, sizeBytes);
  } catch (error) {
    if (!isDryRun) await fresh.abandon();
    throw error;
  } finally {
    await fresh.release();
    await snapshot.stop();
  }
}

function requireEmpty(dataDir: string): void {
  let names: string[];
  try {
    names = FreshMember.strangers(dataDir);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    // A path through a file fails where it is made; what is there and is no directory is refused here.
    if (code === "ENOENT" || (code === "ENOTDIR" && !fs.existsSync(dataDir))) return;
    throw new OfflineError(`data-dir "${dataDir}" not empty or could not be read`, { cause: error });
  }
  if (names.length > 0) {
    throw new OfflineError(`data-dir "${dataDir}" not empty or could not be read`);
  }
}

async function build(
  options: RestoreOptions,
  cluster: InitialCluster,
  fresh: FreshMember,
  from: { readonly job: Job; readonly snapshot: SnapshotFile },
): Promise<{ readonly sizeBytes: number; readonly revision: number }> {
  const { job } = from;
  await fresh.begin();
  const { sizeBytes, latest } = await writeDatabase(options, cluster, { ...from, snapDir: fresh.snapDir });
  tellChanges(options, cluster, latest);
  await fresh.prepareWal();
  await writeRaftState(options, cluster, { walDir: fresh.walDir, snapDir: fresh.snapDir, files: job.files });
  job.signal?.throwIfAborted();
  await fresh.finish();
  return { sizeBytes, revision: latest + Number(options.bumpRevision) };
}

/** The hash is computed beside the work; until it is known to be right nothing has a name that counts. */
async function writeDatabase(
  options: RestoreOptions,
  cluster: InitialCluster,
  to: { readonly job: Job; readonly snapshot: SnapshotFile; readonly snapDir: string },
): Promise<Converted & { readonly latest: number }> {
  const { job, snapshot } = to;
  // On one thread the hash comes first: a file that is not what it should be is not looked into.
  if (!job.hasThreads) await snapshot.verified();
  let outcome: { readonly converted: Converted; readonly latest: number } | { readonly error: unknown };
  try {
    const store = openStore(options.snapshotPath, kindOfFile(options.snapshotPath));
    try {
      const latest = latestRevision(store);
      tellLeftOut(store, options.backend, options.logger);
      const converted = await convert(store, {
        to: options.backend,
        path: path.join(to.snapDir, options.backend === "lmdb" ? "db.lmdb" : "db"),
        changes: changesFor(options, cluster, latest),
        job,
        what: "restoring",
      });
      outcome = { converted, latest };
    } finally {
      store.close();
    }
  } catch (error) {
    if (job.signal?.aborted) throw error;
    outcome = { error };
  }
  // A wrong hash explains whatever else was wrong.
  await snapshot.verified();
  if ("error" in outcome) throw outcome.error;
  return { ...outcome.converted, latest: outcome.latest };
}

function latestRevision(store: Store): number {
  const last = store.lastKey("key");
  return last ? mainOfRevisionKey(last) : 0;
}

function tellChanges(options: RestoreOptions, cluster: InitialCluster, latest: number): void {
  const { logger } = options;
  logger.info("Trimming membership information from the backend...");
  if (options.bumpRevision > 0n) {
    const bumped = latest + Number(options.bumpRevision);
    logger.info("bumping latest revision", {
      "latest-revision": latest,
      "bump-amount": options.bumpRevision,
      "new-latest-revision": bumped,
    });
    logger.info("marking revision compacted", { revision: bumped });
  }
  for (const member of cluster.members) {
    logger.info("added member", {
      "cluster-id": hexId(cluster.clusterId),
      "local-member-id": "0",
      "added-peer-id": hexId(member.id),
      "added-peer-peer-urls": member.peerUrls,
    });
  }
}

function changesFor(options: RestoreOptions, cluster: InitialCluster, latest: number): Changes {
  const meta: Row[] = [
    [metaKeys.consistentIndex, counterBytes(cluster.members.length)],
    [metaKeys.term, counterBytes(TERM)],
  ];
  const keys: Row[] = [];
  if (options.bumpRevision > 0n) {
    const bumped = latest + Number(options.bumpRevision);
    keys.push([revisionKey(bumped, 0), new Uint8Array(0)]);
    meta.push([metaKeys.scheduledCompactRevision, revisionKey(bumped, 0)]);
  }
  const memberRow = (member: Member): Row => [utf8Bytes(hexId(member.id)), utf8Bytes(memberToJson(member))];
  return {
    replaced: new Map([
      ["members", cluster.members.map(memberRow)],
      ["members_removed", []],
    ]),
    set: new Map([["meta", meta]]),
    ...(keys.length > 0 ? { appended: new Map([["key", keys]]) } : {}),
  };
}

/** The log and the `.snap` file of a cluster whose first entries added its members and were committed. */
async function writeRaftState(
  options: RestoreOptions,
  cluster: InitialCluster,
  to: { readonly walDir: string; readonly snapDir: string; readonly files: FileSystem },
): Promise<void> {
  const { clock = systemClock, logger } = options;
  const { members } = cluster;
  const quiet: Logger = { ...logger, isDebugEnabled: false, debug: () => {}, info: () => {} };
  const confState = {
    voters: members.map(({ id }) => id),
    learners: [],
    votersOutgoing: [],
    learnersNext: [],
    autoLeave: false,
  };
  const index = members.length;
  const metadata = Metadata.encode({ nodeId: cluster.localId, clusterId: cluster.clusterId });
  const wal = await createWal(to.walDir, metadata, { clock, logger: quiet, fileSystem: to.files });
  try {
    const entries = members.map((member, i) =>
      Entry.create({
        term: TERM,
        index: i + 1,
        type: EntryType.EntryConfChange,
        data: ConfChange.encode({
          id: 0n,
          type: ConfChangeType.ConfChangeAddNode,
          nodeId: member.id,
          context: encodeConfChangeContext({ member, isPromote: false }),
        }),
      }),
    );
    const first = members[0] as Member;
    await wal.save({ term: TERM, vote: first.id, commit: index }, entries);
    const data = encodeV2Store({
      members: new Map(members.map((member) => [member.id, { ...member, name: "", clientUrls: [] }])),
      removed: new Set(),
      version: undefined,
      foreign: {},
    });
    const snap = new SnapStore({ dir: to.snapDir, clock, logger: quiet, fileSystem: to.files });
    await snap.save({ data, metadata: { confState, index, term: TERM } });
    await wal.saveSnapshot({ index, term: TERM, confState });
  } finally {
    await wal.close();
  }
}
