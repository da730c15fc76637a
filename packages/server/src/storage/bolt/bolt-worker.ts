/** The thread of one export or import; see bolt-jobs.ts. */
import os from "node:os";
import { type MessagePort, parentPort, workerData } from "node:worker_threads";
import { assert } from "../../lib/assert.ts";
import { Environment } from "../backend/environment.ts";
import { PinnedReader, type ReadTransaction } from "../backend/reader.ts";
import { systemFiles } from "../file-system.ts";
import { AGREEMENT, type BoltJob, type BoltJobResult } from "./bolt-jobs.ts";
import { bucketRowsOf, writeBolt } from "./export.ts";
import { importBolt } from "./import.ts";

/** How far the thread steps back behind those that serve: about a third of their share when all want to run. */
const NICENESS = 5;
/** Written bytes that may wait for the disk: less than what would make the WAL wait behind them. */
const UNSYNCED_BYTES_MAX = 16 * 1024 * 1024;

function ownPort(): MessagePort {
  assert(parentPort, "bolt-worker runs as a worker thread");
  return parentPort;
}

async function exportRows(
  { backendPath, temporaryPath, mapSizeBytes }: Extract<BoltJob, { kind: "export" }>,
  signal: AbortSignal,
): Promise<BoltJobResult> {
  const environment = new Environment({ path: backendPath, mapSizeBytes });
  try {
    const transaction = environment.root.useReadTransaction() as unknown as ReadTransaction;
    try {
      const file = await systemFiles.open(temporaryPath, "create");
      try {
        const rows = bucketRowsOf(new PinnedReader(environment, transaction, { checksSums: true }));
        const sizeBytes = await writeBolt(rows, file, { signal, unsyncedBytesMax: UNSYNCED_BYTES_MAX });
        return { kind: "exported", sizeBytes };
      } finally {
        await file.close();
      }
    } finally {
      transaction.done();
    }
  } finally {
    await environment.close();
  }
}

async function perform(job: BoltJob, signal: AbortSignal): Promise<BoltJobResult> {
  try {
    if (job.kind === "export") return await exportRows(job, signal);
    return { kind: "imported", imported: await importBolt({ ...job, signal }) };
  } catch (error) {
    return { kind: "failed", error };
  }
}

const port = ownPort();
const { job, agreement } = workerData as { readonly job: BoltJob; readonly agreement: string };
assert(agreement === AGREEMENT, "the bundle of the thread for exports is out of date: build again");
const stop = new AbortController();
port.on("message", () => stop.abort(new Error("stopped")));
// On Linux a priority belongs to the thread that sets it; elsewhere it would be that of the whole process.
if (process.platform === "linux") {
  try {
    os.setPriority(os.getPriority() + NICENESS);
  } catch {
    // A process that is that far back already stays where it is.
  }
}
void perform(job, stop.signal).then((result) => {
  port.postMessage(result);
  port.close();
});
