/**
 * The index made anew from the `key` table: when there is none (a converted or restored file) or when it does not fit.
 * In slices, each a write of its own; the marker comes last, so a crash in between only starts it again.
 */
import { copyBytes } from "../lib/bytes.ts";
import type { Logger } from "../lib/log.ts";
import { yieldToEventLoop } from "../lib/wait.ts";
import {
  type Backend,
  type BackendReader,
  decodeLiveRow,
  hasIndexMarker,
  INDEX_MARKER_KEY,
  indexKeyRow,
  isTombstoneKey,
  keyOfKeyValue,
  liveKey,
  mainOfRevisionKey,
  pastKey,
  subOfRevisionKey,
  writeIndexMarker,
} from "../storage/index.ts";
import { keyAfter } from "./key-range.ts";
import { SCAN_SLICE_BYTES, SCAN_SLICE_ROWS } from "./limits.ts";

/** Whether the index is complete and knows the newest row of history. Costs the same whatever the store holds. */
export function isIndexUsable(reader: BackendReader): boolean {
  if (!hasIndexMarker(reader)) return false;
  const newest = reader.first("key", { reverse: true });
  if (!newest) return !reader.first("live", {});
  const userKey = keyOfKeyValue(newest.value);
  if (userKey.length === 0) return true;
  const main = mainOfRevisionKey(newest.key);
  const sub = subOfRevisionKey(newest.key);
  if (isTombstoneKey(newest.key)) return reader.has("past", pastKey(userKey, main, sub));
  const row = reader.peek("live", liveKey(userKey));
  if (!row) return false;
  const live = decodeLiveRow(row);
  return live.main === main && live.sub === sub;
}

async function clear(backend: Backend, table: "live" | "past" | "leased"): Promise<void> {
  for (;;) {
    const keys: Uint8Array[] = [];
    backend.scan(table, { limit: SCAN_SLICE_ROWS, keysOnly: true }, (key) => {
      keys.push(copyBytes(key));
    });
    if (keys.length === 0) return;
    backend.write((tx) => {
      for (const key of keys) tx.delete(table, key);
    });
    await yieldToEventLoop();
    await backend.pressure();
  }
}

export async function rebuildIndex(backend: Backend, logger: Logger): Promise<void> {
  const isNew = !backend.first("key", {});
  if (!isNew) logger.info("rebuilding the key index");
  backend.write((tx) => tx.delete("past", INDEX_MARKER_KEY));
  for (const table of ["live", "past", "leased"] as const) await clear(backend, table);
  let start: Uint8Array | undefined;
  let rows = 0;
  for (;;) {
    const slice: { key: Uint8Array; value: Uint8Array }[] = [];
    let bytes = 0;
    backend.scan("key", { start, limit: SCAN_SLICE_ROWS }, (key, value) => {
      slice.push({ key, value });
      bytes += value.length;
      return bytes < SCAN_SLICE_BYTES;
    });
    const last = slice.at(-1);
    if (!last) break;
    rows += slice.length;
    backend.write((tx) => {
      for (const { key, value } of slice) indexKeyRow(tx, key, value);
    });
    start = keyAfter(last.key);
    await yieldToEventLoop();
    await backend.pressure();
  }
  backend.write(writeIndexMarker);
  if (!isNew) logger.info("rebuilt the key index", { rows });
}
