// Numbers, booleans and durations as Go's strconv, time and fmt read and write them, error texts included.
import { quote } from "./quote.ts";

export class ParseError extends Error {
  override readonly name = "ParseError";
}

const syntax = (fn: string, text: string): ParseError =>
  new ParseError(`strconv.${fn}: parsing ${quote(text)}: invalid syntax`);
const range = (fn: string, text: string): ParseError =>
  new ParseError(`strconv.${fn}: parsing ${quote(text)}: value out of range`);

const INT64_MAX = (1n << 63n) - 1n;
const UINT64_MAX = (1n << 64n) - 1n;

/**
 * strconv.ParseInt(text, base, 64); base 0 takes prefixes (0x, 0o, 0b, leading 0) and underscores.
 * @throws ParseError with Go's text
 */
export function parseInt64(text: string, base: 0 | 10 | 16): bigint {
  const sign = /^[+-]/.exec(text)?.[0] ?? "";
  const magnitude = parseDigits(text.slice(sign.length), base);
  if (magnitude === undefined) throw syntax("ParseInt", text);
  if (magnitude > (sign === "-" ? INT64_MAX + 1n : INT64_MAX)) throw range("ParseInt", text);
  return sign === "-" ? -magnitude : magnitude;
}

/** strconv.ParseUint(text, base, 64). @throws ParseError with Go's text */
export function parseUint64(text: string, base: 0 | 10 | 16): bigint {
  const magnitude = parseDigits(text, base);
  if (magnitude === undefined) throw syntax("ParseUint", text);
  if (magnitude > UINT64_MAX) throw range("ParseUint", text);
  return magnitude;
}

function parseDigits(text: string, base: 0 | 10 | 16): bigint | undefined {
  if (base === 10) return /^[0-9]+$/.test(text) ? BigInt(text) : undefined;
  if (base === 16) return /^[0-9a-fA-F]+$/.test(text) ? BigInt(`0x${text}`) : undefined;
  const match = /^(0[xX]|0[bB]|0[oO]|0(?=[0-9_]))?(_?[0-9a-fA-F]+(?:_[0-9a-fA-F]+)*)$/.exec(text);
  if (!match) return undefined;
  const prefix = (match[1] ?? "").toLowerCase();
  const digits = match[2] as string;
  if (prefix === "" && digits.startsWith("_")) return undefined;
  const plain = digits.replaceAll("_", "");
  const allowed =
    prefix === "0x" ? /^[0-9a-fA-F]+$/ : prefix === "0b" ? /^[01]+$/ : prefix === "" ? /^[0-9]+$/ : /^[0-7]+$/;
  if (!allowed.test(plain)) return undefined;
  return BigInt(`${prefix === "0" ? "0o" : prefix}${plain}`);
}

/** strconv.ParseBool. @throws ParseError with Go's text */
export function parseBool(text: string): boolean {
  if (/^(?:1|t|T|TRUE|true|True)$/.test(text)) return true;
  if (/^(?:0|f|F|FALSE|false|False)$/.test(text)) return false;
  throw syntax("ParseBool", text);
}

const UNIT_NANOSECONDS: Readonly<Record<string, bigint>> = {
  ns: 1n,
  us: 1000n,
  µs: 1000n, // U+00B5, micro sign
  μs: 1000n, // U+03BC, Greek mu
  ms: 1_000_000n,
  s: 1_000_000_000n,
  m: 60_000_000_000n,
  h: 3_600_000_000_000n,
};

/** time.ParseDuration, in nanoseconds. @throws ParseError with Go's text */
export function parseDuration(text: string): bigint {
  const invalid = new ParseError(`time: invalid duration ${quote(text)}`);
  const sign = /^[+-]/.exec(text)?.[0] ?? "";
  let rest = text.slice(sign.length);
  if (rest === "0") return 0n;
  if (rest === "") throw invalid;
  let total = 0n;
  while (rest !== "") {
    const number = /^([0-9]*)(?:\.([0-9]*))?/.exec(rest) as RegExpExecArray;
    const whole = number[1] ?? "";
    const fraction = number[2] ?? "";
    if (whole === "" && fraction === "") throw invalid;
    rest = rest.slice(number[0].length);
    const unit = (/^[^.0-9]*/.exec(rest) as RegExpExecArray)[0];
    if (unit === "") throw new ParseError(`time: missing unit in duration ${quote(text)}`);
    const scale = UNIT_NANOSECONDS[unit];
    if (scale === undefined) throw new ParseError(`time: unknown unit ${quote(unit)} in duration ${quote(text)}`);
    rest = rest.slice(unit.length);
    total += BigInt(whole || "0") * scale;
    if (fraction !== "") total += (BigInt(fraction) * scale) / 10n ** BigInt(fraction.length);
    if (total > (sign === "-" ? INT64_MAX + 1n : INT64_MAX)) throw invalid;
  }
  return sign === "-" ? -total : total;
}

/** time.Duration.String: `1.5ms`, `2m3s`, `1h0m5s`, `0s`. */
export function formatDuration(nanoseconds: bigint): string {
  if (nanoseconds === 0n) return "0s";
  const sign = nanoseconds < 0n ? "-" : "";
  const value = nanoseconds < 0n ? -nanoseconds : nanoseconds;
  if (value < 1000n) return `${sign}${value}ns`;
  if (value < 1_000_000n) return `${sign}${decimal(value, 3)}µs`;
  if (value < 1_000_000_000n) return `${sign}${decimal(value, 6)}ms`;
  const minutes = value / 60_000_000_000n;
  const seconds = `${decimal(value % 60_000_000_000n, 9)}s`;
  if (minutes === 0n) return sign + seconds;
  if (minutes < 60n) return `${sign}${minutes}m${seconds}`;
  return `${sign}${minutes / 60n}h${minutes % 60n}m${seconds}`;
}

function decimal(value: bigint, places: number): string {
  const digits = value.toString().padStart(places + 1, "0");
  const fraction = digits.slice(-places).replace(/0+$/, "");
  return fraction === "" ? digits.slice(0, -places) : `${digits.slice(0, -places)}.${fraction}`;
}

/** %x of a signed or unsigned 64-bit number. */
export const hexId = (value: bigint): string => (value < 0n ? `-${(-value).toString(16)}` : value.toString(16));

/** %016x: padded with zeros to 16 characters, the sign included. */
export function hex16(value: bigint): string {
  const digits = (value < 0n ? -value : value).toString(16);
  return value < 0n ? `-${digits.padStart(15, "0")}` : digits.padStart(16, "0");
}

/** %16x: padded with blanks to 16 characters. */
export const blankHex16 = (value: bigint): string => hexId(value).padStart(16, " ");

/** humanize.Bytes: decimal units, one digit after the point below 10. */
export function humanBytes(size: number): string {
  if (size < 10) return `${size} B`;
  const units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
  const power = Math.min(Math.floor(Math.log(size) / Math.log(1000)), units.length - 1);
  const value = Math.floor((size / 1000 ** power) * 10 + 0.5) / 10;
  return `${value < 10 ? value.toFixed(1) : roundHalfEven(value)} ${units[power]}`;
}

/** Go's %.0f: halves go to the even neighbour. */
function roundHalfEven(value: number): number {
  const down = Math.floor(value);
  if (value - down === 0.5) return down % 2 === 0 ? down : down + 1;
  return Math.round(value);
}
