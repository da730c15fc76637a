/**
 * Hashes that are equal on all members with the same history, and equal to etcd's. CRC-32C over rows; read in slices
 * from a pinned snapshot, so that others work in between.
 *
 * hashKv(revision) covers the `key` table: every row up to the revision, except what a compaction has taken out of
 * reach. Of the rows up to the compact revision only those count that are alive at the asked revision, and never a
 * tombstone. So it does not matter how far the removal of compacted rows has come.
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
import { keyAfter } from "./key-range.ts";
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

/** `compactRevision` is -1 for a store that was never compacted; `revision` >= `compactRevision`. */
export async function hashKeyTable(
  reader: BackendReader,
  at: { readonly revision: number; readonly compactRevision: number },
  signal?: AbortSignal,
): Promise<number> {
  const { revision, compactRevision } = at;
  let hash = crc32c(utf8Bytes("key"));
  await scanInSlices(
    reader,
    "key",
    { end: revisionKey(Math.max(revision + 1, 0), 0) },
    (key, value) => {
      if (mainOfRevisionKey(key) <= compactRevision && !isAliveAt(reader, key, value, revision)) return;
      hash = crc32c(value, crc32c(key, hash));
    },
    signal,
  );
  return hash;
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
