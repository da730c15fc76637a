/**
 * Calls carried by `@grpc/grpc-js`. The library sees bytes in and bytes out; messages are decoded and encoded here,
 * so that handlers, limits and error texts are the same as on the other transport.
 *
 * The library says some things in words of its own (a message that is too large, a deadline, a method that is not
 * there); {@link rewriteStatus} puts grpc-go's words in their place where it can. It does not watch how often clients
 * ping; `--grpc-keepalive-min-time` is kept by the other transport alone.
 */
import type { EventEmitter } from "node:events";
import type { Duplex } from "node:stream";
import type {
  ConnectionInjector,
  Metadata,
  Server,
  ServerDuplexStream,
  ServerInterceptor,
  ServerUnaryCall,
  ServerWritableStream,
  sendUnaryData,
} from "@grpc/grpc-js";
import { Code } from "@etcd-ts/client/wire";
import { asBuffer } from "../lib/bytes.ts";
import { type Deferred, deferred, Later } from "../lib/wait.ts";
import {
  type CallContext,
  type CallMetadata,
  EncodedMessage,
  type MethodDescriptor,
  type MethodKind,
  type PeerInfo,
  type ResponseSink,
  type StreamHandler,
  type UnaryHandler,
  StreamedMessage,
} from "./handlers.ts";
import type { RpcServer, RpcServerOptions } from "./server.ts";
import { canceledError, deadlineError, malformedMessage, StatusError, statusOf, tooLargeMessage } from "./status.ts";

type AnyCall =
  | ServerUnaryCall<Buffer, Buffer>
  | ServerWritableStream<Buffer, Buffer>
  | ServerDuplexStream<Buffer, Buffer>;

type GrpcJs = typeof import("@grpc/grpc-js");

class JsMetadata implements CallMetadata {
  readonly #metadata: Metadata;

  constructor(metadata: Metadata) {
    this.#metadata = metadata;
  }

  get(name: string): string | undefined {
    const [value] = this.#metadata.get(name);
    return value === undefined ? undefined : String(value);
  }

  getAll(name: string): readonly string[] {
    return this.#metadata.get(name).map(String);
  }
}

/** The state of one call that is not the library's. */
class JsCall implements CallContext {
  readonly path: string;
  readonly kind: MethodKind;
  readonly metadata: CallMetadata;
  readonly peer: PeerInfo;
  readonly deadlineMs: number | undefined;
  /** Set once the call is over for the caller; nothing can be sent any more. */
  over: StatusError | undefined;
  #abort: AbortController | undefined;
  readonly #onOver: (() => void)[] = [];

  constructor(method: MethodDescriptor, call: AnyCall, peer: PeerInfo, options: RpcServerOptions) {
    this.path = method.path;
    this.kind = method.kind;
    this.metadata = new JsMetadata(call.metadata);
    this.peer = peer;
    const deadline = call.getDeadline();
    const { clock } = options;
    this.deadlineMs =
      typeof deadline === "number" && !Number.isFinite(deadline)
        ? undefined
        : clock.monotonicMs() + (Number(deadline) - clock.nowMs());
    (call as EventEmitter).on("cancelled", () => {
      const isLate = this.deadlineMs !== undefined && clock.monotonicMs() >= this.deadlineMs - 1;
      this.end(isLate ? deadlineError() : canceledError());
    });
    if (call.cancelled) this.end(canceledError());
  }

