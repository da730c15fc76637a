/**
 * Frames of the WAL, encoded straight into one growing buffer: nothing is built first and copied afterwards.
 *
 * ```
 * | length: u64 LE; top byte 0x80 + pad if padded | walpb.Record | 0..7 zero bytes, to a multiple of 8 |
 *                                                  08 type 10 crc [1a len data]
 * ```
 *
 * The crc of a record is the running CRC-32C of the data of all records up to and with it. It stands before the data
 * and its varint has one to five bytes, so the data is written where it lies when the crc needs five, which is so for
 * fifteen of sixteen, and moved otherwise.
 */
import { crc32c } from "../../lib/crc32c.ts";
import { entrySize, varintSize, writeEntry, writeVarint } from "../../pb/entry-writer.ts";
import type { Entry, HardState } from "../../pb/raftpb.ts";

export const RecordType = { metadata: 1, entry: 2, state: 3, crc: 4, snapshot: 5 } as const;

export const FRAME_HEADER_BYTES = 8;

/** Kept across batches up to this size; a batch beyond gets memory that is given back afterwards. */
const KEPT_BYTES_MAX = 4 * 1024 * 1024;
const FIRST_BYTES = 64 * 1024;

const CRC_VARINT_BYTES_MAX = 5;

export class RecordBuffer {
  bytes: Buffer = Buffer.allocUnsafeSlow(FIRST_BYTES);
  /** Bytes filled; a multiple of 8 between records. */
  length = 0;

  clear(): void {
    this.length = 0;
    if (this.bytes.length > KEPT_BYTES_MAX) this.bytes = Buffer.allocUnsafeSlow(FIRST_BYTES);
  }

  #reserve(bytes: number): void {
    const needed = this.length + bytes;
    if (needed <= this.bytes.length) return;
    const grown = Buffer.allocUnsafeSlow(Math.max(needed, 2 * this.bytes.length));
    grown.set(this.bytes.subarray(0, this.length), 0);
    this.bytes = grown;
  }

  #varintBigint(value: bigint, at: number): number {
    if (value <= 0xffff_ffffn) return writeVarint(this.bytes, Number(value), at);
    let rest = BigInt.asUintN(64, value);
    let position = at;
    while (rest >= 0x80n) {
      this.bytes[position++] = Number(rest & 0x7fn) | 0x80;
      rest >>= 7n;
    }
    this.bytes[position++] = Number(rest);
    return position;
  }

  /** Where a record's data of this size begins if the crc takes five bytes. Reserves room for all of it. */
  #dataStart(dataBytes: number): number {
    this.#reserve(FRAME_HEADER_BYTES + 2 + 1 + CRC_VARINT_BYTES_MAX + 1 + varintSize(dataBytes) + dataBytes + 8);
    return this.length + FRAME_HEADER_BYTES + 2 + 1 + CRC_VARINT_BYTES_MAX + 1 + varintSize(dataBytes);
  }

  /** Puts frame, type, crc and length around data that lies at `start`; returns the running crc. */
  #frame(type: number, start: number, dataBytes: number, previousCrc: number): number {
    const { bytes } = this;
    const crc = crc32c(bytes.subarray(start, start + dataBytes), previousCrc);
    let at = this.length + FRAME_HEADER_BYTES;
    bytes[at++] = 0x08;
    bytes[at++] = type;
    bytes[at++] = 0x10;
    at = writeVarint(this.bytes, crc, at);
    bytes[at++] = 0x1a;
    at = writeVarint(this.bytes, dataBytes, at);
    if (at !== start) bytes.copyWithin(at, start, start + dataBytes);
    this.#finish(at + dataBytes);
    return crc;
  }

  #finish(end: number): void {
    const { bytes } = this;
    const recordBytes = end - this.length - FRAME_HEADER_BYTES;
    const pad = (8 - (recordBytes % 8)) % 8;
    bytes.writeUInt32LE(recordBytes, this.length);
    bytes.writeUInt32LE(pad === 0 ? 0 : ((0x80 | pad) << 24) >>> 0, this.length + 4);
    bytes.fill(0, end, end + pad);
    this.length = end + pad;
  }

  /** A record whose data is there already: metadata, snapshot. */
  data(type: number, data: Uint8Array, previousCrc: number): number {
    const start = this.#dataStart(data.length);
    this.bytes.set(data, start);
    return this.#frame(type, start, data.length, previousCrc);
  }

  /** The record that begins a segment: it has no data and carries the crc that the segment before ended with. */
  crc(previousCrc: number): void {
    this.#reserve(FRAME_HEADER_BYTES + 2 + 1 + CRC_VARINT_BYTES_MAX + 8);
    let at = this.length + FRAME_HEADER_BYTES;
    this.bytes[at++] = 0x08;
    this.bytes[at++] = RecordType.crc;
    this.bytes[at++] = 0x10;
    this.#finish(writeVarint(this.bytes, previousCrc, at));
  }

  entry(entry: Entry, previousCrc: number): number {
    const dataBytes = entrySize(entry);
    const start = this.#dataStart(dataBytes);
    writeEntry(this.bytes, entry, start);
    return this.#frame(RecordType.entry, start, dataBytes, previousCrc);
  }

  /** raftpb.HardState: 1 term, 2 vote, 3 commit, always. */
  hardState(state: HardState, previousCrc: number): number {
    // Room for the longest form; the real length is known once the bytes stand there.
    const start = this.#dataStart(33);
    const { bytes } = this;
    let at = start;
    bytes[at++] = 0x08;
    at = writeVarint(this.bytes, state.term, at);
    bytes[at++] = 0x10;
    at = this.#varintBigint(state.vote, at);
    bytes[at++] = 0x18;
    at = writeVarint(this.bytes, state.commit, at);
    return this.#frame(RecordType.state, start, at - start, previousCrc);
  }
}
