/**
 * TLS towards other servers, by etcd's rules: the certificate is read again for every connection, so replacing the files
 * is enough to renew it; the other side must be signed by the authority, stand for the host that was dialled and, where
 * names are demanded, have one of them. Certificates that a member made for itself are not verified.
 */
import { type ConnectionOptions, checkServerIdentity, type PeerCertificate, type SecureVersion } from "node:tls";
import type { Logger } from "../lib/log.ts";
import { checkNames, cipherList, readPem, tlsVersions } from "./tls.ts";

export interface TlsDialSettings {
  /** Empty: none is shown. */
  readonly certFile: string;
  readonly keyFile: string;
  /** Shown instead of the above when there is one. */
  readonly clientCertFile: string;
  readonly clientKeyFile: string;
  /** Empty: the authorities that Node knows. Read once. */
  readonly trustedCaFile: string;
  readonly allowedCns: readonly string[];
  readonly allowedHostnames: readonly string[];
  /** The certificate must stand for this name instead of the host that was dialled; empty: for that one. */
  readonly serverName: string;
  /** The other side has made its certificate itself. */
  readonly skipsVerification: boolean;
  readonly cipherSuites: readonly string[];
  readonly minVersion: string;
  readonly maxVersion: string;
}

export type TlsDialOptions = Pick<
  ConnectionOptions,
  "ca" | "cert" | "key" | "rejectUnauthorized" | "servername" | "ciphers" | "minVersion" | "maxVersion"
> & { readonly checkServerIdentity?: (host: string, certificate: PeerCertificate) => Error | undefined };

/** What to dial with, for one connection. Throws, after a line in the log, when the files cannot be read. */
export type TlsDialler = () => TlsDialOptions;

/** Throws when the files cannot be read, or make no certificate: a member that could dial nobody should not start. */
export function createTlsDialler(settings: TlsDialSettings, logger: Logger): TlsDialler {
  const ca = settings.trustedCaFile === "" ? undefined : readPem(settings.trustedCaFile);
  const ciphers = cipherList(settings.cipherSuites);
  const maxVersion: SecureVersion | undefined = tlsVersions[settings.maxVersion];
  const hasOwn = settings.clientCertFile !== "";
  const certFile = hasOwn ? settings.clientCertFile : settings.certFile;
  const keyFile = hasOwn ? settings.clientKeyFile : settings.keyFile;
  const demandsNames = settings.allowedCns.length > 0 || settings.allowedHostnames.length > 0;
  const fixed: TlsDialOptions = {
    ...(ca ? { ca } : {}),
    ...(ciphers ? { ciphers } : {}),
    ...(maxVersion ? { maxVersion } : {}),
    ...(settings.serverName === "" ? {} : { servername: settings.serverName }),
    ...(settings.skipsVerification ? { rejectUnauthorized: false } : {}),
    minVersion: tlsVersions[settings.minVersion] ?? "TLSv1.2",
    checkServerIdentity: (host, certificate) => {
      const mismatch = checkServerIdentity(host, certificate);
      if (mismatch || !demandsNames) return mismatch;
      try {
        checkNames(certificate, settings);
        return undefined;
      } catch (error) {
        return error as Error;
      }
    },
  };
  const dial = (): TlsDialOptions => {
    if (certFile === "") return fixed;
    try {
      return { ...fixed, cert: readPem(certFile), key: readPem(keyFile) };
    } catch (error) {
      logger.warn("failed to find client cert files", { "cert-file": certFile, "key-file": keyFile, error });
      throw error;
    }
  };
  dial();
  return dial;
}
