import { findCommand } from "../cli/find.ts";
import { helpText } from "../cli/help.ts";
import { root } from "../cli/tree.ts";
import type { CommandContext } from "../context.ts";

/** `help [COMMAND]` */
export async function runHelp({ io }: CommandContext, args: readonly string[]): Promise<void> {
  let path: Parameters<typeof helpText>[0];
  let hasHelpFlag = true;
  try {
    path = findCommand(root, args).path;
  } catch {
    io.err.write(`Unknown help topic [${args.map((word) => `\`${word}\``).join(" ")}]\n`);
    path = { command: root, parents: [] };
    // That is how the Go tool has it: nobody has added the flag by then.
    hasHelpFlag = false;
  }
  io.out.write(helpText(path, { hasHelpFlag }));
}
