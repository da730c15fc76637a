/**
 * Joint quorums (thesis 4.3): while the configuration changes, both the incoming and the outgoing majority must agree.
 * Outside of a change, the outgoing half is empty.
 */
import {
  majorityChart,
  majorityCommittedIndex,
  majorityText,
  majorityVoteResult,
  type VoteResult,
} from "./majority.ts";

export interface JointVoters {
  readonly incoming: ReadonlySet<bigint>;
  readonly outgoing: ReadonlySet<bigint>;
}

export function jointCommittedIndex(voters: JointVoters, ackedIndex: (id: bigint) => number | undefined): number {
  const incoming = majorityCommittedIndex(voters.incoming, ackedIndex);
  return voters.outgoing.size === 0
    ? incoming
    : Math.min(incoming, majorityCommittedIndex(voters.outgoing, ackedIndex));
}

export function jointVoteResult(voters: JointVoters, votes: ReadonlyMap<bigint, boolean>): VoteResult {
  const incoming = majorityVoteResult(voters.incoming, votes);
  const outgoing = majorityVoteResult(voters.outgoing, votes);
  if (incoming === outgoing) return incoming;
  return incoming === "lost" || outgoing === "lost" ? "lost" : "pending";
}

/** All who vote in either half. */
export function jointIds(voters: JointVoters): Set<bigint> {
  return new Set([...voters.incoming, ...voters.outgoing]);
}

export function isJointVoter(voters: JointVoters, id: bigint): boolean {
  return voters.incoming.has(id) || voters.outgoing.has(id);
}

/** `(1 2)&&(1 2 3)`, or one half when the other is empty. */
export function jointText(voters: JointVoters): string {
  const incoming = majorityText(voters.incoming);
  return voters.outgoing.size > 0 ? `${incoming}&&${majorityText(voters.outgoing)}` : incoming;
}

export function jointChart(voters: JointVoters, ackedIndex: (id: bigint) => number | undefined): string {
  return majorityChart(jointIds(voters), ackedIndex);
}
