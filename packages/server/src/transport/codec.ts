/**
 * The two stream formats between members, byte for byte etcd's. All numbers are big endian.
 *
 * - `message`: u64 length, raftpb.Message; again and again.
 * - `msgapp` (msgAppV2): only MsgApp. A byte says what follows: 0 nothing (keeps the link alive); 1 u64 count, that
 *   many (u64 length, raftpb.Entry), u64 commit: the entries continue exactly where the last message ended; 2 u64
 *   length, raftpb.Message in full. Both ends remember term and index, from zero at the start of the connection.
 */
import { assert } from "../lib/assert.ts";
import { asBuffer } from "../lib/bytes.ts";
import { entrySize, writeEntry } from "../pb/entry-writer.ts";
import { Entry, Message, MessageType } from "../pb/raftpb.ts";
import { MESSAGE_BYTES_MAX } from "./limits.ts";

export type StreamType = "message" | "msgapp";

/** As log lines name the two streams. */
export const STREAM_LABELS: Readonly<Record<StreamType, string>> = {
  message: "stream Message",
  msgapp: "stream MsgApp v2",
};

export class CodecError extends Error {
  override readonly name = "CodecError";
}

const LENGTH_BYTES = 8;
const FORM_HEARTBEAT = 0;
const FORM_ENTRIES = 1;
const FORM_MESSAGE = 2;

/** Keeps a link alive; never given to raft. */
export const LINK_HEARTBEAT: Message = Message.create({ type: MessageType.MsgHeartbeat });

export function isLinkHeartbeat(message: Message): boolean {
  return message.type === MessageType.MsgHeartbeat && message.from === 0n && message.to === 0n;
}

function lengthBytes(length: number): Buffer {
  const bytes = Buffer.allocUnsafe(LENGTH_BYTES);
  writeUint64(bytes, length, 0);
  return bytes;
}

/** A counter; a BigInt for each would cost more than the entry. */
function writeUint64(bytes: Buffer, value: number, at: number): void {
  bytes.writeUInt32BE(Math.floor(value / 2 ** 32), at);
  bytes.writeUInt32BE(value % 2 ** 32, at + 4);
}

/** Appends one message's frame to `pieces`; returns its size. */
export function encodeMessageFrame(message: Message, pieces: Uint8Array[]): number {
  const body = Message.encode(message);
  pieces.push(lengthBytes(body.length), body);
  return LENGTH_BYTES + body.length;
}

export interface StreamEncoder {
  /** Appends the frame to `pieces`; returns its size. */
  encode(message: Message, pieces: Uint8Array[]): number;
  readonly heartbeat: Uint8Array;
}

const MESSAGE_HEARTBEAT: Uint8Array = (() => {
  const pieces: Uint8Array[] = [];
  encodeMessageFrame(LINK_HEARTBEAT, pieces);
  return Buffer.concat(pieces);
})();

export const messageEncoder: StreamEncoder = { encode: encodeMessageFrame, heartbeat: MESSAGE_HEARTBEAT };

/** One per connection. */
export class MsgAppEncoder implements StreamEncoder {
  readonly heartbeat: Uint8Array = Uint8Array.of(FORM_HEARTBEAT);
  #term = 0;
  #index = 0;

  encode(message: Message, pieces: Uint8Array[]): number {
    assert(message.type === MessageType.MsgApp, "only MsgApp goes over a msgapp stream");
    const { entries, term, logTerm, index, commit } = message;
    if (this.#index === index && this.#term === logTerm && logTerm === term) {
      let size = 1 + 2 * LENGTH_BYTES;
      for (const entry of entries) size += LENGTH_BYTES + entrySize(entry);
      const bytes = Buffer.allocUnsafe(size);
      bytes[0] = FORM_ENTRIES;
      writeUint64(bytes, entries.length, 1);
      let at = 1 + LENGTH_BYTES;
      for (const entry of entries) {
        const start = at + LENGTH_BYTES;
        const end = writeEntry(bytes, entry, start);
        writeUint64(bytes, end - start, at);
        at = end;
      }
      writeUint64(bytes, commit, at);
      pieces.push(bytes);
      this.#index += entries.length;
      return size;
    }
    pieces.push(Uint8Array.of(FORM_MESSAGE));
    const size = 1 + encodeMessageFrame(message, pieces);
    this.#term = term;
    this.#index = entries.at(-1)?.index ?? index;
    return size;
  }
}

/**
 * Bytes that arrived and are not consumed. What is handed out stays valid and is never written over: a buffer is filled
 * behind what was consumed of it, and left to its readers when it is full.
 */
class Arrived {
  #buffer: Buffer = Buffer.alloc(0);
  #start = 0;
  #end = 0;
  /** Whether the memory is ours to append to: a chunk of the socket is not. */
  #isOwn = false;

  get length(): number {
    return this.#end - this.#start;
  }

