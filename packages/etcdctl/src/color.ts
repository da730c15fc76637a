// Colours: only on a terminal, unless --color says otherwise.
import type { Io } from "./io.ts";

export interface Colors {
  /** Names of things: keys, columns, options. */
  name(text: string): string;
  /** What went well or is new. */
  good(text: string): string;
  /** What went wrong or is gone. */
  bad(text: string): string;
  /** Beside the point. */
  faint(text: string): string;
}

const same = (text: string): string => text;
export const noColors: Colors = { name: same, good: same, bad: same, faint: same };

/** What --color, NO_COLOR and TERM make of a stream. */
export function wantsColors(choice: string, isTerminal: boolean, env: Io["env"]): boolean {
  if (choice === "always") return true;
  return choice === "auto" && isTerminal && !env.NO_COLOR && env.TERM !== "dumb";
}

export async function openColors(isWanted: boolean): Promise<Colors> {
  if (!isWanted) return noColors;
  const { Chalk } = await import("chalk");
  const chalk = new Chalk({ level: 1 });
  return { name: chalk.cyan, good: chalk.green, bad: chalk.red, faint: chalk.gray };
}
