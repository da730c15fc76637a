/** What a hostile or broken peer sends: GOAWAY or a reset by the book, never a throw, a leak or a hang. */
import { Duplex } from "node:stream";
import { describe, expect, it } from "vitest";
import { VirtualClock } from "../../lib/clock.ts";
import { SeededRandom } from "../../lib/random.ts";
import { ServerConnection, type ServerStream, type StreamEvents } from "./connection.ts";
import { ErrorCode, FrameType, PREFACE } from "./frames.ts";
import { encodeStateless } from "./hpack.ts";
import { CONTINUATIONS_MAX, IDLE_FRAMES_BURST, LINGER_TIMEOUT_MS, RESETS_BURST } from "./limits.ts";

/** The server's end of a connection; what the client sends is pushed, what comes back is cut into frames. */
class Wire extends Duplex {
  sent: Buffer = Buffer.alloc(0);
  /** The system takes nothing until {@link release}. */
  isHeld = false;
  #held: (() => void) | undefined;

  override _read(): void {}

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.sent = Buffer.concat([this.sent, chunk]);
    if (this.isHeld) this.#held = done;
    else done();
  }

  release(): void {
    this.isHeld = false;
    this.#held?.();
  }

  frames(): { type: number; flags: number; streamId: number; payload: Buffer }[] {
    const frames = [];
    for (let at = 0; at + 9 <= this.sent.length; ) {
      const length = this.sent.readUIntBE(at, 3);
      frames.push({
        type: this.sent[at + 3] as number,
        flags: this.sent[at + 4] as number,
        streamId: this.sent.readUInt32BE(at + 5),
        payload: this.sent.subarray(at + 9, at + 9 + length),
      });
      at += 9 + length;
    }
    return frames;
  }

  goAway(): { code: number; reason: string } | undefined {
    const frame = this.frames().find(({ type }) => type === FrameType.GoAway);
    return frame && { code: frame.payload.readUInt32BE(4), reason: frame.payload.subarray(8).toString() };
  }
}

function frame(type: number, flags: number, streamId: number, payload: Uint8Array = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(streamId, 5);
  return Buffer.concat([head, payload]);
}

const SETTINGS = frame(FrameType.Settings, 0, 0);
const REQUEST = encodeStateless([":method", "POST", ":path", "/a/b", "content-type", "application/grpc"]);
const headers = (streamId: number, flags = 5) => frame(FrameType.Headers, flags, streamId, REQUEST);
const turn = () => new Promise((resolve) => setImmediate(resolve));

function open(options: { concurrentStreamsMax?: number; onRequest?: (stream: ServerStream) => void } = {}) {
  const wire = new Wire();
  const clock = new VirtualClock();
  const gone: number[] = [];
  let isClosed = false;
  const connection = new ServerConnection(wire, {
    clock,
    concurrentStreamsMax: options.concurrentStreamsMax ?? 1000,
    pingMinTimeMs: 5000,
    pingIntervalMs: 0,
    pingTimeoutMs: 0,
    onRequest: (stream): StreamEvents => {
      options.onRequest?.(stream);
      return {
        onData: (data) => stream.giveWindow(data.length),
        onEnd() {},
        onGone: () => gone.push(stream.id),
        onDrain() {},
      };
    },
    onClose: () => {
      isClosed = true;
    },
  });
  return { wire, clock, connection, gone, isClosed: () => isClosed };
}

async function send(wire: Wire, ...parts: Buffer[]): Promise<void> {
  for (const part of parts) if (!wire.destroyed) wire.push(part);
  await turn();
  await turn();
}

/** A connection on which a client that takes 100 bytes a stream has begun a call. */
async function openWithWindow() {
  let stream: ServerStream | undefined;
  const { wire } = open({
    onRequest: (opened) => {
      stream = opened;
    },
  });
  const window = Buffer.from("000400000064", "hex"); // INITIAL_WINDOW_SIZE = 100
  await send(wire, PREFACE, frame(FrameType.Settings, 0, 0, window), headers(1));
  return { wire, stream: stream as ServerStream | undefined };
}

