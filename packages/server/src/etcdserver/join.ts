/**
 * What a member that is new finds out before it makes its log: whether `--initial-cluster` says what its own flags say,
 * and, when it joins, who is in the running cluster and whether their release and its own go together.
 */
import { hexId } from "../lib/bytes.ts";
import type { Logger } from "../lib/log.ts";
import { compareVersions, type Member, parseVersion, shortVersion, toClusterVersion } from "../membership/index.ts";
import { BootstrapError } from "./bootstrap-error.ts";
import { MIN_CLUSTER_VERSION, SERVER_VERSION } from "./limits.ts";
import { type PeerUrlDeps, whyDifferent } from "./peer-urls.ts";
import type { ServerConfig } from "./server-config.ts";

/** What running members are asked before this one is part of anything. Nobody answers: undefined. */
export interface RemoteMembers {
  /** The first answer of these peer URLs. `isQuiet`: that there is none is no news. */
  members(
    peerUrls: readonly string[],
    options: { readonly isQuiet: boolean },
  ): Promise<{ readonly clusterId: bigint; readonly members: readonly Member[] } | undefined>;
  version(peerUrls: readonly string[]): Promise<{ readonly server: string; readonly cluster: string } | undefined>;
  isDowngradeEnabled(peerUrls: readonly string[]): Promise<boolean | undefined>;
}

function clusterText(map: ReadonlyMap<string, readonly string[]>): string {
  return [...map]
    .flatMap(([member, urls]) => urls.map((url) => `${member}=${url}`))
    .sort()
    .join(",");
}

/** Throws unless `--initial-cluster` has this member, each URL once, and, in a new cluster, the URLs it advertises. */
export async function verifyInitialCluster(config: ServerConfig, deps: PeerUrlDeps): Promise<void> {
  const { name, initialCluster, advertisePeerUrls } = config;
  const own = initialCluster.get(name);
  if (!own) {
    throw new BootstrapError(`couldn't find local name ${JSON.stringify(name)} in the initial cluster configuration`);
  }
  // Who joins has told the cluster its URLs before.
  if (config.isNewCluster) await verifyAdvertised(name, advertisePeerUrls, own, deps);
  const all = [...initialCluster.values()].flat();
  if (new Set(all).size !== all.length) {
    throw new BootstrapError(`initial cluster ${clusterText(initialCluster)} has duplicate url`);
  }
}

async function verifyAdvertised(
  name: string,
  advertised: readonly string[],
  listed: readonly string[],
  deps: PeerUrlDeps,
): Promise<void> {
  const reason = await whyDifferent(advertised, listed, deps);
  if (reason === undefined) return;
  const sorted = advertised.toSorted().join(",");
  const missing = listed.filter((url) => !advertised.includes(url)).sort();
  if (missing.length > 0) {
    const text = missing.map((url) => `${name}=${url}`).join(",");
    throw new BootstrapError(
      `--initial-cluster has ${text} but missing from --initial-advertise-peer-urls=${sorted} (${reason})`,
    );
  }
  const own = clusterText(new Map([[name, advertised]]));
  const unlisted = advertised.filter((url) => !listed.includes(url)).sort();
  if (unlisted.length > 0) {
    throw new BootstrapError(
      `--initial-advertise-peer-urls has ${unlisted.join(",")} but missing from --initial-cluster=${own}`,
    );
  }
  throw new BootstrapError(`failed to resolve ${sorted} to match --initial-cluster=${own} (${reason})`);
}

/** As Go prints the cluster in an error. */
function describeCluster(clusterId: bigint, members: readonly Member[]): string {
  const texts = members.map(
    ({ id, peerUrls, isLearner, name, clientUrls }) =>
      `&{ID:${hexId(id)} RaftAttributes:{PeerURLs:[${peerUrls.join(" ")}] IsLearner:${isLearner}} ` +
      `Attributes:{Name:${name} ClientURLs:[${clientUrls.join(" ")}]}}`,
  );
  return `{ClusterID:${hexId(clusterId)} Members:[${texts.join(" ")}] RemovedMemberIDs:[]}`;
}

