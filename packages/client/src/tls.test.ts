import "reflect-metadata";
import { ServerCredentials } from "@grpc/grpc-js";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type ClientOptions, connect } from "./index.ts";
import { type Authority, makeAuthority, type Pair } from "./testing/certificates.ts";
import { FakeServer } from "./testing/fake-server.ts";
import { Code, KV } from "./wire/index.ts";

let ca: Authority;
let stranger: Authority;
let server: FakeServer;
let mutual: FakeServer;
let alice: Pair;

beforeAll(async () => {
  ca = await makeAuthority("ca");
  stranger = await makeAuthority("stranger");
  alice = await ca.issue("alice");
  const pair = await ca.issue("server", ["127.0.0.1", "etcd.example"]);
  const files = { cert_chain: pair.cert, private_key: pair.key };
  server = await FakeServer.start(0, ServerCredentials.createSsl(null, [files]));
  mutual = await FakeServer.start(0, ServerCredentials.createSsl(ca.cert, [files], true));
  for (const each of [server, mutual]) each.on(KV.methods.range, () => ({ count: 1 }));
});

afterAll(async () => {
  await server.stop();
  await mutual.stop();
});

/** `ok`, or the code with which a read ended. Nobody is asked twice about a certificate, so the time-out is short. */
async function read(target: FakeServer, options: Partial<ClientOptions>): Promise<string> {
  await using client = await connect({ endpoints: [target.endpoint], ...options });
  try {
    await client.kv.get("k", { timeoutMs: 1_000 });
    return "ok";
  } catch (error) {
    return String((error as { code: number }).code);
  }
}

const refused = String(Code.DeadlineExceeded);

describe("TLS", () => {
  it("a server whose authority is trusted is talked to", async () => {
    expect(await read(server, { tls: { ca: ca.cert } })).toBe("ok");
  });

  it("an address is not sent as a name, which Node would complain of", async () => {
    const warnings: Error[] = [];
    const keep = (warning: Error) => warnings.push(warning);
    process.on("warning", keep);
    expect(await read(server, { tls: { ca: ca.cert } })).toBe("ok");
    process.off("warning", keep);
    expect(warnings).toEqual([]);
  });

  it("https:// means TLS, http:// means none", async () => {
    const { endpoint } = server;
    expect(await read(server, { endpoints: [`https://${endpoint}`], tls: { ca: ca.cert } })).toBe("ok");
    expect(await read(server, { endpoints: [`http://${endpoint}`], tls: { ca: ca.cert } })).toBe(refused);
  });

  it("a stranger's certificate is refused unless verification is off", async () => {
    expect(await read(server, { tls: { ca: stranger.cert } })).toBe(refused);
    expect(await read(server, { tls: {} })).toBe(refused);
    expect(await read(server, { tls: { skipVerify: true } })).toBe("ok");
  });

  it("the name in the certificate is checked, and can be told", async () => {
    expect(await read(server, { tls: { ca: ca.cert, serverName: "etcd.example" } })).toBe("ok");
    expect(await read(server, { tls: { ca: ca.cert, serverName: "other.example" } })).toBe(refused);
  });

  it("the address must be in the certificate when it is what was asked for", async () => {
    const pair = await ca.issue("elsewhere", ["127.0.0.2", "etcd.example"]);
    const files = { cert_chain: pair.cert, private_key: pair.key };
    await using other = await FakeServer.start(0, ServerCredentials.createSsl(null, [files]));
    other.on(KV.methods.range, () => ({ count: 1 }));
    expect(await read(other, { tls: { ca: ca.cert } })).toBe(refused);
    expect(await read(other, { tls: { ca: ca.cert, serverName: "etcd.example" } })).toBe("ok");
  });

  it("a client certificate is shown where one is asked for", async () => {
    expect(await read(mutual, { tls: { ca: ca.cert, ...alice } })).toBe("ok");
    expect(await read(mutual, { tls: { ca: ca.cert } })).not.toBe("ok");
  });
});
