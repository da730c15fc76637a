/**
 * Where a range puts the pairs it finds: either the bytes of a RangeResponse, into which stored KeyValues are copied as
 * they are, or decoded messages for who looks inside.
 */
import type { KeyValue } from "@etcd-ts/client/wire";
import { readKeyValue, varintLength, writeVarint } from "../storage/index.ts";

export interface KeyValueSink {
  /** Whether the bytes given to `add` must stay as they are after the call. */
  readonly keepsBytes: boolean;
  add(stored: Uint8Array): void;
}

export class DecodedKeyValues implements KeyValueSink {
  readonly keepsBytes = true;
  readonly kvs: KeyValue[] = [];

  add(stored: Uint8Array): void {
    this.kvs.push(readKeyValue(stored) as KeyValue);
  }
}

const TAG_KVS = 0x12;
const TAG_MORE = 0x18;
const TAG_COUNT = 0x20;
const PIECE_BYTES_FIRST = 16 * 1024;
const PIECE_BYTES_MAX = 1024 * 1024;
/** A tag and the longest length. */
const FRAME_BYTES_MAX = 6;

/**
 * The fields `kvs`, `more` and `count` of a RangeResponse as bytes, in pieces that grow to 1 MiB. The header goes before
 * them, by the caller.
 */
export class EncodedKeyValues implements KeyValueSink {
  readonly keepsBytes = false;
  readonly #pieces: Uint8Array[] = [];
  #piece: Buffer | undefined;
  #used = 0;

  add(stored: Uint8Array): void {
    const needed = stored.length + FRAME_BYTES_MAX;
    const piece = this.#room(needed);
    let at = this.#used;
    piece[at++] = TAG_KVS;
    at = writeVarint(piece, at, stored.length);
    piece.set(stored, at);
    this.#used = at + stored.length;
  }

  /** All pieces; nothing may be added any more. */
  finish(result: { readonly more: boolean; readonly count: number }): readonly Uint8Array[] {
    const piece = this.#room(3 + varintLength(result.count));
    let at = this.#used;
    if (result.more) {
      piece[at++] = TAG_MORE;
      piece[at++] = 1;
    }
    if (result.count > 0) {
      piece[at++] = TAG_COUNT;
      at = writeVarint(piece, at, result.count);
    }
    if (at > 0) this.#pieces.push(piece.subarray(0, at));
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
