/**
 * Defragmenting the database of a stopped member. All rows go into a new file beside the old one; when it is durable it
 * takes the old one's name. The old one is not touched before, so whatever stops us leaves it whole, with a temporary
 * file at most, which the next run overwrites and the next start removes.
 */
import fs from "node:fs";
import path from "node:path";
import { type Clock, systemClock } from "../../lib/clock.ts";
import { goDuration, humanBytes } from "../../lib/go-format.ts";
import type { Logger } from "../../lib/log.ts";
import type { FileSizes } from "../backend/environment.ts";
import { BoltPages, bucketPlaces, LeafWalk } from "../bolt/walk.ts";
import { dataDirPaths } from "../data-dir.ts";
import { LmdbFile } from "../lmdb/walk.ts";
import { lockDataDir, lockForReading } from "../lock.ts";
import { convert, DEFRAG_FILL, rewriteLmdb } from "./convert.ts";
import { type Job, type JobOptions, jobOf, keepModeAndOwner } from "./job.ts";
import { type BackendKind, backendKind, databaseFile, refuseNewerBeside, removeWorkFiles } from "./member-dir.ts";
import { bytesToWrite, requireSpace } from "./space.ts";
import { boltMeta, damageAsError, namingDamage, openStore } from "./store.ts";

export interface DefragOptions extends JobOptions {
  readonly dataDir: string;
  readonly clock?: Clock | undefined;
  readonly logger: Logger;
  /** Only looks whether it could be done, and what it would give back. */
  readonly isDryRun?: boolean | undefined;
}

export interface DefragResult {
  readonly path: string;
  readonly backend: BackendKind;
  readonly beforeBytes: number;
  readonly beforeInUseBytes: number;
  /** With `isDryRun`: about what there would be. */
  readonly afterBytes: number;
}

/** Throws when the directory is no member's, or when its database is in use. */
export async function defragDataDir(options: DefragOptions): Promise<DefragResult> {
  const paths = dataDirPaths(options.dataDir);
  const kind = backendKind(paths);
  const lock = await (options.isDryRun ? lockForReading : lockDataDir)(paths);
  try {
    refuseNewerBeside(paths, kind);
    return await defragFile(databaseFile(paths, kind), kind, options);
  } finally {
    await lock.release();
  }
}

async function defragFile(file: string, backend: BackendKind, options: DefragOptions): Promise<DefragResult> {
  const { clock = systemClock, logger } = options;
  const job = jobOf(options);
  const start = clock.monotonicMs();
  const before = namingDamage(file, () => (backend === "lmdb" ? lmdbSizes(file) : boltSizes(file)));
  const result = { path: file, backend, beforeBytes: before.fileBytes, beforeInUseBytes: before.inUseBytes };
  if (!options.isDryRun) await removeWorkFiles(file, job.files);
  // Rows of an LMDB file that are packed anew never take more pages than before.
  const needed =
    backend === "lmdb"
      ? before.inUseBytes
      : bytesToWrite({ path: file, from: backend, to: backend, fill: DEFRAG_FILL, usedBytes: before.inUseBytes });
  requireSpace(path.dirname(file), needed, options);
  if (options.isDryRun) return { ...result, afterBytes: before.inUseBytes };
  logger.info("defragmenting", { path: file, ...sizeFields(before) });
  const afterBytes = await rewrite(file, backend, job);
  logger.info("finished defragmenting directory", {
    path: file,
    "current-db-size-bytes-diff": afterBytes - before.fileBytes,
    "current-db-size-bytes": afterBytes,
    "current-db-size": humanBytes(afterBytes),
    "current-db-size-in-use-bytes-diff": afterBytes - before.inUseBytes,
    "current-db-size-in-use-bytes": afterBytes,
    "current-db-size-in-use": humanBytes(afterBytes),
    took: goDuration(clock.monotonicMs() - start),
  });
  return { ...result, afterBytes };
}

function sizeFields({ fileBytes, inUseBytes }: FileSizes): Record<string, unknown> {
  return {
    "current-db-size-bytes": fileBytes,
    "current-db-size": humanBytes(fileBytes),
    "current-db-size-in-use-bytes": inUseBytes,
    "current-db-size-in-use": humanBytes(inUseBytes),
  };
}

function lmdbSizes(path: string): FileSizes {
  const file = new LmdbFile(path);
  try {
    return { fileBytes: file.sizeBytes, inUseBytes: file.inUseBytes };
  } finally {
    file.close();
  }
}

/** The file keeps no count of its free pages, so those in use are counted, as bbolt itself does when it opens one. */
function boltSizes(path: string): FileSizes {
  const meta = boltMeta(path);
  const pages = new BoltPages(path, meta, false);
  try {
    for (const { root } of bucketPlaces(pages)) {
      if (root === undefined) continue;
      const walk = new LeafWalk(pages, root);
      while (walk.next());
    }
    return {
      fileBytes: meta.highWater * meta.pageSizeBytes,
      inUseBytes: (2 + pages.reachedPages) * meta.pageSizeBytes,
    };
  } finally {
    pages.close();
  }
}

async function rewrite(file: string, backend: BackendKind, job: Job): Promise<number> {
  const temporary = `${file}.tmp.defrag`;
  const { files } = job;
  const work = { path: temporary, job, what: "defragmenting" };
  try {
    let sizeBytes: number;
    if (backend === "lmdb") sizeBytes = await rewriteLmdb(file, work);
    else {
      const store = openStore(file, "bbolt");
      try {
        ({ sizeBytes } = await convert(store, { ...work, to: "bbolt", fill: DEFRAG_FILL }));
      } finally {
        store.close();
      }
    }
    keepModeAndOwner(file, temporary);
    job.signal?.throwIfAborted();
    await files.rename(temporary, file);
    // LMDB's own lock file knows readers of the old one.
    if (backend === "lmdb") fs.rmSync(`${file}-lock`, { force: true });
    await files.syncDirectory(path.dirname(file));
    return sizeBytes;
  } catch (error) {
    await files.removeTree(temporary);
    throw damageAsError(file, error);
  }
}
