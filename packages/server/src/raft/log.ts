/**
 * The log as raft sees it: the durable part in the storage, then the unstable part.
 *
 *   first        applied   applying   committed          last
 *     |-------------|----------|----------|----------------|
 *     |  storage ...........................|  unstable ....|
 *
 * Invariants: applied <= applying <= committed <= last. Committed entries are never replaced.
 */
import { assert, InvariantError } from "../lib/assert.ts";
import type { Logger } from "../lib/log.ts";
import type { Entry, Snapshot } from "../pb/raftpb.ts";
import { entriesSize } from "./entry-size.ts";
import { type RaftStorage, RaftStorageError, snapshotIndex, snapshotTerm } from "./storage.ts";
import { UNKNOWN_TERM, UnstableLog } from "./unstable.ts";

export interface EntryId {
  readonly term: number;
  readonly index: number;
}

export class RaftLog {
  readonly storage: RaftStorage;
  readonly unstable: UnstableLog;
  /** The highest index known to be on a quorum. */
  committed: number;
  /** The application has been told to apply up to here. */
  applying: number;
  /** The application has applied up to here. */
  applied: number;
  /** Encoded bytes of entries between `applied` and `applying`, at most (one entry may exceed it). */
  readonly applyingBytesMax: number;
  #applyingBytes = 0;
  /** No more is handed out to apply until some is acknowledged. */
  #isApplyingPaused = false;
  readonly #logger: Logger;

  constructor(storage: RaftStorage, logger: Logger, applyingBytesMax: number) {
    this.storage = storage;
    this.#logger = logger;
    this.applyingBytesMax = applyingBytesMax;
    this.unstable = new UnstableLog(storage.lastIndex() + 1, logger);
    // All before the first entry has been compacted, so it was applied.
    this.committed = storage.firstIndex() - 1;
    this.applying = this.committed;
    this.applied = this.committed;
  }

  toString(): string {
    const { offset, offsetInProgress, entries } = this.unstable;
    return (
      `committed=${this.committed}, applied=${this.applied}, applying=${this.applying}, ` +
      `unstable.offset=${offset}, unstable.offsetInProgress=${offsetInProgress}, len(unstable.Entries)=${entries.length}`
    );
  }

  firstIndex(): number {
    return this.unstable.snapshot ? snapshotIndex(this.unstable.snapshot) + 1 : this.storage.firstIndex();
  }

  lastIndex(): number {
    return this.unstable.lastIndex() ?? this.storage.lastIndex();
  }

  /** From firstIndex() - 1 to lastIndex(); {@link UNKNOWN_TERM} outside. */
  term(index: number): number {
    const unstable = this.unstable.term(index);
    if (unstable !== UNKNOWN_TERM) return unstable;
    if (index + 1 < this.firstIndex() || index > this.lastIndex()) return UNKNOWN_TERM;
    try {
      return this.storage.term(index);
    } catch (error) {
      if (error instanceof RaftStorageError && (error.kind === "compacted" || error.kind === "unavailable")) {
        return UNKNOWN_TERM;
      }
      throw error;
    }
  }

  lastEntryId(): EntryId {
    const index = this.lastIndex();
    const term = this.term(index);
    assert(term !== UNKNOWN_TERM, () => `unexpected error when getting the last term at ${index}`);
    return { term, index };
  }

  matchesTerm(index: number, term: number): boolean {
    return this.term(index) === term;
  }

  /** Whether a log that ends with `their` entry is no older than ours (thesis 3.6.1). */
  isUpToDate(their: EntryId): boolean {
    const our = this.lastEntryId();
    return their.term > our.term || (their.term === our.term && their.index >= our.index);
  }

