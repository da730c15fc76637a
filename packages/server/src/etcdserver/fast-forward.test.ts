import { describe, expect, it } from "vitest";
import { VirtualClock } from "../lib/clock.ts";
import { silentLogger } from "../lib/log.ts";
import { type FastForwardDeps, fastForwardElection } from "./fast-forward.ts";

const settle = () => new Promise((resolve) => setImmediate(resolve));

async function run(given: Partial<FastForwardDeps> & { readonly peersAt?: (ms: number) => number }, untilMs: number) {
  const clock = new VirtualClock();
  const done: string[] = [];
  const stop = new AbortController();
  const running = fastForwardElection(
    {
      clock,
      logger: silentLogger,
      memberId: 1n,
      electionTicks: 10,
      tickMs: 100,
      isEnabled: true,
      caughtUp: Promise.resolve(),
      isAlone: () => false,
      activePeers: () => given.peersAt?.(clock.monotonicMs()) ?? 0,
      campaign: () => void done.push(`campaign at ${clock.monotonicMs()}`),
      advance: (ticks) => void done.push(`${ticks} ticks at ${clock.monotonicMs()}`),
      ...given,
    },
    stop.signal,
  );
  for (let ms = 0; ms < untilMs; ms += 50) {
    await settle();
    clock.advance(50);
  }
  await settle();
  stop.abort();
  await running;
  return done;
}

describe("the first election", () => {
  it("is stood for at once by a member that is alone", async () => {
    expect(await run({ isAlone: () => true }, 0)).toEqual(["campaign at 0"]);
    expect(await run({ isAlone: () => true, isEnabled: false }, 0)).toEqual(["campaign at 0"]);
  });

  it("comes two ticks after the connections to the others", async () => {
    expect(await run({ peersAt: (ms) => (ms < 300 ? 1 : 2) }, 1000)).toEqual(["8 ticks at 300"]);
  });

  it("is waited for where nobody is connected in time", async () => {
    expect(await run({ peersAt: (ms) => (ms <= 5000 ? 1 : 2) }, 6000)).toEqual([]);
  });

  it("is waited for when that was asked for", async () => {
    expect(await run({ isEnabled: false, peersAt: () => 2 }, 500)).toEqual([]);
  });

  it("is nobody's business when the member stops before it has caught up", async () => {
    expect(await run({ caughtUp: Promise.reject(new Error("stopped")), isAlone: () => true }, 100)).toEqual([]);
  });
});
