/** The transport itself: peers by id, the heartbeat of their streams, and the handler of the peer port. */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { LeaseTimeToLiveRequest, LeaseTimeToLiveResponse } from "@etcd-ts/client/wire";
import { EtcdError } from "@etcd-ts/client/wire";
import type { PeerHash, Transport } from "../etcdserver/index.ts";
import { hexId } from "../lib/bytes.ts";
import type { Member } from "../membership/index.ts";
import { type Message, MessageType, MessageTypeInfo } from "../pb/raftpb.ts";
import type { StreamType } from "./codec.ts";
import { LINK_HEARTBEATS, REMOTES_MAX, SNAPSHOTS_IN_FLIGHT_MAX } from "./limits.ts";
import { Peer } from "./peer.ts";
import { PeerClient, type PeerVersions } from "./peer-client.ts";
import { createPeerHandler, type PeerServices } from "./peer-handler.ts";
import type { TransportDeps } from "./types.ts";

export class HttpTransport implements Transport {
  readonly #deps: TransportDeps;
  readonly #peers = new Map<bigint, Peer>();
  /** Senders that are no members as far as we know, or not yet. Invariant: no id is here and in #peers. */
  readonly #remotes = new Map<bigint, Peer>();
  readonly #stopping = new AbortController();
  readonly #heartbeats: Promise<void>;
  /** Peers that were removed and are closing. */
  readonly #ending = new Set<Promise<void>>();
  readonly #client: PeerClient;
  #services: PeerServices | undefined;
  #snapshots = 0;

  /** For the peer port: every request that is not gRPC. */
  readonly handler: (request: IncomingMessage, response: ServerResponse) => void;

  constructor(deps: TransportDeps) {
    this.#deps = deps;
    this.#client = new PeerClient({ tls: deps.tls, timeoutMs: deps.readTimeoutMs });
    this.handler = createPeerHandler({
      deps,
      services: () => this.#services,
      hasPeer: (id) => this.#peers.has(id),
      addRemote: (id, urls) => this.addRemote(id, urls),
      attach: (id, type, response) => this.#attach(id, type, response),
      deliver: (message) => deps.sink.process(message),
    });
    this.#heartbeats = this.#runHeartbeats();
  }

  /** What is asked over HTTP besides raft is answered by these from now on; until then with 404. */
  serve(services: PeerServices): void {
    this.#services = services;
  }

  get snapshotsInFlight(): number {
    return this.#snapshots;
  }

  // Messages.

