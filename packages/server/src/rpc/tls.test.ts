import { generateKeyPairSync, webcrypto } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { request } from "node:https";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import tls from "node:tls";
import * as x509 from "@peculiar/x509";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { VirtualClock } from "../lib/clock.ts";
import { type LogFields, type Logger, silentLogger } from "../lib/log.ts";
import { SeededRandom } from "../lib/random.ts";
import { deferred } from "../lib/wait.ts";
import { OnePortListener } from "./listener.ts";
import { selfSignedFiles } from "./self-signed.ts";
import { alternativeNames, cipherList, createTlsAcceptor, type TlsListenSettings } from "./tls.ts";

x509.cryptoProvider.set(webcrypto as unknown as Parameters<typeof x509.cryptoProvider.set>[0]);
const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };

interface Issued {
  readonly cert: string;
  readonly key: string;
}

let folder: string;
let authority: x509.X509Certificate;
let authorityKeys: webcrypto.CryptoKeyPair;

async function makeAuthority(): Promise<void> {
  authorityKeys = (await webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"])) as webcrypto.CryptoKeyPair;
  authority = await x509.X509CertificateGenerator.createSelfSigned({
    name: "CN=test ca",
    serialNumber: "01",
    signingAlgorithm: algorithm,
    keys: authorityKeys as never,
    extensions: [new x509.BasicConstraintsExtension(true, undefined, true)],
  });
}

async function issue(cn: string, serialNumber: string, host: string): Promise<Issued> {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const imported = await webcrypto.subtle.importKey(
    "spki",
    publicKey.export({ type: "spki", format: "der" }),
    algorithm,
    true,
    ["verify"],
  );
  const certificate = await x509.X509CertificateGenerator.create({
    subject: `CN=${cn}`,
    issuer: authority.subject,
    serialNumber,
    signingAlgorithm: algorithm,
    publicKey: imported as never,
    signingKey: authorityKeys.privateKey as never,
    extensions: [
      new x509.SubjectAlternativeNameExtension([
        { type: "dns", value: host },
        { type: "ip", value: "127.0.0.1" },
      ]),
    ],
  });
  return { cert: certificate.toString("pem"), key: privateKey.export({ type: "pkcs8", format: "pem" }) as string };
}

const file = (name: string) => path.join(folder, name);
let server: Issued;
let alice: Issued;

beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), "etcd-tls-"));
  await makeAuthority();
  server = await issue("server", "10", "server.example");
  alice = await issue("alice", "2a", "alice.example");
  writeFileSync(file("ca.pem"), authority.toString("pem"));
  writeFileSync(file("cert.pem"), server.cert);
  writeFileSync(file("key.pem"), server.key);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const open: OnePortListener[] = [];
afterEach(() => {
  for (const listener of open.splice(0)) listener.destroy();
});

const base: TlsListenSettings = {
  certFile: "",
  keyFile: "",
  trustedCaFile: "",
  clientCertAuth: false,
  crlFile: "",
  allowedCns: [],
  allowedHostnames: [],
  cipherSuites: [],
  minVersion: "TLS1.2",
  maxVersion: "",
};

/** A port that answers with the way it was reached, and the first line it wrote to its log. */
async function serveWith(change: Partial<TlsListenSettings>, alsoPlain = false) {
  const warned = deferred<LogFields>();
  const logger: Logger = {
    ...silentLogger,
    warn(message, fields) {
      warned.resolve({ message, ...fields });
    },
  };
  const settings = { ...base, certFile: file("cert.pem"), keyFile: file("key.pem"), ...change };
  const listener = await OnePortListener.bind({
    url: "http://127.0.0.1:0",
    logger: silentLogger,
    tls: createTlsAcceptor({ settings, logger, side: "client" }),
    alsoPlain,
  });
  open.push(listener);
  await listener.serve({
    http: (message, response) => response.end((message.socket as tls.TLSSocket).encrypted ? "secure" : "plain"),
    grpc: {
      accept: (socket, peer) => socket.end(`h2 ${peer.isTls} ${peer.commonName}`),
      stop: async () => {},
      destroy: () => {},
    },
  });
  return { port: listener.port, warned: warned.promise };
}

function get(port: number, options: tls.ConnectionOptions = {}): Promise<string> {
  return new Promise((resolve) => {
    const call = request(
      { host: "127.0.0.1", port, ca: authority.toString("pem"), agent: false, ...options },
      (response) => {
        let text = "";
        response.on("data", (chunk) => {
          text += chunk;
        });
        response.on("end", () => resolve(text));
      },
    );
    call.on("error", () => resolve("failed"));
    call.end();
  });
}

/** What the HTTP/2 side of the port says. */
function http2(port: number, options: tls.ConnectionOptions = {}): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = tls.connect({
      host: "127.0.0.1",
      port,
      ca: authority.toString("pem"),
      ALPNProtocols: ["h2"],
      ...options,
    });
    let text = "";
    socket.on("data", (chunk) => {
      text += chunk;
    });
    socket.on("end", () => resolve(text));
    socket.on("error", reject);
  });
}

