/** Durations and sizes in the texts that Go programs print and read; logs and flags use them. */
import { isoTime, zoneOffsetMinutes } from "./clock.ts";

const NS_PER_MS = 1e6;

function trimFraction(whole: number, fraction: number, digits: number): string {
  if (fraction === 0) return String(whole);
  return `${whole}.${String(fraction).padStart(digits, "0").replace(/0+$/, "")}`;
}

/** `1m0s`, `1.5s`, `109.421597ms`, `1µs`, `0s`. */
export function goDuration(ms: number): string {
  const ns = Math.round(Math.abs(ms) * NS_PER_MS);
  const sign = ms < 0 && ns !== 0 ? "-" : "";
  if (ns === 0) return "0s";
  if (ns < 1e3) return `${sign}${ns}ns`;
  if (ns < 1e6) return `${sign}${trimFraction(Math.floor(ns / 1e3), ns % 1e3, 3)}µs`;
  if (ns < 1e9) return `${sign}${trimFraction(Math.floor(ns / 1e6), ns % 1e6, 6)}ms`;
  const seconds = Math.floor(ns / 1e9);
  const secondsText = `${trimFraction(seconds % 60, ns % 1e9, 9)}s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes === 0) return sign + secondsText;
  const hours = Math.floor(minutes / 60);
  return hours === 0 ? `${sign}${minutes}m${secondsText}` : `${sign}${hours}h${minutes % 60}m${secondsText}`;
}

const unitMs: Readonly<Record<string, number>> = {
  ns: 1e-6,
  us: 1e-3,
  µs: 1e-3,
  μs: 1e-3,
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
};

/** The inverse of {@link goDuration}, in ms. Throws an Error with the text of Go's time package. */
export function parseGoDuration(text: string): number {
  const quoted = JSON.stringify(text);
  const body = text.replace(/^[+-]/, "");
  if (body === "0") return 0;
  if (body === "") throw new Error(`time: invalid duration ${quoted}`);
  let rest = body;
  let total = 0;
  while (rest !== "") {
    const number = /^(\d*)(\.\d*)?/.exec(rest) as RegExpExecArray;
    if ((number[1] ?? "") === "" && (number[2] ?? ".") === ".") throw new Error(`time: invalid duration ${quoted}`);
    rest = rest.substring(number[0].length);
    const unit = (/^[^\d.]*/.exec(rest) as RegExpExecArray)[0];
    if (unit === "") throw new Error(`time: missing unit in duration ${quoted}`);
    rest = rest.substring(unit.length);
    const factor = unitMs[unit];
    if (factor === undefined) throw new Error(`time: unknown unit ${JSON.stringify(unit)} in duration ${quoted}`);
    total += Number(`${number[1] || "0"}${number[2] === undefined || number[2] === "." ? "" : number[2]}`) * factor;
  }
  if (total > 9_223_372_036_854) throw new Error(`time: invalid duration ${quoted}`);
  return text.startsWith("-") ? -total : total;
}

/** Decimal units, as in etcd's logs: `2.1 GB`, `16 MB`, `82 B`. */
export function humanBytes(bytes: number): string {
  if (bytes < 10) return `${bytes} B`;
  const units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
  const exponent = Math.min(Math.floor(Math.log10(bytes) / 3 + 1e-12), units.length - 1);
  const tenths = Math.floor((bytes / 1000 ** exponent) * 10 + 0.5);
  if (tenths < 100) return `${(tenths / 10).toFixed(1)} ${units[exponent]}`;
  // Go rounds a half to the even neighbour.
  const whole = Math.floor(tenths / 10);
  const rest = tenths % 10;
  return `${rest > 5 || (rest === 5 && whole % 2 === 1) ? whole + 1 : whole} ${units[exponent]}`;
}

/** `2026-11-23T07:52:22.325631Z` in local time, zone as Z or +0200. */
export function formatLogTime(ms: number): string {
  const whole = Math.floor(ms);
  const offsetMinutes = zoneOffsetMinutes(whole);
  const shifted = isoTime(whole + offsetMinutes * 60_000);
  const micros = String(Math.floor((ms - whole) * 1000)).padStart(3, "0");
  const zone =
    offsetMinutes === 0
      ? "Z"
      : `${offsetMinutes < 0 ? "-" : "+"}${String(Math.floor(Math.abs(offsetMinutes) / 60)).padStart(2, "0")}${String(Math.abs(offsetMinutes) % 60).padStart(2, "0")}`;
  return `${shifted.substring(0, 23)}${micros}${zone}`;
}
