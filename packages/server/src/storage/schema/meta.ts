/** Rows of the `meta`, `alarm`, `cluster` and `auth` tables as typed values; etcd's own encodings. */
import { equalBytes, utf8Bytes, utf8Text } from "../../lib/bytes.ts";
import type { BackendReader, BackendTxn } from "../backend/index.ts";

const CONSISTENT_INDEX = utf8Bytes("consistent_index");
const TERM = utf8Bytes("term");
const CONF_STATE = utf8Bytes("confState");
const SCHEDULED_COMPACT_REVISION = utf8Bytes("scheduledCompactRev");
const FINISHED_COMPACT_REVISION = utf8Bytes("finishedCompactRev");
const STORAGE_VERSION = utf8Bytes("storageVersion");
const CLUSTER_VERSION = utf8Bytes("clusterVersion");
const DOWNGRADE = utf8Bytes("downgrade");

/** 8 bytes, big endian. */
export function encodeCounter(value: number): Uint8Array {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(value));
  return bytes;
}

function decodeCounter(bytes: Uint8Array | undefined): number {
  if (bytes?.length !== 8) return 0;
  return Number(new DataView(bytes.buffer, bytes.byteOffset, 8).getBigUint64(0));
}

/** Index and term of the last entry whose effects are in the backend; zeros in a new one. */
export function readConsistentIndex(reader: BackendReader): { index: number; term: number } {
  return {
    index: decodeCounter(reader.peek("meta", CONSISTENT_INDEX)),
    term: decodeCounter(reader.peek("meta", TERM)),
  };
}

/** Zero is never written, as in etcd: neither the index nor the term. */
export function writeConsistentIndex(tx: BackendTxn, at: { readonly index: number; readonly term: number }): void {
  if (at.index === 0) return;
  tx.put("meta", CONSISTENT_INDEX, encodeCounter(at.index));
  if (at.term > 0) tx.put("meta", TERM, encodeCounter(at.term));
}

/** The 17 bytes of a revision: main, `_`, sub. */
function revisionRow(main: number): Uint8Array {
  const bytes = Buffer.alloc(17);
  bytes.writeBigUInt64BE(BigInt(main));
  bytes[8] = 0x5f;
  return bytes;
}

function readRevision(reader: BackendReader, key: Uint8Array): number | undefined {
  const bytes = reader.peek("meta", key);
  return bytes && bytes.length >= 8
    ? Number(new DataView(bytes.buffer, bytes.byteOffset, 8).getBigUint64(0))
    : undefined;
}

/** The compaction asked for, and the last one whose deletions are done; `undefined` when there never was one. */
export function readCompactRevisions(reader: BackendReader): {
  scheduled: number | undefined;
  finished: number | undefined;
} {
  return {
    scheduled: readRevision(reader, SCHEDULED_COMPACT_REVISION),
    finished: readRevision(reader, FINISHED_COMPACT_REVISION),
  };
}

export function writeScheduledCompactRevision(tx: BackendTxn, revision: number): void {
  tx.put("meta", SCHEDULED_COMPACT_REVISION, revisionRow(revision));
}

export function writeFinishedCompactRevision(tx: BackendTxn, revision: number): void {
  tx.put("meta", FINISHED_COMPACT_REVISION, revisionRow(revision));
}

/** The JSON text of the conf state, ids in bare digits: `{"voters":[7101852577860610209],"auto_leave":false}`. */
export function readConfStateJson(reader: BackendReader): string | undefined {
  const bytes = reader.peek("meta", CONF_STATE);
  return bytes && utf8Text(bytes);
}

export function writeConfStateJson(tx: BackendTxn, json: string): void {
  tx.put("meta", CONF_STATE, utf8Bytes(json));
}

/** 3.6 and later only: text like `3.6.0`. */
export function readStorageVersion(reader: BackendReader): string | undefined {
  const bytes = reader.peek("meta", STORAGE_VERSION);
  return bytes && utf8Text(bytes);
}

export function readClusterVersion(reader: BackendReader): string | undefined {
  const bytes = reader.peek("cluster", CLUSTER_VERSION);
  return bytes && utf8Text(bytes);
}

export function writeClusterVersion(tx: BackendTxn, version: string): void {
  tx.put("cluster", CLUSTER_VERSION, utf8Bytes(version));
}

/** The JSON text of etcd's downgrade record: `{"target-version":"3.4.0","enabled":true}`. */
export function readDowngradeJson(reader: BackendReader): string | undefined {
  const bytes = reader.peek("cluster", DOWNGRADE);
  return bytes && utf8Text(bytes);
}

export function writeDowngradeJson(tx: BackendTxn, json: string): void {
  tx.put("cluster", DOWNGRADE, utf8Bytes(json));
}

/** Whether a row of `meta` is left out of the hash that Maintenance.Hash answers. */
export function isLeftOutOfHash(metaKey: Uint8Array): boolean {
  return equalBytes(metaKey, CONSISTENT_INDEX) || equalBytes(metaKey, TERM);
}
