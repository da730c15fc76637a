/**
 * The log that is already durable, as raft reads it; and an implementation in memory.
 *
 * The application writes to its storage what Ready hands out; raft only reads, synchronously. A storage keeps, besides
 * its entries, the term of the entry just before the first one, for matching.
 */
import { assert } from "../lib/assert.ts";
import { entrySize, limitSize } from "./entry-size.ts";
import { PackedEntries } from "./packed-entries.ts";
import type { ConfState, Entry, HardState, Snapshot } from "../pb/raftpb.ts";

export type RaftStorageErrorKind = "compacted" | "unavailable" | "snapshotOutOfDate" | "snapshotTemporarilyUnavailable";

const TEXTS: Readonly<Record<RaftStorageErrorKind, string>> = {
  compacted: "requested index is unavailable due to compaction",
  unavailable: "requested entry at index is unavailable",
  snapshotOutOfDate: "requested index is older than the existing snapshot",
  snapshotTemporarilyUnavailable: "snapshot is temporarily unavailable",
};

export class RaftStorageError extends Error {
  override readonly name = "RaftStorageError";
  readonly kind: RaftStorageErrorKind;

  constructor(kind: RaftStorageErrorKind) {
    super(TEXTS[kind]);
    this.kind = kind;
  }
}

/** Any error but the {@link RaftStorageError}s named below leaves raft unusable; the application then recovers. */
export interface RaftStorage {
  /** What was saved last: an empty storage gives zeroes and an empty configuration. */
  initialState(): { readonly hardState: HardState; readonly confState: ConfState };
  /**
   * Entries [lo, hi), cut so that their encoded size stays within `bytesMax`, but at least one. The array is the
   * caller's; the entries are shared and never change. Throws `compacted` when lo is gone.
   */
  entries(lo: number, hi: number, bytesMax: number): Entry[];
  /** For firstIndex() - 1 <= index <= lastIndex(). Throws `compacted` or `unavailable` outside. */
  term(index: number): number;
  lastIndex(): number;
  /** The first index that `entries` can give; lastIndex() + 1 when it holds none. */
  firstIndex(): number;
  /** The newest one. Throws `snapshotTemporarilyUnavailable` when it must first be made; raft asks again later. */
  snapshot(): Snapshot;
}

export const emptyHardState: HardState = Object.freeze({ term: 0, vote: 0n, commit: 0 });

export function emptyConfState(): ConfState {
  return { voters: [], learners: [], votersOutgoing: [], learnersNext: [], autoLeave: false };
}

export function emptySnapshot(): Snapshot {
  return { data: undefined, metadata: { confState: emptyConfState(), index: 0, term: 0 } };
}

/** 0: an empty snapshot, which is none. */
export function snapshotIndex(snapshot: Snapshot | undefined): number {
  return snapshot?.metadata?.index ?? 0;
}

export function snapshotTerm(snapshot: Snapshot | undefined): number {
  return snapshot?.metadata?.term ?? 0;
}

/** Entries of a packed run. The newest ones, between one and two runs of them, are kept as they came. */
const RUN_ENTRIES = 1024;

/**
 * A storage in memory, for tests and as the read side of a WAL: the server appends what it saved.
 *
 * ```
 *   #offset         forgotten up to here; it may lie within the first run, or within #entries
 *   #runs           packed, each of as many entries
 *   #entries        the newest, from #entriesFirst on
 * ```
 *
 * Invariant: the runs and `#entries` follow each other without a gap, and reach from `#offset + 1` or before to the end.
 */
export class MemoryStorage implements RaftStorage {
  #hardState: HardState = emptyHardState;
  #snapshot: Snapshot = emptySnapshot();
  /** Index and term of the entry before the first. */
  #offset = 0;
  #offsetTerm = 0;
  #runs: PackedEntries[] = [];
  #entries: Entry[] = [];
  #entriesFirst = 1;
  readonly #runEntries: number;

  constructor(runEntries = RUN_ENTRIES) {
    this.#runEntries = runEntries;
  }