  /** `expected`: how many bytes the frame that has begun is known to need. */
  append(chunk: Uint8Array, expected: number): void {
    const have = this.length;
    if (have === 0) {
      this.#buffer = asBuffer(chunk);
      this.#start = 0;
      this.#end = chunk.length;
      this.#isOwn = false;
      return;
    }
    if (!this.#isOwn || this.#end + chunk.length > this.#buffer.length) {
      const grown = Buffer.allocUnsafeSlow(Math.max(expected, 2 * (have + chunk.length)));
      grown.set(this.#buffer.subarray(this.#start, this.#end), 0);
      this.#buffer = grown;
      this.#start = 0;
      this.#end = have;
      this.#isOwn = true;
    }
    this.#buffer.set(chunk, this.#end);
    this.#end += chunk.length;
  }

  byteAt(offset: number): number {
    return this.#buffer[this.#start + offset] as number;
  }

  /** Throws beyond 2^53. */
  uint64At(offset: number): number {
    const high = this.#buffer.readUInt32BE(this.#start + offset);
    if (high > 0x001f_ffff) throw new CodecError("number out of range");
    return high * 2 ** 32 + this.#buffer.readUInt32BE(this.#start + offset + 4);
  }

  view(offset: number, length: number): Buffer {
    return this.#buffer.subarray(this.#start + offset, this.#start + offset + length);
  }

  consume(length: number): void {
    this.#start += length;
  }
}

export interface StreamDecoder {
  /** Calls `emit` for each message that is complete now, link heartbeats left out. Throws on malformed input. */
  push(chunk: Uint8Array, emit: (message: Message, bytes: number) => void): void;
}

function checkedLength(length: number, max: number): number {
  if (length > max) throw new CodecError(`error limit exceeded: message of ${length} bytes, at most ${max}`);
  return length;
}

/** One per connection. */
export class MessageDecoder implements StreamDecoder {
  readonly #arrived = new Arrived();
  #expected = LENGTH_BYTES;

  push(chunk: Uint8Array, emit: (message: Message, bytes: number) => void): void {
    const arrived = this.#arrived;
    arrived.append(chunk, this.#expected);
    for (;;) {
      this.#expected = LENGTH_BYTES;
      if (arrived.length < LENGTH_BYTES) return;
      const length = checkedLength(arrived.uint64At(0), MESSAGE_BYTES_MAX);
      this.#expected = LENGTH_BYTES + length;
      if (arrived.length < this.#expected) return;
      const message = Message.decode(arrived.view(LENGTH_BYTES, length));
      arrived.consume(LENGTH_BYTES + length);
      if (!isLinkHeartbeat(message)) emit(message, length);
    }
  }
}

/** One per connection. `local` receives, `remote` sends: a short form does not name them. */
export class MsgAppDecoder implements StreamDecoder {
  readonly #local: bigint;
  readonly #remote: bigint;
  readonly #arrived = new Arrived();
  #term = 0;
  #index = 0;
  /** Of a frame of entries that is not complete: how far its lengths have been looked at, and entries beyond. */
  #scanned = 0;
  #entriesLeft = 0;
  #expected = 1;

  constructor(local: bigint, remote: bigint) {
    this.#local = local;
    this.#remote = remote;
  }

  push(chunk: Uint8Array, emit: (message: Message, bytes: number) => void): void {
    const arrived = this.#arrived;
    arrived.append(chunk, this.#expected);
    for (;;) {
      const length = this.#frameLength();
      if (length === undefined) return;
      const form = arrived.byteAt(0);
      if (form === FORM_ENTRIES) emit(this.#entriesMessage(), length);
      else if (form === FORM_MESSAGE) {
        const message = Message.decode(arrived.view(1 + LENGTH_BYTES, length - 1 - LENGTH_BYTES));
        this.#term = message.term;
        this.#index = message.entries.at(-1)?.index ?? message.index;
        emit(message, length);
      }
      arrived.consume(length);
      this.#scanned = 0;
      this.#expected = 1;
    }
  }

  /** Of the frame at the front; undefined while it is not complete. */
  #frameLength(): number | undefined {
    const arrived = this.#arrived;
    if (arrived.length === 0) return undefined;
    switch (arrived.byteAt(0)) {
      case FORM_HEARTBEAT:
        return 1;
      case FORM_MESSAGE: {
        if (arrived.length < 1 + LENGTH_BYTES) return undefined;
        const total = 1 + LENGTH_BYTES + checkedLength(arrived.uint64At(1), MESSAGE_BYTES_MAX);
        this.#expected = total;
        return arrived.length < total ? undefined : total;
      }
      case FORM_ENTRIES: {
        if (this.#scanned === 0) {
          if (arrived.length < 1 + LENGTH_BYTES) return undefined;
          this.#entriesLeft = arrived.uint64At(1);
          this.#scanned = 1 + LENGTH_BYTES;
        }
        for (; this.#entriesLeft > 0; this.#entriesLeft--) {
          if (arrived.length < this.#scanned + LENGTH_BYTES) return undefined;
          const end = this.#scanned + LENGTH_BYTES + arrived.uint64At(this.#scanned);
          this.#expected = checkedLength(end, MESSAGE_BYTES_MAX);
          if (arrived.length < end) return undefined;
          this.#scanned = end;
        }
        return arrived.length < this.#scanned + LENGTH_BYTES ? undefined : this.#scanned + LENGTH_BYTES;
      }
      default:
        throw new CodecError(`failed to parse type ${arrived.byteAt(0)} in msgappv2 stream`);
    }
  }

  #entriesMessage(): Message {
    const arrived = this.#arrived;
    const count = arrived.uint64At(1);
    const entries: Entry[] = [];
    let at = 1 + LENGTH_BYTES;
    for (let i = 0; i < count; i++) {
      const length = arrived.uint64At(at);
      entries.push(Entry.decode(arrived.view(at + LENGTH_BYTES, length)));
      at += LENGTH_BYTES + length;
    }
    const message = Message.create({
      type: MessageType.MsgApp,
      from: this.#remote,
      to: this.#local,
      term: this.#term,
      logTerm: this.#term,
      index: this.#index,
      entries,
      commit: arrived.uint64At(at),
    });
    this.#index += count;
    return message;
  }
}
