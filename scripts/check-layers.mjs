// Checks that imports point down the table below, never up or sideways, and that a room is entered by its door.
// Run by `npm test`; alone: node scripts/check-layers.mjs
import fs from "node:fs";
import path from "node:path";
import { root } from "./ensure.mjs";

/** Which rooms a room may import. Paths are below packages/; the longest matching prefix is a file's room. */
const MAY_IMPORT = {
  "client/src/wire": [],
  "client/src/concurrency": ["client/src", "client/src/wire"],
  "client/src": ["client/src/wire", "client/src/concurrency"],
  "etcdctl/src": ["client/src", "client/src/wire", "client/src/concurrency"],
  "etcdutl/src": ["server/src/storage"],
  "server/src/lib": [],
  "server/src/pb": ["server/src/lib", "client/src/wire"],
  "server/src/storage": ["server/src/pb", "server/src/lib", "client/src/wire"],
  "server/src/raft": ["server/src/pb", "server/src/lib"],
  "server/src/mvcc": ["server/src/storage", "server/src/pb", "server/src/lib", "client/src/wire"],
  "server/src/lease": ["server/src/storage", "server/src/pb", "server/src/lib", "client/src/wire"],
  "server/src/auth": ["server/src/storage", "server/src/pb", "server/src/lib", "client/src/wire"],
  "server/src/membership": ["server/src/storage", "server/src/pb", "server/src/lib", "client/src/wire"],
  "server/src/etcdserver": [
    "server/src/raft",
    "server/src/mvcc",
    "server/src/lease",
    "server/src/auth",
    "server/src/membership",
    "server/src/storage",
    "server/src/pb",
    "server/src/lib",
    "client/src/wire",
  ],
  "server/src/transport": [
    "server/src/etcdserver",
    "server/src/raft",
    "server/src/membership",
    "server/src/storage",
    "server/src/pb",
    "server/src/lib",
    "client/src/wire",
  ],
  "server/src/rpc": ["server/src/lib", "client/src/wire"],
  "server/src/proxy": ["server/src/rpc", "server/src/lib"],
  "server/src/api": [
    "server/src/rpc",
    "server/src/etcdserver",
    "server/src/mvcc",
    "server/src/lease",
    "server/src/auth",
    "server/src/membership",
    "server/src/storage",
    "server/src/pb",
    "server/src/lib",
    "client/src/wire",
    "client/src/concurrency",
  ],
  // boot.ts, main.ts, config.ts, index.ts: they join the rooms.
  "server/src": "all of server/src",
};

/** Rooms whose inside outsiders may import file by file: small, without a door of their own. */
const WITHOUT_DOOR = new Set(["server/src/lib", "server/src/pb"]);

const rooms = Object.keys(MAY_IMPORT).sort((a, b) => b.length - a.length);
const packages = path.join(root, "packages");
const problems = [];

function roomOf(file) {
  const relative = path.relative(packages, file).split(path.sep).join("/");
  return rooms.find((room) => relative.startsWith(`${room}/`));
}

function sources(folder) {
  return fs.readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const file = path.join(folder, entry.name);
    if (entry.isDirectory()) return entry.name === "testdata" ? [] : sources(file);
    return entry.name.endsWith(".ts") ? [file] : [];
  });
}

function resolveImport(from, specifier) {
  if (specifier.startsWith(".")) return path.resolve(path.dirname(from), specifier);
  const own = /^@etcd-ts\/([a-z]+)(?:\/(.+))?$/.exec(specifier);
  if (!own) return undefined;
  const door = {
    undefined: "index.ts",
    wire: "wire/index.ts",
    concurrency: "concurrency/index.ts",
    storage: "storage/index.ts",
  };
  return path.join(packages, own[1], "src", door[own[2]] ?? `${own[2]}/index.ts`);
}

let checked = 0;
for (const name of fs.readdirSync(packages)) {
  const folder = path.join(packages, name, "src");
  if (!fs.existsSync(folder)) continue;
  for (const file of sources(folder)) {
    const room = roomOf(file);
    if (!room) continue;
    checked++;
    const text = fs.readFileSync(file, "utf8");
    const isTest = file.endsWith(".test.ts");
    for (const match of text.matchAll(/(?:^|\n)\s*(?:import|export)\s[^;]*?from\s+"([^"]+)"|import\("([^"]+)"\)/g)) {
      const specifier = match[1] ?? match[2];
      const target = resolveImport(file, specifier);
      const where = `${path.relative(root, file)}: imports ${specifier}`;
      if (!target) {
        if (room === "server/src/raft" && !isTest) problems.push(`${where}: raft is pure`);
        continue;
      }
      const targetRoom = roomOf(target);
      if (!targetRoom || targetRoom === room) continue;
      const allowed = MAY_IMPORT[room];
      const ok =
        typeof allowed === "string"
          ? target.startsWith(path.join(packages, "server/src")) || targetRoom.startsWith("client/src")
          : allowed.includes(targetRoom);
      if (!ok) problems.push(`${where}: ${room} must not know ${targetRoom}`);
      else if (!WITHOUT_DOOR.has(targetRoom) && path.basename(target) !== "index.ts" && !isTest) {
        problems.push(`${where}: not through the door of ${targetRoom} (index.ts)`);
      }
    }
  }
}

for (const problem of problems) process.stdout.write(`${problem}\n`);
process.stdout.write(`layers: ${checked} files, ${problems.length} problems\n`);
process.exit(problems.length === 0 ? 0 : 1);
