/**
 * Storage: what a member keeps on disk. `wal` and `snap` are etcd's own formats, `backend` is the LMDB file beside them,
 * `bolt` reads and writes etcd's `.db`, `schema` knows the rows, `offline` is what etcdutl does to a stopped member.
 */
export * from "./backend/index.ts";
export * from "./bolt/index.ts";
export * from "./schema/index.ts";
export {
  DataDirError,
  type DataDirPaths,
  dataDirPaths,
  inspectDataDir,
  prepareDataDir,
  systemErrorText,
  touchDirectory,
} from "./data-dir.ts";
export { type FileSystem, hasCode, type OpenFile, systemFiles, writeFully } from "./file-system.ts";
export { type DataDirLock, DataDirLockedError, type LockTarget, lockDataDir, refuseIfFilesAreLocked } from "./lock.ts";
export * from "./offline/index.ts";
export * from "./snap/index.ts";
export * from "./wal/index.ts";