describe("a connection ends with GOAWAY", () => {
  it("and the socket is cut when the client does not close its side", async () => {
    const { wire, clock, isClosed } = open();
    await send(wire, PREFACE, headers(1));
    expect(isClosed()).toBe(true);
    expect(wire.destroyed).toBe(false);
    clock.advance(LINGER_TIMEOUT_MS);
    expect(wire.destroyed).toBe(true);
  });

  const endings: [string, Buffer[], number][] = [
    ["that is no HTTP/2", [Buffer.from("GET / HTTP/1.1\r\nhost: x\r\n\r\n")], ErrorCode.ProtocolError],
    ["whose first frame is not SETTINGS", [PREFACE, headers(1)], ErrorCode.ProtocolError],
    ["with a frame too large", [PREFACE, SETTINGS, frame(0, 0, 1, Buffer.alloc(16_385))], ErrorCode.FrameSizeError],
    ["with HEADERS on an even stream", [PREFACE, SETTINGS, headers(2)], ErrorCode.ProtocolError],
    ["with a stream number that goes back", [PREFACE, SETTINGS, headers(5), headers(3)], ErrorCode.StreamClosed],
    ["with DATA on an idle stream", [PREFACE, SETTINGS, frame(0, 0, 1, Buffer.of(1))], ErrorCode.ProtocolError],
    ["with a push", [PREFACE, SETTINGS, frame(FrameType.PushPromise, 0, 1)], ErrorCode.ProtocolError],
    [
      "with a broken header block",
      [PREFACE, SETTINGS, frame(1, 5, 1, Buffer.of(0xff, 0xff))],
      ErrorCode.CompressionError,
    ],
    [
      "with a header block that is interrupted",
      [PREFACE, SETTINGS, headers(1, 0), frame(FrameType.Ping, 0, 0, Buffer.alloc(8))],
      ErrorCode.ProtocolError,
    ],
    [
      "with a window beyond 2^31 - 1",
      [PREFACE, SETTINGS, frame(FrameType.WindowUpdate, 0, 0, Buffer.from("7fffffff", "hex"))],
      ErrorCode.FlowControlError,
    ],
  ];
  for (const [name, parts, code] of endings) {
    it(name, async () => {
      const { wire, isClosed } = open();
      await send(wire, ...parts);
      expect(wire.goAway()?.code).toBe(code);
      expect(isClosed()).toBe(true);
    });
  }

  it("in a CONTINUATION flood", async () => {
    const { wire } = open();
    const parts = Array.from({ length: CONTINUATIONS_MAX + 1 }, () =>
      frame(FrameType.Continuation, 0, 1, Buffer.of(0)),
    );
    await send(wire, PREFACE, SETTINGS, headers(1, 0), ...parts);
    expect(wire.goAway()?.code).toBe(ErrorCode.EnhanceYourCalm);
  });

  it("in a rapid reset, and keeps no stream", async () => {
    const { wire, gone } = open();
    await send(wire, PREFACE, SETTINGS);
    const cancel = Buffer.from("00000008", "hex");
    for (let i = 0; i <= RESETS_BURST + 1; i++) {
      await send(wire, headers(2 * i + 1), frame(FrameType.RstStream, 0, 2 * i + 1, cancel));
      if (wire.destroyed || wire.goAway()) break;
    }
    expect(wire.goAway()?.code).toBe(ErrorCode.EnhanceYourCalm);
    expect(gone.length).toBeGreaterThanOrEqual(RESETS_BURST);
  });

  it("in a flood of SETTINGS", async () => {
    const { wire } = open();
    await send(wire, PREFACE, Buffer.concat(Array.from({ length: IDLE_FRAMES_BURST + 2 }, () => SETTINGS)));
    expect(wire.goAway()?.code).toBe(ErrorCode.EnhanceYourCalm);
  });

  it("after pings that come too soon, as grpc-go does", async () => {
    const { wire } = open();
    const ping = frame(FrameType.Ping, 0, 0, Buffer.alloc(8));
    await send(wire, PREFACE, SETTINGS, headers(1, 4), ping, ping, ping, ping);
    expect(wire.goAway()).toEqual({ code: ErrorCode.EnhanceYourCalm, reason: "too_many_pings" });
  });
});

