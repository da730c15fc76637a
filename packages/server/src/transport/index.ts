/**
 * Between members: etcd's rafthttp, byte for byte. It promises that nothing here waits for the network, that what it
 * cannot send is dropped and reported to raft, and that a healthy peer never gets an answer that would end it. It
 * leaves to others: what messages mean (raft), the database in a snapshot (etcdserver and storage), ports and TLS
 * termination (rpc).
 */
export { type Identity, MIN_CLUSTER_VERSION } from "./headers.ts";
export type { PeerTls } from "./http-client.ts";
export { PeerClient, type PeerClientOptions, type PeerVersions } from "./peer-client.ts";
export type { PeerServices } from "./peer-handler.ts";
export { HttpTransport } from "./transport.ts";
export type { OutgoingSnapshot, TransportDeps, TransportObserver } from "./types.ts";
