/**
 * One process at a time in a data directory.
 *
 * LMDB lets any number of processes write in turn, and Node can hold no file lock, so the lock is a socket that listens:
 * the kernel closes it with the process, however that ends, and whoever can connect knows that the directory is in use
 * and by whom.
 *
 * - Linux: an abstract socket named after device and inode of the directory, which leaves nothing behind; and beside it
 *   the socket file, for processes in other network namespaces (two containers, one volume).
 * - Other Unix: the socket file. One that refuses connections is a leftover and is replaced.
 * - Windows: a named pipe, named after the directory's real path.
 *
 * A real etcd locks its files instead. On Linux `/proc/locks` lists those by inode, and they are looked for as well.
 */
import { createHash } from "node:crypto";
import fs from "node:fs/promises";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { hasCode } from "./file-system.ts";

/** Of the socket's file. */
export const LOCK_NAME = "lock.sock";
/** A socket's path must fit into 104 (macOS) or 108 (Linux) bytes. */
const SOCKET_PATH_BYTES_MAX = 100;
const ASK_TIMEOUT_MS = 500;

/** Another process works in the directory. */
export class DataDirLockedError extends Error {
  override readonly name = "DataDirLockedError";
}

export interface DataDirLock extends AsyncDisposable {
  release(): Promise<void>;
}

export interface LockTarget {
  /** `<data-dir>/member`; exists. */
  readonly memberDir: string;
  /** Where the segments are. */
  readonly walDir: string;
}

/** Rejects with {@link DataDirLockedError} when another process, of ours or a real etcd, works in the directory. */
export async function lockDataDir(target: LockTarget): Promise<DataDirLock> {
  const held: net.Server[] = [];
  const release = async () => {
    for (const server of held.splice(0).reverse()) await new Promise<void>((resolve) => server.close(() => resolve()));
  };
  try {
    for (const address of await socketAddresses(target.memberDir)) {
      const server = await listenOrRefuse(address, target.memberDir);
      if (server) held.push(server);
    }
    // Behind our own lock, so that two of us do not look at the same time.
    await refuseIfFilesAreLocked(target);
  } catch (error) {
    await release();
    throw error;
  }
  return { release, [Symbol.asyncDispose]: release };
}

interface SocketAddress {
  readonly name: string;
  /** Whether a dead owner leaves a file behind. */
  readonly isFile: boolean;
}

async function socketAddresses(dir: string): Promise<SocketAddress[]> {
  const real = await fs.realpath(dir);
  const digest = (text: string) => createHash("sha256").update(text).digest("hex").substring(0, 32);
  if (process.platform === "win32")
    return [{ name: `\\\\.\\pipe\\etcd-ts-${digest(real.toLowerCase())}`, isFile: false }];
  const { dev, ino } = await fs.stat(real, { bigint: true });
  const inDirectory = path.join(real, LOCK_NAME);
  const file =
    Buffer.byteLength(inDirectory) <= SOCKET_PATH_BYTES_MAX
      ? inDirectory
      : path.join(os.tmpdir(), `etcd-ts-${digest(`${dev}:${ino}`)}.sock`);
  const addresses: SocketAddress[] = [{ name: file, isFile: true }];
  if (process.platform === "linux") addresses.unshift({ name: `\0etcd-ts:${dev}:${ino}`, isFile: false });
  return addresses;
}

