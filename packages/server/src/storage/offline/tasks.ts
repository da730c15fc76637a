/**
 * The parts of a command that another thread can do: the sha256 of a snapshot, the hash and check of a database, and
 * the index of a new LMDB file. On the same thread where there is none.
 */
import { createHash } from "node:crypto";
import fs from "node:fs";
import { Worker } from "node:worker_threads";
import { workerFile } from "../../lib/worker-file.ts";
import { BoltPages, inspectBolt } from "../bolt/walk.ts";
import type { FileSystem } from "../file-system.ts";
import type { TreeRecord } from "../lmdb/format.ts";
import { LmdbWriter } from "../lmdb/writer.ts";
import { OfflineError } from "./errors.ts";
import { IndexBuilder } from "./index-build.ts";
import type { BackendKind } from "./member-dir.ts";
import { boltMeta, openStore } from "./store.ts";

const READ_BYTES = 1024 * 1024;

export type TaskRequest =
  | { readonly kind: "sha256"; readonly path: string; readonly bytes: number }
  | { readonly kind: "inspect"; readonly path: string }
  | { readonly kind: "index"; readonly path: string; readonly source: BackendKind; readonly sortPath: string };

/** What an index task is told once it is known where its pages go. */
export interface IndexPlace {
  readonly path: string;
  readonly firstPage: number;
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

/** Scans `key` and sorts; then waits to be told where the tables go. */
export async function buildIndex(
  request: Extract<TaskRequest, { kind: "index" }>,
  files: FileSystem,
  place: Promise<IndexPlace>,
): Promise<IndexResult> {
  const builder = new IndexBuilder(request.sortPath, files);
  try {
    const store = openStore(request.path, request.source);
    try {
      const rows = store.cursor("key");
      while (rows.next()) {
        builder.add(rows);
        if (builder.isFull) await builder.makeRoom();
      }
    } finally {
      store.close();
    }
    const { path, firstPage } = await place;
    const file = await files.open(path, "write");
    const writer = new LmdbWriter(file, firstPage);
    try {
      await builder.write(writer);
      await writer.output.finish();
    } finally {
      await writer.settle();
      await file.close();
    }
    return { trees: writer.trees, endPage: writer.nextPage };
  } finally {
    await builder.close();
  }
}

export type TaskAnswer =
  | { readonly kind: "done"; readonly result: unknown }
  | { readonly kind: "failed"; readonly message: string; readonly code: string | undefined };

/** One task on a thread of its own. `stop` ends it wherever it is. */
export class TaskThread<T> {
  readonly result: Promise<T>;
  readonly #worker: Worker;

  constructor(request: TaskRequest) {
    this.#worker = new Worker(workerFile("offline-worker"), { workerData: request, name: request.kind });
    this.result = new Promise<T>((resolve, reject) => {
      this.#worker.once("message", (answer: TaskAnswer) => {
        if (answer.kind === "done") resolve(answer.result as T);
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

  tell(place: IndexPlace): void {
    this.#worker.postMessage(place);
  }

  async stop(): Promise<void> {
    await this.#worker.terminate();
  }
}
