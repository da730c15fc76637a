/**
 * Removing what no reader may ask for any more.
 *
 * Compacting at R takes away every put that had been superseded by R, and every tombstone before R. A tombstone exactly
 * at R stays, so that a watch from R still gets it. All of that stands in `past`, with the revision that superseded it:
 * so a compaction walks superseded rows, never living keys. What it looks for was complete when it was asked for, so
 * writes in between do not disturb it.
 *
 *   asked for     meta: scheduledCompactRev = R, in the transaction that asked. Reads below R fail from here on.
 *   hash          of all rows up to R, for comparing members (the cost of etcd's own: every row up to R)
 *   batches       1,000 rows each, others work in between; gone after a crash or not, the next run finds the rest
 *   finished      meta: finishedCompactRev = R
 */
import { assert } from "../lib/assert.ts";
import { copyBytes } from "../lib/bytes.ts";
import type { Clock } from "../lib/clock.ts";
import {
  type Backend,
  type BackendTxn,
  decodePastRow,
  mainOfPastKey,
  revisionKey,
  subOfPastKey,
  tombstoneKey,
  writeFinishedCompactRevision,
} from "../storage/index.ts";
import { keyAfter } from "./key-range.ts";

/** Rows looked at for each row that a batch may remove: history that is kept is walked over as well. */
const WALKED_PER_REMOVED = 4;

/** Behind the marker of the index, before all other rows of `past`. */
const PAST_START = Uint8Array.of(0, 1);

/** Removes all garbage of a compaction and marks it finished. Resolves with the number of rows removed. */
export async function removeCompacted(
  backend: Backend,
  compactRevision: number,
  {
    batchRows,
    pause,
    took,
    clock,
    signal,
  }: {
    readonly batchRows: number;
    readonly pause: () => Promise<void>;
    /** Told of each batch. */
    readonly took: (durationMs: number) => void;
    readonly clock: Clock;
    readonly signal: AbortSignal;
  },
): Promise<number> {
  let removed = 0;
  let start: Uint8Array | undefined = PAST_START;
  while (start) {
    signal.throwIfAborted();
    const from: Uint8Array = start;
    const startMs = clock.monotonicMs();
    const batch = backend.write((tx) => removeBatch(tx, from, compactRevision, batchRows));
    took(clock.monotonicMs() - startMs);
    removed += batch.removed;
    start = batch.next;
    if (start) await pause();
  }
  signal.throwIfAborted();
  backend.write((tx) => writeFinishedCompactRevision(tx, compactRevision));
  return removed;
}

function removeBatch(
  tx: BackendTxn,
  start: Uint8Array,
  compactRevision: number,
  batchRows: number,
): { readonly removed: number; readonly next: Uint8Array | undefined } {
  const garbage: { readonly pastRow: Uint8Array; readonly historyRow: Uint8Array }[] = [];
  let next: Uint8Array | undefined;
  let walked = 0;
  tx.scan("past", { start }, (rowKey, value) => {
    const main = mainOfPastKey(rowKey);
    const supersededBy = decodePastRow(value);
    const isGarbage = supersededBy === undefined ? main < compactRevision : supersededBy <= compactRevision;
    if (isGarbage) {
      assert(main <= compactRevision, () => `revision ${main} superseded before it was written`);
      const sub = subOfPastKey(rowKey);
      const historyRow = supersededBy === undefined ? tombstoneKey(main, sub) : revisionKey(main, sub);
      garbage.push({ pastRow: rowKey, historyRow });
    }
    if (garbage.length < batchRows && ++walked < batchRows * WALKED_PER_REMOVED) return true;
    next = keyAfter(copyBytes(rowKey));
    return false;
  });
  for (const { pastRow, historyRow } of garbage) {
    tx.delete("key", historyRow);
    tx.delete("past", pastRow);
  }
  return { removed: garbage.length, next };
}
