/** Which database of a data directory is in force. */
import fs from "node:fs";
import path from "node:path";
import type { DataDirPaths } from "../data-dir.ts";
import type { FileSystem } from "../file-system.ts";
import { NoDatabaseError } from "./errors.ts";

export type BackendKind = "lmdb" | "bbolt";

/** Ours, where there is one: `db` beside it is then what it was made of. */
export function backendKind(paths: DataDirPaths): BackendKind {
  if (fs.existsSync(paths.backendFile)) return "lmdb";
  if (fs.existsSync(paths.boltFile)) return "bbolt";
  throw new NoDatabaseError(`open ${paths.boltFile}: no such file or directory`);
}

/** Takes away what an interrupted run left beside a database. */
export async function removeWorkFiles(database: string, files: FileSystem): Promise<void> {
  const folder = path.dirname(database);
  for (const name of await files.list(folder)) {
    if (name.startsWith(`${path.basename(database)}.tmp.`)) await files.removeTree(path.join(folder, name));
  }
}
