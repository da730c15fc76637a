// Distributed tracing: what a collector receives, and from whom. The first test passes against the real etcd as well
// (ETCD_TEST_BIN).
import { once } from "node:events";
import http2 from "node:http2";
import type { AddressInfo } from "node:net";
import { KV, PutRequest, RangeRequest, TxnRequest } from "@etcd-ts/client/wire";
import protobuf from "protobufjs";
import { describe, expect, it } from "vitest";
import { Member, temporaryFolder, until } from "./harness/processes.ts";
import { call, connect, unframed } from "./harness/raw-grpc.ts";

const { root } = protobuf.parse(`
  syntax = "proto3";
  message Value { oneof value { string string_value = 1; int64 int_value = 3; } }
  message Attribute { string key = 1; Value value = 2; }
  message Status { string message = 2; int32 code = 3; }
  message Span {
    bytes trace_id = 1; bytes span_id = 2; bytes parent_span_id = 4; string name = 5; int32 kind = 6;
    fixed64 start = 7; fixed64 end = 8; repeated Attribute attributes = 9; Status status = 15;
  }
  message ScopeSpans { repeated Span spans = 2; }
  message Resource { repeated Attribute attributes = 1; }
  message ResourceSpans { Resource resource = 1; repeated ScopeSpans scope_spans = 2; }
  message Export { repeated ResourceSpans resource_spans = 1; }
`);
const Export = root.lookupType("Export");

interface Attribute {
  readonly key: string;
  readonly value: { readonly stringValue?: string; readonly intValue?: string };
}

interface Span {
  readonly traceId: string;
  readonly parentSpanId: string;
  readonly name: string;
  readonly kind: number;
  readonly attributes: Readonly<Record<string, string>>;
  readonly status: { readonly code?: number; readonly message?: string } | undefined;
}

function attributesOf(list: readonly Attribute[] = []): Record<string, string> {
  return Object.fromEntries(list.map(({ key, value }) => [key, value.stringValue ?? value.intValue ?? ""]));
}

const EXPORT_PATH = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/** Takes what an exporter sends, as a collector does. */
class Collector implements AsyncDisposable {
  readonly spans: Span[] = [];
  readonly resources: Record<string, string>[] = [];
  readonly paths = new Set<string>();
  readonly #server = http2.createServer();

