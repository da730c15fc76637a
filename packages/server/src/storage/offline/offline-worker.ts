/** The thread of one {@link TaskThread}: does its task, answers, and ends. */
import { type MessagePort, parentPort, workerData } from "node:worker_threads";
import { assert } from "../../lib/assert.ts";
import { systemFiles } from "../file-system.ts";
import { buildIndex, type IndexPlace, inspectFile, sha256OfFile, type TaskAnswer, type TaskRequest } from "./tasks.ts";

async function perform(request: TaskRequest, port: MessagePort): Promise<unknown> {
  switch (request.kind) {
    case "sha256":
      return sha256OfFile(request.path, request.bytes);
    case "inspect":
      return inspectFile(request.path);
    case "index": {
      const place = new Promise<IndexPlace>((resolve) => port.once("message", resolve));
      return buildIndex(request, systemFiles, place);
    }
  }
}

assert(parentPort, "offline-worker runs as a worker thread");
const port = parentPort;
try {
  const result = await perform(workerData as TaskRequest, port);
  port.postMessage({ kind: "done", result } satisfies TaskAnswer);
} catch (error) {
  const { message, code } = error as Error & { code?: string };
  port.postMessage({ kind: "failed", message, code } satisfies TaskAnswer);
}
port.close();
