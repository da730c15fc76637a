/**
 * Filling a new LMDB file from sorted rows as fast as it goes: big transactions that are not synced, and one sync of
 * the whole at the end. The file takes its final name only then, so a crash leaves a temporary one that is overwritten.
 */
import fs from "node:fs";
import path from "node:path";
import { type FileSystem, type OpenFile, systemFiles } from "../file-system.ts";
import { Environment, type Store } from "./environment.ts";
import { peekStore } from "./reader.ts";
import { withSum } from "./sums.ts";
import { TABLES, type Table } from "./types.ts";

const indexes = new Map<Table, number>(TABLES.map((table, index) => [table, index]));

export interface BulkRows {
  /** A copy; sees all rows put before. */
  get(table: Table, key: Uint8Array): Uint8Array | undefined;
  put(table: Table, key: Uint8Array, value: Uint8Array): void;
  /** Keys of a table put in this way ascend. */
  append(table: Table, key: Uint8Array, value: Uint8Array): void;
  delete(table: Table, key: Uint8Array): void;
}

const APPEND = { append: true };

export class BulkLoad {
  readonly path: string;
  readonly #temporary: string;
  readonly #files: FileSystem;
  readonly #environment: Environment;
  readonly #rows: BulkRows;
  #handle: OpenFile | undefined;
  #isOpen = true;

  /** What is at `path` stays as it is until `finish` puts the new file in its place. */
  constructor(
    file: string,
    options: { readonly mapSizeBytes?: number | undefined; readonly files?: FileSystem | undefined } = {},
  ) {
    this.path = file;
    this.#files = options.files ?? systemFiles;
    this.#temporary = `${file}.tmp.load`;
    fs.rmSync(this.#temporary, { force: true });
    fs.rmSync(`${this.#temporary}-lock`, { force: true });
    this.#environment = new Environment({
      path: this.#temporary,
      noSync: true,
      mapSizeBytes: options.mapSizeBytes,
    });
    const store = (table: Table): Store => this.#environment.stores[indexes.get(table) as number] as Store;
    const stored = (to: Store, key: Uint8Array, value: Uint8Array) => (to.sumBytes > 0 ? withSum(key, value) : value);
    this.#rows = {
      get: (table, key) => {
        const value = peekStore(store(table), key, undefined);
        return value && Buffer.from(value);
      },
      put: (table, key, value) => {
        const to = store(table);
        to.putSync(key, stored(to, key, value));
      },
      append: (table, key, value) => {
        const to = store(table);
        to.putSync(key, stored(to, key, value), APPEND);
      },
      delete: (table, key) => {
        store(table).removeSync(key);
      },
    };
  }

  /** One transaction: bound the rows that go into it. */
  write<T>(fn: (rows: BulkRows) => T): T {
    return this.#environment.root.transactionSync(() => fn(this.#rows), 2);
  }

  /** Pushes what was written to the disk: then the disk is never far behind, and others do not wait behind all of it. */
  async push(): Promise<void> {
    this.#handle ??= await this.#files.open(this.#temporary, "write");
    await this.#handle.datasync();
  }

  /** The environment that is being filled, for those who copy whole tables. */
  get environment(): Environment {
    return this.#environment;
  }

  /** Makes everything durable and gives the file its name; an older file's mode and owner go over to it. */
  async finish(): Promise<void> {
    await this.#close();
    const handle = await this.#files.open(this.#temporary, "write");
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
    if (fs.existsSync(this.path)) {
      const { mode, uid, gid } = fs.statSync(this.path);
      fs.chmodSync(this.#temporary, mode & 0o777);
      const own = fs.statSync(this.#temporary);
      if (own.uid !== uid || own.gid !== gid) fs.chownSync(this.#temporary, uid, gid);
    }
    await this.#files.rename(this.#temporary, this.path);
    await this.#files.removeTree(`${this.#temporary}-lock`);
    await this.#files.syncDirectory(path.dirname(this.path));
  }

  /** Leaves nothing behind under the temporary name. */
  async abandon(): Promise<void> {
    await this.#close();
    await this.#files.removeTree(this.#temporary);
    await this.#files.removeTree(`${this.#temporary}-lock`);
  }

  async #close(): Promise<void> {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    await this.#handle?.close();
    await this.#environment.close();
  }
}
