// docs/flags.md, made from the table of flags itself; a test holds the file against it.
import { envName, type FlagSpec, flagSpecs } from "./flags.ts";

const INTRODUCTION = `# Flags of etcd

Every flag of etcd 3.5 is taken: on the command line, as a variable, and in a config file, with etcd's precedence, checks and
messages. This page is made from the table that the server itself reads:
\`UPDATE_GOLDEN=1 npx vitest run --project unit packages/server/src/config/flag-docs.test.ts\` writes it anew.

- With \`--config-file\` (YAML or JSON) all other flags and variables are ignored. A flag and its variable together are an error.
- In a file, durations are integer nanoseconds, lists of URLs one string with commas, other lists YAML lists.
- "Without effect" means: taken and checked, but there is nothing here that it could change. The log says so when it is set.
- A flag with "refused" stops the start with a message, because a member that ignored it would do something else than was asked.
`;

/** Flags that are taken, but with which a new member does not start. */
const REFUSED: Readonly<Record<string, string>> = {
  discovery: "refused for a member without data: the v2 discovery service is not asked",
  proxy: "`on` and `readonly` are refused without data: the v2 proxy is not served",
};

const typeNames: Readonly<Record<FlagSpec["kind"], string>> = {
  string: "text",
  bool: "bool",
  int: "int",
  int64: "int",
  uint: "uint",
  uint32: "uint32",
  uint64: "uint64",
  duration: "duration",
  urls: "URLs",
  cors: "URLs",
  strings: "list",
  uniqueStrings: "list",
  enum: "choice",
  ignored: "bool",
};

function cell(text: string): string {
  return text.replaceAll("|", "\\|").replaceAll("<", "&lt;");
}

function fallbackOf({ fallback }: FlagSpec): string {
  return fallback === "" ? "" : `\`${fallback}\``;
}

function fileKeyOf({ name, fileKey }: FlagSpec): string {
  if (fileKey === null) return "none";
  return fileKey === undefined || fileKey === name ? "same" : `\`${fileKey}\``;
}

export function stateOf(spec: FlagSpec): string {
  const refused = REFUSED[spec.name];
  if (refused !== undefined) return refused;
  return spec.withoutEffect === undefined ? "works" : `without effect: ${spec.withoutEffect}`;
}

export function flagDocsText(): string {
  const shown = flagSpecs.filter(({ kind }) => kind !== "ignored");
  const lines = [INTRODUCTION];
  for (const section of new Set(shown.map((spec) => spec.section))) {
    lines.push(`## ${section}`, "");
    lines.push("| flag | type | default | variable | key in a file | state | |", "|---|---|---|---|---|---|---|");
    for (const spec of shown) {
      if (spec.section !== section) continue;
      const cells = [
        `\`--${spec.name}\``,
        spec.choices ? spec.choices.map((choice) => `\`${choice}\``).join(", ") : typeNames[spec.kind],
        fallbackOf(spec),
        `\`${envName(spec.name)}\``,
        fileKeyOf(spec),
        stateOf(spec),
        spec.help,
      ];
      lines.push(`| ${cells.map(cell).join(" | ")} |`);
    }
    lines.push("");
  }
  const ignored = flagSpecs.filter(({ kind }) => kind === "ignored").map(({ name }) => `\`${name}\``);
  lines.push("## Of long ago", "", `Taken and ignored, as etcd does: ${ignored.join(", ")}.`, "");
  return lines.join("\n");
}
