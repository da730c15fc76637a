/** Which database of a data directory is in force. */
import fs from "node:fs";
import type { DataDirPaths } from "../data-dir.ts";
import { NoDatabaseError } from "./errors.ts";

export type BackendKind = "lmdb" | "bbolt";

/** Ours, where there is one: `db` beside it is then what it was made of. */
export function backendKind(paths: DataDirPaths): BackendKind {
  if (fs.existsSync(paths.backendFile)) return "lmdb";
  if (fs.existsSync(paths.boltFile)) return "bbolt";
  throw new NoDatabaseError(`open ${paths.boltFile}: no such file or directory`);
}
