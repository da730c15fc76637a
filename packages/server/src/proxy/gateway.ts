/**
 * `etcd gateway start`: finds the members, by a list or by the SRV records of a domain, listens, and forwards. Flags, words
 * and exit codes are etcd's.
 */
import dns from "node:dns/promises";
import { once } from "node:events";
import net from "node:net";
import tls from "node:tls";
import type { Clock } from "../lib/clock.ts";
import { dialErrorText, verifyErrorText } from "../lib/go-errors.ts";
import { splitHostPort } from "../lib/listen-url.ts";
import type { Logger } from "../lib/log.ts";
import type { Random } from "../lib/random.ts";
import { createTlsDialler, listenErrorText } from "../rpc/index.ts";
import { type Command, type CommandFlags, parseCommandFlags, usageOf } from "./command-flags.ts";
import { type Target, TcpProxy } from "./tcp-proxy.ts";

const DIAL_TIMEOUT_MS = 5000;
const PORT_MAX = 65_535;

const START: Command = {
  path: "etcd gateway start",
  short: "start the gateway",
  flags: [
    { name: "listen-addr", kind: "string", initial: "127.0.0.1:23790", help: "listen address" },
    { name: "discovery-srv", kind: "string", initial: "", help: "DNS domain used to bootstrap initial cluster" },
    {
      name: "discovery-srv-name",
      kind: "string",
      initial: "",
      help: "service name to query when using DNS discovery",
    },
    { name: "insecure-discovery", kind: "bool", initial: "false", help: "accept insecure SRV records" },
    {
      name: "trusted-ca-file",
      kind: "string",
      initial: "",
      help: "path to the client server TLS CA file for verifying the discovered endpoints when discovery-srv is provided.",
    },
    { name: "endpoints", kind: "strings", initial: "127.0.0.1:2379", help: "comma separated etcd cluster endpoints" },
    {
      name: "retry-delay",
      kind: "duration",
      initial: "1m0s",
      help: "duration of delay before retrying failed endpoints",
    },
  ],
};

const GATEWAY: Command = {
  path: "etcd gateway",
  short: "gateway related command",
  flags: [],
  children: [["start", START.short]],
};

/** Where names are looked up. */
export interface GatewayNames {
  resolveSrv(
    name: string,
  ): Promise<
    readonly { readonly name: string; readonly port: number; readonly priority: number; readonly weight: number }[]
  >;
  /** All addresses of a host; an address stands for itself. */
  lookup(host: string): Promise<readonly string[]>;
}

export const systemGatewayNames: GatewayNames = {
  resolveSrv: (name) => new dns.Resolver().resolveSrv(name),
  lookup: async (host) => (await dns.lookup(host, { all: true })).map(({ address }) => address),
};

export interface GatewayDeps {
  /** The whole command line, for the log. */
  readonly argv: readonly string[];
  readonly clock: Clock;
  readonly random: Random;
  readonly names: GatewayNames;
  /** Called when a gateway is about to start, not for help. */
  logger(): Logger;
  print(text: string): void;
  printError(text: string): void;
  /** Tells the system that it serves. */
  ready(logger: Logger): void;
}

/** A gateway that serves, or how the command ended. */
export type GatewayOutcome =
  | { readonly code: number }
  | { readonly port: number; readonly proxy: TcpProxy; stop(): Promise<void> };

/** Ends the command with exit code 1; what there is to say goes to standard output, or to standard error. */
class Refusal extends Error {
  readonly isOnStderr: boolean;

  constructor(text: string, isOnStderr = false) {
    super(text);
    this.isOnStderr = isOnStderr;
  }
}

