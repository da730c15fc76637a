/** How to reach a cluster, and what an endpoint's text means. */

/** How to talk TLS. */
export interface TlsOptions {
  /** PEM of the authorities to trust; the system's when absent. */
  readonly ca?: Uint8Array;
  /** PEM of the client certificate and its key; both or neither. */
  readonly cert?: Uint8Array;
  readonly key?: Uint8Array;
  /** Accept any server certificate. Only for tests and first aid. */
  readonly skipVerify?: boolean;
  /** The name that the server's certificate must carry, when it is not the endpoint's host. */
  readonly serverName?: string;
}

/** One failed attempt of a unary call; the call may go on with another. */
export interface FailedAttempt {
  /** The endpoint that was asked. */
  readonly target: string;
  /** 0 for the first attempt of a call. */
  readonly attempt: number;
  readonly code: number;
  readonly details: string;
  /** What kept the call from being sent, when nothing else did: it waited for a connection. */
  readonly connectionError?: string | undefined;
}

/** Where the cluster is, and how to reach it. */
export interface ClientOptions {
  /** `host:port`, `http://host:port`, `https://host:port` or `unix://path`; at least one. */
  readonly endpoints: readonly string[];
  /** Makes endpoints without a scheme TLS ones, and says how to verify. `http://` endpoints stay plain. */
  readonly tls?: TlsOptions | undefined;
  /** Both together: the client logs in when it connects, and again when its token has expired. */
  readonly username?: string | undefined;
  readonly password?: string | undefined;
  /** Bound on logging in while connecting. Default 5,000 ms. */
  readonly dialTimeoutMs?: number | undefined;
  /** Silence after which a connection is probed, not below 10,000 ms, as for etcd's own client; 0 or absent: never. */
  readonly keepAliveTimeMs?: number | undefined;
  /** How long a probe may go unanswered before the connection counts as dead. Default 20,000 ms. */
  readonly keepAliveTimeoutMs?: number | undefined;
  /** Largest request, encoded. Default 2 MiB, as etcd's own client. */
  readonly sendBytesMax?: number | undefined;
  /** Told of each failed attempt of a unary call, before it is repeated or given up. */
  readonly onAttemptFailed?: ((attempt: FailedAttempt) => void) | undefined;
}

/** What may accompany every call. */
export interface CallOptions {
  /** Ends the call; it then throws the signal's reason. */
  readonly signal?: AbortSignal | undefined;
  /** The whole call, attempts and waiting for a connection included. Absent: no limit. */
  readonly timeoutMs?: number | undefined;
  /** Ask this endpoint and no other. */
  readonly endpoint?: string | undefined;
  /** Fail with NoLeader instead of waiting at a member that has lost its leader. */
  readonly requireLeader?: boolean | undefined;
}

/** An endpoint, read. */
export interface ParsedEndpoint {
  /** What grpc dials. */
  readonly target: string;
  readonly isTls: boolean;
  /** What requests give as their authority, where grpc itself would say something else. */
  readonly authority?: string;
}

/** Bounds the calls' options cannot change. */
export const DEFAULT_DIAL_TIMEOUT_MS = 5_000;
export const DEFAULT_SEND_BYTES_MAX = 2 * 1024 * 1024;
/** grpc's own largest; etcd's client takes any answer. */
export const RECEIVE_BYTES_MAX = 2 ** 31 - 1;
/** etcd's `retry.go`: at most this many attempts of a call that may be repeated ... */
export const ATTEMPTS_MAX = 100;
/** ... with this pause between two, give or take a tenth. */
export const RETRY_PAUSE_MS = 25;

/**
 * Reads an endpoint as etcd's client does (client/v3/internal/endpoint): the scheme decides about TLS; without one, and with
 * `unix`, `tls` does. A socket goes by the last part of its path, as its server's name too.
 */
export function parseEndpoint(endpoint: string, tls: TlsOptions | undefined): ParsedEndpoint {
  const [, socket, path] = /^(unixs?):(?:\/\/)?(.*)$/.exec(endpoint) ?? [];
  if (path !== undefined) {
    const authority = path.replace(/\/+$/, "").replace(/^.*\//, "");
    return { target: `unix:${path}`, isTls: socket === "unixs" || tls !== undefined, authority };
  }
  const [, scheme, rest] = /^([a-z]+):\/\/(.*)$/.exec(endpoint) ?? [];
  switch (scheme) {
    case undefined:
      return { target: `dns:${endpoint}`, isTls: tls !== undefined };
    case "http":
      return { target: `dns:${hostPart(rest ?? "")}`, isTls: false };
    case "https":
      return { target: `dns:${hostPart(rest ?? "")}`, isTls: true };
    default:
      return { target: endpoint, isTls: tls !== undefined };
  }
}

const hostPart = (rest: string): string => rest.replace(/\/.*$/, "");
