/**
 * The recipes on a model of a store: a list of keys with revisions, leases and watchers, all in one process and in
 * order. test/e2e/client.test.ts runs them on real servers.
 */
import { setImmediate as turn } from "node:timers/promises";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { CallOptions, MethodOf } from "../index.ts";
import { toText } from "../index.ts";
import {
  type DeleteRangeRequest,
  EtcdError,
  type Event,
  EventType,
  type Init,
  type KeyValue,
  KeyValue as KeyValueCodec,
  KV,
  Lease,
  type LeaseGrantRequest,
  type LeaseRevokeRequest,
  type RangeRequest,
  type RequestOp,
  SortOrder,
  type TxnRequest,
  type WatchCreateRequest,
  type WatchResponse,
  WatchResponse as WatchResponseCodec,
} from "../wire/index.ts";
import { Election, Mutex, Session, type SessionClient } from "./index.ts";

class Model implements SessionClient {
  revision = 1;
  readonly #keys = new Map<string, KeyValue>();
  readonly #history: Event[] = [];
  readonly #leases = new Map<bigint, AbortController>();
  readonly #waiting = new Set<() => void>();
  #nextLease = 0x10n;
  /** Called before each request with its path; what it throws is the answer. */
  before: (path: string) => void = () => {};

  readonly lease = {
    keepAlive: (id: bigint, options: { signal?: AbortSignal | undefined } = {}) => this.#keepAlive(id, options.signal),
  };

  keys(): string[] {
    return [...this.#keys.keys()].sort();
  }

  async *#keepAlive(id: bigint, signal: AbortSignal | undefined): AsyncGenerator<bigint, void, void> {
    const lease = this.#leases.get(id);
    if (!lease) return;
    const end = AbortSignal.any(signal ? [lease.signal, signal] : [lease.signal]);
    yield id;
    if (!end.aborted) await new Promise((resolve) => end.addEventListener("abort", resolve, { once: true }));
  }

