import { restoreSnapshot } from "@etcd-ts/server/storage";
import { backendFlag } from "../backend-flag.ts";
import type { CommandContext } from "../context.ts";
import { badArgs } from "../exit.ts";
import { hex, printDone, printPlan, runJob } from "../run-job.ts";

export async function runRestore(context: CommandContext): Promise<void> {
  const { args, flags, logger } = context;
  const [snapshotPath, ...surplus] = args;
  if (snapshotPath === undefined || surplus.length > 0) {
    throw badArgs("snapshot restore requires exactly one argument");
  }
  const bumpRevision = flags.uint("bump-revision");
  const markCompacted = flags.bool("mark-compacted");
  if (bumpRevision > 0n !== markCompacted) throw badArgs("--mark-compacted required if --revision-bump > 0");
  const isDryRun = flags.bool("dry-run");
  const restored = await runJob(context, (job) =>
    restoreSnapshot({
      ...job,
      snapshotPath,
      dataDir: flags.string("data-dir") || `${flags.string("name")}.etcd`,
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
      isDryRun,
    }),
  );
  const { clusterId, memberId, members, ...rest } = restored;
  const json = {
    ...rest,
    clusterId: hex(clusterId),
    memberId: hex(memberId),
    members: members.map(({ id, name, peerUrls }) => ({ id: hex(id), name, peerURLs: peerUrls })),
  };
  if (!isDryRun) {
    printDone(context, json);
    return;
  }
  printPlan(
    context,
    [
      ["would restore", `${snapshotPath}, ${rest.sizeBytes} bytes, revision ${rest.revision}`],
      ["into", `${rest.database} (${rest.backend})`],
      ["log", rest.walDir],
      ["member", `${json.memberId} of cluster ${json.clusterId}`],
      ...json.members.map(({ id, name, peerURLs }): [string, string] => [
        "  with",
        `${id} ${name} ${peerURLs.join(",")}`,
      ]),
    ],
    { snapshot: snapshotPath, ...json },
  );
}
