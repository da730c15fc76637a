/**
 * The heart of a member. It takes requests, has them agreed on by raft, applies what was agreed and answers. It
 * promises: an answered write is durable on a quorum and applied here; a linearizable read sees every write that was
 * answered before it began; apply is a function of the log; replay after a restart repeats nothing.
 *
 * It leaves to others: storing (mvcc, lease, storage), deciding (raft), talking (transport, api).
 */
export { type BootstrapDeps, type Bootstrapped, bootstrap } from "./bootstrap.ts";
export { BootstrapError } from "./bootstrap-error.ts";
export type { RemoteMembers } from "./join.ts";
export { type ResolveHost, resolveHost } from "./peer-urls.ts";
export { checkInitially, type HistoryHash, type InitialCheckDeps, type PeerHash } from "./corruption.ts";
export type {
  AlarmView,
  Answer,
  EncodedRange,
  EtcdServer,
  LocalMember,
  RaftStatus,
  RaftView,
  RequestContext,
  SnapshotStream,
} from "./door.ts";
export { RAFT_INFLIGHT_MAX, RAFT_MESSAGE_BYTES_MAX, SERVER_VERSION } from "./limits.ts";
export { MemberDisk } from "./member-disk.ts";
export { MemberRemovedError, Server, type ServerDeps, type ServerObserver } from "./server.ts";
export {
  defaultServerConfig,
  electionTimeoutMs,
  minLeaseTtlSeconds,
  requestTimeoutMs,
  type ServerConfig,
} from "./server-config.ts";
export { nullTransport, type Transport, type TransportSink } from "./transport.ts";
