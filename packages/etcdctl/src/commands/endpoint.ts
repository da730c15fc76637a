// endpoint health, status and hashkv: each endpoint asked for itself.
import { Cluster, KV, Maintenance } from "@etcd-ts/client/wire";
import type { CommandContext } from "../context.ts";
import { errorText, exitWith } from "../errors.ts";
import { ERROR, ExitError, exitSilently } from "../exit.ts";
import { formatDuration } from "../go/strconv.ts";
import type { EndpointHash, EndpointHealth, EndpointStatus } from "../print/answers.ts";

const HEALTH_KEY = Buffer.from("health");
const alarmTexts: readonly string[] = ["UNKNOWN", "NOSPACE ", "CORRUPT "];

/** The endpoints to ask: those of the flags, or with --cluster the client URLs of all members, by member id. */
export async function chosenEndpoints(context: CommandContext): Promise<readonly string[]> {
  if (!context.flags.bool("cluster")) return context.endpoints();
  await using connected = await context.connect();
  const { client, timeoutMs } = connected;
  try {
    const { members } = await client.call(Cluster.methods.memberList, { linearizable: true }, { timeoutMs });
    return members.flatMap(({ clientUrls }) => clientUrls);
  } catch (error) {
    throw exitWith(ERROR, error, (reason) => `failed to fetch endpoints from etcd cluster member list: ${reason}`);
  }
}

/** `endpoint health`: all at once; listed in the order in which they answer. */
export async function runEndpointHealth(context: CommandContext): Promise<void> {
  await context.prepare();
  const printer = await context.printer();
  const endpoints = await chosenEndpoints(context);
  const list: EndpointHealth[] = [];
  await Promise.all(endpoints.map(async (endpoint) => list.push(await healthOf(context, endpoint))));
  printer.print("endpointHealth", list);
  if (list.some(({ error }) => error !== "")) throw new ExitError(ERROR, "unhealthy cluster");
}

async function healthOf(context: CommandContext, endpoint: string): Promise<EndpointHealth> {
  const sick = (took: string, error: string): EndpointHealth => ({ endpoint, health: false, took, error });
  let took = "";
  try {
    await using connected = await context.connect({ endpoints: [endpoint], logger: "client" });
    const { client, timeoutMs } = connected;
    const start = context.io.now();
    const elapsed = (): string => formatDuration(BigInt(Math.round((context.io.now() - start) * 1e6)));
    try {
      await client.call(KV.methods.range, { key: HEALTH_KEY }, { timeoutMs });
      took = elapsed();
    } catch (error) {
      took = elapsed();
      // That we may not read the key was found out by consensus: the endpoint works.
      if (errorText(error) !== "etcdserver: permission denied") return sick(took, errorText(error));
    }
    const rest = timeoutMs - (context.io.now() - start);
    try {
      const request = { action: 0, memberId: 0n, alarm: 0 };
      const { alarms } = await client.call(Maintenance.methods.alarm, request, { timeoutMs: rest });
      if (alarms.length === 0) return { endpoint, health: true, took, error: "" };
      const names = alarms.map(({ alarm }) => alarmTexts[alarm] ?? "UNKNOWN").join("");
      return sick(took, `Active Alarm(s): ${names}`);
    } catch {
      return sick(took, "Unable to fetch the alarm list");
    }
  } catch (error) {
    if (error instanceof ExitError && error.exitCode !== 2) throw error;
    return sick(took, errorText(error));
  }
}

/** `endpoint status` */
export async function runEndpointStatus(context: CommandContext): Promise<void> {
  const endpoints = await chosenEndpoints(context);
  await using connected = await context.connect({ endpoints });
  const { client, printer, timeoutMs } = connected;
  const list: EndpointStatus[] = [];
  for (const endpoint of endpoints) {
    try {
      const status = await client.call(Maintenance.methods.status, {}, { timeoutMs, endpoint: endpoint.trim() });
      list.push({ endpoint, status });
    } catch (error) {
      context.io.err.write(`Failed to get the status of endpoint ${endpoint} (${errorText(error)})\n`);
    }
  }
  printer.print("endpointStatus", list);
  if (list.length < endpoints.length) throw exitSilently(ERROR, "an endpoint did not tell its status");
}

/** `endpoint hashkv` */
export async function runEndpointHashKv(context: CommandContext): Promise<void> {
  const endpoints = await chosenEndpoints(context);
  await using connected = await context.connect({ endpoints });
  const { client, printer, timeoutMs } = connected;
  const request = { revision: context.flags.number("rev") };
  const list: EndpointHash[] = [];
  let failure: { error: unknown } | undefined;
  for (const endpoint of endpoints) {
    try {
      const options = { timeoutMs, endpoint: endpoint.trim() };
      list.push({ endpoint, hash: await client.call(Maintenance.methods.hashKv, request, options) });
    } catch (error) {
      failure = { error };
      context.io.err.write(`Failed to get the hash of endpoint ${endpoint} (${errorText(error)})\n`);
    }
  }
  printer.print("endpointHash", list);
  if (failure) throw exitWith(ERROR, failure.error);
}
