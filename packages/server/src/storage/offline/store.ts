/** Either kind of database as rows of etcd's buckets, read by page. */
import fs from "node:fs";
import { crc32c } from "../../lib/crc32c.ts";
import { compareBytes, utf8Bytes } from "../../lib/bytes.ts";
import { BUCKETS } from "../backend/types.ts";
import { openBolt } from "../bolt/reader.ts";
import { BoltError, type Meta } from "../bolt/format.ts";
import { BoltCursor, BoltPages, type BucketPlace, bucketPlaces } from "../bolt/walk.ts";
import { LmdbFileError, MAGIC } from "../lmdb/format.ts";
import { LmdbFile } from "../lmdb/walk.ts";
import type { PageFile } from "../page-file.ts";
import { ChainCursor, ListCursor, type RowCursor, type RowStore } from "../rows.ts";
import { isLongNameKey, nameKey, nameOfRow } from "../schema/names.ts";
import { OfflineError, offlineErrorText } from "./errors.ts";
import type { BackendKind } from "./member-dir.ts";

export interface Store extends RowStore {
  readonly path: string;
  readonly kind: BackendKind;
  /** Bytes of the database: what lies behind it in the file does not count. */
  readonly sizeBytes: number;
  /** Names of the buckets in byte order; of ours, etcd's. */
  readonly buckets: readonly string[];
  /** Read so far: for progress. */
  readonly bytesRead: number;
  /** One at a time: the memory behind the cursors is shared. Long names stand in their own order. */
  cursor(bucket: string): RowCursor;
  get(bucket: string, key: Uint8Array): Buffer | undefined;
  /** Key of the last row. */
  lastKey(bucket: string): Buffer | undefined;
  /** What the rows are read by, when they are in a file. */
  readonly pageFile?: PageFile;
  /** The checksum of what a cursor is at, key and value, appended to what gave `previous`. */
  rowCrc(row: RowCursor, previous: number): number;
  close(): void;
}

/** Which kind a file is, by its first bytes. */
export function kindOfFile(path: string): BackendKind {
  const fd = fs.openSync(path, "r");
  try {
    const head = Buffer.alloc(32);
    fs.readSync(fd, head, 0, head.length, 0);
    return head.readUInt32LE(24) === MAGIC ? "lmdb" : "bbolt";
  } finally {
    fs.closeSync(fd);
  }
}

/** Throws {@link OfflineError}; errors on the way through the rows are BoltError and LmdbFileError. */
export function openStore(path: string, kind: BackendKind): Store {
  try {
    return kind === "bbolt" ? new BoltStore(path) : new LmdbStore(path);
  } catch (error) {
    // What is wrong with a bbolt file is said in bbolt's words; of ours, the file is named.
    if (error instanceof LmdbFileError && !error.message.includes(path)) throw damageAsError(path, error);
    throw new OfflineError(offlineErrorText(error, { path }), { cause: error });
  }
}

/** Whether an error says that the file is damaged. */
export function isDamage(error: unknown): error is Error {
  return error instanceof BoltError || error instanceof LmdbFileError || error instanceof RangeError;
}

/** Damage in the words of an error that ends the command; other errors as they are. */
export function damageAsError(path: string, error: unknown): unknown {
  if (!isDamage(error)) return error;
  return new OfflineError(`${path} is damaged: ${error.message}; "etcdutl verify" says what is lost`, { cause: error });
}

/** What `run` gives, its complaints about damage naming the file. */
export function namingDamage<T>(path: string, run: () => T): T {
  try {
    return run();
  } catch (error) {
    throw damageAsError(path, error);
  }
}

/** The meta page in force, as the reader chooses it; its refusals are bbolt's. */
export function boltMeta(path: string): Meta {
  const bolt = openBolt(path);
  try {
    return bolt.meta;
  } finally {
    bolt.close();
  }
}

class BoltStore implements Store {
  readonly kind = "bbolt";
  readonly path: string;
  readonly sizeBytes: number;
  readonly buckets: readonly string[];
  readonly #pages: BoltPages;
  readonly #places: ReadonlyMap<string, BucketPlace>;

