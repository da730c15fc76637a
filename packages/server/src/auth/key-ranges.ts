/**
 * A set of keys, as sorted intervals that neither overlap nor touch: [a, c) and [c, e) become [a, e). One key alone is
 * the interval up to its successor, the key with a zero byte behind it. Built once, asked often.
 *
 * A range is written as in requests: an empty end means one key, an end of one zero byte means every key from there on.
 */
import { type KeyString, keyString } from "../lib/bytes.ts";

interface Interval {
  readonly start: KeyString;
  /** Exclusive; undefined is the end of the key space. */
  readonly end: KeyString | undefined;
}

function endOf(key: Uint8Array, rangeEnd: Uint8Array): KeyString | undefined {
  if (rangeEnd.length === 0) return `${keyString(key)}\0` as KeyString;
  return rangeEnd.length === 1 && rangeEnd[0] === 0 ? undefined : keyString(rangeEnd);
}

export class KeyRanges {
  /** Ascending, disjoint, with a gap between neighbours. */
  readonly #intervals: readonly Interval[];

  constructor(ranges: readonly { readonly key: Uint8Array; readonly rangeEnd: Uint8Array }[]) {
    const sorted = ranges
      .map(({ key, rangeEnd }): Interval => ({ start: keyString(key), end: endOf(key, rangeEnd) }))
      .filter(({ start, end }) => end === undefined || start < end)
      .sort((a, b) => (a.start < b.start ? -1 : a.start > b.start ? 1 : 0));
    const merged: Interval[] = [];
    for (const interval of sorted) {
      const last = merged.at(-1);
      if (!last || (last.end !== undefined && last.end < interval.start)) {
        merged.push(interval);
      } else if (last.end !== undefined && (interval.end === undefined || interval.end > last.end)) {
        merged[merged.length - 1] = { start: last.start, end: interval.end };
      }
    }
    this.#intervals = merged;
  }

  /** Whether every key of the range is in the set. A range that ends before it begins counts as its first key alone. */
  covers(key: Uint8Array, rangeEnd: Uint8Array): boolean {
    const intervals = this.#intervals;
    if (intervals.length === 0) return false;
    const start = keyString(key);
    let low = 0;
    let high = intervals.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((intervals[middle] as Interval).start <= start) low = middle + 1;
      else high = middle;
    }
    const found = intervals[low - 1];
    if (!found) return false;
    if (found.end === undefined) return true;
    if (start >= found.end) return false;
    const end = endOf(key, rangeEnd);
    return end !== undefined && end <= found.end;
  }
}
