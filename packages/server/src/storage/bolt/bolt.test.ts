import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { afterEach, describe, expect, it, vi } from "vitest";
import { assert } from "../../lib/assert.ts";
import { compareBytes, keyString, utf8Bytes } from "../../lib/bytes.ts";
import { systemClock } from "../../lib/clock.ts";
import { silentLogger } from "../../lib/log.ts";
import { type Backend, BUCKETS, openBackend } from "../backend/index.ts";
import { type FileSystem, systemFiles } from "../file-system.ts";
import { decodeLmdbMeta, encodeLmdbMetaPage } from "../lmdb/format.ts";
import { ListCursor } from "../rows.ts";
import { encodeKeyValue, hasIndexMarker, nameKey, revisionKey, tombstoneKey } from "../schema/index.ts";
import {
  BoltWriter,
  type ExportOptions,
  exportBolt,
  hashKeyValues,
  importBolt,
  importBoltInWorker,
  importRows,
  openBolt,
  summarize,
} from "./index.ts";
import { BoltImage, type ImageSource } from "./image.ts";

const folders: string[] = [];

function temporaryFolder(): string {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "bolt-"));
  folders.push(folder);
  return folder;
}

afterEach(() => {
  for (const folder of folders.splice(0)) fs.rmSync(folder, { recursive: true, force: true });
});

const shared = fileURLToPath(new URL("../../../../../../shared/", import.meta.url));
const fixture = (name: string) => path.join(shared, "conformance", "fixtures", name);
const hasFixtures = fs.existsSync(fixture("small.db"));
const realBin = process.env["ETCD_REAL_BIN"];

type Buckets = readonly (readonly [name: string, rows: readonly (readonly [Uint8Array, Uint8Array])[]])[];

function writeFile(file: string, buckets: Buckets, options: { pageSizeBytes?: number; fill?: number } = {}): number {
  const descriptor = fs.openSync(file, "w");
  const writer = new BoltWriter(
    { write: (bytes, position) => void fs.writeSync(descriptor, bytes, 0, bytes.length, position) },
    options,
  );
  for (const [name, rows] of buckets) {
    const bucket = writer.bucket(name);
    for (const [key, value] of rows) bucket.put(key, value);
    bucket.finish();
  }
  const size = writer.finish();
  fs.closeSync(descriptor);
  return size;
}

function readAll(file: string): [string, [string, string][]][] {
  const bolt = openBolt(file);
  try {
    return bolt.buckets.map((name) => [name, [...bolt.rows(name)].map(([k, v]) => [keyString(k), keyString(v)])]);
  } finally {
    bolt.close();
  }
}

const counted = (count: number, valueBytes = 20): (readonly [Uint8Array, Uint8Array])[] =>
  Array.from({ length: count }, (_, n) => [
    Buffer.from(String(n).padStart(8, "0")),
    Buffer.alloc(n % 97 === 0 ? valueBytes * 450 : valueBytes, n & 0xff),
  ]);

