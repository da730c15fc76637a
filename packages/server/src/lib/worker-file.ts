/** Worker threads: where their code is, and how they reach who started them. */
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { type MessagePort, parentPort } from "node:worker_threads";
import { assert } from "./assert.ts";

/** The bundle of `<name>.ts`: beside this module when bundled, in the root's dist/ when run from source. */
export function workerFile(name: string): string {
  let folder = path.dirname(fileURLToPath(import.meta.url));
  for (;;) {
    for (const candidate of [path.join(folder, `${name}.mjs`), path.join(folder, "dist", `${name}.mjs`)]) {
      if (fs.existsSync(candidate)) return candidate;
    }
    const parent = path.dirname(folder);
    if (parent === folder) throw new Error(`${name}.mjs is missing: the programs have not been built`);
    folder = parent;
  }
}

/** The way to who started this thread, which runs the code of that name. */
export function ownPort(name: string): MessagePort {
  assert(parentPort, () => `${name} runs as a worker thread`);
  return parentPort;
}
