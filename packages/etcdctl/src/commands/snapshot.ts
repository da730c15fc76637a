// snapshot save over the network; restore and status are etcdutl's work now.
import { createHash } from "node:crypto";
import fs from "node:fs";
import { Maintenance } from "@etcd-ts/client/wire";
import type { CommandContext } from "../context.ts";
import { attemptText } from "../attempt-log.ts";
import { errorText, exitWith, isRpcError } from "../errors.ts";
import { badArgs, ERROR, ExitError, INTERRUPTED } from "../exit.ts";
import { humanBytes } from "../go/strconv.ts";
import { writeLog } from "../io.ts";
import { runEtcdutl } from "./etcdutl.ts";

/**
 * `snapshot save FILE`: the member's database, into FILE.part, synced and then renamed. Nothing is left behind when it
 * fails. The end of a whole download is checked: etcd sends a SHA-256 after the data.
 */
export async function runSnapshotSave(context: CommandContext, args: readonly string[]): Promise<void> {
  const [path] = args;
  if (path === undefined || args.length > 1) throw badArgs("snapshot save expects one argument");
  const { flags, io } = context;
  const endpoints = await context.endpoints();
  if (endpoints.length !== 1) {
    await context.printer();
    const text = `snapshot must be requested to one selected node, not multiple [${endpoints.join(" ")}]`;
    throw new ExitError(INTERRUPTED, text);
  }
  await using connected = await context.connectFully({ endpoints, logger: "client" });
  const { client } = connected;
  const timeoutMs = flags.changed("command-timeout") ? connected.timeoutMs : undefined;
  type Level = "info" | "error" | "warn";
  const log = (level: Level, where: string, message: string, fields: object = {}): void => {
    // What the client itself says carries its name.
    writeLog(io, level, where, message, { ...fields }, where.startsWith("v3/") ? "client" : undefined);
  };

  const part = `${path}.part`;
  const file = open(part);
  log("info", "snapshot/v3_snapshot.go:65", "created temporary db file", { path: part });
  const start = io.now();
  try {
    let size = 0;
    const check = new EndingHash();
    try {
      const stream = client.serverStream(
        Maintenance.methods.snapshot,
        {},
        timeoutMs === undefined ? {} : { timeoutMs },
      );
      for await (const { blob } of stream) {
        if (size === 0) {
          log("info", "v3/maintenance.go:212", "opened snapshot stream; downloading");
          log("info", "snapshot/v3_snapshot.go:73", "fetching snapshot", { endpoint: endpoints[0] });
        }
        fs.writeSync(file, blob);
        check.update(blob);
        size += blob.length;
      }
      log("info", "v3/maintenance.go:220", "completed snapshot read; closing");
      // Pages, and behind them the hash of all of them.
      if (size % PAGE_BYTES_MIN !== HASH_BYTES) {
        throw new ExitError(INTERRUPTED, `sha256 checksum not found [bytes: ${size}]`);
      }
      if (!check.matches()) throw new ExitError(INTERRUPTED, "sha256 checksum does not match: the download is damaged");
      fs.fsyncSync(file);
    } catch (error) {
      if (isRpcError(error) && size === 0) {
        const text = "streamer failed to create ClientStream";
        log("error", "v3/retry_interceptor.go:130", text, { error: attemptText(error) });
      } else if (isRpcError(error)) {
        const text = "failed to receive from snapshot stream; closing";
        log("warn", "v3/maintenance.go:222", text, { error: errorText(error) });
      }
      throw exitWith(INTERRUPTED, error);
    } finally {
      fs.closeSync(file);
    }
    const fields = { endpoint: endpoints[0], size: humanBytes(size), took: ago(io.now() - start) };
    log("info", "snapshot/v3_snapshot.go:88", "fetched snapshot", fields);
    rename(part, path);
    log("info", "snapshot/v3_snapshot.go:97", "saved", { path });
  } catch (error) {
    fs.rmSync(part, { force: true });
    throw error;
  }
  io.out.write(`Snapshot saved at ${path}\n`);
}

