/**
 * The LMDB environment: how the file is opened, and how the rows of a layer are written to it in one transaction.
 * Shared by the thread that reads and the worker that writes; within a process both use the same mapping.
 */
import fs from "node:fs";
import { type Database, open, type RootDatabase } from "lmdb";
import { assert } from "../../lib/assert.ts";
import { crc32c } from "../../lib/crc32c.ts";
import { BatchRows, NO_VALUE } from "./batch-rows.ts";
import { SUM_BYTES, SUMS_MARK, sumBytesOf } from "./sums.ts";
import { TABLES } from "./types.ts";

/** A table; stored values have `sumBytes` of checksum behind them, which are no part of the row. */
export type Store = Database<Uint8Array, Uint8Array> & { readonly sumBytes: number };

/** What lmdb has beyond its published types. */
interface Unpublished {
  resetReadTxn(): void;
}

/**
 * Of a store, too: how a key comes into the buffer of a write instruction, from `at` on; gives its end. And a value may be a
 * part of a larger buffer, from `start` to `end`.
 */
type WriteKey = (key: unknown, target: Uint8Array, at: number) => number;
type PartOfBuffer = Buffer & { start?: number; end?: number };
type PutSync = (key: number, value: Uint8Array, options?: { readonly append: boolean }) => boolean;

export interface EnvironmentOptions {
  readonly path: string;
  readonly noSync?: boolean | undefined;
  readonly mapSizeBytes?: number | undefined;
}

/** Sizes in pages of the file as the last commit left it. */
export interface FileSizes {
  readonly fileBytes: number;
  readonly inUseBytes: number;
}

/** Only behind the last row of the table; false otherwise. */
const APPEND = { append: true } as const;

const DEFAULT_MAP_SIZE_BYTES = 2 ** 38;

export class Environment {
  readonly root: RootDatabase<Uint8Array, Uint8Array>;
  /** By the index of the table in `TABLES`. */
  readonly stores: readonly Store[];
  /** Whether rows of etcd's buckets carry checksums: all files but those made before there were any. */
  readonly hasSums: boolean;
  /** Of this very file, whatever its name becomes: for those who read its pages while a read transaction pins them. */
  readonly descriptor: number;

  constructor(options: EnvironmentOptions) {
    this.root = open<Uint8Array, Uint8Array>({
      path: options.path,
      encoding: "binary",
      keyEncoding: "binary",
      // A plain LMDB commit: visible and durable are one moment.
      overlappingSync: false,
      noSync: options.noSync ?? false,
      noSubdir: true,
      maxDbs: TABLES.length + 4,
      maxReaders: 1024,
      mapSize: options.mapSizeBytes ?? DEFAULT_MAP_SIZE_BYTES,
      permissionsMode: 0o600,
    } as Parameters<typeof open>[0]) as RootDatabase<Uint8Array, Uint8Array>;
    this.descriptor = fs.openSync(options.path, "r");
    // One transaction for all of them: in a new file each would cost a sync of its own.
    const openStore = (name: string) =>
      this.root.openDB<Uint8Array, Uint8Array>({ name, encoding: "binary", keyEncoding: "binary" });
    this.hasSums = this.root.transactionSync(() => {
      const names = [...this.root.getKeys()].map((name) => Buffer.from(name).toString("latin1"));
      if (names.length === 0) openStore(SUMS_MARK);
      return names.length === 0 || names.includes(`${SUMS_MARK}\0`);
    }, 2);
    this.stores = this.root.transactionSync(
      () => TABLES.map((name) => Object.assign(openStore(name), { sumBytes: sumBytesOf(name, this.hasSums) })),
      2,
    );
  }

  /** The next read sees what other threads have committed, at once instead of at the next turn of the event loop. */
  renew(): void {
    (this.root as unknown as Unpublished).resetReadTxn();
  }

  sizes(): FileSizes {
    return fileSizes(this);
  }