  expire(id: bigint): void {
    this.#leases.get(id)?.abort();
    this.#leases.delete(id);
    const keys = [...this.#keys.values()].filter((kv) => kv.lease === id);
    if (keys.length === 0) return;
    this.#write(() => {
      for (const kv of keys) this.#delete(kv);
    });
  }

  #write(change: () => void): void {
    this.revision++;
    change();
    for (const wake of this.#waiting) wake();
  }

  #delete(kv: KeyValue): void {
    this.#keys.delete(toText(kv.key));
    this.#history.push({
      type: EventType.Delete,
      kv: KeyValueCodec.create({ key: kv.key, modRevision: this.revision }),
      prevKv: undefined,
    });
  }

  #put(key: Uint8Array, value: Uint8Array, lease: bigint): void {
    if (lease !== 0n && !this.#leases.has(lease)) throw new EtcdError("LeaseNotFound");
    const old = this.#keys.get(toText(key));
    const createRevision = old?.createRevision ?? this.revision;
    const version = (old?.version ?? 0) + 1;
    const kv = { key, value, lease, createRevision, modRevision: this.revision, version };
    this.#keys.set(toText(key), kv);
    this.#history.push({ type: EventType.Put, kv, prevKv: undefined });
  }

  static isIn(key: Uint8Array, from: Uint8Array, end: Uint8Array): boolean {
    if (end.length === 0) return Buffer.compare(key, from) === 0;
    return Buffer.compare(key, from) >= 0 && Buffer.compare(key, end) < 0;
  }

  #range(request: Init<RangeRequest>) {
    const {
      key = new Uint8Array(),
      rangeEnd = new Uint8Array(),
      limit = 0,
      sortOrder,
      maxCreateRevision = 0,
    } = request;
    const found = [...this.#keys.values()]
      .filter((kv) => Model.isIn(kv.key, key, rangeEnd))
      .filter((kv) => maxCreateRevision === 0 || kv.createRevision <= maxCreateRevision)
      .sort((a, b) => (a.createRevision - b.createRevision) * (sortOrder === SortOrder.Descend ? -1 : 1));
    return { header: { revision: this.revision }, kvs: limit > 0 ? found.slice(0, limit) : found };
  }

  #operate(op: Init<RequestOp>) {
    switch (op.request?.kind) {
      case "requestPut": {
        const { key, value, lease } = op.request.value;
        this.#put(key as Uint8Array, value as Uint8Array, lease ?? 0n);
        return { response: { kind: "responsePut", value: {} } } as const;
      }
      case "requestDeleteRange": {
        const kv = this.#keys.get(toText(op.request.value.key as Uint8Array));
        if (kv) this.#delete(kv);
        return { response: { kind: "responseDeleteRange", value: {} } } as const;
      }
      default:
        return {
          response: { kind: "responseRange", value: this.#range(op.request?.value as Init<RangeRequest>) },
        } as const;
    }
  }

  #txn({ compare = [], success = [], failure = [] }: Init<TxnRequest>) {
    const succeeded = compare.every(({ key, targetUnion }) => {
      const created = this.#keys.get(toText(key as Uint8Array))?.createRevision ?? 0;
      return created === targetUnion?.value;
    });
    const branch = succeeded ? success : failure;
    const writes = branch.some((op) => op.request?.kind !== "requestRange");
    let responses: unknown[] = [];
    const run = () => {
      responses = branch.map((op) => this.#operate(op));
    };
    if (writes) this.#write(run);
    else run();
    return { header: { revision: this.revision }, succeeded, responses };
  }

  async call<Request, Response>(
    method: MethodOf<Request, Response>,
    request: Request,
    options: CallOptions = {},
  ): Promise<Response> {
    await turn();
    options.signal?.throwIfAborted();
    this.before(method.path);
    return this.#answer(method.path, request) as Response;
  }

  #answer(path: string, request: unknown): unknown {
    switch (path) {
      case KV.methods.range.path:
        return this.#range(request as Init<RangeRequest>);
      case KV.methods.txn.path:
        return this.#txn(request as Init<TxnRequest>);
      case KV.methods.deleteRange.path: {
        const kv = this.#keys.get(toText((request as Init<DeleteRangeRequest>).key as Uint8Array));
        if (kv) this.#write(() => this.#delete(kv));
        return { deleted: kv ? 1 : 0 };
      }
      case Lease.methods.leaseGrant.path: {
        const id = this.#nextLease++;
        this.#leases.set(id, new AbortController());
        return { id, ttl: (request as Init<LeaseGrantRequest>).ttl };
      }
      case Lease.methods.leaseRevoke.path: {
        const { id = 0n } = request as Init<LeaseRevokeRequest>;
        if (!this.#leases.has(id)) throw new EtcdError("LeaseNotFound");
        this.expire(id);
        return {};
      }
      default:
        throw new Error(path);
    }
  }

  async *watch(
    { key = new Uint8Array(), rangeEnd = new Uint8Array(), startRevision = 0 }: Init<WatchCreateRequest>,
    { signal }: { readonly signal?: AbortSignal | undefined } = {},
  ): AsyncGenerator<WatchResponse, void, void> {
    let at = this.#history.findIndex((event) => (event.kv?.modRevision ?? 0) >= startRevision);
    if (at < 0) at = this.#history.length;
    for (;;) {
      signal?.throwIfAborted();
      const event = this.#history[at];
      if (event === undefined) {
        await new Promise<void>((resolve) => {
          const wake = () => {
            this.#waiting.delete(wake);
            resolve();
          };
          this.#waiting.add(wake);
          signal?.addEventListener("abort", wake, { once: true });
        });
        continue;
      }
      at++;
      if (event.kv && Model.isIn(event.kv.key, key, rangeEnd)) {
        yield WatchResponseCodec.create({ header: { revision: event.kv.modRevision }, events: [event] });
      }
    }
  }
}

/** Lets everything that can run do so. */
async function settle(): Promise<void> {
  for (let i = 0; i < 20; i++) await turn();
}

/** A promise with its state readable. */
function watched<T>(promise: Promise<T>): { promise: Promise<T>; isDone(): boolean } {
  let done = false;
  promise.then(
    () => {
      done = true;
    },
    () => {
      done = true;
    },
  );
  return { promise, isDone: () => done };
}

describe("Session", () => {
  it("grants a lease, and closing it revokes it", async () => {
    const store = new Model();
    const session = await Session.open(store, { ttlSeconds: 5 });
    expect([session.leaseId, session.ttlSeconds, session.isLost]).toEqual([0x10n, 5, false]);
    await session.close();
    expect(session.isLost).toBe(true);
    await expect(store.call(Lease.methods.leaseRevoke, { id: session.leaseId })).rejects.toThrow("not found");
  });

  it("is lost when the lease expires; closing it then is no error", async () => {
    const store = new Model();
    const session = await Session.open(store);
    store.expire(session.leaseId);
    await session.lost;
    await session.close();
  });

  it("orphan() stops keeping the lease alive and leaves it be", async () => {
    const store = new Model();
    const session = await Session.open(store);
    await session.orphan();
    expect(session.isLost).toBe(true);
    await store.call(Lease.methods.leaseRevoke, { id: session.leaseId });
  });
});

