/**
 * Sorts any number of records by key in bounded memory: what does not fit is sorted in runs that go to a file, and the
 * runs are merged when the records are read. Records of one key come out in the order in which they went in.
 */
import fs from "node:fs";
import { assert } from "../../lib/assert.ts";
import { type FileSystem, type OpenFile, writeFully } from "../file-system.ts";
import { compareRanges } from "../page-file.ts";

const RUN_BYTES = 20 * 1024 * 1024;
const RUN_RECORDS = 400_000;
const READ_BYTES = 256 * 1024;
const WRITE_BYTES = 1024 * 1024;
/** key length u32, payload length u32 */
const HEADER_BYTES = 8;

/** One record: views that are valid until the next one is asked for. */
export interface SortedRecord {
  readonly buffer: Buffer;
  readonly keyAt: number;
  readonly keyEnd: number;
  readonly payloadAt: number;
  readonly payloadEnd: number;
}

interface Run {
  readonly position: number;
  readonly bytes: number;
}

export class RowSorter {
  readonly #path: string;
  readonly #files: FileSystem;
  #arena: Buffer | undefined;
  readonly #offsets = new Uint32Array(RUN_RECORDS);
  #count = 0;
  #used = 0;
  readonly #runs: Run[] = [];
  #file: OpenFile | undefined;
  #position = 0;

  /** `path` is made when memory runs out, and removed by `close`. */
  constructor(path: string, files: FileSystem) {
    this.#path = path;
    this.#files = files;
  }

