/** Random data dirs through the tools: what comes out is what went in, and damage is named. */
import { createHash } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import fc from "fast-check";
import { afterEach, describe, expect, it } from "vitest";
import { utf8Bytes } from "../../lib/bytes.ts";
import { systemClock } from "../../lib/clock.ts";
import { silentLogger as logger } from "../../lib/log.ts";
import { User } from "../../pb/authpb.ts";
import { Lease } from "../../pb/leasepb.ts";
import { Entry } from "../../pb/raftpb.ts";
import { TABLES } from "../backend/types.ts";
import { BoltError, type Row } from "../bolt/index.ts";
import { writeBolt } from "../testing/write-bolt.ts";
import { dataDirPaths } from "../data-dir.ts";
import { systemFiles } from "../file-system.ts";
import { LmdbFile } from "../lmdb/walk.ts";
import {
  encodeKeyValue,
  encodeTombstone,
  INDEX_MARKER_KEY,
  indexKeyRow,
  revisionKey,
  tombstoneKey,
} from "../schema/index.ts";
import { FaultyFiles } from "../testing/faulty-files.ts";
import { openInline, removeFolders, temporaryFolder } from "../testing/small-members.ts";
import { openWal, readWal } from "../wal/index.ts";
import { migrateEngine, restoreSnapshot, snapshotStatus, verifyDataDir } from "./index.ts";
import { openStore } from "./store.ts";

afterEach(removeFolders);

interface Change {
  readonly key: Uint8Array;
  readonly value: Uint8Array | null;
  readonly lease: bigint;
  readonly joins: boolean;
}

/** Keys of any bytes, some that share long beginnings, some far beyond what LMDB takes as a key. */
const keys = fc.oneof(
  { weight: 6, arbitrary: fc.uint8Array({ minLength: 1, maxLength: 6, max: 3 }) },
  { weight: 2, arbitrary: fc.uint8Array({ minLength: 1, maxLength: 60 }) },
  {
    weight: 2,
    arbitrary: fc
      .tuple(fc.constantFrom(900, 1_915, 1_930, 1_940, 2_100), fc.uint8Array({ minLength: 1, maxLength: 3, max: 2 }))
      .map(([length, end]) => Buffer.concat([Buffer.alloc(length, length % 2), end])),
  },
  { weight: 1, arbitrary: fc.constantFrom(70_000, 1_000_000).map((length) => Buffer.alloc(length, 7)) },
);

const changes: fc.Arbitrary<Change[]> = fc.array(
  fc.record({
    key: keys,
    value: fc.option(
      fc.oneof(
        fc.uint8Array({ maxLength: 40 }),
        fc.constantFrom(2_000, 2_030, 5_000, 20_000).map((n) => new Uint8Array(n).fill(9)),
      ),
      { freq: 4 },
    ),
    lease: fc.constantFrom(0n, 0n, 7n, 0x7fff_ffff_ffff_ffffn),
    joins: fc.boolean(),
  }),
  { minLength: 1, maxLength: 60 },
);

/** The rows of `key` that a server would have after these changes and a compaction. */
function rowsOf(history: readonly Change[], compactAt: number): Row[] {
  const rows: { main: number; key: Uint8Array; row: Row; isTombstone: boolean }[] = [];
  const present = new Map<string, { create: number; version: number }>();
  let main = 1;
  let sub = 0;
  for (const { key, value, lease, joins } of history) {
    const name = Buffer.from(key).toString("latin1");
    const before = present.get(name);
    if (value === null && !before) continue;
    if (
      joins &&
      main > 1 &&
      rows.at(-1)?.main === main &&
      !rows.some((r) => r.main === main && Buffer.compare(r.key, key) === 0)
    )
      sub++;
    else {
      main++;
      sub = 0;
    }
    if (value === null) {
      present.delete(name);
      rows.push({ main, key, row: [tombstoneKey(main, sub), encodeTombstone(key)], isTombstone: true });
      continue;
    }
    const now = before ? { create: before.create, version: before.version + 1 } : { create: main, version: 1 };
    present.set(name, now);
    const fields = { key, value, lease, createRevision: now.create, modRevision: main, version: now.version };
    rows.push({ main, key, row: [revisionKey(main, sub), encodeKeyValue(fields)], isTombstone: false });
  }
  const kept = rows.filter((row, i) => {
    if (row.main > compactAt) return true;
    const isNewest = !rows
      .slice(i + 1)
      .some((later) => later.main <= compactAt && Buffer.compare(later.key, row.key) === 0);
    return isNewest && (!row.isTombstone || row.main === compactAt);
  });
  return kept.map(({ row }) => row);
}