  /**
   * Writes the rows of a layer in one durable transaction, each table in key order. Returns the number of rows written.
   * Throws when LMDB refuses; nothing is written then.
   */
  commit(chunks: readonly Uint8Array[], used: readonly number[]): number {
    const batch = new BatchRows(chunks, used);
    return this.root.transactionSync(() => {
      let count = 0;
      for (let table = 0; table < this.stores.length; table++)
        count += writeTable(this.stores[table] as Store, batch, table);
      return count;
    }, 2);
  }

  /** The descriptor last, and by another thread: with it a big file that has no name any more is given up. */
  async close(): Promise<void> {
    await this.root.close();
    await new Promise<void>((resolve) => fs.close(this.descriptor, () => resolve()));
  }
}

interface DbStats {
  readonly pageSize: number;
  readonly treeBranchPageCount: number;
  readonly treeLeafPageCount: number;
  readonly overflowPages: number;
}

interface EnvironmentStats extends DbStats {
  readonly lastPageNumber: number;
  readonly root: DbStats;
  readonly free: DbStats;
}

const pagesOf = (stats: DbStats): number => stats.treeBranchPageCount + stats.treeLeafPageCount + stats.overflowPages;

function fileSizes(environment: Environment): FileSizes {
  let pages = 0;
  let stats: EnvironmentStats | undefined;
  for (const store of environment.stores) {
    stats = store.getStats() as EnvironmentStats;
    pages += pagesOf(stats);
  }
  if (!stats) return { fileBytes: 0, inUseBytes: 0 };
  pages += 2 + pagesOf(stats.root) + pagesOf(stats.free);
  const filePages = stats.lastPageNumber + 1;
  return { fileBytes: filePages * stats.pageSize, inUseBytes: Math.min(pages, filePages) * stats.pageSize };
}

/** Keys up to this size are copied byte by byte, which is quicker than a call for them. */
const COPIED_BYTES_MAX = 48;

/** Within a transaction. The rows' keys and values are taken from where they lie: a row is its number. */
function writeTable(store: Store, batch: BatchRows, table: number): number {
  const rows = batch.inOrder(table);
  if (rows.length === 0) return 0;
  const { keyAt, keyBytes, valueBytes } = batch;
  const bytes: PartOfBuffer = batch.bytes;
  // lmdb counts the part from the beginning of the memory behind it.
  assert(bytes.byteOffset === 0, "a batch in the middle of other memory");
  const keyed = store as unknown as { writeKey: WriteKey; putSync: PutSync };
  const { writeKey } = keyed;
  keyed.writeKey = (key, target, at) => {
    const row = key as number;
    const start = keyAt[row] as number;
    const length = keyBytes[row] as number;
    if (length > COPIED_BYTES_MAX) target.set(bytes.subarray(start, start + length), at);
    else for (let i = 0; i < length; i++) target[at + i] = bytes[start + i] as number;
    return at + length;
  };
  try {
    // At the end of a table rows fill its pages; in between LMDB splits them in halves.
    let isAtEnd = true;
    for (const row of rows) {
      const length = valueBytes[row] as number;
      if (length === NO_VALUE) {
        store.removeSync(row as unknown as Uint8Array);
        continue;
      }
      const start = (keyAt[row] as number) + (keyBytes[row] as number);
      let end = start + length;
      if (store.sumBytes > 0) {
        // The checksum goes behind the value, over the header of the next record, which has been read.
        bytes.writeUInt32LE(crc32c(bytes.subarray(keyAt[row] as number, end)), end);
        end += SUM_BYTES;
      }
      bytes.start = start;
      bytes.end = end;
      isAtEnd = isAtEnd && keyed.putSync(row, bytes, APPEND);
      if (!isAtEnd && !keyed.putSync(row, bytes)) throw new Error("LMDB did not take a row");
    }
  } finally {
    keyed.writeKey = writeKey;
  }
  return rows.length;
}
