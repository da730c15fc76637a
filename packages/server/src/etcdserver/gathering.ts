/**
 * How long proposals wait for each other before they go to the disk together. Callers that were answered at the same moment
 * ask again at nearly the same moment; who goes ahead alone makes the others wait for a sync of their own.
 *
 * With many callers the processor is what is short, and not the disk: answers and requests that travel together cost less. So
 * half of the callers make a group, which is waited for during a few turns of the event loop.
 *
 * With few, waiting pays as far as a save takes longer than they do to come back. The group that is waited for is the largest
 * of late; the wait ends when nobody has come for an eighth of a save, or after a third of one. From time to time more are
 * waited for than came before, since there may be others who always just missed a save.
 *
 * Time is given by the caller, in milliseconds.
 */

const MANY_CALLERS = 64;
const TURNS_MAX = 3;
/** Each so-manieth group is open to more than came before. */
const PROBE_GROUPS = 8;
const PAUSE_PART = 1 / 8;
const WAIT_PART = 1 / 3;
/** Weight of the newest save in the mean. */
const NEWEST_PART = 1 / 4;

export class Gathering {
  #saveMs = 0;
  /** The largest group of late. */
  #largest = 1;
  #groups = 0;
  /** Of the group that is being waited for. */
  #turns = 0;
  #size = 0;
  #firstMs = 0;
  #lastMs = 0;

  /** A save of entries has taken so long. */
  saved(tookMs: number): void {
    this.#saveMs += (tookMs - this.#saveMs) * NEWEST_PART;
  }

  /** Whether `size` proposals, of `callers` who wait, should wait for more; asked once a turn. */
  goesOn(size: number, callers: number, nowMs: number): boolean {
    if (size === 0) return false;
    if (callers >= MANY_CALLERS) return size < callers / 2 && this.#turns++ < TURNS_MAX;
    if (this.#size === 0) this.#firstMs = nowMs;
    if (size !== this.#size) this.#lastMs = nowMs;
    this.#size = size;
    if (size >= this.#largest && this.#groups % PROBE_GROUPS !== 0) return false;
    return nowMs - this.#lastMs < this.#saveMs * PAUSE_PART && nowMs - this.#firstMs < this.#saveMs * WAIT_PART;
  }

  /** A group goes to the disk. */
  took(size: number): void {
    this.#groups++;
    // One that is not reached any more is forgotten within a few groups.
    this.#largest = size >= this.#largest ? size : this.#largest - Math.ceil((this.#largest - size) / 4);
    this.#turns = 0;
    this.#size = 0;
  }
}
