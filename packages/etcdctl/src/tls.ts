// Certificate files of the command line, checked as early and refused with the same words as by the Go tool.
import { createPrivateKey, X509Certificate } from "node:crypto";
import fs from "node:fs";
import type { TlsOptions } from "@etcd-ts/client";
import { badArgs } from "./exit.ts";
import type { TlsFiles } from "./settings.ts";

/** @throws ExitError 128 */
export function readTlsFiles({ cert, key, cacert }: TlsFiles): Pick<TlsOptions, "ca" | "cert" | "key"> {
  if ((cert === "") !== (key === "")) {
    throw badArgs(`KeyFile and CertFile must both be present[key: ${key}, cert: ${cert}]`);
  }
  const pair = cert === "" ? {} : readPair(cert, key);
  return cacert === "" ? pair : { ...pair, ca: readAuthorities(cacert) };
}

function readPair(certPath: string, keyPath: string): { cert: Uint8Array; key: Uint8Array } {
  const cert = read(certPath);
  const key = read(keyPath);
  refuseWithout("CERTIFICATE", pemTypes(cert));
  refuseWithout("PRIVATE KEY", pemTypes(key));
  const certificate = certificateOf(cert);
  let matches: boolean;
  try {
    matches = certificate.checkPrivateKey(createPrivateKey(key));
  } catch {
    throw badArgs("tls: failed to parse private key");
  }
  if (!matches) throw badArgs("tls: private key does not match public key");
  return { cert, key };
}

/** The kinds of PEM blocks in a file, in order. */
const pemTypes = (pem: Uint8Array): string[] =>
  [
    ...Buffer.from(pem)
      .toString("latin1")
      .matchAll(/-----BEGIN ([^\n]*?)-----[\s\S]*?-----END \1-----/g),
  ].map(([, type = ""]) => type);

/** Words for a file that holds something else than it should. */
function refuseWithout(wanted: "CERTIFICATE" | "PRIVATE KEY", types: readonly string[]): void {
  if (types.some((type) => (wanted === "CERTIFICATE" ? type === wanted : type.endsWith(wanted)))) return;
  const [only] = types;
  const input = wanted === "CERTIFICATE" ? "certificate input" : "key input";
  if (only === undefined) throw badArgs(`tls: failed to find any PEM data in ${input}`);
  const skipped = `in ${input} after skipping PEM blocks of the following types: [${types.join(" ")}]`;
  if (wanted === "CERTIFICATE") {
    throw badArgs(
      types.length === 1 && only.endsWith("PRIVATE KEY")
        ? "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have been switched"
        : `tls: failed to find "CERTIFICATE" PEM block ${skipped}`,
    );
  }
  throw badArgs(
    types.length === 1 && only === "CERTIFICATE"
      ? "tls: found a certificate rather than a key in the PEM for the private key"
      : `tls: failed to find PEM block with type ending in "PRIVATE KEY" ${skipped}`,
  );
}

/** @throws ExitError */
function certificateOf(pem: string | Uint8Array): X509Certificate {
  try {
    return new X509Certificate(pem);
  } catch {
    // Go says "tbs" of what is well-formed and yet no certificate, as a key is.
    const isKey = /^-----BEGIN [^\n]*PRIVATE KEY-----/.test(Buffer.from(pem).toString("latin1"));
    throw badArgs(isKey ? "x509: malformed tbs certificate" : "x509: malformed certificate");
  }
}

function readAuthorities(path: string): Uint8Array {
  const ca = read(path);
  for (const block of ca.toString("latin1").match(/-----BEGIN [\s\S]*?-----END [^\n]*/g) ?? []) {
    certificateOf(block);
  }
  return ca;
}

function read(path: string): Buffer {
  try {
    return fs.readFileSync(path);
  } catch (error) {
    const { code = "", message } = error as NodeJS.ErrnoException;
    throw badArgs(`${code === "EISDIR" ? "read" : "open"} ${path}: ${reasons[code] ?? message}`);
  }
}

const reasons: Readonly<Record<string, string>> = {
  ENOENT: "no such file or directory",
  EACCES: "permission denied",
  EISDIR: "is a directory",
};
