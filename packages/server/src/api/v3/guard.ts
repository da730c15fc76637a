/**
 * What happens around every call: a learner refuses most of them; a caller that asked for it (`hasleader`) is refused
 * while there is no leader, and its open streams are cut when there has been none for three election timeouts; a
 * unary call that took long is written to the log.
 */
import { EtcdError, type Init, RangeRequest, type RangeResponse, type TxnRequest } from "@etcd-ts/client/wire";
import * as wire from "@etcd-ts/client/wire";
import type { EtcdServer } from "../../etcdserver/index.ts";
import { formatLogTime, goDuration } from "../../lib/go-format.ts";
import { deferred, Later } from "../../lib/wait.ts";
import { putText, textOf, txnText } from "../../pb/text.ts";
import {
  type CallContext,
  EncodedMessage,
  type MethodDescriptor,
  type ServiceRegistration,
  StreamedMessage,
  type StreamHandler,
  type UnaryHandler,
} from "../../rpc/index.ts";
import type { ApiDeps } from "./context.ts";

const LEADER_LOST_TIMEOUTS = 3;
const SLOW_UNARY_MS = 300;

const FOR_LEARNERS: ReadonlySet<string> = new Set([
  wire.Maintenance.methods.status.path,
  wire.Maintenance.methods.snapshot.path,
  // Serializable ranges are fine; the handler looks at the request.
  wire.KV.methods.range.path,
]);

export function asksForLeader(call: CallContext): boolean {
  return call.metadata.get("hasleader") === "true";
}

/** Refuses calls before their handler runs. */
export function admitCall(server: EtcdServer, call: CallContext): void {
  const view = server.raftView();
  if (view.isLearner && !FOR_LEARNERS.has(call.path)) throw new EtcdError("NotSupportedForLearner");
  if (view.leaderId === 0n && asksForLeader(call)) throw new EtcdError("NoLeader");
}

/** Cuts streams whose callers want a leader. It looks only while there are such streams. */
export class LeaderMonitor {
  readonly #deps: ApiDeps;
  readonly #streams = new Set<(reason: EtcdError) => void>();
  #isRunning = false;

  constructor(deps: ApiDeps) {
    this.#deps = deps;
  }

