import { snapshotStatusInThreads } from "@etcd-ts/server/storage";
import type { CommandContext } from "../context.ts";
import { badArgs } from "../exit.ts";
import { printAnswer, requireFormat } from "../print.ts";
import { progressBar } from "../progress.ts";

export async function runStatus(context: CommandContext): Promise<void> {
  const [file, ...surplus] = context.args;
  if (file === undefined || surplus.length > 0) throw badArgs("snapshot status requires exactly one argument");
  requireFormat(context);
  const bar = progressBar(context.io);
  const { hash, revision, totalKey, totalSize, totalSizeText } = await snapshotStatusInThreads(file, {
    onProgress: bar.onProgress,
  }).finally(() => bar.end());
  const row = [hash.toString(16), String(revision), String(totalKey), totalSizeText];
  printAnswer(context, {
    simple: row.join(", "),
    json: { hash, revision, totalKey, totalSize },
    fields: [
      ["Hash", hash],
      ["Revision", revision],
      ["Keys", totalKey],
      ["Size", totalSize],
    ],
    table: { header: ["HASH", "REVISION", "TOTAL KEYS", "TOTAL SIZE"], row },
  });
}
