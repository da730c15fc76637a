/** etcd's `.db` of a backend snapshot: what `snapshot save`, a raft snapshot and a migration to real etcd hand over. */
import { compareBytes } from "../../lib/bytes.ts";
import { BUCKETS, type BackendReader, type Table } from "../backend/index.ts";
import { type FileSystem, type OpenFile, systemFiles, writeFully } from "../file-system.ts";
import { isLongNameKey, nameOfRow } from "../schema/names.ts";
import type { BoltExport, BucketRows, Row } from "./types.ts";
import { BoltWriter } from "./writer.ts";

/** Rows and bytes handled before other work is let in: a few milliseconds. */
const PIECE_ROWS_MAX = 1_000;
const PIECE_BYTES_MAX = 1024 * 1024;
const DEFAULT_CHUNK_BYTES = 1024 * 1024;

export interface ExportOptions {
  /** On the data disk; overwritten when present, removed by `close()`. */
  readonly temporaryPath: string;
  readonly signal?: AbortSignal | undefined;
  readonly files?: FileSystem | undefined;
}

/**
 * Writes etcd's buckets of `snapshot` as a compact bbolt file to a temporary path, in bounded pieces that let other work
 * in between. The index tables are left out: they follow from `key`. The snapshot may be closed once this resolves.
 */
export async function exportBolt(snapshot: BackendReader, options: ExportOptions): Promise<BoltExport> {
  const { temporaryPath, signal, files = systemFiles } = options;
  const file = await files.open(temporaryPath, "create");
  try {
    const sizeBytes = await writeBolt(bucketRowsOf(snapshot), file, { signal });
    return new ExportedFile(file, files, sizeBytes);
  } catch (error) {
    await file.close();
    await files.remove(temporaryPath).catch(() => undefined);
    throw error;
  }
}

/** Writes the image to `file`, which is empty, without syncing it. Returns its size. */
export async function writeBolt(
  source: BucketRows,
  file: OpenFile,
  options: {
    readonly signal?: AbortSignal | undefined;
    readonly fill?: number | undefined;
    /** Syncs on the way whenever this much was written, so that the disk is never far behind; absent: never. */
    readonly unsyncedBytesMax?: number | undefined;
  } = {},
): Promise<number> {
  let pending: Uint8Array[] = [];
  let pendingAt = 2 * PAGE_BYTES;
  let unsynced = 0;
  const metas: { bytes: Uint8Array; position: number }[] = [];
  const writer = new BoltWriter(
    {
      write: (bytes, position) => {
        // Pages come in the order of their numbers; only the meta pages go back to the start.
        if (position < 2 * PAGE_BYTES) metas.push({ bytes, position });
        else pending.push(bytes);
      },
    },
    { pageSizeBytes: PAGE_BYTES, fill: options.fill },
  );
  const drain = async (): Promise<void> => {
    options.signal?.throwIfAborted();
    await new Promise((resolve) => setImmediate(resolve));
    if (pending.length === 0) return;
    const bytes = Buffer.concat(pending);
    pending = [];
    await writeFully(file, bytes, bytes.length, pendingAt);
    pendingAt += bytes.length;
    unsynced += bytes.length;
    if (unsynced < (options.unsyncedBytesMax ?? Number.POSITIVE_INFINITY)) return;
    unsynced = 0;
    await file.sync();
  };
  for (const name of BUCKETS) {
    const bucket = writer.bucket(name);
    let rows = 0;
    let bytes = 0;
    for (const [key, value] of source.rows(name)) {
      bucket.put(key, value);
      bytes += key.length + value.length;
      if (++rows === PIECE_ROWS_MAX || bytes >= PIECE_BYTES_MAX) {
        rows = 0;
        bytes = 0;
        await drain();
      }
    }
    bucket.finish();
  }
  const sizeBytes = writer.finish();
  await drain();
  for (const { bytes, position } of metas) await writeFully(file, bytes, bytes.length, position);
  return sizeBytes;
}

const PAGE_BYTES = 4096;

/** etcd's buckets as a backend has them. Reads a page of rows at a time, so it may be taken across awaits. */
export function bucketRowsOf(reader: BackendReader): BucketRows {
  return {
    *rows(bucket) {
      const table = bucket as Table;
      if ((table === "authUsers" || table === "authRoles") && hasLongNames(reader, table)) {
        yield* rowsByName(reader, table);
        return;
      }
      let start: Uint8Array | undefined;
      for (;;) {
        const page: Row[] = [];
        let bytes = 0;
        reader.scan(table, { start, limit: PIECE_ROWS_MAX }, (key, value) => {
          page.push([key, value]);
          bytes += key.length + value.length;
          return bytes < PIECE_BYTES_MAX;
        });
        yield* page;
        const last = page.at(-1);
        if (!last || (page.length < PIECE_ROWS_MAX && bytes < PIECE_BYTES_MAX)) return;
        start = Buffer.concat([last[0], ZERO]);
      }
    },
  };
}

const ZERO = Uint8Array.of(0);

function hasLongNames(reader: BackendReader, table: "authUsers" | "authRoles"): boolean {
  let found = false;
  reader.scan(table, { keysOnly: true }, (key) => {
    found = isLongNameKey(key);
    return !found;
  });
  return found;
}

/** Names that are too long for LMDB stand in the order of their hashes; here they are put in their own. */
function rowsByName(reader: BackendReader, table: "authUsers" | "authRoles"): Row[] {
  const rows: Row[] = [];
  reader.scan(table, {}, (key, value) => {
    rows.push([nameOfRow(table, key, value), value]);
  });
  return rows.sort((a, b) => compareBytes(a[0], b[0]));
}

/** An image that stands at `path` already. */
export async function openExported(path: string, files: FileSystem, sizeBytes: number): Promise<BoltExport> {
  return new ExportedFile(await files.open(path, "read"), files, sizeBytes);
}

class ExportedFile implements BoltExport {
  readonly sizeBytes: number;
  readonly #file: OpenFile;
  readonly #files: FileSystem;
  #isOpen = true;

  constructor(file: OpenFile, files: FileSystem, sizeBytes: number) {
    this.#file = file;
    this.#files = files;
    this.sizeBytes = sizeBytes;
  }

  /** While the caller is busy with a chunk, the next one is read. */
  async *chunks(chunkBytes = DEFAULT_CHUNK_BYTES): AsyncIterable<Uint8Array> {
    let next = this.#chunk(0, chunkBytes);
    for (let at = 0; at < this.sizeBytes; ) {
      const chunk = await next;
      at += chunk.length;
      if (at < this.sizeBytes) {
        next = this.#chunk(at, chunkBytes);
        // Should the caller give up, nobody waits for it.
        next.catch(() => undefined);
      }
      yield chunk;
    }
  }

  async #chunk(at: number, chunkBytes: number): Promise<Uint8Array> {
    const length = Math.min(chunkBytes, this.sizeBytes - at);
    const chunk = Buffer.allocUnsafeSlow(length);
    for (let filled = 0; filled < length; ) {
      const count = await this.#file.read(chunk, filled, length - filled, at + filled);
      if (count === 0) throw new Error(`read ${this.#file.path}: the file has become shorter`);
      filled += count;
    }
    return chunk;
  }

  async close(): Promise<void> {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    await this.#file.close();
    await this.#files.remove(this.#file.path).catch(() => undefined);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
