// Go's encoding/json by hand: bare 64-bit digits, base64 bytes, HTML characters escaped, keys in the order they are
// given. Values are built as text, since JSON.stringify knows neither bare bigints nor Go's escapes.

/** A piece of finished JSON. */
export interface Json {
  readonly json: string;
}

const raw = (json: string): Json => ({ json });

export const number = (value: number | bigint): Json => raw(value.toString());
export const boolean = (value: boolean): Json => raw(value ? "true" : "false");
export const nothing: Json = raw("null");
export const base64 = (bytes: Uint8Array): Json =>
  raw(`"${Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64")}"`);

/** A string as Go writes it: HTML characters, U+2028 and U+2029 escaped; what is no UTF-8 as U+FFFD. */
export function string(value: string): Json {
  const wellFormed = value.replace(/\p{Surrogate}/gu, "\ufffd");
  return raw(JSON.stringify(wellFormed).replace(/[<>&\u2028\u2029]/g, unicodeEscape));
}

const unicodeEscape = (character: string): string => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;

export const list = (items: readonly Json[]): Json => raw(`[${items.map((item) => item.json).join(",")}]`);

/** An object; fields that are undefined are left out. */
export function object(fields: Readonly<Record<string, Json | undefined>>): Json {
  const parts: string[] = [];
  for (const [key, value] of Object.entries(fields)) if (value) parts.push(`"${key}":${value.json}`);
  return raw(`{${parts.join(",")}}`);
}

/** The `omitempty` of a number, a text, a flag, bytes or a list. */
export const optional = {
  number: (value: number | bigint): Json | undefined => (value ? number(value) : undefined),
  string: (value: string): Json | undefined => (value === "" ? undefined : string(value)),
  boolean: (value: boolean): Json | undefined => (value ? boolean(value) : undefined),
  base64: (value: Uint8Array): Json | undefined => (value.length === 0 ? undefined : base64(value)),
  list: <T>(items: readonly T[], each: (item: T) => Json): Json | undefined =>
    items.length === 0 ? undefined : list(items.map(each)),
};
