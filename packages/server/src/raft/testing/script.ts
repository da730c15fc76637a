/**
 * Golden scripts: directives with their expected output, in the format of Go's `datadriven`.
 *
 *   # comment
 *   command key key=value key=(a,b)
 *   input
 *   ----
 *   output, up to a blank line
 *
 * A trailing backslash joins a directive with the next line. Output that holds blank lines stands between two lines
 * `----` at its beginning and two at its end. {@link runScript} replays a script and gives back what it would be like if
 * the output were as it came out.
 */

export interface Argument {
  readonly key: string;
  /** Empty for a bare word; `key=` has one empty value. */
  readonly values: readonly string[];
}

export interface Directive {
  /** `file:line` */
  readonly position: string;
  readonly command: string;
  readonly args: readonly Argument[];
  readonly input: string;
  readonly expected: string;
}

/** The value of `key=value`, or undefined. */
export function argument(directive: Directive, key: string): string | undefined {
  return directive.args.find((arg) => arg.key === key)?.values[0];
}

function parseArguments(text: string): Argument[] {
  const args: Argument[] = [];
  let at = 0;
  const skipSpaces = (): void => {
    while (text[at] === " ") at++;
  };
  for (skipSpaces(); at < text.length; skipSpaces()) {
    const start = at;
    while (at < text.length && text[at] !== " " && text[at] !== "=") at++;
    const key = text.slice(start, at);
    if (text[at] !== "=") {
      args.push({ key, values: [] });
      continue;
    }
    at++;
    if (text[at] !== "(") {
      const from = at;
      while (at < text.length && text[at] !== " ") at++;
      args.push({ key, values: [text.slice(from, at)] });
      continue;
    }
    const values: string[] = [];
    let value = "";
    for (let depth = 0; at < text.length; at++) {
      const char = text[at] as string;
      if (char === "(" && depth++ === 0) continue;
      if (char === ")" && --depth === 0) {
        at++;
        break;
      }
      if (char === "," && depth === 1) {
        values.push(value.trim());
        value = "";
      } else {
        value += char;
      }
    }
    values.push(value.trim());
    args.push({ key, values });
  }
  return args;
}

/** The file in pieces: directives, and the lines between them as they stand. */
interface Piece {
  readonly directive: Directive;
  /** Everything up to and with the line `----`. */
  readonly head: readonly string[];
}

function parse(file: string, text: string): { pieces: Piece[]; tail: readonly string[] } {
  const lines = text.replace(/\n$/, "").split("\n");
  const pieces: Piece[] = [];
  let head: string[] = [];
  let at = 0;
  const next = (): string => {
    const line = lines[at++] as string;
    head.push(line);
    return line;
  };
  while (at < lines.length) {
    const position = `${file}:${at + 1}`;
    let line = next().trim();
    if (line === "" || line.startsWith("#")) continue;
    while (line.endsWith("\\")) line = `${line.slice(0, -1)} ${next().trim()}`;
    const [, command = "", rest = ""] = /^(\S+)\s*(.*)$/.exec(line) ?? [];
    const input: string[] = [];
    for (;;) {
      if (at >= lines.length) throw new Error(`${position}: no ---- after ${command}`);
      const one = next();
      if (one === "----") break;
      input.push(one);
    }
    const output: string[] = [];
    if (lines[at] === "----") {
      for (at++; !(lines[at] === "----" && lines[at + 1] === "----"); at++) {
        if (at >= lines.length) throw new Error(`${position}: the output of ${command} does not end`);
        output.push(lines[at] as string);
      }
      at += 2;
    } else {
      for (; at < lines.length && lines[at] !== ""; at++) output.push(lines[at] as string);
    }
    const expected = output.map((one) => `${one}\n`).join("");
    const directive = { position, command, args: parseArguments(rest), input: input.join("\n").trim(), expected };
    pieces.push({ directive, head });
    head = [];
  }
  return { pieces, tail: head };
}

export interface ScriptResult {
  readonly directives: number;
  /** `file:line` with expected and actual output, for those that differ. */
  readonly differences: readonly { readonly position: string; readonly expected: string; readonly actual: string }[];
  /** The script with the actual output in place of the expected one. */
  readonly rewritten: string;
}

/** Replays a script: `run` gives the output of each directive. `name` stands in the positions. */
export function runScript(name: string, text: string, run: (directive: Directive) => string): ScriptResult {
  const { pieces, tail } = parse(name, text);
  const differences: { position: string; expected: string; actual: string }[] = [];
  const rewritten: string[] = [];
  for (const { directive, head } of pieces) {
    const output = run(directive);
    const actual = output === "" || output.endsWith("\n") ? output : `${output}\n`;
    if (actual !== directive.expected) {
      differences.push({ position: directive.position, expected: directive.expected, actual });
    }
    const body = actual.replace(/\n$/, "");
    rewritten.push(...head);
    if (body !== "" && body.split("\n").includes("")) rewritten.push("----", body, "----", "----");
    else if (body !== "") rewritten.push(body);
  }
  rewritten.push(...tail);
  return { directives: pieces.length, differences, rewritten: `${rewritten.join("\n")}\n` };
}
