/**
 * Filling a new LMDB file from sorted rows as fast as it goes: big transactions that are not synced, and one sync of
 * the whole at the end. The file takes its final name only then, so a crash leaves a temporary one that is overwritten.
 */
import fs from "node:fs";
import { open } from "node:fs/promises";
import path from "node:path";
import { Environment, type Store } from "./environment.ts";
import { syncFolder } from "./files.ts";
import { peekStore } from "./reader.ts";
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
  readonly #environment: Environment;
  readonly #rows: BulkRows;
  #isOpen = true;

  /** `path` must not exist. */
  constructor(file: string, options: { readonly mapSizeBytes?: number | undefined } = {}) {
    this.path = file;
    this.#temporary = `${file}.tmp.load`;
    this.#removeTemporary();
    this.#environment = new Environment({
      path: this.#temporary,
      noSync: true,
      mapSizeBytes: options.mapSizeBytes,
    });
    const store = (table: Table): Store => this.#environment.stores[indexes.get(table) as number] as Store;
    this.#rows = {
      get: (table, key) => {
        const value = peekStore(store(table), key, undefined);
        return value && Buffer.from(value);
      },
      put: (table, key, value) => {
        store(table).putSync(key, value);
      },
      append: (table, key, value) => {
        store(table).putSync(key, value, APPEND);
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

  /** Makes everything durable and gives the file its name. */
  async finish(): Promise<void> {
    this.#isOpen = false;
    await this.#environment.close();
    const handle = await open(this.#temporary, "r+");
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
    fs.renameSync(this.#temporary, this.path);
    fs.rmSync(`${this.#temporary}-lock`, { force: true });
    await syncFolder(path.dirname(this.path));
  }

  /** Leaves nothing behind; harmless after `finish`. */
  async abandon(): Promise<void> {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    await this.#environment.close();
    this.#removeTemporary();
  }

  #removeTemporary(): void {
    fs.rmSync(this.#temporary, { force: true });
    fs.rmSync(`${this.#temporary}-lock`, { force: true });
  }
}
