import { type ChildProcess, fork } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { rolldown } from "rolldown";
import { afterEach, describe, expect, it } from "vitest";
import { compareBytes, keyBytes, keyString, type KeyString, utf8Bytes, utf8Text } from "../../lib/bytes.ts";
import { systemClock, VirtualClock } from "../../lib/clock.ts";
import { silentLogger } from "../../lib/log.ts";
import { BulkLoad } from "./bulk.ts";
import { LmdbBackend, openBackend } from "./backend.ts";
import { Environment } from "./environment.ts";
import type { BackendOptions, BackendReader, ScanOptions, Table } from "./types.ts";

const folders: string[] = [];

function temporaryFolder(): string {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "backend-"));
  folders.push(folder);
  return folder;
}

afterEach(() => {
  for (const folder of folders.splice(0)) fs.rmSync(folder, { recursive: true, force: true });
});

function options(folder: string, more: Partial<BackendOptions> = {}): BackendOptions {
  return {
    path: path.join(folder, "db.lmdb"),
    clock: systemClock,
    logger: silentLogger,
    onFatal: (error) => {
      throw error;
    },
    mapSizeBytes: 2 ** 30,
    ...more,
  };
}

const text = (bytes: Uint8Array | undefined) => bytes && utf8Text(bytes);

function rows(reader: BackendReader, table: Table, scan: ScanOptions = {}): [string, string][] {
  const seen: [string, string][] = [];
  reader.scan(table, scan, (key, value) => {
    seen.push([keyString(key), keyString(value)]);
  });
  return seen;
}

type Model = Map<Table, Map<KeyString, KeyString>>;

function modelRows(model: Model, table: Table, scan: ScanOptions = {}): [string, string][] {
  let all = [...(model.get(table) ?? new Map<KeyString, KeyString>())];
  all.sort((a, b) => compareBytes(keyBytes(a[0]), keyBytes(b[0])));
  if (scan.start) all = all.filter(([key]) => compareBytes(keyBytes(key), scan.start as Uint8Array) >= 0);
  if (scan.end) all = all.filter(([key]) => compareBytes(keyBytes(key), scan.end as Uint8Array) < 0);
  if (scan.reverse) all.reverse();
  return all.slice(0, scan.limit ?? all.length).map(([key, value]) => [key, scan.keysOnly ? "" : value]);
}

const tables: readonly Table[] = ["key", "live", "meta"];
const anyTable = fc.constantFrom(...tables);
const anyKey = fc.oneof(
  fc.uint8Array({ minLength: 1, maxLength: 3 }),
  fc.array(fc.constantFrom(0, 0x61, 0xff), { minLength: 1, maxLength: 4 }).map((bytes) => Uint8Array.from(bytes)),
);
const anyValue = fc.oneof(
  { arbitrary: fc.uint8Array({ maxLength: 8 }), weight: 20 },
  {
    arbitrary: fc.constantFrom(2_030, 5_000, 140_000, 300_000).map((n) => new Uint8Array(n).fill(n & 0xff)),
    weight: 1,
  },
);
const anyScan: fc.Arbitrary<ScanOptions> = fc.record({
  start: fc.option(anyKey, { nil: undefined }),
  end: fc.option(anyKey, { nil: undefined }),
  reverse: fc.boolean(),
  keysOnly: fc.boolean(),
  limit: fc.option(fc.nat(5), { nil: undefined }),
});

type Step =
  | {
      readonly kind: "write";
      readonly table: Table;
      readonly rows: readonly (readonly [Uint8Array, Uint8Array | undefined])[];
    }
  | { readonly kind: "scan"; readonly table: Table; readonly scan: ScanOptions }
  | { readonly kind: "get"; readonly table: Table; readonly key: Uint8Array }
  | { readonly kind: "flush" | "startFlush" | "turn" | "reopen" | "snapshot" | "defragment" | "startDefragment" };

const anyStep: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 10,
    arbitrary: fc.record({
      kind: fc.constant("write" as const),
      table: anyTable,
      rows: fc.array(fc.tuple(anyKey, fc.option(anyValue, { nil: undefined, freq: 3 })), { maxLength: 6 }),
    }),
  },
  { weight: 6, arbitrary: fc.record({ kind: fc.constant("scan" as const), table: anyTable, scan: anyScan }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("get" as const), table: anyTable, key: anyKey }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("startFlush" as const) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("turn" as const) }) },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constantFrom("flush" as const, "reopen" as const, "snapshot" as const, "defragment" as const),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("startDefragment" as const) }) },
);

