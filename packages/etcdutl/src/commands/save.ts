import { saveSnapshot } from "@etcd-ts/server/storage";
import type { CommandContext } from "../context.ts";
import { badArgs } from "../exit.ts";
import { printDone, runJob } from "../run-job.ts";

/** From a running server it is etcdctl's business, as the Go tool says too; from a stopped member's directory, ours. */
export async function runSave(context: CommandContext): Promise<void> {
  const { args, flags, logger } = context;
  const dataDir = flags.string("data-dir");
  if (dataDir === "") {
    throw badArgs("In order to download snapshot use: `etcdctl snapshot save ...`");
  }
  const [snapshotPath, ...surplus] = args;
  if (snapshotPath === undefined || surplus.length > 0) throw badArgs("snapshot save requires exactly one argument");
  const saved = await runJob(context, (job) => saveSnapshot({ ...job, dataDir, snapshotPath, logger }));
  printDone(context, { ...saved });
}
