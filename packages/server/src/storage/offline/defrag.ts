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
import { BulkLoad } from "../backend/bulk.ts";
import { copyRows } from "../backend/copy.ts";
import { Environment, type FileSizes } from "../backend/environment.ts";
import { verifyBackendFile } from "../backend/verify.ts";
import { writeBolt } from "../bolt/index.ts";
import { type FileSystem, systemFiles } from "../file-system.ts";
import { dataDirPaths } from "../data-dir.ts";
import { lockDataDir } from "../lock.ts";
import { openDatabase } from "./database-file.ts";
import { type BackendKind, backendKind } from "./member-dir.ts";

/** The share of a page that etcd's own defragmentation fills. */
const FILL = 0.9;

export interface DefragOptions {
  readonly dataDir: string;
  readonly clock?: Clock | undefined;
  readonly logger: Logger;
  readonly files?: FileSystem | undefined;
}

export interface DefragResult {
  readonly path: string;
  readonly beforeBytes: number;
  readonly afterBytes: number;
}

/** Throws when the directory is no member's, or when its database is in use. */
export async function defragDataDir(options: DefragOptions): Promise<DefragResult> {
  const paths = dataDirPaths(options.dataDir);
  const kind = backendKind(paths);
  const lock = await lockDataDir(paths);
  try {
    return await defragFile(kind === "lmdb" ? paths.backendFile : paths.boltFile, kind, options);
  } finally {
    await lock.release();
  }
}

async function defragFile(file: string, kind: BackendKind, options: DefragOptions): Promise<DefragResult> {
  const { clock = systemClock, logger, files = systemFiles } = options;
  const start = clock.monotonicMs();
  const before = kind === "lmdb" ? lmdbSizes(file) : boltSizes(file);
  logger.info("defragmenting", { path: file, ...sizeFields(before) });
  const after = kind === "lmdb" ? await defragLmdb(file, files) : await defragBolt(file, files);
  logger.info("finished defragmenting directory", {
    path: file,
    "current-db-size-bytes-diff": after.fileBytes - before.fileBytes,
    "current-db-size-bytes": after.fileBytes,
    "current-db-size": humanBytes(after.fileBytes),
    "current-db-size-in-use-bytes-diff": after.inUseBytes - before.inUseBytes,
    "current-db-size-in-use-bytes": after.inUseBytes,
    "current-db-size-in-use": humanBytes(after.inUseBytes),
    took: goDuration(clock.monotonicMs() - start),
  });
  return { path: file, beforeBytes: before.fileBytes, afterBytes: after.fileBytes };
}

function sizeFields({ fileBytes, inUseBytes }: FileSizes): Record<string, unknown> {
  return {
    "current-db-size-bytes": fileBytes,
    "current-db-size": humanBytes(fileBytes),
    "current-db-size-in-use-bytes": inUseBytes,
    "current-db-size-in-use": humanBytes(inUseBytes),
  };
}

function lmdbSizes(file: string): FileSizes {
  verifyBackendFile(file);
  const environment = new Environment({ path: file });
  try {
    return environment.sizes();
  } finally {
    void environment.close();
  }
}

/** What is in use of a bbolt file would take a walk of it; a file that is not held open has no pending pages to tell. */
function boltSizes(file: string): FileSizes {
  const bolt = openDatabase(file);
  const { sizeBytes } = bolt;
  bolt.close();
  return { fileBytes: sizeBytes, inUseBytes: sizeBytes };
}

async function defragLmdb(file: string, files: FileSystem): Promise<FileSizes> {
  const load = new BulkLoad(file, { files });
  let after: FileSizes;
  try {
    const source = new Environment({ path: file });
    try {
      copyRows(source, load.environment);
    } finally {
      await source.close();
    }
    after = load.environment.sizes();
    await load.finish();
  } catch (error) {
    await load.abandon();
    throw error;
  }
  return after;
}

async function defragBolt(file: string, files: FileSystem): Promise<FileSizes> {
  const temporary = `${file}.tmp.defrag`;
  const source = openDatabase(file);
  try {
    const target = await files.open(temporary, "create", 0o600);
    let sizeBytes: number;
    try {
      sizeBytes = await writeBolt(source, target, { fill: FILL });
      await target.sync();
    } finally {
      await target.close();
    }
    const { mode, uid, gid } = fs.statSync(file);
    fs.chmodSync(temporary, mode & 0o777);
    const own = fs.statSync(temporary);
    if (own.uid !== uid || own.gid !== gid) fs.chownSync(temporary, uid, gid);
    await files.rename(temporary, file);
    await files.syncDirectory(path.dirname(file));
    return { fileBytes: sizeBytes, inUseBytes: sizeBytes };
  } catch (error) {
    await files.removeTree(temporary);
    throw error;
  } finally {
    source.close();
  }
}
