// A client connection that costs as little as it can: HTTP/2 frames written and read by hand on a socket, gRPC on top.
//
// It trusts the server to keep the protocol, takes what it is sent at any rate (its windows are a gigabyte), answers
// pings, and reads only as much of an answer as somebody listens for.
import { connect } from "node:net";
import { BlockReader, BlockWriter } from "./hpack.mjs";

const PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "latin1");
const DATA = 0;
const HEADERS = 1;
const RST_STREAM = 3;
const SETTINGS = 4;
const PING = 6;
const GOAWAY = 7;
const WINDOW_UPDATE = 8;
const CONTINUATION = 9;
const END_STREAM = 1;
const ACK = 1;
const END_HEADERS = 4;
const HEADER_BYTES = 9;
const PREFIX_BYTES = 5;
const WINDOW_BYTES = 2 ** 30;
const FRAME_BYTES_MAX = 16_384;
const SLAB_BYTES = 256 * 1024;
const READ_BYTES = 1024 * 1024;

/** All connections read into the same memory: what has to stay is copied. */
const readBuffer = Buffer.allocUnsafeSlow(READ_BYTES);

/** Bytes of a protobuf message as a gRPC message. */
export function framed(message) {
  const bytes = Buffer.allocUnsafe(PREFIX_BYTES + message.length);
  bytes[0] = 0;
  bytes.writeUInt32BE(message.length, 1);
  bytes.set(message, PREFIX_BYTES);
  return bytes;
}

/**
 * What listens to a call: `onMessage(bytes, start, end)` for each message (leave it out and messages are not even put
 * together), `onEnd(status, text)` once.
 */
export class Connection {
  #socket;
  #reader = new BlockReader();
  #writer;
  #calls = new Map();
  #nextId = 1;
  #slab = Buffer.allocUnsafeSlow(SLAB_BYTES);
  #start = 0;
  #at = 0;
  #isReading = false;
  #flushIsDue = false;
  #rest;
  /** A DATA frame whose payload has not all come. */
  #dataLeft = 0;
  #dataCall;
  #dataEnds = false;
  #unreturned = 0;
  #sendWindow = 65_535;
  #peerStreamWindow = 65_535;
  #waiting = [];
  #block;
  #closed;

  static open({ host, port }) {
    return new Promise((resolve, reject) => {
      const connection = new Connection();
      connection.#writer = new BlockWriter(`${host}:${port}`);
      const socket = connect({
        host,
        port,
        noDelay: true,
        onread: {
          buffer: readBuffer,
          callback: (length) => {
            connection.#read(readBuffer, length);
            return true;
          },
        },
      });
      connection.#socket = socket;
      socket.once("connect", () => resolve(connection));
      socket.on("error", (error) => {
        reject(error);
        connection.#lost(error);
      });
      socket.on("close", () => connection.#lost(new Error("the connection was closed")));
      connection.#hello();
    });
  }

  close() {
    this.#closed = true;
    this.#socket.destroy();
  }

  #lost(error) {
    if (this.#closed) return;
    this.#closed = true;
    for (const call of this.#calls.values()) call.onEnd(14, error.message);
    this.#calls.clear();
  }

  #hello() {
    this.#room(PREFACE.length + 64);
    this.#slab.set(PREFACE, this.#at);
    this.#at += PREFACE.length;
    this.#header(12, SETTINGS, 0, 0);
    this.#uint16(2); // no push
    this.#uint32(0);
    this.#uint16(4); // initial window
    this.#uint32(WINDOW_BYTES);
    this.#header(4, WINDOW_UPDATE, 0, 0);
    this.#uint32(WINDOW_BYTES - 65_535);
    this.flushSoon();
  }

  // ---- calls

  /** One request that is complete: `message` is framed. */
  unary(path, message, call) {
    const id = this.#begin(path, call, false);
    this.#data(id, message, true);
    return id;
  }

  /** A call whose requests come later, by `send`. */
  stream(path, call) {
    return this.#begin(path, call, false);
  }

  send(id, message, isEnd = false) {
    this.#data(id, message, isEnd);
  }

  cancel(id) {
    this.#header(4, RST_STREAM, 0, id);
    this.#uint32(8);
    this.#calls.delete(id);
    this.flushSoon();
  }

  #begin(path, call, isEnd) {
    const id = this.#nextId;
    this.#nextId += 2;
    const block = this.#writer.block(path);
    this.#header(block.length, HEADERS, END_HEADERS | (isEnd ? END_STREAM : 0), id);
    this.#slab.set(block, this.#at);
    this.#at += block.length;
    call.unreturned = 0;
    this.#calls.set(id, call);
    return id;
  }

