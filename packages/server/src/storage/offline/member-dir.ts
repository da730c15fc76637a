/** Which database of a data directory is in force. */
import fs from "node:fs";
import path from "node:path";
import type { DataDirPaths } from "../data-dir.ts";
import { type FileSystem, hasCode } from "../file-system.ts";
import { metaKeys } from "./database-file.ts";
import { NoDatabaseError, OfflineError, offlineErrorText } from "./errors.ts";
import { openStore } from "./store.ts";

export type BackendKind = "lmdb" | "bbolt";

/** What cannot be looked at is not absent: that throws. */
function isThere(file: string): boolean {
  try {
    fs.statSync(file);
    return true;
  } catch (error) {
    if (hasCode(error, "ENOENT") || hasCode(error, "ENOTDIR")) return false;
    throw new OfflineError(offlineErrorText(error, { call: "open", path: file }), { cause: error });
  }
}

/** Ours, where there is one: `db` beside it is then what it was made of, or see {@link newerBeside}. */
export function backendKind(paths: DataDirPaths): BackendKind {
  if (isThere(paths.backendFile)) return "lmdb";
  if (isThere(paths.boltFile)) return "bbolt";
  throw new NoDatabaseError(`open ${paths.boltFile}: no such file or directory`);
}

export const databaseFile = (paths: DataDirPaths, kind: BackendKind): string =>
  kind === "lmdb" ? paths.backendFile : paths.boltFile;

export const otherKind = (kind: BackendKind): BackendKind => (kind === "lmdb" ? "bbolt" : "lmdb");

/** The log index that the database has applied; undefined when it cannot be read. */
export function indexOfDatabase(file: string, kind: BackendKind): number | undefined {
  try {
    const store = openStore(file, kind);
    try {
      const stored = store.get("meta", metaKeys.consistentIndex);
      return stored?.length === 8 ? Number(stored.readBigUInt64BE(0)) : undefined;
    } finally {
      store.close();
    }
  } catch {
    return undefined;
  }
}

/**
 * Both databases are there, and the one that is not in force is ahead: another program went on with it, as a real etcd
 * does on a directory of ours that still has its `db`.
 */
export interface NewerBeside {
  readonly path: string;
  readonly index: number;
  readonly inForceIndex: number;
}

export function newerBeside(paths: DataDirPaths, inForce: BackendKind): NewerBeside | undefined {
  const beside = databaseFile(paths, otherKind(inForce));
  if (!fs.existsSync(beside)) return undefined;
  const index = indexOfDatabase(beside, otherKind(inForce));
  if (index === undefined) return undefined;
  const inForceIndex = indexOfDatabase(databaseFile(paths, inForce), inForce);
  return inForceIndex === undefined || index <= inForceIndex ? undefined : { path: beside, index, inForceIndex };
}

/** To write over the newer one, or to work on the older one, would lose what that program acknowledged. */
export function refuseNewerBeside(paths: DataDirPaths, inForce: BackendKind): void {
  const newer = newerBeside(paths, inForce);
  if (!newer) return;
  throw new OfflineError(
    `${newer.path} is at index ${newer.index}, ahead of ${databaseFile(paths, inForce)} at ${newer.inForceIndex}: ` +
      "move the one away that is not to be kept",
  );
}

/** Takes away what an interrupted run left beside a database. */
export async function removeWorkFiles(database: string, files: FileSystem): Promise<void> {
  const folder = path.dirname(database);
  for (const name of await files.list(folder)) {
    if (name.startsWith(`${path.basename(database)}.tmp.`)) await files.removeTree(path.join(folder, name));
  }
}
