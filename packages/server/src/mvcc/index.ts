/**
 * mvcc: the store of keys in all their revisions, and the watchers of its changes. Knows nothing of raft, sessions or
 * permissions: whoever applies entries calls it inside `backend.write` and then `endWrite()`.
 */
export {
  checkDeleteRangeRequest,
  checkPutRequest,
  checkRangeRequest,
  checkTxnRequest,
  isTxnReadOnly,
  isTxnSerializable,
} from "./check-request.ts";
export { type KeyRange, keyRange } from "./key-range.ts";
export { TXN_OPERATIONS_MAX } from "./limits.ts";
export { MvccStore } from "./store.ts";
export type {
  EncodedRange,
  HashAt,
  KeyValueHash,
  LargeRange,
  LeaseAttacher,
  MvccLimits,
  MvccOptions,
  MvccStats,
  MvccTimes,
} from "./types.ts";
export { piecesOf, type WatchEvent } from "./watch/event.ts";
export type { WatchHub, WatchStats } from "./watch/hub.ts";
export type { WatchCreate, WatchDelivery, WatchStream } from "./watch/stream.ts";
