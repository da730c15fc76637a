import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { VirtualClock } from "../lib/clock.ts";
import { InternalRaftRequest } from "../pb/etcdserverpb.ts";
import { RequestIds } from "./request-ids.ts";
import { IndexWaiters, PendingRequests } from "./waiters.ts";

const plain = (result: string): string => result;

describe("PendingRequests", () => {
  function setUp() {
    const clock = new VirtualClock();
    const pending = new PendingRequests<string>({
      clock,
      timeoutMs: 7000,
      timedOut: (startMs, isHandedOver) =>
        new Error(`began at ${startMs}, ${isHandedOver ? "in raft" : "not in raft"}`),
    });
    return { clock, pending };
  }

  it("gives each caller its own result, and the bytes that were proposed lead back to it", async () => {
    const { pending } = setUp();
    const data = Uint8Array.of(1);
    const request = InternalRaftRequest.create();
    const one = pending.register(1, { data, request }, plain);
    const two = pending.register(2, undefined, plain);
    expect(pending.takeOwn(data)).toBeUndefined();
    expect(pending.handOver(1)).toBe(true);
    expect(pending.takeOwn(Uint8Array.of(1))).toBeUndefined();
    expect(pending.takeOwn(data)).toMatchObject({ suffix: 1, request });
    expect(pending.takeOwn(data)).toBeUndefined();
    expect(pending.resolve(2, "b")).toBe(true);
    expect(pending.resolve(1, "a")).toBe(true);
    expect(pending.resolve(1, "again")).toBe(false);
    expect(await Promise.all([one, two])).toEqual(["a", "b"]);
  });

  it("finds what raft was given in its order, past what nobody waits for any more", () => {
    const { pending } = setUp();
    const request = InternalRaftRequest.create();
    const data = Array.from({ length: 5000 }, (_, i) => Uint8Array.of(i & 0xff));
    data.forEach((one, i) => {
      pending.register(i, { data: one, request }, plain).listen({ resolved: () => {}, rejected: () => {} });
      pending.handOver(i);
    });
    for (let i = 0; i < 2000; i++) pending.reject(i, new Error("lost"));
    for (let i = 2000; i < 5000; i++) {
      expect(pending.takeOwn(data[i] as Uint8Array)).toMatchObject({ suffix: i });
      expect(pending.resolve(i, "done")).toBe(true);
    }
    expect(pending.size).toBe(0);
  });

  it("keeps apart numbers that are far from each other, whatever is taken in between, and over the end of numbers", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 500 }),
        fc.array(fc.record({ gap: fc.integer({ min: 1, max: 300 }), take: fc.nat(1000) }), { maxLength: 60 }),
        (before, steps) => {
          const { pending } = setUp();
          const model = new Map<number, string>();
          const told = new Map<number, string>();
          let next = 2 ** 48 - before;
          for (const { gap, take } of steps) {
            next = (next + gap) % 2 ** 48;
            const suffix = next;
            pending
              .register(suffix, undefined, (result: string) => `${suffix} ${result}`)
              .listen({ resolved: (value) => told.set(suffix, value), rejected: () => {} });
            model.set(suffix, `${suffix} ${gap}`);
            const taken = [...model.keys()][take];
            if (taken !== undefined) {
              const value = model.get(taken) as string;
              model.delete(taken);
              expect(pending.resolve(taken, value.split(" ")[1] as string)).toBe(true);
              expect(told.get(taken)).toBe(value);
              expect(pending.has(taken)).toBe(false);
            }
            expect(pending.size).toBe(model.size);
            for (const other of model.keys()) expect(pending.has(other)).toBe(true);
          }
        },
      ),
    );
  });

  it("ends each wait after the time to live, saying whether raft had the request", async () => {
    const { clock, pending } = setUp();
    const early = pending.register(1, undefined, plain);
    clock.advance(3000);
    const late = pending.register(2, undefined, plain);
    expect(pending.handOver(2)).toBe(true);
    clock.advance(3999);
    expect(pending.size).toBe(2);
    clock.advance(1);
    await expect(early).rejects.toThrow("began at 0, not in raft");
    expect(pending.handOver(1)).toBe(false);
    clock.advance(3000);
    await expect(late).rejects.toThrow("began at 3000, in raft");
    expect(pending.size).toBe(0);
  });
});

describe("IndexWaiters", () => {
  it("wakes who waits for an index that is reached, and nobody else", async () => {
    const waiters = new IndexWaiters();
    const woken: number[] = [];
    for (const index of [1, 2, 3]) void waiters.wait(index).then(() => woken.push(index));
    waiters.reach(2);
    await waiters.wait(2);
    expect(woken).toEqual([1, 2]);
    waiters.reach(1);
    expect(waiters.reached).toBe(2);
  });

  it("forgets who gave up", async () => {
    const waiters = new IndexWaiters();
    const gaveUp = new AbortController();
    const waiting = waiters.wait(5, gaveUp.signal);
    const patient = waiters.wait(5, new AbortController().signal);
    gaveUp.abort(new Error("no more"));
    await expect(waiting).rejects.toThrow("no more");
    await expect(waiters.wait(6, gaveUp.signal)).rejects.toThrow("no more");
    waiters.reach(5);
    await patient;
    await waiters.wait(5, gaveUp.signal);
    const lost = waiters.wait(9, new AbortController().signal);
    waiters.rejectAll(() => new Error("stopped"));
    await expect(lost).rejects.toThrow("stopped");
  });
});

describe("RequestIds", () => {
  it("carries member, time and counter, and finds its own ids again", () => {
    const ids = new RequestIds(0x8e9e05c52164694dn, 0x0123456789ab);
    const suffix = ids.next();
    expect(ids.idOf(suffix).toString(16)).toBe("694d23456789ab01");
    expect(ids.suffixOf(ids.idOf(suffix))).toBe(suffix);
    expect(ids.suffixOf(1n)).toBeUndefined();
    expect(ids.leaseId()).toBeGreaterThan(0n);
    expect(new RequestIds(0xffffn, 5).leaseId()).toBeLessThan(2n ** 63n);
  });
});
