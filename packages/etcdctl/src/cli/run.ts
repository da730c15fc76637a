// From words to exit code: finds the command, reads its flags, runs it, and words what went wrong as etcdctl does.
import { exitWith, statusText } from "../errors.ts";
import { openColors, wantsColors } from "../color.ts";
import { BAD_CONNECTION, ERROR, SUCCESS } from "../exit.ts";
import { type Io, writeLog } from "../io.ts";
import { openPrinter, type Printer } from "../print/printer.ts";
import type { Credentials } from "../settings.ts";
import type { ClientOptions, TlsOptions } from "@etcd-ts/client";
import type { CommandContext, Connected, ConnectOptions, CtlClient } from "../context.ts";
import { type CommandPath, inheritedFlags, localFlags } from "./command.ts";
import { findCommand } from "./find.ts";
import { FlagSet } from "./flags.ts";
import { globalFlags, root } from "./tree.ts";

/**
 * Runs one command line to its end. Never throws: what goes wrong is on `io.err` and in the exit code.
 * @param contextOf makes what the command is given; tests give it a fake client
 */
export async function runCli(io: Io, contextOf: ContextMaker = makeContext): Promise<number> {
  const api = io.env.ETCDCTL_API;
  if (api && api !== "3") {
    io.err.write(`unsupported API version: ${api}\n`);
    return ERROR;
  }
  if (io.argv[0] === "__complete" || io.argv[0] === "__completeNoDesc") {
    const { runComplete } = await import("../commands/complete.ts");
    await runComplete(io, contextOf);
    return SUCCESS;
  }
  const trace: Trace = { step: "arguments" };
  let flags: FlagSet | undefined;
  try {
    const { path, args } = findCommand(root, io.argv);
    flags = new FlagSet([...localFlags(path), ...inheritedFlags(path)]);
    flags.parse(args);
    if (flags.bool("help") || !path.command.load) {
      await printHelp(io, path, flags);
      return SUCCESS;
    }
    const run = await path.command.load();
    await run(contextOf(flags, io, trace), flags.args);
    return SUCCESS;
  } catch (error) {
    const { tellFailure } = await import("./failure.ts");
    return tellFailure(io, error, { trace, flags });
  }
}

async function printHelp(io: Io, path: CommandPath, flags: FlagSet): Promise<void> {
  const { helpText } = await import("./help.ts");
  io.out.write(helpText(path));
  const [typed] = flags.args;
  if (typed === undefined || !path.command.subcommands || !io.err.isTerminal) return;
  // A group that is given an unknown name prints its help and succeeds; a person is told why.
  const { suggestions } = await import("./find.ts");
  const near = suggestions(path.command, typed);
  const hint = near.length > 0 ? `; did you mean ${near.map((name) => `"${name}"`).join(" or ")}?` : "";
  io.err.write(`etcdctl ${path.command.name} has no command "${typed}"${hint}\n`);
}

/** How far a command has come, for those who are told why it failed. */
export interface Trace {
  step: "arguments" | "environment" | "tls files" | "authentication" | "call";
  /** The endpoint asked last. */
  endpoint?: string;
  /** Set when there is a client: what is needed to look why an endpoint does not answer. */
  target?: { readonly endpoints: readonly string[]; readonly tls: TlsOptions | undefined; readonly client?: CtlClient };
}

export type ContextMaker = (flags: FlagSet, io: Io, trace?: Trace) => CommandContext;

