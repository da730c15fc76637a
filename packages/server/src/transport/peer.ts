/**
 * One other member, seen from here.
 *
 * ```
 *   to it:    MsgApp   -> the msgapp stream that it opened to us  --+
 *             others   -> the message stream that it opened to us   +--> without a stream: POST /raft, four at a time
 *             MsgSnap  -> POST /raft/snapshot, one at a time
 *   from it:  both streams that we open to it, and what it posts (peer-handler.ts)
 * ```
 *
 * Nothing here waits for the network: what cannot go out is dropped, and raft is told that the peer is unreachable, so
 * that it probes before it sends more. The peer counts as active from the first success to the next failure.
 */
import http from "node:http";
import https from "node:https";
import { hexId } from "../lib/bytes.ts";
import { parseTimeMs } from "../lib/clock.ts";
import { dialErrorText } from "../lib/go-errors.ts";
import { goDuration, humanBytes } from "../lib/go-format.ts";
import { Message, MessageType, MessageTypeInfo } from "../pb/raftpb.ts";
import {
  encodeMessageFrame,
  MessageDecoder,
  MsgAppDecoder,
  MsgAppEncoder,
  messageEncoder,
  STREAM_LABELS,
  type StreamDecoder,
  type StreamType,
} from "./codec.ts";
import { headerText, requestHeaders, TEXT_CLUSTER_ID_MISMATCH, TEXT_INCOMPATIBLE_VERSION } from "./headers.ts";
import { PeerRequestError, readBody, request, responseOf, startRequest, writeBody } from "./http-client.ts";
import {
  BODY_BYTES_MAX,
  CLOCK_DRIFT_MS,
  DIAL_INTERVAL_MS,
  PIPELINE_REQUESTS_MAX,
  PIPELINE_WAITING_MAX,
  PROBE_INTERVAL_MS,
  SNAPSHOT_ANSWER_TIMEOUT_MS,
  SNAPSHOT_WRITE_TIMEOUT_MS,
} from "./limits.ts";
import { StreamWriter } from "./stream-writer.ts";
import type { TransportDeps } from "./types.ts";

/** The URL to try next, of those that a peer may be reached at. */
export class UrlPicker {
  #urls: readonly string[];
  #picked = 0;

  constructor(urls: readonly string[]) {
    this.#urls = urls;
  }

  get all(): readonly string[] {
    return this.#urls;
  }

  update(urls: readonly string[]): void {
    this.#urls = urls;
    this.#picked = 0;
  }

  pick(): string {
    return this.#urls[this.#picked] ?? "http://invalid.invalid";
  }

  /** The next call gets another one, unless that has happened already. */
  unreachable(url: string): void {
    if (url === this.pick() && this.#urls.length > 0) this.#picked = (this.#picked + 1) % this.#urls.length;
  }
}

/** Whether the peer was reached the last time something was tried. */
export class PeerStatus {
  readonly #deps: TransportDeps;
  readonly #id: bigint;
  #sinceMs: number | undefined;

  constructor(deps: TransportDeps, id: bigint) {
    this.#deps = deps;
    this.#id = id;
  }

  get activeSinceMs(): number | undefined {
    return this.#sinceMs;
  }

  get isActive(): boolean {
    return this.#sinceMs !== undefined;
  }

