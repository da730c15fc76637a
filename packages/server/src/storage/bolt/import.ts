/** An LMDB backend made of a bbolt file: a snapshot that a leader sent, a restore, a migration from real etcd. */
import fs from "node:fs";
import { assert } from "../../lib/assert.ts";
import { BulkLoad } from "../backend/bulk.ts";
import { BUCKETS } from "../backend/index.ts";
import type { FileSystem } from "../file-system.ts";
import { indexKeyRow, writeIndexMarker } from "../schema/index-rows.ts";
import { nameKey } from "../schema/names.ts";
import { mainOfRevisionKey, REVISION_BYTES } from "../schema/revision.ts";
import { BoltError } from "./format.ts";
import { openBolt } from "./reader.ts";
import type { BucketRows } from "./types.ts";

/** Rows and bytes of one transaction, and so of one stretch without letting other work in: some ten milliseconds. */
const PIECE_ROWS_MAX = 2_000;
const PIECE_BYTES_MAX = 4 * 1024 * 1024;

/** Written bytes that may wait for the disk: less than what would make the WAL wait behind them. */
const UNPUSHED_BYTES_MAX = 8 * 1024 * 1024;

export interface ImportOptions {
  readonly boltPath: string;
  /** Must not exist. Built under a temporary name beside it, which is overwritten when present. */
  readonly backendPath: string;
  readonly signal?: AbortSignal | undefined;
  readonly mapSizeBytes?: number | undefined;
}

export interface Imported {
  /** Main revision of the newest row of `key`; 1 when there is none. */
  readonly revision: number;
  /** Rows of etcd's buckets. */
  readonly rows: number;
}

/** Throws {@link BoltError} when the file is not a sound bbolt file; then nothing is left at `backendPath`. */
export async function importBolt(options: ImportOptions): Promise<Imported> {
  const { boltPath, backendPath } = options;
  assert(!fs.existsSync(backendPath), () => `importBolt: ${backendPath} exists`);
  const source = openBolt(boltPath);
  try {
    return await importRows(source, options);
  } finally {
    source.close();
  }
}

/** The same of rows from anywhere. A file at `backendPath` is replaced, at the very end. */
export async function importRows(
  source: BucketRows,
  options: Omit<ImportOptions, "boltPath"> & { readonly files?: FileSystem | undefined },
): Promise<Imported> {
  const load = new BulkLoad(options.backendPath, options);
  try {
    const imported = await copyBuckets(source, load, options.signal);
    load.write(writeIndexMarker);
    await load.finish();
    return imported;
  } catch (error) {
    await load.abandon();
    throw error;
  }
}

async function copyBuckets(source: BucketRows, load: BulkLoad, signal: AbortSignal | undefined): Promise<Imported> {
  let revision = 1;
  let count = 0;
  let unpushedBytes = 0;
  for (const bucket of BUCKETS) {
    const rows = source.rows(bucket)[Symbol.iterator]();
    for (let more = true; more; ) {
      signal?.throwIfAborted();
      more = load.write((target) => {
        let bytes = 0;
        for (let n = 0; n < PIECE_ROWS_MAX && bytes < PIECE_BYTES_MAX; n++) {
          const next = rows.next();
          if (next.done) return false;
          const [key, value] = next.value;
          if (bucket === "key") {
            if (key.length < REVISION_BYTES) throw new BoltError(`bucket "key": a revision of ${key.length} bytes`);
            target.append("key", key, value);
            indexKeyRow(target, key, value);
            revision = mainOfRevisionKey(key);
          } else {
            target.put(bucket, bucket === "authUsers" || bucket === "authRoles" ? nameKey(key) : key, value);
          }
          bytes += key.length + value.length;
          count++;
        }
        unpushedBytes += bytes;
        return true;
      });
      if (unpushedBytes >= UNPUSHED_BYTES_MAX) {
        unpushedBytes = 0;
        await load.push();
      } else await new Promise((resolve) => setImmediate(resolve));
    }
  }
  return { revision, rows: count };
}
