/**
 * The index tables of a new LMDB file (`live`, `past`, `leased`), from the rows of `key` in one pass and a sort, where
 * the server's own rebuild would look each key up. The result is that of `indexKeyRow` over all rows in order.
 */
import { EMPTY_BYTES } from "../../lib/bytes.ts";
import type { FileSystem } from "../file-system.ts";
import type { LmdbWriter } from "../lmdb/writer.ts";
import { copyRange } from "../page-file.ts";
import type { RowCursor } from "../rows.ts";
import {
  appendPastRevision,
  encodePastRow,
  INLINE_KEY_VALUE_BYTES_MAX,
  isLongKeyForPast,
  leasedKey,
  liveKey,
  liveRowFor,
  pastPrefix,
  SHORT_KEY_BYTES_MAX,
  writeIndexMarker,
} from "../schema/index-rows.ts";
import { readKeyValue } from "../schema/key-value.ts";
import { REVISION_BYTES, readCounter, TOMBSTONE_REVISION_BYTES } from "../schema/revision.ts";
import { OfflineError } from "./errors.ts";
import { RowSorter } from "./row-sorter.ts";

/** main, create, version f64, lease i64, sub, flags, length of the past prefix u32, then the prefix and the KeyValue */
const PAYLOAD_BYTES = 44;
const TOMBSTONE = 1;

interface KeyNumbers {
  keyAt: number;
  keyEnd: number;
  create: number;
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
  const varint = (): number => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = bytes[i++] as number;
      value += (byte & 0x7f) * scale;
      if (byte < 128) return value;
      if (i >= end || scale > 2 ** 49) return Number.NaN;
    }
  };
  into.keyAt = into.keyEnd = at;
  into.create = 0;
  into.version = 0;
  into.lease = 0n;
  while (i < end) {
    const next = bytes[i++] as number;
    if (next <= tag) return false;
    tag = next;
    if (tag === 0x30) {
      const lease = varint();
      if (!Number.isSafeInteger(lease) || i !== end) return false;
      into.lease = BigInt(lease);
      return true;
    }
    const value = varint();
    if (!Number.isSafeInteger(value)) return false;
    if (tag === 0x0a) {
      into.keyAt = i;
      i += value;
      into.keyEnd = i;
    } else if (tag === 0x2a) i += value;
    else if (tag === 0x10) into.create = value;
    else if (tag === 0x20) into.version = value;
    else if (tag !== 0x18) return false;
  }
  return i === end;
}

export class IndexBuilder {
  readonly #keys: RowSorter;
  readonly #leases: RowSorter;
  readonly #numbers: KeyNumbers = { keyAt: 0, keyEnd: 0, create: 0, version: 0, lease: 0n };

  /** `path` with endings of its own names the files for what does not fit into memory. */
  constructor(path: string, files: FileSystem) {
    this.#keys = new RowSorter(`${path}.keys`, files);
    this.#leases = new RowSorter(`${path}.leases`, files);
  }

