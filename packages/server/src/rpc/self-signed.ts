/**
 * Certificates for `--auto-tls` and `--peer-auto-tls`: made once, kept as files, used again at the next start.
 * ECDSA on P-521 with SHA-512, issued by nobody but themselves to the hosts that are listened on.
 */
import { generateKeyPairSync, webcrypto } from "node:crypto";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { isIP } from "node:net";
import path from "node:path";
import { type Clock, dateAt } from "../lib/clock.ts";
import { formatLogTime } from "../lib/go-format.ts";
import { splitHostPort } from "../lib/listen-url.ts";
import type { Logger } from "../lib/log.ts";
import type { Random } from "../lib/random.ts";

export interface SelfSignedOptions {
  readonly folder: string;
  /** `host:port` as in the listen URLs. */
  readonly hosts: readonly string[];
  readonly validityYears: number;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
}

const YEAR_MS = 365 * 24 * 3_600_000;

export async function selfSignedFiles(options: SelfSignedOptions): Promise<{ certFile: string; keyFile: string }> {
  const { folder, clock, random, logger } = options;
  const certFile = path.join(folder, "cert.pem");
  const keyFile = path.join(folder, "key.pem");
  if (existsSync(certFile) && existsSync(keyFile)) return { certFile, keyFile };
  if (options.validityYears === 0) throw new Error("selfSignedCertValidity is invalid,it should be greater than 0");
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const nowMs = clock.nowMs();
  const endMs = nowMs + options.validityYears * YEAR_MS;
  logger.warn("automatically generate certificates", { "certificate-validity-bound-not-after": formatLogTime(endMs) });

  const x509 = await import("@peculiar/x509");
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-521" });
  const algorithm = { name: "ECDSA", namedCurve: "P-521" };
  const { subtle } = webcrypto;
  const pkcs8 = privateKey.export({ type: "pkcs8", format: "der" });
  const spki = publicKey.export({ type: "spki", format: "der" });
  const keys = {
    privateKey: await subtle.importKey("pkcs8", pkcs8, algorithm, false, ["sign"]),
    publicKey: await subtle.importKey("spki", spki, algorithm, true, ["verify"]),
  };
  const names = options.hosts.map((host) => splitHostPort(host)?.host ?? host).filter((host) => host !== "");
  const certificate = await x509.X509CertificateGenerator.createSelfSigned(
    {
      serialNumber: random.bits64().toString(16).padStart(16, "0"),
      name: "O=etcd",
      notBefore: dateAt(nowMs),
      notAfter: dateAt(endMs),
      signingAlgorithm: { name: "ECDSA", hash: "SHA-512" },
      keys,
      extensions: [
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyEncipherment | x509.KeyUsageFlags.digitalSignature, true),
        new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.SubjectAlternativeNameExtension(
          names.map((name) => ({ type: isIP(name) === 0 ? ("dns" as const) : ("ip" as const), value: name })),
        ),
      ],
    },
    webcrypto as unknown as Parameters<typeof x509.X509CertificateGenerator.createSelfSigned>[1],
  );
  writeFileSync(certFile, `${certificate.toString("pem")}\n`, { mode: 0o644 });
  logger.info("created cert file", { path: certFile });
  writeFileSync(keyFile, privateKey.export({ type: "sec1", format: "pem" }), { mode: 0o600 });
  logger.info("created key file", { path: keyFile });
  return { certFile, keyFile };
}
