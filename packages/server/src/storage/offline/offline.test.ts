import { createHash } from "node:crypto";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { keyString, utf8Bytes } from "../../lib/bytes.ts";
import { systemClock } from "../../lib/clock.ts";
import { silentLogger } from "../../lib/log.ts";
import { BulkLoad } from "../backend/bulk.ts";
import { type Backend, openBackend, type Table } from "../backend/index.ts";
import { BoltWriter, openBolt, summarize, writeBolt } from "../bolt/index.ts";
import { Entry } from "../../pb/raftpb.ts";
import { keyOfKeyValue } from "../schema/key-value.ts";
import { dataDirPaths } from "../data-dir.ts";
import { systemFiles } from "../file-system.ts";
import { lockDataDir } from "../lock.ts";
import {
  decodeV2Store,
  encodeKeyValue,
  hasIndexMarker,
  indexKeyRow,
  readConsistentIndex,
  revisionKey,
  tombstoneKey,
  writeIndexMarker,
} from "../schema/index.ts";
import { SnapStore } from "../snap/index.ts";
import { type Fault, FaultyFiles } from "../testing/faulty-files.ts";
import { createWal, openWal, readWal, validSnapshots } from "../wal/index.ts";
import { databaseFile } from "./member-dir.ts";
import { bytesToWrite } from "./space.ts";
import { inspectFile, inspectInThreads } from "./tasks.ts";
import {
  backupDataDir,
  defragDataDir,
  migrateEngine,
  migrateVersion,
  parseTargetVersion,
  type RestoreOptions,
  restoreSnapshot,
  saveSnapshot,
  snapshotHashKv,
  snapshotStatus,
  verifyDataDir,
} from "./index.ts";

const folders: string[] = [];

function temporaryFolder(): string {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "offline-"));
  folders.push(folder);
  return folder;
}

afterEach(() => {
  for (const folder of folders.splice(0)) fs.rmSync(folder, { recursive: true, force: true });
});

const logger = silentLogger;

type Rows = [Uint8Array, Uint8Array][];

/** Rows of a small store: puts, overwrites, a tombstone, a lease, and a value that needs pages of its own. */
function keyRows(): Rows {
  const rows: Rows = [];
  for (let main = 2; main <= 60; main++) {
    const key = utf8Bytes(`k${main % 7}`);
    if (main === 30) {
      rows.push([tombstoneKey(main, 0), encodeKeyValue({ ...nothing, key })]);
      continue;
    }
    const value = Buffer.alloc(main % 20 === 0 ? 9_000 : 50, main);
    rows.push([
      revisionKey(main, 0),
      encodeKeyValue({ key, value, createRevision: main, modRevision: main, version: 1, lease: main === 59 ? 7n : 0n }),
    ]);
  }
  return rows;
}

const nothing = { createRevision: 0, modRevision: 0, version: 0, value: new Uint8Array(0), lease: 0n };

const otherRows: ReadonlyMap<string, Rows> = new Map([
  ["lease", [[Buffer.from("0000000000000007", "hex"), Buffer.from("0807103c", "hex")]]],
  ["members", [[utf8Bytes("abc"), utf8Bytes('{"id":2748}')]]],
  ["meta", [[utf8Bytes("consistent_index"), Buffer.from("0000000000000063", "hex")]]],
]);

const source = { rows: (bucket: string): Rows => (bucket === "key" ? keyRows() : (otherRows.get(bucket) ?? [])) };

async function writeSnapshotFile(file: string, withHash = true): Promise<void> {
  const target = await systemFiles.open(file, "create");
  await writeBolt(source, target);
  await target.close();
  if (withHash) fs.appendFileSync(file, createHash("sha256").update(fs.readFileSync(file)).digest());
}

async function writeLmdb(file: string): Promise<void> {
  const load = new BulkLoad(file);
  load.write((rows) => {
    for (const [key, value] of keyRows()) {
      rows.append("key", key, value);
      indexKeyRow(rows, key, value);
    }
    for (const [table, others] of otherRows) for (const [key, value] of others) rows.put(table as Table, key, value);
    writeIndexMarker(rows);
  });
  await load.finish();
}

function openInline(file: string): Promise<Backend> {
  return openBackend({
    path: file,
    clock: systemClock,
    logger,
    commits: "inline",
    onFatal: (error) => {
      throw error;
    },
  });
}

/** All rows of etcd's tables and ours, as text. */
async function lmdbContent(file: string): Promise<string[]> {
  const backend = await openInline(file);
  const rows: string[] = [];
  for (const table of ["key", "lease", "live", "past", "leased", "members", "meta"] as const) {
    backend.scan(table, {}, (key, value) => {
      rows.push(`${table} ${keyString(key)} ${keyString(value)}`);
    });
  }
  await backend.close();
  return rows;
}

function boltContent(file: string): string[] {
  const bolt = openBolt(file);
  try {
    expect(bolt.check()).toEqual([]);
    return bolt.buckets.flatMap((bucket) =>
      [...bolt.rows(bucket)].map(([key, value]) => `${bucket} ${keyString(key)} ${keyString(value)}`),
    );
  } finally {
    bolt.close();
  }
}

/** Without a fault, and so without threads, of which each would cost more than all the rest of a small directory. */
const plain = (): FaultyFiles => new FaultyFiles();

/** Hundreds of runs, on a machine that may have other things to do. */
const WALK_LIMIT_MS = 300_000;

const faults: readonly Fault[] = ["kill", "ENOSPC", "EIO", "shortWrite"];

/** Runs `attempt` once for every operation that a faultless run makes, with each kind of fault in turn. */
async function atEveryStep(
  attempt: (files: FaultyFiles) => Promise<void>,
  check: (place: string) => Promise<void>,
  prepare: () => Promise<void>,
  kinds: readonly Fault[] = faults,
): Promise<number> {
  await prepare();
  const counting = new FaultyFiles();
  await attempt(counting);
  const total = counting.operations.length;
  for (const fault of kinds) {
    for (let at = 1; at <= total; at++) {
      if (fault === "shortWrite" && counting.operations[at - 1]?.startsWith("write") !== true) continue;
      await prepare();
      const files = new FaultyFiles(fault, at);
      const error = await attempt(files).then(
        () => undefined,
        (thrown: Error) => thrown,
      );
      // Which operation it was: the log does some of its work beside the rest, so the order is not always the same. It
      // makes its next segment ahead of need, and goes on without it when that fails.
      const operation = files.operations[at - 1] ?? "none";
      const place = `${fault} at ${at}, ${operation}`;
      if (!/ \S*wal\/\d+\.tmp$|^none$/.test(operation) && !(fault === "shortWrite" && !operation.startsWith("write"))) {
        expect(error?.message, place).toMatch(/injected|killed|write/);
      }
      await check(place);
    }
  }
  return total;
}

