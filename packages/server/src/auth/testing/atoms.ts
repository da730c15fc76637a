/**
 * Sets of keys, too plain to be wrong: the key space is cut at every key that a test knows of and right behind it, and a
 * range is the list of all pieces in it.
 */
import { compareBytes } from "../../lib/bytes.ts";

export interface Range {
  readonly key: Uint8Array;
  readonly rangeEnd: Uint8Array;
}

export const isOpenEnded = (rangeEnd: Uint8Array): boolean => rangeEnd.length === 1 && rangeEnd[0] === 0;

export class Atoms {
  /** Where each piece begins; it ends where the next one begins, the last one never. */
  readonly starts: readonly Uint8Array[];

  /** Answers of {@link asked}, by the very arrays: tests use few of them, again and again. */
  readonly #asked = new Map<Uint8Array, Map<Uint8Array, readonly number[]>>();

  constructor(keys: readonly Uint8Array[]) {
    const all = keys.flatMap((key) => [key, Buffer.concat([key, Uint8Array.of(0)])]).sort(compareBytes);
    this.starts = all.filter((key, i) => i === 0 || compareBytes(all[i - 1] as Uint8Array, key) !== 0);
  }

  /** One flag a piece. */
  inRange({ key, rangeEnd }: Range): boolean[] {
    return this.starts.map((start) => {
      if (rangeEnd.length === 0) return compareBytes(start, key) === 0;
      return compareBytes(start, key) >= 0 && (isOpenEnded(rangeEnd) || compareBytes(start, rangeEnd) < 0);
    });
  }

  /** The numbers of the pieces that a range asks for; that of its first key when there is none in it. */
  asked(range: Range): readonly number[] {
    let byEnd = this.#asked.get(range.key);
    if (!byEnd) {
      byEnd = new Map();
      this.#asked.set(range.key, byEnd);
    }
    let asked = byEnd.get(range.rangeEnd);
    if (!asked) {
      const pieces = this.inRange(range);
      const flags = pieces.includes(true) ? pieces : this.inRange({ key: range.key, rangeEnd: new Uint8Array(0) });
      asked = flags.flatMap((isAsked, i) => (isAsked ? [i] : []));
      byEnd.set(range.rangeEnd, asked);
    }
    return asked;
  }
}
