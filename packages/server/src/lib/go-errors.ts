/** Failures of connections and TLS in the words of Go's net and crypto/tls, which operators look for in the log. */

interface SystemError extends Error {
  readonly code?: string;
  readonly address?: string;
  readonly port?: number;
  readonly hostname?: string;
  readonly syscall?: string;
  /** OpenSSL's. */
  readonly reason?: string;
}

const UNVERIFIED = "tls: failed to verify certificate: x509:";
const UNKNOWN_AUTHORITY = `${UNVERIFIED} certificate signed by unknown authority`;
const OUT_OF_TIME = `${UNVERIFIED} certificate has expired or is not yet valid`;

const verifyTexts: Readonly<Record<string, string>> = {
  UNABLE_TO_GET_ISSUER_CERT: UNKNOWN_AUTHORITY,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: UNKNOWN_AUTHORITY,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: UNKNOWN_AUTHORITY,
  SELF_SIGNED_CERT_IN_CHAIN: UNKNOWN_AUTHORITY,
  DEPTH_ZERO_SELF_SIGNED_CERT: UNKNOWN_AUTHORITY,
  CERT_SIGNATURE_FAILURE: UNKNOWN_AUTHORITY,
  CERT_HAS_EXPIRED: OUT_OF_TIME,
  CERT_NOT_YET_VALID: OUT_OF_TIME,
};

/** Why a certificate was not believed, from the code that Node gives. */
export function verifyErrorText(error: { readonly code?: string | undefined; readonly message: string }): string {
  return verifyTexts[error.code ?? ""] ?? error.message;
}

/** The alert that the other side sent, if that is what ended the connection. */
export function alertText(error: Error): string | undefined {
  const alert = /alert (.+?)(?: *:|$)/i.exec((error as SystemError).reason ?? "")?.[1];
  return alert === undefined ? undefined : `remote error: tls: ${alert}`;
}

/** Why a peer could not be dialled, or a connection to it ended. */
export function dialErrorText(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const { code, address, port, hostname, syscall, message } = error as SystemError;
  const place = address === undefined ? "" : ` ${address.includes(":") ? `[${address}]` : address}:${port}`;
  switch (code) {
    case "ECONNREFUSED":
      return `dial tcp${place}: connect: connection refused`;
    case "ENETUNREACH":
      return `dial tcp${place}: connect: network is unreachable`;
    case "EHOSTUNREACH":
      return `dial tcp${place}: connect: no route to host`;
    case "ETIMEDOUT":
      return syscall === "connect" ? `dial tcp${place}: connect: connection timed out` : "i/o timeout";
    case "ENOTFOUND":
      return `dial tcp: lookup ${hostname}: no such host`;
    case "EAI_AGAIN":
      return `dial tcp: lookup ${hostname}: server misbehaving`;
    case "ECONNRESET":
      return message === "socket hang up" ? "EOF" : "read: connection reset by peer";
    case "EPIPE":
      return "write: broken pipe";
    default:
      return alertText(error) ?? verifyErrorText({ code, message });
  }
}
