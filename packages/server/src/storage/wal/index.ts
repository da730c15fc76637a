/**
 * The write-ahead log in etcd's own format: what makes an acknowledged write durable. It promises that what `save`
 * resolved for is read back after any crash, that a torn end is repaired and named, and that any other damage is named
 * and refused. It leaves to others: what entries mean, and when segments may go.
 */
export {
  createWal,
  type OpenedWal,
  openWal,
  readWal,
  repairWal,
  validSnapshots,
  verifyWal,
  type WalReadOptions,
  type WalStart,
  walExists,
} from "./open.ts";
export {
  SEGMENT_BYTES,
  type Wal,
  type WalContent,
  WalError,
  type WalErrorKind,
  type WalObserver,
  type WalOptions,
  type WalSnapshot,
  WalWriteError,
} from "./types.ts";
