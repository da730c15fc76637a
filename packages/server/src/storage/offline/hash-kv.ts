/** The hash of the keys at a revision, from a `.db` file: what HashKV of a member with that history answers. */
import { HashRevisionError, hashKeyValues, type KeyValueHash } from "../bolt/index.ts";
import { mainOfRevisionKey } from "../schema/revision.ts";
import { metaKeys, openDatabase, statFile } from "./database-file.ts";
import { OfflineError } from "./errors.ts";

/** `revision` 0: the newest. */
export function snapshotHashKv(file: string, revision: number): KeyValueHash {
  statFile(file);
  const bolt = openDatabase(file);
  try {
    const finished = bolt.get("meta", metaKeys.finishedCompactRevision);
    const scheduled = bolt.get("meta", metaKeys.scheduledCompactRevision);
    const compactRevision = Math.max(
      finished ? mainOfRevisionKey(finished) : -1,
      scheduled ? mainOfRevisionKey(scheduled) : -1,
    );
    return hashKeyValues(bolt, revision, compactRevision);
  } catch (error) {
    if (error instanceof HashRevisionError) throw new OfflineError(error.message, { cause: error });
    throw error;
  } finally {
    bolt.close();
  }
}
