/**
 * The log that is already durable, as raft reads it; and an implementation in memory.
 *
 * The application writes to its storage what Ready hands out; raft only reads, synchronously. A storage keeps, besides
 * its entries, the term of the entry just before the first one, for matching.
 */
import { assert } from "../lib/assert.ts";
import { limitSize } from "./entry-size.ts";
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

/**
 * A storage in memory, for tests and as the read side of a WAL: the server appends what it saved.
 * Entry i stands at `#entries[i - #offset - 1]`; `#offset` and `#offsetTerm` name the entry before the first.
 */
export class MemoryStorage implements RaftStorage {
  #hardState: HardState = emptyHardState;
  #snapshot: Snapshot = emptySnapshot();
  #offset = 0;
  #offsetTerm = 0;
  #entries: Entry[] = [];

  initialState(): { hardState: HardState; confState: ConfState } {
    return { hardState: this.#hardState, confState: this.#snapshot.metadata?.confState ?? emptyConfState() };
  }

  setHardState(hardState: HardState): void {
    this.#hardState = hardState;
  }

  entries(lo: number, hi: number, bytesMax: number): Entry[] {
    if (lo <= this.#offset) throw new RaftStorageError("compacted");
    assert(hi <= this.lastIndex() + 1, () => `entries' hi(${hi}) is out of bound lastindex(${this.lastIndex()})`);
    if (this.#entries.length === 0) throw new RaftStorageError("unavailable");
    const from = lo - this.#offset - 1;
    return this.#entries.slice(from, limitSize(this.#entries, from, hi - this.#offset - 1, bytesMax));
  }

  term(index: number): number {
    if (index < this.#offset) throw new RaftStorageError("compacted");
    if (index === this.#offset) return this.#offsetTerm;
    const entry = this.#entries[index - this.#offset - 1];
    if (!entry) throw new RaftStorageError("unavailable");
    return entry.term;
  }

  lastIndex(): number {
    return this.#offset + this.#entries.length;
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
    this.#entries = [];
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
    const term = this.term(index);
    this.#entries = this.#entries.slice(index - this.#offset);
    this.#offset = index;
    this.#offsetTerm = term;
  }

  /** Entries that follow each other; those that stand at or behind their first one are replaced. */
  append(entries: readonly Entry[]): void {
    const first = entries[0];
    if (!first) return;
    const skip = Math.max(0, this.firstIndex() - first.index);
    if (skip >= entries.length) return;
    const at = first.index + skip - this.#offset - 1;
    assert(
      at <= this.#entries.length,
      () => `missing log entry [last: ${this.lastIndex()}, append at: ${first.index + skip}]`,
    );
    this.#entries.length = at;
    for (let i = skip; i < entries.length; i++) this.#entries.push(entries[i] as Entry);
  }
}
