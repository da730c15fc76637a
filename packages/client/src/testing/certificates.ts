/** Certificates for tests of TLS, made afresh for each run. */
import { webcrypto } from "node:crypto";
import * as x509 from "@peculiar/x509";

const KEY_ALGORITHM = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;
const DAY_MS = 86_400_000;

export interface Pair {
  readonly cert: Buffer;
  readonly key: Buffer;
}

/** An authority that signs certificates. */
export interface Authority {
  readonly cert: Buffer;
  issue(name: string, hosts?: readonly string[]): Promise<Pair>;
}

async function pem(key: webcrypto.CryptoKey): Promise<Buffer> {
  const der = await webcrypto.subtle.exportKey("pkcs8", key);
  return Buffer.from(x509.PemConverter.encode(der, "PRIVATE KEY"));
}

export async function makeAuthority(name: string): Promise<Authority> {
  x509.cryptoProvider.set(webcrypto as never);
  const keys = await webcrypto.subtle.generateKey(KEY_ALGORITHM, true, ["sign", "verify"]);
  const validity = { notBefore: new Date(Date.now() - DAY_MS), notAfter: new Date(Date.now() + DAY_MS) };
  const root = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: "01",
    name: `CN=${name}`,
    ...validity,
    signingAlgorithm: KEY_ALGORITHM,
    keys,
    extensions: [new x509.BasicConstraintsExtension(true, 1, true)],
  });
  let serial = 2;
  return {
    cert: Buffer.from(root.toString("pem")),
    async issue(subject, hosts = []) {
      const own = await webcrypto.subtle.generateKey(KEY_ALGORITHM, true, ["sign", "verify"]);
      const names = hosts.map((host) => ({ type: /^[\d.]+$/.test(host) ? "ip" : "dns", value: host }) as const);
      const certificate = await x509.X509CertificateGenerator.create({
        serialNumber: String(serial++).padStart(2, "0"),
        subject: `CN=${subject}`,
        issuer: root.subject,
        ...validity,
        signingAlgorithm: KEY_ALGORITHM,
        publicKey: own.publicKey,
        signingKey: keys.privateKey,
        extensions: names.length > 0 ? [new x509.SubjectAlternativeNameExtension([...names])] : [],
      });
      return { cert: Buffer.from(certificate.toString("pem")), key: await pem(own.privateKey) };
    },
  };
}