/** `args` are the words after `gateway`. */
export async function runGateway(args: readonly string[], deps: GatewayDeps): Promise<GatewayOutcome> {
  const isStart = args.find((arg) => !arg.startsWith("-")) === "start";
  const command = isStart ? START : GATEWAY;
  let flags: CommandFlags;
  try {
    flags = parseCommandFlags(
      command,
      args.filter((arg, i) => !(isStart && arg === "start" && args.indexOf("start") === i)),
    );
  } catch (error) {
    const { message } = error as Error;
    deps.printError(`Error: ${message}\n${usageOf(command)}\n${message}`);
    return { code: 1 };
  }
  if (flags.isHelp || !isStart) {
    deps.print(`${command.short}\n\n${usageOf(command)}`);
    return { code: 0 };
  }
  try {
    return await startGateway(flags, deps);
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    (error.isOnStderr ? deps.printError : deps.print)(error.message);
    return { code: 1 };
  }
}

async function startGateway(flags: CommandFlags, deps: GatewayDeps): Promise<GatewayOutcome> {
  const logger = deps.logger();
  logger.info("Running: ", { args: deps.argv });
  let targets: readonly Target[] = await discover(flags, deps, logger);
  if (targets.length === 0) targets = flags.list("endpoints").map(targetOf);

  const listenAddress = flags.text("listen-addr");
  const listen = splitHostPort(listenAddress);
  if (!listen) throw new Refusal(`failed to validate listen address: ${listenAddress}\n`);
  const own = await lookup(deps.names, listen.host, "failed to resolve listen host:");
  for (const { host, port } of targets) {
    const addresses = await lookup(deps.names, host, "failed to resolve endpoint host:");
    if (String(port) !== listen.port) continue;
    const itself = addresses.find((address) => own.includes(address));
    if (itself !== undefined) {
      throw new Refusal(
        `SRV or endpoint (${host}:${port}->${itself}:${port}) should not resolve to the gateway listen addr (${listenAddress})\n`,
      );
    }
  }
  if (targets.length === 0) throw new Refusal("no endpoints found\n");

  const listenPort = listenPortOf(listen.port);
  // Half-open, so that what one side still has to say reaches the other before both are closed.
  const server = net.createServer({ allowHalfOpen: true });
  try {
    server.listen({ host: listen.host, port: listenPort });
    await once(server, "listening");
  } catch (error) {
    throw new Refusal(`${listenErrorText("tcp", listenAddress, error)}\n`, true);
  }
  const proxy = new TcpProxy({ ...deps, logger, targets, monitorIntervalMs: flags.duration("retry-delay") });
  deps.ready(logger);
  proxy.serve(server);
  return {
    port: (server.address() as net.AddressInfo).port,
    proxy,
    stop: async () => {
      proxy.stop();
      server.close();
      await once(server, "close");
    },
  };
}

