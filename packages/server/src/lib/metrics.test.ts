import { describe, expect, it } from "vitest";
import { exponentialBounds, Histogram, LabelledHistograms, LabelledValues } from "./metrics.ts";

describe("Histogram", () => {
  it("counts each bucket with those below it", () => {
    const histogram = new Histogram([1, 2, 4]);
    for (const value of [0.5, 1, 1.5, 3, 9]) histogram.observe(value);
    expect(
      histogram.samples().map(({ suffix, labels, value }) => `${suffix} ${labels?.["le"] ?? ""} ${value}`),
    ).toEqual(["_bucket 1 2", "_bucket 2 3", "_bucket 4 4", "_bucket +Inf 5", "_sum  15", "_count  5"]);
  });
});

describe("exponentialBounds()", () => {
  it("gives etcd's buckets", () => {
    expect(exponentialBounds(0.001, 2, 14).at(-1)).toBe(8.192);
    expect(exponentialBounds(0.0001, 2, 16).at(-1)).toBeCloseTo(3.2768, 12);
  });
});

describe("labelled values", () => {
  it("keep one number a label set", () => {
    const values = new LabelledValues();
    values.add({ To: "a" });
    values.add({ To: "a" }, 4);
    values.set({ To: "b" }, 7);
    expect(values.family("counter", "x", "y").samples).toEqual([
      { labels: { To: "a" }, value: 5 },
      { labels: { To: "b" }, value: 7 },
    ]);
    const histograms = new LabelledHistograms([1]);
    histograms.observe({ To: "a" }, 3);
    expect(histograms.family("x", "y").samples.at(-1)).toEqual({ suffix: "_count", labels: { To: "a" }, value: 1 });
  });
});
