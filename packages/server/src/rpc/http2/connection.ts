/**
 * One HTTP/2 connection of a server: frames in and out, streams, both directions of flow control, and limits against
 * abuse. It knows nothing of gRPC: what a stream carries goes to a {@link StreamEvents}, made by the room above.
 *
 * ```
 *  socket -> #read -> frames -> streams -> StreamEvents (headers, data, end, reset)
 *  StreamEvents -> stream.respond / write / finish / reset -> #writer -> one socket write a turn
 * ```
 *
 * Writing. Everything that is said in one turn of the event loop is gathered and written at its end, so that a hundred
 * answers cost one system call. Bytes that lack window, or that come while the socket's own queue is full, wait in their
 * stream; waiting streams take turns, a frame each.
 *
 * Reading. Window is given back when bytes have been taken: of the connection at once, of a stream as the room above
 * says. What waits in a connection is bounded by RECEIVE_BUFFER_BYTES_MAX; a stream that goes beyond is reset.
 *
 * Errors of the peer against RFC 9113 end the connection with GOAWAY, those of one stream reset the stream. Priorities are
 * ignored, pushes are never made.
 */
import type { Duplex } from "node:stream";
import { EMPTY_BYTES } from "../../lib/bytes.ts";
import type { Clock, Timer } from "../../lib/clock.ts";
import {
  DEFAULT_FRAME_BYTES,
  DEFAULT_WINDOW_BYTES,
  ErrorCode,
  Flag,
  FRAME_BYTES_LIMIT,
  FRAME_HEADER_BYTES,
  FrameType,
  FrameWriter,
  PREFACE,
  Setting,
  WINDOW_BYTES_MAX,
} from "./frames.ts";
import {
  AnswerEncoder,
  DEFAULT_TABLE_BYTES,
  encodeStateless,
  type HeaderBlock,
  type HeaderList,
  HpackDecoder,
  HpackError,
} from "./hpack.ts";
import {
  CONNECTION_WINDOW_BYTES,
  CONTINUATIONS_MAX,
  HANDSHAKE_TIMEOUT_MS,
  HEADER_BLOCK_BYTES_MAX,
  HEADER_LIST_BYTES_MAX,
  IDLE_FRAMES_BURST,
  IDLE_FRAMES_PER_SECOND,
  IDLE_PING_INTERVAL_MS,
  LINGER_TIMEOUT_MS,
  PING_STRIKES_MAX,
  RECEIVE_BUFFER_BYTES_MAX,
  RESETS_BURST,
  RESETS_PER_SECOND,
  SOCKET_QUEUE_BYTES,
  STREAM_QUEUE_BYTES,
  STREAM_WINDOW_BYTES,
  WINDOW_RETURN_BYTES,
} from "./limits.ts";
import { traceHeaders } from "./trace.ts";

/** What a stream tells the room above. Called synchronously while a frame is read. */
export interface StreamEvents {
  /** A piece of the request's body: a view of the socket's buffer, good until the call returns. */
  onData(bytes: Buffer): void;
  /** The client will send no more. */
  onEnd(): void;
  /** The stream is gone: reset by the client, or with its connection. Nothing follows. */
  onGone(): void;
  /** What was queued for sending has shrunk below STREAM_QUEUE_BYTES again. */
  onDrain(): void;
}

export interface ConnectionOptions {
  readonly clock: Clock;
  readonly concurrentStreamsMax: number;
  /** A client that pings more often is told to go away; 0: no check. */
  readonly pingMinTimeMs: number;
  /** Silence after which the client is pinged; 0: never. */
  readonly pingIntervalMs: number;
  readonly pingTimeoutMs: number;
  /** A request has come; `isEnd`: without a body. Gives who listens to the stream. */
  readonly onRequest: (stream: ServerStream, headers: HeaderBlock, isEnd: boolean) => StreamEvents | undefined;
  readonly onClose: (connection: ServerConnection) => void;
}

/** A flag and a length: what gRPC puts before each message. */
const MESSAGE_PREFIX_BYTES = 5;

/** A broken rule that ends the connection. */
class ConnectionError extends Error {
  readonly code: number;

  constructor(code: number, message: string) {
    super(message);
    this.code = code;
  }
}

/** A budget that fills up with time: `take` says whether there was some left. */
class Budget {
  readonly #burst: number;
  readonly #perMs: number;
  readonly #clock: Clock;
  #left: number;
  #at: number;

  constructor(burst: number, perSecond: number, clock: Clock) {
    this.#burst = burst;
    this.#perMs = perSecond / 1000;
    this.#clock = clock;
    this.#left = burst;
    this.#at = clock.monotonicMs();
  }

