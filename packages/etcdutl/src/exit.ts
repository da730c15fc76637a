/** Exit codes of etcdutl, and the error that ends a command with one. */

export const SUCCESS = 0;
export const ERROR = 1;
/** The database is not there: etcd's tool panics, and a Go program that does ends with 2. */
export const NO_DATABASE = 2;
export const BAD_FEATURE = 4;
/** `verify` found damage that a start of the server or another command mends. */
export const REPAIRABLE = 10;
/** `verify` found that data of this member is gone. */
export const LOST = 20;
export const BAD_ARGS = 128;

/** Ends the command: `Error: MESSAGE` on standard error, then this exit code. */
export class ExitError extends Error {
  override readonly name = "ExitError";
  readonly exitCode: number;

  constructor(exitCode: number, message: string, options?: ErrorOptions) {
    super(message, options);
    this.exitCode = exitCode;
  }
}

export const badArgs = (message: string): ExitError => new ExitError(BAD_ARGS, message);
