/**
 * Flags as Go's pflag reads them: flags and arguments mix, `--` ends flags, `--f=v`, `--f v`, `-fv`, booleans take a
 * value only with `=`, numbers may have a base prefix. Scripts written for the Go tool depend on all of it.
 */

export type FlagType = "bool" | "string" | "uint";

export interface FlagSpec {
  readonly name: string;
  readonly short?: string;
  readonly type: FlagType;
  /** As it would be typed. */
  readonly default: string;
  readonly usage: string;
  readonly isRequired?: true;
  /** An addition of ours, listed apart so that the rest of the help stays what scripts know. */
  readonly own?: true | undefined;
}

/** A mistake in the flags; the message is pflag's. */
export class FlagError extends Error {
  override readonly name = "FlagError";
}

const UINT64_MAX = (1n << 64n) - 1n;
const TRUE = new Set(["1", "t", "T", "TRUE", "true", "True"]);
const FALSE = new Set(["0", "f", "F", "FALSE", "false", "False"]);

const quote = (text: string): string => JSON.stringify(text);

function check(type: FlagType, text: string): string | undefined {
  if (type === "bool" && !TRUE.has(text) && !FALSE.has(text)) {
    return `strconv.ParseBool: parsing ${quote(text)}: invalid syntax`;
  }
  if (type === "uint") {
    const value = parseUint(text);
    if (value === undefined) return `strconv.ParseUint: parsing ${quote(text)}: invalid syntax`;
    if (value > UINT64_MAX) return `strconv.ParseUint: parsing ${quote(text)}: value out of range`;
  }
  return undefined;
}

/** Base by prefix; underscores only where Go's literals have them. */
function parseUint(text: string): bigint | undefined {
  const match = /^(0[xX](?:_?[0-9a-fA-F])+|0[bB](?:_?[01])+|0[oO](?:_?[0-7])+|0(?:_?[0-7])*|[1-9](?:_?[0-9])*)$/.exec(
    text,
  );
  if (!match) return undefined;
  const digits = text.replaceAll("_", "");
  if (/^0[xXbBoO]/.test(digits)) return BigInt(digits.toLowerCase());
  return digits.length > 1 && digits.startsWith("0") ? BigInt(`0o${digits.substring(1)}`) : BigInt(digits);
}

export class FlagSet {
  readonly #specs = new Map<string, FlagSpec>();
  readonly #values = new Map<string, string>();
  /** What is no flag, in order. */
  args: readonly string[] = [];

  constructor(specs: readonly FlagSpec[]) {
    for (const spec of specs) this.#specs.set(spec.name, spec);
  }

  string(name: string): string {
    return this.#values.get(name) ?? this.#spec(name).default;
  }

  bool(name: string): boolean {
    return TRUE.has(this.string(name));
  }

  uint(name: string): bigint {
    return parseUint(this.string(name)) ?? 0n;
  }

  isSet(name: string): boolean {
    return this.#values.has(name);
  }

  /** Names of needed flags that are not there, in order of their names. */
  missing(): string[] {
    return [...this.#specs.values()]
      .filter((spec) => spec.isRequired && !this.#values.has(spec.name))
      .map((spec) => spec.name)
      .sort();
  }

  /** Throws {@link FlagError}. */
  parse(argv: readonly string[]): void {
    const rest = [...argv];
    const args: string[] = [];
    for (let word = rest.shift(); word !== undefined; word = rest.shift()) {
      if (word === "--") args.push(...rest.splice(0));
      else if (word.startsWith("--")) this.#long(word, rest);
      else if (word.startsWith("-") && word.length > 1) this.#short(word.substring(1), rest);
      else args.push(word);
    }
    this.args = args;
  }

  /** Whether a word takes the next one as its value: asked while the command is looked for. */
  takesNext(word: string): boolean {
    if (word.includes("=")) return false;
    const spec = word.startsWith("--") ? this.#specs.get(word.substring(2)) : this.#byShort(word.substring(1));
    return spec !== undefined && spec.type !== "bool";
  }

  #spec(name: string): FlagSpec {
    const spec = this.#specs.get(name);
    if (!spec) throw new Error(`no flag --${name}`);
    return spec;
  }

  #byShort(letter: string): FlagSpec | undefined {
    return [...this.#specs.values()].find((spec) => spec.short === letter);
  }

  #long(word: string, rest: string[]): void {
    const body = word.substring(2);
    if (body.startsWith("-") || body.startsWith("=")) throw new FlagError(`bad flag syntax: ${word}`);
    const equals = body.indexOf("=");
    const name = equals < 0 ? body : body.substring(0, equals);
    const spec = this.#specs.get(name);
    if (!spec) throw new FlagError(`unknown flag: --${name}`);
    if (equals >= 0) this.#set(spec, body.substring(equals + 1));
    else if (spec.type === "bool") this.#set(spec, "true");
    else if (rest.length > 0) this.#set(spec, rest.shift() as string);
    else throw new FlagError(`flag needs an argument: ${word}`);
  }

  #short(word: string, rest: string[]): void {
    for (let letters = word; letters !== ""; ) {
      const letter = letters[0] as string;
      const after = letters.substring(1);
      const spec = this.#byShort(letter);
      if (!spec) throw new FlagError(`unknown shorthand flag: '${letter}' in -${letters}`);
      if (after.length > 1 && after.startsWith("=")) this.#set(spec, after.substring(1));
      else if (spec.type === "bool") {
        this.#set(spec, "true");
        letters = after;
        continue;
      } else if (after !== "") this.#set(spec, after);
      else if (rest.length > 0) this.#set(spec, rest.shift() as string);
      else throw new FlagError(`flag needs an argument: '${letter}' in -${letters}`);
      return;
    }
  }

  #set(spec: FlagSpec, text: string): void {
    const problem = check(spec.type, text);
    if (problem !== undefined) {
      const label = spec.short ? `-${spec.short}, --${spec.name}` : `--${spec.name}`;
      throw new FlagError(`invalid argument ${quote(text)} for ${quote(label)} flag: ${problem}`);
    }
    this.#values.set(spec.name, text);
  }
}
