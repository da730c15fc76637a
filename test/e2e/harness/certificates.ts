/** An authority for one test, and certificates that it signs. */
import { generateKeyPairSync, webcrypto } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import * as x509 from "@peculiar/x509";

x509.cryptoProvider.set(webcrypto as unknown as Parameters<typeof x509.cryptoProvider.set>[0]);
const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
const usages = [x509.ExtendedKeyUsage.serverAuth, x509.ExtendedKeyUsage.clientAuth];

export interface CertificateFiles {
  readonly certFile: string;
  readonly keyFile: string;
}

export class Authority {
  readonly caFile: string;
  readonly #folder: string;
  readonly #certificate: x509.X509Certificate;
  readonly #keys: webcrypto.CryptoKeyPair;
  #serial = 16;

  private constructor(folder: string, name: string, certificate: x509.X509Certificate, keys: webcrypto.CryptoKeyPair) {
    this.#folder = folder;
    this.#certificate = certificate;
    this.#keys = keys;
    this.caFile = path.join(folder, `${name}.crt`);
    fs.writeFileSync(this.caFile, `${certificate.toString("pem")}\n`);
  }

  static async create(folder: string, name = "ca"): Promise<Authority> {
    const keys = (await webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"])) as webcrypto.CryptoKeyPair;
    const certificate = await x509.X509CertificateGenerator.createSelfSigned({
      name: `CN=${name}`,
      serialNumber: "01",
      signingAlgorithm: algorithm,
      keys: keys as never,
      extensions: [
        new x509.BasicConstraintsExtension(true, undefined, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      ],
    });
    return new Authority(folder, name, certificate, keys);
  }

  /** Writes `NAME.crt` and `NAME.key` for 127.0.0.1, over what was there. */
  async issue(name: string, commonName: string): Promise<CertificateFiles> {
    const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
    const spki = publicKey.export({ type: "spki", format: "der" });
    this.#serial++;
    const certificate = await x509.X509CertificateGenerator.create({
      subject: `CN=${commonName}`,
      issuer: this.#certificate.subject,
      serialNumber: this.#serial.toString(16),
      signingAlgorithm: algorithm,
      publicKey: (await webcrypto.subtle.importKey("spki", spki, algorithm, true, ["verify"])) as never,
      signingKey: this.#keys.privateKey as never,
      extensions: [
        new x509.BasicConstraintsExtension(false),
        new x509.ExtendedKeyUsageExtension(usages),
        new x509.SubjectAlternativeNameExtension([{ type: "ip", value: "127.0.0.1" }]),
      ],
    });
    const files = { certFile: path.join(this.#folder, `${name}.crt`), keyFile: path.join(this.#folder, `${name}.key`) };
    fs.writeFileSync(files.certFile, `${certificate.toString("pem")}\n`);
    fs.writeFileSync(files.keyFile, privateKey.export({ type: "sec1", format: "pem" }), { mode: 0o600 });
    return files;
  }
}
