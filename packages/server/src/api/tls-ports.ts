/** Which ports speak TLS, with which certificates, and what a peer's certificate must say of its address. */
import { lookup, reverse } from "node:dns/promises";
import type { Socket } from "node:net";
import path from "node:path";
import type { PeerCertificate } from "node:tls";
import type { Clock } from "../lib/clock.ts";
import { isTlsScheme, parseEtcdUrl } from "../lib/listen-url.ts";
import type { Logger } from "../lib/log.ts";
import type { Random } from "../lib/random.ts";
import {
  alternativeNames,
  cipherList,
  createTlsAcceptor,
  createTlsDialler,
  selfSignedFiles,
  type TlsAcceptor,
  type TlsDialler,
} from "../rpc/index.ts";

/** One side's settings, as in the configuration. */
export interface SideTls {
  readonly certFile: string;
  readonly keyFile: string;
  /** What is shown when this member dials; empty: the above. */
  readonly clientCertFile: string;
  readonly clientKeyFile: string;
  readonly clientCertAuth: boolean;
  readonly crlFile: string;
  readonly trustedCaFile: string;
  readonly autoTls: boolean;
  readonly allowedCns: readonly string[];
  readonly allowedHostnames: readonly string[];
  readonly skipClientSanVerification: boolean;
}

export interface TlsPortsConfig {
  readonly clientTls: SideTls;
  readonly peerTls: SideTls;
  readonly cipherSuites: readonly string[];
  readonly tlsMinVersion: string;
  readonly tlsMaxVersion: string;
  readonly dataDir: string;
  readonly selfSignedCertValidityYears: number;
}

export interface TlsPortsDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
}

function list(values: readonly string[]): string {
  return `[${values.join(" ")}]`;
}

/** Undefined when this side has no certificates. Throws with etcd's text for settings that cannot be. */
export async function tlsOf(
  side: "client" | "peer",
  urls: readonly string[],
  config: TlsPortsConfig,
  deps: TlsPortsDeps,
): Promise<SideTls | undefined> {
  const { logger } = deps;
  cipherList(config.cipherSuites);
  let tls = side === "client" ? config.clientTls : config.peerTls;
  const isEmpty = tls.certFile === "" && tls.keyFile === "";
  if (tls.autoTls && !isEmpty) {
    logger.warn(`ignoring ${side} auto TLS since certs given`);
  } else if (tls.autoTls) {
    const made = await selfSignedFiles({
      folder: path.join(config.dataDir, "fixtures", side),
      hosts: urls.map((url) => parseEtcdUrl(url).host),
      validityYears: config.selfSignedCertValidityYears,
      ...deps,
    });
    tls =
      side === "client"
        ? { ...tls, ...made }
        : // Members that made their certificates themselves cannot verify each other: only who dials is configured then.
          {
            ...tls,
            ...made,
            clientCertFile: "",
            clientKeyFile: "",
            trustedCaFile: "",
            crlFile: "",
            clientCertAuth: false,
          };
  } else if (isEmpty) {
    return undefined;
  }
  if (tls.certFile === "" || tls.keyFile === "") {
    throw new Error(`KeyFile and CertFile must both be present[key: ${tls.keyFile}, cert: ${tls.certFile}]`);
  }
  if ((tls.clientCertFile === "") !== (tls.clientKeyFile === "")) {
    throw new Error(
      `ClientKeyFile and ClientCertFile must both be present or both absent: key: ${tls.clientKeyFile}, cert: ${tls.clientCertFile}]`,
    );
  }
  if (tls.allowedCns.length > 0 && tls.allowedHostnames.length > 0) {
    throw new Error(
      `AllowedCNs and AllowedHostnames are mutually exclusive (cns=${list(tls.allowedCns)}, hostnames=${list(tls.allowedHostnames)})`,
    );
  }
  logger.info(`starting with ${side} TLS`, {
    "tls-info": `cert = ${tls.certFile}, key = ${tls.keyFile}, client-cert=${tls.clientCertFile}, client-key=${tls.clientKeyFile}, trusted-ca = ${tls.trustedCaFile}, client-cert-auth = ${tls.clientCertAuth}, crl-file = ${tls.crlFile}`,
    "cipher-suites": config.cipherSuites,
  });
  return tls;
}

