// Makes the checkout ready to run: installs by the lock file when it changed, and bundles when a source changed.
// Costs a few milliseconds when nothing changed. Used by `npm start`, `npm test` and, before there is a
// build, by the launchers in bin/. Needs nothing but Node and npm.
//
//   node scripts/ensure.mjs            install and build what is out of date
//   node scripts/ensure.mjs --install  install only
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

export const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const installStamp = path.join(root, "node_modules", ".etcd-ts-lock");
const buildStamp = path.join(root, "dist", ".stamp");
const LOCK_WAIT_MS = 600_000;

function readText(file) {
  try {
    return fs.readFileSync(file, "utf8");
  } catch {
    return "";
  }
}

function lockHash() {
  return createHash("sha256")
    .update(fs.readFileSync(path.join(root, "package-lock.json")))
    .update(`${process.platform} ${process.arch}`)
    .digest("hex");
}

/** Whether node_modules already holds what the lock file names, as after an `npm install` by hand. */
function treeMatchesLock() {
  try {
    const wanted = JSON.parse(readText(path.join(root, "package-lock.json"))).packages;
    const present = JSON.parse(readText(path.join(root, "node_modules", ".package-lock.json"))).packages;
    return Object.entries(wanted).every(
      ([name, entry]) =>
        !name.startsWith("node_modules/") ||
        (present[name] ? present[name].version === entry.version : entry.optional === true),
    );
  } catch {
    return false;
  }
}

/** Path, size and mtime of everything that goes into the bundles. */
function sourceHash() {
  const hash = createHash("sha256").update(readText(installStamp));
  const visit = (file) => {
    const stat = fs.statSync(file);
    if (stat.isDirectory()) {
      for (const name of fs.readdirSync(file).sort()) {
        if (name !== "testdata" && !name.endsWith(".test.ts")) visit(path.join(file, name));
      }
    } else {
      hash.update(`${path.relative(root, file)} ${stat.size} ${stat.mtimeMs}\n`);
    }
  };
  visit(path.join(root, "scripts", "build.mjs"));
  visit(path.join(root, "package.json"));
  for (const name of fs.readdirSync(path.join(root, "packages")).sort()) {
    const folder = path.join(root, "packages", name, "src");
    if (fs.existsSync(folder)) visit(folder);
  }
  return hash.digest("hex");
}

function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === "EPERM";
  }
}

/** One set-up at a time: several launchers may find a fresh checkout at once. */
function withLock(run) {
  const lock = path.join(root, ".setup.lock");
  const deadline = Date.now() + LOCK_WAIT_MS;
  for (;;) {
    try {
      fs.writeFileSync(lock, String(process.pid), { flag: "wx" });
      break;
    } catch (error) {
      if (error.code !== "EEXIST") throw error;
      const owner = Number(readText(lock));
      if (owner > 0 && !isAlive(owner)) fs.rmSync(lock, { force: true });
      else if (Date.now() > deadline) throw new Error(`${lock} is held by process ${owner}`);
      else Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 100);
    }
  }
  try {
    return run();
  } finally {
    fs.rmSync(lock, { force: true });
  }
}

function must(command, args, what) {
  const result = spawnSync(command, args, {
    cwd: root,
    stdio: ["ignore", 2, 2],
    shell: process.platform === "win32",
  });
  if (result.status !== 0) {
    throw new Error(`${what} failed: ${result.error?.message ?? `exit code ${result.status}`}`);
  }
}

function checkNode() {
  const [major, minor] = process.versions.node.split(".").map(Number);
  if (major < 20 || (major === 20 && minor < 19)) {
    throw new Error(`Node 20.19 or newer is needed, this is ${process.versions.node}`);
  }
}

/** Brings node_modules and dist up to date; `quiet` keeps the usual messages away. */
export function ensure({ installOnly = false } = {}) {
  checkNode();
  const installed = () => readText(installStamp) === lockHash();
  if (!installed()) {
    withLock(() => {
      if (installed()) return;
      if (!treeMatchesLock()) {
        process.stderr.write("etcd-ts: installing dependencies by the lock file\n");
        must("npm", ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], "npm ci");
      }
      fs.writeFileSync(installStamp, lockHash());
    });
  }
  if (installOnly) return;
  const built = () => readText(buildStamp) === sourceHash();
  if (!built()) {
    withLock(() => {
      if (built()) return;
      const before = sourceHash();
      process.stderr.write("etcd-ts: building\n");
      must(process.execPath, [path.join(root, "scripts", "build.mjs")], "the build");
      fs.writeFileSync(buildStamp, before);
    });
  }
}

if (process.argv[1] && import.meta.url === pathToFileURL(fs.realpathSync(process.argv[1])).href) {
  try {
    ensure({ installOnly: process.argv.includes("--install") });
  } catch (error) {
    process.stderr.write(`etcd-ts: ${error.message}\n`);
    process.exit(1);
  }
}
