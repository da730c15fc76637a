/**
 * The parts of a command that another thread can do: the sha256 of a snapshot, the hash and check of a database, and
 * sorting for the index of a new LMDB file. On the same thread where there is none.
 */
import { createHash } from "node:crypto";
import fs from "node:fs";
import { Worker } from "node:worker_threads";
import { workerFile } from "../../lib/worker-file.ts";
import {
  BoltPages,
  inspectBolt,
  inspectEnds,
  inspectKeyPart,
  joinSums,
  keyRootChildren,
  type RootPart,
  type RowSum,
} from "../bolt/walk.ts";
import type { Meta } from "../bolt/format.ts";
import type { FileSystem } from "../file-system.ts";
import { copyRange } from "../page-file.ts";
import { OfflineError } from "./errors.ts";
import { IndexRecords, type IndexRows, RECORD_BYTES_MAX } from "./index-build.ts";
import { RECORD_HEADER_BYTES, RowSorter, type SortedRows } from "./row-sorter.ts";
import type { RowCursor } from "../rows.ts";
import { boltMeta } from "./store.ts";

const READ_BYTES = 1024 * 1024;

export type TaskRequest =
  | { readonly kind: "sha256"; readonly path: string; readonly bytes: number }
  | { readonly kind: "inspect"; readonly path: string; readonly root: number; readonly part: RootPart }
  | { readonly kind: "sort"; readonly path: string };

/** Records for a sorting task. The memory goes back when they have been taken in. */
export interface RecordBatch {
  readonly kind: "records";
  readonly memory: ArrayBuffer;
  readonly bytes: number;
}

/** All records are there: this memory is to be filled with the next ones in order. */
export interface RecordsWanted {
  readonly kind: "wanted";
  readonly memory: ArrayBuffer;
}

/** Of the first `bytes` bytes of a file. */
export function sha256OfFile(path: string, bytes: number): Uint8Array {
  const fd = fs.openSync(path, "r");
  try {
    const hash = createHash("sha256");
    const buffer = Buffer.allocUnsafeSlow(READ_BYTES);
    for (let at = 0; at < bytes; ) {
      const count = fs.readSync(fd, buffer, 0, Math.min(READ_BYTES, bytes - at), at);
      if (count === 0) throw new OfflineError(`read ${path}: unexpected end`);
      hash.update(buffer.subarray(0, count));
      at += count;
    }
    return new Uint8Array(hash.digest());
  } finally {
    fs.closeSync(fd);
  }
}

export interface Inspection {
  readonly hash: number;
  readonly totalKeys: number;
  readonly revision: number;
  readonly reachedPages: number;
  /** How many there are. */
  readonly buckets: number;
}

/** Undefined: something is wrong with the file, or it needs the slower check for its freelist. */
export function inspectFile(path: string, onProgress?: (bytesRead: number) => void): Inspection | undefined {
  const meta = boltMeta(path);
  if (meta.freelist !== undefined) return undefined;
  const pages = new BoltPages(path, meta, true);
  try {
    return inspectBolt(pages, onProgress);
  } finally {
    pages.close();
  }
}

/** Takes records in and sorts them; then fills with them what memory it is given. The last one it gives back is empty. */
export async function sortRecords(
  path: string,
  files: FileSystem,
  inbox: AsyncIterable<RecordBatch | RecordsWanted>,
  answer: (answer: TaskAnswer) => void,
): Promise<void> {
  const sorter = new RowSorter(path, files);
  let rows: SortedRows | undefined;
  try {
    for await (const message of inbox) {
      const { memory } = message;
      if (message.kind === "records") {
        if (!sorter.hasRoom(message.bytes)) await sorter.spill();
        sorter.addAll(Buffer.from(memory, 0, message.bytes));
        answer({ kind: "spent", memory });
        continue;
      }
      rows ??= await sorter.sorted();
      const bytes = fill(Buffer.from(memory), rows);
      answer({ kind: "sorted", memory, bytes });
      if (bytes === 0) return;
    }
  } finally {
    await sorter.close();
  }
}

function fill(into: Buffer, rows: SortedRows): number {
  let filled = 0;
  while (filled + RECORD_BYTES_MAX <= into.length && rows.next()) {
    const { buffer, keyAt, payloadEnd } = rows;
    const from = keyAt - RECORD_HEADER_BYTES;
    copyRange(buffer, from, payloadEnd, into, filled);
    filled += payloadEnd - from;
  }
  return filled;
}

