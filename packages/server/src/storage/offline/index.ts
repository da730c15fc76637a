/** What etcdutl does to files while no member runs: status, restore, defragmentation, backup, hashes. */
export { type BackupOptions, backupDataDir } from "./backup.ts";
export { type SnapshotStatus, snapshotStatus } from "./database-file.ts";
export { type DefragOptions, type DefragResult, defragDataDir } from "./defrag.ts";
export { isSystemError, NoDatabaseError, OfflineError, OfflineFatal, offlineErrorText } from "./errors.ts";
export { snapshotHashKv } from "./hash-kv.ts";
export type { BackendKind } from "./member-dir.ts";
export { type RestoreOptions, restoreSnapshot } from "./restore.ts";
export { ETCD_VERSION } from "../../lib/version.ts";
