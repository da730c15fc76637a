/**
 * Taking TLS off a connection, by etcd's rules: certificate and key are read again for every handshake, so replacing
 * the files is enough to renew them; a client certificate is demanded when there is a CA to judge it; a listener may
 * ask for certain names in it, and refuse those that a CRL lists.
 */
import { readFileSync } from "node:fs";
import type { Socket } from "node:net";
import {
  createSecureContext,
  type PeerCertificate,
  type SecureContext,
  type SecureContextOptions,
  TLSSocket,
} from "node:tls";
import { alertText, verifyErrorText } from "../lib/go-errors.ts";
import type { Logger } from "../lib/log.ts";
import { isRevoked } from "./crl.ts";
import { remoteAddressOf, type TlsAcceptor } from "./listener.ts";

export interface TlsListenSettings {
  readonly certFile: string;
  readonly keyFile: string;
  /** PEM of the authorities that sign client certificates; empty: none is asked for, unless {@link clientCertAuth}. */
  readonly trustedCaFile: string;
  readonly clientCertAuth: boolean;
  readonly crlFile: string;
  readonly allowedCns: readonly string[];
  readonly allowedHostnames: readonly string[];
  /** Names of Go's crypto/tls; empty: what Node allows. */
  readonly cipherSuites: readonly string[];
  readonly minVersion: string;
  readonly maxVersion: string;
}

/** Go's names of TLS 1.2 suites, and OpenSSL's. */
const cipherNames: Readonly<Record<string, string>> = {
  TLS_RSA_WITH_RC4_128_SHA: "RC4-SHA",
  TLS_RSA_WITH_3DES_EDE_CBC_SHA: "DES-CBC3-SHA",
  TLS_RSA_WITH_AES_128_CBC_SHA: "AES128-SHA",
  TLS_RSA_WITH_AES_256_CBC_SHA: "AES256-SHA",
  TLS_RSA_WITH_AES_128_CBC_SHA256: "AES128-SHA256",
  TLS_RSA_WITH_AES_128_GCM_SHA256: "AES128-GCM-SHA256",
  TLS_RSA_WITH_AES_256_GCM_SHA384: "AES256-GCM-SHA384",
  TLS_ECDHE_ECDSA_WITH_RC4_128_SHA: "ECDHE-ECDSA-RC4-SHA",
  TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA: "ECDHE-ECDSA-AES128-SHA",
  TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA: "ECDHE-ECDSA-AES256-SHA",
  TLS_ECDHE_RSA_WITH_RC4_128_SHA: "ECDHE-RSA-RC4-SHA",
  TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA: "ECDHE-RSA-DES-CBC3-SHA",
  TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA: "ECDHE-RSA-AES128-SHA",
  TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA: "ECDHE-RSA-AES256-SHA",
  TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256: "ECDHE-ECDSA-AES128-SHA256",
  TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256: "ECDHE-RSA-AES128-SHA256",
  TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256: "ECDHE-RSA-AES128-GCM-SHA256",
  TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256: "ECDHE-ECDSA-AES128-GCM-SHA256",
  TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384: "ECDHE-RSA-AES256-GCM-SHA384",
  TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384: "ECDHE-ECDSA-AES256-GCM-SHA384",
  TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256: "ECDHE-RSA-CHACHA20-POLY1305",
  TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256: "ECDHE-ECDSA-CHACHA20-POLY1305",
  TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305: "ECDHE-RSA-CHACHA20-POLY1305",
  TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305: "ECDHE-ECDSA-CHACHA20-POLY1305",
  TLS_AES_128_GCM_SHA256: "TLS_AES_128_GCM_SHA256",
  TLS_AES_256_GCM_SHA384: "TLS_AES_256_GCM_SHA384",
  TLS_CHACHA20_POLY1305_SHA256: "TLS_CHACHA20_POLY1305_SHA256",
};

/** TLS 1.3 suites cannot be restricted, as in Go. */
const TLS13_SUITES = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";

/** OpenSSL's cipher list for Go's names. Throws for a name that Go does not know. */
export function cipherList(names: readonly string[]): string | undefined {
  if (names.length === 0) return undefined;
  const list = names.map((name) => {
    const found = cipherNames[name];
    if (found === undefined) throw new Error(`unexpected TLS cipher suite ${JSON.stringify(name)}`);
    return found;
  });
  return [TLS13_SUITES, ...list].join(":");
}

