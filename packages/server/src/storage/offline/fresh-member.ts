/**
 * A member's directory that is made where none was, by `snapshot restore` and `backup`. Everything is made in
 * `<data-dir>/member.tmp` and renamed to `member` when it is durable, so a directory either is whole or is not there. A
 * log directory of its own gets its name first; a note in the unfinished directory says so, and the next run takes that
 * leftover away. The unfinished directory is locked, so that of two that run at a time neither takes the other's away.
 */
import fs from "node:fs";
import path from "node:path";
import { utf8Bytes } from "../../lib/bytes.ts";
import { type FileSystem, writeFully } from "../file-system.ts";
import { type DataDirLock, LOCK_NAME, lockDataDir, refuseIfInUse } from "../lock.ts";

const UNFINISHED = "member.tmp";
/** In the unfinished directory: the path of the log directory that belongs to it. */
const NOTE = "wal-dir";

export interface FreshMemberTarget {
  readonly dataDir: string;
  /** Empty: inside the data directory. */
  readonly walDir: string;
}

export class FreshMember {
  /** Where database and snapshots are made. */
  readonly snapDir: string;
  /** Where the log is made: does not exist yet. */
  readonly walDir: string;
  readonly #target: FreshMemberTarget;
  readonly #files: FileSystem;
  readonly #unfinished: string;
  readonly #isNewDir: boolean;
  #lock: DataDirLock | undefined;
  #isNamed = false;

  constructor(target: FreshMemberTarget, files: FileSystem) {
    this.#target = target;
    this.#files = files;
    this.#unfinished = path.join(target.dataDir, UNFINISHED);
    this.snapDir = path.join(this.#unfinished, "snap");
    this.walDir = target.walDir === "" ? path.join(this.#unfinished, "wal") : path.resolve(target.walDir);
    this.#isNewDir = !fs.existsSync(target.dataDir);
  }

  /** What of a data directory's content is not an unfinished member. The system's error when it cannot be read. */
  static strangers(dataDir: string): string[] {
    return fs.readdirSync(dataDir).filter((name) => name !== UNFINISHED);
  }

  /**
   * Takes away what an interrupted run left: its unfinished directory, and the log directory that it had named in it.
   * Rejects with DataDirLockedError when that run is not over.
   */
  async removeLeftovers(): Promise<void> {
    if (!fs.existsSync(this.#unfinished)) return;
    await refuseIfInUse(this.#lockTarget);
    await this.#removeUnfinished();
  }

  get #lockTarget() {
    return { memberDir: this.#unfinished, walDir: this.walDir };
  }

  async #removeUnfinished(): Promise<void> {
    if (this.#target.walDir !== "") {
      let noted: string | undefined;
      try {
        noted = fs.readFileSync(path.join(this.#unfinished, NOTE), "utf8");
      } catch {
        noted = undefined;
      }
      if (noted === this.walDir) {
        await this.#files.removeTree(this.walDir);
        await this.#files.removeTree(`${this.walDir}.tmp`);
      }
    }
    if (!this.#lock) {
      await this.#files.removeTree(this.#unfinished);
      return;
    }
    for (const name of fs.readdirSync(this.#unfinished)) {
      if (name !== LOCK_NAME) await this.#files.removeTree(path.join(this.#unfinished, name));
    }
    // The lock is named after the directory's inode, which as soon as that is gone may be another's: it goes first. By
    // then somebody else may be at work there; what is not empty is theirs.
    await this.release();
    this.#removeEmpty();
  }

  /** Makes the folders for the database. */
  async begin(): Promise<void> {
    try {
      await makeDurableDirectory(this.#target.dataDir, this.#files);
      await this.#files.makeDirectory(this.snapDir, 0o700);
      this.#lock = await lockDataDir(this.#lockTarget);
    } catch (error) {
      this.#removeEmpty();
      throw error;
    }
  }

  /** What is not empty is another's. */
  #removeEmpty(): void {
    const made = [this.snapDir, this.#unfinished, ...(this.#isNewDir ? [this.#target.dataDir] : [])];
    try {
      for (const dir of made) if (fs.existsSync(dir)) fs.rmdirSync(dir);
    } catch {
      // It stays.
    }
  }

  /** To be called before the log is made. */
  async prepareWal(): Promise<void> {
    if (this.#target.walDir === "") return;
    const note = await this.#files.open(path.join(this.#unfinished, NOTE), "create", 0o600);
    try {
      const bytes = utf8Bytes(this.walDir);
      await writeFully(note, bytes, bytes.length, 0);
      await note.sync();
    } finally {
      await note.close();
    }
    await this.#files.syncDirectory(this.#unfinished);
    await makeDurableDirectory(path.dirname(this.walDir), this.#files);
  }

  /** Gives the member its name: all files in it are durable. */
  async finish(): Promise<void> {
    const { dataDir, walDir } = this.#target;
    const memberDir = path.join(dataDir, "member");
    await this.#files.syncDirectory(this.snapDir);
    await this.#files.syncDirectory(this.#unfinished);
    await this.#files.rename(this.#unfinished, memberDir);
    this.#isNamed = true;
    // The socket's file has moved along; it says nothing any more.
    fs.rmSync(path.join(memberDir, LOCK_NAME), { force: true });
    await this.#files.syncDirectory(dataDir);
    if (walDir !== "") await this.#files.remove(path.join(memberDir, NOTE));
  }

  /**
   * After a failure: nothing is left, and a data directory that was not there before is not there. But once it has its
   * name the member is whole, whatever failed behind that.
   */
  async abandon(): Promise<void> {
    if (this.#isNamed || !this.#lock) return;
    await this.#removeUnfinished();
  }

  /** At the very end, whatever happened. */
  async release(): Promise<void> {
    await this.#lock?.release();
    this.#lock = undefined;
  }
}

/** With its parents; the names of all that are new are durable in the directories they are in. */
async function makeDurableDirectory(dir: string, files: FileSystem): Promise<void> {
  const made: string[] = [];
  for (let at = path.resolve(dir); !fs.existsSync(at); at = path.dirname(at)) made.push(at);
  await files.makeDirectory(dir, 0o700);
  for (const each of made.reverse()) await files.syncDirectory(path.dirname(each));
}