/** Below it a second thread costs more than it saves. */
const THREAD_BYTES_MIN = 128 * 1024 * 1024;

/** What a thread found in its part of a file. */
export interface PartInspection {
  readonly sum: RowSum;
  readonly reached: Uint8Array;
  readonly reachedPages: number;
}

/** Undefined: something is wrong. */
export function inspectPart(path: string, root: number, part: RootPart): PartInspection | undefined {
  const pages = new BoltPages(path, boltMeta(path), true);
  try {
    const sum = inspectKeyPart(pages, root, part);
    return sum && { sum, reached: pages.reached as Uint8Array, reachedPages: pages.reachedPages };
  } finally {
    pages.close();
  }
}

/** As {@link inspectFile}; of a big file, half of the rows of `key` are looked at by another thread. */
export async function inspectInThreads(
  path: string,
  onProgress?: (bytesRead: number) => void,
  bytesMin = THREAD_BYTES_MIN,
): Promise<Inspection | undefined> {
  const meta = boltMeta(path);
  if (meta.freelist !== undefined) return undefined;
  const pages = new BoltPages(path, meta, true);
  try {
    if (meta.highWater * meta.pageSizeBytes < bytesMin) return inspectBolt(pages, onProgress);
    const { root, children } = rootOfKey(path, meta);
    if (children < 2) return inspectBolt(pages, onProgress);
    const splitAt = children >> 1;
    const thread = new TaskThread<PartInspection | undefined>({
      kind: "inspect",
      path,
      root,
      part: { from: splitAt, to: children },
    });
    try {
      // This thread is busy for a while: the other one is given the time to begin.
      await new Promise((resolve) => setImmediate(resolve));
      const ends = inspectEnds(pages, splitAt, (bytes) => onProgress?.(2 * bytes));
      const other = ends && (await thread.result);
      if (!other || !isDisjoint(pages.reached as Uint8Array, other.reached, root)) return undefined;
      return {
        ...joinSums(joinSums(ends.before, other.sum), ends.after),
        buckets: ends.buckets,
        // The root of `key` was seen by both.
        reachedPages: pages.reachedPages + other.reachedPages - 1,
      };
    } finally {
      await thread.stop();
    }
  } finally {
    pages.close();
  }
}

function rootOfKey(path: string, meta: Meta): ReturnType<typeof keyRootChildren> {
  const pages = new BoltPages(path, meta, false);
  try {
    return keyRootChildren(pages);
  } finally {
    pages.close();
  }
}

/** Whether no page but this one is in both. */
function isDisjoint(a: Uint8Array, b: Uint8Array, except: number): boolean {
  for (let i = 0; i < a.length; i++) {
    const both = (a[i] as number) & (b[i] as number);
    if (both !== 0 && !(i === except >>> 3 && both === 1 << (except & 7))) return false;
  }
  return true;
}

export type TaskAnswer =
  | { readonly kind: "spent"; readonly memory: ArrayBuffer }
  | { readonly kind: "sorted"; readonly memory: ArrayBuffer; readonly bytes: number }
  | { readonly kind: "done"; readonly result: unknown }
  | { readonly kind: "failed"; readonly message: string; readonly code: string | undefined };

/** One task on a thread of its own. `stop` ends it wherever it is. */
export class TaskThread<T> {
  readonly result: Promise<T>;
  readonly #worker: Worker;

  /** `onBytes`: memory came back with so many bytes in it. */
  constructor(request: TaskRequest, onBytes?: (memory: ArrayBuffer, bytes: number) => void) {
    this.#worker = new Worker(workerFile("offline-worker"), { workerData: request, name: request.kind });
    this.result = new Promise<T>((resolve, reject) => {
      this.#worker.on("message", (answer: TaskAnswer) => {
        if (answer.kind === "spent") onBytes?.(answer.memory, 0);
        else if (answer.kind === "sorted") onBytes?.(answer.memory, answer.bytes);
        else if (answer.kind === "done") resolve(answer.result as T);
        else
          reject(
            Object.assign(new OfflineError(answer.message), answer.code === undefined ? {} : { code: answer.code }),
          );
      });
      this.#worker.once("error", reject);
      this.#worker.once("exit", () => reject(new Error(`the ${request.kind} thread has ended`)));
    });
    // Who stops early does not look at the result.
    this.result.catch(() => {});
  }

  tell(message: RecordBatch | RecordsWanted): void {
    this.#worker.postMessage(message, [message.memory]);
  }

  async stop(): Promise<void> {
    await this.#worker.terminate();
  }
}

