import { Lease } from "@etcd-ts/client/wire";
import { saturate } from "../cli/flags.ts";
import type { CommandContext } from "../context.ts";
import { exitWith } from "../errors.ts";
import { BAD_CONNECTION, badArgs, ERROR } from "../exit.ts";
import { hex16, ParseError, parseInt64 } from "../go/strconv.ts";
import { parseLeaseId } from "./requests.ts";

/** `lease grant TTL` */
export async function runLeaseGrant(context: CommandContext, args: readonly string[]): Promise<void> {
  const [text] = args;
  if (text === undefined || args.length > 1) throw badArgs("lease grant command needs TTL argument");
  let ttl: number;
  try {
    ttl = saturate(parseInt64(text, 10));
  } catch (error) {
    if (!(error instanceof ParseError)) throw error;
    throw badArgs(`bad TTL (${error.message})`);
  }
  await using connected = await context.connect();
  const { client, printer, timeoutMs } = connected;
  const response = await client.call(Lease.methods.leaseGrant, { ttl }, { timeoutMs }).catch((error: unknown) => {
    throw exitWith(ERROR, error, (reason) => `failed to grant lease (${reason})`);
  });
  printer.print("leaseGrant", response);
}

/** `lease revoke ID` */
export async function runLeaseRevoke(context: CommandContext, args: readonly string[]): Promise<void> {
  const [text] = args;
  if (text === undefined || args.length > 1) throw badArgs("lease revoke command needs 1 argument");
  const id = parseLeaseId(text, "lease ID arg");
  await using connected = await context.connect();
  const { client, printer, timeoutMs } = connected;
  const response = await client.call(Lease.methods.leaseRevoke, { id }, { timeoutMs }).catch((error: unknown) => {
    throw exitWith(ERROR, error, (reason) => `failed to revoke lease (${reason})`);
  });
  printer.print("leaseRevoke", { ...response, id });
}

/** `lease timetolive ID`, without a time limit of its own. */
export async function runLeaseTimeToLive(context: CommandContext, args: readonly string[]): Promise<void> {
  const [text] = args;
  if (text === undefined || args.length > 1) throw badArgs("lease timetolive command needs lease ID as argument");
  const id = parseLeaseId(text, "lease ID arg");
  const keys = context.flags.bool("keys");
  await using connected = await context.connect();
  const { client, printer } = connected;
  const response = await client.call(Lease.methods.leaseTimeToLive, { id, keys }).catch((error: unknown) => {
    throw exitWith(BAD_CONNECTION, error);
  });
  printer.print("leaseTimeToLive", { ...response, withKeys: keys });
}

/** `lease list`, without a time limit of its own. */
export async function runLeaseList(context: CommandContext): Promise<void> {
  await using connected = await context.connect();
  const { client, printer } = connected;
  const response = await client.call(Lease.methods.leaseLeases, {}).catch((error: unknown) => {
    throw exitWith(BAD_CONNECTION, error);
  });
  printer.print("leaseList", response);
}

/** `lease keep-alive ID`: until the lease is gone or we are. */
export async function runLeaseKeepAlive(context: CommandContext, args: readonly string[]): Promise<void> {
  const [text] = args;
  if (text === undefined || args.length > 1) throw badArgs("lease keep-alive command needs lease ID as argument");
  const id = parseLeaseId(text, "lease ID arg");
  await using connected = await context.connectFully();
  const { client, printer } = connected;
  try {
    if (context.flags.bool("once")) {
      printer.print("leaseKeepAlive", await client.lease.keepAliveOnce(id));
      return;
    }
    for await (const response of client.lease.keepAlive(id)) printer.print("leaseKeepAlive", response);
  } catch (error) {
    throw exitWith(BAD_CONNECTION, error);
  }
  if (printer.format === "simple") context.io.out.write(`lease ${hex16(id)} expired or revoked.\n`);
}
