/**
 * A bbolt file that is made as it is read, in two passes over rows that do not change meanwhile: the first one looks at
 * their lengths alone and fixes the layout, the second makes page after page. Nothing of it touches a disk.
 */
import { compareBytes } from "../../lib/bytes.ts";
import { BUCKETS } from "../backend/types.ts";
import { LmdbFile } from "../lmdb/walk.ts";
import { ListCursor, type RowCursor, type RowStore } from "../rows.ts";
import { isLongNameKey, nameOfRow } from "../schema/names.ts";
import { BoltError } from "./format.ts";
import { type BoltPlan, planBolt } from "./plan.ts";
import { BoltWriter, type PageRoom } from "./writer.ts";

/** Rows in key order whose lengths can be had for less than the rows. */
export interface ImageSource extends RowStore {
  eachSize(bucket: string, visit: (keyBytes: number, valueBytes: number) => void): void;
}

export interface ImageOptions {
  readonly pageSizeBytes?: number;
  readonly fill?: number;
}

/** Where the file goes: memory of equal size that is filled, piece by piece, the last one in part. */
export interface ImageSink {
  memory(): Buffer;
  filled(chunk: Buffer): void;
}

export class BoltImage {
  readonly sizeBytes: number;
  readonly #source: ImageSource;
  readonly #plan: BoltPlan;

  /** The first pass. Bucket names ascend. */
  constructor(source: ImageSource, buckets: readonly string[], layout: ImageOptions = {}) {
    this.#source = source;
    this.#plan = planBolt(
      buckets.map((name) => ({ name, eachSize: (visit) => source.eachSize(name, visit) })),
      layout,
    );
    this.sizeBytes = this.#plan.sizeBytes;
  }

  /** The second pass; yields after each leaf. */
  *writeTo(sink: ImageSink): Generator<void, void> {
    const { buckets, head, pageSizeBytes, fill } = this.#plan;
    const room = new ChunkRoom(sink);
    for (const page of head) {
      room.page(page.length);
      page.copy(room.buffer, room.at);
    }
    const writer = new BoltWriter(
      {
        output: room,
        // They have been sent: should they be others now, then so is the file.
        write: (page, position) => {
          if (compareBytes(page, head[position / pageSizeBytes] as Buffer) !== 0) {
            throw new BoltError("the rows are not those that the file was laid out for");
          }
        },
      },
      { pageSizeBytes, fill },
    );
    for (const { name, leafRows } of buckets) {
      const bucket = writer.bucket(name);
      const rows = this.#source.cursor(name);
      if (leafRows) {
        for (const count of leafRows) {
          if (!rows.next()) throw new BoltError("fewer rows than there were");
          bucket.putLeaf(rows, count);
          yield;
        }
        if (rows.next()) throw new BoltError("more rows than there were");
      } else while (rows.next()) bucket.putRow(rows);
      bucket.finish();
    }
    writer.finish();
    room.end();
  }
}

/** Pages in the memory of a sink. A node that does not fit behind the others is made apart and cut. */
class ChunkRoom implements PageRoom {
  readonly #sink: ImageSink;
  #chunk: Buffer;
  #used = 0;
  /** A node in `buffer` that is not in a chunk yet. */
  #isApart = false;
  buffer: Buffer;
  at = 0;

  constructor(sink: ImageSink) {
    this.#sink = sink;
    this.#chunk = sink.memory();
    this.buffer = this.#chunk;
  }

  page(length: number): void {
    this.#settle();
    if (this.#used === this.#chunk.length) this.#turn();
    if (this.#used + length > this.#chunk.length) {
      this.buffer = Buffer.allocUnsafeSlow(length);
      this.at = 0;
      this.#isApart = true;
      return;
    }
    this.buffer = this.#chunk;
    this.at = this.#used;
    this.#used += length;
  }

  /** Nothing follows. */
  end(): void {
    this.#settle();
    if (this.#used > 0) this.#sink.filled(this.#chunk.subarray(0, this.#used));
    this.#used = 0;
  }

  /** What was asked for last has been written: it is cut where chunks end. */
  #settle(): void {
    if (!this.#isApart) return;
    this.#isApart = false;
    for (let from = 0; from < this.buffer.length; ) {
      if (this.#used === this.#chunk.length) this.#turn();
      const count = this.buffer.copy(this.#chunk, this.#used, from);
      from += count;
      this.#used += count;
    }
  }

  #turn(): void {
    this.#sink.filled(this.#chunk);
    this.#chunk = this.#sink.memory();
    this.#used = 0;
  }
}

/** etcd's buckets of a backend's file. */
export class BackendRows implements ImageSource {
  readonly #file: LmdbFile;

  constructor(file: LmdbFile) {
    this.#file = file;
  }

  eachSize(bucket: string, visit: (keyBytes: number, valueBytes: number) => void): void {
    const list = this.#inOrderOfNames(bucket);
    if (list) for (const [key, value] of list) visit(key.length, value.length);
    else this.#file.eachSize(bucket, visit);
  }

  cursor(bucket: string): RowCursor {
    const list = this.#inOrderOfNames(bucket);
    return list ? new ListCursor(list) : this.#file.cursor(bucket);
  }

  /** Names that are too long for LMDB stand in the order of their hashes; here they are put in their own. */
  #inOrderOfNames(bucket: string): [Buffer, Buffer][] | undefined {
    if (bucket !== "authUsers" && bucket !== "authRoles") return undefined;
    const rows = this.#file.cursor(bucket);
    const list: [Buffer, Buffer][] = [];
    let hasLong = false;
    while (rows.next()) {
      hasLong ||= isLongNameKey(rows.key);
      list.push([Buffer.from(nameOfRow(bucket, rows.key, rows.value)), Buffer.from(rows.value)]);
    }
    return hasLong ? list.sort((a, b) => compareBytes(a[0], b[0])) : list;
  }
}

/**
 * The image of the newest state of a backend's file. `descriptor` is open for reading, and the file's pages are pinned by
 * a read transaction until the last chunk was made.
 */
export function imageOfBackend(path: string, descriptor: number, options?: ImageOptions): BoltImage {
  return new BoltImage(new BackendRows(new LmdbFile(path, descriptor)), BUCKETS, options);
}
