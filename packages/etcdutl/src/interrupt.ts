/** Ctrl-C while something is being written: what has been begun is taken away, and the exit code is a shell's. */
import { ExitError } from "./exit.ts";

const EXIT_CODES = { SIGINT: 130, SIGTERM: 143 } as const;

/** Runs a command that stops when its signal is aborted. A second signal ends the process where it is. */
export async function interruptible<T>(run: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  let received: keyof typeof EXIT_CODES | undefined;
  const onSignal = (signal: NodeJS.Signals): void => {
    if (received) process.exit(EXIT_CODES[received]);
    received = signal as keyof typeof EXIT_CODES;
    controller.abort(new Error(`interrupted by ${signal}`));
  };
  process.on("SIGINT", onSignal);
  process.on("SIGTERM", onSignal);
  try {
    return await run(controller.signal);
  } catch (error) {
    if (received && controller.signal.aborted) {
      throw new ExitError(EXIT_CODES[received], "interrupted: nothing was changed", { cause: error });
    }
    throw error;
  } finally {
    process.off("SIGINT", onSignal);
    process.off("SIGTERM", onSignal);
  }
}
