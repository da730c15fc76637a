/** The hash of the keys at a revision, from a `.db` file: what HashKV of a member with that history answers. */
import fs from "node:fs";
import { HashRevisionError, hashKeyValues, type KeyValueHash, type RowSource } from "../bolt/index.ts";
import { mainOfRevisionKey } from "../schema/revision.ts";
import { metaKeys, statFile } from "./database-file.ts";
import { OfflineError } from "./errors.ts";
import { kindOfFile, openStore, type Store } from "./store.ts";

/** `revision` 0: the newest. */
export function snapshotHashKv(file: string, revision: number): KeyValueHash {
  statFile(file);
  const store = openStoreOf(file);
  try {
    const finished = store.get("meta", metaKeys.finishedCompactRevision);
    const scheduled = store.get("meta", metaKeys.scheduledCompactRevision);
    const compactRevision = Math.max(
      finished ? mainOfRevisionKey(finished) : -1,
      scheduled ? mainOfRevisionKey(scheduled) : -1,
    );
    return hashKeyValues(rowsOf(store), revision, compactRevision);
  } catch (error) {
    if (error instanceof HashRevisionError) throw new OfflineError(error.message, { cause: error });
    throw error;
  } finally {
    store.close();
  }
}

function openStoreOf(file: string): Store {
  if (fs.statSync(file).isDirectory()) throw new OfflineError(`open ${file}: is a directory`);
  return openStore(file, kindOfFile(file));
}

function rowsOf(store: Store): RowSource {
  return {
    buckets: store.buckets,
    scan: (bucket, _start, visit) => {
      for (const rows = store.cursor(bucket); rows.next(); ) if (visit(rows.key, rows.value) === false) return;
    },
  };
}
