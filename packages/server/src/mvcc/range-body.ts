/**
 * Where a range puts the pairs it finds: either the bytes of a RangeResponse, into which stored KeyValues are copied as
 * they are, or decoded messages for who looks inside.
 */
import type { KeyValue } from "@etcd-ts/client/wire";
import { ANSWER_PART_BYTES } from "./limits.ts";
import { copyBytes } from "../lib/bytes.ts";
import { keyOfKeyValue, readKeyValue, varintLength, writeVarint } from "../storage/index.ts";

export interface KeyValueSink {
  /** Whether the bytes given to `add` must stay as they are after the call. */
  readonly keepsBytes: boolean;
  add(stored: Uint8Array): void;
}

/** Takes a part of an answer: the walk ends with the pair that fills it. */
export interface PartSink extends KeyValueSink {
  readonly isFull: boolean;
}

export class DecodedKeyValues implements PartSink {
  readonly keepsBytes = false;
  readonly isFull = false;
  readonly kvs: KeyValue[] = [];

  add(stored: Uint8Array): void {
    // An answer lives for a moment, so a small pair need not have memory of its own.
    const copy = Buffer.allocUnsafe(stored.length);
    copy.set(stored, 0);
    this.kvs.push(readKeyValue(copy) as KeyValue);
  }
}

const TAG_KVS = 0x12;
const TAG_MORE = 0x18;
const TAG_COUNT = 0x20;
const PIECE_BYTES_FIRST = 16 * 1024;
const PIECE_BYTES_MAX = 1024 * 1024;
/** Encoded pairs of fewer bytes are copied. */
const PIECE_BYTES_SHARED_MIN = 2048;
/** A tag and the longest length. */
export const PAIR_FRAME_BYTES_MAX = 6;

/** What stands before a stored pair of so many bytes in an answer. Returns where the pair begins. */
export function writePairFrame(bytes: Uint8Array, at: number, length: number): number {
  bytes[at] = TAG_KVS;
  return writeVarint(bytes, at + 1, length);
}

/** The fields after the pairs. */
function tailOf({ more, count }: { readonly more: boolean; readonly count: number }): Uint8Array {
  const tail = Buffer.alloc(3 + varintLength(count));
  let at = 0;
  if (more) {
    tail[at++] = TAG_MORE;
    tail[at++] = 1;
  }
  if (count > 0) {
    tail[at++] = TAG_COUNT;
    at = writeVarint(tail, at, count);
  }
  return tail.subarray(0, at);
}

/** Encodes pairs like {@link EncodedKeyValues}, and remembers the last key. */
export class EncodedPart implements PartSink {
  readonly keepsBytes = false;
  readonly #body = new EncodedKeyValues();
  #lastKey: Uint8Array | undefined;
  #bytes = 0;
  #pairs = 0;

  get lastKey(): Uint8Array | undefined {
    return this.#lastKey;
  }

  get isFull(): boolean {
    return this.#bytes >= ANSWER_PART_BYTES;
  }

  get pairs(): number {
    return this.#pairs;
  }

  add(stored: Uint8Array): void {
    this.#lastKey = copyBytes(keyOfKeyValue(stored));
    this.#pairs++;
    this.#bytes += stored.length;
    this.#body.add(stored);
  }

  finish(): readonly Uint8Array[] {
    return this.#body.finish();
  }
}

/**
 * The fields `kvs`, `more` and `count` of a RangeResponse as bytes, in pieces that grow to 1 MiB. The header goes before
 * them, by the caller.
 */
export class EncodedKeyValues implements KeyValueSink {
  readonly keepsBytes = false;
  #pieces: Uint8Array[] = [];
  #piece: Buffer | undefined;
  #used = 0;
  readonly #bytesMax: number;
  /** Of all that was added. */
  #bytes = 0;
  #pairs = 0;

  /** Beyond `bytesMax` nothing is kept any more, only measured. */
  constructor(bytesMax = Number.POSITIVE_INFINITY) {
    this.#bytesMax = bytesMax;
  }

  get isTooLarge(): boolean {
    return this.#bytes > this.#bytesMax;
  }

  /** Of all that was added, and of what finish() adds. */
  byteLength(result: { readonly more: boolean; readonly count: number }): number {
    return this.#bytes + tailOf(result).length;
  }

  /** How many were added, kept or not. */
  get pairs(): number {
    return this.#pairs;
  }

  /** Bytes so far, kept or not. */
  get addedBytes(): number {
    return this.#bytes;
  }

  add(stored: Uint8Array): void {
    this.#pairs++;
    this.#bytes += 1 + varintLength(stored.length) + stored.length;
    if (this.isTooLarge) {
      this.#pieces = [];
      this.#piece = undefined;
      return;
    }
    const piece = this.#room(stored.length + PAIR_FRAME_BYTES_MAX);
    const at = writePairFrame(piece, this.#used, stored.length);
    piece.set(stored, at);
    this.#used = at + stored.length;
  }

  /** Pairs that are encoded already, as fields of an answer. They are referred to, so they must not change again. */
  addEncoded(pairs: Uint8Array): void {
    if (pairs.length === 0) return;
    this.#bytes += pairs.length;
    if (this.isTooLarge) {
      this.#pieces = [];
      this.#piece = undefined;
      return;
    }
    if (pairs.length < PIECE_BYTES_SHARED_MIN) {
      const piece = this.#room(pairs.length);
      piece.set(pairs, this.#used);
      this.#used += pairs.length;
      return;
    }
    if (this.#piece && this.#used > 0) this.#pieces.push(this.#piece.subarray(0, this.#used));
    this.#piece = undefined;
    this.#pieces.push(pairs);
  }

  /** All pieces; nothing may be added any more. */
  finish(result?: { readonly more: boolean; readonly count: number }): readonly Uint8Array[] {
    if (result) {
      const tail = tailOf(result);
      const piece = this.#room(tail.length);
      piece.set(tail, this.#used);
      this.#used += tail.length;
    }
    if (this.#piece && this.#used > 0) this.#pieces.push(this.#piece.subarray(0, this.#used));
    this.#piece = undefined;
    return this.#pieces;
  }

  /** Room for the first pair is made to measure, so that an answer with one pair pins little more than itself. */
  #room(needed: number): Buffer {
    const piece = this.#piece;
    if (piece && piece.length - this.#used >= needed) return piece;
    if (piece && this.#used > 0) this.#pieces.push(piece.subarray(0, this.#used));
    const grown = !piece ? 0 : Math.min(Math.max(piece.length * 2, PIECE_BYTES_FIRST), PIECE_BYTES_MAX);
    const next = Buffer.allocUnsafe(Math.max(needed + 16, grown));
    this.#piece = next;
    this.#used = 0;
    return next;
  }
}
