// What etcdctl 3.5 still does with files is etcdutl's work, and etcdctl knows nothing of storage: it starts the etcdutl
// that is installed beside it, and ends as that does.
import type { CommandContext } from "../context.ts";
import { ERROR, ExitError, exitSilently } from "../exit.ts";

/** @param command the command and its flags @param args what is no flag, even if it looks like one @param env what etcdutl's environment has besides ours */
export async function runEtcdutl(
  { io, flags }: CommandContext,
  command: readonly string[],
  args: readonly string[] = [],
  env: Readonly<Record<string, string>> = {},
): Promise<void> {
  const words = [...io.sibling("etcdutl"), ...command, `--write-out=${flags.string("write-out")}`, "--", ...args];
  const end = await io.run({ words, env, hasInput: true });
  switch (end.kind) {
    case "exited":
      if (end.code !== 0) throw exitSilently(end.code);
      return;
    case "killed":
      throw new ExitError(ERROR, `etcdutl was ended by ${end.signal}`);
    case "notStarted":
      throw new ExitError(ERROR, end.reason);
  }
}
