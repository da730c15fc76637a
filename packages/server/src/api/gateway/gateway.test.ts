import { type ClientRequest, createServer, request as httpRequest } from "node:http";
import type { AddressInfo } from "node:net";
import {
  Code,
  EtcdError,
  KV,
  PutRequest,
  RangeRequest,
  RangeResponse,
  SortOrder,
  TxnRequest,
  Watch,
  WatchRequest,
  WatchResponse,
} from "@etcd-ts/client/wire";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { systemClock } from "../../lib/clock.ts";
import { parseJson } from "../../lib/json.ts";
import { EncodedMessage, StatusError, serve } from "../../rpc/index.ts";
import { createGateway } from "./gateway.ts";
import { fromJson, JsonSplitter, toJson } from "./json.ts";

const bytes = (text: string) => Buffer.from(text);
const unimplemented = () => {
  throw new StatusError(Code.Unimplemented, "not in this test");
};

const seen: { token?: string | undefined; accept?: string | undefined } = {};
const kv = serve(KV, {
  range(request, call) {
    seen.token = call.metadata.get("token") ?? call.metadata.get("authorization");
    seen.accept = call.metadata.get("grpcgateway-accept");
    if (bytes("none").equals(request.key)) throw new EtcdError("LeaseNotFound");
    return new EncodedMessage([RangeResponse.encode({ count: request.limit, header: { clusterId: 1n << 63n } })]);
  },
  put: (request) => ({ header: { revision: request.value.length } }),
  deleteRange: unimplemented,
  txn: unimplemented,
  compact: unimplemented,
  rangeStream: unimplemented,
});
const watch = serve(Watch, {
  async watch(requests, out) {
    for await (const { requestUnion } of requests) {
      if (requestUnion?.kind === "cancelRequest") throw new EtcdError("NoLeader");
      out.write({ created: true, header: { revision: 3 } });
      out.write({ events: [{ kv: { key: bytes("a") } }] });
    }
  },
});

const gateway = createGateway({
  services: [kv, watch],
  hooks: {},
  clock: systemClock,
  messageBytesMax: 1000,
  concurrentStreamsMax: 2,
  onFatal: () => {},
});
const server = createServer(gateway);
beforeAll(() => new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve)));
afterAll(() => {
  server.closeAllConnections();
  server.close();
});

function post(path: string, body: string, { method = "POST", headers = {} } = {}) {
  return new Promise<{ status: number; type: string; body: string }>((resolve, reject) => {
    const { port } = server.address() as AddressInfo;
    const call = httpRequest({ host: "127.0.0.1", port, path, method, headers }, (response) => {
      let text = "";
      response.on("data", (chunk) => {
        text += chunk;
      });
      response.on("end", () =>
        resolve({ status: response.statusCode ?? 0, type: response.headers["content-type"] ?? "", body: text }),
      );
    });
    call.on("error", reject);
    call.end(body);
  });
}

describe("JSON of messages", () => {
  it("leaves zeros out, writes 64-bit integers as strings and bytes as base64", () => {
    expect(toJson(RangeRequest, { key: bytes("a"), limit: 5, sortOrder: SortOrder.Descend, serializable: true })).toBe(
      '{"key":"YQ==","limit":"5","sort_order":"DESCEND","serializable":true}',
    );
    expect(toJson(RangeRequest, {})).toBe("{}");
    expect(toJson(PutRequest, { lease: -1n })).toBe('{"lease":"-1"}');
  });

  it("reads either form of names, integers and enums, and skips what it does not know", () => {
    const json = '{"rangeEnd":"Yg==","limit":"7","sort_order":1,"min_mod_revision":9007199254740993,"nope":{"a":[1]}}';
    const request = RangeRequest.create(fromJson(RangeRequest, parseJson(json)));
    expect(request).toMatchObject({ limit: 7, sortOrder: 1, minModRevision: Number.MAX_SAFE_INTEGER });
    expect(Buffer.from(request.rangeEnd).toString()).toBe("b");
  });

  it("skips a name that its enum does not know, and takes base64 of either alphabet", () => {
    const json = '{"sort_order":"UP","key":"-_-_","range_end":"Yg"}';
    const { sortOrder, key, rangeEnd } = RangeRequest.create(fromJson(RangeRequest, parseJson(json)));
    expect([sortOrder, Buffer.from(key).toString("hex"), Buffer.from(rangeEnd).toString()]).toEqual([0, "fbffbf", "b"]);
  });

  it("keeps oneofs and nesting", () => {
    const json =
      '{"compare":[{"key":"YQ==","target":"VERSION","version":"3"}],"success":[{"request_range":{"key":"YQ=="}}]}';
    const message = TxnRequest.create(fromJson(TxnRequest, parseJson(json)));
    expect(message.compare[0]?.targetUnion).toEqual({ kind: "version", value: 3 });
    expect(toJson(TxnRequest, message)).toBe(
      '{"compare":[{"key":"YQ==","version":"3"}],"success":[{"request_range":{"key":"YQ=="}}]}',
    );
  });

  it.each(['{"key":"?"}', '{"limit":1.5}', '{"limit":"x"}', '{"serializable":3}', "[]", "7"])("refuses %s", (json) => {
    expect(() => fromJson(RangeRequest, parseJson(json))).toThrow();
  });

  it("reads back what it wrote", () => {
    const message = WatchRequest.create({
      requestUnion: { kind: "createRequest", value: { key: bytes("k"), watchId: -(1n << 62n), filters: [1] } },
    });
    expect(WatchRequest.create(fromJson(WatchRequest, parseJson(toJson(WatchRequest, message))))).toEqual(message);
    expect(toJson(WatchResponse, { cancelReason: "<&>" })).toBe('{"cancel_reason":"\\u003c\\u0026\\u003e"}');
  });
});

