// Measures the store of keys alone, without raft and network: puts, ranges, counts, watches, compaction, restart.
//   node bench/mvcc/run.mjs [--keys N] [--value BYTES] [--inline BYTES]...
// One run for each --inline: KeyValues up to so many bytes are kept in `live` as well (docs/adr/0003-index.md).
import { fork } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { rolldown } from "rolldown";

const here = path.dirname(fileURLToPath(import.meta.url));
const root = path.resolve(here, "../..");
const { values } = parseArgs({
  options: {
    keys: { type: "string", default: "200000" },
    value: { type: "string", default: "300" },
    inline: { type: "string", multiple: true },
  },
});

const SETTING = /(export const INLINE_KEY_VALUE_BYTES_MAX = )[\d_]+/;
const folder = fs.mkdtempSync(path.join(root, "dist", "bench-mvcc-"));
try {
  for (const inline of values.inline ?? [undefined]) {
    const bundle = await rolldown({
      input: path.join(here, "store.bench.ts"),
      platform: "node",
      transform: { target: "node20" },
      external: ["lmdb"],
      resolve: { conditionNames: ["etcd-ts-source", "import", "node", "default"] },
      plugins: [
        {
          name: "inline-bytes",
          transform(code, id) {
            if (inline === undefined || !id.endsWith("index-rows.ts")) return null;
            return { code: code.replace(SETTING, `$1${Number(inline)}`), map: null };
          },
        },
      ],
    });
    const file = path.join(folder, "store.bench.mjs");
    await bundle.write({ file, format: "esm", codeSplitting: false });
    await bundle.close();
    fs.copyFileSync(path.join(root, "dist", "backend-worker.mjs"), path.join(folder, "backend-worker.mjs"));
    const data = fs.mkdtempSync(path.join(os.tmpdir(), "bench-mvcc-"));
    process.stdout.write(`inline ${inline ?? "as built"}\n`);
    const child = fork(file, [data, values.keys, values.value], { execArgv: ["--expose-gc"], stdio: "inherit" });
    await new Promise((resolve) => child.on("exit", resolve));
    fs.rmSync(data, { recursive: true, force: true });
  }
} finally {
  fs.rmSync(folder, { recursive: true, force: true });
}
