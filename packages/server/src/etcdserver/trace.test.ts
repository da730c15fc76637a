import { describe, expect, it } from "vitest";
import { VirtualClock } from "../lib/clock.ts";
import { type LogFields, silentLogger } from "../lib/log.ts";
import { traceIfLong } from "./trace.ts";

function setUp() {
  const clock = new VirtualClock();
  const lines: { readonly msg: string; readonly fields: LogFields }[] = [];
  const logger = { ...silentLogger, info: (msg: string, fields: LogFields = {}) => lines.push({ msg, fields }) };
  return { clock, lines, deps: { clock, logger } };
}

describe("traceIfLong()", () => {
  it("says nothing of what took 100 ms, and has the steps that count of what took longer", () => {
    const { clock, lines, deps } = setUp();
    const startMs = clock.monotonicMs();
    const traced = {
      operation: "range",
      startMs,
      detail: { range_begin: "k", range_end: "l" },
      steps: [
        { text: "agreement among raft nodes before linearized reading", endMs: startMs + 20 },
        { text: "range keys from bolt db", endMs: startMs + 100, fields: { req_type: "range" } },
      ],
    };
    clock.advance(100);
    traceIfLong(deps, traced);
    expect(lines).toEqual([]);
    clock.advance(1);
    traceIfLong(deps, traced);
    expect(lines).toHaveLength(1);
    const [{ msg, fields } = { msg: "", fields: {} }] = lines;
    expect(msg).toMatch(/^trace\[\d+\] range$/);
    const name = msg.split(" ")[0];
    expect(Object.keys(fields)).toEqual(["detail", "duration", "start", "end", "steps", "step_count"]);
    expect(fields).toMatchObject({
      detail: "{range_begin:k; range_end:l; }",
      duration: "101ms",
      steps: [`${name} 'range keys from bolt db' {req_type:range; } (duration: 80ms)`],
      step_count: 1,
    });
    expect(Date.parse(String(fields["end"])) - Date.parse(String(fields["start"]))).toBe(101);
  });

  it("has every step where all are asked for; two blanks stand for no fields", () => {
    const { clock, lines, deps } = setUp();
    const startMs = clock.monotonicMs();
    clock.advance(150);
    const steps = [
      { text: "read index received", endMs: startMs + 1 },
      { text: "applied index is now lower than readState.Index", endMs: startMs + 150 },
    ];
    traceIfLong(deps, { operation: "linearizableReadLoop", startMs, detail: {}, steps, hasAllSteps: true });
    const name = lines[0]?.msg.split(" ")[0];
    expect(lines[0]?.fields).toMatchObject({
      detail: "",
      steps: [
        `${name} 'read index received'  (duration: 1ms)`,
        `${name} 'applied index is now lower than readState.Index'  (duration: 149ms)`,
      ],
      step_count: 2,
    });
  });
});
