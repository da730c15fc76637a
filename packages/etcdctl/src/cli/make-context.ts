// What a command is given: the real clients and printers, made by the global flags when the command asks for them.
import type { Client, ClientOptions, TlsOptions } from "@etcd-ts/client";
import { openColors, wantsColors } from "../color.ts";
import type { CallClient, CommandContext, Connected, ConnectOptions } from "../context.ts";
import { logAttempt } from "../attempt-log.ts";
import { isTimeout } from "../errors.ts";
import { exitWith } from "../errors.ts";
import { BAD_CONNECTION } from "../exit.ts";
import type { Io } from "../io.ts";
import { openPrinter, type Printer } from "../print/printer.ts";
import {
  applyEnvironment,
  askPassword,
  type Credentials,
  credentials,
  endpointsFromFlags,
  passwordFromFile,
  tlsFilesFromFlags,
  tlsOptions,
  writeSettings,
} from "../settings.ts";
import type { FlagSet } from "./flags.ts";
import { globalFlags } from "./tree.ts";

/** How far a command has come, for those who are told why it failed. */
export interface Trace {
  step: "arguments" | "environment" | "tls files" | "authentication" | "call";
  /** The endpoint asked last. */
  endpoint?: string;
  /** Set when there is a client: what is needed to look why an endpoint does not answer. */
  target?: {
    readonly endpoints: readonly string[];
    readonly tls: TlsOptions | undefined;
    readonly client?: CallClient;
  };
}

export type ContextMaker = (flags: FlagSet, io: Io, trace?: Trace) => CommandContext;

/** The real context of a command. */
export function makeContext(flags: FlagSet, io: Io, trace: Trace = { step: "arguments" }): CommandContext {
  let isPrepared = false;
  const globalNames = globalFlags.filter(({ name }) => flags.has(name)).map(({ name }) => name);

  /** The environment is looked at once, and only by commands that get so far. */
  const prepare = (): Promise<void> => {
    if (isPrepared) return Promise.resolve();
    isPrepared = true;
    trace.step = "environment";
    applyEnvironment(flags, globalNames, io);
    const shown = globalFlags.filter(({ own }) => !own).map(({ name }) => name);
    if (flags.bool("debug")) writeSettings(flags, shown, io);
    return Promise.resolve();
  };
  let login: Promise<Credentials | undefined> | undefined;
  const printer = async (): Promise<Printer> => {
    const colors = await openColors(wantsColors(flags.string("color"), io.out.isTerminal, io.env));
    return openPrinter(flags.string("write-out"), { hex: flags.bool("hex"), out: io.out, err: io.err, colors });
  };

  /** Asked once, however many clients are made. */
  const askLogin = async (): Promise<Credentials | undefined> => {
    const file = flags.string("password-file");
    const password = file === "" ? flags.string("password") : await passwordFromFile(file);
    return credentials(flags.string("user"), password, () => askPassword(io, "Password: "));
  };

  /** What kept the quick client from a connection. */
  let dialProblem: string | undefined;
  let logger: string | undefined;
  const told = (options: ClientOptions): ClientOptions => ({
    ...options,
    endpoints: options.endpoints.map((endpoint) => endpoint.trim()),
    dialTimeoutMs: flags.milliseconds("dial-timeout"),
    keepAliveTimeMs: flags.milliseconds("keepalive-time"),
    keepAliveTimeoutMs: flags.milliseconds("keepalive-timeout"),
    onAttemptFailed: (failed) => {
      trace.endpoint = failed.target;
      if (flags.string("errors") === "json") return;
      // On a busy machine the time may run out before the full client has met what the quick one did.
      const connectionError = failed.connectionError ?? (isTimeout(failed) ? dialProblem : undefined);
      logAttempt(io, options.endpoints, { ...failed, connectionError }, logger);
    },
  });
  const openFully = async (options: ClientOptions): Promise<Client> => {
    const { connect } = await import("@etcd-ts/client");
    trace.step = "authentication";
    try {
      const client = await connect(told(options));
      trace.step = "call";
      return client;
    } catch (error) {
      throw exitWith(BAD_CONNECTION, error);
    }
  };
  /** A client for calls: a quick one where that will do. */
  const openForCalls = async (options: ClientOptions): Promise<CallClient> => {
    const { isPlain, QuickClient } = await import("../quick-client.ts");
    const given = told(options);
    if (!isPlain(given)) return openFully(options);
    trace.step = "call";
    const onDialFailed = (message: string): void => {
      dialProblem = message;
    };
    return new QuickClient({ ...given, onDialFailed }, () => openFully(options));
  };
  const connectWith = async <C extends CallClient>(
    open: (options: ClientOptions) => Promise<C>,
    options: ConnectOptions = {},
  ): Promise<Connected<C>> => {
    logger = options.logger;
    await prepare();
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
    trace.target = { endpoints, tls };
    const client = await open({ endpoints, tls, ...user });
    trace.target = { endpoints, tls, client };
    return {
      client,
      printer: openedPrinter,
      timeoutMs: flags.milliseconds("command-timeout"),
      tls,
      [Symbol.asyncDispose]: () => client[Symbol.asyncDispose](),
    };
  };

  return {
    flags,
    io,
    prepare,
    printer,
    async endpoints() {
      await prepare();
      return endpointsFromFlags(flags, io);
    },
    async connectTo(endpoint, prefix) {
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
      return openFully({ endpoints: [endpoint], tls, ...user });
    },
    connect: (options) => connectWith(openForCalls, options),
    connectFully: (options) => connectWith(openFully, options),
  };
}
