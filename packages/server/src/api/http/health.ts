/** `/health`, `/livez`, `/readyz`: whether this member serves, in etcd's words. */
import { AlarmType } from "@etcd-ts/client/wire";
import type { EtcdServer } from "../../etcdserver/index.ts";
import type { Logger } from "../../lib/log.ts";

export interface HealthDeps {
  readonly server: EtcdServer;
  readonly logger: Logger;
}

export interface HealthResult {
  readonly health: "true" | "false";
  readonly reason: string;
}

const alarmNames: Readonly<Record<number, string>> = { [AlarmType.NoSpace]: "NOSPACE", [AlarmType.Corrupt]: "CORRUPT" };

/** A read as clients do it, without asking who asks. Its key does not matter. */
async function read(server: EtcdServer, isSerializable: boolean): Promise<void> {
  if (isSerializable) server.header();
  else await server.linearizableReadNotify({});
}

export async function checkHealth(
  { server, logger }: HealthDeps,
  excluded: ReadonlySet<string>,
  isSerializable: boolean,
): Promise<HealthResult> {
  for (const { alarm, memberId } of server.alarms()) {
    const name = alarmNames[alarm] ?? "UNKNOWN";
    if (excluded.has(name)) continue;
    logger.warn("serving /health false due to an alarm", { alarm: `memberID:${memberId} alarm:${name} ` });
    return { health: "false", reason: `ALARM ${name}` };
  }
  if (!isSerializable && server.raftView().leaderId === 0n) {
    logger.warn("serving /health false; no leader");
    return { health: "false", reason: "RAFT NO LEADER" };
  }
  try {
    await read(server, isSerializable);
  } catch (error) {
    logger.warn("serving /health false; Range fails", { error });
    return { health: "false", reason: `RANGE ERROR:${(error as Error).message}` };
  }
  return { health: "true", reason: "" };
}

export type CheckType = "livez" | "readyz";
type Check = (server: EtcdServer) => Promise<void> | void;

const serializableRead: Check = (server) => read(server, true);

/** By probe and name. A learner is not ready: it refuses most requests (3.5.19 and later). */
export const healthChecks: Readonly<Record<CheckType, Readonly<Record<string, Check>>>> = {
  livez: { serializable_read: serializableRead },
  readyz: {
    data_corruption(server) {
      if (server.alarms().some(({ alarm }) => alarm === AlarmType.Corrupt)) throw new Error("alarm activated: CORRUPT");
    },
    serializable_read: serializableRead,
    linearizable_read: (server) => read(server, false),
    non_learner(server) {
      if (server.raftView().isLearner) throw new Error("not supported for learner");
    },
  },
};

export interface CheckOutcome {
  readonly name: string;
  readonly error: Error | undefined;
}

export async function runChecks(
  server: EtcdServer,
  type: CheckType,
  names: readonly string[],
): Promise<readonly CheckOutcome[]> {
  const outcomes: CheckOutcome[] = [];
  for (const name of names) {
    let error: Error | undefined;
    try {
      await healthChecks[type][name]?.(server);
    } catch (thrown) {
      error = thrown as Error;
    }
    outcomes.push({ name, error });
  }
  return outcomes;
}
