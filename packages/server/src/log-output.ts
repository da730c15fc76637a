/**
 * Where log lines go and what they look like: zap's JSON, one object a line, keys in zap's order. Rooms see only the
 * Logger of lib/log; main.ts makes one from the configuration.
 *
 * As etcd samples: of lines with one level and message, the first hundred of a second are written, then every
 * hundredth. A line is written whole and at once, so that nothing is lost when the process ends.
 */
import { closeSync, existsSync, fstatSync, openSync, readdirSync, renameSync, rmSync, writeSync } from "node:fs";
import path from "node:path";
import { type Clock, isoTime, zoneOffsetMinutes } from "./lib/clock.ts";
import { formatLogTime } from "./lib/go-format.ts";
import type { LogFields, Logger } from "./lib/log.ts";

export type LogLevel = "debug" | "info" | "warn" | "error" | "dpanic" | "panic" | "fatal";

const severity: Readonly<Record<LogLevel, number>> = {
  debug: 0,
  info: 1,
  warn: 2,
  error: 3,
  dpanic: 4,
  panic: 5,
  fatal: 6,
};

/** Undefined for a name that zap does not know; etcd panics then. */
export function parseLogLevel(text: string): LogLevel | undefined {
  const name = text.toLowerCase();
  return name === "" ? "info" : name in severity ? (name as LogLevel) : undefined;
}

/** zap's JSON strings: like JSON's, with U+2028 and U+2029 spelt out. */
function jsonString(text: string): string {
  return JSON.stringify(text).replaceAll("\u2028", "\\u2028").replaceAll("\u2029", "\\u2029");
}

function jsonValue(value: unknown, depth = 0): string {
  switch (typeof value) {
    case "string":
      return jsonString(value);
    case "number":
      return Number.isFinite(value) ? String(value) : jsonString(String(value).replace("Infinity", "Inf"));
    case "bigint":
    case "boolean":
      return String(value);
    case "undefined":
    case "function":
    case "symbol":
      return "null";
    default:
      if (value === null) return "null";
      if (value instanceof Error) return jsonString(value.message);
      if (value instanceof Uint8Array)
        return `"${Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString("base64")}"`;
      if (depth > 8) return jsonString("...");
      if (Array.isArray(value)) return `[${value.map((item) => jsonValue(item, depth + 1)).join(",")}]`;
      return `{${Object.entries(value as object)
        .filter(([, item]) => item !== undefined)
        .map(([key, item]) => `${jsonString(key)}:${jsonValue(item, depth + 1)}`)
        .join(",")}}`;
  }
}

export interface LogEntry {
  readonly level: LogLevel;
  readonly timeMs: number;
  readonly name: string | undefined;
  readonly caller: string;
  readonly message: string;
  readonly fields: LogFields | undefined;
}

export type LogEncoder = (entry: LogEntry) => string;

/** Fields that are undefined are left out. */
export function encodeJson(entry: LogEntry): string {
  let line = `{"level":"${entry.level}","ts":"${formatLogTime(entry.timeMs)}"`;
  if (entry.name) line += `,"logger":${jsonString(entry.name)}`;
  line += `,"caller":${jsonString(entry.caller)},"msg":${jsonString(entry.message)}`;
  for (const [key, value] of Object.entries(entry.fields ?? {})) {
    if (value !== undefined) line += `,${jsonString(key)}:${jsonValue(value)}`;
  }
  return `${line}}\n`;
}

/** zap's console shape: columns parted by tabs, the fields as one JSON object. */
export function encodeConsole(entry: LogEntry): string {
  const columns = [formatLogTime(entry.timeMs), entry.level];
  if (entry.name) columns.push(entry.name);
  columns.push(entry.caller, entry.message);
  const fields = Object.entries(entry.fields ?? {})
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => `${jsonString(key)}: ${jsonValue(value)}`);
  if (fields.length > 0) columns.push(`{${fields.join(", ")}}`);
  return `${columns.join("\t")}\n`;
}

/** Takes whole lines. */
export interface LogSink {
  write(line: string): void;
  close(): void;
}

function writeWhole(fd: number, line: string): void {
  const bytes = Buffer.from(line, "utf8");
  let done = 0;
  while (done < bytes.length) {
    try {
      done += writeSync(fd, bytes, done);
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code;
      // A pipe that is full: the reader is slow, not gone.
      if (code === "EAGAIN") continue;
      // Nobody reads, or the disk is full. The server must go on without its log.
      return;
    }
  }
}

