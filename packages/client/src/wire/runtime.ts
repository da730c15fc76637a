/**
 * What the generated codecs stand on: a reader and a writer of protobuf's wire format, and the shapes of their
 * descriptors. The codecs are straight lines of calls to these two classes (scripts/generate-wire.mjs).
 *
 * The writer goes backwards, last field first: the length of a nested message is known when its bytes are written, so
 * nothing is measured beforehand and nothing is moved afterwards. The reader is strict: a known field with another
 * wire type, groups, lengths that leave their message and nesting beyond {@link NESTING_MAX} are errors; unknown
 * fields are skipped.
 *
 * Ownership: `bytes` fields that were decoded are views of the input and pin all of it; copy what is kept longer.
 *
 * Strings: etcd 3.5 stores and repeats strings that are not UTF-8. So that their bytes survive, a byte that is part of
 * no UTF-8 sequence is read as the lone surrogate U+DC80 + (byte - 0x80) and written back as that byte. Printers that
 * need well-formed text replace lone surrogates.
 */
import { isUtf8 } from "node:buffer";

/** Malformed protobuf input, or a value that no protobuf field can hold. */
export class WireError extends Error {
  override readonly name: string = "WireError";
}

/** Messages inside messages, at most. A transaction nested in another one costs two levels. */
export const NESTING_MAX = 1000;

/** What `encode` and `create` take: every field may be left out, at every depth. */
export type Init<T> = T extends Uint8Array | bigint | number | string | boolean | undefined | null
  ? T
  : T extends readonly (infer U)[]
    ? readonly Init<U>[]
    : T extends { kind: infer K; value: infer V }
      ? { readonly kind: K; readonly value: Init<V> }
      : { readonly [K in keyof T]?: Init<T[K]> | undefined };

export type ScalarType = "bool" | "bytes" | "string" | "int32" | "int64" | "uint32" | "uint64";

/** Names and numbers of an enum, as the .proto file spells them. */
export interface EnumInfo {
  /** `etcdserverpb.RangeRequest.SortOrder` */
  readonly typeName: string;
  readonly numberOf: Readonly<Record<string, number>>;
  readonly nameOf: Readonly<Record<number, string>>;
}

/** One field of a message, for printers of JSON and of `fields` output, and for the gateway. */
export interface FieldInfo {
  /** Name in the .proto file: `range_end`. */
  readonly name: string;
  /** `rangeEnd`; names that hold upper case already stay as they are (`ID`, `peerURLs`). */
  readonly jsonName: string;
  /** Property of the decoded message; for a member of a oneof, its `kind`. */
  readonly key: string;
  readonly number: number;
  readonly type: ScalarType | "enum" | "message";
  /** 64-bit integers: bigint when true, otherwise a number saturated at the safe integers. */
  readonly isBigint: boolean;
  readonly isRepeated: boolean;
  /** Absent and empty are different values: `undefined` when absent. */
  readonly hasPresence: boolean;
  /** Property that holds `{ kind, value }` when the field belongs to a oneof. */
  readonly oneof: string | undefined;
  readonly enum: EnumInfo | undefined;
  readonly message: (() => Codec<unknown>) | undefined;
}

/** How messages of one type are made, written, read and described. */
export interface Codec<T> {
  /** `etcdserverpb.PutRequest` */
  readonly typeName: string;
  /** In declaration order. */
  readonly fields: readonly FieldInfo[];
  /** A complete message; what `init` leaves out is zero, empty or undefined. */
  create(init?: Init<T>): T;
  /** The caller owns the result. It is a Buffer. */
  encode(init: Init<T>): Uint8Array;
  /** Throws {@link WireError}. `bytes` fields of the result are views of `bytes`. */
  decode(bytes: Uint8Array): T;
  /** For generated code. */
  write(writer: Writer, init: Init<T>): void;
  /** For generated code: reads up to `end`. */
  read(reader: Reader, end: number): T;
}

/** The one empty byte string that decoded and created messages share. */
export const EMPTY_BYTES: Uint8Array = new Uint8Array(0);

const TWO_32 = 2 ** 32;
const scratch = new DataView(new ArrayBuffer(8));

/** Reads one message after the other from a byte string. */
export class Reader {
  readonly buf: Uint8Array;
  pos: number;
  readonly limit: number;
  depth = 0;
  /** The last 64-bit varint, as two unsigned halves. */
  #lo = 0;
  #hi = 0;
  #text: Buffer | undefined;

  constructor(buf: Uint8Array) {
    this.buf = buf;
    this.pos = 0;
    this.limit = buf.length;
  }

  /** A field's number and wire type. */
  tag(): number {
    const b = this.buf[this.pos];
    if (b !== undefined && b < 0x80) {
      this.pos++;
      return b;
    }
    return this.#uint32();
  }

