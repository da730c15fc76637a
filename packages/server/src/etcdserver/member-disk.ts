/** The WAL and the `.snap` files of a member, as the raft loop and the snapshotter use them. */
import type { Entry, HardState, Snapshot } from "../pb/raftpb.ts";
import type { SnapStore, Wal } from "../storage/index.ts";
import type { RaftDisk } from "./raft-loop.ts";
import type { ServerConfig } from "./server-config.ts";
import type { SnapshotDisk } from "./snapshotter.ts";

export class MemberDisk implements RaftDisk, SnapshotDisk {
  readonly #wal: Wal;
  readonly #snaps: SnapStore;
  readonly #keep: { readonly maxSnapshotFiles: number; readonly maxWalFiles: number };

  constructor(wal: Wal, snaps: SnapStore, config: Pick<ServerConfig, "maxSnapshotFiles" | "maxWalFiles">) {
    this.#wal = wal;
    this.#snaps = snaps;
    this.#keep = config;
  }

  save(hardState: HardState | undefined, entries: readonly Entry[], mayBlock: boolean): Promise<void> {
    return this.#wal.save(hardState, entries, mayBlock);
  }

  async saveSnapshot(snapshot: Snapshot): Promise<void> {
    await this.saveSnapshotFile(snapshot);
    await this.saveSnapshotRecord(snapshot);
    this.releaseTo(snapshot.metadata.index);
  }

  saveSnapshotFile(snapshot: Snapshot): Promise<void> {
    return this.#snaps.save(snapshot);
  }

  saveSnapshotRecord(snapshot: Snapshot): Promise<void> {
    const { index, term, confState } = snapshot.metadata;
    return this.#wal.saveSnapshot({ index, term, confState });
  }

  releaseTo(index: number): void {
    this.#wal.releaseTo(index);
  }

  purged() {
    const { maxSnapshotFiles, maxWalFiles } = this.#keep;
    const snaps = maxSnapshotFiles > 0 ? ["snap.db", "snap"] : [];
    return [
      ...snaps.map((suffix) => ({ dir: this.#snaps.dir, suffix, max: maxSnapshotFiles })),
      ...(maxWalFiles > 0 ? [{ dir: this.#wal.dir, suffix: "wal", max: maxWalFiles }] : []),
    ];
  }

  async purge(): Promise<void> {
    await this.#snaps.purge(this.#keep.maxSnapshotFiles);
    if (this.#keep.maxWalFiles > 0) await this.#wal.purge(this.#keep.maxWalFiles);
  }
}
