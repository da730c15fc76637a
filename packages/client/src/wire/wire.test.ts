import fc from "fast-check";
import { describe, expect, it } from "vitest";
import * as wire from "./index.ts";
import {
  AuthUserAddRequest,
  Compare,
  KeyValue,
  NESTING_MAX,
  PutRequest,
  RangeRequest,
  RangeResponse,
  RequestOp,
  ResponseHeader,
  TxnRequest,
  WatchCreateRequest,
  WatchResponse,
  WireError,
} from "./index.ts";
import { arbitraryMessage, codecsOf } from "./testing.ts";

const hex = (text: string) => Buffer.from(text, "hex");
const text = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");

describe("codecs", () => {
  it.each(codecsOf(wire).map((codec) => [codec.typeName, codec] as const))("%s survives a round trip", (_n, codec) => {
    fc.assert(
      fc.property(arbitraryMessage(codec), (message) => {
        expect(codec.decode(codec.encode(message as wire.Init<unknown>))).toEqual(message);
      }),
      { numRuns: 40 },
    );
  });

  it("decode() never does worse than a WireError, whatever the bytes", () => {
    const codecs = codecsOf(wire);
    fc.assert(
      fc.property(fc.constantFrom(...codecs), fc.uint8Array({ maxLength: 60 }), (codec, bytes) => {
        try {
          codec.decode(bytes);
        } catch (error) {
          expect(error).toBeInstanceOf(WireError);
        }
      }),
      { numRuns: 3000 },
    );
  });

  it("decode() of a cut message is an error or a message of the fields before the cut", () => {
    const bytes = PutRequest.encode({ key: Buffer.from("key"), value: Buffer.from("value"), lease: 7n });
    for (let at = 0; at < bytes.length; at++) {
      const cut = bytes.subarray(0, at);
      if (at === 0 || at === 5 || at === 12) PutRequest.decode(cut);
      else expect(() => PutRequest.decode(cut), `cut at ${at}`).toThrow(WireError);
    }
  });

  it("create() fills in what is left out", () => {
    expect(RangeRequest.create({ limit: 5 })).toEqual({
      key: new Uint8Array(0),
      rangeEnd: new Uint8Array(0),
      limit: 5,
      revision: 0,
      sortOrder: 0,
      sortTarget: 0,
      serializable: false,
      keysOnly: false,
      countOnly: false,
      minModRevision: 0,
      maxModRevision: 0,
      minCreateRevision: 0,
      maxCreateRevision: 0,
    });
  });

  it("bytes are views of the input", () => {
    const input = PutRequest.encode({ key: Buffer.from("abc") });
    const { key } = PutRequest.decode(input);
    input[2] = "z".charCodeAt(0);
    expect(Buffer.from(key).toString()).toBe("zbc");
  });

  it("encode() gives bytes of their own each time", () => {
    const first = PutRequest.encode({ key: Buffer.from("first") });
    const before = text(first);
    PutRequest.encode({ key: Buffer.from("other") });
    expect(text(first)).toBe(before);
  });

  it("encode() recovers after a value it refuses", () => {
    expect(() => RangeRequest.encode({ limit: 1, revision: 0.5 })).toThrow(WireError);
    expect(text(RangeRequest.encode({ limit: 1 }))).toBe("1801");
  });

  it("messages larger than the pooled buffer are written whole", () => {
    const value = Buffer.alloc(10_000_000, 7);
    const decoded = PutRequest.decode(PutRequest.encode({ key: Buffer.from("k"), value }));
    expect(decoded.value.length).toBe(value.length);
    expect(Buffer.compare(decoded.value, value)).toBe(0);
    const kvs = Array.from({ length: 5000 }, (_, i) => KeyValue.create({ key: Buffer.from(`key-${i}`), version: i }));
    expect(RangeResponse.decode(RangeResponse.encode({ kvs, count: 5000 })).kvs).toEqual(
      kvs.map((kv) => ({ ...kv, key: new Uint8Array(kv.key) })),
    );
  });
});

describe("64-bit integers", () => {
  it("counters saturate at the safe integers, both ways", () => {
    const high = hex("20ffffffffffffffff7f"); // RangeRequest.revision = 2^63 - 1
    const low = hex("2080808080808080808001"); // -2^63
    expect(RangeRequest.decode(high).revision).toBe(Number.MAX_SAFE_INTEGER);
    expect(RangeRequest.decode(low).revision).toBe(Number.MIN_SAFE_INTEGER);
    expect(ResponseHeader.decode(hex("20ffffffffffffffffff01")).raftTerm).toBe(Number.MAX_SAFE_INTEGER);
  });

  it("identities keep all 64 bits", () => {
    fc.assert(
      fc.property(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), (memberId) => {
        expect(ResponseHeader.decode(ResponseHeader.encode({ memberId })).memberId).toBe(memberId);
        const lease = BigInt.asIntN(64, memberId);
        expect(PutRequest.decode(PutRequest.encode({ lease })).lease).toBe(lease);
      }),
    );
  });

  it.each([0, 1, 127, 128, 2 ** 28, 2 ** 31, 2 ** 32, 2 ** 35, 2 ** 42, 2 ** 49, Number.MAX_SAFE_INTEGER])(
    "%d and its negative survive",
    (value) => {
      for (const revision of [value, -value, value - 1]) {
        expect(RangeRequest.decode(RangeRequest.encode({ revision })).revision + 0).toBe(revision + 0);
      }
    },
  );

  it("refuses numbers that are no integers, and negative unsigned ones", () => {
    for (const revision of [0.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53]) {
      expect(() => RangeRequest.encode({ revision })).toThrow(WireError);
    }
    expect(() => ResponseHeader.encode({ raftTerm: -1 })).toThrow(WireError);
  });
});

