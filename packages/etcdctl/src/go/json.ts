// Go's encoding/json: bare 64-bit digits, base64 bytes, HTML characters escaped, keys in the order they stand. Written
// by hand, since JSON.stringify knows neither bare bigints nor Go's escapes.

/** What can be written. A field that is undefined is left out. */
export type Json = null | boolean | number | bigint | string | Uint8Array | readonly Json[] | JsonObject;

export interface JsonObject {
  readonly [name: string]: Json | undefined;
}

export function encodeJson(value: Json): string {
  switch (typeof value) {
    case "string":
      return encodeString(value);
    case "number":
    case "bigint":
    case "boolean":
      return String(value);
    default:
      if (value === null) return "null";
      if (value instanceof Uint8Array) return `"${base64(value)}"`;
      return isList(value) ? `[${value.map(encodeJson).join(",")}]` : encodeObject(value);
  }
}

export const isList = (value: Json): value is readonly Json[] => Array.isArray(value);

export const base64 = (bytes: Uint8Array): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64");

function encodeObject(object: JsonObject): string {
  let out = "";
  for (const name in object) {
    const value = object[name];
    if (value !== undefined) out += `${out === "" ? "" : ","}"${name}":${encodeJson(value)}`;
  }
  return `{${out}}`;
}

/** HTML characters, U+2028 and U+2029 are escaped; what is no UTF-8 becomes U+FFFD. */
function encodeString(value: string): string {
  const wellFormed = value.replace(/\p{Surrogate}/gu, "\ufffd");
  return JSON.stringify(wellFormed).replace(/[<>&\u2028\u2029]/g, unicodeEscape);
}

const unicodeEscape = (character: string): string => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;

/** The value, or undefined where Go's `omitempty` leaves it out: zero, false, and what is empty. */
export function omitEmpty<T extends Json>(value: T): T | undefined {
  if (value instanceof Uint8Array || typeof value === "string") return value.length === 0 ? undefined : value;
  if (isList(value)) return value.length === 0 ? undefined : value;
  return value ? value : undefined;
}