  take(): boolean {
    if (this.#left < 1) {
      const now = this.#clock.monotonicMs();
      this.#left = Math.min(this.#burst, this.#left + (now - this.#at) * this.#perMs);
      this.#at = now;
      if (this.#left < 1) return false;
    }
    this.#left--;
    return true;
  }

  give(): void {
    if (this.#left < this.#burst) this.#left++;
  }
}

/** Shared by all streams with nothing queued; never written to. */
const NO_PIECES: Uint8Array[] = [];

/** One request and its answer. Methods after the stream is gone do nothing. */
export class ServerStream {
  readonly id: number;
  readonly connection: ServerConnection;
  events: StreamEvents | undefined;
  /** The client has ended its side. */
  isRemoteEnded = false;
  /** We have ended ours, or it is queued behind what waits. */
  isLocalEnded = false;
  isGone = false;
  /** What we may still send; negative after the client shrank its windows. */
  sendWindow: number;
  /** What the client may still send, and what of it is not given back yet. */
  receiveWindow = STREAM_WINDOW_BYTES;
  unreturned = 0;
  /** Bytes counted in the connection's receive buffer for this stream. */
  held = 0;
  /** Pieces that wait for window, a turn or the socket. */
  queue: Uint8Array[] = NO_PIECES;
  queuedBytes = 0;
  /** Trailers to follow the queue. */
  trailers: Buffer | undefined;
  mayReset = false;
  isWaiting = false;
  hasHeaders = false;
  needsDrain = false;
  /** To be called when the queue, empty by then, has left. */
  onSent: (() => void) | undefined;

  constructor(id: number, connection: ServerConnection, sendWindow: number) {
    this.id = id;
    this.connection = connection;
    this.sendWindow = sendWindow;
  }

  /** Headers of an answer with messages. */
  sendHeaders(extra?: HeaderList): void {
    if (this.isGone || this.hasHeaders) return;
    this.hasHeaders = true;
    this.connection.sendHeaders(this, extra);
  }

  /** Queues body bytes; they must not change again. False: pause until onDrain. */
  write(pieces: readonly Uint8Array[]): boolean {
    if (this.isGone || this.isLocalEnded) return true;
    return this.connection.sendData(this, pieces);
  }

  /** The same for a message of gRPC: its five bytes of framing and its pieces, `byteLength` together. */
  writeMessage(pieces: readonly Uint8Array[], byteLength: number): boolean {
    if (this.isGone || this.isLocalEnded) return true;
    return this.connection.sendMessage(this, pieces, byteLength);
  }

  /** Calls `fn` when nothing of what was written is needed any more; never, should the stream be gone before. */
  whenSent(fn: () => void): void {
    if (this.isGone) return;
    if (this.queuedBytes > 0) this.onSent = fn;
    else this.connection.whenFlushed(fn);
  }

  /** Ends the answer without an error. */
  finishOk(): void {
    if (this.isGone || this.isLocalEnded) return;
    this.connection.sendTrailers(this, undefined);
  }

  /** Ends the answer with these fields; they are all of it when nothing has been sent yet. */
  finish(fields: HeaderList): void {
    if (this.isGone || this.isLocalEnded) return;
    this.connection.sendTrailers(this, fields);
  }

  reset(errorCode: number): void {
    if (this.isGone) return;
    this.connection.resetStream(this, errorCode);
  }

  /** So many bytes of onData are now kept for this stream (or, negative, no longer). False: too much; it has been reset. */
  hold(bytes: number): boolean {
    return this.connection.hold(this, bytes);
  }

  /** The room above has taken so many bytes: the client may send as many again. */
  giveWindow(bytes: number): void {
    this.connection.giveStreamWindow(this, bytes);
  }
}

export class ServerConnection {
  readonly #socket: Duplex;
  readonly #options: ConnectionOptions;
  readonly #writer = new FrameWriter();
  readonly #decoder = new HpackDecoder(DEFAULT_TABLE_BYTES, HEADER_LIST_BYTES_MAX);
  readonly #encoder = new AnswerEncoder();
  readonly #streams = new Map<number, ServerStream>();
  /** Streams with something queued, in the order of their turns. */
  readonly #waiting: ServerStream[] = [];
  readonly #resets: Budget;
  readonly #idleFrames: Budget;

  #pending: Buffer | undefined;
  #hasPreface = false;
  #hasSettings = false;
  #lastStreamId = 0;
  #isClosed = false;
  /** No new streams: we said GOAWAY. */
  #isLeaving = false;
  #flushIsDue = false;
  #isSocketFull = false;
  #whenFlushed: (() => void)[] = [];

  #peerFrameBytes = DEFAULT_FRAME_BYTES;
  #peerStreamWindow = DEFAULT_WINDOW_BYTES;
  #sendWindow = DEFAULT_WINDOW_BYTES;
  #receiveWindow = CONNECTION_WINDOW_BYTES;
  #unreturned = 0;
  #heldBytes = 0;

  /** A header block in parts. */
  #block: { streamId: number; isEnd: boolean; parts: Buffer[]; bytes: number; count: number } | undefined;

  #pingStrikes = 0;
  #lastPingMs = Number.NEGATIVE_INFINITY;
  #hasSentSincePing = false;
  #lastReadMs: number;
  #timer: Timer | undefined;

  constructor(socket: Duplex, options: ConnectionOptions) {
    this.#socket = socket;
    this.#options = options;
    const { clock } = options;
    this.#resets = new Budget(RESETS_BURST, RESETS_PER_SECOND, clock);
    this.#idleFrames = new Budget(IDLE_FRAMES_BURST, IDLE_FRAMES_PER_SECOND, clock);
    this.#lastReadMs = clock.monotonicMs();
    const settings: [number, number][] = [
      [Setting.InitialWindowSize, STREAM_WINDOW_BYTES],
      [Setting.MaxHeaderListSize, HEADER_LIST_BYTES_MAX],
    ];
    if (options.concurrentStreamsMax < 2 ** 32 - 1) {
      settings.unshift([Setting.MaxConcurrentStreams, options.concurrentStreamsMax]);
    }
    this.#writer.settings(settings);
    this.#writer.windowUpdate(0, CONNECTION_WINDOW_BYTES - DEFAULT_WINDOW_BYTES);
    this.#flushSoon();
    this.#timer = clock.after(
      HANDSHAKE_TIMEOUT_MS,
      () => {
        if (!this.#hasSettings) this.#destroy();
      },
      { unref: true },
    );
    socket.on("data", (chunk: Buffer) => this.#read(chunk));
    socket.on("drain", () => {
      this.#isSocketFull = false;
      this.#pump();
    });
    socket.on("end", () => this.#destroy());
    socket.on("error", () => this.#destroy());
    socket.on("close", () => this.#destroy());
    socket.resume();
  }

  get streamCount(): number {
    return this.#streams.size;
  }

  // ---- reading

  #read(chunk: Buffer): void {
    if (this.#isClosed) return;
    this.#lastReadMs = this.#options.clock.monotonicMs();
    let bytes = chunk;
    if (this.#pending) {
      bytes = Buffer.concat([this.#pending, chunk]);
      this.#pending = undefined;
    }
    let at = 0;
    try {
      if (!this.#hasPreface) {
        if (bytes.length < PREFACE.length) {
          this.#pending = bytes;
          return;
        }
        if (bytes.compare(PREFACE, 0, PREFACE.length, 0, PREFACE.length) !== 0) {
          throw new ConnectionError(ErrorCode.ProtocolError, "no preface");
        }
        this.#hasPreface = true;
        at = PREFACE.length;
      }
      while (bytes.length - at >= FRAME_HEADER_BYTES) {
        const length = ((bytes[at] as number) << 16) | ((bytes[at + 1] as number) << 8) | (bytes[at + 2] as number);
        if (length > DEFAULT_FRAME_BYTES) throw new ConnectionError(ErrorCode.FrameSizeError, "frame too large");
        const end = at + FRAME_HEADER_BYTES + length;
        if (end > bytes.length) break;
        const type = bytes[at + 3] as number;
        const flags = bytes[at + 4] as number;
        const streamId = bytes.readUInt32BE(at + 5) & 0x7fffffff;
        this.#frame(type, flags, streamId, bytes.subarray(at + FRAME_HEADER_BYTES, end));
        if (this.#isClosed) return;
        at = end;
      }
    } catch (error) {
      if (error instanceof ConnectionError) this.#fail(error.code, error.message);
      else if (error instanceof HpackError) this.#fail(ErrorCode.CompressionError, error.message);
      else throw error;
      return;
    }
    // A part of a frame is copied, so that a small rest does not pin a large chunk.
    if (at < bytes.length) this.#pending = at === 0 && bytes !== chunk ? bytes : Buffer.from(bytes.subarray(at));
  }

  #frame(type: number, flags: number, streamId: number, payload: Buffer): void {
    if (this.#block && (type !== FrameType.Continuation || streamId !== this.#block.streamId)) {
      throw new ConnectionError(ErrorCode.ProtocolError, "a header block was interrupted");
    }
    if (!this.#hasSettings && type !== FrameType.Settings) {
      throw new ConnectionError(ErrorCode.ProtocolError, "SETTINGS must come first");
    }
    switch (type) {
      case FrameType.Data:
        this.#data(flags, streamId, payload);
        return;
      case FrameType.Headers:
        this.#headers(flags, streamId, payload);
        return;
      case FrameType.Continuation:
        this.#continuation(flags, streamId, payload);
        return;
      case FrameType.RstStream:
        this.#reset(streamId, payload);
        return;
      case FrameType.Settings:
        this.#settings(flags, streamId, payload);
        return;
      case FrameType.Ping:
        this.#ping(flags, streamId, payload);
        return;
      case FrameType.WindowUpdate:
        this.#windowUpdate(streamId, payload);
        return;
      case FrameType.GoAway:
        if (streamId !== 0) throw new ConnectionError(ErrorCode.ProtocolError, "GOAWAY on a stream");
        if (payload.length < 8) throw new ConnectionError(ErrorCode.FrameSizeError, "GOAWAY too short");
        this.#idle();
        return;
      case FrameType.Priority:
        if (streamId === 0) throw new ConnectionError(ErrorCode.ProtocolError, "PRIORITY on the connection");
        this.#idle();
        return;
      case FrameType.PushPromise:
        throw new ConnectionError(ErrorCode.ProtocolError, "a client cannot push");
      default:
        this.#idle();
    }
  }

  /** A frame that moves nothing forward: allowed, up to a point. */
  #idle(): void {
    if (!this.#idleFrames.take()) throw new ConnectionError(ErrorCode.EnhanceYourCalm, "too many control frames");
  }

  static #unpad(flags: number, payload: Buffer): Buffer {
    if ((flags & Flag.Padded) === 0) return payload;
    const padding = payload[0];
    if (padding === undefined || padding >= payload.length) {
      throw new ConnectionError(ErrorCode.ProtocolError, "more padding than frame");
    }
    return payload.subarray(1, payload.length - padding);
  }

  #data(flags: number, streamId: number, payload: Buffer): void {
    if (streamId === 0) throw new ConnectionError(ErrorCode.ProtocolError, "DATA on the connection");
    if (streamId > this.#lastStreamId) throw new ConnectionError(ErrorCode.ProtocolError, "DATA on an idle stream");
    const { length } = payload;
    const isEnd = (flags & Flag.EndStream) !== 0;
    if (length > this.#receiveWindow) throw new ConnectionError(ErrorCode.FlowControlError, "window overrun");
    if (length === 0 && !isEnd) this.#idle();
    this.#receiveWindow -= length;
    this.#unreturned += length;
    if (this.#unreturned >= WINDOW_RETURN_BYTES) {
      this.#writer.windowUpdate(0, this.#unreturned);
      this.#receiveWindow += this.#unreturned;
      this.#unreturned = 0;
      this.#flushSoon();
    }
    const stream = this.#streams.get(streamId);
    if (!stream) return; // reset or answered a moment ago: its last bytes were under way
    if (stream.isRemoteEnded) {
      this.resetStream(stream, ErrorCode.StreamClosed);
      return;
    }
    if (length > stream.receiveWindow) {
      this.resetStream(stream, ErrorCode.FlowControlError);
      return;
    }
    stream.receiveWindow -= length;
    const body = ServerConnection.#unpad(flags, payload);
    // Padding is nobody's to take.
    if (body.length < length) this.giveStreamWindow(stream, length - body.length);
    if (body.length > 0) stream.events?.onData(body);
    if (isEnd && !stream.isGone) this.#remoteEnd(stream);
  }

  #remoteEnd(stream: ServerStream): void {
    stream.isRemoteEnded = true;
    stream.events?.onEnd();
    this.#forgetIfDone(stream);
  }

  #headers(flags: number, streamId: number, payload: Buffer): void {
    if (streamId === 0 || streamId % 2 === 0) {
      throw new ConnectionError(ErrorCode.ProtocolError, "HEADERS on a stream that is not the client's");
    }
    let fragment = ServerConnection.#unpad(flags, payload);
    if ((flags & Flag.Priority) !== 0) {
      if (fragment.length < 5) throw new ConnectionError(ErrorCode.FrameSizeError, "HEADERS too short");
      fragment = fragment.subarray(5);
    }
    const isEnd = (flags & Flag.EndStream) !== 0;
    if ((flags & Flag.EndHeaders) !== 0) {
      this.#headerBlock(streamId, fragment, isEnd);
      return;
    }
    this.#block = { streamId, isEnd, parts: [Buffer.from(fragment)], bytes: fragment.length, count: 0 };
  }

  #continuation(flags: number, streamId: number, payload: Buffer): void {
    const block = this.#block;
    if (!block) throw new ConnectionError(ErrorCode.ProtocolError, "CONTINUATION of nothing");
    block.parts.push(Buffer.from(payload));
    block.bytes += payload.length;
    block.count++;
    if (block.bytes > HEADER_BLOCK_BYTES_MAX || block.count > CONTINUATIONS_MAX) {
      throw new ConnectionError(ErrorCode.EnhanceYourCalm, "header block too large");
    }
    if ((flags & Flag.EndHeaders) === 0) return;
    this.#block = undefined;
    this.#headerBlock(streamId, Buffer.concat(block.parts), block.isEnd);
  }

  #headerBlock(streamId: number, block: Buffer, isEnd: boolean): void {
    // Decoded in any case: the table belongs to the connection.
    const headers = this.#decoder.read(block);
    if (headers) traceHeaders?.(headers.fields);
    const known = this.#streams.get(streamId);
    if (known) {
      // Trailers of the request: gRPC clients send none, and nothing in them could matter.
      if (known.isRemoteEnded || !isEnd) this.resetStream(known, ErrorCode.ProtocolError);
      else this.#remoteEnd(known);
      return;
    }
    if (streamId <= this.#lastStreamId) {
      throw new ConnectionError(ErrorCode.StreamClosed, "HEADERS on a closed stream");
    }
    this.#lastStreamId = streamId;
    if (this.#isLeaving || this.#streams.size >= this.#options.concurrentStreamsMax) {
      this.#writer.reset(streamId, ErrorCode.RefusedStream);
      this.#flushSoon();
      this.#countReset();
      return;
    }
    if (!headers) {
      this.#writer.reset(streamId, ErrorCode.EnhanceYourCalm);
      this.#flushSoon();
      this.#countReset();
      return;
    }
    const stream = new ServerStream(streamId, this, this.#peerStreamWindow);
    stream.isRemoteEnded = isEnd;
    this.#streams.set(streamId, stream);
    stream.events = this.#options.onRequest(stream, headers, isEnd);
    if (isEnd && !stream.isGone) stream.events?.onEnd();
  }

  #countReset(): void {
    if (!this.#resets.take()) throw new ConnectionError(ErrorCode.EnhanceYourCalm, "too many resets");
  }

  #reset(streamId: number, payload: Buffer): void {
    if (streamId === 0) throw new ConnectionError(ErrorCode.ProtocolError, "RST_STREAM on the connection");
    if (payload.length !== 4) throw new ConnectionError(ErrorCode.FrameSizeError, "RST_STREAM of a wrong size");
    if (streamId > this.#lastStreamId) throw new ConnectionError(ErrorCode.ProtocolError, "RST_STREAM when idle");
    this.#countReset();
    const stream = this.#streams.get(streamId);
    if (stream) this.#gone(stream);
  }

  #settings(flags: number, streamId: number, payload: Buffer): void {
    if (streamId !== 0) throw new ConnectionError(ErrorCode.ProtocolError, "SETTINGS on a stream");
    if ((flags & Flag.Ack) !== 0) {
      if (payload.length !== 0) throw new ConnectionError(ErrorCode.FrameSizeError, "SETTINGS ack with a payload");
      this.#idle();
      return;
    }
    if (payload.length % 6 !== 0) throw new ConnectionError(ErrorCode.FrameSizeError, "SETTINGS of a wrong size");
    this.#idle();
    this.#hasSettings = true;
    for (let at = 0; at < payload.length; at += 6) {
      const value = payload.readUInt32BE(at + 2);
      switch (payload.readUInt16BE(at)) {
        case Setting.HeaderTableSize:
          this.#encoder.setPeerTableBytes(value);
          break;
        case Setting.EnablePush:
          if (value > 1) throw new ConnectionError(ErrorCode.ProtocolError, "ENABLE_PUSH is 0 or 1");
          break;
        case Setting.InitialWindowSize: {
          if (value > WINDOW_BYTES_MAX) throw new ConnectionError(ErrorCode.FlowControlError, "window too large");
          const change = value - this.#peerStreamWindow;
          this.#peerStreamWindow = value;
          for (const stream of this.#streams.values()) {
            stream.sendWindow += change;
            if (stream.sendWindow > WINDOW_BYTES_MAX) {
              throw new ConnectionError(ErrorCode.FlowControlError, "window too large");
            }
          }
          break;
        }
        case Setting.MaxFrameSize:
          if (value < DEFAULT_FRAME_BYTES || value > FRAME_BYTES_LIMIT) {
            throw new ConnectionError(ErrorCode.ProtocolError, "MAX_FRAME_SIZE out of bounds");
          }
          this.#peerFrameBytes = value;
          break;
        default:
          break;
      }
    }
    this.#writer.settingsAck();
    this.#flushSoon();
    this.#pump();
    this.#startKeepAlive();
  }

  #ping(flags: number, streamId: number, payload: Buffer): void {
    if (streamId !== 0) throw new ConnectionError(ErrorCode.ProtocolError, "PING on a stream");
    if (payload.length !== 8) throw new ConnectionError(ErrorCode.FrameSizeError, "PING of a wrong size");
    this.#idle();
    if ((flags & Flag.Ack) !== 0) return;
    this.#writer.ping(Buffer.from(payload), true);
    this.#flushSoon();
    this.#judgePing();
  }

  /** grpc-go's rule: pings that come sooner than allowed are strikes; a client that was just sent something has none. */
  #judgePing(): void {
    const { clock, pingMinTimeMs } = this.#options;
    if (pingMinTimeMs <= 0) return;
    const now = clock.monotonicMs();
    if (this.#hasSentSincePing) {
      this.#hasSentSincePing = false;
      this.#pingStrikes = 0;
      this.#lastPingMs = now;
      return;
    }
    const interval = this.#streams.size === 0 ? IDLE_PING_INTERVAL_MS : pingMinTimeMs;
    if (this.#lastPingMs + interval > now) this.#pingStrikes++;
    this.#lastPingMs = now;
    if (this.#pingStrikes > PING_STRIKES_MAX) {
      throw new ConnectionError(ErrorCode.EnhanceYourCalm, "too_many_pings");
    }
  }

  #windowUpdate(streamId: number, payload: Buffer): void {
    if (payload.length !== 4) throw new ConnectionError(ErrorCode.FrameSizeError, "WINDOW_UPDATE of a wrong size");
    const increment = payload.readUInt32BE(0) & 0x7fffffff;
    if (streamId === 0) {
      if (increment === 0) throw new ConnectionError(ErrorCode.ProtocolError, "WINDOW_UPDATE of nothing");
      this.#sendWindow += increment;
      if (this.#sendWindow > WINDOW_BYTES_MAX) {
        throw new ConnectionError(ErrorCode.FlowControlError, "window too large");
      }
      if (this.#waiting.length === 0) this.#idle();
      else this.#pump();
      return;
    }
    if (streamId > this.#lastStreamId) {
      throw new ConnectionError(ErrorCode.ProtocolError, "WINDOW_UPDATE on an idle stream");
    }
    const stream = this.#streams.get(streamId);
    if (!stream) {
      this.#idle();
      return;
    }
    stream.sendWindow += increment;
    if (increment === 0) this.resetStream(stream, ErrorCode.ProtocolError);
    else if (stream.sendWindow > WINDOW_BYTES_MAX) this.resetStream(stream, ErrorCode.FlowControlError);
    else if (stream.queuedBytes > 0) this.#pump();
    else this.#idle();
  }

  // ---- what streams ask for

  hold(stream: ServerStream, bytes: number): boolean {
    stream.held += bytes;
    this.#heldBytes += bytes;
    if (this.#heldBytes <= RECEIVE_BUFFER_BYTES_MAX || bytes <= 0) return true;
    this.resetStream(stream, ErrorCode.EnhanceYourCalm);
    return false;
  }

  giveStreamWindow(stream: ServerStream, bytes: number): void {
    stream.unreturned += bytes;
    if (stream.isGone || stream.isRemoteEnded || stream.unreturned < WINDOW_RETURN_BYTES) return;
    this.#writer.windowUpdate(stream.id, stream.unreturned);
    stream.receiveWindow += stream.unreturned;
    stream.unreturned = 0;
    this.#flushSoon();
  }

  sendHeaders(stream: ServerStream, extra: HeaderList | undefined): void {
    const block = extra ? this.#encoder.other([":status", "200", ...extra]) : this.#encoder.headers();
    this.#writer.headers(stream.id, block, false, this.#peerFrameBytes);
    this.#hasSentSincePing = true;
    this.#flushSoon();
  }

  /** Begins a frame of all `bytes`, if that may be: the usual case. */
  #mayFrame(stream: ServerStream, bytes: number): boolean {
    if (
      stream.queuedBytes > 0 ||
      this.#isSocketFull ||
      bytes > this.#peerFrameBytes ||
      bytes > stream.sendWindow ||
      bytes > this.#sendWindow
    ) {
      return false;
    }
    this.#hasSentSincePing = true;
    this.#writer.header(FrameType.Data, 0, stream.id, bytes);
    stream.sendWindow -= bytes;
    this.#sendWindow -= bytes;
    this.#flushSoon();
    return true;
  }

  sendMessage(stream: ServerStream, pieces: readonly Uint8Array[], byteLength: number): boolean {
    if (this.#mayFrame(stream, MESSAGE_PREFIX_BYTES + byteLength)) {
      this.#writer.uint8(0);
      this.#writer.uint32(byteLength);
      for (const piece of pieces) this.#writer.bytes(piece);
      return true;
    }
    const prefix = Buffer.alloc(MESSAGE_PREFIX_BYTES);
    prefix.writeUInt32BE(byteLength, 1);
    return this.sendData(stream, [prefix, ...pieces]);
  }

  sendData(stream: ServerStream, pieces: readonly Uint8Array[]): boolean {
    let bytes = 0;
    for (const piece of pieces) bytes += piece.length;
    if (this.#mayFrame(stream, bytes)) {
      for (const piece of pieces) this.#writer.bytes(piece);
      return true;
    }
    if (stream.queue === NO_PIECES) stream.queue = [];
    for (const piece of pieces) if (piece.length > 0) stream.queue.push(piece);
    stream.queuedBytes += bytes;
    this.#wait(stream);
    this.#pump();
    if (stream.queuedBytes <= STREAM_QUEUE_BYTES) return true;
    stream.needsDrain = true;
    return false;
  }

  sendTrailers(stream: ServerStream, fields: HeaderList | undefined): void {
    stream.isLocalEnded = true;
    if (!stream.hasHeaders) {
      // Trailers only: an error before any message, or an empty stream.
      stream.hasHeaders = true;
      const all = [":status", "200", "content-type", "application/grpc", ...(fields ?? ["grpc-status", "0"])];
      this.#finish(stream, this.#encoder.other(fields?.[0] === ":status" ? fields : all), fields !== undefined);
      return;
    }
    // Blocks must leave in the order in which they were made, so one that has to wait keeps no memory of the table.
    stream.mayReset = fields !== undefined;
    if (stream.queuedBytes > 0) stream.trailers = trailersToWait(fields);
    else this.#finish(stream, fields ? this.#encoder.other(fields) : this.#encoder.trailers(), fields !== undefined);
  }

  /** `mayReset`: a client that is still sending may stop. After a good answer its end is under way anyhow. */
  #finish(stream: ServerStream, block: Buffer, mayReset: boolean): void {
    this.#writer.headers(stream.id, block, true, this.#peerFrameBytes);
    this.#hasSentSincePing = true;
    this.#flushSoon();
    if (!stream.isRemoteEnded && mayReset) {
      // The answer is complete and the rest of the request of no interest (RFC 9113 section 8.1).
      this.#writer.reset(stream.id, ErrorCode.NoError);
      stream.isRemoteEnded = true;
    }
    this.#resets.give();
    this.#forgetIfDone(stream);
  }

  resetStream(stream: ServerStream, errorCode: number): void {
    if (stream.isGone) return;
    this.#writer.reset(stream.id, errorCode);
    this.#flushSoon();
    this.#gone(stream);
  }

  #forgetIfDone(stream: ServerStream): void {
    if (!stream.isRemoteEnded || !stream.isLocalEnded || stream.queuedBytes > 0 || stream.trailers) return;
    this.#drop(stream);
  }

  #gone(stream: ServerStream): void {
    if (stream.isGone) return;
    this.#drop(stream);
    stream.events?.onGone();
  }

