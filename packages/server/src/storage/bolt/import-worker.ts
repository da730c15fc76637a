/** The thread of one import; see import-jobs.ts. */
import { workerData } from "node:worker_threads";
import { assert } from "../../lib/assert.ts";
import { ownPort } from "../../lib/worker-file.ts";
import { AGREEMENT } from "../backend/types.ts";
import { importBolt } from "./import.ts";
import type { ImportJob, ImportJobResult } from "./import-jobs.ts";
import { stepBack } from "./step-back.ts";

async function perform(job: ImportJob, signal: AbortSignal): Promise<ImportJobResult> {
  try {
    return { kind: "imported", imported: await importBolt({ ...job, signal }) };
  } catch (error) {
    return { kind: "failed", error };
  }
}

const port = ownPort("import-worker");
const { job, agreement } = workerData as { readonly job: ImportJob; readonly agreement: string };
assert(agreement === AGREEMENT, "the bundle of the thread for imports is out of date: build again");
const stop = new AbortController();
port.on("message", () => stop.abort(new Error("stopped")));
stepBack();
void perform(job, stop.signal).then((result) => {
  port.postMessage(result);
  port.close();
});
