/**
 * Sorts any number of records by key in bounded memory: what does not fit is sorted in runs that go to a file, and the
 * runs are merged when the records are read. Records of one key come out in the order in which they went in.
 */
import fs from "node:fs";
import { assert } from "../../lib/assert.ts";
import { type FileSystem, type OpenFile, writeFully } from "../file-system.ts";
import { compareRanges, copyRange, viewOf } from "../page-file.ts";

const RUN_BYTES = 32 * 1024 * 1024;
const RUN_RECORDS = 600_000;
/** What memory begins with, so that a small member takes little; when that is full the whole of it is taken. */
const FIRST_BYTES = 256 * 1024;
const FIRST_RECORDS = 4_096;
/** So many are sorted as soon as they are there, while whoever makes them makes more; they are merged at the end. */
const STRETCH_RECORDS = 32_768;
const READ_BYTES = 256 * 1024;
const WRITE_BYTES = 1024 * 1024;
/** Before a record: key length u32, payload length u32. Key and payload follow. */
export const RECORD_HEADER_BYTES = 8;
const HEADER_BYTES = RECORD_HEADER_BYTES;

interface Run {
  readonly position: number;
  readonly bytes: number;
  /** What all keys of the run begin with. */
  readonly shared: Buffer;
}

export class RowSorter {
  readonly #path: string;
  readonly #files: FileSystem;
  #arena: Buffer | undefined;
  #offsets = new Uint32Array(0);
  #count = 0;
  #used = 0;
  /** Where stretches of sorted records end among the offsets. */
  readonly #stretches: number[] = [];
  readonly #runs: Run[] = [];
  #file: OpenFile | undefined;
  #position = 0;
  #sorted: SortedRows | undefined;

  /** `path` is made when memory runs out, and removed by `close`. */
  constructor(path: string, files: FileSystem) {
    this.#path = path;
    this.#files = files;
  }

  /** A record goes to `used` and behind, as far as `hasRoom` has said; then `commit` takes it in. */
  get arena(): Buffer {
    this.#arena ??= Buffer.allocUnsafeSlow(FIRST_BYTES);
    return this.#arena;
  }

  get used(): number {
    return this.#used;
  }

