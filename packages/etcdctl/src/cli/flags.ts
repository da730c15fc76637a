// Flags as Go's pflag reads them, for scripts written for the Go tool depend on it: flags and arguments mix, `--` ends
// flags, `--f=v`, `--f v`, `-fv`, `-f=v`, booleans take a value only with `=`, numbers may have a base prefix, and each
// mistake has a text of its own. (Commander has another grammar in all of these points, which is why it is not used.)
import { toBytes } from "../go/bytes.ts";
import { quote, quoteRune } from "../go/quote.ts";
import { formatDuration, ParseError, parseBool, parseDuration, parseInt64, parseUint64 } from "../go/strconv.ts";

export type FlagType = "bool" | "string" | "int" | "int64" | "uint64" | "duration" | "stringSlice";

export interface FlagSpec {
  readonly name: string;
  readonly short?: string;
  readonly type: FlagType;
  /** As it would be typed; `false` for a bool left out. */
  readonly default?: string;
  readonly usage: string;
  /** An addition of ours: listed in a section of its own, so that the rest of the help stays what scripts know. */
  readonly own?: true;
}

/** A mistake in the flags; the message is pflag's. */
export class FlagError extends Error {
  override readonly name = "FlagError";
}

type FlagValue = boolean | string | bigint | readonly string[];

interface FlagState {
  readonly spec: FlagSpec;
  value: FlagValue;
  changed: boolean;
}

/** The flags of one command line: definitions, values, and what was left over. */
export class FlagSet {
  readonly #flags = new Map<string, FlagState>();
  readonly #shorts = new Map<string, FlagState>();
  /** What is no flag, in order; filled by `parse`. */
  args: readonly string[] = [];

  constructor(specs: Iterable<FlagSpec>) {
    for (const spec of specs) {
      if (this.#flags.has(spec.name)) continue;
      const state: FlagState = {
        spec,
        value: parseValue(spec.type, spec.default ?? zeroText(spec.type)),
        changed: false,
      };
      this.#flags.set(spec.name, state);
      if (spec.short) this.#shorts.set(spec.short, state);
    }
  }

  *specs(): Generator<FlagSpec> {
    for (const { spec } of this.#flags.values()) yield spec;
  }

  has(name: string): boolean {
    return this.#flags.has(name);
  }

  /** True when the flag stands on the command line, or was taken from the environment. */
  changed(name: string): boolean {
    return this.#state(name).changed;
  }

  bool(name: string): boolean {
    return this.#state(name).value as boolean;
  }

  string(name: string): string {
    return this.#state(name).value as string;
  }

  list(name: string): readonly string[] {
    return this.#state(name).value as readonly string[];
  }

  /** An integer flag, all 64 bits. */
  bigint(name: string): bigint {
    return this.#state(name).value as bigint;
  }

  /** An integer flag, saturated at +-(2^53 - 1): past that it compares the same with every real revision or count. */
  number(name: string): number {
    return saturate(this.bigint(name));
  }

  /** A duration flag in milliseconds. */
  milliseconds(name: string): number {
    return Number(this.bigint(name)) / 1e6;
  }

  /** The value as Go prints it. */
  text(name: string): string {
    const { spec, value } = this.#state(name);
    if (spec.type === "stringSlice") return `[${(value as readonly string[]).join(",")}]`;
    return spec.type === "duration" ? formatDuration(value as bigint) : String(value);
  }

  /**
   * Sets a flag from text that did not come from the command line.
   * @returns false when the text does not parse; a bool is false then, anything else keeps its value
   */
  setFromText(name: string, text: string): boolean {
    const state = this.#state(name);
    try {
      this.#assign(state, text);
      return true;
    } catch (error) {
      if (!(error instanceof ParseError)) throw error;
      if (state.spec.type === "bool") state.value = false;
      return false;
    }
  }

  /** Reads a command line. @throws FlagError */
  parse(argv: readonly string[]): void {
    const rest = [...argv];
    const args: string[] = [];
    for (let word = rest.shift(); word !== undefined; word = rest.shift()) {
      if (word === "--") {
        args.push(...rest.splice(0));
      } else if (word.startsWith("--")) {
        this.#parseLong(word, rest);
      } else if (word.startsWith("-") && word.length > 1) {
        this.#parseShort(word.slice(1), rest);
      } else {
        args.push(word);
      }
    }
    this.args = args;
  }

  /** Whether `--name` (or `-n`) takes the next word as its value: asked while a command is looked for. */
  takesNextWord(word: string): boolean {
    if (word.includes("=")) return false;
    if (word.startsWith("--")) return this.#flags.get(word.slice(2))?.spec.type !== "bool";
    if (!word.startsWith("-") || word.length !== 2) return false;
    return this.#shorts.get(word.slice(1))?.spec.type !== "bool";
  }

  #state(name: string): FlagState {
    const state = this.#flags.get(name);
    if (!state) throw new Error(`no flag --${name}`);
    return state;
  }

  #parseLong(word: string, rest: string[]): void {
    const body = word.slice(2);
    if (body.startsWith("-") || body.startsWith("=")) throw new FlagError(`bad flag syntax: ${word}`);
    const equals = body.indexOf("=");
    const name = equals < 0 ? body : body.slice(0, equals);
    const state = this.#flags.get(name);
    if (!state) throw new FlagError(`unknown flag: --${name}`);
    if (equals >= 0) this.#set(state, body.slice(equals + 1));
    else if (state.spec.type === "bool") this.#set(state, "true");
    else if (rest.length > 0) this.#set(state, rest.shift() as string);
    else throw new FlagError(`flag needs an argument: ${word}`);
  }

