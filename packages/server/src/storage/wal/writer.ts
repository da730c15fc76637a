/**
 * The writing side of a WAL.
 *
 * ```
 *   save() -> [ open batch ] -> sealed batches -> one write, one fdatasync a batch -> promises resolve
 * ```
 *
 * `save` encodes at once into the open batch. One loop at a time takes what has gathered, writes it with one call, syncs
 * once, and resolves all who wait; what is saved meanwhile gathers in the next batch. The end of a segment is decided
 * where records are encoded, since the CRC chain runs through the header of the next: the batch that crosses the limit
 * is sealed and is the last of its file, and the new open batch begins with crc, metadata and state.
 *
 * Small batches are written on the calling thread (a copy into the page cache) and only the fdatasync goes to another: the
 * way there and back costs two wake-ups. A caller that has nothing else to do may wait for the disk itself instead, as long as
 * the disk is quick.
 *
 * Segments get their full size by ftruncate: a hole reads as the zeros that a reader takes for the end. Measured with
 * 400-byte records (write and fdatasync, 2 vCPU, ext4): growing file 180 us, hole 130 us, file of written zeros 125 us;
 * so writing 64 MB of zeros a segment is not worth its time, and Node has no fallocate. What a hole does not do is
 * reserve space: a full disk shows when a batch is written, and ends the member before anything is acknowledged.
 *
 * What is worth while is to write zeros some way ahead of small batches. A sync of what lies in a hole has blocks to assign, which
 * goes through the file system's journal; a sync of what replaces zeros has its own data to write. Beside other work on the
 * same disk, for batches of 500, 3,500 and 20,000 bytes: 145, 200 and 300 us at the median in a hole, 133, 130 and 175 us on
 * zeros, with 58, 74 and 102 us of CPU against 48, 47 and 60. From 80,000 bytes on there is no difference.
 */
import path from "node:path";
import { assert } from "../../lib/assert.ts";
import { goDuration } from "../../lib/go-format.ts";
import type { Entry, HardState } from "../../pb/raftpb.ts";
import { Snapshot } from "../../pb/walpb.ts";
import { type FileSystem, hasCode, type OpenFile, systemFiles, writeFully } from "../file-system.ts";
import { parseSegmentName, type SegmentName, segmentName } from "./names.ts";
import { RecordBuffer, RecordType } from "./record-buffer.ts";
import { SEGMENT_BYTES, type Wal, type WalOptions, type WalSnapshot, WalWriteError } from "./types.ts";

/** Batches up to this size are written on the calling thread. */
const WRITE_NOW_BYTES_MAX = 256 * 1024;
/** Commits that nobody waits for are written when this much has gathered. */
const UNSYNCED_BYTES_MAX = 128 * 1024;
const SLOW_SYNC_MS = 1000;
/** When the calling thread has waited for longer than this for a sync, others do it for it for a while. */
const BLOCKING_SYNC_MS_MAX = 25;
const BLOCKING_PAUSE_MS = 1000;
/** Batches up to this size have zeros written ahead of them, so many bytes at a time, when less than that is left. */
const ZEROS_BATCH_BYTES_MAX = 32 * 1024;
const ZEROS_AHEAD_BYTES = 512 * 1024;
const ZEROS_LEFT_BYTES = 32 * 1024;

const RESOLVED: Promise<void> = Promise.resolve();

let zeros: Uint8Array | undefined;