describe("strictness", () => {
  it.each([
    ["a known field with another wire type", "0801"],
    ["a group", "0b0c"],
    ["an end of a group", "0c"],
    ["wire type 6", "0e"],
    ["wire type 7", "0f"],
    ["field number 0", "0200"],
    ["a length past the end", "0a05"],
    ["a tag cut in two", "80"],
    ["a varint of eleven bytes", "18ffffffffffffffffffff01"],
    ["an unknown group", "a306a406"],
  ])("%s is an error", (_what, bytes) => {
    expect(() => PutRequest.decode(hex(bytes))).toThrow(WireError);
  });

  it("unknown fields of each wire type are skipped", () => {
    const message = PutRequest.decode(hex("a00601" + "a1060102030405060708" + "a2060161" + "a50601020304" + "0a016b"));
    expect(text(message.key)).toBe("6b");
  });

  it("a nested field that leaves its message is an error", () => {
    // TxnRequest.compare of two bytes, whose key claims five.
    expect(() => TxnRequest.decode(hex("0a021a05" + "6161616161"))).toThrow(WireError);
  });

  it("nesting is bounded", () => {
    const nested = (depth: number) => {
      let bytes: Uint8Array = TxnRequest.encode({});
      for (let i = 0; i < depth; i++) {
        const op = Buffer.concat([hex("22"), varint(bytes.length), bytes]);
        bytes = Buffer.concat([hex("12"), varint(op.length), op]);
      }
      return bytes;
    };
    expect(TxnRequest.decode(nested(100)).success).toHaveLength(1);
    expect(() => TxnRequest.decode(nested(NESTING_MAX))).toThrow(WireError);
    expect(() => TxnRequest.decode(nested(20_000))).toThrow(WireError);
  });

  it("packed and unpacked lists are both read", () => {
    expect(WatchCreateRequest.decode(hex("2a020001")).filters).toEqual([0, 1]);
    expect(WatchCreateRequest.decode(hex("28002801")).filters).toEqual([0, 1]);
    expect(text(WatchCreateRequest.encode({ filters: [0, 1] }))).toBe("2a020001");
  });

  it("a message that comes twice is joined, as protobuf asks", () => {
    const twice = Buffer.concat([
      WatchResponse.encode({ header: { clusterId: 1n, revision: 5 } }),
      WatchResponse.encode({ header: { memberId: 2n, revision: 6 } }),
    ]);
    expect(WatchResponse.decode(twice).header).toEqual({ clusterId: 1n, memberId: 2n, revision: 6, raftTerm: 0 });
  });

  it("of a oneof the last member counts", () => {
    const both = Buffer.concat([hex("2005"), hex("3a0161")]); // version = 5, then value = "a"
    expect(Compare.decode(both).targetUnion).toEqual({ kind: "value", value: new Uint8Array([0x61]) });
  });

  it("a chosen member of a oneof is written even when it is zero", () => {
    expect(text(Compare.encode({ targetUnion: { kind: "version", value: 0 } }))).toBe("2000");
    expect(text(RequestOp.encode({ request: { kind: "requestPut", value: {} } }))).toBe("1200");
    expect(RequestOp.decode(hex("")).request).toBeUndefined();
  });

  it("enum numbers nobody knows stay", () => {
    expect(RangeRequest.decode(hex("286330ffffffffffffffffff01"))).toMatchObject({ sortOrder: 99, sortTarget: -1 });
  });
});

describe("strings", () => {
  it("any bytes survive, UTF-8 or not", () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 1, maxLength: 80 }), (bytes) => {
        const input = Buffer.concat([hex("0a"), varint(bytes.length), bytes]);
        const { name } = AuthUserAddRequest.decode(input);
        expect(text(AuthUserAddRequest.encode({ name }))).toBe(text(input));
      }),
      { numRuns: 2000 },
    );
  });

  it("UTF-8 is read as what it says, also U+FFFD itself", () => {
    for (const name of ["röt", "漢字".repeat(30), "😀", "\ufffd", "a\u0000b", "x".repeat(100)]) {
      expect(AuthUserAddRequest.decode(AuthUserAddRequest.encode({ name })).name).toBe(name);
    }
  });
});

function varint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  for (; rest >= 0x80; rest >>>= 7) bytes.push((rest & 0x7f) | 0x80);
  bytes.push(rest);
  return Buffer.from(bytes);
}
