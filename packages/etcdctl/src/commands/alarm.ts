import { Maintenance } from "@etcd-ts/client/wire";
import type { AlarmMember, AlarmResponse } from "@etcd-ts/client/wire";
import type { CommandContext } from "../context.ts";
import { badArgs } from "../exit.ts";

const GET = 0;
const DEACTIVATE = 2;

/** `alarm list` */
export async function runAlarmList(context: CommandContext, args: readonly string[]): Promise<void> {
  if (args.length > 0) throw badArgs("alarm list command accepts no arguments");
  await using connected = await context.connect();
  const { client, printer, timeoutMs } = connected;
  const request = { action: GET, memberId: 0n, alarm: 0 };
  printer.print("alarm", await client.call(Maintenance.methods.alarm, request, { timeoutMs }));
}

/** `alarm disarm`: clears what there is, one by one, and prints it. */
export async function runAlarmDisarm(context: CommandContext, args: readonly string[]): Promise<void> {
  if (args.length > 0) throw badArgs("alarm disarm command accepts no arguments");
  await using connected = await context.connect();
  const { client, printer, timeoutMs } = connected;
  const change = (action: number, { memberId, alarm }: AlarmMember): Promise<AlarmResponse> =>
    client.call(Maintenance.methods.alarm, { action, memberId, alarm }, { timeoutMs });
  const { alarms: raised } = await change(GET, { memberId: 0n, alarm: 0 });
  const alarms: AlarmMember[] = [];
  for (const alarm of raised) alarms.push(...(await change(DEACTIVATE, alarm)).alarms);
  printer.print("alarm", { header: undefined, alarms });
}