  activate(): void {
    if (this.#sinceMs !== undefined) return;
    this.#sinceMs = this.#deps.clock.monotonicMs();
    this.#deps.logger.info("peer became active", { "peer-id": hexId(this.#id) });
    this.#deps.observer?.peerActive?.(this.#id, true);
  }

  deactivate(action: string, source: string, reason: string): void {
    const error = `failed to ${action} ${hexId(this.#id)} on ${source} (${reason})`;
    const fields = { "peer-id": hexId(this.#id), error };
    if (this.#sinceMs === undefined) {
      if (this.#deps.logger.isDebugEnabled) this.#deps.logger.debug("peer deactivated again", fields);
      return;
    }
    this.#sinceMs = undefined;
    this.#deps.logger.warn("peer became inactive (message send to peer failed)", fields);
    this.#deps.observer?.peerActive?.(this.#id, false);
  }

  /** The peer is gone for good. */
  forget(): void {
    if (this.#sinceMs === undefined) return;
    this.#sinceMs = undefined;
    this.#deps.observer?.peerActive?.(this.#id, false);
  }
}

/** The peer answered a POST, but did not take the message. */
class RefusedError extends Error {
  override readonly name = "RefusedError";
}

export class Peer {
  readonly id: bigint;
  readonly status: PeerStatus;
  readonly picker: UrlPicker;
  readonly #deps: TransportDeps;
  readonly #hasStreams: boolean;
  readonly #writers: Readonly<Record<StreamType, StreamWriter>>;
  /** Of one `send`: what goes over which stream, encoded and written together. */
  readonly #outgoing: Record<StreamType, Message[]> = { message: [], msgapp: [] };
  readonly #waiting: Message[] = [];
  #requests = 0;
  readonly #agents: readonly [http.Agent, https.Agent];
  #snapshot: Promise<void> | undefined;
  readonly #stopping = new AbortController();
  readonly #loops: Promise<void>[] = [];
  readonly #onSnapshotChange: (change: 1 | -1) => boolean;

  /**
   * A remote (`hasStreams` false) is not a member that we know: it is answered over POST, and not listened to.
   * `onSnapshotChange` counts snapshots in flight; false refuses another one.
   */
  constructor(
    deps: TransportDeps,
    id: bigint,
    urls: readonly string[],
    hasStreams: boolean,
    onSnapshotChange: (change: 1 | -1) => boolean,
  ) {
    this.#deps = deps;
    this.id = id;
    this.#hasStreams = hasStreams;
    this.#onSnapshotChange = onSnapshotChange;
    this.status = new PeerStatus(deps, id);
    this.picker = new UrlPicker(urls);
    const agent = { keepAlive: true, maxSockets: PIPELINE_REQUESTS_MAX };
    // Sessions are not taken up again: a certificate that was replaced or revoked must not live on in them.
    this.#agents = [new http.Agent(agent), new https.Agent({ ...agent, maxCachedSessions: 0 })];
    this.#writers = {
      message: new StreamWriter(deps, this, "message"),
      msgapp: new StreamWriter(deps, this, "msgapp"),
    };
    if (!hasStreams) return;
    deps.logger.info("starting remote peer", { "remote-peer-id": hexId(id) });
    for (const type of ["msgapp", "message"] as const) this.#loops.push(this.#runReader(type));
    this.#loops.push(this.#runProbe());
    deps.logger.info("started HTTP pipelining with remote peer", this.#ids());
    for (const _type of ["msgapp", "message"]) {
      deps.logger.info("started stream writer with remote peer", this.#ids());
    }
    deps.logger.info("started remote peer", { "remote-peer-id": hexId(id) });
  }

  #ids(): { readonly "local-member-id": string; readonly "remote-peer-id": string } {
    return { "local-member-id": hexId(this.#deps.identity.memberId), "remote-peer-id": hexId(this.id) };
  }

  // Sending.

  /** Queues for {@link flush}, or sends at once what goes its own way. */
  queue(message: Message): void {
    if (message.type === MessageType.MsgSnap) {
      this.#sendSnapshot(message);
      return;
    }
    if (message.type === MessageType.MsgApp && this.#writers.msgapp.isWorking) this.#outgoing.msgapp.push(message);
    else if (this.#writers.message.isWorking) this.#outgoing.message.push(message);
    else this.#post(message);
  }

  flush(): void {
    for (const type of ["msgapp", "message"] as const) {
      const messages = this.#outgoing[type];
      if (messages.length === 0) continue;
      this.#outgoing[type] = [];
      this.#writers[type].write(messages, (message) => this.#dropped(message, STREAM_LABELS[type]));
    }
  }

  /** A stream that the peer opened takes the place of an older one. `response` has its head written. */
  attach(type: StreamType, response: http.ServerResponse): void {
    this.#writers[type].attach(response, type === "msgapp" ? new MsgAppEncoder() : messageEncoder);
  }

  heartbeat(): void {
    this.#writers.message.heartbeat();
    this.#writers.msgapp.heartbeat();
  }

  #dropped(message: Message, where: string): void {
    const { sink, logger, observer, identity } = this.#deps;
    sink.reportUnreachable(this.id);
    if (message.type === MessageType.MsgSnap) sink.reportSnapshot(this.id, false);
    logger.warn("dropped internal Raft message since sending buffer is full (overloaded network)", {
      "message-type": MessageTypeInfo.nameOf[message.type] ?? message.type,
      "local-member-id": hexId(identity.memberId),
      from: hexId(message.from),
      "remote-peer-id": hexId(this.id),
      "remote-peer-name": where,
      "remote-peer-active": this.status.isActive,
    });
    observer?.sendFailed?.(this.id);
  }

  #post(message: Message): void {
    if (this.#waiting.length >= PIPELINE_WAITING_MAX) {
      this.#dropped(message, "pipeline");
      return;
    }
    this.#waiting.push(message);
    if (this.#requests < PIPELINE_REQUESTS_MAX) void this.#runPipeline();
  }

  async #runPipeline(): Promise<void> {
    this.#requests++;
    for (let message = this.#waiting.shift(); message; message = this.#waiting.shift()) {
      if (this.#stopping.signal.aborted) break;
      try {
        await this.#postOne(message);
        this.status.activate();
      } catch (error) {
        if (this.#stopping.signal.aborted) break;
        this.status.deactivate("write", "pipeline", dialErrorText(error));
        this.#deps.sink.reportUnreachable(this.id);
        this.#deps.observer?.sendFailed?.(this.id);
      }
    }
    this.#requests--;
  }

  async #postOne(message: Message): Promise<void> {
    const { identity, tls, observer } = this.#deps;
    const body = Message.encode(message);
    const url = this.picker.pick();
    try {
      const response = await request(
        {
          url,
          path: "/raft",
          method: "POST",
          headers: { ...requestHeaders(identity), "Content-Type": "application/protobuf" },
          dialTimeoutMs: this.#deps.dialTimeoutMs,
          idleTimeoutMs: this.#deps.readTimeoutMs,
          signal: this.#stopping.signal,
          agent: this.#agents[url.startsWith("https:") || url.startsWith("unixs:") ? 1 : 0],
          body,
          bytesMax: BODY_BYTES_MAX,
        },
        tls,
      );
      this.#checkPostResponse(response.status, response.headers, response.body);
    } catch (error) {
      this.picker.unreachable(url);
      throw error;
    }
    observer?.sentBytes?.(this.id, body.length);
  }

  #checkPostResponse(status: number, headers: http.IncomingHttpHeaders, body: Buffer): void {
    if (status === 204) return;
    const { logger, identity, onRemoved } = this.#deps;
    const text = body.toString("utf8").replace(/\n$/, "");
    if (status === 412 && text === TEXT_INCOMPATIBLE_VERSION) {
      logger.error("request sent was ignored by peer", { "remote-peer-id": hexId(this.id) });
    } else if (status === 412 && text === TEXT_CLUSTER_ID_MISMATCH) {
      logger.error("request sent was ignored due to cluster ID mismatch", {
        "remote-peer-id": hexId(this.id),
        "remote-peer-cluster-id": headerText(headers, "x-etcd-cluster-id"),
        "local-member-cluster-id": hexId(identity.clusterId),
      });
    } else if (status === 403) {
      onRemoved();
      throw new RefusedError("the member has been permanently removed from the cluster");
    }
    throw new RefusedError(status === 412 ? text : `unexpected http status ${status}`);
  }

  // Snapshots.

  #sendSnapshot(message: Message): void {
    if (this.#snapshot || !this.#onSnapshotChange(1)) {
      this.#dropped(message, "snapshot");
      return;
    }
    this.#snapshot = this.#runSnapshot(message).finally(() => {
      this.#snapshot = undefined;
      this.#onSnapshotChange(-1);
    });
  }

  async #runSnapshot(raftMessage: Message): Promise<void> {
    const { sink, logger, observer, clock, identity } = this.#deps;
    const startMs = clock.monotonicMs();
    let merged: Record<string, unknown> = {};
    observer?.snapshotStarted?.("send", this.id);
    const url = this.picker.pick();
    let fields: Record<string, unknown> = {
      "snapshot-index": raftMessage.snapshot?.metadata.index ?? 0,
      "remote-peer-id": hexId(this.id),
    };
    let ok = false;
    try {
      const snapshot = await this.#deps.openSnapshot(raftMessage);
      try {
        const pieces: Uint8Array[] = [];
        const size = encodeMessageFrame(snapshot.message, pieces) + snapshot.totalBytes;
        fields = {
          ...fields,
          "snapshot-index": snapshot.message.snapshot?.metadata.index ?? 0,
          bytes: size,
          size: humanBytes(size),
        };
        merged = { from: hexId(identity.memberId), to: hexId(this.id), bytes: size, size: humanBytes(size) };
        logger.info("sending merged snapshot", merged);
        logger.info("sending database snapshot", fields);
        await this.#postSnapshot(url, pieces, snapshot.chunks());
        observer?.sentBytes?.(this.id, size);
      } finally {
        await snapshot.close();
      }
      ok = true;
      this.status.activate();
      sink.reportSnapshot(this.id, true);
      logger.info("sent database snapshot", fields);
      logger.info("sent merged snapshot", { ...merged, took: goDuration(clock.monotonicMs() - startMs) });
    } catch (error) {
      if (!this.#stopping.signal.aborted) {
        logger.warn("failed to send database snapshot", { ...fields, error: dialErrorText(error) });
        this.picker.unreachable(url);
        this.status.deactivate("post", "snapshot", dialErrorText(error));
        sink.reportUnreachable(this.id);
        sink.reportSnapshot(this.id, false);
        observer?.sendFailed?.(this.id);
      }
    } finally {
      observer?.snapshotEnded?.("send", this.id, ok, clock.monotonicMs() - startMs);
    }
  }

  async #postSnapshot(url: string, head: readonly Uint8Array[], database: AsyncIterable<Uint8Array>): Promise<void> {
    const { identity, tls } = this.#deps;
    const post = startRequest(
      {
        url,
        path: "/raft/snapshot",
        method: "POST",
        headers: { ...requestHeaders(identity), "Content-Type": "application/octet-stream" },
        dialTimeoutMs: this.#deps.dialTimeoutMs,
        idleTimeoutMs: SNAPSHOT_WRITE_TIMEOUT_MS,
        signal: this.#stopping.signal,
      },
      tls,
    );
    const answer = responseOf(post);
    // A receiver that refuses answers before it has read everything: then its answer is the reason, not the broken pipe.
    answer.catch(() => {});
    const send = async () => {
      for (const piece of head) await writeBody(post, piece);
      for await (const chunk of database) await writeBody(post, chunk);
      post.end();
    };
    const sent = send().then(
      // The receiver makes everything durable before it answers, and nothing moves meanwhile.
      () => void post.socket?.setTimeout(SNAPSHOT_ANSWER_TIMEOUT_MS),
      (error: unknown) => error,
    );
    try {
      const response = await Promise.race([answer, sent.then((error) => (error ? Promise.reject(error) : answer))]);
      const text = await readBody(response, BODY_BYTES_MAX);
      this.#checkPostResponse(response.statusCode ?? 0, response.headers, text);
    } finally {
      post.destroy();
      await sent;
    }
  }

  // Receiving.

  async #runReader(type: StreamType): Promise<void> {
    const { clock, logger, identity } = this.#deps;
    const { signal } = this.#stopping;
    const fields = {
      "stream-reader-type": STREAM_LABELS[type],
      "local-member-id": hexId(identity.memberId),
      "remote-peer-id": hexId(this.id),
    };
    logger.info("started stream reader with remote peer", fields);
    while (!signal.aborted) {
      const dialledAtMs = clock.monotonicMs();
      let stage: "dial" | "read" = "dial";
      try {
        const stream = await this.#dial(type);
        stage = "read";
        this.status.activate();
        logger.info("established TCP streaming connection with remote peer", fields);
        await this.#receive(type, stream);
      } catch (error) {
        if (signal.aborted) break;
        const reason = dialErrorText(error);
        if (stage === "read")
          logger.warn("lost TCP streaming connection with remote peer", { ...fields, error: reason });
        this.status.deactivate(stage, STREAM_LABELS[type], reason);
      }
      const waitMs = DIAL_INTERVAL_MS - (clock.monotonicMs() - dialledAtMs);
      await clock.sleep(Math.max(0, waitMs), signal).catch(() => {});
    }
    logger.info("stopped stream reader with remote peer", fields);
  }

  /** Opens a stream that the peer will write to. */
  async #dial(type: StreamType): Promise<http.IncomingMessage> {
    const { identity, tls, logger, onRemoved } = this.#deps;
    const url = this.picker.pick();
    try {
      const dialled = startRequest(
        {
          url,
          path: `/raft/stream/${type}/${hexId(identity.memberId)}`,
          method: "GET",
          headers: { ...requestHeaders(identity), "X-Raft-To": hexId(this.id) },
          dialTimeoutMs: this.#deps.dialTimeoutMs,
          idleTimeoutMs: this.#deps.readTimeoutMs,
          signal: this.#stopping.signal,
        },
        tls,
      );
      dialled.end();
      const response = await responseOf(dialled);
      if (response.statusCode === 200) return response;
      const text = (await readBody(response, BODY_BYTES_MAX)).toString("utf8").replace(/\n$/, "");
      switch (response.statusCode) {
        case 410:
          onRemoved();
          throw new RefusedError("the member has been permanently removed from the cluster");
        case 404:
          throw new RefusedError(`peer ${hexId(this.id)} failed to find local node ${hexId(identity.memberId)}`);
        case 412:
          if (text === TEXT_INCOMPATIBLE_VERSION) {
            logger.warn("request sent was ignored by remote peer due to server version incompatibility", {
              "local-member-id": hexId(identity.memberId),
              "remote-peer-id": hexId(this.id),
              error: text,
            });
          } else if (text === TEXT_CLUSTER_ID_MISMATCH) {
            logger.warn("request sent was ignored by remote peer due to cluster ID mismatch", {
              "remote-peer-id": hexId(this.id),
              "remote-peer-cluster-id": headerText(response.headers, "x-etcd-cluster-id"),
              "local-member-id": hexId(identity.memberId),
              "local-member-cluster-id": hexId(identity.clusterId),
              error: text,
            });
          }
          throw new RefusedError(text);
        default:
          throw new RefusedError(`unhandled stream type or http status ${response.statusCode}`);
      }
    } catch (error) {
      this.picker.unreachable(url);
      throw error;
    }
  }