  /** `end`: where the record that begins at `used` ends. */
  commit(end: number): void {
    assert(end <= this.arena.length && this.#count < RUN_RECORDS, "a sorter that is full");
    let offsets = this.#offsets;
    if (this.#count === offsets.length) {
      offsets = new Uint32Array(offsets.length === 0 ? FIRST_RECORDS : RUN_RECORDS);
      offsets.set(this.#offsets);
      this.#offsets = offsets;
    }
    offsets[this.#count++] = this.#used;
    this.#used = end;
    if (this.#count % STRETCH_RECORDS === 0) this.#sortStretch();
  }

  #sortStretch(): void {
    const from = this.#stretches.at(-1) ?? 0;
    if (from === this.#count) return;
    sortRecords(this.arena, this.#offsets, from, this.#count, 0);
    this.#stretches.push(this.#count);
  }

  /** The records in memory, all of their stretches sorted. */
  #inMemory(firstAge: number): RunReader[] {
    this.#sortStretch();
    const { arena } = this;
    return this.#stretches.map((to, i) => {
      const offsets = this.#offsets.subarray(this.#stretches[i - 1] ?? 0, to);
      return new RunReader(firstAge + i, arena, { offsets });
    });
  }

  /** Takes in records that were written elsewhere, one behind the other. */
  addAll(records: Buffer): void {
    const { arena } = this;
    const view = viewOf(arena);
    let at = this.#used;
    const end = at + records.length;
    arena.set(records, at);
    while (at < end) {
      at += HEADER_BYTES + view.getUint32(at, true) + view.getUint32(at + 4, true);
      this.commit(at);
    }
  }

  /** Whether records of so many bytes fit in, for which it makes room; otherwise `spill` first. */
  hasRoom(bytes: number): boolean {
    const end = this.#used + bytes;
    if (end > RUN_BYTES || this.#count + Math.ceil(bytes / HEADER_BYTES) > RUN_RECORDS) return false;
    const { arena } = this;
    if (end <= arena.length) return true;
    this.#arena = Buffer.allocUnsafeSlow(RUN_BYTES);
    arena.copy(this.#arena, 0, 0, this.#used);
    return true;
  }

  async spill(): Promise<void> {
    if (this.#count === 0) return;
    this.#file ??= await this.#files.open(this.#path, "create", 0o600);
    const start = this.#position;
    const readers = this.#inMemory(0);
    const shared = Buffer.from(sharedBy(readers.map((reader) => reader.shared)));
    const rows = new SortedRows(readers);
    let out = Buffer.allocUnsafeSlow(WRITE_BYTES);
    let filled = 0;
    while (rows.next()) {
      const from = rows.keyAt - HEADER_BYTES;
      const length = rows.payloadEnd - from;
      if (filled + length > out.length) {
        await this.#write(out, filled);
        filled = 0;
        if (length > out.length) out = Buffer.allocUnsafeSlow(length);
      }
      copyRange(rows.buffer, from, rows.payloadEnd, out, filled);
      filled += length;
    }
    await this.#write(out, filled);
    this.#runs.push({ position: start, bytes: this.#position - start, shared });
    this.#count = 0;
    this.#used = 0;
    this.#stretches.length = 0;
  }

  async #write(bytes: Buffer, length: number): Promise<void> {
    await writeFully(this.#file as OpenFile, bytes, length, this.#position);
    this.#position += length;
  }

  /** All records in order. Nothing can be added any more. */
  async sorted(): Promise<SortedRows> {
    const readers: RunReader[] = [];
    if (this.#runs.length > 0) {
      const fd = fs.openSync(this.#path, "r");
      readers.push(
        ...this.#runs.map((run, age) => new RunReader(age, Buffer.allocUnsafeSlow(READ_BYTES), { fd, run })),
      );
    }
    this.#sorted = new SortedRows([...readers, ...this.#inMemory(readers.length)]);
    return this.#sorted;
  }

  async close(): Promise<void> {
    this.#arena = undefined;
    this.#sorted?.close();
    this.#sorted = undefined;
    if (!this.#file) return;
    await this.#file.close();
    this.#file = undefined;
    await this.#files.removeTree(this.#path);
  }
}

const NOTHING = Buffer.alloc(0);
const CUT_SHORT = "a run of sorted records is cut short";

/** Says where the record lies that it is at, until the next step. */
export class SortedRows {
  buffer: Buffer = NOTHING;
  keyAt = 0;
  keyEnd = 0;
  payloadAt = 0;
  payloadEnd = 0;
  readonly #readers: readonly RunReader[];
  /** The first has the least key; equal keys by the age of the run. */
  #heap: RunReader[] | undefined;

  constructor(readers: readonly RunReader[]) {
    this.#readers = readers;
    const { length } = sharedBy(readers.map((reader) => reader.shared));
    for (const reader of readers) reader.skip = length;
  }

  /** Moves to the next record, at first to the first one; false behind the last. */
  next(): boolean {
    const heap = this.#advance();
    const first = heap[0];
    if (!first) return false;
    const { buffer, at } = first;
    this.buffer = buffer;
    this.keyAt = at + HEADER_BYTES;
    this.keyEnd = first.keyEnd;
    this.payloadAt = first.keyEnd;
    this.payloadEnd = first.end;
    return true;
  }

  #advance(): RunReader[] {
    if (!this.#heap) {
      const heap = this.#readers.filter((reader) => reader.next());
      for (let i = (heap.length >> 1) - 1; i >= 0; i--) sink(heap, i);
      this.#heap = heap;
      return heap;
    }
    const heap = this.#heap;
    const first = heap[0];
    if (!first) return heap;
    if (!first.next()) {
      const last = heap.pop() as RunReader;
      if (heap.length === 0) return heap;
      if (last !== first) heap[0] = last;
    }
    if (heap.length > 1) sink(heap, 0);
    return heap;
  }

  /** All that there are have been within reach. */
  more(): Promise<boolean> {
    return Promise.resolve(false);
  }

  close(): void {
    for (const fd of new Set(this.#readers.map((reader) => reader.fd))) if (fd !== undefined) fs.closeSync(fd);
  }
}

type RunSource = { readonly fd: number; readonly run: Run } | { readonly offsets: Uint32Array };

/** What keys that begin with these all begin with. */
function sharedBy(beginnings: readonly Buffer[]): Buffer {
  const [first = NOTHING] = beginnings;
  let { length } = first;
  for (const other of beginnings) {
    let n = 0;
    while (n < length && n < other.length && other[n] === first[n]) n++;
    length = n;
  }
  return first.subarray(0, length);
}

/** The records of one run, from a file or from memory. */
class RunReader {
  readonly age: number;
  readonly fd: number | undefined;
  readonly #offsets: Uint32Array | undefined;
  readonly #view: DataView;
  #left: number;
  #position = 0;
  buffer: Buffer;
  at = 0;
  keyEnd = 0;
  end = 0;
  /** What all keys of the run begin with. */
  readonly shared: Buffer;
  /** So many bytes are the same in all runs; the next four, or zeros where the key ends, decide most comparisons. */
  skip = 0;
  prefix = 0;
  #filled = 0;

  constructor(age: number, buffer: Buffer, source: RunSource) {
    this.age = age;
    this.buffer = buffer;
    this.#view = new DataView(buffer.buffer, buffer.byteOffset, buffer.length);
    if ("fd" in source) {
      this.fd = source.fd;
      this.#position = source.run.position;
      this.#left = source.run.bytes;
      this.shared = source.run.shared;
    } else {
      const { offsets } = source;
      this.#offsets = offsets;
      this.#left = offsets.length;
      this.shared = sharedBy([offsets[0], offsets.at(-1)].map((at) => this.#keyAt(at as number)));
    }
  }

  #keyAt(at: number): Buffer {
    const key = at + HEADER_BYTES;
    return this.buffer.subarray(key, key + this.#view.getUint32(at, true));
  }

  next(): boolean {
    if (this.#offsets) {
      if (this.#left === 0) return false;
      this.#left--;
      this.at = this.#offsets[this.#position++] as number;
    } else {
      this.at = this.end;
      if (this.#filled - this.at < HEADER_BYTES && !this.#fill(HEADER_BYTES)) {
        if (this.#filled > 0 || this.#left > 0) throw new Error(CUT_SHORT);
        return false;
      }
      const view = this.#view;
      const bytes = HEADER_BYTES + view.getUint32(this.at, true) + view.getUint32(this.at + 4, true);
      if (this.#filled - this.at < bytes && !this.#fill(bytes)) throw new Error(CUT_SHORT);
    }
    this.keyEnd = this.at + HEADER_BYTES + this.#view.getUint32(this.at, true);
    this.end = this.keyEnd + this.#view.getUint32(this.at + 4, true);
    const place = this.at + HEADER_BYTES + this.skip;
    this.prefix = place + 4 <= this.keyEnd ? this.#view.getUint32(place) : 0;
    if (place + 4 > this.keyEnd) {
      for (let b = place; b < place + 4; b++) {
        this.prefix = this.prefix * 256 + (b < this.keyEnd ? (this.buffer[b] as number) : 0);
      }
    }
    return true;
  }

  #fill(wanted: number): boolean {
    const { buffer } = this;
    buffer.copy(buffer, 0, this.at, this.#filled);
    this.#filled -= this.at;
    this.at = 0;
    while (this.#filled < wanted && this.#left > 0) {
      const room = Math.min(buffer.length - this.#filled, this.#left);
      const count = fs.readSync(this.fd as number, buffer, this.#filled, room, this.#position);
      if (count === 0) return false;
      this.#position += count;
      this.#left -= count;
      this.#filled += count;
    }
    return this.#filled >= wanted;
  }
}

function comesBefore(a: RunReader, b: RunReader): boolean {
  if (a.prefix !== b.prefix) return a.prefix < b.prefix;
  const order = compareRanges(a.buffer, a.at + HEADER_BYTES, a.keyEnd, b.buffer, b.at + HEADER_BYTES, b.keyEnd);
  return order < 0 || (order === 0 && a.age < b.age);
}

function sink(heap: RunReader[], from: number): void {
  for (let i = from; ; ) {
    let least = i;
    for (let child = 2 * i + 1; child <= 2 * i + 2; child++) {
      const candidate = heap[child];
      if (candidate && comesBefore(candidate, heap[least] as RunReader)) least = child;
    }
    if (least === i) return;
    const moved = heap[i] as RunReader;
    heap[i] = heap[least] as RunReader;
    heap[least] = moved;
    i = least;
  }
}

/** Below it, comparing is quicker than looking at prefixes. */
const FEW = 24;
/** Bits for the place of a record within the range that is being sorted, beside 44 bits of its key. */
const PLACE_BITS = 20;
const PLACES = 2 ** PLACE_BITS;
const IS_LITTLE_ENDIAN = new Uint8Array(Uint32Array.of(1).buffer)[0] === 1;
/** Bytes of a key that are sorted by at a time: the last one by its upper half alone. */
const PREFIX_BYTES = 5;

/**
 * By five and a half bytes of the keys at a time: numbers made of them and of the present place are sorted by the
 * engine, and what agrees in five is sorted by the next. The bytes that all keys of a range share are stepped over.
 */
function sortRecords(arena: Buffer, offsets: Uint32Array, from: number, to: number, depth: number): void {
  const count = to - from;
  if (count <= FEW) {
    insertionSort(arena, offsets, from, to, depth);
    return;
  }
  const shared = sharedPrefix(arena, offsets, from, to, depth);
  const numbers = new BigUint64Array(count);
  // Low and high half of each number, of which no bigint is ever made.
  const halves = new Uint32Array(numbers.buffer);
  const [low, high] = IS_LITTLE_ENDIAN ? [0, 1] : [1, 0];
  const view = viewOf(arena);
  for (let i = 0; i < count; i++) {
    const at = offsets[from + i] as number;
    const end = at + HEADER_BYTES + view.getUint32(at, true);
    const place = at + HEADER_BYTES + shared;
    let prefix = 0;
    let more = 0;
    if (place + 6 <= end) {
      prefix = view.getUint32(place);
      more = view.getUint16(place + 4) >>> 4;
    } else {
      for (let b = place; b < place + 4; b++) prefix = prefix * 256 + (b < end ? (arena[b] as number) : 0);
      if (place + 4 < end) more = (arena[place + 4] as number) << 4;
    }
    halves[2 * i + high] = prefix;
    halves[2 * i + low] = more * PLACES + i;
  }
  numbers.sort();
  const before = offsets.slice(from, to);
  for (let i = 0; i < count; i++) {
    offsets[from + i] = before[(halves[2 * i + low] as number) & (PLACES - 1)] as number;
  }
  for (let i = 0; i < count; ) {
    const prefix = halves[2 * i + high] as number;
    const more = (halves[2 * i + low] as number) >>> PLACE_BITS;
    let j = i + 1;
    while (j < count && halves[2 * j + high] === prefix && (halves[2 * j + low] as number) >>> PLACE_BITS === more) j++;
    if (j - i > 1) sortTies(arena, offsets, from + i, from + j, shared + PREFIX_BYTES);
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
  const view = viewOf(arena);
  const [aKey, bKey] = [a + HEADER_BYTES, b + HEADER_BYTES];
  return compareRanges(
    arena,
    aKey + depth,
    aKey + view.getUint32(a, true),
    arena,
    bKey + depth,
    bKey + view.getUint32(b, true),
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
  const view = viewOf(arena);
  const first = (offsets[from] as number) + HEADER_BYTES;
  let shared = view.getUint32(first - HEADER_BYTES, true);
  for (let i = from + 1; i < to && shared > depth; i++) {
    const at = (offsets[i] as number) + HEADER_BYTES;
    const length = Math.min(shared, view.getUint32(at - HEADER_BYTES, true));
    let n = depth;
    while (n < length && arena[at + n] === arena[first + n]) n++;
    shared = n;
  }
  return Math.max(shared, depth);
}
