/**
 * The program `etcd`: argv, environment and file to a running member, signals to a clean stop, failures to one line
 * and etcd's exit codes. The only file that touches `process`.
 *
 * Exit codes: 0 stopped or removed from the cluster; 1 refused configuration or failed start; 2 command line that
 * cannot be understood; 143 and 130 after SIGTERM and SIGINT, which are raised again once everything is closed. A
 * hangup ends only what stands on a terminal.
 */
import { execFile } from "node:child_process";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { networkInterfaces } from "node:os";
import { isatty } from "node:tty";
import {
  adoptDefaultHost,
  buildConfig,
  type Config,
  readConfigFile,
  type Settings,
  settle,
  UNSET_ADVERTISE,
  validate,
} from "./config.ts";
import { envName, flagsText, usageText } from "./config/flags.ts";
import { applyEnvironment, ConfigError, type FlagSet, parseArguments, SetupError, UsageError } from "./config/parse.ts";
import { systemClock } from "./lib/clock.ts";
import { tidyHeapWhenIdle } from "./lib/idle-heap.ts";
import type { Logger } from "./lib/log.ts";
import { systemRandom } from "./lib/random.ts";
import { ETCD_VERSION, OWN_VERSION } from "./lib/version.ts";
import { LogLevelError, openLogger, type ZapLogger } from "./log-output.ts";

/** Thrown to end the process with a code, everything having been said. */
class Exit extends Error {
  readonly code: number;

  constructor(code: number) {
    super(`exit ${code}`);
    this.code = code;
  }
}

/** Below this many open files etcd refuses to start. */
const RESERVED_FILES = 150;

const goArch: Readonly<Record<string, string>> = { x64: "amd64", ia32: "386" };

function printVersion(): void {
  const lines = [
    `etcd Version: ${ETCD_VERSION}`,
    `Git SHA: etcd-ts-${OWN_VERSION}`,
    `Go Version: node${process.versions.node}`,
    `Go OS/Arch: ${process.platform}/${goArch[process.arch] ?? process.arch}`,
  ];
  if (process.stdout.isTTY) lines.push(`etcd-ts Version: ${OWN_VERSION}`);
  process.stdout.write(`${lines.join("\n")}\n`);
}

function defaultLogger(): ZapLogger {
  return openLogger(
    { logger: "zap", logOutputs: ["default"], logLevel: "info", enableLogRotation: false, logRotationConfigJson: "{}" },
    systemClock,
  );
}

/** Flags by etcd's precedence. What the environment has to say is written at once, as the final log is not there yet. */
function gather(args: readonly string[], early: ZapLogger): { flags: FlagSet; isFromFile: boolean; file: string } {
  const parsed = parseArguments(args);
  if (parsed.isHelp) {
    process.stderr.write(usageText());
    process.stdout.write(flagsText());
    throw new Exit(0);
  }
  const [word] = parsed.rest;
  if (word !== undefined) throw new ConfigError(`'${word}' is not a valid flag`);
  const { flags } = parsed;
  if (flags.bool("version")) {
    printVersion();
    throw new Exit(0);
  }
  const file = flags.text("config-file") || process.env[envName("config-file")] || "";
  if (file !== "") return { flags: readConfigFile(file), isFromFile: true, file };
  const { notes, error } = applyEnvironment(flags, process.env);
  for (const { level, message, fields } of notes) {
    early[level](message, fields);
    if (level === "fatal") throw new Exit(1);
  }
  if (error) throw error;
  for (const side of ["read", "write"]) {
    if (flags.number(`raft-${side}-timeout`) < 5000) early.info(`raft-${side}-timeout increased to minimum value: 5s`);
  }
  return { flags, isFromFile: false, file };
}

/** What a data directory holds at its top. */
function identifyDataDir(dataDir: string, logger: ZapLogger): "member" | "proxy" | "empty" {
  let names: string[];
  try {
    names = readdirSync(dataDir);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return "empty";
    const operation = statSync(dataDir, { throwIfNoEntry: false })?.isFile() ? "readdirent" : "open";
    logger.fatal("failed to list data directory", { dir: dataDir, error: goFileError(operation, dataDir, error) });
    throw new Exit(1);
  }
  const found = new Set(names);
  for (const name of names) {
    if (name !== "member" && name !== "proxy") {
      logger.warn("found invalid file under data directory", { filename: name, "data-dir": dataDir });
    }
  }
  if (found.has("member") && found.has("proxy")) {
    logger.fatal("invalid datadir; both member and proxy directories exist");
    throw new Exit(1);
  }
  return found.has("member") ? "member" : found.has("proxy") ? "proxy" : "empty";
}

