/** The backend: etcd's buckets as LMDB tables behind a write buffer. */
export { openBackend } from "./backend.ts";
export type {
  Backend,
  BackendObserver,
  BackendOptions,
  BackendReader,
  BackendSnapshot,
  BackendTxn,
  ScanOptions,
  ScanVisitor,
  Table,
} from "./types.ts";
export { BUCKETS, KEY_BYTES_MAX, TABLES } from "./types.ts";
