/**
 * `.snap` files: `<term>-<index>.snap`, a checksum and an encoded raftpb.Snapshot. The data of the key-value store is not
 * in them (the backend has it); they hold the membership at an index, so that the log before it may go. Beside them may
 * lie `<index>.snap.db`, the whole database as a leader sent it, until the backend has taken it over.
 */
import { randomBytes } from "node:crypto";
import path from "node:path";
import type { Clock } from "../../lib/clock.ts";
import { crc32c } from "../../lib/crc32c.ts";
import { humanBytes } from "../../lib/go-format.ts";
import type { Logger } from "../../lib/log.ts";
import { Snapshot as RaftSnapshot } from "../../pb/raftpb.ts";
import { Snapshot as SnapFile } from "../../pb/snappb.ts";
import { type FileSystem, hasCode, systemFiles, writeFully } from "../file-system.ts";
import type { WalSnapshot } from "../wal/index.ts";

/** Durations in milliseconds; metrics are made of them. */
export interface SnapObserver {
  marshalled?(durationMs: number): void;
  synced?(durationMs: number): void;
  saved?(durationMs: number): void;
  databaseSynced?(durationMs: number): void;
  databaseSaved?(durationMs: number): void;
}

export interface SnapStoreOptions {
  /** `<data-dir>/member/snap`; exists. */
  readonly dir: string;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly observer?: SnapObserver | undefined;
  /** For tests that let operations fail. */
  readonly fileSystem?: FileSystem | undefined;
}

/** Files that belong into the folder and are not worth a warning. */
const KNOWN_FILES: ReadonlySet<string> = new Set(["db", "db.lmdb", "db.lmdb-lock"]);
/** Written bytes of a received database that may wait for the disk: less than what would make a WAL wait behind them. */
const UNSYNCED_BYTES_MAX = 8 * 1024 * 1024;

const TEMPORARY_PREFIX = "tmp";

const hex16 = (value: number): string => value.toString(16).padStart(16, "0");

export function snapFileName(at: { readonly term: number; readonly index: number }): string {
  return `${hex16(at.term)}-${hex16(at.index)}.snap`;
}

export function snapDatabaseName(index: number): string {
  return `${hex16(index)}.snap.db`;
}

/** The file says nothing, or says something wrong. */
export class SnapFileError extends Error {
  override readonly name = "SnapFileError";
}

export function encodeSnapFile(snapshot: RaftSnapshot): Uint8Array {
  const data = RaftSnapshot.encode(snapshot);
  return SnapFile.encode({ crc: crc32c(data), data });
}

/** Throws {@link SnapFileError}. The result is independent of the bytes only as far as they are not changed. */
export function decodeSnapFile(bytes: Uint8Array): RaftSnapshot {
  if (bytes.length === 0) throw new SnapFileError("snap: empty snapshot");
  let file: SnapFile;
  try {
    file = SnapFile.decode(bytes);
  } catch (error) {
    throw new SnapFileError("snap: cannot decode snappb.Snapshot", { cause: error });
  }
  if (file.data === undefined || file.data.length === 0 || file.crc === 0) {
    throw new SnapFileError("snap: empty snapshot");
  }
  if (crc32c(file.data) !== file.crc) throw new SnapFileError("snap: crc mismatch");
  try {
    return RaftSnapshot.decode(file.data);
  } catch (error) {
    throw new SnapFileError("snap: cannot decode raftpb.Snapshot", { cause: error });
  }
}

export class SnapStore {
  readonly #options: SnapStoreOptions;
  readonly #files: FileSystem;

  constructor(options: SnapStoreOptions) {
    this.#options = options;
    this.#files = options.fileSystem ?? systemFiles;
  }

  get dir(): string {
    return this.#options.dir;
  }