function fdSink(fd: number): LogSink {
  return { write: (line) => writeWhole(fd, line), close: () => {} };
}

function fileSink(file: string): LogSink {
  const fd = openSync(file, "a", 0o666);
  return { write: (line) => writeWhole(fd, line), close: () => closeSync(fd) };
}

export interface RotationConfig {
  /** Megabytes (of 2^20 bytes) before the file is put aside. */
  readonly maxSizeMegabytes: number;
  /** Days that old files are kept; 0: no limit. */
  readonly maxAgeDays: number;
  /** Old files that are kept; 0: all. */
  readonly maxBackups: number;
  readonly isLocalTime: boolean;
  readonly compress: boolean;
}

/** Throws with etcd's text for JSON that is malformed or of the wrong type. */
export function parseRotationConfig(json: string): RotationConfig {
  let parsed: unknown;
  try {
    parsed = JSON.parse(json);
  } catch (error) {
    throw new Error(`improperly formatted log rotation config: ${(error as Error).message}`);
  }
  const found = new Map<string, unknown>();
  for (const [key, value] of Object.entries(Object(parsed))) found.set(key.toLowerCase(), value);
  const take = <T extends number | boolean>(key: string, fallback: T): T => {
    const value = found.get(key);
    if (value === undefined || value === null) return fallback;
    if (typeof value !== typeof fallback) {
      const goType = typeof fallback === "number" ? "int" : "bool";
      throw new Error(
        `invalid log rotation config: json: cannot unmarshal ${typeof value === "boolean" ? "bool" : typeof value} into Go struct field logRotationConfig.${key} of type ${goType}`,
      );
    }
    return value as T;
  };
  const maxSize = take("maxsize", 0);
  return {
    maxSizeMegabytes: maxSize > 0 ? maxSize : 100,
    maxAgeDays: take("maxage", 0),
    maxBackups: take("maxbackups", 0),
    isLocalTime: take("localtime", false),
    compress: take("compress", false),
  };
}

const BACKUP = /^-(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.\d{3})$/;

/** A file that is put aside under `name-<time>.ext` when it would grow past its size; old ones are thinned out. */
export class RotatingFileSink implements LogSink {
  readonly #file: string;
  readonly #config: RotationConfig;
  readonly #clock: Clock;
  #fd: number;
  #size: number;

  constructor(file: string, config: RotationConfig, clock: Clock) {
    this.#file = file;
    this.#config = config;
    this.#clock = clock;
    this.#fd = openSync(file, "a", 0o600);
    this.#size = fstatSync(this.#fd).size;
  }