describe("Mutex", () => {
  it("keys are NAME/LEASE in hex", async () => {
    const store = new Model();
    const mutex = new Mutex(await Session.open(store), "jobs");
    await mutex.lock();
    expect(store.keys()).toEqual(["jobs/10"]);
    expect([toText(mutex.key ?? new Uint8Array()), mutex.createRevision]).toEqual(["jobs/10", 2]);
    await mutex.unlock();
    expect(store.keys()).toEqual([]);
    expect(mutex.key).toBeUndefined();
  });

  it("negative leases print as Go prints them", async () => {
    const store = new Model();
    const mutex = new Mutex({ client: store, leaseId: -1n }, "jobs");
    await expect(mutex.lock()).rejects.toMatchObject({ kind: "LeaseNotFound" });
    expect(mutex.key).toBeUndefined();
  });

  it("is given in the order of asking, one at a time", async () => {
    const store = new Model();
    const mutexes = await Promise.all([1, 2, 3].map(async () => new Mutex(await Session.open(store), "jobs")));
    const [first, second, third] = mutexes as [Mutex, Mutex, Mutex];
    await first.lock();
    const two = watched(second.lock());
    await settle();
    const three = watched(third.lock());
    await settle();
    expect([two.isDone(), three.isDone()]).toEqual([false, false]);
    await first.unlock();
    await two.promise;
    expect(three.isDone()).toBe(false);
    await second.unlock();
    await three.promise;
  });

  it("passes on when the owner's session dies, and when a waiter in the middle does", async () => {
    const store = new Model();
    const sessions = await Promise.all([1, 2, 3].map(() => Session.open(store)));
    const [a, b, c] = sessions.map((session) => new Mutex(session, "jobs")) as [Mutex, Mutex, Mutex];
    await a.lock();
    const second = watched(b.lock());
    await settle();
    const third = watched(c.lock());
    await settle();
    store.expire(sessions[1]?.leaseId as bigint);
    await settle();
    expect(third.isDone()).toBe(false);
    store.expire(sessions[0]?.leaseId as bigint);
    await third.promise;
    await expect(second.promise).rejects.toMatchObject({ kind: "SessionExpired" });
  });

  it("giving up the wait deletes the key and throws the signal's reason", async () => {
    const store = new Model();
    const [first, second] = [new Mutex(await Session.open(store), "j"), new Mutex(await Session.open(store), "j")];
    await first.lock();
    const abort = new AbortController();
    const waits = watched(second.lock({ signal: abort.signal }));
    await settle();
    expect(store.keys()).toEqual(["j/10", "j/11"]);
    const reason = new Error("enough");
    abort.abort(reason);
    await expect(waits.promise).rejects.toBe(reason);
    expect(store.keys()).toEqual(["j/10"]);
  });

  it("locking twice with one session is one lock", async () => {
    const store = new Model();
    const session = await Session.open(store);
    await new Mutex(session, "j").lock();
    const again = new Mutex(session, "j");
    await again.lock();
    expect(again.createRevision).toBe(2);
  });

  it("tryLock() takes a free lock and refuses a held one without leaving a key", async () => {
    const store = new Model();
    const [first, second] = [new Mutex(await Session.open(store), "j"), new Mutex(await Session.open(store), "j")];
    await first.tryLock();
    await expect(second.tryLock()).rejects.toMatchObject({ kind: "Locked" });
    expect(store.keys()).toEqual(["j/10"]);
  });

  it("isOwner() is a condition that holds for the owner alone", async () => {
    const store = new Model();
    const [first, second] = [new Mutex(await Session.open(store), "j"), new Mutex(await Session.open(store), "j")];
    await first.lock();
    const holds = async (mutex: Mutex) => (await store.call(KV.methods.txn, { compare: [mutex.isOwner()] })).succeeded;
    expect([await holds(first), await holds(second)]).toEqual([true, false]);
    await first.unlock();
    expect(await holds(first)).toBe(false);
  });

  it("no two hold it at once, whatever the order of asking, releasing and dying", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat(3), fc.constantFrom("lock", "unlock", "die")), { maxLength: 30 }),
        async (steps) => {
          const store = new Model();
          const clients = await Promise.all([0, 1, 2, 3].map(() => Session.open(store)));
          const mutexes = clients.map((session) => new Mutex(session, "j"));
          const holding = new Set<number>();
          const busy = new Set<number>();
          const dead = new Set<number>();
          for (const [who, what] of steps) {
            const mutex = mutexes[who] as Mutex;
            if (what === "lock" && !busy.has(who) && !dead.has(who)) {
              busy.add(who);
              mutex.lock().then(
                () => {
                  if (!dead.has(who)) holding.add(who);
                },
                () => {},
              );
            } else if (what === "unlock" && holding.has(who)) {
              holding.delete(who);
              busy.delete(who);
              await mutex.unlock();
            } else if (what === "die") {
              dead.add(who);
              holding.delete(who);
              store.expire((clients[who] as Session).leaseId);
            }
            await settle();
            expect(holding.size).toBeLessThanOrEqual(1);
            const alive = [...busy].filter((each) => !dead.has(each));
            if (alive.length > 0) expect(holding.size).toBe(1);
          }
        },
      ),
      { numRuns: 60 },
    );
  });
});

