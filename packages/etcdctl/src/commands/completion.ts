// Completion scripts. They hold no names: each asks `etcdctl __complete WORDS...`, which knows the commands and asks the
// cluster for keys, users and roles. Its answer is a line for each candidate, `WORD<tab>DESCRIPTION`, and last `:nospace`
// or `:done`.
import type { Run } from "../cli/command.ts";
import { FlagError } from "../cli/flags.ts";
import { quote } from "../go/quote.ts";

type Shell = "bash" | "zsh" | "fish" | "powershell";

/** `completion bash` and its siblings. */
export const runCompletion =
  (shell: Shell): Run =>
  ({ flags, io }, [extra]) => {
    if (extra !== undefined) {
      throw new FlagError(`unknown command ${quote(extra)} for "etcdctl completion ${shell}"`);
    }
    io.out.write(scripts[shell](flags.bool("no-descriptions") ? "__completeNoDesc" : "__complete"));
    return Promise.resolve();
  };

const scripts: Readonly<Record<Shell, (complete: string) => string>> = {
  bash: (complete) => `# bash completion for etcdctl: source <(etcdctl completion bash)
_etcdctl() {
  local line candidate spaces=done IFS=$'\\n'
  local words=("\${COMP_WORDS[@]:1:COMP_CWORD}")
  # Bash splits at ':' and '='; etcdctl does not.
  if declare -F _get_comp_words_by_ref >/dev/null; then
    local cur prev cwords cword
    _get_comp_words_by_ref -n "=:" -w cwords -i cword cur 2>/dev/null && words=("\${cwords[@]:1:cword}")
  fi
  COMPREPLY=()
  for line in $("\${COMP_WORDS[0]}" ${complete} "\${words[@]}" 2>/dev/null); do
    case $line in
      :*) spaces=\${line#:} ;;
      *) candidate=\${line%%$'\\t'*}; COMPREPLY+=("$(printf '%q' "$candidate")") ;;
    esac
  done
  [[ $spaces == nospace ]] && compopt -o nospace
  declare -F __ltrim_colon_completions >/dev/null && __ltrim_colon_completions "\${words[-1]}"
  return 0
}
complete -F _etcdctl etcdctl
`,
  zsh: (complete) => `#compdef etcdctl
# zsh completion for etcdctl: etcdctl completion zsh > "\${fpath[1]}/_etcdctl"
_etcdctl() {
  local line spaces=done
  local -a plain described
  for line in "\${(@f)$("\${words[1]}" ${complete} "\${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
    case $line in
      :*) spaces=\${line#:} ;;
      *$'\\t'*) described+=("\${\${line%%$'\\t'*}//:/\\\\:}:\${line#*$'\\t'}") ;;
      ?*) plain+=("$line") ;;
    esac
  done
  local -a options
  [[ $spaces == nospace ]] && options=(-S '')
  (( \${#described} )) && _describe -V 'etcdctl' described "\${options[@]}"
  (( \${#plain} )) && compadd "\${options[@]}" -a plain
}
if [[ \${funcstack[1]} == _etcdctl ]]; then _etcdctl "$@"; else compdef _etcdctl etcdctl; fi
`,
  fish: (complete) => `# fish completion for etcdctl: etcdctl completion fish | source
function __etcdctl_complete
    set -l words (commandline -opc) (commandline -ct)
    $words[1] ${complete} $words[2..-1] 2>/dev/null | string match -v -r '^:'
end
complete -c etcdctl -e
complete -c etcdctl -f -a '(__etcdctl_complete)'
`,
  powershell: (
    complete,
  ) => `# PowerShell completion for etcdctl: etcdctl completion powershell | Out-String | Invoke-Expression
Register-ArgumentCompleter -Native -CommandName etcdctl -ScriptBlock {
  param($wordToComplete, $commandAst, $cursorPosition)
  $words = @($commandAst.CommandElements | Select-Object -Skip 1 | ForEach-Object { $_.ToString() })
  if ($wordToComplete -eq '') { $words += '' }
  & $commandAst.CommandElements[0].ToString() ${complete} @words 2>$null | Where-Object { -not $_.StartsWith(':') } | ForEach-Object {
    $word, $description = $_ -split "\`t", 2
    if (-not $description) { $description = $word }
    [System.Management.Automation.CompletionResult]::new($word, $word, 'ParameterValue', $description)
  }
}
`,
};