describe("defragDataDir()", () => {
  it.each(["lmdb", "bbolt"] as const)(
    "%s: whatever fails at whatever step, all rows are there and the next run succeeds",
    async (kind) => {
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
      const steps = await atEveryStep(
        async (files) => {
          await defragDataDir({ dataDir, logger, files });
        },
        async () => {
          // A start of the server over the leftover, or the next run, both do.
          const leftovers = fs.readdirSync(paths.snapDir).filter((name) => name.includes(".tmp"));
          expect(leftovers.length).toBeLessThanOrEqual(2);
          const result = await defragDataDir({ dataDir, logger });
          expect(result.path).toBe(file);
          expect(await content()).toEqual(whole);
          expect(fs.statSync(file).mode & 0o777).toBe(0o640);
          expect(fs.readdirSync(paths.snapDir).filter((name) => name.includes(".tmp"))).toEqual([]);
        },
        prepare,
      );
      expect(steps).toBeGreaterThanOrEqual(4);
    },
    WALK_LIMIT_MS,
  );

  it("the original is untouched until the new file is durable", async () => {
    const folder = temporaryFolder();
    const paths = dataDirPaths(folder);
    fs.mkdirSync(paths.snapDir, { recursive: true });
    await writeLmdb(paths.backendFile);
    const before = fs.readFileSync(paths.backendFile);
    const files = new FaultyFiles();
    await defragDataDir({ dataDir: folder, logger, files });
    const rename = files.operations.findIndex((what) => what.startsWith("rename"));
    expect(files.operations[rename]).toBe(`rename ${paths.backendFile}.tmp.defrag ${paths.backendFile}`);
    expect(files.operations.slice(0, rename)).toContain(`sync ${paths.backendFile}.tmp.defrag`);
    expect(files.operations.slice(rename)).toContain(`syncDirectory ${paths.snapDir}`);
    fs.writeFileSync(paths.backendFile, before);
    const killed = new FaultyFiles("kill", rename + 1);
    await expect(defragDataDir({ dataDir: folder, logger, files: killed })).rejects.toThrow("killed");
    expect(fs.readFileSync(paths.backendFile).equals(before)).toBe(true);
  });

  it("refuses a directory that is in use, and one that is none", async () => {
    const folder = temporaryFolder();
    const paths = dataDirPaths(folder);
    await expect(defragDataDir({ dataDir: path.join(folder, "nowhere"), logger })).rejects.toThrow(
      /open .*nowhere\/member\/snap\/db: no such file or directory/,
    );
    fs.mkdirSync(paths.snapDir, { recursive: true });
    await writeLmdb(paths.backendFile);
    await using _lock = await lockDataDir(paths);
    await expect(defragDataDir({ dataDir: folder, logger })).rejects.toThrow(/in use by another process/);
  });

  it("gives back the space that deleted rows had", async () => {
    const folder = temporaryFolder();
    const paths = dataDirPaths(folder);
    fs.mkdirSync(paths.snapDir, { recursive: true });
    const backend = await openInline(paths.backendFile);
    const key = (n: number) => Buffer.from(String(n).padStart(6, "0"));
    backend.write((tx) => {
      for (let n = 0; n < 5_000; n++) tx.put("key", key(n), Buffer.alloc(300));
    });
    await backend.flush();
    backend.write((tx) => {
      for (let n = 0; n < 5_000; n++) if (n % 2) tx.delete("key", key(n));
    });
    await backend.close();
    const { beforeBytes, afterBytes } = await defragDataDir({ dataDir: folder, logger });
    expect(afterBytes).toBeLessThan(beforeBytes * 0.6);
    expect(fs.statSync(paths.backendFile).size).toBe(afterBytes);
  });
});

function restoreOptions(folder: string, more: Partial<RestoreOptions> = {}): RestoreOptions {
  return {
    snapshotPath: path.join(folder, "s.db"),
    dataDir: path.join(folder, "data"),
    walDir: "",
    name: "a",
    initialCluster: "a=http://127.0.0.1:1,b=http://127.0.0.1:2",
    initialClusterToken: "etcd-cluster",
    initialAdvertisePeerUrls: "http://127.0.0.1:1",
    skipHashCheck: false,
    bumpRevision: 0n,
    markCompacted: false,
    initialMemoryMapSize: 0n,
    backend: "lmdb",
    logger,
    ...more,
  };
}

/** A restored directory as a starting member would read it. */
async function checkRestored(dataDir: string, walDir: string | undefined, kind: "lmdb" | "bbolt"): Promise<void> {
  const paths = dataDirPaths(dataDir, walDir);
  const snapshots = await validSnapshots(paths.walDir);
  const snap = await new SnapStore({ dir: paths.snapDir, clock: systemClock, logger }).loadNewestAvailable(snapshots);
  expect(snap?.metadata.index).toBe(2);
  const members = decodeV2Store(snap?.data as Uint8Array).members;
  expect([...members.keys()]).toEqual(snap?.metadata.confState.voters);
  const wal = await openWal(paths.walDir, { index: 2, term: 1 }, { clock: systemClock, logger });
  expect(wal.hardState).toEqual({ term: 1, vote: members.keys().next().value, commit: 2 });
  await wal.wal.close();
  expect((await readWal(paths.walDir, { index: 0, term: 0 })).entries.length).toBe(2);
  if (kind === "lmdb") {
    const backend = await openInline(paths.backendFile);
    expect(readConsistentIndex(backend)).toEqual({ index: 2, term: 1 });
    expect(hasIndexMarker(backend)).toBe(true);
    let rows = 0;
    backend.scan("key", { keysOnly: true }, () => {
      rows++;
    });
    expect(rows).toBe(keyRows().length);
    const ids: string[] = [];
    backend.scan("members", { keysOnly: true }, (key) => {
      ids.push(keyString(key));
    });
    expect(ids).toEqual([...members.keys()].map((id) => id.toString(16)).sort());
    await backend.close();
  } else {
    const bolt = openBolt(paths.boltFile);
    expect(bolt.check()).toEqual([]);
    expect([...bolt.rows("members")].length).toBe(2);
    expect(summarize(bolt).revision).toBe(60);
    bolt.close();
  }
}

