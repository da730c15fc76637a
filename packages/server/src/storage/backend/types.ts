/**
 * What the rest of the server knows of the backend: tables of sorted rows that are read synchronously, written in
 * batches, and durable a moment later. See backend.ts for how.
 */
import type { Clock } from "../../lib/clock.ts";
import type { Logger } from "../../lib/log.ts";

/**
 * etcd's buckets, and three tables of our own that take the place of what etcd keeps in memory: `live` and `past` (the
 * index of keys) and `leased` (the keys of a lease). The order is that of the names' bytes, which is also the order in
 * which etcd hashes buckets.
 */
export const TABLES = [
  "alarm",
  "auth",
  "authRoles",
  "authUsers",
  "cluster",
  "key",
  "lease",
  "leased",
  "live",
  "members",
  "members_removed",
  "meta",
  "past",
] as const;

/** What threads that know of tables must agree on; they are built from one source, but a worker's bundle may be an older one. */
export const AGREEMENT = TABLES.join();

export type Table = (typeof TABLES)[number];

/** The tables that a bbolt file has as buckets, in byte order of their names. */
export const BUCKETS = TABLES.filter(
  (table) => table !== "leased" && table !== "live" && table !== "past",
) as readonly Exclude<Table, "leased" | "live" | "past">[];

/** Bytes; LMDB's bound at 4 KiB pages. Keys have at least one byte. Longer ones are asserted against, not stored. */
export const KEY_BYTES_MAX = 1978;

export interface ScanOptions {
  /** First key of the range, inclusive; absent = from the first row. Empty counts as absent. */
  readonly start?: Uint8Array | undefined;
  /** End of the range, exclusive; absent = to the last row. Empty is an empty range. */
  readonly end?: Uint8Array | undefined;
  /** From the end to the start; `start` stays the inclusive lower and `end` the exclusive upper bound. */
  readonly reverse?: boolean | undefined;
  /** At most this many visits; absent = no bound, 0 = none. */
  readonly limit?: number | undefined;
  /** Values are not read; `visit` gets empty ones. */
  readonly keysOnly?: boolean | undefined;
}

/** Returning `false` stops the scan. Both arrays may be kept. Must not write to the table that is being scanned. */
// biome-ignore lint/suspicious/noConfusingVoidType: a visitor that returns nothing goes on.
export type ScanVisitor = (key: Uint8Array, value: Uint8Array) => boolean | void;

export interface BackendReader {
  /** A copy of the value, the caller's to keep; `undefined` when there is no such row. */
  get(table: Table, key: Uint8Array): Uint8Array | undefined;
  /** The value without copying where possible: valid until the next call on the backend, and never across an await. */
  peek(table: Table, key: Uint8Array): Uint8Array | undefined;
  has(table: Table, key: Uint8Array): boolean;
  /** Visits the rows of a range in key order. Synchronous: nothing changes underneath, so bound it by `limit`. */
  scan(table: Table, options: ScanOptions, visit: ScanVisitor): void;
  /** How many rows a range has: a walk in native code, for what a scan would only count. */
  count(table: Table, range: Pick<ScanOptions, "start" | "end">): number;
  /**
   * A place about so many rows behind `start`: a key, the caller's to keep, and how many rows there are from `start` up to
   * it. Buffered writes count, but do not move the place. `key` undefined: the table ends before; `count` is of the rest.
   */
  ahead(table: Table, start: Uint8Array | undefined, rows: number): { key: Uint8Array | undefined; count: number };
  /** The first row at or after `start` (reverse: the last row before `end`) within the range, or `undefined`. */
  first(table: Table, options: Omit<ScanOptions, "limit">): { key: Uint8Array; value: Uint8Array } | undefined;
}

/** Where the bytes of a row belong. */
export interface RowSpace {
  readonly bytes: Uint8Array;
  readonly keyAt: number;
  readonly valueAt: number;
}

/** Reads see the writes made before them. Bytes passed in are copied. Valid only inside `Backend.write`. */
export interface BackendTxn extends BackendReader {
  put(table: Table, key: Uint8Array, value: Uint8Array): void;
  /**
   * A put whose bytes the caller writes himself, where they will lie: all of key and value, before anything else is
   * done with the transaction. The result is good until then.
   */
  reserve(table: Table, keyBytes: number, valueBytes: number): RowSpace;
  /** Harmless when there is no such row. */
  delete(table: Table, key: Uint8Array): void;
}

