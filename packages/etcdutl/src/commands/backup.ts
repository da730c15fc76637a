import { backupDataDir } from "@etcd-ts/server/storage";
import { backendFlag } from "../backend-flag.ts";
import type { CommandContext } from "../context.ts";
import { printDone, runJob } from "../run-job.ts";

export async function runBackup(context: CommandContext): Promise<void> {
  const { flags, logger } = context;
  const options = {
    dataDir: flags.string("data-dir"),
    walDir: flags.string("wal-dir"),
    backupDir: flags.string("backup-dir"),
    backupWalDir: flags.string("backup-wal-dir"),
    withV3: flags.bool("with-v3"),
    backend: backendFlag(context),
  };
  await runJob(context, (job) => backupDataDir({ ...job, ...options, logger }));
  printDone(context, options);
}
