/**
 * From argv, environment and config file to one map of values, by etcd's precedence: a config file silences the
 * other two; otherwise flags, then variables for flags that were not given; both at once is fatal.
 */
import { parseGoDuration } from "../lib/go-format.ts";
import { envName, type FlagSpec, flagSpecs } from "./flags.ts";
import { parseEtcdUrls } from "../lib/listen-url.ts";

export type FlagValue = string | boolean | number | readonly string[];

/** The command line cannot be understood: a line on stderr, the usage, exit code 2. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/** The configuration is understood and refused: warn `failed to verify flags`, exit code 1. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
}

const specByName: ReadonlyMap<string, FlagSpec> = new Map(flagSpecs.map((spec) => [spec.name, spec]));

const TRUE = new Set(["1", "t", "T", "TRUE", "true", "True"]);
const FALSE = new Set(["0", "f", "F", "FALSE", "false", "False"]);
const PARSE_ERROR = "parse error";
const RANGE_ERROR = "value out of range";

/** Go's syntax of integer literals: prefixes, and underscores between digits when there is a prefix. */
function parseGoInteger(text: string): bigint | undefined {
  const match = /^([+-]?)(0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+|0[0-7_]*|[1-9][0-9]*)$/.exec(text);
  if (!match) return undefined;
  const digits = (match[2] as string).replaceAll("_", "");
  const value = /^0[0-7]+$/.test(digits) ? BigInt(`0o${digits.substring(1)}`) : BigInt(digits);
  return match[1] === "-" ? -value : value;
}

const SAFE = BigInt(Number.MAX_SAFE_INTEGER);

function boundedInteger(text: string, low: bigint, high: bigint): number {
  const value = parseGoInteger(text);
  if (value === undefined || (low === 0n && /^[+-]/.test(text))) throw new Error(PARSE_ERROR);
  if (value < low || value > high) throw new Error(RANGE_ERROR);
  return Number(value > SAFE ? SAFE : value < -SAFE ? -SAFE : value);
}

/** The value that a flag takes for a text. Throws an Error whose message is Go's. */
export function parseFlagValue(spec: FlagSpec, text: string): FlagValue {
  switch (spec.kind) {
    case "string":
      return text;
    case "bool":
      if (TRUE.has(text)) return true;
      if (FALSE.has(text)) return false;
      throw new Error(PARSE_ERROR);
    case "ignored":
      return text;
    case "int":
    case "int64":
      return boundedInteger(text, -(1n << 63n), (1n << 63n) - 1n);
    case "uint":
    case "uint64":
      return boundedInteger(text, 0n, (1n << 64n) - 1n);
    case "uint32":
      if (!/^\d+$/.test(text) && parseGoInteger(text) === undefined) {
        throw new Error(`strconv.ParseUint: parsing ${JSON.stringify(text)}: invalid syntax`);
      }
      try {
        return boundedInteger(text, 0n, (1n << 32n) - 1n);
      } catch (error) {
        const reason = (error as Error).message === RANGE_ERROR ? RANGE_ERROR : "invalid syntax";
        throw new Error(`strconv.ParseUint: parsing ${JSON.stringify(text)}: ${reason}`);
      }
    case "duration":
      try {
        return parseGoDuration(text);
      } catch {
        throw new Error(PARSE_ERROR);
      }
    case "urls":
      return text === "" ? [] : parseEtcdUrls(text);
    case "cors":
      return text === "*" || text === "" ? [text] : parseEtcdUrls(text);
    case "strings":
      return text === "" ? [] : text.split(",");
    case "uniqueStrings":
      return [...new Set(text.split(",").map((part) => part.trim()))].sort();
    case "enum":
      if (!spec.choices?.includes(text)) throw new Error("invalid value");
      return text;
  }
}

/** Values by flag name, and which of them somebody gave. */
export class FlagSet {
  readonly #values = new Map<string, FlagValue>();
  readonly #set = new Set<string>();

  constructor() {
    for (const spec of flagSpecs) this.#values.set(spec.name, parseFlagValue(spec, spec.fallback));
  }

  set(name: string, value: FlagValue): void {
    this.#values.set(name, value);
    this.#set.add(name);
  }

  /** As {@link set}, but it does not count as given. */
  setQuietly(name: string, value: FlagValue): void {
    this.#values.set(name, value);
  }

  isSet(name: string): boolean {
    return this.#set.has(name);
  }

  given(): readonly string[] {
    return [...this.#set];
  }

  #get(name: string): FlagValue {
    const value = this.#values.get(name);
    if (value === undefined) throw new Error(`no such flag: ${name}`);
    return value;
  }

