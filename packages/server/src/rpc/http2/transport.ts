/**
 * gRPC on our own HTTP/2: the transport that the server uses unless told otherwise. Messages are cut out of the
 * stream's bytes, handlers called, answers framed; statuses, limits and texts are grpc-go's.
 *
 * A unary call whose message came in one frame costs no copy and no queue: it is decoded from the socket's own
 * buffer, and its answer goes into the buffer that is written at the end of the turn.
 */
import type { Duplex } from "node:stream";
import { gunzipSync } from "node:zlib";
import { Code } from "@etcd-ts/client/wire";
import type { Timer } from "../../lib/clock.ts";
import { type Deferred, deferred, Later, type LaterListener } from "../../lib/wait.ts";
import {
  type CallContext,
  type CallMetadata,
  EncodedMessage,
  type MethodDescriptor,
  type MethodKind,
  type PeerInfo,
  type ResponseSink,
  StreamedMessage,
  type StreamHandler,
  type UnaryHandler,
} from "../handlers.ts";
import type { RpcServer, RpcServerOptions } from "../server.ts";
import { canceledError, deadlineError, malformedMessage, StatusError, statusOf, tooLargeMessage } from "../status.ts";
import { ServerConnection, type ServerStream, type StreamEvents } from "./connection.ts";
import { ErrorCode } from "./frames.ts";
import type { HeaderBlock, HeaderList } from "./hpack.ts";

/** Compressed flag and length before each message. */
const PREFIX_BYTES = 5;

const TIMEOUT_UNIT_MS: Readonly<Record<string, number>> = {
  H: 3_600_000,
  M: 60_000,
  S: 1_000,
  m: 1,
  u: 1 / 1_000,
  n: 1 / 1_000_000,
};

interface Route {
  readonly method: MethodDescriptor;
  readonly handler: unknown;
}

class HeaderMetadata implements CallMetadata {
  readonly #headers: HeaderList;

  constructor(headers: HeaderList) {
    this.#headers = headers;
  }

  get(name: string): string | undefined {
    const headers = this.#headers;
    for (let i = 0; i < headers.length; i += 2) if (headers[i] === name) return headers[i + 1];
    return undefined;
  }

  getAll(name: string): readonly string[] {
    const values: string[] = [];
    const headers = this.#headers;
    for (let i = 0; i < headers.length; i += 2) if (headers[i] === name) values.push(headers[i + 1] as string);
    return values;
  }
}

/** The status text as grpc-message carries it: printable ASCII but for `%`, the rest percent-encoded UTF-8. */
function percentEncoded(text: string): string {
  if (/^[ -$&-~]*$/.test(text)) return text;
  let encoded = "";
  for (const byte of Buffer.from(text, "utf8")) {
    encoded +=
      byte >= 0x20 && byte <= 0x7e && byte !== 0x25
        ? String.fromCharCode(byte)
        : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  }
  return encoded;
}

/** What a request's headers come to: made once for all requests that send the same block. */
interface RequestHead {
  readonly route: Route;
  readonly metadata: CallMetadata;
  readonly encoding: string | undefined;
  readonly timeoutMs: number | undefined;
}

/** A call whose answer is under way wants nothing more to happen. Its stack says nothing, so it is made once. */
const CANCELED = canceledError();

const NO_PARTS: Buffer[] = [];

/** One call: what handlers see of it, and what its stream tells. */
class NativeCall implements CallContext, StreamEvents, LaterListener<unknown> {
  readonly path: string;
  readonly kind: MethodKind;
  readonly peer: PeerInfo;
  readonly metadata: CallMetadata;
  readonly deadlineMs: number | undefined;
  /** Set once the call is over for the caller. */
  over: StatusError | undefined;
  readonly #head: RequestHead;
  readonly #route: Route;
  readonly #server: NativeServer;
  readonly #stream: ServerStream;
  #abort: AbortController | undefined;
  #timer: Timer | undefined;
  #isAdmitted = false;
  #hasEndedHooks = false;

