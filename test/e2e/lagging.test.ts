/**
 * A follower comes back too far behind for the log: it catches up by a snapshot, and nobody stands for election meanwhile.
 * 20 MB here; `npm run soak -- lag` takes a gigabyte and tells what it costs the leader's writers.
 */
import { describe, expect, it } from "vitest";
import { laggingFollower } from "./harness/lagging.ts";

describe("a follower that is far behind", () => {
  it("catches up by a snapshot, without an election", async () => {
    const outcome = await laggingFollower({
      entries: 200,
      valueBytes: 100_000,
      fillInFlight: 4,
      idleMs: 1_000,
      say: (line) => process.stdout.write(`${line}\n`),
      // A loaded machine may keep any process waiting for a second: that is no fault of the snapshot.
      cluster: {
        heartbeatMs: 500,
        electionMs: 5_000,
        flags: ["--snapshot-count", "50", "--experimental-snapshot-catchup-entries", "10"],
      },
    });
    expect(outcome).toMatchObject({ snapshotsApplied: 1, isSameLeader: true, termsAfter: outcome.termsBefore });
  }, 300_000);
});
