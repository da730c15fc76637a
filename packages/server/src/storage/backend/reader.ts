/** Reading tables: two buffer layers over LMDB, or LMDB alone as a snapshot pinned it. */
import { compareBytes, copyBytes, EMPTY_BYTES, type KeyString, keyBytes, keyString } from "../../lib/bytes.ts";
import type { Environment, Store } from "./environment.ts";
import { type Layer, lowerBound, type SortedKeys } from "./layer.ts";
import { type BackendReader, type ScanOptions, type ScanVisitor, TABLES, type Table } from "./types.ts";

export const tableIndex: ReadonlyMap<Table, number> = new Map(TABLES.map((table, index) => [table, index]));

export function indexOf(table: Table): number {
  return tableIndex.get(table) as number;
}

/** What lmdb's read transactions offer and its types do not name. */
export interface ReadTransaction {
  done(): void;
}

interface FastStore {
  getBinaryFast(key: Uint8Array, options?: { transaction?: ReadTransaction }): Buffer | undefined;
  lastSize: number;
}

type Row = { readonly key: Uint8Array; readonly value: Uint8Array };

/** The rows of a range as LMDB has them, in order. */
function storeRows(
  store: Store,
  options: Omit<ScanOptions, "limit">,
  transaction: ReadTransaction | undefined,
): Iterator<Row | Uint8Array> {
  const { reverse = false, keysOnly = false } = options;
  const low = options.start && options.start.length > 0 ? options.start : undefined;
  const high = options.end;
  // An absent `end` must be said in reverse: lmdb would otherwise stop before the key of one zero byte.
  const range = reverse
    ? { reverse, end: low, inclusiveEnd: low !== undefined, ...(high && { start: high, exclusiveStart: true }) }
    : { ...(low && { start: low }), ...(high && { end: high }) };
  const request = { ...range, values: !keysOnly, ...(transaction && { transaction }) };
  const rows = store.getRange(request as unknown as Parameters<Store["getRange"]>[0]);
  const stored = rows[Symbol.iterator]() as unknown as Iterator<Row | Uint8Array>;
  return keysOnly || store.sumBytes === 0 ? stored : new RowsWithoutSums(stored as Iterator<Row>, store);
}

class RowsWithoutSums implements Iterator<Row> {
  readonly #stored: Iterator<Row>;
  readonly #store: Store;

  constructor(stored: Iterator<Row>, store: Store) {
    this.#stored = stored;
    this.#store = store;
  }

