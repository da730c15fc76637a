/** The long forms of the cluster tests; `scripts/soak.mjs` bundles this and says how to call it. */
import { laggingFollower } from "./lagging.ts";
import { ourBin, realBin } from "./processes.ts";
import { robustness } from "./robustness.ts";
import { leaderKills, linkCuts, migration, pauses, restartsOfAll, type ScenarioOptions } from "./scenarios.ts";

export interface SoakOptions {
  readonly scenarios: readonly string[];
  readonly rounds?: number | undefined;
  readonly electionMs: number;
  /** Of the random faults. */
  readonly seed: number;
  /** Of the follower that lags. */
  readonly entries: number;
  readonly valueBytes: number;
  say(line: string): void;
}

interface Soak {
  readonly about: string;
  readonly rounds: number;
  /** Throws when a promise was broken. */
  run(options: ScenarioOptions & SoakOptions): Promise<unknown>;
  readonly needsReal?: boolean;
}

const ELECTION_TIMEOUTS_MAX = 3;

/** Writes must go on within three election time-outs of a leader's end. */
async function leaderKillsInTime(options: ScenarioOptions): Promise<void> {
  const { worstGap } = await leaderKills(options);
  if (worstGap <= ELECTION_TIMEOUTS_MAX) return;
  throw new Error(`a new leader took writes only after ${worstGap.toFixed(2)} election time-outs`);
}

async function lag({ entries, valueBytes, say, bins, rounds }: ScenarioOptions & SoakOptions): Promise<void> {
  for (let round = 0; round < (rounds ?? 1); round++) {
    const flags = ["--quota-backend-bytes", `${8 * 2 ** 30}`];
    const outcome = await laggingFollower({ bins, entries, valueBytes, idleMs: 20_000, cluster: { flags }, say });
    if (outcome.termsAfter !== outcome.termsBefore) throw new Error("an election happened");
    if (outcome.snapshotsApplied === 0) throw new Error("the follower caught up without a snapshot");
  }
}

/** A fresh cluster every so many faults, so that the search for an order stays short. */
const FAULTS_A_RUN = 10;

async function randomFaults({ rounds, seed, say, cluster, bins }: ScenarioOptions & SoakOptions): Promise<void> {
  for (let done = 0; done < rounds; done += FAULTS_A_RUN) {
    say(`seed ${seed + done}`);
    await robustness({ bins, rounds: Math.min(FAULTS_A_RUN, rounds - done), seed: seed + done, cluster, say });
  }
}

/** The programs of a mixed cluster; throws where the real ones are not there. */
function mixed(ours: number): string[] {
  const real = realBin;
  if (!real) throw new Error("ETCD_REAL_BIN names no folder with the real programs");
  return [0, 1, 2].map((n) => (n < ours ? ourBin : real));
}

async function migrate(options: ScenarioOptions): Promise<void> {
  await migration({ ...options, from: mixed(0)[0] as string, to: ourBin });
}

export const soaks: Readonly<Record<string, Soak>> = {
  kills: { about: "kill -9 of the leader", rounds: 50, run: leaderKillsInTime },
  pauses: { about: "SIGSTOP and SIGCONT of members", rounds: 20, run: pauses },
  links: { about: "links cut each way and both ways, held, torn down, slow", rounds: 36, run: linkCuts },
  restarts: { about: "everything down and up at once", rounds: 20, run: restartsOfAll },
  robustness: { about: "random faults, everything seen is checked", rounds: 40, run: randomFaults },
  "mixed-2-1": {
    about: "kill -9 of the leader of two members of ours and a real one",
    rounds: 20,
    run: (options) => leaderKills({ ...options, bins: mixed(2) }),
    needsReal: true,
  },
  "mixed-1-2": {
    about: "kill -9 of the leader of one member of ours and two real ones",
    rounds: 20,
    run: (options) => leaderKills({ ...options, bins: mixed(1) }),
    needsReal: true,
  },
  migration: {
    about: "a live cluster goes from the real programs to ours, member by member, and back",
    rounds: 1,
    run: migrate,
    needsReal: true,
  },
  "real-robustness": {
    about: "the same with real members, to try the checks themselves",
    rounds: 10,
    run: (options) => randomFaults({ ...options, bins: mixed(0) }),
    needsReal: true,
  },
  lag: { about: "a follower that catches up by a snapshot", rounds: 1, run: lag },
};

/** Whether all of them kept their promises. */
export async function runSoaks(options: SoakOptions): Promise<boolean> {
  const { scenarios, rounds, electionMs, say } = options;
  let isGood = true;
  for (const name of scenarios) {
    const soak = soaks[name] as Soak;
    const count = rounds ?? soak.rounds;
    say(`== ${name}: ${soak.about}, ${count} rounds`);
    if (soak.needsReal && !realBin) {
      say("   left out: ETCD_REAL_BIN names no folder with the real programs");
      continue;
    }
    const startMs = performance.now();
    try {
      const cluster = { electionMs, heartbeatMs: Math.round(electionMs / 10) };
      await soak.run({ ...options, rounds: count, cluster });
      say(`   passed in ${((performance.now() - startMs) / 1000).toFixed(0)} s`);
    } catch (error) {
      isGood = false;
      say(`   FAILED: ${(error as Error).message}`);
    }
  }
  return isGood;
}
