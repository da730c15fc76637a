/** The facades of keys, cluster, maintenance and auth: what they ask, and what they make of the answers. */
import { createHash } from "node:crypto";
import { afterEach, describe, expect, it } from "vitest";
import {
  type Client,
  compare,
  connect,
  deleteOp,
  getOp,
  keyAndEnd,
  prefixRangeEnd,
  putOp,
  toText,
  txnOp,
} from "./index.ts";
import { parseEndpoint } from "./options.ts";
import { FakeServer } from "./testing/fake-server.ts";
import {
  AlarmAction,
  AlarmType,
  Auth,
  Cluster,
  Code,
  type Codec,
  KV,
  Maintenance,
  PermissionType,
  SortOrder,
  type TxnRequest,
} from "./wire/index.ts";

const opened: AsyncDisposable[] = [];

afterEach(async () => {
  for (const each of opened.splice(0).reverse()) await each[Symbol.asyncDispose]();
});

async function pair(): Promise<{ client: Client; fake: FakeServer }> {
  const fake = await FakeServer.start();
  opened.push(fake);
  const client = await connect({ endpoints: [fake.endpoint] });
  opened.push(client);
  return { client, fake };
}

/** Answers with nothing and keeps what was asked. */
function recorder(fake: FakeServer) {
  const asked: unknown[] = [];
  return {
    asked,
    on<M extends { path: string; kind: string; request: Codec<never>; response: unknown }>(method: M) {
      fake.on(method as never, (request: unknown) => {
        asked.push(request);
        return {} as never;
      });
      return this;
    },
  };
}

const bytes = (text: string) => new Uint8Array(Buffer.from(text));

describe("kv.getStream()", () => {
  /** Answers like a store that holds these keys and moves on by one revision with each request. */
  async function stored(keys: readonly string[], valueBytes = 10) {
    const { client, fake } = await pair();
    const asked: { key: string; limit: number; revision: number; serializable: boolean }[] = [];
    let revision = 100;
    fake.on(KV.methods.range, ({ key, rangeEnd, limit, revision: at, serializable }) => {
      const [from, to] = [Buffer.from(key).toString("latin1"), Buffer.from(rangeEnd).toString("latin1")];
      asked.push({ key: from, limit, revision: at, serializable });
      const rest = keys.filter((name) => name >= from && name < to);
      const taken = limit > 0 ? rest.slice(0, limit) : rest;
      const value = Buffer.alloc(valueBytes);
      const kvs = taken.map((name) => ({ key: Buffer.from(name, "latin1"), value }));
      return { header: { revision: revision++ }, kvs, more: taken.length < rest.length, count: rest.length };
    });
    return { client, asked };
  }
  const keysOf = async (pages: AsyncIterable<{ kvs: readonly { key: Uint8Array }[] }>) => {
    const sizes: number[] = [];
    const keys: string[] = [];
    for await (const { kvs } of pages) {
      sizes.push(kvs.length);
      for (const { key } of kvs) keys.push(Buffer.from(key).toString("latin1"));
    }
    return { sizes, keys };
  };
  const many = Array.from({ length: 1000 }, (_, i) => `k${String(i).padStart(4, "0")}`);

  it("gives all keys in pages that grow, at the revision of the first one", async () => {
    const { client, asked } = await stored(many);
    const { sizes, keys } = await keysOf(client.kv.getStream("k", { prefix: true, serializable: true }));
    expect(keys).toEqual(many);
    expect(sizes).toEqual([64, 128, 256, 512, 40]);
    expect(asked.map(({ revision }) => revision)).toEqual([0, 100, 100, 100, 100]);
    expect(asked.map(({ serializable }) => serializable)).toEqual([true, false, false, false, false]);
    expect(asked[1]?.key).toBe("k0063\0");
  });

  it("keeps to a limit, tells of what is beyond it, and of the count of all", async () => {
    const { client } = await stored(many);
    const told: [more: boolean, count: number, revision: number | undefined][] = [];
    for await (const { more, count, header } of client.kv.getStream("k", { prefix: true, limit: 100, revision: 7 })) {
      told.push([more, count, header?.revision]);
    }
    expect(told).toEqual([
      [true, 1000, 100],
      [true, 1000, 100],
    ]);
    const all = await keysOf(client.kv.getStream("k", { prefix: true, limit: 100 }));
    expect(all.keys).toEqual(many.slice(0, 100));
  });

  it("makes pages of large values smaller", async () => {
    const { client } = await stored(many.slice(0, 120), 100_000);
    const { sizes, keys } = await keysOf(client.kv.getStream("k", { prefix: true }));
    expect(keys).toHaveLength(120);
    expect(sizes.slice(0, 2)).toEqual([64, 16]);
  });

  it("asks no further once nobody looks, and refuses other orders", async () => {
    const { client, asked } = await stored(many);
    for await (const _page of client.kv.getStream("k", { prefix: true })) break;
    expect(asked.length).toBeLessThanOrEqual(2);
    for (const options of [{}, { prefix: true, sortOrder: SortOrder.Descend }, { prefix: true, countOnly: true }]) {
      await expect(client.kv.getStream("k", options).next()).rejects.toThrow(RangeError);
    }
  });
});