  #drop(stream: ServerStream): void {
    stream.isGone = true;
    stream.queue = NO_PIECES;
    stream.queuedBytes = 0;
    stream.trailers = undefined;
    stream.onSent = undefined;
    this.#heldBytes -= stream.held;
    stream.held = 0;
    this.#streams.delete(stream.id);
    if (this.#isLeaving && this.#streams.size === 0) this.#leave();
  }

  // ---- writing

  #wait(stream: ServerStream): void {
    if (stream.isWaiting) return;
    stream.isWaiting = true;
    this.#waiting.push(stream);
  }

  /** Gives each waiting stream a frame in turn, for as long as there are window and room in the socket. */
  #pump(): void {
    let blocked = 0;
    while (this.#waiting.length > blocked) {
      if (this.#sendWindow <= 0 || this.#isSocketFull) break;
      const stream = this.#waiting.shift() as ServerStream;
      if (stream.isGone) {
        stream.isWaiting = false;
        continue;
      }
      if (stream.sendWindow <= 0) {
        this.#waiting.push(stream);
        blocked++;
        continue;
      }
      blocked = 0;
      this.#sendQueued(stream);
      if (stream.queuedBytes > 0) this.#waiting.push(stream);
      else {
        stream.isWaiting = false;
        if (stream.onSent) {
          this.whenFlushed(stream.onSent);
          stream.onSent = undefined;
        }
        const { trailers } = stream;
        if (trailers) {
          stream.trailers = undefined;
          this.#finish(stream, trailers, stream.mayReset);
        }
      }
      if (stream.needsDrain && stream.queuedBytes <= STREAM_QUEUE_BYTES) {
        stream.needsDrain = false;
        stream.events?.onDrain();
      }
      // A long answer goes to the socket in pieces of its queue's size, not as a whole.
      if (this.#writer.byteLength > SOCKET_QUEUE_BYTES) this.#flush();
    }
  }

  /** One frame of what is queued. */
  #sendQueued(stream: ServerStream): void {
    const bytes = Math.min(this.#peerFrameBytes, stream.sendWindow, this.#sendWindow, stream.queuedBytes);
    this.#writer.header(FrameType.Data, 0, stream.id, bytes);
    let left = bytes;
    let used = 0;
    while (left > 0) {
      const piece = stream.queue[used] as Uint8Array;
      if (piece.length <= left) {
        this.#writer.bytes(piece);
        left -= piece.length;
        used++;
      } else {
        this.#writer.bytes(piece.subarray(0, left));
        stream.queue[used] = piece.subarray(left);
        left = 0;
      }
    }
    if (used > 0) stream.queue.splice(0, used);
    stream.queuedBytes -= bytes;
    stream.sendWindow -= bytes;
    this.#sendWindow -= bytes;
    // Go's clients ping after data to measure the line; a long answer is many frames, so many pings.
    this.#hasSentSincePing = true;
    this.#flushSoon();
  }

  /** Calls `fn` when the system has taken all that was framed so far. */
  whenFlushed(fn: () => void): void {
    this.#whenFlushed.push(fn);
    this.#flushSoon();
  }

  #flushSoon(): void {
    if (this.#flushIsDue) return;
    this.#flushIsDue = true;
    process.nextTick(() => this.#flush());
  }

  #flush(): void {
    this.#flushIsDue = false;
    const listeners = this.#whenFlushed;
    if ((this.#writer.isEmpty && listeners.length === 0) || this.#socket.destroyed) return;
    const chunks = this.#writer.take();
    let mayGoOn = true;
    if (chunks.length === 1) mayGoOn = this.#socket.write(chunks[0]);
    else {
      this.#socket.cork();
      for (const chunk of chunks) mayGoOn = this.#socket.write(chunk);
      this.#socket.uncork();
    }
    if (listeners.length > 0) {
      this.#whenFlushed = [];
      const call = () => {
        for (const listener of listeners) listener();
      };
      // Nothing behind all the rest: its turn comes when that has gone.
      if (this.#socket.writableLength === 0) call();
      else this.#socket.write(EMPTY_BYTES, call);
    }
    if (!mayGoOn && this.#socket.writableLength > SOCKET_QUEUE_BYTES) this.#isSocketFull = true;
  }

  // ---- the connection's own life

  #startKeepAlive(): void {
    const { pingIntervalMs, pingTimeoutMs, clock } = this.#options;
    this.#timer?.cancel();
    this.#timer = undefined;
    if (pingIntervalMs <= 0 || this.#isClosed) return;
    const look = () => {
      const silentMs = clock.monotonicMs() - this.#lastReadMs;
      if (silentMs < pingIntervalMs) {
        this.#timer = clock.after(pingIntervalMs - silentMs, look, { unref: true });
        return;
      }
      this.#writer.ping(Buffer.alloc(8), false);
      this.#flushSoon();
      const askedMs = clock.monotonicMs();
      this.#timer = clock.after(
        pingTimeoutMs,
        () => {
          if (this.#lastReadMs < askedMs) this.#destroy();
          else look();
        },
        { unref: true },
      );
    };
    this.#timer = clock.after(pingIntervalMs, look, { unref: true });
  }

  /** No new requests; closes when the open ones are answered. */
  goAway(): void {
    if (this.#isClosed || this.#isLeaving) return;
    this.#isLeaving = true;
    this.#writer.goAway(2 ** 31 - 1, ErrorCode.NoError, "");
    this.#flushSoon();
    if (this.#streams.size === 0) this.#leave();
  }

  #leave(): void {
    if (this.#isClosed) return;
    this.#writer.goAway(this.#lastStreamId, ErrorCode.NoError, "");
    this.#end();
  }

  #fail(errorCode: number, reason: string): void {
    if (this.#isClosed) return;
    this.#writer.goAway(this.#lastStreamId, errorCode, reason);
    this.#end();
  }

  /** Sends what is gathered and closes. */
  #end(): void {
    this.#flush();
    const socket = this.#socket;
    socket.end();
    // A client that does not close its side, or does not read ours, must not keep the socket.
    const timer = this.#options.clock.after(LINGER_TIMEOUT_MS, () => socket.destroy(), { unref: true });
    socket.once("close", () => timer.cancel());
    this.#destroyed();
  }

  /** Cuts the connection now. */
  destroy(): void {
    this.#destroy();
  }

  #destroy(): void {
    if (!this.#socket.destroyed) this.#socket.destroy();
    this.#destroyed();
  }

  #destroyed(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#timer?.cancel();
    this.#pending = undefined;
    this.#block = undefined;
    for (const stream of [...this.#streams.values()]) this.#gone(stream);
    this.#waiting.length = 0;
    this.#options.onClose(this);
  }
}

function trailersToWait(fields: HeaderList | undefined): Buffer {
  return encodeStateless(fields ?? ["grpc-status", "0", "grpc-message", ""]);
}
