// Shows that something is going on: on standard error, and only on a terminal.
import type { Io } from "./io.ts";

export interface Progress {
  update(text: string): void;
  stop(): void;
}

const BAR_WIDTH = 30;

/** `[=========>          ]  45%` */
export function bar(done: number, total: number): string {
  const part = Math.min(1, Math.max(0, done / total));
  const filled = Math.round(part * BAR_WIDTH);
  const line = filled === 0 || filled === BAR_WIDTH ? "=".repeat(filled) : `${"=".repeat(filled - 1)}>`;
  return `[${line.padEnd(BAR_WIDTH)}] ${String(Math.floor(part * 100)).padStart(3)}%`;
}

const silent: Progress = { update() {}, stop() {} };

export async function startProgress(io: Pick<Io, "err" | "env">, text: string): Promise<Progress> {
  // A terminal that does not say how wide it is cannot be drawn on: the spinner would count lines without end.
  if (!io.err.isTerminal || io.env.TERM === "dumb" || !process.stderr.columns) return silent;
  const { default: ora } = await import("ora");
  const color = io.env.NO_COLOR ? (false as const) : ("cyan" as const);
  // discardStdin: false, since standard input may hold what the command is about to read.
  const spinner = ora({ text, stream: process.stderr, discardStdin: false, ...(color ? { color } : {}) }).start();
  return {
    update(next) {
      spinner.text = next;
    },
    stop() {
      spinner.stop();
    },
  };
}
