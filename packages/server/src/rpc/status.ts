/**
 * The one place where an error becomes a gRPC status. Errors of the table (EtcdError) carry their code and text;
 * anything else is an Unknown with its message, as a plain Go error would be.
 */
import { Code, EtcdError } from "@etcd-ts/client/wire";
import { InvariantError } from "../lib/assert.ts";

/** A gRPC status other than OK. For texts outside etcd's public table. */
export class StatusError extends Error {
  override readonly name = "StatusError";
  readonly code: number;

  constructor(code: number, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

export function canceledError(): StatusError {
  return new StatusError(Code.Canceled, "context canceled");
}

export function deadlineError(): StatusError {
  return new StatusError(Code.DeadlineExceeded, "context deadline exceeded");
}

/**
 * Never throws, except for a broken invariant: that one must reach the top of the process and end it, because an
 * answer would be made from memory that can no longer be trusted.
 */
export function statusOf(error: unknown): StatusError {
  if (error instanceof StatusError) return error;
  if (error instanceof EtcdError) return new StatusError(error.code, error.message, { cause: error });
  if (error instanceof InvariantError) throw error;
  if (error instanceof Error) return new StatusError(Code.Unknown, error.message, { cause: error });
  return new StatusError(Code.Unknown, String(error));
}

/** The text grpc-go gives to a request over the receive limit. */
export function tooLargeMessage(byteLength: number, limit: number): string {
  return `grpc: received message larger than max (${byteLength} vs. ${limit})`;
}

/** The text grpc-go gives to a request that is not a message of its type. */
export function malformedMessage(reason: string): string {
  return `grpc: error unmarshalling request: ${reason}`;
}