  get signal(): AbortSignal {
    this.#abort ??= new AbortController();
    if (this.over && !this.#abort.signal.aborted) this.#abort.abort(this.over);
    return this.#abort.signal;
  }

  end(reason: StatusError): void {
    if (this.over) return;
    this.over = reason;
    this.#abort?.abort(reason);
    for (const fn of this.#onOver) fn();
  }

  onOver(fn: () => void): void {
    if (this.over) fn();
    else this.#onOver.push(fn);
  }
}

const LARGER = /^Received message larger than max \((\d+) vs\.? (\d+)\)/;

function rewriteStatus(code: number, details: string): { code: number; details: string } {
  const larger = LARGER.exec(details);
  if (larger) return { code, details: tooLargeMessage(Number(larger[1]), Number(larger[2])) };
  if (code === Code.DeadlineExceeded && details === "Deadline exceeded") {
    return { code, details: "context deadline exceeded" };
  }
  return { code, details };
}

const inGrpcGoWords: ServerInterceptor = (_method, call) => {
  const send = call.sendStatus.bind(call);
  call.sendStatus = (status) =>
    send({ ...status, ...rewriteStatus(status.code ?? Code.Unknown, status.details ?? "") });
  return call as ReturnType<ServerInterceptor>;
};

const UNKNOWN_PEER: PeerInfo = { address: "@", isTls: false, commonName: undefined };

class GrpcJsServer implements RpcServer {
  readonly #grpc: GrpcJs;
  readonly #options: RpcServerOptions;
  readonly #server: Server;
  readonly #injector: ConnectionInjector;
  /** By the address that the library reports for a call. */
  readonly #peers = new Map<string, PeerInfo>();
  readonly #sockets = new Set<Duplex>();

  constructor(grpc: GrpcJs, options: RpcServerOptions) {
    this.#grpc = grpc;
    this.#options = options;
    const { limits, keepAlive } = options;
    this.#server = new grpc.Server({
      interceptors: [inGrpcGoWords],
      "grpc.max_receive_message_length": limits.requestBytesMax,
      "grpc.max_send_message_length": -1,
      "grpc.max_concurrent_streams": limits.concurrentStreamsMax,
      "grpc.enable_channelz": 0,
      ...(keepAlive.intervalMs > 0 && keepAlive.timeoutMs > 0
        ? { "grpc.keepalive_time_ms": keepAlive.intervalMs, "grpc.keepalive_timeout_ms": keepAlive.timeoutMs }
        : {}),
    });
    for (const { service, handlers } of options.services) {
      for (const [name, method] of Object.entries(service.methods)) {
        this.#register(method, handlers[name]);
      }
    }
    this.#injector = this.#server.createConnectionInjector(grpc.ServerCredentials.createInsecure());
  }

