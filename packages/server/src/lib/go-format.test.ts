import { describe, expect, it } from "vitest";
import { formatLogTime, goDuration, humanBytes, parseGoDuration } from "./go-format.ts";

describe("goDuration()", () => {
  it.each([
    [0, "0s"],
    [0.000001, "1ns"],
    [0.001, "1µs"],
    [109.421597, "109.421597ms"],
    [7000, "7s"],
    [1500, "1.5s"],
    [60_000, "1m0s"],
    [7_200_000, "2h0m0s"],
    [-250, "-250ms"],
  ])("%f ms is %s, and back", (ms, text) => {
    expect(goDuration(ms)).toBe(text);
    expect(parseGoDuration(text)).toBeCloseTo(ms, 9);
  });
});

describe("parseGoDuration()", () => {
  it.each([
    ["", 'time: invalid duration ""'],
    ["foo", 'time: invalid duration "foo"'],
    ["5", 'time: missing unit in duration "5"'],
    ["5x", 'time: unknown unit "x" in duration "5x"'],
    [".s", 'time: invalid duration ".s"'],
  ])("refuses %j", (text, message) => {
    expect(() => parseGoDuration(text)).toThrow(message);
  });
});

describe("humanBytes()", () => {
  it.each([
    [0, "0 B"],
    [82, "82 B"],
    [999, "999 B"],
    [1000, "1.0 kB"],
    [20_480, "20 kB"],
    [1_572_864, "1.6 MB"],
    [2_147_483_648, "2.1 GB"],
  ])("%i is %s", (bytes, text) => {
    expect(humanBytes(bytes)).toBe(text);
  });
});

describe("formatLogTime()", () => {
  it("has six fraction digits and a zone without colon", () => {
    expect(formatLogTime(1_700_000_000_123.456)).toMatch(/^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.123\d{3}(Z|[+-]\d{4})$/);
  });
});