async function writeSnapshot(file: string, key: readonly Row[], compactAt: number): Promise<void> {
  const id = (n: bigint) => {
    const bytes = Buffer.alloc(8);
    bytes.writeBigInt64BE(n);
    return bytes;
  };
  const users = ["root", "u".repeat(1_977), "u".repeat(1_978), `${"u".repeat(2_500)}b`, `${"u".repeat(2_500)}a`];
  const buckets: Record<string, Row[]> = {
    key: [...key],
    lease: [7n, 0x7fff_ffff_ffff_ffffn].map((n): Row => [id(n), Lease.encode({ id: n, ttl: 60 })]),
    auth: [
      [utf8Bytes("authEnabled"), Uint8Array.of(1)],
      [utf8Bytes("authRevision"), id(9n)],
    ],
    authUsers: users.sort().map((name): Row => [utf8Bytes(name), User.encode({ name: utf8Bytes(name) })]),
    meta: [
      [utf8Bytes("consistent_index"), id(1n)],
      [utf8Bytes("finishedCompactRev"), revisionKey(compactAt, 0)],
      [utf8Bytes("scheduledCompactRev"), revisionKey(compactAt, 0)],
      [utf8Bytes("term"), id(1n)],
    ],
  };
  const target = await systemFiles.open(file, "create");
  await writeBolt({ rows: (bucket) => buckets[bucket] ?? [] }, target);
  await target.close();
  fs.appendFileSync(file, createHash("sha256").update(fs.readFileSync(file)).digest());
}

async function restored(folder: string, backend: "lmdb" | "bbolt"): Promise<string> {
  const dataDir = path.join(folder, "data");
  fs.rmSync(dataDir, { recursive: true, force: true });
  await restoreSnapshot({
    snapshotPath: path.join(folder, "s.db"),
    dataDir,
    walDir: "",
    name: "a",
    initialCluster: "a=http://127.0.0.1:1",
    initialClusterToken: "t",
    initialAdvertisePeerUrls: "http://127.0.0.1:1",
    skipHashCheck: false,
    bumpRevision: 0n,
    markCompacted: false,
    initialMemoryMapSize: 0n,
    backend,
    logger,
    files: new FaultyFiles(),
  });
  return dataDir;
}

function digestOf(file: string, kind: "lmdb" | "bbolt", bucket: string): string {
  const store = openStore(file, kind);
  const hash = createHash("sha256");
  for (const rows = store.cursor(bucket); rows.next(); ) {
    hash.update(`${rows.key.length} ${rows.value.length} `).update(rows.key).update(rows.value);
  }
  store.close();
  return hash.digest("hex");
}

/** What indexKeyRow, row by row, makes of `key`: the way in which the server itself rebuilds the tables. */
function expectedIndex(key: readonly Row[]): Map<string, Map<string, string>> {
  const tables = new Map(["live", "past", "leased"].map((name): [string, Map<string, string>] => [name, new Map()]));
  const name = (bytes: Uint8Array) => Buffer.from(bytes).toString("latin1");
  const rows = {
    get: (table: string, rowKey: Uint8Array) => {
      const value = tables.get(table)?.get(name(rowKey));
      return value === undefined ? undefined : Buffer.from(value, "latin1");
    },
    put: (table: string, rowKey: Uint8Array, value: Uint8Array) =>
      void tables.get(table)?.set(name(rowKey), name(value)),
    delete: (table: string, rowKey: Uint8Array) => void tables.get(table)?.delete(name(rowKey)),
  };
  for (const [rowKey, value] of key) indexKeyRow(rows, rowKey, value);
  return tables;
}

describe("random data dirs", () => {
  it("survive lmdb -> bbolt -> lmdb bit for bit, and their index is what the server would make", async () => {
    await fc.assert(
      fc.asyncProperty(changes, fc.nat({ max: 40 }), async (history, compactAt) => {
        const folder = temporaryFolder();
        const key = rowsOf(history, compactAt);
        await writeSnapshot(path.join(folder, "s.db"), key, compactAt);
        const dataDir = await restored(folder, "lmdb");
        const { backendFile, boltFile } = dataDirPaths(dataDir);
        const digest = digestOf(backendFile, "lmdb", "key");
        expect(digest).toBe(digestOf(path.join(folder, "s.db"), "bbolt", "key"));
        const { hash } = snapshotStatus(backendFile);
        await migrateEngine({ dataDir, walDir: "", logger, to: "bbolt", files: new FaultyFiles() });
        expect(digestOf(boltFile, "bbolt", "key")).toBe(digest);
        expect(snapshotStatus(boltFile).hash).toBe(hash);
        await migrateEngine({ dataDir, walDir: "", logger, to: "lmdb", files: new FaultyFiles() });
        expect(digestOf(backendFile, "lmdb", "key")).toBe(digest);
        expect(snapshotStatus(backendFile).hash).toBe(hash);
        const index = expectedIndex(key);
        const file = new LmdbFile(backendFile);
        for (const [table, expected] of index) {
          const found = new Map<string, string>();
          for (const rows = file.rawCursor(table); rows.next(); ) {
            if (table === "past" && rows.key.length === 1) continue;
            found.set(rows.key.toString("latin1"), rows.value.toString("latin1"));
          }
          expect(found).toEqual(expected);
        }
        file.close();
        const { verdict, findings } = await verifyDataDir({ dataDir, walDir: "" });
        expect([verdict, findings.filter(({ severity }) => severity !== "note")]).toEqual(["clean", []]);
        fs.rmSync(folder, { recursive: true });
      }),
      { numRuns: 12 },
    );
  }, 300_000);
});

