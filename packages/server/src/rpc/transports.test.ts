import http from "node:http";
import http2 from "node:http2";
import net from "node:net";
import * as grpc from "@grpc/grpc-js";
import {
  Code,
  EtcdError,
  type Init,
  KV,
  PutRequest,
  PutResponse,
  RangeRequest,
  RangeResponse,
  Watch,
  WatchRequest,
  WatchResponse,
} from "@etcd-ts/client/wire";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { systemClock } from "../lib/clock.ts";
import { silentLogger } from "../lib/log.ts";
import { type Deferred, deferred } from "../lib/wait.ts";
import {
  createGrpcJsServer,
  createNativeServer,
  EncodedMessage,
  OnePortListener,
  type RpcServer,
  type RpcServerOptions,
  StatusError,
  StreamedMessage,
  serve,
} from "./index.ts";

const REQUEST_BYTES_MAX = 4096;

let listener: OnePortListener;
let rpc: RpcServer;
let client: grpc.Client;
let lastSignal: Deferred<unknown>;
const ended: (string | undefined)[] = [];

const unimplemented = () => {
  throw new StatusError(Code.Unimplemented, "not in this test");
};

const kv = serve(KV, {
  async range(request, call) {
    switch (Buffer.from(request.key).toString()) {
      case "compacted":
        throw new EtcdError("Compacted");
      case "odd":
        throw new Error("something odd: \u00e4 %");
      case "encoded": {
        const bytes = RangeResponse.encode({ count: 7 });
        return new EncodedMessage([bytes.subarray(0, 1), bytes.subarray(1)]);
      }
      case "cut off":
        return new StreamedMessage(1000, function* () {
          yield [Buffer.alloc(10)];
          throw new EtcdError("Compacted");
        });
      case "broken off":
        return new StreamedMessage(1000, function* () {
          yield [Buffer.alloc(10)];
          throw new Error("not foreseen");
        });
      case "wait":
        await new Promise((_resolve, reject) => {
          call.signal.addEventListener("abort", () => {
            lastSignal.resolve(call.signal.reason);
            reject(call.signal.reason);
          });
        });
        return {};
      case "metadata":
        return { kvs: [{ key: Buffer.from(call.metadata.get("token") ?? ""), value: Buffer.from(call.peer.address) }] };
      default:
        return { count: request.limit };
    }
  },
  put: (request) => ({ header: { revision: request.value.length } }),
  deleteRange: unimplemented,
  txn: unimplemented,
  compact: unimplemented,
  rangeStream: unimplemented,
});

const watch = serve(Watch, {
  async watch(requests, out, call) {
    for await (const request of requests) {
      if (request.requestUnion?.kind === "cancelRequest") throw new EtcdError("NoLeader");
      if (request.requestUnion?.kind === "createRequest") {
        const many = request.requestUnion.value.startRevision;
        for (let i = 0; i < many; i++) if (!out.write({ watchId: BigInt(i) })) await out.drained();
      }
      if (request.requestUnion?.kind === "progressRequest") {
        call.signal.addEventListener("abort", () => lastSignal.resolve(call.signal.reason));
        out.flushHeaders();
      }
    }
  },
});

interface CallOptions {
  readonly metadata?: Record<string, string>;
  readonly deadlineMs?: number;
}

function unaryBytes(path: string, bytes: Uint8Array, { metadata = {}, deadlineMs }: CallOptions = {}) {
  const headers = new grpc.Metadata();
  for (const [name, value] of Object.entries(metadata)) headers.set(name, value);
  const options = deadlineMs === undefined ? {} : { deadline: Date.now() + deadlineMs };
  return new Promise<Buffer>((resolve, reject) => {
    client.makeUnaryRequest(
      path,
      (b: Buffer) => b,
      (b: Buffer) => b,
      Buffer.from(bytes),
      headers,
      options,
      (error, value) => (error ? reject(error) : resolve(value as Buffer)),
    );
  });
}

async function range(key: string, options?: CallOptions) {
  return RangeResponse.decode(
    await unaryBytes(KV.methods.range.path, RangeRequest.encode({ key: Buffer.from(key), limit: 3 }), options),
  );
}

const TRANSPORTS: [string, (options: RpcServerOptions) => RpcServer | Promise<RpcServer>][] = [
  ["grpc-js", createGrpcJsServer],
  ["native", createNativeServer],
];

