/**
 * Hashes that are equal on all members with the same history, and equal to etcd's. CRC-32C over rows; read in slices
 * from a pinned snapshot, so that others work in between.
 *
 * hashKv(revision) covers the `key` table: every row up to the revision, except what a compaction has taken out of
 * reach. Of the rows up to the compact revision only those count that are alive at the asked revision, and never a
 * tombstone. So it does not matter how far the removal of compacted rows has come.
 *
 * etcd takes "nothing is alive at the asked revision" for "nothing to look up", and then counts every row that the
 * compaction has left. Hashes are compared between members, so ours do the same.
 */
import { copyBytes, utf8Bytes } from "../lib/bytes.ts";
import { crc32c } from "../lib/crc32c.ts";
import { yieldToEventLoop } from "../lib/wait.ts";
import {
  type BackendReader,
  BUCKETS,
  decodeLiveRow,
  decodePastRow,
  isLeftOutOfHash,
  isTombstoneKey,
  keyOfKeyValue,
  liveKey,
  mainOfRevisionKey,
  pastKey,
  revisionKey,
  subOfRevisionKey,
  type Table,
} from "../storage/index.ts";
import { walkAt } from "./key-index.ts";
import { keyAfter, keyRange } from "./key-range.ts";
import { SCAN_SLICE_BYTES, SCAN_SLICE_ROWS } from "./limits.ts";

/** Visits all rows of a table in slices. The reader must not change meanwhile, or only where the visitor does not care. */
export async function scanInSlices(
  reader: BackendReader,
  table: Table,
  options: { readonly start?: Uint8Array; readonly end?: Uint8Array },
  visit: (key: Uint8Array, value: Uint8Array) => void,
  signal?: AbortSignal,
): Promise<void> {
  let start: Uint8Array | undefined = options.start;
  for (;;) {
    let last: Uint8Array | undefined;
    let rows = 0;
    let bytes = 0;
    let isMore = false;
    reader.scan(table, { start, end: options.end }, (key, value) => {
      if (rows >= SCAN_SLICE_ROWS || bytes >= SCAN_SLICE_BYTES) {
        isMore = true;
        return false;
      }
      rows++;
      bytes += value.length;
      last = key;
      visit(key, value);
      return true;
    });
    if (!isMore || !last) return;
    start = keyAfter(copyBytes(last));
    await yieldToEventLoop();
    signal?.throwIfAborted();
  }
}

/** What Maintenance.Hash answers: all of etcd's tables, but for where the log stands. */
export async function hashAll(reader: BackendReader, signal?: AbortSignal): Promise<number> {
  let hash = 0;
  for (const bucket of BUCKETS) {
    hash = crc32c(utf8Bytes(bucket), hash);
    await scanInSlices(
      reader,
      bucket,
      {},
      (key, value) => {
        if (bucket === "meta" && isLeftOutOfHash(key)) return;
        hash = crc32c(value, crc32c(key, hash));
      },
      signal,
    );
  }
  return hash;
}

export interface KeyTableHashRequest {
  readonly revision: number;
  /** -1 for a store that was never compacted; at most `revision`. */
  readonly compactRevision: number;
  /** Made by a compaction at `revision`: that one's tombstones at just this revision count as kept. */
  readonly isOfCompaction?: boolean;
}

export async function hashKeyTable(
  reader: BackendReader,
  request: KeyTableHashRequest,
  signal?: AbortSignal,
): Promise<number> {
  const { revision, compactRevision } = request;
  const aliveAt = compactRevision >= 0 && isAnythingKept(reader, request) ? revision : compactRevision;
  let hash = crc32c(utf8Bytes("key"));
  await scanInSlices(
    reader,
    "key",
    { end: revisionKey(Math.max(revision + 1, 0), 0) },
    (key, value) => {
      if (mainOfRevisionKey(key) <= compactRevision && !isAliveAt(reader, key, value, aliveAt)) return;
      hash = crc32c(value, crc32c(key, hash));
    },
    signal,
  );
  return hash;
}

const EVERYTHING = keyRange(Uint8Array.of(0), Uint8Array.of(0));

function isAnythingKept(reader: BackendReader, { revision, isOfCompaction }: KeyTableHashRequest): boolean {
  let isKept = false;
  walkAt(reader, EVERYTHING, revision, () => {
    isKept = true;
    return false;
  });
  if (isKept || !isOfCompaction) return isKept;
  reader.scan("key", { start: revisionKey(revision, 0), end: revisionKey(revision + 1, 0), keysOnly: true }, (key) => {
    isKept = isTombstoneKey(key);
    return !isKept;
  });
  return isKept;
}

/** Whether a row of the `key` table is what its user key was at `revision`, which is not before the row. */
function isAliveAt(reader: BackendReader, key: Uint8Array, value: Uint8Array, revision: number): boolean {
  if (isTombstoneKey(key)) return false;
  const userKey = keyOfKeyValue(value);
  // A row that `restore --bump-revision` has written: nobody's key, never superseded.
  if (userKey.length === 0) return true;
  const main = mainOfRevisionKey(key);
  const sub = subOfRevisionKey(key);
  const live = reader.peek("live", liveKey(userKey));
  if (live) {
    const row = decodeLiveRow(live);
    if (row.main === main && row.sub === sub) return true;
  }
  const past = reader.peek("past", pastKey(userKey, main, sub));
  const supersededBy = past && decodePastRow(past);
  return supersededBy !== undefined && supersededBy > revision;
}