interface Batch {
  readonly buffer: RecordBuffer;
  /** Set on the first batch of a new segment: its file is still a `.tmp` and gets this name when the batch is durable. */
  readonly begins: SegmentName | undefined;
  /** Set when the batch crossed the limit: nothing more goes into its file. */
  isLast: boolean;
  /** Someone waits for it. */
  mustSync: boolean;
  /** The calling thread may wait for the sync: all who saved into it said so. */
  mayBlock: boolean;
  readonly done: Promise<void>;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

function newBatch(buffer: RecordBuffer, begins: SegmentName | undefined): Batch {
  let resolve!: () => void;
  let reject!: (error: Error) => void;
  const done = new Promise<void>((onDone, onError) => {
    resolve = onDone;
    reject = onError;
  });
  // A batch without waiters may fail as well; whoever saves next is told.
  done.catch(() => {});
  return { buffer, begins, isLast: false, mustSync: false, mayBlock: true, done, resolve, reject };
}

/** Where an opened log stands: all that the writer needs to go on. */
export interface WalPosition {
  readonly dir: string;
  readonly metadata: Uint8Array;
  readonly hardState: HardState;
  /** Every segment file in the directory that may still be needed, oldest first; the last one is open in `file`. */
  readonly segments: readonly SegmentName[];
  readonly file: OpenFile;
  /** End of what is written in the last segment; zeros behind it. */
  readonly offset: number;
  readonly crc: number;
  readonly lastIndex: number;
}

export class WalWriter implements Wal {
  readonly dir: string;
  readonly #options: WalOptions;
  readonly #files: FileSystem;
  readonly #segmentBytes: number;
  readonly #metadata: Uint8Array;

  // Where encoding stands; runs ahead of the files.
  #crc: number;
  #state: HardState;
  /** Index of the last entry saved, or of a snapshot beyond it. The next segment is named after the one that follows. */
  #lastIndex: number;
  #sequence: number;
  /** Bytes of the segment being encoded that are in batches taken already. */
  #takenBytes: number;
  #open: Batch;
  #sealed: Batch[] = [];
  #spare: RecordBuffer | undefined = new RecordBuffer();

  // Where the files stand; only the loop touches these, and close() when the loop has ended.
  #file: OpenFile | undefined;
  #path: string;
  #offset: number;
  /** Something was written since the last sync. */
  #isDirty = false;
  /** Up to here the file has been written, with records or with zeros; behind it there may be a hole. */
  #zeroedTo = 0;
  /** The batch that the loop has taken and not settled. */
  #current: Batch | undefined;
  /** The calling thread does not wait for the disk before this moment. */
  #mayBlockFromMs = 0;
  #next: Promise<OpenFile> | undefined;
  #nextNumber = 0;

  /** Oldest first. Invariant: sequences are consecutive, the last is the file being written. */
  #segments: SegmentName[];
  #running: Promise<void> | undefined;
  #failure: WalWriteError | undefined;
  #closing: Promise<void> | undefined;

  constructor(at: WalPosition, options: WalOptions) {
    this.dir = at.dir;
    this.#options = options;
    this.#files = options.fileSystem ?? systemFiles;
    this.#segmentBytes = options.segmentBytes ?? SEGMENT_BYTES;
    this.#metadata = at.metadata;
    this.#crc = at.crc;
    this.#state = at.hardState;
    this.#lastIndex = at.lastIndex;
    this.#segments = [...at.segments];
    const last = at.segments.at(-1);
    assert(last, "a log has a segment");
    this.#sequence = last.sequence;
    this.#takenBytes = at.offset;
    this.#open = newBatch(new RecordBuffer(), undefined);
    this.#file = at.file;
    this.#path = path.join(at.dir, last.name);
    this.#offset = at.offset;
  }

  // Encoding.

