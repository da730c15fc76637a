/** Re-inserting all rows into a new file: the only way to close the holes of an LMDB file (its own copy keeps them). */
import type { Environment, Store } from "./environment.ts";
import { withSum } from "./sums.ts";
import { TABLES } from "./types.ts";

/** Rows and bytes after which the copy commits, so that no transaction grows with the database. */
const BATCH_ROWS_MAX = 50_000;
const BATCH_BYTES_MAX = 32 * 1024 * 1024;

/** Copies one pinned state of `source` into `target`, which is empty. Synchronous; returns the number of rows. */
export function copyRows(source: Environment, target: Environment): number {
  const transaction = source.root.useReadTransaction();
  let copied = 0;
  try {
    for (let table = 0; table < TABLES.length; table++) {
      const from = source.stores[table] as Store;
      const to = target.stores[table] as Store;
      // A file of the time before checksums gets them; otherwise they go over as they are, right or wrong.
      const addsSums = to.sumBytes > 0 && from.sumBytes === 0;
      const rows = from.getRange({ transaction })[Symbol.iterator]();
      for (let more = true; more; ) {
        more = target.root.transactionSync(() => {
          let bytes = 0;
          for (let count = 0; count < BATCH_ROWS_MAX && bytes < BATCH_BYTES_MAX; count++) {
            const next = rows.next();
            if (next.done) return false;
            const { key, value } = next.value;
            to.putSync(key, addsSums ? withSum(key, value) : value, APPEND);
            bytes += key.length + value.length;
            copied++;
          }
          return true;
        }, 2);
      }
    }
  } finally {
    transaction.done();
  }
  return copied;
}

/** Rows come in order into an empty table: pages are filled to the brim and never split. */
const APPEND = { append: true };
