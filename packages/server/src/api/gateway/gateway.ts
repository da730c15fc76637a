/**
 * The JSON gateway: every method of the API as POST with a JSON message, streams as one JSON object a line. It is
 * grpc-gateway v1 in what it answers, but it does not dial the own port: it calls the same handlers directly, through
 * the same checks.
 */
import { type IncomingMessage, STATUS_CODES, type ServerResponse } from "node:http";
import type { TLSSocket } from "node:tls";
import { Code, type Codec, type Init } from "@etcd-ts/client/wire";
import type { Clock } from "../../lib/clock.ts";
import { JsonError, parseJson } from "../../lib/json.ts";
import { deferred, Slots } from "../../lib/wait.ts";
import {
  type CallContext,
  type CallHooks,
  type CallMetadata,
  canceledError,
  EncodedMessage,
  type HttpHandler,
  type MethodDescriptor,
  type MethodKind,
  type PeerInfo,
  type ResponseSink,
  remoteAddressOf,
  type ServiceRegistration,
  StatusError,
  StreamedMessage,
  type StreamHandler,
  statusOf,
  tooLargeMessage,
  type UnaryHandler,
} from "../../rpc/index.ts";
import { answer, httpError } from "../http/routes.ts";
import { fromJson, GatewayInputError, JsonSplitter, toJson } from "./json.ts";

export interface GatewayOptions {
  readonly services: readonly ServiceRegistration[];
  readonly hooks: CallHooks;
  readonly clock: Clock;
  /** Limit of a request message, as on the gRPC side. */
  readonly messageBytesMax: number;
  /** Calls at once; others wait. etcd's gateway has one connection to its server, and that so many streams. */
  readonly concurrentStreamsMax: number;
  readonly onFatal: (error: unknown) => void;
}

interface Route {
  readonly method: MethodDescriptor & { readonly request: Codec<unknown>; readonly response: Codec<unknown> };
  readonly handler: unknown;
}

const httpStatusOf: Readonly<Record<number, number>> = {
  [Code.Ok]: 200,
  [Code.Canceled]: 408,
  [Code.Unknown]: 500,
  [Code.InvalidArgument]: 400,
  [Code.DeadlineExceeded]: 504,
  [Code.NotFound]: 404,
  [Code.AlreadyExists]: 409,
  [Code.PermissionDenied]: 403,
  [Code.ResourceExhausted]: 429,
  [Code.FailedPrecondition]: 400,
  [Code.Aborted]: 409,
  [Code.OutOfRange]: 400,
  [Code.Unimplemented]: 501,
  [Code.Internal]: 500,
  [Code.Unavailable]: 503,
  [Code.DataLoss]: 500,
  [Code.Unauthenticated]: 401,
};

const METADATA_HEADER = "grpc-metadata-";
/** Headers of HTTP itself reach handlers under this prefix; `grpcgateway-accept` marks a call as the gateway's. */
const GATEWAY_PREFIX = "grpcgateway-";
const FORWARDED: ReadonlySet<string> = new Set([
  "accept",
  "accept-charset",
  "accept-language",
  "accept-ranges",
  "authorization",
  "cache-control",
  "content-type",
  "cookie",
  "date",
  "expect",
  "from",
  "host",
  "if-match",
  "if-modified-since",
  "if-none-match",
  "if-schedule-tag-match",
  "if-unmodified-since",
  "max-forwards",
  "origin",
  "pragma",
  "referer",
  "user-agent",
  "via",
  "warning",
]);

class HeaderMetadata implements CallMetadata {
  readonly #values = new Map<string, string>();

