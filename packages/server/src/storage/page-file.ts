/**
 * Reads a file of pages in the order of a tree: big pieces as long as the pages lie one behind the other, single pages
 * where they do not. Memory is bounded and reused, so what is handed out is valid only for a few further reads: a
 * walker copies what it needs for longer. All of it is memory that can be summed in place.
 */
import fs from "node:fs";
import { assert } from "../lib/assert.ts";
import { crc32c, crcMemory } from "../lib/crc32c.ts";

const STREAM_BYTES = 1024 * 1024;
const STREAM_START_BYTES = 64 * 1024;
const NEAR_BYTES = 256 * 1024;
const SLOT_BYTES = 16 * 1024;
const SLOTS = 32;
const PAGE_FROM = STREAM_BYTES + SLOTS * SLOT_BYTES;
const PAGE_BYTES = 4096;

export class PageFile {
  readonly fileBytes: number;
  /** Bytes read so far, for progress. */
  bytesRead = 0;
  readonly #fd: number;
  readonly #memory: Buffer;
  readonly #crc: (offset: number, length: number, previous: number) => number;
  readonly #copy: (to: number, from: number, length: number) => void;
  #streamFrom = 0;
  #streamTo = 0;
  #streamBytes = STREAM_START_BYTES;
  #expected = 0;
  readonly #slotAt = new Float64Array(SLOTS).fill(-1);
  readonly #slotLength = new Float64Array(SLOTS);
  #nextSlot = 0;
  /** What the last `locate` found: `length` bytes from `at` on in `buffer`. */
  buffer: Buffer;
  at = 0;
  readonly #page: Buffer;
  #isPageTaken = false;

  constructor(fd: number) {
    this.#fd = fd;
    this.fileBytes = fs.fstatSync(fd).size;
    const { bytes, crc, copy } = crcMemory(PAGE_FROM + PAGE_BYTES);
    this.#memory = Buffer.from(bytes.buffer, bytes.byteOffset, PAGE_FROM);
    this.#page = Buffer.from(bytes.buffer, bytes.byteOffset + PAGE_FROM, PAGE_BYTES);
    this.#crc = crc;
    this.#copy = copy;
    this.buffer = this.#memory;
  }

