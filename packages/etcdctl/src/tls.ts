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
  const pem = /-----BEGIN /;
  if (!pem.test(cert.toString("latin1"))) throw badArgs("tls: failed to find any PEM data in certificate input");
  if (!pem.test(key.toString("latin1"))) throw badArgs("tls: failed to find any PEM data in key input");
  let matches: boolean;
  try {
    matches = new X509Certificate(cert).checkPrivateKey(createPrivateKey(key));
  } catch (error) {
    throw badArgs(`tls: ${(error as Error).message}`);
  }
  if (!matches) throw badArgs("tls: private key does not match public key");
  return { cert, key };
}

function readAuthorities(path: string): Uint8Array {
  const ca = read(path);
  for (const block of ca.toString("latin1").match(/-----BEGIN [\s\S]*?-----END [^\n]*/g) ?? []) {
    try {
      new X509Certificate(block);
    } catch {
      throw badArgs("x509: malformed certificate");
    }
  }
  return ca;
}

function read(path: string): Buffer {
  try {
    return fs.readFileSync(path);
  } catch (error) {
    throw badArgs(`open ${path}: ${reasons[(error as NodeJS.ErrnoException).code ?? ""] ?? (error as Error).message}`);
  }
}

const reasons: Readonly<Record<string, string>> = {
  ENOENT: "no such file or directory",
  EACCES: "permission denied",
  EISDIR: "is a directory",
};
