import { describe, expect, test } from "vitest";
import { brokenRules, runBroken } from "./broken-rules.ts";
import { EventQueue } from "./event-queue.ts";
import { runSimulations } from "./main.ts";
import { runSeed } from "./simulation.ts";

/** More of them: npm run sim -- --seeds N */
const SEEDS = 15;

describe("simulation", () => {
  test(`${SEEDS} clusters keep every invariant through faults, and agree when it is quiet again`, () => {
    const lines: string[] = [];
    const args = { seeds: SEEDS, from: 1, seed: undefined, trace: false };
    const exitCode = runSimulations(args, { write: (text) => lines.push(text), nowMs: () => 0 });
    expect(exitCode, lines.join("")).toBe(0);
  });

  test("a seed repeats itself to the last line", () => {
    const traceOf = (seed: number): string[] => {
      const lines: string[] = [];
      runSeed({ seed, isShort: true, plan: { faultyMs: 5000, faultEveryMs: 400 }, trace: (line) => lines.push(line) });
      return lines;
    };
    expect(traceOf(3)).toEqual(traceOf(3));
    expect(traceOf(3)).not.toEqual(traceOf(4));
  });

  test("a failure names the command that replays it", () => {
    const lines: string[] = [];
    const args = { seeds: 1, from: 7, seed: undefined, trace: false };
    const run = () => ({ virtualMs: 0, events: 0, committed: 0, isStuck: false, violation: new Error("two leaders") });
    expect(runSimulations(args, { write: (text) => lines.push(text), nowMs: () => 0 }, run)).toBe(1);
    expect(lines.join("")).toContain("seed 7: Error: two leaders\nreplay: npm run sim -- --seed 7 --trace\n");
  });
});

describe("a broken rule is caught:", () => {
  for (const rule of brokenRules) {
    test(`${rule.name} (within ${rule.seeds} seeds)`, () => {
      let seed = 1;
      while (seed <= rule.seeds && !runBroken(rule, seed).violation) seed++;
      expect(seed).toBeLessThanOrEqual(rule.seeds);
    });
  }

  test("and the same weather without sabotage is none", () => {
    for (const rule of brokenRules) {
      const { violation } = runBroken({ ...rule, sabotage: () => {} }, 1);
      expect(violation, rule.name).toBeUndefined();
    }
  });
});

describe("EventQueue", () => {
  test("runs events by time, then by order of asking", () => {
    const queue = new EventQueue();
    const ran: string[] = [];
    for (const [delay, name] of [
      [5, "c"],
      [1, "a"],
      [5, "d"],
      [3, "b"],
      [9, "e"],
    ] as const) {
      queue.after(delay, () => ran.push(`${queue.nowMs}${name}`));
    }
    while (queue.step(5));
    expect(ran).toEqual(["1a", "3b", "5c", "5d"]);
    expect(queue.nowMs).toBe(5);
    expect(queue.step(10)).toBe(true);
    expect(queue.step(10)).toBe(false);
    expect(queue.nowMs).toBe(10);
  });
});
