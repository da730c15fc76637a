/**
 * HPACK (RFC 7541): header blocks to names and values and back.
 *
 * The decoder keeps the peer's dynamic table, bounded by what we announce. The encoder serves a gRPC server, whose answers
 * repeat a handful of headers for ever: those go into the peer's dynamic table once and are one byte each from then
 * on; anything else is a literal that leaves no trace.
 */
import { huffmanDecode } from "./huffman.ts";

/** A header block that breaks RFC 7541; the connection cannot go on, as both tables may differ now. */
export class HpackError extends Error {
  override readonly name = "HpackError";
}

/** Names and values alternate. Texts hold a char a byte. */
export type HeaderList = readonly string[];

const STATIC: readonly (readonly [string, string])[] = [
  [":authority", ""],
  [":method", "GET"],
  [":method", "POST"],
  [":path", "/"],
  [":path", "/index.html"],
  [":scheme", "http"],
  [":scheme", "https"],
  [":status", "200"],
  [":status", "204"],
  [":status", "206"],
  [":status", "304"],
  [":status", "400"],
  [":status", "404"],
  [":status", "500"],
  ["accept-charset", ""],
  ["accept-encoding", "gzip, deflate"],
  ["accept-language", ""],
  ["accept-ranges", ""],
  ["accept", ""],
  ["access-control-allow-origin", ""],
  ["age", ""],
  ["allow", ""],
  ["authorization", ""],
  ["cache-control", ""],
  ["content-disposition", ""],
  ["content-encoding", ""],
  ["content-language", ""],
  ["content-length", ""],
  ["content-location", ""],
  ["content-range", ""],
  ["content-type", ""],
  ["cookie", ""],
  ["date", ""],
  ["etag", ""],
  ["expect", ""],
  ["expires", ""],
  ["from", ""],
  ["host", ""],
  ["if-match", ""],
  ["if-modified-since", ""],
  ["if-none-match", ""],
  ["if-range", ""],
  ["if-unmodified-since", ""],
  ["last-modified", ""],
  ["link", ""],
  ["location", ""],
  ["max-forwards", ""],
  ["proxy-authenticate", ""],
  ["proxy-authorization", ""],
  ["range", ""],
  ["referer", ""],
  ["refresh", ""],
  ["retry-after", ""],
  ["server", ""],
  ["set-cookie", ""],
  ["strict-transport-security", ""],
  ["transfer-encoding", ""],
  ["user-agent", ""],
  ["vary", ""],
  ["via", ""],
  ["www-authenticate", ""],
];
const STATIC_COUNT = STATIC.length;
/** What RFC 7541 section 4.1 charges for an entry besides its texts. */
const ENTRY_OVERHEAD_BYTES = 32;
export const DEFAULT_TABLE_BYTES = 4096;

/**
 * A decoded block. One that is made of references to the tables alone means the same until the table changes, so it is
 * decoded once and shared by all requests that send it.
 */
export interface HeaderBlock {
  readonly fields: HeaderList;
  /** What the room above made of the fields: kept as long as the block is. */
  memo: unknown;
}

/** Longer blocks are not remembered, ... */
const REMEMBERED_BYTES_MAX = 64;
/** ... nor more than this many; honest clients have a few. */
const REMEMBERED_MAX = 64;

export class HpackDecoder {
  readonly #remembered = new Map<string, HeaderBlock>();
  readonly #tableBytesMax: number;
  readonly #listBytesMax: number;
  /** Newest last. Entries before #first are evicted and wait to be cut off. */
  #names: string[] = [];
  #values: string[] = [];
  #first = 0;
  #tableBytes = 0;
  #tableLimit: number;
  #bytes: Buffer = Buffer.alloc(0);
  #at = 0;

  /** `listBytesMax` bounds the names and values of one block, as RFC 9113 section 6.5.2 counts them. */
  constructor(tableBytesMax: number, listBytesMax: number) {
    this.#tableBytesMax = tableBytesMax;
    this.#tableLimit = tableBytesMax;
    this.#listBytesMax = listBytesMax;
  }

  /** As {@link decode}, remembering. */
  read(block: Buffer): HeaderBlock | undefined {
    if (block.length > REMEMBERED_BYTES_MAX) return this.#new(block);
    const name = block.toString("latin1", 0, block.length);
    const known = this.#remembered.get(name);
    if (known) return known;
    const isReferences = areReferences(block);
    const decoded = this.#new(block);
    if (isReferences && decoded && this.#remembered.size < REMEMBERED_MAX) this.#remembered.set(name, decoded);
    return decoded;
  }

  #new(block: Buffer): HeaderBlock | undefined {
    const fields = this.decode(block);
    return fields && { fields, memo: undefined };
  }

