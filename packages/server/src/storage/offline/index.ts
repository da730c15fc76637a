/** What etcdutl does to files while no member runs: snapshots, defragmentation, migration, checks, backups, hashes. */
export { ETCD_VERSION } from "../../lib/version.ts";
export { type BackupOptions, backupDataDir } from "./backup.ts";
export { type SnapshotStatus, snapshotStatus, snapshotStatusInThreads } from "./database-file.ts";
export { type DefragOptions, type DefragResult, defragDataDir } from "./defrag.ts";
export { isSystemError, NoDatabaseError, OfflineError, OfflineFatal, offlineErrorText } from "./errors.ts";
export { snapshotHashKv } from "./hash-kv.ts";
export type { JobOptions, Progress } from "./job.ts";
export { type BackendKind, indexOfDatabase } from "./member-dir.ts";
export {
  type EngineMigration,
  type MigrateEngineOptions,
  type MigrateVersionOptions,
  migrateEngine,
  migrateVersion,
  parseTargetVersion,
  type VersionMigration,
} from "./migrate.ts";
export { type Restored, type RestoreOptions, restoreSnapshot } from "./restore.ts";
export { type Saved, type SaveOptions, saveSnapshot } from "./save.ts";
export { type Finding, type Verdict, type Verified, type VerifyOptions, verifyDataDir } from "./verify/index.ts";
