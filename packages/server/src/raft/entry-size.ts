/** Sizes of entries, as the limits of raft count them. */
import type { Entry } from "../pb/raftpb.ts";

function varintSize(value: number): number {
  let size = 1;
  let rest = value;
  while (rest >= 128) {
    rest = Math.floor(rest / 128);
    size++;
  }
  return size;
}

/** Encoded bytes of an entry as protobuf (raftpb.Entry: type, term and index are always written). */
export function entrySize(entry: Entry): number {
  const fixed = 3 + varintSize(entry.type) + varintSize(entry.term) + varintSize(entry.index);
  return entry.data === undefined ? fixed : fixed + 1 + varintSize(entry.data.length) + entry.data.length;
}

export function entriesSize(entries: readonly Entry[]): number {
  let size = 0;
  for (const entry of entries) size += entrySize(entry);
  return size;
}

/** Bytes of the data alone. An empty entry, such as a new leader's, counts nothing. */
export function payloadsSize(entries: readonly Entry[]): number {
  let size = 0;
  for (const entry of entries) if (entry.data !== undefined) size += entry.data.length;
  return size;
}

/** The end of the longest run [from, end) whose encoded size is at most `bytesMax`; one entry at least, if any. */
export function limitSize(entries: readonly Entry[], from: number, to: number, bytesMax: number): number {
  if (bytesMax === Number.POSITIVE_INFINITY || from >= to) return to;
  let size = entrySize(entries[from] as Entry);
  for (let i = from + 1; i < to; i++) {
    size += entrySize(entries[i] as Entry);
    if (size > bytesMax) return i;
  }
  return to;
}
