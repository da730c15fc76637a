/**
 * The index tables of a new LMDB file (`live`, `past`, `leased`), from the rows of `key` in one pass and a sort, where
 * the server's own rebuild would look each key up. The result is that of `indexKeyRow` over all rows in order.
 *
 * What a row says of the index becomes a record of some twenty bytes and the user key; records of all rows are sorted by
 * that, and those of one key then stand in the order of history. No objects are made for rows or records.
 */
import { EMPTY_BYTES } from "../../lib/bytes.ts";
import type { FileSystem } from "../file-system.ts";
import { copyRange, viewOf } from "../page-file.ts";
import type { RowCursor } from "../rows.ts";
import {
  appendPastRevision,
  encodeInlineLiveRow,
  encodePastRow,
  INLINE_KEY_VALUE_BYTES_MAX,
  isLongKeyForPast,
  liveKey,
  pastPrefix,
  SHORT_KEY_BYTES_MAX,
  writeIndexMarker,
  writeLiveRow,
} from "../schema/index-rows.ts";
import { readKeyValue } from "../schema/key-value.ts";
import { REVISION_BYTES, readCounter, TOMBSTONE_REVISION_BYTES } from "../schema/revision.ts";
import { writeVarint } from "../schema/varint.ts";
import { OfflineError } from "./errors.ts";
import { RECORD_HEADER_BYTES, RowSorter } from "./row-sorter.ts";

/*
 * A record's payload: flags, main and sub as varints; 8 bytes of lease id when there is one; length (u16) and bytes of
 * the key's beginning in `past` when that cannot be told from the row key; then, but for a tombstone, the row of `live`.
 */
const TOMBSTONE = 1;
const HAS_LEASE = 2;
const HAS_PREFIX = 4;

/** Row key and prefix of a long key have less than 2 KiB each. */
export const RECORD_BYTES_MAX = 4096 + INLINE_KEY_VALUE_BYTES_MAX;

interface KeyNumbers {
  keyAt: number;
  keyEnd: number;
  main: number;
  sub: number;
  createRevision: number;
  version: number;
  lease: bigint;
}

/**
 * The numbers of a stored KeyValue at [at, end), without making objects for key and value. False for what is not in
 * the plain form in which every etcd writes it; the slower reader then has its say.
 */
function plainNumbers(bytes: Buffer, at: number, end: number, into: KeyNumbers): boolean {
  let i = at;
  let tag = 0;
  into.keyAt = into.keyEnd = at;
  into.createRevision = 0;
  into.version = 0;
  into.lease = 0n;
  while (i < end) {
    const next = bytes[i++] as number;
    if (next <= tag) return false;
    tag = next;
    let value = bytes[i++] as number;
    if (value >= 128) {
      value &= 0x7f;
      for (let scale = 128; ; scale *= 128) {
        const byte = bytes[i++] as number;
        value += (byte & 0x7f) * scale;
        if (byte < 128) break;
        if (i >= end || scale > 2 ** 49) return false;
      }
    }
    if (i > end || !(value <= Number.MAX_SAFE_INTEGER)) return false;
    if (tag === 0x0a) {
      into.keyAt = i;
      i += value;
      into.keyEnd = i;
    } else if (tag === 0x2a) i += value;
    else if (tag === 0x10) into.createRevision = value;
    else if (tag === 0x20) into.version = value;
    else if (tag === 0x30) into.lease = BigInt(value);
    else if (tag !== 0x18) return false;
  }
  return i === end;
}

