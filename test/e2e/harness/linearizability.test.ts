/** The checker must find what is wrong: histories that no store could have given, and such that one could. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type Answer, checkLinearizable, type Operation, settleUnanswered, type Step } from "./linearizability.ts";

const put = (key: string, value: string): Step => ({ kind: "put", key, value });
const get = (key: string): Step => ({ kind: "get", key });
const remove = (key: string): Step => ({ kind: "delete", key });

function operation(
  [callMs, returnMs]: readonly [number, number],
  step: Step,
  answer: Partial<Answer> | undefined,
  client = 0,
): Operation {
  return {
    client,
    callMs,
    returnMs: answer ? returnMs : Number.POSITIVE_INFINITY,
    input: { conditions: [], steps: [step], otherwise: [] },
    answer: answer && { revision: 1, succeeded: true, results: [], ...answer },
  };
}

const wasPut = (at: readonly [number, number], key: string, value: string, revision: number): Operation =>
  operation(at, put(key, value), { revision, results: [{ kind: "put" }] });

const wasRead = (
  at: readonly [number, number],
  key: string,
  found: [value: string, modRevision: number] | undefined,
  revision: number,
): Operation =>
  operation(at, get(key), {
    revision,
    results: [{ kind: "got", found: found && { value: found[0], modRevision: found[1] } }],
  });

const verdict = (...operations: Operation[]): string => checkLinearizable(operations).kind;

describe("checkLinearizable()", () => {
  it("accepts reads that saw a concurrent write or did not", () => {
    expect(verdict(wasPut([0, 10], "a", "1", 2), wasRead([5, 6], "a", undefined, 1))).toBe("linearizable");
    expect(verdict(wasPut([0, 10], "a", "1", 2), wasRead([5, 6], "a", ["1", 2], 2))).toBe("linearizable");
  });

  it("catches a stale read", () => {
    const history = [wasPut([0, 1], "a", "1", 2), wasRead([2, 3], "a", undefined, 1)];
    expect(checkLinearizable(history)).toMatchObject({ kind: "violated", placed: 1, operation: history[1] });
  });

  it("catches a read that went back behind another", () => {
    const write = wasPut([0, 100], "a", "1", 2);
    expect(verdict(write, wasRead([1, 2], "a", ["1", 2], 2), wasRead([3, 4], "a", undefined, 1))).toBe("violated");
  });

  it("catches a write that is lost", () => {
    const history = [wasPut([0, 1], "a", "1", 2), wasPut([2, 3], "b", "2", 3), wasRead([4, 5], "a", undefined, 3)];
    expect(verdict(...history)).toBe("violated");
  });

  it("catches a revision that was given twice, and one that was left out", () => {
    expect(verdict(wasPut([0, 1], "a", "1", 2), wasPut([0, 1], "b", "2", 2))).toBe("violated");
    expect(verdict(wasPut([0, 1], "a", "1", 2), wasPut([0, 1], "b", "2", 4))).toBe("violated");
  });

  it("catches revisions against the order of time", () => {
    expect(verdict(wasPut([0, 1], "a", "1", 3), wasPut([2, 3], "b", "2", 2))).toBe("violated");
  });

  it("lets a write without an answer happen late, or never", () => {
    const lost = operation([0, 0], put("a", "1"), undefined);
    expect(verdict(lost, wasRead([10, 11], "a", undefined, 1), wasRead([20, 21], "a", ["1", 2], 2))).toBe(
      "linearizable",
    );
    expect(verdict(lost, wasRead([10, 11], "a", undefined, 1))).toBe("linearizable");
    expect(verdict(lost, wasRead([10, 11], "a", ["1", 2], 2), wasRead([20, 21], "a", undefined, 1))).toBe("violated");
  });

  it("catches a transaction that both of two racing clients won", () => {
    const swap = (client: number, revision: number): Operation => ({
      client,
      callMs: 0,
      returnMs: 10,
      input: { conditions: [{ key: "a", modRevision: 0 }], steps: [put("a", `${client}`)], otherwise: [get("a")] },
      answer: { revision, succeeded: true, results: [{ kind: "put" }] },
    });
    expect(verdict(swap(1, 2))).toBe("linearizable");
    expect(verdict(swap(1, 2), swap(2, 3))).toBe("violated");
  });

  it("counts what a deletion took", () => {
    const gone = (at: readonly [number, number], count: number, revision: number): Operation =>
      operation(at, remove("a"), { revision, results: [{ kind: "deleted", count }] });
    expect(verdict(gone([0, 1], 0, 1), wasPut([2, 3], "a", "1", 2), gone([4, 5], 1, 3))).toBe("linearizable");
    expect(verdict(wasPut([2, 3], "a", "1", 2), gone([4, 5], 0, 2))).toBe("violated");
  });

  it("says when it has not come to an end", () => {
    const history = Array.from({ length: 30 }, (_, n) => operation([0, 0], remove(`${n}`), undefined, n));
    const read = wasRead([1, 2], "a", ["never", 9], 1);
    expect(checkLinearizable([...history, read], { stepsMax: 10 }).kind).toBe("undecided");
  });

  it("comes to an end when many operations without an answer changed nothing", () => {
    const lost = Array.from({ length: 200 }, (_, n) => operation([n, n], remove("a"), undefined, n));
    const write = wasPut([500, 501], "b", "1", 2);
    expect(verdict(...lost, write, wasRead([600, 601], "b", undefined, 2))).toBe("violated");
    expect(verdict(...lost, write, wasRead([600, 601], "b", ["1", 2], 2))).toBe("linearizable");
  });

  it("agrees with a store that really does one thing at a time, and with no single change of its answers", () => {
    const step = fc.oneof(
      fc.record({ kind: fc.constant("get" as const), key: fc.constantFrom("a", "b") }),
      fc.record({ kind: fc.constant("put" as const), key: fc.constantFrom("a", "b"), value: fc.uuid() }),
      fc.record({ kind: fc.constant("delete" as const), key: fc.constantFrom("a", "b") }),
    );
    const moments = fc.record({ before: fc.integer({ min: 0, max: 40 }), after: fc.integer({ min: 0, max: 40 }) });
    fc.assert(
      fc.property(fc.array(fc.tuple(step, moments), { minLength: 1, maxLength: 30 }), fc.nat(), (steps, choice) => {
        const keys = new Map<string, { value: string; modRevision: number }>();
        let revision = 1;
        const history = steps.map(([what, { before, after }], n): Operation => {
          const count = keys.has(what.key) ? 1 : 0;
          const found = keys.get(what.key);
          if (what.kind === "put") keys.set(what.key, { value: what.value, modRevision: ++revision });
          if (what.kind === "delete" && keys.delete(what.key)) revision++;
          const result = {
            get: { kind: "got", found },
            put: { kind: "put" },
            delete: { kind: "deleted", count },
          } as const;
          // It took effect at 10 * n, and began and ended some time around that.
          const times = [10 * n - before, 10 * n + after] as const;
          return operation(times, what, { revision, results: [result[what.kind]] }, n);
        });
        expect(checkLinearizable(history).kind).toBe("linearizable");
        const bent = history[choice % history.length] as Operation;
        const answer = { ...(bent.answer as Answer), revision: revision + 1 };
        const others = history.map((one) => (one === bent ? { ...one, answer } : one));
        expect(checkLinearizable(others).kind).toBe("violated");
      }),
      { numRuns: 200 },
    );
  });
});

describe("settleUnanswered()", () => {
  it("leaves out what never happened, and knows when the rest did", () => {
    const history = [
      operation([0, 0], put("a", "1"), undefined),
      operation([0, 0], put("a", "2"), undefined),
      operation([0, 0], get("a"), undefined),
      operation([0, 0], remove("a"), undefined),
      wasPut([0, 1], "b", "3", 3),
    ];
    const settled = settleUnanswered(history, [
      { revision: 2, key: "a", value: "2" },
      { revision: 3, key: "b", value: "3" },
    ]);
    expect(settled).toEqual([{ ...history[1], knownRevision: 2 }, history[3], history[4]]);
  });
});
