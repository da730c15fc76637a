/** What a command is called with. */
import type { Logger } from "./log.ts";
import type { FlagSet } from "./cli/flags.ts";
import type { CommandPath } from "./cli/command.ts";
import type { Io } from "./io.ts";

export interface CommandContext {
  readonly io: Io;
  readonly path: CommandPath;
  readonly flags: FlagSet;
  readonly args: readonly string[];
  readonly logger: Logger;
}
