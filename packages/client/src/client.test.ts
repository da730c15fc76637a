import { setTimeout as delay } from "node:timers/promises";
import { afterEach, describe, expect, it } from "vitest";
import { keepAliveOptions } from "./channels.ts";
import { type Client, type ClientOptions, codeOf, connect, type FailedAttempt, RpcError } from "./index.ts";
import { FakeServer, Status } from "./testing/fake-server.ts";
import { Auth, Code, EtcdError, KV, Lease, Maintenance } from "./wire/index.ts";

const key = Buffer.from("k");
const opened: AsyncDisposable[] = [];

afterEach(async () => {
  for (const each of opened.splice(0).reverse()) await each[Symbol.asyncDispose]();
});

async function server(port?: number): Promise<FakeServer> {
  const fake = await FakeServer.start(port);
  opened.push(fake);
  return fake;
}

async function client(endpoints: readonly (FakeServer | string)[], options: Partial<ClientOptions> = {}) {
  const made = await connect({
    endpoints: endpoints.map((each) => (typeof each === "string" ? each : each.endpoint)),
    ...options,
  });
  opened.push(made);
  return made;
}

const fails = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => {
      throw new Error("it succeeded");
    },
    (error: unknown) => error,
  );

describe("keepAliveOptions()", () => {
  it("never pings more often than servers allow", () => {
    expect(keepAliveOptions({})).toEqual({});
    expect(keepAliveOptions({ keepAliveTimeMs: 0, keepAliveTimeoutMs: 1 })).toEqual({});
    expect(keepAliveOptions({ keepAliveTimeMs: 2_000, keepAliveTimeoutMs: 6_000 })).toEqual({
      "grpc.keepalive_time_ms": 10_000,
      "grpc.keepalive_timeout_ms": 6_000,
    });
    expect(keepAliveOptions({ keepAliveTimeMs: 30_000 })).toEqual({
      "grpc.keepalive_time_ms": 30_000,
      "grpc.keepalive_timeout_ms": 20_000,
    });
  });
});