  #parseShort(word: string, rest: string[]): void {
    let letters = word;
    while (letters !== "") {
      const letter = String.fromCodePoint(letters.codePointAt(0) as number);
      const after = letters.slice(letter.length);
      const here = letters;
      const state = this.#shorts.get(letter);
      if (!state) {
        // pflag looks at bytes, and shows the first of a longer letter as a letter of its own.
        const byte = String.fromCharCode(toBytes(letter)[0] as number);
        throw new FlagError(`unknown shorthand flag: ${quoteRune(byte)} in -${here}`);
      }
      letters = "";
      if (after.length > 1 && after.startsWith("=")) this.#set(state, after.slice(1));
      else if (state.spec.type === "bool") {
        this.#set(state, "true");
        letters = after;
      } else if (after !== "") this.#set(state, after);
      else if (rest.length > 0) this.#set(state, rest.shift() as string);
      else throw new FlagError(`flag needs an argument: ${quoteRune(letter)} in -${here}`);
    }
  }

  #set(state: FlagState, text: string): void {
    try {
      this.#assign(state, text);
    } catch (error) {
      if (!(error instanceof ParseError)) throw error;
      const { name, short } = state.spec;
      const label = short ? `-${short}, --${name}` : `--${name}`;
      throw new FlagError(`invalid argument ${quote(text)} for ${quote(label)} flag: ${error.message}`);
    }
  }

  #assign(state: FlagState, text: string): void {
    const value = parseValue(state.spec.type, text);
    // A list adds up, but the first use replaces the default.
    state.value = Array.isArray(value) && state.changed ? [...(state.value as readonly string[]), ...value] : value;
    state.changed = true;
  }
}

/** Past 2^53 - 1 a counter compares the same with every real one. */
export function saturate(value: bigint): number {
  const max = BigInt(Number.MAX_SAFE_INTEGER);
  return Number(value > max ? max : value < -max ? -max : value);
}

function zeroText(type: FlagType): string {
  return type === "bool"
    ? "false"
    : type === "string" || type === "stringSlice"
      ? ""
      : type === "duration"
        ? "0s"
        : "0";
}

function parseValue(type: FlagType, text: string): FlagValue {
  switch (type) {
    case "bool":
      return parseBool(text);
    case "string":
      return text;
    case "int":
    case "int64":
      return parseInt64(text, 0);
    case "uint64":
      return parseUint64(text, 0);
    case "duration":
      return parseDuration(text);
    case "stringSlice":
      return parseCsv(text);
  }
}

/** One CSV record, as Go's encoding/csv reads it. */
function parseCsv(text: string): readonly string[] {
  if (text === "") return [];
  const bytesBefore = (index: number): number => toBytes(text.slice(0, index)).length;
  const fields: string[] = [];
  let i = 0;
  for (;;) {
    let field = "";
    if (text[i] === '"') {
      i++;
      for (;;) {
        const end = text.indexOf('"', i);
        if (end < 0) throw csvError(bytesBefore(text.length) + 1, 'extraneous or missing " in quoted-field');
        field += text.slice(i, end);
        i = end + 1;
        if (text[i] !== '"') break;
        field += '"';
        i++;
      }
      if (i < text.length && text[i] !== ",") throw csvError(bytesBefore(i), 'extraneous or missing " in quoted-field');
    } else {
      const comma = text.indexOf(",", i);
      const end = comma < 0 ? text.length : comma;
      field = text.slice(i, end);
      const bare = field.indexOf('"');
      if (bare >= 0) throw csvError(bytesBefore(i + bare) + 1, 'bare " in non-quoted-field');
      i = end;
    }
    fields.push(field);
    if (i >= text.length) return fields;
    i++;
  }
}

const csvError = (column: number, problem: string): ParseError =>
  new ParseError(`parse error on line 1, column ${column}: ${problem}`);
