/** What a command needs of the process. Tests pass another. */

export interface Output {
  write(text: string): void;
  readonly isTerminal: boolean;
}

export interface Io {
  /** Without the program's own name. */
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly out: Output;
  readonly err: Output;
}