/**
 * Finds this member in the running cluster, which knows it by its peer URLs. Throws when `--initial-cluster` and the
 * cluster do not have the same members, or when the cluster is of a release that this one does not go with.
 */
export async function joinRunningCluster(
  config: ServerConfig,
  remote: RemoteMembers,
  deps: PeerUrlDeps,
): Promise<{ readonly localId: bigint; readonly clusterId: bigint; readonly others: readonly Member[] }> {
  await verifyInitialCluster(config, deps);
  const expected = [...config.initialCluster].map(([name, urls]) => ({ name, urls }));
  const remoteUrls = expected.filter(({ name }) => name !== config.name).flatMap(({ urls }) => urls);
  const existing = await remote.members(remoteUrls.sort(), { isQuiet: false });
  if (!existing) {
    throw new BootstrapError(
      "cannot fetch cluster info from peer urls: could not retrieve cluster information from the given URLs",
    );
  }
  const { clusterId, members } = existing;
  const refuse = (reason: string) =>
    new BootstrapError(`error validating peerURLs ${describeCluster(clusterId, members)}: ${reason}`);
  if (members.length !== expected.length) throw refuse("member count is unequal");
  const others: Member[] = [];
  let localId: bigint | undefined;
  for (const member of members) {
    let reason: string | undefined;
    let found: (typeof expected)[number] | undefined;
    for (const candidate of expected) {
      reason = await whyDifferent(member.peerUrls, candidate.urls, deps);
      if (reason !== undefined) continue;
      found = candidate;
      break;
    }
    if (!found) {
      throw refuse(
        `PeerURLs: no match found for existing member (${hexId(member.id)}, [${member.peerUrls.join(" ")}]), ` +
          `last resolver error (${reason ?? "<nil>"})`,
      );
    }
    if (found.name === config.name) localId = member.id;
    else others.push(member);
  }
  if (localId === undefined) throw refuse("the local member is not among them");
  if (!(await isCompatible(others, remote, deps.logger))) {
    throw new BootstrapError("incompatible with current running cluster");
  }
  return { localId, clusterId, others };
}

/**
 * At least one of the others must be in a cluster version that this release can serve, and none in another. Others may be
 * down at the moment. During a downgrade only the release above may join: it is what the cluster comes from.
 */
async function isCompatible(others: readonly Member[], remote: RemoteMembers, logger: Logger): Promise<boolean> {
  const versions = await Promise.all(
    others.map(async ({ id, peerUrls }) => {
      const version = await remote.version(peerUrls);
      if (!version) logger.warn("failed to get version", { "remote-member-id": hexId(id) });
      return { id, cluster: version?.cluster };
    }),
  );
  let isDowngrading = false;
  for (const { id, peerUrls } of others) {
    const answer = await remote.isDowngradeEnabled(peerUrls);
    if (answer === undefined) {
      logger.warn("failed to get downgrade enabled status", { "remote-member-id": hexId(id) });
      continue;
    }
    isDowngrading = answer;
    break;
  }
  const own = toClusterVersion(parseVersion(SERVER_VERSION) ?? { major: 0, minor: 0, patch: 0 });
  const highest = isDowngrading ? { ...own, minor: own.minor + 1 } : own;
  const lowest = isDowngrading ? highest : parseVersion(MIN_CLUSTER_VERSION);
  let isAnyFine = false;
  for (const { id, cluster } of versions) {
    if (cluster === undefined) continue;
    const fields = { "remote-member-id": hexId(id), "remote-member-cluster-version": cluster };
    const version = parseVersion(cluster);
    if (!version) {
      logger.warn("failed to parse cluster version of remote member", fields);
      continue;
    }
    const isLow = lowest !== undefined && compareVersions(version, lowest) < 0;
    if (isLow || compareVersions(version, highest) > 0) {
      logger.warn(`cluster version of remote member is not compatible; too ${isLow ? "low" : "high"}`, {
        ...fields,
        "minimum-cluster-version-supported": lowest && `${shortVersion(lowest)}.0`,
      });
      return false;
    }
    isAnyFine = true;
  }
  return isAnyFine;
}
