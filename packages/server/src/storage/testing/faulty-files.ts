/**
 * The real file system with one fault at one operation: for walking every step of an offline command. Operations that
 * only look are not counted.
 */
import { type FileSystem, type OpenFile, systemFiles } from "../file-system.ts";

/**
 * `kill`: this operation and all later ones fail, as if the process had ended. The others fail once: nothing is done, or,
 * for a short write, half of it is.
 */
export type Fault = "kill" | "ENOSPC" | "EIO" | "shortWrite";

export class FaultyFiles implements FileSystem {
  /** Operations so far, by what they were. */
  readonly operations: string[] = [];
  readonly #fault: Fault | undefined;
  readonly #at: number;
  #isKilled = false;

  /** `at` counts from 1; without a fault operations are only counted. */
  constructor(fault?: Fault, at = 0) {
    this.#fault = fault;
    this.#at = at;
  }

  #fail(what: string): never {
    const code = this.#fault === "EIO" ? "EIO" : "ENOSPC";
    if (this.#isKilled) throw new Error(`killed before ${what}`);
    throw Object.assign(new Error(`${code}: injected, ${what}`), { code, syscall: what });
  }

  /** True when a short write is due. */
  #step(what: string): boolean {
    if (this.#isKilled) this.#fail(what);
    this.operations.push(what);
    if (this.#fault === undefined || this.operations.length !== this.#at) return false;
    if (this.#fault === "shortWrite" && what.startsWith("write")) return true;
    if (this.#fault === "kill") this.#isKilled = true;
    this.#fail(what);
  }

  async open(path: string, mode: "read" | "write" | "create", permissions?: number): Promise<OpenFile> {
    if (mode === "create") this.#step(`create ${path}`);
    const file = await systemFiles.open(path, mode, permissions);
    return {
      path,
      write: async (buffer, offset, length, position) => {
        if (this.#step(`write ${path}`)) {
          await file.write(buffer, offset, length >>> 1, position);
          this.#fail(`write ${path}`);
        }
        return file.write(buffer, offset, length, position);
      },
      writeNow: (buffer, offset, length, position) => {
        // The log writes zeros ahead of its records, and does without when that fails.
        const isZeros = buffer.subarray(offset, offset + length).every((byte) => byte === 0);
        const what = `write ${isZeros ? "zeros " : ""}${path}`;
        if (this.#step(what)) {
          file.writeNow(buffer, offset, length >>> 1, position);
          this.#fail(what);
        }
        return file.writeNow(buffer, offset, length, position);
      },
      read: (buffer, offset, length, position) => file.read(buffer, offset, length, position),
      size: () => file.size(),
      truncate: async (length) => {
        this.#step(`truncate ${path}`);
        await file.truncate(length);
      },
      datasync: async () => {
        this.#step(`datasync ${path}`);
        await file.datasync();
      },
      datasyncNow: () => {
        this.#step(`datasyncNow ${path}`);
        file.datasyncNow();
      },
      sync: async () => {
        this.#step(`sync ${path}`);
        await file.sync();
      },
      close: () => file.close(),
    };
  }

  readFile(path: string): Promise<Buffer> {
    return systemFiles.readFile(path);
  }

  list(dir: string): Promise<string[]> {
    return systemFiles.list(dir);
  }

  exists(path: string): Promise<boolean> {
    return systemFiles.exists(path);
  }

  async rename(from: string, to: string): Promise<void> {
    this.#step(`rename ${from} ${to}`);
    await systemFiles.rename(from, to);
  }

  async remove(path: string): Promise<void> {
    this.#step(`remove ${path}`);
    await systemFiles.remove(path);
  }

  async removeTree(path: string): Promise<void> {
    this.#step(`removeTree ${path}`);
    await systemFiles.removeTree(path);
  }

  async makeDirectory(path: string, permissions: number): Promise<void> {
    this.#step(`makeDirectory ${path}`);
    await systemFiles.makeDirectory(path, permissions);
  }

  async syncDirectory(path: string): Promise<void> {
    this.#step(`syncDirectory ${path}`);
    await systemFiles.syncDirectory(path);
  }
}
