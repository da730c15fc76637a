import type { Clock } from "../../lib/clock.ts";
import type { Logger } from "../../lib/log.ts";
import type { Entry, HardState } from "../../pb/raftpb.ts";
import type { Snapshot as WalSnapshot } from "../../pb/walpb.ts";
import type { FileSystem } from "../file-system.ts";

export type { WalSnapshot };

/** Size of a segment file, bytes: etcd's 64 * 1000 * 1000. */
export const SEGMENT_BYTES = 64_000_000;

/** What the WAL tells of its work; metrics are made of it. */
export interface WalObserver {
  /** One fdatasync (or a directory's fsync), failed ones too. */
  synced?(durationMs: number): void;
  /** Bytes handed to the operating system. */
  wrote?(bytes: number): void;
}

export interface WalOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  /** `--unsafe-no-fsync`: nothing is synced; a crash of the machine may lose what was acknowledged. */
  readonly unsafeNoFsync?: boolean | undefined;
  readonly observer?: WalObserver | undefined;
  /** For tests that let operations fail. */
  readonly fileSystem?: FileSystem | undefined;
  /** For tests that want many small segments. */
  readonly segmentBytes?: number | undefined;
}

export interface WalContent {
  /** Bytes of etcdserverpb.Metadata. */
  readonly metadata: Uint8Array;
  /** The last one saved; zeros when there never was one. Its commit may lag behind the entries. */
  readonly hardState: HardState;
  /**
   * Entries after the start snapshot, consecutive, later ones of the same index in place of earlier ones. Those beyond
   * `hardState.commit` may still be overwritten. Their bytes are the caller's to keep.
   */
  readonly entries: Entry[];
}

/** An append-only log that is open for writing. One per directory and process. */
export interface Wal extends AsyncDisposable {
  readonly dir: string;
  /**
   * Writes the entries, then the state. When etcd's rule asks for it (entries, or another term or vote) the promise
   * resolves once all of it is durable; a state that only moves the commit is left to the next write and resolves at
   * once. Calls that wait at the same time share one write and one fdatasync. The arguments are encoded before the call
   * returns, so the caller may change them afterwards.
   *
   * `mayBlock`: the calling thread has nothing better to do than to wait for the disk. Then, if nothing is being written, it
   * does so itself, a little later in this turn of the event loop, which spares the way to another thread and back.
   *
   * Rejects with {@link WalWriteError} when the disk does: the log is then closed to writing for good, as what a failed
   * fsync left behind is not known. The owner must end the process and must not acknowledge anything of that call.
   */
  save(hardState: HardState | undefined, entries: readonly Entry[], mayBlock?: boolean): Promise<void>;
  /** Marks that a `.snap` file with this index and term exists; always durable when it resolves. */
  saveSnapshot(snapshot: WalSnapshot): Promise<void>;
  /** Resolves when everything saved before is durable, the commits included. */
  sync(): Promise<void>;
  /** Segments that hold only entries before `index` are no longer needed and may be purged. Deletes nothing itself. */
  releaseTo(index: number): void;
  /** File names of the segments still needed, oldest first. */
  neededSegments(): string[];
  /** Deletes segments that are not needed, oldest first, as long as more than `keepFiles` are there. Names of the deleted. */
  purge(keepFiles: number): Promise<string[]>;
  close(): Promise<void>;
}

/** Reasons that a log cannot be read, in etcd's words. */
export type WalErrorKind =
  | "exists"
  | "notFound"
  | "metadataConflict"
  | "crcMismatch"
  | "snapshotMismatch"
  | "snapshotNotFound"
  | "sliceOutOfRange"
  | "unexpectedEof"
  | "sequenceGap"
  | "badRecord";

/** The log is damaged or not there. The message names file and offset where there is one. */
export class WalError extends Error {
  override readonly name = "WalError";
  readonly kind: WalErrorKind;

  constructor(kind: WalErrorKind, message: string, options?: ErrorOptions) {
    super(message, options);
    this.kind = kind;
  }
}

/** The disk refused: the member must stop. `cause` is the system's error. */
export class WalWriteError extends Error {
  override readonly name = "WalWriteError";
}
