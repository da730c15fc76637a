// Header blocks as the bench's client writes and reads them: HPACK (RFC 7541) with the dynamic table on both sides.
//
// After the first answers of a connection every block is made of references to tables alone, which change nothing; so a
// decoded block is remembered by its bytes until an insertion makes them mean something else.

/** The static table's entries that an answer of a gRPC server refers to; the others are only counted. */
const STATIC_COUNT = 61;
const STATIC = new Map([
  [8, [":status", "200"]],
  [9, [":status", "204"]],
  [10, [":status", "206"]],
  [11, [":status", "304"]],
  [12, [":status", "400"]],
  [13, [":status", "404"]],
  [14, [":status", "500"]],
  [28, ["content-length", ""]],
  [31, ["content-type", ""]],
  [33, ["date", ""]],
  [54, ["server", ""]],
]);
const PATH_NAME_INDEX = 4;
const AUTHORITY_NAME_INDEX = 1;
const CONTENT_TYPE_NAME_INDEX = 31;
const USER_AGENT_NAME_INDEX = 58;
const METHOD_POST_INDEX = 3;
const SCHEME_HTTP_INDEX = 6;
const TABLE_BYTES = 4096;
const ENTRY_OVERHEAD_BYTES = 32;

// biome-ignore format: a table
const HUFFMAN_LENGTHS = [
  13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
  28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
  13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6,
  5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
];

/** Codes of ASCII (longer ones do not occur in what servers say here), by `length:code`. */
const SYMBOLS = (() => {
  const symbols = new Map();
  let code = 0;
  for (let length = 1; length <= 15; length++) {
    code *= 2;
    HUFFMAN_LENGTHS.forEach((bits, symbol) => {
      if (bits === length) symbols.set(length * 65536 + code++, String.fromCharCode(symbol));
    });
  }
  return symbols;
})();

function huffmanText(bytes, start, end) {
  let text = "";
  let code = 0;
  let length = 0;
  for (let i = start; i < end; i++) {
    for (let bit = 7; bit >= 0; bit--) {
      code = code * 2 + ((bytes[i] >> bit) & 1);
      length++;
      const symbol = length <= 15 ? SYMBOLS.get(length * 65536 + code) : undefined;
      if (symbol !== undefined) {
        text += symbol;
        code = 0;
        length = 0;
      }
    }
  }
  return text;
}

/** A peer's table and the blocks that are known to be made of references alone. */
export class BlockReader {
  #table = [];
  #tableBytes = 0;
  #known = new Map();

  /** Fields of a block as a Map; the same Map for the same block, so it must not be changed. */
  read(bytes, start, end) {
    const name = bytes.latin1Slice(start, end);
    const known = this.#known.get(name);
    if (known) return known;
    const fields = new Map();
    let at = start;
    let hasChanged = false;
    const integer = (prefixBits) => {
      const mask = 2 ** prefixBits - 1;
      let value = bytes[at++] & mask;
      if (value < mask) return value;
      for (let shift = 0; ; shift += 7) {
        const byte = bytes[at++];
        value += (byte & 0x7f) * 2 ** shift;
        if (byte < 0x80) return value;
      }
    };
    const text = () => {
      const isHuffman = (bytes[at] & 0x80) !== 0;
      const length = integer(7);
      const from = at;
      at += length;
      return isHuffman ? huffmanText(bytes, from, at) : bytes.latin1Slice(from, at);
    };
    while (at < end) {
      const first = bytes[at];
      if (first >= 0x80) {
        const [key, value] = this.#entry(integer(7));
        fields.set(key, value);
      } else if ((first & 0xe0) === 0x20) {
        this.#shrink(integer(5));
        hasChanged = true;
      } else {
        const isIndexed = (first & 0xc0) === 0x40;
        const index = integer(isIndexed ? 6 : 4);
        const key = index === 0 ? text() : this.#entry(index)[0];
        const value = text();
        fields.set(key, value);
        if (isIndexed) {
          this.#table.unshift([key, value]);
          this.#tableBytes += key.length + value.length + ENTRY_OVERHEAD_BYTES;
          this.#shrink(TABLE_BYTES);
          hasChanged = true;
        }
      }
    }
    if (hasChanged) this.#known.clear();
    else if (this.#known.size < 1000) this.#known.set(name, fields);
    return fields;
  }

  #entry(index) {
    if (index <= STATIC_COUNT) return STATIC.get(index) ?? [`static-${index}`, ""];
    const entry = this.#table[index - STATIC_COUNT - 1];
    if (!entry) throw new Error(`a header block refers to entry ${index}`);
    return entry;
  }

  #shrink(bytesMax) {
    while (this.#tableBytes > bytesMax) {
      const [key, value] = this.#table.pop();
      this.#tableBytes -= key.length + value.length + ENTRY_OVERHEAD_BYTES;
    }
  }
}

/** Request headers of one connection: each path is spelled out once and is a few bytes from then on. */
export class BlockWriter {
  #authority;
  #inserted = [];
  #blocks = new Map();

  constructor(authority) {
    this.#authority = authority;
  }

  block(path) {
    const known = this.#blocks.get(path);
    if (known) return known;
    const isNew = !this.#inserted.includes(path);
    const block = this.#make(path);
    // An insertion moves the places of all that were there before.
    if (isNew) this.#blocks.clear();
    else this.#blocks.set(path, block);
    return block;
  }

  #make(path) {
    const bytes = [0x80 | METHOD_POST_INDEX, 0x80 | SCHEME_HTTP_INDEX];
    const put = (nameIndex, name, value) => {
      const place = this.#inserted.indexOf(name === ":path" ? value : name);
      if (place >= 0) {
        bytes.push(0x80 | (STATIC_COUNT + this.#inserted.length - place));
        return;
      }
      bytes.push(0x40 | nameIndex);
      if (nameIndex === 0) bytes.push(name.length, ...Buffer.from(name));
      bytes.push(value.length, ...Buffer.from(value));
      this.#inserted.push(name === ":path" ? value : name);
    };
    put(PATH_NAME_INDEX, ":path", path);
    put(AUTHORITY_NAME_INDEX, ":authority", this.#authority);
    put(CONTENT_TYPE_NAME_INDEX, "content-type", "application/grpc");
    put(USER_AGENT_NAME_INDEX, "user-agent", "etcd-ts-bench");
    put(0, "te", "trailers");
    return Buffer.from(bytes);
  }
}
