/**
 * Connections from a client that was bent by a seed: sequences of frames that are right at first, then have bytes flipped,
 * frames cut, repeated, swapped and left out, and arrive in pieces of any size, on a whole server with handlers that
 * answer at once, later, with much, with an error and with streams.
 *
 * What must hold for each: nothing is thrown out of the server; what it sends is whole frames; each call that was let in
 * ends exactly once, and its handler too; no stream and no connection outlives the socket; the server can be stopped.
 */
import { Duplex } from "node:stream";
import { gzipSync } from "node:zlib";
import { assert } from "../../../lib/assert.ts";
import { VirtualClock } from "../../../lib/clock.ts";
import { silentLogger } from "../../../lib/log.ts";
import { SeededRandom } from "../../../lib/random.ts";
import { yieldToEventLoop } from "../../../lib/wait.ts";
import type { CallContext, ResponseSink, ServiceDescriptor, ServiceRegistration } from "../../handlers.ts";
import { StatusError } from "../../status.ts";
import { FRAME_BYTES_LIMIT, FRAME_HEADER_BYTES, FrameType, PREFACE } from "../frames.ts";
import { encodeStateless } from "../hpack.ts";
import { createNativeServer } from "../transport.ts";

const ECHO_BYTES_MAX = 4096;
const BIG_ANSWER_BYTES = 100_000;
const REQUEST_BYTES_MAX = 20_000;
/** Turns of the event loop in which everything that still runs must have ended, once the socket is gone. */
const TURNS_TO_END = 100;

/** The server's end of a socket, in memory. */
class Wire extends Duplex {
  readonly chunks: Buffer[] = [];
  sentBytes = 0;
  /** A client that does not read: writes are never done. */
  isStuck = false;

  override _read(): void {}

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.chunks.push(chunk);
    this.sentBytes += chunk.length;
    if (!this.isStuck) done();
  }
}

interface Counts {
  started: number;
  ended: number;
  handlers: number;
}

function fuzzService(counts: Counts, clock: VirtualClock): ServiceRegistration {
  const codec = {
    request: { typeName: "Bytes", decode: (bytes: Uint8Array) => Buffer.from(bytes) },
    response: { typeName: "Bytes", encode: (bytes: Uint8Array) => bytes },
  };
  const unary = (name: string) => ({ path: `/fuzz.Fuzz/${name}`, kind: "unary" as const, ...codec });
  const service: ServiceDescriptor = {
    typeName: "fuzz.Fuzz",
    methods: {
      echo: unary("Echo"),
      later: unary("Later"),
      fail: unary("Fail"),
      big: unary("Big"),
      stream: { path: "/fuzz.Fuzz/Stream", kind: "bidi", ...codec },
    },
  };
  const inside = async <T>(run: () => Promise<T>): Promise<T> => {
    counts.handlers++;
    try {
      return await run();
    } finally {
      counts.handlers--;
    }
  };
  const handlers = {
    echo: (request: Buffer) => request.subarray(0, ECHO_BYTES_MAX),
    later: (request: Buffer, call: CallContext) =>
      inside(async () => {
        await clock.sleep(5, call.signal);
        return request;
      }),
    fail: (request: Buffer) => {
      if (request.length % 2 === 0) throw new StatusError(9, `no: \u00e9 ${request.length}`);
      throw new Error("of no table");
    },
    big: () => Buffer.alloc(BIG_ANSWER_BYTES, 7),
    stream: (requests: AsyncIterable<Buffer>, out: ResponseSink<Uint8Array>) =>
      inside(async () => {
        for await (const request of requests) {
          for (let i = 0; i < request.length % 7; i++) {
            if (!out.write(Buffer.alloc(request.length * 10))) await out.drained();
          }
        }
      }),
  };
  return { service, handlers };
}

function frame(type: number, flags: number, streamId: number, payload: Uint8Array): Buffer {
  const head = Buffer.alloc(FRAME_HEADER_BYTES);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(streamId, 5);
  return Buffer.concat([head, payload]);
}

