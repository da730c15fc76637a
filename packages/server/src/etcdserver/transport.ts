/**
 * What the raft loop needs of the network. `server/transport` implements it over rafthttp; a member alone in its cluster
 * needs none.
 */
import { EtcdError, type LeaseTimeToLiveRequest, type LeaseTimeToLiveResponse } from "@etcd-ts/client/wire";
import type { Member } from "../membership/index.ts";
import type { Message } from "../pb/raftpb.ts";
import type { PeerHash } from "./corruption.ts";

export interface Transport {
  /** Snapshots on their way to followers. */
  readonly snapshotsInFlight: number;
  /**
   * Sends, or drops, which raft is made for. A MsgSnap goes over the snapshot channel and its outcome comes back through
   * `reportSnapshot`.
   */
  send(messages: readonly Message[]): void;
  addPeer(id: bigint, peerUrls: readonly string[]): void;
  updatePeer(id: bigint, peerUrls: readonly string[]): void;
  removePeer(id: bigint): void;
  removeAllPeers(): void;
  /** Since when the peer is reachable, on the monotonic clock; undefined when it is not. */
  activeSinceMs(id: bigint): number | undefined;
  /** Asks another member over HTTP on its peer port. Undefined: no URL of it answered; `failed` has heard why of each. */
  memberVersion(
    id: bigint,
    failed?: (address: string, error: string) => void,
  ): Promise<{ readonly server: string; readonly cluster: string } | undefined>;
  /** Asks at one peer URL: see CorruptionDeps.peerHashKv. */
  hashKv(url: string, revision: number, signal: AbortSignal): Promise<PeerHash>;
  /** Asks the leader to renew a lease: its TTL, 0 for an unknown lease, undefined when the leader gave no answer. */
  renewLease(leaderId: bigint, leaseId: bigint, signal: AbortSignal | undefined): Promise<number | undefined>;
  /** Asks the leader; undefined when it gave no answer. */
  leaseTimeToLive(
    leaderId: bigint,
    request: LeaseTimeToLiveRequest,
    signal: AbortSignal | undefined,
  ): Promise<LeaseTimeToLiveResponse | undefined>;
  /** Asks the leader to promote a learner, on behalf of the caller; rejects with the leader's EtcdError. */
  promoteMember(
    leaderId: bigint,
    memberId: bigint,
    caller: { readonly signal?: AbortSignal | undefined; readonly token?: string | undefined },
  ): Promise<readonly Member[]>;
  stop(): Promise<void>;
}

/** What the transport gives to the raft loop. */
export interface TransportSink {
  /** A message that arrived; may be dropped when the member is overloaded. */
  process(message: Message): void;
  reportUnreachable(id: bigint): void;
  reportSnapshot(id: bigint, ok: boolean): void;
  isRemoved(id: bigint): boolean;
  /** A heartbeat leaves for a follower. */
  heartbeatSent?(to: bigint): void;
}

/** For a member that is alone in its cluster: nobody to talk to. */
export const nullTransport: Transport = {
  snapshotsInFlight: 0,
  send() {},
  addPeer() {},
  updatePeer() {},
  removePeer() {},
  removeAllPeers() {},
  activeSinceMs: () => undefined,
  memberVersion: () => Promise.resolve(undefined),
  hashKv: () => Promise.reject(new Error("there are no peers")),
  renewLease: () => Promise.resolve(undefined),
  leaseTimeToLive: () => Promise.resolve(undefined),
  promoteMember: () => Promise.reject(new EtcdError("NoLeader")),
  stop: () => Promise.resolve(),
};
