/** Every file operation of every offline command, failing in every way: what is left, and that the next run succeeds. */
import fs from "node:fs";
import path from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { dataDirPaths } from "../data-dir.ts";
import { type Fault, FaultyFiles } from "../testing/faulty-files.ts";
import {
  boltContent,
  checkRestored,
  lmdbContent,
  logger,
  namesIn,
  plain,
  removeFolders,
  restoreOptions,
  temporaryFolder,
  writeLmdb,
  writeMember,
  writeSnapshotFile,
} from "../testing/small-members.ts";
import { validSnapshots } from "../wal/index.ts";
import {
  backupDataDir,
  defragDataDir,
  migrateEngine,
  migrateVersion,
  parseTargetVersion,
  restoreSnapshot,
  saveSnapshot,
  snapshotStatus,
  verifyDataDir,
} from "./index.ts";

afterEach(removeFolders);

/** Hundreds of runs, on a machine that may have other things to do. */
const WALK_LIMIT_MS = 300_000;

const faults: readonly Fault[] = ["kill", "ENOSPC", "EIO", "shortWrite"];

/** What is tried, in a place of its own. */
interface Trial {
  /** Puts everything as it is before a run. */
  prepare(): Promise<void>;
  attempt(files: FaultyFiles): Promise<void>;
  /** After a run that met a fault. */
  check(place: string): Promise<void>;
}

/**
 * Runs a trial once for every operation that a faultless run makes, with each kind of fault; the kinds beside one
 * another, as most of the time is spent waiting for the disk. Returns the number of operations.
 */
async function atEveryStep(begin: () => Promise<Trial>, kinds: readonly Fault[] = faults): Promise<number> {
  const walks = await Promise.allSettled(kinds.map(async (fault) => withFaults(fault, await begin())));
  // All are over before the first failure is told, as the folders go then.
  const totals = walks.map((walk) => {
    if (walk.status === "rejected") throw walk.reason;
    return walk.value;
  });
  return Math.min(...totals);
}

async function withFaults(fault: Fault, { prepare, attempt, check }: Trial): Promise<number> {
  await prepare();
  const counting = new FaultyFiles();
  await attempt(counting);
  const total = counting.operations.length;
  for (let at = 1; at <= total; at++) {
    if (fault === "shortWrite" && counting.operations[at - 1]?.startsWith("write") !== true) continue;
    await prepare();
    const files = new FaultyFiles(fault, at);
    const error = await attempt(files).then(
      () => undefined,
      (thrown: Error) => thrown,
    );
    // Which operation it was: the log does some of its work beside the rest, so the order is not always the same. It
    // makes its next segment and writes zeros ahead of need, and goes on without them when that fails.
    const operation = files.operations[at - 1] ?? "none";
    const place = `${fault} at ${at}, ${operation}`;
    const isAheadOfNeed = /^write zeros \S*wal\/| \S*wal\/\d+\.tmp$|^none$/.test(operation);
    if (!isAheadOfNeed && !(fault === "shortWrite" && !operation.startsWith("write"))) {
      expect(error?.message ?? "no error", place).toMatch(/injected|killed|write/);
    }
    await check(place);
  }
  return total;
}

