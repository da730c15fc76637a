// A client for commands that make a call or two and end. Loading a whole gRPC stack takes longer than the call, so plain
// calls to plain endpoints go over node:http2 by hand; whatever is out of the ordinary (TLS, logging in, an endpoint
// that does not answer, a call that may be repeated) is left to the full client, which is loaded only then.
import { type ClientHttp2Session, connect, constants, type IncomingHttpHeaders } from "node:http2";
import type { CallOptions, Client, ClientOptions, FailedAttempt, MethodOf } from "@etcd-ts/client";
import { etcdErrorFromStatus } from "@etcd-ts/client/wire";
import type { CallClient } from "./context.ts";

/** A connection that does not stand after this long is left to the full client, which tries all endpoints. */
const CONNECT_TIMEOUT_MS = 300;
/** Larger requests are left to the full client, which knows the limit and its words. */
const QUICK_REQUEST_BYTES_MAX = 1 << 20;
const DEADLINE_EXCEEDED = 4;
const RESOURCE_EXHAUSTED = 8;
const INTERNAL = 13;
const UNAVAILABLE = 14;
const DEADLINE_TEXT = "context deadline exceeded";
const LENGTH_PREFIX_BYTES = 5;

/** Calls that change nothing: these the full client may make again. */
const READS = new Set([
  "Range",
  "LeaseTimeToLive",
  "LeaseLeases",
  "MemberList",
  "Status",
  "Hash",
  "HashKV",
  "AuthStatus",
  "UserGet",
  "UserList",
  "RoleGet",
  "RoleList",
]);

/** Whether every endpoint is one that a plain call reaches. */
export const isPlain = ({ endpoints, tls, username }: ClientOptions): boolean =>
  tls === undefined &&
  username === undefined &&
  endpoints.length > 0 &&
  endpoints.every((text) => url(text) !== undefined);

/** `http://host:port` of a plain endpoint. */
function url(endpoint: string): string | undefined {
  const [, scheme, rest = ""] = /^(?:([a-z]+):\/\/)?([^/]+)\/?$/.exec(endpoint) ?? [];
  if ((scheme !== undefined && scheme !== "http") || rest.startsWith("unix:") || !/:\d+$/.test(rest)) return undefined;
  const text = `http://${rest}`;
  return URL.canParse(text) ? text : undefined;
}

/** The connection could not be made, or ended, or is not ours to judge: the full client shall try. */
class Handover extends Error {}

/** What only a client of this kind is asked for. */
export interface QuickOptions extends ClientOptions {
  /** Told why an endpoint could not be connected to; the full client tries again. */
  readonly onDialFailed?: ((message: string) => void) | undefined;
}

export class QuickClient implements CallClient {
  readonly #options: QuickOptions;
  readonly #openFully: () => Promise<Client>;
  readonly #sessions = new Map<string, Promise<ClientHttp2Session>>();
  #full: Promise<Client> | undefined;

  /** @param openFully loads the full client, when it comes to that */
  constructor(options: QuickOptions, openFully: () => Promise<Client>) {
    this.#options = options;
    this.#openFully = openFully;
  }

  get endpoints(): readonly string[] {
    return this.#options.endpoints;
  }