  /** `cut` is called once when the leader has been lost for too long. Returns the way to stop caring. */
  watch(cut: (reason: EtcdError) => void): () => void {
    this.#streams.add(cut);
    if (!this.#isRunning) this.#look(0);
    return () => this.#streams.delete(cut);
  }

  #look(without: number): void {
    this.#isRunning = true;
    const { clock, limits, server } = this.#deps;
    clock.after(
      limits.electionTimeoutMs,
      () => {
        if (this.#streams.size === 0) {
          this.#isRunning = false;
          return;
        }
        const count = server.raftView().leaderId === 0n ? without + 1 : 0;
        if (count >= LEADER_LOST_TIMEOUTS) {
          const reason = new EtcdError("NoLeader");
          for (const cut of [...this.#streams]) cut(reason);
          this.#streams.clear();
        }
        this.#look(count);
      },
      { unref: true },
    );
  }
}

/** The same service, its streams cut when their leader stays away. */
export function withLeaderWatch(registration: ServiceRegistration, monitor: LeaderMonitor): ServiceRegistration {
  const handlers: Record<string, unknown> = { ...registration.handlers };
  for (const [name, method] of Object.entries(registration.service.methods)) {
    if (method.kind === "unary") continue;
    const run = handlers[name] as StreamHandler<MethodDescriptor>;
    const guarded: StreamHandler<MethodDescriptor> = async (requests, out, call) => {
      if (!asksForLeader(call)) return run(requests, out, call);
      const cut = deferred<never>();
      const forget = monitor.watch((reason) => cut.reject(reason));
      const running = run(requests, out, call);
      // When cut, the transport ends the call, and with it the handler; nobody asks for its outcome then.
      running.catch(() => {});
      try {
        await Promise.race([running, cut.promise]);
      } finally {
        forget();
      }
    };
    handlers[name] = guarded;
  }
  return { service: registration.service, handlers };
}

interface RequestStats {
  readonly requestCount: number;
  readonly requestBytes: number;
  readonly responseCount: number;
  readonly responseBytes: number;
  readonly content: string;
}

const NO_STATS: RequestStats = {
  requestCount: -1,
  requestBytes: -1,
  responseCount: -1,
  responseBytes: -1,
  content: "",
};

function isEncoded(response: unknown): response is EncodedMessage | StreamedMessage {
  return response instanceof EncodedMessage || response instanceof StreamedMessage;
}

function sizeOf(method: MethodDescriptor, response: unknown): number {
  if (response === undefined) return 0;
  return isEncoded(response) ? response.byteLength : method.response.encode(response as never).length;
}

/** As etcd counts. A failed call has no response, and of most kinds nothing is told. */
function statsOf(method: MethodDescriptor, request: unknown, response: unknown): RequestStats {
  const responseBytes = sizeOf(method, response);
  switch (method.path) {
    case wire.KV.methods.range.path: {
      const range = request as RangeRequest;
      const count = isEncoded(response) ? (response.items ?? 0) : ((response as RangeResponse | undefined)?.count ?? 0);
      const requestBytes = RangeRequest.encode(range).length;
      return {
        requestCount: 0,
        requestBytes,
        responseCount: count,
        responseBytes,
        content: textOf(RangeRequest, range),
      };
    }
    case wire.KV.methods.put.path: {
      const put = request as wire.PutRequest;
      const requestBytes = wire.PutRequest.encode(put).length;
      return { requestCount: 1, requestBytes, responseCount: 0, responseBytes, content: putText(put) };
    }
    case wire.KV.methods.deleteRange.path: {
      const del = request as wire.DeleteRangeRequest;
      return {
        requestCount: 0,
        requestBytes: wire.DeleteRangeRequest.encode(del).length,
        responseCount: (response as Init<wire.DeleteRangeResponse> | undefined)?.deleted ?? 0,
        responseBytes,
        content: textOf(wire.DeleteRangeRequest, del),
      };
    }
    case wire.KV.methods.txn.path: {
      const txn = request as TxnRequest;
      if (response === undefined) {
        return { requestCount: 0, requestBytes: 0, responseCount: 0, responseBytes: 0, content: "" };
      }
      const ran = (response as Init<wire.TxnResponse>).succeeded ? txn.success : txn.failure;
      return {
        requestCount: ran.length,
        requestBytes: ran.reduce((sum, op) => sum + wire.RequestOp.encode(op).length, 0),
        responseCount: 0,
        responseBytes,
        content: txnText(txn),
      };
    }
    default:
      return NO_STATS;
  }
}

/** The same service, its slow unary calls told to the log (all of them at debug level). */
export function withRequestStats(registration: ServiceRegistration, { clock, logger }: ApiDeps): ServiceRegistration {
  const handlers: Record<string, unknown> = { ...registration.handlers };
  for (const [name, method] of Object.entries(registration.service.methods)) {
    if (method.kind !== "unary") continue;
    const run = handlers[name] as UnaryHandler<MethodDescriptor>;
    const tell = (startMs: number, request: unknown, response: unknown, call: CallContext) => {
      const tookMs = clock.monotonicMs() - startMs;
      if (tookMs <= SLOW_UNARY_MS && !logger.isDebugEnabled) return;
      const stats = statsOf(method, request, response);
      const fields = {
        "start time": formatLogTime(clock.nowMs() - tookMs),
        "time spent": goDuration(tookMs),
        remote: call.peer.address,
        "response type": method.path,
        "request count": stats.requestCount,
        "request size": stats.requestBytes,
        "response count": stats.responseCount,
        "response size": stats.responseBytes,
        "request content": stats.content,
      };
      if (logger.isDebugEnabled) logger.debug("request stats", fields);
      else logger.warn("request stats", fields);
    };
    const timed: UnaryHandler<MethodDescriptor> = (request, call) => {
      const startMs = clock.monotonicMs();
      const answer = run(request, call);
      if (answer instanceof Later) {
        answer.observe((response) => tell(startMs, request, response, call));
        return answer;
      }
      if (!(answer instanceof Promise)) {
        tell(startMs, request, answer, call);
        return answer;
      }
      return answer.then(
        (response) => {
          tell(startMs, request, response, call);
          return response;
        },
        (error: unknown) => {
          tell(startMs, request, undefined, call);
          throw error;
        },
      );
    };
    handlers[name] = timed;
  }
  return { service: registration.service, handlers };
}