/** Runs steps against the backend and a plain Map side by side; every read must agree at once. */
async function agree(steps: readonly Step[], commits: "worker" | "inline"): Promise<void> {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "backend-"));
  const opened = options(folder, { commits, batchOperationsMax: 7, batchIntervalMs: 1 });
  let backend = await openBackend(opened);
  const model: Model = new Map(tables.map((table) => [table, new Map()]));
  const pending: Promise<unknown>[] = [];
  const check = (reader: BackendReader, of: Model) => {
    for (const table of tables) {
      expect(rows(reader, table)).toEqual(modelRows(of, table));
      expect(reader.count(table, {})).toBe(of.get(table)?.size);
    }
  };
  try {
    for (const step of steps) {
      switch (step.kind) {
        case "write":
          backend.write((tx) => {
            for (const [key, value] of step.rows) {
              if (value) {
                tx.put(step.table, key, value);
                model.get(step.table)?.set(keyString(key), keyString(value));
              } else {
                tx.delete(step.table, key);
                model.get(step.table)?.delete(keyString(key));
              }
              expect(tx.has(step.table, key)).toBe(value !== undefined);
            }
          });
          break;
        case "scan": {
          expect(rows(backend, step.table, step.scan)).toEqual(modelRows(model, step.table, step.scan));
          const { key, count } = backend.ahead(step.table, step.scan.start, 2);
          expect(count).toBe(modelRows(model, step.table, { start: step.scan.start, end: key }).length);
          expect(backend.count(step.table, step.scan)).toBe(
            modelRows(model, step.table, { start: step.scan.start, end: step.scan.end }).length,
          );
          break;
        }
        case "get": {
          const expected = model.get(step.table)?.get(keyString(step.key));
          const found = backend.get(step.table, step.key);
          expect(found && keyString(found)).toEqual(expected);
          break;
        }
        case "flush":
          await backend.flush();
          break;
        case "startFlush":
          pending.push(backend.flush());
          break;
        case "turn":
          await new Promise((resolve) => setImmediate(resolve));
          break;
        case "reopen":
          await Promise.all(pending.splice(0));
          await backend.close();
          backend = await openBackend(opened);
          break;
        case "snapshot": {
          const snapshot = await backend.openSnapshot();
          const frozen: Model = new Map([...model].map(([table, kept]) => [table, new Map(kept)]));
          check(snapshot, frozen);
          for (const table of tables) {
            for (const start of [undefined, Uint8Array.of(0x61)]) {
              const expected = modelRows(frozen, table, { start });
              for (let n = 0; n <= expected.length; n++) {
                const { key, count } = snapshot.ahead(table, start, n);
                expect(key && keyString(key)).toBe(expected[n]?.[0]);
                expect(count).toBe(n);
              }
            }
          }
          pending.push(
            backend
              .flush()
              .then(() => new Promise((resolve) => setImmediate(resolve)))
              .then(() => check(snapshot, frozen))
              .finally(() => snapshot.close()),
          );
          break;
        }
        case "defragment":
          await backend.defragment();
          break;
        case "startDefragment":
          pending.push(backend.defragment());
      }
      check(backend, model);
    }
    await Promise.all(pending);
    await backend.close();
    backend = await openBackend(opened);
    check(backend, model);
    expect(fs.readdirSync(folder).sort()).toEqual(["db.lmdb", "db.lmdb-lock"]);
  } finally {
    await Promise.allSettled(pending);
    await backend.close();
    fs.rmSync(folder, { recursive: true, force: true });
  }
}