/** Undefined when this kind of socket is not to be had here; the others then do. */
async function listenOrRefuse(address: SocketAddress, dir: string): Promise<net.Server | undefined> {
  for (let attempt = 0; ; attempt++) {
    const server = net.createServer((socket) => {
      socket.on("error", () => {});
      socket.end(`${process.pid}\n`);
    });
    const code = await new Promise<string | undefined>((resolve) => {
      server.once("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? "unknown"));
      server.listen(address.name, () => resolve(undefined));
    });
    if (code === undefined) {
      server.on("error", () => {});
      server.unref();
      return server;
    }
    if (code !== "EADDRINUSE") {
      if (!address.isFile) return undefined;
      throw new DataDirLockedError(`cannot lock data directory ${dir}: ${code} for ${address.name}`);
    }
    const owner = await askOwner(address.name);
    if (owner.isAlive || !address.isFile || attempt >= 3) {
      throw new DataDirLockedError(
        `data directory ${dir} is in use by another process${owner.pid ? ` (pid ${owner.pid})` : ""}`,
      );
    }
    await fs.rm(address.name, { force: true });
  }
}

function askOwner(name: string): Promise<{ readonly isAlive: boolean; readonly pid: string }> {
  return new Promise((resolve) => {
    let answer = "";
    let isAlive = false;
    const socket = net.connect(name);
    const finish = () => {
      socket.destroy();
      resolve({ isAlive, pid: /^\d+\n$/.test(answer) ? answer.trim() : "" });
    };
    // A stopped process accepts connections too, and never says its number.
    socket.setTimeout(ASK_TIMEOUT_MS, finish);
    socket.on("connect", () => {
      isAlive = true;
    });
    socket.on("data", (piece) => {
      answer += piece.toString("latin1");
    });
    socket.on("error", finish);
    socket.on("close", finish);
  });
}

/**
 * For tools that read the member's files and write nothing beside them: on a disk that is mounted read-only, or in a
 * directory that is not theirs to write to, no lock can be had, and it has to do that nobody is there.
 */
export async function lockForReading(target: LockTarget): Promise<DataDirLock> {
  try {
    await fs.access(target.memberDir, fs.constants.W_OK);
  } catch (error) {
    if (!hasCode(error, "EROFS") && !hasCode(error, "EACCES") && !hasCode(error, "EPERM")) throw error;
    await refuseIfInUse(target);
    const release = async (): Promise<void> => {};
    return { release, [Symbol.asyncDispose]: release };
  }
  return lockDataDir(target);
}

/** For tools that only look and leave no trace: rejects when a server of ours or a real etcd works in the directory. */
export async function refuseIfInUse(target: LockTarget): Promise<void> {
  for (const address of await socketAddresses(target.memberDir)) {
    const owner = await askOwner(address.name);
    if (!owner.isAlive) continue;
    const who = owner.pid ? ` (pid ${owner.pid})` : "";
    throw new DataDirLockedError(`data directory ${target.memberDir} is in use by another process${who}`);
  }
  await refuseIfFilesAreLocked(target);
}

/** For tools that only look: rejects when a real etcd works on the files, without locking anything. */
export async function refuseIfFilesAreLocked(target: LockTarget): Promise<void> {
  if (process.platform !== "linux") return;
  let table: string;
  try {
    table = await fs.readFile("/proc/locks", "latin1");
  } catch {
    return;
  }
  const locked = parseProcLocks(table);
  if (locked.size === 0) return;
  const files = [path.join(target.memberDir, "snap", "db")];
  try {
    for (const name of await fs.readdir(target.walDir)) files.push(path.join(target.walDir, name));
  } catch (error) {
    if (!hasCode(error, "ENOENT")) throw error;
  }
  for (const file of files) {
    try {
      const { dev, ino } = await fs.stat(file, { bigint: true });
      const pid = locked.get(`${deviceText(dev)}:${ino}`);
      if (pid !== undefined) {
        throw new DataDirLockedError(`${file} is locked by another process${pid === "-1" ? "" : ` (pid ${pid})`}`);
      }
    } catch (error) {
      if (!hasCode(error, "ENOENT")) throw error;
    }
  }
}

/** `maj:min:inode` -> pid (-1 for locks of an open file), of write locks on whole files. */
export function parseProcLocks(table: string): Map<string, string> {
  const locked = new Map<string, string>();
  for (const line of table.split("\n")) {
    const match = /^\d+: (?:FLOCK|OFDLCK) +\w+ +WRITE +(-?\d+) ([0-9a-f]+:[0-9a-f]+:\d+) /.exec(line);
    if (match) locked.set(match[2] as string, match[1] as string);
  }
  return locked;
}

/** Major and minor number as `/proc/locks` prints them: hex of two digits at least. */
function deviceText(dev: bigint): string {
  const major = ((dev >> 8n) & 0xfffn) | ((dev >> 32n) & ~0xfffn);
  const minor = (dev & 0xffn) | ((dev >> 12n) & ~0xffn);
  return `${major.toString(16).padStart(2, "0")}:${minor.toString(16).padStart(2, "0")}`;
}