  /** A message fits into its stream's window, or is refused; for the connection's window it waits. */
  #data(id, bytes, isEnd) {
    if (bytes.length > this.#peerStreamWindow) throw new Error("the bench's client sends no message that needs window");
    if (this.#sendWindow < bytes.length || this.#waiting.length > 0) {
      this.#waiting.push({ id, bytes: Buffer.from(bytes), isEnd });
      this.#sendWaiting();
      return;
    }
    this.#frame(id, bytes, isEnd);
  }

  #sendWaiting() {
    while (this.#waiting.length > 0 && this.#sendWindow >= this.#waiting[0].bytes.length) {
      const { id, bytes, isEnd } = this.#waiting.shift();
      this.#frame(id, bytes, isEnd);
    }
  }

  #frame(id, bytes, isEnd) {
    this.#sendWindow -= bytes.length;
    for (let from = 0; from < bytes.length || from === 0; from += FRAME_BYTES_MAX) {
      const length = Math.min(FRAME_BYTES_MAX, bytes.length - from);
      this.#header(length, DATA, isEnd && from + length === bytes.length ? END_STREAM : 0, id);
      this.#slab.set(length === bytes.length ? bytes : bytes.subarray(from, from + length), this.#at);
      this.#at += length;
    }
    this.flushSoon();
  }

  // ---- out

  #room(bytes) {
    if (this.#at + bytes <= SLAB_BYTES) return;
    this.flush();
    this.#slab = Buffer.allocUnsafeSlow(SLAB_BYTES);
    this.#start = 0;
    this.#at = 0;
  }

  #header(length, type, flags, id) {
    this.#room(HEADER_BYTES + length);
    const slab = this.#slab;
    let at = this.#at;
    slab[at++] = length >>> 16;
    slab[at++] = (length >>> 8) & 0xff;
    slab[at++] = length & 0xff;
    slab[at++] = type;
    slab[at++] = flags;
    slab[at++] = id >>> 24;
    slab[at++] = (id >>> 16) & 0xff;
    slab[at++] = (id >>> 8) & 0xff;
    slab[at++] = id & 0xff;
    this.#at = at;
  }

  #uint16(value) {
    this.#at = this.#slab.writeUInt16BE(value, this.#at);
  }

  #uint32(value) {
    this.#at = this.#slab.writeUInt32BE(value >>> 0, this.#at);
  }

  /** While answers are read, all that follows from them leaves at the end, in one write. */
  flushSoon() {
    if (this.#isReading || this.#flushIsDue) return;
    this.#flushIsDue = true;
    process.nextTick(() => {
      this.#flushIsDue = false;
      this.flush();
    });
  }

  flush() {
    if (this.#at === this.#start) return;
    this.#socket.write(this.#slab.subarray(this.#start, this.#at));
    this.#start = this.#at;
  }

  // ---- in

  #read(buffer, length) {
    this.#isReading = true;
    let bytes = buffer;
    let end = length;
    if (this.#rest) {
      bytes = Buffer.concat([this.#rest, buffer.subarray(0, length)]);
      end = bytes.length;
      this.#rest = undefined;
    }
    const at = this.#frames(bytes, end);
    if (at < end) this.#rest = Buffer.from(bytes.subarray(at, end));
    this.#isReading = false;
    if (!this.#closed) this.flush();
  }

  #frames(bytes, end) {
    let at = 0;
    for (;;) {
      if (this.#dataLeft > 0) {
        const take = Math.min(this.#dataLeft, end - at);
        if (take === 0) return at;
        this.#dataLeft -= take;
        this.#payload(bytes, at, at + take);
        at += take;
        if (this.#dataLeft === 0 && this.#dataEnds) this.#unexpectedEnd(this.#dataCall);
        continue;
      }
      if (end - at < HEADER_BYTES) return at;
      const length = (bytes[at] << 16) | (bytes[at + 1] << 8) | bytes[at + 2];
      const type = bytes[at + 3];
      const flags = bytes[at + 4];
      const id = ((bytes[at + 5] & 0x7f) << 24) | (bytes[at + 6] << 16) | (bytes[at + 7] << 8) | bytes[at + 8];
      if (type === DATA) {
        at += HEADER_BYTES;
        this.#dataLeft = length;
        this.#dataCall = this.#calls.get(id);
        this.#dataEnds = (flags & END_STREAM) !== 0;
        this.#unreturned += length;
        if (this.#unreturned > WINDOW_BYTES / 4) {
          this.#header(4, WINDOW_UPDATE, 0, 0);
          this.#uint32(this.#unreturned);
          this.#unreturned = 0;
        }
        if (this.#dataCall) {
          this.#dataCall.unreturned += length;
          if (this.#dataCall.unreturned > WINDOW_BYTES / 4 && !this.#dataEnds) {
            this.#header(4, WINDOW_UPDATE, 0, id);
            this.#uint32(this.#dataCall.unreturned);
            this.#dataCall.unreturned = 0;
          }
        }
        continue;
      }
      if (end - at < HEADER_BYTES + length) return at;
      at += HEADER_BYTES;
      this.#control(type, flags, id, bytes, at, at + length);
      at += length;
    }
  }

  #unexpectedEnd(call) {
    call?.onEnd(2, "the answer has no trailers");
  }

  #payload(bytes, start, end) {
    const call = this.#dataCall;
    if (!call) return;
    if (call.onData) call.onData(bytes, start, end);
    if (!call.onMessage) return;
    let at = start;
    while (at < end) {
      if (!call.part) {
        if (end - at >= PREFIX_BYTES) {
          const length = bytes.readUInt32BE(at + 1);
          if (end - at >= PREFIX_BYTES + length) {
            at += PREFIX_BYTES;
            call.onMessage(bytes, at, at + length);
            at += length;
            continue;
          }
        }
        call.part = Buffer.from(bytes.subarray(at, end));
        return;
      }
      call.part = Buffer.concat([call.part, bytes.subarray(at, end)]);
      at = end;
      let from = 0;
      const { part } = call;
      while (part.length - from >= PREFIX_BYTES) {
        const length = part.readUInt32BE(from + 1);
        if (part.length - from < PREFIX_BYTES + length) break;
        call.onMessage(part, from + PREFIX_BYTES, from + PREFIX_BYTES + length);
        from += PREFIX_BYTES + length;
      }
      call.part = from === part.length ? undefined : from > 0 ? Buffer.from(part.subarray(from)) : part;
    }
  }

  #control(type, flags, id, bytes, start, end) {
    switch (type) {
      case HEADERS:
        if ((flags & 0x28) !== 0) throw new Error("padding and priorities are not expected of a server");
        if ((flags & END_HEADERS) === 0) {
          this.#block = { id, flags, bytes: Buffer.from(bytes.subarray(start, end)) };
          return;
        }
        this.#fields(id, flags, bytes, start, end);
        return;
      case CONTINUATION: {
        this.#block.bytes = Buffer.concat([this.#block.bytes, bytes.subarray(start, end)]);
        if ((flags & END_HEADERS) === 0) return;
        const whole = this.#block.bytes;
        this.#fields(id, this.#block.flags, whole, 0, whole.length);
        return;
      }
      case SETTINGS:
        if ((flags & ACK) !== 0) return;
        for (let at = start; at < end; at += 6) {
          if (bytes.readUInt16BE(at) === 4) this.#peerStreamWindow = bytes.readUInt32BE(at + 2);
        }
        this.#header(0, SETTINGS, ACK, 0);
        return;
      case PING:
        if ((flags & ACK) !== 0) return;
        this.#header(8, PING, ACK, 0);
        this.#slab.set(bytes.subarray(start, end), this.#at);
        this.#at += 8;
        return;
      case WINDOW_UPDATE:
        if (id !== 0) return;
        this.#sendWindow += bytes.readUInt32BE(start);
        this.#sendWaiting();
        return;
      case RST_STREAM: {
        const call = this.#calls.get(id);
        this.#calls.delete(id);
        call?.onEnd(13, `the stream was reset with code ${bytes.readUInt32BE(start)}`);
        return;
      }
      case GOAWAY:
        if (!this.#closed) this.#lost(new Error(`GOAWAY ${bytes.readUInt32BE(start + 4)}`));
        return;
      default:
    }
  }

  #fields(id, flags, bytes, start, end) {
    const fields = this.#reader.read(bytes, start, end);
    const call = this.#calls.get(id);
    if ((flags & END_STREAM) === 0) {
      if (call && fields.get(":status") !== "200") call.onEnd(2, `HTTP status ${fields.get(":status")}`);
      return;
    }
    if (!call) return;
    this.#calls.delete(id);
    const status = fields.get("grpc-status");
    if (status === "0") call.onEnd(0, "");
    else call.onEnd(Number(status ?? 2), fields.get("grpc-message") ?? "no grpc-status");
  }
}
