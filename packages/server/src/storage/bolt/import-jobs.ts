/**
 * Imports away from the thread that serves: each gets a worker of its own, which opens the files itself, does the job and
 * ends. It steps back behind the other threads where the system lets it, so that on a full machine requests go first.
 */
import { Worker } from "node:worker_threads";
import { workerFile } from "../../lib/worker-file.ts";
import { AGREEMENT } from "../backend/types.ts";
import type { Imported, ImportOptions } from "./import.ts";

/** What a worker is asked for; the message "stop" ends it early. */
export type ImportJob = Pick<ImportOptions, "boltPath" | "backendPath" | "mapSizeBytes">;

export type ImportJobResult =
  | { readonly kind: "imported"; readonly imported: Imported }
  | { readonly kind: "failed"; readonly error: unknown };

/** As importBolt. */
export async function importBoltInWorker(options: ImportOptions): Promise<Imported> {
  const { boltPath, backendPath, mapSizeBytes, signal } = options;
  signal?.throwIfAborted();
  const job: ImportJob = { boltPath, backendPath, mapSizeBytes };
  const worker = new Worker(workerFile("import-worker"), {
    workerData: { job, agreement: AGREEMENT },
    name: "bolt import",
  });
  // Asked, not terminated: it may be holding LMDB's write lock.
  const onAbort = () => worker.postMessage("stop");
  signal?.addEventListener("abort", onAbort, { once: true });
  try {
    const result = await new Promise<ImportJobResult>((resolve, reject) => {
      let answer: ImportJobResult | undefined;
      worker.on("message", (message: ImportJobResult) => {
        answer = message;
      });
      worker.once("error", reject);
      // Not before it has let go of its files.
      worker.once("exit", () => (answer ? resolve(answer) : reject(new Error("the thread of an import has ended"))));
    });
    if (result.kind === "imported") return result.imported;
    signal?.throwIfAborted();
    throw result.error;
  } finally {
    signal?.removeEventListener("abort", onAbort);
  }
}
