// The line that etcd's client logs for each attempt of a call that failed, in its form and words: scripts look for it.
import type { FailedAttempt } from "@etcd-ts/client";
import { errorText, statusText } from "./errors.ts";
import { quote } from "./go/quote.ts";
import { type Io, writeLog } from "./io.ts";

/** A call that ran out of time, with what kept it from a connection if that is known. */
export function attemptText(error: unknown): string {
  const { code, message, cause } = error as Partial<Error> & { code?: number };
  if (!(cause instanceof Error) || cause.name !== "ConnectionError") return errorText(error);
  return statusText(code ?? 2, balancerText(message ?? "", cause.message));
}

const balancerText = (details: string, connectionError: string | undefined): string =>
  connectionError === undefined
    ? details
    : `latest balancer error: last connection error: connection error: desc = ${quote(dialText(connectionError))}`;

/** @param endpoints those of the client, of which the first names it */
export function logAttempt(
  io: Pick<Io, "err" | "timestamp">,
  endpoints: readonly string[],
  { attempt, code, details, connectionError }: FailedAttempt,
  logger = "etcd-client",
): void {
  const error = statusText(code, balancerText(details, connectionError));
  const fields = { target: targetOf(endpoints[0] ?? ""), attempt, error };
  writeLog(io, "warn", "v3/retry_interceptor.go:63", "retrying of unary invoker failed", fields, logger);
}

/** What etcd's client calls itself: an address in its memory, which nobody can use for anything, and its first endpoint. */
const targetOf = (endpoint: string): string =>
  `etcd-endpoints://0xc000${process.pid.toString(16).padStart(6, "0")}/${endpoint.trim().replace(/^[a-z]+:\/\//, "")}`;

/** A failure to connect, as Go words it. */
export function dialText(problem: string): string {
  const [, code, where = ""] = /^connect (E[A-Z]+) (.*)$/.exec(problem) ?? [];
  if (code !== undefined) {
    const network = where.startsWith("/") || where.startsWith("@") ? "unix" : "tcp";
    return `transport: Error while dialing: dial ${network} ${where}: connect: ${reasons[code] ?? code}`;
  }
  const [, port] = /^Port should be .* \((\d+)\)/.exec(problem) ?? [];
  if (port !== undefined) return `transport: Error while dialing: dial tcp: address ${port}: invalid port`;
  const [, host] = /^Name resolution failed for target dns:(.*?)(?::\d+)?$/.exec(problem) ?? [];
  if (host !== undefined) return `transport: Error while dialing: dial tcp: lookup ${host}: no such host`;
  // Connected, and closed before the other side spoke HTTP/2: it may have wanted TLS.
  if (/^Failed to connect \(/.test(problem)) return "error reading server preface: EOF";
  return `transport: authentication handshake failed: ${tlsText(problem)}`;
}

const reasons: Readonly<Record<string, string>> = {
  ECONNREFUSED: "connection refused",
  ECONNRESET: "connection reset by peer",
  EHOSTUNREACH: "no route to host",
  ENETUNREACH: "network is unreachable",
  ETIMEDOUT: "connection timed out",
  ENOENT: "no such file or directory",
  EACCES: "permission denied",
};

function tlsText(problem: string): string {
  if (/self[- ]signed|unable to (?:get|verify)/i.test(problem)) {
    return "tls: failed to verify certificate: x509: certificate signed by unknown authority";
  }
  if (/has expired/i.test(problem)) {
    return "tls: failed to verify certificate: x509: certificate has expired or is not yet valid";
  }
  if (/wrong version number|packet length too long/i.test(problem)) {
    return "tls: first record does not look like a TLS handshake";
  }
  return /disconnected before secure/.test(problem) ? "EOF" : problem;
}