  next(): IteratorResult<Row> {
    const next = this.#stored.next();
    if (next.done) return next;
    const { key, value } = next.value;
    return { done: false, value: { key, value: value.subarray(0, withoutSum(value.length, this.#store)) } };
  }

  return(): IteratorResult<Row> {
    return this.#stored.return?.() ?? { done: true, value: undefined };
  }
}

function isEmptyRange({ start, end, limit }: ScanOptions): boolean {
  if (limit !== undefined && limit <= 0) return true;
  if (end === undefined) return false;
  return end.length === 0 || (start !== undefined && compareBytes(start, end) >= 0);
}

function withoutSum(storedBytes: number, { sumBytes }: Store): number {
  return Math.max(0, storedBytes - sumBytes);
}

export function peekStore(
  store: Store,
  key: Uint8Array,
  transaction: ReadTransaction | undefined,
): Uint8Array | undefined {
  const fast = store as unknown as FastStore;
  const found = fast.getBinaryFast(key, transaction ? { transaction } : undefined);
  // lmdb's shared buffer is longer than what its `length` says, so it must not leave this function.
  return found && new Uint8Array(found.buffer, found.byteOffset, withoutSum(fast.lastSize, store));
}

export function scanStore(
  store: Store,
  options: ScanOptions,
  transaction: ReadTransaction | undefined,
  visit: ScanVisitor,
): void {
  if (isEmptyRange(options)) return;
  const { keysOnly = false } = options;
  let left = options.limit ?? Number.POSITIVE_INFINITY;
  const rows = storeRows(store, options, transaction);
  try {
    while (left-- > 0) {
      const next = rows.next();
      if (next.done) return;
      const go = keysOnly
        ? visit(next.value as Uint8Array, EMPTY_BYTES)
        : visit((next.value as Row).key, (next.value as Row).value);
      if (go === false) return;
    }
  } finally {
    rows.return?.();
  }
}

interface CountingStore {
  getKeysCount(options: object): number;
}

function countStore(
  store: Store,
  { start, end }: Pick<ScanOptions, "start" | "end">,
  transaction: ReadTransaction | undefined,
): number {
  const low = start && start.length > 0 ? { start } : undefined;
  return (store as unknown as CountingStore).getKeysCount({
    ...low,
    ...(end && { end }),
    ...(transaction && { transaction }),
  });
}

function keyAheadInStore(
  store: Store,
  start: Uint8Array | undefined,
  rows: number,
  transaction: ReadTransaction | undefined,
): Uint8Array | undefined {
  const low = start && start.length > 0 ? { start } : undefined;
  const request = { ...low, offset: rows, limit: 1, values: false, ...(transaction && { transaction }) };
  const found = store.getRange(request as unknown as Parameters<Store["getRange"]>[0])[Symbol.iterator]();
  const first = found.next() as IteratorResult<unknown>;
  found.return?.();
  return first.done ? undefined : (first.value as Uint8Array);
}

/** `layers` from the newest to the oldest. */
export function aheadOf(
  layers: readonly Layer[],
  store: Store,
  table: number,
  start: Uint8Array | undefined,
  rows: number,
): { key: Uint8Array | undefined; count: number } {
  const key = keyAheadInStore(store, start, rows, undefined);
  const isBuffered = layers.some((layer) => layer.has(table));
  return { key, count: key && !isBuffered ? rows : countLayers(layers, store, table, { start, end: key }) };
}

/** `layers` from the newest to the oldest. */
export function countLayers(
  layers: readonly Layer[],
  store: Store,
  table: number,
  range: Pick<ScanOptions, "start" | "end">,
): number {
  if (isEmptyRange(range)) return 0;
  let count = countStore(store, range, undefined);
  const seen = new Set<KeyString>();
  for (const layer of layers) {
    if (!layer.has(table)) continue;
    for (const cursor = new LayerCursor(layer, table, range); !cursor.isEmpty; cursor.advance()) {
      const key = cursor.key as KeyString;
      if (seen.has(key)) continue;
      seen.add(key);
      if (layer.valueOf(table, cursor.entry)) count++;
      if (peekStore(store, keyBytes(key), undefined)) count--;
    }
  }
  return count;
}

/** The keys of a layer within a range, from the end when reversed. */
class LayerCursor {
  readonly layer: Layer;
  readonly #keys: SortedKeys;
  readonly #step: 1 | -1;
  #at: number;
  readonly #stop: number;

  constructor(layer: Layer, table: number, options: ScanOptions) {
    this.layer = layer;
    this.#keys = layer.keys(table);
    const low = options.start ? lowerBound(this.#keys, keyString(options.start)) : 0;
    const high = options.end ? lowerBound(this.#keys, keyString(options.end)) : this.#keys.length;
    this.#step = options.reverse ? -1 : 1;
    this.#at = options.reverse ? high - 1 : low;
    this.#stop = options.reverse ? low - 1 : high;
  }

  get isEmpty(): boolean {
    return this.#step === 1 ? this.#at >= this.#stop : this.#at <= this.#stop;
  }

  get key(): KeyString | undefined {
    return this.isEmpty ? undefined : this.#keys.key(this.#at);
  }

  /** Of the row that `key` names. */
  get entry(): number {
    return this.#keys.entry(this.#at);
  }

  advance(): void {
    this.#at += this.#step;
  }
}

/** `layers` from the newest to the oldest. */
export function scanLayers(
  layers: readonly Layer[],
  store: Store,
  table: number,
  options: ScanOptions,
  visit: ScanVisitor,
): void {
  if (isEmptyRange(options)) return;
  const cursors: LayerCursor[] = [];
  for (const layer of layers) {
    if (!layer.has(table)) continue;
    const cursor = new LayerCursor(layer, table, options);
    if (!cursor.isEmpty) cursors.push(cursor);
  }
  if (cursors.length === 0) {
    scanStore(store, options, undefined, visit);
    return;
  }
  const { reverse = false, keysOnly = false } = options;
  const comesBefore = (a: KeyString, b: KeyString): boolean => (reverse ? a > b : a < b);
  let left = options.limit ?? Number.POSITIVE_INFINITY;
  const rows = storeRows(store, options, undefined);
  try {
    let row = rows.next();
    let rowKey = row.done ? undefined : keyString(keysOnly ? (row.value as Uint8Array) : (row.value as Row).key);
    while (left > 0) {
      // The newest layer that has the next key decides; the others and LMDB step over it.
      let next: KeyString | undefined;
      let from: LayerCursor | undefined;
      for (const cursor of cursors) {
        const key = cursor.key;
        if (key !== undefined && (next === undefined || comesBefore(key, next))) {
          next = key;
          from = cursor;
        }
      }
      if (rowKey !== undefined && (next === undefined || comesBefore(rowKey, next))) {
        left--;
        const go = keysOnly
          ? visit(row.value as Uint8Array, EMPTY_BYTES)
          : visit((row.value as Row).key, (row.value as Row).value);
        if (go === false) return;
      } else if (next !== undefined && from) {
        const value = from.layer.valueOf(table, from.entry);
        for (const cursor of cursors) if (cursor.key === next) cursor.advance();
        if (value) {
          left--;
          if (visit(keyBytes(next), keysOnly ? EMPTY_BYTES : copyBytes(value)) === false) return;
        }
        if (rowKey !== next) continue;
      } else return;
      row = rows.next();
      rowKey = row.done ? undefined : keyString(keysOnly ? (row.value as Uint8Array) : (row.value as Row).key);
    }
  } finally {
    rows.return?.();
  }
}

/** The state that a read transaction pins. */
export class PinnedReader implements BackendReader {
  readonly #environment: Environment;
  readonly #transaction: ReadTransaction;

  constructor(environment: Environment, transaction: ReadTransaction) {
    this.#environment = environment;
    this.#transaction = transaction;
  }

  get(table: Table, key: Uint8Array): Uint8Array | undefined {
    const value = this.peek(table, key);
    return value && copyBytes(value);
  }

  peek(table: Table, key: Uint8Array): Uint8Array | undefined {
    return peekStore(this.#store(table), key, this.#transaction);
  }

  has(table: Table, key: Uint8Array): boolean {
    return this.peek(table, key) !== undefined;
  }

  scan(table: Table, options: ScanOptions, visit: ScanVisitor): void {
    scanStore(this.#store(table), options, this.#transaction, visit);
  }

  first(table: Table, options: Omit<ScanOptions, "limit">): Row | undefined {
    return firstOf(this, table, options);
  }

  count(table: Table, { start, end }: Pick<ScanOptions, "start" | "end">): number {
    return isEmptyRange({ start, end }) ? 0 : countStore(this.#store(table), { start, end }, this.#transaction);
  }

  ahead(table: Table, start: Uint8Array | undefined, rows: number): { key: Uint8Array | undefined; count: number } {
    const key = keyAheadInStore(this.#store(table), start, rows, this.#transaction);
    return { key, count: key ? rows : this.count(table, { start }) };
  }

  #store(table: Table): Store {
    return this.#environment.stores[indexOf(table)] as Store;
  }
}

export function peekLayers(
  layers: readonly Layer[],
  store: Store,
  table: number,
  key: Uint8Array,
): Uint8Array | undefined {
  for (const layer of layers) {
    const value = layer.find(table, key);
    if (value === null) return undefined;
    if (value !== undefined) return value;
  }
  return peekStore(store, key, undefined);
}

export function firstOf(reader: BackendReader, table: Table, options: Omit<ScanOptions, "limit">): Row | undefined {
  let found: Row | undefined;
  reader.scan(table, { ...options, limit: 1 }, (key, value) => {
    found = { key, value };
  });
  return found;
}