/** Makes records of rows. */
export class IndexRecords {
  readonly #numbers: KeyNumbers = {
    keyAt: 0,
    keyEnd: 0,
    main: 0,
    sub: 0,
    createRevision: 0,
    version: 0,
    lease: 0n,
  };

  /**
   * Writes the record of the row of `key` that the cursor is at to `into`, which has RECORD_BYTES_MAX from `at` on.
   * Returns where it ends: at `at` when the row is not indexed.
   */
  write(row: RowCursor, into: Buffer, at: number): number {
    const { keyIn, keyAt, keyEnd, valueIn, valueAt, valueEnd } = row;
    const length = keyEnd - keyAt;
    const isTombstone = length === TOMBSTONE_REVISION_BYTES && keyIn[keyEnd - 1] === 0x74;
    if (length !== REVISION_BYTES && !isTombstone) {
      throw new OfflineError(`bucket "key": a revision of ${length} bytes`);
    }
    const numbers = this.#numbers;
    if (!plainNumbers(valueIn, valueAt, valueEnd, numbers)) {
      const value = row.value;
      const { key, createRevision, version, lease } = readKeyValue(value);
      numbers.keyAt = valueAt + (key.length === 0 ? 0 : key.byteOffset - value.byteOffset);
      numbers.keyEnd = numbers.keyAt + key.length;
      numbers.createRevision = createRevision;
      numbers.version = version;
      numbers.lease = lease;
    }
    const userKeyLength = numbers.keyEnd - numbers.keyAt;
    if (userKeyLength === 0) return at;
    numbers.main = readCounter(keyIn, keyAt);
    numbers.sub = readCounter(keyIn, keyAt + 9);
    let rowKey: Uint8Array | undefined;
    let prefix: Uint8Array = EMPTY_BYTES;
    if (userKeyLength > 900) {
      const userKey = valueIn.subarray(numbers.keyAt, numbers.keyEnd);
      if (userKeyLength > SHORT_KEY_BYTES_MAX) rowKey = liveKey(userKey);
      if (isLongKeyForPast(userKey)) prefix = pastPrefix(userKey);
    }
    const key = at + RECORD_HEADER_BYTES;
    const payload = key + (rowKey ? rowKey.length : userKeyLength);
    if (rowKey) into.set(rowKey, key);
    else copyRange(valueIn, numbers.keyAt, numbers.keyEnd, into, key);
    const hasLease = !isTombstone && numbers.lease !== 0n;
    into[payload] = (isTombstone ? TOMBSTONE : 0) | (hasLease ? HAS_LEASE : 0) | (prefix.length > 0 ? HAS_PREFIX : 0);
    let end = writeVarint(into, payload + 1, numbers.main);
    end = writeVarint(into, end, numbers.sub);
    if (hasLease) end = into.writeBigInt64BE(numbers.lease, end);
    if (prefix.length > 0) {
      end = into.writeUInt16LE(prefix.length, end);
      into.set(prefix, end);
      end += prefix.length;
    }
    if (!isTombstone) {
      if (valueEnd - valueAt > INLINE_KEY_VALUE_BYTES_MAX) end = writeLiveRow(into, end, numbers);
      else {
        const inline = encodeInlineLiveRow(numbers.sub, row.value);
        into.set(inline, end);
        end += inline.length;
      }
    }
    const view = viewOf(into);
    view.setUint32(at, payload - key, true);
    view.setUint32(at + 4, end - payload, true);
    return end;
  }
}

/** Records in order: where the one at hand lies, until the next step. */
export interface IndexRows {
  readonly buffer: Buffer;
  readonly keyAt: number;
  readonly keyEnd: number;
  readonly payloadAt: number;
  readonly payloadEnd: number;
  /** Moves to the next one; false when there is none here. */
  next(): boolean;
  /** Then: fetches more and moves to the first of those; false when there are no more. */
  more(): Promise<boolean>;
}

/** Where the tables go: an LmdbWriter, or what compares them with those that are there. Keys ascend. */
export interface IndexTarget {
  table(name: "live" | "past" | "leased"): IndexTable;
  readonly output: { readonly isFull: boolean; drain(): Promise<void> };
}

export interface IndexTable {
  put(key: Uint8Array, value: Uint8Array): void;
  putRange(keyIn: Buffer, keyAt: number, keyEnd: number, valueIn: Buffer, valueAt: number, valueEnd: number): void;
  finish(): void;
}