function goFileError(operation: string, path: string, error: unknown): string {
  const texts: Readonly<Record<string, string>> = {
    EACCES: "permission denied",
    ENOTDIR: "not a directory",
    ENOENT: "no such file or directory",
    EROFS: "read-only file system",
  };
  const code = (error as NodeJS.ErrnoException).code ?? "";
  return `${operation} ${path}: ${texts[code] ?? (error as Error).message}`;
}

/** An address of this machine that others may reach. */
function ownAddress(): string | undefined {
  for (const addresses of Object.values(networkInterfaces())) {
    for (const { family, internal, address } of addresses ?? []) if (family === "IPv4" && !internal) return address;
  }
  return undefined;
}

/** Settings that were checked, and the log they ask for. */
function configure(argv: readonly string[]): { settings: Settings; logger: ZapLogger } {
  const early = defaultLogger();
  let logger: ZapLogger | undefined;
  try {
    const { flags, isFromFile, file } = gather(argv.slice(1), early);
    const settings = settle(flags, isFromFile);
    logger = openLogger(
      {
        logger: flags.text("logger"),
        logOutputs: flags.list("log-outputs"),
        logLevel: flags.text("log-level"),
        enableLogRotation: flags.bool("enable-log-rotation"),
        logRotationConfigJson: flags.text("log-rotation-config-json"),
      },
      systemClock,
    );
    const log = logger;
    validate(settings, (message) => log.warn(message));
    if (isFromFile) {
      log.info(
        "loaded server configuration, other configuration command line flags and environment variables will be ignored if provided",
        { path: file },
      );
    }
    log.info("Running: ", { args: argv });
    return { settings, logger: log };
  } catch (error) {
    if (error instanceof Exit) throw error;
    if (error instanceof UsageError) {
      process.stderr.write(`${error.message}\n${usageText()}`);
      throw new Exit(2);
    }
    if (error instanceof SetupError) {
      process.stderr.write(`${error.message}\n`);
      throw new Exit(1);
    }
    if (error instanceof LogLevelError) {
      process.stderr.write(`panic: ${error.message}\n`);
      throw new Exit(2);
    }
    const log = logger ?? early;
    log.info("Running: ", { args: argv });
    log.warn("failed to verify flags", { error });
    if ((error as Error).message === UNSET_ADVERTISE) log.warn("advertise client URLs are not set", { error });
    throw new Exit(1);
  }
}

/** Tells systemd that the service is up, when it asked to be told. */
function notifyInitDaemon(logger: Logger): void {
  logger.info("notifying init daemon");
  if (!process.env["NOTIFY_SOCKET"]) {
    logger.info("successfully notified init daemon");
    return;
  }
  execFile("systemd-notify", ["--ready", `--pid=${process.pid}`], (error) => {
    if (error) logger.error("failed to notify systemd for readiness", { error });
    else logger.info("successfully notified init daemon");
  });
}

const signalNames = { SIGTERM: "terminated", SIGINT: "interrupt" } as const;

/**
 * Node takes back what the parent had set for its child, so a server under `nohup` would end with the terminal that it
 * was started from. `nohup` leaves no terminal on any of the three; whoever has none outlives a hangup.
 */
function outliveHangup(): void {
  if (![0, 1, 2].some((fd) => isatty(fd))) process.on("SIGHUP", () => {});
}

/** `etcd gateway ...`: serves until the process is ended by a signal, or ends it with a code. */
async function runGatewayCommand(argv: readonly string[]): Promise<void> {
  const { runGateway, systemGatewayNames } = await import("./proxy/index.ts");
  const outcome = await runGateway(argv.slice(2), {
    argv,
    clock: systemClock,
    random: systemRandom,
    names: systemGatewayNames,
    logger: defaultLogger,
    print: (text) => process.stdout.write(text),
    printError: (text) => process.stderr.write(text),
    ready: (logger) => notifyInitDaemon(logger),
  });
  if ("code" in outcome) throw new Exit(outcome.code);
}