const NOTHING = Buffer.alloc(0);
const METHODS = ["Echo", "Later", "Fail", "Big", "Stream", "Nothing"] as const;
/** A block that a table remembers, made of references from its second use on. */
const TAUGHT = Buffer.concat([
  Buffer.of(0x83, 0x86, 0x44),
  Buffer.of("/fuzz.Fuzz/Echo".length),
  Buffer.from("/fuzz.Fuzz/Echo"),
  Buffer.of(0x5f, "application/grpc".length),
  Buffer.from("application/grpc"),
]);
const BY_REFERENCE = Buffer.of(0x83, 0x86, 0x80 | 63, 0x80 | 62);

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value >>> 0);
  return bytes;
}

function setting(id: number, value: number): Buffer {
  return Buffer.concat([Buffer.of(0, id), uint32(value)]);
}

/** The frames of a client that keeps the rules, in an order of its own. */
function honestFrames(random: SeededRandom, count: number): Buffer[] {
  const frames = [
    frame(FrameType.Settings, 0, 0, Buffer.concat([setting(4, 1 << (8 + random.below(12))), setting(2, 0)])),
    frame(FrameType.WindowUpdate, 0, 0, uint32(1_000_000)),
  ];
  let nextId = 1;
  let isTaught = false;
  const open: number[] = [];
  const message = (): Buffer => {
    const isGzip = random.below(8) === 0;
    const plain = Buffer.alloc(random.below(random.below(5) === 0 ? 15_000 : 300), nextId);
    const body = isGzip ? gzipSync(plain) : plain;
    return Buffer.concat([Buffer.of(isGzip ? 1 : 0), uint32(body.length), body]);
  };
  while (frames.length < count) {
    const pick = open[random.below(open.length + 1)];
    switch (random.below(12)) {
      case 0:
      case 1:
      case 2:
      case 3: {
        const id = nextId;
        nextId += 2;
        let block: Buffer;
        if (random.below(2) === 0) {
          block = isTaught ? BY_REFERENCE : TAUGHT;
          isTaught = true;
        } else {
          const fields = [":method", "POST", ":scheme", "http", ":path", `/fuzz.Fuzz/${METHODS[random.below(6)]}`];
          fields.push("content-type", "application/grpc", "grpc-encoding", random.below(3) === 0 ? "identity" : "gzip");
          if (random.below(4) === 0) fields.push("grpc-timeout", `${random.below(50)}m`);
          block = encodeStateless(fields);
        }
        if (random.below(5) === 0 && block.length > 4) {
          const cut = 1 + random.below(block.length - 1);
          frames.push(frame(FrameType.Headers, 0, id, block.subarray(0, cut)));
          frames.push(frame(FrameType.Continuation, 4, id, block.subarray(cut)));
        } else frames.push(frame(FrameType.Headers, 4, id, block));
        open.push(id);
        break;
      }
      case 4:
      case 5:
      case 6:
      case 7: {
        if (pick === undefined) break;
        const body = message();
        const cut = random.below(3) === 0 ? random.below(body.length) : 0;
        if (cut > 0) frames.push(frame(FrameType.Data, 0, pick, body.subarray(0, cut)));
        const isEnd = random.below(2);
        const rest = body.subarray(cut);
        if (random.below(6) === 0) {
          const padding = random.below(20);
          const padded = Buffer.concat([Buffer.of(padding), rest, Buffer.alloc(padding)]);
          frames.push(frame(FrameType.Data, 8 | isEnd, pick, padded));
        } else frames.push(frame(FrameType.Data, isEnd, pick, rest));
        if (isEnd) open.splice(open.indexOf(pick), 1);
        break;
      }
      case 8:
        frames.push(frame(FrameType.WindowUpdate, 0, pick ?? 0, uint32(1 + random.below(50_000))));
        break;
      case 9:
        if (pick === undefined || random.below(3) > 0) break;
        frames.push(frame(FrameType.RstStream, 0, pick, uint32(8)));
        open.splice(open.indexOf(pick), 1);
        break;
      case 10:
        frames.push(frame(FrameType.Ping, random.below(2), 0, Buffer.alloc(8, 1)));
        break;
      default:
        if (random.below(3) === 0) frames.push(frame(FrameType.Settings, 1, 0, NOTHING));
        else frames.push(frame(FrameType.Settings, 0, 0, setting(4, random.below(100_000))));
    }
  }
  return frames;
}