export class IndexBuilder {
  readonly #encoder = new IndexRecords();
  readonly #keys: RowSorter;
  readonly #leases: RowSorter;

  /** `path` with endings of its own names the files for what does not fit into memory. */
  constructor(path: string, files: FileSystem) {
    this.#keys = new RowSorter(`${path}.keys`, files);
    this.#leases = new RowSorter(`${path}.leases`, files);
  }

  /** Takes in the row of `key` that the cursor is at; the caller awaits `makeRoom` when not `hasRoom`. */
  add(row: RowCursor): void {
    const { arena, used } = this.#keys;
    const end = this.#encoder.write(row, arena, used);
    if (end > used) this.#keys.commit(end);
  }

  hasRoom(): boolean {
    return this.#keys.hasRoom(RECORD_BYTES_MAX);
  }

  makeRoom(): Promise<void> {
    return this.#keys.spill();
  }

  /** Writes the three tables, of the rows that were added, or of those that another has sorted. */
  async write(target: IndexTarget, sorted?: IndexRows): Promise<void> {
    const live = target.table("live");
    const past = new PastTable(target.table("past"));
    past.begin();
    const present = new Present();
    const rows = sorted ?? (await this.#keys.sorted());
    while (rows.next() || (await rows.more())) {
      const { buffer, keyAt, keyEnd, payloadAt, payloadEnd } = rows;
      const isSameKey = present.isOf(buffer, keyAt, keyEnd);
      if (!isSameKey) this.#close(present, live);
      // A put that another change of its key follows is superseded by that.
      const superseded = isSameKey && !present.isTombstone ? past.keyOf(present) : undefined;
      const isLong = present.hasPrefix;
      present.take(buffer, { keyAt, keyEnd, payloadAt, payloadEnd }, isSameKey);
      if (superseded) past.put(superseded, encodePastRow(present.main), isLong);
      if (present.isTombstone) past.put(past.keyOf(present), EMPTY_BYTES, present.hasPrefix);
      if (target.output.isFull) await target.output.drain();
      if (!this.#leases.hasRoom(RECORD_BYTES_MAX)) await this.#leases.spill();
    }
    this.#close(present, live);
    live.finish();
    past.finish();
    const leased = target.table("leased");
    const leases = await this.#leases.sorted();
    while (leases.next()) {
      const { buffer, keyAt, keyEnd } = leases;
      leased.putRange(buffer, keyAt, keyEnd, buffer, keyEnd, keyEnd);
      if (target.output.isFull) await target.output.drain();
    }
    leased.finish();
  }

  /** The newest put of a key is its row in `live`. */
  #close(present: Present, live: IndexTable): void {
    const { bytes, keyLength, rowAt, end } = present;
    if (keyLength === 0 || present.isTombstone) return;
    live.putRange(bytes, 0, keyLength, bytes, rowAt, end);
    if (!present.hasLease) return;
    const { arena, used } = this.#leases;
    const key = used + RECORD_HEADER_BYTES;
    arena.writeUInt32LE(8 + keyLength, used);
    arena.writeUInt32LE(0, used + 4);
    bytes.copy(arena, key, present.leaseAt, present.leaseAt + 8);
    bytes.copy(arena, key + 8, 0, keyLength);
    this.#leases.commit(key + 8 + keyLength);
  }

  async close(): Promise<void> {
    await this.#keys.close();
    await this.#leases.close();
  }
}

interface RecordPlace {
  readonly keyAt: number;
  readonly keyEnd: number;
  readonly payloadAt: number;
  readonly payloadEnd: number;
}

/** The newest record so far of the key at hand, in memory of its own: row key, then payload. */
class Present {
  readonly bytes = Buffer.alloc(RECORD_BYTES_MAX);
  keyLength = 0;
  #flags = 0;
  main = 0;
  sub = 0;
  /** Of the lease id, when there is one. */
  leaseAt = 0;
  #prefixAt = 0;
  rowAt = 0;
  end = 0;

