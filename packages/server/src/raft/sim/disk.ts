/**
 * A disk that forgets: writes are kept in order, and a crash loses those that were not synced, but for a prefix. What it
 * holds is the state of a raft log: hard state, snapshot, entries behind it.
 */
import type { Random } from "../../lib/random.ts";
import type { Entry, HardState, Snapshot } from "../../pb/raftpb.ts";
import { emptyHardState, MemoryStorage, snapshotIndex, snapshotTerm } from "../storage.ts";

export interface DiskWrite {
  readonly hardState: HardState | undefined;
  readonly entries: readonly Entry[];
  /** Received from a leader: takes the place of the log. */
  readonly snapshot: Snapshot | undefined;
  /** Made by this node: the log up to it is no longer needed. */
  readonly ownSnapshot?: Snapshot;
}

export class SimDisk {
  hardState: HardState = emptyHardState;
  snapshot: Snapshot | undefined;
  /** entries[i] has the index snapshotIndex + 1 + i. */
  entries: Entry[] = [];
  #buffered: DiskWrite[] = [];
  #flushed = 0;

  /** Gives a number for {@link flush}. */
  write(write: DiskWrite): number {
    this.#buffered.push(write);
    return this.#flushed + this.#buffered.length;
  }

  /** Makes durable what was written up to `number`. */
  flush(number: number): void {
    while (this.#flushed < number) {
      this.#flushed++;
      this.#perform(this.#buffered.shift() as DiskWrite);
    }
  }

  /**
   * Power goes: of what was not synced, some of the first writes may have reached the disk, and of the next one some of
   * its entries. The hard state comes behind the entries of its write, as in a WAL.
   */
  crash(random: Random): void {
    const kept = random.below(this.#buffered.length + 1);
    this.flush(this.#flushed + kept);
    const torn = this.#buffered[0];
    if (torn && !torn.snapshot) {
      const entries = torn.entries.slice(0, random.below(torn.entries.length + 1));
      this.#perform({ hardState: undefined, entries, snapshot: undefined });
    }
    this.#flushed += this.#buffered.length;
    this.#buffered = [];
  }

  get #offset(): number {
    return snapshotIndex(this.snapshot);
  }

  #perform({ hardState, entries, snapshot, ownSnapshot }: DiskWrite): void {
    if (hardState) this.hardState = hardState;
    if (snapshot) {
      this.snapshot = snapshot;
      this.entries = [];
    }
    if (ownSnapshot && snapshotIndex(ownSnapshot) > this.#offset) {
      this.entries = this.entries.slice(snapshotIndex(ownSnapshot) - this.#offset);
      this.snapshot = ownSnapshot;
    }
    const first = entries[0];
    if (!first) return;
    const skip = Math.max(0, this.#offset + 1 - first.index);
    if (skip >= entries.length) return;
    const at = first.index + skip - this.#offset - 1;
    if (at > this.entries.length) throw new Error(`disk: gap before ${first.index}`);
    this.entries.length = at;
    for (let i = skip; i < entries.length; i++) this.entries.push(entries[i] as Entry);
  }

  lastIndex(): number {
    return this.#offset + this.entries.length;
  }

  /** Whether the entry is durable here, or part of what a durable snapshot stands for. */
  holds(index: number, term: number): boolean {
    return index <= this.#offset || this.entries[index - this.#offset - 1]?.term === term;
  }

  /** What a restarted node reads. */
  load(): MemoryStorage {
    const storage = new MemoryStorage();
    if (this.snapshot) storage.applySnapshot(this.snapshot);
    storage.append(this.entries);
    storage.setHardState(this.hardState);
    return storage;
  }

  /** A member's first contents, durable. */
  initialize(snapshot: Snapshot): void {
    this.snapshot = snapshot;
    this.hardState = { term: snapshotTerm(snapshot), vote: 0n, commit: snapshotIndex(snapshot) };
  }
}
