// The global flags, with what the environment adds, turned into what a client needs. The order of the checks is
// etcdctl's, since each ends the program with a code of its own: environment, endpoints, certificate files named,
// password, output format, and only then the files themselves.
import type { TlsOptions } from "@etcd-ts/client";
import type { FlagSet } from "./cli/flags.ts";
import { BAD_ARGS, badArgs, ERROR, ExitError, exitSilently } from "./exit.ts";
import { type Io, writeLog } from "./io.ts";

const envName = (flag: string): string => `ETCDCTL_${flag.toUpperCase().replaceAll("-", "_")}`;

/** Variables that watch reads itself. */
const READ_BY_WATCH = new Set(["ETCDCTL_WATCH_KEY", "ETCDCTL_WATCH_RANGE_END"]);

/** Sets global flags from ETCDCTL_* variables; a flag given both ways ends the program. */
export function applyEnvironment(flags: FlagSet, globalNames: readonly string[], io: Io): void {
  const used = new Set<string>(["ETCDCTL_API"]);
  const shadowed = new Set<string>();
  for (const name of globalNames) {
    const key = envName(name);
    if (flags.changed(name)) {
      shadowed.add(key);
      continue;
    }
    used.add(key);
    const value = io.env[key];
    if (value) flags.setFromText(name, value);
  }
  for (const [key, value] of Object.entries(io.env)) {
    if (!key.startsWith("ETCDCTL_") || used.has(key) || READ_BY_WATCH.has(key)) continue;
    if (shadowed.has(key)) {
      if (!value) continue;
      const text =
        "conflicting environment variable is shadowed by corresponding command-line flag (either unset environment variable or disable flag))";
      writeLog(io, "fatal", "flags/flag.go:85", text, { "environment-variable": key });
      throw exitSilently(ERROR, `${text}: ${key}`);
    }
    writeLog(io, "warn", "flags/flag.go:93", "unrecognized environment variable", {
      "environment-variable": `${key}=${value}`,
    });
  }
}

/** With --debug: every global flag and its value, as a variable. */
export function writeSettings(flags: FlagSet, globalNames: readonly string[], io: Io): void {
  for (const name of globalNames.toSorted()) io.err.write(`${envName(name)}=${flags.text(name)}\n`);
}

/** A password, asked for on the terminal, or read as a line from whatever standard input is. */
export async function askPassword(io: Io, prompt: string): Promise<string> {
  io.out.write(prompt);
  const line = await io.input.readLine(true);
  io.out.write("\n");
  return line;
}

export interface Credentials {
  readonly username: string;
  readonly password: string;
}

/** `name[:password]`, with the password from elsewhere or asked for. */
export async function credentials(
  user: string,
  password: string,
  ask: () => Promise<string>,
): Promise<Credentials | undefined> {
  if (user === "") return undefined;
  if (password !== "") return { username: user, password };
  const colon = user.indexOf(":");
  if (colon >= 0) return { username: user.slice(0, colon), password: user.slice(colon + 1) };
  return { username: user, password: await ask() };
}

export interface TlsFiles {
  readonly cert: string;
  readonly key: string;
  readonly cacert: string;
}

/** Certificate options given as empty texts are refused before anything is read. */
export function tlsFilesFromFlags(flags: FlagSet): TlsFiles {
  for (const name of ["cert", "key", "cacert"]) {
    if (flags.changed(name) && flags.string(name) === "") throw badArgs(`empty string is passed to --${name} option`);
  }
  return { cert: flags.string("cert"), key: flags.string("key"), cacert: flags.string("cacert") };
}

export interface TlsWishes extends TlsFiles {
  readonly insecureTransport: boolean;
  readonly insecureSkipVerify: boolean;
  readonly serverName: string;
}

/** Reads the files; undefined when nothing asks for TLS. @throws ExitError 128 when they cannot be used */
export async function tlsOptions(wishes: TlsWishes): Promise<TlsOptions | undefined> {
  const { cert, key, cacert, serverName, insecureTransport, insecureSkipVerify } = wishes;
  if (cert === "" && key === "" && cacert === "" && serverName === "") {
    if (insecureTransport) return undefined;
    return insecureSkipVerify ? { skipVerify: true } : {};
  }
  const { readTlsFiles } = await import("./tls.ts");
  const files = readTlsFiles({ cert, key, cacert });
  return {
    ...files,
    ...(serverName === "" ? {} : { serverName }),
    ...(insecureSkipVerify ? { skipVerify: true } : {}),
  };
}

/** The endpoints by DNS when --discovery-srv names a domain, else by --endpoints. */
export async function endpointsFromFlags(flags: FlagSet, io: Io): Promise<readonly string[]> {
  const domain = flags.string("discovery-srv");
  if (domain === "") return flags.list("endpoints");
  const { discoverEndpoints } = await import("./discovery.ts");
  const found = await discoverEndpoints(domain, flags.string("discovery-srv-name")).catch((error: unknown) => {
    throw new ExitError(ERROR, error instanceof Error ? error.message : String(error), { cause: error });
  });
  const kept = found.filter((endpoint) => {
    const isIgnored = !flags.bool("insecure-discovery") && endpoint.startsWith("http://");
    if (isIgnored) io.err.write(`ignoring discovered insecure endpoint "${endpoint}"\n`);
    return !isIgnored;
  });
  return kept.length > 0 ? kept : flags.list("endpoints");
}

/** A password kept in a file: its first line. @throws ExitError 128 when it cannot be read */
export async function passwordFromFile(path: string): Promise<string> {
  const { readFileSync } = await import("node:fs");
  try {
    return readFileSync(path, "utf8").split(/\r?\n/, 1)[0] ?? "";
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    const reason = code === "ENOENT" ? "no such file or directory" : (code ?? "cannot be read");
    throw new ExitError(BAD_ARGS, `open ${path}: ${reason}`, { cause: error });
  }
}