  /**
   * A leader's entries behind `previous`. Undefined when our log does not have `previous`; otherwise the index of the
   * last of them. `committed` is the leader's; ours follows as far as these entries reach.
   */
  maybeAppend(previous: EntryId, entries: readonly Entry[], committed: number): number | undefined {
    if (!this.matchesTerm(previous.index, previous.term)) return undefined;
    const last = previous.index + entries.length;
    const conflict = this.findConflict(entries);
    if (conflict !== 0) {
      if (conflict <= this.committed) {
        throw new InvariantError(`entry ${conflict} conflict with committed entry [committed(${this.committed})]`);
      }
      this.append(entries, conflict - previous.index - 1);
    }
    this.commitTo(Math.min(committed, last));
    return last;
  }

  /** Appends entries[from] and those after it. Gives the new last index. */
  append(entries: readonly Entry[], from = 0): number {
    const first = entries[from];
    if (!first) return this.lastIndex();
    assert(
      first.index - 1 >= this.committed,
      () => `after(${first.index - 1}) is out of range [committed(${this.committed})]`,
    );
    this.unstable.truncateAndAppend(entries, from);
    return this.lastIndex();
  }

  /** The index of the first of these entries that is new or of another term than ours; 0 when we have them all. */
  findConflict(entries: readonly Entry[]): number {
    for (const { index, term } of entries) {
      const ours = this.term(index);
      if (ours === term) continue;
      if (index <= this.lastIndex()) {
        this.#logger.info(
          `found conflict at index ${index} [existing term: ${Math.max(ours, 0)}, conflicting term: ${term}]`,
        );
      }
      return index;
    }
    return 0;
  }

  /**
   * Where our log may end to agree with another one, of which only one entry is known: the largest index up to `index`
   * whose term is at most `term`, with that term (0 when it is not known any more).
   */
  findConflictByTerm(index: number, term: number): EntryId {
    for (let at = index; at > 0; at--) {
      const ours = this.term(at);
      if (ours === UNKNOWN_TERM) return { index: at, term: 0 };
      if (ours <= term) return { index: at, term: ours };
    }
    return { index: 0, term: 0 };
  }

  /** True when the commit index moved: a leader commits by counting only what is of its own term (thesis 3.6.2). */
  maybeCommit(at: EntryId): boolean {
    if (at.term === 0 || at.index <= this.committed || !this.matchesTerm(at.index, at.term)) return false;
    this.commitTo(at.index);
    return true;
  }

  commitTo(index: number): void {
    if (index <= this.committed) return;
    const last = this.lastIndex();
    if (last < index) {
      throw new InvariantError(
        `tocommit(${index}) is out of range [lastIndex(${last})]. Was the raft log corrupted, truncated, or lost?`,
      );
    }
    this.committed = index;
  }

  /** [lo, hi), cut to `bytesMax` but one entry at least; undefined when lo has been compacted. */
  slice(lo: number, hi: number, bytesMax: number): Entry[] | undefined {
    assert(lo <= hi, () => `invalid slice ${lo} > ${hi}`);
    const first = this.firstIndex();
    if (lo < first) return undefined;
    const last = this.lastIndex();
    assert(hi <= last + 1, () => `slice[${lo},${hi}) out of bound [${first},${last}]`);
    if (lo === hi) return [];
    const { offset } = this.unstable;
    if (lo >= offset) return this.unstable.slice(lo, hi, bytesMax);

    const cut = Math.min(hi, offset);
    const entries = this.#storedEntries(lo, cut, bytesMax);
    if (!entries || hi <= offset || entries.length < cut - lo) return entries;
    if (bytesMax === Number.POSITIVE_INFINITY) return entries.concat(this.unstable.slice(offset, hi, bytesMax));

    const size = entriesSize(entries);
    if (size >= bytesMax) return entries;
    const rest = this.unstable.slice(offset, hi, bytesMax - size);
    if (rest.length === 1 && size + entriesSize(rest) > bytesMax) return entries;
    return entries.concat(rest);
  }

  #storedEntries(lo: number, hi: number, bytesMax: number): Entry[] | undefined {
    try {
      return this.storage.entries(lo, hi, bytesMax);
    } catch (error) {
      if (error instanceof RaftStorageError) {
        if (error.kind === "compacted") return undefined;
        if (error.kind === "unavailable") {
          throw new InvariantError(`entries[${lo}:${hi}) is unavailable from storage`);
        }
      }
      throw error;
    }
  }

  /** Entries from `index` on; empty behind the end, undefined when compacted. */
  entriesFrom(index: number, bytesMax: number): Entry[] | undefined {
    const last = this.lastIndex();
    return index > last ? [] : this.slice(index, last + 1, bytesMax);
  }

  /** Whether any entry in [lo, hi) satisfies `test`; read in pages of `pageBytes`. */
  some(lo: number, hi: number, pageBytes: number, test: (entry: Entry) => boolean): boolean {
    for (let at = lo; at < hi; ) {
      const page = this.slice(at, hi, pageBytes);
      if (!page || page.length === 0) {
        throw new InvariantError(`error scanning unapplied entries [${lo}, ${hi}): got 0 entries in [${at}, ${hi})`);
      }
      if (page.some(test)) return true;
      at += page.length;
    }
    return false;
  }

  // What goes out to be written.

  get hasNextOrInProgressSnapshot(): boolean {
    return this.unstable.snapshot !== undefined;
  }

  get hasNextOrInProgressEntries(): boolean {
    return this.unstable.entries.length > 0;
  }

  /** Throws `snapshotTemporarilyUnavailable` as the storage does. */
  snapshot(): Snapshot {
    return this.unstable.snapshot ?? this.storage.snapshot();
  }

  restore(snapshot: Snapshot): void {
    const index = snapshotIndex(snapshot);
    this.#logger.info(
      `log [${this.toString()}] starts to restore snapshot [index: ${index}, term: ${snapshotTerm(snapshot)}]`,
    );
    this.committed = index;
    this.unstable.restore(snapshot);
  }

  // What goes out to be applied.

  /** With `allowUnstable`, entries that are committed by others may be applied before our own disk has them. */
  #maxAppliable(allowUnstable: boolean): number {
    return allowUnstable ? this.committed : Math.min(this.committed, this.unstable.offset - 1);
  }

  /** A snapshot to be applied goes first, alone. */
  hasNextCommitted(allowUnstable: boolean): boolean {
    if (this.#isApplyingPaused || this.hasNextOrInProgressSnapshot) return false;
    return this.applying < this.#maxAppliable(allowUnstable);
  }

  nextCommitted(allowUnstable: boolean): Entry[] {
    if (!this.hasNextCommitted(allowUnstable)) return [];
    const room = this.applyingBytesMax - this.#applyingBytes;
    assert(
      room > 0,
      () => `applying entry size (${this.applyingBytesMax}-${this.#applyingBytes})=${room} not positive`,
    );
    const entries = this.slice(this.applying + 1, this.#maxAppliable(allowUnstable) + 1, room);
    assert(entries, "unexpected error when getting unapplied entries (compacted)");
    return entries;
  }

  /** Entries up to `index`, of `bytes` encoded bytes, have been handed out. */
  acceptApplying(index: number, bytes: number, allowUnstable: boolean): void {
    assert(
      index <= this.committed,
      () => `applying(${index}) is out of range [prevApplying(${this.applying}), committed(${this.committed})]`,
    );
    this.applying = index;
    this.#applyingBytes += bytes;
    // When less was handed out than could be applied, it was the limit that cut it.
    this.#isApplyingPaused = this.#applyingBytes >= this.applyingBytesMax || index < this.#maxAppliable(allowUnstable);
  }

  appliedTo(index: number, bytes: number): void {
    assert(
      index <= this.committed && index >= this.applied,
      () => `applied(${index}) is out of range [prevApplied(${this.applied}), committed(${this.committed})]`,
    );
    this.applied = index;
    this.applying = Math.max(this.applying, index);
    this.#applyingBytes = Math.max(0, this.#applyingBytes - bytes);
    this.#isApplyingPaused = this.#applyingBytes >= this.applyingBytesMax;
  }
}
