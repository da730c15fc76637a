import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Entry, Message, MessageType } from "../pb/raftpb.ts";
import {
  CodecError,
  encodeMessageFrame,
  isLinkHeartbeat,
  LINK_HEARTBEAT,
  MessageDecoder,
  MsgAppDecoder,
  MsgAppEncoder,
  messageEncoder,
  type StreamDecoder,
  type StreamEncoder,
} from "./codec.ts";

const LOCAL = 0xaan;
const REMOTE = 0xffff_ffff_ffff_fffen;

function app(fields: Partial<Message>): Message {
  return Message.create({ type: MessageType.MsgApp, from: REMOTE, to: LOCAL, ...fields });
}
const entry = (term: number, index: number, data = "x"): Entry => ({ type: 0, term, index, data: Buffer.from(data) });

function encodeAll(encoder: StreamEncoder, messages: readonly Message[]): Buffer {
  const pieces: Uint8Array[] = [];
  let size = 0;
  for (const message of messages) size += encoder.encode(message, pieces);
  const bytes = Buffer.concat(pieces);
  expect(bytes.length).toBe(size);
  return bytes;
}

/** Feeds the bytes in pieces of the given sizes, repeated. */
function decodeAll(decoder: StreamDecoder, bytes: Buffer, sizes: readonly number[] = [bytes.length || 1]): Message[] {
  const messages: Message[] = [];
  for (let at = 0, i = 0; at < bytes.length; i++) {
    const size = sizes[i % sizes.length] as number;
    decoder.push(bytes.subarray(at, at + size), (message) => messages.push(message));
    at += size;
  }
  return messages;
}

describe("the message stream", () => {
  it("has etcd's bytes for a link heartbeat, and does not hand it on", () => {
    const golden = "000000000000001e08081000180020002800300040004a0a12080a0228001000180050005800";
    expect(Buffer.from(messageEncoder.heartbeat).toString("hex")).toBe(golden);
    expect(isLinkHeartbeat(LINK_HEARTBEAT)).toBe(true);
    expect(decodeAll(new MessageDecoder(), Buffer.from(golden + golden, "hex"))).toEqual([]);
  });

  it("gives back what was sent, however the bytes are cut", () => {
    fc.assert(
      fc.property(
        fc.array(fc.uint8Array({ maxLength: 200 }), { maxLength: 8 }),
        fc.array(fc.integer({ min: 1, max: 90 }), { minLength: 1, maxLength: 5 }),
        (datas, sizes) => {
          const messages = datas.map((context, i) =>
            Message.create({ type: MessageType.MsgHeartbeat, from: REMOTE, to: LOCAL, term: i, context }),
          );
          const bytes = encodeAll(messageEncoder, messages);
          expect(decodeAll(new MessageDecoder(), bytes, sizes)).toEqual(messages.map(again));
        },
      ),
    );
  });

  it("refuses a length beyond the limit, and garbage", () => {
    const huge = Buffer.alloc(8);
    huge.writeBigUInt64BE(600n * 1024n * 1024n);
    expect(() => decodeAll(new MessageDecoder(), huge)).toThrow(CodecError);
    expect(() => decodeAll(new MessageDecoder(), Buffer.alloc(8, 0xff))).toThrow(CodecError);
    const broken = Buffer.concat([Buffer.from([0, 0, 0, 0, 0, 0, 0, 2]), Buffer.from([0x08, 0xff])]);
    expect(() => decodeAll(new MessageDecoder(), broken)).toThrow(/./);
  });
});

const again = (message: Message): Message => Message.decode(Message.encode(message));

