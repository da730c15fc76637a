import { defragDataDir, NoDatabaseError, offlineErrorText } from "@etcd-ts/server/storage";
import type { CommandContext } from "../context.ts";
import { ERROR, ExitError, NO_DATABASE } from "../exit.ts";

export async function runDefrag({ flags, logger }: CommandContext): Promise<void> {
  const dataDir = flags.string("data-dir");
  try {
    await defragDataDir({ dataDir, logger });
  } catch (error) {
    const text = `Failed to defragment etcd data[${dataDir}] (${offlineErrorText(error)})`;
    throw new ExitError(error instanceof NoDatabaseError ? NO_DATABASE : ERROR, text, { cause: error });
  }
}