  constructor(path: string) {
    this.path = path;
    const meta = boltMeta(path);
    this.sizeBytes = meta.highWater * meta.pageSizeBytes;
    this.#pages = new BoltPages(path, meta, false);
    try {
      this.#places = new Map(bucketPlaces(this.#pages).map((place) => [place.name, place]));
    } catch (error) {
      this.#pages.close();
      throw error;
    }
    this.buckets = [...this.#places.keys()];
  }

  get bytesRead(): number {
    return this.#pages.file.bytesRead;
  }

  get pageFile(): PageFile {
    return this.#pages.file;
  }

  cursor(bucket: string): RowCursor {
    const place = this.#places.get(bucket);
    return place ? new BoltCursor(this.#pages, place) : new ListCursor([]);
  }

  get(bucket: string, key: Uint8Array): Buffer | undefined {
    const bolt = openBolt(this.path);
    try {
      const value = bolt.get(bucket, key);
      return value && Buffer.from(value);
    } finally {
      bolt.close();
    }
  }

  lastKey(bucket: string): Buffer | undefined {
    const bolt = openBolt(this.path);
    try {
      const key = bolt.lastKey(bucket);
      return key && Buffer.from(key);
    } finally {
      bolt.close();
    }
  }

  rowCrc({ keyIn, keyAt, keyEnd, valueIn, valueAt, valueEnd }: RowCursor, previous: number): number {
    const { file } = this.#pages;
    if (keyIn === valueIn && keyEnd === valueAt) return file.crc(keyIn, keyAt, valueEnd - keyAt, previous);
    return file.crc(valueIn, valueAt, valueEnd - valueAt, file.crc(keyIn, keyAt, keyEnd - keyAt, previous));
  }

  close(): void {
    this.#pages.close();
  }
}

class LmdbStore implements Store {
  readonly kind = "lmdb";
  readonly path: string;
  readonly buckets = BUCKETS;
  readonly #file: LmdbFile;

  constructor(path: string) {
    this.path = path;
    this.#file = new LmdbFile(path);
  }

  get sizeBytes(): number {
    return this.#file.sizeBytes;
  }

  get bytesRead(): number {
    return this.#file.pages.bytesRead;
  }

  get pageFile(): PageFile {
    return this.#file.pages;
  }

  cursor(bucket: string): RowCursor {
    const cursor = this.#file.cursor(bucket);
    if (bucket !== "authUsers" && bucket !== "authRoles") return cursor;
    const rows: [Buffer, Buffer][] = [];
    let hasLong = false;
    while (cursor.next()) {
      hasLong ||= isLongNameKey(cursor.key);
      rows.push([Buffer.from(nameOfRow(bucket, cursor.key, cursor.value)), Buffer.from(cursor.value)]);
    }
    return new ListCursor(hasLong ? rows.sort((a, b) => compareBytes(a[0], b[0])) : rows);
  }

  get(bucket: string, key: Uint8Array): Buffer | undefined {
    const cursor = this.#file.cursor(bucket);
    while (cursor.next()) if (cursor.key.equals(key)) return Buffer.from(cursor.value);
    return undefined;
  }

  lastKey(bucket: string): Buffer | undefined {
    return this.#file.lastKey(bucket);
  }

  rowCrc({ keyIn, keyAt, keyEnd, valueIn, valueAt, valueEnd }: RowCursor, previous: number): number {
    const { pages } = this.#file;
    if (keyIn === valueIn && keyEnd === valueAt) return pages.crc(keyIn, keyAt, valueEnd - keyAt, previous);
    return pages.crc(valueIn, valueAt, valueEnd - valueAt, pages.crc(keyIn, keyAt, keyEnd - keyAt, previous));
  }

  close(): void {
    this.#file.close();
  }
}

/** Rows of `authUsers` and `authRoles` as LMDB has them: under bounded keys, in their order. */
export function withBoundedNames(cursor: RowCursor): RowCursor {
  const rows: [Uint8Array, Buffer][] = [];
  while (cursor.next()) rows.push([Buffer.from(nameKey(cursor.key)), Buffer.from(cursor.value)]);
  return new ListCursor(rows.sort((a, b) => compareBytes(a[0], b[0])));
}

/** Changes to a database on its way from one file into another. */
export interface Changes {
  /** Buckets whose rows are these instead; in order of their keys. */
  readonly replaced?: ReadonlyMap<string, readonly (readonly [Uint8Array, Uint8Array])[]>;
  /** Rows of small buckets that take the place of those with the same key, or are added. A null value removes. */
  readonly set?: ReadonlyMap<string, readonly (readonly [Uint8Array, Uint8Array | null])[]>;
  /** Rows behind all others. */
  readonly appended?: ReadonlyMap<string, readonly (readonly [Uint8Array, Uint8Array])[]>;
}

/** The rows of a bucket as the changes leave them. */
export function changedCursor(store: Pick<Store, "cursor">, bucket: string, changes: Changes): RowCursor {
  const replaced = changes.replaced?.get(bucket);
  if (replaced) return new ListCursor(replaced.toSorted((a, b) => compareBytes(a[0], b[0])));
  const set = changes.set?.get(bucket);
  const appended = changes.appended?.get(bucket);
  const rows = store.cursor(bucket);
  if (appended) return new ChainCursor(rows, new ListCursor(appended));
  if (!set) return rows;
  const all = new Map<string, readonly [Uint8Array, Uint8Array]>();
  while (rows.next()) all.set(rows.key.toString("latin1"), [Buffer.from(rows.key), Buffer.from(rows.value)]);
  for (const [key, value] of set) {
    const name = Buffer.from(key).toString("latin1");
    if (value === null) all.delete(name);
    else all.set(name, [key, value]);
  }
  return new ListCursor([...all.values()].sort((a, b) => compareBytes(a[0], b[0])));
}

/** Buckets that no etcd makes and this server has no place for. Only a bbolt file can have them. */
export function strangeBuckets(store: Store): string[] {
  return store.buckets.filter((name) => !(BUCKETS as readonly string[]).includes(name));
}

/** etcd's buckets, whether they are there or not, and all others that are there; in byte order. */
export function allBuckets(store: Store): string[] {
  return [...BUCKETS, ...strangeBuckets(store)].sort((a, b) => compareBytes(utf8Bytes(a), utf8Bytes(b)));
}

/** `snapshot status`'s hash of all buckets, whatever file they are in; one of etcd's that is not there counts as empty. */
export function hashOfBuckets(store: Store, onProgress?: (bytesRead: number) => void): number {
  let hash = 0;
  for (const bucket of allBuckets(store)) {
    hash = crc32c(utf8Bytes(bucket), hash);
    const rows = store.cursor(bucket);
    while (rows.next()) hash = store.rowCrc(rows, hash);
    onProgress?.(store.bytesRead);
  }
  return hash;
}