  write(line: string): void {
    const length = Buffer.byteLength(line);
    if (this.#size > 0 && this.#size + length > this.#config.maxSizeMegabytes * 1024 * 1024) this.#rotate();
    writeWhole(this.#fd, line);
    this.#size += length;
  }

  close(): void {
    closeSync(this.#fd);
  }

  #rotate(): void {
    const { dir, name, ext } = path.parse(this.#file);
    const nowMs = this.#clock.nowMs();
    const offsetMs = this.#config.isLocalTime ? zoneOffsetMinutes(nowMs) * 60_000 : 0;
    const stamp = isoTime(nowMs + offsetMs)
      .substring(0, 23)
      .replaceAll(":", "-");
    const aside = path.join(dir, `${name}-${stamp}${ext}`);
    closeSync(this.#fd);
    if (existsSync(this.#file)) renameSync(this.#file, aside);
    this.#fd = openSync(this.#file, "a", 0o600);
    this.#size = 0;
    if (this.#config.compress) void compressFile(aside).catch(() => {});
    this.#thinOut(dir, name, ext, nowMs + offsetMs);
  }

  #thinOut(dir: string, name: string, ext: string, nowMs: number): void {
    const { maxAgeDays, maxBackups } = this.#config;
    if (maxAgeDays === 0 && maxBackups === 0) return;
    const backups: { readonly file: string; readonly stamp: string }[] = [];
    for (const entry of readdirSync(dir === "" ? "." : dir)) {
      const base = entry.endsWith(".gz") ? entry.substring(0, entry.length - 3) : entry;
      if (!base.startsWith(name) || !base.endsWith(ext)) continue;
      const stamp = BACKUP.exec(base.substring(name.length, base.length - ext.length))?.[1];
      if (stamp) backups.push({ file: path.join(dir, entry), stamp });
    }
    backups.sort((a, b) => (a.stamp < b.stamp ? 1 : -1));
    const oldest = isoTime(nowMs - maxAgeDays * 86_400_000)
      .substring(0, 23)
      .replaceAll(":", "-");
    backups.forEach(({ file, stamp }, i) => {
      const isTooMany = maxBackups > 0 && i >= maxBackups;
      const isTooOld = maxAgeDays > 0 && stamp < oldest;
      if (isTooMany || isTooOld) rmSync(file, { force: true });
    });
  }
}

async function compressFile(file: string): Promise<void> {
  const [{ createReadStream, createWriteStream }, { createGzip }, { pipeline }] = await Promise.all([
    import("node:fs"),
    import("node:zlib"),
    import("node:stream/promises"),
  ]);
  await pipeline(createReadStream(file), createGzip(), createWriteStream(`${file}.gz`));
  rmSync(file, { force: true });
}

const SAMPLE_FIRST = 100;
const SAMPLE_THEREAFTER = 100;

/** Lets through the first lines of a second with one text, then a few. */
class Sampler {
  readonly #counts = new Map<string, { second: number; count: number }>();

  admits(level: LogLevel, message: string, nowMs: number): boolean {
    const key = `${level} ${message}`;
    const second = Math.floor(nowMs / 1000);
    let state = this.#counts.get(key);
    if (!state || state.second !== second) {
      // Messages are constants of the program, but some carry numbers: do not hold on to those for ever.
      if (!state && this.#counts.size >= 4096) this.#counts.clear();
      state = { second, count: 0 };
      this.#counts.set(key, state);
    }
    state.count++;
    return state.count <= SAMPLE_FIRST || (state.count - SAMPLE_FIRST) % SAMPLE_THEREAFTER === 0;
  }
}

/** How far the two clocks may part before the wall clock is believed again. */
const CLOCK_DRIFT_MS = 5;

/** Wall-clock time with fractions of a millisecond that does not run backwards between two lines. */
class FineTime {
  readonly #clock: Clock;
  #offsetMs: number;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#offsetMs = clock.nowMs() - clock.monotonicMs();
  }

  now(): number {
    const wallMs = this.#clock.nowMs();
    const fineMs = this.#clock.monotonicMs() + this.#offsetMs;
    if (Math.abs(fineMs - wallMs) <= CLOCK_DRIFT_MS) return fineMs;
    this.#offsetMs += wallMs - fineMs;
    return wallMs;
  }
}

/** `folder/file.ts:12` of whoever called the logger. */
function callerOf(skip: (...args: never[]) => unknown): string {
  const limit = Error.stackTraceLimit;
  Error.stackTraceLimit = 1;
  const holder: { stack?: string } = {};
  Error.captureStackTrace(holder, skip);
  Error.stackTraceLimit = limit;
  const match = /\(?(?:file:\/\/)?([^()\s]+?):(\d+):\d+\)?$/m.exec(holder.stack ?? "");
  if (!match) return "unknown";
  const parts = (match[1] as string).split("/");
  return `${parts.slice(-2).join("/")}:${match[2]}`;
}

export interface ZapLoggerOptions {
  readonly level: LogLevel;
  readonly sinks: readonly LogSink[];
  readonly clock: Clock;
  readonly encoder?: LogEncoder;
}

/** The Logger that main.ts hands to the rooms. */
export class ZapLogger implements Logger {
  readonly #options: ZapLoggerOptions;
  readonly #threshold: number;
  readonly #name: string | undefined;
  readonly #sampler: Sampler;
  readonly #time: FineTime;

  constructor(options: ZapLoggerOptions, name?: string, parent?: ZapLogger) {
    this.#options = options;
    this.#threshold = severity[options.level];
    this.#name = name;
    this.#sampler = parent ? parent.#sampler : new Sampler();
    this.#time = parent ? parent.#time : new FineTime(options.clock);
  }

  get isInfoEnabled(): boolean {
    return severity.info >= this.#threshold;
  }

  get isDebugEnabled(): boolean {
    return this.#threshold <= severity.debug;
  }

  /** A logger whose lines carry `"logger":name`, to the same outputs. */
  named(name: string): ZapLogger {
    return new ZapLogger(this.#options, name, this);
  }

  debug(message: string, fields?: LogFields): void {
    if (this.isDebugEnabled) this.#write("debug", message, fields, this.debug);
  }

  info(message: string, fields?: LogFields): void {
    this.#write("info", message, fields, this.info);
  }

  warn(message: string, fields?: LogFields): void {
    this.#write("warn", message, fields, this.warn);
  }

  error(message: string, fields?: LogFields): void {
    this.#write("error", message, fields, this.error);
  }

  /** Writes the line; the caller ends the process with code 1. */
  fatal(message: string, fields?: LogFields): void {
    this.#write("fatal", message, fields, this.fatal);
  }

  #write(
    level: LogLevel,
    message: string,
    fields: LogFields | undefined,
    skip: (message: string, fields?: LogFields) => void,
  ): void {
    if (severity[level] < this.#threshold) return;
    const { sinks, encoder = encodeJson } = this.#options;
    const timeMs = this.#time.now();
    if (level !== "fatal" && !this.#sampler.admits(level, message, timeMs)) return;
    const line = encoder({
      level,
      timeMs,
      name: this.#name,
      caller: callerOf(skip),
      message,
      fields,
    });
    for (const sink of sinks) sink.write(line);
  }

  close(): void {
    for (const sink of this.#options.sinks) sink.close();
  }
}

export interface LogSettings {
  readonly logger: string;
  readonly logOutputs: readonly string[];
  readonly logLevel: string;
  readonly enableLogRotation: boolean;
  readonly logRotationConfigJson: string;
}

const ROTATION_NEEDS_ONE_FILE = "--log-outputs requires a single file path when --log-rotate-config-json is defined";

/** `unrecognized level`: in etcd a panic, exit code 2. */
export class LogLevelError extends Error {
  override readonly name = "LogLevelError";
}

/** Opens what `--log-outputs` names. Throws an Error with etcd's text for settings that it refuses. */
export function openLogger(settings: LogSettings, clock: Clock): ZapLogger {
  if (settings.logger === "capnslog") throw new Error("--logger=capnslog is removed in v3.5");
  if (settings.logger !== "zap") throw new Error(`unknown logger option ${JSON.stringify(settings.logger)}`);
  const outputs = settings.logOutputs.length === 0 ? ["default"] : settings.logOutputs;
  if (outputs.length > 1 && outputs.includes("default")) {
    throw new Error('multi logoutput for "default" is not supported yet');
  }
  const standard = new Set(["default", "stderr", "stdout"]);
  const files = outputs.filter((output) => !standard.has(output) && output !== "systemd/journal");
  let rotation: RotationConfig | undefined;
  if (settings.enableLogRotation) {
    const targets = outputs.filter((output) => !standard.has(output));
    if ((outputs.length === 1 && targets.length === 0) || targets.length > 1) throw new Error(ROTATION_NEEDS_ONE_FILE);
    rotation = parseRotationConfig(settings.logRotationConfigJson);
  }
  if (outputs.includes("systemd/journal")) {
    throw new Error("can't find journal (dial unixgram: the native journal protocol is not spoken)");
  }
  const level = parseLogLevel(settings.logLevel);
  if (level === undefined) throw new LogLevelError(`unrecognized level: ${JSON.stringify(settings.logLevel)}`);
  const sinks: LogSink[] = [];
  if (!outputs.includes("/dev/null")) {
    if (outputs.includes("default") || outputs.includes("stderr")) sinks.push(fdSink(2));
    if (outputs.includes("stdout")) sinks.push(fdSink(1));
    for (const file of [...files].sort()) {
      try {
        sinks.push(rotation ? new RotatingFileSink(file, rotation, clock) : fileSink(file));
      } catch (error) {
        for (const sink of sinks) sink.close();
        const code = (error as NodeJS.ErrnoException).code;
        const reason =
          code === "ENOENT" ? "no such file or directory" : code === "EACCES" ? "permission denied" : String(code);
        throw new Error(`open sink "${file}": open ${file}: ${reason}`);
      }
    }
  }
  return new ZapLogger({ level, sinks, clock }, undefined);
}
