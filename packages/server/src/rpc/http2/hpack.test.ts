import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { AnswerEncoder, encodeStateless, HpackDecoder, HpackError } from "./hpack.ts";
import { huffmanDecode, huffmanEncode, huffmanLength } from "./huffman.ts";

const bytes = (hex: string): Buffer => Buffer.from(hex.replaceAll(" ", ""), "hex");
const latin1 = (length: number) =>
  fc.uint8Array({ maxLength: length }).map((array) => Buffer.from(array).toString("latin1"));

describe("Huffman code", () => {
  it("meets RFC 7541's examples (C.4.1, C.6.1)", () => {
    const examples: [string, string][] = [
      ["www.example.com", "f1e3c2e5f23a6ba0ab90f4ff"],
      ["no-cache", "a8eb10649cbf"],
      ["Mon, 21 Oct 2013 20:13:21 GMT", "d07abe941054d444a8200595040b8166e082a62d1bff"],
      ["https://www.example.com", "9d29ad171863c78f0b97c8e9ae82ae43d3"],
    ];
    for (const [text, code] of examples) {
      const expected = bytes(code);
      const out = Buffer.alloc(huffmanLength(text));
      expect(huffmanEncode(text, out, 0)).toBe(expected.length);
      expect(out.toString("hex")).toBe(code);
      expect(huffmanDecode(expected, 0, expected.length, 1000)).toBe(text);
    }
  });

  it("comes back from every byte", () => {
    fc.assert(
      fc.property(latin1(300), (text) => {
        const out = Buffer.alloc(huffmanLength(text));
        huffmanEncode(text, out, 0);
        expect(huffmanDecode(out, 0, out.length, 1000)).toBe(text);
      }),
    );
  });

  it("refuses a long or wrong end and the end-of-string symbol", () => {
    const code = Buffer.concat([bytes("f1e3c2e5f23a6ba0ab90f4ff"), Buffer.of(0xff)]);
    expect(huffmanDecode(code, 0, code.length, 1000)).toBeUndefined();
    expect(huffmanDecode(Buffer.of(0xff, 0xff, 0xff, 0xff), 0, 4, 1000)).toBeUndefined();
    expect(huffmanDecode(Buffer.of(0), 0, 1, 1000)).toBeUndefined();
  });
});

describe("HpackDecoder", () => {
  it("follows RFC 7541's series of requests with one table (C.4)", () => {
    const decoder = new HpackDecoder(4096, 65_536);
    const base = [":method", "GET", ":scheme", "http", ":path", "/", ":authority", "www.example.com"];
    expect(decoder.decode(bytes("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff"))).toEqual(base);
    expect(decoder.decode(bytes("8286 84be 5886 a8eb 1064 9cbf"))).toEqual([...base, "cache-control", "no-cache"]);
    expect(decoder.decode(bytes("8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf"))).toEqual([
      ...[":method", "GET", ":scheme", "https", ":path", "/index.html", ":authority", "www.example.com"],
      ...["custom-key", "custom-value"],
    ]);
  });

  it("forgets the oldest entries when the table is full", () => {
    const decoder = new HpackDecoder(80, 65_536);
    // Two entries of 32 + 4 + 4 bytes fit; the third takes the first one's place.
    const add = (name: string) =>
      Buffer.concat([Buffer.of(0x40, 4), Buffer.from(name), Buffer.of(4), Buffer.from(name)]);
    decoder.decode(add("aaaa"));
    decoder.decode(add("bbbb"));
    decoder.decode(add("cccc"));
    expect(decoder.decode(Buffer.of(0x80 | 62, 0x80 | 63))).toEqual(["cccc", "cccc", "bbbb", "bbbb"]);
    expect(() => decoder.decode(Buffer.of(0x80 | 64))).toThrow(HpackError);
  });

  it("loses only the request when its list is too large, and keeps the table in order", () => {
    const decoder = new HpackDecoder(4096, 100);
    const long = Buffer.concat([Buffer.of(0x40, 1, 97, 60), Buffer.alloc(60, 98)]);
    expect(decoder.decode(Buffer.concat([long, long]))).toBeUndefined();
    expect(decoder.decode(Buffer.of(0x80 | 62))).toEqual(["a", "b".repeat(60)]);
  });

  it("throws nothing but HpackError, whatever comes", () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 64 }), { maxLength: 8 }), (blocks) => {
        const decoder = new HpackDecoder(256, 1024);
        try {
          for (const block of blocks) decoder.decode(Buffer.from(block));
        } catch (error) {
          expect(error).toBeInstanceOf(HpackError);
        }
      }),
      { numRuns: 2000 },
    );
  });
});

describe("encoders", () => {
  it("stateless blocks come back", () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(latin1(40), latin1(300)), { maxLength: 10 }), (fields) => {
        const list = fields.flat();
        expect(new HpackDecoder(4096, 1_000_000).decode(encodeStateless(list))).toEqual(list);
      }),
    );
  });

  it("answers come back in any order of headers and trailers, also to a client that changes its table", () => {
    const action = fc.constantFrom("headers", "trailers", "other", "shrink");
    fc.assert(
      fc.property(fc.array(action, { maxLength: 30 }), (actions) => {
        const encoder = new AnswerEncoder();
        const decoder = new HpackDecoder(4096, 65_536);
        let open = 0;
        for (const what of actions) {
          if (what === "headers") {
            expect(decoder.decode(encoder.headers())).toEqual([":status", "200", "content-type", "application/grpc"]);
            open++;
          } else if (what === "trailers" && open > 0) {
            expect(decoder.decode(encoder.trailers())).toEqual(["grpc-status", "0", "grpc-message", ""]);
            open--;
          } else if (what === "other") {
            expect(decoder.decode(encoder.other(["grpc-status", "5"]))).toEqual(["grpc-status", "5"]);
          } else if (what === "shrink") encoder.setPeerTableBytes(0);
        }
      }),
    );
  });
});
