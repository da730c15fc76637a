/**
 * `migrate`: a stopped member's database for another version of etcd (`--target-version`), or for the other engine
 * (`--to`). The log, the snapshots and the identity of the member stay as they are; both engines read them.
 *
 * The other engine: the new file is written under a temporary name, made durable, read back whole and compared by hash
 * with the old one; then it takes its name, and only then does the old one go.
 *
 *     to lmdb   db  ->  db + db.lmdb.tmp.migrate  ->  db + db.lmdb  ->  db.lmdb
 *     to bbolt  db.lmdb  ->  db.lmdb + db.tmp.migrate  ->  db.lmdb + db  ->  db
 *
 * At each step one file is in force and holds everything. Whoever runs it again goes on: leftovers are overwritten, and
 * of two files with equal hashes the old one goes.
 */
import fs from "node:fs";
import path from "node:path";
import type { Clock } from "../../lib/clock.ts";
import { hexId, utf8Bytes, utf8Text } from "../../lib/bytes.ts";
import type { Logger } from "../../lib/log.ts";
import { Metadata } from "../../pb/etcdserverpb.ts";
import { EntryType } from "../../pb/raftpb.ts";
import { Environment, type Store as Table } from "../backend/environment.ts";
import { withSum } from "../backend/sums.ts";
import { TABLES } from "../backend/types.ts";
import { patchMeta } from "../bolt/patch.ts";
import { type DataDirPaths, dataDirPaths } from "../data-dir.ts";
import { lockDataDir, lockForReading } from "../lock.ts";
import { readWal, validSnapshots } from "../wal/index.ts";
import { convert } from "./convert.ts";
import { OfflineError } from "./errors.ts";
import { type Job, type JobOptions, jobOf, keepModeAndOwner } from "./job.ts";
import {
  type BackendKind,
  backendKind,
  databaseFile,
  otherKind,
  refuseNewerBeside,
  removeWorkFiles,
} from "./member-dir.ts";
import { bytesToWrite, requireSpace } from "./space.ts";
import { damageAsError, hashOfBuckets, openStore, type Store, strangeBuckets } from "./store.ts";
import { inspectInThreads } from "./tasks.ts";

interface CommonOptions extends JobOptions {
  readonly dataDir: string;
  /** Empty: inside the data directory. */
  readonly walDir: string;
  readonly clock?: Clock | undefined;
  readonly logger: Logger;
  readonly isDryRun?: boolean | undefined;
}

// ------------------------------------------------------------------------------------------------- another version

export interface Version {
  readonly major: number;
  readonly minor: number;
}

const versionText = ({ major, minor }: Version): string => `${major}.${minor}`;
const compareVersions = (a: Version, b: Version): number => a.major - b.major || a.minor - b.minor;

/** The flag's value; the texts are etcd's. */
export function parseTargetVersion(text: string): Version {
  if (text.split(".").length !== 2) {
    throw new OfflineError(`wrong target version format, expected "X.Y", got ${JSON.stringify(text)}`);
  }
  const match = /^(\d+)\.(\d+)$/.exec(text);
  if (!match) throw new OfflineError(`failed to parse target version: ${text}.0 is not in dotted-tri format`);
  const version = { major: Number(match[1]), minor: Number(match[2]) };
  if (compareVersions(version, { major: 3, minor: 5 }) < 0) {
    throw new OfflineError(`target version ${JSON.stringify(versionText(version))} not supported. Minimal "3.5"`);
  }
  return version;
}

export interface MigrateVersionOptions extends CommonOptions {
  readonly target: Version;
  readonly force: boolean;
}

export interface VersionMigration {
  readonly path: string;
  readonly from: string;
  readonly to: string;
  readonly isChanged: boolean;
}

const STORAGE_VERSION = utf8Bytes("storageVersion");
const TERM = utf8Bytes("term");

function detectVersion(store: Store): Version {
  const stored = store.get("meta", STORAGE_VERSION);
  if (stored) {
    const match = /^(\d+)\.(\d+)\.\d+/.exec(utf8Text(stored));
    if (!match) throw new OfflineError(`the storage version ${JSON.stringify(utf8Text(stored))} is none`);
    return { major: Number(match[1]), minor: Number(match[2]) };
  }
  const term = store.get("meta", TERM);
  if (!term || term.every((byte) => byte === 0)) throw new OfflineError("missing term information");
  return { major: 3, minor: 5 };
}

