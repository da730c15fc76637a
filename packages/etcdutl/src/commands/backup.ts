import { backupDataDir } from "@etcd-ts/server/storage";
import { backendFlag } from "../backend-flag.ts";
import type { CommandContext } from "../context.ts";

export async function runBackup(context: CommandContext): Promise<void> {
  const { flags, logger } = context;
  await backupDataDir({
    dataDir: flags.string("data-dir"),
    walDir: flags.string("wal-dir"),
    backupDir: flags.string("backup-dir"),
    backupWalDir: flags.string("backup-wal-dir"),
    withV3: flags.bool("with-v3"),
    backend: backendFlag(context),
    logger,
  });
}
