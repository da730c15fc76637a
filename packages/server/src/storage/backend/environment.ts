/**
 * The LMDB environment: how the file is opened, and how the rows of a layer are written to it in one transaction.
 * Shared by the thread that reads and the worker that writes; within a process both use the same mapping.
 */
import { type Database, open, type RootDatabase } from "lmdb";
import { crc32c } from "../../lib/crc32c.ts";
import { DEAD, DELETED, HEADER_BYTES } from "./layer.ts";
import { SUM_BYTES, SUMS_MARK, sumBytesOf } from "./sums.ts";
import { TABLES } from "./types.ts";

/** A table; stored values have `sumBytes` of checksum behind them, which are no part of the row. */
export type Store = Database<Uint8Array, Uint8Array> & { readonly sumBytes: number };

/** What lmdb has beyond its published types. */
interface Unpublished {
  resetReadTxn(): void;
}

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

const DEFAULT_MAP_SIZE_BYTES = 2 ** 38;

export class Environment {
  readonly root: RootDatabase<Uint8Array, Uint8Array>;
  /** By the index of the table in `TABLES`. */
  readonly stores: readonly Store[];
  /** Whether rows of etcd's buckets carry checksums: all files but those made before there were any. */
  readonly hasSums: boolean;

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
   * Writes the live records of a layer in one durable transaction, each table in key order: neighbours then share the
   * pages they touch. Returns the number of rows written. Throws when LMDB refuses; nothing is written then.
   */
  commit(chunks: readonly Uint8Array[], used: readonly number[]): number {
    const rows = readRecords(
      chunks,
      used,
      this.stores.map(({ sumBytes }) => sumBytes > 0),
    );
    return this.root.transactionSync(() => {
      let count = 0;
      for (let table = 0; table < rows.length; table++) {
        const records = rows[table];
        if (!records) continue;
        const store = this.stores[table] as Store;
        for (const record of inOrder(records)) {
          if (record.value === undefined) store.removeSync(record.key);
          else store.putSync(record.key, record.value);
          count++;
        }
      }
      return count;
    }, 2);
  }

  close(): Promise<void> {
    return this.root.close();
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

interface Record {
  readonly key: Buffer;
  readonly value: Buffer | undefined;
}

function readRecords(
  chunks: readonly Uint8Array[],
  used: readonly number[],
  isSummed: readonly boolean[],
): (Record[] | undefined)[] {
  const tables: (Record[] | undefined)[] = [];
  for (let index = 0; index < chunks.length; index++) {
    const end = used[index] as number;
    // lmdb takes the address of a value's memory, which it can only do for memory that is not shared.
    const chunk = Buffer.allocUnsafeSlow(end + SUM_BYTES);
    chunk.set((chunks[index] as Uint8Array).subarray(0, end), 0);
    // A checksum goes behind its value, over the header of the next record, as soon as that has been read.
    let sum: number | undefined;
    for (let at = 0; at < end; ) {
      const table = chunk[at] as number;
      const dead = chunk[at + 1] === DEAD;
      const keyEnd = at + HEADER_BYTES + chunk.readUInt16LE(at + 2);
      const length = chunk.readUInt32LE(at + 4);
      const valueEnd = length === DELETED ? keyEnd : keyEnd + length;
      if (sum !== undefined) chunk.writeUInt32LE(sum, at);
      sum = undefined;
      if (!dead) {
        let rows = tables[table];
        if (!rows) {
          rows = [];
          tables[table] = rows;
        }
        const isPutWithSum = length !== DELETED && isSummed[table] === true;
        if (isPutWithSum) sum = crc32c(chunk.subarray(at + HEADER_BYTES, valueEnd));
        rows.push({
          key: chunk.subarray(at + HEADER_BYTES, keyEnd),
          value:
            length === DELETED ? undefined : chunk.subarray(keyEnd, isPutWithSum ? valueEnd + SUM_BYTES : valueEnd),
        });
      }
      at = valueEnd;
    }
    if (sum !== undefined) chunk.writeUInt32LE(sum, end);
  }
  return tables;
}

/** Most tables of most batches come sorted: revisions ascend. */
function inOrder(records: Record[]): Record[] {
  for (let i = 1; i < records.length; i++) {
    if (Buffer.compare((records[i - 1] as Record).key, (records[i] as Record).key) > 0) {
      return records.sort((a, b) => Buffer.compare(a.key, b.key));
    }
  }
  return records;
}