  /** The message that is being put together: pieces, their bytes, and how many are needed (0: the prefix is not whole). */
  #parts: Buffer[] = NO_PARTS;
  #partBytes = 0;
  #needed = 0;
  #hasMessage = false;

  /** Requests of a stream that wait for its handler. */
  readonly #unread: { readonly bytes: Buffer; readonly owedBytes: number }[] | undefined;
  #isRequestEnded = false;
  #reader: Deferred<void> | undefined;
  #drain: Deferred<void> | undefined;
  #sent: Deferred<void> | undefined;

  constructor(server: NativeServer, stream: ServerStream, head: RequestHead, peer: PeerInfo) {
    const { route, metadata, timeoutMs } = head;
    this.#server = server;
    this.#head = head;
    this.#route = route;
    this.#stream = stream;
    this.path = route.method.path;
    this.kind = route.method.kind;
    this.peer = peer;
    this.metadata = metadata;
    this.#unread = this.kind === "unary" ? undefined : [];
    this.deadlineMs = timeoutMs === undefined ? undefined : server.options.clock.monotonicMs() + timeoutMs;
  }

  get signal(): AbortSignal {
    this.#abort ??= new AbortController();
    if (this.over && !this.#abort.signal.aborted) this.#abort.abort(this.over);
    return this.#abort.signal;
  }

  /** Starts what does not wait for a message. */
  begin(): void {
    try {
      this.#server.options.hooks?.admit?.(this);
    } catch (error) {
      this.#fail(error);
      return;
    }
    this.#isAdmitted = true;
    this.#server.options.hooks?.started?.(this);
    if (this.kind !== "unary") void this.#runStream();
  }

  // ---- the stream's events

  onData(bytes: Buffer): void {
    if (this.over) {
      this.#stream.giveWindow(bytes.length);
      return;
    }
    let rest = bytes;
    while (rest.length > 0 && !this.over) {
      if (this.#partBytes === 0 && rest.length >= PREFIX_BYTES) {
        // The usual case: a message that is whole in this piece.
        const length = rest.readUInt32BE(1);
        if (!this.#mayBe(length)) return;
        const end = PREFIX_BYTES + length;
        if (rest.length >= end) {
          this.#message(rest[0] as number, rest.subarray(PREFIX_BYTES, end), end);
          rest = rest.subarray(end);
          continue;
        }
        this.#needed = end;
      }
      const take =
        this.#needed > 0 ? Math.min(rest.length, this.#needed - this.#partBytes) : PREFIX_BYTES - this.#partBytes;
      const part = Buffer.from(rest.subarray(0, take));
      rest = rest.subarray(part.length);
      if (this.#parts === NO_PARTS) this.#parts = [];
      this.#parts.push(part);
      this.#partBytes += part.length;
      this.#stream.giveWindow(part.length);
      if (!this.#stream.hold(part.length)) return;
      if (this.#needed === 0) {
        if (this.#partBytes < PREFIX_BYTES) return;
        const prefix = Buffer.concat(this.#parts);
        this.#parts = [prefix];
        const length = prefix.readUInt32BE(1);
        if (!this.#mayBe(length)) return;
        this.#needed = PREFIX_BYTES + length;
      }
      if (this.#partBytes === this.#needed) {
        const whole = this.#parts.length === 1 ? (this.#parts[0] as Buffer) : Buffer.concat(this.#parts);
        this.#stream.hold(-this.#partBytes);
        this.#parts = NO_PARTS;
        this.#partBytes = 0;
        this.#needed = 0;
        this.#message(whole[0] as number, whole.subarray(PREFIX_BYTES), 0);
      }
    }
  }

  onEnd(): void {
    this.#isRequestEnded = true;
    if (this.over) return;
    if (this.#partBytes > 0) this.#fail(new StatusError(Code.Internal, "unexpected EOF"));
    else if (this.kind === "unary" && !this.#hasMessage) this.#fail(new StatusError(Code.Internal, "EOF"));
    else this.#reader?.resolve();
  }

  onGone(): void {
    this.#end(CANCELED);
    this.#hooksEnded(this.over);
  }

  onDrain(): void {
    this.#drain?.resolve();
    this.#drain = undefined;
  }

  // ---- messages in

  #mayBe(length: number): boolean {
    const { requestBytesMax } = this.#server.options.limits;
    if (length <= requestBytesMax) return true;
    this.#fail(new StatusError(Code.ResourceExhausted, tooLargeMessage(length, requestBytesMax)));
    return false;
  }

  /** `owedBytes`: window that is not given back yet; the payload is then a view of the socket's buffer. */
  #message(flag: number, payload: Buffer, owedBytes: number): void {
    let bytes = payload;
    if (flag !== 0) {
      try {
        bytes = this.#unpacked(flag, payload);
      } catch (error) {
        this.#fail(error);
        return;
      }
    }
    if (this.kind === "unary") {
      this.#stream.giveWindow(owedBytes);
      if (this.#hasMessage) return; // a second message of a unary call says nothing
      this.#hasMessage = true;
      this.#runUnary(bytes);
      return;
    }
    // The window comes back when the handler reads, so a client that is ahead of it waits.
    if (!this.#stream.hold(bytes.length + PREFIX_BYTES)) return;
    const isView = owedBytes > 0 && bytes === payload;
    this.#unread?.push({ bytes: isView ? Buffer.from(bytes) : bytes, owedBytes });
    this.#reader?.resolve();
  }

  #unpacked(flag: number, payload: Buffer): Buffer {
    if (flag !== 1) throw new StatusError(Code.Internal, `grpc: received unexpected payload format ${flag}`);
    const { encoding } = this.#head;
    if (encoding === undefined || encoding === "identity") {
      throw new StatusError(Code.Internal, "grpc: compressed flag set with identity or empty encoding");
    }
    if (encoding !== "gzip") {
      const text = `grpc: Decompressor is not installed for grpc-encoding ${JSON.stringify(encoding)}`;
      throw new StatusError(Code.Unimplemented, text);
    }
    const { requestBytesMax } = this.#server.options.limits;
    try {
      return gunzipSync(payload, { maxOutputLength: requestBytesMax });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ERR_BUFFER_TOO_LARGE") {
        const text = `grpc: received message after decompression larger than max (${requestBytesMax + 1} vs. ${requestBytesMax})`;
        throw new StatusError(Code.ResourceExhausted, text);
      }
      throw new StatusError(
        Code.Internal,
        `grpc: failed to decompress the received message ${(error as Error).message}`,
      );
    }
  }

  #decode(bytes: Buffer): unknown {
    this.#server.options.hooks?.received?.(this, bytes.length);
    try {
      return this.#route.method.request.decode(bytes);
    } catch (error) {
      throw new StatusError(Code.Internal, malformedMessage((error as Error).message), { cause: error });
    }
  }

  // ---- handlers

  #runUnary(bytes: Buffer): void {
    try {
      const run = this.#route.handler as UnaryHandler<MethodDescriptor>;
      const answer = run(this.#decode(bytes) as never, this);
      if (answer instanceof Later) {
        this.#watchDeadline();
        answer.listen(this);
        return;
      }
      if (!(answer instanceof Promise)) {
        this.#reply(answer);
        return;
      }
      this.#watchDeadline();
      answer.then(
        (message) => this.#reply(message),
        (error) => this.#fail(error),
      );
    } catch (error) {
      this.#fail(error);
    }
  }

  /** The handler's {@link Later} came to an end. */
  resolved(message: unknown): void {
    this.#reply(message);
  }

  rejected(error: unknown): void {
    this.#fail(error);
  }

  #reply(message: unknown): void {
    if (this.over) {
      this.#hooksEnded(this.over);
      return;
    }
    if (message instanceof StreamedMessage) {
      this.#replyInParts(message).catch((error: unknown) => this.#cutOff(error));
      return;
    }
    let encoded: EncodedMessage;
    try {
      encoded = this.#encoded(message);
    } catch (error) {
      this.#fail(error);
      return;
    }
    this.#timer?.cancel();
    this.#hooksEnded(undefined);
    const stream = this.#stream;
    stream.sendHeaders();
    stream.writeMessage(encoded.pieces, encoded.byteLength);
    stream.finishOk();
    this.#end(CANCELED);
  }

  /** The next part is made when the one before has left: what a slow caller costs is one part. */
  async #replyInParts(message: StreamedMessage): Promise<void> {
    this.#timer?.cancel();
    const stream = this.#stream;
    const prefix = Buffer.alloc(PREFIX_BYTES);
    prefix.writeUInt32BE(message.byteLength, 1);
    this.#server.options.hooks?.sent?.(this, message.byteLength);
    stream.sendHeaders();
    stream.write([prefix]);
    let left = message.byteLength;
    for (const pieces of message.pieces()) {
      for (const piece of pieces) left -= piece.length;
      if (!stream.write(pieces)) {
        this.#drain ??= deferred();
        await this.#drain.promise;
      } else await message.giveWay();
      if (this.over) throw this.over;
    }
    if (left !== 0) throw new Error(`an answer of ${message.byteLength} bytes had ${left} more or less`);
    this.#hooksEnded(undefined);
    stream.finishOk();
    this.#end(CANCELED);
  }

  /**
   * An answer that has begun cannot be taken back: its stream is reset. Calls that are answered in parts change nothing,
   * so callers are told that they may ask again, which libraries then do by themselves, and learn of an error that stays.
   */
  #cutOff(error: unknown): void {
    if (this.over) {
      this.#hooksEnded(this.over);
      return;
    }
    this.#server.options.logger.warn("an answer was cut off", { method: this.path, error });
    let status: StatusError;
    try {
      status = statusOf(error);
    } catch (broken) {
      this.#server.options.onFatal(broken);
      status = new StatusError(Code.Unknown, "internal error");
    }
    this.#end(status);
    this.#stream.reset(status.code === Code.Unknown ? ErrorCode.InternalError : ErrorCode.RefusedStream);
    this.#hooksEnded(status);
  }

  #encoded(message: unknown): EncodedMessage {
    const encoded =
      message instanceof EncodedMessage
        ? message
        : new EncodedMessage([this.#route.method.response.encode(message as never)]);
    this.#server.options.hooks?.sent?.(this, encoded.byteLength);
    return encoded;
  }

  async #runStream(): Promise<void> {
    try {
      const run = this.#route.handler as StreamHandler<MethodDescriptor>;
      this.#watchDeadline();
      await run(this.#requests() as AsyncIterable<never>, this.#sink(), this);
      if (this.over) {
        this.#hooksEnded(this.over);
        return;
      }
      this.#timer?.cancel();
      this.#hooksEnded(undefined);
      this.#stream.finishOk();
      this.#end(CANCELED);
    } catch (error) {
      this.#fail(error);
    }
  }

  /** For one handler's loop. By hand, as a generator costs three turns of the microtask queue for each message. */
  #requests(): AsyncIterable<unknown> {
    let isEnded = false;
    const next = async (): Promise<IteratorResult<unknown>> => {
      for (;;) {
        const message = isEnded ? undefined : this.#unread?.shift();
        if (message) {
          this.#stream.hold(-(message.bytes.length + PREFIX_BYTES));
          this.#stream.giveWindow(message.owedBytes);
          return { value: this.#decode(message.bytes), done: false };
        }
        if (isEnded) break;
        if (this.over) throw this.over;
        if (this.#isRequestEnded) break;
        this.#reader = deferred();
        await this.#reader.promise;
        this.#reader = undefined;
      }
      return { value: undefined, done: true };
    };
    const end = async (): Promise<IteratorResult<unknown>> => {
      isEnded = true;
      return { value: undefined, done: true };
    };
    return { [Symbol.asyncIterator]: () => ({ next, return: end }) };
  }

  #sink(): ResponseSink<unknown> {
    const stream = this.#stream;
    let mayGoOn = true;
    return {
      write: (message) => {
        if (this.over) throw this.over;
        stream.sendHeaders();
        const { pieces, byteLength } = this.#encoded(message);
        mayGoOn = stream.writeMessage(pieces, byteLength);
        return mayGoOn;
      },
      drained: () => {
        if (this.over) return Promise.reject(this.over);
        if (mayGoOn || !stream.needsDrain) return Promise.resolve();
        this.#drain ??= deferred();
        return this.#drain.promise;
      },
      sent: () => {
        if (this.over) return Promise.reject(this.over);
        const sent = deferred<void>();
        this.#sent = sent;
        stream.whenSent(() => sent.resolve());
        return sent.promise;
      },
      flushHeaders: () => {
        if (!this.over) stream.sendHeaders();
      },
    };
  }

  // ---- the end

  #watchDeadline(): void {
    if (this.deadlineMs === undefined) return;
    const { clock } = this.#server.options;
    const leftMs = Math.max(0, this.deadlineMs - clock.monotonicMs());
    // Node's timers end at 2^31 ms; nobody waits that long for an answer.
    if (leftMs < 2 ** 31) this.#timer = clock.after(leftMs, () => this.#fail(deadlineError()), { unref: true });
  }

  #hooksEnded(error: StatusError | undefined): void {
    if (!this.#isAdmitted || this.#hasEndedHooks) return;
    this.#hasEndedHooks = true;
    this.#server.options.hooks?.ended?.(this, error);
  }

  /** Ends the call with an error, unless it is over already. */
  #fail(error: unknown): void {
    let status: StatusError;
    try {
      status = statusOf(error);
    } catch (broken) {
      this.#server.options.onFatal(broken);
      status = new StatusError(Code.Internal, "internal error");
    }
    if (!this.over) {
      this.#stream.finish(["grpc-status", String(status.code), "grpc-message", percentEncoded(status.message)]);
    }
    this.#end(status);
    this.#hooksEnded(status);
  }

  /** Lets go whatever still waits on this call. */
  #end(reason: StatusError): void {
    if (this.over) return;
    this.over = reason;
    this.#timer?.cancel();
    this.#parts = NO_PARTS;
    if (this.#unread) this.#unread.length = 0;
    this.#abort?.abort(reason);
    this.#reader?.resolve();
    if (this.#drain) {
      // Nobody may be waiting any more; a rejection without a listener would end the process.
      this.#drain.promise.catch(() => {});
      this.#drain.reject(reason);
    }
    if (this.#sent) {
      this.#sent.promise.catch(() => {});
      this.#sent.reject(reason);
    }
  }
}

class NativeServer implements RpcServer {
  readonly options: RpcServerOptions;
  readonly #routes = new Map<string, Route>();
  readonly #serviceNames = new Set<string>();
  readonly #connections = new Map<ServerConnection, PeerInfo>();
  #isStopping = false;
  #stopped: Deferred<void> | undefined;

  constructor(options: RpcServerOptions) {
    this.options = options;
    for (const { service, handlers } of options.services) {
      this.#serviceNames.add(service.typeName);
      for (const [name, method] of Object.entries(service.methods)) {
        const handler = handlers[name];
        if (handler !== undefined) this.#routes.set(method.path, { method, handler });
      }
    }
  }

  accept(socket: Duplex, peer: PeerInfo): void {
    if (this.#isStopping) {
      socket.destroy();
      return;
    }
    const { clock, limits, keepAlive } = this.options;
    const connection = new ServerConnection(socket, {
      clock,
      concurrentStreamsMax: limits.concurrentStreamsMax,
      pingMinTimeMs: keepAlive.minTimeMs,
      pingIntervalMs: keepAlive.timeoutMs > 0 ? keepAlive.intervalMs : 0,
      pingTimeoutMs: keepAlive.timeoutMs,
      onRequest: (stream, headers) => this.#request(stream, headers, peer),
      onClose: (closed) => {
        this.#connections.delete(closed);
        if (this.#connections.size === 0) this.#stopped?.resolve();
      },
    });
    this.#connections.set(connection, peer);
  }

  #request(stream: ServerStream, block: HeaderBlock, peer: PeerInfo): StreamEvents | undefined {
    const head = (block.memo as RequestHead | undefined) ?? this.#head(stream, block.fields);
    if (!head) return undefined;
    block.memo = head;
    const call = new NativeCall(this, stream, head, peer);
    stream.events = call;
    call.begin();
    return call;
  }

  /** Undefined when the request has been refused. */
  #head(stream: ServerStream, headers: HeaderList): RequestHead | undefined {
    let method = "";
    let path = "";
    let contentType: string | undefined;
    let timeout: string | undefined;
    let encoding: string | undefined;
    for (let i = 0; i < headers.length; i += 2) {
      const value = headers[i + 1] as string;
      switch (headers[i]) {
        case ":method":
          method = value;
          break;
        case ":path":
          path = value;
          break;
        case "content-type":
          contentType = value;
          break;
        case "grpc-timeout":
          timeout = value;
          break;
        case "grpc-encoding":
          encoding = value;
          break;
        default:
          break;
      }
    }
    if (method !== "POST" || path === "") {
      stream.reset(ErrorCode.ProtocolError);
      return undefined;
    }
    if (contentType === undefined || !/^application\/grpc(?:$|[+;])/.test(contentType)) {
      const text = `invalid gRPC request content-type ${JSON.stringify(contentType ?? "")}`;
      const status = [":status", "415", "content-type", "application/grpc"];
      stream.finish([...status, "grpc-status", String(Code.InvalidArgument), "grpc-message", percentEncoded(text)]);
      return undefined;
    }
    let timeoutMs: number | undefined;
    if (timeout !== undefined) {
      const [, digits, unit] = /^(\d{1,8})([HMSmun])$/.exec(timeout) ?? [];
      if (digits === undefined || unit === undefined) {
        this.#refuse(stream, Code.Internal, `malformed grpc-timeout: ${timeout}`);
        return undefined;
      }
      timeoutMs = Number(digits) * (TIMEOUT_UNIT_MS[unit] as number);
    }
    const route = this.#routes.get(path);
    if (!route) {
      this.#refuse(stream, Code.Unimplemented, this.#unknown(path));
      return undefined;
    }
    return { route, metadata: new HeaderMetadata(headers), encoding, timeoutMs };
  }

  #refuse(stream: ServerStream, code: number, text: string): void {
    stream.finish(["grpc-status", String(code), "grpc-message", percentEncoded(text)]);
  }

  #unknown(path: string): string {
    const cut = path.lastIndexOf("/");
    if (!path.startsWith("/") || cut <= 0) return `malformed method name: ${JSON.stringify(path)}`;
    const service = path.substring(1, cut);
    return this.#serviceNames.has(service)
      ? `unknown method ${path.substring(cut + 1)} for service ${service}`
      : `unknown service ${service}`;
  }

  async stop(graceMs: number): Promise<void> {
    this.#isStopping = true;
    for (const connection of [...this.#connections.keys()]) connection.goAway();
    if (this.#connections.size === 0) return;
    this.#stopped = deferred();
    const timer = this.options.clock.after(graceMs, () => this.destroy());
    await this.#stopped.promise;
    timer.cancel();
  }

  destroy(): void {
    this.#isStopping = true;
    for (const connection of [...this.#connections.keys()]) connection.destroy();
  }
}

export function createNativeServer(options: RpcServerOptions): RpcServer {
  return new NativeServer(options);
}
