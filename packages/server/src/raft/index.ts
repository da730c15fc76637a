/**
 * Raft: a pure, synchronous state machine with the rules of etcd/raft 3.6, wire-compatible with 3.5. It knows no disk,
 * clock, socket or promise; the server's raft loop moves what {@link Ready} hands out.
 */
export { type AnyConfChange, asV2, confChangeEntry, decodeConfChange } from "./confchange/conf-change.ts";
export { isLocalMessage, isResponseMessage, newMessage } from "./messages.ts";
export { type BootstrapPeer, RawNode } from "./raw-node.ts";
export {
  MemoryStorage,
  type RaftStorage,
  RaftStorageError,
  type RaftStorageErrorKind,
  emptyConfState,
  emptyHardState,
  emptySnapshot,
  snapshotIndex,
  snapshotTerm,
} from "./storage.ts";
export {
  type BasicStatus,
  isLocalThread,
  LOCAL_APPEND_THREAD,
  LOCAL_APPLY_THREAD,
  NONE,
  type NodeId,
  type ProgressState,
  type ProgressStatus,
  type RaftConfig,
  RaftError,
  type RaftErrorKind,
  type RaftState,
  type ReadOnlyOption,
  type ReadState,
  type Ready,
  type SoftState,
  type Status,
} from "./types.ts";
