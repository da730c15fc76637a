/**
 * The connections of a client: one channel an endpoint, made when first needed, and the choice among them. Calls go
 * round robin over the endpoints that are connected; when none is, a call waits for the first that becomes so, within
 * its own deadline. So a dead endpoint is passed over in silence, as etcd's client does.
 */
import { isIP } from "node:net";
import type { ChannelCredentials, Client as GrpcClient, ChannelOptions as GrpcOptions } from "@grpc/grpc-js";
import { ConnectionError, DEADLINE_TEXT, RpcError } from "./errors.ts";
import { type ClientOptions, DEFAULT_DIAL_TIMEOUT_MS, parseEndpoint, RECEIVE_BYTES_MAX } from "./options.ts";
import { Code } from "./wire/index.ts";

export type Grpc = typeof import("@grpc/grpc-js");
type Channel = ReturnType<GrpcClient["getChannel"]>;

/** Reconnecting: etcd's client begins at a second; a local cluster is back sooner than that. */
const RECONNECT_FIRST_MS = 100;
const RECONNECT_MAX_MS = 2_000;
const KEEP_ALIVE_TIMEOUT_MS = 20_000;
const KEEP_ALIVE_MIN_MS = 10_000;
/** A method that every server may be asked for. */
const PROBE_PATH = "/grpc.health.v1.Health/Check";
/** How long one look at a channel's state may last before all are looked at again. */
const STATE_WATCH_MS = 1_000;
/** grpc answers at once when it has no connection; this bounds the answer should it have one after all. */
const PROBLEM_TIMEOUT_MS = 100;

/**
 * How often silence is probed. A server takes more than two pings within its least interval, 5 s, for an attack and closes
 * the connection; so grpc-go, and thus etcd's client, never pings more often than every 10 s, whatever it is told.
 */
export function keepAliveOptions({
  keepAliveTimeMs = 0,
  keepAliveTimeoutMs = KEEP_ALIVE_TIMEOUT_MS,
}: Pick<ClientOptions, "keepAliveTimeMs" | "keepAliveTimeoutMs">): GrpcOptions {
  if (keepAliveTimeMs <= 0) return {};
  return {
    "grpc.keepalive_time_ms": Math.max(keepAliveTimeMs, KEEP_ALIVE_MIN_MS),
    "grpc.keepalive_timeout_ms": keepAliveTimeoutMs,
  };
}

export interface Connection {
  readonly endpoint: string;
  readonly grpc: GrpcClient;
}

export class Channels {
  readonly #grpc: Grpc;
  readonly #options: ClientOptions;
  readonly #connections = new Map<string, Connection>();
  #endpoints: readonly string[];
  #next = 0;
  #isClosed = false;

  constructor(grpc: Grpc, options: ClientOptions) {
    this.#grpc = grpc;
    this.#options = options;
    this.#endpoints = [...options.endpoints];
  }

  get endpoints(): readonly string[] {
    return this.#endpoints;
  }

  /** Calls from now on choose among these; channels to others are closed. */
  setEndpoints(endpoints: readonly string[]): void {
    this.#endpoints = [...endpoints];
    for (const [endpoint, connection] of this.#connections) {
      if (endpoints.includes(endpoint)) continue;
      connection.grpc.close();
      this.#connections.delete(endpoint);
    }
  }