  send(messages: readonly Message[]): void {
    const touched = new Set<Peer>();
    for (const message of messages) {
      if (message.to === 0n) continue;
      const peer = this.#peers.get(message.to) ?? this.#remotes.get(message.to);
      if (peer) {
        if (message.type === MessageType.MsgHeartbeat) this.#deps.sink.heartbeatSent?.(message.to);
        peer.queue(message);
        touched.add(peer);
      } else {
        if (message.type === MessageType.MsgSnap) this.#deps.sink.reportSnapshot(message.to, false);
        if (this.#deps.logger.isDebugEnabled) {
          this.#deps.logger.debug("ignored message send request; unknown remote peer target", {
            type: MessageTypeInfo.nameOf[message.type] ?? message.type,
            "unknown-target-peer-id": hexId(message.to),
          });
        }
      }
    }
    for (const peer of touched) peer.flush();
  }

  #attach(id: bigint, type: StreamType, response: ServerResponse): void {
    const peer = this.#peers.get(id);
    if (peer && !this.#stopping.signal.aborted) peer.attach(type, response);
    else response.destroy();
  }

  async #runHeartbeats(): Promise<void> {
    const { clock, readTimeoutMs } = this.#deps;
    for await (const _tick of clock.every(readTimeoutMs / LINK_HEARTBEATS, this.#stopping.signal)) {
      for (const peer of this.#peers.values()) peer.heartbeat();
    }
  }

  readonly #onSnapshotChange = (change: 1 | -1): boolean => {
    if (change > 0 && this.#snapshots >= SNAPSHOTS_IN_FLIGHT_MAX) return false;
    this.#snapshots += change;
    return true;
  };

  // Peers.

  addPeer(id: bigint, peerUrls: readonly string[]): void {
    if (this.#stopping.signal.aborted || this.#peers.has(id) || id === this.#deps.identity.memberId) return;
    const remote = this.#remotes.get(id);
    if (remote) {
      this.#remotes.delete(id);
      this.#end(remote);
    }
    this.#peers.set(id, new Peer(this.#deps, id, peerUrls, true, this.#onSnapshotChange));
    this.#deps.logger.info("added remote peer", {
      ...this.#localId(),
      "remote-peer-id": hexId(id),
      "remote-peer-urls": peerUrls,
    });
  }

  /**
   * Somebody who may be answered though it is no member as far as we know: a member that was added by an entry that is
   * not applied here yet, or, while joining, those who are members already.
   */
  addRemote(id: bigint, peerUrls: readonly string[]): void {
    if (this.#stopping.signal.aborted || id === 0n || id === this.#deps.identity.memberId) return;
    if (this.#peers.has(id) || this.#remotes.has(id) || this.#deps.sink.isRemoved(id)) return;
    if (!peerUrls.every(isPeerUrl)) return;
    if (this.#remotes.size >= REMOTES_MAX) {
      const [oldest] = this.#remotes.values();
      if (oldest) {
        this.#remotes.delete(oldest.id);
        this.#end(oldest);
      }
    }
    this.#remotes.set(id, new Peer(this.#deps, id, peerUrls, false, this.#onSnapshotChange));
    this.#deps.logger.info("added new remote peer", {
      ...this.#localId(),
      "remote-peer-id": hexId(id),
      "remote-peer-urls": peerUrls,
    });
  }

  updatePeer(id: bigint, peerUrls: readonly string[]): void {
    const peer = this.#peers.get(id);
    if (!peer) return;
    peer.picker.update(peerUrls);
    this.#deps.logger.info("updated remote peer", {
      ...this.#localId(),
      "updated-remote-peer-id": hexId(id),
      "updated-remote-peer-urls": peerUrls,
    });
  }

  removePeer(id: bigint): void {
    const peer = this.#peers.get(id) ?? this.#remotes.get(id);
    if (!peer) return;
    this.#peers.delete(id);
    this.#remotes.delete(id);
    this.#end(peer);
    this.#deps.logger.info("removed remote peer", { ...this.#localId(), "removed-remote-peer-id": hexId(id) });
  }

  removeAllPeers(): void {
    for (const id of [...this.#peers.keys()]) this.removePeer(id);
  }

  #end(peer: Peer): void {
    const ending: Promise<void> = peer.stop().finally(() => this.#ending.delete(ending));
    this.#ending.add(ending);
  }

  #localId(): { readonly "local-member-id": string } {
    return { "local-member-id": hexId(this.#deps.identity.memberId) };
  }

  activeSinceMs(id: bigint): number | undefined {
    return this.#peers.get(id)?.status.activeSinceMs;
  }

  // Questions to peers.

  #urls(id: bigint): readonly string[] {
    return (this.#peers.get(id) ?? this.#remotes.get(id))?.picker.all ?? [];
  }

  memberVersion(id: bigint, failed?: (address: string, error: string) => void): Promise<PeerVersions | undefined> {
    return this.#client.versions(this.#urls(id), this.#stopping.signal, failed);
  }

  hashKv(url: string, revision: number, signal: AbortSignal): Promise<PeerHash> {
    const { clusterId } = this.#deps.identity;
    return this.#client.hashKv(url, revision, hexId(clusterId), this.#signal(signal));
  }

  renewLease(leaderId: bigint, leaseId: bigint, signal: AbortSignal | undefined): Promise<number | undefined> {
    return this.#client.renewLease(this.#urls(leaderId), leaseId, this.#signal(signal));
  }

  leaseTimeToLive(
    leaderId: bigint,
    request: LeaseTimeToLiveRequest,
    signal: AbortSignal | undefined,
  ): Promise<LeaseTimeToLiveResponse | undefined> {
    return this.#client.leaseTimeToLive(this.#urls(leaderId), request, this.#signal(signal));
  }

  promoteMember(
    leaderId: bigint,
    memberId: bigint,
    { signal, token }: { readonly signal?: AbortSignal | undefined; readonly token?: string | undefined },
  ): Promise<readonly Member[]> {
    const urls = this.#urls(leaderId);
    if (urls.length === 0) return Promise.reject(new EtcdError("NoLeader"));
    return this.#client.promoteMember(urls, memberId, { signal: this.#signal(signal), token });
  }

  #signal(signal: AbortSignal | undefined): AbortSignal {
    return signal ? AbortSignal.any([signal, this.#stopping.signal]) : this.#stopping.signal;
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    for (const peer of [...this.#peers.values(), ...this.#remotes.values()]) this.#end(peer);
    this.#peers.clear();
    this.#remotes.clear();
    await Promise.all([...this.#ending, this.#heartbeats]);
  }
}

function isPeerUrl(text: string): boolean {
  return /^(https?|unixs?):\/\/[^/]+$/.test(text);
}
