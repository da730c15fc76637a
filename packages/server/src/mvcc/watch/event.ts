/**
 * One change as a watcher is told of it. Made once and shared by all watchers that get it: the encoded form splices the
 * stored KeyValue, and the decoded one is made only for who asks.
 *
 * The events of one transaction lie one behind the other in memory that they share ({@link EventLog}), so that who gets all of
 * them is sent that memory as it is.
 */
import { type Event, EventType, type KeyValue } from "@etcd-ts/client/wire";
import { EMPTY_BYTES } from "../../lib/bytes.ts";
import {
  encodeKeyValue,
  keyOfKeyValue,
  readKeyValue,
  VarintCursor,
  varintLength,
  writeVarint,
} from "../../storage/index.ts";
import { EVENT_MEMORY_BYTES } from "../limits.ts";

/** `events` of a WatchResponse. */
const TAG_EVENTS = 0x5a;
const TAG_TYPE = 0x08;
const TAG_KV = 0x12;
const TAG_PREV_KV = 0x1a;

/** Bytes of the event of a put whose row has so many, without its tag and length. */
const eventBytesOf = (rowBytes: number): number => 1 + varintLength(rowBytes) + rowBytes;
const framedBytesOf = (eventBytes: number): number => 1 + varintLength(eventBytes) + eventBytes;

/** Writes the fields that stand before the row in the event of a put; gives where the row belongs. */
function writeHeadOfPut(into: Uint8Array, offset: number, rowBytes: number): number {
  into[offset] = TAG_EVENTS;
  let at = writeVarint(into, offset + 1, eventBytesOf(rowBytes));
  into[at++] = TAG_KV;
  return writeVarint(into, at, rowBytes);
}

/** Where an event lies as a field of a WatchResponse: in `memory` from `from` to `to`. */
export interface EncodedEvent {
  readonly memory: Uint8Array;
  readonly from: number;
  readonly to: number;
}

/** The pieces of memory in which events lie, in order: neighbours are one piece. */
export function piecesOf(events: readonly EncodedEvent[]): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  for (let i = 0; i < events.length; ) {
    const { memory, from, to } = events[i++] as EncodedEvent;
    let end = to;
    while (i < events.length) {
      const next = events[i] as EncodedEvent;
      if (next.memory !== memory || next.from !== end) break;
      end = next.to;
      i++;
    }
    pieces.push(memory.subarray(from, end));
  }
  return pieces;
}

interface Pairs {
  readonly kv: KeyValue;
  readonly prevKv: KeyValue | undefined;
}

/** Fits {@link Event}, so that `Event.encode` takes it too. The same object for all watchers; its memory stays as it is. */
export class WatchEvent implements Event, EncodedEvent {
  readonly isDelete: boolean;
  /** Main revision of the change. */
  readonly modRevision: number;
  readonly memory: Uint8Array;
  readonly from: number;
  readonly to: number;
  /** Made for who asks; most events are only sent. */
  #decoded: Pairs | undefined;

  constructor(isDelete: boolean, modRevision: number, memory: Uint8Array, from: number, to: number) {
    this.isDelete = isDelete;
    this.modRevision = modRevision;
    this.memory = memory;
    this.from = from;
    this.to = to;
  }

  get type(): EventType {
    return this.isDelete ? EventType.Delete : EventType.Put;
  }

  /** A deletion has the key and the revision, nothing else. */
  get kv(): KeyValue {
    return this.#decode().kv;
  }

  get prevKv(): KeyValue | undefined {
    return this.#decode().prevKv;
  }

  /** About what the event costs in memory and on the wire. */
  get sizeBytes(): number {
    return this.to - this.from + 16;
  }

  /** The encoded mvccpb.Event: the field without tag and length. */
  get bytes(): Uint8Array {
    let at = this.from + 1;
    while ((this.memory[at] as number) >= 0x80) at++;
    return this.memory.subarray(at + 1, this.to);
  }

  /** Of a put: the row as it is stored. */
  get row(): Uint8Array {
    return this.#field(TAG_KV) ?? EMPTY_BYTES;
  }

