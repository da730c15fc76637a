/**
 * Reads the records of consecutive segments, checking every frame and the CRC chain. Damage is told apart as etcd does:
 * an end in the middle of a record, or a broken record of the last segment with a sector of zeros in it, is a torn
 * write ("unexpectedEof", can be repaired); anything else is corruption.
 *
 * A length of zero is the end of a segment: the rest of the file is preallocated, or never became whole.
 */
import { asBuffer } from "../../lib/bytes.ts";
import { crc32c } from "../../lib/crc32c.ts";
import { Record } from "../../pb/walpb.ts";
import type { OpenFile } from "../file-system.ts";
import { FRAME_HEADER_BYTES, RecordType } from "./record-buffer.ts";
import { WalError } from "./types.ts";

const SECTOR_BYTES = 512;
const CHUNK_BYTES = 1024 * 1024;

export interface SegmentFile {
  readonly file: OpenFile;
  readonly size: number;
}

export class RecordReader {
  readonly #segments: readonly SegmentFile[];
  #current = 0;
  /** Offset in the current file behind the last record that was whole. */
  #validOffset = 0;
  #crc = 0;
  /** Bytes of the file from #validOffset on are at #chunk[#at...]. A chunk is never written to again: records are views. */
  #chunk: Buffer = Buffer.alloc(0);
  #at = 0;

  constructor(segments: readonly SegmentFile[]) {
    this.#segments = segments;
  }

  /** Running crc behind the last record. */
  get crc(): number {
    return this.#crc;
  }

  /** Where the next record of the current (at the end: the last) segment would begin. */
  get offset(): number {
    return this.#validOffset;
  }

