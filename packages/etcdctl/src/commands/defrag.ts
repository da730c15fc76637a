import { Maintenance } from "@etcd-ts/client/wire";
import type { CommandContext } from "../context.ts";
import { errorText } from "../errors.ts";
import { ERROR, exitSilently } from "../exit.ts";
import { chosenEndpoints } from "./endpoint.ts";
import { runEtcdutl } from "./etcdutl.ts";

/** `defrag`: each endpoint in turn, going on after one that fails; or a data directory, which is etcdutl's work. */
export async function runDefrag(context: CommandContext): Promise<void> {
  const { flags, io } = context;
  const dataDir = flags.string("data-dir");
  if (dataDir !== "") {
    io.err.write("Use `etcdutl defrag` instead. The --data-dir is going to be decomissioned in v3.6.\n\n");
    return runEtcdutl(context, ["defrag", "--data-dir", dataDir]);
  }
  let hasFailed = false;
  const endpoints = await chosenEndpoints(context);
  await using connected = await context.connect({ endpoints });
  const { client, timeoutMs } = connected;
  for (const endpoint of endpoints) {
    try {
      await client.call(Maintenance.methods.defragment, {}, { timeoutMs, endpoint: endpoint.trim() });
      io.out.write(`Finished defragmenting etcd member[${endpoint}]\n`);
    } catch (error) {
      io.err.write(`Failed to defragment etcd member[${endpoint}] (${errorText(error)})\n`);
      hasFailed = true;
    }
  }
  if (hasFailed) throw exitSilently(ERROR, "an endpoint could not be defragmented");
}
