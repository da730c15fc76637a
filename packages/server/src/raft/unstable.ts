/**
 * The end of the log that is not known to be durable: entries, and perhaps a snapshot that replaces everything before
 * them. It stays here while its write is under way, so that raft reads it here and not from the storage, until the
 * storage is sure to give it back.
 *
 *   storage  ... 4 5 6 7 8            (7 and 8 will be overwritten)
 *   unstable         |7 8 9 10 11     offset = 7
 *                     being    ^
 *                     written  offsetInProgress = 10: 10 and 11 are still to be handed out
 *
 * The arrays that leave this class are copies: those inside may change.
 */
import { assert } from "../lib/assert.ts";
import type { Logger } from "../lib/log.ts";
import type { Entry, Snapshot } from "../pb/raftpb.ts";
import { limitSize } from "./entry-size.ts";
import { snapshotIndex, snapshotTerm } from "./storage.ts";

/** Stands for a term that the log does not know: compacted away, or not yet there. */
export const UNKNOWN_TERM = -1;

export class UnstableLog {
  snapshot: Snapshot | undefined;
  isSnapshotInProgress = false;
  /** entries[i] has the index offset + i. May be below the storage's last index: those entries will be replaced. */
  entries: Entry[] = [];
  offset: number;
  /** Entries before it have been handed out to be written. Invariant: offset <= offsetInProgress. */
  offsetInProgress: number;
  readonly #logger: Logger;

  constructor(offset: number, logger: Logger) {
    this.offset = offset;
    this.offsetInProgress = offset;
    this.#logger = logger;
  }

  /** Undefined when the storage knows better. */
  lastIndex(): number | undefined {
    if (this.entries.length > 0) return this.offset + this.entries.length - 1;
    return this.snapshot ? snapshotIndex(this.snapshot) : undefined;
  }

  term(index: number): number {
    if (index >= this.offset) return this.entries[index - this.offset]?.term ?? UNKNOWN_TERM;
    return this.snapshot && snapshotIndex(this.snapshot) === index ? snapshotTerm(this.snapshot) : UNKNOWN_TERM;
  }

  get hasNextEntries(): boolean {
    return this.offset + this.entries.length > this.offsetInProgress;
  }

  /** What is to be written and has not been handed out. */
  nextEntries(): Entry[] {
    return this.hasNextEntries ? this.entries.slice(this.offsetInProgress - this.offset) : [];
  }

  nextSnapshot(): Snapshot | undefined {
    return this.isSnapshotInProgress ? undefined : this.snapshot;
  }

  /** All that is here has been handed out. */
  acceptInProgress(): void {
    if (this.entries.length > 0) this.offsetInProgress = this.offset + this.entries.length;
    if (this.snapshot) this.isSnapshotInProgress = true;
  }

  /**
   * Entries up to this one are durable, and no write under way can overwrite them. Ignored unless the entry here is of
   * that term: it may have been replaced meanwhile.
   */
  stableTo(index: number, term: number): void {
    const ours = this.term(index);
    if (ours === UNKNOWN_TERM) {
      // With asynchronous writes, an acknowledgement that says nothing new comes with every batch: for debugging only.
      if (this.#logger.isDebugEnabled) {
        this.#logger.info(`entry at index ${index} missing from unstable log; ignoring`);
      }
      return;
    }
    if (index < this.offset) {
      this.#logger.info(`entry at index ${index} matched unstable snapshot; ignoring`);
      return;
    }
    if (ours !== term) {
      this.#logger.info(
        `entry at (index,term)=(${index},${term}) mismatched with entry at (${index},${ours}) in unstable log; ignoring`,
      );
      return;
    }
    const count = index + 1 - this.offset;
    this.entries = count === this.entries.length ? [] : this.entries.slice(count);
    this.offset = index + 1;
    this.offsetInProgress = Math.max(this.offsetInProgress, this.offset);
  }

  stableSnapshotTo(index: number): void {
    if (this.snapshot && snapshotIndex(this.snapshot) === index) {
      this.snapshot = undefined;
      this.isSnapshotInProgress = false;
    }
  }

  /** The snapshot takes the place of the whole log. */
  restore(snapshot: Snapshot): void {
    this.offset = snapshotIndex(snapshot) + 1;
    this.offsetInProgress = this.offset;
    this.entries = [];
    this.snapshot = snapshot;
    this.isSnapshotInProgress = false;
  }

  /** Entries entries[from], entries[from + 1] ... take their places; what stood there or behind goes. */
  truncateAndAppend(entries: readonly Entry[], from: number): void {
    const at = (entries[from] as Entry).index;
    if (at <= this.offset && !(at === this.offset && this.entries.length === 0)) {
      this.#logger.info(`replace the unstable entries from index ${at}`);
      this.entries = [];
      this.offset = at;
      this.offsetInProgress = at;
    } else if (at < this.offset + this.entries.length) {
      this.#logger.info(`truncate the unstable entries before index ${at}`);
      this.entries.length = at - this.offset;
      this.offsetInProgress = Math.min(this.offsetInProgress, at);
    } else {
      assert(at === this.offset + this.entries.length, () => `unstable log misses the entries before ${at}`);
    }
    for (let i = from; i < entries.length; i++) this.entries.push(entries[i] as Entry);
  }

  /** [lo, hi), cut to `bytesMax` but one entry at least. */
  slice(lo: number, hi: number, bytesMax: number): Entry[] {
    assert(lo <= hi, () => `invalid unstable.slice ${lo} > ${hi}`);
    const upper = this.offset + this.entries.length;
    assert(
      lo >= this.offset && hi <= upper,
      () => `unstable.slice[${lo},${hi}) out of bound [${this.offset},${upper}]`,
    );
    const from = lo - this.offset;
    return this.entries.slice(from, limitSize(this.entries, from, hi - this.offset, bytesMax));
  }
}