  /** Takes in the row of `key` that the cursor is at; the caller awaits `makeRoom` when `isFull`. */
  add(row: RowCursor): void {
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
      numbers.create = createRevision;
      numbers.version = version;
      numbers.lease = lease;
    }
    const userKeyLength = numbers.keyEnd - numbers.keyAt;
    if (userKeyLength === 0) return;
    const main = readCounter(keyIn, keyAt);
    const sub = readCounter(keyIn, keyAt + 9);
    const kept = valueEnd - valueAt <= INLINE_KEY_VALUE_BYTES_MAX ? valueEnd - valueAt : 0;
    let rowKey: Uint8Array | undefined;
    let prefix: Uint8Array = EMPTY_BYTES;
    if (userKeyLength > 900) {
      const userKey = valueIn.subarray(numbers.keyAt, numbers.keyEnd);
      if (userKeyLength > SHORT_KEY_BYTES_MAX) rowKey = liveKey(userKey);
      if (isLongKeyForPast(userKey)) prefix = pastPrefix(userKey);
    }
    const rowKeyLength = rowKey ? rowKey.length : userKeyLength;
    const { buffer, at } = this.#keys.reserve(rowKeyLength, PAYLOAD_BYTES + prefix.length + kept);
    if (rowKey) buffer.set(rowKey, at);
    else copyRange(valueIn, numbers.keyAt, numbers.keyEnd, buffer, at);
    const payload = at + rowKeyLength;
    buffer.writeDoubleLE(main, payload);
    buffer.writeDoubleLE(numbers.create, payload + 8);
    buffer.writeDoubleLE(numbers.version, payload + 16);
    buffer.writeBigInt64LE(numbers.lease, payload + 24);
    buffer.writeUInt32LE(sub, payload + 32);
    buffer.writeUInt32LE(isTombstone ? TOMBSTONE : 0, payload + 36);
    buffer.writeUInt32LE(prefix.length, payload + 40);
    buffer.set(prefix, payload + PAYLOAD_BYTES);
    if (kept > 0) valueIn.copy(buffer, payload + PAYLOAD_BYTES + prefix.length, valueAt, valueEnd);
  }

  get isFull(): boolean {
    return this.#keys.isFull;
  }

  makeRoom(): Promise<void> {
    return this.#keys.spill();
  }

  /** Writes the three tables. */
  async write(writer: LmdbWriter): Promise<void> {
    const live = writer.table("live");
    const past = writer.table("past");
    writeIndexMarker({ put: (_table, key, value) => past.put(key, value) });
    let group: LongGroup | undefined;
    const putPast = (key: Buffer, value: Uint8Array, isLong: boolean): void => {
      if (group && !(isLong && group.takes(key))) {
        for (const [rowKey, row] of group.sorted()) past.put(rowKey, row);
        group = undefined;
      }
      if (!isLong) past.put(key, value);
      else {
        group ??= new LongGroup(key);
        group.add(key, value);
      }
    };
    let present: Newest | undefined;
    const close = (): void => {
      if (present && !present.isTombstone) this.#putLive(live, present);
    };
    for (const { buffer, keyAt, keyEnd, payloadAt, payloadEnd } of await this.#keys.records()) {
      const isSameKey =
        present !== undefined &&
        keyEnd - keyAt === present.rowKey.length &&
        present.rowKey.compare(buffer, keyAt, keyEnd) === 0;
      if (!isSameKey) close();
      const before: Newest | undefined = isSameKey ? present : undefined;
      const prefixLength = buffer.readUInt32LE(payloadAt + 40);
      const prefixAt = payloadAt + PAYLOAD_BYTES;
      const now: Newest = {
        rowKey: before?.rowKey ?? Buffer.from(buffer.subarray(keyAt, keyEnd)),
        longPrefix: prefixLength > 0 ? Buffer.from(buffer.subarray(prefixAt, prefixAt + prefixLength)) : undefined,
        main: buffer.readDoubleLE(payloadAt),
        createRevision: buffer.readDoubleLE(payloadAt + 8),
        version: buffer.readDoubleLE(payloadAt + 16),
        lease: buffer.readBigInt64LE(payloadAt + 24),
        sub: buffer.readUInt32LE(payloadAt + 32),
        isTombstone: buffer.readUInt32LE(payloadAt + 36) === TOMBSTONE,
        keyValue:
          prefixAt + prefixLength < payloadEnd
            ? Buffer.from(buffer.subarray(prefixAt + prefixLength, payloadEnd))
            : NO_KEY_VALUE,
      };
      if (before && !before.isTombstone) {
        putPast(pastRowKey(before), encodePastRow(now.main), before.longPrefix !== undefined);
      }
      if (now.isTombstone) putPast(pastRowKey(now), EMPTY_BYTES, now.longPrefix !== undefined);
      present = now;
      if (writer.output.isFull) await writer.output.drain();
      if (this.#leases.isFull) await this.#leases.spill();
    }
    close();
    for (const [rowKey, row] of group?.sorted() ?? []) past.put(rowKey, row);
    live.finish();
    past.finish();
    const leased = writer.table("leased");
    for (const { buffer, keyAt, keyEnd } of await this.#leases.records()) {
      leased.put(buffer.subarray(keyAt, keyEnd), EMPTY_BYTES);
      if (writer.output.isFull) await writer.output.drain();
    }
    leased.finish();
  }

  #putLive(live: ReturnType<LmdbWriter["table"]>, newest: Newest): void {
    // Kept whole only when it may stand in the row; without it the row has the numbers alone.
    const keyValue = newest.keyValue.length > 0 ? newest.keyValue : LONGER_THAN_INLINE;
    live.put(newest.rowKey, liveRowFor(newest, keyValue));
    if (newest.lease === 0n) return;
    const key = leasedKey(newest.lease, newest.rowKey);
    const { buffer, at } = this.#leases.reserve(key.length, 0);
    key.copy(buffer, at);
  }

  async close(): Promise<void> {
    await this.#keys.close();
    await this.#leases.close();
  }
}

const LONGER_THAN_INLINE: Uint8Array = new Uint8Array(INLINE_KEY_VALUE_BYTES_MAX + 1);

const NO_KEY_VALUE = Buffer.alloc(0);

interface Newest {
  readonly rowKey: Buffer;
  readonly longPrefix: Buffer | undefined;
  readonly main: number;
  readonly sub: number;
  readonly createRevision: number;
  readonly version: number;
  readonly lease: bigint;
  readonly isTombstone: boolean;
  readonly keyValue: Buffer;
}

function pastRowKey({ rowKey, longPrefix, main, sub }: Newest): Buffer {
  return appendPastRevision(longPrefix ?? pastPrefix(rowKey), main, sub);
}

const HASH_AND_REVISION_BYTES = 32 + 16;

/** Long keys with the same beginning: in `past` they stand in the order of their hashes. */
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
