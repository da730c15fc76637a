import { afterEach, describe, expect, it } from "vitest";
import { type Client, connect, toText, Watcher, watchInit, type WatchOptions } from "./index.ts";
import { FakeServer, type FakeStream } from "./testing/fake-server.ts";
import {
  Auth,
  Code,
  EtcdError,
  type Event,
  EventType,
  type Init,
  Watch,
  type WatchCreateRequest,
  type WatchRequest,
  type WatchResponse,
} from "./wire/index.ts";

const opened: AsyncDisposable[] = [];

afterEach(async () => {
  for (const each of opened.splice(0).reverse()) await each[Symbol.asyncDispose]();
});

type Stream = FakeStream<WatchRequest, WatchResponse>;

/** A watch server of one key range: each script gets the stream and the create requests as they come. */
async function scripted(
  scripts: readonly ((stream: Stream, create: WatchCreateRequest, index: number) => void)[],
  options: { username?: string; password?: string } = {},
): Promise<{ client: Client; fake: FakeServer; creates: WatchCreateRequest[] }> {
  const fake = await FakeServer.start();
  const creates: WatchCreateRequest[] = [];
  let opens = 0;
  fake.onStream(Watch.methods.watch, (stream) => {
    const script = scripts[opens++];
    let index = 0;
    stream.onRequest(({ requestUnion }) => {
      if (requestUnion?.kind !== "createRequest") return;
      creates.push(requestUnion.value);
      script?.(stream, requestUnion.value, index++);
    });
  });
  fake.on(Auth.methods.authenticate, () => ({ token: `token.${opens}` }));
  opened.push(fake);
  const client = await connect({ endpoints: [fake.endpoint], ...options });
  opened.push(client);
  return { client, fake, creates };
}

const put = (revision: number, value = `v${revision}`): Init<Event> => ({
  kv: { key: Buffer.from("k"), modRevision: revision, value: Buffer.from(value) },
});

const created = (stream: Stream, watchId = 0n, revision = 1): void =>
  stream.send({ header: { revision }, watchId, created: true });

const events = (stream: Stream, watchId: bigint, ...list: Init<Event>[]): void =>
  stream.send({ header: { revision: list.at(-1)?.kv?.modRevision ?? 0 }, watchId, events: list });

/** What a watcher hands out, as short words; ends after `count` answers. */
async function take(watcher: Watcher, count: number): Promise<string[]> {
  const out: string[] = [];
  for await (const response of watcher) {
    const words = response.events.map(
      (e) => `${e.type === EventType.Put ? "put" : "del"}@${e.kv?.modRevision}${e.kv ? `=${toText(e.kv.value)}` : ""}`,
    );
    if (response.created) words.unshift("created");
    if (response.canceled) words.unshift(`canceled(${response.compactRevision},${response.cancelReason})`);
    out.push(`w${response.watchId} ${words.length > 0 ? words.join(" ") : `progress@${response.header?.revision}`}`);
    if (out.length === count) break;
  }
  return out;
}

const watchK = (client: Client, init: Init<WatchCreateRequest> = {}, options: WatchOptions = {}) =>
  client.watch({ key: Buffer.from("k"), ...init }, options);

