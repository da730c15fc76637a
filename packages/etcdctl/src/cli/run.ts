// From words to exit code: finds the command, reads its flags, runs it, and words what went wrong as etcdctl does.
import { errorText, exitWith, statusText } from "../errors.ts";
import { BAD_CONNECTION, ERROR, ExitError, SUCCESS } from "../exit.ts";
import { type Io, writeLog } from "../io.ts";
import { openPrinter, type Printer } from "../print/printer.ts";
import type { Credentials } from "../settings.ts";
import type { ClientOptions } from "@etcd-ts/client";
import type { CommandContext, Connected, ConnectOptions, CtlClient } from "../context.ts";
import { type CommandPath, inheritedFlags, localFlags } from "./command.ts";
import { findCommand, UnknownCommandError } from "./find.ts";
import { FlagError, FlagSet } from "./flags.ts";
import { globalFlags, root } from "./tree.ts";

/**
 * Runs one command line to its end. Never throws: what goes wrong is on `io.err` and in the exit code.
 * @param contextOf makes what the command is given; tests give it a fake client
 */
export async function runCli(
  io: Io,
  contextOf: (flags: FlagSet, io: Io) => CommandContext = makeContext,
): Promise<number> {
  const api = io.env.ETCDCTL_API;
  if (api && api !== "3") {
    io.err.write(`unsupported API version: ${api}\n`);
    return ERROR;
  }
  try {
    const { path, args } = findCommand(root, io.argv);
    const flags = new FlagSet([...localFlags(path), ...inheritedFlags(path)]);
    try {
      flags.parse(args);
    } catch (error) {
      if (!(error instanceof FlagError)) throw error;
      return await refuseFlags(io, path, error);
    }
    if (flags.bool("help") || !path.command.load) {
      await printHelp(io, path);
      return SUCCESS;
    }
    const run = await path.command.load();
    await run(contextOf(flags, io), flags.args);
    return SUCCESS;
  } catch (error) {
    if (error instanceof UnknownCommandError) return refuseCommand(io, error);
    const { exitCode, isSpoken } = error instanceof ExitError ? error : { exitCode: ERROR, isSpoken: false };
    if (!isSpoken) io.err.write(`Error: ${errorText(error)}\n`);
    return exitCode;
  }
}

/** cobra says it, then etcdctl says it again. */
function refuseCommand(io: Io, error: UnknownCommandError): number {
  io.err.write(`Error: ${error.message}\nRun 'etcdctl --help' for usage.\nError: ${error.message}\n`);
  return ERROR;
}

async function refuseFlags(io: Io, path: CommandPath, error: FlagError): Promise<number> {
  io.err.write(`Error: ${error.message}\n`);
  await printHelp(io, path);
  io.err.write(`\nError: ${error.message}\n`);
  return ERROR;
}

async function printHelp(io: Io, path: CommandPath): Promise<void> {
  const { helpText } = await import("./help.ts");
  io.out.write(helpText(path));
}

/** The real context of a command. */
export function makeContext(flags: FlagSet, io: Io): CommandContext {
  let isPrepared = false;
  const globalNames = globalFlags.filter(({ name }) => flags.has(name)).map(({ name }) => name);
  const settings = () => import("../settings.ts");

  /** The environment is looked at once, and only by commands that get so far. */
  const prepare = async (): Promise<void> => {
    if (isPrepared) return;
    isPrepared = true;
    const { applyEnvironment, writeSettings } = await settings();
    applyEnvironment(flags, globalNames, io);
    const shown = globalFlags.filter(({ own }) => !own).map(({ name }) => name);
    if (flags.bool("debug")) writeSettings(flags, shown, io);
  };
  let login: Promise<Credentials | undefined> | undefined;
  const printer = (): Promise<Printer> =>
    openPrinter(flags.string("write-out"), { hex: flags.bool("hex"), out: io.out, err: io.err });

  /** Asked once, however many clients are made. */
  const askLogin = async (): Promise<Credentials | undefined> => {
    const { askPassword, credentials, passwordFromFile } = await settings();
    const file = flags.string("password-file");
    const password = file === "" ? flags.string("password") : await passwordFromFile(file);
    return credentials(flags.string("user"), password, () => askPassword(io, "Password: "));
  };

  const open = async (options: ClientOptions): Promise<CtlClient> => {
    const { connect } = await import("@etcd-ts/client");
    try {
      return await connect({
        ...options,
        endpoints: options.endpoints.map((endpoint) => endpoint.trim()),
        dialTimeoutMs: flags.milliseconds("dial-timeout"),
        keepAliveTimeMs: flags.milliseconds("keepalive-time"),
        keepAliveTimeoutMs: flags.milliseconds("keepalive-timeout"),
        onAttemptFailed: ({ target, attempt, code, details }) => {
          const fields = { target: `etcd-endpoints://${target}`, attempt, error: statusText(code, details) };
          const where = "v3/retry_interceptor.go:63";
          writeLog(io, "warn", where, "retrying of unary invoker failed", fields, "etcd-client");
        },
      });
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