describe("a connection", () => {
  it("refuses streams over the limit and goes on", async () => {
    const { wire, connection } = open({ concurrentStreamsMax: 2 });
    await send(wire, PREFACE, SETTINGS, headers(1, 4), headers(3, 4), headers(5, 4));
    const reset = wire.frames().find(({ type }) => type === FrameType.RstStream);
    expect(reset?.streamId).toBe(5);
    expect(reset?.payload.readUInt32BE(0)).toBe(ErrorCode.RefusedStream);
    expect(connection.streamCount).toBe(2);
  });

  it("sends no more than the windows allow, and all of it in the end", async () => {
    const { wire, stream } = await openWithWindow();
    stream?.sendHeaders();
    stream?.write([Buffer.alloc(1000, 1)]);
    stream?.finishOk();
    const received = () =>
      wire.frames().reduce((sum, { type, payload }) => sum + (type === FrameType.Data ? payload.length : 0), 0);
    await turn();
    expect(received()).toBe(100);
    await send(wire, frame(FrameType.WindowUpdate, 0, 1, Buffer.from("00000320", "hex")));
    expect(received()).toBe(900);
    await send(wire, frame(FrameType.WindowUpdate, 0, 1, Buffer.from("00000064", "hex")));
    expect(received()).toBe(1000);
    expect(wire.frames().at(-1)).toMatchObject({ type: FrameType.Headers, flags: 5, streamId: 1 });
  });

  it("tells when all of an answer has left, through the windows and into the system", async () => {
    const { wire, stream } = await openWithWindow();
    let told = 0;
    const ask = () => stream?.whenSent(() => told++);
    stream?.sendHeaders();
    stream?.write([Buffer.alloc(300, 1)]);
    ask();
    await send(wire, frame(FrameType.WindowUpdate, 0, 1, Buffer.from("00000064", "hex")));
    expect(told).toBe(0);
    await send(wire, frame(FrameType.WindowUpdate, 0, 1, Buffer.from("00000064", "hex")));
    expect(told).toBe(1);
    // Nothing is on its way: at once, or nearly so.
    ask();
    await turn();
    expect(told).toBe(2);
    await send(wire, frame(FrameType.WindowUpdate, 0, 1, Buffer.from("00000190", "hex")));
    wire.isHeld = true;
    stream?.write([Buffer.alloc(300, 2)]);
    ask();
    await turn();
    expect(told).toBe(2);
    wire.release();
    await turn();
    await turn();
    expect(told).toBe(3);
    // A stream that is gone tells nothing.
    stream?.write([Buffer.alloc(300, 3)]);
    ask();
    await send(wire, frame(FrameType.RstStream, 0, 1, Buffer.alloc(4)));
    await turn();
    expect(told).toBe(3);
  });

  it("takes a ping after every piece of a long answer, as Go's clients send them", async () => {
    let stream: ServerStream | undefined;
    const { wire } = open({
      onRequest: (opened) => {
        stream = opened;
      },
    });
    const ping = frame(FrameType.Ping, 0, 0, Buffer.alloc(8));
    const window = Buffer.from("000400000064", "hex"); // INITIAL_WINDOW_SIZE = 100
    await send(wire, PREFACE, frame(FrameType.Settings, 0, 0, window), headers(1));
    stream?.sendHeaders();
    stream?.write([Buffer.alloc(1000, 1)]);
    stream?.finishOk();
    for (let i = 0; i < 9; i++) {
      await send(wire, ping);
      await send(wire, frame(FrameType.WindowUpdate, 0, 1, Buffer.from("00000064", "hex")));
    }
    expect(wire.goAway()).toBeUndefined();
    expect(wire.frames().at(-1)).toMatchObject({ type: FrameType.Headers, flags: 5, streamId: 1 });
  });

  it("leaves when asked, once its streams are answered", async () => {
    let stream: ServerStream | undefined;
    const { wire, connection, isClosed } = open({
      onRequest: (opened) => {
        stream = opened;
      },
    });
    await send(wire, PREFACE, SETTINGS, headers(1));
    connection.goAway();
    await send(wire, headers(3));
    expect(wire.frames().find(({ type }) => type === FrameType.RstStream)?.streamId).toBe(3);
    expect(isClosed()).toBe(false);
    stream?.finish(["grpc-status", "0"]);
    await turn();
    expect(isClosed()).toBe(true);
  });

  it("survives mutated frames: no throw, and no stream outlives it", async () => {
    const random = new SeededRandom(7);
    for (let round = 0; round < 400; round++) {
      const opened: ServerStream[] = [];
      const { wire, connection, gone, isClosed } = open({ onRequest: (stream) => opened.push(stream) });
      const parts = [PREFACE, SETTINGS];
      for (let i = 0; i < 30; i++) {
        const streamId = 1 + 2 * random.below(10);
        parts.push(
          random.below(3) === 0
            ? headers(streamId, random.below(2) * 4 + random.below(2))
            : frame(random.below(11), random.below(256), random.below(2) * streamId, Buffer.alloc(random.below(40), i)),
        );
      }
      const bytes = Buffer.concat(parts);
      const spared = PREFACE.length + 9;
      for (let flips = random.below(6); flips > 0; flips--) {
        bytes[spared + random.below(bytes.length - spared)] = random.below(256);
      }
      for (let at = 0; at < bytes.length && !wire.destroyed; ) {
        const end = at + 1 + random.below(200);
        wire.push(bytes.subarray(at, end));
        at = end;
        if (random.below(4) === 0) opened[0]?.write([Buffer.alloc(random.below(3000))]);
        if (random.below(8) === 0) opened[0]?.finishOk();
      }
      await turn();
      connection.destroy();
      await turn();
      expect(isClosed()).toBe(true);
      expect(connection.streamCount).toBe(0);
      expect(new Set(gone).size).toBe(gone.length);
    }
  });
});