  /** The same in memory of its own, for who gets few of the events that lie beside it. */
  detached(): WatchEvent {
    const memory = Buffer.allocUnsafe(this.to - this.from);
    memory.set(this.memory.subarray(this.from, this.to), 0);
    return new WatchEvent(this.isDelete, this.modRevision, memory, 0, memory.length);
  }

  #decode(): Pairs {
    if (!this.#decoded) {
      const previous = this.#field(TAG_PREV_KV);
      this.#decoded = {
        kv: readKeyValue(this.row) as KeyValue,
        prevKv: previous && (readKeyValue(previous) as KeyValue),
      };
    }
    return this.#decoded;
  }

  #field(tag: number): Uint8Array | undefined {
    const { bytes } = this;
    const cursor = new VarintCursor(bytes);
    while (!cursor.isAtEnd) {
      const found = cursor.next();
      const value = cursor.next();
      if (found === TAG_TYPE) continue;
      cursor.skip(value);
      if (found === tag) return bytes.subarray(cursor.at - value, cursor.at);
    }
    return undefined;
  }
}

/** An event in memory of its own: of the row of the `key` table, and of the row before where that is asked for. */
export function encodeEvent(init: {
  readonly isDelete: boolean;
  readonly revision: number;
  readonly stored: Uint8Array;
  readonly prevStored?: Uint8Array | undefined;
}): WatchEvent {
  const { isDelete, revision, stored, prevStored } = init;
  const kv = isDelete
    ? encodeKeyValue({
        key: keyOfKeyValue(stored),
        createRevision: 0,
        modRevision: revision,
        version: 0,
        value: EMPTY_BYTES,
        lease: 0n,
      })
    : stored;
  const prevBytes = prevStored ? eventBytesOf(prevStored.length) : 0;
  const eventBytes = (isDelete ? 2 : 0) + eventBytesOf(kv.length) + prevBytes;
  const into = Buffer.allocUnsafe(framedBytesOf(eventBytes));
  into[0] = TAG_EVENTS;
  let at = writeVarint(into, 1, eventBytes);
  if (isDelete) {
    into[at++] = TAG_TYPE;
    into[at++] = EventType.Delete;
  }
  into[at++] = TAG_KV;
  at = writeVarint(into, at, kv.length);
  into.set(kv, at);
  at += kv.length;
  if (prevStored) {
    into[at++] = TAG_PREV_KV;
    at = writeVarint(into, at, prevStored.length);
    into.set(prevStored, at);
  }
  return new WatchEvent(isDelete, revision, into, 0, into.length);
}

/** The events of one write transaction, in the order of their changes. */
export class EventLog {
  readonly #revision: number;
  readonly events: WatchEvent[] = [];
  /** The user keys, by event; the caller's, so good until the write has been told. */
  readonly keys: Uint8Array[] = [];
  /** For the next events; undefined until there is one. */
  #memory: Buffer | undefined;
  #used = 0;

  constructor(revision: number) {
    this.#revision = revision;
  }

  /** The row at `at` was put, of `length` bytes; `others`: so many more changes may follow. */
  addPut(key: Uint8Array, source: Uint8Array, at: number, length: number, others: number): void {
    const bytes = framedBytesOf(eventBytesOf(length));
    const memory = this.#room(bytes, others);
    const from = this.#used;
    const rowAt = writeHeadOfPut(memory, from, length);
    memory.set(source.subarray(at, at + length), rowAt);
    this.#used = from + bytes;
    this.#add(key, new WatchEvent(false, this.#revision, memory, from, this.#used));
  }

  /** `stored`: the row, which is the key alone. */
  addDelete(key: Uint8Array, stored: Uint8Array): void {
    this.#add(key, encodeEvent({ isDelete: true, revision: this.#revision, stored }));
  }

  #add(key: Uint8Array, event: WatchEvent): void {
    this.keys.push(key);
    this.events.push(event);
  }

  /** Made to measure when the events that follow are like this one, as they mostly are. */
  #room(bytes: number, others: number): Buffer {
    if (this.#memory && this.#memory.length - this.#used >= bytes) return this.#memory;
    this.#memory = Buffer.allocUnsafe(Math.max(bytes, Math.min(bytes * (1 + others), EVENT_MEMORY_BYTES)));
    this.#used = 0;
    return this.#memory;
  }
}
