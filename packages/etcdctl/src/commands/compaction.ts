import { KV } from "@etcd-ts/client/wire";
import { saturate } from "../cli/flags.ts";
import type { CommandContext } from "../context.ts";
import { badArgs } from "../exit.ts";
import { parseInt64 } from "../go/strconv.ts";

/** `compaction REVISION`; a revision that is no number ends with 1, not 128: scripts know it so. */
export async function runCompaction(context: CommandContext, args: readonly string[]): Promise<void> {
  const [text] = args;
  if (text === undefined || args.length > 1) throw badArgs("compaction command needs 1 argument");
  const revision = parseInt64(text, 10);
  await using connected = await context.connect();
  const { client, timeoutMs } = connected;
  const request = { revision: saturate(revision), physical: context.flags.bool("physical") };
  await client.call(KV.methods.compact, request, { timeoutMs });
  context.io.out.write(`compacted revision ${revision}\n`);
}
