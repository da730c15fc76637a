import type { TransportSink } from "../etcdserver/index.ts";
import type { Clock } from "../lib/clock.ts";
import type { Logger } from "../lib/log.ts";
import type { Message } from "../pb/raftpb.ts";
import type { Identity } from "./headers.ts";
import type { PeerTls } from "./http-client.ts";

/** A snapshot on its way to a peer: the message in front, then the database as a bbolt image. */
export interface OutgoingSnapshot {
  /** MsgSnap whose index, term, conf state and data are those of exactly this image. */
  readonly message: Message;
  readonly totalBytes: number;
  chunks(): AsyncIterable<Uint8Array>;
  close(): Promise<void>;
}

/** What the transport tells of its work; metrics are made of it. Durations in milliseconds. */
export interface TransportObserver {
  sentBytes?(to: bigint, bytes: number): void;
  receivedBytes?(from: bigint, bytes: number): void;
  sendFailed?(to: bigint): void;
  receiveFailed?(from: bigint): void;
  roundTrip?(to: bigint, durationMs: number): void;
  peerActive?(peer: bigint, isActive: boolean): void;
  /** A snapshot began to be sent or received; the result of `ended` says how it went. */
  snapshotStarted?(direction: "send" | "receive", peer: bigint): void;
  snapshotEnded?(direction: "send" | "receive", peer: bigint, ok: boolean, durationMs: number): void;
}

export interface TransportDeps {
  readonly identity: Identity;
  readonly sink: TransportSink;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly observer?: TransportObserver | undefined;
  readonly tls?: PeerTls | undefined;
  /** Connecting takes at most this long: 1 s and the election time-out. */
  readonly dialTimeoutMs: number;
  /** Peers from which nothing has come for so long are given up: `--raft-read-timeout`. Links are kept alive thrice in it. */
  readonly readTimeoutMs: number;
  /** Peers that have taken nothing for so long are given up: `--raft-write-timeout`. */
  readonly writeTimeoutMs: number;
  /** Replaces raft's own MsgSnap by one of now, with the whole database. */
  openSnapshot(message: Message): Promise<OutgoingSnapshot>;
  /** Keeps the database that came with the snapshot at `index`: durable when it resolves with its size. */
  saveDatabase(source: AsyncIterable<Uint8Array>, index: number): Promise<number>;
  /** A peer says that we were removed: the member must stop. */
  onRemoved(): void;
}
