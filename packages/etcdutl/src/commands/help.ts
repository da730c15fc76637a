import { helpText } from "../cli/help.ts";
import { findCommand } from "../cli/run.ts";
import type { CommandContext } from "../context.ts";

/** Help for the command that the arguments name; for the whole program when they name none. */
export function runHelp({ args, io }: CommandContext): void {
  const found = findCommand(args);
  if ("unknown" in found) {
    io.err.write(`Unknown help topic [\`${found.unknown}\`]\n`);
    io.err.write(helpText((findCommand([]) as { path: Parameters<typeof helpText>[0] }).path));
    return;
  }
  io.out.write(helpText(found.path));
}
