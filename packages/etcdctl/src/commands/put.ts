import { KV } from "@etcd-ts/client/wire";
import type { CommandContext } from "../context.ts";
import { putRequest } from "./requests.ts";

/** `put KEY VALUE`, or the value from standard input. */
export async function runPut(context: CommandContext, args: readonly string[]): Promise<void> {
  const request = await putRequest(context.flags, args, () => context.io.input.readAll());
  await using connected = await context.connect();
  const { client, printer, timeoutMs } = connected;
  printer.print("put", await client.call(KV.methods.put, request, { timeoutMs }));
}
