/** A `.db` file as the tools meet it: a bbolt image, with a sha256 behind it when `snapshot save` wrote it. */
import { createHash } from "node:crypto";
import fs from "node:fs";
import { utf8Bytes } from "../../lib/bytes.ts";
import { humanBytes } from "../../lib/go-format.ts";
import { type BucketRows, openBolt, type Row, summarize } from "../bolt/index.ts";
import { OfflineError, offlineErrorText } from "./errors.ts";

const HASH_BYTES = 32;
const READ_BYTES = 1024 * 1024;

export interface SnapshotStatus {
  readonly hash: number;
  readonly revision: number;
  readonly totalKey: number;
  readonly totalSize: number;
  /** `20 kB` */
  readonly totalSizeText: string;
}

/** What `snapshot status` tells, after bbolt's integrity check. */
export function snapshotStatus(file: string): SnapshotStatus {
  statFile(file);
  if (fs.statSync(file).isDirectory()) throw new OfflineError(`open ${file}: is a directory`);
  const bolt = openDatabase(file);
  try {
    const problems = bolt.check();
    if (problems.length > 0) {
      throw new OfflineError(
        `snapshot file integrity check failed. ${problems.length} errors found.\n${problems.join("\n")}`,
      );
    }
    const { hash, totalKeys, revision } = summarize(bolt);
    return {
      hash,
      revision,
      totalKey: totalKeys,
      totalSize: bolt.sizeBytes,
      totalSizeText: humanBytes(bolt.sizeBytes),
    };
  } finally {
    bolt.close();
  }
}

/** Refuses a file that is not there, in the words of a stat. */
export function statFile(file: string): void {
  try {
    fs.statSync(file);
  } catch (error) {
    throw new OfflineError(offlineErrorText(error, { call: "stat", path: file }), { cause: error });
  }
}

export function openDatabase(file: string) {
  try {
    return openBolt(file);
  } catch (error) {
    throw new OfflineError(offlineErrorText(error, { path: file }), { cause: error });
  }
}

/** As Go prints a byte slice. */
const decimalBytes = (bytes: Uint8Array): string => `[${[...bytes].join(" ")}]`;

/** Compares the sha256 that `snapshot save` left behind the database with the database. Reads it in pieces. */
export async function verifySnapshotHash(file: string, options: { readonly isRequired: boolean }): Promise<void> {
  let descriptor: number;
  try {
    descriptor = fs.openSync(file, "r");
  } catch (error) {
    throw new OfflineError(offlineErrorText(error, { path: file }), { cause: error });
  }
  try {
    const stat = fs.fstatSync(descriptor);
    if (stat.isDirectory()) throw new OfflineError(`read ${file}: is a directory`);
    const { size } = stat;
    if (size < HASH_BYTES) throw new OfflineError(`seek ${file}: invalid argument`);
    const hasHash = size % 512 === HASH_BYTES;
    if (!options.isRequired) return;
    if (!hasHash) throw new OfflineError("snapshot missing hash but --skip-hash-check=false");
    const hash = createHash("sha256");
    const buffer = Buffer.allocUnsafe(READ_BYTES);
    for (let at = 0; at < size - HASH_BYTES; ) {
      const count = fs.readSync(descriptor, buffer, 0, Math.min(READ_BYTES, size - HASH_BYTES - at), at);
      if (count === 0) throw new OfflineError(`read ${file}: unexpected end`);
      hash.update(buffer.subarray(0, count));
      at += count;
      await new Promise((resolve) => setImmediate(resolve));
    }
    const stored = Buffer.alloc(HASH_BYTES);
    fs.readSync(descriptor, stored, 0, HASH_BYTES, size - HASH_BYTES);
    const computed = hash.digest();
    if (!stored.equals(computed)) {
      throw new OfflineError(`expected sha256 ${decimalBytes(stored)}, got ${decimalBytes(computed)}`);
    }
  } finally {
    fs.closeSync(descriptor);
  }
}

/** Changes to a database on its way from one file into another. */
export interface Changes {
  /** Buckets whose rows are these instead. */
  readonly replaced: ReadonlyMap<string, readonly Row[]>;
  /** Rows that take the place of those with the same key, or are added. */
  readonly set: ReadonlyMap<string, readonly Row[]>;
}

const byKey = (rows: readonly Row[]): Row[] => rows.toSorted((a, b) => Buffer.compare(a[0], b[0]));

export function changedRows(source: BucketRows, changes: Changes): BucketRows {
  return {
    *rows(bucket) {
      const rows = changes.replaced.get(bucket);
      const before = rows ? byKey(rows) : source.rows(bucket);
      const own = byKey(changes.set.get(bucket) ?? []);
      let next = 0;
      for (const row of before) {
        for (; next < own.length; next++) {
          const order = Buffer.compare((own[next] as Row)[0], row[0]);
          if (order > 0) break;
          yield own[next] as Row;
          if (order === 0) {
            next++;
            break;
          }
        }
        const previous = own[next - 1];
        if (!previous || Buffer.compare(previous[0], row[0]) !== 0) yield row;
      }
      yield* own.slice(next);
    },
  };
}

/** 8 bytes, big endian. */
export function counterBytes(value: number): Uint8Array {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(value));
  return bytes;
}

export const metaKeys = {
  consistentIndex: utf8Bytes("consistent_index"),
  term: utf8Bytes("term"),
  scheduledCompactRevision: utf8Bytes("scheduledCompactRev"),
  finishedCompactRevision: utf8Bytes("finishedCompactRev"),
} as const;
