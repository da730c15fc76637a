/**
 * The few file operations that durable files need, as an interface, so that tests can let any of them fail, be cut
 * short, or forget what was not synced. {@link systemFiles} is the real one.
 */
import fs from "node:fs";
import fsPromises from "node:fs/promises";
import path from "node:path";

export interface OpenFile {
  readonly path: string;
  /** Bytes written, which may be fewer than asked for. */
  write(buffer: Uint8Array, offset: number, length: number, position: number): Promise<number>;
  /** As `write`, on the calling thread: a small write into the page cache costs less than a trip to another thread. */
  writeNow(buffer: Uint8Array, offset: number, length: number, position: number): number;
  /** Bytes read; 0 at the end. */
  read(buffer: Uint8Array, offset: number, length: number, position: number): Promise<number>;
  size(): Promise<number>;
  truncate(length: number): Promise<void>;
  /** Data, and of the metadata what reading it back needs. */
  datasync(): Promise<void>;
  /** As `datasync`, on the calling thread, which stands still meanwhile. */
  datasyncNow(): void;
  sync(): Promise<void>;
  close(): Promise<void>;
}

export interface FileSystem {
  /** `read`: must exist. `write`: reading and writing, must exist. `create`: reading and writing, emptied if it exists. */
  open(path: string, mode: "read" | "write" | "create", permissions?: number): Promise<OpenFile>;
  readFile(path: string): Promise<Buffer>;
  /** Names only, in the order of their UTF-16 units. An absent directory rejects with ENOENT. */
  list(dir: string): Promise<string[]>;
  exists(path: string): Promise<boolean>;
  rename(from: string, to: string): Promise<void>;
  remove(path: string): Promise<void>;
  /** With everything below; harmless when absent. */
  removeTree(path: string): Promise<void>;
  /** With its parents; harmless when there. New ones get `permissions`. */
  makeDirectory(path: string, permissions: number): Promise<void>;
  /** Makes the names in a directory durable. A no-op where the system has no such call (Windows). */
  syncDirectory(path: string): Promise<void>;
}

/** Callback functions of fs on a bare descriptor: on the write path they cost a third of a FileHandle's. */
class SystemFile implements OpenFile {
  readonly path: string;
  readonly #fd: number;

  constructor(file: string, fd: number) {
    this.path = file;
    this.#fd = fd;
  }

  write(buffer: Uint8Array, offset: number, length: number, position: number): Promise<number> {
    return new Promise((resolve, reject) => {
      fs.write(this.#fd, buffer, offset, length, position, (error, written) =>
        error ? reject(error) : resolve(written),
      );
    });
  }

  writeNow(buffer: Uint8Array, offset: number, length: number, position: number): number {
    return fs.writeSync(this.#fd, buffer, offset, length, position);
  }

  read(buffer: Uint8Array, offset: number, length: number, position: number): Promise<number> {
    return new Promise((resolve, reject) => {
      fs.read(this.#fd, buffer, offset, length, position, (error, count) => (error ? reject(error) : resolve(count)));
    });
  }

  size(): Promise<number> {
    return new Promise((resolve, reject) => {
      fs.fstat(this.#fd, (error, stats) => (error ? reject(error) : resolve(stats.size)));
    });
  }

  truncate(length: number): Promise<void> {
    return new Promise((resolve, reject) => {
      fs.ftruncate(this.#fd, length, (error) => (error ? reject(error) : resolve()));
    });
  }

  datasync(): Promise<void> {
    return new Promise((resolve, reject) => {
      fs.fdatasync(this.#fd, (error) => (error ? reject(error) : resolve()));
    });
  }

  datasyncNow(): void {
    fs.fdatasyncSync(this.#fd);
  }

  sync(): Promise<void> {
    return new Promise((resolve, reject) => {
      fs.fsync(this.#fd, (error) => (error ? reject(error) : resolve()));
    });
  }

  close(): Promise<void> {
    return new Promise((resolve, reject) => {
      fs.close(this.#fd, (error) => (error ? reject(error) : resolve()));
    });
  }
}

/**
 * With its parents, one by one: Node's own recursive form never returns where a directory cannot be made for another
 * reason than a missing parent, as below /proc.
 */
async function makeDirectories(dir: string, permissions: number): Promise<void> {
  try {
    await fsPromises.mkdir(dir, permissions);
  } catch (error) {
    if (hasCode(error, "EEXIST") && (await fsPromises.stat(dir)).isDirectory()) return;
    const parent = path.dirname(dir);
    if (!hasCode(error, "ENOENT") || parent === dir || (await exists(parent))) throw error;
    await makeDirectories(parent, permissions);
    await fsPromises.mkdir(dir, permissions);
  }
}

async function exists(file: string): Promise<boolean> {
  try {
    await fsPromises.access(file);
    return true;
  } catch {
    return false;
  }
}

const OPEN_FLAGS = { read: "r", write: "r+", create: "w+" } as const;

export const systemFiles: FileSystem = {
  open(file, mode, permissions = 0o600) {
    return new Promise((resolve, reject) => {
      fs.open(file, OPEN_FLAGS[mode], permissions, (error, fd) =>
        error ? reject(error) : resolve(new SystemFile(file, fd)),
      );
    });
  },
  readFile: (path) => fsPromises.readFile(path),
  list: async (dir) => (await fsPromises.readdir(dir)).sort(),
  exists,
  rename: (from, to) => fsPromises.rename(from, to),
  remove: (path) => fsPromises.unlink(path),
  removeTree: (path) => fsPromises.rm(path, { recursive: true, force: true }),
  makeDirectory: makeDirectories,
  async syncDirectory(path) {
    if (process.platform === "win32") return;
    const handle = await fsPromises.open(path, "r");
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
  },
};

/**
 * Writes all of the bytes, however many calls that takes. A call that writes nothing is an error. Errors of the system
 * say which file it was.
 */
export async function writeFully(file: OpenFile, bytes: Uint8Array, length: number, position: number): Promise<void> {
  for (let done = 0; done < length; ) {
    let written: number;
    try {
      written = await file.write(bytes, done, length - done, position + done);
    } catch (error) {
      if (error instanceof Error) (error as NodeJS.ErrnoException).path ??= file.path;
      throw error;
    }
    if (written <= 0) throw new Error(`write ${file.path}: wrote nothing`);
    done += written;
  }
}

/** Whether an error of the system has this code, ENOENT for one. */
export function hasCode(error: unknown, code: string): boolean {
  return error instanceof Error && (error as NodeJS.ErrnoException).code === code;
}
