import { expect, test } from "vitest";
import { etcdctl, header, kv } from "../testing/harness.ts";
import { bar } from "../progress.ts";
import { judgePerf, Report } from "./check.ts";

test("bar() shows how much is done", () => {
  expect(bar(0, 60)).toBe(`[${" ".repeat(30)}]   0%`);
  expect(bar(30, 60)).toBe(`[${"=".repeat(14)}>${" ".repeat(15)}]  50%`);
  expect(bar(60, 60)).toBe(`[${"=".repeat(30)}] 100%`);
});

const judge = (perSecond: number, slowest: number, deviation: number) => {
  const lines: string[] = [];
  const isGood = judgePerf({ perSecond, slowest, deviation }, 150, (line) => lines.push(line));
  return { isGood, lines };
};

test("judgePerf() has etcdctl's words and bounds", () => {
  expect(judge(149.6, 0.5, 0.1)).toEqual({
    isGood: true,
    lines: ["PASS: Throughput is 150 writes/s", "PASS: Slowest request took 0.500000s", "PASS: Stddev is 0.100000s"],
  });
  expect(judge(135, 0.51, 0.2)).toEqual({
    isGood: false,
    lines: [
      "FAIL: Throughput too low: 136 writes/s",
      "Slowest request took too long: 0.510000s",
      "Stddev too high: 0.200000s",
    ],
  });
});

test("Report counts, and takes mean and deviation", () => {
  const report = new Report(1000);
  for (const seconds of [0.1, 0.3]) report.success(seconds);
  report.failure("boom");
  report.failure("boom");
  const { perSecond, slowest, deviation } = report.summary(3000);
  expect([perSecond, slowest, Number(deviation.toFixed(9))]).toEqual([1, 0.3, 0.1]);
  expect([...report.errors]).toEqual([["boom", 2]]);
});

test.each([
  ["perf", "'"],
  ["datascale", ""],
])("check %s refuses a prefix that has keys", async (command, mark) => {
  const answers = { Range: () => ({ header: header(1), kvs: [kv("p/x", "1")], count: 1 }) };
  expect(await etcdctl(["check", command, "--prefix=p/"], { answers })).toMatchObject({
    exit: 3,
    err: `Error: prefix "p/" has keys. Delete with ${mark}etcdctl del --prefix p/${mark} first\n`,
  });
});

test("check refuses a load that there is not", async () => {
  expect(await etcdctl(["check", "perf", "--load=huge"])).toMatchObject({
    exit: 4,
    err: "Error: unknown load option huge\n",
  });
});
