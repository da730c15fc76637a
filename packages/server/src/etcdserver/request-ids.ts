/**
 * Request ids: 16 low bits of the member id, 40 bits of the start time in milliseconds, 8 bits of counter, the last two
 * counted on as one number. Unique in the cluster, and over restarts, as long as less than 256 requests a millisecond
 * are made on average; etcd `pkg/idutil`.
 *
 * Inside the member the low 48 bits name a request, because they are a plain number.
 */

const SUFFIX_BITS = 48n;
const SUFFIX_MASK = (1n << SUFFIX_BITS) - 1n;
/** Numbers begin again at 0 here. */
export const SUFFIX_END = 2 ** 48;

export class RequestIds {
  readonly #prefix: bigint;
  #suffix: number;

  constructor(memberId: bigint, startMs: number) {
    this.#prefix = (memberId & 0xffffn) << SUFFIX_BITS;
    this.#suffix = (startMs % 2 ** 40) * 256;
  }

  /** The number of the next request. */
  next(): number {
    this.#suffix = this.#suffix + 1 === SUFFIX_END ? 0 : this.#suffix + 1;
    return this.#suffix;
  }

  /** The id as it goes into the log. */
  idOf(suffix: number): bigint {
    return this.#prefix | BigInt(suffix);
  }

  /** The number of an id that this member made, undefined for those of others. */
  suffixOf(id: bigint): number | undefined {
    return (id >> SUFFIX_BITS) << SUFFIX_BITS === this.#prefix ? Number(id & SUFFIX_MASK) : undefined;
  }

  /** An id for a lease: positive, never 0. */
  leaseId(): bigint {
    for (;;) {
      const id = BigInt.asUintN(63, this.idOf(this.next()));
      if (id !== 0n) return id;
    }
  }
}
