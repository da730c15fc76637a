/**
 * Export and import away from the thread that serves: each job gets a worker of its own, which opens the files itself, does
 * the job and ends. A snapshot of gigabytes then costs the serving thread no more than passing its bytes on. The worker
 * steps back behind the other threads where the system lets it, so that on a full machine requests go first.
 */
import { Worker } from "node:worker_threads";
import { assert } from "../../lib/assert.ts";
import { workerFile } from "../../lib/worker-file.ts";
import { TABLES } from "../backend/index.ts";
import { type FileSystem, systemFiles } from "../file-system.ts";
import { type ExportOptions, openExported } from "./export.ts";
import type { Imported, ImportOptions } from "./import.ts";
import type { BoltExport } from "./types.ts";

/** Jobs at a time; more wait for their turn. */
const JOBS_MAX = 4;

/** What both threads must agree on: the worker's bundle may be an older one. */
export const AGREEMENT = TABLES.join();

/** What a worker is asked for, and what it answers; the message "stop" ends a job early. */
export type BoltJob =
  | {
      readonly kind: "export";
      readonly backendPath: string;
      readonly temporaryPath: string;
      readonly mapSizeBytes: number | undefined;
    }
  | {
      readonly kind: "import";
      readonly boltPath: string;
      readonly backendPath: string;
      readonly mapSizeBytes: number | undefined;
    };

export type BoltJobResult =
  | { readonly kind: "exported"; readonly sizeBytes: number }
  | { readonly kind: "imported"; readonly imported: Imported }
  | { readonly kind: "failed"; readonly error: unknown };

let running = 0;
const waiting: (() => void)[] = [];

async function takeTurn(signal: AbortSignal | undefined): Promise<void> {
  if (running < JOBS_MAX) {
    running++;
    return;
  }
  await new Promise<void>((resolve, reject) => {
    const onTurn = () => {
      signal?.removeEventListener("abort", onAbort);
      resolve();
    };
    const onAbort = () => {
      waiting.splice(waiting.indexOf(onTurn), 1);
      reject(signal?.reason);
    };
    waiting.push(onTurn);
    signal?.addEventListener("abort", onAbort, { once: true });
  });
}

/** The turn goes on to whoever has waited for the longest. */
function giveTurn(): void {
  const next = waiting.shift();
  if (next) next();
  else running--;
}

async function runJob(job: BoltJob, signal: AbortSignal | undefined): Promise<BoltJobResult> {
  signal?.throwIfAborted();
  await takeTurn(signal);
  try {
    const worker = new Worker(workerFile("bolt-worker"), {
      workerData: { job, agreement: AGREEMENT },
      name: `bolt ${job.kind}`,
    });
    // Asked, not terminated: it may be holding LMDB's write lock.
    const onAbort = () => worker.postMessage("stop");
    signal?.addEventListener("abort", onAbort, { once: true });
    try {
      const result = await new Promise<BoltJobResult>((resolve, reject) => {
        let answer: BoltJobResult | undefined;
        worker.on("message", (message: BoltJobResult) => {
          answer = message;
        });
        worker.once("error", reject);
        // Not before it has let go of its files.
        worker.once("exit", () =>
          answer ? resolve(answer) : reject(new Error(`the thread of a ${job.kind} has ended`)),
        );
      });
      if (result.kind !== "failed") return result;
      signal?.throwIfAborted();
      throw result.error;
    } finally {
      signal?.removeEventListener("abort", onAbort);
    }
  } finally {
    giveTurn();
  }
}

/**
 * As exportBolt, of the LMDB file at `backendPath` as it is in some moment after the call. The file must stay open on this
 * side until the promise settles.
 */
export async function exportBoltInWorker(
  options: ExportOptions & { readonly backendPath: string; readonly mapSizeBytes?: number | undefined },
): Promise<BoltExport> {
  const { backendPath, temporaryPath, mapSizeBytes, signal } = options;
  const files: FileSystem = options.files ?? systemFiles;
  try {
    const result = await runJob({ kind: "export", backendPath, temporaryPath, mapSizeBytes }, signal);
    assert(result.kind === "exported", () => `an export ended as ${result.kind}`);
    // Nobody may be waiting any more, though the thread was quicker than the word to stop.
    signal?.throwIfAborted();
    return await openExported(temporaryPath, files, result.sizeBytes);
  } catch (error) {
    await files.remove(temporaryPath).catch(() => undefined);
    throw error;
  }
}

/** As importBolt. */
export async function importBoltInWorker(options: ImportOptions): Promise<Imported> {
  const { boltPath, backendPath, mapSizeBytes, signal } = options;
  const result = await runJob({ kind: "import", boltPath, backendPath, mapSizeBytes }, signal);
  assert(result.kind === "imported", () => `an import ended as ${result.kind}`);
  return result.imported;
}
