import { Election, Session } from "@etcd-ts/client/concurrency";
import { KV } from "@etcd-ts/client/wire";
import type { CommandContext, Connected, CtlClient } from "../context.ts";
import { badArgs, ERROR, ExitError } from "../exit.ts";
import { toBytes } from "../go/bytes.ts";
import { aborted } from "./lock.ts";

/** `elect NAME PROPOSAL`, or `elect --listen NAME`. */
export async function runElect(context: CommandContext, args: readonly string[]): Promise<void> {
  const [name, proposal] = args;
  if (name === undefined || args.length > 2) {
    throw badArgs("elect takes one election name argument and an optional proposal argument");
  }
  const isListening = context.flags.bool("listen");
  if (proposal === undefined && !isListening) throw badArgs("no proposal argument but -l not set");
  if (proposal !== undefined && isListening) throw badArgs("proposal given but -l is set");
  await using connected = await context.connectFully();
  const signal = context.io.catchSignals();
  if (proposal === undefined) await observe(connected, name, signal);
  else await campaign(connected, name, proposal, signal);
}

async function observe({ client, printer }: Connected<CtlClient>, name: string, signal: AbortSignal): Promise<void> {
  const session = await Session.open(client);
  const election = new Election(session, toBytes(name));
  try {
    for await (const { header, kv } of election.observe({ signal })) {
      printer.print("get", { header, kvs: [kv], more: false, count: 0 });
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  }
  if (!signal.aborted) throw new ExitError(ERROR, "elect: observer lost");
}

async function campaign(
  { client, printer }: Connected<CtlClient>,
  name: string,
  proposal: string,
  signal: AbortSignal,
): Promise<void> {
  const session = await Session.open(client);
  const election = new Election(session, toBytes(name));
  await election.campaign(toBytes(proposal), { signal }).catch((error: unknown) => {
    throw signal.aborted ? new ExitError(ERROR, "context canceled") : error;
  });
  // Elected: print the key.
  printer.print("get", await client.call(KV.methods.range, { key: election.key ?? new Uint8Array(0) }, { signal }));
  await Promise.race([session.lost, aborted(signal)]);
  if (!signal.aborted) throw new ExitError(ERROR, "elect: session expired");
  await election.resign();
}