  #uint32(): number {
    this.#varint();
    if (this.#hi !== 0) throw new WireError("varint exceeds 32 bits");
    return this.#lo;
  }

  #varint(): void {
    const buf = this.buf;
    let pos = this.pos;
    let lo = 0;
    let hi = 0;
    for (let i = 0; i < 10; i++) {
      const b = buf[pos++];
      if (b === undefined) throw new WireError("unexpected end of input");
      const bits = b & 0x7f;
      if (i < 4) lo |= bits << (7 * i);
      else if (i === 4) {
        lo |= bits << 28;
        hi = bits >>> 4;
      } else hi |= bits << (7 * i - 32);
      if (b < 0x80) {
        this.pos = pos;
        this.#lo = lo >>> 0;
        this.#hi = hi >>> 0;
        return;
      }
    }
    throw new WireError("varint is longer than ten bytes");
  }

  /** Reads a length and says where what follows ends. */
  end(): number {
    const b = this.buf[this.pos];
    let length: number;
    if (b !== undefined && b < 0x80) {
      this.pos++;
      length = b;
    } else length = this.#uint32();
    const end = this.pos + length;
    if (end > this.limit) throw new WireError("unexpected end of input");
    return end;
  }

  bytes(): Uint8Array {
    const end = this.end();
    const start = this.pos;
    if (end === start) return EMPTY_BYTES;
    this.pos = end;
    return new Uint8Array(this.buf.buffer, this.buf.byteOffset + start, end - start);
  }

  string(): string {
    const end = this.end();
    const start = this.pos;
    if (end === start) return "";
    this.pos = end;
    const buf = this.buf;
    if (end - start <= 24) {
      let text = "";
      let at = start;
      for (; at < end; at++) {
        const b = buf[at] as number;
        if (b >= 0x80) break;
        text += String.fromCharCode(b);
      }
      if (at === end) return text;
    }
    this.#text ??= Buffer.from(buf.buffer, buf.byteOffset, buf.length);
    const text = this.#text.toString("utf8", start, end);
    if (!text.includes("\ufffd")) return text;
    const bytes = buf.subarray(start, end);
    return isUtf8(bytes) ? text : decodeBroken(bytes);
  }

  bool(): boolean {
    const b = this.buf[this.pos];
    if (b !== undefined && b < 0x80) {
      this.pos++;
      return b !== 0;
    }
    this.#varint();
    return this.#lo !== 0 || this.#hi !== 0;
  }

  int32(): number {
    const b = this.buf[this.pos];
    if (b !== undefined && b < 0x80) {
      this.pos++;
      return b;
    }
    this.#varint();
    return this.#lo | 0;
  }

  uint32(): number {
    const b = this.buf[this.pos];
    if (b !== undefined && b < 0x80) {
      this.pos++;
      return b;
    }
    this.#varint();
    return this.#lo;
  }

  /** An int64 counter: saturates at the safe integers. */
  int64(): number {
    const b = this.buf[this.pos];
    if (b !== undefined && b < 0x80) {
      this.pos++;
      return b;
    }
    this.#varint();
    const hi = this.#hi | 0;
    if (hi >= 0x200000) return Number.MAX_SAFE_INTEGER;
    if (hi < -0x200000) return Number.MIN_SAFE_INTEGER;
    const value = hi * TWO_32 + this.#lo;
    return Math.max(value, Number.MIN_SAFE_INTEGER);
  }

  /** A uint64 counter: saturates at the largest safe integer. */
  uint64(): number {
    const b = this.buf[this.pos];
    if (b !== undefined && b < 0x80) {
      this.pos++;
      return b;
    }
    this.#varint();
    return this.#hi >= 0x200000 ? Number.MAX_SAFE_INTEGER : this.#hi * TWO_32 + this.#lo;
  }

  int64n(): bigint {
    const b = this.buf[this.pos];
    if (b === 0) {
      this.pos++;
      return 0n;
    }
    this.#varint();
    if (this.#hi === 0) return BigInt(this.#lo);
    scratch.setUint32(0, this.#lo, true);
    scratch.setUint32(4, this.#hi, true);
    return scratch.getBigInt64(0, true);
  }

  uint64n(): bigint {
    const b = this.buf[this.pos];
    if (b === 0) {
      this.pos++;
      return 0n;
    }
    this.#varint();
    if (this.#hi === 0) return BigInt(this.#lo);
    scratch.setUint32(0, this.#lo, true);
    scratch.setUint32(4, this.#hi, true);
    return scratch.getBigUint64(0, true);
  }

  /** Counts a level of nesting; the matching step up is `depth--`. */
  deeper(): void {
    if (++this.depth > NESTING_MAX) throw new WireError("messages are nested too deeply");
  }

  /** The end of a message: no field may have left it. */
  done(end: number): void {
    if (this.pos !== end) throw new WireError("a field leaves its message");
  }

  /** A tag no case took: another wire type of a known field is an error, an unknown field is skipped. */
  unexpected(tag: number, isKnown: boolean, typeName: string): void {
    const number = tag >>> 3;
    if (isKnown) throw new WireError(`${typeName}: wrong wire type ${tag & 7} of field ${number}`);
    if (number === 0) throw new WireError(`${typeName}: illegal tag ${tag}`);
    switch (tag & 7) {
      case 0:
        this.#varint();
        return;
      case 1:
        this.#skip(8);
        return;
      case 2:
        this.pos = this.end();
        return;
      case 5:
        this.#skip(4);
        return;
      default:
        throw new WireError(`${typeName}: illegal wire type ${tag & 7} of field ${number}`);
    }
  }

  #skip(length: number): void {
    if (this.pos + length > this.limit) throw new WireError("unexpected end of input");
    this.pos += length;
  }
}

/**
 * Reads a message whose field appears again: protobuf joins the two, which is what decoding their bytes one after the
 * other does.
 */
export function readAgain<T>(codec: Codec<T>, before: T, reader: Reader, end: number): T {
  const first = codec.encode(before as Init<T>);
  const joined = new Uint8Array(first.length + (end - reader.pos));
  joined.set(first);
  joined.set(reader.buf.subarray(reader.pos, end), first.length);
  reader.pos = end;
  const again = new Reader(joined);
  again.depth = reader.depth;
  return codec.read(again, again.limit);
}

const FIRST_CAPACITY = 64 * 1024;
/** A pool that grew past this is given back after the message that needed it. */
const KEPT_CAPACITY_MAX = 4 * 1024 * 1024;

/** Writes a message from its end to its start. */
export class Writer {
  #buf: Buffer;
  #pos: number;
  #capacity: number;

  constructor() {
    this.#buf = Buffer.allocUnsafeSlow(FIRST_CAPACITY);
    this.#capacity = FIRST_CAPACITY;
    this.#pos = FIRST_CAPACITY;
  }

  reset(): void {
    this.#pos = this.#capacity;
  }

  /** Bytes written so far. */
  size(): number {
    return this.#capacity - this.#pos;
  }

  finish(): Uint8Array {
    const result = Buffer.allocUnsafe(this.#capacity - this.#pos);
    result.set(this.#buf.subarray(this.#pos), 0);
    if (this.#capacity > KEPT_CAPACITY_MAX) {
      this.#buf = Buffer.allocUnsafeSlow(FIRST_CAPACITY);
      this.#capacity = FIRST_CAPACITY;
    }
    this.#pos = this.#capacity;
    return result;
  }

  #grow(length: number): void {
    const size = this.#capacity - this.#pos;
    const capacity = Math.max(this.#capacity * 2, size + length);
    const buf = Buffer.allocUnsafeSlow(capacity);
    buf.set(this.#buf.subarray(this.#pos), capacity - size);
    this.#buf = buf;
    this.#capacity = capacity;
    this.#pos = capacity - size;
  }

  /** A tag of a field with a number below 16, and any other single byte. */
  byte(value: number): void {
    if (this.#pos < 1) this.#grow(1);
    this.#buf[--this.#pos] = value;
  }

  bool(value: boolean): void {
    this.byte(value ? 1 : 0);
  }

  uint32(value: number): void {
    if (value >>> 0 !== value) throw new WireError(`${value} is not a uint32`);
    this.#varint32(value);
  }

  int32(value: number): void {
    if ((value | 0) !== value) throw new WireError(`${value} is not an int32`);
    if (value >= 0) this.#varint32(value);
    else this.#varint64(value >>> 0, 0xffffffff);
  }

  /** A length, a tag or anything else below 2^32. */
  #varint32(value: number): void {
    if (this.#pos < 5) this.#grow(5);
    if (value < 0x80) {
      this.#buf[--this.#pos] = value;
      return;
    }
    const size = value < 0x4000 ? 2 : value < 0x200000 ? 3 : value < 0x10000000 ? 4 : 5;
    const buf = this.#buf;
    let at = this.#pos - size;
    this.#pos = at;
    let rest = value;
    for (let i = 1; i < size; i++) {
      buf[at++] = (rest & 0x7f) | 0x80;
      rest >>>= 7;
    }
    buf[at] = rest;
  }

  #varint64(lo: number, hi: number): void {
    if (hi === 0) {
      this.#varint32(lo);
      return;
    }
    if (this.#pos < 10) this.#grow(10);
    const size = hi < 0x8 ? 5 : hi < 0x400 ? 6 : hi < 0x20000 ? 7 : hi < 0x1000000 ? 8 : hi < 0x80000000 ? 9 : 10;
    const buf = this.#buf;
    let at = this.#pos - size;
    this.#pos = at;
    let low = lo;
    let high = hi;
    for (let i = 1; i < size; i++) {
      buf[at++] = (low & 0x7f) | 0x80;
      low = ((low >>> 7) | (high << 25)) >>> 0;
      high >>>= 7;
    }
    buf[at] = low;
  }

  /** A length or a tag. */
  varint(value: number): void {
    this.#varint32(value);
  }

  int64(value: number): void {
    if (value >>> 0 === value) {
      this.#varint32(value);
      return;
    }
    if (!Number.isSafeInteger(value)) throw new WireError(`${value} is not a safe integer`);
    this.#varint64(value >>> 0, Math.floor(value / TWO_32) >>> 0);
  }

  uint64(value: number): void {
    if (value < 0) throw new WireError(`${value} is below zero`);
    this.int64(value);
  }

  /** int64 and uint64 alike; beyond 64 bits it wraps. */
  int64n(value: bigint): void {
    if (value === 0n) {
      this.byte(0);
      return;
    }
    scratch.setBigUint64(0, value, true);
    this.#varint64(scratch.getUint32(0, true), scratch.getUint32(4, true));
  }

  bytes(value: Uint8Array): void {
    const length = value.length;
    if (this.#pos < length + 5) this.#grow(length + 5);
    const at = this.#pos - length;
    const buf = this.#buf;
    if (length <= 16) {
      for (let i = 0; i < length; i++) buf[at + i] = value[i] as number;
    } else buf.set(value, at);
    this.#pos = at;
    this.#varint32(length);
  }

  string(value: string): void {
    const length = value.length;
    if (length <= 64) {
      if (this.#pos < length + 5) this.#grow(length + 5);
      const buf = this.#buf;
      const at = this.#pos - length;
      let i = 0;
      for (; i < length; i++) {
        const c = value.charCodeAt(i);
        if (c >= 0x80) break;
        buf[at + i] = c;
      }
      if (i === length) {
        this.#pos = at;
        this.#varint32(length);
        return;
      }
    }
    if (/\p{Surrogate}/u.test(value)) {
      this.bytes(encodeBroken(value));
      return;
    }
    const size = Buffer.byteLength(value, "utf8");
    if (this.#pos < size + 5) this.#grow(size + 5);
    this.#pos -= size;
    this.#buf.write(value, this.#pos, size, "utf8");
    this.#varint32(size);
  }
}

const shared = new Writer();

/** Encodes with the writer all codecs share; encoding never yields, so one is enough. */
export function encodeWith<T>(codec: Codec<T>, init: Init<T>): Uint8Array {
  shared.reset();
  codec.write(shared, init);
  return shared.finish();
}

export function decodeWith<T>(codec: Codec<T>, bytes: Uint8Array): T {
  const reader = new Reader(bytes);
  return codec.read(reader, reader.limit);
}

/** The bytes that a string field with this text has on the wire. */
export function stringBytes(text: string): Uint8Array {
  return /\p{Surrogate}/u.test(text) ? encodeBroken(text) : Buffer.from(text, "utf8");
}

/** The text of a string field with these bytes; the inverse of {@link stringBytes}. */
export function bytesString(bytes: Uint8Array): string {
  return isUtf8(bytes)
    ? Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("utf8")
    : decodeBroken(bytes);
}

/** UTF-8 where it is UTF-8, lone surrogates for the bytes that are not. */
function decodeBroken(bytes: Uint8Array): string {
  let text = "";
  let at = 0;
  while (at < bytes.length) {
    const size = sequenceLength(bytes, at);
    if (size === 0) text += String.fromCharCode(0xdc00 + (bytes[at++] as number));
    else {
      text += Buffer.from(bytes.subarray(at, at + size)).toString("utf8");
      at += size;
    }
  }
  return text;
}

/** Length of the UTF-8 sequence at `at`, 0 when there is none. */
function sequenceLength(bytes: Uint8Array, at: number): number {
  for (let size = 1; size <= 4 && at + size <= bytes.length; size++) {
    if (isUtf8(bytes.subarray(at, at + size))) return size;
  }
  return 0;
}

function encodeBroken(text: string): Uint8Array {
  const pieces: Uint8Array[] = [];
  for (const character of text) {
    const c = character.charCodeAt(0);
    const isByte = character.length === 1 && c >= 0xdc80 && c <= 0xdcff;
    pieces.push(isByte ? Uint8Array.of(c - 0xdc00) : Buffer.from(character, "utf8"));
  }
  return Buffer.concat(pieces);
}
