/** Typed rows of etcd's tables. Plain functions over a reader or a transaction; they keep no state. */
export {
  encodeCounter,
  isLeftOutOfHash,
  readClusterVersion,
  readCompactRevisions,
  readConfStateJson,
  readConsistentIndex,
  readDowngradeJson,
  readStorageVersion,
  writeClusterVersion,
  writeConfStateJson,
  writeConsistentIndex,
  writeDowngradeJson,
  writeFinishedCompactRevision,
  writeScheduledCompactRevision,
} from "./meta.ts";
