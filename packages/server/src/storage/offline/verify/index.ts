/**
 * `verify`: reads everything a stopped member has on its disk, compares the parts with one another, and says what is
 * damaged and what that means. Changes nothing, not even the time of a directory.
 */
import fs from "node:fs";
import { hexId } from "../../../lib/bytes.ts";
import { dataDirPaths } from "../../data-dir.ts";
import { refuseIfInUse } from "../../lock.ts";
import { OfflineError } from "../errors.ts";
import type { JobOptions } from "../job.ts";
import { jobOf } from "../job.ts";
import { type BackendKind, backendKind } from "../member-dir.ts";
import { verifyBoltFile } from "./bolt-file.ts";
import { verifyLmdbFile } from "./lmdb-file.ts";
import { membersAt, verifyLog, verifySnaps } from "./log.ts";
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
  readonly backend: BackendKind;
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

/** Throws when there is no member to look at, or one that is running. */
export async function verifyDataDir(options: VerifyOptions): Promise<Verified> {
  const paths = dataDirPaths(options.dataDir, options.walDir);
  const { progress } = jobOf(options);
  const backend = backendKind(paths);
  const database = backend === "lmdb" ? paths.backendFile : paths.boltFile;
  if (!fs.statSync(database).isFile()) throw new OfflineError(`${database} is no file`);
  await refuseIfInUse(paths);
  const report = new Report();
  const log = await verifyLog(paths.walDir, report);
  const snap = verifySnaps(paths.snapDir, log, report);
  const { size } = fs.statSync(database);
  const onProgress = (bytes: number) => progress("verifying", Math.min(bytes, size), size);
  const content =
    backend === "lmdb"
      ? await verifyLmdbFile(database, report, onProgress)
      : verifyBoltFile(database, report, onProgress);
  const index = content?.facts.consistentIndex ?? 0;
  if (content && log && log.entries > 0 && index > log.lastIndex) {
    report.add(
      "lost",
      database,
      `it is at index ${index}, and the log ends with ${log.lastIndex}`,
      "entries of the log are lost to this member",
    );
  }
  if (content && snap && index < snap.index) {
    const received = `${paths.snapDir}/${snap.index.toString(16).padStart(16, "0")}.snap.db`;
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
    backend,
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
