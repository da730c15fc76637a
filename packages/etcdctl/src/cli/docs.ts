// docs/etcdctl.md, made from the commands themselves; a test holds the file against it.
import { type CommandPath, type CommandSpec, commandName, localFlags } from "./command.ts";
import type { FlagSpec } from "./flags.ts";
import { usageLine } from "./help.ts";
import { globalFlags, root } from "./tree.ts";

const INTRODUCTION = `# etcdctl

The command line client. It takes the commands, flags and environment variables of etcdctl 3.5, prints what that prints
and ends with its exit codes; flags marked with a star are additions of ours. This page is made from the commands
themselves: \`UPDATE_GOLDEN=1 npx vitest run --project unit packages/etcdctl/src/cli/docs.test.ts\` writes it anew.

Every global flag may be given as a variable: \`ETCDCTL_\` and the flag's name in capitals, \`-\` as \`_\`
(\`ETCDCTL_ENDPOINTS\`, \`ETCDCTL_WRITE_OUT\`). A password never needs to stand on the command line: it is asked for,
or read from \`--password-file\` or \`ETCDCTL_PASSWORD\`.

| exit code | when |
| --- | --- |
| 0 | success |
| 1 | an error of the cluster or of the command line's flags; an unhealthy endpoint |
| 2 | no client could be made: wrong password, no endpoints |
| 3 | input that cannot be read (\`txn\`, \`watch -i\`); \`check\` under a prefix that has keys |
| 4 | an output format, order, target or load that there is not |
| 5 | a watch that the server ended; a snapshot that failed |
| 128 | wrong arguments, certificate files that cannot be used |

On a terminal etcdctl also uses colour (\`--color\`, \`NO_COLOR\` and \`TERM=dumb\` are obeyed), says which command or flag was
meant, asks before it deletes a range, and, when an endpoint does not answer, names the step that failed and what to try
next. With \`--errors=json\` an error is one JSON object on standard error: \`code\`, \`message\`, \`step\`, \`endpoint\`,
\`exitCode\`.
`;

export function docsText(): string {
  const sections = [...leaves(root, [])].map((path) => section(path));
  return [INTRODUCTION, `## Global flags\n\n${flagTable(globalFlags)}`, ...sections].join("\n");
}

function* leaves(command: CommandSpec, parents: readonly CommandSpec[]): Generator<CommandPath> {
  if (!command.subcommands) yield { command, parents };
  for (const sub of command.subcommands ?? []) yield* leaves(sub, [...parents, command]);
}

function section(path: CommandPath): string {
  const { command, parents } = path;
  const flags = [
    ...localFlags(path).filter(({ name }) => name !== "help"),
    ...parents.slice(1).flatMap((p) => p.persistentFlags ?? []),
  ];
  const parts = [
    `## ${commandName(path)}`,
    `${command.short}.`,
    `    ${usageLine(path)}`,
    ...(command.long ? [command.long.join("\n")] : []),
    command.examples.map((line) => `    $ ${line}`).join("\n"),
    ...(flags.length > 0 ? [flagTable(flags).trimEnd()] : []),
  ];
  return `${parts.join("\n\n")}\n`;
}

function flagTable(flags: readonly FlagSpec[]): string {
  const rows = flags
    .toSorted((a, b) => (a.name < b.name ? -1 : 1))
    .map(({ name, short, default: preset = "", usage, own }) => {
      const names = [...(short ? [`-${short}`] : []), `--${name}`].map((word) => `\`${word}\``).join(", ");
      return `| ${names}${own ? " *" : ""} | ${preset === "" ? "" : `\`${preset}\``} | ${usage.replaceAll("|", "\\|").replaceAll("\\x", "\\\\x")} |\n`;
    });
  return `| flag | default | |\n| --- | --- | --- |\n${rows.join("")}`;
}
