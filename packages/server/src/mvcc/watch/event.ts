/**
 * One change as a watcher is told of it. Made once and shared by all watchers that get it: the encoded form splices the
 * stored KeyValue, and the decoded one is made only for who asks.
 */
import { type Event, EventType, type KeyValue } from "@etcd-ts/client/wire";
import { EMPTY_BYTES } from "../../lib/bytes.ts";
import { encodeKeyValue, keyOfKeyValue, readKeyValue, varintLength, writeVarint } from "../../storage/index.ts";

/** `events` of a WatchResponse. */
const TAG_EVENTS = 0x5a;
const TAG_TYPE = 0x08;
const TAG_KV = 0x12;
const TAG_PREV_KV = 0x1a;

export interface WatchEventInit {
  readonly isDelete: boolean;
  /** Main revision of the change. */
  readonly revision: number;
  /** The row of the `key` table; stays as it is. */
  readonly stored: Uint8Array;
  /** The row that was there before, for watchers that asked for it. */
  readonly prevStored?: Uint8Array | undefined;
  /** What {@link framePut} made of `stored`, where it is there already. */
  readonly framed?: Uint8Array | undefined;
}

/**
 * The event of a put as a field of a WatchResponse, in memory of its own: made of the row at `at` in one copy. The row is
 * its last `length` bytes.
 */
export function framePut(source: Uint8Array, at: number, length: number): Uint8Array {
  const eventBytes = 1 + varintLength(length) + length;
  const framed = Buffer.allocUnsafe(1 + varintLength(eventBytes) + eventBytes);
  framed[0] = TAG_EVENTS;
  let to = writeVarint(framed, 1, eventBytes);
  framed[to++] = TAG_KV;
  to = writeVarint(framed, to, length);
  framed.set(source.subarray(at, at + length), to);
  return framed;
}

/** Fits {@link Event}, so that `Event.encode` takes it too. */
export class WatchEvent implements Event {
  readonly #init: WatchEventInit;
  #kv: KeyValue | undefined;
  #prevKv: KeyValue | undefined;
  #framed: Uint8Array | undefined;
  #bytes: Uint8Array | undefined;

  constructor(init: WatchEventInit) {
    this.#init = init;
    if (!init.prevStored) this.#framed = init.framed;
  }

  get type(): EventType {
    return this.#init.isDelete ? EventType.Delete : EventType.Put;
  }

  get modRevision(): number {
    return this.#init.revision;
  }

  /** A deletion has the key and the revision, nothing else. */
  get kv(): KeyValue {
    const { isDelete, stored, revision } = this.#init;
    this.#kv ??= (
      isDelete
        ? {
            key: keyOfKeyValue(stored),
            createRevision: 0,
            modRevision: revision,
            version: 0,
            value: EMPTY_BYTES,
            lease: 0n,
          }
        : readKeyValue(stored)
    ) as KeyValue;
    return this.#kv;
  }

  get prevKv(): KeyValue | undefined {
    const { prevStored } = this.#init;
    if (!prevStored) return undefined;
    this.#prevKv ??= readKeyValue(prevStored) as KeyValue;
    return this.#prevKv;
  }

  /** About what the event costs in memory and on the wire. */
  get sizeBytes(): number {
    return this.#init.stored.length + (this.#init.prevStored?.length ?? 0) + 16;
  }

  /** The event as a field of a WatchResponse, for all watchers the same memory; must not be changed. */
  get framed(): Uint8Array {
    this.#framed ??= this.#encode();
    return this.#framed;
  }

  /** The encoded mvccpb.Event: the same without tag and length. */
  get bytes(): Uint8Array {
    if (!this.#bytes) {
      const { framed } = this;
      let at = 1;
      while ((framed[at] as number) >= 0x80) at++;
      this.#bytes = framed.subarray(at + 1);
    }
    return this.#bytes;
  }

  #encode(): Uint8Array {
    const { isDelete, stored, prevStored } = this.#init;
    const kv = isDelete ? encodeKeyValue(this.kv) : stored;
    const kvBytes = 1 + varintLength(kv.length) + kv.length;
    const prevBytes = prevStored ? 1 + varintLength(prevStored.length) + prevStored.length : 0;
    const eventBytes = (isDelete ? 2 : 0) + kvBytes + prevBytes;
    const into = Buffer.allocUnsafe(1 + varintLength(eventBytes) + eventBytes);
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
    return into;
  }
}