describe("kv", () => {
  it("get, put, delete and compact pass their options on", async () => {
    const { client, fake } = await pair();
    const { asked } = recorder(fake)
      .on(KV.methods.range as never)
      .on(KV.methods.put as never)
      .on(KV.methods.deleteRange as never)
      .on(KV.methods.compact as never);
    await client.kv.get("a", { prefix: true, limit: 3, revision: 9, sortOrder: SortOrder.Descend, keysOnly: true });
    await client.kv.put("a", "b", { lease: 7n, prevKv: true });
    await client.kv.delete("a", { fromKey: true, prevKv: true });
    await client.kv.compact(5, { physical: true });
    expect(asked).toMatchObject([
      {
        key: bytes("a"),
        rangeEnd: bytes("b"),
        limit: 3,
        revision: 9,
        sortOrder: 2,
        keysOnly: true,
        serializable: false,
      },
      { key: bytes("a"), value: bytes("b"), lease: 7n, prevKv: true, ignoreValue: false },
      { key: bytes("a"), rangeEnd: new Uint8Array(1), prevKv: true },
      { revision: 5, physical: true },
    ]);
  });

  it("a transaction holds its conditions and both branches", async () => {
    const { client, fake } = await pair();
    let seen: TxnRequest | undefined;
    fake.on(KV.methods.txn, (request) => {
      seen = request;
      return { succeeded: true };
    });
    const { succeeded } = await client.kv
      .txn()
      .if(
        compare("a", "value", "=", "x"),
        compare("a", "mod", ">", 5),
        compare("p", "lease", "!=", 0n, { prefix: true }),
      )
      .then(putOp("a", "y"), getOp("a"))
      .else(deleteOp("a"), txnOp({ success: [getOp("b")] }))
      .commit();
    expect(succeeded).toBe(true);
    expect(seen).toMatchObject({
      compare: [
        { key: bytes("a"), result: 0, target: 3, targetUnion: { kind: "value", value: bytes("x") } },
        { key: bytes("a"), result: 1, target: 2, targetUnion: { kind: "modRevision", value: 5 } },
        { key: bytes("p"), rangeEnd: bytes("q"), result: 3, target: 4, targetUnion: { kind: "lease", value: 0n } },
      ],
      success: [{ request: { kind: "requestPut" } }, { request: { kind: "requestRange" } }],
      failure: [{ request: { kind: "requestDeleteRange" } }, { request: { kind: "requestTxn" } }],
    });
  });
});

describe("ranges", () => {
  it("the end of a prefix is its successor; there is none above all 0xff", () => {
    expect(prefixRangeEnd("a")).toEqual(bytes("b"));
    expect(prefixRangeEnd(Uint8Array.of(1, 0xff))).toEqual(Uint8Array.of(2));
    expect(prefixRangeEnd(Uint8Array.of(0xff, 0xff))).toEqual(Uint8Array.of(0));
  });

  it("an empty key with prefix or fromKey is every key", () => {
    const all = { key: Uint8Array.of(0), rangeEnd: Uint8Array.of(0) };
    expect(keyAndEnd("", { prefix: true })).toEqual(all);
    expect(keyAndEnd("", { fromKey: true })).toEqual(all);
  });

  it("text is UTF-8", () => {
    expect(toText(keyAndEnd("ключ", {}).key)).toBe("ключ");
  });
});

describe("endpoints", () => {
  it.each([
    ["127.0.0.1:2379", false, "dns:127.0.0.1:2379", false],
    ["127.0.0.1:2379", true, "dns:127.0.0.1:2379", true],
    ["http://h:1/", true, "dns:h:1", false],
    ["https://h:1", false, "dns:h:1", true],
    ["[::1]:2379", false, "dns:[::1]:2379", false],
    ["unix:///tmp/s", false, "unix:/tmp/s", false, "s"],
    ["unix:///tmp/s:2379", true, "unix:/tmp/s:2379", true, "s:2379"],
    ["unix:localhost:2379", false, "unix:localhost:2379", false, "localhost:2379"],
    ["unix://localhost:2379", false, "unix:localhost:2379", false, "localhost:2379"],
    ["unixs:localhost:2379", false, "unix:localhost:2379", true, "localhost:2379"],
    ["unixs:///tmp/s", false, "unix:/tmp/s", true, "s"],
  ])("%s (tls %s) dials %s", (endpoint, hasTls, target, isTls, authority?: string) => {
    const parsed = parseEndpoint(endpoint, hasTls ? {} : undefined);
    expect(parsed).toEqual({ target, isTls, ...(authority === undefined ? {} : { authority }) });
  });
});