/** What 3.6 added and 3.5 cannot replay: a request of field 9900, a test of downgrades, with a version in it. */
const DOWNGRADE_VERSION_TEST = 9900;

/** The version of etcd that the entries behind the last snapshot need; undefined: any. */
async function versionOfWal(paths: DataDirPaths): Promise<Version | undefined> {
  const last = (await validSnapshots(paths.walDir)).at(-1);
  const { entries } = await readWal(paths.walDir, last ?? { index: 0, term: 0 });
  let highest: Version | undefined;
  for (const { type, data } of entries) {
    if (type !== EntryType.EntryNormal || !data) continue;
    for (const test of fieldsOf(data, DOWNGRADE_VERSION_TEST)) {
      const [text] = fieldsOf(test, 1);
      const match = /^(\d+)\.(\d+)/.exec(utf8Text(text ?? new Uint8Array(0)));
      for (const found of [{ major: 3, minor: 6 }, match && { major: Number(match[1]), minor: Number(match[2]) }]) {
        if (found && (!highest || compareVersions(found, highest) > 0)) highest = found;
      }
    }
  }
  return highest;
}

/** The contents of a field of a message, where that is bytes. What is no message has none. */
function fieldsOf(message: Uint8Array, wanted: number): Uint8Array[] {
  const found: Uint8Array[] = [];
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = message[at++];
      if (byte === undefined) return Number.NaN;
      value += (byte & 0x7f) * scale;
      if (byte < 128) return value;
    }
  };
  while (at < message.length) {
    const tag = varint();
    const kind = tag % 8;
    if (kind === 0) varint();
    else if (kind === 1) at += 8;
    else if (kind === 5) at += 4;
    else if (kind === 2) {
      const length = varint();
      if (!(at + length <= message.length)) return found;
      if (Math.floor(tag / 8) === wanted) found.push(message.subarray(at, at + length));
      at += length;
    } else return found;
  }
  return found;
}

/** Why the schema cannot go from one version to the other; undefined when it can. */
function obstacle(current: Version, target: Version, wal: Version | undefined): string | undefined {
  if (current.major !== target.major) {
    return "cannot create migration plan: changing major storage version is not supported";
  }
  // 3.6 is the only version whose schema differs from the one before.
  for (let minor = current.minor; minor !== target.minor; ) {
    const isUpgrade = minor < target.minor;
    const higher = isUpgrade ? minor + 1 : minor;
    if (higher !== 6) return `cannot create migration plan: version "${current.major}.${higher}.0" is not supported`;
    minor += isUpgrade ? 1 : -1;
  }
  if (compareVersions(target, current) < 0 && wal && compareVersions(target, wal) < 0) {
    return (
      `cannot downgrade storage, WAL contains newer entries, as the target version (${versionText(target)}.0) is ` +
      `lower than the version (${versionText(wal)}.0) detected from WAL logs`
    );
  }
  return undefined;
}

export async function migrateVersion(options: MigrateVersionOptions): Promise<VersionMigration> {
  const { logger, target } = options;
  const job = jobOf(options);
  const paths = dataDirPaths(options.dataDir, options.walDir);
  const kind = backendKind(paths);
  const file = databaseFile(paths, kind);
  const lock = await (options.isDryRun ? lockForReading : lockDataDir)(paths);
  try {
    refuseNewerBeside(paths, kind);
    const store = openStore(file, kind);
    let current: Version;
    try {
      current = detectVersion(store);
    } catch (error) {
      logger.error(
        "failed to detect storage version. Please make sure you are using data dir from etcd v3.5 and older",
      );
      throw damageAsError(file, error);
    } finally {
      store.close();
    }
    const result = { path: file, from: versionText(current), to: versionText(target) };
    if (compareVersions(current, target) === 0) {
      logger.info("storage version up-to-date", { "storage-version": versionText(current) });
      return { ...result, isChanged: false };
    }
    const problem = obstacle(current, target, await versionOfWal(paths));
    if (problem !== undefined) {
      if (!options.force) throw new OfflineError(problem);
      logger.info("normal migrate failed, trying with force", { error: problem });
    }
    if (options.isDryRun) return { ...result, isChanged: true };
    const isStored = compareVersions(target, { major: 3, minor: 6 }) >= 0;
    await setStorageVersion(file, kind, isStored ? utf8Bytes(`${versionText(target)}.0`) : null, job);
    if (problem === undefined)
      logger.info("updated storage version", { "new-storage-version": `${versionText(target)}.0` });
    else if (isStored) logger.warn("forcefully set storage version", { "storage-version": versionText(target) });
    else logger.warn("forcefully cleared storage version");
    return { ...result, isChanged: true };
  } finally {
    await lock.release();
  }
}