  initialState(): { hardState: HardState; confState: ConfState } {
    return { hardState: this.#hardState, confState: this.#snapshot.metadata?.confState ?? emptyConfState() };
  }

  setHardState(hardState: HardState): void {
    this.#hardState = hardState;
  }

  entries(lo: number, hi: number, bytesMax: number): Entry[] {
    if (lo <= this.#offset) throw new RaftStorageError("compacted");
    assert(hi <= this.lastIndex() + 1, () => `entries' hi(${hi}) is out of bound lastindex(${this.lastIndex()})`);
    if (this.lastIndex() === this.#offset) throw new RaftStorageError("unavailable");
    const first = this.#entriesFirst;
    if (lo >= first) {
      return this.#entries.slice(lo - first, limitSize(this.#entries, lo - first, hi - first, bytesMax));
    }
    const found: Entry[] = [];
    let bytes = 0;
    for (let index = lo; index < hi; index++) {
      const entry = index < first ? this.#run(index).entry(index) : (this.#entries[index - first] as Entry);
      bytes += entrySize(entry);
      if (bytes > bytesMax && index > lo) break;
      found.push(entry);
    }
    return found;
  }

  /** The run that holds an entry before {@link #entriesFirst}. */
  #run(index: number): PackedEntries {
    const run = this.#runs[this.#runNumber(index)];
    assert(run, () => `entry ${index} is in no run`);
    return run;
  }

  #runNumber(index: number): number {
    const first = this.#runs[0];
    return first ? Math.floor((index - first.firstIndex) / this.#runEntries) : 0;
  }

  term(index: number): number {
    if (index < this.#offset) throw new RaftStorageError("compacted");
    if (index === this.#offset) return this.#offsetTerm;
    if (index < this.#entriesFirst) return this.#run(index).term(index);
    const entry = this.#entries[index - this.#entriesFirst];
    if (!entry) throw new RaftStorageError("unavailable");
    return entry.term;
  }

  lastIndex(): number {
    return this.#entriesFirst + this.#entries.length - 1;
  }

  firstIndex(): number {
    return this.#offset + 1;
  }

  snapshot(): Snapshot {
    return this.#snapshot;
  }

  /** Replaces everything by a received snapshot. Throws `snapshotOutOfDate` unless it is newer than the kept one. */
  applySnapshot(snapshot: Snapshot): void {
    if (snapshotIndex(this.#snapshot) >= snapshotIndex(snapshot)) throw new RaftStorageError("snapshotOutOfDate");
    this.#snapshot = snapshot;
    this.#offset = snapshotIndex(snapshot);
    this.#offsetTerm = snapshotTerm(snapshot);
    this.#runs = [];
    this.#entries = [];
    this.#entriesFirst = this.#offset + 1;
  }

  /**
   * Makes the snapshot that {@link snapshot} gives from now on. `confState` is that of the last applied configuration
   * change; left out, the last snapshot's stays. Throws `snapshotOutOfDate` unless index is beyond the kept one.
   */
  createSnapshot(index: number, confState: ConfState | undefined, data: Uint8Array | undefined): Snapshot {
    if (index <= snapshotIndex(this.#snapshot)) throw new RaftStorageError("snapshotOutOfDate");
    assert(index <= this.lastIndex(), () => `snapshot ${index} is out of bound lastindex(${this.lastIndex()})`);
    this.#snapshot = {
      data,
      metadata: {
        index,
        term: this.term(index),
        confState: confState ?? this.#snapshot.metadata?.confState ?? emptyConfState(),
      },
    };
    return this.#snapshot;
  }

  /** Forgets the entries up to and with `index`, which must be applied. Throws `compacted` when they are gone. */
  compact(index: number): void {
    if (index <= this.#offset) throw new RaftStorageError("compacted");
    assert(index <= this.lastIndex(), () => `compact ${index} is out of bound lastindex(${this.lastIndex()})`);
    this.#offsetTerm = this.term(index);
    this.#offset = index;
    const gone = this.#runs.findIndex(({ endIndex }) => endIndex > index + 1);
    this.#runs.splice(0, gone < 0 ? this.#runs.length : gone);
    if (index < this.#entriesFirst) return;
    this.#entries = this.#entries.slice(index + 1 - this.#entriesFirst);
    this.#entriesFirst = index + 1;
  }

  /** Entries that follow each other; those that stand at or behind their first one are replaced. */
  append(entries: readonly Entry[]): void {
    const first = entries[0];
    if (!first) return;
    const skip = Math.max(0, this.firstIndex() - first.index);
    if (skip >= entries.length) return;
    const at = first.index + skip;
    assert(
      at <= this.lastIndex() + 1,
      () => `missing log entry [last: ${this.lastIndex()}, append at: ${first.index + skip}]`,
    );
    if (at < this.#entriesFirst) this.#unpack(at);
    this.#entries.length = at - this.#entriesFirst;
    for (let i = skip; i < entries.length; i++) this.#entries.push(entries[i] as Entry);
    if (this.#entries.length >= 2 * this.#runEntries) this.#pack();
  }

  #pack(): void {
    const size = this.#runEntries;
    let packed = 0;
    for (; this.#entries.length - packed >= 2 * size; packed += size) {
      this.#runs.push(new PackedEntries(this.#entries, packed, packed + size));
    }
    this.#entries = this.#entries.slice(packed);
    this.#entriesFirst += packed;
  }

  /** What stands in front of an entry that is about to be replaced, as far as it is of the same run, becomes objects again. */
  #unpack(index: number): void {
    const number = this.#runNumber(index);
    const run = this.#run(index);
    this.#runs.length = number;
    this.#entries = [];
    this.#entriesFirst = run.firstIndex;
    for (let i = run.firstIndex; i < index; i++) this.#entries.push(run.entry(i));
  }
}
