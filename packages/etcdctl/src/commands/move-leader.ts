import { Maintenance } from "@etcd-ts/client/wire";
import type { CommandContext } from "../context.ts";
import { badArgs } from "../exit.ts";
import { ParseError, parseUint64 } from "../go/strconv.ts";

/** `move-leader ID`: asks each endpoint who it is until it meets the leader, and tells that one. */
export async function runMoveLeader(context: CommandContext, args: readonly string[]): Promise<void> {
  const [text] = args;
  if (text === undefined || args.length > 1) throw badArgs("move-leader command needs 1 argument");
  const to = memberId(text);
  const endpoints = await context.endpoints();
  await using connected = await context.connect({ endpoints });
  const { client, printer, timeoutMs } = connected;
  for (const endpoint of endpoints) {
    const options = { timeoutMs, endpoint: endpoint.trim() };
    const { header, leader } = await client.call(Maintenance.methods.status, {}, options);
    if (header?.memberId !== leader) continue;
    const response = await client.call(Maintenance.methods.moveLeader, { targetId: to }, options);
    printer.print("moveLeader", { ...response, from: leader, to });
    return;
  }
  throw badArgs(`no leader endpoint given at [${endpoints.join(" ")}]`);
}

function memberId(text: string): bigint {
  try {
    return parseUint64(text, 16);
  } catch (error) {
    if (error instanceof ParseError) throw badArgs(error.message);
    throw error;
  }
}
