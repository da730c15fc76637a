/** The thread of one import; see import-jobs.ts. */
import { type MessagePort, parentPort, workerData } from "node:worker_threads";
import { assert } from "../../lib/assert.ts";
import { importBolt } from "./import.ts";
import { AGREEMENT, type ImportJob, type ImportJobResult } from "./import-jobs.ts";
import { stepBack } from "./step-back.ts";

function ownPort(): MessagePort {
  assert(parentPort, "import-worker runs as a worker thread");
  return parentPort;
}

async function perform(job: ImportJob, signal: AbortSignal): Promise<ImportJobResult> {
  try {
    return { kind: "imported", imported: await importBolt({ ...job, signal }) };
  } catch (error) {
    return { kind: "failed", error };
  }
}

const port = ownPort();
const { job, agreement } = workerData as { readonly job: ImportJob; readonly agreement: string };
assert(agreement === AGREEMENT, "the bundle of the thread for imports is out of date: build again");
const stop = new AbortController();
port.on("message", () => stop.abort(new Error("stopped")));
stepBack();
void perform(job, stop.signal).then((result) => {
  port.postMessage(result);
  port.close();
});
