/**
 * Messages as the JSON gateway of 3.5 writes and reads them: names as in the .proto files, 64-bit integers as strings,
 * enums by name, bytes as base64, fields that are zero left out. Reading is milder: names in camelCase too, numbers or
 * strings, enums by number, unknown fields skipped.
 */
import type { Codec, FieldInfo, Init } from "@etcd-ts/client/wire";
import type { JsonValue } from "../../lib/json.ts";

/** Input that is no message of the type. Its text goes to the client. */
export class GatewayInputError extends Error {
  override readonly name = "GatewayInputError";
}

/** Either alphabet, with or without padding. */
const BASE64 = /^[A-Za-z0-9+/_-]*={0,2}$/;
const INTEGER = /^-?\d+$/;

interface Bounds {
  readonly low: bigint;
  readonly high: bigint;
}

const bounds: Readonly<Record<string, Bounds>> = {
  int32: { low: -(1n << 31n), high: (1n << 31n) - 1n },
  uint32: { low: 0n, high: (1n << 32n) - 1n },
  int64: { low: -(1n << 63n), high: (1n << 63n) - 1n },
  uint64: { low: 0n, high: (1n << 64n) - 1n },
};

const SAFE = BigInt(Number.MAX_SAFE_INTEGER);

function cannot(value: JsonValue, field: FieldInfo): GatewayInputError {
  const kind = Array.isArray(value) ? "array" : typeof value === "bigint" ? "number" : typeof value;
  return new GatewayInputError(`json: cannot unmarshal ${kind} into field ${field.name} of type ${field.type}`);
}

function integer(value: JsonValue, field: FieldInfo): bigint | number {
  let parsed: bigint;
  if (typeof value === "bigint") parsed = value;
  else if (typeof value === "number" && Number.isInteger(value)) parsed = BigInt(value);
  else if (typeof value === "string" && INTEGER.test(value)) parsed = BigInt(value);
  else throw cannot(value, field);
  const { low, high } = bounds[field.type] as Bounds;
  if (parsed < low || parsed > high)
    throw new GatewayInputError(`json: ${parsed} is out of range for field ${field.name}`);
  if (field.isBigint) return parsed;
  return Number(parsed > SAFE ? SAFE : parsed < -SAFE ? -SAFE : parsed);
}

function single(value: JsonValue, field: FieldInfo): unknown {
  switch (field.type) {
    case "message":
      return fromJson((field.message as () => Codec<unknown>)(), value);
    case "bytes":
      if (typeof value !== "string") throw cannot(value, field);
      if (!BASE64.test(value)) throw new GatewayInputError("illegal base64 data");
      return Buffer.from(value, "base64");
    case "string":
      if (typeof value !== "string") throw cannot(value, field);
      return value;
    case "bool":
      if (value === true || value === "true") return true;
      if (value === false || value === "false") return false;
      throw cannot(value, field);
    case "enum": {
      // A name that is not known is like a field that is not known: skipped.
      const number = typeof value === "string" ? (field.enum?.numberOf[value] ?? 0) : value;
      if (typeof number !== "number") throw cannot(value, field);
      return number;
    }
    default:
      return integer(value, field);
  }
}

/** Throws {@link GatewayInputError}. */
export function fromJson<T>(codec: Codec<T>, value: JsonValue): Init<T> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new GatewayInputError(`json: cannot unmarshal into ${codec.typeName}`);
  }
  const given = value as Readonly<Record<string, JsonValue | undefined>>;
  const message: Record<string, unknown> = {};
  for (const field of codec.fields) {
    const raw = given[field.name] ?? given[field.jsonName];
    if (raw === undefined || raw === null) continue;
    let parsed: unknown;
    if (field.isRepeated) {
      if (!Array.isArray(raw)) throw cannot(raw, field);
      parsed = (raw as readonly JsonValue[]).map((item) => single(item, field));
    } else {
      parsed = single(raw, field);
    }
    if (field.oneof === undefined) message[field.key] = parsed;
    else message[field.oneof] = { kind: field.key, value: parsed };
  }
  return message as Init<T>;
}

/** Go's encoding/json leaves no way to close a script element from inside a string. */
function quoted(text: string): string {
  return JSON.stringify(text)
    .replaceAll("<", "\\u003c")
    .replaceAll(">", "\\u003e")
    .replaceAll("&", "\\u0026")
    .replaceAll("\u2028", "\\u2028")
    .replaceAll("\u2029", "\\u2029");
}

function written(value: unknown, field: FieldInfo): string {
  switch (field.type) {
    case "message":
      return toJson((field.message as () => Codec<unknown>)(), value as Init<unknown>);
    case "bytes": {
      const bytes = value as Uint8Array;
      return `"${Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64")}"`;
    }
    case "string":
      return quoted(String(value));
    case "enum": {
      const name = field.enum?.nameOf[Number(value)];
      return name === undefined ? String(value) : `"${name}"`;
    }
    case "int64":
    case "uint64":
      return `"${value}"`;
    default:
      return String(value);
  }
}

function isZero(value: unknown, field: FieldInfo): boolean {
  if (value === undefined) return true;
  if (field.isRepeated || field.type === "bytes" || field.type === "string") return (value as string).length === 0;
  return field.type !== "message" && (value === 0 || value === 0n || value === false);
}

export function toJson<T>(codec: Codec<T>, message: Init<T>): string {
  const plain = message as Readonly<Record<string, unknown>>;
  const members: string[] = [];
  for (const field of codec.fields) {
    let value: unknown;
    if (field.oneof === undefined) {
      value = plain[field.key];
      if (isZero(value, field)) continue;
    } else {
      const union = plain[field.oneof] as { readonly kind: string; readonly value: unknown } | undefined;
      if (union?.kind !== field.key) continue;
      value = union.value;
    }
    const text = field.isRepeated
      ? `[${(value as readonly unknown[]).map((item) => written(item, field)).join(",")}]`
      : written(value, field);
    members.push(`"${field.name}":${text}`);
  }
  return `{${members.join(",")}}`;
}

/** Cuts a text that comes in pieces into whole JSON values, without looking into them. */
export class JsonSplitter {
  #text = "";
  #at = 0;
  #depth = 0;
  #isInString = false;
  #isEscaped = false;
  #start = -1;

  /** Characters that wait for the rest of their value. */
  get pending(): number {
    return this.#text.length;
  }

  /** Values that are complete with this piece. Values at the top are objects, as every message is. */
  push(piece: string): string[] {
    this.#text += piece;
    const values: string[] = [];
    for (; this.#at < this.#text.length; this.#at++) {
      const char = this.#text[this.#at] as string;
      if (this.#isInString) {
        if (this.#isEscaped) this.#isEscaped = false;
        else if (char === "\\") this.#isEscaped = true;
        else if (char === '"') this.#isInString = false;
        continue;
      }
      if (this.#start === -1) {
        if (char === " " || char === "\t" || char === "\n" || char === "\r") continue;
        this.#start = this.#at;
      }
      if (char === '"') this.#isInString = true;
      else if (char === "{" || char === "[") this.#depth++;
      else if (char === "}" || char === "]") this.#depth--;
      if (this.#depth <= 0 && (char === "}" || char === "]")) {
        values.push(this.#text.substring(this.#start, this.#at + 1));
        this.#text = this.#text.substring(this.#at + 1);
        this.#at = -1;
        this.#start = -1;
        this.#depth = 0;
      }
    }
    return values;
  }

  /** What is left at the end: an unfinished value, or empty. */
  rest(): string {
    return this.#text.trim();
  }
}
