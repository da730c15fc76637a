/**
 * One client of a cluster: its connections, its login, and the three ways to call. The facades (`kv`, `lease`, `cluster`,
 * `maintenance`, `auth`) and {@link Client.watch} stand on these.
 *
 * A call chooses a connected endpoint, waits for one when there is none, adds the token, and is repeated by the rules
 * of `retry.ts`. It ends by its answer, its time-out or its signal.
 */
import type { CallOptions as GrpcCallOptions, ClientDuplexStream, ClientReadableStream, Metadata } from "@grpc/grpc-js";
import { AuthClient } from "./auth.ts";
import { Channels, dialTimeoutMs, type Connection, type Grpc } from "./channels.ts";
import { ClusterClient } from "./cluster.ts";
import { codeOf, ConnectionError, DEADLINE_TEXT, RpcError, statusError } from "./errors.ts";
import { KvClient } from "./kv.ts";
import { LeaseClient } from "./lease.ts";
import { MaintenanceClient } from "./maintenance.ts";
import { ATTEMPTS_MAX, type CallOptions, type ClientOptions, DEFAULT_SEND_BYTES_MAX } from "./options.ts";
import { isRepeatable, pauseMs, shouldRepeat, sleep, wasNeverSent } from "./retry.ts";
import { type WatchInit, type WatchOptions, Watcher } from "./watch.ts";
import { Auth, Code, type ErrorKind, EtcdError } from "./wire/index.ts";

/** What a call needs to know of a method; the services of `wire` have this shape. */
export interface MethodOf<Request, Response> {
  readonly path: string;
  readonly request: { encode(request: Request): Uint8Array };
  readonly response: { decode(bytes: Uint8Array): Response };
}

/** A stream both ways. `write` after the end is ignored; iterating ends with the stream or throws its status. */
export interface Duplex<Request, Response> extends AsyncIterable<Response> {
  readonly endpoint: string;
  write(request: Request): void;
  /** No more requests will come; answers still may. */
  end(): void;
  /** Ends the stream at once. */
  cancel(): void;
}

/** Loads the transport and, given a username, logs in within the dial time-out. Nothing is dialled otherwise. */
export async function connect(options: ClientOptions): Promise<Client> {
  if (options.endpoints.length === 0 || options.endpoints.every((endpoint) => endpoint === "")) {
    throw new RpcError(Code.Unavailable, "etcdclient: no available endpoints");
  }
  const client = new Client(await import("@grpc/grpc-js"), options);
  try {
    await client.login();
    return client;
  } catch (error) {
    client.close();
    throw error;
  }
}

/** A client of one cluster. */
export class Client implements AsyncDisposable {
  readonly kv: KvClient;
  readonly lease: LeaseClient;
  readonly cluster: ClusterClient;
  readonly maintenance: MaintenanceClient;
  readonly auth: AuthClient;
  readonly #grpc: Grpc;
  readonly #options: ClientOptions;
  readonly #channels: Channels;
  /** Calls and streams that are under way, to be ended when the client closes. */
  readonly #running = new Set<{ cancel(): void }>();
  #isClosed = false;
  #token: string | undefined;
  #login: Promise<void> | undefined;

  /** Use {@link connect}, which also logs in. */
  constructor(grpc: Grpc, options: ClientOptions) {
    this.#grpc = grpc;
    this.#options = options;
    this.#channels = new Channels(grpc, options);
    this.kv = new KvClient(this);
    this.lease = new LeaseClient(this);
    this.cluster = new ClusterClient(this);
    this.maintenance = new MaintenanceClient(this);
    this.auth = new AuthClient(this);
  }

  /** The endpoints that calls choose from. */
  get endpoints(): readonly string[] {
    return this.#channels.endpoints;
  }

  /** Replaces the endpoints, for instance by those of `cluster.memberList()`. Open streams stay where they are. */
  setEndpoints(endpoints: readonly string[]): void {
    this.#channels.setEndpoints(endpoints);
  }

