// From words to exit code: finds the command, reads its flags and runs it.
import { ERROR, SUCCESS } from "../exit.ts";
import type { Io } from "../io.ts";
import { type CommandPath, inheritedFlags, localFlags } from "./command.ts";
import { findCommand, suggestions } from "./find.ts";
import { FlagSet } from "./flags.ts";
import { type ContextMaker, makeContext, type Trace } from "./make-context.ts";
import { root } from "./tree.ts";

/**
 * Runs one command line to its end. Never throws: what goes wrong is on `io.err` and in the exit code.
 * @param contextOf makes what the command is given; tests give it a fake client
 */
export async function runCli(io: Io, contextOf: ContextMaker = makeContext): Promise<number> {
  const api = io.env.ETCDCTL_API;
  if (api && api !== "3") {
    io.err.write(`unsupported API version: ${api}\n`);
    return ERROR;
  }
  if (io.argv[0] === "__complete" || io.argv[0] === "__completeNoDesc") {
    const { runComplete } = await import("../commands/complete.ts");
    await runComplete(io, contextOf);
    return SUCCESS;
  }
  const trace: Trace = { step: "arguments" };
  let flags: FlagSet | undefined;
  try {
    const { path, args } = findCommand(root, io.argv);
    flags = new FlagSet([...localFlags(path), ...inheritedFlags(path)]);
    flags.parse(args);
    if (flags.bool("help") || !path.command.load) {
      await printHelp(io, path, flags);
      return SUCCESS;
    }
    const run = await path.command.load();
    await run(contextOf(flags, io, trace), flags.args);
    return SUCCESS;
  } catch (error) {
    const { tellFailure } = await import("./failure.ts");
    return tellFailure(io, error, { trace, flags });
  }
}

async function printHelp(io: Io, path: CommandPath, flags: FlagSet): Promise<void> {
  const { helpText } = await import("./help.ts");
  io.out.write(helpText(path));
  const [typed] = flags.args;
  if (typed === undefined || !path.command.subcommands || !io.err.isTerminal) return;
  // A group that is given an unknown name prints its help and succeeds; a person is told why.
  const near = suggestions(path.command, typed);
  const hint = near.length > 0 ? `; did you mean ${near.map((name) => `"${name}"`).join(" or ")}?` : "";
  io.err.write(`etcdctl ${path.command.name} has no command "${typed}"${hint}\n`);
}
