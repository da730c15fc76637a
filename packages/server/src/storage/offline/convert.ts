/**
 * Writing a database anew: rows of either kind of file, changed on the way or not, into a new file of either kind. The
 * new file gets a temporary name; what is done with it when it is whole is the caller's business.
 */
import { utf8Bytes } from "../../lib/bytes.ts";
import { crc32c } from "../../lib/crc32c.ts";
import type { Logger } from "../../lib/log.ts";
import { BUCKETS, TABLES } from "../backend/types.ts";
import { BoltWriter } from "../bolt/writer.ts";
import { type OpenFile, writeFully } from "../file-system.ts";
import { LmdbFile } from "../lmdb/walk.ts";
import { LmdbWriter } from "../lmdb/writer.ts";
import { PageOutput } from "../page-output.ts";
import type { RowCursor } from "../rows.ts";
import { IndexBuilder } from "./index-build.ts";
import type { Job } from "./job.ts";
import type { BackendKind } from "./member-dir.ts";
import { allBuckets, type Changes, changedCursor, type Store, strangeBuckets, withBoundedNames } from "./store.ts";
import { SortThread } from "./tasks.ts";

const BOLT_PAGE_BYTES = 4096;
/**
 * Says which buckets of a bbolt file do not come along into a database of this server, which has no place for them. For
 * commands that leave that file where it is.
 */
export function tellLeftOut(store: Store, to: BackendKind, logger: Logger): void {
  const buckets = strangeBuckets(store);
  if (to === "bbolt" || buckets.length === 0) return;
  logger.warn("left out buckets that no etcd makes", { path: store.path, buckets });
}

/** The share of a page that etcd's own defragmentation fills. */
export const DEFRAG_FILL = 0.9;

export interface ConvertOptions {
  readonly to: BackendKind;
  /** Overwritten when present; durable when the promise resolves. */
  readonly path: string;
  readonly changes?: Changes | undefined;
  readonly job: Job;
  /** For progress: `restoring`. */
  readonly what: string;
  /** Of bbolt pages. */
  readonly fill?: number | undefined;
  /** Whether the hash of the rows is wanted. */
  readonly wantsHash?: boolean | undefined;
}

export interface Converted {
  readonly sizeBytes: number;
  /** `snapshot status`'s of etcd's buckets; 0 when it was not wanted. */
  readonly hash: number;
  readonly rows: number;
}

export async function convert(store: Store, options: ConvertOptions): Promise<Converted> {
  const { files } = options.job;
  const file = await files.open(options.path, "create", 0o600);
  try {
    const converted = options.to === "bbolt" ? await toBolt(store, file, options) : await toLmdb(store, file, options);
    await file.sync();
    return converted;
  } finally {
    await file.close();
  }
}

async function toBolt(store: Store, file: OpenFile, options: ConvertOptions): Promise<Converted> {
  const output = new PageOutput(file, 2 * BOLT_PAGE_BYTES);
  try {
    const metas: Uint8Array[] = [];
    const writer = new BoltWriter(
      { output, write: (bytes) => metas.push(bytes) },
      { pageSizeBytes: BOLT_PAGE_BYTES, fill: options.fill },
    );
    const totals = await eachRow(store, allBuckets(store), output, options, (bucket, rows) => {
      const into = writer.bucket(bucket);
      return { put: () => into.putRow(rows), finish: () => into.finish() };
    });
    const sizeBytes = writer.finish();
    await output.finish();
    const head = Buffer.concat(metas);
    await writeFully(file, head, head.length, 0);
    return { ...totals, sizeBytes };
  } finally {
    await output.settle();
  }
}

async function toLmdb(store: Store, file: OpenFile, options: ConvertOptions): Promise<Converted> {
  const { job, path } = options;
  const writer = new LmdbWriter(file);
  const builder = new IndexBuilder(path, job.files);
  const thread = job.hasThreads ? new SortThread(path) : undefined;
  try {
    const totals = await eachRow(store, BUCKETS, writer.output, options, (bucket, rows) => {
      const into = writer.table(bucket, store.pageFile);
      if (bucket === "authUsers" || bucket === "authRoles") {
        const bounded = withBoundedNames(changedCursor(store, bucket, options.changes ?? {}));
        while (bounded.next()) into.putRow(bounded);
        return { put: () => {}, finish: () => into.finish() };
      }
      const putRow = () => into.putRow(rows, store.rowCrc(rows, 0));
      if (bucket !== "key") return { put: putRow, finish: () => into.finish() };
      return {
        put: () => {
          putRow();
          if (thread) return thread.add(rows);
          builder.add(rows);
          return builder.hasRoom() ? undefined : builder.makeRoom();
        },
        finish: () => into.finish(),
      };
    });
    await builder.write(writer, thread);
    return { ...totals, sizeBytes: await writer.finish() };
  } finally {
    await thread?.stop();
    await writer.settle();
    await builder.close();
  }
}

interface BucketTarget {
  /** Takes the row that the cursor is at. */
  put(): Promise<void> | undefined | void;
  finish(): void;
}

async function eachRow<Bucket extends string>(
  store: Store,
  buckets: readonly Bucket[],
  output: PageOutput,
  options: ConvertOptions,
  open: (bucket: Bucket, rows: RowCursor) => BucketTarget,
): Promise<{ readonly hash: number; readonly rows: number }> {
  const { job, what, wantsHash = false, changes = {} } = options;
  let hash = 0;
  let count = 0;
  for (const bucket of buckets) {
    const rows = changedCursor(store, bucket, changes);
    const target = open(bucket, rows);
    if (wantsHash) hash = crc32c(utf8Bytes(bucket), hash);
    while (rows.next()) {
      if (wantsHash) hash = store.rowCrc(rows, hash);
      count++;
      const room = target.put();
      if (room) await room;
      if (!output.isFull) continue;
      await output.drain();
      job.signal?.throwIfAborted();
      job.progress(what, Math.min(store.bytesRead, store.sizeBytes), store.sizeBytes);
    }
    target.finish();
  }
  job.signal?.throwIfAborted();
  return { hash, rows: count };
}

/** An LMDB file without its holes: all tables as they are, once their checksums have been found right. */
export async function rewriteLmdb(
  from: string,
  options: Pick<ConvertOptions, "path" | "job" | "what">,
): Promise<number> {
  const { job, path, what } = options;
  const source = new LmdbFile(from);
  try {
    const file = await job.files.open(path, "create", 0o600);
    const writer = new LmdbWriter(file);
    try {
      for (const table of TABLES) {
        const into = writer.table(table, source.pages);
        const rows = source.cursor(table);
        const sumBytes = source.sumBytes(table);
        while (rows.next()) {
          // The checksum lies behind the value, where the cursor has just compared it.
          into.putRow(rows, sumBytes > 0 ? rows.valueIn.readUInt32LE(rows.valueEnd) : undefined);
          if (!writer.output.isFull) continue;
          await writer.output.drain();
          job.signal?.throwIfAborted();
          job.progress(what, Math.min(source.pages.bytesRead, source.sizeBytes), source.sizeBytes);
        }
        into.finish();
      }
      const sizeBytes = await writer.finish();
      await file.sync();
      return sizeBytes;
    } finally {
      await writer.settle();
      await file.close();
    }
  } finally {
    source.close();
  }
}