/** All rows that LMDB itself finds, as the server would serve them. */
async function served(dataDir: string): Promise<string> {
  const backend = await openInline(dataDirPaths(dataDir).backendFile);
  const hash = createHash("sha256");
  for (const table of TABLES) {
    backend.scan(table, {}, (key, value) => {
      hash.update(`${table} ${key.length} ${value.length} `).update(key).update(value);
    });
    // Look-ups take another way down the tree than scans.
    const some: Uint8Array[] = [];
    backend.scan(table, { keysOnly: true }, (key) => void some.push(key));
    for (const key of some) hash.update(backend.get(table, key) ?? "absent");
  }
  await backend.close();
  return hash.digest("hex");
}

async function logContent(dataDir: string): Promise<string> {
  const { entries, hardState, metadata } = await readWal(dataDirPaths(dataDir).walDir, { index: 0, term: 0 });
  return JSON.stringify([entries, hardState, Buffer.from(metadata)], (_key, value) =>
    typeof value === "bigint" ? value.toString() : value,
  );
}

function fixture(): Row[] {
  const history: Change[] = [];
  for (let i = 0; i < 300; i++) {
    history.push({
      key: utf8Bytes(`key-${(i * 7) % 40}`),
      value: i % 11 === 10 ? null : new Uint8Array(i % 50 === 49 ? 6_000 : 20 + (i % 60)).fill(i),
      lease: i % 9 === 0 ? 7n : 0n,
      joins: i % 5 === 0,
    });
  }
  return rowsOf(history, 100);
}

/** Changes one bit, asks, and puts the bit back. */
async function withFlippedBit<T>(file: string, bit: number, ask: () => Promise<T>): Promise<T> {
  const at = Math.floor(bit / 8);
  const fd = fs.openSync(file, "r+");
  const byte = Buffer.alloc(1);
  fs.readSync(fd, byte, 0, 1, at);
  const before = byte[0] as number;
  fs.writeSync(fd, Uint8Array.of(before ^ (1 << (bit % 8))), 0, 1, at);
  try {
    return await ask();
  } finally {
    fs.writeSync(fd, Uint8Array.of(before), 0, 1, at);
    fs.closeSync(fd);
  }
}

/** For a longer look than a run of all tests can afford: ETCD_TS_FLIPS=5000. */
const FLIPS = process.env["ETCD_TS_FLIPS"] === undefined ? undefined : Number(process.env["ETCD_TS_FLIPS"]);
const FLIPS_LIMIT_MS = 300_000 + (FLIPS ?? 0) * 2_000;

/** Entries of all sizes behind those that restore wrote, in several segments. */
async function writeLog(walDir: string): Promise<void> {
  const options = { clock: systemClock, logger, segmentBytes: 4_096 };
  const { wal } = await openWal(walDir, { index: 1, term: 1 }, options);
  for (let index = 2; index < 60; index++) {
    const data = Buffer.alloc((index * 37) % 600, index);
    await wal.save({ term: 1 + (index >> 4), vote: 1n, commit: index - 1 }, [
      Entry.create({ term: 1 + (index >> 4), index, data }),
    ]);
  }
  await wal.close();
}

/** Where the records of a segment end and its zeros begin. */
function writtenBytes(file: string): number {
  const bytes = fs.readFileSync(file);
  let end = bytes.length;
  while (end > 0 && bytes[end - 1] === 0) end--;
  return end;
}

