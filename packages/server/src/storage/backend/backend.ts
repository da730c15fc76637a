/**
 * The backend: etcd's buckets, and our index tables, in one LMDB file behind a write buffer.
 *
 *     write() -> open layer --freeze--> committing layer --worker--> LMDB
 *     read()  -> open layer, else committing layer, else LMDB
 *
 * The raft log makes a write durable; the backend may lag behind it. So writes go into a layer in memory, and every
 * `batchIntervalMs` or `batchOperationsMax` the layer is frozen and given to a worker thread, which writes it in one
 * durable LMDB transaction. While it does, a new layer takes what comes. There are never more than these two.
 *
 * Promises:
 * - A batch ends between two calls of `write`, never inside one, so what one call writes (an entry's effects and its
 *   consistent index) is in the file together or not at all; and batches become durable in order.
 * - A row that was written is seen by every later read: the layer that holds it is dropped only after the main
 *   thread's read transaction has been renewed behind the commit.
 * - A failed commit is told once to `onFatal`; nothing is called durable afterwards.
 *
 * Defragmentation fills a new file from a pinned state while batches go on to the old one, has every batch that was
 * frozen since written to the new file too, and then gives the new one the old one's name. Rows are absolute, so
 * writing a batch that the pinned state had already seen does no harm, as long as all later ones follow.
 */
import fs from "node:fs";
import path from "node:path";
import { assert } from "../../lib/assert.ts";
import { copyBytes, copyInto, EMPTY_BYTES } from "../../lib/bytes.ts";
import type { Timer } from "../../lib/clock.ts";
import { goDuration, humanBytes } from "../../lib/go-format.ts";
import { type Committer, InlineCommitter, WorkerCommitter } from "./committer.ts";
import { copyRows } from "./copy.ts";
import { Environment, type FileSizes, type Store } from "./environment.ts";
import { syncFolder } from "./files.ts";
import { ChunkPool, Layer, type ReservedSpace } from "./layer.ts";
import {
  aheadOf,
  countLayers,
  firstOf,
  indexOf,
  PinnedReader,
  peekLayers,
  type ReadTransaction,
  scanLayers,
} from "./reader.ts";
import type {
  Backend,
  BackendOptions,
  BackendSnapshot,
  BackendTxn,
  RowSpace,
  ScanOptions,
  ScanVisitor,
  Table,
} from "./types.ts";
import { verifyBackendFile } from "./verify.ts";

const BATCH_INTERVAL_MS = 100;
const BATCH_OPERATIONS_MAX = 10_000;
/** Bounds of what waits in memory; above one of them `pressure()` asks writers to wait. */
const BUFFERED_OPERATIONS_MAX = 200_000;
const BUFFERED_BYTES_MAX = 64 * 1024 * 1024;
/**
 * After a commit the worker rests for this many intervals, and at least for as long as that one took, unless so much has
 * gathered meanwhile. The rows of a batch that lie on one page cost one page, and the sync of a commit is in the way of the
 * WAL's: fewer and larger commits cost much less of both. What waits is in the WAL.
 */
const REST_INTERVALS = 30;
const RESTLESS_OPERATIONS = 90_000;
const RESTLESS_BYTES = 24 * 1024 * 1024;
/** What may wait for the new file of a defragmentation. */
const REPLAY_BYTES_MAX = 128 * 1024 * 1024;
const OPEN_SNAPSHOTS_MAX = 512;
/** With less than this left, a write that failed is taken to have failed for want of space. */
const FULL_DISK_BYTES = 1024 * 1024;

interface FlushWaiter {
  /** Number of the layer that must be durable. */
  readonly layer: number;
  resolve(): void;
  reject(error: Error): void;
}

/** An environment, and how many hold it: the backend itself and its open snapshots. */
class SharedEnvironment {
  readonly environment: Environment;
  #holders = 1;

  constructor(environment: Environment) {
    this.environment = environment;
  }

  hold(): void {
    this.#holders++;
  }

  async release(): Promise<void> {
    if (--this.#holders === 0) await this.environment.close();
  }
}

class Snapshot extends PinnedReader implements BackendSnapshot {
  readonly sizeBytes: number;
  readonly file: BackendSnapshot["file"];
  readonly #release: () => void;
  #isOpen = true;

