/**
 * Ranges that may be long, read in slices between which others work. All slices of one see the store as it was at one
 * moment, because they read a pinned snapshot; so do the parts of an answer that is too large to be held and is read again
 * while it is sent, for as long as its snapshot may stay open.
 */
import { EtcdError, type RangeRequest } from "@etcd-ts/client/wire";
import { copyBytes } from "../lib/bytes.ts";
import type { Clock } from "../lib/clock.ts";
import { type BackendSnapshot, keyOfKeyValue } from "../storage/index.ts";
import { type KeyRange, keyAfter, keyRange } from "./key-range.ts";
import { ANSWER_PART_BYTES, ANSWER_PART_KEYS, LIST_SLICE_KEYS, OLD_RANGE_CHUNK_KEYS } from "./limits.ts";
import { listAt, type ListSource } from "./listing.ts";
import { isPlainList, type ListProgress, listLive, type RangeView, runPart } from "./range.ts";
import { EncodedKeyValues, EncodedPart, type PartSink } from "./range-body.ts";

/** Adds to an answer until a slice of it is full, and remembers the last key. */
class Slice implements PartSink {
  readonly keepsBytes = false;
  readonly #answer: EncodedKeyValues;
  readonly #endBytes: number;
  #last: Uint8Array | undefined;
  keys = 0;

  constructor(answer: EncodedKeyValues, bytesMax: number) {
    this.#answer = answer;
    this.#endBytes = answer.addedBytes + bytesMax;
  }

  get isFull(): boolean {
    return this.#answer.addedBytes >= this.#endBytes;
  }

  get lastKey(): Uint8Array | undefined {
    return this.#last;
  }

  add(stored: Uint8Array): void {
    this.keys++;
    this.#last = copyBytes(keyOfKeyValue(stored));
    this.#answer.add(stored);
  }
}

/**
 * Adds pairs of `range`, the rest of what `request` asks for (see isInStoreOrder), up to some bound: never more than
 * `leftMax`, which is what its limit leaves. `blocks`, where the store can give them, are for a list of whole pairs at the
 * view's newest revision: what is kept there counts for nothing against the bounds.
 */
export function addSlice(
  view: RangeView,
  blocks: ListSource | undefined,
  request: RangeRequest,
  range: KeyRange,
  bounds: { readonly keysMax: number; readonly bytesMax: number; readonly leftMax: number },
  answer: EncodedKeyValues,
): ListProgress {
  if (blocks && isPlainList(request)) {
    const { keysMax, bytesMax, leftMax } = bounds;
    const addedBytesMax = Number.POSITIVE_INFINITY;
    return listAt(
      blocks,
      range,
      { keysMax: leftMax, readKeysMax: keysMax, readBytesMax: bytesMax, addedBytesMax },
      answer,
    );
  }
  if (isPlainList(request)) return listLive(view.reader, range, bounds, answer);
  const slice = new Slice(answer, bounds.bytesMax);
  const { more } = runPart(view, { ...request, key: range.start, limit: bounds.keysMax }, slice);
  const { lastKey, keys } = slice;
  return { keys, next: more && lastKey ? keyAfter(lastKey) : undefined };
}

/** Keys of a slice: at an older revision the index is walked in chunks of its own, of which none should go to waste. */
export function sliceKeysMax(request: RangeRequest, keysMax: number): number {
  return request.revision > 0 ? OLD_RANGE_CHUNK_KEYS : keysMax;
}

/**
 * A snapshot that an answer reads from while it is sent. It pins pages that compactions would otherwise give back, so it
 * is let go of when its time is over or the caller has gone, whichever comes first.
 */
export class HeldSnapshot {
  #snapshot: BackendSnapshot | undefined;
  readonly #onRelease: () => void;
  readonly #stop: () => void;

  constructor(
    snapshot: BackendSnapshot,
    options: {
      readonly clock: Clock;
      readonly heldMs: number;
      readonly signal: AbortSignal | undefined;
      readonly onRelease: () => void;
    },
  ) {
    const { clock, heldMs, signal } = options;
    this.#snapshot = snapshot;
    this.#onRelease = options.onRelease;
    const timer = clock.after(heldMs, () => this.release(), { unref: true });
    const onAbort = (): void => this.release();
    signal?.addEventListener("abort", onAbort, { once: true });
    this.#stop = () => {
      timer.cancel();
      signal?.removeEventListener("abort", onAbort);
    };
  }

  /** `undefined` when it has been let go of. Valid until the caller lets other work in. */
  get reader(): BackendSnapshot | undefined {
    return this.#snapshot;
  }

  /** Harmless when repeated. */
  release(): void {
    const snapshot = this.#snapshot;
    if (!snapshot) return;
    this.#snapshot = undefined;
    this.#stop();
    snapshot.close();
    this.#onRelease();
  }
}

