// How errors of the client read in etcdctl: etcd's own texts alone, everything else with its gRPC code. The errors are
// known by their names, so that this module loads nothing.
import type { RpcError } from "@etcd-ts/client";
import { ExitError } from "./exit.ts";

const DEADLINE_TEXT = "context deadline exceeded";
const DEADLINE_EXCEEDED = 4;

const codeNames = [
  "OK",
  "Canceled",
  "Unknown",
  "InvalidArgument",
  "DeadlineExceeded",
  "NotFound",
  "AlreadyExists",
  "PermissionDenied",
  "ResourceExhausted",
  "FailedPrecondition",
  "Aborted",
  "OutOfRange",
  "Unimplemented",
  "Internal",
  "Unavailable",
  "DataLoss",
  "Unauthenticated",
] as const;

/** Whether a call ran out of its time here, as against one whose server said so. */
export const isTimeout = ({ code, details }: { readonly code: number; readonly details: string }): boolean =>
  code === DEADLINE_EXCEEDED && details === DEADLINE_TEXT;

export const isRpcError = (error: unknown): error is RpcError => error instanceof Error && error.name === "RpcError";

/** `rpc error: code = Unavailable desc = ...` */
export const statusText = (code: number, details: string): string =>
  `rpc error: code = ${codeNames[code] ?? `Code(${code})`} desc = ${details}`;

/** The text that `Error: ` is put before. */
export function errorText(error: unknown): string {
  if (!isRpcError(error)) {
    // The server has texts that etcd's client does not know as its own: "auth: permission denied" is one.
    const { name, message, code } = error as { name?: unknown; message?: unknown; code?: unknown };
    if (name === "EtcdError" && typeof message === "string" && !message.startsWith("etcdserver: ")) {
      return statusText(Number(code), message);
    }
    return error instanceof Error ? error.message : String(error);
  }
  if (isTimeout(error)) return DEADLINE_TEXT;
  return error.details.startsWith("etcdclient: ") ? error.details : statusText(error.code, error.details);
}

/** The same error, ending the command with this code; ExitErrors keep theirs. */
export function exitWith(
  exitCode: number,
  error: unknown,
  text: (reason: string) => string = (reason) => reason,
): ExitError {
  return error instanceof ExitError ? error : new ExitError(exitCode, text(errorText(error)), { cause: error });
}

/** The gRPC code of an error or of what caused it. */
export function rpcCodeOf(error: unknown): number | undefined {
  for (let at = error; at instanceof Error; at = at.cause) {
    if (at.name === "RpcError" || at.name === "EtcdError") return (at as RpcError).code;
  }
  return undefined;
}

/** The name of that code. */
export function codeNameOf(error: unknown): string | undefined {
  const code = rpcCodeOf(error);
  return code === undefined ? undefined : codeNames[code];
}
