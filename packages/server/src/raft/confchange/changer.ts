/**
 * Configuration changes as functions: from a configuration and its progress to the next. The inputs are never altered.
 *
 * A simple change alters at most one voter, so that old and new majorities overlap. Anything else goes through a joint
 * configuration: `enterJoint` copies the voters into the outgoing half and applies the changes to the incoming one;
 * `leaveJoint` drops the outgoing half, and only then do demoted voters become learners and removed ones vanish.
 */
import { type ConfChangeSingle, ConfChangeType } from "../../pb/raftpb.ts";
import type { Inflights } from "../inflights.ts";
import { Progress } from "../progress.ts";
import { sortedIds } from "../quorum/majority.ts";
import type { Configuration, ProgressMap } from "../tracker.ts";
import type { NodeId } from "../types.ts";

/** A change that does not fit the configuration. */
export class ConfChangeError extends Error {
  override readonly name = "ConfChangeError";
}

/** The part of a tracker that changes work on. */
export interface Membership {
  readonly config: Configuration;
  readonly progress: ProgressMap;
}

export interface ChangeContext {
  /** Members that are added will be probed from here. */
  readonly lastIndex: number;
  readonly newInflights: () => Inflights;
}

interface Draft {
  readonly incoming: Set<NodeId>;
  readonly outgoing: Set<NodeId>;
  autoLeave: boolean;
  readonly learners: Set<NodeId>;
  readonly learnersNext: Set<NodeId>;
  readonly progress: Map<NodeId, Progress>;
}

function draftOf({ config, progress }: Membership): Draft {
  checkInvariants(config, progress);
  return {
    incoming: new Set(config.incoming),
    outgoing: new Set(config.outgoing),
    autoLeave: false,
    learners: new Set(config.learners),
    learnersNext: new Set(config.learnersNext),
    progress: new Map([...progress].map(([id, one]) => [id, one.clone()])),
  };
}

function finish(draft: Draft): Membership {
  const { progress, ...config } = draft;
  checkInvariants(config, progress);
  return {
    config,
    progress: new Map(sortedIds(progress.keys()).map((id) => [id, progress.get(id) as Progress])),
  };
}

export function enterJoint(
  from: Membership,
  autoLeave: boolean,
  changes: readonly ConfChangeSingle[],
  context: ChangeContext,
): Membership {
  const draft = draftOf(from);
  if (draft.outgoing.size > 0) throw new ConfChangeError("config is already joint");
  // The empty configuration may only be filled by simple changes.
  if (draft.incoming.size === 0) throw new ConfChangeError("can't make a zero-voter config joint");
  for (const id of draft.incoming) draft.outgoing.add(id);
  applyChanges(draft, changes, context);
  draft.autoLeave = autoLeave;
  return finish(draft);
}

export function leaveJoint(from: Membership): Membership {
  const draft = draftOf(from);
  if (draft.outgoing.size === 0) throw new ConfChangeError("can't leave a non-joint config");
  for (const id of draft.learnersNext) {
    draft.learners.add(id);
    const progress = draft.progress.get(id);
    if (progress) progress.isLearner = true;
  }
  draft.learnersNext.clear();
  for (const id of draft.outgoing) {
    if (!draft.incoming.has(id) && !draft.learners.has(id)) draft.progress.delete(id);
  }
  draft.outgoing.clear();
  return finish(draft);
}

export function simpleChange(
  from: Membership,
  changes: readonly ConfChangeSingle[],
  context: ChangeContext,
): Membership {
  const draft = draftOf(from);
  if (draft.outgoing.size > 0) throw new ConfChangeError("can't apply simple config change in joint config");
  applyChanges(draft, changes, context);
  if (differences(from.config.incoming, draft.incoming) > 1) {
    throw new ConfChangeError("more than one voter changed without entering joint config");
  }
  return finish(draft);
}

function applyChanges(draft: Draft, changes: readonly ConfChangeSingle[], context: ChangeContext): void {
  for (const { type, nodeId } of changes) {
    // The application puts 0 in place of a change that it refuses.
    if (nodeId === 0n) continue;
    switch (type) {
      case ConfChangeType.ConfChangeAddNode:
        makeVoter(draft, nodeId, context);
        break;
      case ConfChangeType.ConfChangeAddLearnerNode:
        makeLearner(draft, nodeId, context);
        break;
      case ConfChangeType.ConfChangeRemoveNode:
        remove(draft, nodeId);
        break;
      case ConfChangeType.ConfChangeUpdateNode:
        break;
      default:
        throw new ConfChangeError(`unexpected conf type ${type}`);
    }
  }
  if (draft.incoming.size === 0) throw new ConfChangeError("removed all voters");
}

function makeVoter(draft: Draft, id: NodeId, context: ChangeContext): void {
  const progress = draft.progress.get(id);
  draft.incoming.add(id);
  if (!progress) {
    draft.progress.set(id, newProgress(false, context));
    return;
  }
  progress.isLearner = false;
  draft.learners.delete(id);
  draft.learnersNext.delete(id);
}

/** A voter of the outgoing half waits in `learnersNext`: it cannot be voter and learner at once. */
function makeLearner(draft: Draft, id: NodeId, context: ChangeContext): void {
  const progress = draft.progress.get(id);
  if (!progress) {
    draft.learners.add(id);
    draft.progress.set(id, newProgress(true, context));
    return;
  }
  if (progress.isLearner) return;
  remove(draft, id);
  draft.progress.set(id, progress);
  if (draft.outgoing.has(id)) {
    draft.learnersNext.add(id);
  } else {
    progress.isLearner = true;
    draft.learners.add(id);
  }
}

function remove(draft: Draft, id: NodeId): void {
  draft.incoming.delete(id);
  draft.learners.delete(id);
  draft.learnersNext.delete(id);
  if (!draft.outgoing.has(id)) draft.progress.delete(id);
}

/** A new member counts as active, or a CheckQuorum before it could answer would depose the leader. */
function newProgress(isLearner: boolean, context: ChangeContext): Progress {
  return new Progress({
    match: 0,
    next: Math.max(context.lastIndex, 1),
    inflights: context.newInflights(),
    isLearner,
    isRecentlyActive: true,
  });
}

function differences(a: ReadonlySet<NodeId>, b: ReadonlySet<NodeId>): number {
  let count = 0;
  for (const id of a) if (!b.has(id)) count++;
  for (const id of b) if (!a.has(id)) count++;
  return count;
}

function checkInvariants(config: Configuration, progress: ReadonlyMap<NodeId, Progress>): void {
  const check = (holds: boolean, text: string): void => {
    if (!holds) throw new ConfChangeError(text);
  };
  for (const ids of [config.incoming, config.outgoing, config.learners, config.learnersNext]) {
    for (const id of ids) check(progress.has(id), `no progress for ${id}`);
  }
  for (const id of config.learnersNext) {
    check(config.outgoing.has(id), `${id} is in LearnersNext, but not Voters[1]`);
    check(!progress.get(id)?.isLearner, `${id} is in LearnersNext, but is already marked as learner`);
  }
  for (const id of config.learners) {
    check(!config.outgoing.has(id), `${id} is in Learners and Voters[1]`);
    check(!config.incoming.has(id), `${id} is in Learners and Voters[0]`);
    check(progress.get(id)?.isLearner === true, `${id} is in Learners, but is not marked as learner`);
  }
  if (config.outgoing.size === 0) {
    check(config.learnersNext.size === 0, "cfg.LearnersNext must be nil when not joint");
    check(!config.autoLeave, "AutoLeave must be false when not joint");
  }
}