  /** Until the peer closes, which is an error as every other end. */
  async #receive(type: StreamType, stream: http.IncomingMessage): Promise<void> {
    const { identity, observer } = this.#deps;
    const decoder: StreamDecoder =
      type === "msgapp" ? new MsgAppDecoder(identity.memberId, this.id) : new MessageDecoder();
    const emit = (message: Message, bytes: number) => {
      observer?.receivedBytes?.(message.from, bytes);
      this.deliver(message);
    };
    try {
      await new Promise<never>((_never, reject) => {
        stream.on("data", (chunk: Buffer) => {
          try {
            decoder.push(chunk, emit);
          } catch (error) {
            reject(error);
          }
        });
        stream.once("end", () => reject(new PeerRequestError("EOF")));
        stream.once("error", reject);
        stream.once("close", () => reject(new PeerRequestError("EOF")));
      });
    } finally {
      stream.destroy();
    }
  }

  /** Hands a message to raft, unless it is from a removed member or for somebody else. */
  deliver(message: Message): void {
    const { sink, identity, logger, observer } = this.#deps;
    if (message.to === identity.memberId && !sink.isRemoved(message.from)) {
      sink.process(message);
      return;
    }
    observer?.receiveFailed?.(message.from);
    logger.warn("failed to process Raft message", {
      "local-member-id": hexId(identity.memberId),
      error:
        message.to === identity.memberId
          ? "cannot process message from removed member"
          : "cannot process message to mismatch member",
    });
  }

