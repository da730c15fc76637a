import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { DataDirLockedError, lockDataDir, lockForReading, parseProcLocks } from "./lock.ts";

let dir: string;
const children: ChildProcess[] = [];

beforeEach(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), "lock-test-"));
});
afterEach(async () => {
  for (const child of children.splice(0)) {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill("SIGKILL");
      await once(child, "exit");
    }
  }
  fs.rmSync(dir, { recursive: true, force: true });
});

const target = () => ({ memberDir: dir, walDir: path.join(dir, "wal") });

/** Another process that holds the lock by the same means. */
async function lockElsewhere(): Promise<ChildProcess> {
  const program = `
    import { lockDataDir } from ${JSON.stringify(new URL("./lock.ts", import.meta.url).href)};
    await lockDataDir(${JSON.stringify(target())});
    process.stdout.write("locked\\n");
    setInterval(() => {}, 1000);`;
  const bundle = path.join(dir, "holder.mjs");
  fs.writeFileSync(bundle, program);
  const rolldown = path.resolve(import.meta.dirname, "../../../../node_modules/rolldown/bin/cli.mjs");
  const built = spawn(process.execPath, [
    rolldown,
    bundle,
    "--platform",
    "node",
    "-f",
    "esm",
    "-o",
    `${bundle}.out.mjs`,
  ]);
  await once(built, "exit");
  const child = spawn(process.execPath, [`${bundle}.out.mjs`], { stdio: ["ignore", "pipe", "inherit"] });
  children.push(child);
  await once(child.stdout as NodeJS.ReadableStream, "data");
  return child;
}

describe("lockForReading()", () => {
  it("is the lock where one can be had", async () => {
    await using _lock = await lockForReading(target());
    await expect(lockDataDir(target())).rejects.toThrow(DataDirLockedError);
  });

  // Nothing keeps root from writing.
  it.skipIf(process.getuid?.() === 0)("does with a look where nothing can be written", async () => {
    fs.chmodSync(dir, 0o500);
    try {
      await using _lock = await lockForReading(target());
      expect(fs.readdirSync(dir)).toEqual([]);
      fs.chmodSync(dir, 0o700);
      await using _writer = await lockDataDir(target());
      fs.chmodSync(dir, 0o500);
      await expect(lockForReading(target())).rejects.toThrow(DataDirLockedError);
    } finally {
      fs.chmodSync(dir, 0o700);
    }
  });
});

describe("lockDataDir()", () => {
  it("refuses a second holder and names the first, until the first lets go", async () => {
    const lock = await lockDataDir(target());
    await expect(lockDataDir(target())).rejects.toThrow(
      new RegExp(`in use by another process \\(pid ${process.pid}\\)`),
    );
    await lock.release();
    await (await lockDataDir(target())).release();
    expect(fs.readdirSync(dir)).toEqual([]);
  });

  it("is dropped by the kernel when its holder is killed", async () => {
    const child = await lockElsewhere();
    await expect(lockDataDir(target())).rejects.toThrow(DataDirLockedError);
    child.kill("SIGKILL");
    await once(child, "exit");
    expect(fs.existsSync(path.join(dir, "lock.sock"))).toBe(true);
    await (await lockDataDir(target())).release();
  });

  it("sees a holder that is stopped", async () => {
    const child = await lockElsewhere();
    child.kill("SIGSTOP");
    await expect(lockDataDir(target())).rejects.toThrow(DataDirLockedError);
  });

  it("locks directories with paths longer than a socket's may be", async () => {
    const memberDir = path.join(dir, "x".repeat(120));
    fs.mkdirSync(memberDir);
    const lock = await lockDataDir({ memberDir, walDir: memberDir });
    await expect(lockDataDir({ memberDir, walDir: memberDir })).rejects.toThrow(DataDirLockedError);
    await lock.release();
  });

  it.skipIf(process.platform !== "linux")("refuses where another program holds a lock on the files", async () => {
    fs.mkdirSync(path.join(dir, "snap"));
    fs.writeFileSync(path.join(dir, "snap/db"), "");
    const child = spawn("flock", ["-x", path.join(dir, "snap/db"), "-c", "echo locked; exec cat"], {
      stdio: ["pipe", "pipe", "ignore"],
    });
    children.push(child);
    const started = await Promise.race([
      once(child, "error").then(() => false),
      once(child.stdout, "data").then(() => true),
    ]);
    if (!started) return; // There is no flock(1) here.
    await expect(lockDataDir(target())).rejects.toThrow(/snap\/db is locked by another process/);
    child.stdin.end();
    await once(child, "exit");
    await (await lockDataDir(target())).release();
  });

  it("reads /proc/locks", () => {
    const table = [
      "1: OFDLCK ADVISORY  WRITE -1 fe:00:2146967 0 EOF",
      "2: FLOCK  ADVISORY  WRITE 15668 fe:00:2146965 0 EOF",
      "3: POSIX  ADVISORY  WRITE 7 fe:00:1 0 EOF",
      "4: FLOCK  ADVISORY  READ 8 fe:00:2 0 EOF",
      "4: -> FLOCK  ADVISORY  WRITE 9 fe:00:3 0 EOF",
    ].join("\n");
    expect([...parseProcLocks(table)]).toEqual([
      ["fe:00:2146967", "-1"],
      ["fe:00:2146965", "15668"],
    ]);
  });
});
