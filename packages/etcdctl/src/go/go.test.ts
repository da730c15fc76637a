import fc from "fast-check";
import { expect, test } from "vitest";
import { fromBytes, toBytes } from "./bytes.ts";
import { encodeJson, omitEmpty } from "./json.ts";
import { quote, quoteList, quoteRune, unquoteInside } from "./quote.ts";
import {
  blankHex16,
  formatDuration,
  hex16,
  humanBytes,
  parseBool,
  parseDuration,
  parseInt64,
  parseUint64,
} from "./strconv.ts";
import { splitWords } from "./words.ts";

test("text carries any bytes", () => {
  fc.assert(
    fc.property(fc.uint8Array(), (bytes) => {
      expect(Uint8Array.from(toBytes(fromBytes(bytes)))).toEqual(bytes);
    }),
  );
});

test.each([
  ["", '""'],
  ['a"b\\', '"a\\"b\\\\"'],
  ["\x07\b\f\n\r\t\v", '"\\a\\b\\f\\n\\r\\t\\v"'],
  ["\x1b\x7f", '"\\x1b\\x7f"'],
  ["ключ é 漢", '"ключ é 漢"'],
  ["\u00a0\u2028\u{e0001}", '"\\u00a0\\u2028\\U000e0001"'],
  ["\udcff\udc80", '"\\xff\\x80"'],
])("quote(%j)", (text, quoted) => expect(quote(text)).toBe(quoted));

test("quote() and unquoteInside() are each other's reverse", () => {
  fc.assert(
    fc.property(fc.uint8Array(), (bytes) => {
      const text = unquoteInside(quote(bytes).slice(1, -1));
      expect(Uint8Array.from(toBytes(text ?? "no"))).toEqual(bytes);
    }),
  );
});

test("unquoteInside() reads Go's escapes and refuses others", () => {
  expect(unquoteInside("\\x41\\u00e9\\U0001F600\\101\\t")).toBe("Aé😀A\t");
  expect(unquoteInside("\\xc3\\xa9")).toBe("é");
  for (const bad of ["\\q", "\\x4", "\\u12", "\\400", "\\ud800", "\\U00110000", "\\", 'a"b']) {
    expect(unquoteInside(bad), bad).toBeUndefined();
  }
});

test("quoteRune() and quoteList()", () => {
  expect(quoteRune("b") + quoteRune("'")).toBe("'b''\\''");
  expect(quoteList(["a", "b c"])).toBe('["a" "b c"]');
});

test.each([
  ["10", 10, 10n],
  ["-5", 10, -5n],
  ["+5", 10, 5n],
  ["0x10", 0, 16n],
  ["010", 0, 8n],
  ["0o17", 0, 15n],
  ["0b11", 0, 3n],
  ["1_0", 0, 10n],
  ["0_7", 0, 7n],
  ["0x_f", 0, 15n],
  ["FF", 16, 255n],
  ["9223372036854775807", 10, 9223372036854775807n],
] as const)("parseInt64(%j, %d)", (text, base, value) => expect(parseInt64(text, base)).toBe(value));

test.each([
  ["", 10, 'strconv.ParseInt: parsing "": invalid syntax'],
  ["0x5", 10, 'strconv.ParseInt: parsing "0x5": invalid syntax'],
  ["1.5", 10, 'strconv.ParseInt: parsing "1.5": invalid syntax'],
  ["09", 0, 'strconv.ParseInt: parsing "09": invalid syntax'],
  ["1__0", 0, 'strconv.ParseInt: parsing "1__0": invalid syntax'],
  ["_1", 0, 'strconv.ParseInt: parsing "_1": invalid syntax'],
  ["0x", 0, 'strconv.ParseInt: parsing "0x": invalid syntax'],
  ["9223372036854775808", 10, 'strconv.ParseInt: parsing "9223372036854775808": value out of range'],
] as const)("parseInt64(%j, %d) is refused", (text, base, message) => {
  expect(() => parseInt64(text, base)).toThrow(message);
});