/** Node's names of the versions that a flag may say. */
export const tlsVersions: Readonly<Record<string, NonNullable<SecureContextOptions["minVersion"]>>> = {
  "TLS1.2": "TLSv1.2",
  "TLS1.3": "TLSv1.3",
};

/** Throws with Go's text. */
export function readPem(file: string): Buffer {
  try {
    return readFileSync(file);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    const reason =
      code === "ENOENT" ? "no such file or directory" : code === "EACCES" ? "permission denied" : String(code);
    throw new Error(`open ${file}: ${reason}`, { cause: error });
  }
}

/** Go's matching of a host name against a name of a certificate: exact, or one label for a leading `*.`. */
function matchesHost(pattern: string, host: string): boolean {
  const wanted = host.toLowerCase().replace(/\.$/, "");
  const name = pattern.toLowerCase().replace(/\.$/, "");
  if (name === wanted) return true;
  if (!name.startsWith("*.")) return false;
  const dot = wanted.indexOf(".");
  return dot > 0 && wanted.substring(dot) === name.substring(1);
}

/** DNS names and IP addresses in a certificate's subjectAltName, as Node prints it. */
export function alternativeNames(certificate: Pick<PeerCertificate, "subjectaltname">): {
  readonly dns: readonly string[];
  readonly ip: readonly string[];
} {
  const dns: string[] = [];
  const ip: string[] = [];
  for (const part of (certificate.subjectaltname ?? "").split(/,\s*/)) {
    if (part.startsWith("DNS:")) dns.push(part.substring(4).replace(/^"|"$/g, ""));
    else if (part.startsWith("IP Address:")) ip.push(part.substring(11));
  }
  return { dns, ip };
}

/** The first CN of the subject, or empty. */
function commonNameOf(certificate: PeerCertificate): string {
  const cn: string | readonly string[] | undefined = certificate.subject?.CN;
  return (typeof cn === "object" ? cn[0] : cn) ?? "";
}

const HANDSHAKE_TIMEOUT_MS = 30_000;

const NOT_ALLOWED = "client certificate authentication failed";

/** Throws unless the certificate has one of the names that are demanded, if any are. */
export function checkNames(
  certificate: PeerCertificate,
  settings: Pick<TlsListenSettings, "allowedCns" | "allowedHostnames">,
): void {
  const { allowedCns, allowedHostnames } = settings;
  const cn = commonNameOf(certificate);
  if (allowedCns.length > 0 && !allowedCns.some((allowed) => allowed === cn)) throw new Error(NOT_ALLOWED);
  if (allowedHostnames.length > 0) {
    const { dns, ip } = alternativeNames(certificate);
    const isAllowed = allowedHostnames.some((host) => ip.includes(host) || dns.some((name) => matchesHost(name, host)));
    if (!isAllowed) throw new Error(NOT_ALLOWED);
  }
}

/** How OpenSSL's words about a failed handshake read in Go. */
function handshakeText(error: Error & { readonly code?: string }): string {
  if (/unknown protocol|wrong version number|http request/i.test(error.message)) {
    return "tls: first record does not look like a TLS handshake";
  }
  if (/peer did not return a certificate/i.test(error.message)) return "tls: client didn't provide a certificate";
  if (error.code === "ECONNRESET") return "EOF";
  return alertText(error) ?? error.message;
}

export interface TlsAcceptorOptions {
  readonly settings: TlsListenSettings;
  readonly logger: Logger;
  /** `client` or `peer`, for the log. */
  readonly side: "client" | "peer";
  /** Says why a connection with this certificate is refused; undefined to take it. For checks that need look-ups. */
  readonly refuse?: (certificate: PeerCertificate, socket: Socket) => Promise<string | undefined>;
}

/**
 * Throws when certificate, key or CA cannot be read: a server that could not make one handshake should not start.
 */
