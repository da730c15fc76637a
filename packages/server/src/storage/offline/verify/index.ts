/**
 * `verify`: reads everything a stopped member has on its disk, compares the parts with one another, and says what is
 * damaged and what that means. Changes nothing, not even the time of a directory.
 */
import fs from "node:fs";
import path from "node:path";
import { hexId } from "../../../lib/bytes.ts";
import { type DataDirPaths, dataDirPaths } from "../../data-dir.ts";
import { refuseIfInUse } from "../../lock.ts";
import { snapDatabaseName } from "../../snap/snap-store.ts";
import { NoDatabaseError, OfflineError } from "../errors.ts";
import type { JobOptions } from "../job.ts";
import { jobOf } from "../job.ts";
import { type BackendKind, backendKind, databaseFile, indexOfDatabase, newerBeside } from "../member-dir.ts";
import { verifyBoltFile } from "./bolt-file.ts";
import { verifyLmdbFile } from "./lmdb-file.ts";
import { type LogContent, membersAt, type SnapContent, verifyLog, verifySnaps } from "./log.ts";
import { type Finding, Report, type Verdict } from "./report.ts";

export type { Finding, Severity, Verdict } from "./report.ts";

export interface VerifyOptions extends JobOptions {
  readonly dataDir: string;
  /** Empty: inside the data directory. */
  readonly walDir: string;
}

export interface Verified {
  readonly verdict: Verdict;
  readonly findings: readonly Finding[];
  /** Problems beyond those that are told, by file. */
  readonly untold: ReadonlyMap<string, number>;
  readonly database: string;
  /** `none`: the database is gone. */
  readonly backend: BackendKind | "none";
  readonly sizeBytes: number;
  readonly rows: number;
  readonly revision: number;
  readonly consistentIndex: number;
  /** As `snapshot status` prints it, to be compared with other members' of the same index; undefined: unreadable. */
  readonly hash: number | undefined;
  readonly memberId: bigint | undefined;
  readonly clusterId: bigint | undefined;
  readonly lastIndex: number;
  readonly commit: number;
}

/** Undefined: there is no database, but there is a log. Throws when there is neither. */
function backendOf(paths: DataDirPaths): BackendKind | undefined {
  try {
    return backendKind(paths);
  } catch (error) {
    if (!(error instanceof NoDatabaseError) || !fs.existsSync(paths.memberDir) || !hasLog(paths.walDir)) throw error;
    return undefined;
  }
}

function hasLog(walDir: string): boolean {
  try {
    return fs.readdirSync(walDir).some((name) => name.endsWith(".wal"));
  } catch {
    return false;
  }
}

const receivedDatabase = (paths: DataDirPaths, snap: SnapContent): string =>
  path.join(paths.snapDir, snapDatabaseName(snap.index));

function reportNoDatabase(
  paths: DataDirPaths,
  log: LogContent | undefined,
  snap: SnapContent | undefined,
  report: Report,
): undefined {
  const received = snap && receivedDatabase(paths, snap);
  const file = databaseFile(paths, "lmdb");
  if (received !== undefined && fs.existsSync(received)) {
    report.add("repairable", file, "there is no database", `the next start makes it of ${received} and the log`);
  } else if (!snap && log?.firstIndex === 1 && log.snapshots.every(({ index }) => index === 0)) {
    report.add("repairable", file, "there is no database", "the log is whole, and the next start makes it of that");
  } else {
    const from = snap ? snap.index : (log?.firstIndex ?? 1) - 1;
    report.add(
      "lost",
      file,
      "there is no database",
      `all keys, leases, users and alarms as of index ${from} are lost to this member; the log has what came after ` +
        "that. Restore a snapshot, or remove the member and add it anew",
    );
  }
  return undefined;
}

/** The database that ours was made of may still be there; with a log that goes on from it, it does. */
function tellOfBeside(
  paths: DataDirPaths,
  inForce: BackendKind | undefined,
  { log, snap }: { readonly log: LogContent | undefined; readonly snap: SnapContent | undefined },
  report: Report,
): void {
  if (inForce !== "lmdb" || !log || report.isLost(paths.walDir) || !fs.existsSync(paths.boltFile)) return;
  const index = indexOfDatabase(paths.boltFile, "bbolt");
  if (index === undefined || index < (snap?.index ?? 0) || index + 1 < log.firstIndex || index > log.lastIndex) return;
  report.add(
    "note",
    paths.boltFile,
    `it is at index ${index}, and the log has everything after that`,
    `when \`etcdutl snapshot status\` finds it whole, move ${paths.backendFile} away: the next start takes this one ` +
      "over and applies the log, and nothing is lost",
  );
}

