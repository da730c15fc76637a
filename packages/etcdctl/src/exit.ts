// Exit codes of etcdctl, and the error that ends a command with one.

export const SUCCESS = 0;
export const ERROR = 1;
export const BAD_CONNECTION = 2;
export const INVALID_INPUT = 3;
export const BAD_FEATURE = 4;
export const INTERRUPTED = 5;
export const BAD_ARGS = 128;

/** Ends the command: `Error: MESSAGE` on standard error, then this exit code. */
export class ExitError extends Error {
  override readonly name = "ExitError";
  readonly exitCode: number;
  /** True when everything was said already: only the code counts. */
  readonly isSpoken: boolean;

  constructor(exitCode: number, message: string, options: ErrorOptions & { readonly isSpoken?: boolean } = {}) {
    super(message, options);
    this.exitCode = exitCode;
    this.isSpoken = options.isSpoken ?? false;
  }
}

export const badArgs = (message: string): ExitError => new ExitError(BAD_ARGS, message);

/** Ends the command with a code, when all was said already. @param message what was said, for --errors=json */
export const exitSilently = (exitCode: number, message = "failed"): ExitError =>
  new ExitError(exitCode, message, { isSpoken: true });
