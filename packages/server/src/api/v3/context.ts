/** What the handlers of this folder share. */
import type { EtcdServer, RequestContext } from "../../etcdserver/index.ts";
import type { Clock } from "../../lib/clock.ts";
import type { Logger } from "../../lib/log.ts";
import type { Random } from "../../lib/random.ts";
import type { CallContext } from "../../rpc/index.ts";

export interface ApiDeps {
  readonly server: EtcdServer;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly limits: ApiLimits;
}

export interface ApiLimits {
  readonly maxTxnOps: number;
  /** `--max-request-bytes` and what gRPC adds: messages above are not read, watch responses above are fragmented. */
  readonly messageBytesMax: number;
  readonly watchProgressNotifyIntervalMs: number;
  readonly electionTimeoutMs: number;
  /** Report NOT_SERVING while a defragmentation runs. */
  readonly stopGrpcServiceOnDefrag: boolean;
}

/** A call as etcdserver wants it. Nothing is looked up before it is asked for: most requests need none of it. */
class CallerContext implements RequestContext {
  readonly #call: CallContext;

  constructor(call: CallContext) {
    this.#call = call;
  }

  get signal(): AbortSignal {
    return this.#call.signal;
  }

  get token(): string | undefined {
    return this.#call.metadata.get("token") ?? this.#call.metadata.get("authorization");
  }

  get certCommonName(): string | undefined {
    return this.#call.peer.commonName;
  }

  get isFromGateway(): boolean {
    return this.#call.metadata.get("grpcgateway-accept") !== undefined;
  }
}

export function callerOf(call: CallContext): RequestContext {
  return new CallerContext(call);
}
