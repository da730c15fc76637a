/** `snapshot save` of a stopped member: its database as `etcdctl snapshot save` would have got it while it ran. */
import fs from "node:fs";
import path from "node:path";
import type { Logger } from "../../lib/log.ts";
import { dataDirPaths } from "../data-dir.ts";
import { writeFully } from "../file-system.ts";
import { lockForReading } from "../lock.ts";
import { mainOfRevisionKey } from "../schema/revision.ts";
import { convert } from "./convert.ts";
import { OfflineError } from "./errors.ts";
import { type JobOptions, jobOf } from "./job.ts";
import { backendKind, databaseFile, refuseNewerBeside } from "./member-dir.ts";
import { bytesToWrite, requireSpace } from "./space.ts";
import { damageAsError, openStore } from "./store.ts";
import { sha256OfFile, TaskThread } from "./tasks.ts";

export interface SaveOptions extends JobOptions {
  readonly dataDir: string;
  readonly snapshotPath: string;
  readonly logger: Logger;
}

export interface Saved {
  readonly path: string;
  readonly sizeBytes: number;
  readonly hash: number;
  readonly revision: number;
}

/** The file is whole and durable under its name, or not there. An older one of that name is replaced. */
export async function saveSnapshot(options: SaveOptions): Promise<Saved> {
  const { snapshotPath, logger } = options;
  const job = jobOf(options);
  const paths = dataDirPaths(options.dataDir);
  const kind = backendKind(paths);
  const source = databaseFile(paths, kind);
  const temporary = `${snapshotPath}.part`;
  if (fs.existsSync(snapshotPath) && !fs.statSync(snapshotPath).isFile()) {
    throw new OfflineError(`${snapshotPath} is no file`);
  }
  if (isWithin(paths.memberDir, snapshotPath)) {
    throw new OfflineError(`${snapshotPath} is among the files of the member itself`);
  }
  const folder = path.dirname(path.resolve(snapshotPath));
  if (!fs.existsSync(folder)) throw new OfflineError(`open ${temporary}: no such file or directory`);
  const lock = await lockForReading(paths);
  try {
    refuseNewerBeside(paths, kind);
    const store = openStore(source, kind);
    try {
      requireSpace(folder, bytesToWrite({ path: source, from: kind, to: "bbolt" }), options);
      logger.info("saving snapshot", { path: snapshotPath, "data-dir": options.dataDir });
      const last = store.lastKey("key");
      const { sizeBytes, hash } = await convert(store, {
        to: "bbolt",
        path: temporary,
        job,
        what: "saving",
        wantsHash: true,
      });
      await appendHash(temporary, sizeBytes, job);
      job.signal?.throwIfAborted();
      await job.files.rename(temporary, snapshotPath);
      await job.files.syncDirectory(folder);
      logger.info("saved snapshot", { path: snapshotPath, hash });
      return { path: snapshotPath, sizeBytes, hash, revision: last ? mainOfRevisionKey(last) : 0 };
    } catch (error) {
      await job.files.removeTree(temporary);
      throw damageAsError(source, error);
    } finally {
      store.close();
    }
  } finally {
    await lock.release();
  }
}

/** Whether a file that may not be there yet is, or would be, in a directory; a folder that is not there is none of it. */
function isWithin(dir: string, file: string): boolean {
  let folder: string;
  try {
    folder = fs.realpathSync(path.dirname(path.resolve(file)));
  } catch {
    return false;
  }
  const relative = path.relative(fs.realpathSync(dir), folder);
  return relative === "" || !(relative.startsWith("..") || path.isAbsolute(relative));
}

async function appendHash(file: string, sizeBytes: number, job: ReturnType<typeof jobOf>): Promise<void> {
  let hash: Uint8Array;
  if (job.hasThreads) {
    const thread = new TaskThread<Uint8Array>({ kind: "sha256", path: file, bytes: sizeBytes });
    try {
      hash = await thread.result;
    } finally {
      await thread.stop();
    }
  } else hash = sha256OfFile(file, sizeBytes);
  const opened = await job.files.open(file, "write");
  try {
    await writeFully(opened, hash, hash.length, sizeBytes);
    await opened.sync();
  } finally {
    await opened.close();
  }
}
