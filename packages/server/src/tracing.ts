/**
 * Distributed tracing: one span for each gRPC call, sent to a collector over OTLP/gRPC. Loaded only when it is switched
 * on; without it no handler is wrapped and nothing of OpenTelemetry is read from disk.
 *
 * A span has the name, kind and attributes of the Go interceptor that etcd uses, and the caller's span as its parent when
 * the call carries a `traceparent`. A caller that was sampled is always followed; calls without a parent are taken at the
 * configured rate, which is 0 unless told otherwise.
 */
import { type Context, DiagLogLevel, diag, ROOT_CONTEXT, SpanKind, SpanStatusCode } from "@opentelemetry/api";
import { W3CTraceContextPropagator } from "@opentelemetry/core";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-grpc";
import { resourceFromAttributes } from "@opentelemetry/resources";
import {
  AlwaysOffSampler,
  BasicTracerProvider,
  BatchSpanProcessor,
  ParentBasedSampler,
  TraceIdRatioBasedSampler,
} from "@opentelemetry/sdk-trace-base";
import { Code } from "@etcd-ts/client/wire";
import type { Clock } from "./lib/clock.ts";
import { splitHostPort } from "./lib/listen-url.ts";
import type { Logger } from "./lib/log.ts";
import { OWN_VERSION } from "./lib/version.ts";
import { Later } from "./lib/wait.ts";
import {
  type CallContext,
  type CallMetadata,
  type MethodDescriptor,
  type ServiceRegistration,
  type StreamHandler,
  statusOf,
  type UnaryHandler,
} from "./rpc/index.ts";

export interface TracingSettings {
  /** host:port of the collector, spoken to without TLS. */
  readonly address: string;
  readonly serviceName: string;
  /** Empty: none. */
  readonly instanceId: string;
  /** Calls without a parent of which a span is taken, of a million. */
  readonly samplesPerMillion: number;
}

export interface Tracing {
  /** The same service, with a span around each call. */
  around(registration: ServiceRegistration): ServiceRegistration;
  /** Sends what is still waiting, for a bounded time. */
  stop(): Promise<void>;
}

/** Spans are sent when so many wait, or after this time: the numbers of etcd's SDK. */
const BATCH_SPANS = 512;
const BATCH_DELAY_MS = 5_000;
/** Spans that may wait for the collector; more are dropped. */
const WAITING_SPANS_MAX = 2_048;
/** One export, and the last one at the end of the process. */
const EXPORT_TIMEOUT_MS = 10_000;
const STOP_TIMEOUT_MS = 3_000;

/** Codes that are the server's fault; for the others the status of a span is left unset. */
const SERVER_FAULTS: ReadonlySet<number> = new Set([
  Code.Unknown,
  Code.DeadlineExceeded,
  Code.Unimplemented,
  Code.Internal,
  Code.Unavailable,
  Code.DataLoss,
]);

const propagator = new W3CTraceContextPropagator();
const metadataGetter = {
  keys: () => [],
  get: (metadata: CallMetadata, name: string) => metadata.get(name),
};

function attributesOf(call: CallContext): Record<string, string | number> {
  const [, service = "", method = ""] = call.path.split("/");
  const attributes: Record<string, string | number> = {
    "rpc.system": "grpc",
    "rpc.service": service,
    "rpc.method": method,
  };
  const peer = splitHostPort(call.peer.address);
  if (peer) {
    attributes["net.sock.peer.addr"] = peer.host;
    attributes["net.sock.peer.port"] = Number(peer.port);
  }
  return attributes;
}

export function startTracing(settings: TracingSettings, deps: { clock: Clock; logger: Logger }): Tracing {
  const { clock, logger } = deps;
  const tell = (message: string) => logger.warn("distributed tracing reports an error", { error: message });
  diag.setLogger(
    { error: tell, warn: tell, info: () => {}, debug: () => {}, verbose: () => {} },
    { logLevel: DiagLogLevel.WARN, suppressOverrideMessage: true },
  );
  const rate = settings.samplesPerMillion / 1_000_000;
  const provider = new BasicTracerProvider({
    resource: resourceFromAttributes({
      "service.name": settings.serviceName,
      ...(settings.instanceId === "" ? {} : { "service.instance.id": settings.instanceId }),
    }),
    sampler: new ParentBasedSampler({
      root: rate === 0 ? new AlwaysOffSampler() : new TraceIdRatioBasedSampler(rate),
    }),
    spanProcessors: [
      new BatchSpanProcessor(
        new OTLPTraceExporter({ url: `http://${settings.address}`, timeoutMillis: EXPORT_TIMEOUT_MS }),
        {
          maxQueueSize: WAITING_SPANS_MAX,
          maxExportBatchSize: BATCH_SPANS,
          scheduledDelayMillis: BATCH_DELAY_MS,
          exportTimeoutMillis: EXPORT_TIMEOUT_MS,
        },
      ),
    ],
  });
  const tracer = provider.getTracer("etcd-ts", OWN_VERSION);

  const begin = (call: CallContext, parent: Context) => {
    const span = tracer.startSpan(
      call.path.substring(1),
      { kind: SpanKind.SERVER, attributes: attributesOf(call) },
      parent,
    );
    return (error?: unknown) => {
      let code: number = Code.Ok;
      if (error !== undefined) {
        let message: string;
        try {
          ({ code, message } = statusOf(error));
        } catch (broken) {
          // A broken invariant; the transport ends the process over it.
          ({ message } = broken as Error);
          code = Code.Internal;
        }
        if (SERVER_FAULTS.has(code)) span.setStatus({ code: SpanStatusCode.ERROR, message });
      }
      span.setAttribute("rpc.grpc.status_code", code);
      span.end();
    };
  };
  const parentOf = (call: CallContext) => propagator.extract(ROOT_CONTEXT, call.metadata, metadataGetter);

  const unary =
    (run: UnaryHandler<MethodDescriptor>): UnaryHandler<MethodDescriptor> =>
    (request, call) => {
      const end = begin(call, parentOf(call));
      let answer: ReturnType<typeof run>;
      try {
        answer = run(request, call);
      } catch (error) {
        end(error);
        throw error;
      }
      const pending = answer instanceof Later ? answer.then() : answer;
      if (!(pending instanceof Promise)) {
        end();
        return pending;
      }
      return pending.then(
        (response) => {
          end();
          return response;
        },
        (error: unknown) => {
          end(error);
          throw error;
        },
      );
    };

  const stream =
    (run: StreamHandler<MethodDescriptor>): StreamHandler<MethodDescriptor> =>
    async (requests, out, call) => {
      const end = begin(call, parentOf(call));
      try {
        await run(requests, out, call);
        end();
      } catch (error) {
        end(error);
        throw error;
      }
    };

  return {
    around: ({ service, handlers }) => {
      const wrapped: Record<string, unknown> = { ...handlers };
      for (const [name, { kind }] of Object.entries(service.methods)) {
        if (handlers[name] === undefined) continue;
        wrapped[name] =
          kind === "unary"
            ? unary(handlers[name] as UnaryHandler<MethodDescriptor>)
            : stream(handlers[name] as StreamHandler<MethodDescriptor>);
      }
      return { service, handlers: wrapped };
    },
    stop: async () => {
      const done = new AbortController();
      const flushed = provider.shutdown().catch((error: unknown) => tell((error as Error).message));
      await Promise.race([flushed, clock.sleep(STOP_TIMEOUT_MS, done.signal)]);
      done.abort();
      diag.disable();
    },
  };
}