describe("cluster", () => {
  it("each call passes its fields on; the list is linearizable unless told otherwise", async () => {
    const { client, fake } = await pair();
    const m = Cluster.methods;
    const { asked } = recorder(fake)
      .on(m.memberList as never)
      .on(m.memberAdd as never)
      .on(m.memberUpdate as never)
      .on(m.memberPromote as never)
      .on(m.memberRemove as never);
    await client.cluster.memberList();
    await client.cluster.memberList({ linearizable: false });
    await client.cluster.memberAdd(["http://a:1"], { isLearner: true });
    await client.cluster.memberUpdate(1n, ["http://b:1"]);
    await client.cluster.memberPromote(2n);
    await client.cluster.memberRemove(2n ** 64n - 1n);
    expect(asked).toEqual([
      { linearizable: true },
      { linearizable: false },
      { peerUrls: ["http://a:1"], isLearner: true },
      { id: 1n, peerUrls: ["http://b:1"] },
      { id: 2n },
      { id: 2n ** 64n - 1n },
    ]);
  });
});

describe("maintenance", () => {
  it("each call passes its fields on", async () => {
    const { client, fake } = await pair();
    const m = Maintenance.methods;
    const { asked } = recorder(fake)
      .on(m.status as never)
      .on(m.defragment as never)
      .on(m.hash as never)
      .on(m.hashKv as never)
      .on(m.alarm as never)
      .on(m.moveLeader as never);
    await client.maintenance.status();
    await client.maintenance.defragment();
    await client.maintenance.hash();
    await client.maintenance.hashKv({ revision: 4 });
    await client.maintenance.alarmList();
    await client.maintenance.alarmDisarm(9n, AlarmType.NoSpace);
    await client.maintenance.moveLeader(8n);
    expect(asked).toEqual([
      {},
      {},
      {},
      { revision: 4 },
      { action: AlarmAction.Get, memberId: 0n, alarm: AlarmType.None },
      { action: AlarmAction.Deactivate, memberId: 9n, alarm: AlarmType.NoSpace },
      { targetId: 8n },
    ]);
  });

  const snapshotOf = async (blobs: readonly Uint8Array[]): Promise<Buffer> => {
    const { client, fake } = await pair();
    fake.onStream(Maintenance.methods.snapshot, (stream) => {
      for (const blob of blobs) stream.send({ blob });
      stream.end();
    });
    const parts: Uint8Array[] = [];
    for await (const part of client.maintenance.snapshot()) parts.push(part);
    return Buffer.concat(parts);
  };
  const data = [Buffer.alloc(32768, 1), Buffer.from("tail")];
  const digest = createHash("sha256").update(Buffer.concat(data)).digest();

  it("snapshot() gives the database and its digest", async () => {
    expect(Buffer.compare(await snapshotOf([...data, digest]), Buffer.concat([...data, digest]))).toBe(0);
  });

  it.each([
    ["a wrong digest", [...data, Buffer.alloc(32)]],
    ["no digest", data],
    ["no tail", [data[0] as Buffer, digest]],
    ["nothing", []],
  ])("snapshot() with %s is data loss", async (_what, blobs) => {
    await expect(snapshotOf(blobs)).rejects.toMatchObject({ code: Code.DataLoss });
  });
});

describe("auth", () => {
  it("each call passes its fields on", async () => {
    const { client, fake } = await pair();
    const record = recorder(fake);
    for (const method of Object.values(Auth.methods)) record.on(method as never);
    const { auth } = client;
    await auth.userAdd("u", "pw");
    await auth.userAdd("v", "", { noPassword: true });
    await auth.userChangePassword("u", "pw2");
    await auth.roleAdd("r");
    await auth.roleGrantPermission("r", PermissionType.ReadWrite, "a", { prefix: true });
    await auth.roleRevokePermission("r", "a", { prefix: true });
    await auth.userGrantRole("u", "r");
    await auth.userRevokeRole("u", "r");
    await auth.authenticate("u", "pw2");
    expect(record.asked).toMatchObject([
      { name: "u", password: "pw", options: { noPassword: false } },
      { name: "v", password: "", options: { noPassword: true } },
      { name: "u", password: "pw2" },
      { name: "r" },
      { name: "r", perm: { permType: PermissionType.ReadWrite, key: bytes("a"), rangeEnd: bytes("b") } },
      { role: "r", key: bytes("a"), rangeEnd: bytes("b") },
      { user: "u", role: "r" },
      { name: "u", role: "r" },
      { name: "u", password: "pw2" },
    ]);
    record.asked.length = 0;
    await auth.enable();
    await auth.disable();
    await auth.status();
    await auth.userGet("u");
    await auth.userList();
    await auth.userDelete("u");
    await auth.roleGet("r");
    await auth.roleList();
    await auth.roleDelete("r");
    expect(record.asked).toEqual([{}, {}, {}, { name: "u" }, {}, { name: "u" }, { role: "r" }, {}, { role: "r" }]);
  });
});