describe("restoreSnapshot()", () => {
  it.each([
    ["lmdb", ""],
    ["bbolt", ""],
    ["lmdb", "w/wal"],
  ] as const)(
    "%s %s: a fault at any step leaves no member or a whole one, and the next run succeeds",
    async (backend, wal) => {
      const folder = temporaryFolder();
      const dataDir = path.join(folder, "data");
      const walDir = wal === "" ? "" : path.join(folder, wal);
      await writeSnapshotFile(path.join(folder, "s.db"));
      const options = restoreOptions(folder, { backend, walDir });
      const steps = await atEveryStep(
        async (files) => void (await restoreSnapshot({ ...options, files })),
        async (place) => {
          const isThere = fs.existsSync(path.join(dataDir, "member"));
          if (!isThere) await expect(restoreSnapshot({ ...options, files: plain() }), place).resolves.toBeDefined();
          await checkRestored(dataDir, walDir || undefined, backend);
          expect(fs.readdirSync(dataDir), place).toEqual(["member"]);
          if (walDir !== "") expect(fs.readdirSync(path.dirname(walDir))).toEqual(["wal"]);
        },
        async () => {
          fs.rmSync(dataDir, { recursive: true, force: true });
          fs.rmSync(path.join(folder, "w"), { recursive: true, force: true });
        },
      );
      expect(steps).toBeGreaterThan(15);
    },
    WALK_LIMIT_MS,
  );

  it("a failure leaves a directory that was not there before as absent, and an empty one empty", async () => {
    const folder = temporaryFolder();
    await writeSnapshotFile(path.join(folder, "s.db"));
    const options = restoreOptions(folder);
    await expect(restoreSnapshot({ ...options, files: new FaultyFiles("ENOSPC", 8) })).rejects.toThrow("ENOSPC");
    expect(fs.existsSync(options.dataDir)).toBe(false);
    fs.mkdirSync(options.dataDir);
    await expect(restoreSnapshot({ ...options, files: new FaultyFiles("ENOSPC", 8) })).rejects.toThrow("ENOSPC");
    expect(fs.readdirSync(options.dataDir)).toEqual([]);
  });

  it("makes the names of new directories durable where they are, above the data dir too", async () => {
    const folder = temporaryFolder();
    await writeSnapshotFile(path.join(folder, "s.db"));
    const dataDir = path.join(folder, "a", "b", "data");
    const walDir = path.join(folder, "w", "wal");
    const files = new FaultyFiles();
    await restoreSnapshot(restoreOptions(folder, { dataDir, walDir, files }));
    const { operations } = files;
    const named = operations.indexOf(`rename ${path.join(dataDir, "member.tmp")} ${path.join(dataDir, "member")}`);
    for (const dir of [folder, path.join(folder, "a"), path.join(folder, "a", "b"), path.join(folder, "w")]) {
      const synced = operations.indexOf(`syncDirectory ${dir}`);
      expect(synced >= 0 && synced < named, dir).toBe(true);
    }
    expect(operations.indexOf(`syncDirectory ${dataDir}`, named)).toBeGreaterThan(named);
  });

  it("refuses to work where another one is at work, and leaves that alone", async () => {
    const folder = temporaryFolder();
    await writeSnapshotFile(path.join(folder, "s.db"));
    const options = restoreOptions(folder);
    const files = plain();
    const rename = files.rename.bind(files);
    const refusals: unknown[] = [];
    files.rename = async (from, to) => {
      if (to === path.join(options.dataDir, "member")) {
        refusals.push(await restoreSnapshot({ ...options, files: plain() }).catch((error: Error) => error.message));
      }
      await rename(from, to);
    };
    await restoreSnapshot({ ...options, files });
    expect(refusals).toEqual([expect.stringMatching(/member\.tmp is in use by another process/)]);
    await checkRestored(options.dataDir, undefined, "lmdb");
    expect(fs.readdirSync(path.join(options.dataDir, "member"))).toEqual(["snap", "wal"]);
  });

  it("takes the database of a stopped member of either kind", async () => {
    const folder = temporaryFolder();
    await writeSnapshotFile(path.join(folder, "s.db"));
    const first = restoreOptions(folder);
    await restoreSnapshot(first);
    const snapshotPath = path.join(folder, "copied.lmdb");
    fs.copyFileSync(dataDirPaths(first.dataDir).backendFile, snapshotPath);
    for (const backend of ["lmdb", "bbolt"] as const) {
      const dataDir = path.join(folder, backend);
      const options = restoreOptions(folder, { snapshotPath, dataDir, backend });
      await expect(restoreSnapshot(options)).rejects.toThrow("snapshot missing hash but --skip-hash-check=false");
      expect((await restoreSnapshot({ ...options, skipHashCheck: true })).revision).toBe(60);
      await checkRestored(dataDir, undefined, backend);
    }
  });

  it("never removes a log directory that was there before", async () => {
    const folder = temporaryFolder();
    await writeSnapshotFile(path.join(folder, "s.db"));
    const walDir = path.join(folder, "wal");
    fs.mkdirSync(walDir);
    fs.writeFileSync(path.join(walDir, "precious"), "x");
    const options = restoreOptions(folder, { walDir });
    await expect(restoreSnapshot(options)).rejects.toThrow(`wal-dir "${walDir}" exists`);
    fs.mkdirSync(path.join(options.dataDir, "member.tmp"), { recursive: true });
    await expect(restoreSnapshot(options)).rejects.toThrow(`wal-dir "${walDir}" exists`);
    expect(fs.readFileSync(path.join(walDir, "precious"), "utf8")).toBe("x");
  });

  it("--bump-revision moves the revision on and schedules the compaction of all before", async () => {
    const folder = temporaryFolder();
    await writeSnapshotFile(path.join(folder, "s.db"));
    await restoreSnapshot(restoreOptions(folder, { backend: "bbolt", bumpRevision: 1_000n, markCompacted: true }));
    const bolt = openBolt(dataDirPaths(path.join(folder, "data")).boltFile);
    const last = [...bolt.rows("key")].at(-1) as [Uint8Array, Uint8Array];
    expect(Buffer.from(last[0])).toEqual(revisionKey(1_060, 0));
    expect(last[1].length).toBe(0);
    expect(bolt.get("meta", utf8Bytes("scheduledCompactRev"))).toEqual(revisionKey(1_060, 0));
    bolt.close();
  });

  it("refuses a wrong hash, a missing one, and a truncated file, and leaves nothing", async () => {
    const folder = temporaryFolder();
    const options = restoreOptions(folder);
    await writeSnapshotFile(options.snapshotPath, false);
    await expect(restoreSnapshot(options)).rejects.toThrow("snapshot missing hash but --skip-hash-check=false");
    await restoreSnapshot({ ...options, skipHashCheck: true, dataDir: path.join(folder, "other") });
    await writeSnapshotFile(options.snapshotPath);
    const image = fs.readFileSync(options.snapshotPath);
    image[9_000] = (image[9_000] as number) ^ 1;
    fs.writeFileSync(options.snapshotPath, image);
    await expect(restoreSnapshot(options)).rejects.toThrow(/^expected sha256 \[\d+ .*\], got \[/);
    fs.truncateSync(options.snapshotPath, 8_192);
    await expect(restoreSnapshot({ ...options, skipHashCheck: true })).rejects.toThrow(/truncated|invalid/);
    fs.truncateSync(options.snapshotPath, 10);
    await expect(restoreSnapshot(options)).rejects.toThrow(`seek ${options.snapshotPath}: invalid argument`);
    fs.rmSync(options.snapshotPath);
    await expect(restoreSnapshot(options)).rejects.toThrow(`open ${options.snapshotPath}: no such file or directory`);
    expect(fs.existsSync(options.dataDir)).toBe(false);
  });

  it("ids follow from URLs and token as in etcd", async () => {
    const folder = temporaryFolder();
    await writeSnapshotFile(path.join(folder, "s.db"));
    await restoreSnapshot(
      restoreOptions(folder, {
        name: "default",
        initialCluster: "default=http://localhost:2380",
        initialAdvertisePeerUrls: "http://localhost:2380",
      }),
    );
    const { metadata } = await readWal(dataDirPaths(path.join(folder, "data")).walDir, { index: 0, term: 0 });
    expect(keyString(metadata)).toBe(
      keyString(Uint8Array.of(0x08, ...varint(0x8e9e05c52164694dn), 0x10, ...varint(0xcdf818194e3a8c32n))),
    );
  });
});

function varint(value: bigint): number[] {
  const bytes: number[] = [];
  let rest = value;
  for (; rest >= 0x80n; rest >>= 7n) bytes.push(Number(rest & 0x7fn) | 0x80);
  return [...bytes, Number(rest)];
}

describe("backupDataDir()", () => {
  it("copies data and log of a stopped member for one that starts a new cluster", async () => {
    const folder = temporaryFolder();
    await writeSnapshotFile(path.join(folder, "s.db"));
    const options = restoreOptions(folder);
    await restoreSnapshot(options);
    const backupDir = path.join(folder, "backup");
    await backupDataDir({
      dataDir: options.dataDir,
      walDir: "",
      backupDir,
      backupWalDir: "",
      withV3: true,
      backend: "lmdb",
      logger,
    });
    const paths = dataDirPaths(backupDir);
    const [last] = (await validSnapshots(paths.walDir)).slice(-1);
    expect(last?.index).toBe(2);
    const snap = await new SnapStore({ dir: paths.snapDir, clock: systemClock, logger }).loadNewest();
    const members = [...decodeV2Store(snap?.data as Uint8Array).members.values()];
    expect(members.map(({ name, peerUrls }) => [name, peerUrls])).toEqual([
      ["etcdctl-v2-backup", ["http://use-flag--force-new-cluster:2080"]],
    ]);
    const backend = await openInline(paths.backendFile);
    let rows = 0;
    backend.scan("key", { keysOnly: true }, () => {
      rows++;
    });
    expect(rows).toBe(keyRows().length);
    await backend.close();
  });

  it("names the step that failed", async () => {
    const folder = temporaryFolder();
    const backup = backupDataDir({
      dataDir: path.join(folder, "none"),
      walDir: "",
      backupDir: path.join(folder, "b"),
      backupWalDir: "",
      withV3: true,
      backend: "lmdb",
      logger,
    });
    await expect(backup).rejects.toThrow("saveSnap(Snapshoter.Load) failed");
  });
});

describe("a check by two threads", () => {
  it("finds what one does, and no less of what is damaged in either half", async () => {
    const file = path.join(temporaryFolder(), "s.db");
    const rows: Rows = [];
    for (let main = 2; main < 6_000; main++) {
      const fields = { key: utf8Bytes(`k${main}`), createRevision: main, modRevision: main, version: 1, lease: 0n };
      rows.push([revisionKey(main, 0), encodeKeyValue({ ...fields, value: Buffer.alloc(300, main) })]);
    }
    const buckets = new Map<string, Rows>([["key", rows], ...otherRows]);
    const target = await systemFiles.open(file, "create");
    await writeBolt({ rows: (bucket) => buckets.get(bucket) ?? [] }, target);
    await target.close();
    const whole = inspectFile(file);
    expect(whole?.totalKeys).toBe(rows.length + 3);
    expect(await inspectInThreads(file, undefined, 0)).toMatchObject(whole as object);
    const image = fs.readFileSync(file);
    const pages = image.length / 4_096;
    const leaves: number[] = [];
    for (let page = 2; page < pages; page++) if (image.readUInt16LE(page * 4_096 + 8) === 2) leaves.push(page);
    const damaged = async (change: (bytes: Buffer) => void) => {
      const bytes = Buffer.from(image);
      change(bytes);
      fs.writeFileSync(file, bytes);
      const found = await inspectInThreads(file, undefined, 0);
      expect(found?.hash).toBe(inspectFile(file)?.hash);
      return found?.hash;
    };
    for (const share of [0.1, 0.9]) {
      const leaf = (leaves[Math.floor(leaves.length * share)] as number) * 4_096;
      expect(await damaged((bytes) => void bytes.writeUInt32LE(1, leaf))).toBeUndefined();
      expect(await damaged((bytes) => void bytes.writeUInt8(image.readUInt8(leaf + 3_000) ^ 4, leaf + 3_000))).not.toBe(
        whole?.hash,
      );
      // A leaf that stands twice in the tree: once in each half.
      const other = leaves[Math.floor(leaves.length * (1 - share))] as number;
      const parent = (number: number) => {
        const reference = Buffer.alloc(8);
        reference.writeBigUInt64LE(BigInt(number));
        // Behind its own header: branches follow their children.
        return image.indexOf(reference, leaf + 4_096);
      };
      const twice = (bytes: Buffer) => void bytes.writeBigUInt64LE(BigInt(other), parent(leaf / 4_096));
      expect(await damaged(twice)).toBeUndefined();
    }
  });
});

describe("snapshotHashKv()", () => {
  it("is the same for a file and for what was restored from it", async () => {
    const folder = temporaryFolder();
    const file = path.join(folder, "s.db");
    await writeSnapshotFile(file);
    await restoreSnapshot(restoreOptions(folder, { backend: "bbolt" }));
    const restored = dataDirPaths(path.join(folder, "data")).boltFile;
    for (const revision of [0, 2, 30, 59]) {
      expect(snapshotHashKv(restored, revision)).toEqual(snapshotHashKv(file, revision));
    }
    expect(() => snapshotHashKv(file, 61)).toThrow("mvcc: required revision is a future revision");
  });
});

/** A stopped member with either kind of database. */
async function writeMember(folder: string, backend: "lmdb" | "bbolt"): Promise<string> {
  const options = restoreOptions(folder, { backend });
  if (!fs.existsSync(options.snapshotPath)) await writeSnapshotFile(options.snapshotPath);
  fs.rmSync(options.dataDir, { recursive: true, force: true });
  await restoreSnapshot({ ...options, files: plain() });
  return options.dataDir;
}

const namesIn = (dir: string): string[] =>
  fs.readdirSync(dir).filter((name) => !name.endsWith(".snap") && !name.endsWith("-lock"));

describe("migrateEngine()", () => {
  it.each([
    ["bbolt", "lmdb"],
    ["lmdb", "bbolt"],
  ] as const)(
    "%s to %s: a fault at any step leaves a whole database in force, and the next run ends it",
    async (from, to) => {
      const folder = temporaryFolder();
      const dataDir = await writeMember(folder, from);
      const paths = dataDirPaths(dataDir);
      const [old, fresh] = from === "lmdb" ? [paths.backendFile, paths.boltFile] : [paths.boltFile, paths.backendFile];
      const hash = snapshotStatus(old).hash;
      fs.chmodSync(old, 0o640);
      const original = fs.readFileSync(old);
      const migrate = { dataDir, walDir: "", logger, to };
      const steps = await atEveryStep(
        async (files) => void (await migrateEngine({ ...migrate, files })),
        async (place) => {
          const inForce = fs.existsSync(paths.backendFile) ? paths.backendFile : paths.boltFile;
          expect(snapshotStatus(inForce).hash, place).toBe(hash);
          await migrateEngine({ ...migrate, files: plain() });
          expect(namesIn(paths.snapDir), place).toEqual([path.basename(fresh)]);
          expect(snapshotStatus(fresh).hash, place).toBe(hash);
          expect(fs.statSync(fresh).mode & 0o777).toBe(0o640);
          expect((await verifyDataDir({ dataDir, walDir: "" })).verdict, place).toBe("clean");
        },
        async () => {
          for (const name of fs.readdirSync(paths.snapDir)) {
            if (!name.endsWith(".snap")) fs.rmSync(path.join(paths.snapDir, name), { recursive: true });
          }
          fs.writeFileSync(old, original, { mode: 0o640 });
          fs.chmodSync(old, 0o640);
        },
      );
      expect(steps).toBeGreaterThan(8);
    },
    WALK_LIMIT_MS,
  );

  it("touches nothing while a newer database of the other kind lies beside", async () => {
    const folder = temporaryFolder();
    const dataDir = await writeMember(folder, "lmdb");
    const { boltFile } = dataDirPaths(dataDir);
    fs.copyFileSync(path.join(folder, "s.db"), boltFile);
    const bytes = fs.readFileSync(boltFile);
    // That one was written by a later program: neither way is anything lost.
    for (const to of ["lmdb", "bbolt"] as const) {
      await expect(migrateEngine({ dataDir, walDir: "", logger, to })).rejects.toThrow(/is at index 99, ahead of/);
    }
    expect(fs.readFileSync(boltFile).equals(bytes)).toBe(true);
    expect(namesIn(path.dirname(boltFile))).toEqual(["db", "db.lmdb"]);
  });

  it("nor does save, backup or defrag, and verify says which is which", async () => {
    const folder = temporaryFolder();
    const dataDir = await writeMember(folder, "lmdb");
    const { backendFile, boltFile, memberDir } = dataDirPaths(dataDir);
    fs.copyFileSync(path.join(folder, "s.db"), boltFile);
    const common = { dataDir, walDir: "", logger };
    const snapshotPath = path.join(folder, "x.db");
    await expect(saveSnapshot({ ...common, snapshotPath })).rejects.toThrow(/is at index 99, ahead of/);
    expect(fs.existsSync(snapshotPath)).toBe(false);
    await expect(defragDataDir(common)).rejects.toThrow(/is at index 99, ahead of/);
    const target = parseTargetVersion("3.6");
    await expect(migrateVersion({ ...common, force: false, target })).rejects.toThrow(/is at index 99, ahead of/);
    const backupDir = path.join(folder, "backup");
    const backup = { ...common, backupDir, backupWalDir: "", withV3: true, backend: "lmdb" } as const;
    const error = await backupDataDir(backup).catch((thrown: Error) => thrown);
    expect(((error as Error).cause as Error).message).toMatch(/is at index 99, ahead of/);
    expect(fs.existsSync(backupDir)).toBe(false);
    // The snapshot is at 2 as ours is, so the log has what is between.
    const of = async () =>
      (await verifyDataDir({ dataDir, walDir: "" })).findings.filter(({ path: p }) => p === boltFile);
    expect(await of()).toMatchObject([{ severity: "note", problem: expect.stringContaining("index 99, ahead of") }]);
    // Ours is behind the snapshot: the log alone does not do.
    const backend = await openInline(backendFile);
    backend.write((tx) => tx.put("meta", utf8Bytes("consistent_index"), Buffer.from("0000000000000001", "hex")));
    await backend.close();
    const { findings, verdict } = await verifyDataDir({ dataDir, walDir: "" });
    expect(verdict).toBe("repairable");
    expect(findings.find(({ path: p }) => p === boltFile)?.consequence).toMatch(/do not remove it.*db.lmdb away/);
    expect(findings.map(({ consequence }) => consequence).join()).not.toMatch(/restore a snapshot/);
    expect(fs.existsSync(memberDir)).toBe(true);
  });

  it("keeps buckets that no etcd makes, or refuses", async () => {
    const folder = temporaryFolder();
    const dataDir = await writeMember(folder, "bbolt");
    const { boltFile, snapDir } = dataDirPaths(dataDir);
    const strange: Rows = [[utf8Bytes("a"), utf8Bytes("b")]];
    const before = openBolt(boltFile);
    const all = new Map(before.buckets.map((bucket) => [bucket, [...before.rows(bucket)]]));
    before.close();
    all.set(
      "later",
      strange.map(([key, value]) => [key, value]),
    );
    const target = await systemFiles.open(boltFile, "create");
    const pages: Uint8Array[] = [];
    const writer = new BoltWriter({
      write: (bytes, position) => {
        pages[position / 4_096] = bytes;
      },
    });
    for (const name of [...all.keys()].sort()) {
      const bucket = writer.bucket(name);
      for (const [key, value] of all.get(name) ?? []) bucket.put(key, value);
      bucket.finish();
    }
    writer.finish();
    for (const [number, bytes] of pages.entries()) {
      if (bytes) await target.write(bytes, 0, bytes.length, number * 4_096);
    }
    await target.close();
    const whole = boltContent(boltFile);
    const { hash } = snapshotStatus(boltFile);
    expect(whole).toContain("later a b");
    await expect(migrateEngine({ dataDir, walDir: "", logger, to: "lmdb" })).rejects.toThrow(/no place for: "later"/);
    expect(namesIn(snapDir)).toEqual(["db"]);
    await defragDataDir({ dataDir, logger });
    expect(boltContent(boltFile)).toEqual(whole);
    const saved = await saveSnapshot({ dataDir, snapshotPath: path.join(folder, "x.db"), logger });
    expect(saved.hash).toBe(hash);
    // Of a restore the file stays; what did not come along is said.
    const warnings: unknown[] = [];
    const telling = { ...logger, warn: (_message: string, fields?: unknown) => void warnings.push(fields) };
    const snapshotPath = path.join(folder, "x.db");
    const other = path.join(folder, "other");
    await restoreSnapshot(restoreOptions(folder, { snapshotPath, dataDir: other, logger: telling }));
    expect(warnings).toMatchObject([{ buckets: ["later"] }]);
  });

  it("save refuses a folder that is not there", async () => {
    const folder = temporaryFolder();
    const dataDir = await writeMember(folder, "lmdb");
    const snapshotPath = path.join(folder, "none", "x.db");
    const saving = saveSnapshot({ dataDir, snapshotPath, logger });
    await expect(saving).rejects.toThrow(`open ${snapshotPath}.part: no such file or directory`);
  });

  it("save refuses a target among the member's own files", async () => {
    const dataDir = await writeMember(temporaryFolder(), "lmdb");
    const { backendFile } = dataDirPaths(dataDir);
    const bytes = fs.readFileSync(backendFile);
    await expect(saveSnapshot({ dataDir, snapshotPath: backendFile, logger })).rejects.toThrow(/files of the member/);
    expect(fs.readFileSync(backendFile).equals(bytes)).toBe(true);
  });

  it("refuses a damaged database, and leaves it as it is", async () => {
    const folder = temporaryFolder();
    const dataDir = await writeMember(folder, "lmdb");
    const { backendFile } = dataDirPaths(dataDir);
    const bytes = fs.readFileSync(backendFile);
    const at = bytes.indexOf(Buffer.alloc(40, 59));
    bytes[at + 7] = (bytes[at + 7] as number) ^ 4;
    fs.writeFileSync(backendFile, bytes);
    await expect(migrateEngine({ dataDir, walDir: "", logger, to: "bbolt" })).rejects.toThrow(/is damaged: .*checksum/);
    await expect(defragDataDir({ dataDir, logger })).rejects.toThrow(/is damaged: .*checksum/);
    await expect(saveSnapshot({ dataDir, snapshotPath: path.join(folder, "x.db"), logger })).rejects.toThrow(/damaged/);
    expect(fs.readFileSync(backendFile).equals(bytes)).toBe(true);
    expect(namesIn(path.dirname(backendFile))).toEqual(["db.lmdb"]);
    const { verdict, findings } = await verifyDataDir({ dataDir, walDir: "" });
    expect(verdict).toBe("lost");
    expect(findings.map(({ problem }) => problem).join()).toMatch(/revision 59 of key "k3" is damaged/);
  });
});

describe("verifyDataDir()", () => {
  it("says what is lost when the database is gone and the log is there", async () => {
    const folder = temporaryFolder();
    const dataDir = await writeMember(folder, "lmdb");
    const { backendFile, snapDir, walDir } = dataDirPaths(dataDir);
    fs.rmSync(backendFile);
    const before = fs.readdirSync(dataDir, { recursive: true });
    const lost = await verifyDataDir({ dataDir, walDir: "" });
    expect(lost).toMatchObject({ verdict: "lost", backend: "none", lastIndex: 2 });
    expect(lost.findings[0]?.consequence).toMatch(/as of index 2 are lost/);
    // What came with a snapshot of the leader is as good.
    fs.writeFileSync(path.join(snapDir, "0000000000000002.snap.db"), "");
    expect(await verifyDataDir({ dataDir, walDir: "" })).toMatchObject({ verdict: "repairable" });
    fs.rmSync(path.join(snapDir, "0000000000000002.snap.db"));
    expect(fs.readdirSync(dataDir, { recursive: true })).toEqual(before);
    // A log from the first entry on, without a snapshot, is the whole of a member.
    for (const dir of [snapDir, walDir]) fs.rmSync(dir, { recursive: true });
    const metadata = Uint8Array.of(0x08, 1, 0x10, 2);
    const wal = await createWal(walDir, metadata, { clock: systemClock, logger });
    await wal.save({ term: 1, vote: 1n, commit: 1 }, [Entry.create({ term: 1, index: 1 })]);
    await wal.close();
    const whole = await verifyDataDir({ dataDir, walDir: "" });
    expect(whole.verdict).toBe("repairable");
    expect(whole.findings.map(({ consequence }) => consequence)).toEqual([
      "the log is whole, and the next start makes it of that",
    ]);
    fs.rmSync(walDir, { recursive: true });
    await expect(verifyDataDir({ dataDir, walDir: "" })).rejects.toThrow("no such file or directory");
  });

  it("of a damaged database says that the one it was made of will do, where it does", async () => {
    const folder = temporaryFolder();
    const dataDir = await writeMember(folder, "bbolt");
    const { backendFile, boltFile } = dataDirPaths(dataDir);
    const kept = fs.readFileSync(boltFile);
    await migrateEngine({ dataDir, walDir: "", logger, to: "lmdb" });
    fs.writeFileSync(boltFile, kept);
    fs.writeFileSync(backendFile, Buffer.alloc(100));
    const { verdict, findings } = await verifyDataDir({ dataDir, walDir: "" });
    expect(verdict).toBe("lost");
    expect(findings.find(({ path: p }) => p === boltFile)?.consequence).toMatch(/nothing is lost/);
  });
});

describe("migrateVersion()", () => {
  it.each(["lmdb", "bbolt"] as const)(
    "%s: goes to 3.6 and back, and stops at any fault with one or the other",
    async (backend) => {
      const folder = temporaryFolder();
      const dataDir = await writeMember(folder, backend);
      const paths = dataDirPaths(dataDir);
      const file = backend === "lmdb" ? paths.backendFile : paths.boltFile;
      const start = snapshotStatus(file);
      const original = fs.readFileSync(file);
      const up = { dataDir, walDir: "", logger, force: false, target: parseTargetVersion("3.6") };
      expect((await migrateVersion(up)).isChanged).toBe(true);
      const upgraded = snapshotStatus(file);
      expect(upgraded.totalKey).toBe(start.totalKey + 1);
      expect((await migrateVersion(up)).isChanged).toBe(false);
      await migrateVersion({ ...up, target: parseTargetVersion("3.5") });
      expect(snapshotStatus(file).hash).toBe(start.hash);
      await expect(migrateVersion({ ...up, target: parseTargetVersion("3.7") })).rejects.toThrow(
        'cannot create migration plan: version "3.7.0" is not supported',
      );
      await atEveryStep(
        async (files) => void (await migrateVersion({ ...up, files })),
        async (place) => {
          expect([start.hash, upgraded.hash], place).toContain(snapshotStatus(file).hash);
          await migrateVersion(up);
          expect(snapshotStatus(file).hash, place).toBe(upgraded.hash);
          expect((await verifyDataDir({ dataDir, walDir: "" })).verdict, place).toBe("clean");
        },
        async () => {
          fs.rmSync(`${file}-lock`, { force: true });
          fs.writeFileSync(file, original);
        },
      );
    },
    WALK_LIMIT_MS,
  );

  it.each(["lmdb", "bbolt"] as const)(
    "%s: goes down over what 3.5 does not know only when it is forced, and up again",
    async (backend) => {
      const folder = temporaryFolder();
      const dataDir = await writeMember(folder, backend);
      const paths = dataDirPaths(dataDir);
      const file = databaseFile(paths, backend);
      const start = snapshotStatus(file).hash;
      const warnings: string[] = [];
      const telling = { ...logger, warn: (message: string) => void warnings.push(message) };
      const common = { dataDir, walDir: "", logger: telling, force: false };
      const up = { ...common, target: parseTargetVersion("3.6") };
      const down = { ...common, target: parseTargetVersion("3.5") };
      await migrateVersion(up);
      // DowngradeVersionTest{ver: "3.6.0"}, field 9900 of a request, behind the last snapshot.
      const data = Uint8Array.of(...varint(9_900n * 8n + 2n), 7, 0x0a, 5, ...utf8Bytes("3.6.0"));
      const { wal } = await openWal(paths.walDir, { index: 2, term: 1 }, { clock: systemClock, logger });
      await wal.save({ term: 1, vote: 1n, commit: 3 }, [Entry.create({ term: 1, index: 3, data })]);
      await wal.close();
      const refusal =
        "cannot downgrade storage, WAL contains newer entries, as the target version (3.5.0) is lower than the version " +
        "(3.6.0) detected from WAL logs";
      await expect(migrateVersion(down)).rejects.toThrow(refusal);
      await expect(migrateVersion({ ...down, isDryRun: true })).rejects.toThrow(refusal);
      const upgraded = snapshotStatus(file).hash;
      expect(upgraded).not.toBe(start);
      expect(await migrateVersion({ ...down, force: true })).toMatchObject({ from: "3.6", to: "3.5", isChanged: true });
      expect(snapshotStatus(file).hash).toBe(start);
      expect(warnings).toEqual(["forcefully cleared storage version"]);
      expect((await verifyDataDir({ dataDir, walDir: "" })).verdict).toBe("clean");
      // Where no plan leads, force sets the mark all the same.
      const seven = { ...common, target: parseTargetVersion("3.7") };
      await expect(migrateVersion(seven)).rejects.toThrow('version "3.7.0" is not supported');
      await migrateVersion({ ...seven, force: true });
      expect(warnings.at(-1)).toBe("forcefully set storage version");
      expect(await migrateVersion({ ...up, force: true })).toMatchObject({ from: "3.7", to: "3.6" });
      expect(snapshotStatus(file).hash).toBe(upgraded);
    },
  );

  it("refuses what 3.6 refuses, in its words", () => {
    expect(() => parseTargetVersion("3")).toThrow('wrong target version format, expected "X.Y", got "3"');
    expect(() => parseTargetVersion("3.4")).toThrow('target version "3.4" not supported. Minimal "3.5"');
    expect(() => parseTargetVersion("a.b")).toThrow("failed to parse target version");
  });
});

describe("saveSnapshot()", () => {
  it.each(["lmdb", "bbolt"] as const)(
    "%s: a fault at any step leaves no file or a whole one",
    async (backend) => {
      const folder = temporaryFolder();
      const dataDir = await writeMember(folder, backend);
      const snapshotPath = path.join(folder, "saved.db");
      const paths = dataDirPaths(dataDir);
      const { hash } = snapshotStatus(backend === "lmdb" ? paths.backendFile : paths.boltFile);
      await atEveryStep(
        async (files) => void (await saveSnapshot({ dataDir, snapshotPath, logger, files })),
        async (place) => {
          if (fs.existsSync(snapshotPath)) expect(snapshotStatus(snapshotPath).hash, place).toBe(hash);
          await saveSnapshot({ dataDir, snapshotPath, logger, files: plain() });
          expect(fs.readdirSync(folder).sort(), place).toEqual(["data", "s.db", "saved.db"]);
          expect(snapshotStatus(snapshotPath).hash, place).toBe(hash);
        },
        async () => fs.rmSync(snapshotPath, { force: true }),
      );
      // As one that etcdctl saved: restore finds its hash and takes it.
      await restoreSnapshot(restoreOptions(folder, { snapshotPath, dataDir: path.join(folder, "again") }));
    },
    WALK_LIMIT_MS,
  );
});

describe("backupDataDir() with faults", () => {
  it.each(["", "w/wal"])(
    "log in %j: leaves the member as it was at any step, a whole copy or none, and the next run succeeds",
    async (wal) => {
      const folder = temporaryFolder();
      const dataDir = await writeMember(folder, "lmdb");
      const { backendFile } = dataDirPaths(dataDir);
      const before = fs.readFileSync(backendFile);
      const backupDir = path.join(folder, "backup");
      const backupWalDir = wal === "" ? "" : path.join(folder, wal);
      const options = { dataDir, walDir: "", backupDir, backupWalDir, withV3: true, backend: "lmdb", logger } as const;
      const paths = dataDirPaths(backupDir, backupWalDir);
      await atEveryStep(
        (files) => backupDataDir({ ...options, files }).catch((error: Error) => Promise.reject(error.cause ?? error)),
        async (place) => {
          expect(fs.readFileSync(backendFile).equals(before), place).toBe(true);
          const isThere = fs.existsSync(paths.memberDir);
          if (!isThere) await expect(backupDataDir({ ...options, files: plain() }), place).resolves.toBeUndefined();
          expect(snapshotStatus(paths.backendFile).revision, place).toBe(60);
          expect((await validSnapshots(paths.walDir)).at(-1)?.index, place).toBe(2);
          expect(fs.readdirSync(backupDir), place).toEqual(["member"]);
        },
        async () => {
          fs.rmSync(backupDir, { recursive: true, force: true });
          fs.rmSync(path.join(folder, "w"), { recursive: true, force: true });
        },
        wal === "" ? faults : ["kill"],
      );
      const again = backupDataDir(options).catch((error: Error) => Promise.reject(error.cause ?? error));
      await expect(again).rejects.toThrow(/to be empty/);
    },
    WALK_LIMIT_MS,
  );

  it("takes a directory that was made for it, and leaves that alone when it fails", async () => {
    const folder = temporaryFolder();
    const dataDir = await writeMember(folder, "lmdb");
    const backupDir = path.join(folder, "backup");
    const paths = dataDirPaths(backupDir);
    fs.mkdirSync(paths.snapDir, { recursive: true });
    const options = {
      dataDir,
      walDir: "",
      backupDir,
      backupWalDir: "",
      withV3: true,
      backend: "bbolt",
      logger,
    } as const;
    const freeBytes = () => 1_000;
    const error = await backupDataDir({ ...options, freeBytes }).catch((thrown: Error) => thrown);
    expect(((error as Error).cause as Error).message).toMatch(/not enough space/);
    expect(fs.readdirSync(backupDir)).toEqual(["member"]);
    await backupDataDir(options);
    expect(snapshotStatus(paths.boltFile).revision).toBe(60);
  });
});

describe("space and dry runs", () => {
  it("nothing is begun that would not fit", async () => {
    const folder = temporaryFolder();
    const dataDir = await writeMember(folder, "lmdb");
    const freeBytes = () => 1_000;
    const { backendFile, snapDir } = dataDirPaths(dataDir);
    const before = fs.readFileSync(backendFile);
    await expect(defragDataDir({ dataDir, logger, freeBytes })).rejects.toThrow(/not enough space/);
    await expect(migrateEngine({ dataDir, walDir: "", logger, to: "bbolt", freeBytes })).rejects.toThrow(/not enough/);
    const other = restoreOptions(folder, { dataDir: path.join(folder, "other"), freeBytes });
    await expect(restoreSnapshot(other)).rejects.toThrow(/not enough space/);
    expect(fs.existsSync(other.dataDir)).toBe(false);
    expect(namesIn(snapDir)).toEqual(["db.lmdb"]);
    expect(fs.readFileSync(backendFile).equals(before)).toBe(true);
  });

  it.each([10, 300, 1_000, 1_400, 2_035, 2_060, 5_000, 100_000])(
    "what is asked for is enough, and not far more: values of %d bytes",
    async (valueBytes) => {
      const folder = temporaryFolder();
      const file = path.join(folder, "s.db");
      const rows: Rows = [];
      const value = Buffer.alloc(valueBytes, 7);
      for (let main = 2; main < 2 + 400_000 / (valueBytes + 200); main++) {
        const key = utf8Bytes(`/registry/pods/default/${main % 3 === 0 ? 3 : main}`);
        const fields = { key, value, createRevision: main, modRevision: main, version: 1, lease: 0n };
        rows.push([revisionKey(main, 0), encodeKeyValue(fields)]);
      }
      const target = await systemFiles.open(file, "create");
      await writeBolt({ rows: (bucket) => (bucket === "key" ? rows : []) }, target);
      await target.close();
      const sort = rows.reduce((sum, [, row]) => sum + 52 + keyOfKeyValue(row).length, 0);
      for (const to of ["lmdb", "bbolt"] as const) {
        const dataDir = path.join(folder, to);
        await restoreSnapshot(restoreOptions(folder, { dataDir, backend: to, skipHashCheck: true }));
        const made = databaseFile(dataDirPaths(dataDir), to);
        const asked = bytesToWrite({ path: file, from: "bbolt", to });
        const peak = fs.statSync(made).size + (to === "lmdb" ? sort : 0);
        expect(asked, `restore ${to}`).toBeGreaterThanOrEqual(peak);
        expect(asked, `restore ${to}`).toBeLessThan(1.35 * peak + 256 * 1024);
        const other = to === "lmdb" ? "bbolt" : "lmdb";
        const changing = bytesToWrite({ path: made, from: to, to: other });
        await migrateEngine({ dataDir, walDir: "", logger, to: other });
        expect(changing, `migrate ${other}`).toBeGreaterThanOrEqual(
          fs.statSync(databaseFile(dataDirPaths(dataDir), other)).size + (other === "lmdb" ? sort : 0),
        );
      }
      const { snapDir, boltFile } = dataDirPaths(path.join(folder, "lmdb"));
      const filled = bytesToWrite({ path: boltFile, from: "bbolt", to: "bbolt", fill: 0.9 });
      await defragDataDir({ dataDir: path.join(folder, "lmdb"), logger });
      expect(filled).toBeGreaterThanOrEqual(fs.statSync(boltFile).size);
      expect(namesIn(snapDir)).toEqual(["db"]);
    },
  );

  it("a dry run says what would be and changes nothing", async () => {
    const folder = temporaryFolder();
    const dataDir = await writeMember(folder, "lmdb");
    const { backendFile, snapDir } = dataDirPaths(dataDir);
    const before = fs.readFileSync(backendFile);
    const files = new FaultyFiles();
    const dry = { dataDir, logger, files, isDryRun: true } as const;
    expect((await defragDataDir(dry)).beforeBytes).toBe(before.length);
    expect((await migrateEngine({ ...dry, walDir: "", to: "bbolt" })).isChanged).toBe(true);
    expect(await migrateVersion({ ...dry, walDir: "", force: false, target: parseTargetVersion("3.6") })).toMatchObject(
      {
        from: "3.5",
        to: "3.6",
      },
    );
    const other = restoreOptions(folder, { dataDir: path.join(folder, "other"), files, isDryRun: true });
    expect(await restoreSnapshot(other)).toMatchObject({
      revision: 60,
      database: dataDirPaths(other.dataDir).backendFile,
    });
    expect(files.operations).toEqual([]);
    expect(fs.existsSync(other.dataDir)).toBe(false);
    expect(namesIn(snapDir)).toEqual(["db.lmdb"]);
    expect(fs.readFileSync(backendFile).equals(before)).toBe(true);
  });

  it("an interrupted command leaves nothing under a final name", async () => {
    const folder = temporaryFolder();
    const dataDir = await writeMember(folder, "lmdb");
    const { snapDir } = dataDirPaths(dataDir);
    const signal = AbortSignal.abort(new Error("interrupted"));
    await expect(defragDataDir({ dataDir, logger, signal })).rejects.toThrow("interrupted");
    await expect(migrateEngine({ dataDir, walDir: "", logger, to: "bbolt", signal })).rejects.toThrow("interrupted");
    const other = restoreOptions(folder, { dataDir: path.join(folder, "other"), signal });
    await expect(restoreSnapshot(other)).rejects.toThrow("interrupted");
    expect(fs.existsSync(other.dataDir)).toBe(false);
    expect(namesIn(snapDir)).toEqual(["db.lmdb"]);
  });
});