  text(name: string): string {
    return String(this.#get(name));
  }

  bool(name: string): boolean {
    return this.#get(name) === true;
  }

  number(name: string): number {
    return Number(this.#get(name));
  }

  list(name: string): readonly string[] {
    const value = this.#get(name);
    return Array.isArray(value) ? (value as readonly string[]) : [];
  }
}

export interface ParsedArguments {
  readonly flags: FlagSet;
  readonly isHelp: boolean;
  /** What stands after the flags; etcd takes none. */
  readonly rest: readonly string[];
}

/** Go's flag package: one dash or two, `-x v`, `-x=v`, booleans without a value word, stop at the first other word. */
export function parseArguments(args: readonly string[]): ParsedArguments {
  const flags = new FlagSet();
  let i = 0;
  while (i < args.length) {
    const word = args[i] as string;
    if (word.length < 2 || !word.startsWith("-")) break;
    if (word === "--") {
      i++;
      break;
    }
    const body = word.substring(word.startsWith("--") ? 2 : 1);
    if (body === "" || body.startsWith("-") || body.startsWith("=")) throw new UsageError(`bad flag syntax: ${word}`);
    i++;
    const equals = body.indexOf("=", 1);
    const name = equals === -1 ? body : body.substring(0, equals);
    let value = equals === -1 ? undefined : body.substring(equals + 1);
    const spec = specByName.get(name);
    if (!spec) {
      if (name === "help" || name === "h") return { flags, isHelp: true, rest: [] };
      throw new UsageError(`flag provided but not defined: -${name}`);
    }
    if (spec.kind === "bool" || spec.kind === "ignored") {
      value ??= "true";
    } else if (value === undefined) {
      value = args[i];
      if (value === undefined) throw new UsageError(`flag needs an argument: -${name}`);
      i++;
    }
    try {
      flags.set(name, parseFlagValue(spec, value));
    } catch (error) {
      const reason = (error as Error).message;
      const quoted = JSON.stringify(value);
      throw new UsageError(
        spec.kind === "bool"
          ? `invalid boolean value ${quoted} for -${name}: ${reason}`
          : `invalid value ${quoted} for flag -${name}: ${reason}`,
      );
    }
  }
  return { flags, isHelp: false, rest: args.slice(i) };
}

/** What reading the environment has to say, in order. */
export interface EnvironmentNote {
  readonly level: "info" | "warn" | "fatal";
  readonly message: string;
  readonly fields: Readonly<Record<string, string>>;
}

const SHADOWED =
  "conflicting environment variable is shadowed by corresponding command-line flag (either unset environment variable or disable flag))";

/** Fills what the command line left open. The last bad value is the error, as etcd reads on after one. */
export function applyEnvironment(
  flags: FlagSet,
  environment: Readonly<Record<string, string | undefined>>,
): { readonly notes: readonly EnvironmentNote[]; readonly error: ConfigError | undefined } {
  const notes: EnvironmentNote[] = [];
  const given = new Set(flags.given().map(envName));
  const used = new Set<string>();
  let failure: ConfigError | undefined;
  const version = environment["ETCD_VERSION"];
  if (version) {
    notes.push({
      level: "warn",
      message: "cannot set special environment variable",
      fields: { key: "ETCD_VERSION", value: version },
    });
  }
  for (const spec of [...flagSpecs].sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const key = envName(spec.name);
    const value = environment[key];
    if (given.has(key) || !value || key === "ETCD_VERSION") continue;
    used.add(key);
    try {
      flags.set(spec.name, parseFlagValue(spec, value));
    } catch (error) {
      failure = new ConfigError(`invalid value ${JSON.stringify(value)} for ${key}: ${(error as Error).message}`);
      continue;
    }
    notes.push({
      level: "info",
      message: "recognized and used environment variable",
      fields: { "variable-name": key, "variable-value": value },
    });
  }
  for (const [key, value] of Object.entries(environment)) {
    if (value === undefined || used.has(key) || key === "ETCD_VERSION") continue;
    if (given.has(key)) {
      notes.push({ level: "fatal", message: SHADOWED, fields: { "environment-variable": key } });
      break;
    }
    if (key.startsWith("ETCD_")) {
      notes.push({
        level: "warn",
        message: "unrecognized environment variable",
        fields: { "environment-variable": `${key}=${value}` },
      });
    }
  }
  return { notes, error: failure };
}

const goTypes: Readonly<Record<FlagSpec["kind"], string>> = {
  string: "string",
  bool: "bool",
  int: "int",
  int64: "int64",
  uint: "uint",
  uint32: "uint32",
  uint64: "uint64",
  duration: "time.Duration",
  urls: "string",
  cors: "string",
  strings: "[]string",
  uniqueStrings: "[]string",
  enum: "string",
  ignored: "string",
};

function jsonTypeName(value: unknown): string {
  if (Array.isArray(value)) return "array";
  return value === null ? "null" : typeof value === "boolean" ? "bool" : typeof value;
}

function typeError(value: unknown, spec: FlagSpec, key: string, goType: string): ConfigError {
  const shown = typeof value === "number" && goType !== "string" ? `number ${value}` : jsonTypeName(value);
  const owner =
    spec.kind === "urls" || spec.kind === "cors" || spec.name === "host-whitelist" ? "configJSON" : "Config";
  return new ConfigError(
    `error unmarshaling JSON: while decoding JSON: json: cannot unmarshal ${shown} into Go struct field configYAML.${owner}.${key} of type ${goType}`,
  );
}

/** Lists that a config file writes as one comma-separated string. */
const STRING_LISTS = new Set(["host-whitelist"]);

/** Texts etcd prints for URL lists of a config file; one of them names the wrong flag, and scripts know it so. */
function urlSettingName(flag: string): string {
  return flag === "advertise-client-urls" ? "advertise-peer-urls" : flag;
}

/** A line on stderr and exit code 1, without any log line. */
export class SetupError extends Error {
  override readonly name = "SetupError";
}

function fileValue(spec: FlagSpec, key: string, value: unknown): FlagValue {
  const isStringList = STRING_LISTS.has(spec.name);
  const goType = isStringList ? "string" : goTypes[spec.kind];
  switch (spec.kind) {
    case "bool":
      if (typeof value !== "boolean") throw typeError(value, spec, key, goType);
      return value;
    case "int":
    case "int64":
    case "uint":
    case "uint32":
    case "uint64":
    case "duration": {
      const isUnsigned = spec.kind.startsWith("uint");
      if (typeof value !== "number" || !Number.isInteger(value) || (isUnsigned && value < 0)) {
        throw typeError(value, spec, key, goType);
      }
      return spec.kind === "duration" ? value / 1e6 : value;
    }
    default: {
      if (goType === "[]string") {
        if (!Array.isArray(value)) throw typeError(value, spec, key, goType);
        return value.map(String);
      }
      if (typeof value === "object") throw typeError(value, spec, key, goType);
      const text = String(value);
      if (spec.kind === "enum" && spec.name === "initial-cluster-state") {
        if (text !== "" && !spec.choices?.includes(text)) {
          throw new ConfigError(`unexpected clusterState ${JSON.stringify(text)}`);
        }
        return text === "" ? "new" : text;
      }
      if (spec.kind === "enum" && !spec.choices?.includes(text)) {
        const setting = spec.name === "proxy" ? "proxyFlag" : `${spec.name} flag`;
        if (spec.name === "v2-deprecation") return spec.fallback;
        throw new SetupError(`unexpected error setting up ${setting}: invalid value`);
      }
      if (spec.kind === "enum") return text;
      if (spec.kind === "string") return text;
      try {
        return parseFlagValue(spec, text);
      } catch (error) {
        throw new SetupError(`unexpected error setting up ${urlSettingName(spec.name)}: ${(error as Error).message}`);
      }
    }
  }
}

/** Defaults that differ when the values come from a file. */
const fileDefaults: Readonly<Record<string, string>> = {
  "auto-compaction-mode": "",
  "auto-compaction-retention": "",
  "tls-min-version": "",
};

/**
 * Values from the parsed content of a config file; the rest keeps its default. Throws ConfigError for what cannot be
 * decoded and SetupError for what etcd reports outside its log.
 */
export function flagsFromFile(content: unknown): FlagSet {
  const flags = new FlagSet();
  for (const [name, text] of Object.entries(fileDefaults)) flags.setQuietly(name, text);
  if (content === null || content === undefined) return flags;
  if (typeof content !== "object" || Array.isArray(content)) {
    throw new ConfigError(
      `error unmarshaling JSON: while decoding JSON: json: cannot unmarshal ${jsonTypeName(content)} into Go value of type embed.configYAML`,
    );
  }
  const root = content as Readonly<Record<string, unknown>>;
  for (const spec of flagSpecs) {
    if (spec.fileKey === null) continue;
    const path = (spec.fileKey ?? spec.name).split(".");
    let value: unknown = root;
    for (const step of path) {
      value =
        typeof value === "object" && value !== null ? (value as Readonly<Record<string, unknown>>)[step] : undefined;
    }
    if (value === undefined || value === null) continue;
    const parsed = fileValue(spec, path.join("."), value);
    // An empty text leaves URL lists as they are.
    if (parsed === "" || (Array.isArray(parsed) && parsed.length === 0 && spec.kind !== "strings")) {
      if (spec.kind === "urls" || spec.kind === "cors" || spec.name === "host-whitelist") continue;
    }
    flags.set(spec.name, parsed);
  }
  return flags;
}