/** Bytes of an answer that is held as it is sent, as far as they count against what all such answers may hold. */
export class HeldBytes {
  readonly #reserve: (bytes: number) => boolean;
  #bytes = 0;
  #isBeingSent = false;

  /** `reserve` says whether so many more may be held; it is also told when there are fewer. */
  constructor(reserve: (bytes: number) => boolean) {
    this.#reserve = reserve;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** False: there is no room for so many. */
  growTo(bytes: number): boolean {
    if (bytes <= this.#bytes) return true;
    if (!this.#reserve(bytes - this.#bytes)) return false;
    this.#bytes = bytes;
    return true;
  }

  /** The pieces in parts; they count until the last one has been taken or the signal is aborted. */
  whileSent(pieces: readonly Uint8Array[], signal: AbortSignal | undefined): () => Iterable<readonly Uint8Array[]> {
    this.#isBeingSent = true;
    const release = (): void => {
      signal?.removeEventListener("abort", release);
      this.#isBeingSent = false;
      this.releaseUnlessSent();
    };
    if (signal?.aborted) release();
    else signal?.addEventListener("abort", release, { once: true });
    return function* () {
      try {
        yield* grouped(pieces);
      } finally {
        release();
      }
    };
  }

  releaseUnlessSent(): void {
    if (this.#isBeingSent || this.#bytes === 0) return;
    this.#reserve(-this.#bytes);
    this.#bytes = 0;
  }
}

/** Pieces, cut where they are too long, in groups of about the size of a part. */
function* grouped(pieces: readonly Uint8Array[]): Generator<readonly Uint8Array[]> {
  let group: Uint8Array[] = [];
  let bytes = 0;
  for (const piece of pieces) {
    for (let at = 0; at < piece.length; at += ANSWER_PART_BYTES) {
      const some = piece.subarray(at, at + ANSWER_PART_BYTES);
      group.push(some);
      bytes += some.length;
      if (bytes < ANSWER_PART_BYTES) continue;
      yield group;
      group = [];
      bytes = 0;
    }
  }
  if (group.length > 0) yield group;
}

/**
 * A measured answer in parts of bounded size, at `revision`. `view` is asked for each part; once it gives a view that does
 * not pin the revision, a compaction may be quicker than the reader: then this throws Compacted.
 */
export function* inParts(
  view: () => RangeView,
  blocks: () => ListSource | undefined,
  request: RangeRequest,
  revision: number,
  result: { readonly more: boolean; readonly count: number },
): Generator<readonly Uint8Array[]> {
  const range = keyRange(request.key, request.rangeEnd);
  let { start } = range;
  let left = request.limit > 0 ? request.limit : Number.POSITIVE_INFINITY;
  for (;;) {
    const source = isPlainList(request) ? blocks() : undefined;
    if (source) {
      if (!source.snapshot && source.revision < view().compactRevision) throw new EtcdError("Compacted");
      const body = new EncodedKeyValues();
      const bounds = {
        keysMax: left,
        readKeysMax: LIST_SLICE_KEYS,
        readBytesMax: ANSWER_PART_BYTES,
        addedBytesMax: ANSWER_PART_BYTES,
      };
      const { keys, next } = listAt(source, { ...range, start }, bounds, body);
      if (keys > 0) yield body.finish();
      left -= keys;
      if (!next || left <= 0) break;
      start = next;
      continue;
    }
    const part = new EncodedPart();
    const limit = Math.min(ANSWER_PART_KEYS, left);
    const { more } = runPart(view(), { ...request, key: start, revision, limit }, part);
    const { lastKey, pairs } = part;
    if (lastKey) yield part.finish();
    left -= pairs;
    if (!more || left <= 0 || !lastKey) break;
    start = keyAfter(lastKey);
  }
  yield new EncodedKeyValues().finish(result);
}
