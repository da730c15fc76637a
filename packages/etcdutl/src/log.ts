/** Log lines on standard error in zap's console form: tabs between the columns, the fields as one JSON object. */
import type { Io } from "./io.ts";

type LogFields = Readonly<Record<string, unknown>>;

/** The logger that the storage room writes to. */
export interface Logger {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
  readonly isDebugEnabled: boolean;
}

/** Where the Go tool has each line, for readers that know them by it. */
const CALLERS: Readonly<Record<string, string>> = {
  "restoring snapshot": "snapshot/v3_snapshot.go:265",
  "restored snapshot": "snapshot/v3_snapshot.go:293",
  "Trimming membership information from the backend...": "membership/store.go:141",
  "bumping latest revision": "snapshot/v3_snapshot.go:356",
  "marking revision compacted": "snapshot/v3_snapshot.go:373",
  "added member": "membership/cluster.go:421",
  defragmenting: "backend/backend.go:509",
  "finished defragmenting directory": "backend/backend.go:561",
  "saveSnap(Snapshoter.Load) failed": "etcdutl/backup_command.go:154",
};

function timestamp(): string {
  const now = new Date();
  const offset = -now.getTimezoneOffset();
  const local = new Date(now.getTime() + offset * 60_000).toISOString().substring(0, 19);
  if (offset === 0) return `${local}Z`;
  const two = (value: number) => String(Math.floor(value)).padStart(2, "0");
  return `${local}${offset < 0 ? "-" : "+"}${two(Math.abs(offset) / 60)}:${two(Math.abs(offset) % 60)}`;
}

function jsonText(value: unknown): string {
  if (typeof value === "bigint") return value.toString();
  if (value instanceof Error) return JSON.stringify(value.message);
  if (Array.isArray(value)) return `[${value.map(jsonText).join(", ")}]`;
  return JSON.stringify(value) ?? "null";
}

function line(level: string, message: string, fields: LogFields): string {
  const names = Object.entries(fields).map(([name, value]) => `${JSON.stringify(name)}: ${jsonText(value)}`);
  const columns = [timestamp(), level, CALLERS[message] ?? "etcdutl/main.go:1", message];
  if (names.length > 0) columns.push(`{${names.join(", ")}}`);
  return `${columns.join("\t")}\n`;
}

export function consoleLogger(io: Io): Logger {
  const at =
    (level: string) =>
    (message: string, fields: LogFields = {}): void =>
      io.err.write(line(level, message, fields));
  return { debug: () => {}, info: at("info"), warn: at("warn"), error: at("error"), isDebugEnabled: false };
}

export function logFatal(io: Io, message: string, fields: LogFields): void {
  io.err.write(line("fatal", message, fields));
}
