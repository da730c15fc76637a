import fs from "node:fs";
import path from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { keyString, utf8Bytes } from "../../lib/bytes.ts";
import { systemClock } from "../../lib/clock.ts";
import { BoltWriter, openBolt } from "../bolt/index.ts";
import { writeBolt } from "../testing/write-bolt.ts";
import { Entry } from "../../pb/raftpb.ts";
import { keyOfKeyValue } from "../schema/key-value.ts";
import { dataDirPaths } from "../data-dir.ts";
import { systemFiles } from "../file-system.ts";
import { lockDataDir } from "../lock.ts";
import { ListCursor } from "../rows.ts";
import { decodeV2Store, encodeKeyValue, revisionKey } from "../schema/index.ts";
import { SnapStore } from "../snap/index.ts";
import { FaultyFiles } from "../testing/faulty-files.ts";
import { createWal, openWal, readWal, validSnapshots } from "../wal/index.ts";
import { databaseFile } from "./member-dir.ts";
import { bytesToWrite } from "./space.ts";
import { inspectFile, inspectInThreads, SortThread } from "./tasks.ts";
import {
  backupDataDir,
  defragDataDir,
  migrateEngine,
  migrateVersion,
  parseTargetVersion,
  restoreSnapshot,
  saveSnapshot,
  snapshotHashKv,
  snapshotStatus,
  verifyDataDir,
} from "./index.ts";
import {
  boltContent,
  checkRestored,
  keyRows,
  logger,
  namesIn,
  openInline,
  otherRows,
  plain,
  type Rows,
  removeFolders,
  restoreOptions,
  temporaryFolder,
  writeLmdb,
  writeMember,
  writeSnapshotFile,
} from "../testing/small-members.ts";

afterEach(removeFolders);

describe("defragDataDir()", () => {
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

describe("restoreSnapshot()", () => {
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

describe("a thread that sorts", () => {
  it("leaves no file behind, whether all was taken from it or not", async () => {
    const base = path.join(temporaryFolder(), "db");
    const rows: Rows = [];
    for (let main = 2; main < 24_000; main++) {
      const key = Buffer.alloc(1_600, String(main));
      const fields = { key, createRevision: main, modRevision: main, version: 1, lease: 0n };
      rows.push([revisionKey(main, 0), encodeKeyValue({ ...fields, value: Buffer.of(1) })]);
    }
    for (const takesAll of [true, false]) {
      const thread = new SortThread(base);
      for (const cursor = new ListCursor(rows); cursor.next(); ) await thread.add(cursor);
      let count = (await thread.more()) ? 1 : 0;
      // More than its memory holds.
      expect(fs.statSync(`${base}.keys`).size).toBeGreaterThan(0);
      if (takesAll) {
        while (thread.next() || (await thread.more())) count++;
        expect(count).toBe(rows.length);
      }
      await thread.stop();
      expect(fs.existsSync(`${base}.keys`)).toBe(false);
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

describe("migrateEngine()", () => {
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
    "%s: goes to 3.6 and back, and knows when there is nothing to do",
    async (backend) => {
      const dataDir = await writeMember(temporaryFolder(), backend);
      const file = databaseFile(dataDirPaths(dataDir), backend);
      const start = snapshotStatus(file);
      const up = { dataDir, walDir: "", logger, force: false, target: parseTargetVersion("3.6") };
      expect((await migrateVersion(up)).isChanged).toBe(true);
      expect(snapshotStatus(file).totalKey).toBe(start.totalKey + 1);
      expect((await migrateVersion(up)).isChanged).toBe(false);
      await migrateVersion({ ...up, target: parseTargetVersion("3.5") });
      expect(snapshotStatus(file).hash).toBe(start.hash);
      await expect(migrateVersion({ ...up, target: parseTargetVersion("3.7") })).rejects.toThrow(
        'cannot create migration plan: version "3.7.0" is not supported',
      );
    },
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
    "%s: restore finds the hash and takes the file, as one that etcdctl saved",
    async (backend) => {
      const folder = temporaryFolder();
      const dataDir = await writeMember(folder, backend);
      const snapshotPath = path.join(folder, "saved.db");
      await saveSnapshot({ dataDir, snapshotPath, logger });
      await restoreSnapshot(restoreOptions(folder, { snapshotPath, dataDir: path.join(folder, "again") }));
    },
  );
});

describe("backupDataDir() into a directory", () => {
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
    const again = backupDataDir(options).catch((thrown: Error) => Promise.reject(thrown.cause ?? thrown));
    await expect(again).rejects.toThrow(/to be empty/);
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