describe("call()", () => {
  it("sends the request and gives the decoded answer", async () => {
    const fake = await server();
    fake.on(KV.methods.range, (request) => ({ kvs: [{ key: request.key, value: Buffer.from("v") }], count: 1 }));
    const response = await (await client([fake])).call(KV.methods.range, { key });
    expect(response.count).toBe(1);
    expect(Buffer.from(response.kvs[0]?.key ?? []).toString()).toBe("k");
  });

  it("turns a status of the table into an EtcdError, any other into an RpcError", async () => {
    const fake = await server();
    const statuses = [new EtcdError("Compacted"), new Status(Code.Internal, "odd")];
    fake.on(KV.methods.range, () => {
      throw statuses.shift() as Error;
    });
    const c = await client([fake]);
    expect(await fails(c.kv.get("k"))).toMatchObject({ kind: "Compacted", code: Code.OutOfRange });
    const other = await fails(c.kv.get("k"));
    expect(other).toBeInstanceOf(RpcError);
    expect(other).toMatchObject({ code: Code.Internal, details: "odd" });
  });

  it("asks the next endpoint when a read meets Unavailable", async () => {
    const [bad, good] = [await server(), await server()];
    let asked = 0;
    bad.on(KV.methods.range, () => {
      asked++;
      throw new EtcdError("NoLeader");
    });
    good.on(KV.methods.range, () => ({ count: 7 }));
    const failed: FailedAttempt[] = [];
    const c = await client([bad, good], { onAttemptFailed: (attempt) => failed.push(attempt) });
    for (let i = 0; i < 4; i++) expect((await c.kv.get("k")).count).toBe(7);
    expect(failed).toHaveLength(asked);
    for (const attempt of failed) {
      expect(attempt).toEqual({
        target: bad.endpoint,
        attempt: 0,
        code: Code.Unavailable,
        details: "etcdserver: no leader",
      });
    }
  });

  it("does not repeat a write that may have been carried out", async () => {
    const fake = await server();
    let asked = 0;
    fake.on(KV.methods.put, () => {
      asked++;
      throw new Status(Code.Unavailable, "gone");
    });
    const c = await client([fake]);
    expect(codeOf(await fails(c.kv.put("k", "v")))).toBe(Code.Unavailable);
    expect(asked).toBe(1);
  });

  it("repeats what etcd's client repeats, and no other", async () => {
    const fake = await server();
    const asked = new Map<string, number>();
    const once = (name: string) => () => {
      asked.set(name, (asked.get(name) ?? 0) + 1);
      if (asked.get(name) === 1) throw new Status(Code.Unavailable, "gone");
      return {};
    };
    fake
      .on(Lease.methods.leaseGrant, once("grant"))
      .on(Maintenance.methods.status, once("status"))
      .on(Maintenance.methods.defragment, once("defragment"))
      .on(KV.methods.txn, once("txn"));
    const c = await client([fake]);
    await c.lease.grant(5);
    await c.maintenance.status();
    expect(codeOf(await fails(c.maintenance.defragment()))).toBe(Code.Unavailable);
    await c.call(KV.methods.txn, { success: [{ request: { kind: "requestRange", value: { key } } }] });
    asked.delete("txn");
    const write = { success: [{ request: { kind: "requestPut", value: { key } } }] } as const;
    expect(codeOf(await fails(c.call(KV.methods.txn, write)))).toBe(Code.Unavailable);
  });

  it("passes over a dead endpoint", async () => {
    const dead = await server();
    await dead.stop();
    const fake = await server();
    fake.on(KV.methods.put, () => ({ header: { revision: 5 } }));
    const c = await client([dead, fake]);
    expect((await c.kv.put("k", "v")).header?.revision).toBe(5);
  });

  it("waits for an endpoint that is not there yet, writes too", async () => {
    const late = await server();
    const { port } = late;
    await late.stop();
    const c = await client([late]);
    const put = c.kv.put("k", "v", { timeoutMs: 30_000 });
    (await server(port)).on(KV.methods.put, () => ({ header: { revision: 9 } }));
    expect((await put).header?.revision).toBe(9);
  });

  it("comes back to a server that was restarted", async () => {
    const first = await server();
    first.on(KV.methods.range, () => ({ count: 1 }));
    const c = await client([first]);
    expect((await c.kv.get("k")).count).toBe(1);
    await first.stop();
    (await server(first.port)).on(KV.methods.range, () => ({ count: 2 }));
    expect((await c.kv.get("k", { timeoutMs: 30_000 })).count).toBe(2);
  });

  it("ends with etcd's words when its time is over, connected or not", async () => {
    const fake = await server();
    fake.on(KV.methods.range, () => new Promise<never>(() => {}));
    const error = { code: Code.DeadlineExceeded, details: "context deadline exceeded" };
    const c = await client([fake]);
    expect(await fails(c.kv.get("k", { timeoutMs: 50 }))).toMatchObject({ code: error.code, message: error.details });
    await fake.stop();
    const nobody = await client([fake]);
    expect(await fails(nobody.kv.get("k", { timeoutMs: 50 }))).toMatchObject({
      code: error.code,
      message: error.details,
    });
  });

  it("ends with the signal's reason, before, while waiting for a connection, and in flight", async () => {
    const fake = await server();
    let arrived: () => void = () => {};
    const inFlight = new Promise<void>((resolve) => {
      arrived = resolve;
    });
    fake.on(KV.methods.range, () => {
      arrived();
      return new Promise<never>(() => {});
    });
    const c = await client([fake]);
    const reason = new Error("enough");
    await expect(c.kv.get("k", { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    const abort = new AbortController();
    const call = fails(c.kv.get("k", { signal: abort.signal }));
    await inFlight;
    abort.abort(reason);
    expect(await call).toBe(reason);

    await fake.stop();
    const waiting = new AbortController();
    const waits = fails((await client([fake])).kv.get("k", { signal: waiting.signal }));
    waiting.abort(reason);
    expect(await waits).toBe(reason);
  });

  it("asks only the endpoint that is named", async () => {
    const [a, b] = [await server(), await server()];
    a.on(Maintenance.methods.status, () => ({ version: "a" }));
    b.on(Maintenance.methods.status, () => ({ version: "b" }));
    const c = await client([a, b]);
    for (let i = 0; i < 3; i++) {
      expect((await c.maintenance.status({ endpoint: b.endpoint })).version).toBe("b");
      expect((await c.maintenance.status({ endpoint: a.endpoint })).version).toBe("a");
    }
  });

  it("refuses a request over the send limit with grpc's words, without sending it", async () => {
    const fake = await server();
    const c = await client([fake]);
    const error = await fails(c.kv.put("k", Buffer.alloc(2 * 1024 * 1024)));
    expect(error).toMatchObject({ code: Code.ResourceExhausted });
    expect((error as RpcError).details).toMatch(/^trying to send message larger than max \(\d+ vs\. 2097152\)$/);
  });

  it("takes answers of many megabytes", async () => {
    const fake = await server();
    fake.on(KV.methods.range, () => ({ kvs: [{ key, value: Buffer.alloc(20_000_000) }] }));
    const { kvs } = await (await client([fake])).kv.get("k");
    expect(kvs[0]?.value.length).toBe(20_000_000);
  });

  it("asks for a leader when told to", async () => {
    const fake = await server();
    const seen: (string | undefined)[] = [];
    fake.on(KV.methods.range, (_request, { metadata }) => {
      seen.push(metadata.get("hasleader"));
      return {};
    });
    const c = await client([fake]);
    await c.kv.get("k", { requireLeader: true });
    await c.kv.get("k");
    expect(seen).toEqual(["true", undefined]);
  });

  it("ends when the client is closed", async () => {
    const fake = await server();
    await fake.stop();
    const c = await client([fake]);
    const call = fails(c.kv.get("k"));
    c.close();
    expect(await call).toMatchObject({ code: Code.Canceled });
  });

  it("in flight ends when the client is closed", async () => {
    const fake = await server();
    const c = await client([fake]);
    const arrived = new Promise<void>((resolve) => {
      fake.on(KV.methods.range, () => {
        resolve();
        return new Promise<never>(() => {});
      });
    });
    const call = fails(c.kv.get("k"));
    await arrived;
    c.close();
    expect(await call).toMatchObject({ code: Code.Canceled, details: "the client is closed" });
  });

  it("needs an endpoint", async () => {
    await expect(connect({ endpoints: [] })).rejects.toMatchObject({ details: "etcdclient: no available endpoints" });
  });
});

describe("logging in", () => {
  const login = { username: "root", password: "pw" };

  it("sends the token with every call, and fetches another when it is refused", async () => {
    const fake = await server();
    let logins = 0;
    fake.on(Auth.methods.authenticate, ({ name, password }) => {
      expect([name, password]).toEqual(["root", "pw"]);
      return { token: `token.${++logins}` };
    });
    const seen: (string | undefined)[] = [];
    fake.on(KV.methods.put, (_request, { metadata }) => {
      seen.push(metadata.get("token"));
      if (metadata.get("token") === "token.1") throw new EtcdError("InvalidAuthToken");
      return {};
    });
    const c = await client([fake], login);
    await c.kv.put("k", "v");
    await c.kv.put("k", "v");
    expect(seen).toEqual(["token.1", "token.2", "token.2"]);
  });

  it.each([
    ["root", ""],
    ["", "pw"],
    ["root", undefined],
  ])("does without when name (%j) or password (%j) is empty, and asks once", async (username, password) => {
    const fake = await server();
    const seen: string[] = [];
    fake.on(Auth.methods.authenticate, () => {
      seen.push("authenticate");
      return { token: "t" };
    });
    fake.on(KV.methods.range, () => {
      seen.push("range");
      throw new EtcdError("UserEmpty");
    });
    const c = await client([fake], { username, password });
    const error = await fails(c.kv.get("k", { timeoutMs: 60_000 }));
    expect([error, seen]).toEqual([expect.objectContaining({ kind: "UserEmpty" }), ["range"]]);
  });

  it("fetches one again and again while users and roles change, until the call's time is up", async () => {
    const fake = await server();
    let logins = 0;
    fake.on(Auth.methods.authenticate, () => ({ token: `token.${++logins}` }));
    fake.on(KV.methods.put, (_request, { metadata }) => {
      if (metadata.get("token") !== "token.4") throw new EtcdError("AuthOldRevision");
      return {};
    });
    fake.on(KV.methods.range, () => {
      throw new EtcdError("InvalidAuthToken");
    });
    const c = await client([fake], login);
    await c.kv.put("k", "v");
    expect(logins).toBe(4);
    const error = await fails(c.kv.get("k", { timeoutMs: 100 }));
    expect(codeOf(error)).toBe(Code.DeadlineExceeded);
  });

  it("whoever has a certificate for a name just asks again when users and roles have changed meanwhile", async () => {
    const fake = await server();
    let puts = 0;
    fake.on(KV.methods.put, () => {
      if (++puts < 3) throw new EtcdError("AuthOldRevision");
      return {};
    });
    fake.on(KV.methods.range, () => {
      throw new EtcdError("InvalidAuthToken");
    });
    const c = await client([fake]);
    await c.kv.put("k", "v");
    expect(puts).toBe(3);
    expect(await fails(c.kv.get("k"))).toMatchObject({ kind: "InvalidAuthToken" });
  });

  it("goes on without a token when the server wants none", async () => {
    const fake = await server();
    fake.on(Auth.methods.authenticate, () => {
      throw new EtcdError("AuthNotEnabled");
    });
    fake.on(KV.methods.range, () => ({ count: 3 }));
    expect((await (await client([fake], login)).kv.get("k")).count).toBe(3);
  });

  it("a wrong password fails connect()", async () => {
    const fake = await server();
    fake.on(Auth.methods.authenticate, () => {
      throw new EtcdError("AuthFailed");
    });
    await expect(connect({ endpoints: [fake.endpoint], ...login })).rejects.toMatchObject({ kind: "AuthFailed" });
  });

  it("connect() gives up after the dial time-out", async () => {
    const fake = await server();
    await fake.stop();
    const error = await fails(connect({ endpoints: [fake.endpoint], ...login, dialTimeoutMs: 50 }));
    expect(codeOf(error)).toBe(Code.DeadlineExceeded);
  });
});

describe("streams", () => {
  it("a server stream is read to its end, and its error thrown", async () => {
    const fake = await server();
    fake.onStream(Maintenance.methods.snapshot, (stream) => {
      stream.send({ blob: Buffer.from("a") });
      stream.send({ blob: Buffer.from("b") });
      stream.end(new EtcdError("PermissionDenied"));
    });
    const c = await client([fake]);
    const got: string[] = [];
    const read = async () => {
      for await (const { blob } of c.serverStream(Maintenance.methods.snapshot, {})) {
        got.push(Buffer.from(blob).toString());
      }
    };
    expect(await fails(read())).toMatchObject({ kind: "PermissionDenied" });
    expect(got).toEqual(["a", "b"]);
  });

  it("leaving the loop cancels the stream", async () => {
    const fake = await server();
    let gone: AbortSignal | undefined;
    fake.onStream(Maintenance.methods.snapshot, (stream) => {
      gone = stream.signal;
      stream.send({ blob: Buffer.from("a") });
    });
    const c: Client = await client([fake]);
    for await (const _ of c.serverStream(Maintenance.methods.snapshot, {})) break;
    while (!gone?.aborted) await delay(1);
  });

  it("end when the client is closed", async () => {
    const fake = await server();
    fake.onStream(Maintenance.methods.snapshot, (stream) => stream.send({ blob: Buffer.from("a") }));
    const c = await client([fake]);
    const iterator = c.serverStream(Maintenance.methods.snapshot, {})[Symbol.asyncIterator]();
    await iterator.next();
    const next = fails(iterator.next());
    c.close();
    expect(await next).toMatchObject({ code: Code.Canceled, details: "the client is closed" });
  });
});
