// Bundles the programs and the library entries into dist/. Run by scripts/ensure.mjs when a source changed.
//
//   node scripts/build.mjs
//
// dist/etcd.mjs, dist/etcdctl.cjs and dist/etcdutl.mjs are what bin/ starts; files named *-worker.mjs are entry
// points of worker threads. The new tree is built beside the old one and swapped in at the end, so a running
// program never meets a half-written bundle.
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { rolldown } from "rolldown";

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const out = path.join(root, "dist");
const fresh = path.join(root, `dist.new-${process.pid}`);
/** How long chunks of earlier builds are kept beside the present ones. */
const CHUNKS_KEPT_MS = 24 * 3_600_000;
const version = JSON.parse(fs.readFileSync(path.join(root, "package.json"), "utf8")).version;

/** Everything that is native or loads files of its own at run time stays outside. */
const external = [/^node:/, "lmdb", /^@lmdb\//];

/** Bundled as CommonJS, which Node loads sooner: a command that is started, asks once and ends. */
const quick = new Set(["etcdctl"]);

const programs = {
  etcd: "packages/server/src/main.ts",
  etcdctl: "packages/etcdctl/src/main.ts",
  etcdutl: "packages/etcdutl/src/main.ts",
};

function workers() {
  const found = {};
  const visit = (folder) => {
    for (const entry of fs.readdirSync(folder, { withFileTypes: true })) {
      const file = path.join(folder, entry.name);
      if (entry.isDirectory()) visit(file);
      else if (entry.name.endsWith("-worker.ts")) found[entry.name.slice(0, -3)] = path.relative(root, file);
    }
  };
  visit(path.join(root, "packages/server/src"));
  return found;
}

async function bundle(input, folder) {
  const build = await rolldown({
    input,
    cwd: root,
    platform: "node",
    external,
    resolve: { conditionNames: ["etcd-ts-source", "import", "node", "default"] },
    transform: { target: "node20.19", define: { __ETCD_TS_VERSION__: JSON.stringify(version) } },
    onLog(level, log, handler) {
      // protobuf and grpc ship code that rolldown has harmless remarks about; errors still throw.
      if (level === "warn") return;
      handler(level, log);
    },
  });
  const isQuick = Object.keys(input).every((name) => quick.has(name));
  const ending = isQuick ? "cjs" : "mjs";
  await build.write({
    dir: folder,
    format: isQuick ? "cjs" : "esm",
    entryFileNames: `[name].${ending}`,
    chunkFileNames: `chunks/[name]-[hash].${ending}`,
    sourcemap: false,
    // Less to read is less to compile; nothing of these programs shows a stack to anybody.
    minify: isQuick,
  });
  await build.close();
}

const present = (entries) =>
  Object.fromEntries(Object.entries(entries).filter(([, file]) => fs.existsSync(path.join(root, file))));

/** Chunks carry their hash in the name: a server of an earlier build may still load one that it has not needed yet. */
function keepChunksOf(previous, next) {
  const from = path.join(previous, "chunks");
  if (!fs.existsSync(from)) return;
  const to = path.join(next, "chunks");
  fs.mkdirSync(to, { recursive: true });
  for (const name of fs.readdirSync(from)) {
    const file = path.join(from, name);
    const isRecent = Date.now() - fs.statSync(file).mtimeMs < CHUNKS_KEPT_MS;
    if (isRecent && !fs.existsSync(path.join(to, name))) {
      fs.cpSync(file, path.join(to, name), { preserveTimestamps: true });
    }
  }
}

fs.rmSync(fresh, { recursive: true, force: true });
try {
  // One pass per program keeps what etcdctl loads free of what only the server needs.
  const passes = [workers(), ...Object.entries(present(programs)).map(([name, file]) => ({ [name]: file }))];
  for (const input of passes) {
    if (Object.keys(input).length > 0) await bundle(input, fresh);
  }
  fs.mkdirSync(fresh, { recursive: true });
  const old = `${out}.old-${process.pid}`;
  keepChunksOf(out, fresh);
  if (fs.existsSync(out)) fs.renameSync(out, old);
  fs.renameSync(fresh, out);
  fs.rmSync(old, { recursive: true, force: true });
} finally {
  fs.rmSync(fresh, { recursive: true, force: true });
}