  /** Room for a record; the caller fills key and payload in. Not when `isFull`. */
  reserve(keyLength: number, payloadLength: number): { readonly buffer: Buffer; readonly at: number } {
    const bytes = HEADER_BYTES + keyLength + payloadLength;
    this.#arena ??= Buffer.allocUnsafeSlow(RUN_BYTES);
    assert(this.#used + bytes <= this.#arena.length && this.#count < RUN_RECORDS, "a sorter that is full");
    const at = this.#used;
    this.#arena.writeUInt32LE(keyLength, at);
    this.#arena.writeUInt32LE(payloadLength, at + 4);
    this.#offsets[this.#count++] = at;
    this.#used += bytes;
    return { buffer: this.#arena, at: at + HEADER_BYTES };
  }

  /** Whether `spill` must be called before the next record. Records have at most 64 KiB. */
  get isFull(): boolean {
    return this.#count === RUN_RECORDS || this.#used + 65_536 > RUN_BYTES;
  }

  async spill(): Promise<void> {
    if (this.#count === 0) return;
    this.#file ??= await this.#files.open(this.#path, "create", 0o600);
    const arena = this.#arena as Buffer;
    this.#sort();
    const start = this.#position;
    const out = Buffer.allocUnsafeSlow(WRITE_BYTES);
    let filled = 0;
    for (let i = 0; i < this.#count; i++) {
      const at = this.#offsets[i] as number;
      const end = at + HEADER_BYTES + arena.readUInt32LE(at) + arena.readUInt32LE(at + 4);
      if (filled + end - at > out.length) {
        await writeFully(this.#file, out, filled, this.#position);
        this.#position += filled;
        filled = 0;
      }
      out.set(arena.subarray(at, end), filled);
      filled += end - at;
    }
    await writeFully(this.#file, out, filled, this.#position);
    this.#position += filled;
    this.#runs.push({ position: start, bytes: this.#position - start });
    this.#count = 0;
    this.#used = 0;
  }

  /** All records in order. */
  async records(): Promise<Generator<SortedRecord>> {
    if (this.#runs.length === 0) {
      this.#sort();
      return this.#fromMemory();
    }
    await this.spill();
    this.#arena = undefined;
    return this.#merged();
  }

  *#fromMemory(): Generator<SortedRecord> {
    const arena = this.#arena;
    if (!arena) return;
    for (let i = 0; i < this.#count; i++) yield recordAt(arena, this.#offsets[i] as number);
  }

  *#merged(): Generator<SortedRecord> {
    const fd = fs.openSync(this.#path, "r");
    try {
      // A heap, of which the first has the least key; equal keys by the age of the run.
      const heap = this.#runs.map((run, age) => new RunReader(fd, run, age)).filter((reader) => reader.next());
      for (let i = (heap.length >> 1) - 1; i >= 0; i--) sink(heap, i);
      for (let first = heap[0]; first; first = heap[0]) {
        yield first.record;
        if (!first.next()) {
          const last = heap.pop() as RunReader;
          if (heap.length === 0) return;
          if (last !== first) heap[0] = last;
        }
        sink(heap, 0);
      }
    } finally {
      fs.closeSync(fd);
    }
  }

  async close(): Promise<void> {
    this.#arena = undefined;
    if (!this.#file) return;
    await this.#file.close();
    this.#file = undefined;
    await this.#files.removeTree(this.#path);
  }

  #sort(): void {
    if (this.#arena) sortRecords(this.#arena, this.#offsets, 0, this.#count, 0);
  }
}

function recordAt(buffer: Buffer, at: number): SortedRecord {
  const keyAt = at + HEADER_BYTES;
  const keyEnd = keyAt + buffer.readUInt32LE(at);
  return { buffer, keyAt, keyEnd, payloadAt: keyEnd, payloadEnd: keyEnd + buffer.readUInt32LE(at + 4) };
}

class RunReader {
  readonly #fd: number;
  readonly age: number;
  #left: number;
  #position: number;
  #buffer = Buffer.allocUnsafeSlow(READ_BYTES);
  #at = 0;
  #filled = 0;
  #next = 0;
  record: SortedRecord = { buffer: this.#buffer, keyAt: 0, keyEnd: 0, payloadAt: 0, payloadEnd: 0 };

  constructor(fd: number, run: Run, age: number) {
    this.#fd = fd;
    this.age = age;
    this.#position = run.position;
    this.#left = run.bytes;
  }

  next(): boolean {
    this.#at = this.#next;
    if (this.#filled - this.#at < HEADER_BYTES && !this.#fill(HEADER_BYTES)) return false;
    const bytes = HEADER_BYTES + this.#buffer.readUInt32LE(this.#at) + this.#buffer.readUInt32LE(this.#at + 4);
    if (this.#filled - this.#at < bytes && !this.#fill(bytes)) throw new Error("a run of sorted records is cut short");
    this.#next = this.#at + bytes;
    this.record = recordAt(this.#buffer, this.#at);
    return true;
  }

  #fill(wanted: number): boolean {
    this.#buffer.copy(this.#buffer, 0, this.#at, this.#filled);
    this.#filled -= this.#at;
    this.#at = 0;
    while (this.#filled < wanted && this.#left > 0) {
      const room = Math.min(this.#buffer.length - this.#filled, this.#left);
      const count = fs.readSync(this.#fd, this.#buffer, this.#filled, room, this.#position);
      if (count === 0) return false;
      this.#position += count;
      this.#left -= count;
      this.#filled += count;
    }
    return this.#filled >= wanted;
  }
}

function comesBefore(a: RunReader, b: RunReader): boolean {
  const [x, y] = [a.record, b.record];
  const order = compareRanges(x.buffer, x.keyAt, x.keyEnd, y.buffer, y.keyAt, y.keyEnd);
  return order < 0 || (order === 0 && a.age < b.age);
}

function sink(heap: RunReader[], from: number): void {
  for (let i = from; ; ) {
    let least = i;
    for (const child of [2 * i + 1, 2 * i + 2]) {
      const candidate = heap[child];
      if (candidate && comesBefore(candidate, heap[least] as RunReader)) least = child;
    }
    if (least === i) return;
    [heap[i], heap[least]] = [heap[least] as RunReader, heap[i] as RunReader];
    i = least;
  }
}

/** Below it, comparing is quicker than looking at prefixes. */
const FEW = 24;
/** Place of a record within the range that is being sorted, beside four bytes of its key in one exact number. */
const PLACES = 2 ** 20;

/**
 * By four bytes of the keys at a time: numbers made of them and of the present place are sorted by the engine, and what
 * agrees in the four is sorted by the next. The bytes that all keys of a range share are stepped over.
 */
function sortRecords(arena: Buffer, offsets: Uint32Array, from: number, to: number, depth: number): void {
  if (to - from <= FEW) {
    insertionSort(arena, offsets, from, to, depth);
    return;
  }
  const shared = sharedPrefix(arena, offsets, from, to, depth);
  const numbers = new Float64Array(to - from);
  for (let i = from; i < to; i++) {
    const at = offsets[i] as number;
    const end = at + HEADER_BYTES + arena.readUInt32LE(at);
    let prefix = 0;
    for (let b = at + HEADER_BYTES + shared, n = 0; n < 4; n++, b++) {
      prefix = prefix * 256 + (b < end ? (arena[b] as number) : 0);
    }
    numbers[i - from] = prefix * PLACES + (i - from);
  }
  numbers.sort();
  const before = offsets.slice(from, to);
  for (let i = 0; i < numbers.length; i++) offsets[from + i] = before[(numbers[i] as number) % PLACES] as number;
  for (let i = 0; i < numbers.length; ) {
    const prefix = Math.floor((numbers[i] as number) / PLACES);
    let j = i + 1;
    while (j < numbers.length && Math.floor((numbers[j] as number) / PLACES) === prefix) j++;
    if (j - i > 1) sortTies(arena, offsets, from + i, from + j, shared + 4);
    i = j;
  }
}

/** Keys that agree in all bytes before `depth`, where those that end before it count as having zeros there. */
function sortTies(arena: Buffer, offsets: Uint32Array, from: number, to: number, depth: number): void {
  let hasShort = false;
  for (let i = from; i < to; i++) if (arena.readUInt32LE(offsets[i] as number) <= depth) hasShort = true;
  if (!hasShort) {
    sortRecords(arena, offsets, from, to, depth);
    return;
  }
  const sorted = [...offsets.subarray(from, to)].sort((a, b) => compareRecords(arena, a, b, 0) || a - b);
  offsets.set(sorted, from);
}

function compareRecords(arena: Buffer, a: number, b: number, depth: number): number {
  return compareRanges(
    arena,
    a + HEADER_BYTES + depth,
    a + HEADER_BYTES + arena.readUInt32LE(a),
    arena,
    b + HEADER_BYTES + depth,
    b + HEADER_BYTES + arena.readUInt32LE(b),
  );
}

function insertionSort(arena: Buffer, offsets: Uint32Array, from: number, to: number, depth: number): void {
  for (let i = from + 1; i < to; i++) {
    const record = offsets[i] as number;
    let j = i - 1;
    while (j >= from && compareRecords(arena, offsets[j] as number, record, depth) > 0) {
      offsets[j + 1] = offsets[j] as number;
      j--;
    }
    offsets[j + 1] = record;
  }
}

function sharedPrefix(arena: Buffer, offsets: Uint32Array, from: number, to: number, depth: number): number {
  const first = (offsets[from] as number) + HEADER_BYTES;
  let shared = arena.readUInt32LE(first - HEADER_BYTES);
  for (let i = from + 1; i < to && shared > depth; i++) {
    const at = (offsets[i] as number) + HEADER_BYTES;
    const length = Math.min(shared, arena.readUInt32LE(at - HEADER_BYTES));
    let n = depth;
    while (n < length && arena[at + n] === arena[first + n]) n++;
    shared = n;
  }
  return Math.max(shared, depth);
}
