/**
 * The index of keys: `live` and `past` read in the order of user keys. What the rows are is told in
 * storage/schema/index-rows.ts; here is how they are walked.
 *
 * At the current revision a range is a walk over `live`. At an older one it is the merge of two walks: the live rows
 * that are old enough, and the past rows that had not been superseded then. No key is in both.
 *
 * Long keys stand in groups that are ordered by hash. A walk gathers a group, reads the whole keys from the `key` rows
 * and sorts them; so only who uses such keys pays for them.
 */
import { assert } from "../lib/assert.ts";
import { compareBytes, copyBytes } from "../lib/bytes.ts";
import {
  appendPastRevision,
  type BackendReader,
  decodeLiveRow,
  decodePastRow,
  isLongKeyForPast,
  isLongLiveKey,
  isSameLiveGroup,
  keyOfKeyValue,
  type LiveRow,
  liveGroupEnd,
  liveGroupStart,
  liveKey,
  mainOfPastKey,
  pastBound,
  pastGroupEnd,
  pastPrefix,
  pastPrefixEnd,
  prefixOfPastKey,
  type Revision,
  revisionKey,
  SHORT_KEY_BYTES_MAX,
  type ScanOptions,
  subOfPastKey,
  userKeyOfPastPrefix,
} from "../storage/index.ts";
import { isEmptyRange, isInRange, type KeyRange, keyAfter } from "./key-range.ts";
import { OLD_RANGE_CHUNK_KEYS } from "./limits.ts";

/** Past rows of one key that a walk looks at in a row before it seeks instead. */
const PAST_ROWS_BEFORE_SEEK = 32;

/** Returning `false` stops. `userKey` may be kept; `row` is a row of `live`. */
// biome-ignore lint/suspicious/noConfusingVoidType: a visitor that returns nothing goes on.
export type LiveVisitor = (userKey: Uint8Array, row: Uint8Array) => boolean | void;

// biome-ignore lint/suspicious/noConfusingVoidType: a visitor that returns nothing goes on.
export type RevisionVisitor = (userKey: Uint8Array, revision: Revision) => boolean | void;

export function readLive(reader: BackendReader, userKey: Uint8Array): LiveRow | undefined {
  const row = reader.peek("live", liveKey(userKey));
  return row && decodeLiveRow(row);
}

/** The whole user key of the put at a revision, in memory of its own. */
function userKeyAt(reader: BackendReader, revision: Revision): Uint8Array {
  const stored = reader.peek("key", revisionKey(revision.main, revision.sub));
  assert(stored, () => `the index names revision ${revision.main}.${revision.sub}, which is not there`);
  return copyBytes(keyOfKeyValue(stored));
}

/** The bounds in `live` within which every key of `range` stands; groups at the edges hold others as well. */
export function liveBounds(range: KeyRange): { readonly start: Uint8Array; readonly end: Uint8Array | undefined } {
  const { start, end } = range;
  return {
    start: start.length > SHORT_KEY_BYTES_MAX ? liveGroupStart(start) : start,
    end: end && end.length > SHORT_KEY_BYTES_MAX ? liveGroupEnd(end) : end,
  };
}

/** The living keys of a range in order. */
export function walkLive(reader: BackendReader, range: KeyRange, visit: LiveVisitor): void {
  if (range.isSingle) {
    const row = reader.get("live", liveKey(range.start));
    if (row) visit(range.start, row);
    return;
  }
  if (isEmptyRange(range)) return;
  let group: { readonly rowKey: Uint8Array; readonly row: Uint8Array }[] = [];
  let isStopped = false;

  const flushGroup = (): void => {
    const members = group.map(({ row }) => ({ userKey: userKeyAt(reader, decodeLiveRow(row)), row }));
    group = [];
    members.sort((a, b) => compareBytes(a.userKey, b.userKey));
    for (const { userKey, row } of members) {
      if (isInRange(range, userKey) && visit(userKey, row) === false) {
        isStopped = true;
        return;
      }
    }
  };

  reader.scan("live", liveBounds(range), (rowKey, row) => {
    const isLong = isLongLiveKey(rowKey);
    const first = group[0];
    if (first && !(isLong && isSameLiveGroup(first.rowKey, rowKey))) {
      flushGroup();
      if (isStopped) return false;
    }
    if (isLong) group.push({ rowKey, row });
    else if (visit(rowKey, row) === false) isStopped = true;
    return !isStopped;
  });
  if (!isStopped && group.length > 0) flushGroup();
}

/** How many keys are alive in a range: a walk over row keys. counts.ts is quicker where it can answer. */
export function countLive(reader: BackendReader, range: KeyRange): number {
  if (range.isSingle) return reader.has("live", liveKey(range.start)) ? 1 : 0;
  if (isEmptyRange(range)) return 0;
  const { start, end } = range;
  if (start.length <= SHORT_KEY_BYTES_MAX && (end === undefined || end.length <= SHORT_KEY_BYTES_MAX)) {
    return reader.count("live", { start, end });
  }
  let count = 0;
  walkLive(reader, range, () => {
    count++;
  });
  return count;
}

/** Where the value of a key was at `atRevision`, or `undefined` when it was not alive then. */
export function findAt(reader: BackendReader, userKey: Uint8Array, atRevision: number): Revision | undefined {
  const row = reader.peek("live", liveKey(userKey));
  if (row) {
    const { main, sub } = decodeLiveRow(row);
    if (main <= atRevision) return { main, sub };
  }
  return findPast(reader, pastPrefix(userKey), atRevision);
}

