import { defragDataDir, offlineErrorText } from "@etcd-ts/server/storage";
import type { CommandContext } from "../context.ts";
import { ERROR, ExitError } from "../exit.ts";

export async function runDefrag({ flags, logger }: CommandContext): Promise<void> {
  const dataDir = flags.string("data-dir");
  try {
    await defragDataDir({ dataDir, logger });
  } catch (error) {
    const text = `Failed to defragment etcd data[${dataDir}] (${offlineErrorText(error)})`;
    throw new ExitError(ERROR, text, { cause: error });
  }
}