const HASH_BYTES = 32;
const PAGE_BYTES_MIN = 512;

/** SHA-256 of a stream but for its last 32 bytes, which should be that very hash. */
class EndingHash {
  readonly #hash = createHash("sha256");
  #tail: Uint8Array = new Uint8Array(0);

  update(piece: Uint8Array): void {
    const all = Buffer.concat([this.#tail, piece]);
    const end = Math.max(0, all.length - HASH_BYTES);
    this.#hash.update(all.subarray(0, end));
    this.#tail = all.subarray(end);
  }

  matches(): boolean {
    return this.#hash.digest().equals(this.#tail);
  }
}

/** How long something took, the way etcdctl logs it here: as if it were long ago. */
function ago(ms: number): string {
  const seconds = Math.floor(ms / 1000);
  if (seconds < 1) return "now";
  const minutes = Math.floor(seconds / 60);
  const [count, unit] = minutes < 1 ? [seconds, "second"] : [minutes, "minute"];
  return `${count} ${unit}${count === 1 ? "" : "s"} ago`;
}

function open(part: string): number {
  try {
    return fs.openSync(part, "w", 0o600);
  } catch (error) {
    throw new ExitError(INTERRUPTED, `could not open ${part} (open ${part}: ${reason(error)})`, { cause: error });
  }
}

function rename(from: string, to: string): void {
  try {
    fs.renameSync(from, to);
  } catch (error) {
    const text = `could not rename ${from} to ${to} (rename ${from} ${to}: ${reason(error)})`;
    throw new ExitError(INTERRUPTED, text, { cause: error });
  }
}

const reasons: Readonly<Record<string, string>> = {
  ENOENT: "no such file or directory",
  EACCES: "permission denied",
  EISDIR: "file exists",
  ENOTDIR: "not a directory",
  EEXIST: "file exists",
  ENOTEMPTY: "directory not empty",
  EROFS: "read-only file system",
  ENOSPC: "no space left on device",
};

const reason = (error: unknown): string =>
  reasons[(error as NodeJS.ErrnoException).code ?? ""] ?? (error as Error).message;

/** `snapshot status FILE` */
export async function runSnapshotStatus(context: CommandContext, args: readonly string[]): Promise<void> {
  deprecated(context, "status");
  const [file] = args;
  if (context.flags.string("write-out") === "protobuf" && args.length === 1 && !fs.existsSync(file as string)) {
    // Only what there is can have no protobuf form.
    throw new ExitError(ERROR, `stat ${file}: no such file or directory`);
  }
  return runEtcdutl(context, ["snapshot", "status"], args);
}

/**
 * `snapshot restore FILE`: unlike etcdutl's, the data directory has a default, and the database in it is one that both
 * servers start on, the Go one and ours, for a script of 3.5 knows nothing of kinds. ETCDUTL_BACKEND overrules.
 */
export async function runSnapshotRestore(context: CommandContext, args: readonly string[]): Promise<void> {
  deprecated(context, "restore");
  const { flags, io } = context;
  const dataDir = flags.string("data-dir") || `${flags.string("name")}.etcd`;
  const passed = RESTORE_FLAGS.filter((name) => flags.changed(name) || name === "initial-memory-map-size").map(
    (name) => `--${name}=${flags.text(name)}`,
  );
  return runEtcdutl(context, ["snapshot", "restore", `--data-dir=${dataDir}`, ...passed], args, {
    ETCDUTL_BACKEND: io.env.ETCDUTL_BACKEND || "bbolt",
  });
}

/** The map size has another default here than in etcdutl. */
const RESTORE_FLAGS = [
  "initial-memory-map-size",
  "name",
  "wal-dir",
  "initial-cluster",
  "initial-cluster-token",
  "initial-advertise-peer-urls",
  "skip-hash-check",
  "bump-revision",
  "mark-compacted",
];

function deprecated({ io }: CommandContext, command: string): void {
  io.err.write(`Deprecated: Use \`etcdutl snapshot ${command}\` instead.\n\n`);
}