  /** The next record, `undefined` at the end of the last segment. Throws WalError. */
  next(): Record | undefined | Promise<Record | undefined> {
    const length = this.#frameLength();
    if (length !== undefined && this.#chunk.length - this.#at >= length) return this.#take(length);
    return this.#nextSlow();
  }

  /** Of the frame that begins at #at, its header included; undefined when that is not a plain one lying in the chunk. */
  #frameLength(): number | undefined {
    const at = this.#at;
    if (this.#chunk.length - at < FRAME_HEADER_BYTES) return undefined;
    const low = this.#chunk.readUInt32LE(at);
    const high = this.#chunk.readUInt32LE(at + 4);
    if ((low === 0 && high === 0) || (high & 0x00ff_ffff) !== 0) return undefined;
    return FRAME_HEADER_BYTES + low + padOf(high);
  }

  async #nextSlow(): Promise<Record | undefined> {
    for (;;) {
      const segment = this.#segments[this.#current];
      if (!segment) return undefined;
      const rest = segment.size - this.#validOffset;
      const available = await this.#fill(segment, FRAME_HEADER_BYTES);
      if (rest > 0 && available < FRAME_HEADER_BYTES) throw this.#torn("the file ends inside a frame header");
      const low = rest > 0 ? this.#chunk.readUInt32LE(this.#at) : 0;
      const high = rest > 0 ? this.#chunk.readUInt32LE(this.#at + 4) : 0;
      if (low === 0 && high === 0) {
        this.#current++;
        if (this.#current < this.#segments.length) {
          this.#validOffset = 0;
          this.#chunk = Buffer.alloc(0);
          this.#at = 0;
        }
        continue;
      }
      const recordBytes = low + (high & 0x00ff_ffff) * 2 ** 32;
      const pad = padOf(high);
      if (recordBytes > rest - pad - FRAME_HEADER_BYTES) {
        throw this.#torn(
          `max entry size limit exceeded, recBytes: ${recordBytes}, fileSize(${segment.size}) - ` +
            `offset(${this.#validOffset}) - padBytes(${pad})`,
        );
      }
      const length = FRAME_HEADER_BYTES + recordBytes + pad;
      if ((await this.#fill(segment, length)) < length) throw this.#torn("the file ends inside a record");
      return this.#take(length);
    }
  }

  /** Makes at least `wanted` bytes of the file lie in the chunk, unless it ends before; returns how many do. */
  async #fill(segment: SegmentFile, wanted: number): Promise<number> {
    const have = this.#chunk.length - this.#at;
    if (have >= wanted) return have;
    const room = Math.min(Math.max(CHUNK_BYTES, wanted), segment.size - this.#validOffset);
    const chunk = Buffer.allocUnsafeSlow(Math.max(room, have));
    chunk.set(this.#chunk.subarray(this.#at), 0);
    let filled = have;
    while (filled < chunk.length) {
      const count = await segment.file.read(chunk, filled, chunk.length - filled, this.#validOffset + filled);
      if (count === 0) break;
      filled += count;
    }
    this.#chunk = chunk.subarray(0, filled);
    this.#at = 0;
    return filled;
  }

  #take(length: number): Record {
    const frame = this.#chunk.subarray(this.#at + FRAME_HEADER_BYTES, this.#at + length);
    const recordBytes = length - FRAME_HEADER_BYTES - padOf(this.#chunk.readUInt32LE(this.#at + 4));
    let record: Record;
    try {
      record = plainRecord(frame, recordBytes) ?? Record.decode(frame.subarray(0, recordBytes));
    } catch (error) {
      if (this.#hasZeroSector(frame)) throw this.#torn("a record is written in part");
      throw new WalError("badRecord", `wal: cannot decode a record ${this.#where()}`, { cause: error });
    }
    if (record.type === RecordType.crc) {
      if (this.#crc !== 0 && record.crc !== this.#crc) throw this.#crcMismatch();
      this.#crc = record.crc;
    } else {
      const crc = record.data === undefined ? this.#crc : crc32c(record.data, this.#crc);
      if (record.crc !== crc) {
        if (this.#hasZeroSector(frame)) throw this.#torn("a record is written in part");
        throw this.#crcMismatch();
      }
      this.#crc = crc;
    }
    this.#at += length;
    this.#validOffset += length;
    return record;
  }

  /** Disks write whole sectors: of a record that was being written at a crash, some are still zero. */
  #hasZeroSector(frame: Uint8Array): boolean {
    if (this.#current !== this.#segments.length - 1) return false;
    const start = this.#validOffset + FRAME_HEADER_BYTES;
    const bytes = asBuffer(frame);
    for (let from = 0; from < bytes.length; ) {
      const to = Math.min(bytes.length, from + SECTOR_BYTES - ((start + from) % SECTOR_BYTES));
      if (bytes.subarray(from, to).every((byte) => byte === 0)) return true;
      from = to;
    }
    return false;
  }

  #where(): string {
    return `in file '${this.#segments[this.#current]?.file.path}' at position: ${this.#validOffset}`;
  }

  #torn(what: string): WalError {
    return new WalError("unexpectedEof", `unexpected EOF: ${what}, ${this.#where()}`);
  }

  #crcMismatch(): WalError {
    return new WalError("crcMismatch", `walpb: crc mismatch: ${this.#where()}`);
  }
}

/** A record of the shape that all writers give it: type, crc, data. `undefined`: it has to be decoded. */
function plainRecord(frame: Uint8Array, length: number): Record | undefined {
  const type = frame[1] as number;
  if (length < 4 || frame[0] !== 0x08 || type >= 0x80 || frame[2] !== 0x10) return undefined;
  let at = 3;
  let crc = 0;
  for (let scale = 1; ; scale *= 128) {
    if (at === length) return undefined;
    const byte = frame[at++] as number;
    crc += (byte & 0x7f) * scale;
    if (byte < 0x80) break;
  }
  if (crc > 0xffff_ffff) return undefined;
  if (at === length) return { type, crc, data: undefined } as Record;
  if (frame[at++] !== 0x1a) return undefined;
  let bytes = 0;
  for (let scale = 1; ; scale *= 128) {
    if (at === length) return undefined;
    const byte = frame[at++] as number;
    bytes += (byte & 0x7f) * scale;
    if (byte < 0x80) break;
  }
  return at + bytes === length ? ({ type, crc, data: frame.subarray(at, length) } as Record) : undefined;
}

function padOf(high: number): number {
  return high & 0x8000_0000 ? (high >>> 24) & 7 : 0;
}
