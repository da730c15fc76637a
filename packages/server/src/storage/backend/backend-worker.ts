/**
 * The backend's writer thread. Commits layers as they come, one durable transaction each; for a defragmentation it
 * fills a new file first and then becomes that file's writer. All the thinking is done by the main thread.
 */
import { workerData } from "node:worker_threads";
import { assert } from "../../lib/assert.ts";
import { systemClock } from "../../lib/clock.ts";
import { tidyHeapWhenIdle } from "../../lib/idle-heap.ts";
import { ownPort } from "../../lib/worker-file.ts";
import type { WorkerRequest, WorkerResponse, WorkerSettings } from "./committer.ts";
import { copyRows } from "./copy.ts";
import { Environment } from "./environment.ts";
import { AGREEMENT } from "./types.ts";

const port = ownPort("backend-worker");
const { agreement, ...settings } = workerData as WorkerSettings & { readonly agreement: string };
assert(agreement === AGREEMENT, "the bundle of the backend's writer thread is out of date: build again");
const environment = new Environment(settings);

const send = (response: WorkerResponse): void => port.postMessage(response);

function perform(request: WorkerRequest): void {
  const start = systemClock.monotonicMs();
  const done = () =>
    send({
      kind: "done",
      id: request.id,
      sizes: environment.sizes(),
      durationMs: systemClock.monotonicMs() - start,
    });
  switch (request.kind) {
    case "commit":
      environment.commit(
        request.chunks.map((chunk) => new Uint8Array(chunk)),
        request.used,
      );
      done();
      return;
    case "copyFrom": {
      const source = new Environment({ path: request.path, mapSizeBytes: settings.mapSizeBytes });
      try {
        copyRows(source, environment);
      } finally {
        void source.close();
      }
      done();
      return;
    }
    case "close":
      void environment.close().then(() => {
        send({ kind: "done", id: request.id, sizes: { fileBytes: 0, inUseBytes: 0 }, durationMs: 0 });
        port.close();
      });
  }
}

port.on("message", (request: WorkerRequest) => {
  try {
    perform(request);
  } catch (error) {
    const { message, code } = error as Error & { code?: unknown };
    send({ kind: "failed", id: request.id, message, code: code === undefined ? undefined : String(code) });
  }
});
tidyHeapWhenIdle(systemClock);
send({ kind: "ready" });
