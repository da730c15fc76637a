/** Help in cobra's plain layout. */
import { type CommandPath, type CommandSpec, commandOf, nameOf } from "./command.ts";
import type { FlagSpec } from "./flags.ts";
import { globalFlags, helpFlag } from "./tree.ts";

export function helpText(path: CommandPath): string {
  const command = commandOf(path);
  const isRoot = path.commands.length === 1;
  const name = nameOf(path);
  const subcommands = (command.subcommands ?? []).filter(({ deprecated }) => deprecated === undefined);
  const sections: string[] = [];
  const usage: string[] = [];
  if (command.load) {
    // cobra leaves `[flags]` away where the usage line of a command says that it is whole.
    const isWhole =
      command.deprecated !== undefined || (path.commands[1]?.name === "completion" && command.name === "bash");
    usage.push([name, command.usage, isWhole ? undefined : "[flags]"].filter(Boolean).join(" "));
  }
  if (subcommands.length > 0) usage.push(`${name} [command]`);
  sections.push(`Usage:\n${usage.map((line) => `  ${line}\n`).join("")}`);
  const listed = subcommands.filter(({ own }) => !own);
  if (listed.length > 0) sections.push(`Available Commands:\n${commandLines(listed)}`);
  const ownCommands = subcommands.filter(({ own }) => own);
  if (ownCommands.length > 0) sections.push(`Further Commands:\n${commandLines(ownCommands)}`);
  const local = [helpFlag(command.name), ...(command.flags ?? []), ...(isRoot ? globalFlags : [])];
  sections.push(`Flags:\n${flagLines(local.filter(({ own }) => !own))}`);
  const ownFlags = local.filter(({ own }) => own);
  if (ownFlags.length > 0) sections.push(`Further Flags:\n${flagLines(ownFlags)}`);
  if (!isRoot) sections.push(`Global Flags:\n${flagLines(globalFlags)}`);
  if (subcommands.length > 0) {
    sections.push(`Use "${name} [command] --help" for more information about a command.\n`);
  }
  return sections.join("\n");
}

function commandLines(commands: readonly CommandSpec[]): string {
  const width = Math.max(11, ...commands.map(({ name }) => name.length));
  return commands.map(({ name, short }) => `  ${name.padEnd(width)} ${short}\n`).join("");
}

function flagLines(flags: readonly FlagSpec[]): string {
  const sorted = flags.toSorted((a, b) => (a.name < b.name ? -1 : 1));
  const labels = sorted.map(
    ({ name, short, type }) => `  ${short ? `-${short}, ` : "    "}--${name}${type === "bool" ? "" : ` ${type}`}`,
  );
  const width = Math.max(...labels.map(({ length }) => length));
  return sorted
    .map((flag, i) => `${(labels[i] as string).padEnd(width)}   ${flag.usage}${presetText(flag)}\n`)
    .join("");
}

function presetText({ type, default: preset }: FlagSpec): string {
  if (preset === "" || preset === "false" || preset === "0") return "";
  return ` (default ${type === "string" ? `"${preset}"` : preset})`;
}
