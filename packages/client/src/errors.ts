/**
 * What a call can throw besides its own programming errors: {@link EtcdError} for everything in etcd's error table,
 * {@link RpcError} for any other gRPC status, and the abort reason of a signal the caller passed in.
 */
import { Code, EtcdError, etcdErrorFromStatus } from "./wire/index.ts";

/** A gRPC status that is not in etcd's table: the connection, the deadline, or a server's own words. */
export class RpcError extends Error {
  override readonly name = "RpcError";
  /** The numeric gRPC status code. */
  readonly code: number;
  /** The status description, without the code. */
  readonly details: string;

  constructor(code: number, details: string, options?: ErrorOptions) {
    super(details, options);
    this.code = code;
    this.details = details;
  }
}

/**
 * Why there was no connection: the `cause` of the RpcError that ends a call which waited for one in vain. The message is
 * that of the system or of TLS, such as "connect ECONNREFUSED 127.0.0.1:2379".
 */
export class ConnectionError extends Error {
  override readonly name = "ConnectionError";
  readonly endpoint: string;

  constructor(endpoint: string, message: string) {
    super(message);
    this.endpoint = endpoint;
  }
}

/** The text of a call that ran out of its time, as etcd's own client words it. */
export const DEADLINE_TEXT = "context deadline exceeded";

export function statusError(code: number, details: string, cause?: unknown): EtcdError | RpcError {
  return etcdErrorFromStatus(code, details) ?? new RpcError(code, details, cause === undefined ? undefined : { cause });
}

/** The numeric gRPC code of an error of this library; undefined for anything else. */
export function codeOf(error: unknown): number | undefined {
  return error instanceof EtcdError || error instanceof RpcError ? error.code : undefined;
}

/** Whether a stream that ended so may be opened again: the connection broke or the server went away. */
export function isBrokenConnection(error: unknown): boolean {
  const code = codeOf(error);
  if (error instanceof EtcdError && error.kind === "NoLeader") return false;
  return code === Code.Unavailable || code === Code.Internal;
}
