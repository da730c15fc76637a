/** The data directory's layout: where things are, and whether we may be there. */
import fs from "node:fs/promises";
import path from "node:path";
import type { Logger } from "../lib/log.ts";
import { hasCode, systemFiles } from "./file-system.ts";

export interface DataDirPaths {
  readonly dataDir: string;
  readonly memberDir: string;
  readonly snapDir: string;
  readonly walDir: string;
  /** Our database. */
  readonly backendFile: string;
  /** etcd's own database, in its place when a real etcd was here. */
  readonly boltFile: string;
}

/** `walDir` is `--wal-dir`; it moves the log alone. */
export function dataDirPaths(dataDir: string, walDir?: string | undefined): DataDirPaths {
  const memberDir = path.join(dataDir, "member");
  const snapDir = path.join(memberDir, "snap");
  return {
    dataDir,
    memberDir,
    snapDir,
    walDir: walDir || path.join(memberDir, "wal"),
    backendFile: path.join(snapDir, "db.lmdb"),
    boltFile: path.join(snapDir, "db"),
  };
}

/** The directory cannot be used; the message is one line, in the words of etcd. */
export class DataDirError extends Error {
  override readonly name = "DataDirError";
}

/** A system error as Go words it: `open /x/.touch: permission denied`. */
export function systemErrorText(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  const match = /^E[A-Z0-9]+: (.*), (\w+) '(.*?)'/.exec(message);
  return match ? `${match[2]} ${match[3]}: ${match[1]}` : message;
}

function modeText(mode: number, kind: "d" | "-"): string {
  let text: string = kind;
  for (const shift of [6, 3, 0]) {
    const bits = (mode >> shift) & 7;
    text += `${bits & 4 ? "r" : "-"}${bits & 2 ? "w" : "-"}${bits & 1 ? "x" : "-"}`;
  }
  return text;
}

/**
 * Sees to it that a directory is there and can be written to. A new one is for its owner alone; an old one that others
 * may read gets a warning. Rejects with the system's error.
 */
export async function touchDirectory(dir: string, logger: Logger): Promise<void> {
  try {
    const { mode } = await fs.stat(dir);
    if (process.platform !== "win32" && (mode & 0o777) !== 0o700) {
      logger.warn("check file permission", {
        error:
          `directory ${JSON.stringify(dir)} exist, but the permission is "${modeText(mode, "d")}". ` +
          `The recommended permission is "${modeText(0o700, "-")}" to prevent possible unprivileged access to the data`,
      });
    }
  } catch (error) {
    if (!hasCode(error, "ENOENT")) throw error;
    await systemFiles.makeDirectory(dir, 0o700);
  }
  const probe = path.join(path.resolve(dir), ".touch");
  await fs.writeFile(probe, "", { mode: 0o600 });
  await fs.rm(probe, { force: true });
}

/** Makes and checks the folders of a member. Rejects with {@link DataDirError}. */
export async function prepareDataDir(paths: DataDirPaths, logger: Logger): Promise<void> {
  await inspectDataDir(paths.dataDir, logger);
  const steps: readonly (readonly [dir: string, problem: string])[] = [
    [paths.dataDir, "cannot access data directory"],
    [paths.memberDir, "cannot access member directory"],
    [paths.snapDir, "failed to create snapshot directory"],
  ];
  for (const [dir, problem] of steps) {
    try {
      await touchDirectory(dir, logger);
    } catch (error) {
      throw new DataDirError(`${problem}: ${systemErrorText(error)}`, { cause: error });
    }
  }
}

/** What a data directory holds. Strange entries get a warning; a member and a proxy in one place are refused. */
export async function inspectDataDir(dataDir: string, logger: Logger): Promise<"empty" | "member" | "proxy"> {
  let names: string[];
  try {
    names = await fs.readdir(dataDir);
  } catch (error) {
    if (hasCode(error, "ENOENT")) return "empty";
    throw new DataDirError(`failed to list data directory: ${systemErrorText(error)}`, { cause: error });
  }
  for (const name of names.sort()) {
    if (name !== "member" && name !== "proxy") {
      logger.warn("found invalid file under data directory", { filename: name, "data-dir": dataDir });
    }
  }
  const isMember = names.includes("member");
  const isProxy = names.includes("proxy");
  if (isMember && isProxy) throw new DataDirError("invalid datadir; both member and proxy directories exist");
  return isMember ? "member" : isProxy ? "proxy" : "empty";
}
