/** Failures of the tools in the words that Go's os package has for them. */

/** Ends a command with its message as the whole explanation. */
export class OfflineError extends Error {
  override readonly name: string = "OfflineError";
}

/** The data directory holds no database of either kind. */
export class NoDatabaseError extends OfflineError {
  override readonly name = "NoDatabaseError";
}

/** The same for commands that end with a log line of level fatal. */
export class OfflineFatal extends Error {
  override readonly name = "OfflineFatal";

  constructor(message: string, cause: unknown) {
    super(message, { cause });
  }
}

const TEXTS: Readonly<Record<string, string>> = {
  EACCES: "permission denied",
  EBUSY: "device or resource busy",
  EDQUOT: "disk quota exceeded",
  EEXIST: "file exists",
  EFBIG: "file too large",
  EINVAL: "invalid argument",
  EIO: "input/output error",
  EISDIR: "is a directory",
  EMFILE: "too many open files",
  ENAMETOOLONG: "file name too long",
  ENOENT: "no such file or directory",
  ENOSPC: "no space left on device",
  ENOTDIR: "not a directory",
  ENOTEMPTY: "directory not empty",
  EPERM: "operation not permitted",
  EROFS: "read-only file system",
};

export function isSystemError(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && typeof (error as NodeJS.ErrnoException).code === "string" && "syscall" in error;
}

/** `open /x/y: no such file or directory`, or the message as it is when the error is not the system's. */
export function offlineErrorText(
  error: unknown,
  place: { readonly call?: string; readonly path?: string } = {},
): string {
  if (!isSystemError(error)) return error instanceof Error ? error.message : String(error);
  const text = TEXTS[error.code ?? ""] ?? error.message;
  const call = place.call ?? error.syscall ?? "";
  const path = place.path ?? error.path;
  return path === undefined ? `${call}: ${text}` : `${call} ${path}: ${text}`;
}
