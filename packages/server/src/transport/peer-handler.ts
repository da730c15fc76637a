/**
 * The HTTP side of the peer port: what other members ask of this one. Paths, statuses and texts are etcd's; they are
 * read by real members, and two of them end a member (410 on a stream, 403 on a post), so these are given only to ids
 * that were removed from the cluster.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import {
  EtcdError,
  LeaseKeepAliveRequest,
  LeaseKeepAliveResponse,
  type LeaseTimeToLiveRequest,
  type LeaseTimeToLiveResponse,
} from "@etcd-ts/client/wire";
import type { PeerHash } from "../etcdserver/index.ts";
import { hexId } from "../lib/bytes.ts";
import { isoTime } from "../lib/clock.ts";
import { goDuration, humanBytes } from "../lib/go-format.ts";
import { isJsonObject, parseJson, stringifyJson } from "../lib/json.ts";
import { type Member, membersToJson } from "../membership/index.ts";
import { LeaseInternalRequest, LeaseInternalResponse } from "../pb/leasepb.ts";
import { Message, MessageType, MessageTypeInfo } from "../pb/raftpb.ts";
import type { StreamType } from "./codec.ts";
import { checkCompatibility, headerText, MIN_CLUSTER_VERSION, parseHexId } from "./headers.ts";
import { readBody } from "./http-client.ts";
import { BODY_BYTES_MAX, MESSAGE_BYTES_MAX, SNAPSHOT_MESSAGE_BYTES_MAX } from "./limits.ts";

import type { TransportDeps } from "./types.ts";

/** What other members ask of the server behind the transport. EtcdErrors become etcd's HTTP answers. */
export interface PeerServices {
  members(): readonly Member[];
  /** `3.5.0`; undefined while undecided. */
  clusterVersion(): string | undefined;
  /** Linearizable. */
  isDowngradeEnabled(signal: AbortSignal): Promise<boolean>;
  /** Up to `revision`, 0 for the newest. */
  hashKv(revision: number, signal: AbortSignal): Promise<PeerHash>;
  /** `token`: of the caller on whose behalf the other member asks. */
  promoteMember(id: bigint, signal: AbortSignal, token: string | undefined): Promise<readonly Member[]>;
  /** Renews as the leader, without forwarding; the TTL. Rejects with LeaseNotFound, or with a time-out kind. */
  renewLease(id: bigint, signal: AbortSignal): Promise<number>;
  /** Answers as the leader, without forwarding. */
  leaseTimeToLive(request: LeaseTimeToLiveRequest, signal: AbortSignal): Promise<LeaseTimeToLiveResponse>;
}

/** What the handler needs of the transport that it belongs to. */
export interface HandlerHost {
  readonly deps: TransportDeps;
  /** Undefined until the member serves peers. */
  services(): PeerServices | undefined;
  hasPeer(id: bigint): boolean;
  addRemote(id: bigint, urls: readonly string[]): void;
  attach(id: bigint, type: StreamType, response: ServerResponse): void;
  deliver(message: Message): void;
}

/** Go's http.Error: the text and a newline. */
function sendText(response: ServerResponse, status: number, text: string): void {
  response.writeHead(status, {
    "Content-Type": "text/plain; charset=utf-8",
    "X-Content-Type-Options": "nosniff",
  });
  response.end(`${text}\n`);
}

function sendJson(response: ServerResponse, json: string, contentType = "application/json"): void {
  response.writeHead(200, { "Content-Type": contentType });
  response.end(json);
}

function requireMethod(request: IncomingMessage, response: ServerResponse, method: "GET" | "POST"): boolean {
  if (request.method === method) return true;
  response.setHeader("Allow", method);
  sendText(response, 405, "Method Not Allowed");
  return false;
}

/** Handles every request to the peer port that is not gRPC. Never throws. */
export function createPeerHandler(host: HandlerHost): (request: IncomingMessage, response: ServerResponse) => void {
  const handler = new PeerHandler(host);
  return (request, response) => {
    response.on("error", () => {});
    handler.serve(request, response).catch((error: unknown) => {
      host.deps.logger.warn("failed to answer a peer", { path: request.url, error });
      if (response.headersSent) response.destroy();
      else sendText(response, 500, "Internal Server Error");
    });
  };
}

class PeerHandler {
  readonly #host: HandlerHost;
  readonly #deps: TransportDeps;

