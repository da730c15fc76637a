import http2 from "node:http2";
import type { AddressInfo } from "node:net";
import type { Client, FailedAttempt } from "@etcd-ts/client";
import { KV, PutRequest, RangeRequest, RangeResponse } from "@etcd-ts/client/wire";
import { expect, test } from "vitest";
import { isPlain, QuickClient } from "./quick-client.ts";
import { bytes, header, kv } from "./testing/harness.ts";

type Handler = (path: string, message: Uint8Array, stream: http2.ServerHttp2Stream) => void;

const asciiMessage = (payload: Uint8Array): Buffer => {
  const prefix = Buffer.alloc(5);
  prefix.writeUInt32BE(payload.length, 1);
  return Buffer.concat([prefix, payload]);
};

const answer = (stream: http2.ServerHttp2Stream, payload: Uint8Array): void => {
  stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
  stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
  stream.end(asciiMessage(payload));
};

const refuse = (stream: http2.ServerHttp2Stream, code: number, text: string): void => {
  const status = { "grpc-status": String(code), "grpc-message": encodeURIComponent(text) };
  stream.respond({ ":status": 200, "content-type": "application/grpc", ...status }, { endStream: true });
};

async function serve(handler: Handler): Promise<{ endpoint: string } & AsyncDisposable> {
  const sessions = new Set<http2.ServerHttp2Session>();
  const server = http2.createServer();
  server.on("session", (session) => sessions.add(session));
  server.on("stream", (stream, headers) => {
    const chunks: Buffer[] = [];
    stream.on("error", () => {});
    stream.on("data", (chunk: Buffer) => chunks.push(chunk));
    stream.on("end", () => handler(String(headers[":path"]), Buffer.concat(chunks).subarray(5), stream));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    endpoint: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    async [Symbol.asyncDispose]() {
      for (const session of sessions) session.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function client(endpoint: string): { quick: QuickClient; attempts: FailedAttempt[]; handed: string[] } {
  const attempts: FailedAttempt[] = [];
  const handed: string[] = [];
  const full = {
    call: (method: { path: string }) => {
      handed.push(method.path);
      return Promise.resolve("from the full client");
    },
    [Symbol.asyncDispose]: () => Promise.resolve(),
  } as unknown as Client;
  const onAttemptFailed = (attempt: FailedAttempt): void => void attempts.push(attempt);
  return {
    quick: new QuickClient({ endpoints: [endpoint], onAttemptFailed }, () => Promise.resolve(full)),
    attempts,
    handed,
  };
}

test("a plain call is answered without the full client", async () => {
  const requests: unknown[] = [];
  await using server = await serve((path, message, stream) => {
    requests.push([path, RangeRequest.decode(message).key]);
    answer(stream, RangeResponse.encode({ header: header(3), kvs: [kv("a", "1")], count: 1 }));
  });
  const { quick, handed } = client(`http://${server.endpoint}`);
  const response = await quick.call(KV.methods.range, { key: bytes("a") }, { timeoutMs: 5_000 });
  expect(response).toMatchObject({ header: { revision: 3 }, count: 1 });
  expect(requests).toEqual([["/etcdserverpb.KV/Range", Uint8Array.of(97)]]);
  await quick.call(KV.methods.range, { key: bytes("b") });
  expect([requests.length, handed]).toEqual([2, []]);
  await quick[Symbol.asyncDispose]();
});

test("a large response arrives whole", async () => {
  const value = "x".repeat(5_000_000);
  await using server = await serve((_path, _message, stream) => {
    answer(stream, RangeResponse.encode({ kvs: [kv("a", value)] }));
  });
  const { quick } = client(server.endpoint);
  const { kvs } = await quick.call(KV.methods.range, { key: bytes("a") });
  expect(kvs[0]?.value.length).toBe(value.length);
  await quick[Symbol.asyncDispose]();
});

test("errors of the server keep their code and text, and are reported as failed attempts", async () => {
  await using server = await serve((_path, _message, stream) => refuse(stream, 3, "etcdserver: key is not provided"));
  const { quick, attempts, handed } = client(server.endpoint);
  await expect(quick.call(KV.methods.put, {})).rejects.toMatchObject({ name: "EtcdError", kind: "EmptyKey" });
  expect(attempts).toEqual([
    { target: server.endpoint, attempt: 0, code: 3, details: "etcdserver: key is not provided" },
  ]);
  expect(handed).toEqual([]);
  await quick[Symbol.asyncDispose]();
});

test("other statuses are errors with their text decoded", async () => {
  await using server = await serve((_path, _message, stream) => refuse(stream, 8, "50% größer"));
  const { quick } = client(server.endpoint);
  await expect(quick.call(KV.methods.put, {})).rejects.toMatchObject({
    name: "RpcError",
    code: 8,
    details: "50% größer",
  });
  await quick[Symbol.asyncDispose]();
});

test("a call ends at its time-out", async () => {
  await using server = await serve(() => {});
  const { quick, attempts } = client(server.endpoint);
  await expect(quick.call(KV.methods.range, {}, { timeoutMs: 30 })).rejects.toMatchObject({
    code: 4,
    details: "context deadline exceeded",
  });
  expect(attempts).toHaveLength(1);
  await quick[Symbol.asyncDispose]();
});

test("a read whose connection breaks goes to the full client; a write is not made twice", async () => {
  await using server = await serve((_path, _message, stream) => stream.session?.destroy());
  const { quick, handed } = client(server.endpoint);
  expect(await quick.call(KV.methods.range, {})).toBe("from the full client");
  expect(handed).toEqual(["/etcdserverpb.KV/Range"]);
  await quick[Symbol.asyncDispose]();
  const other = client(server.endpoint);
  await expect(other.quick.call(KV.methods.put, { key: bytes("k") })).rejects.toMatchObject({ code: 14 });
  expect(other.handed).toEqual([]);
  await other.quick[Symbol.asyncDispose]();
});

test("an endpoint that is not there, and a large request, go to the full client", async () => {
  let endpoint: string;
  {
    await using gone = await serve(() => {});
    endpoint = gone.endpoint;
  }
  const { quick, handed } = client(endpoint);
  expect(await quick.call(KV.methods.put, { key: bytes("k") }, { timeoutMs: 5_000 })).toBe("from the full client");
  await quick[Symbol.asyncDispose]();
  const large = client(endpoint);
  const request = { key: bytes("k"), value: new Uint8Array(2 << 20) };
  expect(PutRequest.encode(request).length).toBeGreaterThan(1 << 20);
  expect(await large.quick.call(KV.methods.put, request)).toBe("from the full client");
  expect([handed.length, large.handed.length]).toEqual([1, 1]);
});

test("isPlain() leaves everything out of the ordinary to the full client", () => {
  const plain = (endpoint: string, more = {}) => isPlain({ endpoints: [endpoint], ...more });
  expect(["127.0.0.1:1", "http://a:2379", "http://a:2379/", "[::1]:2379"].map((text) => plain(text))).toEqual([
    true,
    true,
    true,
    true,
  ]);
  for (const endpoint of ["https://a:1", "unix:///s", "unix:s", "unixs://s", "ftp://a:1", "a", "a:99999", ""]) {
    expect(plain(endpoint), endpoint).toBe(false);
  }
  expect(plain("a:1", { tls: {} })).toBe(false);
  expect(plain("a:1", { username: "u" })).toBe(false);
  expect(isPlain({ endpoints: [] })).toBe(false);
});
