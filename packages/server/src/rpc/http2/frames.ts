/** HTTP/2's frames (RFC 9113): names for the numbers, and the writer that gathers what goes out in one turn. */

export const FrameType = {
  Data: 0,
  Headers: 1,
  Priority: 2,
  RstStream: 3,
  Settings: 4,
  PushPromise: 5,
  Ping: 6,
  GoAway: 7,
  WindowUpdate: 8,
  Continuation: 9,
} as const;

export const Flag = { EndStream: 1, Ack: 1, EndHeaders: 4, Padded: 8, Priority: 0x20 } as const;

export const Setting = {
  HeaderTableSize: 1,
  EnablePush: 2,
  MaxConcurrentStreams: 3,
  InitialWindowSize: 4,
  MaxFrameSize: 5,
  MaxHeaderListSize: 6,
} as const;

export const ErrorCode = {
  NoError: 0,
  ProtocolError: 1,
  InternalError: 2,
  FlowControlError: 3,
  SettingsTimeout: 4,
  StreamClosed: 5,
  FrameSizeError: 6,
  RefusedStream: 7,
  Cancel: 8,
  CompressionError: 9,
  ConnectError: 10,
  EnhanceYourCalm: 11,
  InadequateSecurity: 12,
} as const;

export const PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "latin1");
export const FRAME_HEADER_BYTES = 9;
export const DEFAULT_WINDOW_BYTES = 65_535;
export const WINDOW_BYTES_MAX = 2 ** 31 - 1;
export const DEFAULT_FRAME_BYTES = 16_384;
export const FRAME_BYTES_LIMIT = 2 ** 24 - 1;

const SLAB_BYTES = 64 * 1024;
/** Payloads from this size on are passed on as they are; smaller ones are cheaper to copy. */
const COPY_BYTES_MAX = 4 * 1024;
/** So few bytes are copied one by one. */
const LOOP_BYTES_MAX = 24;

/** Gathers frames into few buffers. What was given to it must not change until it has been taken. */
export class FrameWriter {
  #slab = Buffer.allocUnsafeSlow(SLAB_BYTES);
  #start = 0;
  #at = 0;
  #ready: Buffer[] = [];
  #readyBytes = 0;

  /** Bytes that wait to be taken. */
  get byteLength(): number {
    return this.#readyBytes + this.#at - this.#start;
  }

  get isEmpty(): boolean {
    return this.#at === this.#start && this.#ready.length === 0;
  }

  /** What has been gathered; the caller owns it. */
  take(): Buffer[] {
    this.#seal();
    const ready = this.#ready;
    this.#ready = [];
    this.#readyBytes = 0;
    return ready;
  }

  #seal(): void {
    if (this.#at === this.#start) return;
    this.#ready.push(this.#slab.subarray(this.#start, this.#at));
    this.#readyBytes += this.#at - this.#start;
    this.#start = this.#at;
  }

  #room(bytes: number): void {
    if (this.#at + bytes <= SLAB_BYTES) return;
    this.#seal();
    // A slab may still be on its way out, so it is left to the collector.
    this.#slab = Buffer.allocUnsafeSlow(Math.max(SLAB_BYTES, bytes));
    this.#start = 0;
    this.#at = 0;
  }

  /** A frame's nine bytes; its payload must follow. */
  header(type: number, flags: number, streamId: number, length: number): void {
    this.#room(FRAME_HEADER_BYTES);
    const slab = this.#slab;
    const at = this.#at;
    slab[at] = length >>> 16;
    slab[at + 1] = (length >>> 8) & 0xff;
    slab[at + 2] = length & 0xff;
    slab[at + 3] = type;
    slab[at + 4] = flags;
    slab[at + 5] = streamId >>> 24;
    slab[at + 6] = (streamId >>> 16) & 0xff;
    slab[at + 7] = (streamId >>> 8) & 0xff;
    slab[at + 8] = streamId & 0xff;
    this.#at = at + FRAME_HEADER_BYTES;
  }

  bytes(payload: Uint8Array): void {
    if (payload.length > COPY_BYTES_MAX) {
      this.#seal();
      this.#ready.push(Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength));
      this.#readyBytes += payload.byteLength;
      return;
    }
    const { length } = payload;
    this.#room(length);
    const slab = this.#slab;
    const at = this.#at;
    // Header blocks have a few bytes, for which a call costs more.
    if (length > LOOP_BYTES_MAX) slab.set(payload, at);
    else for (let i = 0; i < length; i++) slab[at + i] = payload[i] as number;
    this.#at = at + length;
  }

  uint8(value: number): void {
    this.#room(1);
    this.#slab[this.#at++] = value;
  }

  uint32(value: number): void {
    this.#room(4);
    this.#slab.writeUInt32BE(value >>> 0, this.#at);
    this.#at += 4;
  }

  headers(streamId: number, block: Buffer, isEnd: boolean, frameBytesMax: number): void {
    const first = Math.min(block.length, frameBytesMax);
    const isWhole = first === block.length;
    const flags = (isEnd ? Flag.EndStream : 0) | (isWhole ? Flag.EndHeaders : 0);
    this.header(FrameType.Headers, flags, streamId, first);
    this.bytes(isWhole ? block : block.subarray(0, first));
    for (let at = first; at < block.length; at += frameBytesMax) {
      const end = Math.min(at + frameBytesMax, block.length);
      this.header(FrameType.Continuation, end === block.length ? Flag.EndHeaders : 0, streamId, end - at);
      this.bytes(block.subarray(at, end));
    }
  }

  settings(entries: readonly (readonly [id: number, value: number])[]): void {
    this.header(FrameType.Settings, 0, 0, entries.length * 6);
    for (const [id, value] of entries) {
      this.uint8(id >>> 8);
      this.uint8(id & 0xff);
      this.uint32(value);
    }
  }

  settingsAck(): void {
    this.header(FrameType.Settings, Flag.Ack, 0, 0);
  }

  ping(payload: Uint8Array, isAck: boolean): void {
    this.header(FrameType.Ping, isAck ? Flag.Ack : 0, 0, 8);
    this.bytes(payload);
  }

  reset(streamId: number, errorCode: number): void {
    this.header(FrameType.RstStream, 0, streamId, 4);
    this.uint32(errorCode);
  }

  windowUpdate(streamId: number, increment: number): void {
    this.header(FrameType.WindowUpdate, 0, streamId, 4);
    this.uint32(increment);
  }

  goAway(lastStreamId: number, errorCode: number, debug: string): void {
    const text = Buffer.from(debug, "latin1");
    this.header(FrameType.GoAway, 0, 0, 8 + text.length);
    this.uint32(lastStreamId);
    this.uint32(errorCode);
    this.bytes(text);
  }
}
