/** Where the code of worker threads is. */
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

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
