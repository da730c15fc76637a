/** What the long commands have in common: they show how far they are, and stop when they are asked to. */
import type { JobOptions } from "@etcd-ts/server/storage";
import type { CommandContext } from "./context.ts";
import { interruptible } from "./interrupt.ts";
import { progressBar } from "./progress.ts";

export function runJob<T>(context: CommandContext, run: (job: JobOptions) => Promise<T>): Promise<T> {
  const bar = progressBar(context.io);
  return interruptible(async (signal) => {
    try {
      return await run({ signal, onProgress: bar.onProgress });
    } finally {
      bar.end();
    }
  });
}

/** With `-w json`: what was done, as one object. The other formats leave it at the log lines, as the Go tool does. */
export function printDone({ flags, io }: CommandContext, done: Readonly<Record<string, unknown>>): void {
  if (flags.string("write-out") === "json") io.out.write(`${JSON.stringify(done)}\n`);
}

/** What `--dry-run` found: the plan, one line each, or as JSON. */
export function printPlan(
  context: CommandContext,
  lines: readonly (readonly [what: string, value: string])[],
  json: Readonly<Record<string, unknown>>,
): void {
  if (context.flags.string("write-out") === "json") {
    context.io.out.write(`${JSON.stringify({ dryRun: true, ...json })}\n`);
    return;
  }
  const width = Math.max(...lines.map(([what]) => what.length));
  for (const [what, value] of lines) context.io.out.write(`${what.padEnd(width)}  ${value}\n`);
}

export const hex = (id: bigint): string => id.toString(16);
