/**
 * Rules of Raft, each broken on purpose, to see that the simulator notices. A sabotage alters one node's core before it
 * is used; production code knows nothing of it. `seeds` says within how many seeds, from the first, the oracle must have
 * spoken; broken-rules.test.ts holds it to that.
 */
import { type Entry, type Message, MessageType } from "../../pb/raftpb.ts";
import type { EntryId } from "../log.ts";
import { snapshotIndex } from "../storage.ts";
import { NONE } from "../types.ts";
import { type Plan, runSeed, type Sabotage, type SimulationResult } from "./simulation.ts";

/** Short and stormy, unless a rule needs another weather. */
const STORM: Partial<Plan> = { faultyMs: 8000, faultEveryMs: 250, proposeEveryMs: 100, snapshotEvery: 50 };

/** Messages of one entry, one at a time, slow disks: what is appended together arrives piecemeal. */
const PIECEMEAL: Plan["raft"] = {
  messageBytesMax: 0,
  inflightMessagesMax: 1,
  committedBytesPerReadyMax: undefined,
  uncommittedBytesMax: undefined,
};

export interface BrokenRule {
  readonly name: string;
  /** Where the rule matters most; {@link STORM} for the rest. */
  readonly plan?: Partial<Plan>;
  readonly sabotage: Sabotage;
  /** Caught by one of the seeds 1 to this. */
  readonly seeds: number;
}

