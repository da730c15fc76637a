/**
 * A run of entries that follow each other, laid down in a few pieces of memory. A member keeps up to some hundred thousand
 * entries for followers that are late; as objects, each with its data, they would be most of what the collector has to walk.
 */
import { assert } from "../lib/assert.ts";
import type { Entry, EntryType } from "../pb/raftpb.ts";

/** Data of more bytes is not copied but referred to. */
const COPIED_BYTES_MAX = 16 * 1024;

const HAS_DATA = 0x80;

export class PackedEntries {
  readonly firstIndex: number;
  readonly #terms: Float64Array;
  /** The type, and whether there is data. */
  readonly #kinds: Uint8Array;
  /** Where the data of each entry ends; it begins where that of the one before does. */
  readonly #ends: Uint32Array;
  readonly #bytes: Uint8Array;
  readonly #large = new Map<number, Uint8Array>();

  /** Of entries `from` to `to`, the latter not included. At least one. */
  constructor(entries: readonly Entry[], from: number, to: number) {
    const first = entries[from];
    assert(first && to <= entries.length, "a run of no entries");
    this.firstIndex = first.index;
    this.#terms = new Float64Array(to - from);
    this.#kinds = new Uint8Array(to - from);
    this.#ends = new Uint32Array(to - from);
    let end = 0;
    for (let i = 0; i < to - from; i++) {
      const { term, index, type, data } = entries[from + i] as Entry;
      assert(index === this.firstIndex + i && type < HAS_DATA, "entries of a run that do not follow each other");
      this.#terms[i] = term;
      this.#kinds[i] = data === undefined ? type : type | HAS_DATA;
      if (data !== undefined && data.length > COPIED_BYTES_MAX) this.#large.set(i, data);
      else if (data !== undefined) end += data.length;
      this.#ends[i] = end;
    }
    this.#bytes = new Uint8Array(end);
    for (let i = 0; i < to - from; i++) {
      const { data } = entries[from + i] as Entry;
      if (data !== undefined && data.length <= COPIED_BYTES_MAX) this.#bytes.set(data, this.#startOf(i));
    }
  }

  #startOf(i: number): number {
    return i === 0 ? 0 : (this.#ends[i - 1] as number);
  }

  /** Behind the last one. */
  get endIndex(): number {
    return this.firstIndex + this.#kinds.length;
  }

  term(index: number): number {
    return this.#terms[index - this.firstIndex] as number;
  }

  /** An object that is the caller's; its data is shared. */
  entry(index: number): Entry {
    const i = index - this.firstIndex;
    const kind = this.#kinds[i];
    assert(kind !== undefined, () => `entry ${index} is not of this run`);
    return {
      term: this.#terms[i] as number,
      index,
      type: (kind & ~HAS_DATA) as EntryType,
      data:
        (kind & HAS_DATA) === 0
          ? undefined
          : (this.#large.get(i) ?? this.#bytes.subarray(this.#startOf(i), this.#ends[i])),
    };
  }
}