describe("backend", () => {
  it.each(["inline", "worker"] as const)("agrees with a plain map under random steps (%s commits)", async (commits) => {
    await fc.assert(
      fc.asyncProperty(fc.array(anyStep, { maxLength: 40 }), (steps) => agree(steps, commits)),
      { numRuns: commits === "inline" ? 150 : 30 },
    );
  });

  it("write() joins one batch that becomes durable as a whole, and flush() waits for it", async () => {
    const folder = temporaryFolder();
    const clock = new VirtualClock();
    const committed: number[] = [];
    const backend = await openBackend(
      options(folder, { clock, observer: { committed: ({ operations }) => committed.push(operations) } }),
    );
    backend.write((tx) => tx.put("meta", utf8Bytes("a"), utf8Bytes("1")));
    backend.write((tx) => tx.put("meta", utf8Bytes("b"), utf8Bytes("2")));
    expect(text(backend.get("meta", utf8Bytes("a")))).toBe("1");
    await backend.flush();
    expect(committed).toEqual([2]);
    await backend.flush();
    expect(committed).toEqual([2]);
    backend.write((tx) => tx.delete("meta", utf8Bytes("a")));
    clock.advance(100);
    await backend.flush();
    expect(committed).toEqual([2, 1]);
    await backend.close();
  });

  it("rests for thirty intervals after a commit, unless much has gathered", async () => {
    const folder = temporaryFolder();
    const clock = new VirtualClock();
    const committed: number[] = [];
    const observer = { committed: ({ operations }: { operations: number }) => void committed.push(operations) };
    const backend = await openBackend(options(folder, { clock, observer, commits: "inline" }));
    const write = (rows: number) =>
      backend.write((tx) => {
        for (let row = 0; row < rows; row++) tx.put("meta", utf8Bytes(`row ${row}`), utf8Bytes("1"));
      });
    const advance = async (ms: number) => {
      clock.advance(ms);
      await new Promise((resolve) => setImmediate(resolve));
    };
    write(1);
    await advance(100);
    expect(committed).toEqual([1]);
    write(2);
    await advance(2999);
    expect(committed).toEqual([1]);
    await advance(1);
    expect(committed).toEqual([1, 2]);
    write(89_999);
    await advance(100);
    expect(committed).toEqual([1, 2]);
    write(1);
    await advance(0);
    expect(committed).toEqual([1, 2, 90_000]);
    await backend.close();
  });

  it("never hides a committed row while batches come and go", async () => {
    const folder = temporaryFolder();
    const backend = await openBackend(options(folder, { batchOperationsMax: 50, batchIntervalMs: 1 }));
    const key = (n: number) => Buffer.from(String(n).padStart(8, "0"));
    const count = 20_000;
    for (let n = 0; n < count; n++) {
      backend.write((tx) => {
        tx.put("key", key(n), key(n));
        tx.put("meta", utf8Bytes("consistent_index"), key(n));
        if (n >= 1_000) tx.delete("key", key(n - 1_000));
      });
      if (n % 37 === 0) await new Promise((resolve) => setImmediate(resolve));
      // The newest, some that are being committed, and the oldest that is left.
      for (const back of [0, 10, 60, 130, 500, 999]) {
        if (n - back < 0) continue;
        expect(backend.has("key", key(n - back))).toBe(true);
      }
      if (n >= 1_000) expect(backend.has("key", key(n - 1_000))).toBe(false);
      expect(text(backend.peek("meta", utf8Bytes("consistent_index")))).toBe(text(key(n)));
      if (n % 500 === 0) {
        let seen = 0;
        backend.scan("key", { keysOnly: true }, () => {
          seen++;
        });
        expect(seen).toBe(Math.min(n + 1, 1_000));
      }
    }
    await backend.close();
  }, 120_000);

  it("scan() in reverse reaches the smallest possible key", async () => {
    const backend = await openBackend(options(temporaryFolder(), { commits: "inline" }));
    backend.write((tx) => {
      for (const first of [0, 1, 255]) tx.put("live", Uint8Array.of(first), utf8Bytes(String(first)));
    });
    await backend.flush();
    expect(rows(backend, "live", { reverse: true }).map(([, value]) => value)).toEqual(["255", "1", "0"]);
    expect(text(backend.first("live", { reverse: true })?.value)).toBe("255");
    await backend.close();
  });

  it("scan() of a table refuses writes to it from inside", async () => {
    const backend = await openBackend(options(temporaryFolder(), { commits: "inline" }));
    backend.write((tx) => {
      tx.put("key", utf8Bytes("a"), utf8Bytes("1"));
      expect(() =>
        tx.scan("key", {}, (key) => {
          tx.delete("key", key);
        }),
      ).toThrow(/being scanned/);
      tx.scan("key", {}, (key) => {
        tx.put("live", key, key);
      });
    });
    expect(rows(backend, "live")).toEqual([["a", "a"]]);
    await backend.close();
  });

  it("keys longer than LMDB's bound, and empty ones, are refused before they are buffered", async () => {
    const backend = await openBackend(options(temporaryFolder(), { commits: "inline" }));
    backend.write((tx) => {
      tx.put("key", new Uint8Array(1978).fill(1), utf8Bytes("longest"));
      expect(() => tx.put("key", new Uint8Array(1979), utf8Bytes("too long"))).toThrow(/1979 bytes/);
      expect(() => tx.put("key", new Uint8Array(0), utf8Bytes("empty"))).toThrow(/0 bytes/);
    });
    await backend.flush();
    expect(text(backend.get("key", new Uint8Array(1978).fill(1)))).toBe("longest");
    await backend.close();
  });

  it("holds values of ten megabytes", async () => {
    const folder = temporaryFolder();
    const backend = await openBackend(options(folder));
    const big = Buffer.alloc(10 * 1024 * 1024, 7);
    backend.write((tx) => tx.put("key", utf8Bytes("big"), big));
    expect(backend.get("key", utf8Bytes("big"))?.length).toBe(big.length);
    await backend.flush();
    expect(compareBytes(backend.get("key", utf8Bytes("big")) as Uint8Array, big)).toBe(0);
    expect(backend.sizeBytes()).toBeGreaterThan(big.length);
    await backend.close();
  });

  it("a failed commit is told to onFatal once, keeps what was written readable, and flush() rejects", async () => {
    const folder = temporaryFolder();
    const failures: Error[] = [];
    const opened = options(folder, { onFatal: (error) => failures.push(error) });
    const backend = new LmdbBackend(opened, new Environment(opened), {
      commit: () => Promise.reject(new Error("No space left on device")),
      close: () => Promise.resolve(),
    });
    backend.write((tx) => tx.put("meta", utf8Bytes("a"), utf8Bytes("1")));
    await expect(backend.flush()).rejects.toThrow("No space left on device");
    backend.write((tx) => tx.put("meta", utf8Bytes("b"), utf8Bytes("2")));
    await expect(backend.flush()).rejects.toThrow("No space left on device");
    expect(failures.map((error) => error.message)).toEqual([
      `failed to commit to ${path.join(folder, "db.lmdb")}: No space left on device`,
    ]);
    expect(text(backend.get("meta", utf8Bytes("a")))).toBe("1");
    expect(text(backend.get("meta", utf8Bytes("b")))).toBe("2");
    await expect(backend.close()).rejects.toThrow("No space left on device");
  });

  it("pressure() asks to wait when the writer is far behind, and lets go when it has caught up", async () => {
    const folder = temporaryFolder();
    const backend = await openBackend(options(folder, { clock: new VirtualClock() }));
    const value = Buffer.alloc(1024 * 1024);
    expect(backend.pressure()).toBeUndefined();
    for (let n = 0; n < 140; n++) {
      backend.write((tx) => tx.put("key", Buffer.from(String(n)), value));
      const pressure = backend.pressure();
      if (pressure) await pressure;
    }
    await backend.flush();
    expect(backend.pressure()).toBeUndefined();
    expect(rows(backend, "key", { keysOnly: true }).length).toBe(140);
    await backend.close();
  });

  it("a snapshot stays as it was while the table is overwritten and the file is replaced", async () => {
    const folder = temporaryFolder();
    const backend = await openBackend(options(folder));
    const fill = (mark: string) =>
      backend.write((tx) => {
        for (let n = 0; n < 2_000; n++) tx.put("key", Buffer.from(String(n).padStart(5, "0")), Buffer.from(mark));
      });
    fill("old");
    const snapshot = await backend.openSnapshot();
    fill("new");
    await backend.flush();
    await backend.defragment();
    fill("newest");
    await backend.flush();
    const values = new Set(rows(snapshot, "key").map(([, value]) => value));
    expect([...values]).toEqual(["old"]);
    expect(text(backend.get("key", utf8Bytes("00000")))).toBe("newest");
    await backend.close();
    expect(rows(snapshot, "key").length).toBe(2_000);
    const again = await openBackend(options(folder));
    expect(text(again.get("key", utf8Bytes("00000")))).toBe("newest");
    expect(text(snapshot.get("key", utf8Bytes("00000")))).toBe("old");
    await snapshot.close();
    await again.close();
  });

  it("defragment() shrinks the file, keeps every row and serves meanwhile", async () => {
    const folder = temporaryFolder();
    const backend = await openBackend(options(folder));
    const key = (n: number) => Buffer.from(String(n).padStart(6, "0"));
    const value = Buffer.alloc(1000, 1);
    for (let n = 0; n < 20_000; n += 100) {
      backend.write((tx) => {
        for (let i = n; i < n + 100; i++) tx.put("key", key(i), value);
      });
    }
    await backend.flush();
    backend.write((tx) => {
      for (let n = 0; n < 20_000; n++) if (n % 10 !== 0) tx.delete("key", key(n));
    });
    await backend.flush();
    const beforeSize = fs.statSync(path.join(folder, "db.lmdb")).size;
    let isDone = false;
    const defragmented = backend.defragment().finally(() => {
      isDone = true;
    });
    let extra = 0;
    while (!isDone) {
      backend.write((tx) => tx.put("live", key(extra++), value));
      expect(backend.has("key", key(10))).toBe(true);
      expect(backend.has("live", key(extra - 1))).toBe(true);
      await new Promise((resolve) => setImmediate(resolve));
    }
    const { beforeBytes, afterBytes } = await defragmented;
    expect(afterBytes).toBeLessThan(beforeBytes);
    await backend.close();
    const again = await openBackend(options(folder));
    expect(rows(again, "key", { keysOnly: true }).length).toBe(2_000);
    expect(rows(again, "live", { keysOnly: true }).length).toBe(extra);
    await again.close();
    expect(fs.statSync(path.join(folder, "db.lmdb")).size).toBeLessThan(beforeSize);
  });

  it.each(["worker", "inline"] as const)(
    "replaceWith() puts another state in place, durably and in one turn (%s)",
    async (commits) => {
      const folder = temporaryFolder();
      const other = path.join(folder, "received.lmdb");
      const load = new BulkLoad(other, { mapSizeBytes: 2 ** 30 });
      load.write((target) => target.put("key", utf8Bytes("n"), utf8Bytes("new")));
      await load.finish();
      const backend = await openBackend(options(folder, { commits }));
      backend.write((tx) => tx.put("key", utf8Bytes("a"), utf8Bytes("durable")));
      const snapshot = await backend.openSnapshot();
      backend.write((tx) => tx.put("key", utf8Bytes("b"), utf8Bytes("buffered")));
      await expect(backend.replaceWith(path.join(folder, "missing.lmdb"))).rejects.toThrow("no such file");
      const seen: string[][] = [];
      let isDone = false;
      const watching = (async () => {
        while (!isDone) {
          seen.push(rows(backend, "key").map(([key]) => key));
          await new Promise((resolve) => setImmediate(resolve));
        }
      })();
      await backend.replaceWith(other);
      expect(rows(backend, "key")).toEqual([["n", "new"]]);
      isDone = true;
      await watching;
      expect(new Set(seen.map((keys) => keys.join()))).toEqual(new Set(["a,b"]));
      expect(rows(snapshot, "key")).toEqual([["a", "durable"]]);
      backend.write((tx) => tx.put("key", utf8Bytes("o"), utf8Bytes("later")));
      await backend.flush();
      snapshot.close();
      await backend.defragment();
      await backend.close();
      expect(fs.readdirSync(folder).sort()).toEqual(["db.lmdb", "db.lmdb-lock"]);
      const again = await openBackend(options(folder));
      expect(rows(again, "key").map(([key]) => key)).toEqual(["n", "o"]);
      await again.close();
    },
  );

  it("a defragmentation that fails leaves the backend as it was", async () => {
    const folder = temporaryFolder();
    const backend = await openBackend(options(folder));
    backend.write((tx) => tx.put("key", utf8Bytes("a"), utf8Bytes("1")));
    // A directory stands where the new file would be made.
    fs.mkdirSync(path.join(folder, "db.lmdb.tmp.1"));
    await expect(backend.defragment()).rejects.toThrow();
    backend.write((tx) => tx.put("key", utf8Bytes("b"), utf8Bytes("2")));
    await backend.flush();
    expect(rows(backend, "key")).toEqual([
      ["a", "1"],
      ["b", "2"],
    ]);
    await backend.defragment();
    await backend.close();
    fs.rmdirSync(path.join(folder, "db.lmdb.tmp.1"));
    const again = await openBackend(options(folder));
    expect(rows(again, "key").length).toBe(2);
    await again.close();
  });

  it("openBackend() removes what a killed defragmentation left behind", async () => {
    const folder = temporaryFolder();
    for (const name of ["db.lmdb.tmp.1", "db.lmdb.tmp.1-lock", "db.lmdb.tmp.77"]) {
      fs.writeFileSync(path.join(folder, name), "left over");
    }
    const backend = await openBackend(options(folder));
    expect(fs.readdirSync(folder).sort()).toEqual(["db.lmdb", "db.lmdb-lock"]);
    expect(fs.statSync(path.join(folder, "db.lmdb")).mode & 0o777).toBe(0o600);
    await backend.close();
  });

  it("keeps what was flushed, and whole batches only, when the process is killed", async () => {
    const folder = temporaryFolder();
    const writer = await bundledWriter();
    for (let round = 0; round < 8; round++) {
      const { flushed } = await killedWriter(writer, folder, {
        killAfter: 20 + round * 45,
        defragments: round % 2 === 1,
      });
      const backend = await openBackend(options(folder));
      const last = Number(text(backend.get("meta", utf8Bytes("consistent_index"))) ?? "0");
      expect(last).toBeGreaterThanOrEqual(flushed);
      // Each write n put rows n in two tables and the index; so all rows up to the index are there, and none beyond.
      const seen = rows(backend, "key", { keysOnly: true }).map(([key]) => Number(key));
      expect(seen.length).toBe(last);
      expect(seen.at(-1) ?? 0).toBe(last);
      expect(rows(backend, "live", { keysOnly: true }).length).toBe(last);
      await backend.close();
    }
    fs.rmSync(writer);
  }, 120_000);
});

