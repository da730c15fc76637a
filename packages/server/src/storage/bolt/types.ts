/** What others see of bbolt files: a reader, an export to a stream and an import into LMDB. */

import type { Meta } from "./format.ts";

export type Row = readonly [key: Uint8Array, value: Uint8Array];

/** Buckets of rows in key order, wherever they come from. A bucket that is not there has no rows. */
export interface BucketRows {
  rows(bucket: string): Iterable<Row>;
}

/** One bbolt file, open for reading. Reads pages as they are needed; nothing is read whole. Synchronous. */
export interface BoltFile extends BucketRows {
  readonly path: string;
  /** The meta page in force. */
  readonly meta: Meta;
  readonly pageSizeBytes: number;
  /** Transaction number of the meta page in force. */
  readonly transactionId: bigint;
  /** `pgid * pageSize`: what etcd reports as the size of the database. A sha256 trailer lies behind it. */
  readonly sizeBytes: number;
  /** Length of the file on disk. */
  readonly fileBytes: number;
  /** Names of the buckets in byte order. */
  readonly buckets: readonly string[];
  /** Rows of a bucket in key order, from `start` (inclusive) on; `false` stops. No such bucket: no rows. */
  scan(bucket: string, start: Uint8Array | undefined, visit: (key: Uint8Array, value: Uint8Array) => unknown): void;
  /** Rows of a bucket as they are read, to take in pieces. */
  rows(bucket: string, start?: Uint8Array): Generator<Row>;
  get(bucket: string, key: Uint8Array): Uint8Array | undefined;
  /** Key of a bucket's last row. */
  lastKey(bucket: string): Uint8Array | undefined;
  /** bbolt's own integrity check; the problems in words, none when the file is sound. */
  check(): string[];
  close(): void;
}

/** A bbolt image of the backend, made as it is taken. */
export interface BoltExport extends AsyncDisposable {
  /** Known before the first byte is sent: `remaining_bytes` counts down from it. A multiple of the page size. */
  readonly sizeBytes: number;
  /**
   * The image from start to end, once, in chunks of 256 KiB, the last one smaller. A chunk's bytes are good until the next
   * one is asked for. Rejects when damage is met, or the image is closed.
   */
  chunks(): AsyncIterable<Uint8Array>;
  /** Of all chunks, when the last was taken and the hash had been asked for. */
  sha256(): Uint8Array;
  /** Gives up what is left, and the snapshot of the backend. Harmless when repeated. */
  close(): Promise<void>;
}
