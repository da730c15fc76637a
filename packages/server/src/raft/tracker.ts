/** The configuration in force, what a leader knows of each member, and a candidate's votes. */
import type { ConfState } from "../pb/raftpb.ts";
import { Inflights } from "./inflights.ts";
import type { Progress } from "./progress.ts";
import { jointCommittedIndex, jointIds, jointText, jointVoteResult } from "./quorum/joint.ts";
import { majorityText, sortedIds, type VoteResult } from "./quorum/majority.ts";
import type { NodeId } from "./types.ts";

/**
 * Members and their roles. Invariants (asserted where a configuration is made, confchange/changer.ts):
 * learners vote in neither half; `learnersNext` is within `outgoing`; outside of a joint configuration `outgoing` and
 * `learnersNext` are empty and `autoLeave` is false.
 */
export interface Configuration {
  readonly incoming: ReadonlySet<NodeId>;
  readonly outgoing: ReadonlySet<NodeId>;
  /** Leave the joint configuration by itself, as soon as it is applied. */
  readonly autoLeave: boolean;
  readonly learners: ReadonlySet<NodeId>;
  /** Voters of the outgoing half that become learners when it is left. */
  readonly learnersNext: ReadonlySet<NodeId>;
}

export function emptyConfiguration(): Configuration {
  return {
    incoming: new Set(),
    outgoing: new Set(),
    autoLeave: false,
    learners: new Set(),
    learnersNext: new Set(),
  };
}

export function configurationText(config: Configuration): string {
  let text = `voters=${jointText(config)}`;
  if (config.learners.size > 0) text += ` learners=${majorityText(config.learners)}`;
  if (config.learnersNext.size > 0) text += ` learners_next=${majorityText(config.learnersNext)}`;
  if (config.autoLeave) text += " autoleave";
  return text;
}

export function confStateOf(config: Configuration): ConfState {
  return {
    voters: sortedIds(config.incoming),
    votersOutgoing: sortedIds(config.outgoing),
    learners: sortedIds(config.learners),
    learnersNext: sortedIds(config.learnersNext),
    autoLeave: config.autoLeave,
  };
}

/** By id, ascending: messages go out in this order. */
export type ProgressMap = ReadonlyMap<NodeId, Progress>;

export class ProgressTracker {
  readonly inflightMessagesMax: number;
  readonly inflightBytesMax: number;
  config: Configuration = emptyConfiguration();
  progress: ProgressMap = new Map();
  votes = new Map<NodeId, boolean>();
  readonly #matchOf = (id: NodeId): number | undefined => this.progress.get(id)?.match;

  constructor(inflightMessagesMax: number, inflightBytesMax: number) {
    this.inflightMessagesMax = inflightMessagesMax;
    this.inflightBytesMax = inflightBytesMax;
  }

  newInflights(): Inflights {
    return new Inflights(this.inflightMessagesMax, this.inflightBytesMax);
  }

  /** Whether this member alone is a quorum: the only voter, and no change under way. */
  isQuorum(id: NodeId): boolean {
    return this.config.incoming.size === 1 && this.config.outgoing.size === 0 && this.config.incoming.has(id);
  }

  /** The highest index that a quorum has. Infinity without voters. */
  committed(): number {
    return jointCommittedIndex(this.config, this.#matchOf);
  }

  isQuorumActive(): boolean {
    const active = new Map<NodeId, boolean>();
    for (const [id, progress] of this.progress) if (!progress.isLearner) active.set(id, progress.isRecentlyActive);
    return jointVoteResult(this.config, active) === "won";
  }

  /** Whether a quorum, `self` counted, was heard of less than `timeoutTicks` before `nowTick`. Who is new has until then. */
  isQuorumHeard(self: NodeId, nowTick: number, timeoutTicks: number): boolean {
    const heard = new Map<NodeId, boolean>();
    for (const [id, progress] of this.progress) {
      progress.heardAtTick ??= nowTick;
      if (!progress.isLearner) heard.set(id, id === self || nowTick - progress.heardAtTick < timeoutTicks);
    }
    return jointVoteResult(this.config, heard) === "won";
  }

  voterIds(): NodeId[] {
    return sortedIds(jointIds(this.config));
  }

  resetVotes(): void {
    this.votes = new Map();
  }

  /** The first vote of a member counts. */
  recordVote(id: NodeId, granted: boolean): void {
    if (!this.votes.has(id)) this.votes.set(id, granted);
  }

  tallyVotes(): { granted: number; rejected: number; result: VoteResult } {
    let granted = 0;
    let rejected = 0;
    for (const [id, progress] of this.progress) {
      const vote = this.votes.get(id);
      if (progress.isLearner || vote === undefined) continue;
      if (vote) granted++;
      else rejected++;
    }
    return { granted, rejected, result: jointVoteResult(this.config, this.votes) };
  }
}
