import { EtcdError } from "@etcd-ts/client/wire";
import { describe, expect, it } from "vitest";
import { VirtualClock } from "../lib/clock.ts";
import { silentLogger } from "../lib/log.ts";
import { yieldToEventLoop } from "../lib/wait.ts";
import { ReadIndex } from "./read-index.ts";
import { IndexWaiters } from "./waiters.ts";

function setUp() {
  const clock = new VirtualClock();
  const applied = new IndexWaiters();
  const requests: Uint8Array[] = [];
  let id = 0n;
  const reads = new ReadIndex({
    clock,
    logger: silentLogger,
    timeoutMs: 7000,
    applied,
    nextId: () => ++id,
    request: (context) => void requests.push(context),
  });
  const answer = (index: number) => reads.receive([{ index, context: requests.at(-1) as Uint8Array }]);
  const outcome = (promise: Promise<void>) =>
    promise.then(
      () => "ok",
      (error) => (error instanceof EtcdError ? error.kind : String(error)),
    );
  return { clock, applied, requests, reads, answer, outcome };
}

describe("ReadIndex", () => {
  it("lets those who come during a round share the next one", async () => {
    const { requests, reads, answer, applied, outcome } = setUp();
    applied.reach(10);
    const first = outcome(reads.wait());
    const second = outcome(reads.wait());
    const third = outcome(reads.wait());
    expect(requests).toHaveLength(1);
    answer(10);
    expect(await first).toBe("ok");
    await yieldToEventLoop();
    expect(requests).toHaveLength(2);
    answer(10);
    expect(await Promise.all([second, third])).toEqual(["ok", "ok"]);
    expect(requests).toHaveLength(2);
  });

  it("waits until the index is applied here", async () => {
    const { reads, answer, applied, outcome } = setUp();
    let result: string | undefined;
    const waiting = outcome(reads.wait()).then((text) => {
      result = text;
    });
    answer(5);
    await yieldToEventLoop();
    expect(result).toBeUndefined();
    applied.reach(5);
    await waiting;
    expect(result).toBe("ok");
  });

  it("asks again for what got lost, with the same id, and gives up after the request timeout", async () => {
    const { clock, requests, reads, outcome } = setUp();
    const waiting = outcome(reads.wait());
    clock.advance(1000);
    expect(requests).toHaveLength(3);
    expect(new Set(requests.map(String)).size).toBe(1);
    clock.advance(6000);
    expect(await waiting).toBe("Timeout");
  });

  it("takes no answer to an older request for its own", async () => {
    const { clock, requests, reads, answer, applied, outcome } = setUp();
    applied.reach(10);
    const old = outcome(reads.wait());
    clock.advance(7000);
    expect(await old).toBe("Timeout");
    const waiting = outcome(reads.wait());
    reads.receive([{ index: 1, context: requests[0] as Uint8Array }]);
    await yieldToEventLoop();
    answer(10);
    expect(await waiting).toBe("ok");
  });

  it("ends the round with a new leader, and everything with the server", async () => {
    const { reads, outcome } = setUp();
    const waiting = outcome(reads.wait());
    reads.leaderChanged();
    expect(await waiting).toBe("LeaderChanged");
    const last = outcome(reads.wait());
    reads.stop();
    expect(await last).toBe("Stopped");
    expect(await outcome(reads.wait())).toBe("Stopped");
  });
});
