/** The thread of one image; see image-jobs.ts. */
import { createHash } from "node:crypto";
import { workerData } from "node:worker_threads";
import { assert } from "../../lib/assert.ts";
import { ownPort } from "../../lib/worker-file.ts";
import { AGREEMENT } from "../backend/types.ts";
import { imageOfBackend } from "./image.ts";
import type { ImageJob, ImageMessage } from "./image-jobs.ts";
import { stepBack } from "./step-back.ts";

/** Chunks that a message tells of: waking the other thread costs more than a chunk is worth. */
const TOLD_AT_ONCE = 4;

const port = ownPort("image-worker");
const { path, descriptor, wantsHash, isBackground, memory, chunkBytes, taken, agreement } = workerData as ImageJob;
assert(agreement === AGREEMENT, "the bundle of the thread for images is out of date: build again");
const slots = memory.byteLength / chunkBytes;

function send(message: ImageMessage): void {
  port.postMessage(message);
}

function make(): void {
  const image = imageOfBackend(path, descriptor);
  send({ kind: "planned", sizeBytes: image.sizeBytes });
  const hash = wantsHash ? createHash("sha256") : undefined;
  let made = 0;
  let told: number[] = [];
  const tell = () => {
    if (told.length > 0) send({ kind: "chunks", lengths: told });
    told = [];
  };
  const file = image.writeTo({
    memory: () => {
      // The slot is free when what was in it before has been taken. Who wants no more ends the thread.
      for (;;) {
        const count = Atomics.load(taken, 0);
        if (made - count < slots) break;
        tell();
        Atomics.wait(taken, 0, count);
      }
      return Buffer.from(memory, (made % slots) * chunkBytes, chunkBytes);
    },
    filled: (chunk) => {
      hash?.update(chunk);
      made++;
      told.push(chunk.length);
      if (told.length === TOLD_AT_ONCE || made === 1) tell();
    },
  });
  while (!file.next().done);
  tell();
  send({ kind: "end", sha256: hash?.digest() });
}

if (isBackground) stepBack();
try {
  make();
} catch (error) {
  send({ kind: "failed", error });
}
port.close();
