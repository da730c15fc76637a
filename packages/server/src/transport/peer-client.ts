/**
 * What a member asks of others outside raft: who they are, which version they run, leases and promotions that only the
 * leader can decide. Each call tries the URLs of a peer in turn.
 */
import {
  EtcdError,
  LeaseKeepAliveRequest,
  LeaseKeepAliveResponse,
  type LeaseTimeToLiveRequest,
  type LeaseTimeToLiveResponse,
} from "@etcd-ts/client/wire";
import type { PeerHash } from "../etcdserver/index.ts";
import { dialErrorText } from "../lib/go-errors.ts";
import { isJsonObject, parseJson, stringifyJson } from "../lib/json.ts";
import { type Member, membersFromJson } from "../membership/index.ts";
import { LeaseInternalRequest, LeaseInternalResponse } from "../pb/leasepb.ts";
import { parseHexId, TEXT_CLUSTER_ID_MISMATCH } from "./headers.ts";
import { type PeerResponse, type PeerTls, request } from "./http-client.ts";
import { BODY_BYTES_MAX } from "./limits.ts";

export interface PeerClientOptions {
  readonly tls?: PeerTls | undefined;
  /** A peer on whose connection nothing moves for so long is left for its next URL. */
  readonly timeoutMs: number;
}

interface Asked {
  readonly path: string;
  readonly method: "GET" | "POST";
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array;
  readonly signal?: AbortSignal | undefined;
  /** In place of the client's; 0: the signal alone ends the wait. */
  readonly idleTimeoutMs?: number;
}

export interface PeerVersions {
  readonly server: string;
  /** `not_decided` before there is one. */
  readonly cluster: string;
}

export class PeerClient {
  readonly #options: PeerClientOptions;

  constructor(options: PeerClientOptions) {
    this.#options = options;
  }

