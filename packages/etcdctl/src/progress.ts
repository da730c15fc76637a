// Shows that something is going on: on standard error, and only on a terminal.
import type { Io } from "./io.ts";

export interface Progress {
  update(text: string): void;
  stop(): void;
}

const silent: Progress = { update() {}, stop() {} };

export async function startProgress(io: Pick<Io, "err" | "env">, text: string): Promise<Progress> {
  if (!io.err.isTerminal || io.env.TERM === "dumb") return silent;
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
