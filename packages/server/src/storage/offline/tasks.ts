/**
 * The parts of a command that another thread can do: the sha256 of a snapshot, the hash and check of a database, and
 * the index of a new LMDB file. On the same thread where there is none.
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
import type { TreeRecord } from "../lmdb/format.ts";
import { LmdbWriter } from "../lmdb/writer.ts";
import { OfflineError } from "./errors.ts";
import { IndexBuilder, IndexRecords, RECORD_BYTES_MAX } from "./index-build.ts";
import type { RowCursor } from "../rows.ts";
import { boltMeta } from "./store.ts";

const READ_BYTES = 1024 * 1024;

export type TaskRequest =
  | { readonly kind: "sha256"; readonly path: string; readonly bytes: number }
  | { readonly kind: "inspect"; readonly path: string; readonly root: number; readonly part: RootPart }
  | { readonly kind: "index"; readonly sortPath: string };

/** What an index task is told at the end, when it is known where its pages go. */
export interface IndexPlace {
  readonly kind: "place";
  readonly path: string;
  readonly firstPage: number;
}

/** Before that, the records of the rows. The memory goes back when they have been taken in. */
export interface IndexBatch {
  readonly kind: "records";
  readonly memory: ArrayBuffer;
  readonly bytes: number;
}

export interface IndexResult {
  readonly trees: ReadonlyMap<string, TreeRecord>;
  readonly endPage: number;
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

/** Takes records in and sorts them; when it is told where the tables go, writes them there. */
export async function buildIndex(
  sortPath: string,
  files: FileSystem,
  inbox: AsyncIterable<IndexBatch | IndexPlace>,
  giveBack: (memory: ArrayBuffer) => void,
): Promise<IndexResult> {
  const builder = new IndexBuilder(sortPath, files);
  try {
    for await (const message of inbox) {
      if (message.kind === "place") return await writeIndex(builder, message, files);
      const { memory, bytes } = message;
      if (!builder.hasRoom(bytes)) await builder.makeRoom();
      builder.addRecords(Buffer.from(memory, 0, bytes));
      giveBack(memory);
    }
    throw new Error("an index without a place");
  } finally {
    await builder.close();
  }
}

async function writeIndex(builder: IndexBuilder, place: IndexPlace, files: FileSystem): Promise<IndexResult> {
  const file = await files.open(place.path, "write");
  const writer = new LmdbWriter(file, place.firstPage);
  try {
    await builder.write(writer);
    await writer.output.finish();
  } finally {
    await writer.settle();
    await file.close();
  }
  return { trees: writer.trees, endPage: writer.nextPage };
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
  | { readonly kind: "done"; readonly result: unknown }
  | { readonly kind: "failed"; readonly message: string; readonly code: string | undefined };

/** One task on a thread of its own. `stop` ends it wherever it is. */
export class TaskThread<T> {
  readonly result: Promise<T>;
  readonly #worker: Worker;

  constructor(request: TaskRequest, onSpent?: (memory: ArrayBuffer) => void) {
    this.#worker = new Worker(workerFile("offline-worker"), { workerData: request, name: request.kind });
    this.result = new Promise<T>((resolve, reject) => {
      this.#worker.on("message", (answer: TaskAnswer) => {
        if (answer.kind === "spent") onSpent?.(answer.memory);
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

  tell(message: IndexBatch | IndexPlace): void {
    this.#worker.postMessage(message, message.kind === "records" ? [message.memory] : []);
  }

  async stop(): Promise<void> {
    await this.#worker.terminate();
  }
}

const BATCH_BYTES = 512 * 1024;
/** How far the other thread may be behind. */
const BATCHES = 16;

/** The index of a new file, made by another thread of the rows that pass here. */
export class IndexThread {
  readonly #thread: TaskThread<IndexResult>;
  readonly #records = new IndexRecords();
  readonly #free: Buffer<ArrayBuffer>[] = [];
  #batches = 1;
  #batch = Buffer.from(new ArrayBuffer(BATCH_BYTES));
  #used = 0;
  #onFree: (() => void) | undefined;

  constructor(sortPath: string) {
    this.#thread = new TaskThread<IndexResult>({ kind: "index", sortPath }, (memory) => {
      this.#free.push(Buffer.from(memory));
      this.#onFree?.();
    });
  }

  /** Takes in the row of `key` that the cursor is at. A promise: that has to be waited for before the next. */
  add(row: RowCursor): Promise<void> | undefined {
    this.#used = this.#records.write(row, this.#batch, this.#used);
    return this.#used + RECORD_BYTES_MAX > BATCH_BYTES ? this.#turn() : undefined;
  }

  #send(): void {
    const memory = this.#batch.buffer;
    this.#thread.tell({ kind: "records", memory, bytes: this.#used });
    this.#used = 0;
  }

  async #turn(): Promise<void> {
    this.#send();
    while (this.#free.length === 0 && this.#batches === BATCHES) {
      const freed = new Promise<void>((resolve) => {
        this.#onFree = resolve;
      });
      // When the thread has failed nothing is given back any more.
      await Promise.race([freed, this.#thread.result]);
    }
    const free = this.#free.pop();
    if (!free) this.#batches++;
    this.#batch = free ?? Buffer.from(new ArrayBuffer(BATCH_BYTES));
  }

  /** All rows have been added: writes the tables from `firstPage` on. */
  finish(path: string, firstPage: number): Promise<IndexResult> {
    this.#send();
    this.#thread.tell({ kind: "place", path, firstPage });
    return this.#thread.result;
  }

  stop(): Promise<void> {
    return this.#thread.stop();
  }
}