export function createTlsAcceptor(options: TlsAcceptorOptions): TlsAcceptor {
  const { settings, logger, side } = options;
  const ca = settings.trustedCaFile === "" ? undefined : readPem(settings.trustedCaFile);
  const ciphers = cipherList(settings.cipherSuites);
  const wantsCertificate = settings.clientCertAuth || ca !== undefined;
  let made: { readonly cert: Buffer; readonly key: Buffer; readonly context: SecureContext } | undefined;

  /** The context for files as they are now; made anew only when they have changed. */
  const context = (): SecureContext => {
    const cert = readPem(settings.certFile);
    const key = readPem(settings.keyFile);
    if (made?.cert.equals(cert) && made.key.equals(key)) return made.context;
    const maxVersion = tlsVersions[settings.maxVersion];
    const fresh = createSecureContext({
      cert,
      key,
      ...(ca ? { ca } : {}),
      ...(ciphers ? { ciphers } : {}),
      minVersion: tlsVersions[settings.minVersion] ?? "TLSv1.2",
      ...(maxVersion ? { maxVersion } : {}),
    });
    made = { cert, key, context: fresh };
    return fresh;
  };
  context();

  const reject = (raw: Socket, secure: TLSSocket | undefined, error: string) => {
    const certificate = secure?.getPeerCertificate();
    const names = certificate?.raw ? alternativeNames(certificate) : undefined;
    logger.warn(`rejected connection on ${side} endpoint`, {
      "remote-addr": remoteAddressOf(raw),
      "server-name": (secure as { readonly servername?: string | false } | undefined)?.servername || "",
      "ip-addresses": names?.ip,
      "dns-names": names?.dns,
      error,
    });
    (secure ?? raw).destroy();
  };

  return {
    refusePlain: (raw) => reject(raw, undefined, "tls: first record does not look like a TLS handshake"),
    accept(raw, onSecure) {
      let secureContext: SecureContext;
      try {
        secureContext = context();
      } catch (error) {
        reject(raw, undefined, (error as Error).message);
        return;
      }
      const secure = new TLSSocket(raw, {
        isServer: true,
        secureContext,
        requestCert: wantsCertificate,
        rejectUnauthorized: false,
        // The first of ours that the client offers too: gRPC offers only h2, while curl and browsers, which offer both,
        // want the gateway and the health pages.
        ALPNProtocols: ["http/1.1", "h2"],
      });
      const onError = (error: Error) => reject(raw, secure, handshakeText(error));
      secure.once("error", onError);
      const onTimeout = () => reject(raw, secure, "tls: handshake took too long");
      secure.setTimeout(HANDSHAKE_TIMEOUT_MS, onTimeout);
      secure.once("secure", () => {
        secure.setTimeout(0, onTimeout);
        secure.off("error", onError);
        // A tls.Server would say so; HTTP/2 waits for it.
        (secure as unknown as { secureConnecting: boolean }).secureConnecting = false;
        secure.on("error", () => {});
        const certificate = secure.getPeerCertificate();
        const isGiven = certificate?.raw !== undefined;
        if (wantsCertificate) {
          if (!isGiven) return reject(raw, secure, "tls: client didn't provide a certificate");
          const verifyError = (
            secure as unknown as { _handle: { verifyError(): (Error & { code?: string }) | null } }
          )._handle.verifyError();
          if (verifyError) return reject(raw, secure, verifyErrorText(verifyError));
          try {
            checkNames(certificate, settings);
          } catch (error) {
            return reject(raw, secure, (error as Error).message);
          }
        }
        const commonName = wantsCertificate ? commonNameOf(certificate) : undefined;
        const take = () => onSecure(secure, commonName);
        if (!isGiven || (settings.crlFile === "" && !options.refuse)) return take();
        whyRefused(certificate, raw).then(
          (reason) => (reason === undefined ? take() : reject(raw, secure, reason)),
          (error: Error) => reject(raw, secure, error.message),
        );
      });
    },
  };

  async function whyRefused(certificate: PeerCertificate, raw: Socket): Promise<string | undefined> {
    if (settings.crlFile !== "") {
      if (isRevoked(readPem(settings.crlFile), certificate.serialNumber)) {
        return `transport: certificate serial ${certificate.serialNumber.toLowerCase().replace(/^0+/, "")} revoked`;
      }
    }
    return options.refuse?.(certificate, raw);
  }
}
