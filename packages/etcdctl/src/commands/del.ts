import { KV } from "@etcd-ts/client/wire";
import type { CommandContext } from "../context.ts";
import { deleteRequest } from "./requests.ts";

/** `del KEY [RANGE_END]` */
export async function runDel(context: CommandContext, args: readonly string[]): Promise<void> {
  const request = deleteRequest(context.flags, args, (line) => context.io.err.write(`${line}\n`));
  await using connected = await context.connect();
  const { client, printer, timeoutMs } = connected;
  printer.print("del", await client.call(KV.methods.deleteRange, request, { timeoutMs }));
}
