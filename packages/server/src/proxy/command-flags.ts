/**
 * Flags of the subcommands, as cobra and pflag read and show them: `--name value`, `--name=value`, a bool alone, `--` as
 * the end. (The server's own flags follow Go's `flag` package and have a table of their own.)
 */
import { parseGoDuration } from "../lib/go-format.ts";

export interface CommandFlag {
  readonly name: string;
  readonly kind: "string" | "strings" | "bool" | "duration";
  /** As text; of strings, separated by commas. */
  readonly initial: string;
  readonly help: string;
}

export interface Command {
  /** `etcd gateway start` */
  readonly path: string;
  readonly short: string;
  readonly flags: readonly CommandFlag[];
  /** Names and summaries of what is below it. */
  readonly children?: readonly (readonly [name: string, short: string])[];
}

const TRUE = new Set(["1", "t", "T", "TRUE", "true", "True"]);
const FALSE = new Set(["0", "f", "F", "FALSE", "false", "False"]);

export class CommandFlags {
  readonly isHelp: boolean;
  readonly #texts: ReadonlyMap<string, string>;

  constructor(texts: ReadonlyMap<string, string>, isHelp: boolean) {
    this.#texts = texts;
    this.isHelp = isHelp;
  }

  text(name: string): string {
    return this.#texts.get(name) ?? "";
  }

  list(name: string): string[] {
    const text = this.text(name);
    return text === "" ? [] : text.split(",");
  }

  bool(name: string): boolean {
    return TRUE.has(this.text(name));
  }

  /** Milliseconds. */
  duration(name: string): number {
    return parseGoDuration(this.text(name));
  }
}

const HELP: CommandFlag = { name: "help", kind: "bool", initial: "false", help: "" };

function check(flag: CommandFlag, text: string): void {
  const name = flag === HELP ? "-h, --help" : `--${flag.name}`;
  const fail = (reason: string) => new Error(`invalid argument ${JSON.stringify(text)} for "${name}" flag: ${reason}`);
  if (flag.kind === "bool" && !TRUE.has(text) && !FALSE.has(text)) {
    throw fail(`strconv.ParseBool: parsing ${JSON.stringify(text)}: invalid syntax`);
  }
  if (flag.kind !== "duration") return;
  try {
    parseGoDuration(text);
  } catch (error) {
    throw fail((error as Error).message);
  }
}

/** Throws an Error with pflag's text. Words that are no flags are let pass, as cobra lets them here. */
export function parseCommandFlags(command: Command, args: readonly string[]): CommandFlags {
  const byName = new Map(command.flags.map((flag) => [flag.name, flag]));
  const texts = new Map(command.flags.map(({ name, initial }) => [name, initial]));
  const given = new Set<string>();
  for (let i = 0; i < args.length; i++) {
    const arg = args[i] as string;
    if (arg === "--") break;
    if (!arg.startsWith("-") || arg === "-") continue;
    const asked = /^(?:--help|-h)(?:=(.*))?$/s.exec(arg);
    if (asked) {
      const text = asked[1] ?? "true";
      check(HELP, text);
      if (TRUE.has(text)) return new CommandFlags(texts, true);
      continue;
    }
    if (!arg.startsWith("--")) throw new Error(`unknown shorthand flag: '${arg[1]}' in ${arg}`);
    const [, name = "", value] = /^--([^=]*)(?:=(.*))?$/s.exec(arg) ?? [];
    if (name === "") throw new Error(`bad flag syntax: ${arg}`);
    const flag = byName.get(name);
    if (!flag) throw new Error(`unknown flag: --${name}`);
    let text = value;
    if (text === undefined && flag.kind === "bool") text = "true";
    if (text === undefined) {
      text = args[++i];
      if (text === undefined) throw new Error(`flag needs an argument: --${name}`);
    }
    check(flag, text);
    // Lists grow when they are given again.
    texts.set(name, flag.kind === "strings" && given.has(name) ? `${texts.get(name)},${text}` : text);
    given.add(name);
  }
  return new CommandFlags(texts, false);
}

function initialText({ kind, initial }: CommandFlag): string {
  if (initial === "" || initial === "false") return "";
  if (kind === "strings") return ` (default [${initial}])`;
  return kind === "string" ? ` (default ${JSON.stringify(initial)})` : ` (default ${initial})`;
}

/** What cobra calls the usage. */
export function usageOf(command: Command): string {
  const { path, children = [] } = command;
  const name = path.split(" ").at(-1);
  const rows = [
    ...command.flags.map((flag) => [
      `      --${flag.name}${flag.kind === "bool" ? "" : ` ${flag.kind}`}`,
      `${flag.help}${initialText(flag)}`,
    ]),
    ["  -h, --help", `help for ${name}`],
  ] as [string, string][];
  const order = ([row]: [string, string]): string => row.slice(row.indexOf("--"));
  rows.sort((a, b) => (order(a) < order(b) ? -1 : 1));
  const width = Math.max(...rows.map(([left]) => left.length));
  const parts = [`Usage:\n  ${path} ${children.length > 0 ? "[command]" : "[flags]"}\n`];
  if (children.length > 0) {
    const wide = Math.max(11, ...children.map(([child]) => child.length));
    parts.push(
      `Available Commands:\n${children.map(([child, short]) => `  ${child.padEnd(wide)} ${short}\n`).join("")}`,
    );
  }
  parts.push(`Flags:\n${rows.map(([left, help]) => `${left.padEnd(width)}   ${help}\n`).join("")}`);
  if (children.length > 0) parts.push(`Use "${path} [command] --help" for more information about a command.\n`);
  return parts.join("\n");
}