  #askOne(url: string, asked: Asked): Promise<PeerResponse> {
    return request(
      {
        url,
        path: asked.path,
        method: asked.method,
        headers: asked.headers ?? {},
        body: asked.body,
        dialTimeoutMs: this.#options.timeoutMs,
        idleTimeoutMs: asked.idleTimeoutMs ?? this.#options.timeoutMs,
        signal: asked.signal,
        bytesMax: BODY_BYTES_MAX,
      },
      this.#options.tls,
    );
  }

  /** The first answer; undefined when no URL gives one. */
  async #ask(
    urls: readonly string[],
    asked: Asked,
    failed: (address: string, error: string) => void = () => {},
  ): Promise<PeerResponse | undefined> {
    for (const url of urls) {
      try {
        return await this.#askOne(url, asked);
      } catch (error) {
        if (asked.signal?.aborted) return undefined;
        const address = `${url}${asked.path}`;
        failed(address, `Get ${JSON.stringify(address)}: ${dialErrorText(error)}`);
      }
    }
    return undefined;
  }

  /**
   * Cluster id and members as the first of these URLs that answers has them. `refused` hears of those that do not, with
   * what etcd calls that.
   */
  async members(
    urls: readonly string[],
    refused: (line: string, fields: Readonly<Record<string, unknown>>) => void = () => {},
  ): Promise<{ readonly clusterId: bigint; readonly members: readonly Member[] } | undefined> {
    for (const url of urls) {
      const address = `${url}/members`;
      let answer: PeerResponse;
      try {
        answer = await this.#askOne(url, { path: "/members", method: "GET" });
      } catch (error) {
        const reason = `Get ${JSON.stringify(address)}: ${dialErrorText(error)}`;
        refused("failed to get cluster response", { address, error: reason });
        continue;
      }
      let members: readonly Member[];
      try {
        members = membersFromJson(answer.body.toString("utf8"));
      } catch (error) {
        refused("failed to unmarshal cluster response", { address, error });
        continue;
      }
      const header = String(answer.headers["x-etcd-cluster-id"] ?? "");
      const clusterId = parseHexId(header);
      if (clusterId === undefined) {
        refused("failed to parse cluster ID", { address, header, error: "not a number in hex" });
        continue;
      }
      // A member that is starting itself may not know anybody yet.
      if (members.length > 0) return { clusterId, members };
    }
    return undefined;
  }

  /** `failed` hears of each URL that gives no answer, and why. */
  async versions(
    urls: readonly string[],
    signal?: AbortSignal,
    failed?: (address: string, error: string) => void,
  ): Promise<PeerVersions | undefined> {
    const answer = await this.#ask(urls, { path: "/version", method: "GET", signal }, failed);
    if (answer?.status !== 200) return undefined;
    try {
      const value = parseJson(answer.body.toString("utf8"));
      if (!isJsonObject(value)) return undefined;
      const { etcdserver, etcdcluster } = value;
      return typeof etcdserver === "string" && typeof etcdcluster === "string"
        ? { server: etcdserver, cluster: etcdcluster }
        : undefined;
    } catch {
      return undefined;
    }
  }

  /** Undefined when the peer does not say; releases before 3.5 do not know the question, which means no. */
  async isDowngradeEnabled(urls: readonly string[], signal?: AbortSignal): Promise<boolean | undefined> {
    const answer = await this.#ask(urls, { path: "/downgrade/enabled", method: "GET", signal });
    if (answer?.status === 404) return false;
    if (answer?.status !== 200) return undefined;
    return answer.body.toString("utf8").trim() === "true";
  }

  /**
   * Hash of a peer's store up to `revision`, 0 for its newest. Rejects with the EtcdError of a peer that refuses, with other
   * errors when there is no answer. The peer may take long; only the signal ends the wait.
   */
  async hashKv(url: string, revision: number, clusterId: string, signal: AbortSignal): Promise<PeerHash> {
    let answer: PeerResponse;
    try {
      answer = await this.#askOne(url, {
        path: "/members/hashkv",
        method: "GET",
        headers: { "Content-Type": "application/json", "X-Etcd-Cluster-ID": clusterId },
        body: Buffer.from(stringifyJson({ revision: revision === 0 ? undefined : revision })),
        signal,
        idleTimeoutMs: 0,
      });
    } catch (error) {
      const reason: unknown = signal.aborted ? signal.reason : error;
      throw new Error(`Get "${url}/members/hashkv": ${dialErrorText(reason)}`, { cause: error });
    }
    const text = answer.body.toString("utf8");
    if (answer.status === 400 && text.includes("required revision has been compacted")) {
      throw new EtcdError("Compacted");
    }
    if (answer.status === 400 && text.includes("required revision is a future revision")) {
      throw new EtcdError("FutureRevision");
    }
    if (answer.status === 412 && text.includes(TEXT_CLUSTER_ID_MISMATCH)) throw new EtcdError("ClusterIDMismatch");
    if (answer.status !== 200) throw new Error(`unknown error: ${text}`);
    const value = parseJson(text);
    const header = isJsonObject(value) ? value["header"] : undefined;
    if (!isJsonObject(value) || !isJsonObject(header)) throw new Error(`not a hash: ${text.substring(0, 200)}`);
    const number = (n: unknown) => (typeof n === "number" ? n : 0);
    return {
      currentRevision: number(header["revision"]),
      hash: number(value["hash"]),
      compactRevision: number(value["compact_revision"]),
    };
  }

  /** The TTL; 0 for a lease that is not known; undefined when the leader gave no answer, or could not tell. */
  async renewLease(urls: readonly string[], id: bigint, signal?: AbortSignal): Promise<number | undefined> {
    const answer = await this.#ask(urls, {
      path: "/leases",
      method: "POST",
      headers: { "Content-Type": "application/protobuf" },
      body: LeaseKeepAliveRequest.encode({ id }),
      signal,
    });
    if (answer?.status === 404) return 0;
    if (answer?.status !== 200) return undefined;
    try {
      const response = LeaseKeepAliveResponse.decode(answer.body);
      return response.id === id ? response.ttl : undefined;
    } catch {
      return undefined;
    }
  }

  /** Rejects with LeaseNotFound; undefined when the leader gave no answer, or could not tell. */
  async leaseTimeToLive(
    urls: readonly string[],
    asked: LeaseTimeToLiveRequest,
    signal?: AbortSignal,
  ): Promise<LeaseTimeToLiveResponse | undefined> {
    const answer = await this.#ask(urls, {
      path: "/leases/internal",
      method: "POST",
      headers: { "Content-Type": "application/protobuf" },
      body: LeaseInternalRequest.encode({ leaseTimeToLiveRequest: asked }),
      signal,
    });
    if (answer?.status === 404) throw new EtcdError("LeaseNotFound");
    if (answer?.status !== 200) return undefined;
    try {
      return LeaseInternalResponse.decode(answer.body).leaseTimeToLiveResponse;
    } catch {
      return undefined;
    }
  }

  /** Rejects with the leader's reason. */
  /** `token`: of the caller on whose behalf the leader is asked. */
  async promoteMember(
    urls: readonly string[],
    id: bigint,
    { signal, token }: { readonly signal?: AbortSignal | undefined; readonly token?: string | undefined } = {},
  ): Promise<readonly Member[]> {
    const headers = token === undefined ? {} : { Authorization: token };
    const answer = await this.#ask(urls, { path: `/members/promote/${id}`, method: "POST", headers, signal });
    if (!answer) throw new EtcdError("NoLeader");
    const text = answer.body.toString("utf8");
    switch (answer.status) {
      case 200:
        return membersFromJson(text);
      case 404:
        throw new EtcdError("MemberNotFound");
      case 408:
        throw new EtcdError("Timeout");
      case 412:
        throw new EtcdError(text.includes("in sync with leader") ? "LearnerNotReady" : "MemberNotLearner");
      default:
        throw new Error(`member promote: unknown error(${text.trim()})`);
    }
  }
}
