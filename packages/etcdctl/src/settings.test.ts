import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, expect, test } from "vitest";
import { discoverEndpoints } from "./discovery.ts";
import { credentials, passwordFromFile } from "./settings.ts";
import { etcdctl } from "./testing/harness.ts";
import { readTlsFiles } from "./tls.ts";

const folder = fs.mkdtempSync(path.join(os.tmpdir(), "ctl-settings-"));
afterAll(() => fs.rmSync(folder, { recursive: true }));

const file = (name: string, text: string): string => {
  const full = path.join(folder, name);
  fs.writeFileSync(full, text);
  return full;
};

test("endpoints are found by SRV records, secure ones first", async () => {
  const records: Record<string, { name: string; port: number; priority: number }[]> = {
    "_etcd-client-ssl-x._tcp.example.org": [{ name: "a.example.org.", port: 2379, priority: 0 }],
    "_etcd-client-x._tcp.example.org": [
      { name: "b.example.org", port: 2378, priority: 2 },
      { name: "c.example.org", port: 2377, priority: 1 },
    ],
  };
  const lookUp = (name: string) => {
    const found = records[name];
    return found ? Promise.resolve(found) : Promise.reject(Object.assign(new Error("no"), { code: "ENOTFOUND" }));
  };
  expect(await discoverEndpoints("example.org", "x", lookUp)).toEqual([
    "https://a.example.org.:2379",
    "http://c.example.org.:2377",
    "http://b.example.org.:2378",
  ]);
  await expect(discoverEndpoints("example.org", "", lookUp, ["127.0.0.1"])).rejects.toThrow(
    "dns lookup errors: lookup _etcd-client-ssl._tcp.example.org on 127.0.0.1:53: no such host and lookup _etcd-client._tcp.example.org on 127.0.0.1:53: no such host",
  );
});

test("credentials come from --user, --password or a question", async () => {
  const ask = () => Promise.resolve("asked");
  expect(await credentials("", "p", ask)).toBeUndefined();
  expect(await credentials("u:p:q", "", ask)).toEqual({ username: "u", password: "p:q" });
  expect(await credentials("u:p", "pw", ask)).toEqual({ username: "u:p", password: "pw" });
  expect(await credentials("u", "", ask)).toEqual({ username: "u", password: "asked" });
});

test("a password file is read up to the end of its first line", async () => {
  expect(await passwordFromFile(file("pw", "secret\r\nmore"))).toBe("secret");
  const missing = path.join(folder, "none");
  await expect(passwordFromFile(missing)).rejects.toThrow(`open ${missing}: no such file or directory`);
});

test.each([["cert"], ["key"], ["cacert"]])("an empty --%s is refused", async (name) => {
  // The fake context makes no client; the check is the real one's.
  const { tlsFilesFromFlags } = await import("./settings.ts");
  const { FlagSet } = await import("./cli/flags.ts");
  const { globalFlags } = await import("./cli/tree.ts");
  const flags = new FlagSet(globalFlags);
  flags.parse([`--${name}=`]);
  expect(() => tlsFilesFromFlags(flags)).toThrow(`empty string is passed to --${name} option`);
});

test("TLS files that cannot be used are named", () => {
  const none = path.join(folder, "none");
  const noise = file("noise", "no PEM");
  const broken = file("broken", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
  const read =
    (cert: string, key: string, cacert = "") =>
    () =>
      readTlsFiles({ cert, key, cacert });
  expect(read("c", "")).toThrow("KeyFile and CertFile must both be present[key: , cert: c]");
  expect(read(none, none)).toThrow(`open ${none}: no such file or directory`);
  expect(read(noise, noise)).toThrow("tls: failed to find any PEM data in certificate input");
  expect(read(broken, noise)).toThrow("tls: failed to find any PEM data in key input");
  expect(read("", "", broken)).toThrow("x509: malformed certificate");
  expect(read("", "", folder)).toThrow(`read ${folder}: is a directory`);
  const aKey = file("key", "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n");
  expect(read(aKey, aKey)).toThrow("but did find a private key; PEM inputs may have been switched");
  expect(read(broken, broken)).toThrow("tls: found a certificate rather than a key in the PEM for the private key");
  expect(read(broken, aKey)).toThrow("x509: malformed certificate");
  expect(read("", "", aKey)).toThrow("x509: malformed tbs certificate");
});

const certs = path.resolve(fileURLToPath(new URL(".", import.meta.url)), "../../../../shared/conformance/certs");

test.skipIf(!fs.existsSync(certs))("a key must belong to its certificate", () => {
  const at = (name: string): string => path.join(certs, name);
  expect(() => readTlsFiles({ cert: at("client.crt"), key: at("alice.key"), cacert: "" })).toThrow(
    "tls: private key does not match public key",
  );
  const { cert, key, ca } = readTlsFiles({ cert: at("client.crt"), key: at("client.key"), cacert: at("ca.crt") });
  expect([cert, key, ca].every((bytes) => (bytes?.length ?? 0) > 0)).toBe(true);
});

test("completion scripts ask etcdctl itself", async () => {
  for (const shell of ["bash", "zsh", "fish", "powershell"]) {
    expect((await etcdctl(["completion", shell])).out).toContain(" __complete ");
    expect((await etcdctl(["completion", shell, "--no-descriptions"])).out).toContain(" __completeNoDesc ");
  }
});