describe("JsonSplitter", () => {
  it("finds whole values however the text is cut", () => {
    const text = ' {"a":"}\\"{"}\n{"b":[{},[]]}{}';
    for (let size = 1; size <= text.length; size++) {
      const splitter = new JsonSplitter();
      const found: string[] = [];
      for (let at = 0; at < text.length; at += size) found.push(...splitter.push(text.substring(at, at + size)));
      expect(found).toEqual(['{"a":"}\\"{"}', '{"b":[{},[]]}', "{}"]);
      expect(splitter.rest()).toBe("");
    }
  });
});

describe("the gateway", () => {
  it("answers a unary call", async () => {
    expect(await post("/v3/kv/range", '{"key":"YQ==","limit":2}')).toEqual({
      status: 200,
      type: "application/json",
      body: '{"header":{"cluster_id":"9223372036854775808"},"count":"2"}',
    });
  });

  it("takes an empty body for an empty message", async () => {
    expect((await post("/v3/kv/put", "")).body).toBe('{"header":{}}');
  });

  it("maps an error to HTTP and repeats its text", async () => {
    const text = "etcdserver: requested lease not found";
    expect(await post("/v3/kv/range", '{"key":"bm9uZQ=="}')).toEqual({
      status: 404,
      type: "application/json",
      body: `{"error":"${text}","code":5,"message":"${text}"}`,
    });
  });

  it("refuses what is no JSON, and what is too large", async () => {
    expect((await post("/v3/kv/range", "{")).status).toBe(400);
    expect((await post("/v3/kv/range", '{"key":7}')).status).toBe(400);
    const large = await post("/v3/kv/put", `{"value":"${Buffer.alloc(2000).toString("base64")}"}`);
    expect([large.status, JSON.parse(large.body).code]).toEqual([429, 8]);
  });

  it("knows no other paths and methods", async () => {
    expect(await post("/v3/nope", "{}")).toMatchObject({ status: 404, body: "Not Found\n" });
    expect(await post("/v3/kv/range", "", { method: "GET" })).toMatchObject({
      status: 405,
      body: "Method Not Allowed\n",
    });
    expect((await post("/v3beta/kv/range", "{}")).status).toBe(200);
  });

  it("hands tokens on, and marks the call as the gateway's", async () => {
    await post("/v3/kv/range", "{}", { headers: { authorization: "t.1" } });
    expect(seen).toEqual({ token: "t.1", accept: "*/*" });
    await post("/v3/kv/range", "{}", { headers: { "Grpc-Metadata-Token": "t.2", accept: "text/html" } });
    expect(seen).toEqual({ token: "t.2", accept: "text/html" });
  });

  it("serves so many calls at once, and the next one when one of them has ended", async () => {
    const { port } = server.address() as AddressInfo;
    const open = () =>
      new Promise<ClientRequest>((resolve, reject) => {
        const call = httpRequest({ host: "127.0.0.1", port, path: "/v3/watch", method: "POST" }, (response) => {
          response.on("error", () => {});
          response.once("data", () => resolve(call));
        });
        call.on("error", reject);
        call.write('{"create_request":{"key":"YQ=="}}');
      });
    const one = await open();
    const two = await open();
    let isAnswered = false;
    const third = post("/v3/kv/put", '{"key":"YQ==","value":"YmJi"}').finally(() => {
      isAnswered = true;
    });
    // Its own connection shows that whatever was under way has arrived.
    await expect(post("/v3/nowhere", "{}")).resolves.toMatchObject({ status: 404 });
    expect(isAnswered).toBe(false);
    one.destroy();
    await expect(third).resolves.toMatchObject({ status: 200 });
    two.destroy();
  });

  it("sends a stream as one object a line", async () => {
    const { body, status } = await post("/v3/watch", '{"create_request":{"key":"YQ=="}}');
    expect(status).toBe(200);
    expect(body).toBe(
      '{"result":{"header":{"revision":"3"},"created":true}}\n{"result":{"events":[{"kv":{"key":"YQ=="}}]}}\n',
    );
  });

  it("ends a stream with an error object", async () => {
    expect(await post("/v3/watch", '{"cancel_request":{}}')).toMatchObject({
      status: 503,
      body: '{"error":{"grpc_code":14,"http_code":503,"message":"etcdserver: no leader","http_status":"Service Unavailable"}}\n',
    });
  });
});
