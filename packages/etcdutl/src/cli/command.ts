/** Commands as data: names, flags, and what runs. */
import type { CommandContext } from "../context.ts";
import type { FlagSpec } from "./flags.ts";

/** The exit code, where a command has more to say than that it succeeded. */
// biome-ignore lint/suspicious/noConfusingVoidType: most commands return nothing.
export type CommandResult = number | void;

export interface CommandSpec {
  readonly name: string;
  /** What follows the command's path in its usage line. */
  readonly usage?: string;
  readonly short: string;
  readonly flags?: readonly FlagSpec[];
  readonly subcommands?: readonly CommandSpec[];
  /** Not listed; said on standard error whenever the command is used. */
  readonly deprecated?: string;
  /** An addition of ours, listed apart. */
  readonly own?: true;
  /** Loaded when it runs. Absent: the command only holds others, and prints its help. */
  readonly load?: () => Promise<(context: CommandContext) => CommandResult | Promise<CommandResult>>;
}

export interface CommandPath {
  /** From the program to the command itself. */
  readonly commands: readonly CommandSpec[];
}

export const commandOf = ({ commands }: CommandPath): CommandSpec => commands.at(-1) as CommandSpec;
export const nameOf = ({ commands }: CommandPath): string => commands.map(({ name }) => name).join(" ");
