/**
 * Bytes: comparing, keeping and naming them. Knows nothing of etcd.
 *
 * `Uint8Array.slice` copies and `Buffer.slice` does not; `toString` differs as well. So neither is used in this
 * project: `subarray` to look, {@link copyBytes} to keep, {@link keyString} for Map keys and ordered strings.
 */

/** One UTF-16 unit per byte, so that `<` on two of these is the byte order of the keys they stand for. */
export type KeyString = string & { readonly brand: "KeyString" };

export const EMPTY_BYTES: Uint8Array = new Uint8Array(0);

/** A view of the same memory as a Buffer; nothing is copied. */
export function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** A copy in memory of its own. A kept view would pin the whole message that it points into. */
export function copyBytes(bytes: Uint8Array): Buffer {
  const copy = Buffer.allocUnsafeSlow(bytes.length);
  copy.set(bytes, 0);
  return copy;
}

/** Above it a call costs less than a loop. */
const COPY_BY_HAND_MAX = 24;

/** Copies all of `source` to `at`. */
export function copyInto(bytes: Uint8Array, at: number, source: Uint8Array): void {
  const { length } = source;
  if (length > COPY_BY_HAND_MAX) bytes.set(source, at);
  else for (let i = 0; i < length; i++) bytes[at + i] = source[i] as number;
}

export function keyString(bytes: Uint8Array): KeyString {
  return asBuffer(bytes).toString("latin1") as KeyString;
}

/** The inverse of {@link keyString}; the result is a fresh Buffer. */
export function keyBytes(key: KeyString): Buffer {
  return Buffer.from(key, "latin1");
}

export function utf8Bytes(text: string): Buffer {
  return Buffer.from(text, "utf8");
}

export function utf8Text(bytes: Uint8Array): string {
  return asBuffer(bytes).toString("utf8");
}

/** Negative, zero or positive, in the order of unsigned bytes; a prefix comes before what it begins. */
export function compareBytes(a: Uint8Array, b: Uint8Array): number {
  return Buffer.compare(a, b);
}

export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && Buffer.compare(a, b) === 0;
}

export function concatBytes(...parts: readonly Uint8Array[]): Buffer {
  return Buffer.concat(parts);
}

export function hex(bytes: Uint8Array): string {
  return asBuffer(bytes).toString("hex");
}

/** An id as etcd prints it: unsigned, lower-case hex, no padding. */
export function hexId(id: bigint): string {
  return BigInt.asUintN(64, id).toString(16);
}

/** The first key after all keys that begin with `prefix`; a single zero byte ("to the end") when there is none. */
export function prefixEnd(prefix: Uint8Array): Uint8Array {
  for (let i = prefix.length - 1; i >= 0; i--) {
    const byte = prefix[i] as number;
    if (byte < 0xff) {
      const end = copyBytes(prefix.subarray(0, i + 1));
      end[i] = byte + 1;
      return end;
    }
  }
  return new Uint8Array(1);
}