async function setStorageVersion(file: string, kind: BackendKind, value: Uint8Array | null, job: Job): Promise<void> {
  if (kind === "lmdb") {
    const environment = new Environment({ path: file });
    try {
      const meta = environment.stores[TABLES.indexOf("meta")] as Table;
      environment.root.transactionSync(() => {
        if (value === null) meta.removeSync(STORAGE_VERSION);
        else meta.putSync(STORAGE_VERSION, meta.sumBytes > 0 ? withSum(STORAGE_VERSION, value) : value);
      }, 2);
    } finally {
      await environment.close();
    }
    return;
  }
  const set = [[STORAGE_VERSION, value]] as const;
  if (await patchMeta(file, set, job.files)) return;
  const store = openStore(file, kind);
  try {
    const temporary = `${file}.tmp.migrate`;
    await convert(store, {
      to: kind,
      path: temporary,
      job,
      what: "migrating",
      changes: { set: new Map([["meta", set]]) },
    });
    keepModeAndOwner(file, temporary);
    await job.files.rename(temporary, file);
    await job.files.syncDirectory(path.dirname(file));
  } finally {
    store.close();
  }
}

// ------------------------------------------------------------------------------------------------- another engine

export interface MigrateEngineOptions extends CommonOptions {
  readonly to: BackendKind;
}

export interface EngineMigration {
  /** The database that is in force now, or with `isDryRun` would be. */
  readonly path: string;
  readonly from: BackendKind;
  readonly to: BackendKind;
  /** False: it was of that kind already. */
  readonly isChanged: boolean;
  readonly beforeBytes: number;
  readonly afterBytes: number;
  /** As `snapshot status` prints it, of the old and of the new database. */
  readonly hash: number;
  readonly clusterId: bigint;
  readonly memberId: bigint;
}

export async function migrateEngine(options: MigrateEngineOptions): Promise<EngineMigration> {
  const { to, logger } = options;
  const job = jobOf(options);
  const paths = dataDirPaths(options.dataDir, options.walDir);
  const from = backendKind(paths);
  const lock = await (options.isDryRun ? lockForReading : lockDataDir)(paths);
  try {
    const identity = await identityOf(paths);
    const [old, fresh] = [databaseFile(paths, otherKind(to)), databaseFile(paths, to)];
    const common = { path: fresh, to, ...identity };
    refuseNewerBeside(paths, from);
    if (from === to) {
      const beforeBytes = fs.statSync(fresh).size;
      const same = { ...common, from, isChanged: false, beforeBytes, afterBytes: beforeBytes };
      return { ...same, hash: await settleLeftover(fresh, old, options, job) };
    }
    const store = openStore(old, from);
    try {
      const { sizeBytes: beforeBytes } = store;
      refuseStrangeBuckets(store, to);
      const result = { ...common, from, isChanged: true, beforeBytes };
      requireSpace(paths.snapDir, bytesToWrite({ path: old, from, to }), options);
      if (options.isDryRun) return { ...result, afterBytes: beforeBytes, hash: 0 };
      logger.info("migrating database", { from: old, to: fresh, ...hexIdentity(identity) });
      const { sizeBytes: afterBytes, hash } = await writeVerified(store, old, fresh, to, job);
      await job.files.removeTree(old);
      // LMDB's lock file belongs to its database.
      await job.files.removeTree(`${paths.backendFile}-lock`);
      await job.files.syncDirectory(paths.snapDir);
      logger.info("migrated database", { path: fresh, hash, ...hexIdentity(identity) });
      return { ...result, afterBytes, hash };
    } finally {
      store.close();
    }
  } finally {
    await lock.release();
  }
}