describe("a flipped bit", () => {
  it(
    "in any file of a data dir is named, or changes nothing that is served",
    async () => {
      const folder = temporaryFolder();
      await writeSnapshot(path.join(folder, "s.db"), fixture(), 100);
      const dataDir = await restored(folder, "lmdb");
      const { backendFile, snapDir, walDir } = dataDirPaths(dataDir);
      // Some commits of the server's kind, so that there are old pages and free ones.
      const backend = await openInline(backendFile);
      for (let i = 0; i < 6; i++) {
        backend.write((tx) => {
          for (let n = 0; n < 20; n++)
            tx.put(
              "lease",
              Buffer.from(`0000000${i}000000${10 + n}`, "hex"),
              Lease.encode({ id: BigInt(`0x${i}000000${10 + n}`), ttl: 5 }),
            );
        });
        await backend.flush();
      }
      await backend.close();
      await writeLog(walDir);
      const [whole, log] = [await served(dataDir), await logContent(dataDir)];
      expect((await verifyDataDir({ dataDir, walDir: "" })).verdict).toBe("clean");
      const segments = fs.readdirSync(walDir).filter((name) => name.endsWith(".wal"));
      expect(segments.length).toBeGreaterThan(2);
      // All that is written, and some of the zeros behind it.
      const logged = segments.map((name) => {
        const file = path.join(walDir, name);
        return { file, bytes: Math.min(fs.statSync(file).size, writtenBytes(file) + 64) };
      });
      const snap = path.join(snapDir, fs.readdirSync(snapDir).find((name) => name.endsWith(".snap")) as string);
      const pages = fs.statSync(backendFile).size / 4_096;
      const places: fc.Arbitrary<{ file: string; bit: number }> = fc.oneof(
        { weight: 3, arbitrary: fc.nat({ max: pages * 4_096 * 8 - 1 }).map((bit) => ({ file: backendFile, bit })) },
        // Headers are where the numbers are that LMDB trusts.
        {
          weight: 3,
          arbitrary: fc
            .tuple(fc.nat({ max: pages - 1 }), fc.nat({ max: 199 }), fc.nat({ max: 7 }))
            .map(([page, byte, b]) => ({ file: backendFile, bit: (page * 4_096 + byte) * 8 + b })),
        },
        {
          weight: 3,
          arbitrary: fc
            .tuple(fc.constantFrom(...logged), fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }))
            .map(([{ file, bytes }, share]) => ({ file, bit: Math.floor(share * bytes * 8) })),
        },
        { weight: 1, arbitrary: fc.nat({ max: fs.statSync(snap).size * 8 - 1 }).map((bit) => ({ file: snap, bit })) },
      );
      const markerBit = 8 * fs.readFileSync(backendFile).indexOf(INDEX_MARKER_KEY);
      await fc.assert(
        fc.asyncProperty(places, async ({ file, bit }) => {
          await withFlippedBit(file, bit, async () => {
            const { verdict, findings } = await verifyDataDir({ dataDir, walDir: "" });
            if (verdict !== "clean") return;
            // The mark of a whole index is damaged: a server makes the tables anew before it serves them.
            if (findings.some(({ problem }) => problem === "the index is not complete")) return;
            expect(await served(dataDir)).toBe(whole);
            expect(await logContent(dataDir)).toBe(log);
          });
          fs.rmSync(`${backendFile}-lock`, { force: true });
        }),
        { numRuns: FLIPS ?? 150, examples: [[{ file: backendFile, bit: markerBit }]] },
      );
    },
    FLIPS_LIMIT_MS,
  );

  it(
    "in a snapshot is refused by restore; in a stopped etcd's own database status gives another hash, or names it",
    async () => {
      const folder = temporaryFolder();
      const file = path.join(folder, "s.db");
      await writeSnapshot(file, fixture(), 100);
      const size = fs.statSync(file).size;
      await fc.assert(
        fc.asyncProperty(fc.nat({ max: size * 8 - 1 }), async (bit) => {
          await withFlippedBit(file, bit, async () => {
            await expect(restored(folder, "lmdb")).rejects.toThrow(/sha256|damaged|invalid|error/);
          });
          expect(fs.existsSync(path.join(folder, "data"))).toBe(false);
        }),
        { numRuns: FLIPS ?? 25 },
      );
      const dataDir = await restored(folder, "bbolt");
      const { boltFile } = dataDirPaths(dataDir);
      const { hash } = snapshotStatus(boltFile);
      const content = (): string[] =>
        ["key", "lease", "meta", "members", "auth", "authUsers"].map((bucket) => digestOf(boltFile, "bbolt", bucket));
      const whole = content();
      await fc.assert(
        fc.asyncProperty(fc.nat({ max: fs.statSync(boltFile).size * 8 - 1 }), async (bit) => {
          await withFlippedBit(boltFile, bit, async () => {
            let now: number;
            try {
              now = snapshotStatus(boltFile).hash;
            } catch {
              return;
            }
            if (now !== hash) return;
            let found: string[];
            try {
              found = content();
            } catch (error) {
              // Whoever reads the rows names it.
              expect(error).toBeInstanceOf(BoltError);
              return;
            }
            expect(found).toEqual(whole);
          });
        }),
        // Bits 0 and 1 of a row's flags: that it is a bucket, and one that nobody reads.
        { numRuns: FLIPS ?? 60, examples: [[1_053_192], [1_053_193]] },
      );
    },
    FLIPS_LIMIT_MS,
  );
});