  static async start(): Promise<Collector> {
    const collector = new Collector();
    const server = collector.#server;
    server.on("stream", (stream, headers) => {
      const pieces: Buffer[] = [];
      stream.on("data", (piece: Buffer) => pieces.push(piece));
      stream.on("error", () => {});
      stream.on("end", () => {
        collector.paths.add(String(headers[":path"]));
        for (const message of unframed(Buffer.concat(pieces))) collector.#take(message);
        stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
        stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
        stream.end(Buffer.alloc(5));
      });
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    return collector;
  }

  get address(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  #take(message: Uint8Array): void {
    const { resourceSpans } = Export.toObject(Export.decode(message), { bytes: Buffer, longs: String }) as {
      resourceSpans: {
        resource: { attributes: Attribute[] };
        scopeSpans: { spans: (Omit<Span, "attributes"> & { attributes: Attribute[]; parentSpanId?: Buffer })[] }[];
      }[];
    };
    for (const { resource, scopeSpans } of resourceSpans) {
      this.resources.push(attributesOf(resource.attributes));
      for (const span of scopeSpans.flatMap(({ spans }) => spans)) {
        this.spans.push({
          traceId: Buffer.from(span.traceId).toString("hex"),
          parentSpanId: Buffer.from(span.parentSpanId ?? "").toString("hex"),
          name: span.name,
          kind: span.kind,
          attributes: attributesOf(span.attributes),
          status: span.status,
        });
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close();
  }
}

const TRACE_ID = "0af7651916cd43dd8448eb211c80319c";
const SPAN_ID = "b7ad6b7169203331";
const key = Buffer.from("traced");
const put = PutRequest.encode({ key, value: key });
const range = RangeRequest.encode({ key });
const txn = TxnRequest.encode({
  success: [{ request: { kind: "requestPut", value: PutRequest.create({ key, value: key }) } }],
});

function flags(collector: Collector, rate: number): string[] {
  return [
    "--experimental-enable-distributed-tracing",
    `--experimental-distributed-tracing-address=${collector.address}`,
    "--experimental-distributed-tracing-service-name=the-service",
    "--experimental-distributed-tracing-instance-id=the-instance",
    `--experimental-distributed-tracing-sampling-rate=${rate}`,
  ];
}

describe("distributed tracing", () => {
  it("sends a span for put, range and txn, under the span of a caller that was sampled, and none for others", async () => {
    using folder = temporaryFolder("tracing");
    await using collector = await Collector.start();
    await using member = await Member.start({ dataDir: `${folder.path}/data`, flags: flags(collector, 0) });
    expect(member.log).toContain("distributed tracing setup enabled");
    const session = await connect(member.clientUrl);
    const sampled = { traceparent: `00-${TRACE_ID}-${SPAN_ID}-01` };
    const unsampled = { traceparent: `00-${TRACE_ID}-${SPAN_ID}-00` };
    for (const [path, message] of [
      [KV.methods.put.path, put],
      [KV.methods.range.path, range],
      [KV.methods.txn.path, txn],
    ] as const) {
      expect((await call(session, path, message)).status).toBe(0);
      expect((await call(session, path, message, unsampled)).status).toBe(0);
      expect((await call(session, path, message, { traceparent: "nonsense" })).status).toBe(0);
      expect((await call(session, path, message, sampled)).status).toBe(0);
    }
    const empty = await call(session, KV.methods.range.path, Buffer.alloc(0), sampled);
    expect(empty.status).toBe(3);
    const { localPort } = session.socket;
    session.close();

    await until("four spans", () => collector.spans.length >= 4);
    expect([...collector.paths]).toEqual([EXPORT_PATH]);
    expect(collector.resources[0]).toMatchObject({
      "service.name": "the-service",
      "service.instance.id": "the-instance",
    });
    expect(collector.spans.map(({ name }) => name)).toEqual([
      "etcdserverpb.KV/Put",
      "etcdserverpb.KV/Range",
      "etcdserverpb.KV/Txn",
      "etcdserverpb.KV/Range",
    ]);
    for (const span of collector.spans) {
      const [service, method] = span.name.split("/");
      expect(span).toMatchObject({ traceId: TRACE_ID, parentSpanId: SPAN_ID, kind: 2 });
      expect(span.attributes).toEqual({
        "rpc.system": "grpc",
        "rpc.service": service,
        "rpc.method": method,
        "net.sock.peer.addr": "127.0.0.1",
        "net.sock.peer.port": String(localPort),
        "rpc.grpc.status_code": span === collector.spans[3] ? "3" : "0",
      });
      // The caller's own mistake is no error of the server.
      expect(span.status?.code ?? 0).toBe(0);
    }
  });

  it("takes all calls at a rate of a million, streams too, and sends the rest when it stops", async () => {
    using folder = temporaryFolder("tracing");
    await using collector = await Collector.start();
    await using member = await Member.start({ dataDir: `${folder.path}/data`, flags: flags(collector, 1_000_000) });
    const session = await connect(member.clientUrl);
    expect((await call(session, KV.methods.put.path, put)).status).toBe(0);
    expect((await call(session, KV.methods.rangeStream.path, range)).status).toBe(0);
    session.close();
    await member.stop();
    const names = collector.spans.map(({ name }) => name);
    expect(names).toContain("etcdserverpb.KV/Put");
    expect(names).toContain("etcdserverpb.KV/RangeStream");
    expect(collector.spans.find(({ name }) => name === "etcdserverpb.KV/Put")?.parentSpanId).toBe("");
  });

  it("does no harm when nobody collects", async () => {
    using folder = temporaryFolder("tracing");
    await using collector = await Collector.start();
    const closed = flags(collector, 1_000_000);
    await collector[Symbol.asyncDispose]();
    await using member = await Member.start({ dataDir: `${folder.path}/data`, flags: closed });
    const session = await connect(member.clientUrl);
    expect((await call(session, KV.methods.put.path, put)).status).toBe(0);
    session.close();
    await member.stop();
    expect(member.process.signalCode).toBe("SIGTERM");
  });
});
