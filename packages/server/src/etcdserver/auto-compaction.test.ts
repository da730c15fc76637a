import { EtcdError } from "@etcd-ts/client/wire";
import { describe, expect, it } from "vitest";
import { VirtualClock } from "../lib/clock.ts";
import { silentLogger } from "../lib/log.ts";
import { yieldToEventLoop } from "../lib/wait.ts";
import { type AutoCompactionDeps, runAutoCompaction } from "./auto-compaction.ts";

const HOUR_MS = 3_600_000;

function setUp(changes: Partial<AutoCompactionDeps>) {
  const clock = new VirtualClock();
  const state = { revision: 1, isLeader: true, failures: 0 };
  const compacted: string[] = [];
  const stop = new AbortController();
  const done = runAutoCompaction(
    {
      clock,
      logger: silentLogger,
      mode: "periodic",
      retention: HOUR_MS,
      currentRevision: () => state.revision,
      isLeader: () => state.isLeader,
      compact: (revision) => {
        if (state.failures > 0) {
          state.failures--;
          return Promise.reject(new Error("no"));
        }
        compacted.push(`${clock.monotonicMs() / 60_000}min:${revision}`);
        return Promise.resolve();
      },
      ...changes,
    },
    stop.signal,
  );
  const advance = async (minutes: number, perMinute = 1) => {
    for (let i = 0; i < minutes; i++) {
      clock.advance(60_000);
      state.revision += perMinute;
      await yieldToEventLoop();
    }
  };
  return { state, compacted, advance, stop, done };
}

describe("periodic compaction", () => {
  it("waits for a whole period, then keeps about one period of history", async () => {
    const { compacted, advance, stop, done } = setUp({});
    await advance(59);
    expect(compacted).toEqual([]);
    await advance(121);
    expect(compacted).toEqual(["60min:1", "120min:61", "180min:121"]);
    stop.abort();
    await done;
  });

  it("tries again at the next sample after a failure, and not at all on a follower", async () => {
    const { state, compacted, advance, stop, done } = setUp({});
    state.failures = 1;
    await advance(66);
    expect(compacted).toEqual(["66min:7"]);
    state.isLeader = false;
    await advance(120);
    expect(compacted).toHaveLength(1);
    stop.abort();
    await done;
  });
});

describe("revision compaction", () => {
  it("keeps the last revisions, every five minutes, and only when there is something new", async () => {
    const { state, compacted, advance, stop, done } = setUp({ mode: "revision", retention: 10 });
    await advance(10, 3);
    expect(compacted).toEqual(["5min:6", "10min:21"]);
    state.revision = 31;
    await advance(10, 0);
    expect(compacted).toHaveLength(2);
    stop.abort();
    await done;
  });

  it("takes a compaction by somebody else for its own", async () => {
    let calls = 0;
    const { advance, stop, done } = setUp({
      mode: "revision",
      retention: 1,
      compact: () => {
        calls++;
        return Promise.reject(new EtcdError("Compacted"));
      },
    });
    await advance(5, 1);
    await advance(5, 0);
    expect(calls).toBe(1);
    stop.abort();
    await done;
  });
});