  async call<Request, Response>(
    method: MethodOf<Request, Response>,
    request: Request,
    options: CallOptions = {},
  ): Promise<Response> {
    const start = performance.now();
    if (!this.#full && options.signal === undefined && (options.timeoutMs ?? 1) > 0) {
      const body = method.request.encode(request);
      if (body.length <= QUICK_REQUEST_BYTES_MAX) {
        try {
          return method.response.decode(await this.#unary(method.path, body, options));
        } catch (error) {
          if (!(error instanceof Handover)) throw error;
        }
      }
    }
    this.#full ??= this.#openFully();
    const full = await this.#full;
    const { timeoutMs } = options;
    const left = timeoutMs === undefined ? {} : { timeoutMs: timeoutMs - (performance.now() - start) };
    return full.call(method, request, { ...options, ...left });
  }

  async #unary(
    path: string,
    body: Uint8Array,
    { timeoutMs, endpoint, requireLeader }: CallOptions,
  ): Promise<Uint8Array> {
    const target = endpoint ?? this.endpoints[0] ?? "";
    const session = await this.#session(target);
    const mayRepeat = READS.has(path.slice(path.lastIndexOf("/") + 1));
    const fail = (code: number, details: string): Error => {
      if (code === UNAVAILABLE && mayRepeat) return new Handover();
      const attempt: FailedAttempt = { target, attempt: 0, code, details };
      this.#options.onAttemptFailed?.(attempt);
      if (code === DEADLINE_EXCEEDED) return rpcError(code, details);
      return etcdErrorFromStatus(code, details) ?? rpcError(code, details);
    };
    return new Promise((resolve, reject) => {
      const stream = session.request({
        ":method": "POST",
        ":path": path,
        "content-type": "application/grpc",
        te: "trailers",
        ...(timeoutMs === undefined ? {} : { "grpc-timeout": `${Math.min(Math.ceil(timeoutMs), 99_999_999)}m` }),
        ...(requireLeader ? { hasleader: "true" } : {}),
      });
      const chunks: Buffer[] = [];
      let end: { code: number; details: string } | undefined;
      const timer =
        timeoutMs === undefined
          ? undefined
          : setTimeout(() => {
              end = { code: DEADLINE_EXCEEDED, details: DEADLINE_TEXT };
              stream.close(constants.NGHTTP2_CANCEL);
            }, timeoutMs);
      const take = (headers: IncomingHttpHeaders): void => {
        const status = headers["grpc-status"];
        if (status === undefined || end) return;
        end = { code: Number(status), details: decodeURIComponentSafe(String(headers["grpc-message"] ?? "")) };
      };
      stream.on("response", take);
      stream.on("trailers", take);
      stream.on("data", (chunk: Buffer) => chunks.push(chunk));
      stream.on("error", (error) => {
        end ??= { code: UNAVAILABLE, details: error.message };
      });
      stream.on("close", () => {
        clearTimeout(timer);
        const { code, details } = end ?? { code: UNAVAILABLE, details: "the connection was closed" };
        if (code === DEADLINE_EXCEEDED) return reject(fail(code, DEADLINE_TEXT));
        if (code !== 0) return reject(fail(code, details));
        const all = Buffer.concat(chunks);
        if (all.length < LENGTH_PREFIX_BYTES) return reject(fail(INTERNAL, "no message in the response"));
        if (all[0] !== 0) return reject(fail(RESOURCE_EXHAUSTED, "a compressed response was not asked for"));
        resolve(all.subarray(LENGTH_PREFIX_BYTES));
      });
      const message = Buffer.alloc(LENGTH_PREFIX_BYTES + body.length);
      message.writeUInt32BE(body.length, 1);
      message.set(body, LENGTH_PREFIX_BYTES);
      stream.end(message);
    });
  }

  #session(endpoint: string): Promise<ClientHttp2Session> {
    const known = this.#sessions.get(endpoint);
    if (known) return known;
    const opening = new Promise<ClientHttp2Session>((resolve, reject) => {
      const where = url(endpoint);
      if (where === undefined) return reject(new Handover());
      const session = connect(where, {
        settings: { enablePush: false, initialWindowSize: 1 << 20 },
      });
      const give = (error?: Error): void => {
        if (error) this.#options.onDialFailed?.(error.message);
        clearTimeout(timer);
        this.#sessions.delete(endpoint);
        session.destroy();
        reject(new Handover());
      };
      const timer = setTimeout(() => give(), CONNECT_TIMEOUT_MS);
      session.on("error", give);
      session.on("goaway", () => this.#sessions.delete(endpoint));
      // Connected means that the other end speaks HTTP/2: its settings have come.
      session.once("remoteSettings", () => {
        clearTimeout(timer);
        resolve(session);
      });
    });
    this.#sessions.set(endpoint, opening);
    return opening;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const opening of this.#sessions.values()) {
      const session = await opening.catch(() => undefined);
      // Taking a session apart takes longer than ending the process, which is what mostly comes next.
      setImmediate(() => session?.destroy());
    }
    if (this.#full) await (await this.#full)[Symbol.asyncDispose]();
  }
}

/** Known to errors.ts by its name, like the client's own. */
function rpcError(code: number, details: string): Error {
  return Object.assign(new Error(details), { name: "RpcError", code, details });
}

function decodeURIComponentSafe(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