test("parseUint64() takes no sign", () => {
  expect(parseUint64("ffffffffffffffff", 16)).toBe(2n ** 64n - 1n);
  expect(() => parseUint64("-1", 16)).toThrow('strconv.ParseUint: parsing "-1": invalid syntax');
  expect(() => parseUint64("123456789abcdef01", 16)).toThrow("value out of range");
});

test("parseBool()", () => {
  expect(["1", "t", "TRUE", "True"].map(parseBool)).toEqual([true, true, true, true]);
  expect(["0", "f", "FALSE", "False"].map(parseBool)).toEqual([false, false, false, false]);
  expect(() => parseBool("yes")).toThrow('strconv.ParseBool: parsing "yes": invalid syntax');
});

test.each([
  ["0", 0n],
  ["300ms", 300_000_000n],
  ["1.5m", 90_000_000_000n],
  ["1h2m", 3_720_000_000_000n],
  ["-2s", -2_000_000_000n],
  [".5us", 500n],
  ["1µs1μs", 2000n],
])("parseDuration(%j)", (text, value) => expect(parseDuration(text)).toBe(value));

test.each([
  ["soon", 'time: invalid duration "soon"'],
  ["", 'time: invalid duration ""'],
  ["5", 'time: missing unit in duration "5"'],
  ["1x", 'time: unknown unit "x" in duration "1x"'],
  ["9999999h", 'time: invalid duration "9999999h"'],
])("parseDuration(%j) is refused", (text, message) => expect(() => parseDuration(text)).toThrow(message));

test.each([
  [0n, "0s"],
  [1n, "1ns"],
  [987_600n, "987.6µs"],
  [1_976_540n, "1.97654ms"],
  [1_000_721_034n, "1.000721034s"],
  [60_000_000_000n, "1m0s"],
  [5_400_000_000_000n, "1h30m0s"],
  [-1_500_000n, "-1.5ms"],
])("formatDuration(%d)", (value, text) => expect(formatDuration(value)).toBe(text));

test("what formatDuration() writes, parseDuration() reads", () => {
  fc.assert(
    fc.property(fc.bigInt(-(2n ** 62n), 2n ** 62n), (value) => {
      expect(parseDuration(formatDuration(value))).toBe(value);
    }),
  );
});

test("hexadecimal ids are padded as Go pads them", () => {
  expect([hex16(0x1fn), hex16(-1n), blankHex16(0x1fn)]).toEqual([
    "000000000000001f",
    "-000000000000001",
    "              1f",
  ]);
});

test.each([
  [0, "0 B"],
  [9, "9 B"],
  [999, "999 B"],
  [1000, "1.0 kB"],
  [9949, "9.9 kB"],
  [20480, "20 kB"],
  [20500, "20 kB"],
  [21500, "22 kB"],
  [1_200_000, "1.2 MB"],
  [2_147_483_648, "2.1 GB"],
])("humanBytes(%d)", (size, text) => expect(humanBytes(size)).toBe(text));

test.each([
  ["put  a 'b c' \"d\\te\"", ["put", "a", "b c", "d\te"]],
  ['plain un"quoted"', ["plain", 'un"quoted"']],
  ["'k' ''", ["k", ""]],
  ["put -- -a", ["put", "--", "-a"]],
  ["", []],
])("splitWords(%j)", (line, words) => expect(splitWords(line)).toEqual(words));

test("splitWords() refuses bad escapes", () => expect(splitWords('put "\\q"')).toBeUndefined());

test("encodeJson() writes what Go's encoder writes", () => {
  expect(encodeJson('<a href="x">&\u2028\u2029\u007f\t\udc80é</a>')).toBe(
    '"\\u003ca href=\\"x\\"\\u003e\\u0026\\u2028\\u2029\u007f\\t\ufffdé\\u003c/a\\u003e"',
  );
  const value = {
    id: 2n ** 64n - 1n,
    none: undefined,
    zero: omitEmpty(0n),
    bytes: omitEmpty(Uint8Array.of(255, 0)),
    empty: omitEmpty([]),
    list: [true, null, -1],
  };
  expect(encodeJson(value)).toBe('{"id":18446744073709551615,"bytes":"/wA=","list":[true,null,-1]}');
});
