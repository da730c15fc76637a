/** Completion scripts: each holds the commands and flags as they are, so that no process starts while one types. */
import { type CommandSpec, commandOf } from "../cli/command.ts";
import { globalFlags, root } from "../cli/tree.ts";
import type { CommandContext } from "../context.ts";

export function runCompletion({ io, path }: CommandContext): void {
  const shell = commandOf(path).name as keyof typeof scripts;
  io.out.write(scripts[shell](wordLists(root, "")));
}

interface WordList {
  /** Words of the command line so far, behind the program's name; empty for the program itself. */
  readonly path: string;
  readonly words: readonly string[];
}

function wordLists(command: CommandSpec, path: string): WordList[] {
  const subcommands = (command.subcommands ?? []).filter(({ deprecated }) => deprecated === undefined);
  const flags = [...(command.flags ?? []), ...globalFlags].map(({ name }) => `--${name}`);
  const words = [...subcommands.map(({ name }) => name), ...flags, "--help"];
  return [
    { path, words },
    ...subcommands.flatMap((sub) => wordLists(sub, path === "" ? sub.name : `${path} ${sub.name}`)),
  ];
}

const cases = (lists: readonly WordList[], indent: string): string =>
  lists.map(({ path, words }) => `${indent}"${path}") words="${words.join(" ")}" ;;\n`).join("");

const bash = (lists: readonly WordList[]): string => `# bash completion for etcdutl
_etcdutl() {
  local current="\${COMP_WORDS[COMP_CWORD]}" path="" words="" word
  for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    [[ "$word" == -* ]] && continue
    path="\${path:+$path }$word"
  done
  case "$path" in
${cases(lists, "    ")}  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  [[ \${#COMPREPLY[@]} -eq 0 && "$current" != -* ]] && COMPREPLY=($(compgen -f -- "$current"))
}
complete -o filenames -F _etcdutl etcdutl
`;

const zsh = (lists: readonly WordList[]): string => `#compdef etcdutl
_etcdutl() {
  local path_so_far="" choices="" word
  for word in "\${(@)words[2,CURRENT-1]}"; do
    [[ "$word" == -* ]] && continue
    path_so_far="\${path_so_far:+$path_so_far }$word"
  done
  case "$path_so_far" in
${cases(lists, "    ").replaceAll(" words=", " choices=")}  esac
  compadd -- \${=choices}
  _files
}
compdef _etcdutl etcdutl
`;

const fish = (lists: readonly WordList[]): string =>
  `# fish completion for etcdutl\n${lists
    .map(({ path, words }) => {
      const condition =
        path === ""
          ? "__fish_use_subcommand"
          : path
              .split(" ")
              .map((word) => `__fish_seen_subcommand_from ${word}`)
              .join("; and ");
      return words
        .map((word) =>
          word.startsWith("--")
            ? `complete -c etcdutl -n '${condition}' -l ${word.substring(2)}\n`
            : `complete -c etcdutl -n '${condition}' -f -a ${word}\n`,
        )
        .join("");
    })
    .join("")}`;

const powershell = (lists: readonly WordList[]): string => `# powershell completion for etcdutl
Register-ArgumentCompleter -Native -CommandName etcdutl -ScriptBlock {
  param($word, $tree, $position)
  $path = ($tree.CommandElements | Select-Object -Skip 1 | ForEach-Object { "$_" } |
    Where-Object { $_ -ne $word -and -not $_.StartsWith('-') }) -join ' '
  $lists = @{
${lists.map(({ path, words }) => `    '${path}' = '${words.join(" ")}'\n`).join("")}  }
  "$($lists[$path])".Split(' ') | Where-Object { $_ -like "$word*" }
}
`;

const scripts = { bash, fish, powershell, zsh } as const;
