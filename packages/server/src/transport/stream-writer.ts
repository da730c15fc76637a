/**
 * The writing end of a stream that a peer opened to us. Messages that are ready together are encoded together and
 * written with one call. Behind a socket that does not take more, bytes gather up to a bound; then messages are dropped.
 */
import type { ServerResponse } from "node:http";
import { hexId } from "../lib/bytes.ts";
import type { Message } from "../pb/raftpb.ts";
import { STREAM_LABELS, type StreamEncoder, type StreamType } from "./codec.ts";
import { STREAM_WAITING_BYTES_MAX } from "./limits.ts";
import type { Peer } from "./peer.ts";
import type { TransportDeps } from "./types.ts";

interface Connection {
  readonly response: ServerResponse;
  readonly encoder: StreamEncoder;
  /** Bytes that the socket had taken when it was last seen to move, and when that was. */
  movedBytes: number;
  movedAtMs: number;
}

export class StreamWriter {
  readonly #deps: TransportDeps;
  readonly #peer: Peer;
  readonly #type: StreamType;
  #connection: Connection | undefined;

  constructor(deps: TransportDeps, peer: Peer, type: StreamType) {
    this.#deps = deps;
    this.#peer = peer;
    this.#type = type;
  }

  get isWorking(): boolean {
    return this.#connection !== undefined;
  }

  /** A newer connection of the peer replaces the older one. */
  attach(response: ServerResponse, encoder: StreamEncoder): void {
    const { logger, identity, clock } = this.#deps;
    const fields = {
      "stream-writer-type": STREAM_LABELS[this.#type],
      "local-member-id": hexId(identity.memberId),
      "remote-peer-id": hexId(this.#peer.id),
    };
    const before = this.#connection;
    const connection: Connection = { response, encoder, movedBytes: 0, movedAtMs: clock.monotonicMs() };
    this.#connection = connection;
    if (before) {
      before.response.destroy();
      logger.warn("closed TCP streaming connection with remote peer", fields);
    }
    response.once("close", () => {
      if (this.#connection !== connection) return;
      this.#lost(connection, "connection closed");
    });
    response.on("error", () => {});
    this.#peer.status.activate();
    const [from, to] = [hexId(identity.memberId), hexId(this.#peer.id)];
    logger.info("set message encoder", { from, to, "stream-type": STREAM_LABELS[this.#type] });
    logger.info("established TCP streaming connection with remote peer", fields);
  }

  #lost(connection: Connection, reason: string): void {
    const { logger, identity, sink } = this.#deps;
    this.#connection = undefined;
    connection.response.destroy();
    this.#peer.status.deactivate("write", STREAM_LABELS[this.#type], reason);
    // What was on its way may be lost.
    sink.reportUnreachable(this.#peer.id);
    logger.warn("lost TCP streaming connection with remote peer", {
      "stream-writer-type": STREAM_LABELS[this.#type],
      "local-member-id": hexId(identity.memberId),
      "remote-peer-id": hexId(this.#peer.id),
    });
  }

  /** `dropped` is called for each message that there is no room for. */
  write(messages: readonly Message[], dropped: (message: Message) => void): void {
    const connection = this.#connection;
    const pieces: Uint8Array[] = [];
    let bytes = 0;
    for (const message of messages) {
      if (!connection || connection.response.writableLength + bytes > STREAM_WAITING_BYTES_MAX) dropped(message);
      else bytes += connection.encoder.encode(message, pieces);
    }
    if (!connection || bytes === 0) return;
    connection.response.write(pieces.length === 1 ? pieces[0] : Buffer.concat(pieces, bytes));
    this.#deps.observer?.sentBytes?.(this.#peer.id, bytes);
  }

  /** To be called {@link LINK_HEARTBEATS} times in a read time-out: keeps the link alive, and gives up one that is stuck. */
  heartbeat(): void {
    const connection = this.#connection;
    if (!connection) return;
    const { clock, writeTimeoutMs } = this.#deps;
    const { response } = connection;
    const takenBytes = (response.socket?.bytesWritten ?? 0) - response.writableLength;
    if (takenBytes !== connection.movedBytes || response.writableLength === 0) {
      connection.movedBytes = takenBytes;
      connection.movedAtMs = clock.monotonicMs();
    } else if (clock.monotonicMs() - connection.movedAtMs > writeTimeoutMs) {
      this.#lost(connection, "i/o timeout");
      return;
    }
    response.write(connection.encoder.heartbeat);
  }

  close(): void {
    const connection = this.#connection;
    if (!connection) return;
    this.#connection = undefined;
    connection.response.destroy();
    const fields = { "stream-writer-type": STREAM_LABELS[this.#type], "remote-peer-id": hexId(this.#peer.id) };
    this.#deps.logger.warn("closed TCP streaming connection with remote peer", fields);
    this.#deps.logger.info("stopped TCP streaming connection with remote peer", fields);
  }
}
