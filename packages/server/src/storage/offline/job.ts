/** What every long-running command is given besides its options: where files are, who is told, what may stop it. */
import fs from "node:fs";
import { type FileSystem, systemFiles } from "../file-system.ts";

export interface Progress {
  /** What is being done, in a word or two: `restoring`. */
  readonly what: string;
  readonly doneBytes: number;
  readonly totalBytes: number;
}

export interface JobOptions {
  readonly files?: FileSystem | undefined;
  readonly onProgress?: ((progress: Progress) => void) | undefined;
  /** Aborted: the command stops at the next opportunity and takes away what it had begun. */
  readonly signal?: AbortSignal | undefined;
  /** Bytes free on the disk of a directory; tests pass another. */
  readonly freeBytes?: ((dir: string) => number) | undefined;
}

export interface Job {
  readonly files: FileSystem;
  /** Whether work may go to other threads: they have no part in the faults that tests inject into `files`. */
  readonly hasThreads: boolean;
  readonly signal: AbortSignal | undefined;
  progress(what: string, doneBytes: number, totalBytes: number): void;
}

export function jobOf({ files = systemFiles, onProgress, signal }: JobOptions): Job {
  return {
    files,
    hasThreads: files === systemFiles,
    signal,
    progress: (what, doneBytes, totalBytes) => onProgress?.({ what, doneBytes, totalBytes }),
  };
}

/** Mode and owner of the file that another takes the place of. */
export function keepModeAndOwner(from: string, to: string): void {
  const { mode, uid, gid } = fs.statSync(from);
  fs.chmodSync(to, mode & 0o777);
  const own = fs.statSync(to);
  if (own.uid !== uid || own.gid !== gid) fs.chownSync(to, uid, gid);
}