describe("watch()", () => {
  it("hands out events in order, and the created answer when asked to", async () => {
    const { client, creates } = await scripted([
      (stream) => {
        created(stream);
        events(stream, 0n, put(2));
        events(stream, 0n, put(3), put(4));
      },
    ]);
    expect(await take(watchK(client, {}, { createdNotify: true }), 3)).toEqual([
      "w0 created",
      "w0 put@2=v2",
      "w0 put@3=v3 put@4=v4",
    ]);
    expect(creates).toHaveLength(1);
  });

  it("goes on after a broken stream without losing or repeating a revision", async () => {
    const breaks: unknown[] = [];
    const { client, creates } = await scripted([
      (stream) => {
        created(stream);
        events(stream, 0n, put(2));
        events(stream, 0n, put(3));
        stream.end(new EtcdError("Stopped"));
      },
      (stream) => {
        created(stream, 0n, 5);
        // A server may begin below what was asked for; what is known is not repeated.
        events(stream, 0n, put(3), put(4));
        events(stream, 0n, put(5));
      },
    ]);
    const watcher = watchK(client, { startRevision: 2 }, { onReconnect: (error) => breaks.push(error) });
    expect(await take(watcher, 4)).toEqual(["w0 put@2=v2", "w0 put@3=v3", "w0 put@4=v4", "w0 put@5=v5"]);
    expect(creates.map((create) => create.startRevision)).toEqual([2, 4]);
    expect(breaks).toMatchObject([{ kind: "Stopped" }]);
  });

  it('"from now on" still means that moment after a reconnect', async () => {
    const { client, creates } = await scripted([
      (stream) => {
        created(stream, 0n, 41);
        stream.end(new EtcdError("Stopped"));
      },
      (stream) => {
        created(stream, 0n, 50);
        events(stream, 0n, put(42));
      },
    ]);
    expect(await take(watchK(client), 1)).toEqual(["w0 put@42=v42"]);
    expect(creates.map((create) => create.startRevision)).toEqual([0, 42]);
  });

  it("a server that ends the stream with OK is a broken one", async () => {
    const { client } = await scripted([
      (stream) => {
        created(stream);
        stream.end();
      },
      (stream) => {
        created(stream);
        events(stream, 0n, put(2));
      },
    ]);
    expect(await take(watchK(client), 1)).toEqual(["w0 put@2=v2"]);
  });

  it("survives a server that dies and comes back", async () => {
    const { client, fake } = await scripted([
      (stream) => {
        created(stream);
        events(stream, 0n, put(2));
      },
    ]);
    const watcher = watchK(client);
    const iterator = watcher[Symbol.asyncIterator]();
    expect((await iterator.next()).value?.events[0]?.kv?.modRevision).toBe(2);
    const next = iterator.next();
    await fake.stop();
    const again = await FakeServer.start(fake.port);
    opened.push(again);
    again.onStream(Watch.methods.watch, (stream) => {
      stream.onRequest(({ requestUnion }) => {
        expect(requestUnion).toMatchObject({ kind: "createRequest", value: { startRevision: 3 } });
        created(stream);
        events(stream, 0n, put(3));
      });
    });
    expect((await next).value?.events[0]?.kv?.modRevision).toBe(3);
    await iterator.return?.();
  });

  it("puts the parts of a divided answer together", async () => {
    const part = (stream: Stream, fragment: boolean, ...list: Init<Event>[]) =>
      stream.send({ header: { revision: 3 }, watchId: 0n, fragment, events: list });
    const { client } = await scripted([
      (stream) => {
        created(stream);
        part(stream, true, put(2));
        part(stream, true, put(2, "b"));
        part(stream, false, put(3));
      },
    ]);
    expect(await take(watchK(client, { fragment: true, startRevision: 1 }), 1)).toEqual([
      "w0 put@2=v2 put@2=b put@3=v3",
    ]);
  });

  it("asks for a divided answer again when the stream breaks in the middle of it", async () => {
    const { client, creates } = await scripted([
      (stream) => {
        created(stream);
        stream.send({ header: { revision: 3 }, watchId: 0n, fragment: true, events: [put(2)] });
        stream.end(new EtcdError("Stopped"));
      },
      (stream) => {
        created(stream);
        events(stream, 0n, put(2), put(3));
      },
    ]);
    expect(await take(watchK(client, { startRevision: 2 }), 1)).toEqual(["w0 put@2=v2 put@3=v3"]);
    expect(creates.map((create) => create.startRevision)).toEqual([2, 2]);
  });

  it("tells of compaction and ends", async () => {
    const { client } = await scripted([
      (stream) => {
        created(stream);
        stream.send({ watchId: 0n, canceled: true, compactRevision: 10 });
      },
    ]);
    expect(await take(watchK(client, { startRevision: 1 }), 99)).toEqual(["w0 canceled(10,)"]);
  });

  it("hands out a refused creation and ends", async () => {
    const { client } = await scripted([
      (stream) => stream.send({ watchId: -1n, created: true, canceled: true, cancelReason: "no" }),
    ]);
    expect(await take(watchK(client), 99)).toEqual(["w-1 canceled(0,no) created"]);
  });

  it("a progress answer moves the place to go on from", async () => {
    const { client, creates } = await scripted([
      (stream) => {
        created(stream);
        stream.send({ header: { revision: 20 }, watchId: 0n });
        stream.end(new EtcdError("Stopped"));
      },
      (stream) => {
        created(stream);
        events(stream, 0n, put(21));
      },
    ]);
    expect(await take(watchK(client), 2)).toEqual(["w0 progress@20", "w0 put@21=v21"]);
    expect(creates.map((create) => create.startRevision)).toEqual([0, 21]);
  });

  it("several ranges share a stream; each keeps its id and its place over a reconnect", async () => {
    const { client, creates } = await scripted([
      (stream, _create, index) => {
        created(stream, BigInt(index));
        if (index !== 1) return;
        events(stream, 1n, put(5));
        events(stream, 0n, put(4));
        stream.end(new EtcdError("Stopped"));
      },
      (stream, _create, index) => {
        // The server numbers them the other way round this time.
        created(stream, BigInt(1 - index));
        if (index !== 1) return;
        events(stream, 1n, put(6));
        events(stream, 0n, put(7));
      },
    ]);
    const both = client.watch([watchInit("a", { startRevision: 2 }), watchInit("b", { startRevision: 3 })]);
    expect(await take(both, 4)).toEqual(["w1 put@5=v5", "w0 put@4=v4", "w0 put@6=v6", "w1 put@7=v7"]);
    expect(creates.map((create) => [toText(create.key), create.startRevision])).toEqual([
      ["a", 2],
      ["b", 3],
      ["a", 5],
      ["b", 6],
    ]);
  });

  it("cancel() and requestProgress() speak to the server", async () => {
    const fake = await FakeServer.start();
    opened.push(fake);
    fake.onStream(Watch.methods.watch, (stream) => {
      stream.onRequest(({ requestUnion }) => {
        if (requestUnion?.kind === "createRequest") created(stream, 7n);
        if (requestUnion?.kind === "progressRequest") stream.send({ header: { revision: 9 }, watchId: -1n });
        if (requestUnion?.kind === "cancelRequest")
          stream.send({ watchId: requestUnion.value.watchId, canceled: true });
      });
    });
    const client = await connect({ endpoints: [fake.endpoint] });
    opened.push(client);
    const watcher = watchK(client, {}, { createdNotify: true });
    const seen: string[] = [];
    for await (const { watchId, created: isCreated, canceled, header } of watcher) {
      if (isCreated) watcher.requestProgress();
      else if (!canceled) {
        seen.push(`progress ${watchId} ${header?.revision}`);
        watcher.cancel(7n);
      } else seen.push(`canceled ${watchId}`);
    }
    expect(seen).toEqual(["progress -1 9", "canceled 7"]);
  });

  it("close() ends the loop without an error, an aborted signal with its reason", async () => {
    const { client } = await scripted([(stream) => created(stream), (stream) => created(stream)]);
    const watcher = watchK(client, {}, { createdNotify: true });
    for await (const _ of watcher) watcher.close();
    const abort = new AbortController();
    const reason = new Error("enough");
    const aborted = (async () => {
      for await (const _ of watchK(client, {}, { createdNotify: true, signal: abort.signal })) abort.abort(reason);
    })();
    await expect(aborted).rejects.toBe(reason);
  });

  it("throws what another stream would not mend", async () => {
    const { client } = await scripted([(stream) => stream.end(new EtcdError("PermissionDenied"))]);
    await expect(take(watchK(client), 1)).rejects.toMatchObject({ kind: "PermissionDenied" });
  });

  it("with requireLeader it throws when the member has lost its leader", async () => {
    const { client } = await scripted([(stream) => stream.end(new EtcdError("NoLeader"))]);
    await expect(take(watchK(client, {}, { requireLeader: true }), 1)).rejects.toMatchObject({ kind: "NoLeader" });
  });

  it("logs in again when the token has run out", async () => {
    const tokens: (string | undefined)[] = [];
    const { client } = await scripted(
      [
        (stream) => {
          tokens.push(stream.metadata.get("token"));
          const cancelReason = "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token";
          stream.send({ watchId: -1n, created: true, canceled: true, cancelReason });
        },
        (stream) => {
          tokens.push(stream.metadata.get("token"));
          created(stream);
          events(stream, 0n, put(2));
        },
      ],
      { username: "u", password: "p" },
    );
    expect(await take(watchK(client), 1)).toEqual(["w0 put@2=v2"]);
    expect(tokens).toEqual(["token.0", "token.1"]);
  });

  it("ends with Canceled when the client is closed", async () => {
    const { client } = await scripted([(stream) => created(stream)]);
    const run = (async () => {
      for await (const _ of watchK(client, {}, { createdNotify: true })) client.close();
    })();
    await expect(run).rejects.toMatchObject({ code: Code.Canceled });
  });

  it("is iterated once", async () => {
    const { client } = await scripted([(stream) => created(stream)]);
    const watcher = watchK(client);
    watcher[Symbol.asyncIterator]();
    expect(() => watcher[Symbol.asyncIterator]()).toThrow("once");
    expect(watcher).toBeInstanceOf(Watcher);
  });
});