  /** Durable when it resolves. An empty snapshot (index 0) is not written. The WAL record follows, not before. */
  async save(snapshot: RaftSnapshot): Promise<void> {
    const { index, term } = snapshot.metadata;
    if (index === 0) return;
    const { clock, logger, observer } = this.#options;
    const target = path.join(this.dir, snapFileName({ term, index }));
    const startMs = clock.monotonicMs();
    const bytes = encodeSnapFile(snapshot);
    observer?.marshalled?.(clock.monotonicMs() - startMs);
    const temporary = path.join(this.dir, `${TEMPORARY_PREFIX}-${snapFileName({ term, index })}`);
    try {
      const file = await this.#files.open(temporary, "create", 0o666);
      try {
        await writeFully(file, bytes, bytes.length, 0);
        const syncMs = clock.monotonicMs();
        await file.sync();
        observer?.synced?.(clock.monotonicMs() - syncMs);
      } finally {
        await file.close();
      }
      await this.#files.rename(temporary, target);
      await this.#files.syncDirectory(this.dir);
    } catch (error) {
      logger.warn("failed to write a snap file", { path: target, error });
      throw error;
    }
    observer?.saved?.(clock.monotonicMs() - startMs);
  }

  /**
   * The newest snapshot that the WAL vouches for (see `validSnapshots`), or `undefined`. Damaged files are set aside
   * as `.broken`. Leftovers of a defragmentation are deleted on the way.
   */
  loadNewestAvailable(walSnapshots: readonly Pick<WalSnapshot, "index" | "term">[]): Promise<RaftSnapshot | undefined> {
    const known = new Set(walSnapshots.map(snapFileName));
    return this.#load((snapshot) => known.has(snapFileName(snapshot.metadata)));
  }

  /** The newest one that can be read, whatever the WAL says. For tools. */
  loadNewest(): Promise<RaftSnapshot | undefined> {
    return this.#load(() => true);
  }

  /** The one with the newest name, `undefined` when there is none or it cannot be read. Nothing is set aside. */
  async newest(): Promise<RaftSnapshot | undefined> {
    const [name] = (await this.#files.list(this.dir))
      .filter((file) => file.endsWith(".snap") && !file.startsWith(TEMPORARY_PREFIX))
      .sort()
      .reverse();
    if (name === undefined) return undefined;
    try {
      return decodeSnapFile(await this.#files.readFile(path.join(this.dir, name)));
    } catch (error) {
      if (error instanceof SnapFileError) return undefined;
      throw error;
    }
  }

  async #load(accept: (snapshot: RaftSnapshot) => boolean): Promise<RaftSnapshot | undefined> {
    for (const name of await this.#namesNewestFirst()) {
      const file = path.join(this.dir, name);
      let snapshot: RaftSnapshot;
      try {
        snapshot = decodeSnapFile(await this.#files.readFile(file));
      } catch (error) {
        if (!(error instanceof SnapFileError)) throw error;
        await this.#setAside(file, error);
        continue;
      }
      if (accept(snapshot)) return snapshot;
    }
    return undefined;
  }

  async #setAside(file: string, error: SnapFileError): Promise<void> {
    const { logger } = this.#options;
    const broken = `${file}.broken`;
    logger.warn("failed to read a snap file", { path: file, error });
    try {
      await this.#files.rename(file, broken);
      logger.warn("renamed to a broken snap file", { path: file, "broken-path": broken });
    } catch (renameError) {
      logger.warn("failed to rename a broken snap file", { path: file, "broken-path": broken, error: renameError });
    }
  }

  async #namesNewestFirst(): Promise<string[]> {
    const { logger } = this.#options;
    const names: string[] = [];
    for (const name of await this.#files.list(this.dir)) {
      if (name.startsWith("db.tmp")) {
        logger.info("found orphaned defragmentation file; deleting", { path: name });
        await this.#removeIfThere(name);
      } else if (name.endsWith(".snap")) {
        if (!name.startsWith(TEMPORARY_PREFIX)) names.push(name);
      } else if (!KNOWN_FILES.has(name) && !name.endsWith(".snap.db")) {
        logger.warn("found unexpected non-snap file; skipping", { path: name });
      }
    }
    return names.sort().reverse();
  }