/** The old file goes, so nothing in it may be without a place in the new one. */
function refuseStrangeBuckets(store: Store, to: BackendKind): void {
  const strange = strangeBuckets(store);
  if (to === "bbolt" || strange.length === 0) return;
  throw new OfflineError(
    `${store.path} has buckets that no etcd makes and that a database of this server has no place for: ` +
      `${strange.map((name) => JSON.stringify(name)).join(", ")}`,
  );
}

const hexIdentity = ({ clusterId, memberId }: { readonly clusterId: bigint; readonly memberId: bigint }) => ({
  "cluster-id": hexId(clusterId),
  "member-id": hexId(memberId),
});

/** Who the member is, by its log: a directory whose log cannot be read is not migrated. */
async function identityOf(paths: DataDirPaths): Promise<{ readonly clusterId: bigint; readonly memberId: bigint }> {
  const last = (await validSnapshots(paths.walDir)).at(-1);
  const { metadata } = await readWal(paths.walDir, last ?? { index: 0, term: 0 });
  const { nodeId, clusterId } = Metadata.decode(metadata);
  return { clusterId, memberId: nodeId };
}

/** Writes, reads back, compares, and gives the new file its name. The old one is untouched. */
async function writeVerified(
  store: Store,
  old: string,
  fresh: string,
  to: BackendKind,
  job: Job,
): Promise<{ readonly sizeBytes: number; readonly hash: number }> {
  const temporary = `${fresh}.tmp.migrate`;
  await removeWorkFiles(fresh, job.files);
  try {
    const { sizeBytes, hash } = await convert(store, { to, path: temporary, job, what: "migrating", wantsHash: true });
    const readBack = await hashOf(temporary, to, (bytes) =>
      job.progress("verifying", Math.min(bytes, sizeBytes), sizeBytes),
    );
    if (readBack !== hash) {
      throw new OfflineError(
        `${temporary} reads back with hash ${readBack.toString(16)} instead of ${hash.toString(16)}`,
      );
    }
    job.signal?.throwIfAborted();
    keepModeAndOwner(old, temporary);
    await job.files.rename(temporary, fresh);
    await job.files.syncDirectory(path.dirname(fresh));
    return { sizeBytes, hash };
  } catch (error) {
    await job.files.removeTree(temporary);
    await removeWorkFiles(fresh, job.files);
    throw damageAsError(old, error);
  }
}

async function hashOf(file: string, kind: BackendKind, onProgress?: (bytesRead: number) => void): Promise<number> {
  if (kind === "bbolt") {
    const inspection = await inspectInThreads(file, onProgress);
    if (inspection && inspection.buckets === ETCD_BUCKETS) return inspection.hash;
  }
  const store = openStore(file, kind);
  try {
    return hashOfBuckets(store, onProgress);
  } finally {
    store.close();
  }
}

const ETCD_BUCKETS = 10;

/**
 * The member has the engine that was asked for. A file of the other beside it is what it was made of, by an interrupted
 * run or by a start of the server; it goes when its content is the same, and otherwise stays and is told of.
 */
async function settleLeftover(
  present: string,
  leftover: string,
  { logger, isDryRun }: MigrateEngineOptions,
  job: Job,
): Promise<number> {
  const kind: BackendKind = present.endsWith(".lmdb") ? "lmdb" : "bbolt";
  const hash = await hashOf(present, kind);
  logger.info("database is of this kind already", { path: present, hash });
  if (!fs.existsSync(leftover)) return hash;
  let other: number | undefined;
  try {
    other = await hashOf(leftover, kind === "lmdb" ? "bbolt" : "lmdb");
  } catch {
    other = undefined;
  }
  if (other !== hash) logger.warn("left an older database of another kind in place", { path: leftover });
  else if (!isDryRun) {
    await job.files.removeTree(leftover);
    await job.files.syncDirectory(path.dirname(leftover));
    logger.info("removed the database that this one was made of", { path: leftover, hash });
  }
  return hash;
}
