/**
 * Raft snapshots: every `snapshotCount` entries the log is cut. The order is what makes it safe:
 *
 *   1. the backend is flushed: all that the entries up to here wrote is durable in LMDB;
 *   2. the `.snap` file (members and cluster version, etcd's version 2 store) is written and synced;
 *   3. its record goes into the WAL, durably: from now on a restart begins here;
 *   4. segments of the WAL before it are released, and the log in memory is cut behind the entries that followers which
 *      are a little late may still want.
 *
 * After a crash between two steps the older snapshot is found, and the WAL behind it is still there.
 */
import { hexId } from "../lib/bytes.ts";
import type { Clock } from "../lib/clock.ts";
import { goDuration } from "../lib/go-format.ts";
import type { Logger } from "../lib/log.ts";
import type { ConfState, Snapshot } from "../pb/raftpb.ts";
import type { MemoryStorage } from "../raft/index.ts";
import type { Backend } from "../storage/index.ts";
import { FILE_PURGE_INTERVAL_MS } from "./limits.ts";

/** What of the WAL and the `.snap` files is needed here. */
export interface SnapshotDisk {
  /** Durable when it resolves. */
  saveSnapshotFile(snapshot: Snapshot): Promise<void>;
  saveSnapshotRecord(snapshot: Snapshot): Promise<void>;
  /** Segments that only hold entries before this index are not needed any more. */
  releaseTo(index: number): void;
  /** Deletes what is not needed beyond the numbers to keep. */
  purge(): Promise<void>;
  /** What {@link purge} looks at: files of a kind in a folder, of which so many stay. */
  purged(): readonly { readonly dir: string; readonly suffix: string; readonly max: number }[];
}

export interface SnapshotterDeps {
  readonly backend: Backend;
  readonly storage: MemoryStorage;
  readonly disk: SnapshotDisk;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly memberId: bigint;
  readonly snapshotCount: number;
  readonly catchupEntries: number;
  /** Index of the snapshot that the member started from. */
  readonly snapshotIndex: number;
  /** Members and version as of the last applied entry. */
  v2StoreBytes(): Uint8Array;
  /** Snapshots on their way to followers: the log they continue from must stay. */
  snapshotsInFlight(): number;
  failed(error: unknown): void;
}

export class Snapshotter {
  readonly #deps: SnapshotterDeps;
  #snapshotIndex: number;
  #running: Promise<void> | undefined;
  readonly #stop = new AbortController();

  constructor(deps: SnapshotterDeps) {
    this.#deps = deps;
    this.#snapshotIndex = deps.snapshotIndex;
  }

  get snapshotIndex(): number {
    return this.#snapshotIndex;
  }

  /** To be called between two entries. Begins a snapshot when enough have been applied since the last one. */
  appliedTo(index: number, confState: ConfState): void {
    const { snapshotCount, memberId, logger } = this.#deps;
    if (this.#running || index - this.#snapshotIndex <= snapshotCount) return;
    logger.info("triggering snapshot", {
      "local-member-id": hexId(memberId),
      "local-member-applied-index": index,
      "local-member-snapshot-index": this.#snapshotIndex,
      "local-member-snapshot-count": snapshotCount,
    });
    this.#running = this.#snapshot(index, confState, this.#deps.v2StoreBytes())
      .catch((error) => this.#deps.failed(error))
      .finally(() => {
        this.#running = undefined;
      });
  }

  /** A snapshot of the leader was installed. */
  installed(index: number): void {
    this.#snapshotIndex = Math.max(this.#snapshotIndex, index);
  }

  async #snapshot(index: number, confState: ConfState, data: Uint8Array): Promise<void> {
    const { backend, storage, disk, logger, catchupEntries } = this.#deps;
    this.#snapshotIndex = index;
    await backend.flush();
    // A newer one may have come from the leader meanwhile.
    if (index <= storage.snapshot().metadata.index) return;
    const snapshot = storage.createSnapshot(index, confState, data);
    await disk.saveSnapshotFile(snapshot);
    await disk.saveSnapshotRecord(snapshot);
    disk.releaseTo(index);
    logger.info("saved snapshot", { "snapshot-index": index });
    if (this.#deps.snapshotsInFlight() > 0) {
      logger.info("skip compaction since there is an inflight snapshot");
      return;
    }
    const compactIndex = index > catchupEntries ? index - catchupEntries : 1;
    if (compactIndex < storage.firstIndex()) return;
    storage.compact(compactIndex);
    logger.info("compacted Raft logs", { "compact-index": compactIndex });
  }

  /** Deletes old files every 30 s until {@link stop}. */
  async runPurge(): Promise<void> {
    for (const kind of this.#deps.disk.purged()) {
      this.#deps.logger.info("started to purge file", { ...kind, interval: goDuration(FILE_PURGE_INTERVAL_MS) });
    }
    for await (const _tick of this.#deps.clock.every(FILE_PURGE_INTERVAL_MS, this.#stop.signal)) {
      await this.#deps.disk.purge();
    }
  }

  /** Resolves when a snapshot under way is done. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }
}
