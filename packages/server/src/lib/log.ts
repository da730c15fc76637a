/**
 * The logger that rooms write to. Encoders and outputs (JSON in zap's shape, console, files, rotation) are the
 * server's; this is only what every room needs.
 */

/** Values are encoded as zap would: bigint as a bare number, Error as its message, Uint8Array as base64. */
export type LogFields = Readonly<Record<string, unknown>>;

export interface Logger {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
  /** Whether debug lines go anywhere, so that building their fields can be left out. */
  readonly isDebugEnabled: boolean;
  /** The same of lines of information; they go somewhere unless this says false. */
  readonly isInfoEnabled?: boolean;
  /** The same outputs, the lines marked as `name`'s. */
  named?(name: string): Logger;
}

export const silentLogger: Logger = {
  debug() {},
  info() {},
  warn() {},
  error() {},
  isDebugEnabled: false,
};
