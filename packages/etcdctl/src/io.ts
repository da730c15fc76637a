// What a command sees of the world outside: streams, environment, terminal, child processes, signals. main.ts makes the
// real one; tests make theirs.

export interface Output {
  write(piece: string | Uint8Array): void;
  /** A terminal with a size: one that somebody sees. */
  readonly isTerminal: boolean;
}

export interface Input {
  readonly isTerminal: boolean;
  /** Everything up to the end. */
  readAll(): Promise<Uint8Array>;
  /** Lines without their newline; what stands after the last newline is dropped. */
  lines(): AsyncIterable<string>;
  /**
   * One line, or what is left before the end, without reading past it.
   * @param isSecret do not show what is typed
   */
  readLine(isSecret: boolean): Promise<string>;
}

export type ChildEnd =
  | { readonly kind: "exited"; readonly code: number }
  | { readonly kind: "killed"; readonly signal: string }
  | { readonly kind: "notStarted"; readonly reason: string };

export interface Child {
  /** The command and its arguments. */
  readonly words: readonly string[];
  /** Added to the environment. */
  readonly env: Readonly<Record<string, string>>;
  /** True: the child reads our standard input; else it has none. */
  readonly hasInput?: boolean;
}

export interface Io {
  /** The words after the program's name. */
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly out: Output;
  readonly err: Output;
  readonly input: Input;
  /** The words that start another program of ours, the one installed beside this one. */
  sibling(name: string): readonly string[];
  /** Runs a command with our output streams, to its end. */
  run(child: Child): Promise<ChildEnd>;
  /** From now on SIGINT and SIGTERM abort the signal, with their name as reason, instead of ending the process. */
  catchSignals(): AbortSignal;
  /** Milliseconds, with fractions, from some fixed point. */
  now(): number;
  /** Wall-clock time, microseconds included, as log lines carry it. */
  timestamp(): string;
}

/** How a log line looks on standard error: zap's JSON. */
export function writeLog(
  io: Pick<Io, "err" | "timestamp">,
  level: "info" | "warn" | "error" | "fatal",
  caller: string,
  message: string,
  fields: Readonly<Record<string, unknown>> = {},
  logger?: string,
): void {
  const line = { level, ts: io.timestamp(), ...(logger ? { logger } : {}), caller, msg: message, ...fields };
  io.err.write(`${JSON.stringify(line)}\n`);
}
