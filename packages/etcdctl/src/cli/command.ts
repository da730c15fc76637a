// What a command is, before anything of it is loaded: names, flags and words for the help. The code behind it comes with
// `load`, so that `etcdctl get` reads neither the code of `member add` nor a gRPC stack before it needs one.
import type { CommandContext } from "../context.ts";
import type { FlagSpec } from "./flags.ts";

export type Run = (context: CommandContext, args: readonly string[]) => Promise<void>;

export interface CommandSpec {
  readonly name: string;
  /** What follows the name in the usage line. */
  readonly usage: string;
  /** One line, for lists. */
  readonly short: string;
  /** Paragraphs for the command's own help. */
  readonly long?: readonly string[];
  /** What to type, shown before anything else. */
  readonly examples: readonly string[];
  readonly flags?: readonly FlagSpec[];
  /** Flags that the commands below take too. */
  readonly persistentFlags?: readonly FlagSpec[];
  readonly subcommands?: readonly CommandSpec[];
  readonly load?: () => Promise<Run>;
}

/** A command with its way down from the root. */
export interface CommandPath {
  readonly command: CommandSpec;
  readonly parents: readonly CommandSpec[];
}

/** `lease grant`: the words below the root. */
export const commandName = ({ command, parents }: CommandPath): string =>
  [...parents.slice(1), command].map(({ name }) => name).join(" ");

/** Flags that a command takes besides its own. */
export const inheritedFlags = ({ parents }: CommandPath): FlagSpec[] =>
  parents.flatMap(({ persistentFlags }) => persistentFlags ?? []);

/** Flags that a command brings itself, `--help` included. */
export function localFlags({ command }: CommandPath): FlagSpec[] {
  const help: FlagSpec = { name: "help", short: "h", type: "bool", usage: `help for ${command.name}` };
  return [...(command.flags ?? []), ...(command.persistentFlags ?? []), help];
}