describe("bolt writer and reader", () => {
  it("what is written in one pass is read back row by row, and passes the integrity check", () => {
    const folder = temporaryFolder();
    const anyRows = fc
      .uniqueArray(fc.uint8Array({ minLength: 1, maxLength: 12 }), { maxLength: 120, selector: keyString })
      .chain((keys) =>
        fc.tuple(
          ...keys
            .sort(compareBytes)
            .map((key) =>
              fc
                .oneof(
                  { weight: 9, arbitrary: fc.nat(60) },
                  { weight: 1, arbitrary: fc.constantFrom(900, 4_000, 20_000) },
                )
                .map((length) => [key, Buffer.alloc(length, key[0])] as const),
            ),
        ),
      );
    fc.assert(
      fc.property(
        fc.array(anyRows, { maxLength: 4 }),
        fc.constantFrom(2048, 4096, 16_384),
        fc.constantFrom(0.5, 0.9, 1),
        (tables, pageSizeBytes, fill) => {
          const file = path.join(folder, "x.db");
          const buckets = tables.map((rows, n) => [`bucket${n}`, rows] as const);
          const size = writeFile(file, buckets, { pageSizeBytes, fill });
          const bolt = openBolt(file);
          expect(bolt.check()).toEqual([]);
          expect(bolt.sizeBytes).toBe(size);
          expect(bolt.pageSizeBytes).toBe(pageSizeBytes);
          expect(fs.statSync(file).size).toBe(size);
          for (const [name, rows] of buckets) {
            expect([...bolt.rows(name)].map(([k, v]) => [keyString(k), v.length])).toEqual(
              rows.map(([k, v]) => [keyString(k), v.length]),
            );
            for (const [index, [key]] of rows.entries()) {
              expect(bolt.get(name, key)).toEqual(Buffer.from(rows[index]?.[1] ?? []));
              const next = [...bolt.rows(name, Buffer.concat([key, Uint8Array.of(0)]))][0]?.[0];
              expect(next && keyString(next)).toBe(rows[index + 1] && keyString(rows[index + 1]?.[0] as Uint8Array));
            }
          }
          bolt.close();
        },
      ),
      { numRuns: 60 },
    );
  });

  it("trees of several levels never have a branch with a single child", () => {
    const folder = temporaryFolder();
    // Sizes around the point where one more leaf opens a new branch.
    for (const count of [1, 2, 39, 40, 41, 80, 1_599, 1_600, 1_601, 5_000]) {
      const file = path.join(folder, "x.db");
      writeFile(file, [["key", counted(count)]], { pageSizeBytes: 1024 });
      const bolt = openBolt(file);
      expect(bolt.check()).toEqual([]);
      expect([...bolt.rows("key")].length).toBe(count);
      expect(branchCounts(file, 1024).filter((children) => children < 2)).toEqual([]);
      bolt.close();
    }
  });

  it("refuses keys out of order, empty keys and keys above bbolt's bound", () => {
    const writer = new BoltWriter({ write: () => {} });
    const bucket = writer.bucket("key");
    bucket.put(utf8Bytes("b"), utf8Bytes(""));
    expect(() => bucket.put(utf8Bytes("a"), utf8Bytes(""))).toThrow(/out of order/);
    expect(() => bucket.put(utf8Bytes("b"), utf8Bytes(""))).toThrow(/out of order/);
    expect(() => bucket.put(new Uint8Array(0), utf8Bytes(""))).toThrow(/0 bytes/);
    expect(() => bucket.put(new Uint8Array(32_769).fill(255), utf8Bytes(""))).toThrow(/32769 bytes/);
  });

  it("a single flipped bit is never read silently: it is refused, or the rows are as they were", () => {
    const folder = temporaryFolder();
    const file = path.join(folder, "x.db");
    writeFile(
      file,
      [
        ["key", counted(200)],
        ["meta", [[utf8Bytes("consistent_index"), Buffer.alloc(8, 1)]]],
      ],
      { pageSizeBytes: 1024 },
    );
    const image = fs.readFileSync(file);
    const whole = JSON.stringify(readAll(file));
    fc.assert(
      fc.property(fc.nat(image.length - 1), fc.nat(7), (at, bit) => {
        const damaged = Buffer.from(image);
        damaged[at] = (damaged[at] as number) ^ (1 << bit);
        fs.writeFileSync(file, damaged);
        let seen: string | undefined;
        try {
          const bolt = openBolt(file);
          const problems = bolt.check();
          bolt.close();
          if (problems.length > 0) return;
          seen = JSON.stringify(readAll(file));
        } catch (error) {
          expect((error as Error).name).toBe("BoltError");
          return;
        }
        // Pages have no checksums, so a bit inside a key or value that keeps the order goes through; not more than that.
        if (seen !== whole) expect(differingBits(whole, seen)).toBe(true);
      }),
      { numRuns: 400 },
    );
  });

  it("a file that is cut short is refused, whatever the cut", () => {
    const folder = temporaryFolder();
    const file = path.join(folder, "x.db");
    writeFile(file, [["key", counted(300)]]);
    const image = fs.readFileSync(file);
    for (const length of [0, 100, 4095, 4096, 8192, 8200, image.length - 4096, image.length - 1]) {
      fs.writeFileSync(file, image.subarray(0, length));
      expect(() => openBolt(file), `${length} bytes`).toThrow(/invalid database|truncated|file size too small/);
    }
  });

  it("uses the second meta page when the first is damaged, and bbolt's words when both are", () => {
    const folder = temporaryFolder();
    const file = path.join(folder, "x.db");
    writeFile(file, [["key", counted(10)]]);
    const image = fs.readFileSync(file);
    const damage = (...places: number[]) => {
      const damaged = Buffer.from(image);
      for (const place of places) damaged[place] = (damaged[place] as number) ^ 0xff;
      fs.writeFileSync(file, damaged);
    };
    damage(30);
    const bolt = openBolt(file);
    expect(bolt.transactionId).toBe(1n);
    expect([...bolt.rows("key")].length).toBe(10);
    bolt.close();
    damage(16, 4096 + 16);
    expect(() => openBolt(file)).toThrow("invalid database");
    damage(20, 4096 + 20);
    expect(() => openBolt(file)).toThrow("version mismatch");
    damage(40, 4096 + 40);
    expect(() => openBolt(file)).toThrow("checksum error");
  });
});