  constructor(
    environment: Environment,
    transaction: ReadTransaction,
    { path, sizeBytes }: { readonly path: string; readonly sizeBytes: number },
    release: () => void,
  ) {
    super(environment, transaction);
    this.sizeBytes = sizeBytes;
    this.file = { path, descriptor: environment.descriptor };
    this.#release = release;
  }

  close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#release();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }
}

export class LmdbBackend implements Backend {
  readonly path: string;
  readonly #options: BackendOptions;
  readonly #batchIntervalMs: number;
  readonly #batchOperationsMax: number;
  readonly #pool = new ChunkPool();
  readonly #txn: BackendTxn;
  /** Handed out by `reserve`, again and again. */
  readonly #space: ReservedSpace = { bytes: EMPTY_BYTES, keyAt: 0, valueAt: 0 };

  #shared: SharedEnvironment;
  #stores: readonly Store[];
  #committer: Committer;

  /** Newest first: the open layer, and while a commit runs the committing one. */
  #layers: readonly Layer[];
  #open: Layer;
  #committing: Layer | undefined;
  /** Layers are numbered in order of freezing; the open one is `#frozen + 1`. */
  #frozen = 0;
  #durable = 0;

  #timer: Timer | undefined;
  #isDue = false;
  /** The worker rests: see RESTLESS_OPERATIONS. */
  #rest: Timer | undefined;
  #isPaused = false;
  #isWriting = false;
  #scanning = -1;
  #openSnapshots = 0;
  #waiters: FlushWaiter[] = [];
  #pressure: { promise: Promise<void>; resolve: () => void } | undefined;
  #failure: Error | undefined;
  #closing: Promise<void> | undefined;
  #isClosed = false;
  #sizes: FileSizes;
  #defragmenting: Promise<{ beforeBytes: number; afterBytes: number }> | undefined;
  #defragmentations = 0;
  /** Old files that are still being closed. */
  #lettingGo: Promise<void> = Promise.resolve();
  /** While a defragmentation runs: takes each frozen layer, too. */
  #replay: { commit(layer: Layer): Promise<void>; bytes: number } | undefined;

  constructor(options: BackendOptions, environment: Environment, committer: Committer) {
    this.path = options.path;
    this.#options = options;
    this.#batchIntervalMs = options.batchIntervalMs ?? BATCH_INTERVAL_MS;
    this.#batchOperationsMax = options.batchOperationsMax ?? BATCH_OPERATIONS_MAX;
    this.#shared = new SharedEnvironment(environment);
    this.#stores = environment.stores;
    this.#committer = committer;
    this.#open = new Layer(this.#pool);
    this.#layers = [this.#open];
    this.#sizes = environment.sizes();
    this.#txn = {
      get: (table, key) => this.get(table, key),
      peek: (table, key) => this.peek(table, key),
      has: (table, key) => this.has(table, key),
      scan: (table, scan, visit) => this.scan(table, scan, visit),
      first: (table, scan) => this.first(table, scan),
      count: (table, range) => this.count(table, range),
      ahead: (table, start, rows) => this.ahead(table, start, rows),
      put: (table, key, value) => this.#put(table, key, value),
      reserve: (table, keyBytes, valueBytes) => this.#reserve(table, keyBytes, valueBytes),
      delete: (table, key) => this.#put(table, key, undefined),
    };
  }

  // Reading.

  get(table: Table, key: Uint8Array): Uint8Array | undefined {
    const value = this.peek(table, key);
    return value && copyBytes(value);
  }