describe("the msgapp stream", () => {
  it("has etcd's bytes: full form first, then entries alone while they continue", () => {
    const first = app({ term: 1, logTerm: 1, index: 4, commit: 3, entries: [entry(1, 5)] });
    const second = app({ term: 1, logTerm: 1, index: 5, commit: 5, entries: [entry(1, 6), entry(1, 7)] });
    const third = app({ term: 1, logTerm: 1, index: 7, commit: 7 });
    const full = encodeAll(messageEncoder, [first]);
    const short = (commit: number, entries: readonly Entry[]) => {
      const parts = [Buffer.from([1]), Buffer.alloc(8)];
      parts[1]?.writeBigUInt64BE(BigInt(entries.length));
      for (const e of entries) {
        const body = Entry.encode(e);
        const length = Buffer.alloc(8);
        length.writeBigUInt64BE(BigInt(body.length));
        parts.push(length, Buffer.from(body));
      }
      const last = Buffer.alloc(8);
      last.writeBigUInt64BE(BigInt(commit));
      return Buffer.concat([...parts, last]);
    };
    const expected = Buffer.concat([Buffer.from([2]), full, short(5, second.entries), short(7, []), Buffer.from([0])]);
    const encoder = new MsgAppEncoder();
    const bytes = Buffer.concat([encodeAll(encoder, [first, second, third]), encoder.heartbeat]);
    expect(bytes.toString("hex")).toBe(expected.toString("hex"));
    expect(decodeAll(new MsgAppDecoder(LOCAL, REMOTE), bytes)).toEqual([first, second, third].map(again));
  });

  it("gives back any sequence of appends, however the bytes are cut", () => {
    const step = fc.record({
      kind: fc.constantFrom("continue", "probe", "newTerm"),
      count: fc.integer({ min: 0, max: 5 }),
      data: fc.string({ maxLength: 300 }),
      heartbeat: fc.boolean(),
    });
    fc.assert(
      fc.property(
        fc.array(step, { maxLength: 12 }),
        fc.array(fc.integer({ min: 1, max: 400 }), { minLength: 1, maxLength: 5 }),
        (steps, sizes) => {
          const encoder = new MsgAppEncoder();
          const messages: Message[] = [];
          const pieces: Uint8Array[] = [];
          let term = 1;
          let index = 10;
          for (const { kind, count, data, heartbeat } of steps) {
            const logTerm = term;
            if (kind === "newTerm") term++;
            if (kind === "probe") index = Math.max(0, index - 3);
            const entries = Array.from({ length: count }, (_, i) => entry(term, index + 1 + i, data));
            const message = app({ term, logTerm, index, commit: index, entries });
            index += count;
            messages.push(message);
            encoder.encode(message, pieces);
            if (heartbeat) pieces.push(encoder.heartbeat);
          }
          const decoded = decodeAll(new MsgAppDecoder(LOCAL, REMOTE), Buffer.concat(pieces), sizes);
          expect(decoded).toEqual(messages.map(again));
        },
      ),
    );
  });

  it("keeps what it handed out when more arrives", () => {
    const encoder = new MsgAppEncoder();
    const pieces: Uint8Array[] = [];
    for (let i = 0; i < 20; i++) {
      const message = app({ term: 1, logTerm: 1, index: i, commit: i, entries: [entry(1, i + 1, `value ${i}`)] });
      encoder.encode(message, pieces);
    }
    const decoded = decodeAll(new MsgAppDecoder(LOCAL, REMOTE), Buffer.concat(pieces), [37, 3, 101]);
    expect(decoded.map((m) => Buffer.from(m.entries[0]?.data ?? []).toString())).toEqual(
      Array.from({ length: 20 }, (_, i) => `value ${i}`),
    );
  });

  it("refuses unknown forms and lengths beyond the limit", () => {
    expect(() => decodeAll(new MsgAppDecoder(LOCAL, REMOTE), Buffer.from([7]))).toThrow(CodecError);
    const huge = Buffer.alloc(17, 0);
    huge[0] = 1;
    huge[8] = 1;
    huge.writeBigUInt64BE(2n ** 40n, 9);
    expect(() => decodeAll(new MsgAppDecoder(LOCAL, REMOTE), huge)).toThrow(CodecError);
    const pieces: Uint8Array[] = [];
    encodeMessageFrame(app({}), pieces);
    expect(Buffer.concat(pieces).length).toBeGreaterThan(8);
  });
});
