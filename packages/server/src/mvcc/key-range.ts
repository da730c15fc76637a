/** Intervals of user keys, as requests spell them: one key, [key, end), or everything from a key on. */
import { compareBytes, EMPTY_BYTES } from "../lib/bytes.ts";

export interface KeyRange {
  /** Inclusive. */
  readonly start: Uint8Array;
  /** Exclusive; `undefined` when the range has no end. Not looked at when `isSingle`. */
  readonly end: Uint8Array | undefined;
  /** `start` alone. */
  readonly isSingle: boolean;
}

const isOpenEnd = (rangeEnd: Uint8Array): boolean => rangeEnd.length === 1 && rangeEnd[0] === 0;

/** An empty `rangeEnd` means the key alone, a single zero byte everything from the key on. */
export function keyRange(key: Uint8Array, rangeEnd: Uint8Array = EMPTY_BYTES): KeyRange {
  if (rangeEnd.length === 0) return { start: key, end: undefined, isSingle: true };
  return { start: key, end: isOpenEnd(rangeEnd) ? undefined : rangeEnd, isSingle: false };
}

/** An end that is not above the start: nothing is in it, and that is no error. */
export function isEmptyRange(range: KeyRange): boolean {
  return !range.isSingle && range.end !== undefined && compareBytes(range.start, range.end) >= 0;
}

export function isInRange(range: KeyRange, key: Uint8Array): boolean {
  const order = compareBytes(key, range.start);
  if (range.isSingle) return order === 0;
  return order >= 0 && (range.end === undefined || compareBytes(key, range.end) < 0);
}

/** The first key behind `key`: `key` and a zero byte. */
export function keyAfter(key: Uint8Array): Uint8Array {
  const after = new Uint8Array(key.length + 1);
  after.set(key);
  return after;
}
