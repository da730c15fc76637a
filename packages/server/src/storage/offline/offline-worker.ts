/** The thread of one {@link TaskThread}: does its task, answers, and ends. */
import { on } from "node:events";
import { type MessagePort, workerData } from "node:worker_threads";
import { ownPort } from "../../lib/worker-file.ts";
import { systemFiles } from "../file-system.ts";
import {
  inspectPart,
  type RecordBatch,
  type RecordsWanted,
  sha256OfFile,
  sortRecords,
  type TaskAnswer,
  type TaskRequest,
} from "./tasks.ts";

/** What the port brings, one at a time. */
async function* inbox(port: MessagePort): AsyncGenerator<RecordBatch | RecordsWanted> {
  for await (const [message] of on(port, "message")) yield message as RecordBatch | RecordsWanted;
}

async function perform(request: TaskRequest, port: MessagePort): Promise<unknown> {
  switch (request.kind) {
    case "sha256":
      return sha256OfFile(request.path, request.bytes);
    case "inspect":
      return inspectPart(request.path, request.root, request.part);
    case "sort":
      return sortRecords(request.path, systemFiles, inbox(port), (answer) =>
        port.postMessage(answer, "memory" in answer ? [answer.memory] : []),
      );
  }
}

const port = ownPort("offline-worker");
try {
  const result = await perform(workerData as TaskRequest, port);
  port.postMessage({ kind: "done", result } satisfies TaskAnswer);
} catch (error) {
  const { message, code } = error as Error & { code?: string };
  port.postMessage({ kind: "failed", message, code } satisfies TaskAnswer);
}
port.close();
