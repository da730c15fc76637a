/**
 * JSON whose numbers may be 64-bit ids in bare digits, as etcd keeps them in member and conf state records.
 * `JSON.parse` would round them without a word; here an integer beyond 2^53 comes out as a bigint, and a bigint goes in
 * as digits. Written text has Go's form: no blanks, and `<`, `>`, `&`, U+2028 and U+2029 escaped.
 */

export type JsonValue = null | boolean | number | bigint | string | readonly JsonValue[] | JsonObject;
/** An absent or undefined member is left out. */
export interface JsonObject {
  readonly [name: string]: JsonValue | undefined;
}

export class JsonError extends Error {
  override readonly name = "JsonError";
}

const DEPTH_MAX = 200;
const NUMBER = /-?(?:0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?/y;
const BLANK = /[ \t\r\n]*/y;

/** Throws {@link JsonError} on anything that is not one JSON document. */
export function parseJson(text: string): JsonValue {
  let at = 0;
  const fail = (): never => {
    throw new JsonError(
      at >= text.length
        ? "unexpected end of JSON input"
        : `invalid character ${JSON.stringify(text[at])} at offset ${at}`,
    );
  };
  const skipBlank = () => {
    BLANK.lastIndex = at;
    BLANK.test(text);
    at = BLANK.lastIndex;
  };
  const readString = (): string => {
    if (text[at] !== '"') return fail();
    let end = at + 1;
    while (end < text.length && text[end] !== '"') end += text[end] === "\\" ? 2 : 1;
    if (end >= text.length) {
      at = text.length;
      return fail();
    }
    const quoted = text.substring(at, end + 1);
    let value: string;
    try {
      value = JSON.parse(quoted) as string;
    } catch {
      return fail();
    }
    at = end + 1;
    return value;
  };
  const expectWord = <T>(word: string, value: T): T => {
    if (!text.startsWith(word, at)) return fail();
    at += word.length;
    return value;
  };
  const readValue = (depth: number): JsonValue => {
    if (depth > DEPTH_MAX) throw new JsonError("exceeded max depth");
    skipBlank();
    switch (text[at]) {
      case "{": {
        at++;
        const object: Record<string, JsonValue> = Object.create(null);
        skipBlank();
        if (text[at] === "}") {
          at++;
          return object;
        }
        for (;;) {
          skipBlank();
          const name = readString();
          skipBlank();
          if (text[at] !== ":") fail();
          at++;
          object[name] = readValue(depth + 1);
          skipBlank();
          const next = text[at];
          if (next !== "," && next !== "}") fail();
          at++;
          if (next === "}") return object;
        }
      }
      case "[": {
        at++;
        const array: JsonValue[] = [];
        skipBlank();
        if (text[at] === "]") {
          at++;
          return array;
        }
        for (;;) {
          array.push(readValue(depth + 1));
          skipBlank();
          const next = text[at];
          if (next !== "," && next !== "]") fail();
          at++;
          if (next === "]") return array;
        }
      }
      case '"':
        return readString();
      case "t":
        return expectWord("true", true);
      case "f":
        return expectWord("false", false);
      case "n":
        return expectWord("null", null);
      default: {
        NUMBER.lastIndex = at;
        const match = NUMBER.exec(text);
        if (!match) return fail();
        at = NUMBER.lastIndex;
        const value = Number(match[0]);
        const isInteger = match[1] === undefined && match[2] === undefined;
        return isInteger && !Number.isSafeInteger(value) ? BigInt(match[0]) : value;
      }
    }
  };
  const value = readValue(0);
  skipBlank();
  if (at !== text.length) fail();
  return value;
}

const GO_ESCAPES: Readonly<Record<string, string>> = {
  "<": "\\u003c",
  ">": "\\u003e",
  "&": "\\u0026",
  "\u2028": "\\u2028",
  "\u2029": "\\u2029",
};

function writeString(text: string): string {
  return JSON.stringify(text).replace(/[<>&\u2028\u2029]/g, (char) => GO_ESCAPES[char] as string);
}

export function stringifyJson(value: JsonValue): string {
  if (typeof value === "bigint") return value.toString();
  if (typeof value === "string") return writeString(value);
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  if (Array.isArray(value)) return `[${(value as readonly JsonValue[]).map(stringifyJson).join(",")}]`;
  const members: string[] = [];
  for (const [name, member] of Object.entries(value as JsonObject)) {
    if (member !== undefined) members.push(`${writeString(name)}:${stringifyJson(member)}`);
  }
  return `{${members.join(",")}}`;
}

export function isJsonObject(value: JsonValue | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A 64-bit unsigned id that was written as a bare number; undefined for anything else. */
export function jsonId(value: JsonValue | undefined): bigint | undefined {
  if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0) return BigInt(value);
  if (typeof value === "bigint" && value >= 0n && value < 1n << 64n) return value;
  return undefined;
}
