/**
 * A gRPC server for the client's tests: it listens on a free port of 127.0.0.1 and answers as each test scripts it. Messages
 * are coded by `wire`; nothing here knows what etcd would answer.
 */
import {
  Metadata,
  type MethodDefinition,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerUnaryCall,
  type ServerWritableStream,
  type sendUnaryData,
  type UntypedHandleCall,
} from "@grpc/grpc-js";
import {
  Auth,
  Cluster,
  type Codec,
  EtcdError,
  type Init,
  KV,
  Lease,
  Maintenance,
  type RequestOf,
  type ResponseOf,
  Watch,
} from "../wire/index.ts";

/** A gRPC status as an error that handlers throw. */
export class Status extends Error {
  readonly code: number;

  constructor(code: number, details: string) {
    super(details);
    this.code = code;
  }
}

export interface Asked {
  readonly metadata: ReadonlyMap<string, string>;
}

/** One side of a stream, as a script sees it. */
export interface FakeStream<Request, Response> extends Asked {
  send(response: Init<Response>): void;
  /** Ends the stream with OK, or with a status. */
  end(error?: Error): void;
  onRequest(listener: (request: Request) => void): void;
  /** Aborted when the client has gone. */
  readonly signal: AbortSignal;
}

interface Method {
  readonly path: string;
  readonly kind: string;
  readonly request: unknown;
  readonly response: unknown;
}

const METHODS = [KV, Watch, Lease, Cluster, Maintenance, Auth].flatMap((service) =>
  Object.values(service.methods as Readonly<Record<string, Method>>),
);

function statusOf(error: unknown): { code: number; details: string } {
  if (error instanceof Status || error instanceof EtcdError) return { code: error.code, details: error.message };
  return { code: 2, details: String(error) };
}

function metadataOf(metadata: Metadata): ReadonlyMap<string, string> {
  return new Map(Object.entries(metadata.getMap()).map(([key, value]) => [key, String(value)]));
}

export class FakeServer implements AsyncDisposable {
  readonly port: number;
  readonly #server: Server;
  readonly #unary = new Map<string, (request: unknown, asked: Asked) => unknown>();
  readonly #streams = new Map<string, (stream: FakeStream<never, never>, request: unknown) => void>();

  private constructor(server: Server, port: number) {
    this.#server = server;
    this.port = port;
  }

  get endpoint(): string {
    return `127.0.0.1:${this.port}`;
  }

  /** Listens, on `port` if given, in plain text unless told otherwise. */
  static async start(port = 0, credentials = ServerCredentials.createInsecure()): Promise<FakeServer> {
    const server = new Server({ "grpc.max_receive_message_length": -1, "grpc.max_send_message_length": -1 });
    const holder: { fake?: FakeServer } = {};
    const definition: Record<string, MethodDefinition<Buffer, Buffer>> = {};
    const handlers: Record<string, UntypedHandleCall> = {};
    const bytes = (value: Buffer) => value;
    for (const method of METHODS) {
      definition[method.path] = {
        path: method.path,
        requestStream: method.kind === "bidi" || method.kind === "clientStream",
        responseStream: method.kind === "bidi" || method.kind === "serverStream",
        requestSerialize: bytes,
        requestDeserialize: bytes,
        responseSerialize: bytes,
        responseDeserialize: bytes,
      };
      handlers[method.path] =
        method.kind === "unary"
          ? (call: ServerUnaryCall<Buffer, Buffer>, done: sendUnaryData<Buffer>) =>
              (holder.fake as FakeServer).#answer(method, call, done)
          : (call: ServerDuplexStream<Buffer, Buffer> | ServerWritableStream<Buffer, Buffer>) =>
              (holder.fake as FakeServer).#open(method, call);
    }
    server.addService(definition, handlers);
    const bound = await new Promise<number>((resolve, reject) => {
      server.bindAsync(`127.0.0.1:${port}`, credentials, (error, actual) => (error ? reject(error) : resolve(actual)));
    });
    holder.fake = new FakeServer(server, bound);
    return holder.fake;
  }

  /** Answers a unary method. What the handler throws becomes the status. */
  on<M extends Method>(
    method: M,
    handler: (request: RequestOf<M>, asked: Asked) => Init<ResponseOf<M>> | Promise<Init<ResponseOf<M>>>,
  ): this {
    this.#unary.set(method.path, handler as (request: unknown, asked: Asked) => unknown);
    return this;
  }

  /** Serves a streaming method; `request` is there for server streams. */
  onStream<M extends Method>(
    method: M,
    handler: (stream: FakeStream<RequestOf<M>, ResponseOf<M>>, request: RequestOf<M>) => void,
  ): this {
    this.#streams.set(method.path, handler as (stream: FakeStream<never, never>, request: unknown) => void);
    return this;
  }

  async #answer(method: Method, call: ServerUnaryCall<Buffer, Buffer>, done: sendUnaryData<Buffer>): Promise<void> {
    try {
      const handler = this.#unary.get(method.path);
      if (!handler) throw new Status(12, `no script for ${method.path}`);
      const request = (method.request as Codec<unknown>).decode(call.request);
      const response = await handler(request, { metadata: metadataOf(call.metadata) });
      done(null, (method.response as Codec<unknown>).encode(response as Init<unknown>) as Buffer);
    } catch (error) {
      done({ ...statusOf(error), metadata: new Metadata() });
    }
  }

  #open(method: Method, call: ServerDuplexStream<Buffer, Buffer> | ServerWritableStream<Buffer, Buffer>): void {
    const handler = this.#streams.get(method.path);
    const gone = new AbortController();
    call.on("cancelled", () => gone.abort());
    call.on("error", () => gone.abort());
    const requestCodec = method.request as Codec<unknown>;
    const responseCodec = method.response as Codec<unknown>;
    const stream: FakeStream<unknown, unknown> = {
      metadata: metadataOf(call.metadata),
      signal: gone.signal,
      send: (response) => void call.write(responseCodec.encode(response as Init<unknown>) as Buffer),
      end: (error) => {
        if (error) call.emit("error", statusOf(error));
        else call.end();
      },
      onRequest: (listener) => {
        if ("read" in call) call.on("data", (data: Buffer) => listener(requestCodec.decode(data)));
      },
    };
    if (!handler) stream.end(new Status(12, `no script for ${method.path}`));
    else handler(stream as FakeStream<never, never>, "request" in call ? requestCodec.decode(call.request) : undefined);
  }

  /** Breaks every connection and stops listening. */
  stop(): Promise<void> {
    this.#server.forceShutdown();
    return Promise.resolve();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}