/**
 * The rows as they were at one moment, all of it durable, for as long as it is open: readable across awaits, in pieces
 * as small as the caller likes. An open snapshot pins pages, so its owner closes it soon.
 */
export interface BackendSnapshot extends BackendReader, AsyncDisposable {
  /** Bytes of the file, as {@link Backend.sizeBytes} was. */
  readonly sizeBytes: number;
  /**
   * The LMDB file, open for reading. While the snapshot is open, the pages of each state that its meta pages name stay as
   * they are: the one that is pinned, and those that come after it.
   */
  readonly file: { readonly path: string; readonly descriptor: number };
  /** Harmless when repeated. */
  close(): void;
}

export interface Backend extends BackendReader, AsyncDisposable {
  /** Path of the LMDB file. */
  readonly path: string;
  /**
   * Runs `fn` with a writer that joins the open batch. The batch never ends inside `fn`, so what one call writes is
   * durable together or not at all. Synchronous; not nested. If `fn` throws, state is half-changed: callers treat it as
   * fatal, and nothing that is buffered becomes durable any more.
   */
  write<T>(fn: (tx: BackendTxn) => T): T;
  /** Resolves when all that was written before the call is durable in LMDB. Rejects after a failed commit or a close. */
  flush(): Promise<void>;
  /**
   * `undefined` while the writer keeps up; otherwise a promise that resolves when it does again. Who can slow down
   * (propose, snapshot restore, compaction) awaits it between two writes.
   */
  pressure(): Promise<void> | undefined;
  /** Flushes and pins: sees all that was written before the call. At most 512 may be open at once. */
  openSnapshot(): Promise<BackendSnapshot>;
  /**
   * Rewrites the file without its holes, while reads and writes go on. Crash-safe: the old file stays whole until the
   * new one is durable and takes its name. One at a time; a second call joins the first.
   */
  defragment(): Promise<{ readonly beforeBytes: number; readonly afterBytes: number }>;
  /**
   * Puts another LMDB file, made by `importBolt` on the same disk and closed, in the place of this one: a state that a
   * leader sent. Writers have stopped; what is buffered is dropped. Until the promise resolves reads see the old state,
   * in the turn in which it does they see the new one, which is then durable under `path`. Open snapshots keep the old
   * state. Rejects, with everything as it was, when the file cannot be opened or renamed.
   */
  replaceWith(file: string): Promise<void>;
  /** Bytes of the file; what `dbSize` of Status reports and the quota is held against. Buffered writes count in. */
  sizeBytes(): number;
  /** `sizeBytes()` less the pages that are free for reuse; what `dbSizeInUse` reports. */
  sizeInUseBytes(): number;
  /** Flushes, then ends the worker and closes the file. Open snapshots stay readable until they are closed. */
  close(): Promise<void>;
}

/** What the backend tells of its work; metrics are made of it. All durations in milliseconds. */
export interface BackendObserver {
  /** A batch became durable: operations in it, and how long sorting and writing took, and of it the final sync. */
  committed?(batch: { readonly operations: number; readonly durationMs: number }): void;
  defragmented?(durationMs: number): void;
  snapshotted?(durationMs: number): void;
}

export interface BackendOptions {
  /** The LMDB file, `<data-dir>/member/snap/db.lmdb`. Its folder exists. */
  readonly path: string;
  readonly clock: Clock;
  readonly logger: Logger;
  /**
   * A commit failed (disk full, I/O error): memory is ahead of the file and cannot be made durable here. The owner ends
   * the process; the WAL still has all that was acknowledged. Called once, and after it flush() rejects.
   */
  readonly onFatal: (error: Error) => void;
  /** `--unsafe-no-fsync`: commits are not synced. */
  readonly unsafeNoFsync?: boolean | undefined;
  /** `--backend-batch-interval`; default 100. */
  readonly batchIntervalMs?: number | undefined;
  /** `--backend-batch-limit`; default 10,000. */
  readonly batchOperationsMax?: number | undefined;
  /**
   * `"worker"` (default): commits in a worker thread. `"inline"`: commits on the calling thread, for offline tools and
   * tests, where nothing else waits.
   */
  readonly commits?: "worker" | "inline" | undefined;
  /** Address space kept for the file, and so the largest it may become; nothing is reserved on disk. Default 256 GiB. */
  readonly mapSizeBytes?: number | undefined;
  readonly observer?: BackendObserver | undefined;
}
