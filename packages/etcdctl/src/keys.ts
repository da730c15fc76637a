// Keys and ranges of keys.

/** The range end that stands for "no end". */
export const NO_END = Uint8Array.of(0);
/** The first possible key: what an empty key stands for where all keys are meant. */
export const FIRST_KEY = Uint8Array.of(0);

/** The first key after all that begin with `prefix`; NO_END when there is none. */
export function prefixEnd(prefix: Uint8Array): Uint8Array {
  for (let i = prefix.length - 1; i >= 0; i--) {
    if ((prefix[i] as number) < 0xff) {
      const end = Uint8Array.from(prefix.subarray(0, i + 1));
      end[i] = (end[i] as number) + 1;
      return end;
    }
  }
  return NO_END;
}

export interface KeyRange {
  readonly key: Uint8Array;
  /** Empty for a single key. */
  readonly rangeEnd: Uint8Array;
}

/** All keys that begin with `key`; an empty one stands for all keys. */
export const prefixRange = (key: Uint8Array): KeyRange =>
  key.length === 0 ? { key: FIRST_KEY, rangeEnd: NO_END } : { key, rangeEnd: prefixEnd(key) };

/** All keys from `key` on. */
export const fromKeyRange = (key: Uint8Array): KeyRange => ({
  key: key.length === 0 ? FIRST_KEY : key,
  rangeEnd: NO_END,
});
