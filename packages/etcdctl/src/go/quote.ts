// Go's %q, and back. The fields format, error texts and ETCD_WATCH_KEY are quoted so, and txn reads such strings.
import { runes, toBytes } from "./bytes.ts";

const NAMED: Readonly<Record<string, string>> = {
  "\x07": "\\a",
  "\b": "\\b",
  "\f": "\\f",
  "\n": "\\n",
  "\r": "\\r",
  "\t": "\\t",
  "\v": "\\v",
  "\\": "\\\\",
};

/** What strconv.IsPrint accepts: letters, marks, numbers, punctuation, symbols and the ASCII blank. */
const PRINTABLE = /^[\p{L}\p{M}\p{N}\p{P}\p{S} ]$/u;
/** Nothing to escape: by far the usual case. */
const PLAIN = /^[ !#-[\]-~]*$/;

const hex = (value: number, digits: number): string => value.toString(16).padStart(digits, "0");

/** `value` in double quotes with Go's escapes. */
export function quote(value: string | Uint8Array): string {
  if (typeof value === "string" && PLAIN.test(value)) return `"${value}"`;
  let out = '"';
  for (const { text, byte } of runes(typeof value === "string" ? toBytes(value) : value)) {
    out += byte === undefined ? escapeRune(text, '"') : `\\x${hex(byte, 2)}`;
  }
  return `${out}"`;
}

/** One character in single quotes, as Go's %q prints a rune. */
export const quoteRune = (character: string): string => `'${escapeRune(character, "'")}'`;

function escapeRune(character: string, delimiter: string): string {
  if (character === delimiter) return `\\${delimiter}`;
  const named = NAMED[character];
  if (named !== undefined) return named;
  if (PRINTABLE.test(character)) return character;
  const code = character.codePointAt(0) as number;
  if (code < 0x20 || code === 0x7f) return `\\x${hex(code, 2)}`;
  return code < 0x10000 ? `\\u${hex(code, 4)}` : `\\U${hex(code, 8)}`;
}

/** `[a b]`, each quoted: Go's %q of a list. */
export const quoteList = (values: readonly string[]): string => `[${values.map((value) => quote(value)).join(" ")}]`;

const SIMPLE_ESCAPES: Readonly<Record<string, number>> = {
  a: 7,
  b: 8,
  f: 12,
  n: 10,
  r: 13,
  t: 9,
  v: 11,
  "\\": 92,
  '"': 34,
};

/**
 * The inside of a double-quoted Go string as text (see go/bytes.ts for bytes that are no UTF-8), or undefined when an
 * escape is malformed, as strconv.Unquote refuses it. `inside` comes without the surrounding quotes.
 */
export function unquoteInside(inside: string): string | undefined {
  let out = "";
  for (let i = 0; i < inside.length; i++) {
    const c = inside[i] as string;
    if (c === "\n" || c === '"') return undefined;
    if (c !== "\\") {
      out += c;
      continue;
    }
    const kind = inside[++i];
    if (kind === undefined) return undefined;
    const simple = SIMPLE_ESCAPES[kind];
    if (simple !== undefined) {
      out += String.fromCharCode(simple);
      continue;
    }
    const digits = kind === "x" ? 2 : kind === "u" ? 4 : kind === "U" ? 8 : /[0-7]/.test(kind) ? 3 : 0;
    const start = digits === 3 ? i : i + 1;
    const text = inside.slice(start, start + digits);
    const valid = digits === 3 ? /^[0-7]{3}$/ : new RegExp(`^[0-9a-fA-F]{${digits}}$`);
    if (digits === 0 || !valid.test(text)) return undefined;
    const value = Number.parseInt(text, digits === 3 ? 8 : 16);
    i = start + digits - 1;
    if (digits === 2 || digits === 3) {
      if (value > 0xff) return undefined;
      out += value < 0x80 ? String.fromCharCode(value) : String.fromCharCode(0xdc00 + value);
    } else {
      if (value > 0x10ffff || (value >= 0xd800 && value < 0xe000)) return undefined;
      out += String.fromCodePoint(value);
    }
  }
  return rejoin(out);
}

/** Bytes written one by one ("\xc3\xa9") may together be UTF-8; then they are the character. */
function rejoin(text: string): string {
  if (!/[\udc80-\udcff]/.test(text)) return text;
  let out = "";
  for (const { text: character, byte } of runes(toBytes(text))) {
    out += byte === undefined ? character : String.fromCharCode(0xdc00 + byte);
  }
  return out;
}
