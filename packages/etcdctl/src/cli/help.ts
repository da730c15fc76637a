// Help in etcdctl's layout (capital section names, tab stops of 8), with the examples before everything else.
import { version } from "../version.ts";
import { type CommandPath, type CommandSpec, commandName, inheritedFlags, localFlags } from "./command.ts";
import type { FlagSpec } from "./flags.ts";

/** The whole help of a command, as `--help` prints it. */
export function helpText(path: CommandPath, { hasHelpFlag = true } = {}): string {
  const { command, parents } = path;
  const isRoot = parents.length === 0;
  const hasCommands = (command.subcommands ?? []).length > 0;
  const flags = localFlags(path).filter(({ name }) => hasHelpFlag || name !== "help");
  const sections: string[] = [
    section("NAME", [`${isRoot ? command.name : commandName(path)} - ${command.short}`]),
    section(
      "EXAMPLES",
      command.examples.map((line) => `$ ${line}`),
    ),
    section("USAGE", [usageLine(path)]),
  ];
  if (isRoot) sections.push(section("VERSION", [version.etcd]));
  if (hasCommands) {
    sections.push(section("API VERSION", [version.api]));
    const rows = leaves(command, "").map(({ name, short }): [string, string] => [`\t${name}`, short]);
    sections.push(`COMMANDS:\n${columns(rows)}`);
  }
  if (command.long) sections.push(section("DESCRIPTION", command.long));
  sections.push(
    flagSection(
      "OPTIONS",
      flags.filter(({ own }) => !own),
    ),
  );
  const inherited = inheritedFlags(path);
  if (inherited.length > 0)
    sections.push(
      flagSection(
        "GLOBAL OPTIONS",
        inherited.filter(({ own }) => !own),
      ),
    );
  const own = [...flags, ...inherited].filter((flag) => flag.own);
  if (own.length > 0) sections.push(flagSection("FURTHER OPTIONS", own));
  return `${sections.join("\n")}\n`;
}

export function usageLine({ command, parents }: CommandPath): string {
  const words = [...parents.map(({ name }) => name), command.name];
  if (command.usage !== "") words.push(command.usage);
  return [...words, "[flags]"].join(" ");
}

const section = (title: string, lines: readonly string[]): string =>
  `${title}:\n${lines.map((line) => `\t${line}\n`).join("")}`;

/** Every command below that can be run, by name. */
function leaves(command: CommandSpec, prefix: string): { name: string; short: string }[] {
  return (command.subcommands ?? [])
    .toSorted((a, b) => (a.name < b.name ? -1 : 1))
    .flatMap((sub) =>
      sub.subcommands ? leaves(sub, `${prefix}${sub.name} `) : [{ name: prefix + sub.name, short: sub.short }],
    );
}

function flagSection(title: string, flags: readonly FlagSpec[]): string {
  const rows = flags
    .toSorted((a, b) => (a.name < b.name ? -1 : 1))
    .map((flag): [string, string] => [flagLabel(flag), flag.usage]);
  return `${title}:\n${columns(rows)}`;
}

/** `  -w, --write-out="simple"`, `      --hex[=false]`. */
export function flagLabel({ name, short, type, default: preset = "" }: FlagSpec): string {
  const value = {
    bool: `[=${preset || "false"}]`,
    string: `="${preset}"`,
    stringSlice: `=[${preset}]`,
    int: `=${preset || "0"}`,
    int64: `=${preset || "0"}`,
    uint64: `=${preset || "0"}`,
    duration: `=${preset || "0s"}`,
  }[type];
  return `${short ? `  -${short}, ` : "      "}--${name}${value}`;
}

/** Two columns, the first filled with tabs up to the next common stop of 8. */
function columns(rows: readonly (readonly [string, string])[]): string {
  const width = (text: string): number => (text.startsWith("\t") ? 7 : 0) + text.length;
  const stop = Math.floor(Math.max(...rows.map(([left]) => width(left))) / 8) * 8 + 8;
  return rows.map(([left, right]) => `${left}${"\t".repeat(Math.ceil((stop - width(left)) / 8))}${right}\n`).join("");
}

/** The usage of a request inside a transaction, in the plain layout of the library that the Go tool is made with. */
export function requestUsage(usage: string, name: string, flags: readonly FlagSpec[]): string {
  const help: FlagSpec = { name: "help", short: "h", type: "bool", usage: `help for ${name}` };
  const rows = [...flags, help]
    .toSorted((a, b) => (a.name < b.name ? -1 : 1))
    .map((flag): [string, string] => {
      const type = flag.type === "bool" ? "" : ` ${flag.type === "int64" ? "int" : flag.type}`;
      const preset = flag.type === "string" && flag.default ? ` (default ${JSON.stringify(flag.default)})` : "";
      return [`${flag.short ? `  -${flag.short}, ` : "      "}--${flag.name}${type}`, `${flag.usage}${preset}`];
    });
  const width = Math.max(...rows.map(([label]) => label.length));
  const lines = rows.map(([label, text]) => `${label.padEnd(width)}   ${text}\n`);
  return `Usage:\n   ${usage} [flags]\n\nFlags:\n${lines.join("")}\n`;
}
