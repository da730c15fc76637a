/** Headers that members put on their requests, and what they check in those of others. */
import type { IncomingHttpHeaders } from "node:http";
import { hexId } from "../lib/bytes.ts";
import { compareVersions, parseVersion, toClusterVersion, type Version } from "../membership/index.ts";

/** The oldest cluster that this release can be a member of. */
export const MIN_CLUSTER_VERSION = "3.0.0";
/** A peer that does not say is taken for one of the time before it was said. */
const ANCIENT_VERSION = "2.0.0";

export const TEXT_INCOMPATIBLE_VERSION = "incompatible version";
export const TEXT_CLUSTER_ID_MISMATCH = "cluster ID mismatch";

/** Who we are towards peers. */
export interface Identity {
  readonly memberId: bigint;
  readonly clusterId: bigint;
  /** `x.y.z` and nothing else: a real etcd ends when it reads anything else. */
  readonly serverVersion: string;
  readonly peerUrls: readonly string[];
}

export function requestHeaders(identity: Identity): Record<string, string> {
  return {
    "X-Server-From": hexId(identity.memberId),
    "X-Server-Version": identity.serverVersion,
    "X-Min-Cluster-Version": MIN_CLUSTER_VERSION,
    "X-Etcd-Cluster-ID": hexId(identity.clusterId),
    "X-PeerURLs": identity.peerUrls.join(","),
  };
}

export function headerText(headers: IncomingHttpHeaders, name: string): string {
  const value = headers[name];
  return typeof value === "string" ? value : "";
}

/** An id in hex, as in headers and paths; undefined for anything else. */
export function parseHexId(text: string): bigint | undefined {
  return /^[0-9a-fA-F]{1,16}$/.test(text) ? BigInt(`0x${text}`) : undefined;
}

export type Incompatibility =
  | { readonly text: typeof TEXT_INCOMPATIBLE_VERSION; readonly why: string }
  | { readonly text: typeof TEXT_CLUSTER_ID_MISMATCH; readonly remoteClusterId: string };

/** Undefined when the sender of these headers may talk to us: its version, then its cluster. */
export function checkCompatibility(headers: IncomingHttpHeaders, identity: Identity): Incompatibility | undefined {
  const name = headerText(headers, "x-server-from");
  const serverText = headerText(headers, "x-server-version") || ANCIENT_VERSION;
  const minText = headerText(headers, "x-min-cluster-version") || ANCIENT_VERSION;
  const server = parseVersion(serverText);
  const minCluster = parseVersion(minText);
  const remote = `remote[${name}]=${serverText}, local=${identity.serverVersion}`;
  if (!server || !minCluster) return { text: TEXT_INCOMPATIBLE_VERSION, why: `malformed version: ${remote}` };
  const own = parseVersion(identity.serverVersion) as Version;
  if (isOlder(server, parseVersion(MIN_CLUSTER_VERSION) as Version)) {
    return { text: TEXT_INCOMPATIBLE_VERSION, why: `remote version is too low: ${remote}` };
  }
  if (isOlder(own, minCluster)) return { text: TEXT_INCOMPATIBLE_VERSION, why: `local version is too low: ${remote}` };
  const clusterId = headerText(headers, "x-etcd-cluster-id");
  if (clusterId !== hexId(identity.clusterId)) {
    return { text: TEXT_CLUSTER_ID_MISMATCH, remoteClusterId: clusterId };
  }
  return undefined;
}

/** By minor release. */
function isOlder(a: Version, b: Version): boolean {
  return compareVersions(toClusterVersion(a), toClusterVersion(b)) < 0;
}
