/** All gRPC services of a member, with what goes around every call. */
import type { ServiceRegistration } from "../../rpc/index.ts";
import { authService } from "./auth.ts";
import { clusterService } from "./cluster.ts";
import type { ApiDeps } from "./context.ts";
import { electionService } from "./election.ts";
import { LeaderMonitor, withLeaderWatch, withRequestStats } from "./guard.ts";
import { healthService, ServingState } from "./health.ts";
import { kvService } from "./kv.ts";
import { leaseService } from "./lease.ts";
import { lockService } from "./lock.ts";
import { maintenanceService } from "./maintenance.ts";
import { watchService } from "./watch.ts";

export interface ApiServices {
  readonly onAllPorts: readonly ServiceRegistration[];
  /** Not on the peer port. */
  readonly onClientPorts: readonly ServiceRegistration[];
}

/** `around` is the innermost layer of each service: it sees the calls that were let in. */
export function apiServices(
  deps: ApiDeps,
  around: (registration: ServiceRegistration) => ServiceRegistration = (registration) => registration,
): ApiServices {
  const serving = new ServingState();
  const monitor = new LeaderMonitor(deps);
  const guarded = (registration: ServiceRegistration) =>
    withRequestStats(withLeaderWatch(around(registration), monitor), deps);
  return {
    onAllPorts: [
      kvService(deps),
      watchService(deps),
      leaseService(deps),
      clusterService(deps),
      authService(deps),
      maintenanceService(deps, serving),
      healthService(deps, serving),
    ].map(guarded),
    onClientPorts: [lockService(deps), electionService(deps)].map(guarded),
  };
}
