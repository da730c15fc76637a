/**
 * The first election. A member that has just started waits for a leader as long as one that lost it, though there may be
 * none: so part of that time is skipped. Alone, it stands for election at once. Among others, the time to hear of a leader
 * that is there begins when it is connected to them; two ticks of it are left.
 */
import { hexId } from "../lib/bytes.ts";
import type { Clock } from "../lib/clock.ts";
import { goDuration } from "../lib/go-format.ts";
import type { Logger } from "../lib/log.ts";

/** How long connections are waited for; without them there is nobody to be elected by. etcd's. */
const CONNECTING_MS = 5000;
const LOOK_INTERVAL_MS = 50;

export interface FastForwardDeps {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly memberId: bigint;
  readonly electionTicks: number;
  readonly tickMs: number;
  /** `--initial-election-tick-advance`; who is alone need not ask. */
  readonly isEnabled: boolean;
  /** Resolves when what was committed before the start is applied, which may say who the members are. */
  readonly caughtUp: Promise<void>;
  /** This member is the only voter. */
  isAlone(): boolean;
  /** Others that are connected now. */
  activePeers(): number;
  campaign(): void;
  advance(ticks: number): void;
}

/** Ends by itself, or with the signal. */
export async function fastForwardElection(deps: FastForwardDeps, signal: AbortSignal): Promise<void> {
  const { clock, logger, memberId, electionTicks, tickMs } = deps;
  const fields = (ticks: number) => ({
    "local-member-id": hexId(memberId),
    "forward-ticks": ticks,
    "forward-duration": goDuration(ticks * tickMs),
    "election-ticks": electionTicks,
    "election-timeout": goDuration(electionTicks * tickMs),
  });
  try {
    await deps.caughtUp;
    if (deps.isAlone()) {
      logger.info("started as single-node; fast-forwarding election ticks", fields(electionTicks - 1));
      deps.campaign();
      return;
    }
    if (!deps.isEnabled) {
      logger.info("skipping initial election tick advance", { "election-ticks": electionTicks });
      return;
    }
    logger.info("starting initial election tick advance", { "election-ticks": electionTicks });
    for (let waitedMs = 0; waitedMs < CONNECTING_MS; waitedMs += LOOK_INTERVAL_MS) {
      await clock.sleep(LOOK_INTERVAL_MS, signal);
      const active = deps.activePeers();
      // One is not enough to tell: a cluster of two cannot lose anybody, and a larger one has more to come.
      if (active <= 1) continue;
      const ticks = Math.max(0, electionTicks - 2);
      logger.info("initialized peer connections; fast-forwarding election ticks", {
        ...fields(ticks),
        "active-remote-members": active,
      });
      deps.advance(ticks);
      return;
    }
  } catch {
    // Stopped.
  }
}
