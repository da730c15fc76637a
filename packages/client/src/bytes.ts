/** Keys and values as callers like to write them. */

/** Text stands for its UTF-8 bytes. */
export type BytesLike = string | Uint8Array;

const encoder = new TextEncoder();

/** UTF-8 of a text; bytes as they are. */
export function toBytes(value: BytesLike): Uint8Array {
  return typeof value === "string" ? encoder.encode(value) : value;
}

/** UTF-8 text of bytes; what is not UTF-8 becomes U+FFFD. */
export function toText(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("utf8");
}

/** The end of the range of all keys that begin with `prefix`; one zero byte ("every key from here") when there is none. */
export function prefixRangeEnd(prefix: BytesLike): Uint8Array {
  const bytes = toBytes(prefix);
  for (let i = bytes.length - 1; i >= 0; i--) {
    const byte = bytes[i] as number;
    if (byte < 0xff) {
      const end = Uint8Array.from(bytes.subarray(0, i + 1));
      end[i] = byte + 1;
      return end;
    }
  }
  return new Uint8Array(1);
}

/** Which keys a request is about: one, all with a prefix, all from one on, or from one up to another. */
export interface KeyRange {
  /** All keys that begin with the key. */
  readonly prefix?: boolean | undefined;
  /** All keys from the key on. */
  readonly fromKey?: boolean | undefined;
  /** All keys from the key up to, but without, this one. */
  readonly rangeEnd?: BytesLike | undefined;
}

/** Key and range end as etcd wants them; an empty key with prefix or fromKey means every key. */
export function keyAndEnd(key: BytesLike, range: KeyRange): { key: Uint8Array; rangeEnd: Uint8Array } {
  const start = toBytes(key);
  if (range.prefix) {
    if (start.length === 0) return { key: new Uint8Array(1), rangeEnd: new Uint8Array(1) };
    return { key: start, rangeEnd: prefixRangeEnd(start) };
  }
  if (range.fromKey) return { key: start.length === 0 ? new Uint8Array(1) : start, rangeEnd: new Uint8Array(1) };
  return { key: start, rangeEnd: range.rangeEnd === undefined ? new Uint8Array(0) : toBytes(range.rangeEnd) };
}