describe("Election", () => {
  it("elects one, and the next when it resigns", async () => {
    const store = new Model();
    const [a, b] = [new Election(await Session.open(store), "e"), new Election(await Session.open(store), "e")];
    await a.campaign("A");
    const second = watched(b.campaign("B"));
    await settle();
    expect(second.isDone()).toBe(false);
    expect(toText((await b.leader()).kv.value)).toBe("A");
    await a.resign();
    await second.promise;
    expect(toText((await a.leader()).kv.value)).toBe("B");
    expect([a.key, toText(b.key ?? new Uint8Array()), b.createRevision]).toEqual([undefined, "e/11", 3]);
  });

  it("without a candidate there is no leader", async () => {
    const election = new Election(await Session.open(new Model()), "e");
    await expect(election.leader()).rejects.toMatchObject({ kind: "ElectionNoLeader" });
    await expect(election.proclaim("x")).rejects.toMatchObject({ kind: "ElectionNotLeader" });
    await election.resign();
  });

  it("campaigning again with the same lease keeps the place and changes the value", async () => {
    const store = new Model();
    const session = await Session.open(store);
    await new Election(session, "e").campaign("old");
    const again = new Election(session, "e");
    await again.campaign("new");
    expect(again.createRevision).toBe(2);
    expect(toText((await again.leader()).kv.value)).toBe("new");
  });

  it("proclaim() changes the value while leading, and says so when it no longer does", async () => {
    const store = new Model();
    const session = await Session.open(store);
    const election = new Election(session, "e");
    await election.campaign("a");
    await election.proclaim("b");
    expect(toText((await election.leader()).kv.value)).toBe("b");
    store.expire(session.leaseId);
    await expect(election.proclaim("c")).rejects.toMatchObject({ kind: "ElectionNotLeader" });
  });

  it("a candidacy can be resumed by its key and revision", async () => {
    const store = new Model();
    const session = await Session.open(store);
    const first = new Election(session, "e");
    await first.campaign("a");
    const resumed = new Election(session, "e", {
      key: first.key as Uint8Array,
      createRevision: first.createRevision,
    });
    await resumed.proclaim("b");
    await resumed.resign();
    expect(store.keys()).toEqual([]);
  });

  it("giving up a campaign resigns", async () => {
    const store = new Model();
    const [a, b] = [new Election(await Session.open(store), "e"), new Election(await Session.open(store), "e")];
    await a.campaign("A");
    const abort = new AbortController();
    const waits = watched(b.campaign("B", { signal: abort.signal }));
    await settle();
    const reason = new Error("enough");
    abort.abort(reason);
    await expect(waits.promise).rejects.toBe(reason);
    expect(store.keys()).toEqual(["e/10"]);
    expect(b.key).toBeUndefined();
  });

  it("observe() waits for a leader, then tells of each new value and each new leader", async () => {
    const store = new Model();
    const [a, b] = [new Election(await Session.open(store), "e"), new Election(await Session.open(store), "e")];
    const seen: string[] = [];
    const abort = new AbortController();
    const observing = (async () => {
      for await (const { kv, header } of a.observe({ signal: abort.signal })) {
        seen.push(`${toText(kv.key)}=${toText(kv.value)}@${header?.revision}`);
      }
    })();
    await settle();
    expect(seen).toEqual([]);
    await a.campaign("A");
    await a.proclaim("A2");
    await settle();
    const second = b.campaign("B");
    await settle();
    await a.resign();
    await second;
    await settle();
    expect(seen).toEqual(["e/10=A@2", "e/10=A2@3", "e/11=B@5"]);
    abort.abort(new Error("enough"));
    await expect(observing).rejects.toThrow("enough");
  });
});
