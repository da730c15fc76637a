/** `--initial-cluster` against the name and the addresses of the member that is restored; the refusals are etcd's. */
import dns from "node:dns/promises";
import net from "node:net";
import { parseEtcdUrl, splitHostPort } from "../../lib/listen-url.ts";
import { computeClusterId, computeMemberId, compareIds, type Member } from "../schema/index.ts";
import { OfflineError } from "./errors.ts";

export interface InitialCluster {
  readonly clusterId: bigint;
  /** Ascending by id. */
  readonly members: readonly Member[];
  readonly localId: bigint;
}

const sorted = (texts: Iterable<string>): string[] => [...texts].sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
const quote = (text: string): string => JSON.stringify(text);

function parseUrls(texts: readonly string[]): string[] {
  if (texts.length === 0) throw new OfflineError("no valid URLs given");
  try {
    return sorted(texts.map((text) => parseEtcdUrl(text).text));
  } catch (error) {
    throw new OfflineError((error as Error).message, { cause: error });
  }
}

/** `a=http://1.2.3.4:2380,b=...`; a name may stand for several URLs. */
function parseCluster(text: string): Map<string, string[]> {
  const given = new Map<string, string[]>();
  for (const part of text.split(",")) {
    if (part === "") continue;
    const equals = part.indexOf("=");
    const name = equals < 0 ? part : part.substring(0, equals);
    const urls = given.get(name) ?? [];
    urls.push(equals < 0 ? "" : part.substring(equals + 1));
    given.set(name, urls);
  }
  return new Map([...given].map(([name, urls]) => [name, parseUrls(urls)]));
}

const clusterText = (cluster: ReadonlyMap<string, readonly string[]>): string =>
  sorted([...cluster].flatMap(([name, urls]) => urls.map((url) => `${name}=${url}`))).join(",");

export async function resolveInitialCluster(options: {
  readonly name: string;
  readonly initialCluster: string;
  readonly token: string;
  readonly peerUrls: string;
}): Promise<InitialCluster> {
  const { name } = options;
  const advertised = parseUrls(options.peerUrls.split(","));
  const cluster = parseCluster(options.initialCluster);
  const listed = cluster.get(name);
  if (!listed) throw new OfflineError(`couldn't find local name ${quote(name)} in the initial cluster configuration`);
  await requireSameAddresses(name, advertised, listed);
  const all = [...cluster.values()].flat();
  if (new Set(all).size !== all.length) {
    throw new OfflineError(`initial cluster ${clusterText(cluster)} has duplicate url`);
  }
  const members = [...cluster].map(([member, peerUrls]): Member => {
    const id = computeMemberId(peerUrls, { token: options.token });
    return { id, name: member, peerUrls, clientUrls: [], isLearner: false };
  });
  members.sort((a, b) => compareIds(a.id, b.id));
  const local = members.find((member) => member.name === name) as Member;
  return { clusterId: computeClusterId(members.map(({ id }) => id)), members, localId: local.id };
}

async function requireSameAddresses(
  name: string,
  advertised: readonly string[],
  listed: readonly string[],
): Promise<void> {
  const difference = await differenceOf(advertised, listed);
  if (difference === undefined) return;
  const unadvertised = listed.filter((url) => !advertised.includes(url));
  if (unadvertised.length > 0) {
    throw new OfflineError(
      `--initial-cluster has ${unadvertised.map((url) => `${name}=${url}`).join(",")} but missing from ` +
        `--initial-advertise-peer-urls=${advertised.join(",")} (${difference})`,
    );
  }
  const unlisted = advertised.filter((url) => !listed.includes(url));
  const own = clusterText(new Map([[name, advertised]]));
  if (unlisted.length > 0) {
    throw new OfflineError(
      `--initial-advertise-peer-urls has ${unlisted.join(",")} but missing from --initial-cluster=${own}`,
    );
  }
  throw new OfflineError(`failed to resolve ${advertised.join(",")} to match --initial-cluster=${own} (${difference})`);
}

const goList = (texts: readonly string[]): string => `[${texts.map(quote).join(" ")}]`;

/** Two lists name the same addresses when they are equal as text, or once their host names are resolved. */
async function differenceOf(a: readonly string[], b: readonly string[]): Promise<string | undefined> {
  if (a.length !== b.length) return `len(${goList(a)}) != len(${goList(b)})`;
  if (a.every((url, i) => url === b[i])) return undefined;
  const resolvedA = await Promise.all(a.map(resolved));
  const resolvedB = await Promise.all(b.map(resolved));
  for (const [i, url] of a.entries()) {
    if (resolvedA[i] !== resolvedB[i]) return `resolved urls: ${quote(url)} != ${quote(b[i] as string)}`;
  }
  return undefined;
}

async function resolved(text: string): Promise<string> {
  const { scheme, host } = parseEtcdUrl(text);
  const parts = splitHostPort(host);
  if (!parts || net.isIP(parts.host) !== 0 || parts.host === "") return text;
  try {
    const { address } = await dns.lookup(parts.host);
    return `${scheme}://${address.includes(":") ? `[${address}]` : address}:${parts.port}`;
  } catch {
    return text;
  }
}
