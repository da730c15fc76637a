import {
  EtcdError,
  Event,
  EventType,
  type Init,
  ResponseHeader,
  WatchRequest,
  WatchResponse,
} from "@etcd-ts/client/wire";
import { describe, expect, it } from "vitest";
import type { EtcdServer } from "../../etcdserver/index.ts";
import { VirtualClock } from "../../lib/clock.ts";
import { silentLogger } from "../../lib/log.ts";
import { SeededRandom } from "../../lib/random.ts";
import { type Deferred, deferred, yieldToEventLoop } from "../../lib/wait.ts";
import {
  type CallContext,
  canceledError,
  EncodedMessage,
  type ResponseSink,
  type StreamHandler,
} from "../../rpc/index.ts";
import { watchService } from "./watch.ts";

const text = (bytes: Uint8Array) => Buffer.from(bytes).toString("latin1");

/** A watch stream of the store that does what the test says. */
class FakeStream {
  readonly log: string[] = [];
  readonly queue: unknown[] = [];
  onReadable: (() => void) | undefined;
  nextId = 0n;
  isClosed = false;
  readonly live = new Set<bigint>();

  create(spec: {
    watchId: bigint;
    key: Uint8Array;
    rangeEnd: Uint8Array | undefined;
    startRevision: number;
    noPut: boolean;
    noDelete: boolean;
    prevKv: boolean;
  }): bigint {
    const end = spec.rangeEnd === undefined ? "single" : `"${text(spec.rangeEnd)}"`;
    this.log.push(`create ${JSON.stringify(text(spec.key))} ${end} from ${spec.startRevision}`);
    if (text(spec.key) === "bad") throw new Error("mvcc: watcher range is empty");
    const id = spec.watchId || this.nextId++;
    this.live.add(id);
    return id;
  }
  cancel(id: bigint): boolean {
    return this.live.delete(id);
  }
  requestProgress(id: bigint): void {
    this.log.push(`progress ${id}`);
  }
  requestProgressAll(): void {
    this.log.push("progress all");
  }
  take(): unknown {
    return this.queue.shift();
  }
  push(delivery: unknown): void {
    this.queue.push(delivery);
    this.onReadable?.();
  }
  close(): void {
    this.isClosed = true;
  }
}

function event(key: string, value = "", modRevision = 5) {
  const one = { type: EventType.Put, kv: { key: Buffer.from(key), value: Buffer.from(value), modRevision } };
  const bytes = Event.encode(one);
  const memory = WatchResponse.encode({ events: [one] });
  return { ...Event.decode(bytes), bytes, memory, from: 0, to: memory.length };
}

function setup({ messageBytesMax = 1 << 20, isSlow = false } = {}) {
  const stream = new FakeStream();
  const clock = new VirtualClock();
  const server = {
    watch: { newStream: () => stream },
    header: () => ResponseHeader.create({ clusterId: 1n, memberId: 2n, revision: 9, raftTerm: 3 }),
    checkWatchPermission(key: Uint8Array) {
      if (text(key) === "secret") throw new EtcdError("PermissionDenied");
    },
  } as unknown as EtcdServer;
  const service = watchService({
    server,
    clock,
    random: new SeededRandom(1),
    logger: silentLogger,
    limits: {
      maxTxnOps: 128,
      messageBytesMax,
      watchProgressNotifyIntervalMs: 1000,
      electionTimeoutMs: 1000,
      stopGrpcServiceOnDefrag: false,
    },
  });
  const requests: WatchRequest[] = [];
  let more: Deferred<void> = deferred();
  let isHalfClosed = false;
  const abort = new AbortController();
  async function* read(): AsyncGenerator<WatchRequest> {
    for (;;) {
      const next = requests.shift();
      if (next) yield next;
      else if (isHalfClosed) return;
      else {
        await more.promise;
        more = deferred();
      }
    }
  }
  const sent: WatchResponse[] = [];
  let drained = deferred();
  const out: ResponseSink<Init<WatchResponse>> = {
    write(message) {
      const bytes =
        message instanceof EncodedMessage ? Buffer.concat([...message.pieces]) : WatchResponse.encode(message);
      sent.push(WatchResponse.decode(bytes));
      return !isSlow;
    },
    drained: () => drained.promise,
    flushHeaders() {},
  };
  const call = {
    path: "",
    kind: "bidi",
    metadata: { get: () => undefined, getAll: () => [] },
    peer: { address: "x", isTls: false, commonName: undefined },
    signal: abort.signal,
    deadlineMs: undefined,
  } satisfies CallContext;
  const running = (service.handlers["watch"] as StreamHandler<never>)(read() as never, out as never, call);
  const outcome = running.then(
    () => "ended",
    (error: Error) => error.message,
  );
  return {
    stream,
    clock,
    sent,
    outcome,
    abort: () => abort.abort(canceledError()),
    async request(union: Init<WatchRequest>["requestUnion"]) {
      requests.push(WatchRequest.create({ requestUnion: union }));
      more.resolve();
      await yieldToEventLoop();
    },
    async halfClose() {
      isHalfClosed = true;
      more.resolve();
      await yieldToEventLoop();
    },
    async drain() {
      drained.resolve();
      drained = deferred();
      await yieldToEventLoop();
    },
  };
}

const create = (key: string, more = {}) => ({
  kind: "createRequest" as const,
  value: { key: Buffer.from(key, "latin1"), ...more },
});

