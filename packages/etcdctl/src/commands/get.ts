import { KV } from "@etcd-ts/client/wire";
import type { CommandContext } from "../context.ts";
import { badArgs } from "../exit.ts";
import { rangeRequest } from "./requests.ts";

/** `get KEY [RANGE_END]` */
export async function runGet(context: CommandContext, args: readonly string[]): Promise<void> {
  const { flags } = context;
  const request = rangeRequest(flags, args);
  await using connected = await context.connect();
  const { client, printer, timeoutMs } = connected;
  const response = await client.call(KV.methods.range, request, { timeoutMs });
  if (flags.bool("count-only") && printer.format !== "fields") {
    throw badArgs("--count-only is only for `--write-out=fields`");
  }
  if (flags.bool("print-value-only") && printer.format !== "simple") {
    throw badArgs("print-value-only is only for `--write-out=simple`");
  }
  printer.print("get", response, { valueOnly: flags.bool("print-value-only") });
}
