/**
 * A file system in memory for tests: any operation can be made to fail or be cut short, and a crash forgets what was
 * not synced. What may survive a crash: synced data always; of unsynced data each sector of 512 bytes on its own; of
 * changes to a directory, and of file lengths, a prefix in the order in which they were made (a journal).
 */
import path from "node:path";
import type { FileSystem, OpenFile } from "../file-system.ts";

const SECTOR_BYTES = 512;

interface Inode {
  live: Buffer;
  /** What a crash cannot take away. */
  durable: Buffer;
}

type NameChange = { readonly dir: string; readonly apply: (names: Map<string, Inode>) => void };

export class InjectedError extends Error {
  readonly code: string;

  constructor(code: string) {
    super(`${code}: injected`);
    this.code = code;
  }
}

function noSuchFile(name: string): Error {
  return Object.assign(new Error(`ENOENT: no such file or directory, open '${name}'`), { code: "ENOENT" });
}

export interface MemoryFilesHooks {
  /** Called before each operation that changes anything, with its number from 1. May throw. */
  before?: (operation: number, what: string) => void;
  /** How many of the bytes of a write are written: its return value instead of the length. */
  shorten?: (length: number, position: number) => number;
}

export class MemoryFiles implements FileSystem {
  hooks: MemoryFilesHooks = {};
  operations = 0;
  #names = new Map<string, Inode>();
  #durableNames = new Map<string, Inode>();
  #directories = new Set<string>(["/"]);
  #journal: NameChange[] = [];

