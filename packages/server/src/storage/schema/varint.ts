/** Unsigned protobuf varints as safe numbers, for rows that are read and written without a codec. */

/** Bytes that `value` (an integer, 0 to 2^53 - 1) takes. */
export function varintLength(value: number): number {
  if (value < 2 ** 28) return value < 128 ? 1 : value < 2 ** 14 ? 2 : value < 2 ** 21 ? 3 : 4;
  return value < 2 ** 35 ? 5 : value < 2 ** 42 ? 6 : value < 2 ** 49 ? 7 : 8;
}

/** Writes `value` (an integer, 0 to 2^53 - 1) at `offset` and returns the offset behind it. */
export function writeVarint(into: Uint8Array, offset: number, value: number): number {
  let at = offset;
  let rest = value;
  while (rest > 0x7fff_ffff) {
    into[at++] = (rest % 128) | 0x80;
    rest = Math.floor(rest / 128);
  }
  while (rest >= 128) {
    into[at++] = (rest & 0x7f) | 0x80;
    rest >>>= 7;
  }
  into[at++] = rest;
  return at;
}

/** Reads varints one after the other. Throws RangeError beyond the end and for what is no safe integer. */
export class VarintCursor {
  readonly #bytes: Uint8Array;
  at: number;

  constructor(bytes: Uint8Array, at = 0) {
    this.#bytes = bytes;
    this.at = at;
  }

  get isAtEnd(): boolean {
    return this.at >= this.#bytes.length;
  }

  next(): number {
    const bytes = this.#bytes;
    let byte = bytes[this.at++];
    if (byte === undefined) throw new RangeError("varint beyond the end");
    if (byte < 128) return byte;
    let value = byte & 0x7f;
    let scale = 128;
    for (;;) {
      byte = bytes[this.at++];
      if (byte === undefined) throw new RangeError("varint beyond the end");
      value += (byte & 0x7f) * scale;
      if (byte < 128) break;
      scale *= 128;
    }
    if (!Number.isSafeInteger(value)) throw new RangeError("varint is no safe integer");
    return value;
  }

  /** All 64 bits, signed: what protobuf calls int64. */
  nextInt64(): bigint {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = this.#bytes[this.at++];
      if (byte === undefined || shift > 63n) throw new RangeError("varint beyond the end");
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 128) return BigInt.asIntN(64, value);
    }
  }

  skip(byteLength: number): void {
    this.at += byteLength;
    if (this.at > this.#bytes.length) throw new RangeError("field beyond the end");
  }
}