  constructor(host: HandlerHost) {
    this.#host = host;
    this.#deps = host.deps;
  }

  async serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = (request.url ?? "/").replace(/\?.*$/, "");
    if (path === "/raft/probing") return this.#probing(response);
    if (path === "/raft") return this.#message(request, response);
    if (path.startsWith("/raft/stream/")) return this.#stream(request, response, path);
    if (path === "/raft/snapshot") return this.#snapshot(request, response);
    const services = this.#host.services();
    if (services) {
      const closed = new AbortController();
      response.once("close", () => closed.abort());
      if (path === "/members") return this.#members(services, request, response);
      if (path.startsWith("/members/promote/")) {
        return this.#promote(services, request, response, path.substring(17), closed.signal);
      }
      if (path === "/members/hashkv") return this.#hashKv(services, request, response, closed.signal);
      if (path === "/leases" || path === "/leases/internal") {
        return this.#lease(services, request, response, path, closed.signal);
      }
      if (path === "/downgrade/enabled") return this.#downgrade(services, request, response, closed.signal);
      if (path === "/version") return this.#version(services, request, response);
    }
    sendText(response, 404, "404 page not found");
  }

  #setClusterId(response: ServerResponse): void {
    response.setHeader("X-Etcd-Cluster-ID", hexId(this.#deps.identity.clusterId));
  }

  #ids(): Record<string, string> {
    return { "local-member-id": hexId(this.#deps.identity.memberId) };
  }

  /** Whether the sender may talk to us; if not, it has been told. */
  #requireCompatible(request: IncomingMessage, response: ServerResponse): boolean {
    const { identity, logger } = this.#deps;
    const refusal = checkCompatibility(request.headers, identity);
    if (!refusal) return true;
    const fields = {
      ...this.#ids(),
      "local-member-cluster-id": hexId(identity.clusterId),
      "local-member-server-version": identity.serverVersion,
      "local-member-server-minimum-cluster-version": MIN_CLUSTER_VERSION,
      "remote-peer-server-name": headerText(request.headers, "x-server-from"),
      "remote-peer-server-version": headerText(request.headers, "x-server-version"),
      "remote-peer-server-minimum-cluster-version": headerText(request.headers, "x-min-cluster-version"),
    };
    if ("why" in refusal) logger.warn("failed to check version compatibility", { ...fields, error: refusal.why });
    else logger.warn("request cluster ID mismatch", { ...fields, "remote-peer-cluster-id": refusal.remoteClusterId });
    sendText(response, 412, refusal.text);
    return false;
  }

  /** A sender that we do not know yet can be answered where it says that it is. */
  #addRemote(request: IncomingMessage): void {
    const from = parseHexId(headerText(request.headers, "x-server-from"));
    const urls = headerText(request.headers, "x-peerurls");
    if (from !== undefined && urls !== "") this.#host.addRemote(from, urls.split(","));
  }

  // Raft.

  #probing(response: ServerResponse): void {
    // Microseconds and below: not to be had.
    sendJson(response, `{"OK":true,"Now":"${isoTime(this.#deps.clock.nowMs())}"}\n`);
  }

  async #message(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { logger, observer, sink, identity } = this.#deps;
    if (!requireMethod(request, response, "POST")) return;
    this.#setClusterId(response);
    if (!this.#requireCompatible(request, response)) return;
    this.#addRemote(request);
    let body: Buffer;
    try {
      body = await readBody(request, MESSAGE_BYTES_MAX);
    } catch (error) {
      logger.warn("failed to read Raft message", { ...this.#ids(), error });
      sendText(response, 400, "error reading raft message");
      return;
    }
    let message: Message;
    try {
      message = Message.decode(body);
    } catch (error) {
      logger.warn("failed to unmarshal Raft message", { ...this.#ids(), error });
      sendText(response, 400, "error unmarshalling raft message");
      return;
    }
    observer?.receivedBytes?.(message.from, body.length);
    if (sink.isRemoved(message.from)) {
      logger.warn("rejected Raft message from removed member", {
        "local-member-id": hexId(identity.memberId),
        "removed-member-id": hexId(message.from),
      });
      logger.warn("failed to process Raft message", {
        ...this.#ids(),
        error: "cannot process message from removed member",
      });
      response.writeHead(403, { "Content-Type": "application/json" });
      response.end('{"message":"cannot process message from removed member"}');
      return;
    }
    if (message.to !== identity.memberId) {
      logger.warn("failed to process Raft message", {
        ...this.#ids(),
        error: "cannot process message to mismatch member",
      });
      sendText(response, 500, "error processing raft message");
      return;
    }
    this.#host.deliver(message);
    response.writeHead(204);
    response.end();
  }

  #stream(request: IncomingMessage, response: ServerResponse, path: string): void {
    const { identity, logger, sink } = this.#deps;
    if (!requireMethod(request, response, "GET")) return;
    response.setHeader("X-Server-Version", identity.serverVersion);
    this.#setClusterId(response);
    if (!this.#requireCompatible(request, response)) return;
    const match = /^\/raft\/stream\/(message|msgapp)\/([^/]*)$/.exec(path);
    if (!match) {
      logger.debug("ignored unexpected streaming request path", { ...this.#ids(), path });
      sendText(response, 404, "invalid path");
      return;
    }
    const from = parseHexId(match[2] as string);
    if (from === undefined) {
      logger.warn("failed to parse path into ID", { ...this.#ids(), path });
      sendText(response, 404, "invalid from");
      return;
    }
    const fields = {
      ...this.#ids(),
      "remote-peer-id-stream-handler": hexId(identity.memberId),
      "remote-peer-id-from": hexId(from),
    };
    if (sink.isRemoved(from)) {
      logger.warn("rejected stream from remote peer because it was removed", fields);
      sendText(response, 410, "removed member");
      return;
    }
    if (!this.#host.hasPeer(from)) {
      // It may have been added by a change that is not applied here yet: then answers can still reach it.
      this.#addRemote(request);
      logger.warn("failed to find remote peer in cluster", { ...fields, "cluster-id": hexId(identity.clusterId) });
      sendText(response, 404, "error sender not found");
      return;
    }
    const to = headerText(request.headers, "x-raft-to");
    if (to !== hexId(identity.memberId)) {
      logger.warn("ignored streaming request; ID mismatch", {
        ...fields,
        "remote-peer-id-header": to,
        "cluster-id": hexId(identity.clusterId),
      });
      sendText(response, 412, "to field mismatch");
      return;
    }
    request.socket.setNoDelay(true);
    request.socket.setTimeout(0);
    response.writeHead(200);
    response.flushHeaders();
    this.#host.attach(from, match[1] as StreamType, response);
  }

  async #snapshot(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { clock, logger, observer, sink, identity } = this.#deps;
    const startMs = clock.monotonicMs();
    if (!requireMethod(request, response, "POST")) return;
    this.#setClusterId(response);
    if (!this.#requireCompatible(request, response)) return;
    this.#addRemote(request);
    request.socket.setTimeout(0);
    const refuse = (status: number, text: string) => {
      // The sender is still writing; what it writes is of no use.
      response.setHeader("Connection", "close");
      sendText(response, status, text);
      request.resume();
    };
    const body = new BodyReader(request);
    let message: Message;
    let messageBytes = 0;
    try {
      messageBytes = Number((await body.read(8)).readBigUInt64BE(0));
      if (messageBytes > SNAPSHOT_MESSAGE_BYTES_MAX) throw new Error("error limit exceeded");
      message = Message.decode(await body.read(messageBytes));
    } catch (error) {
      logger.warn("failed to decode Raft message", { ...this.#ids(), "remote-snapshot-sender-id": "0", error });
      refuse(400, `failed to decode raft message (${error instanceof Error ? error.message : error})`);
      return;
    }
    const index = message.snapshot?.metadata.index ?? 0;
    const fields = { ...this.#ids(), "remote-snapshot-sender-id": hexId(message.from) };
    observer?.receivedBytes?.(message.from, messageBytes);
    if (message.type !== MessageType.MsgSnap) {
      logger.warn("unexpected Raft message type", {
        ...fields,
        "message-type": MessageTypeInfo.nameOf[message.type] ?? message.type,
      });
      refuse(400, "wrong raft message type");
      return;
    }
    if (sink.isRemoved(message.from) || message.to !== identity.memberId) {
      const isRemoved = sink.isRemoved(message.from);
      const text = `cannot process message ${isRemoved ? "from removed" : "to mismatch"} member`;
      logger.warn("failed to process Raft message", { ...fields, error: text });
      refuse(isRemoved ? 403 : 500, `failed to process raft message (${text})`);
      return;
    }
    logger.info("receiving database snapshot", {
      ...fields,
      "incoming-snapshot-index": index,
      "incoming-snapshot-message-size-bytes": messageBytes,
      "incoming-snapshot-message-size": humanBytes(messageBytes),
    });
    observer?.snapshotStarted?.("receive", message.from);
    let ok = false;
    try {
      const size = await this.#deps.saveDatabase(body.rest(), index);
      observer?.receivedBytes?.(message.from, size);
      logger.info("received and saved database snapshot", {
        ...fields,
        "incoming-snapshot-index": index,
        "incoming-snapshot-size-bytes": size,
        "incoming-snapshot-size": humanBytes(size),
        "download-took": goDuration(clock.monotonicMs() - startMs),
      });
      this.#host.deliver(message);
      ok = true;
    } catch (error) {
      logger.warn("failed to save incoming database snapshot", { ...fields, "incoming-snapshot-index": index, error });
      refuse(500, `failed to save KV snapshot (${error instanceof Error ? error.message : error})`);
      return;
    } finally {
      observer?.snapshotEnded?.("receive", message.from, ok, clock.monotonicMs() - startMs);
    }
    response.writeHead(204);
    response.end();
  }

  // The member behind.

  #members(services: PeerServices, request: IncomingMessage, response: ServerResponse): void {
    if (!requireMethod(request, response, "GET")) return;
    this.#setClusterId(response);
    sendJson(response, `${membersToJson(services.members())}\n`);
  }

  #version(services: PeerServices, request: IncomingMessage, response: ServerResponse): void {
    if (!requireMethod(request, response, "GET")) return;
    sendJson(
      response,
      stringifyJson({
        etcdserver: this.#deps.identity.serverVersion,
        etcdcluster: services.clusterVersion() ?? "not_decided",
      }),
    );
  }

  async #promote(
    services: PeerServices,
    request: IncomingMessage,
    response: ServerResponse,
    idText: string,
    signal: AbortSignal,
  ): Promise<void> {
    if (!requireMethod(request, response, "POST")) return;
    this.#setClusterId(response);
    const id = /^\d{1,20}$/.test(idText) ? BigInt(idText) : 1n << 64n;
    if (id >= 1n << 64n) {
      sendText(response, 404, `member ${idText} not found in cluster`);
      return;
    }
    try {
      const token = request.headers.authorization;
      sendJson(response, `${membersToJson(await services.promoteMember(id, signal, token))}\n`);
    } catch (error) {
      this.#deps.logger.warn("failed to promote a member", { "member-id": hexId(id), error });
      const kind = error instanceof EtcdError ? error.kind : undefined;
      if (kind === "MemberNotFound") sendText(response, 404, "membership: ID not found");
      else if (kind === "MemberNotLearner") {
        sendText(response, 412, "membership: can only promote a learner member");
      } else if (kind === "LearnerNotReady") {
        sendText(response, 412, "etcdserver: can only promote a learner member which is in sync with leader");
      } else sendServerError(response, error);
    }
  }

  async #hashKv(
    services: PeerServices,
    request: IncomingMessage,
    response: ServerResponse,
    signal: AbortSignal,
  ): Promise<void> {
    this.#setClusterId(response);
    if (!requireMethod(request, response, "GET")) return;
    const clusterId = headerText(request.headers, "x-etcd-cluster-id");
    if (clusterId !== "" && clusterId !== hexId(this.#deps.identity.clusterId)) {
      sendText(response, 412, "cluster ID mismatch");
      return;
    }
    let revision: number;
    try {
      const parsed = parseJson((await readBody(request, BODY_BYTES_MAX)).toString("utf8"));
      const asked = isJsonObject(parsed) ? (parsed["revision"] ?? 0) : 0;
      if (typeof asked !== "number" || !Number.isSafeInteger(asked)) throw new Error("revision is not a number");
      revision = asked;
    } catch (error) {
      this.#deps.logger.warn("failed to unmarshal request", { error });
      sendText(response, 400, "error unmarshalling request");
      return;
    }
    try {
      const answer = await services.hashKv(revision, signal);
      sendJson(
        response,
        stringifyJson({
          header: { revision: answer.currentRevision },
          hash: answer.hash,
          compact_revision: answer.compactRevision,
        }),
      );
    } catch (error) {
      this.#deps.logger.warn("failed to get hashKV", { "requested-revision": revision, error });
      sendText(response, 400, storeErrorText(error));
    }
  }

  async #lease(
    services: PeerServices,
    request: IncomingMessage,
    response: ServerResponse,
    path: string,
    signal: AbortSignal,
  ): Promise<void> {
    if (request.method !== "POST") {
      sendText(response, 405, "Method Not Allowed");
      return;
    }
    let body: Buffer;
    try {
      body = await readBody(request, BODY_BYTES_MAX);
    } catch {
      sendText(response, 400, "error reading body");
      return;
    }
    let answer: () => Promise<Uint8Array>;
    try {
      if (path === "/leases") {
        const { id } = LeaseKeepAliveRequest.decode(body);
        answer = async () => LeaseKeepAliveResponse.encode({ id, ttl: await services.renewLease(id, signal) });
      } else {
        const { leaseTimeToLiveRequest } = LeaseInternalRequest.decode(body);
        if (!leaseTimeToLiveRequest) throw new Error("no request");
        answer = async () => {
          const found = await services.leaseTimeToLive(leaseTimeToLiveRequest, signal);
          return LeaseInternalResponse.encode({ leaseTimeToLiveResponse: { ...found, header: {} } });
        };
      }
    } catch {
      sendText(response, 400, "error unmarshalling request");
      return;
    }
    try {
      const bytes = await answer();
      response.writeHead(200, { "Content-Type": "application/protobuf" });
      response.end(bytes);
    } catch (error) {
      const kind = error instanceof EtcdError ? error.kind : undefined;
      if (kind === "LeaseNotFound") sendText(response, 404, "lease not found");
      else if (kind === "TimeoutWaitAppliedIndex") {
        sendText(response, 408, "waiting for node to catch up its applied index has timed out");
      } else if (
        kind === "NotPrimaryLessor" ||
        kind === "NotLeader" ||
        kind === "NoLeader" ||
        kind === "LeaderChanged"
      ) {
        sendText(response, path === "/leases" ? 400 : 500, "not a primary lessor");
      } else sendText(response, 400, error instanceof Error ? error.message : String(error));
    }
  }

  async #downgrade(
    services: PeerServices,
    request: IncomingMessage,
    response: ServerResponse,
    signal: AbortSignal,
  ): Promise<void> {
    if (!requireMethod(request, response, "GET")) return;
    this.#setClusterId(response);
    try {
      const isEnabled = await services.isDowngradeEnabled(signal);
      response.writeHead(200, { "Content-Type": "text/plain" });
      response.end(isEnabled ? "true" : "false");
    } catch (error) {
      sendText(response, 500, `failed linearized read: ${error instanceof Error ? error.message : error}`);
    }
  }
}

/** Errors of the store go between members without the prefix that clients see. */
function storeErrorText(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).replace(/^etcdserver: (?=mvcc: )/, "");
}

/** Go's WriteError: time-outs 408, the rest 500, as JSON. */
function sendServerError(response: ServerResponse, error: unknown): void {
  const text = error instanceof Error ? error.message : String(error);
  response.writeHead(text.includes("request timed out") ? 408 : 500, { "Content-Type": "application/json" });
  response.end(stringifyJson({ message: text.includes("request timed out") ? text : "Internal Server Error" }));
}

/** A request's body: exact pieces first, then the rest as it comes. */
class BodyReader {
  readonly #chunks: AsyncIterator<Buffer>;
  #left: Buffer = Buffer.alloc(0);

  constructor(request: IncomingMessage) {
    this.#chunks = (request as AsyncIterable<Buffer>)[Symbol.asyncIterator]();
  }

  /** Rejects when the body ends before. */
  async read(length: number): Promise<Buffer> {
    const pieces: Buffer[] = [this.#left];
    let have = this.#left.length;
    while (have < length) {
      const next = await this.#chunks.next();
      if (next.done) throw new Error("unexpected EOF");
      pieces.push(next.value);
      have += next.value.length;
    }
    const all = pieces.length === 1 ? (pieces[0] as Buffer) : Buffer.concat(pieces);
    this.#left = all.subarray(length);
    return all.subarray(0, length);
  }

  async *rest(): AsyncIterable<Uint8Array> {
    if (this.#left.length > 0) yield this.#left;
    for (let next = await this.#chunks.next(); !next.done; next = await this.#chunks.next()) yield next.value;
  }
}
