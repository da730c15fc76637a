// snapshot save over the network; restore and status are etcdutl's work now.
import fs from "node:fs";
import { Maintenance } from "@etcd-ts/client/wire";
import type { CommandContext } from "../context.ts";
import { errorText, exitWith, isRpcError } from "../errors.ts";
import { badArgs, ExitError, INTERRUPTED } from "../exit.ts";
import { formatDuration, humanBytes } from "../go/strconv.ts";
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
  await using connected = await context.connectFully({ endpoints });
  const { client } = connected;
  if (endpoints.length > 1) {
    const text = `snapshot must be requested to one selected node, not multiple [${endpoints.join(" ")}]`;
    throw new ExitError(INTERRUPTED, text);
  }
  const timeoutMs = flags.changed("command-timeout") ? connected.timeoutMs : undefined;
  const log = (level: "info" | "error" | "warn", where: string, message: string, fields: object = {}): void =>
    writeLog(io, level, where, message, { ...fields }, "client");

  const part = `${path}.part`;
  const file = open(part);
  log("info", "snapshot/v3_snapshot.go:65", "created temporary db file", { path: part });
  const start = io.now();
  try {
    let size = 0;
    try {
      const stream = client.serverStream(
        Maintenance.methods.snapshot,
        {},
        timeoutMs === undefined ? {} : { timeoutMs },
      );
      for await (const { blob } of stream) {
        if (size === 0) {
          log("info", "v3@v3.5.16/maintenance.go:212", "opened snapshot stream; downloading");
          log("info", "snapshot/v3_snapshot.go:73", "fetching snapshot", { endpoint: endpoints[0] });
        }
        fs.writeSync(file, blob);
        size += blob.length;
      }
      log("info", "v3@v3.5.16/maintenance.go:220", "completed snapshot read; closing");
      fs.fsyncSync(file);
    } catch (error) {
      if (isRpcError(error) && size === 0) {
        const text = "streamer failed to create ClientStream";
        log("error", "v3@v3.5.16/retry_interceptor.go:136", text, { error: errorText(error) });
      } else if (isRpcError(error)) {
        const text = "failed to receive from snapshot stream; closing";
        log("warn", "v3@v3.5.16/maintenance.go:224", text, { error: errorText(error) });
      }
      throw exitWith(INTERRUPTED, error);
    } finally {
      fs.closeSync(file);
    }
    const took = formatDuration(BigInt(Math.round((io.now() - start) * 1e6)));
    const fields = { endpoint: endpoints[0], size: humanBytes(size), took };
    log("info", "snapshot/v3_snapshot.go:88", "fetched snapshot", fields);
    rename(part, path);
    log("info", "snapshot/v3_snapshot.go:97", "saved", { path });
  } catch (error) {
    fs.rmSync(part, { force: true });
    throw error;
  }
  io.out.write(`Snapshot saved at ${path}\n`);
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
  return runEtcdutl(context, ["snapshot", "status"], args);
}

/** `snapshot restore FILE`: unlike etcdutl's, the data directory has a default. */
export async function runSnapshotRestore(context: CommandContext, args: readonly string[]): Promise<void> {
  deprecated(context, "restore");
  const { flags } = context;
  const dataDir = flags.string("data-dir") || `${flags.string("name")}.etcd`;
  const passed = RESTORE_FLAGS.filter((name) => flags.changed(name)).map((name) => `--${name}=${flags.text(name)}`);
  return runEtcdutl(context, ["snapshot", "restore", `--data-dir=${dataDir}`, ...passed], args);
}

const RESTORE_FLAGS = [
  "wal-dir",
  "initial-cluster",
  "initial-cluster-token",
  "initial-advertise-peer-urls",
  "name",
  "skip-hash-check",
  "initial-memory-map-size",
  "bump-revision",
  "mark-compacted",
];

function deprecated({ io }: CommandContext, command: string): void {
  io.err.write(`Deprecated: Use \`etcdutl snapshot ${command}\` instead.\n\n`);
}
