/** A `.db` file as the tools meet it: a bbolt image, with a sha256 behind it when `snapshot save` wrote it. */
import fs from "node:fs";
import { utf8Bytes } from "../../lib/bytes.ts";
import { crc32c } from "../../lib/crc32c.ts";
import { humanBytes } from "../../lib/go-format.ts";
import { type BoltFile, type DatabaseSummary, openBolt, summarize } from "../bolt/index.ts";
import { mainOfRevisionKey } from "../schema/revision.ts";
import { OfflineError, offlineErrorText } from "./errors.ts";
import type { Job, JobOptions } from "./job.ts";
import { isDamage, kindOfFile, openStore } from "./store.ts";
import { inspectFile, inspectInThreads, sha256OfFile, TaskThread } from "./tasks.ts";

const HASH_BYTES = 32;

export interface SnapshotStatus {
  readonly hash: number;
  readonly revision: number;
  readonly totalKey: number;
  readonly totalSize: number;
  /** `20 kB` */
  readonly totalSizeText: string;
}

export interface StatusOptions {
  readonly onProgress?: JobOptions["onProgress"];
}

/** What `snapshot status` tells, after bbolt's integrity check. Of an LMDB file, what a snapshot of it would tell. */
export function snapshotStatus(file: string, options: StatusOptions = {}): SnapshotStatus {
  const { bolt, tell } = openForStatus(file, options);
  if (!bolt) return lmdbStatus(file, tell);
  try {
    return boltStatus(bolt, inspectFile(file, tell));
  } finally {
    bolt.close();
  }
}

/** The same, of a big file with the help of another thread. */
export async function snapshotStatusInThreads(file: string, options: StatusOptions = {}): Promise<SnapshotStatus> {
  const { bolt, tell } = openForStatus(file, options);
  if (!bolt) return lmdbStatus(file, tell);
  try {
    return boltStatus(bolt, await inspectInThreads(file, tell));
  } finally {
    bolt.close();
  }
}

interface OpenedForStatus {
  /** Undefined: it is an LMDB file. */
  readonly bolt: BoltFile | undefined;
  readonly tell: (doneBytes: number) => void;
}

function openForStatus(file: string, { onProgress }: StatusOptions): OpenedForStatus {
  statFile(file);
  const { size } = fs.statSync(file);
  if (fs.statSync(file).isDirectory()) throw new OfflineError(`open ${file}: is a directory`);
  const tell = (doneBytes: number) =>
    onProgress?.({ what: "reading", doneBytes: Math.min(doneBytes, size), totalBytes: size });
  // bbolt makes a database of an empty file, and cannot: it has opened it for reading.
  if (size === 0) throw new OfflineError(`write ${file}: bad file descriptor`);
  return { bolt: kindOfFile(file) === "lmdb" ? undefined : openDatabase(file), tell };
}

function boltStatus(bolt: BoltFile, inspected: DatabaseSummary | undefined): SnapshotStatus {
  const { sizeBytes } = bolt;
  const { hash, revision, totalKeys } = inspected ?? inspectSlowly(bolt);
  return { hash, revision, totalKey: totalKeys, totalSize: sizeBytes, totalSizeText: humanBytes(sizeBytes) };
}

/** Names what is wrong, or finds nothing but a stored freelist. */
function inspectSlowly(bolt: BoltFile): DatabaseSummary {
  const problems = bolt.check();
  if (problems.length > 0) {
    throw new OfflineError(
      `snapshot file integrity check failed. ${problems.length} errors found.\n${problems.join("\n")}`,
    );
  }
  return summarize(bolt);
}

function lmdbStatus(file: string, tell: (doneBytes: number) => void): SnapshotStatus {
  const store = openStore(file, "lmdb");
  try {
    let hash = 0;
    let totalKey = 0;
    for (const bucket of store.buckets) {
      hash = crc32c(utf8Bytes(bucket), hash);
      for (const rows = store.cursor(bucket); rows.next(); totalKey++) hash = store.rowCrc(rows, hash);
      tell(store.bytesRead);
    }
    const last = store.lastKey("key");
    return {
      hash,
      revision: last ? mainOfRevisionKey(last) : 0,
      totalKey,
      totalSize: store.sizeBytes,
      totalSizeText: humanBytes(store.sizeBytes),
    };
  } catch (error) {
    if (!isDamage(error)) throw error;
    throw new OfflineError(`${file} is damaged: ${error.message}`, { cause: error });
  } finally {
    store.close();
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

export interface SnapshotFile {
  readonly bytes: number;
  /** Rejects when the hash was wanted and is wrong. */
  verified(): Promise<void>;
  stop(): Promise<void>;
}

/**
 * Begins to compare the sha256 that `snapshot save` left behind the database with the database, on another thread if
 * there is one. Throws at once when the file is not there or has no hash although one is required.
 */
export function startHashCheck(
  file: string,
  options: { readonly isRequired: boolean; readonly job: Job },
): SnapshotFile {
  let size: number;
  const stored = Buffer.alloc(HASH_BYTES);
  let descriptor: number;
  try {
    descriptor = fs.openSync(file, "r");
  } catch (error) {
    throw new OfflineError(offlineErrorText(error, { path: file }), { cause: error });
  }
  try {
    const stat = fs.fstatSync(descriptor);
    if (stat.isDirectory()) throw new OfflineError(`read ${file}: is a directory`);
    ({ size } = stat);
    if (size < HASH_BYTES) throw new OfflineError(`seek ${file}: invalid argument`);
    fs.readSync(descriptor, stored, 0, HASH_BYTES, size - HASH_BYTES);
  } finally {
    fs.closeSync(descriptor);
  }
  const stop = async (): Promise<void> => {};
  if (!options.isRequired) return { bytes: size, verified: async () => {}, stop };
  if (size % 512 !== HASH_BYTES) throw new OfflineError("snapshot missing hash but --skip-hash-check=false");
  const bytes = size - HASH_BYTES;
  const compare = (computed: Uint8Array): void => {
    if (stored.equals(computed)) return;
    throw new OfflineError(`expected sha256 ${decimalBytes(stored)}, got ${decimalBytes(computed)}`);
  };
  if (!options.job.hasThreads) {
    return { bytes, verified: async () => compare(sha256OfFile(file, bytes)), stop };
  }
  const thread = new TaskThread<Uint8Array>({ kind: "sha256", path: file, bytes });
  return { bytes, verified: async () => compare(await thread.result), stop: () => thread.stop() };
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