  #connection(endpoint: string): Connection {
    const known = this.#connections.get(endpoint);
    if (known) return known;
    const { tls } = this.#options;
    const { target, isTls, authority } = parseEndpoint(endpoint, tls);
    const { credentials } = this.#grpc;
    const pem = (bytes: Uint8Array | undefined) => (bytes ? Buffer.from(bytes) : null);
    const options: GrpcOptions = {
      "grpc.max_receive_message_length": RECEIVE_BYTES_MAX,
      "grpc.max_send_message_length": -1, // checked before, with etcd's text
      "grpc.initial_reconnect_backoff_ms": RECONNECT_FIRST_MS,
      "grpc.min_reconnect_backoff_ms": RECONNECT_FIRST_MS,
      "grpc.max_reconnect_backoff_ms": RECONNECT_MAX_MS,
      "grpc.service_config_disable_resolution": 1,
      "grpc.enable_retries": 0,
      "grpc.enable_http_proxy": 0,
      "grpc.use_local_subchannel_pool": 1,
    };
    Object.assign(options, keepAliveOptions(this.#options));
    if (authority) {
      options["grpc.default_authority"] = authority;
      options["grpc.ssl_target_name_override"] = authority.replace(/:\d+$/, "");
    }
    if (tls?.serverName !== undefined) options["grpc.ssl_target_name_override"] = tls.serverName;
    const channelCredentials = isTls
      ? nameNoAddress(
          credentials.createSsl(pem(tls?.ca), pem(tls?.key), pem(tls?.cert), {
            rejectUnauthorized: tls?.skipVerify !== true,
            ...(tls?.skipVerify === true ? { checkServerIdentity: () => undefined } : {}),
          }),
        )
      : credentials.createInsecure();
    const connection = { endpoint, grpc: new this.#grpc.Client(target, channelCredentials, options) };
    this.#connections.set(endpoint, connection);
    return connection;
  }

  /**
   * A connected endpoint, the next in turn. Waits for one until `deadlineMs` (of Date.now) has passed or the signal is
   * aborted. `only` names the one endpoint that will do.
   */
  async pick(deadlineMs: number, signal?: AbortSignal, only?: string): Promise<Connection> {
    const { READY, TRANSIENT_FAILURE } = this.#grpc.connectivityState;
    let problem: Promise<ConnectionError | undefined> | undefined;
    for (;;) {
      if (this.#isClosed) throw new RpcError(Code.Canceled, "the client is closed");
      signal?.throwIfAborted();
      const candidates = only !== undefined ? [only] : this.#endpoints;
      if (candidates.length === 0) throw new RpcError(Code.Unavailable, "etcdclient: no available endpoints");
      const states: { channel: Channel; state: number }[] = [];
      for (let i = 0; i < candidates.length; i++) {
        const connection = this.#connection(candidates[(this.#next + i) % candidates.length] as string);
        const channel = connection.grpc.getChannel();
        const state = channel.getConnectivityState(true);
        if (state === READY) {
          this.#next = (this.#next + i + 1) % candidates.length;
          return connection;
        }
        if (state === TRANSIENT_FAILURE) problem = this.#problem(connection);
        states.push({ channel, state });
      }
      if (Date.now() >= deadlineMs) {
        const cause = await problem;
        throw new RpcError(Code.DeadlineExceeded, DEADLINE_TEXT, cause && { cause });
      }
      await this.#change(states, Math.min(deadlineMs, Date.now() + STATE_WATCH_MS), signal);
    }
  }

  /** Why a channel has no connection: grpc tells that only to a call which does not wait for one. */
  #problem({ endpoint, grpc }: Connection): Promise<ConnectionError | undefined> {
    return new Promise((resolve) => {
      const none = Buffer.alloc(0);
      const options = { deadline: Date.now() + PROBLEM_TIMEOUT_MS };
      grpc.makeUnaryRequest(
        PROBE_PATH,
        () => none,
        () => none,
        none,
        new this.#grpc.Metadata(),
        options,
        (error) => {
          const text = error?.code === Code.Unavailable ? error.details : "";
          const reason =
            /^No connection established\. Last error: (?:\w*Error(?: \[\w+\])?: )?(.*?)\.? Resolution note: /s.exec(
              text,
            )?.[1] ?? (text.startsWith("Name resolution failed") ? text : undefined);
          resolve(reason === undefined ? undefined : new ConnectionError(endpoint, reason));
        },
      );
    });
  }

  /** Resolves when one of the channels leaves its state, or the time is up; rejects when the signal is aborted. */
  #change(states: { channel: Channel; state: number }[], deadlineMs: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const onAbort = () => reject(signal?.reason);
      signal?.addEventListener("abort", onAbort, { once: true });
      const done = () => {
        signal?.removeEventListener("abort", onAbort);
        resolve();
      };
      for (const { channel, state } of states) {
        try {
          channel.watchConnectivityState(state, deadlineMs, done);
        } catch {
          done(); // closed meanwhile: pick() looks again
        }
      }
    });
  }

  close(): void {
    this.#isClosed = true;
    for (const connection of this.#connections.values()) connection.grpc.close();
    this.#connections.clear();
  }
}

/**
 * Keeps an IP address from being sent as TLS server name: no name is due then, and Node says so on standard error, in the
 * middle of a tool's output. The dot that ends a name in DNS does not belong there either. grpc-js has no option for it; where it looks otherwise inside, the warning is all there is.
 */
function nameNoAddress(credentials: ChannelCredentials): ChannelCredentials {
  interface Connector {
    readonly connectionOptions?: { servername?: string };
  }
  const maker = credentials as unknown as { _createSecureConnector?: (...args: unknown[]) => Connector };
  const create = maker._createSecureConnector;
  if (!create) return credentials;
  maker._createSecureConnector = (...args) => {
    const connector = create.apply(credentials, args);
    const options = connector.connectionOptions;
    const { servername } = options ?? {};
    if (options && servername !== undefined) options.servername = isIP(servername) ? "" : servername.replace(/\.$/, "");
    return connector;
  };
  return credentials;
}

export const dialTimeoutMs = (options: ClientOptions): number => options.dialTimeoutMs ?? DEFAULT_DIAL_TIMEOUT_MS;