const BATCH_BYTES = 512 * 1024;
/** How far the other thread may be behind. */
const BATCHES = 16;

/** Of those, how many are on their way back when all records are there. */
const BATCHES_WANTED = 4;

interface SortedBatch {
  readonly bytes: Buffer<ArrayBuffer>;
  readonly used: number;
}

/** The records of the rows that pass here, sorted by another thread. */
export class SortThread implements IndexRows {
  readonly #thread: TaskThread<void>;
  /** Where the thread puts what does not fit into memory. */
  readonly #path: string;
  readonly #records = new IndexRecords();
  readonly #free: ArrayBuffer[] = [];
  #batches = 1;
  #batch = Buffer.from(new ArrayBuffer(BATCH_BYTES));
  #used = 0;
  #onFree: (() => void) | undefined;
  readonly #sorted: SortedBatch[] = [];
  #isAsking = false;
  // The record at hand, of those in the batch.
  buffer: Buffer<ArrayBuffer> = Buffer.from(new ArrayBuffer(0));
  keyAt = 0;
  keyEnd = 0;
  payloadAt = 0;
  payloadEnd = 0;
  #view = new DataView(this.buffer.buffer);
  #end = 0;

  constructor(path: string) {
    this.#path = `${path}.keys`;
    this.#thread = new TaskThread<void>({ kind: "sort", path: this.#path }, (memory, bytes) => {
      if (this.#isAsking) this.#sorted.push({ bytes: Buffer.from(memory), used: bytes });
      else this.#free.push(memory);
      this.#onFree?.();
    });
  }

  /** Takes in the row of `key` that the cursor is at. A promise: that has to be waited for before the next. */
  add(row: RowCursor): Promise<void> | undefined {
    this.#used = this.#records.write(row, this.#batch, this.#used);
    return this.#used + RECORD_BYTES_MAX > BATCH_BYTES ? this.#turn() : undefined;
  }

  #send(): void {
    this.#thread.tell({ kind: "records", memory: this.#batch.buffer, bytes: this.#used });
    this.#used = 0;
  }

  async #turn(): Promise<void> {
    this.#send();
    while (this.#free.length === 0 && this.#batches === BATCHES) await this.#something();
    const free = this.#free.pop();
    if (!free) this.#batches++;
    this.#batch = Buffer.from(free ?? new ArrayBuffer(BATCH_BYTES));
  }

  async #something(): Promise<void> {
    const came = new Promise<void>((resolve) => {
      this.#onFree = resolve;
    });
    // When the thread has failed nothing comes any more.
    await Promise.race([came, this.#thread.result]);
  }

  next(): boolean {
    const at = this.payloadEnd;
    if (at === this.#end) return false;
    this.keyAt = at + RECORD_HEADER_BYTES;
    this.keyEnd = this.keyAt + this.#view.getUint32(at, true);
    this.payloadAt = this.keyEnd;
    this.payloadEnd = this.keyEnd + this.#view.getUint32(at + 4, true);
    return true;
  }

  /** All rows have been added: goes on to the next batch of records in order. */
  async more(): Promise<boolean> {
    if (!this.#isAsking) {
      this.#send();
      // From then on what comes back has been asked for.
      while (this.#free.length < this.#batches) await this.#something();
      this.#isAsking = true;
      for (const memory of this.#free.slice(0, BATCHES_WANTED)) this.#thread.tell({ kind: "wanted", memory });
      this.#free.length = 0;
    } else if (this.#end > 0) this.#thread.tell({ kind: "wanted", memory: this.buffer.buffer });
    while (this.#sorted.length === 0) await this.#something();
    const { bytes, used } = this.#sorted.shift() as SortedBatch;
    this.buffer = bytes;
    this.#view = new DataView(bytes.buffer);
    this.payloadEnd = 0;
    this.#end = used;
    return this.next();
  }

  /** Ends the thread wherever it is, and removes what it has left: it may not have come to that itself. */
  async stop(): Promise<void> {
    await this.#thread.stop();
    fs.rmSync(this.#path, { force: true });
  }
}
