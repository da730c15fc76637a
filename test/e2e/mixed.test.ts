/**
 * Members of ours and real ones in one cluster, under a load of writes. `npm run soak -- mixed-2-1 mixed-1-2 migration` does
 * the same for longer.
 */
import { describe, it } from "vitest";
import { ourBin, realBin } from "./harness/processes.ts";
import { leaderKills, migration } from "./harness/scenarios.ts";

const real = realBin ?? "";
const KILLS = Number(process.env["ETCD_MIXED_KILLS"] ?? 3);

describe.skipIf(!realBin)("a cluster of ours and real ones (needs ETCD_REAL_BIN)", () => {
  it("of two and one survives kill -9 of its leaders", async () => {
    await leaderKills({ rounds: KILLS, bins: [ourBin, ourBin, real] });
  }, 600_000);

  it("of one and two survives kill -9 of its leaders", async () => {
    await leaderKills({ rounds: KILLS, bins: [ourBin, real, real] });
  }, 600_000);

  it("goes over to ours, member by member, and back, while it serves", async () => {
    await migration({ rounds: 1, from: real, to: ourBin });
  }, 600_000);
});