/** What takes TLS off the connections of one side. */
export function acceptorOf(
  side: "client" | "peer",
  tls: SideTls,
  config: TlsPortsConfig,
  logger: Logger,
  checksAddress: boolean,
): TlsAcceptor {
  return createTlsAcceptor({
    settings: {
      certFile: tls.certFile,
      keyFile: tls.keyFile,
      trustedCaFile: tls.trustedCaFile,
      clientCertAuth: tls.clientCertAuth,
      crlFile: tls.crlFile,
      allowedCns: tls.allowedCns,
      allowedHostnames: tls.allowedHostnames,
      cipherSuites: config.cipherSuites,
      minVersion: config.tlsMinVersion,
      maxVersion: config.tlsMaxVersion,
    },
    logger,
    side,
    ...(checksAddress && !tls.skipClientSanVerification ? { refuse: refuseForeignAddress } : {}),
  });
}

/**
 * How this member dials others; also without certificates of its own, as their URLs may be `https` all the same. `tls` is
 * what {@link tlsOf} gave for the peer side.
 */
export function diallerOf(
  tls: SideTls | undefined,
  serverName: string,
  config: TlsPortsConfig,
  logger: Logger,
): TlsDialler {
  const { peerTls } = config;
  const isSelfMade = tls !== undefined && peerTls.autoTls && peerTls.certFile === "" && peerTls.keyFile === "";
  const shown = tls ?? peerTls;
  return createTlsDialler(
    {
      certFile: shown.certFile,
      keyFile: shown.keyFile,
      clientCertFile: shown.clientCertFile,
      clientKeyFile: shown.clientKeyFile,
      trustedCaFile: shown.trustedCaFile,
      allowedCns: tls ? tls.allowedCns : [],
      allowedHostnames: tls ? tls.allowedHostnames : [],
      serverName,
      skipsVerification: isSelfMade,
      cipherSuites: config.cipherSuites,
      minVersion: config.tlsMinVersion,
      maxVersion: config.tlsMaxVersion,
    },
    logger,
  );
}

/** Says what is wrong with URLs and certificates that do not go together; throws when nothing could be served. */
export function checkSchemes(
  side: "client" | "peer",
  urls: readonly string[],
  tls: SideTls | undefined,
  configured: SideTls,
  logger: Logger,
): void {
  for (const url of urls) {
    const { scheme } = parseEtcdUrl(url);
    if (isTlsScheme(scheme)) {
      if (tls) continue;
      throw new Error(
        side === "client"
          ? `TLS key/cert (--cert-file, --key-file) must be provided for client url ${url} with HTTPS scheme`
          : "cannot listen on TLS for " + `${parseEtcdUrl(url).host}: KeyFile and CertFile are not presented`,
      );
    }
    const what = side === "client" ? "scheme is http or unix" : "scheme is HTTP";
    if (tls) {
      logger.warn(`${what} while key and cert files are present; ignoring key and cert files`, {
        [`${side}-url`]: url,
      });
    }
    if (configured.clientCertAuth) {
      const flag = side === "client" ? "--client-cert-auth" : "--peer-client-cert-auth";
      logger.warn(`${what} while ${flag} is enabled; ignoring client cert auth for this URL`, { [`${side}-url`]: url });
    }
  }
}

function matchesSuffix(pattern: string, name: string): boolean {
  const host = name.replace(/\.$/, "");
  if (pattern === host) return true;
  return pattern.startsWith("*.") && host.endsWith(pattern.substring(1));
}

/** A certificate that names hosts must name the one at the other end: by address, or by a name of that address. */
async function refuseForeignAddress(certificate: PeerCertificate, socket: Socket): Promise<string | undefined> {
  const { dns, ip } = alternativeNames(certificate);
  if (dns.length === 0 && ip.length === 0) return undefined;
  const remote = (socket.remoteAddress ?? "").replace(/^::ffff:/, "");
  if (ip.includes(remote)) return undefined;
  if (dns.length > 0) {
    const names = await reverse(remote).catch(() => [] as string[]);
    if (names.some((name) => dns.some((pattern) => matchesSuffix(pattern, name)))) return undefined;
    for (const name of dns) {
      if (name.startsWith("*.")) continue;
      const found = await lookup(name, { all: true }).catch(() => []);
      if (found.some(({ address }) => address === remote)) return undefined;
    }
  }
  return `tls: ${JSON.stringify(remote)} does not match any of DNSNames ${JSON.stringify(dns)}`;
}
