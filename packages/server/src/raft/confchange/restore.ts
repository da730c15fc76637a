/** From a stored ConfState back to a configuration: by the same changes that could have led to it. */
import { type ConfChangeSingle, ConfChangeType, type ConfState } from "../../pb/raftpb.ts";
import { emptyConfiguration } from "../tracker.ts";
import { type ChangeContext, enterJoint, type Membership, simpleChange } from "./changer.ts";

export function restore(state: ConfState, context: ChangeContext): Membership {
  const { ConfChangeAddNode, ConfChangeAddLearnerNode, ConfChangeRemoveNode } = ConfChangeType;
  const each = (type: number, ids: readonly bigint[]): ConfChangeSingle[] => ids.map((nodeId) => ({ type, nodeId }));
  const incoming = [
    ...each(ConfChangeAddNode, state.voters),
    ...each(ConfChangeAddLearnerNode, state.learners),
    ...each(ConfChangeAddLearnerNode, state.learnersNext),
  ];

  let membership: Membership = { config: emptyConfiguration(), progress: new Map() };
  const isJoint = state.votersOutgoing.length > 0;
  // The outgoing voters were once the incoming ones; entering the joint configuration turns them round.
  for (const change of isJoint ? each(ConfChangeAddNode, state.votersOutgoing) : incoming) {
    membership = simpleChange(membership, [change], context);
  }
  if (!isJoint) return membership;
  const removals = each(ConfChangeRemoveNode, state.votersOutgoing);
  return enterJoint(membership, state.autoLeave, [...removals, ...incoming], context);
}
