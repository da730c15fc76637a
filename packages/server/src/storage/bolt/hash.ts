/** etcd's hashes over rows, for tools that have no server: the whole database's, and that of a revision of `key`. */
import { keyString, utf8Bytes } from "../../lib/bytes.ts";
import { crc32c } from "../../lib/crc32c.ts";
import { keyOfKeyValue } from "../schema/key-value.ts";
import { isTombstoneKey, mainOfRevisionKey } from "../schema/revision.ts";

export interface RowSource {
  readonly buckets: readonly string[];
  scan(bucket: string, start: Uint8Array | undefined, visit: (key: Uint8Array, value: Uint8Array) => unknown): void;
}

export interface DatabaseSummary {
  /** CRC-32C over the name of each bucket and its rows. */
  readonly hash: number;
  /** Rows of all buckets. */
  readonly totalKeys: number;
  /** Main revision of the last row of `key`; 0 when there is none. */
  readonly revision: number;
}

/** What `snapshot status` tells. */
export function summarize(source: RowSource): DatabaseSummary {
  let hash = 0;
  let totalKeys = 0;
  let revision = 0;
  for (const bucket of source.buckets) {
    hash = crc32c(utf8Bytes(bucket), hash);
    source.scan(bucket, undefined, (key, value) => {
      hash = crc32c(value, crc32c(key, hash));
      totalKeys++;
      if (bucket === "key" && key.length >= 8) revision = mainOfRevisionKey(key);
    });
  }
  return { hash, totalKeys, revision };
}

export class HashRevisionError extends Error {
  override readonly name = "HashRevisionError";
}

export interface KeyValueHash {
  readonly hash: number;
  readonly hashRevision: number;
  /** -1 when there never was a compaction. */
  readonly compactRevision: number;
}

/**
 * The hash of `key` at a revision (0: the newest), as every member with the same history computes it: rows that a
 * compaction up to `compactRevision` removes, or will remove when it is done, do not count.
 */
export function hashKeyValues(source: RowSource, at: number, compactRevision: number): KeyValueHash {
  let newest = 1;
  source.scan("key", undefined, (key) => {
    newest = mainOfRevisionKey(key);
  });
  const current = Math.max(newest, compactRevision);
  if (at !== 0 && at < compactRevision) {
    throw new HashRevisionError("mvcc: required revision has been compacted");
  }
  if (at > current) throw new HashRevisionError("mvcc: required revision is a future revision");
  const revision = at === 0 ? current : at;
  const keep = compactRevision < 0 ? undefined : newestOfEachKey(source, revision);
  let hash = crc32c(utf8Bytes("key"));
  source.scan("key", undefined, (key, value) => {
    const main = mainOfRevisionKey(key);
    if (main > revision) return false;
    if (main <= compactRevision) {
      if (keep && keep.size > 0 && !keep.has(keyString(key))) return true;
      if (main === compactRevision && isTombstoneKey(key)) return true;
    }
    hash = crc32c(value, crc32c(key, hash));
    return true;
  });
  return { hash, hashRevision: revision, compactRevision };
}

/** Row keys of the newest revision up to `revision` of every user key that is alive there. */
function newestOfEachKey(source: RowSource, revision: number): ReadonlySet<string> {
  const newest = new Map<string, string>();
  source.scan("key", undefined, (key, value) => {
    if (mainOfRevisionKey(key) > revision) return false;
    const userKey = keyString(keyOfKeyValue(value));
    if (isTombstoneKey(key)) newest.delete(userKey);
    else newest.set(userKey, keyString(key));
    return true;
  });
  return new Set(newest.values());
}
