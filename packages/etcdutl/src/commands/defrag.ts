import { defragDataDir, NoDatabaseError, offlineErrorText } from "@etcd-ts/server/storage";
import type { CommandContext } from "../context.ts";
import { ERROR, ExitError, NO_DATABASE } from "../exit.ts";
import { printDone, printPlan, runJob } from "../run-job.ts";

export async function runDefrag(context: CommandContext): Promise<void> {
  const { flags, logger } = context;
  const dataDir = flags.string("data-dir");
  const isDryRun = flags.bool("dry-run");
  let result: Awaited<ReturnType<typeof defragDataDir>>;
  try {
    result = await runJob(context, (job) => defragDataDir({ ...job, dataDir, logger, isDryRun }));
  } catch (error) {
    if (error instanceof ExitError) throw error;
    const text = `Failed to defragment etcd data[${dataDir}] (${offlineErrorText(error)})`;
    throw new ExitError(error instanceof NoDatabaseError ? NO_DATABASE : ERROR, text, { cause: error });
  }
  if (!isDryRun) {
    printDone(context, { ...result });
    return;
  }
  printPlan(
    context,
    [
      ["would defragment", `${result.path} (${result.backend})`],
      ["bytes now", String(result.beforeBytes)],
      ["about, then", String(result.afterBytes)],
    ],
    { ...result },
  );
}
