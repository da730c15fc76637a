/** docs/etcdutl.md, made from the commands themselves; a test holds the file against it. */
import { type CommandSpec, nameOf } from "./command.ts";
import type { FlagSpec } from "./flags.ts";
import { globalFlags, root } from "./tree.ts";

const INTRODUCTION = `# etcdutl

What can be done to a member's files while it does not run. It takes the commands and flags of etcdutl 3.5, prints what that
prints and ends with its exit codes; commands and flags marked with a star are additions of ours. It reads and writes the LMDB
data dirs of this server and the bbolt files of etcd 3.4, 3.5 and 3.6. This page is made from the commands themselves:
\`UPDATE_GOLDEN=1 npx vitest run --project unit packages/etcdutl/src/cli/docs.test.ts\` writes it anew. What to do when
something is lost is in [disaster-recovery.md](disaster-recovery.md).

| exit code | when |
| --- | --- |
| 0 | success; \`verify\`: clean |
| 1 | an error; nothing was changed |
| 2 | \`defrag\`: there is no database |
| 4 | an output format that there is not |
| 10 | \`verify\`: damaged, and repairable without loss |
| 20 | \`verify\`: data of this member is lost |
| 128 | wrong arguments |
| 130, 143 | interrupted by SIGINT or SIGTERM; what had been begun was taken away |

Whatever is written gets its name when it is whole and durable, so that a command that was stopped in any way is just run again. A
data dir that a server works in is refused: one of ours by its lock, a real etcd by \`/proc/locks\`. Databases may be larger than
memory. On a terminal whatever takes more than a second shows how far it is. With \`-w json\` every command but
\`version\` prints one object.
The kind of database that is written is \`--backend\`, else ETCDUTL_BACKEND, else lmdb.
`;

/** What the one line of help leaves out. */
const MORE: Readonly<Record<string, string>> = {
  "etcdutl defrag": "All rows go into a new file, which then takes the old one's name, mode and owner.",
  "etcdutl hashkv":
    "Of a snapshot or a database of either kind; equal to what `etcdctl endpoint hashkv` prints of the member.",
  "etcdutl migrate":
    "With `--target-version`, as in 3.6, the mark of the storage's version changes. With `--to` the database is written anew for the\nother engine, read back, compared by hash and put in the old one's place. The member keeps log and identity in both.",
  "etcdutl snapshot restore":
    "Refuses a data dir that is not empty and a file whose sha256 is wrong. With `--bump-revision` and `--mark-compacted` revisions do\nnot go backwards for those who remember them.",
  "etcdutl snapshot save":
    "From a running server it is `etcdctl snapshot save`; with `--data-dir` it is made of a stopped member's database.",
  "etcdutl snapshot status": "Of a snapshot or a database of either kind. Checks its structure first.",
  "etcdutl verify":
    "Walks the log, the snapshots, the pages, rows and checksums of the database, its index, and compares them with one another. Says\nwhich record is damaged and what that means. Changes nothing.",
};

export function docsText(): string {
  return [INTRODUCTION, `## Global flags\n\n${flagTable(globalFlags)}`, ...[...leaves([root])].map(section)].join("\n");
}

type Path = readonly CommandSpec[];

function* leaves(path: Path): Generator<Path> {
  const command = path.at(-1) as CommandSpec;
  if (!command.subcommands) yield path;
  for (const sub of command.subcommands ?? []) yield* leaves([...path, sub]);
}

function section(path: Path): string {
  const command = path.at(-1) as CommandSpec;
  const name = nameOf({ commands: path });
  const isOwn = path.some(({ own }) => own);
  const flags = command.flags ?? [];
  const parts = [
    `## ${name}${isOwn ? " *" : ""}`,
    `${command.short}.`,
    `    ${[name, command.usage, "[flags]"].filter(Boolean).join(" ")}`,
    ...(MORE[name] ? [MORE[name]] : []),
    ...(flags.length > 0 ? [flagTable(flags).trimEnd()] : []),
  ];
  return `${parts.join("\n\n")}\n`;
}

function flagTable(flags: readonly FlagSpec[]): string {
  const rows = flags
    .toSorted((a, b) => (a.name < b.name ? -1 : 1))
    .map(({ name, short, default: preset, usage, own, isRequired }) => {
      const names = [...(short ? [`-${short}`] : []), `--${name}`].map((word) => `\`${word}\``).join(", ");
      const shown = isRequired ? "needed" : preset === "" ? "" : `\`${preset}\``;
      return `| ${names}${own ? " *" : ""} | ${shown} | ${usage} |\n`;
    });
  return `| flag | default | |\n| --- | --- | --- |\n${rows.join("")}`;
}