  peek(table: Table, key: Uint8Array): Uint8Array | undefined {
    const index = indexOf(table);
    return peekLayers(this.#layers, this.#stores[index] as Store, index, key);
  }

  has(table: Table, key: Uint8Array): boolean {
    return this.peek(table, key) !== undefined;
  }

  scan(table: Table, options: ScanOptions, visit: ScanVisitor): void {
    const index = indexOf(table);
    const outer = this.#scanning;
    this.#scanning = index;
    try {
      scanLayers(this.#layers, this.#stores[index] as Store, index, options, visit);
    } finally {
      this.#scanning = outer;
    }
  }

  first(table: Table, options: Omit<ScanOptions, "limit">) {
    return firstOf(this, table, options);
  }

  count(table: Table, { start, end }: Pick<ScanOptions, "start" | "end">): number {
    const index = indexOf(table);
    return countLayers(this.#layers, this.#stores[index] as Store, index, { start, end });
  }

  ahead(table: Table, start: Uint8Array | undefined, rows: number): { key: Uint8Array | undefined; count: number } {
    const index = indexOf(table);
    return aheadOf(this.#layers, this.#stores[index] as Store, index, start, rows);
  }

  // Writing.

  write<T>(fn: (tx: BackendTxn) => T): T {
    assert(!this.#isWriting, "backend.write inside backend.write");
    assert(!this.#closing, "backend.write after close");
    this.#isWriting = true;
    let result: T;
    try {
      result = fn(this.#txn);
    } catch (error) {
      // Half of what belongs together must never reach the file: from here on nothing does.
      this.#refuseCommits(error instanceof Error ? error : new Error(String(error)));
      throw error;
    } finally {
      this.#isWriting = false;
    }
    if (this.#open.operations >= this.#batchOperationsMax) this.#commitUnlessResting();
    else if (this.#open.operations > 0) this.#armTimer();
    return result;
  }

  #put(table: Table, key: Uint8Array, value: Uint8Array | undefined): void {
    assert(this.#isWriting, "a backend transaction used outside of its write");
    const index = indexOf(table);
    assert(this.#scanning !== index, "a write to the table that is being scanned");
    const space = this.#space;
    this.#open.reserve(index, key.length, value?.length, space);
    copyInto(space.bytes, space.keyAt, key);
    if (value) copyInto(space.bytes, space.valueAt, value);
  }

  #reserve(table: Table, keyBytes: number, valueBytes: number): RowSpace {
    assert(this.#isWriting, "a backend transaction used outside of its write");
    const index = indexOf(table);
    assert(this.#scanning !== index, "a write to the table that is being scanned");
    this.#open.reserve(index, keyBytes, valueBytes, this.#space);
    return this.#space;
  }

  #armTimer(): void {
    if (this.#timer || this.#isDue) return;
    this.#timer = this.#options.clock.after(this.#batchIntervalMs, () => {
      this.#timer = undefined;
      this.#isDue = true;
      this.#commitUnlessResting();
    });
  }

  #commitUnlessResting(): void {
    const { operations, bytes } = this.#open;
    if (!this.#rest || operations >= RESTLESS_OPERATIONS || bytes >= RESTLESS_BYTES) this.#startCommit();
  }

  #restFor(durationMs: number): void {
    this.#rest = this.#options.clock.after(
      durationMs,
      () => {
        this.#rest = undefined;
        if (this.#isDue || this.#open.operations >= this.#batchOperationsMax) this.#startCommit();
      },
      { unref: true },
    );
  }

  /** Freezes the open layer and hands it on, unless a commit runs: then its end comes here again. */
  #startCommit(): void {
    if (this.#committing || this.#isPaused || this.#failure || this.#open.operations === 0) return;
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#rest?.cancel();
    this.#rest = undefined;
    this.#isDue = false;
    const layer = this.#open;
    const number = ++this.#frozen;
    layer.freeze();
    this.#committing = layer;
    this.#open = new Layer(this.#pool);
    this.#layers = [this.#open, layer];
    const replay = this.#replay;
    const replayed = replay?.commit(layer);
    this.#committer.commit(layer).then(
      ({ sizes, durationMs }) => {
        this.#options.observer?.committed?.({ operations: layer.operations, durationMs });
        // From here on LMDB answers for the layer, so the reads that follow must see what the worker committed.
        this.#shared.environment.renew();
        this.#sizes = sizes;
        this.#durable = number;
        this.#committing = undefined;
        this.#layers = [this.#open];
        this.#restFor(Math.max(durationMs, REST_INTERVALS * this.#batchIntervalMs));
        if (replayed) void replayed.finally(() => layer.release());
        else layer.release();
        this.#afterCommit();
      },
      (error: Error) => this.#fail(this.#described(error)),
    );
  }

  /** LMDB says "Input/output error" for most of what a disk can refuse; who reads it wants to know where, and why. */
  #described(error: Error): Error {
    let reason = error.message;
    try {
      const { bavail, bsize } = fs.statfsSync(path.dirname(this.path));
      if (bavail * bsize < FULL_DISK_BYTES) reason = "no space left on device";
    } catch {
      // The disk may be gone altogether.
    }
    return new Error(`failed to commit to ${this.path}: ${reason}`, { cause: error });
  }

  #afterCommit(): void {
    const waiters = this.#waiters;
    this.#waiters = waiters.filter((waiter) => waiter.layer > this.#durable);
    for (const waiter of waiters) if (waiter.layer <= this.#durable) waiter.resolve();
    if (this.#waiters.length > 0) this.#startCommit();
    else if (this.#isDue || this.#open.operations >= this.#batchOperationsMax) this.#commitUnlessResting();
    this.#relieve();
  }

  /** What is frozen already may still become durable; nothing that comes after it will. */
  #refuseCommits(error: Error): void {
    if (this.#failure) return;
    this.#failure = error;
    this.#timer?.cancel();
    this.#rest?.cancel();
    for (const waiter of this.#waiters) waiter.reject(error);
    this.#waiters = [];
    this.#relieve();
  }

  #fail(error: Error): void {
    if (this.#failure) return;
    this.#refuseCommits(error);
    this.#options.logger.error("failed to commit backend transaction", { path: this.path, error });
    this.#options.onFatal(error);
  }

  flush(): Promise<void> {
    if (this.#failure) return Promise.reject(this.#failure);
    const layer = this.#open.operations > 0 ? this.#frozen + 1 : this.#frozen;
    if (layer <= this.#durable) return Promise.resolve();
    return new Promise((resolve, reject) => {
      this.#waiters.push({ layer, resolve, reject });
      this.#startCommit();
    });
  }

  // Slowing down.

  #isPressed(): boolean {
    if (this.#failure) return false;
    const open = this.#open;
    if (open.operations >= Math.max(BUFFERED_OPERATIONS_MAX, 2 * this.#batchOperationsMax)) return true;
    if (open.bytes + (this.#committing?.bytes ?? 0) >= BUFFERED_BYTES_MAX) return true;
    return (this.#replay?.bytes ?? 0) >= REPLAY_BYTES_MAX;
  }

  pressure(): Promise<void> | undefined {
    if (!this.#isPressed()) return undefined;
    this.#startCommit();
    if (!this.#isPressed()) return undefined;
    if (!this.#pressure) {
      let resolve: () => void = () => {};
      const promise = new Promise<void>((settle) => {
        resolve = settle;
      });
      this.#pressure = { promise, resolve };
    }
    return this.#pressure.promise;
  }

  #relieve(): void {
    if (!this.#pressure || this.#isPressed()) return;
    const { resolve } = this.#pressure;
    this.#pressure = undefined;
    resolve();
  }

  // Snapshots.

  async openSnapshot(): Promise<BackendSnapshot> {
    assert(!this.#closing, "backend.openSnapshot after close");
    const start = this.#options.clock.monotonicMs();
    await this.flush();
    if (this.#isClosed) throw new Error("backend closed");
    if (this.#openSnapshots >= OPEN_SNAPSHOTS_MAX) throw new Error("too many open backend snapshots");
    const shared = this.#shared;
    shared.environment.renew();
    const transaction = shared.environment.root.useReadTransaction() as unknown as ReadTransaction;
    shared.hold();
    this.#openSnapshots++;
    this.#options.observer?.snapshotted?.(this.#options.clock.monotonicMs() - start);
    const about = { path: this.path, sizeBytes: this.#sizes.fileBytes };
    return new Snapshot(shared.environment, transaction, about, () => {
      transaction.done();
      this.#openSnapshots--;
      void shared.release();
    });
  }

  // Defragmentation.

  defragment(): Promise<{ readonly beforeBytes: number; readonly afterBytes: number }> {
    assert(!this.#closing, "backend.defragment after close");
    this.#defragmenting ??= this.#defragment().finally(() => {
      this.#defragmenting = undefined;
    });
    return this.#defragmenting;
  }

  async #defragment(): Promise<{ beforeBytes: number; afterBytes: number }> {
    const { clock, observer, logger, commits = "worker" } = this.#options;
    const start = clock.monotonicMs();
    const before = { sizeBytes: this.sizeBytes(), inUseBytes: this.sizeInUseBytes() };
    logger.info("defragmenting", {
      path: this.path,
      "current-db-size-bytes": before.sizeBytes,
      "current-db-size": humanBytes(before.sizeBytes),
      "current-db-size-in-use-bytes": before.inUseBytes,
      "current-db-size-in-use": humanBytes(before.inUseBytes),
    });
    const temporary = `${this.path}.tmp.${++this.#defragmentations}`;
    removeEnvironmentFiles(temporary);
    const settings = {
      path: temporary,
      noSync: this.#options.unsafeNoFsync ?? false,
      mapSizeBytes: this.#options.mapSizeBytes,
    };
    let environment: Environment | undefined;
    let committer: Committer | undefined;
    try {
      if (commits === "inline") {
        await this.#pause();
        environment = new Environment(settings);
        copyRows(this.#shared.environment, environment);
        committer = new InlineCommitter(environment, () => clock.monotonicMs());
      } else {
        // The worker makes the file, so that this thread does not wait for the disk.
        const worker = await WorkerCommitter.start(settings);
        committer = worker;
        environment = new Environment(settings);
        await this.#copyWhileServing(worker);
      }
      const beforeBytes = this.#sizes.fileBytes;
      await this.#rename(temporary);
      this.#adopt(environment, committer);
      this.#resume();
      await this.#lettingGo;
      observer?.defragmented?.(clock.monotonicMs() - start);
      const [sizeBytes, inUseBytes] = [this.sizeBytes(), this.sizeInUseBytes()];
      logger.info("finished defragmenting directory", {
        path: this.path,
        "current-db-size-bytes-diff": sizeBytes - before.sizeBytes,
        "current-db-size-bytes": sizeBytes,
        "current-db-size": humanBytes(sizeBytes),
        "current-db-size-in-use-bytes-diff": inUseBytes - before.inUseBytes,
        "current-db-size-in-use-bytes": inUseBytes,
        "current-db-size-in-use": humanBytes(inUseBytes),
        took: goDuration(clock.monotonicMs() - start),
      });
      return { beforeBytes, afterBytes: this.#sizes.fileBytes };
    } catch (error) {
      // Whatever went wrong, the old file is still the one in force.
      this.#resume();
      if (committer !== this.#committer) {
        await committer?.close();
        await environment?.close();
        removeEnvironmentFiles(temporary);
      }
      throw error;
    } finally {
      this.#resume();
    }
  }

  /** Resolves when no commit is in flight; none starts until `#isPaused` is cleared. */
  async #pause(): Promise<void> {
    this.#isPaused = true;
    if (!this.#committing) return;
    await new Promise<void>((resolve, reject) => {
      this.#waiters.push({ layer: this.#frozen, resolve, reject });
    });
  }

  /** Ends with commits paused, nothing in flight, and the new file holding all that the old one holds. */
  async #copyWhileServing(worker: WorkerCommitter): Promise<void> {
    let pending = 0;
    let failure: Error | undefined;
    let wake: (() => void) | undefined;
    const replay = {
      bytes: 0,
      commit: (layer: Layer): Promise<void> => {
        pending++;
        replay.bytes += layer.bytes;
        return worker
          .commit(layer)
          .then(
            () => undefined,
            (error: Error) => {
              failure ??= error;
            },
          )
          .then(() => {
            pending--;
            replay.bytes -= layer.bytes;
            wake?.();
            this.#relieve();
          });
      },
    };
    const settled = async (): Promise<void> => {
      while (pending > 0 && !failure) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
      const error = failure ?? this.#failure;
      if (error) throw error;
    };
    // All that is frozen before this point is in the state that the worker pins; all that comes after is repeated.
    await this.#pause();
    const copied = worker.copyFrom(this.path);
    this.#replay = replay;
    this.#goOn();
    await copied;
    // Catch up while serving goes on; then hold commits back for the little that came meanwhile.
    await settled();
    await this.#pause();
    await settled();
  }

  /**
   * Lets the new file take the old one's place. Commits are paused, nothing is in flight. The caller puts the result in
   * force, in the turn in which it gets it.
   */
  async #rename(temporary: string): Promise<void> {
    assert(!this.#committing, "a file swapped under a running commit");
    fs.renameSync(temporary, this.path);
    try {
      // The lock file goes with the environment that has it open; LMDB finds its own by these names.
      fs.renameSync(`${temporary}-lock`, `${this.path}-lock`);
      // Until the new name is durable no batch may be called so: it could be in a file that has no name after a crash.
      await syncFolder(path.dirname(this.path));
    } catch (error) {
      this.#fail(error as Error);
    }
  }

  /** Reads and commits go to the new file from here on. The old one is let go of beside other work. */
  #adopt(environment: Environment, committer: Committer): void {
    const old = { shared: this.#shared, committer: this.#committer };
    environment.renew();
    this.#shared = new SharedEnvironment(environment);
    this.#stores = environment.stores;
    this.#committer = committer;
    this.#sizes = environment.sizes();
    // The old file goes with its last holder, which takes a while when it was big: so the worker is the last.
    const letGo = async (): Promise<void> => {
      await old.shared.release();
      await old.committer.close();
    };
    this.#lettingGo = Promise.all([this.#lettingGo, letGo()]).then(() => undefined);
  }

  async replaceWith(file: string): Promise<void> {
    assert(!this.#closing, "backend.replaceWith after close");
    await this.#defragmenting?.catch(() => undefined);
    if (this.#failure) throw this.#failure;
    const { clock, commits = "worker" } = this.#options;
    const settings = {
      path: file,
      noSync: this.#options.unsafeNoFsync ?? false,
      mapSizeBytes: this.#options.mapSizeBytes,
    };
    let environment: Environment | undefined;
    let committer: Committer | undefined;
    try {
      if (!fs.existsSync(file)) throw new Error(`open ${file}: no such file or directory`);
      if (commits === "worker") committer = await WorkerCommitter.start(settings);
      environment = new Environment(settings);
      committer ??= new InlineCommitter(environment, () => clock.monotonicMs());
      await this.#pause();
      await this.#rename(file);
    } catch (error) {
      this.#goOn();
      await committer?.close();
      await environment?.close();
      throw error;
    }
    this.#adopt(environment, committer);
    this.#open.release();
    this.#open = new Layer(this.#pool);
    this.#layers = [this.#open];
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#isDue = false;
    // Who waits for what was dropped waits for nothing any more.
    this.#durable = ++this.#frozen;
    for (const waiter of this.#waiters.splice(0)) waiter.resolve();
    this.#goOn();
    this.#relieve();
  }

  /** Commits go on, to this file alone. */
  #resume(): void {
    this.#replay = undefined;
    this.#goOn();
    this.#relieve();
  }

  #goOn(): void {
    this.#isPaused = false;
    if (this.#waiters.length > 0 || this.#isDue || this.#open.operations >= this.#batchOperationsMax) {
      this.#startCommit();
    }
  }

  // Sizes and the end.

  sizeBytes(): number {
    return Math.max(this.#sizes.fileBytes, this.sizeInUseBytes());
  }

  sizeInUseBytes(): number {
    return this.#sizes.inUseBytes + this.#open.bytes + (this.#committing?.bytes ?? 0);
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    await this.#defragmenting?.catch(() => undefined);
    let failure: unknown;
    try {
      await this.flush();
    } catch (error) {
      failure = error;
    }
    this.#isClosed = true;
    this.#timer?.cancel();
    this.#rest?.cancel();
    await this.#committer.close();
    await this.#shared.release();
    await this.#lettingGo;
    if (failure) throw failure;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

function removeEnvironmentFiles(file: string): void {
  fs.rmSync(file, { force: true });
  fs.rmSync(`${file}-lock`, { force: true });
}

/** Opens the file, creating it and its tables when absent; removes what an interrupted defragmentation left. */
export async function openBackend(options: BackendOptions): Promise<Backend> {
  const folder = path.dirname(options.path);
  const leftover = `${path.basename(options.path)}.tmp`;
  for (const name of fs.readdirSync(folder)) {
    if (name.startsWith(leftover)) fs.rmSync(path.join(folder, name), { recursive: true, force: true });
  }
  const isNew = !fs.existsSync(options.path);
  const settings = {
    path: options.path,
    noSync: options.unsafeNoFsync ?? false,
    mapSizeBytes: options.mapSizeBytes,
  };
  verifyBackendFile(options.path);
  const environment = new Environment(settings);
  try {
    // The file's name must survive as well as what is committed to it.
    if (isNew && !settings.noSync) await syncFolder(folder);
    const committer =
      options.commits === "inline"
        ? new InlineCommitter(environment, () => options.clock.monotonicMs())
        : WorkerCommitter.begin(settings);
    return new LmdbBackend(options, environment, committer);
  } catch (error) {
    await environment.close();
    throw error;
  }
}