/** The real context of a command. */
export function makeContext(flags: FlagSet, io: Io, trace: Trace = { step: "arguments" }): CommandContext {
  let isPrepared = false;
  const globalNames = globalFlags.filter(({ name }) => flags.has(name)).map(({ name }) => name);
  const settings = () => import("../settings.ts");

  /** The environment is looked at once, and only by commands that get so far. */
  const prepare = async (): Promise<void> => {
    if (isPrepared) return;
    isPrepared = true;
    trace.step = "environment";
    const { applyEnvironment, writeSettings } = await settings();
    applyEnvironment(flags, globalNames, io);
    const shown = globalFlags.filter(({ own }) => !own).map(({ name }) => name);
    if (flags.bool("debug")) writeSettings(flags, shown, io);
  };
  let login: Promise<Credentials | undefined> | undefined;
  const printer = async (): Promise<Printer> => {
    const colors = await openColors(wantsColors(flags.string("color"), io.out.isTerminal, io.env));
    return openPrinter(flags.string("write-out"), { hex: flags.bool("hex"), out: io.out, err: io.err, colors });
  };

  /** Asked once, however many clients are made. */
  const askLogin = async (): Promise<Credentials | undefined> => {
    const { askPassword, credentials, passwordFromFile } = await settings();
    const file = flags.string("password-file");
    const password = file === "" ? flags.string("password") : await passwordFromFile(file);
    return credentials(flags.string("user"), password, () => askPassword(io, "Password: "));
  };

  const open = async (options: ClientOptions): Promise<CtlClient> => {
    const { connect } = await import("@etcd-ts/client");
    trace.step = "authentication";
    trace.target = { endpoints: options.endpoints, tls: options.tls };
    try {
      const client = await connect({
        ...options,
        endpoints: options.endpoints.map((endpoint) => endpoint.trim()),
        dialTimeoutMs: flags.milliseconds("dial-timeout"),
        keepAliveTimeMs: flags.milliseconds("keepalive-time"),
        keepAliveTimeoutMs: flags.milliseconds("keepalive-timeout"),
        onAttemptFailed: ({ target, attempt, code, details }) => {
          trace.endpoint = target;
          if (flags.string("errors") === "json") return;
          const fields = { target: `etcd-endpoints://${target}`, attempt, error: statusText(code, details) };
          const where = "v3/retry_interceptor.go:63";
          writeLog(io, "warn", where, "retrying of unary invoker failed", fields, "etcd-client");
        },
      });
      trace.step = "call";
      trace.target = { ...trace.target, client };
      return client;
    } catch (error) {
      throw exitWith(BAD_CONNECTION, error);
    }
  };

  return {
    flags,
    io,
    prepare,
    printer,
    async endpoints() {
      await prepare();
      return (await settings()).endpointsFromFlags(flags, io);
    },
    async connectTo(endpoint, prefix) {
      const { askPassword, credentials, tlsOptions } = await settings();
      const ask = () => askPassword(io, "Destination Password: ");
      const user = await credentials(flags.string(`${prefix}user`), flags.string(`${prefix}password`), ask);
      const tls = await tlsOptions({
        cert: flags.string(`${prefix}cert`),
        key: flags.string(`${prefix}key`),
        cacert: flags.string(`${prefix}cacert`),
        insecureTransport: flags.bool(`${prefix}insecure-transport`),
        insecureSkipVerify: false,
        serverName: "",
      });
      return open({ endpoints: [endpoint], tls, ...user });
    },
    async connect(options: ConnectOptions = {}): Promise<Connected> {
      await prepare();
      const { endpointsFromFlags, tlsFilesFromFlags, tlsOptions } = await settings();
      const endpoints = options.endpoints ?? (await endpointsFromFlags(flags, io));
      const files = tlsFilesFromFlags(flags);
      login ??= askLogin();
      const user = await login;
      const openedPrinter = await printer();
      trace.step = "tls files";
      const tls = await tlsOptions({
        ...files,
        insecureTransport: flags.bool("insecure-transport"),
        insecureSkipVerify: flags.bool("insecure-skip-tls-verify"),
        serverName: flags.bool("insecure-discovery") ? "" : flags.string("discovery-srv"),
      });
      const client = await open({ endpoints, tls, ...user });
      return {
        client,
        printer: openedPrinter,
        timeoutMs: flags.milliseconds("command-timeout"),
        tls,
        [Symbol.asyncDispose]: () => client[Symbol.asyncDispose](),
      };
    },
  };
}