describe.each(TRANSPORTS)("transport %s", (name, create) => {
  beforeAll(async () => {
    ended.length = 0;
    rpc = await create({
      services: [kv, watch],
      limits: { requestBytesMax: REQUEST_BYTES_MAX, concurrentStreamsMax: 100 },
      keepAlive: { minTimeMs: 5000, intervalMs: 0, timeoutMs: 0 },
      clock: systemClock,
      logger: silentLogger,
      hooks: {
        admit(call) {
          if (call.metadata.get("refuse")) throw new EtcdError("NotSupportedForLearner");
        },
        ended: (_call, error) => ended.push(error?.message),
      },
      onFatal: (error) => {
        throw error;
      },
    });
    listener = await OnePortListener.bind({ url: "http://127.0.0.1:0", logger: silentLogger });
    await listener.serve({
      grpc: rpc,
      http: (request, response) => response.end(`${request.method} ${request.url}`),
    });
    client = new grpc.Client(`127.0.0.1:${listener.port}`, grpc.credentials.createInsecure());
  });

  afterAll(async () => {
    client.close();
    await rpc.stop(0);
    listener.destroy();
  });

  describe("unary calls", () => {
    it("carry a request and its answer", async () => {
      expect((await range("a")).count).toBe(3);
    });

    it("send an answer that is bytes already as it is", async () => {
      expect((await range("encoded")).count).toBe(7);
    });

    it("end with code and text of etcd's table", async () => {
      await expect(range("compacted")).rejects.toMatchObject({
        code: 11,
        details: "etcdserver: mvcc: required revision has been compacted",
      });
    });

    it("may be asked again when an answer that had begun cannot be finished, unless that was not foreseen", async () => {
      // One that makes the whole answer first has not begun.
      const isWhole = name === "grpc-js";
      await expect(range("cut off")).rejects.toMatchObject({ code: isWhole ? Code.OutOfRange : Code.Unavailable });
      await expect(range("broken off")).rejects.toMatchObject({ code: isWhole ? Code.Unknown : Code.Internal });
    });

    it("end with Unknown and the message for any other error", async () => {
      await expect(range("odd")).rejects.toMatchObject({ code: 2, details: "something odd: \u00e4 %" });
    });

    it("see metadata and the address of the caller", async () => {
      const { kvs } = await range("metadata", { metadata: { token: "t.1" } });
      expect(Buffer.from(kvs[0]?.key ?? []).toString()).toBe("t.1");
      expect(Buffer.from(kvs[0]?.value ?? []).toString()).toMatch(/^127\.0\.0\.1:\d+$/);
    });

    it("refuse a message over the limit with grpc-go's text", async () => {
      const request = PutRequest.encode({ key: Buffer.from("a"), value: Buffer.alloc(5000) });
      await expect(unaryBytes(KV.methods.put.path, request)).rejects.toMatchObject({
        code: 8,
        details: `grpc: received message larger than max (${request.length} vs. ${REQUEST_BYTES_MAX})`,
      });
    });

    it("take a message of exactly the limit", async () => {
      const overhead = PutRequest.encode({ key: Buffer.from("a"), value: Buffer.alloc(4000) }).length - 4000;
      const request = PutRequest.encode({ key: Buffer.from("a"), value: Buffer.alloc(REQUEST_BYTES_MAX - overhead) });
      expect(request.length).toBe(REQUEST_BYTES_MAX);
      const answer = PutResponse.decode(await unaryBytes(KV.methods.put.path, request));
      expect(answer.header?.revision).toBe(REQUEST_BYTES_MAX - overhead);
    });

    it("refuse what is no message of the type", async () => {
      await expect(unaryBytes(KV.methods.range.path, Uint8Array.of(0x0a, 0xff))).rejects.toMatchObject({
        code: 13,
        details: expect.stringMatching(/^grpc: error unmarshalling request: /),
      });
    });

    it("are not implemented when nobody serves them", async () => {
      await expect(unaryBytes("/x.Y/Z", new Uint8Array())).rejects.toMatchObject({ code: 12 });
    });

    it("are refused by the admit hook before their handler runs", async () => {
      await expect(range("a", { metadata: { refuse: "1" } })).rejects.toMatchObject({
        code: 14,
        details: "etcdserver: rpc not supported for learner",
      });
    });

    it("abort their signal at the deadline, with Go's text", async () => {
      lastSignal = deferred();
      // By a client that says when and then only waits: one that gives up by itself may be the quicker one.
      const session = http2.connect(`http://127.0.0.1:${listener.port}`);
      const message = RangeRequest.encode({ key: Buffer.from("wait") });
      const stream = session.request({
        ":method": "POST",
        ":path": KV.methods.range.path,
        "content-type": "application/grpc",
        "grpc-timeout": "500m",
        te: "trailers",
      });
      const prefix = Buffer.alloc(5);
      prefix.writeUInt32BE(message.length, 1);
      stream.end(Buffer.concat([prefix, message]));
      expect(await lastSignal.promise).toMatchObject({ code: 4, message: "context deadline exceeded" });
      session.destroy();
      await expect(range("wait", { deadlineMs: 100 })).rejects.toMatchObject({ code: 4 });
    });
  });

  describe("streams", () => {
    const open = () =>
      client.makeBidiStreamRequest(
        Watch.methods.watch.path,
        (request: Init<WatchRequest>) => Buffer.from(WatchRequest.encode(request)),
        (bytes: Buffer) => WatchResponse.decode(bytes),
      );

    it("answer many messages in order, and end well at half-close", async () => {
      const call = open();
      const got: bigint[] = [];
      call.on("data", (response: WatchResponse) => got.push(response.watchId));
      const status = new Promise<grpc.StatusObject>((resolve) => call.on("status", resolve));
      call.write({ requestUnion: { kind: "createRequest", value: { startRevision: 5000 } } });
      call.end();
      expect((await status).code).toBe(0);
      expect(got.length).toBe(5000);
      expect(got.at(-1)).toBe(4999n);
    });

    it("end with the status of a thrown error", async () => {
      const call = open();
      call.on("data", () => {});
      const error = new Promise((resolve) => call.on("error", resolve));
      call.write({ requestUnion: { kind: "cancelRequest", value: {} } });
      expect(await error).toMatchObject({ code: 14, details: "etcdserver: no leader" });
    });

    it("abort their signal when the caller goes away", async () => {
      lastSignal = deferred();
      const call = open();
      call.on("error", () => {});
      call.on("data", () => {});
      const ready = new Promise((resolve) => call.on("metadata", resolve));
      call.write({ requestUnion: { kind: "progressRequest", value: {} } });
      await ready;
      call.cancel();
      expect(await lastSignal.promise).toMatchObject({ code: 1, message: "context canceled" });
    });
  });

  describe("the port", () => {
    it("answers HTTP/1 beside HTTP/2", async () => {
      const body = await new Promise<string>((resolve, reject) => {
        http
          .get({ port: listener.port, host: "127.0.0.1", path: "/version" }, (response) => {
            let text = "";
            response.on("data", (chunk) => {
              text += chunk;
            });
            response.on("end", () => resolve(text));
          })
          .on("error", reject);
      });
      expect(body).toBe("GET /version");
    });

    it("answers HTTP/1 whose first bytes come one by one", async () => {
      const socket = net.connect(listener.port, "127.0.0.1");
      socket.setNoDelay(true);
      const answer = new Promise<string>((resolve) => {
        let text = "";
        socket.on("data", (chunk) => {
          text += chunk;
          if (text.endsWith("POST /x")) resolve(text);
        });
      });
      for (const byte of "POST /x HTTP/1.1\r\nHost: a\r\n\r\n") {
        await new Promise((resolve) => socket.write(byte, resolve));
      }
      expect(await answer).toContain("200 OK");
      socket.destroy();
    });

    it("speaks gRPC with node:http2", async () => {
      const session = http2.connect(`http://127.0.0.1:${listener.port}`);
      const message = RangeRequest.encode({ key: Buffer.from("a"), limit: 9 });
      const stream = session.request({
        ":method": "POST",
        ":path": KV.methods.range.path,
        "content-type": "application/grpc",
        te: "trailers",
      });
      const trailers = new Promise<http2.IncomingHttpHeaders>((resolve) => stream.on("trailers", resolve));
      const chunks: Buffer[] = [];
      stream.on("data", (chunk: Buffer) => chunks.push(chunk));
      const prefix = Buffer.alloc(5);
      prefix.writeUInt32BE(message.length, 1);
      stream.end(Buffer.concat([prefix, message]));
      expect((await trailers)["grpc-status"]).toBe("0");
      expect(RangeResponse.decode(Buffer.concat(chunks).subarray(5)).count).toBe(9);
      session.close();
    });

    it("says that it is taken as Go does", async () => {
      const url = `http://127.0.0.1:${listener.port}`;
      await expect(OnePortListener.bind({ url, logger: silentLogger })).rejects.toThrow(
        `listen tcp 127.0.0.1:${listener.port}: bind: address already in use`,
      );
    });

    it("holds connections that come before it serves", async () => {
      const early = await OnePortListener.bind({ url: "http://127.0.0.1:0", logger: silentLogger });
      const socket = net.connect(early.port, "127.0.0.1");
      socket.write("GET /early HTTP/1.1\r\nHost: a\r\n\r\n");
      await new Promise((resolve) => socket.once("connect", resolve));
      const answer = new Promise<string>((resolve) => socket.once("data", (chunk) => resolve(String(chunk))));
      await early.serve({ http: (request, response) => response.end(request.url) });
      expect(await answer).toContain("/early");
      socket.destroy();
      early.destroy();
    });
  });

  it("every admitted call has ended exactly once", () => {
    expect(ended.filter((text) => text === "etcdserver: rpc not supported for learner")).toEqual([]);
    expect(ended.filter((text) => text === "etcdserver: no leader").length).toBe(1);
  });
});