/** Numbers of children of every branch page of a file. */
function branchCounts(file: string, pageSizeBytes: number): number[] {
  const image = fs.readFileSync(file);
  const counts: number[] = [];
  for (let at = 2 * pageSizeBytes; at < image.length; ) {
    if (image.readUInt16LE(at + 8) === 1) counts.push(image.readUInt16LE(at + 10));
    at += (image.readUInt32LE(at + 12) + 1) * pageSizeBytes;
  }
  return counts;
}

/** Whether two readings have the same shape, so that they can only differ inside of keys and values. */
function differingBits(whole: string, seen: string): boolean {
  const shape = (text: string) =>
    (JSON.parse(text) as [string, [string, string][]][]).map(([, rows]) => rows.map(([k, v]) => [k.length, v.length]));
  const totals = (text: string) => shape(text).map((rows) => rows.length);
  return JSON.stringify(totals(whole)) === JSON.stringify(totals(seen));
}

describe.skipIf(!hasFixtures)("bbolt files of real etcd", () => {
  it("hash, revision, number of keys and size are what the real snapshot status says", () => {
    const read = (name: string) => {
      const bolt = openBolt(fixture(name));
      const summary = { ...summarize(bolt), sizeBytes: bolt.sizeBytes, problems: bolt.check() };
      bolt.close();
      return summary;
    };
    expect(read("small.db")).toEqual({
      hash: 2956112165,
      revision: 7,
      totalKeys: 12,
      sizeBytes: 20480,
      problems: [],
    });
    expect(read("history.db")).toEqual({
      hash: 3044794628,
      revision: 53,
      totalKeys: 52,
      sizeBytes: 36864,
      problems: [],
    });
    expect(read("v34.db").problems).toEqual([]);
  });

  it("hashKeyValues() equals the real HashKV after a compaction", () => {
    const bolt = openBolt(fixture("history.db"));
    expect(hashKeyValues(bolt, 0, 20)).toEqual({ hash: 2425295157, hashRevision: 53, compactRevision: 20 });
    expect(() => hashKeyValues(bolt, 19, 20)).toThrow(/compacted/);
    expect(() => hashKeyValues(bolt, 54, 20)).toThrow(/future/);
    bolt.close();
  });

  it.each(["small.db", "history.db", "v34.db"])(
    "%s survives the way through LMDB and back, row by row",
    async (name) => {
      const folder = temporaryFolder();
      const backendPath = path.join(folder, "db.lmdb");
      const imported = await importBolt({ boltPath: fixture(name), backendPath });
      expect(fs.readdirSync(folder)).toEqual(["db.lmdb"]);
      const backend = await openInline(backendPath);
      expect(hasIndexMarker(backend)).toBe(true);
      const out = path.join(folder, "out.db");
      await save(backend, out);
      await backend.close();
      expect(fs.readdirSync(folder).sort()).toEqual(["db.lmdb", "db.lmdb-lock", "out.db"]);
      const bolt = openBolt(out);
      const original = openBolt(fixture(name));
      expect(bolt.check()).toEqual([]);
      expect(summarize(bolt).revision).toBe(imported.revision);
      for (const bucket of original.buckets) {
        expect([...bolt.rows(bucket)].map(([k, v]) => [keyString(k), keyString(v)])).toEqual(
          [...original.rows(bucket)].map(([k, v]) => [keyString(k), keyString(v)]),
        );
      }
      bolt.close();
      original.close();
    },
  );
});