async function run(argv: readonly string[]): Promise<void> {
  outliveHangup();
  if (argv[1] === "gateway") return runGatewayCommand(argv);
  const { settings, logger } = configure(argv);
  const host = adoptDefaultHost(settings, ownAddress);
  if (host !== undefined) logger.info("detected default host for advertise", { host });
  if (settings.flags.text("data-dir") === "") {
    logger.warn("'data-dir' was empty; using default", { "data-dir": `${settings.flags.text("name")}.etcd` });
  }
  const onFatal = (error: unknown): never => {
    logger.fatal("broken invariant; the process ends before it can do harm", {
      error,
      stack: (error as Error).stack ?? "",
    });
    process.exit(1);
  };
  process.on("uncaughtException", onFatal);
  process.on("unhandledRejection", onFatal);

  const dataDir = settings.flags.text("data-dir") || `${settings.flags.text("name")}.etcd`;
  const held = identifyDataDir(dataDir, logger);
  if (held !== "empty") {
    logger.info("server has been already initialized", { "data-dir": dataDir, "dir-type": held });
  }
  checkFileLimit(logger);
  let running: Awaited<ReturnType<typeof import("./boot.ts")["startEtcd"]>>;
  try {
    const config: Config = buildConfig(settings, held === "member");
    for (const { flag, reason } of config.withoutEffect)
      logger.info("flag is accepted without effect", { flag, reason });
    const { startEtcd } = await import("./boot.ts");
    running = await startEtcd(config, { logger, clock: systemClock, random: systemRandom, onFatal });
    tidyHeapWhenIdle(systemClock);
  } catch (error) {
    // Removed while it was down: it has said so, and there is nothing to be done about it.
    if (isRemoval(error)) throw new Exit(0);
    if (held === "empty") logger.warn("failed to start etcd", { error });
    throw failure(logger, "discovery failed", error);
  }

  let isStopping = false;
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    process.on(signal, () => {
      if (isStopping) return;
      isStopping = true;
      logger.info("received signal; shutting down", { signal: signalNames[signal] });
      running.stop().then(() => {
        logger.close();
        // The first process of a container is not ended by signals it does not handle.
        if (process.pid === 1) process.exit(0);
        process.removeAllListeners(signal);
        process.kill(process.pid, signal);
      }, onFatal);
    });
  }
  notifyInitDaemon(logger);
  const ended = await running.server.stopped;
  if (isStopping) return;
  // The member ended by itself. Removed from its cluster, that is how it should be.
  await running.stop();
  if (ended && !isRemoval(ended)) {
    throw failure(logger, "listener failed", ended);
  }
  throw new Exit(0);
}

/** Says why the member ends; a release that the cluster does not take says so itself. */
function failure(logger: ZapLogger, message: string, error: unknown): Exit {
  if (error instanceof Error && error.name === "InvalidDowngradeError" && "fields" in error) {
    logger.fatal(error.message, error.fields as Record<string, unknown>);
  } else {
    logger.fatal(message, { error });
  }
  return new Exit(1);
}

/** The cluster goes on without this member, and that is how it should be. */
function isRemoval(error: unknown): boolean {
  return error instanceof Error && error.name === "MemberRemovedError";
}

/** Where the kernel tells; elsewhere nothing is checked. */
function checkFileLimit(logger: ZapLogger): void {
  let limits: string;
  try {
    limits = readFileSync("/proc/self/limits", "utf8");
  } catch {
    return;
  }
  const limit = Number(/^Max open files\s+(\d+)/m.exec(limits)?.[1] ?? Number.MAX_SAFE_INTEGER);
  if (limit <= RESERVED_FILES) {
    logger.fatal("file descriptor limit of etcd process is too low; please set higher", {
      limit,
      "recommended-limit": RESERVED_FILES,
    });
    throw new Exit(1);
  }
}

run([process.argv[1] ?? "etcd", ...process.argv.slice(2)]).catch((error: unknown) => {
  if (error instanceof Exit) process.exit(error.code);
  process.stderr.write(`etcd: ${(error as Error).message}\n`);
  process.exit(1);
});