/** Bundles the writer for a process of its own: source in TypeScript does not run on every Node that we support. */
async function bundledWriter(): Promise<string> {
  const root = fileURLToPath(new URL("../../../../../", import.meta.url));
  const file = path.join(root, "node_modules", ".cache", "etcd-ts-tests", `backend-crash-writer-${process.pid}.mjs`);
  const build = await rolldown({
    input: fileURLToPath(new URL("./testing/crash-writer.ts", import.meta.url)),
    platform: "node",
    external: [/^node:/, "lmdb"],
    logLevel: "silent",
  });
  await build.write({ file, format: "esm" });
  await build.close();
  return file;
}

/** Starts a writer process on the folder, kills it after `writes` flushes, and says what it had called durable. */
async function killedWriter(
  writer: string,
  folder: string,
  { killAfter, defragments }: { readonly killAfter: number; readonly defragments: boolean },
): Promise<{ flushed: number }> {
  const child: ChildProcess = fork(writer, [path.join(folder, "db.lmdb"), String(defragments)], {
    stdio: ["ignore", "inherit", "inherit", "ipc"],
  });
  let flushed = 0;
  let messages = 0;
  await new Promise<void>((resolve, reject) => {
    child.on("message", (message) => {
      flushed = message as number;
      if (++messages === killAfter) child.kill("SIGKILL");
    });
    child.once("error", reject);
    child.once("exit", () => resolve());
  });
  expect(messages).toBeGreaterThanOrEqual(killAfter);
  return { flushed };
}

describe("a write that throws", () => {
  it("keeps its half, and all that is not frozen yet, out of the file for good", async () => {
    const folder = temporaryFolder();
    const backend = await openBackend(options(folder, { commits: "inline", batchIntervalMs: 3_600_000 }));
    backend.write((tx) => tx.put("meta", utf8Bytes("durable"), utf8Bytes("1")));
    await backend.flush();
    expect(() =>
      backend.write((tx) => {
        tx.put("meta", utf8Bytes("half"), utf8Bytes("1"));
        throw new Error("the other half cannot be written");
      }),
    ).toThrow("other half");
    await expect(backend.flush()).rejects.toThrow("other half");
    await backend.close().catch(() => {});
    const again = await openBackend(options(folder, { commits: "inline" }));
    expect(rows(again, "meta")).toEqual([["durable", "1"]]);
    await again.close();
  });
});
