/**
 * Bootstrap by DNS: the members of a new cluster are those that the SRV records of a domain name, `_etcd-server-ssl._tcp`
 * for https and `_etcd-server._tcp` for http. A record is this member's own when it resolves to a place that this member
 * advertises; what the others are called does not matter, as ids follow from URLs alone.
 */
import { Resolver } from "node:dns/promises";
import type { Config } from "./config.ts";
import { type ResolveHost, resolveHost } from "./etcdserver/index.ts";
import { dialErrorText } from "./lib/go-errors.ts";
import { parseEtcdUrl, parseInitialCluster, splitHostPort } from "./lib/listen-url.ts";
import type { Logger } from "./lib/log.ts";

export interface SrvRecord {
  readonly name: string;
  readonly port: number;
  readonly priority: number;
  readonly weight: number;
}

/** Where records are looked up. */
export interface Names {
  resolveSrv(name: string): Promise<readonly SrvRecord[]>;
  readonly resolveHost: ResolveHost;
}

export const systemNames: Names = {
  resolveSrv: (name) => new Resolver().resolveSrv(name),
  resolveHost,
};

/** What the configuration says once the records are known. */
export interface Discovered {
  readonly config: Config;
  /** The name that certificates of peers must have, when no authority was given to judge them by. */
  readonly peerServerName: string;
}

interface Service {
  readonly scheme: "http" | "https";
  readonly name: string;
}

/** Throws with etcd's text when the records name no cluster, or not this member. */
export async function discoverCluster(config: Config, names: Names, logger: Logger): Promise<Discovered> {
  const suffix = config.discoverySrvName === "" ? "" : `-${config.discoverySrvName}`;
  const found: string[] = [];
  const failures: string[] = [];
  for (const [scheme, service] of [
    ["https", "etcd-server-ssl"],
    ["http", "etcd-server"],
  ] as const) {
    let failure: string | undefined;
    try {
      found.push(...(await membersOf({ scheme, name: service + suffix }, config, names)));
    } catch (error) {
      failure = (error as Error).message;
      failures.push(failure);
    }
    logger.info(`get cluster for ${service} SRV`, {
      "service-scheme": scheme,
      "service-name": service + suffix,
      "server-name": config.name,
      "discovery-srv": config.discoverySrv,
      "advertise-peer-urls": config.advertisePeerUrls,
      "found-cluster": found.slice(),
      ...(failure === undefined ? {} : { error: failure }),
    });
  }
  const failed = failures.join("; ");
  if (failed !== "") logger.warn("failed to resolve during SRV discovery", { error: failed });
  if (found.length === 0) throw new Error(`error setting up initial cluster: ${failed || "no SRV records"}`);
  for (const node of found) logger.info("got bootstrap from DNS for etcd-server", { node });
  const text = found.join(",");
  let initialCluster: ReadonlyMap<string, readonly string[]>;
  try {
    initialCluster = parseInitialCluster(text);
  } catch (error) {
    throw new Error(`error setting up initial cluster: ${(error as Error).message}`);
  }
  if (!initialCluster.has(config.name)) {
    throw new Error(
      `error setting up initial cluster: cannot find local etcd member ${JSON.stringify(config.name)} in SRV records`,
    );
  }
  const isJudgedByName = text.includes("https://") && config.peerTls.trustedCaFile === "";
  return {
    config: { ...config, initialCluster, initialClusterText: text },
    peerServerName: isJudgedByName ? config.discoverySrv : "",
  };
}

/** `name=url` for each record, this member under its own name. */
async function membersOf(service: Service, config: Config, names: Names): Promise<string[]> {
  const fail = (reason: string) => new Error(`error querying DNS SRV records for _${service.name} ${reason}`);
  const own = new Map<string, string>();
  for (const url of config.advertisePeerUrls) {
    const { scheme, host } = parseEtcdUrl(url);
    const parts = splitHostPort(host);
    try {
      own.set(`${await names.resolveHost(parts?.host ?? host)}:${parts?.port}`, scheme);
    } catch (error) {
      throw fail(dialErrorText(error));
    }
  }
  const record = `_${service.name}._tcp.${config.discoverySrv}`;
  let records: readonly SrvRecord[];
  try {
    records = await names.resolveSrv(record);
  } catch (error) {
    throw fail(lookupText(record, error));
  }
  const members: string[] = [];
  let last: Error | undefined;
  let others = 0;
  const sorted = records.toSorted((a, b) => a.priority - b.priority || (a.name < b.name ? -1 : 1) || a.port - b.port);
  for (const { name, port } of sorted) {
    const host = name.replace(/\.$/, "");
    let place: string;
    try {
      place = `${await names.resolveHost(host)}:${port}`;
    } catch (error) {
      last = fail(dialErrorText(error));
      continue;
    }
    const scheme = own.get(place);
    const url = `${service.scheme}://${host}:${port}`;
    if (scheme !== undefined && scheme !== service.scheme) {
      last = fail(
        `bootstrap at ${url} from DNS for ${service.name} has scheme mismatch with expected peer ${scheme}://${place}`,
      );
      continue;
    }
    members.push(`${scheme === undefined ? others++ : config.name}=${url}`);
  }
  if (members.length === 0 && last) throw last;
  return members;
}

function lookupText(name: string, error: unknown): string {
  const { code } = error as NodeJS.ErrnoException;
  const isAbsent = code === "ENOTFOUND" || code === "ENODATA";
  return `lookup ${name}: ${isAbsent ? "no such host" : dialErrorText(error)}`;
}
