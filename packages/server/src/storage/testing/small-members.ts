/**
 * Small members and snapshots for the tests of the offline commands: a few dozen rows of every kind, in either kind of
 * file, and what a whole member made of them has to look like.
 */
import { createHash } from "node:crypto";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { expect } from "vitest";
import { keyString, utf8Bytes } from "../../lib/bytes.ts";
import { systemClock } from "../../lib/clock.ts";
import { silentLogger } from "../../lib/log.ts";
import { BulkLoad } from "../backend/bulk.ts";
import { type Backend, openBackend, type Table } from "../backend/index.ts";
import { openBolt, summarize } from "../bolt/index.ts";
import { writeBolt } from "./write-bolt.ts";
import { dataDirPaths } from "../data-dir.ts";
import { systemFiles } from "../file-system.ts";
import { type RestoreOptions, restoreSnapshot } from "../offline/index.ts";
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
import { openWal, readWal, validSnapshots } from "../wal/index.ts";
import { FaultyFiles } from "./faulty-files.ts";

const folders: string[] = [];

export function temporaryFolder(): string {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "offline-"));
  folders.push(folder);
  return folder;
}

/** All that `temporaryFolder` made; after each test. */
export function removeFolders(): void {
  for (const folder of folders.splice(0)) fs.rmSync(folder, { recursive: true, force: true });
}

export const logger = silentLogger;

export type Rows = [Uint8Array, Uint8Array][];

/** Rows of a small store: puts, overwrites, a tombstone, a lease, and a value that needs pages of its own. */
export function keyRows(): Rows {
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

export const otherRows: ReadonlyMap<string, Rows> = new Map([
  ["lease", [[Buffer.from("0000000000000007", "hex"), Buffer.from("0807103c", "hex")]]],
  ["members", [[utf8Bytes("abc"), utf8Bytes('{"id":2748}')]]],
  ["meta", [[utf8Bytes("consistent_index"), Buffer.from("0000000000000063", "hex")]]],
]);

const source = { rows: (bucket: string): Rows => (bucket === "key" ? keyRows() : (otherRows.get(bucket) ?? [])) };

export async function writeSnapshotFile(file: string, withHash = true): Promise<void> {
  const target = await systemFiles.open(file, "create");
  await writeBolt(source, target);
  await target.close();
  if (withHash) fs.appendFileSync(file, createHash("sha256").update(fs.readFileSync(file)).digest());
}

export async function writeLmdb(file: string): Promise<void> {
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

export function openInline(file: string): Promise<Backend> {
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
export async function lmdbContent(file: string): Promise<string[]> {
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

export function boltContent(file: string): string[] {
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
export const plain = (): FaultyFiles => new FaultyFiles();

export function restoreOptions(folder: string, more: Partial<RestoreOptions> = {}): RestoreOptions {
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
export async function checkRestored(
  dataDir: string,
  walDir: string | undefined,
  kind: "lmdb" | "bbolt",
): Promise<void> {
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

/** A stopped member with either kind of database. */
export async function writeMember(folder: string, backend: "lmdb" | "bbolt"): Promise<string> {
  const options = restoreOptions(folder, { backend });
  if (!fs.existsSync(options.snapshotPath)) await writeSnapshotFile(options.snapshotPath);
  fs.rmSync(options.dataDir, { recursive: true, force: true });
  await restoreSnapshot({ ...options, files: plain() });
  return options.dataDir;
}

export const namesIn = (dir: string): string[] =>
  fs.readdirSync(dir).filter((name) => !name.endsWith(".snap") && !name.endsWith("-lock"));