  async #removeIfThere(name: string): Promise<void> {
    try {
      await this.#files.remove(path.join(this.dir, name));
    } catch (error) {
      if (!hasCode(error, "ENOENT")) throw error;
    }
  }

  /** What a crash left of files that were being written. Call before anything is written here. */
  async removeTemporaries(): Promise<void> {
    for (const name of await this.#files.list(this.dir)) {
      if (!name.startsWith(TEMPORARY_PREFIX)) continue;
      await this.#removeIfThere(name);
      this.#options.logger.info("removed temporary file in snapshot directory", { path: name });
    }
  }

  /** Keeps the newest `keepFiles` of `.snap` and of `.snap.db` files; 0 keeps all. Names of the deleted. */
  async purge(keepFiles: number): Promise<string[]> {
    if (keepFiles <= 0) return [];
    const purged: string[] = [];
    const all = await this.#files.list(this.dir);
    for (const suffix of [".snap.db", ".snap"]) {
      const names = all.filter((name) => name.endsWith(suffix) && !name.startsWith(TEMPORARY_PREFIX)).sort();
      for (const name of names.slice(0, Math.max(0, names.length - keepFiles))) {
        await this.#removeIfThere(name);
        this.#options.logger.info("purged", { path: path.join(this.dir, name) });
        purged.push(name);
      }
    }
    return purged;
  }

  // Databases received from a leader.

  /** Where the database that came with the snapshot at `index` is, or would be. */
  databasePath(index: number): string {
    return path.join(this.dir, snapDatabaseName(index));
  }

  /** The path of a received database. Rejects with "snap: snapshot file doesn't exist". */
  async findDatabase(index: number): Promise<string> {
    const file = this.databasePath(index);
    if (await this.#files.exists(file)) return file;
    const error = new Error("snap: snapshot file doesn't exist");
    this.#options.logger.warn("failed to find [SNAPSHOT-INDEX].snap.db", {
      "snapshot-index": index,
      "snapshot-file-path": file,
      error,
    });
    throw error;
  }

  /** Streams a database to its place: whole and durable when it resolves with its size, absent when it rejects. */
  async saveDatabase(source: AsyncIterable<Uint8Array>, index: number): Promise<number> {
    const { clock, logger, observer } = this.#options;
    const startMs = clock.monotonicMs();
    const temporary = path.join(this.dir, `${TEMPORARY_PREFIX}${randomBytes(6).toString("hex")}`);
    const target = this.databasePath(index);
    let size = 0;
    try {
      const file = await this.#files.open(temporary, "create", 0o600);
      try {
        let unsyncedBytes = 0;
        for await (const piece of source) {
          await writeFully(file, piece, piece.length, size);
          size += piece.length;
          unsyncedBytes += piece.length;
          if (unsyncedBytes < UNSYNCED_BYTES_MAX) continue;
          unsyncedBytes = 0;
          await file.datasync();
        }
        const syncMs = clock.monotonicMs();
        await file.sync();
        observer?.databaseSynced?.(clock.monotonicMs() - syncMs);
      } finally {
        await file.close();
      }
      await this.#files.rename(temporary, target);
      await this.#files.syncDirectory(this.dir);
    } catch (error) {
      await this.#files.remove(temporary).catch(() => {});
      throw error;
    }
    logger.info("saved database snapshot to disk", { path: target, bytes: size, size: humanBytes(size) });
    observer?.databaseSaved?.(clock.monotonicMs() - startMs);
    return size;
  }

  /** Deletes received databases older than the snapshot at `index`, which the backend is beyond; the others stay. */
  async releaseDatabases(index: number, { isOrphaned = false } = {}): Promise<void> {
    for (const name of await this.#files.list(this.dir)) {
      const match = /^([0-9a-f]{16})\.snap\.db$/.exec(name);
      if (!match || Number.parseInt(match[1] as string, 16) >= index) continue;
      if (isOrphaned) this.#options.logger.info("found orphaned .snap.db file; deleting", { path: name });
      await this.#removeIfThere(name);
    }
  }
}