describe("a fault at any step of", () => {
  it.each(["lmdb", "bbolt"] as const)(
    "defrag (%s): all rows are there and the next run succeeds",
    async (kind) => {
      const steps = await atEveryStep(async () => {
        const folder = temporaryFolder();
        const dataDir = path.join(folder, "data");
        const paths = dataDirPaths(dataDir);
        const file = kind === "lmdb" ? paths.backendFile : paths.boltFile;
        const content = () => (kind === "lmdb" ? lmdbContent(file) : Promise.resolve(boltContent(file)));
        const prepare = async () => {
          fs.rmSync(dataDir, { recursive: true, force: true });
          fs.mkdirSync(paths.snapDir, { recursive: true });
          fs.mkdirSync(paths.walDir);
          if (kind === "lmdb") await writeLmdb(file);
          else await writeSnapshotFile(file, false);
          fs.chmodSync(file, 0o640);
        };
        await prepare();
        const whole = await content();
        return {
          prepare,
          attempt: async (files) => void (await defragDataDir({ dataDir, logger, files })),
          check: async () => {
            // A start of the server over the leftover, or the next run, both do.
            const leftovers = fs.readdirSync(paths.snapDir).filter((name) => name.includes(".tmp"));
            expect(leftovers.length).toBeLessThanOrEqual(2);
            const result = await defragDataDir({ dataDir, logger });
            expect(result.path).toBe(file);
            expect(await content()).toEqual(whole);
            expect(fs.statSync(file).mode & 0o777).toBe(0o640);
            expect(fs.readdirSync(paths.snapDir).filter((name) => name.includes(".tmp"))).toEqual([]);
          },
        };
      });
      expect(steps).toBeGreaterThanOrEqual(4);
    },
    WALK_LIMIT_MS,
  );

  it.each([
    ["lmdb", ""],
    ["bbolt", ""],
    ["lmdb", "w/wal"],
  ] as const)(
    "restore (%s, log in %j): no member or a whole one, and the next run succeeds",
    async (backend, wal) => {
      const steps = await atEveryStep(async () => {
        const folder = temporaryFolder();
        const dataDir = path.join(folder, "data");
        const walDir = wal === "" ? "" : path.join(folder, wal);
        await writeSnapshotFile(path.join(folder, "s.db"));
        const options = restoreOptions(folder, { backend, walDir });
        return {
          prepare: async () => {
            fs.rmSync(dataDir, { recursive: true, force: true });
            fs.rmSync(path.join(folder, "w"), { recursive: true, force: true });
          },
          attempt: async (files) => void (await restoreSnapshot({ ...options, files })),
          check: async (place) => {
            const isThere = fs.existsSync(path.join(dataDir, "member"));
            if (!isThere) await expect(restoreSnapshot({ ...options, files: plain() }), place).resolves.toBeDefined();
            await checkRestored(dataDir, walDir || undefined, backend);
            expect(fs.readdirSync(dataDir), place).toEqual(["member"]);
            if (walDir !== "") expect(fs.readdirSync(path.dirname(walDir))).toEqual(["wal"]);
          },
        };
      });
      expect(steps).toBeGreaterThan(15);
    },
    WALK_LIMIT_MS,
  );

  it.each([
    ["bbolt", "lmdb"],
    ["lmdb", "bbolt"],
  ] as const)(
    "migrate (%s to %s): a whole database is in force, and the next run ends it",
    async (from, to) => {
      const steps = await atEveryStep(async () => {
        const folder = temporaryFolder();
        const dataDir = await writeMember(folder, from);
        const paths = dataDirPaths(dataDir);
        const [old, fresh] =
          from === "lmdb" ? [paths.backendFile, paths.boltFile] : [paths.boltFile, paths.backendFile];
        const hash = snapshotStatus(old).hash;
        fs.chmodSync(old, 0o640);
        const original = fs.readFileSync(old);
        const migrate = { dataDir, walDir: "", logger, to };
        return {
          prepare: async () => {
            for (const name of fs.readdirSync(paths.snapDir)) {
              if (!name.endsWith(".snap")) fs.rmSync(path.join(paths.snapDir, name), { recursive: true });
            }
            fs.writeFileSync(old, original, { mode: 0o640 });
            fs.chmodSync(old, 0o640);
          },
          attempt: async (files) => void (await migrateEngine({ ...migrate, files })),
          check: async (place) => {
            const inForce = fs.existsSync(paths.backendFile) ? paths.backendFile : paths.boltFile;
            expect(snapshotStatus(inForce).hash, place).toBe(hash);
            await migrateEngine({ ...migrate, files: plain() });
            expect(namesIn(paths.snapDir), place).toEqual([path.basename(fresh)]);
            expect(snapshotStatus(fresh).hash, place).toBe(hash);
            expect(fs.statSync(fresh).mode & 0o777).toBe(0o640);
            expect((await verifyDataDir({ dataDir, walDir: "" })).verdict, place).toBe("clean");
          },
        };
      });
      expect(steps).toBeGreaterThan(8);
    },
    WALK_LIMIT_MS,
  );

  it.each(["lmdb", "bbolt"] as const)(
    "migrate --target-version (%s): the database is of one version or of the other",
    async (backend) => {
      await atEveryStep(async () => {
        const folder = temporaryFolder();
        const dataDir = await writeMember(folder, backend);
        const paths = dataDirPaths(dataDir);
        const file = backend === "lmdb" ? paths.backendFile : paths.boltFile;
        const original = fs.readFileSync(file);
        const start = snapshotStatus(file);
        const up = { dataDir, walDir: "", logger, force: false, target: parseTargetVersion("3.6") };
        await migrateVersion(up);
        const upgraded = snapshotStatus(file);
        return {
          prepare: async () => {
            fs.rmSync(`${file}-lock`, { force: true });
            fs.writeFileSync(file, original);
          },
          attempt: async (files) => void (await migrateVersion({ ...up, files })),
          check: async (place) => {
            expect([start.hash, upgraded.hash], place).toContain(snapshotStatus(file).hash);
            await migrateVersion(up);
            expect(snapshotStatus(file).hash, place).toBe(upgraded.hash);
            expect((await verifyDataDir({ dataDir, walDir: "" })).verdict, place).toBe("clean");
          },
        };
      });
    },
    WALK_LIMIT_MS,
  );

  it.each(["lmdb", "bbolt"] as const)(
    "save (%s): no file or a whole one",
    async (backend) => {
      await atEveryStep(async () => {
        const folder = temporaryFolder();
        const dataDir = await writeMember(folder, backend);
        const snapshotPath = path.join(folder, "saved.db");
        const paths = dataDirPaths(dataDir);
        const { hash } = snapshotStatus(backend === "lmdb" ? paths.backendFile : paths.boltFile);
        return {
          prepare: async () => fs.rmSync(snapshotPath, { force: true }),
          attempt: async (files) => void (await saveSnapshot({ dataDir, snapshotPath, logger, files })),
          check: async (place) => {
            if (fs.existsSync(snapshotPath)) expect(snapshotStatus(snapshotPath).hash, place).toBe(hash);
            await saveSnapshot({ dataDir, snapshotPath, logger, files: plain() });
            expect(fs.readdirSync(folder).sort(), place).toEqual(["data", "s.db", "saved.db"]);
            expect(snapshotStatus(snapshotPath).hash, place).toBe(hash);
          },
        };
      });
    },
    WALK_LIMIT_MS,
  );

  it.each(["", "w/wal"])(
    "backup (log in %j): the member is as it was, a whole copy or none is there, and the next run succeeds",
    async (wal) => {
      await atEveryStep(
        async () => {
          const folder = temporaryFolder();
          const dataDir = await writeMember(folder, "lmdb");
          const { backendFile } = dataDirPaths(dataDir);
          const before = fs.readFileSync(backendFile);
          const backupDir = path.join(folder, "backup");
          const backupWalDir = wal === "" ? "" : path.join(folder, wal);
          const common = { dataDir, walDir: "", backupDir, backupWalDir, withV3: true } as const;
          const options = { ...common, backend: "lmdb", logger } as const;
          const paths = dataDirPaths(backupDir, backupWalDir);
          return {
            prepare: async () => {
              fs.rmSync(backupDir, { recursive: true, force: true });
              fs.rmSync(path.join(folder, "w"), { recursive: true, force: true });
            },
            attempt: (files) =>
              backupDataDir({ ...options, files }).catch((error: Error) => Promise.reject(error.cause ?? error)),
            check: async (place) => {
              expect(fs.readFileSync(backendFile).equals(before), place).toBe(true);
              const isThere = fs.existsSync(paths.memberDir);
              if (!isThere) await expect(backupDataDir({ ...options, files: plain() }), place).resolves.toBeUndefined();
              expect(snapshotStatus(paths.backendFile).revision, place).toBe(60);
              expect((await validSnapshots(paths.walDir)).at(-1)?.index, place).toBe(2);
              expect(fs.readdirSync(backupDir), place).toEqual(["member"]);
            },
          };
        },
        wal === "" ? faults : ["kill"],
      );
    },
    WALK_LIMIT_MS,
  );
});