  save(hardState: HardState | undefined, entries: readonly Entry[], mayBlock = false): Promise<void> {
    const hasState =
      hardState !== undefined && (hardState.term !== 0 || hardState.vote !== 0n || hardState.commit !== 0);
    if (!hasState && entries.length === 0) return RESOLVED;
    if (this.#failure) return Promise.reject(this.#failure);
    assert(!this.#closing, "save() on a closed WAL");
    const { buffer } = this.#open;
    const mustSync =
      entries.length > 0 || (hasState && (hardState.term !== this.#state.term || hardState.vote !== this.#state.vote));
    if (mustSync && !mayBlock) this.#open.mayBlock = false;
    for (const entry of entries) {
      this.#crc = buffer.entry(entry, this.#crc);
      this.#lastIndex = entry.index;
    }
    if (hasState) {
      this.#crc = buffer.hardState(hardState, this.#crc);
      this.#state = { term: hardState.term, vote: hardState.vote, commit: hardState.commit };
    }
    return this.#encoded(mustSync);
  }

  saveSnapshot(snapshot: WalSnapshot): Promise<void> {
    if (this.#failure) return Promise.reject(this.#failure);
    assert(!this.#closing, "saveSnapshot() on a closed WAL");
    this.#open.mayBlock = false;
    assert(snapshot.index === 0 || snapshot.confState !== undefined, "a snapshot record needs its conf state");
    this.#crc = this.#open.buffer.data(RecordType.snapshot, Snapshot.encode(snapshot), this.#crc);
    this.#lastIndex = Math.max(this.#lastIndex, snapshot.index);
    return this.#encoded(true);
  }

  sync(): Promise<void> {
    if (this.#failure) return Promise.reject(this.#failure);
    if (!this.#running && !this.#isDirty && this.#open.buffer.length === 0) return RESOLVED;
    this.#open.mustSync = true;
    this.#open.mayBlock = false;
    this.#start();
    return this.#open.done;
  }

  /** Seals the open batch if its segment is full, and sees to it that the loop runs if it has to. */
  #encoded(mustSync: boolean): Promise<void> {
    const batch = this.#open;
    if (mustSync) batch.mustSync = true;
    const { length } = batch.buffer;
    if (this.#takenBytes + length >= this.#segmentBytes) this.#cut(batch);
    else if (!mustSync && length < UNSYNCED_BYTES_MAX) return RESOLVED;
    this.#start();
    return mustSync ? batch.done : RESOLVED;
  }

  /** From here on records belong to the next segment. */
  #cut(batch: Batch): void {
    batch.isLast = true;
    this.#sealed.push(batch);
    this.#sequence++;
    const next = newBatch(this.#takeBuffer(), segmentName(this.#sequence, this.#lastIndex + 1));
    next.buffer.crc(this.#crc);
    this.#crc = next.buffer.data(RecordType.metadata, this.#metadata, this.#crc);
    const { term, vote, commit } = this.#state;
    if (term !== 0 || vote !== 0n || commit !== 0) this.#crc = next.buffer.hardState(this.#state, this.#crc);
    next.mustSync = true;
    this.#open = next;
    this.#takenBytes = 0;
  }

  #takeBuffer(): RecordBuffer {
    const buffer = this.#spare ?? new RecordBuffer();
    this.#spare = undefined;
    return buffer;
  }

  #giveBack(buffer: RecordBuffer): void {
    buffer.clear();
    this.#spare = buffer;
  }

  // Writing.

  #start(): void {
    this.#running ??= this.#run();
  }

  async #run(): Promise<void> {
    // All that is saved in this turn of the event loop's microtasks shares the first batch.
    await RESOLVED;
    // What has been said to others in this turn leaves before this thread stands still.
    let mayBlock = this.#mayBlockFor(this.#open);
    if (mayBlock) await new Promise<void>((resolve) => process.nextTick(resolve));
    try {
      for (let batch = this.#takeBatch(); batch; batch = this.#takeBatch()) {
        this.#current = batch;
        if (mayBlock && this.#mayBlockFor(batch)) this.#writeBlocking(batch);
        else await this.#write(batch);
        // Who saves while something is being written is not alone.
        mayBlock = false;
        this.#current = undefined;
        const { length } = batch.buffer;
        this.#giveBack(batch.buffer);
        batch.resolve();
        this.#writeZerosAhead(batch.isLast, length);
      }
    } catch (error) {
      this.#fail(error);
    } finally {
      this.#running = undefined;
    }
    if (!this.#failure && !this.#closing) this.#prepareNext();
  }

  #mayBlockFor({ mayBlock, mustSync, begins, isLast, buffer }: Batch): boolean {
    return (
      mayBlock &&
      mustSync &&
      !begins &&
      !isLast &&
      buffer.length <= WRITE_NOW_BYTES_MAX &&
      this.#options.clock.monotonicMs() >= this.#mayBlockFromMs
    );
  }

  #takeBatch(): Batch | undefined {
    const sealed = this.#sealed.shift();
    if (sealed) return sealed;
    const batch = this.#open;
    if (!batch.mustSync && batch.buffer.length < UNSYNCED_BYTES_MAX) return undefined;
    this.#takenBytes += batch.buffer.length;
    this.#open = newBatch(this.#takeBuffer(), undefined);
    // Under constant load there is no moment with nothing to do.
    if (this.#takenBytes >= this.#segmentBytes / 2) this.#prepareNext();
    return batch;
  }

  async #write(batch: Batch): Promise<void> {
    const { begins, buffer } = batch;
    if (begins) {
      this.#file = await (this.#next ?? this.#createTemporary());
      this.#next = undefined;
      this.#path = this.#file.path;
      this.#offset = 0;
      this.#zeroedTo = 0;
    }
    const file = this.#file;
    assert(file, "a segment is open");
    if (buffer.length > WRITE_NOW_BYTES_MAX) {
      await writeFully(file, buffer.bytes, buffer.length, this.#offset);
      this.#written(buffer.length);
    } else {
      this.#writeNow(file, buffer);
    }
    if (batch.isLast) {
      await file.truncate(this.#offset);
      await this.#timed(() => file.sync());
    } else if (batch.mustSync) {
      await this.#timed(() => file.datasync());
    }
    if (batch.isLast || batch.mustSync) this.#isDirty = false;
    if (begins) await this.#install(file, begins);
    if (batch.isLast) {
      this.#file = undefined;
      await file.close();
    }
  }

  #writeNow(file: OpenFile, { bytes, length }: RecordBuffer): void {
    for (let done = 0; done < length; ) {
      const written = file.writeNow(bytes, done, length - done, this.#offset + done);
      if (written <= 0) throw new Error("wrote nothing");
      done += written;
    }
    this.#written(length);
  }

  #written(length: number): void {
    this.#offset += length;
    this.#isDirty = true;
    if (length > 0) this.#options.observer?.wrote?.(length);
  }

  /** A batch in the middle of a segment, on this thread. */
  #writeBlocking({ buffer }: Batch): void {
    const file = this.#file;
    assert(file, "a segment is open");
    this.#writeNow(file, buffer);
    const { clock, unsafeNoFsync } = this.#options;
    if (!unsafeNoFsync) {
      const start = clock.monotonicMs();
      try {
        file.datasyncNow();
      } finally {
        const now = clock.monotonicMs();
        this.#observeSync(now - start);
        if (now - start > BLOCKING_SYNC_MS_MAX) this.#mayBlockFromMs = now + BLOCKING_PAUSE_MS;
      }
    }
    this.#isDirty = false;
  }

  /**
   * Behind all that is written, so it cannot harm; and without a sync of its own, as the next batch's takes it along: of two
   * at a time on one descriptor only one would hear of an error. What cannot be written here is left to the records to meet.
   */
  #writeZerosAhead(isLast: boolean, length: number): void {
    const file = this.#file;
    const isUseful = !isLast && !this.#options.unsafeNoFsync && length <= ZEROS_BATCH_BYTES_MAX;
    if (!file || !isUseful || this.#zeroedTo - this.#offset >= ZEROS_LEFT_BYTES) return;
    const from = Math.max(this.#zeroedTo, this.#offset);
    const count = Math.min(ZEROS_AHEAD_BYTES, this.#segmentBytes - from);
    if (count <= 0) return;
    zeros ??= new Uint8Array(ZEROS_AHEAD_BYTES);
    try {
      this.#zeroedTo = from + file.writeNow(zeros, 0, count, from);
    } catch {
      // Not again before the next segment.
      this.#zeroedTo = Number.POSITIVE_INFINITY;
    }
  }

  /** Gives the new segment its name, once what a reader needs of it is durable. */
  async #install(file: OpenFile, segment: SegmentName): Promise<void> {
    const target = path.join(this.dir, segment.name);
    await this.#files.rename(file.path, target);
    this.#path = target;
    await this.#timed(() => this.#files.syncDirectory(this.dir));
    this.#segments.push(segment);
    this.#options.logger.info("created a new WAL segment", { path: target });
  }

  /** The next segment's file is made ready before it is needed: while nothing else is to be done, or half-way. */
  #prepareNext(): void {
    if (this.#next || this.#closing) return;
    this.#next = this.#createTemporary();
    // If it failed, it fails again when the segment is needed, and is reported then.
    this.#next.catch(() => {
      this.#next = undefined;
    });
  }

  async #createTemporary(): Promise<OpenFile> {
    const file = await this.#files.open(path.join(this.dir, `${this.#nextNumber++ % 2}.tmp`), "create", 0o600);
    await file.truncate(this.#segmentBytes);
    return file;
  }

  async #timed(sync: () => Promise<void>): Promise<void> {
    if (this.#options.unsafeNoFsync) return;
    const { clock } = this.#options;
    const start = clock.monotonicMs();
    try {
      await sync();
    } finally {
      this.#observeSync(clock.monotonicMs() - start);
    }
  }

  #observeSync(tookMs: number): void {
    const { logger, observer } = this.#options;
    observer?.synced?.(tookMs);
    if (tookMs > SLOW_SYNC_MS) {
      logger.warn("slow fdatasync", { took: goDuration(tookMs), "expected-duration": goDuration(SLOW_SYNC_MS) });
    }
  }

  /**
   * After a failed write or fsync it is not known what the disk holds, and a second fsync may succeed without it. So
   * nothing is tried again: all who wait and all who come get the error.
   */
  #fail(cause: unknown): void {
    const why = cause instanceof Error ? cause.message : String(cause);
    const failure = new WalWriteError(`wal: cannot write ${this.#path}: ${why}`, { cause });
    this.#failure = failure;
    this.#current?.reject(failure);
    for (const batch of this.#sealed) batch.reject(failure);
    this.#open.reject(failure);
  }

  // Segments.

  releaseTo(index: number): void {
    const firstAtOrAfter = this.#segments.findIndex((segment) => segment.firstIndex >= index);
    const keepFrom = (firstAtOrAfter < 0 ? this.#segments.length : firstAtOrAfter) - 1;
    if (keepFrom > 0) this.#segments.splice(0, keepFrom);
  }

  neededSegments(): string[] {
    return this.#segments.map((segment) => segment.name);
  }

  async purge(keepFiles: number): Promise<string[]> {
    const oldestNeeded = (this.#segments[0] as SegmentName).sequence;
    const names = (await this.#files.list(this.dir)).filter((name) => parseSegmentName(name) !== undefined);
    const purged: string[] = [];
    while (keepFiles > 0 && names.length > keepFiles) {
      const name = names[0] as string;
      if ((parseSegmentName(name) as SegmentName).sequence >= oldestNeeded) break;
      names.shift();
      await this.#files.remove(path.join(this.dir, name));
      this.#options.logger.info("purged", { path: path.join(this.dir, name) });
      purged.push(name);
    }
    return purged;
  }

  // Closing.

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    let failure: unknown = this.#failure;
    if (!failure) {
      this.#open.mustSync = true;
      this.#start();
      await this.#open.done.catch((error: unknown) => {
        failure = error;
      });
    }
    await this.#running;
    const next = await this.#next?.catch(() => undefined);
    this.#next = undefined;
    await next?.close();
    for (const name of ["0.tmp", "1.tmp"]) {
      await this.#files.remove(path.join(this.dir, name)).catch((error: unknown) => {
        if (!hasCode(error, "ENOENT")) failure ??= error;
      });
    }
    const file = this.#file;
    this.#file = undefined;
    await file?.close();
    if (failure) throw failure;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