  constructor(request: IncomingMessage) {
    for (const [name, value] of Object.entries(request.headers)) {
      const text = Array.isArray(value) ? value.join(", ") : (value ?? "");
      if (name.startsWith(METADATA_HEADER)) this.#values.set(name.substring(METADATA_HEADER.length), text);
      else if (FORWARDED.has(name)) this.#values.set(GATEWAY_PREFIX + name, text);
      if (name === "authorization") this.#values.set(name, text);
    }
    // Whatever the sender says, the certificate of the connection is not its own identity towards the API.
    if (!this.#values.has("grpcgateway-accept")) this.#values.set("grpcgateway-accept", "*/*");
  }

  get(name: string): string | undefined {
    return this.#values.get(name);
  }

  getAll(name: string): readonly string[] {
    const value = this.#values.get(name);
    return value === undefined ? [] : [value];
  }
}

class GatewayCall implements CallContext {
  readonly path: string;
  readonly kind: MethodKind;
  readonly metadata: CallMetadata;
  readonly peer: PeerInfo;
  readonly deadlineMs: number | undefined = undefined;
  readonly #abort = new AbortController();

  constructor(method: MethodDescriptor, request: IncomingMessage, response: ServerResponse) {
    this.path = method.path;
    this.kind = method.kind;
    this.metadata = new HeaderMetadata(request);
    this.peer = {
      address: remoteAddressOf(request.socket),
      isTls: (request.socket as Partial<TLSSocket>).encrypted === true,
      commonName: undefined,
    };
    response.once("close", () => this.end());
  }

  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  end(): void {
    if (!this.#abort.signal.aborted) this.#abort.abort(canceledError());
  }
}

function decoded(codec: Codec<unknown>, answer: unknown): Init<unknown> {
  const message = answer instanceof StreamedMessage ? answer.whole() : answer;
  return (
    message instanceof EncodedMessage ? codec.decode(Buffer.concat(message.pieces, message.byteLength)) : message
  ) as Init<unknown>;
}

export function createGateway(options: GatewayOptions): HttpHandler {
  const routes = new Map<string, Route>();
  for (const { service, handlers } of options.services) {
    for (const [name, method] of Object.entries(service.methods)) {
      for (const path of (method as { readonly routes?: readonly string[] }).routes ?? []) {
        routes.set(path, { method: method as Route["method"], handler: handlers[name] });
      }
    }
  }
  const bodyCharsMax = options.messageBytesMax * 2;

  const asStatus = (error: unknown): StatusError => {
    if (error instanceof GatewayInputError || error instanceof JsonError) {
      return new StatusError(Code.InvalidArgument, error.message);
    }
    try {
      return statusOf(error);
    } catch (broken) {
      options.onFatal(broken);
      return new StatusError(Code.Internal, "internal error");
    }
  };

  /** Into the message, and through the check that gRPC's framing would make. */
  const parse = (method: Route["method"], text: string, call: GatewayCall): unknown => {
    const message = method.request.create(fromJson(method.request, parseJson(text)) as never);
    const { length } = method.request.encode(message as never);
    if (length > options.messageBytesMax) {
      throw new StatusError(Code.ResourceExhausted, tooLargeMessage(length, options.messageBytesMax));
    }
    options.hooks.received?.(call, length);
    return message;
  };

  async function* messages(method: Route["method"], request: IncomingMessage, call: GatewayCall) {
    const splitter = new JsonSplitter();
    let count = 0;
    request.setEncoding("utf8");
    for await (const piece of request.iterator({ destroyOnReturn: false })) {
      for (const text of splitter.push(piece as string)) {
        count++;
        yield parse(method, text, call);
        if (method.kind === "unary" || method.kind === "serverStream") return;
      }
      if (splitter.pending > bodyCharsMax) {
        throw new StatusError(Code.ResourceExhausted, tooLargeMessage(splitter.pending, options.messageBytesMax));
      }
    }
    const rest = splitter.rest();
    // An empty body is an empty message; anything else that is not whole is no message.
    if (rest !== "") yield parse(method, rest, call);
    else if (count === 0 && method.kind !== "bidi") yield parse(method, "{}", call);
  }

  async function unary(
    { method, handler }: Route,
    call: GatewayCall,
    request: IncomingMessage,
    response: ServerResponse,
  ): Promise<void> {
    let isAdmitted = false;
    let text: string;
    try {
      let message: unknown;
      for await (const given of messages(method, request, call)) {
        message = given;
        break;
      }
      options.hooks.admit?.(call);
      isAdmitted = true;
      options.hooks.started?.(call);
      const answer = await (handler as UnaryHandler<MethodDescriptor>)(message as never, call);
      text = toJson(method.response, decoded(method.response, answer));
      options.hooks.ended?.(call, undefined);
    } catch (error) {
      const status = asStatus(error);
      if (isAdmitted) options.hooks.ended?.(call, status);
      if (response.destroyed) return;
      const shown = JSON.stringify(status.message);
      const body = `{"error":${shown},"code":${status.code},"message":${shown}}`;
      const headers: Record<string, string> = { "Content-Type": "application/json" };
      if (status.code === Code.Unauthenticated) headers["WWW-Authenticate"] = status.message;
      answer(response, httpStatusOf[status.code] ?? 500, headers, body);
      return;
    }
    const headers = { "Content-Type": "application/json", "Grpc-Metadata-Content-Type": "application/grpc" };
    answer(response, 200, headers, text);
  }

  async function stream(
    { method, handler }: Route,
    call: GatewayCall,
    request: IncomingMessage,
    response: ServerResponse,
  ): Promise<void> {
    const writeHead = (status: number) => {
      if (response.headersSent) return;
      response.writeHead(status, {
        "Content-Type": "application/json",
        "Grpc-Metadata-Content-Type": "application/grpc",
      });
    };
    const out: ResponseSink<never> = {
      write(message) {
        if (call.signal.aborted) throw call.signal.reason;
        writeHead(200);
        return response.write(`{"result":${toJson(method.response, decoded(method.response, message))}}\n`);
      },
      drained() {
        if (call.signal.aborted) return Promise.reject(call.signal.reason);
        if (!response.writableNeedDrain) return Promise.resolve();
        const room = deferred();
        const settle = () => {
          response.off("drain", settle);
          call.signal.removeEventListener("abort", settle);
          if (call.signal.aborted) room.reject(call.signal.reason);
          else room.resolve();
        };
        response.on("drain", settle);
        call.signal.addEventListener("abort", settle);
        return room.promise;
      },
      flushHeaders() {
        writeHead(200);
        response.flushHeaders();
      },
    };
    let isAdmitted = false;
    try {
      options.hooks.admit?.(call);
      isAdmitted = true;
      options.hooks.started?.(call);
      await (handler as StreamHandler<MethodDescriptor>)(
        messages(method, request, call) as AsyncIterable<never>,
        out,
        call,
      );
      options.hooks.ended?.(call, undefined);
      writeHead(200);
      response.end();
    } catch (error) {
      const status = asStatus(error);
      if (isAdmitted) options.hooks.ended?.(call, status);
      if (response.destroyed) return;
      const httpStatus = httpStatusOf[status.code] ?? 500;
      writeHead(httpStatus);
      const details = {
        grpc_code: status.code,
        http_code: httpStatus,
        message: status.message,
        http_status: STATUS_CODES[httpStatus],
      };
      response.end(`{"error":${JSON.stringify(details)}}\n`);
    } finally {
      call.end();
    }
  }

  const slots = new Slots(options.concurrentStreamsMax);

  async function serve(route: Route, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const call = new GatewayCall(route.method, request, response);
    try {
      await slots.enter(call.signal);
    } catch {
      // Whoever asked has hung up.
      return;
    }
    try {
      await (route.method.kind === "unary" ? unary : stream)(route, call, request, response);
    } finally {
      slots.leave();
    }
  }

  return (request, response) => {
    const { pathname } = new URL(request.url ?? "/", "http://localhost");
    const route = routes.get(pathname.replace(/^\/v3beta\//, "/v3/"));
    if (!route) return httpError(response, 404, "Not Found");
    if (request.method !== "POST") return httpError(response, 405, "Method Not Allowed");
    serve(route, request, response).catch((error: unknown) => {
      // Writing the answer failed: there is nobody left to tell.
      if (!response.destroyed) response.destroy(error as Error);
    });
  };
}