  get isTombstone(): boolean {
    return (this.#flags & TOMBSTONE) !== 0;
  }

  get hasLease(): boolean {
    return (this.#flags & HAS_LEASE) !== 0;
  }

  get hasPrefix(): boolean {
    return (this.#flags & HAS_PREFIX) !== 0;
  }

  isOf(buffer: Buffer, keyAt: number, keyEnd: number): boolean {
    const { bytes, keyLength } = this;
    if (keyEnd - keyAt !== keyLength) return false;
    // Neighbours differ at their ends.
    for (let i = keyLength - 1; i >= 0; i--) if (bytes[i] !== buffer[keyAt + i]) return false;
    return true;
  }

  take(buffer: Buffer, { keyAt, keyEnd, payloadAt, payloadEnd }: RecordPlace, isSameKey: boolean): void {
    const { bytes } = this;
    const length = keyEnd - keyAt;
    // The payload lies right behind the key.
    if (isSameKey) copyRange(buffer, payloadAt, payloadEnd, bytes, length);
    else copyRange(buffer, keyAt, payloadEnd, bytes, 0);
    this.keyLength = length;
    this.#flags = bytes[length] as number;
    this.main = this.#varint(length + 1);
    this.sub = this.#varint(this.#at);
    this.leaseAt = this.#at;
    this.#prefixAt = this.leaseAt + (this.hasLease ? 8 : 0);
    this.rowAt = this.#prefixAt + (this.hasPrefix ? 2 + bytes.readUInt16LE(this.#prefixAt) : 0);
    this.end = length + payloadEnd - payloadAt;
  }

  #at = 0;

  #varint(from: number): number {
    let at = from;
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = this.bytes[at++] as number;
      value += (byte & 0x7f) * scale;
      if (byte < 128) break;
    }
    this.#at = at;
    return value;
  }

  /** What the row keys of `past` begin with. */
  pastPrefix(): Uint8Array {
    if (!this.hasPrefix) return pastPrefix(this.bytes.subarray(0, this.keyLength));
    return this.bytes.subarray(this.#prefixAt + 2, this.rowAt);
  }
}

const HASH_AND_REVISION_BYTES = 32 + 16;

/** `past`, where long keys with the same beginning stand in the order of their hashes. */
class PastTable {
  readonly #table: IndexTable;
  #group: LongGroup | undefined;

  constructor(table: IndexTable) {
    this.#table = table;
  }

  begin(): void {
    writeIndexMarker({ put: (_table, key, value) => this.#table.put(key, value) });
  }

  keyOf(row: Present): Buffer {
    return appendPastRevision(row.pastPrefix(), row.main, row.sub);
  }

  put(key: Buffer, value: Uint8Array, isLong: boolean): void {
    if (this.#group && !(isLong && this.#group.takes(key))) this.#endGroup();
    if (!isLong) this.#table.put(key, value);
    else {
      this.#group ??= new LongGroup(key);
      this.#group.add(key, value);
    }
  }

  #endGroup(): void {
    for (const [key, value] of this.#group?.sorted() ?? []) this.#table.put(key, value);
    this.#group = undefined;
  }

  finish(): void {
    this.#endGroup();
    this.#table.finish();
  }
}

class LongGroup {
  readonly #beginning: Buffer;
  readonly #rows: (readonly [Buffer, Uint8Array])[] = [];

  constructor(key: Buffer) {
    this.#beginning = key.subarray(0, key.length - HASH_AND_REVISION_BYTES);
  }

  takes(key: Buffer): boolean {
    return this.#beginning.equals(key.subarray(0, key.length - HASH_AND_REVISION_BYTES));
  }

  add(key: Buffer, value: Uint8Array): void {
    this.#rows.push([key, value]);
  }

  sorted(): readonly (readonly [Buffer, Uint8Array])[] {
    return this.#rows.sort((a, b) => Buffer.compare(a[0], b[0]));
  }
}
