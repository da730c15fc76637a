/**
 * The version that all members understand. The leader works it out from what every member says of itself, every few
 * seconds and when it begins to lead, and has it agreed on through raft. It begins at 3.0 where a member cannot be asked.
 */
import { hexId } from "../lib/bytes.ts";
import type { Logger } from "../lib/log.ts";
import {
  type Cluster,
  compareVersions,
  formatVersion,
  isValidVersionChange,
  parseVersion,
  shortVersion,
  toClusterVersion,
  type Version,
} from "../membership/index.ts";
import { MIN_CLUSTER_VERSION, SERVER_VERSION } from "./limits.ts";
import type { Transport } from "./transport.ts";

/** The smallest release among the members; undefined when one of them gives no answer. */
export async function decideClusterVersion(options: {
  readonly cluster: Cluster;
  readonly memberId: bigint;
  readonly transport: Transport;
  readonly logger: Logger;
}): Promise<Version | undefined> {
  const { cluster, memberId, transport, logger } = options;
  const versions = await Promise.all(
    cluster.members().map(async (member) => {
      if (member.id === memberId) return parseVersion(SERVER_VERSION);
      const id = { "remote-member-id": hexId(member.id) };
      let reason = "the member has no peer URL";
      const answer = await transport.memberVersion(member.id, (address, error) => {
        reason = error;
        logger.warn("failed to reach the peer URL", { address, ...id, error });
      });
      if (!answer) {
        logger.warn("failed to get version", { ...id, error: reason });
        return undefined;
      }
      const version = parseVersion(answer.server);
      if (!version) {
        logger.warn("failed to parse server version of remote member", {
          ...id,
          "remote-member-version": answer.server,
        });
        return undefined;
      }
      const own = parseVersion(SERVER_VERSION);
      if (own && compareVersions(own, version) < 0) {
        logger.warn("leader found higher-versioned member", {
          "local-member-version": SERVER_VERSION,
          ...id,
          "remote-member-version": answer.server,
        });
      }
      return version;
    }),
  );
  let smallest: Version | undefined;
  for (const version of versions) {
    if (!version) return undefined;
    if (!smallest || compareVersions(version, smallest) < 0) smallest = version;
  }
  return smallest && toClusterVersion(smallest);
}

/** Whether every member has come to the version that the cluster is being downgraded to. Says who has not. */
export async function isDowngraded(options: {
  readonly cluster: Pick<Cluster, "members" | "version">;
  readonly memberId: bigint;
  /** `x.y.0` */
  readonly targetVersion: string;
  readonly transport: Pick<Transport, "memberVersion">;
  readonly logger: Logger;
}): Promise<boolean> {
  const { cluster, memberId, targetVersion, transport, logger } = options;
  const target = parseVersion(targetVersion);
  if (!target) return false;
  const answers = await Promise.all(
    cluster.members().map(async ({ id }) => ({
      id,
      text: id === memberId ? cluster.version() : (await transport.memberVersion(id))?.cluster,
    })),
  );
  for (const { id, text } of answers) {
    const version = text === undefined ? undefined : parseVersion(text);
    if (!version) return false;
    if (compareVersions(version, target) !== 0) {
      logger.warn("remotes server has mismatching etcd version", {
        "remote-member-id": hexId(id),
        "current-server-version": text,
        "target-version": targetVersion,
      });
      return false;
    }
  }
  return true;
}

/** What the leader proposes next, given what is decided and what it has found; undefined when nothing is to change. */
export function nextClusterVersion(current: string | undefined, found: Version | undefined): string | undefined {
  if (current === undefined) return found ? formatVersion(found) : MIN_CLUSTER_VERSION;
  const from = parseVersion(current);
  return from && found && isValidVersionChange(from, found) ? formatVersion(found) : undefined;
}

export function logClusterVersionProposal(logger: Logger, current: string | undefined, next: string): void {
  const [from, to] = [current, next].map((text) => {
    const version = text === undefined ? undefined : parseVersion(text);
    return version && shortVersion(version);
  });
  if (from === undefined) logger.info("setting up initial cluster version using v2 API", { "cluster-version": to });
  else logger.info("updating cluster version using v2 API", { from, to });
}