  #operate(what: string): void {
    this.operations++;
    this.hooks.before?.(this.operations, what);
  }

  #changeNames(dir: string, apply: (names: Map<string, Inode>) => void): void {
    apply(this.#names);
    this.#journal.push({ dir, apply });
  }

  /** The state after the machine lost power: a new file system. `chance(n)` is an integer below n. */
  crash(chance: (bound: number) => number): MemoryFiles {
    const after = new MemoryFiles();
    const names = new Map(this.#durableNames);
    for (const change of this.#journal.slice(0, chance(this.#journal.length + 1))) change.apply(names);
    const copies = new Map<Inode, Inode>();
    for (const [name, inode] of names) {
      let copy = copies.get(inode);
      if (!copy) {
        copy = { live: Buffer.alloc(0), durable: Buffer.alloc(0) };
        copies.set(inode, copy);
        const length = chance(2) === 0 ? inode.durable.length : inode.live.length;
        const bytes = Buffer.alloc(length);
        inode.durable.copy(bytes, 0, 0, Math.min(length, inode.durable.length));
        for (let at = 0; at < length; at += SECTOR_BYTES) {
          if (chance(2) === 0) continue;
          const end = Math.min(at + SECTOR_BYTES, length, inode.live.length);
          if (at < end) inode.live.copy(bytes, at, at, end);
        }
        copy.live = bytes;
        copy.durable = Buffer.from(bytes);
      }
      after.#names.set(name, copy);
    }
    after.#durableNames = new Map(after.#names);
    after.#directories = new Set(this.#directories);
    return after;
  }

  /** For tests that damage files by hand. */
  bytes(name: string): Buffer {
    const inode = this.#names.get(path.resolve(name));
    if (!inode) throw noSuchFile(name);
    return inode.live;
  }

  setBytes(name: string, bytes: Uint8Array): void {
    const live = Buffer.from(bytes);
    this.#names.set(path.resolve(name), { live, durable: Buffer.from(live) });
    this.#durableNames = new Map(this.#names);
    this.#directories.add(path.dirname(path.resolve(name)));
  }

  async open(name: string, mode: "read" | "write" | "create"): Promise<OpenFile> {
    const full = path.resolve(name);
    let inode = this.#names.get(full);
    if (mode === "create") {
      this.#operate(`create ${full}`);
      if (inode) inode.live = Buffer.alloc(0);
      else {
        const created: Inode = { live: Buffer.alloc(0), durable: Buffer.alloc(0) };
        inode = created;
        this.#changeNames(path.dirname(full), (names) => names.set(full, created));
      }
    }
    if (!inode) throw noSuchFile(name);
    return this.#openFile(full, inode);
  }

  #openFile(full: string, inode: Inode): OpenFile {
    const write = (buffer: Uint8Array, offset: number, length: number, position: number): number => {
      this.#operate(`write ${full}`);
      const count = Math.min(length, this.hooks.shorten?.(length, position) ?? length);
      if (inode.live.length < position + count) {
        inode.live = Buffer.concat([inode.live, Buffer.alloc(position + count - inode.live.length)]);
      }
      inode.live.set(buffer.subarray(offset, offset + count), position);
      return count;
    };
    const sync = (what: string) => {
      this.#operate(`${what} ${full}`);
      inode.durable = Buffer.from(inode.live);
    };
    return {
      path: full,
      writeNow: write,
      write: async (buffer, offset, length, position) => write(buffer, offset, length, position),
      read: async (buffer, offset, length, position) => inode.live.copy(buffer, offset, position, position + length),
      size: async () => inode.live.length,
      truncate: async (length) => {
        this.#operate(`truncate ${full}`);
        inode.live =
          length <= inode.live.length
            ? Buffer.from(inode.live.subarray(0, length))
            : Buffer.concat([inode.live, Buffer.alloc(length - inode.live.length)]);
      },
      datasync: async () => sync("datasync"),
      datasyncNow: () => sync("datasyncNow"),
      sync: async () => sync("sync"),
      close: async () => {},
    };
  }

  async readFile(name: string): Promise<Buffer> {
    return Buffer.from(this.bytes(name));
  }

  async list(dir: string): Promise<string[]> {
    const full = path.resolve(dir);
    if (!this.#directories.has(full)) throw noSuchFile(dir);
    return [...this.#names.keys()]
      .filter((name) => path.dirname(name) === full)
      .map((name) => path.basename(name))
      .sort();
  }

  async exists(name: string): Promise<boolean> {
    return this.#names.has(path.resolve(name)) || this.#directories.has(path.resolve(name));
  }

  async rename(from: string, to: string): Promise<void> {
    const [source, target] = [path.resolve(from), path.resolve(to)];
    this.#operate(`rename ${source} ${target}`);
    if (this.#directories.has(source)) {
      this.#directories.delete(source);
      this.#directories.add(target);
      this.#changeNames(path.dirname(target), (names) => {
        for (const [name, inode] of [...names]) {
          if (!name.startsWith(`${source}/`)) continue;
          names.delete(name);
          names.set(target + name.substring(source.length), inode);
        }
      });
      return;
    }
    if (!this.#names.has(source)) throw noSuchFile(from);
    this.#changeNames(path.dirname(target), (names) => {
      const inode = names.get(source);
      if (!inode) return;
      names.delete(source);
      names.set(target, inode);
    });
  }

  async remove(name: string): Promise<void> {
    const full = path.resolve(name);
    if (!this.#names.has(full)) throw noSuchFile(name);
    this.#operate(`remove ${full}`);
    this.#changeNames(path.dirname(full), (names) => names.delete(full));
  }

  async removeTree(dir: string): Promise<void> {
    const full = path.resolve(dir);
    this.#directories.delete(full);
    for (const name of [...this.#names.keys()]) {
      if (name.startsWith(`${full}/`)) await this.remove(name);
    }
  }

  async makeDirectory(dir: string): Promise<void> {
    this.#directories.add(path.resolve(dir));
  }

  /** Makes everything that is in the journal up to here durable, as a journal does. */
  async syncDirectory(dir: string): Promise<void> {
    this.#operate(`syncDirectory ${path.resolve(dir)}`);
    for (const change of this.#journal) change.apply(this.#durableNames);
    this.#journal = [];
  }
}
