import { findCommand } from "../cli/find.ts";
import { helpText } from "../cli/help.ts";
import { root } from "../cli/tree.ts";
import type { CommandContext } from "../context.ts";

/** `help [COMMAND]` */
export async function runHelp({ io }: CommandContext, args: readonly string[]): Promise<void> {
  let path: Parameters<typeof helpText>[0];
  try {
    path = findCommand(root, args).path;
  } catch {
    io.err.write(`Unknown help topic [${args.map((word) => `\`${word}\``).join(" ")}]\n`);
    path = { command: root, parents: [] };
  }
  io.out.write(helpText(path));
}