  /**
   * Decodes one whole block. Undefined when the list is too large: the tables are in order, only this request is lost.
   * Throws HpackError when the connection is.
   */
  decode(block: Buffer): HeaderList | undefined {
    this.#bytes = block;
    this.#at = 0;
    const list: string[] = [];
    let listBytes = 0;
    let mayResize = true;
    while (this.#at < block.length) {
      const byte = block[this.#at] as number;
      let name: string;
      let value: string;
      if (byte >= 0x80) {
        const index = this.#integer(7);
        if (index <= STATIC_COUNT) {
          const entry = STATIC[index - 1];
          if (!entry) throw new HpackError("index 0");
          [name, value] = entry;
        } else {
          const slot = this.#slot(index);
          name = this.#names[slot] as string;
          value = this.#values[slot] as string;
        }
      } else if (byte >= 0x40) {
        name = this.#name(this.#integer(6));
        value = this.#string();
        this.#add(name, value);
      } else if (byte >= 0x20) {
        if (!mayResize) throw new HpackError("a table size update after a field");
        const size = this.#integer(5);
        if (size > this.#tableBytesMax) throw new HpackError("a table larger than allowed");
        this.#tableLimit = size;
        this.#remembered.clear();
        this.#evict(0);
        continue;
      } else {
        name = this.#name(this.#integer(4));
        value = this.#string();
      }
      mayResize = false;
      listBytes += name.length + value.length + ENTRY_OVERHEAD_BYTES;
      if (listBytes <= this.#listBytesMax) list.push(name, value);
    }
    return listBytes <= this.#listBytesMax ? list : undefined;
  }

  #integer(prefixBits: number): number {
    const bytes = this.#bytes;
    const max = (1 << prefixBits) - 1;
    let value = (bytes[this.#at++] as number) & max;
    if (value < max) return value;
    for (let shift = 0; shift <= 21; shift += 7) {
      const byte = bytes[this.#at++];
      if (byte === undefined) throw new HpackError("the block ends inside a number");
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
    throw new HpackError("a number too large");
  }

  #string(): string {
    const first = this.#bytes[this.#at];
    if (first === undefined) throw new HpackError("the block ends before a text");
    const length = this.#integer(7);
    const start = this.#at;
    const end = start + length;
    if (end > this.#bytes.length) throw new HpackError("the block ends inside a text");
    this.#at = end;
    if (first < 0x80) return this.#bytes.toString("latin1", start, end);
    const text = huffmanDecode(this.#bytes, start, end, this.#listBytesMax);
    if (text === undefined) throw new HpackError("a text that is no Huffman code");
    return text;
  }

  #name(index: number): string {
    if (index === 0) return this.#string();
    const entry = STATIC[index - 1];
    return entry ? entry[0] : (this.#names[this.#slot(index)] as string);
  }

  /** Where the entry of a dynamic index lies. */
  #slot(index: number): number {
    const slot = this.#names.length - (index - STATIC_COUNT);
    if (slot < this.#first) throw new HpackError("an index beyond the table");
    return slot;
  }

  #add(name: string, value: string): void {
    this.#remembered.clear();
    const bytes = name.length + value.length + ENTRY_OVERHEAD_BYTES;
    this.#evict(bytes);
    if (bytes > this.#tableLimit) return;
    this.#names.push(name);
    this.#values.push(value);
    this.#tableBytes += bytes;
  }

  /** Drops the oldest until `extraBytes` more fit. */
  #evict(extraBytes: number): void {
    while (this.#tableBytes + extraBytes > this.#tableLimit && this.#first < this.#names.length) {
      const name = this.#names[this.#first] as string;
      const value = this.#values[this.#first] as string;
      this.#tableBytes -= name.length + value.length + ENTRY_OVERHEAD_BYTES;
      this.#first++;
    }
    if (this.#first > 256 && this.#first * 2 > this.#names.length) {
      this.#names = this.#names.splice(this.#first);
      this.#values = this.#values.splice(this.#first);
      this.#first = 0;
    }
  }
}

/** Whether a block is made of indexed fields alone, each in one byte: it cannot change a table. */
function areReferences(block: Buffer): boolean {
  for (let i = 0; i < block.length; i++) {
    const byte = block[i] as number;
    if (byte < 0x80 || byte === 0xff) return false;
  }
  return true;
}

function appendInteger(out: number[], firstByte: number, prefixBits: number, value: number): void {
  const max = (1 << prefixBits) - 1;
  if (value < max) {
    out.push(firstByte | value);
    return;
  }
  out.push(firstByte | max);
  let rest = value - max;
  for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) out.push((rest % 0x80) | 0x80);
  out.push(rest);
}

function appendString(out: number[], text: string): void {
  appendInteger(out, 0, 7, text.length);
  for (let i = 0; i < text.length; i++) out.push(text.charCodeAt(i) & 0xff);
}

/** A field that the peer is not to remember; `how` 0x40 asks it to. */
function appendLiteral(out: number[], name: string, value: string, how: 0 | 0x40): void {
  const index = STATIC.findIndex(([known]) => known === name) + 1;
  appendInteger(out, how, how === 0 ? 4 : 6, index);
  if (index === 0) appendString(out, name);
  appendString(out, value);
}

/** A block of fields that change no table: right at any moment on any connection. */
export function encodeStateless(fields: HeaderList): Buffer {
  const out: number[] = [];
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i] as string;
    const value = fields[i + 1] as string;
    const index = STATIC.findIndex((entry) => entry[0] === name && entry[1] === value) + 1;
    if (index > 0) appendInteger(out, 0x80, 7, index);
    else appendLiteral(out, name, value, 0);
  }
  return Buffer.from(out);
}

/** What a gRPC answer without an error carries. */
const CONTENT_TYPE = ["content-type", "application/grpc"] as const;
const STATUS_OK = ["grpc-status", "0"] as const;
const MESSAGE_NONE = ["grpc-message", ""] as const;
const INDEXED = 0x80;
const STATUS_200 = INDEXED | 8;
const TABLE_SIZE_ZERO = 0x20;
const NEWEST = STATIC_COUNT + 1;

const HEADERS_PLAIN = encodeStateless([":status", "200", ...CONTENT_TYPE]);
const TRAILERS_PLAIN = encodeStateless([...STATUS_OK, ...MESSAGE_NONE]);
const HEADERS_TEACH = ((out) => {
  appendLiteral(out, ...CONTENT_TYPE, 0x40);
  return Buffer.from(out);
})([STATUS_200]);
const TRAILERS_TEACH = ((out: number[]) => {
  appendLiteral(out, ...STATUS_OK, 0x40);
  appendLiteral(out, ...MESSAGE_NONE, 0x40);
  return Buffer.from(out);
})([]);
/** content-type is the newest entry until the trailers' two come after it. */
const HEADERS_BEFORE_TRAILERS = Buffer.of(STATUS_200, INDEXED | NEWEST);
const HEADERS_AFTER_TRAILERS = Buffer.of(STATUS_200, INDEXED | (NEWEST + 2));
const TRAILERS_TAUGHT = Buffer.of(INDEXED | (NEWEST + 1), INDEXED | NEWEST);

/**
 * Header blocks on one connection, to be sent in the order in which they were asked for. The fields of a successful
 * answer are put into the peer's table once and are three bytes from then on. A peer that wants a smaller table
 * than the usual one gets blocks without any memory.
 */
export class AnswerEncoder {
  #knowsHeaders = false;
  #knowsTrailers = false;
  #mayTeach = true;
  #owesUpdate = false;

  /** The peer announced the size of its table. */
  setPeerTableBytes(bytes: number): void {
    if (bytes >= DEFAULT_TABLE_BYTES || !this.#mayTeach) return;
    this.#mayTeach = false;
    this.#owesUpdate = true;
  }

  #updated(block: Buffer): Buffer {
    if (!this.#owesUpdate) return block;
    this.#owesUpdate = false;
    return Buffer.concat([Buffer.of(TABLE_SIZE_ZERO), block]);
  }

  /** Headers of an answer that has messages. */
  headers(): Buffer {
    if (!this.#mayTeach) return this.#updated(HEADERS_PLAIN);
    if (this.#knowsTrailers) return HEADERS_AFTER_TRAILERS;
    if (this.#knowsHeaders) return HEADERS_BEFORE_TRAILERS;
    this.#knowsHeaders = true;
    return HEADERS_TEACH;
  }

  /** Trailers of an answer without error; its headers have been asked for before. */
  trailers(): Buffer {
    if (!this.#mayTeach) return this.#updated(TRAILERS_PLAIN);
    if (this.#knowsTrailers) return TRAILERS_TAUGHT;
    this.#knowsTrailers = true;
    return TRAILERS_TEACH;
  }

  /** Any other fields. */
  other(fields: HeaderList): Buffer {
    return this.#updated(encodeStateless(fields));
  }
}