export const brokenRules: readonly BrokenRule[] = [
  {
    name: "a node votes for whoever asks, as often as asked",
    seeds: 30,
    sabotage: (core) => {
      core.canVote = () => true;
    },
  },
  {
    plan: { nodes: 3, faults: ["rivalry"], diskMs: 1, delayMs: 10, confChangeEveryMs: 0 },
    name: "a vote is forgotten by a crash: it is not in the hard state",
    seeds: 50,
    sabotage: (core) => {
      core.hardState = () => ({ term: core.term, vote: NONE, commit: core.log.committed });
    },
  },
  {
    plan: { nodes: 3, faults: ["rivalry"], diskMs: 80, delayMs: 10, confChangeEveryMs: 0 },
    name: "a vote is sent before it is durable",
    seeds: 50,
    sabotage: (core) => {
      const mustFollowAppend = core.mustFollowAppend.bind(core);
      const send = core.send.bind(core);
      core.send = (m: Message) => {
        // To itself it must still go the usual way.
        core.mustFollowAppend = (type) =>
          type === MessageType.MsgVoteResp && m.to !== core.id ? false : mustFollowAppend(type);
        send(m);
      };
    },
  },
  {
    name: "a follower acknowledges entries before they are durable",
    seeds: 20,
    sabotage: (core) => {
      const mustFollowAppend = core.mustFollowAppend.bind(core);
      const send = core.send.bind(core);
      core.send = (m: Message) => {
        core.mustFollowAppend = (type) =>
          type === MessageType.MsgAppResp && m.to !== core.id ? false : mustFollowAppend(type);
        send(m);
      };
    },
  },
  {
    name: "a leader counts its own log before it is durable",
    seeds: 30,
    sabotage: (core) => {
      const append = core.appendProposals.bind(core);
      core.appendProposals = (proposals: readonly Entry[]) => {
        const isAppended = append(proposals);
        core.tracker.progress.get(core.id)?.maybeUpdate(core.log.lastIndex());
        return isAppended;
      };
    },
  },
  {
    name: "a candidate wins whatever its log lacks",
    seeds: 30,
    sabotage: (core) => {
      core.isCandidateUpToDate = () => true;
    },
  },
  {
    plan: {
      nodes: 3,
      faults: ["split", "split", "campaign"],
      faultEveryMs: 700,
      proposeEveryMs: 150,
      confChangeEveryMs: 0,
    },
    name: "logs are compared by length alone, not by the term of their last entry",
    seeds: 600,
    sabotage: (core) => {
      core.isCandidateUpToDate = (m) => m.index >= core.log.lastIndex();
    },
  },
  {
    name: "half of the voters are a quorum",
    seeds: 30,
    sabotage: (core) => {
      const { tracker } = core;
      tracker.committed = () => {
        const matches = [...tracker.config.incoming].map((id) => tracker.progress.get(id)?.match ?? 0);
        matches.sort((a, b) => b - a);
        return matches[Math.max(0, Math.floor((matches.length - 1) / 2))] ?? 0;
      };
    },
  },
  {
    plan: { nodes: 5, raft: PIECEMEAL, delayMs: 60, proposeEveryMs: 300, confChangeEveryMs: 0 },
    name: "a leader commits entries of earlier terms by counting",
    seeds: 30,
    sabotage: (core) => {
      core.maybeCommit = () => {
        const index = core.tracker.committed();
        return core.log.maybeCommit({ term: Math.max(0, core.log.term(index)), index });
      };
    },
  },
  {
    name: "a follower appends without looking at the entry before",
    seeds: 200,
    sabotage: ({ log }) => {
      const maybeAppend = log.maybeAppend.bind(log);
      log.maybeAppend = (previous: EntryId, entries, committed) => {
        const ours = log.term(previous.index);
        return ours < 0 ? undefined : maybeAppend({ ...previous, term: ours }, entries, committed);
      };
    },
  },
  {
    name: "a follower keeps its own entries where they conflict with the leader's",
    seeds: 30,
    sabotage: ({ log }) => {
      log.findConflict = (entries) => entries.find(({ index }) => index > log.lastIndex())?.index ?? 0;
    },
  },
  {
    plan: { nodes: 3, raft: PIECEMEAL, delayMs: 10, proposeEveryMs: 30, confChangeEveryMs: 0 },
    name: "a follower commits all that its leader has, whether it matches or not",
    seeds: 50,
    sabotage: (core) => {
      const handleAppend = core.handleAppend.bind(core);
      core.handleAppend = (m) => {
        core.log.commitTo(Math.min(m.commit, core.log.lastIndex()));
        handleAppend(m);
      };
    },
  },
  {
    name: "heartbeats carry the leader's commit index, not what the follower is known to have",
    seeds: 20,
    sabotage: (core) => {
      core.heartbeatCommit = () => core.log.committed;
    },
  },
  {
    plan: {
      nodes: 3,
      raft: PIECEMEAL,
      faults: ["rivalry", "split"],
      faultEveryMs: 500,
      delayMs: 300,
      confChangeEveryMs: 0,
    },
    name: "messages of earlier terms are taken for current",
    seeds: 1000,
    sabotage: (core) => {
      const step = core.step.bind(core);
      core.step = (m) => {
        const isOld = m.term !== 0 && m.term < core.term;
        return step(isOld && m.type !== MessageType.MsgStorageAppendResp ? { ...m, term: core.term } : m);
      };
    },
  },
  {
    plan: { confChangeEveryMs: 100 },
    name: "two configuration changes may be under way at once",
    seeds: 20,
    sabotage: (core) => {
      core.hasPendingConfChange = () => false;
    },
  },
  {
    plan: { confChangeEveryMs: 400 },
    name: "in a joint configuration the incoming half decides alone",
    seeds: 50,
    sabotage: (core) => {
      const { tracker } = core;
      const committed = tracker.committed.bind(tracker);
      tracker.committed = () => {
        const { config } = tracker;
        tracker.config = { ...config, outgoing: new Set() };
        const index = committed();
        tracker.config = config;
        return index;
      };
    },
  },
  {
    plan: { confChangeEveryMs: 100 },
    name: "a candidate does not mind configuration changes it has not applied",
    seeds: 150,
    sabotage: (core) => {
      core.hasUnappliedConfChanges = () => false;
    },
  },
  {
    plan: { nodes: 3, faults: ["split", "isolate"], faultEveryMs: 1500, confChangeEveryMs: 0 },
    name: "a read is answered without asking anybody",
    seeds: 100,
    sabotage: (core) => {
      core.tracker.isQuorum = () => true;
    },
  },
  {
    name: "a new leader answers reads before it has committed an entry of its term",
    seeds: 150,
    sabotage: (core) => {
      core.hasCommittedInTerm = () => true;
    },
  },
  {
    name: "a snapshot that is older than the log is taken in",
    seeds: 100,
    sabotage: (core) => {
      const restore = core.restore.bind(core);
      core.restore = (snapshot) => {
        if (snapshotIndex(snapshot) > core.log.committed || snapshotIndex(snapshot) === 0) return restore(snapshot);
        core.log.restore(snapshot);
        return true;
      };
    },
  },
  {
    plan: { nodes: 3, raft: { ...PIECEMEAL, preVote: true }, faults: ["rivalry"], confChangeEveryMs: 0 },
    name: "pre-votes count as votes",
    seeds: 50,
    sabotage: (core) => {
      core.isVoteOfThisCampaign = () => true;
    },
  },
];

export function runBroken(rule: BrokenRule, seed: number): SimulationResult {
  return runSeed({ seed, sabotage: rule.sabotage, plan: { ...STORM, ...rule.plan }, isShort: true });
}
