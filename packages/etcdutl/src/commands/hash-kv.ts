import { snapshotHashKv } from "@etcd-ts/server/storage";
import type { CommandContext } from "../context.ts";
import { badArgs } from "../exit.ts";
import { printAnswer, requireFormat } from "../print.ts";

export function runHashKv(context: CommandContext): void {
  const [file, ...surplus] = context.args;
  if (file === undefined || surplus.length > 0) throw badArgs("hashkv requires exactly one argument");
  requireFormat(context);
  const revision = context.flags.uint("rev");
  const max = BigInt(Number.MAX_SAFE_INTEGER);
  const { hash, hashRevision, compactRevision } = snapshotHashKv(file, Number(revision > max ? max : revision));
  const row = [String(hash), String(hashRevision), String(compactRevision)];
  printAnswer(context, {
    simple: row.join(", "),
    json: { hash, hashRevision, compactRevision },
    fields: [
      ["Hash", hash],
      ["Hash revision", hashRevision],
      ["Compact revision", compactRevision],
    ],
    table: { header: ["HASH", "HASH REVISION", "COMPACT REVISION"], row },
  });
}