/** Throws when there is no member to look at, or one that is running. */
export async function verifyDataDir(options: VerifyOptions): Promise<Verified> {
  const paths = dataDirPaths(options.dataDir, options.walDir);
  const { progress } = jobOf(options);
  const backend = backendOf(paths);
  const database = databaseFile(paths, backend ?? "lmdb");
  if (backend && !fs.statSync(database).isFile()) throw new OfflineError(`${database} is no file`);
  await refuseIfInUse(paths);
  const report = new Report();
  const log = await verifyLog(paths.walDir, report);
  const snap = fs.existsSync(paths.snapDir) ? verifySnaps(paths.snapDir, log, report) : undefined;
  const size = backend ? fs.statSync(database).size : 0;
  const onProgress = (bytes: number) => progress("verifying", Math.min(bytes, size), size);
  const content =
    backend === undefined
      ? reportNoDatabase(paths, log, snap, report)
      : backend === "lmdb"
        ? await verifyLmdbFile(database, report, onProgress)
        : verifyBoltFile(database, report, onProgress);
  const index = content?.facts.consistentIndex ?? 0;
  const newer = backend && newerBeside(paths, backend);
  if (content && log && log.entries > 0 && index > log.lastIndex) {
    report.add(
      "lost",
      database,
      `it is at index ${index}, and the log ends with ${log.lastIndex}`,
      "entries of the log are lost to this member",
    );
  }
  if (report.isLost(database)) tellOfBeside(paths, backend, { log, snap }, report);
  if (newer) {
    const isBehindSnapshot = snap !== undefined && index < snap.index;
    report.add(
      isBehindSnapshot ? (newer.index >= snap.index ? "repairable" : "lost") : "note",
      newer.path,
      `it is at index ${newer.index}, ahead of ${database} at ${newer.inForceIndex}: another program went on with it`,
      isBehindSnapshot
        ? `do not remove it: it holds what ${database} lacks. Move ${database} away, and this one is in force`
        : "the log still holds what lies between, and the next start of this server applies it",
    );
  }
  if (content && snap && index < snap.index && !(newer && newer.index >= snap.index)) {
    const received = receivedDatabase(paths, snap);
    const isThere = fs.existsSync(received);
    report.add(
      isThere ? "repairable" : "lost",
      database,
      `it is at index ${index}, and the snapshot at ${snap.index}`,
      isThere
        ? `the next start takes ${received} in its place`
        : "what lies between is lost to this member: restore a snapshot, or remove the member and add it anew",
    );
  }
  if (content && log && (snap || log.firstIndex === 1)) {
    const expected = membersAt(index, snap, log);
    for (const id of expected) {
      if (content.facts.memberIds.delete(id)) continue;
      report.add(
        "repairable",
        database,
        `member ${hexId(id)} is in the log and not in the database`,
        "the server takes the members from snapshot and log",
      );
    }
    for (const id of content.facts.memberIds) {
      report.add(
        "repairable",
        database,
        `member ${hexId(id)} is in the database and not in the log`,
        "the server takes the members from snapshot and log",
      );
    }
    if (expected.size > 0 && !expected.has(log.memberId)) {
      report.add("note", paths.walDir, `member ${hexId(log.memberId)} is not in its own cluster`, "it was removed");
    }
  }
  return {
    verdict: report.verdict,
    findings: report.findings,
    untold: report.untold,
    database,
    backend: backend ?? "none",
    sizeBytes: content?.sizeBytes ?? size,
    rows: content?.facts.rows ?? 0,
    revision: content?.facts.revision ?? 0,
    consistentIndex: index,
    hash: content?.hash,
    memberId: log?.memberId,
    clusterId: log?.clusterId,
    lastIndex: log?.lastIndex ?? 0,
    commit: log?.commit ?? 0,
  };
}
