import { describe, expect, it } from "vitest";
import { VirtualClock } from "../lib/clock.ts";
import { silentLogger } from "../lib/log.ts";
import { HeartbeatWatch } from "./heartbeat-watch.ts";

describe("HeartbeatWatch", () => {
  it("tells of a heartbeat that leaves more than an interval late, and of no other", () => {
    const clock = new VirtualClock();
    const lines: unknown[] = [];
    let late = 0;
    const watch = new HeartbeatWatch({
      clock,
      logger: { ...silentLogger, warn: (_message, fields) => lines.push(fields) },
      intervalMs: 100,
      late: () => late++,
    });
    watch.sent(0xabn);
    clock.advance(200);
    watch.sent(0xabn);
    expect(lines).toEqual([]);
    clock.advance(350);
    watch.sent(0xcdn);
    watch.sent(0xabn);
    expect(lines).toEqual([
      { to: "ab", "heartbeat-interval": "100ms", "expected-duration": "200ms", "exceeded-duration": "150ms" },
    ]);
    expect(late).toBe(1);
    clock.advance(60_000);
    watch.reset();
    watch.sent(0xabn);
    expect(late).toBe(1);
  });
});