describe("the watch handler", () => {
  it("answers a create with the store's revision, then sends events with theirs", async () => {
    const watch = setup();
    await watch.request(create("a", { startRevision: 4 }));
    watch.stream.push({ watchId: 0n, revision: 5, compactRevision: 0, events: [event("a", "1"), event("b", "2")] });
    await yieldToEventLoop();
    expect(watch.sent).toMatchObject([
      {
        watchId: 0n,
        created: true,
        canceled: false,
        header: { revision: 9, clusterId: 1n, memberId: 2n, raftTerm: 3 },
      },
      { watchId: 0n, created: false, header: { revision: 5 } },
    ]);
    expect(watch.sent[1]?.events.map(({ kv }) => text(kv?.key ?? Buffer.alloc(0)))).toEqual(["a", "b"]);
    expect(watch.stream.log).toEqual(['create "a" single from 4']);
  });

  it("takes the smallest key for the empty one, and \\0 as the end of all keys", async () => {
    const watch = setup();
    await watch.request(create(""));
    await watch.request(create("a", { rangeEnd: Buffer.alloc(1) }));
    await watch.request(create("a", { rangeEnd: Buffer.from("b") }));
    expect(watch.stream.log).toEqual([
      'create "\\u0000" single from 0',
      'create "a" "" from 0',
      'create "a" "b" from 0',
    ]);
  });

  it("refuses with the store's reason, or with the printed form of a missing permission", async () => {
    const watch = setup();
    await watch.request(create("bad"));
    await watch.request(create("secret"));
    expect(watch.sent).toMatchObject([
      { watchId: -1n, created: true, canceled: true, cancelReason: "mvcc: watcher range is empty" },
      {
        watchId: -1n,
        created: true,
        canceled: true,
        cancelReason: "rpc error: code = PermissionDenied desc = etcdserver: permission denied",
      },
    ]);
  });

  it("answers the cancel of a live watcher, and is silent for an unknown one", async () => {
    const watch = setup();
    await watch.request(create("a"));
    await watch.request({ kind: "cancelRequest", value: { watchId: 7n } });
    await watch.request({ kind: "cancelRequest", value: { watchId: 0n } });
    await watch.request({ kind: "cancelRequest", value: { watchId: 0n } });
    expect(watch.sent.slice(1)).toMatchObject([
      { watchId: 0n, canceled: true, created: false, header: { revision: 9 } },
    ]);
  });

  it("tells of compaction with revision 0 and no reason", async () => {
    const watch = setup();
    await watch.request(create("a", { startRevision: 2 }));
    watch.stream.push({ watchId: 0n, revision: 0, compactRevision: 6, events: [] });
    await yieldToEventLoop();
    expect(watch.sent[1]).toMatchObject({
      watchId: 0n,
      canceled: true,
      compactRevision: 6,
      cancelReason: "",
      header: { revision: 0 },
    });
  });

  it("cuts a large response into marked parts, and leaves one large event whole", async () => {
    const watch = setup({ messageBytesMax: 300 });
    await watch.request(create("a", { fragment: true }));
    const events = ["a", "b", "c", "d"].map((key) => event(key, "x".repeat(100)));
    watch.stream.push({ watchId: 0n, revision: 5, compactRevision: 0, events });
    watch.stream.push({ watchId: 0n, revision: 6, compactRevision: 0, events: [event("e", "x".repeat(900))] });
    await yieldToEventLoop();
    expect(watch.sent.slice(1).map((part) => [part.events.length, part.fragment])).toEqual([
      [2, true],
      [2, false],
      [1, false],
    ]);
  });

  it("does not cut for a watcher that did not ask for it", async () => {
    const watch = setup({ messageBytesMax: 100 });
    await watch.request(create("a"));
    watch.stream.push({
      watchId: 0n,
      revision: 5,
      compactRevision: 0,
      events: [event("a", "x".repeat(99)), event("b")],
    });
    await yieldToEventLoop();
    expect(watch.sent[1]?.events.length).toBe(2);
  });

  it("stops taking from the outbox while the caller does not read", async () => {
    const watch = setup({ isSlow: true });
    await watch.request(create("a"));
    for (let i = 0; i < 3; i++) {
      watch.stream.push({ watchId: 0n, revision: 5 + i, compactRevision: 0, events: [event("a")] });
    }
    await yieldToEventLoop();
    expect(watch.stream.queue.length).toBe(2);
    await watch.drain();
    expect(watch.stream.queue.length).toBe(1);
  });

  it("ticks progress only for quiet watchers that want it", async () => {
    const watch = setup();
    await watch.request(create("a", { progressNotify: true }));
    await watch.request(create("b", { progressNotify: true }));
    await watch.request(create("c"));
    watch.stream.log.length = 0;
    watch.stream.push({ watchId: 1n, revision: 5, compactRevision: 0, events: [event("b")] });
    await yieldToEventLoop();
    watch.clock.advance(1100);
    expect(watch.stream.log).toEqual(["progress 0"]);
    watch.clock.advance(1100);
    expect(watch.stream.log).toEqual(["progress 0", "progress 0", "progress 1"]);
    watch.stream.push({ watchId: 0n, revision: 9, compactRevision: 0, events: [] });
    await yieldToEventLoop();
    expect(watch.sent.at(-1)).toMatchObject({ watchId: 0n, created: false, canceled: false, events: [] });
  });

  it("passes a manual progress request on", async () => {
    const watch = setup();
    await watch.request({ kind: "progressRequest", value: {} });
    expect(watch.stream.log).toEqual(["progress all"]);
  });

  it("goes on after the caller half-closed, and ends with the call", async () => {
    const watch = setup();
    await watch.request(create("a"));
    await watch.halfClose();
    watch.stream.push({ watchId: 0n, revision: 5, compactRevision: 0, events: [event("a")] });
    await yieldToEventLoop();
    expect(watch.sent.length).toBe(2);
    watch.abort();
    expect(await watch.outcome).toBe("context canceled");
    expect(watch.stream.isClosed).toBe(true);
  });
});
