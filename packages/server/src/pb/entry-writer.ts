/**
 * raftpb.Entry straight into a buffer at a known place: what the WAL and the append streams do for every entry. Same
 * bytes as the generated codec, without the arrays in between.
 */
import type { Entry } from "./gen/raftpb.gen.ts";

/** Of a counter, 0 <= value <= 2^53. */
export function varintSize(value: number): number {
  let size = 1;
  for (let rest = value; rest >= 0x80; rest = Math.floor(rest / 0x80)) size++;
  return size;
}

/** Returns the offset behind what was written. The caller has made room. */
export function writeVarint(bytes: Uint8Array, value: number, at: number): number {
  let rest = value;
  let position = at;
  // Bit operations are exact up to 2^31; only what is larger needs a division.
  while (rest > 0x7fff_ffff) {
    bytes[position++] = (rest % 0x80) | 0x80;
    rest = Math.floor(rest / 0x80);
  }
  while (rest >= 0x80) {
    bytes[position++] = (rest & 0x7f) | 0x80;
    rest >>>= 7;
  }
  bytes[position++] = rest;
  return position;
}

export function entrySize(entry: Entry): number {
  const { data } = entry;
  return (
    3 +
    varintSize(entry.type) +
    varintSize(entry.term) +
    varintSize(entry.index) +
    (data === undefined ? 0 : 1 + varintSize(data.length) + data.length)
  );
}

/** 1 type, 2 term, 3 index always, 4 data unless absent. Returns the offset behind it. */
export function writeEntry(bytes: Uint8Array, entry: Entry, at: number): number {
  const { data } = entry;
  let position = at;
  bytes[position++] = 0x08;
  position = writeVarint(bytes, entry.type, position);
  bytes[position++] = 0x10;
  position = writeVarint(bytes, entry.term, position);
  bytes[position++] = 0x18;
  position = writeVarint(bytes, entry.index, position);
  if (data !== undefined) {
    bytes[position++] = 0x22;
    position = writeVarint(bytes, data.length, position);
    bytes.set(data, position);
    position += data.length;
  }
  return position;
}
