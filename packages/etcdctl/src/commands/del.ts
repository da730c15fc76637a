import { type DeleteRangeRequest, type Init, KV } from "@etcd-ts/client/wire";
import type { CommandContext, Connected } from "../context.ts";
import { ERROR, exitSilently } from "../exit.ts";
import { deleteRequest } from "./requests.ts";

/** `del KEY [RANGE_END]`; on a terminal a range is deleted only after a yes. */
export async function runDel(context: CommandContext, args: readonly string[]): Promise<void> {
  const { flags, io } = context;
  const request = deleteRequest(flags, args, (line) => io.err.write(`${line}\n`));
  await using connected = await context.connect();
  const { client, printer, timeoutMs } = connected;
  const isRange = request.rangeEnd !== undefined && request.rangeEnd.length > 0;
  const hasPerson = io.input.isTerminal && io.err.isTerminal;
  if (isRange && hasPerson && !flags.bool("yes") && !(await isConfirmed(context, connected, request))) {
    throw exitSilently(ERROR, "nothing was deleted");
  }
  printer.print("del", await client.call(KV.methods.deleteRange, request, { timeoutMs }));
}

async function isConfirmed(
  { io }: CommandContext,
  { client, timeoutMs }: Connected,
  { key, rangeEnd }: Init<DeleteRangeRequest>,
): Promise<boolean> {
  const { count } = await client.call(KV.methods.range, { key, rangeEnd, countOnly: true }, { timeoutMs });
  if (count === 0) return true;
  io.err.write(`Delete ${count} ${count === 1 ? "key" : "keys"}? [y/N] `);
  if (/^y(?:es)?$/i.test((await io.input.readLine(false)).trim())) return true;
  io.err.write("Nothing was deleted.\n");
  return false;
}