  // Probing.

  async #runProbe(): Promise<void> {
    const { clock, logger, observer, identity, tls } = this.#deps;
    const { signal } = this.#stopping;
    const fields = { "round-tripper-name": "ROUND_TRIPPER_RAFT_MESSAGE", "remote-peer-id": hexId(this.id) };
    let isWarned = false;
    for await (const _tick of clock.every(PROBE_INTERVAL_MS, signal)) {
      const startMs = clock.monotonicMs();
      const sentAtMs = clock.nowMs();
      try {
        const response = await request(
          {
            url: this.picker.pick(),
            path: "/raft/probing",
            method: "GET",
            headers: requestHeaders(identity),
            dialTimeoutMs: this.#deps.dialTimeoutMs,
            idleTimeoutMs: this.#deps.readTimeoutMs,
            signal,
            bytesMax: BODY_BYTES_MAX,
          },
          tls,
        );
        if (response.status !== 200) throw new RefusedError(`unexpected http status ${response.status}`);
        const rttMs = clock.monotonicMs() - startMs;
        observer?.roundTrip?.(this.id, rttMs);
        isWarned = false;
        const remoteMs = remoteTimeMs(response.body);
        const driftMs = remoteMs === undefined ? 0 : sentAtMs + rttMs / 2 - remoteMs;
        if (Math.abs(driftMs) > CLOCK_DRIFT_MS) {
          logger.warn("prober found high clock drift", {
            ...fields,
            "clock-drift": goDuration(driftMs),
            rtt: goDuration(rttMs),
          });
        }
      } catch (error) {
        if (signal.aborted) return;
        if (!isWarned) {
          logger.warn("prober detected unhealthy status", { ...fields, rtt: "0s", error: dialErrorText(error) });
          isWarned = true;
        }
      }
    }
  }

  async stop(): Promise<void> {
    const { logger } = this.#deps;
    if (this.#hasStreams) logger.info("stopping remote peer", { "remote-peer-id": hexId(this.id) });
    this.#stopping.abort(new PeerRequestError("peer stopped"));
    this.#waiting.length = 0;
    this.#writers.message.close();
    this.#writers.msgapp.close();
    for (const agent of this.#agents) agent.destroy();
    this.status.forget();
    await Promise.all([...this.#loops, this.#snapshot]);
    if (!this.#hasStreams) return;
    logger.info("stopped HTTP pipelining with remote peer", this.#ids());
    logger.info("stopped remote peer", { "remote-peer-id": hexId(this.id) });
  }
}

/** When the peer answered, by its own clock; undefined when it does not say. */
function remoteTimeMs(body: Buffer): number | undefined {
  const match = /"Now":"([^"]+)"/.exec(body.toString("latin1"));
  return match ? parseTimeMs(match[1] as string) : undefined;
}
