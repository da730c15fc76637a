/** From words to exit code: finds the command, reads its flags, runs it, and words what went wrong as etcdutl does. */
import type { CommandContext } from "../context.ts";
import { ERROR, ExitError, SUCCESS } from "../exit.ts";
import type { Io } from "../io.ts";
import { consoleLogger, logFatal } from "../log.ts";
import { type CommandPath, type CommandSpec, commandOf } from "./command.ts";
import { FlagError, FlagSet } from "./flags.ts";
import { helpText } from "./help.ts";
import { globalFlags, helpFlag, root } from "./tree.ts";

/** Runs one command line to its end. Never throws: what goes wrong is on `io.err` and in the exit code. */
export async function runCli(io: Io): Promise<number> {
  const found = findCommand(io.argv);
  if ("unknown" in found) {
    const message = `Error: unknown command "${found.unknown}" for "etcdutl"`;
    io.err.write(`${message}\nRun 'etcdutl --help' for usage.\n${message}\n`);
    return ERROR;
  }
  const { path, rest } = found;
  const command = commandOf(path);
  // With a data directory it does what the Go tool's never did.
  if (command.deprecated !== undefined && !rest.some((word) => word.startsWith("--data-dir"))) {
    io.err.write(`Command "${command.name}" is deprecated, ${command.deprecated}\n`);
  }
  const flags = flagSetOf(path);
  try {
    flags.parse(rest);
  } catch (error) {
    if (!(error instanceof FlagError)) throw error;
    return refuse(io, path, error.message);
  }
  if (flags.bool("help") || !command.load) {
    io.out.write(helpText(path));
    return SUCCESS;
  }
  const missing = flags.missing();
  if (missing.length > 0) {
    return refuse(io, path, `required flag(s) ${missing.map((name) => `"${name}"`).join(", ")} not set`);
  }
  const context: CommandContext = { io, path, flags, args: flags.args, logger: consoleLogger(io) };
  try {
    const run = await command.load();
    return (await run(context)) ?? SUCCESS;
  } catch (error) {
    return report(io, error);
  }
}

export function flagSetOf(path: CommandPath): FlagSet {
  const command = commandOf(path);
  return new FlagSet([helpFlag(command.name), ...(command.flags ?? []), ...globalFlags]);
}

function refuse(io: Io, path: CommandPath, message: string): number {
  io.err.write(`Error: ${message}\n${helpText(path)}\nError: ${message}\n`);
  return ERROR;
}

async function report(io: Io, error: unknown): Promise<number> {
  if (error instanceof ExitError) {
    io.err.write(`Error: ${error.message}\n`);
    return error.exitCode;
  }
  const { offlineErrorText, OfflineFatal } = await import("@etcd-ts/server/storage");
  if (error instanceof OfflineFatal) {
    logFatal(io, error.message, { error: offlineErrorText(error.cause) });
    return ERROR;
  }
  io.err.write(`Error: ${offlineErrorText(error)}\n`);
  return ERROR;
}

type Found = { readonly path: CommandPath; readonly rest: readonly string[] } | { readonly unknown: string };

/** Takes the command's words out of the line; any unambiguous beginning of a name will do. */
export function findCommand(argv: readonly string[]): Found {
  let path: CommandPath = { commands: [root] };
  let rest = [...argv];
  for (;;) {
    const command = commandOf(path);
    if (!command.subcommands) return { path, rest };
    const at = firstArgument(rest, flagSetOf(path));
    const word = rest[at];
    if (word === undefined) return { path, rest };
    const next = chooseCommand(command.subcommands, word);
    if (!next) return path.commands.length === 1 ? { unknown: word } : { path, rest };
    path = { commands: [...path.commands, next] };
    rest = rest.toSpliced(at, 1);
  }
}

function chooseCommand(commands: readonly CommandSpec[], word: string): CommandSpec | undefined {
  const exact = commands.find(({ name }) => name === word);
  if (exact) return exact;
  const beginning = commands.filter(({ name }) => name.startsWith(word));
  // Commands that were added here must not make a beginning ambiguous that scripts use.
  const known = beginning.filter(({ own }) => !own);
  const candidates = known.length > 0 ? known : beginning;
  return candidates.length === 1 ? candidates[0] : undefined;
}

/** Where the first word is that is no flag and no flag's value; past the end when there is none. */
function firstArgument(words: readonly string[], flags: FlagSet): number {
  for (let i = 0; i < words.length; i++) {
    const word = words[i] as string;
    if (word === "--") return words.length;
    if (!word.startsWith("-") || word === "-") return i;
    if (flags.takesNext(word)) i++;
  }
  return words.length;
}
