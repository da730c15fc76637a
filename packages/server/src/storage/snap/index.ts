/**
 * `.snap` files of raft snapshots, and the databases that come with a leader's. It promises that a file it names is
 * whole, and that damaged ones are set aside. It leaves to others: what the data means, and which snapshots to take.
 */
export {
  decodeSnapFile,
  encodeSnapFile,
  SnapFileError,
  type SnapObserver,
  SnapStore,
  type SnapStoreOptions,
  snapDatabaseName,
  snapFileName,
} from "./snap-store.ts";