function bend(random: SeededRandom, frames: Buffer[]): void {
  for (let times = random.below(8); times > 0; times--) {
    const at = 1 + random.below(frames.length - 1);
    const one = frames[at] as Buffer;
    switch (random.below(6)) {
      case 0:
        one[random.below(one.length)] = random.below(256);
        break;
      case 1:
        frames.splice(at, 0, Buffer.from(one));
        break;
      case 2:
        frames.splice(at, 1);
        break;
      case 3:
        frames[at] = one.subarray(0, random.below(one.length));
        break;
      case 4:
        frames.push(...frames.splice(at, 1));
        break;
      default:
        frames.splice(
          at,
          0,
          frame(random.below(12), random.below(256), random.below(40), Buffer.alloc(random.below(64), at)),
        );
    }
    if (frames.length < 2) return;
  }
}

/** What the server sent, cut into frames; whole ones but for the last, when its socket was cut. */
function checkSent(wire: Wire): void {
  const sent = Buffer.concat(wire.chunks);
  let at = 0;
  while (at + FRAME_HEADER_BYTES <= sent.length) {
    const length = sent.readUIntBE(at, 3);
    const type = sent[at + 3] as number;
    assert(length <= FRAME_BYTES_LIMIT, "a frame longer than any may be");
    assert(type <= FrameType.Continuation && type !== FrameType.PushPromise, () => `the server sent a frame ${type}`);
    at += FRAME_HEADER_BYTES + length;
  }
  assert(wire.isStuck || at === sent.length, "the server's last frame is not whole");
}

export interface FuzzResult {
  readonly frames: number;
  readonly calls: number;
}

/** One connection. Throws what broke; the seed replays it. */
export async function fuzzConnection(seed: number, framesPerConnection = 100): Promise<FuzzResult> {
  const random = new SeededRandom(seed);
  const clock = new VirtualClock();
  const counts: Counts = { started: 0, ended: 0, handlers: 0 };
  let fatal: unknown;
  const server = createNativeServer({
    services: [fuzzService(counts, clock)],
    limits: { requestBytesMax: REQUEST_BYTES_MAX, concurrentStreamsMax: 20 },
    keepAlive: { minTimeMs: 5000, intervalMs: 0, timeoutMs: 0 },
    clock,
    logger: silentLogger,
    hooks: {
      started: () => {
        counts.started++;
      },
      ended: () => {
        counts.ended++;
      },
    },
    onFatal: (error) => {
      fatal ??= error;
    },
  });
  const wire = new Wire();
  wire.isStuck = random.below(20) === 0;
  server.accept(wire, { address: "127.0.0.1:1", isTls: false, commonName: undefined });
  const frames = honestFrames(random, framesPerConnection);
  if (random.below(5) > 0) bend(random, frames);
  const bytes = Buffer.concat([PREFACE, ...frames]);
  for (let at = 0; at < bytes.length && !wire.destroyed && !wire.writableEnded; ) {
    const end = at + 1 + random.below(random.below(3) === 0 ? 20 : 4000);
    wire.push(bytes.subarray(at, end));
    at = end;
    await yieldToEventLoop();
    if (random.below(4) === 0) clock.advance(random.below(20));
  }
  switch (random.below(3)) {
    case 0:
      wire.push(null);
      break;
    case 1:
      wire.destroy();
      break;
    default:
      server.destroy();
  }
  const stopped = server.stop(1000);
  let isStopped = false;
  void stopped.then(() => {
    isStopped = true;
  });
  for (let turn = 0; turn < TURNS_TO_END && !(isStopped && counts.handlers === 0); turn++) {
    await yieldToEventLoop();
    clock.advance(100);
  }
  assert(fatal === undefined, () => `onFatal was told ${fatal}`);
  assert(isStopped, "the server cannot be stopped");
  assert(counts.handlers === 0, () => `${counts.handlers} handlers run on after their connection`);
  assert(counts.started === counts.ended, () => `${counts.started} calls began and ${counts.ended} ended`);
  checkSent(wire);
  return { frames: frames.length, calls: counts.started };
}