function findPast(reader: BackendReader, prefix: Uint8Array, atRevision: number): Revision | undefined {
  const newest = reader.first("past", {
    start: prefix,
    end: appendPastRevision(prefix, atRevision + 1, 0),
    reverse: true,
  });
  if (!newest) return undefined;
  return isVisibleAt(newest.key, newest.value, atRevision)
    ? { main: mainOfPastKey(newest.key), sub: subOfPastKey(newest.key) }
    : undefined;
}

function isVisibleAt(rowKey: Uint8Array, value: Uint8Array, atRevision: number): boolean {
  const supersededBy = decodePastRow(value);
  return supersededBy !== undefined && mainOfPastKey(rowKey) <= atRevision && atRevision < supersededBy;
}

/** The keys of a range that were alive at `atRevision` and have since been superseded, in order. */
function walkPast(reader: BackendReader, range: KeyRange, atRevision: number, visit: RevisionVisitor): void {
  const options: ScanOptions = {
    end: range.end && (isLongKeyForPast(range.end) ? pastGroupEnd(range.end) : pastBound(range.end)),
  };
  let start: Uint8Array | undefined = pastBound(range.start);
  let isStopped = false;
  let group: Revision[] = [];
  /** The beginning that the long keys of `group` share in their row keys. */
  let groupPrefix: Uint8Array | undefined;

  const flushGroup = (): void => {
    const members = group.map((revision) => ({ userKey: userKeyAt(reader, revision), revision }));
    group = [];
    groupPrefix = undefined;
    members.sort((a, b) => compareBytes(a.userKey, b.userKey));
    for (const { userKey, revision } of members) {
      if (isInRange(range, userKey) && visit(userKey, revision) === false) {
        isStopped = true;
        return;
      }
    }
  };
  const found = (prefix: Uint8Array, revision: Revision): void => {
    const userKey = userKeyOfPastPrefix(prefix);
    if (userKey) {
      if (visit(userKey, revision) === false) isStopped = true;
      return;
    }
    groupPrefix ??= prefix.subarray(0, prefix.length - 32);
    group.push(revision);
  };

  while (start && !isStopped) {
    let prefix: Uint8Array | undefined;
    let rows = 0;
    let isFound = false;
    let seekBehind: Uint8Array | undefined;
    reader.scan("past", { ...options, start }, (rowKey, value) => {
      const rowPrefix = prefixOfPastKey(rowKey);
      if (!prefix || compareBytes(prefix, rowPrefix) !== 0) {
        prefix = rowPrefix;
        rows = 0;
        isFound = false;
        if (groupPrefix && compareBytes(groupPrefix, rowPrefix.subarray(0, groupPrefix.length)) !== 0) {
          flushGroup();
          if (isStopped) return false;
        }
      }
      if (isVisibleAt(rowKey, value, atRevision)) {
        isFound = true;
        found(rowPrefix, { main: mainOfPastKey(rowKey), sub: subOfPastKey(rowKey) });
      } else if (++rows >= PAST_ROWS_BEFORE_SEEK) {
        seekBehind = rowPrefix;
        return false;
      }
      return !isStopped;
    });
    start = undefined;
    if (seekBehind && !isStopped) {
      // A key with a long history: at most one of its rows is visible, and that can be sought.
      const revision = isFound ? undefined : findPast(reader, seekBehind, atRevision);
      if (revision) found(seekBehind, revision);
      start = pastPrefixEnd(seekBehind);
    }
  }
  if (!isStopped && group.length > 0) flushGroup();
}

/** The keys of a range that were alive at an older revision, in order, with where their values stand. */
export function walkAt(reader: BackendReader, range: KeyRange, atRevision: number, visit: RevisionVisitor): void {
  if (range.isSingle) {
    const revision = findAt(reader, range.start, atRevision);
    if (revision) visit(range.start, revision);
    return;
  }
  if (isEmptyRange(range)) return;
  let start: Uint8Array | undefined = range.start;
  while (start) {
    const chunk = readOldChunk(reader, { start, end: range.end, isSingle: false }, atRevision);
    for (const { userKey, revision } of chunk.found) if (visit(userKey, revision) === false) return;
    start = chunk.next;
  }
}

interface FoundAt {
  readonly userKey: Uint8Array;
  readonly revision: Revision;
}

/** Merges the beginning of a range from both tables; `next` is where the rest begins. */
function readOldChunk(
  reader: BackendReader,
  range: KeyRange,
  atRevision: number,
): { readonly found: readonly FoundAt[]; readonly next: Uint8Array | undefined } {
  const living: FoundAt[] = [];
  let seen = 0;
  let next: Uint8Array | undefined;
  walkLive(reader, range, (userKey, row) => {
    const { main, sub } = decodeLiveRow(row);
    if (main <= atRevision) living.push({ userKey, revision: { main, sub } });
    if (++seen < OLD_RANGE_CHUNK_KEYS) return true;
    next = keyAfter(userKey);
    return false;
  });
  const past: FoundAt[] = [];
  walkPast(reader, { start: range.start, end: next ?? range.end, isSingle: false }, atRevision, (userKey, revision) => {
    past.push({ userKey, revision });
    if (past.length < OLD_RANGE_CHUNK_KEYS) return true;
    next = keyAfter(userKey);
    return false;
  });
  if (past.length === 0) return { found: living, next };
  const found: FoundAt[] = [];
  let i = 0;
  for (const entry of past) {
    for (; i < living.length; i++) {
      const other = living[i] as FoundAt;
      if (compareBytes(other.userKey, entry.userKey) > 0) break;
      found.push(other);
    }
    found.push(entry);
  }
  // Behind the last past key of a full chunk there may be others before the next living one.
  if (past.length < OLD_RANGE_CHUNK_KEYS) while (i < living.length) found.push(living[i++] as FoundAt);
  return { found, next };
}