describe("a TLS port", () => {
  it("serves HTTP/1, and HTTP/2 by ALPN", async () => {
    const { port } = await serveWith({});
    expect(await get(port)).toBe("secure");
    expect(await http2(port)).toBe("h2 true undefined");
  });

  it("refuses plain text unless it is served too", async () => {
    const { port, warned } = await serveWith({});
    const socket = net.connect(port, "127.0.0.1");
    socket.on("error", () => {});
    socket.write("GET / HTTP/1.1\r\n\r\n");
    await new Promise((resolve) => socket.on("close", resolve));
    expect(await warned).toMatchObject({
      message: "rejected connection on client endpoint",
      error: "tls: first record does not look like a TLS handshake",
    });
  });

  it("serves both on one port when asked to", async () => {
    const { port } = await serveWith({}, true);
    const answer = await fetch(`http://127.0.0.1:${port}/`);
    expect([await answer.text(), await get(port)]).toEqual(["plain", "secure"]);
  });

  it("demands a certificate when it has an authority, and tells its CN", async () => {
    const { port, warned } = await serveWith({ trustedCaFile: file("ca.pem") });
    expect(await http2(port, alice)).toBe("h2 true alice");
    expect(await get(port)).toBe("failed");
    expect(await warned).toMatchObject({ error: "tls: client didn't provide a certificate" });
  });

  it("refuses a certificate of another authority, and names what it says", async () => {
    const { port, warned } = await serveWith({ trustedCaFile: file("ca.pem") });
    const mine = authority;
    const keys = authorityKeys;
    await makeAuthority();
    const stranger = await issue("stranger", "07", "stranger.example");
    authority = mine;
    authorityKeys = keys;
    expect(await get(port, stranger)).toBe("failed");
    expect(await warned).toMatchObject({
      error: "tls: failed to verify certificate: x509: certificate signed by unknown authority",
      "dns-names": ["stranger.example"],
      "ip-addresses": ["127.0.0.1"],
    });
  });

  it.each([
    [{ allowedHostnames: ["bob.example", "alice.example"] }, "secure"],
    [{ allowedHostnames: ["bob.example"] }, "failed"],
    [{ allowedCns: ["alice"] }, "secure"],
    [{ allowedCns: ["bob"] }, "failed"],
  ])("with %j, alice is %s", async (change, expected) => {
    const { port } = await serveWith({ trustedCaFile: file("ca.pem"), ...change });
    expect(await get(port, alice)).toBe(expected);
  });

  it("refuses a revoked certificate, and reads the list for every connection", async () => {
    const list = async (serialNumbers: string[]) => {
      const crl = await x509.X509CrlGenerator.create({
        issuer: authority.subject,
        signingAlgorithm: algorithm,
        signingKey: authorityKeys.privateKey as never,
        entries: serialNumbers.map((serialNumber) => ({ serialNumber, revocationDate: new Date() })),
      });
      writeFileSync(file("crl.pem"), crl.toString("pem").replaceAll(" CRL-", " X509 CRL-"));
    };
    await list([]);
    const { port, warned } = await serveWith({ trustedCaFile: file("ca.pem"), crlFile: file("crl.pem") });
    expect(await get(port, alice)).toBe("secure");
    await list(["2a"]);
    expect(await get(port, alice)).toBe("failed");
    expect(await warned).toMatchObject({ error: "transport: certificate serial 2a revoked" });
  });

  it("takes a new certificate without a restart", async () => {
    const { port } = await serveWith({});
    const serialOf = () =>
      new Promise<string>((resolve) => {
        const socket = tls.connect({ host: "127.0.0.1", port, rejectUnauthorized: false }, () => {
          resolve(socket.getPeerCertificate().serialNumber);
          socket.destroy();
        });
      });
    expect(await serialOf()).toBe("10");
    const next = await issue("server", "11", "server.example");
    writeFileSync(file("cert.pem"), next.cert);
    writeFileSync(file("key.pem"), next.key);
    expect(await serialOf()).toBe("11");
  });

  it("does not start with files that are not there", () => {
    const settings = { ...base, certFile: "nope.pem", keyFile: "nope.key" };
    expect(() => createTlsAcceptor({ settings, logger: silentLogger, side: "client" })).toThrow(
      "open nope.pem: no such file or directory",
    );
  });

  it("keeps to the versions it was given", async () => {
    const { port } = await serveWith({ minVersion: "TLS1.3" });
    expect(await get(port, { maxVersion: "TLSv1.2" })).toBe("failed");
    expect(await get(port)).toBe("secure");
  });
});

describe("cipherList()", () => {
  it("knows Go's names, and only those", () => {
    expect(cipherList([])).toBeUndefined();
    expect(cipherList(["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"])).toMatch(/:ECDHE-RSA-AES128-GCM-SHA256$/);
    expect(() => cipherList(["FOO"])).toThrow('unexpected TLS cipher suite "FOO"');
  });
});

describe("selfSignedFiles()", () => {
  it("makes a certificate once, with a key that only its owner reads", async () => {
    const options = {
      folder: file("fixtures/client"),
      hosts: ["127.0.0.1:2379", "localhost:2380"],
      validityYears: 1,
      clock: new VirtualClock(Date.now()),
      random: new SeededRandom(7),
      logger: silentLogger,
    };
    const files = await selfSignedFiles(options);
    const first = readFileSync(files.certFile, "utf8");
    const certificate = new x509.X509Certificate(first);
    expect([certificate.subject, certificate.issuer]).toEqual(["O=etcd", "O=etcd"]);
    expect(statSync(files.keyFile).mode & 0o777).toBe(0o600);
    expect(readFileSync(files.keyFile, "utf8")).toMatch(/^-----BEGIN EC PRIVATE KEY-----/);
    await selfSignedFiles(options);
    expect(readFileSync(files.certFile, "utf8")).toBe(first);
    const { port } = await serveWith(files);
    expect(await get(port, { ca: first, servername: "localhost" })).toBe("secure");
  });
});

it("alternativeNames() reads Node's form", () => {
  expect(alternativeNames({ subjectaltname: "DNS:a.b, IP Address:1.2.3.4, DNS:*.c" })).toEqual({
    dns: ["a.b", "*.c"],
    ip: ["1.2.3.4"],
  });
});