  /** Points `buffer` and `at` at these bytes of the file; false when the file ends before they do. */
  locate(position: number, length: number): boolean {
    if (position + length > this.fileBytes) return false;
    if (position >= this.#streamFrom && position + length <= this.#streamTo) {
      this.buffer = this.#memory;
      this.at = position - this.#streamFrom;
      this.#expected = position + length;
      return true;
    }
    if (length <= SLOT_BYTES) {
      for (let slot = 0; slot < SLOTS; slot++) {
        if (this.#slotAt[slot] === position && (this.#slotLength[slot] as number) >= length) {
          this.buffer = this.#memory;
          this.at = STREAM_BYTES + slot * SLOT_BYTES;
          return true;
        }
      }
    }
    const ahead = position - this.#expected;
    this.#expected = position + length;
    if (ahead >= 0 && ahead <= NEAR_BYTES && length <= STREAM_BYTES) {
      const wanted = Math.max(length, this.#streamBytes);
      const got = this.#read(0, wanted, position);
      this.#streamBytes = Math.min(STREAM_BYTES, this.#streamBytes * 2);
      this.#streamFrom = position;
      this.#streamTo = position + got;
      this.buffer = this.#memory;
      this.at = 0;
      return got >= length;
    }
    this.#streamBytes = STREAM_START_BYTES;
    if (length > SLOT_BYTES) {
      this.buffer = Buffer.allocUnsafeSlow(length);
      this.at = 0;
      return readFully(this.#fd, this.buffer, 0, length, position) === length;
    }
    const slot = this.#nextSlot;
    this.#nextSlot = (slot + 1) % SLOTS;
    const from = STREAM_BYTES + slot * SLOT_BYTES;
    const got = this.#read(from, Math.max(length, 4096), position);
    this.#slotAt[slot] = position;
    this.#slotLength[slot] = got;
    this.buffer = this.#memory;
    this.at = from;
    return got >= length;
  }

  #read(into: number, length: number, position: number): number {
    const got = readFully(this.#fd, this.#memory, into, Math.min(length, this.fileBytes - position), position);
    this.bytesRead += got;
    return got;
  }

  /** The checksum of bytes that this file handed out. */
  crc(buffer: Buffer, at: number, length: number, previous: number): number {
    if (buffer === this.#memory) return this.#crc(at, length, previous);
    return crc32c(buffer.subarray(at, at + length), previous);
  }

  /** Room for a page to be made, in the same memory as what is handed out: see `copyToPage`. For one user at a time. */
  takePage(): Buffer {
    assert(!this.#isPageTaken, "two that make pages in the memory of one file");
    this.#isPageTaken = true;
    return this.#page;
  }

  givePageBack(): void {
    this.#isPageTaken = false;
  }

  /** Copies bytes that this file handed out to that page; false when they lie elsewhere, and then nothing is done. */
  copyToPage(buffer: Buffer, at: number, end: number, to: number): boolean {
    if (buffer !== this.#memory || to + end - at > PAGE_BYTES) return false;
    this.#copy(PAGE_FROM + to, at, end - at);
    return true;
  }

  close(): void {
    fs.closeSync(this.#fd);
  }
}

function readFully(fd: number, into: Buffer, at: number, length: number, position: number): number {
  let filled = 0;
  while (filled < length) {
    const count = fs.readSync(fd, into, at + filled, length - filled, position + filled);
    if (count === 0) break;
    filled += count;
  }
  return filled;
}

const VIEWS = 8;
/** From so many bytes on a buffer is one that pages or many rows lie in, and is met again. */
const VIEWED_BYTES_MIN = 4096;
const viewed: (Uint8Array | undefined)[] = new Array(VIEWS).fill(undefined);
const views: DataView[] = new Array(VIEWS).fill(new DataView(new ArrayBuffer(0)));
let oldest = 0;

/** A view of a big buffer; those of the last few are kept, as making one costs more than most of what is done with it. */
export function viewOf(bytes: Uint8Array): DataView {
  for (let i = 0; i < VIEWS; i++) if (viewed[i] === bytes) return views[i] as DataView;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  viewed[oldest] = bytes;
  views[oldest] = view;
  oldest = (oldest + 1) % VIEWS;
  return view;
}

const isBig = (bytes: Uint8Array): boolean => bytes.length >= VIEWED_BYTES_MIN;

/** Order of two byte ranges, as etcd orders keys. */
export function compareRanges(
  a: Uint8Array,
  aAt: number,
  aEnd: number,
  b: Uint8Array,
  bAt: number,
  bEnd: number,
): number {
  const aLength = aEnd - aAt;
  const bLength = bEnd - bAt;
  const length = Math.min(aLength, bLength);
  let i = 0;
  if (length >= 8 && isBig(a) && isBig(b)) {
    const [inA, inB] = [viewOf(a), viewOf(b)];
    for (; i + 4 <= length; i += 4) {
      const difference = inA.getUint32(aAt + i) - inB.getUint32(bAt + i);
      if (difference !== 0) return difference;
    }
  }
  for (; i < length; i++) {
    const difference = (a[aAt + i] as number) - (b[bAt + i] as number);
    if (difference !== 0) return difference;
  }
  return aLength - bLength;
}

/** Copies a byte range. Short ones piece by piece: a call into the engine costs more than a key. */
export function copyRange(from: Uint8Array, at: number, end: number, to: Buffer, toAt: number): void {
  if (end - at >= 128) {
    if (from instanceof Buffer) from.copy(to, toAt, at, end);
    else to.set(from.subarray(at, end), toAt);
    return;
  }
  let i = at;
  let into = toAt;
  if (end - at >= 8 && isBig(from) && isBig(to)) {
    const [source, target] = [viewOf(from), viewOf(to)];
    for (; i + 4 <= end; i += 4, into += 4) target.setInt32(into, source.getInt32(i));
  }
  for (; i < end; i++, into++) to[into] = from[i] as number;
}