  /**
   * One request, one answer, on any unary method of the wire's services. Throws EtcdError or RpcError; a call that runs
   * out of its time throws RpcError with code 4 and the text "context deadline exceeded".
   */
  async call<Request, Response>(
    method: MethodOf<Request, Response>,
    request: Request,
    options: CallOptions = {},
  ): Promise<Response> {
    const bytes = method.request.encode(request);
    const sendBytesMax = this.#options.sendBytesMax ?? DEFAULT_SEND_BYTES_MAX;
    const deadlineMs = options.timeoutMs === undefined ? Number.POSITIVE_INFINITY : Date.now() + options.timeoutMs;
    const repeatable = isRepeatable(method.path, request);
    for (let attempt = 0; ; attempt++) {
      let target = options.endpoint ?? this.endpoints[0] ?? "";
      try {
        if (options.timeoutMs !== undefined && options.timeoutMs <= 0) {
          throw new RpcError(Code.DeadlineExceeded, DEADLINE_TEXT);
        }
        const connection = await this.#channels.pick(deadlineMs, options.signal, options.endpoint);
        target = connection.endpoint;
        if (bytes.length > sendBytesMax) {
          const text = `trying to send message larger than max (${bytes.length} vs. ${sendBytesMax})`;
          throw new RpcError(Code.ResourceExhausted, text);
        }
        return method.response.decode(await this.#unary(connection, method.path, bytes, deadlineMs, options));
      } catch (error) {
        if (options.signal?.aborted) throw options.signal.reason;
        const code = codeOf(error);
        if (code === undefined) throw error;
        const details = error instanceof RpcError ? error.details : (error as EtcdError).message;
        const { cause } = error as Error;
        const connectionError = cause instanceof ConnectionError ? cause.message : undefined;
        this.#options.onAttemptFailed?.({ target, attempt, code, details, connectionError });
        if (await this.#renewed(method.path, error, attempt, options.signal)) continue;
        if (Date.now() >= deadlineMs) {
          if (error instanceof RpcError && details === DEADLINE_TEXT) throw error;
          throw new RpcError(Code.DeadlineExceeded, DEADLINE_TEXT, { cause: error });
        }
        if (!shouldRepeat(repeatable || wasNeverSent(code, details), code, attempt)) throw error;
        await sleep(pauseMs(), options.signal);
      }
    }
  }

  /**
   * Whether the call may be sent once more since it was refused, and so not carried out, for what it said of its user:
   * with a token of now, or, where a certificate names the user, as it is, because only the revision of users and roles
   * had moved on while it was under way. Others may go on changing them; as in etcd it is tried 100 times at most.
   */
  async #renewed(path: string, error: unknown, attempt: number, signal: AbortSignal | undefined): Promise<boolean> {
    if (!(error instanceof EtcdError) || attempt + 1 >= ATTEMPTS_MAX || path === Auth.methods.authenticate.path) {
      return false;
    }
    const wantsToken = this.#wantsNewToken(error);
    if (!wantsToken && (this.#logsIn || error.kind !== "AuthOldRevision")) return false;
    if (attempt > 0) await sleep(pauseMs(), signal);
    if (wantsToken) {
      this.#token = undefined;
      await this.login();
    }
    return true;
  }

  /** Half a login is none, as with etcd's own client: who calls is then said by the certificate, if there is one. */
  get #logsIn(): boolean {
    const { username, password } = this.#options;
    return Boolean(username) && Boolean(password);
  }

  #wantsNewToken(error: unknown): boolean {
    if (!this.#logsIn || !(error instanceof EtcdError)) return false;
    return TOKEN_ERRORS.has(error.kind);
  }

  #metadata(options: CallOptions): Metadata {
    const metadata = new this.#grpc.Metadata();
    if (this.#token !== undefined) metadata.set("token", this.#token);
    if (options.requireLeader) metadata.set("hasleader", "true");
    return metadata;
  }

  #unary(
    connection: Connection,
    path: string,
    bytes: Uint8Array,
    deadlineMs: number,
    options: CallOptions,
  ): Promise<Uint8Array> {
    return new Promise((resolve, reject) => {
      const { signal } = options;
      const grpcOptions: GrpcCallOptions = deadlineMs === Number.POSITIVE_INFINITY ? {} : { deadline: deadlineMs };
      const call = connection.grpc.makeUnaryRequest<Uint8Array, Uint8Array>(
        path,
        passBytes,
        keepBytes,
        bytes,
        this.#metadata(options),
        grpcOptions,
        (error, response) => {
          signal?.removeEventListener("abort", onAbort);
          this.#running.delete(call);
          if (error) reject(this.#isClosed ? closedError() : callError(error));
          else resolve(response ?? new Uint8Array(0));
        },
      );
      this.#running.add(call);
      const onAbort = () => call.cancel();
      signal?.addEventListener("abort", onAbort, { once: true });
    });
  }

  /** Reads a stream's answers; the call is over when the generator is. */
  async *#read<Response>(
    call: ClientReadableStream<Uint8Array>,
    decode: (bytes: Uint8Array) => Response,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<Response, void, void> {
    const onAbort = () => call.cancel();
    if (signal?.aborted) onAbort();
    signal?.addEventListener("abort", onAbort, { once: true });
    this.#running.add(call);
    try {
      for await (const bytes of call) yield decode(bytes as Uint8Array);
      signal?.throwIfAborted();
    } catch (error) {
      if (signal?.aborted) throw signal.reason;
      throw this.#isClosed ? closedError() : callError(error);
    } finally {
      signal?.removeEventListener("abort", onAbort);
      this.#running.delete(call);
      call.cancel();
    }
  }

  /** One request, many answers. Back-pressure is the consumer's: nothing is read ahead without bound. */
  async *serverStream<Request, Response>(
    method: MethodOf<Request, Response>,
    request: Request,
    options: CallOptions = {},
  ): AsyncGenerator<Response, void, void> {
    const deadlineMs = options.timeoutMs === undefined ? Number.POSITIVE_INFINITY : Date.now() + options.timeoutMs;
    const bytes = method.request.encode(request);
    for (let attempt = 0; ; attempt++) {
      const connection = await this.#channels.pick(deadlineMs, options.signal, options.endpoint);
      const call = connection.grpc.makeServerStreamRequest<Uint8Array, Uint8Array>(
        method.path,
        passBytes,
        keepBytes,
        bytes,
        this.#metadata(options),
        deadlineMs === Number.POSITIVE_INFINITY ? {} : { deadline: deadlineMs },
      );
      let hasAnswered = false;
      try {
        for await (const response of this.#read(call, method.response.decode, options.signal)) {
          hasAnswered = true;
          yield response;
        }
        return;
      } catch (error) {
        if (hasAnswered || attempt > 0 || !this.#wantsNewToken(error)) throw error;
        this.#token = undefined;
        await this.login();
      }
    }
  }

  /** Opens a stream both ways on a connected endpoint; a time-out bounds all of it. */
  async duplex<Request, Response>(
    method: MethodOf<Request, Response>,
    options: CallOptions = {},
  ): Promise<Duplex<Request, Response>> {
    const deadlineMs = options.timeoutMs === undefined ? Number.POSITIVE_INFINITY : Date.now() + options.timeoutMs;
    const connection = await this.#channels.pick(deadlineMs, options.signal, options.endpoint);
    const call: ClientDuplexStream<Uint8Array, Uint8Array> = connection.grpc.makeBidiStreamRequest(
      method.path,
      passBytes,
      keepBytes,
      this.#metadata(options),
      deadlineMs === Number.POSITIVE_INFINITY ? {} : { deadline: deadlineMs },
    );
    // Until someone iterates, an error is kept for the iterator and must not be an unhandled event.
    call.on("error", () => {});
    return {
      endpoint: connection.endpoint,
      write(request) {
        if (call.writable) call.write(method.request.encode(request));
      },
      end() {
        call.end();
      },
      cancel() {
        call.cancel();
      },
      [Symbol.asyncIterator]: () => this.#read(call, method.response.decode, options.signal),
    };
  }

  /**
   * Watches one range or several on one stream. It survives reconnects without losing or repeating a revision; see
   * {@link Watcher}.
   */
  watch(requests: WatchInit | readonly WatchInit[], options: WatchOptions = {}): Watcher {
    return new Watcher(this, Array.isArray(requests) ? requests : [requests as WatchInit], options);
  }

  /** Fetches a token with the client's username and password, if it has any; concurrent callers share one login. */
  login(): Promise<void> {
    const { username = "", password = "" } = this.#options;
    if (!this.#logsIn) return Promise.resolve();
    this.#login ??= (async () => {
      try {
        const request = { name: username, password };
        const { token } = await this.call(Auth.methods.authenticate, request, {
          timeoutMs: dialTimeoutMs(this.#options),
        });
        this.#token = token;
      } catch (error) {
        // A server without authentication takes no token: etcd's client goes on without.
        if (!(error instanceof EtcdError && error.kind === "AuthNotEnabled")) throw error;
      } finally {
        this.#login = undefined;
      }
    })();
    return this.#login;
  }

  /** Whether `error` says that the token is no longer good; a stream's owner then logs in and opens it again. */
  isTokenError(error: unknown): boolean {
    return this.#wantsNewToken(error);
  }

  /** Closes all connections; running calls and streams end with Canceled. */
  close(): void {
    this.#isClosed = true;
    this.lease.stop();
    this.#channels.close();
    for (const call of [...this.#running]) call.cancel();
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.close();
    return Promise.resolve();
  }
}

/** What a server says to a token that is missing, expired or older than the last change of users and roles. */
const TOKEN_ERRORS: ReadonlySet<ErrorKind> = new Set<ErrorKind>([
  "UserEmpty",
  "InvalidAuthToken",
  "AuthOldRevision",
  "AuthInnerUserEmpty",
  "AuthInnerInvalidToken",
]);

const passBytes = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
const keepBytes = (bytes: Buffer): Uint8Array => bytes;

const closedError = (): RpcError => new RpcError(Code.Canceled, "the client is closed");

function callError(error: unknown): Error {
  const { code, details } = error as { code?: unknown; details?: unknown };
  if (typeof code !== "number") return error as Error;
  const text = typeof details === "string" ? details : "";
  // grpc's words for a stream that the other side reset; whoever cancels a call here does not ask for its error.
  if (code === Code.Canceled && text === "Call cancelled") {
    return new RpcError(Code.Unavailable, "the connection was closed by the server", { cause: error });
  }
  if (code === Code.DeadlineExceeded && /^Deadline exceeded/.test(text)) {
    return new RpcError(code, DEADLINE_TEXT, { cause: error });
  }
  return statusError(code, text, error);
}