describe("an image made as it is sent", () => {
  /** Rows in memory; `lie` makes the first pass see other lengths than the second. */
  class Rows implements ImageSource {
    readonly #rows: ReadonlyMap<string, readonly (readonly [Uint8Array, Uint8Array])[]>;
    readonly #lie: number;

    constructor(buckets: Buckets, lie = 0) {
      this.#rows = new Map(buckets);
      this.#lie = lie;
    }

    cursor(bucket: string): ListCursor {
      return new ListCursor(this.#rows.get(bucket) ?? []);
    }

    eachSize(bucket: string, visit: (keyBytes: number, valueBytes: number) => void): void {
      for (const [key, value] of this.#rows.get(bucket) ?? []) visit(key.length, value.length + this.#lie);
    }
  }

  function take(image: BoltImage, chunkBytes: number): Buffer {
    const chunks: Buffer[] = [];
    const file = image.writeTo({
      memory: () => Buffer.alloc(chunkBytes, 0xee),
      filled: (chunk) => {
        chunks.push(chunk);
      },
    });
    while (!file.next().done);
    for (const chunk of chunks.slice(0, -1)) expect(chunk.length).toBe(chunkBytes);
    return Buffer.concat(chunks);
  }

  it("is the file that the writer makes, whatever the rows and however it is cut", () => {
    const folder = temporaryFolder();
    const lengths = fc.oneof(
      { weight: 20, arbitrary: fc.nat(60) },
      { weight: 4, arbitrary: fc.constantFrom(300, 900, 4_000) },
      { weight: 1, arbitrary: fc.constantFrom(4_064, 4_065, 20_000, 150_000) },
    );
    const anyRows = fc
      .tuple(fc.constantFrom(3, 40, 700), fc.array(lengths, { maxLength: 300 }))
      .map(([keyBytes, values]) =>
        values.map(
          (length, n) => [Buffer.alloc(keyBytes, String(n).padStart(3, "0")), Buffer.alloc(length, n)] as const,
        ),
      );
    fc.assert(
      fc.property(
        fc.array(anyRows, { maxLength: 4 }),
        fc.constantFrom(2048, 4096, 16_384),
        fc.constantFrom(0.5, 0.9, 1),
        fc.constantFrom(1, 3, 64),
        (tables, pageSizeBytes, fill, pagesPerChunk) => {
          const file = path.join(folder, "x.db");
          const buckets = tables.map((rows, n) => [`bucket${n}`, rows] as const);
          writeFile(file, buckets, { pageSizeBytes, fill });
          const names = buckets.map(([name]) => name);
          const image = new BoltImage(new Rows(buckets), names, { pageSizeBytes, fill });
          const bytes = take(image, pagesPerChunk * pageSizeBytes);
          expect(image.sizeBytes).toBe(bytes.length);
          expect(bytes.equals(fs.readFileSync(file))).toBe(true);
        },
      ),
      { numRuns: 100 },
    );
  });

  it("is never finished when the rows are not those that were measured", () => {
    const names = ["key"];
    const longer = new BoltImage(new Rows([["key", counted(3_000)]], -10), names);
    expect(() => take(longer, 65_536)).toThrow("rows that are longer than they were");
    const [more, fewer] = [counted(3_000), counted(2_990)];
    for (const [measured, read] of [
      [more, fewer],
      [fewer, more],
    ] as const) {
      const [first, second] = [new Rows([["key", measured]]), new Rows([["key", read]])];
      const source: ImageSource = {
        cursor: (bucket) => second.cursor(bucket),
        eachSize: (bucket, visit) => first.eachSize(bucket, visit),
      };
      expect(() => take(new BoltImage(source, names), 65_536)).toThrow(/rows/);
    }
  });

  it("has the rows of a backend that was written to at random, old pages, long values and all", async () => {
    const folder = temporaryFolder();
    const backend = await openInline(path.join(folder, "db.lmdb"));
    const steps = fc.array(
      fc.record({
        table: fc.constantFrom("key", "lease", "meta", "authUsers", "live" as const),
        key: fc.uint8Array({ minLength: 1, maxLength: 30 }),
        bytes: fc.oneof(fc.nat(80), fc.constantFrom(1_900, 2_040, 5_000, 70_000)),
        isDeleted: fc.boolean(),
        flushes: fc.nat(5).map((n) => n === 0),
      }),
      { minLength: 20, maxLength: 120 },
    );
    await fc.assert(
      fc.asyncProperty(steps, async (all) => {
        for (const { table, key, bytes, isDeleted, flushes } of all) {
          backend.write((tx) => {
            if (isDeleted) tx.delete(table, key);
            else tx.put(table, key, Buffer.alloc(bytes, key[0]));
          });
          if (flushes) await backend.flush();
        }
        const out = path.join(folder, "out.db");
        await save(backend, out);
        const bolt = openBolt(out);
        expect(bolt.check()).toEqual([]);
        for (const bucket of BUCKETS) {
          const rows: [string, string][] = [];
          backend.scan(bucket, {}, (key, value) => {
            rows.push([keyString(key), keyString(value)]);
          });
          expect([...bolt.rows(bucket)].map(([key, value]) => [keyString(key), keyString(value)])).toEqual(rows);
        }
        bolt.close();
      }),
      { numRuns: 12 },
    );
    await backend.close();
  });
});

function openInline(file: string): Promise<Backend> {
  return openBackend({
    path: file,
    clock: systemClock,
    logger: silentLogger,
    commits: "inline",
    onFatal: (error) => {
      throw error;
    },
  });
}

/** Writes the image of a backend to `file`; gives its size. */
async function save(backend: Backend, file: string, options?: ExportOptions): Promise<number> {
  await using image = await exportBolt(backend, { isInline: true, ...options });
  fs.writeFileSync(file, "");
  for await (const chunk of image.chunks()) fs.appendFileSync(file, chunk);
  expect(fs.statSync(file).size).toBe(image.sizeBytes);
  return image.sizeBytes;
}

describe("exportBolt() and importBolt()", () => {
  it("long user names are stored under a short key and exported under their own, in order", async () => {
    const folder = temporaryFolder();
    const backend = await openInline(path.join(folder, "db.lmdb"));
    const stem = "n".repeat(3_000);
    const names = [`${stem}c`, `${stem}a`, "short", `${stem}b`, "n".repeat(1_977), "z"].map((name) => utf8Bytes(name));
    const record = (name: Uint8Array) =>
      Buffer.concat([Uint8Array.of(0x0a), varint(name.length), name, Uint8Array.of(0x22, 0)]);
    backend.write((tx) => {
      for (const name of names) tx.put("authUsers", nameKey(name), record(name));
    });
    const out = path.join(folder, "out.db");
    await save(backend, out);
    const bolt = openBolt(out);
    expect([...bolt.rows("authUsers")].map(([key]) => keyString(key))).toEqual(names.map(keyString).sort());
    bolt.close();
    const again = path.join(folder, "again.lmdb");
    await importBolt({ boltPath: out, backendPath: again });
    const imported = await openInline(again);
    for (const name of names) expect(imported.get("authUsers", nameKey(name))).toBeDefined();
    await imported.close();
    await backend.close();
  });

  it("an import is never far ahead of the disk", async () => {
    const folder = temporaryFolder();
    const file = path.join(folder, "x.db");
    const rows = Array.from({ length: 3_000 }, (_, n) => {
      const [revision, value] = [n + 2, Buffer.alloc(6_000, n)];
      const about = { createRevision: revision, modRevision: revision, version: 1, lease: 0n };
      return [revisionKey(revision, 0), encodeKeyValue({ key: utf8Bytes(`key${n}`), value, ...about })] as const;
    });
    writeFile(file, [["key", rows]]);
    const backendPath = path.join(folder, "db.lmdb");
    const sizes: number[] = [];
    const files: FileSystem = {
      ...systemFiles,
      async open(name, mode, permissions) {
        const opened = await systemFiles.open(name, mode, permissions);
        const { datasync } = opened;
        opened.datasync = async () => {
          sizes.push(await opened.size());
          await datasync.call(opened);
        };
        return opened;
      },
    };
    const source = openBolt(file);
    await importRows(source, { backendPath, files });
    source.close();
    expect(sizes.length).toBeGreaterThanOrEqual(2);
    for (const [n, size] of sizes.entries()) expect(size - (sizes[n - 1] ?? 0)).toBeLessThan(24 * 1024 * 1024);
    expect(fs.readdirSync(folder).sort()).toEqual(["db.lmdb", "x.db"]);
    const backend = await openInline(backendPath);
    expect(backend.count("key", {})).toBe(3_000);
    await backend.close();
  });

  it("a damaged file leaves nothing behind", async () => {
    const folder = temporaryFolder();
    const file = path.join(folder, "x.db");
    writeFile(file, [["key", counted(5_000)]]);
    const image = fs.readFileSync(file);
    image.fill(0xff, 40 * 4096, 41 * 4096);
    fs.writeFileSync(file, image);
    await expect(importBolt({ boltPath: file, backendPath: path.join(folder, "db.lmdb") })).rejects.toThrow(
      /page|bucket/,
    );
    expect(fs.readdirSync(folder)).toEqual(["x.db"]);
  });

  it("in threads of their own give the same files, whoever writes meanwhile", async () => {
    const folder = temporaryFolder();
    const backendPath = path.join(folder, "db.lmdb");
    const backend = await openInline(backendPath);
    backend.write((tx) => {
      for (let n = 2; n < 9_000; n++) tx.put("key", revisionKey(n, 0), row(n));
    });
    const [here, there] = [path.join(folder, "here.db"), path.join(folder, "there.db")];
    await save(backend, here);
    const image = await exportBolt(backend, { wantsHash: true });
    // From here on all of the file's pages are given up, several times over.
    const pieces: Buffer[] = [];
    for await (const chunk of image.chunks()) {
      pieces.push(Buffer.from(chunk));
      backend.write((tx) => {
        for (let n = 2; n < 9_000; n++) tx.put("key", revisionKey(n, 0), row(n + pieces.length));
      });
      await backend.flush();
    }
    fs.writeFileSync(there, Buffer.concat(pieces));
    expect(fs.readFileSync(there).equals(fs.readFileSync(here))).toBe(true);
    expect(Buffer.from(image.sha256())).toEqual(createHash("sha256").update(fs.readFileSync(here)).digest());
    await image.close();

    const again = path.join(folder, "again.lmdb");
    const imported = await importBoltInWorker({ boltPath: there, backendPath: again });
    expect(imported).toEqual({ revision: 8_999, rows: 8_998 });
    const copy = await openInline(again);
    expect(copy.get("key", revisionKey(4_711, 0))).toEqual(Buffer.from(row(4_711)));
    await copy.close();
    fs.truncateSync(there, 40 * 4096);
    const damaged = importBoltInWorker({ boltPath: there, backendPath: path.join(folder, "damaged.lmdb") });
    await expect(damaged).rejects.toThrow(/page|file/);
    await backend.close();
    expect(fs.readdirSync(folder).sort()).toEqual([
      ...["again.lmdb", "again.lmdb-lock", "db.lmdb", "db.lmdb-lock", "here.db", "there.db"],
    ]);
  });

  it("an image is of the newest state, though a commit is at a meta page when it is read", async () => {
    const folder = temporaryFolder();
    const backendPath = path.join(folder, "db.lmdb");
    const backend = await openInline(backendPath);
    for (const n of [2, 3, 4]) {
      backend.write((tx) => tx.put("key", revisionKey(n, 0), row(n)));
      await backend.flush();
    }
    const head = fs.readFileSync(backendPath).subarray(0, 8_192);
    const [first, second] = [0, 4_096].map((at) => decodeLmdbMeta(head.subarray(at, at + 4_096)));
    assert(first && second, "two meta pages");
    const [old, newest] = first.transaction < second.transaction ? [first, second] : [second, first];
    const place = newest === first ? 0 : 4_096;
    // The number of the new one has come to where the roots of the one before the last still are.
    const torn = encodeLmdbMetaPage(place / 4_096, 4_096, { ...old, transaction: newest.transaction });
    const { readSync } = fs;
    let tornReads = 0;
    const spy = vi.spyOn(fs, "readSync").mockImplementation(((...args: Parameters<typeof readSync>) => {
      const [, into, offset, length, position] = args as unknown as [number, Buffer, number, number, number];
      if (position !== place || tornReads > 0) return readSync(...args);
      tornReads++;
      return torn.copy(into, offset, 0, length);
    }) as typeof readSync);
    const out = path.join(folder, "out.db");
    try {
      await save(backend, out);
    } finally {
      spy.mockRestore();
    }
    expect(tornReads).toBe(1);
    const bolt = openBolt(out);
    expect([...bolt.rows("key")].length).toBe(3);
    bolt.close();
    await backend.close();
  });

  it("an image goes on through a defragmentation, and after its backend was closed", async () => {
    const folder = temporaryFolder();
    const backendPath = path.join(folder, "db.lmdb");
    const backend = await openInline(backendPath);
    backend.write((tx) => {
      for (let n = 2; n < 9_000; n++) tx.put("key", revisionKey(n, 0), row(n));
    });
    const before = path.join(folder, "before.db");
    await save(backend, before);
    const image = await exportBolt(backend);
    const pieces: Buffer[] = [];
    for await (const chunk of image.chunks()) {
      pieces.push(Buffer.from(chunk));
      if (pieces.length === 1) {
        backend.write((tx) => {
          for (let n = 2; n < 9_000; n++) tx.delete("key", revisionKey(n, 0));
        });
        await backend.defragment();
      }
      if (pieces.length === 3) await backend.close();
    }
    expect(pieces.length).toBeGreaterThan(4);
    expect(Buffer.concat(pieces).equals(fs.readFileSync(before))).toBe(true);
    await image.close();
    await image.close();
  });

  it("end early when they are told to, and let go of the backend", async () => {
    const folder = temporaryFolder();
    const backend = await openInline(path.join(folder, "db.lmdb"));
    backend.write((tx) => {
      for (let n = 2; n < 9_000; n++) tx.put("key", revisionKey(n, 0), row(n));
    });
    // More at once than threads are started for: some wait, and all of them end.
    const stop = new AbortController();
    const stopped = Array.from({ length: 20 }, () => exportBolt(backend, { signal: stop.signal }));
    stop.abort(new Error("enough"));
    for (const result of await Promise.allSettled(stopped)) {
      expect(result).toMatchObject({ status: "rejected", reason: { message: "enough" } });
    }
    for (const isInline of [false, true]) {
      const between = new AbortController();
      const image = await exportBolt(backend, { signal: between.signal, isInline });
      const cut = (async () => {
        for await (const _chunk of image.chunks()) between.abort(new Error("hung up"));
      })();
      await expect(cut).rejects.toThrow("hung up");
      await image.close();
      const closed = await exportBolt(backend, { isInline });
      const chunks = closed.chunks()[Symbol.asyncIterator]();
      await chunks.next();
      await closed.close();
      await expect(chunks.next()).rejects.toThrow("the image is closed");
    }
    // What was made already and is not taken ends in the same way, not as if that were all.
    for (const end of ["abort", "close"] as const) {
      const stopped = new AbortController();
      const image = await exportBolt(backend, { signal: stopped.signal, wantsHash: true });
      const chunks = image.chunks()[Symbol.asyncIterator]();
      await chunks.next();
      await vi.waitFor(() => image.sha256(), 30_000);
      if (end === "abort") stopped.abort(new Error("hung up"));
      else await image.close();
      await expect(chunks.next()).rejects.toThrow(end === "abort" ? "hung up" : "the image is closed");
      await image.close();
    }
    // All turns were given back.
    await (await exportBolt(backend)).close();
    await backend.close();
    await expect(exportBolt(backend)).rejects.toThrow("after close");
  });

  it("a row that the disk bent ends the image, in a thread of its own or not", async () => {
    const folder = temporaryFolder();
    const backendPath = path.join(folder, "db.lmdb");
    const backend = await openInline(backendPath);
    const value = utf8Bytes("the value that a disk bends");
    backend.write((tx) => {
      for (let n = 2; n < 9_000; n++) tx.put("key", revisionKey(n, 0), n === 8_000 ? value : row(n));
    });
    await backend.close();
    const bytes = fs.readFileSync(backendPath);
    for (let at = bytes.indexOf(value); at >= 0; at = bytes.indexOf(value, at + 1)) {
      bytes[at] = (bytes[at] as number) ^ 1;
    }
    fs.writeFileSync(backendPath, bytes);
    const again = await openInline(backendPath);
    for (const isInline of [true, false]) {
      await using image = await exportBolt(again, { isInline });
      const taken = (async () => {
        for await (const _chunk of image.chunks());
      })();
      await expect(taken).rejects.toThrow(/is damaged: its checksum is wrong/);
    }
    await again.close();
  });

  it.skipIf(!realBin)("the real etcdutl finds the same hash in what we export, and its check passes", async () => {
    const folder = temporaryFolder();
    const backend = await openInline(path.join(folder, "db.lmdb"));
    for (let from = 2; from < 60_000; from += 1_000) {
      backend.write((tx) => {
        for (let n = from; n < from + 1_000; n++) {
          tx.put("key", n % 10 === 9 ? tombstoneKey(n, 0) : revisionKey(n, 0), row(n));
        }
      });
    }
    backend.write((tx) => tx.put("meta", utf8Bytes("consistent_index"), Buffer.alloc(8, 1)));
    const out = path.join(folder, "out.db");
    const sizeBytes = await save(backend, out);
    const bolt = openBolt(out);
    const { hash, totalKeys } = summarize(bolt);
    bolt.close();
    const status = execFileSync(path.join(realBin ?? "", "etcdutl"), ["snapshot", "status", out, "-w", "json"]);
    expect(JSON.parse(status.toString("utf8"))).toEqual({
      hash,
      totalKey: totalKeys,
      revision: 60_001,
      totalSize: sizeBytes,
    });
    await backend.close();
  });
});

const row = (n: number) =>
  encodeKeyValue({
    key: Buffer.from(`key${n % 5_000}`),
    createRevision: n,
    modRevision: n,
    version: 1,
    value: Buffer.alloc(n % 500 === 0 ? 9_000 : 120, n & 0xff),
    lease: 0n,
  });

function varint(value: number): Buffer {
  const bytes: number[] = [];
  for (let rest = value; ; rest >>>= 7) {
    if (rest < 0x80) {
      bytes.push(rest);
      return Buffer.from(bytes);
    }
    bytes.push((rest & 0x7f) | 0x80);
  }
}
