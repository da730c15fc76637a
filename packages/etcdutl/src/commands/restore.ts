import { restoreSnapshot } from "@etcd-ts/server/storage";
import { backendFlag } from "../backend-flag.ts";
import type { CommandContext } from "../context.ts";
import { badArgs } from "../exit.ts";

export async function runRestore(context: CommandContext): Promise<void> {
  const { args, flags, logger } = context;
  const [snapshotPath, ...surplus] = args;
  if (snapshotPath === undefined || surplus.length > 0) {
    throw badArgs("snapshot restore requires exactly one argument");
  }
  const bumpRevision = flags.uint("bump-revision");
  const markCompacted = flags.bool("mark-compacted");
  if (bumpRevision > 0n !== markCompacted) throw badArgs("--mark-compacted required if --revision-bump > 0");
  await restoreSnapshot({
    snapshotPath,
    dataDir: flags.string("data-dir"),
    walDir: flags.string("wal-dir"),
    name: flags.string("name"),
    initialCluster: flags.string("initial-cluster"),
    initialClusterToken: flags.string("initial-cluster-token"),
    initialAdvertisePeerUrls: flags.string("initial-advertise-peer-urls"),
    skipHashCheck: flags.bool("skip-hash-check"),
    bumpRevision,
    markCompacted,
    initialMemoryMapSize: flags.uint("initial-memory-map-size"),
    backend: backendFlag(context),
    logger,
  });
}