/** A URL counts for its host. */
function targetOf(endpoint: string): Target {
  const place = /^[A-Za-z][A-Za-z0-9+.-]*:\/\/([^/?#]+)/.exec(endpoint)?.[1] ?? endpoint;
  const parts = splitHostPort(place);
  if (!parts) throw new Refusal(`error parsing endpoint ${JSON.stringify(place)}`);
  // As far as it is a number, and 0 when it is none that a port can have.
  const port = Number.parseInt(parts.port, 10);
  return { host: parts.host, port: port > 0 && port <= PORT_MAX ? port : 0, priority: 0, weight: 0 };
}

/** Names of services are not known here. */
function listenPortOf(text: string): number {
  if (!/^[+-]?\d*$/.test(text)) throw new Refusal(`listen tcp: lookup tcp/${text}: unknown port\n`, true);
  const port = Number(text);
  if (!(port >= 0 && port <= PORT_MAX)) throw new Refusal(`listen tcp: address ${text}: invalid port\n`, true);
  return port;
}

async function lookup(names: GatewayNames, host: string, complaint: string): Promise<readonly string[]> {
  try {
    return await names.lookup(host);
  } catch {
    throw new Refusal(`${complaint} ${host}\n`);
  }
}

interface Found extends Target {
  readonly url: string;
}

/** What the SRV records of a domain name; those of `https` are dialled before they are trusted, others are not taken. */
async function discover(flags: CommandFlags, { names }: GatewayDeps, logger: Logger): Promise<readonly Target[]> {
  const domain = flags.text("discovery-srv");
  if (domain === "") return [];
  const suffix = flags.text("discovery-srv-name") === "" ? "" : `-${flags.text("discovery-srv-name")}`;
  const found: Found[] = [];
  const failures: string[] = [];
  for (const [scheme, service] of [
    ["https", "etcd-client-ssl"],
    ["http", "etcd-client"],
  ] as const) {
    const record = `_${service}${suffix}._tcp.${domain}`;
    try {
      const records = (await names.resolveSrv(record)).toSorted((a, b) => a.priority - b.priority);
      for (const { name, port, priority, weight } of records) {
        const host = name.replace(/\.$/, "");
        found.push({ url: `${scheme}://${host}:${port}`, host, port, priority, weight });
      }
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      const isAbsent = code === "ENOTFOUND" || code === "ENODATA";
      failures.push(`lookup ${record}: ${isAbsent ? "no such host" : dialErrorText(error)}`);
    }
  }
  if (failures.length === 2) throw new Refusal(`dns lookup errors: ${failures.join(" and ")}\n`, true);
  const server = { "srv-server": domain };
  const endpoints = found.map(({ url }) => url);
  logger.info("discovered cluster from SRV", { ...server, endpoints });
  if (flags.bool("insecure-discovery")) return found;
  logger.info("validating discovered SRV endpoints", { ...server, endpoints });
  const { valid, error } = await validate(found, domain, flags.text("trusted-ca-file"), logger);
  const validEndpoints = valid.map(({ url }) => url);
  if (error !== undefined) {
    logger.warn("failed to validate discovered endpoints", { ...server, endpoints: validEndpoints, error });
  } else {
    logger.info("using validated discovered SRV endpoints", { ...server, endpoints: validEndpoints });
  }
  return valid;
}

async function validate(
  found: readonly Found[],
  serverName: string,
  trustedCaFile: string,
  logger: Logger,
): Promise<{ readonly valid: readonly Found[]; readonly error: string | undefined }> {
  const valid: Found[] = [];
  const errors: string[] = [];
  let dial: ReturnType<typeof createTlsDialler>;
  try {
    dial = createTlsDialler(
      {
        ...{ certFile: "", keyFile: "", clientCertFile: "", clientKeyFile: "", trustedCaFile, serverName },
        ...{ allowedCns: [], allowedHostnames: [], cipherSuites: [], minVersion: "", maxVersion: "" },
        skipsVerification: false,
      },
      logger,
    );
  } catch (error) {
    return { valid, error: (error as Error).message };
  }
  for (const target of found) {
    if (!target.url.startsWith("https://")) {
      errors.push(`${JSON.stringify(target.url)} is insecure`);
      continue;
    }
    try {
      await shakeHands(tls.connect({ ...dial(), host: target.host, port: target.port }));
      valid.push(target);
    } catch (error) {
      errors.push(`${JSON.stringify(target.url)} failed to dial (${failureText(error)})`);
    }
  }
  return { valid, error: errors.length === 0 ? undefined : errors.join(",") };
}

function failureText(error: unknown): string {
  const { syscall, message, code } = error as NodeJS.ErrnoException;
  return syscall === undefined ? verifyErrorText({ code, message }) : dialErrorText(error);
}

async function shakeHands(socket: tls.TLSSocket): Promise<void> {
  try {
    await new Promise<void>((resolve, reject) => {
      socket.setTimeout(DIAL_TIMEOUT_MS, () => reject(new Error("i/o timeout")));
      socket.once("secureConnect", resolve);
      socket.once("error", reject);
      socket.once("close", () => reject(new Error("EOF")));
    });
  } finally {
    socket.on("error", () => {});
    socket.destroy();
  }
}