  accept(socket: Duplex, peer: PeerInfo): void {
    const { remoteAddress, remotePort } = socket as Duplex & { remoteAddress?: string; remotePort?: number };
    const key = remoteAddress === undefined ? undefined : `${remoteAddress}:${remotePort}`;
    if (key !== undefined) this.#peers.set(key, peer);
    this.#sockets.add(socket);
    socket.once("close", () => {
      this.#sockets.delete(socket);
      if (key !== undefined && this.#peers.get(key) === peer) this.#peers.delete(key);
    });
    this.#injector.injectConnection(socket);
  }

  async stop(graceMs: number): Promise<void> {
    const done = deferred();
    const timer = this.#options.clock.after(graceMs, () => this.destroy());
    this.#server.tryShutdown(() => done.resolve());
    this.#injector.drain(graceMs);
    await done.promise;
    timer.cancel();
  }

  destroy(): void {
    this.#injector.destroy();
    this.#server.forceShutdown();
    for (const socket of this.#sockets) socket.destroy();
  }

  #register(method: MethodDescriptor, handler: unknown): void {
    const asIs = (bytes: Buffer) => bytes;
    switch (method.kind) {
      case "unary": {
        const run = handler as UnaryHandler<MethodDescriptor>;
        this.#server.register(
          method.path,
          (call: ServerUnaryCall<Buffer, Buffer>, reply: sendUnaryData<Buffer>) =>
            this.#unary(method, run, call, reply),
          asIs,
          asIs,
          "unary",
        );
        break;
      }
      case "serverStream": {
        const run = handler as StreamHandler<MethodDescriptor>;
        this.#server.register(
          method.path,
          (call: ServerWritableStream<Buffer, Buffer>) => void this.#stream(method, run, call, call.request),
          asIs,
          asIs,
          "serverStream",
        );
        break;
      }
      default: {
        const run = handler as StreamHandler<MethodDescriptor>;
        this.#server.register(
          method.path,
          (call: ServerDuplexStream<Buffer, Buffer>) => void this.#stream(method, run, call, undefined),
          asIs,
          asIs,
          "bidi",
        );
      }
    }
  }

  #context(method: MethodDescriptor, call: AnyCall): JsCall {
    return new JsCall(method, call, this.#peers.get(call.getPeer()) ?? UNKNOWN_PEER, this.#options);
  }

  #decode(method: MethodDescriptor, context: JsCall, bytes: Uint8Array): unknown {
    this.#options.hooks?.received?.(context, bytes.length);
    try {
      return method.request.decode(bytes);
    } catch (error) {
      throw new StatusError(Code.Internal, malformedMessage((error as Error).message), { cause: error });
    }
  }

  #encode(method: MethodDescriptor, context: JsCall, answer: unknown): Buffer {
    const message = answer instanceof StreamedMessage ? answer.whole() : answer;
    const bytes =
      message instanceof EncodedMessage
        ? message.pieces.length === 1
          ? asBuffer(message.pieces[0] as Uint8Array)
          : Buffer.concat(message.pieces, message.byteLength)
        : asBuffer(method.response.encode(message as never));
    this.#options.hooks?.sent?.(context, bytes.length);
    return bytes;
  }

  /** The status of a failed call; a broken invariant goes to the top instead. */
  #status(error: unknown): StatusError {
    try {
      return statusOf(error);
    } catch (broken) {
      this.#options.onFatal(broken);
      return new StatusError(Code.Internal, "internal error");
    }
  }

  async #unary(
    method: MethodDescriptor,
    run: UnaryHandler<MethodDescriptor>,
    call: ServerUnaryCall<Buffer, Buffer>,
    reply: sendUnaryData<Buffer>,
  ): Promise<void> {
    const { hooks } = this.#options;
    const context = this.#context(method, call);
    let isAdmitted = false;
    try {
      hooks?.admit?.(context);
      isAdmitted = true;
      hooks?.started?.(context);
      const request = this.#decode(method, context, call.request);
      const pending = run(request as never, context);
      const bytes = this.#encode(
        method,
        context,
        pending instanceof Promise || pending instanceof Later ? await pending : pending,
      );
      hooks?.ended?.(context, context.over);
      reply(null, bytes);
    } catch (error) {
      const status = this.#status(error);
      if (isAdmitted) hooks?.ended?.(context, status);
      reply({ code: status.code, details: status.message });
    }
  }

  async #stream(
    method: MethodDescriptor,
    run: StreamHandler<MethodDescriptor>,
    call: ServerWritableStream<Buffer, Buffer> | ServerDuplexStream<Buffer, Buffer>,
    only: Buffer | undefined,
  ): Promise<void> {
    const { hooks } = this.#options;
    const context = this.#context(method, call);
    let isAdmitted = false;
    try {
      hooks?.admit?.(context);
      isAdmitted = true;
      hooks?.started?.(context);
      const requests =
        only === undefined
          ? this.#requests(method, context, call as ServerDuplexStream<Buffer, Buffer>)
          : this.#onlyRequest(method, context, only);
      await run(requests as AsyncIterable<never>, this.#sink(method, context, call), context);
      hooks?.ended?.(context, undefined);
      call.end();
    } catch (error) {
      const status = this.#status(error);
      if (isAdmitted) hooks?.ended?.(context, status);
      call.emit("error", { code: status.code, details: status.message });
    }
    // Whatever still waits on this call (a reader of requests, a timer of the handler) is let go.
    context.end(canceledError());
  }

  async *#onlyRequest(method: MethodDescriptor, context: JsCall, bytes: Buffer): AsyncGenerator<unknown> {
    yield this.#decode(method, context, bytes);
  }

  async *#requests(
    method: MethodDescriptor,
    context: JsCall,
    call: ServerDuplexStream<Buffer, Buffer>,
  ): AsyncGenerator<unknown> {
    const queue: Buffer[] = [];
    let isEnded = false;
    let waiter: Deferred<void> | undefined;
    const wake = () => waiter?.resolve();
    call.on("data", (bytes: Buffer) => {
      queue.push(bytes);
      call.pause();
      wake();
    });
    call.on("end", () => {
      isEnded = true;
      wake();
    });
    context.onOver(wake);
    for (;;) {
      const bytes = queue.shift();
      if (bytes) {
        yield this.#decode(method, context, bytes);
        if (queue.length === 0) call.resume();
        continue;
      }
      if (context.over) throw context.over;
      if (isEnded) return;
      waiter = deferred();
      await waiter.promise;
      waiter = undefined;
    }
  }

  #sink(
    method: MethodDescriptor,
    context: JsCall,
    call: ServerWritableStream<Buffer, Buffer> | ServerDuplexStream<Buffer, Buffer>,
  ): ResponseSink<unknown> {
    const waiters = new Set<Deferred<void>>();
    const settle = () => {
      for (const waiter of waiters) context.over ? waiter.reject(context.over) : waiter.resolve();
      waiters.clear();
    };
    call.on("drain", settle);
    context.onOver(settle);
    return {
      write: (message) => {
        if (context.over) throw context.over;
        return call.write(this.#encode(method, context, message));
      },
      drained: () => {
        if (context.over) return Promise.reject(context.over);
        if (!call.writableNeedDrain) return Promise.resolve();
        const waiter = deferred();
        waiters.add(waiter);
        return waiter.promise;
      },
      flushHeaders: () => {
        if (!context.over) call.sendMetadata(new this.#grpc.Metadata());
      },
    };
  }
}

/** The library is loaded on first use: `etcd --version` and the like do without. */
export async function createGrpcJsServer(options: RpcServerOptions): Promise<RpcServer> {
  const grpc = await import("@grpc/grpc-js");
  return new GrpcJsServer(grpc, options);
}
