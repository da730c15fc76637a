// Finds the command that a line names, as Go's cobra does: flags may stand before the command's name, and any
// unambiguous beginning of a name will do.
import { quote } from "../go/quote.ts";
import type { CommandPath, CommandSpec } from "./command.ts";
import { FlagSet } from "./flags.ts";

export class UnknownCommandError extends Error {
  override readonly name = "UnknownCommandError";
}

export interface Found {
  readonly path: CommandPath;
  /** The line without the names that led to the command. */
  readonly args: readonly string[];
}

/** @throws UnknownCommandError when a word at the top is no command */
export function findCommand(root: CommandSpec, argv: readonly string[]): Found {
  let path: CommandPath = { command: root, parents: [] };
  let args = argv;
  for (;;) {
    const word = firstWord(args, path);
    const next = word === undefined ? undefined : matching(path.command, args[word] as string);
    if (word === undefined || !next) break;
    args = args.toSpliced(word, 1);
    path = { command: next, parents: [...path.parents, path.command] };
  }
  const left = firstWord(args, path);
  if (path.command === root && left !== undefined) {
    const typed = args[left] as string;
    const near = suggestions(root, typed);
    const hint = near.length === 0 ? "" : `\n\nDid you mean this?\n${near.map((name) => `\t${name}\n`).join("")}`;
    throw new UnknownCommandError(`unknown command ${quote(typed)} for ${quote(root.name)}${hint}`);
  }
  return { path, args };
}

/** The index of the first word that is neither flag nor a flag's value. */
function firstWord(args: readonly string[], path: CommandPath): number | undefined {
  const levels = [...path.parents, path.command];
  const flags = new FlagSet([...(path.command.flags ?? []), ...levels.flatMap((level) => level.persistentFlags ?? [])]);
  for (let i = 0; i < args.length; i++) {
    const word = args[i] as string;
    if (word === "--") return undefined;
    if (flags.takesNextWord(word)) i++;
    else if (word !== "" && !word.startsWith("-")) return i;
  }
  return undefined;
}

function matching(command: CommandSpec, word: string): CommandSpec | undefined {
  const below = command.subcommands ?? [];
  const exact = below.find(({ name }) => name === word);
  if (exact) return exact;
  const beginnings = below.filter(({ name }) => name.startsWith(word));
  return beginnings.length === 1 ? beginnings[0] : undefined;
}

/** Names that differ from what was typed in at most two letters, or begin with it. */
export function suggestions(command: CommandSpec, typed: string): string[] {
  const lower = typed.toLowerCase();
  return (command.subcommands ?? [])
    .map(({ name }) => name)
    .filter((name) => editDistance(name, lower) <= 2 || name.startsWith(lower));
}

/** Levenshtein's distance. */
export function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = (row[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, (row[j] as number) + 1, (next[j - 1] as number) + 1));
    }
    row = next;
  }
  return row[b.length] as number;
}
