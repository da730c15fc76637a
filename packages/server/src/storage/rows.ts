/**
 * Rows as the offline tools hand them on: a cursor that says where key and value lie, so that a million rows make no
 * million objects. What it points at is valid until the next step.
 */
import { EMPTY_BYTES } from "../lib/bytes.ts";

const NOTHING: Buffer = Buffer.from(EMPTY_BYTES);

export abstract class RowCursor {
  keyIn: Buffer = NOTHING;
  keyAt = 0;
  keyEnd = 0;
  valueIn: Buffer = NOTHING;
  valueAt = 0;
  valueEnd = 0;

  /** Moves to the next row, at first to the first one; false behind the last. */
  abstract next(): boolean;

  /** Views, valid until the next step. */
  get key(): Buffer {
    return this.keyIn.subarray(this.keyAt, this.keyEnd);
  }

  get value(): Buffer {
    return this.valueIn.subarray(this.valueAt, this.valueEnd);
  }

  protected pointAt(key: Buffer, value: Buffer): void {
    this.keyIn = key;
    this.keyAt = 0;
    this.keyEnd = key.length;
    this.valueIn = value;
    this.valueAt = 0;
    this.valueEnd = value.length;
  }
}

/** Rows that are in memory. */
export class ListCursor extends RowCursor {
  readonly #rows: readonly (readonly [key: Uint8Array, value: Uint8Array])[];
  #at = 0;

  constructor(rows: readonly (readonly [key: Uint8Array, value: Uint8Array])[]) {
    super();
    this.#rows = rows;
  }

  next(): boolean {
    const row = this.#rows[this.#at++];
    if (!row) return false;
    this.pointAt(view(row[0]), view(row[1]));
    return true;
  }
}

/** One after the other; the rows of the second come behind those of the first. */
export class ChainCursor extends RowCursor {
  readonly #cursors: RowCursor[];

  constructor(...cursors: RowCursor[]) {
    super();
    this.#cursors = cursors;
  }

  next(): boolean {
    for (let cursor = this.#cursors[0]; cursor; cursor = this.#cursors[0]) {
      if (cursor.next()) {
        this.keyIn = cursor.keyIn;
        this.keyAt = cursor.keyAt;
        this.keyEnd = cursor.keyEnd;
        this.valueIn = cursor.valueIn;
        this.valueAt = cursor.valueAt;
        this.valueEnd = cursor.valueEnd;
        return true;
      }
      this.#cursors.shift();
    }
    return false;
  }
}

function view(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
}

/** Where the tools get rows from: etcd's buckets by name, whatever file they are in. */
export interface RowStore {
  /** No such bucket: no rows. */
  cursor(bucket: string): RowCursor;
}
