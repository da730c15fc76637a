/**
 * The rules of Raft, as etcd/raft 3.6 has them (thesis: Ongaro 2014). One node's state, altered by messages and ticks.
 *
 *              election timeout,          (preVote) quorum        quorum
 *              MsgHup, MsgTimeoutNow      would vote              votes
 *   follower ------------------> preCandidate ---> candidate ----------> leader
 *      ^                              |                |                   |
 *      +------------------------------+----------------+-------------------+
 *        higher term; a leader of this term; lost vote; (leader) CheckQuorum, removal
 *
 * What may leave at once and what must wait for the disk: everything goes to `messages`, except acknowledgements of
 * appends and votes, which go to `messagesAfterAppend` and are sent when all that is unstable now is durable (thesis 3.8).
 * A leader acknowledges its own entries, and a candidate its own vote, by such a message to itself.
 *
 * This class is the inside of the room: RawNode is its door. Each rule that safety hangs on is a method of its own, so
 * that the simulator's tests can break it and see that the breakage is caught.
 */
import { assert, assertNever, InvariantError } from "../lib/assert.ts";
import { EMPTY_BYTES, equalBytes, hexId, utf8Bytes } from "../lib/bytes.ts";
import type { Logger } from "../lib/log.ts";
import type { Random } from "../lib/random.ts";
import {
  type ConfState,
  type Entry,
  EntryType,
  type HardState,
  type Message,
  MessageType,
  type Snapshot,
} from "../pb/raftpb.ts";
import { enterJoint, leaveJoint, type Membership, simpleChange } from "./confchange/changer.ts";
import {
  type AnyConfChange,
  asV2,
  confChangeEntry,
  confChangeGoText,
  decodeConfChange,
  wantsToEnterJoint,
  wantsToLeaveJoint,
} from "./confchange/conf-change.ts";
import { restore as restoreMembership } from "./confchange/restore.ts";
import { entriesSize, payloadsSize } from "./entry-size.ts";
import { type EntryId, RaftLog } from "./log.ts";
import { messageTypeName, newMessage } from "./messages.ts";
import { Progress } from "./progress.ts";
import { isJointVoter, jointVoteResult } from "./quorum/joint.ts";
import type { VoteResult } from "./quorum/majority.ts";
import { ReadOnlyQueue, readContext } from "./read-only.ts";
import { emptyConfState, RaftStorageError, snapshotIndex, snapshotTerm } from "./storage.ts";
import { confStateOf, configurationText, ProgressTracker } from "./tracker.ts";
import {
  isLocalThread,
  NONE,
  type NodeId,
  type RaftConfig,
  RaftError,
  type RaftState,
  type ReadOnlyOption,
  type ReadState,
  type SoftState,
} from "./types.ts";
import { UNKNOWN_TERM } from "./unstable.ts";

/** Why an election is held. A transfer is marked on the wire: it overrides the lease of a live leader. */
type CampaignKind = "preElection" | "election" | "transfer";

const TRANSFER_CONTEXT = utf8Bytes("CampaignTransfer");

/** Refusals are made once: a flood of dropped proposals must not be a flood of stack traces. */
const PROPOSAL_DROPPED = new RaftError("proposalDropped");

function voteResponseType(type: MessageType): MessageType {
  return type === MessageType.MsgVote ? MessageType.MsgVoteResp : MessageType.MsgPreVoteResp;
}

function checkConfig(config: RaftConfig): void {
  const check = (holds: boolean, text: string): void => {
    if (!holds) throw new Error(text);
  };
  check(config.id !== NONE, "cannot use none as id");
  check(!isLocalThread(config.id), "cannot use local target as id");
  check(config.heartbeatTicks > 0, "heartbeat tick must be greater than 0");
  check(config.electionTicks > config.heartbeatTicks, "election tick must be greater than heartbeat tick");
  check(config.inflightMessagesMax > 0, "max inflight messages must be greater than 0");
  check(
    !config.inflightBytesMax || config.inflightBytesMax >= config.messageBytesMax,
    "max inflight bytes must be >= max message size",
  );
  check(
    config.readOnlyOption !== "leaseBased" || config.checkQuorum === true,
    "CheckQuorum must be enabled when ReadOnlyOption is ReadOnlyLeaseBased",
  );
}

function hasSameMembers(a: ConfState, b: ConfState): boolean {
  const same = (left: readonly NodeId[], right: readonly NodeId[]): boolean => {
    const set = new Set(left);
    return set.size === new Set(right).size && right.every((id) => set.has(id));
  };
  return (
    same(a.voters, b.voters) &&
    same(a.learners, b.learners) &&
    same(a.votersOutgoing, b.votersOutgoing) &&
    same(a.learnersNext, b.learnersNext) &&
    a.autoLeave === b.autoLeave
  );
}

export class Raft {
  readonly id: NodeId;
  /** Rises only. Durable, with `vote`, before anything is sent that depends on it. */
  term = 0;
  /** Whom this node voted for in `term`; never another one in the same term. */
  vote: NodeId = NONE;
  state: RaftState = "follower";
  lead: NodeId = NONE;
  readonly log: RaftLog;
  readonly tracker: ProgressTracker;

  /** Free to be sent at once. */
  messages: Message[] = [];
  /** To be sent, or stepped if addressed to this node, when all that is unstable by now is durable. */
  messagesAfterAppend: Message[] = [];
  readStates: ReadState[] = [];

  leadTransferee: NodeId = NONE;
  /**
   * At or beyond the index of the newest configuration change that may not be applied yet. A leader takes a new one only
   * when it has applied up to here.
   */
  pendingConfIndex = 0;
  /** Payload bytes of the leader's uncommitted tail; may be too low, never too high. */
  uncommittedBytes = 0;
  readOnly = new ReadOnlyQueue();
  /** Reads that came before this leader had committed an entry of its term. */
  pendingReadIndexMessages: Message[] = [];

  /** MsgSnap that came while handed-out entries were being applied. */
  #deferredSnapshot: Message | undefined;

  /** Of its clock since it was made. */
  #ticks = 0;
  /** Ticks since the leader was heard of; of a leader or candidate: since the last election timeout. */
  electionElapsed = 0;
  heartbeatElapsed = 0;
  randomizedElectionTicks = 0;

  readonly electionTicks: number;
  readonly heartbeatTicks: number;
  readonly checkQuorum: boolean;
  readonly preVote: boolean;
  readonly readOnlyOption: ReadOnlyOption;
  readonly messageBytesMax: number;
  readonly uncommittedBytesMax: number;
  readonly #checkQuorumEachTick: boolean;
  readonly #disableProposalForwarding: boolean;
  readonly #disableConfChangeValidation: boolean;
  readonly #stepDownOnRemoval: boolean;
  /** Without asynchronous writes, one message to itself speaks for all appends of a Ready. */
  readonly #joinsOwnAcks: boolean;
  readonly #logger: Logger;
  readonly #random: Random;
  readonly #hex: string;

  constructor(config: RaftConfig) {
    checkConfig(config);
    this.id = config.id;
    this.#hex = hexId(config.id);
    this.#logger = config.logger;
    this.#random = config.random;
    this.electionTicks = config.electionTicks;
    this.heartbeatTicks = config.heartbeatTicks;
    this.checkQuorum = config.checkQuorum ?? false;
    this.#checkQuorumEachTick = this.checkQuorum && (config.checkQuorumEachTick ?? false);
    this.preVote = config.preVote ?? false;
    this.readOnlyOption = config.readOnlyOption ?? "safe";
    this.messageBytesMax = config.messageBytesMax;
    this.uncommittedBytesMax = config.uncommittedBytesMax || Number.POSITIVE_INFINITY;
    this.#disableProposalForwarding = config.disableProposalForwarding ?? false;
    this.#disableConfChangeValidation = config.disableConfChangeValidation ?? false;
    this.#stepDownOnRemoval = config.stepDownOnRemoval ?? false;
    this.#joinsOwnAcks = !config.asyncStorageWrites;
    const applyingBytesMax = config.committedBytesPerReadyMax || config.messageBytesMax;
    this.log = new RaftLog(config.storage, config.logger, Math.max(1, applyingBytesMax));
    this.tracker = new ProgressTracker(config.inflightMessagesMax, config.inflightBytesMax || Number.POSITIVE_INFINITY);

    const { hardState, confState } = config.storage.initialState();
    const last = this.log.lastEntryId();
    this.#restoreMembership(confState, last.index);
    if (hardState.term !== 0 || hardState.vote !== NONE || hardState.commit !== 0) this.#loadHardState(hardState);
    if (config.applied) this.log.appliedTo(config.applied, 0);
    this.becomeFollower(this.term, NONE);
    this.#logger.info(
      `newRaft ${this.#hex} [peers: [${this.tracker.voterIds().map(hexId).join(",")}], term: ${this.term}, ` +
        `commit: ${this.log.committed}, applied: ${this.log.applied}, lastindex: ${last.index}, lastterm: ${last.term}]`,
    );
  }

  #loadHardState(state: HardState): void {
    const { committed } = this.log;
    const last = this.log.lastIndex();
    assert(
      state.commit >= committed && state.commit <= last,
      () => `${this.#hex} state.commit ${state.commit} is out of range [${committed}, ${last}]`,
    );
    this.log.committed = state.commit;
    this.term = state.term;
    this.vote = state.vote;
  }

  softState(): SoftState {
    return { lead: this.lead, state: this.state };
  }

  hardState(): HardState {
    return { term: this.term, vote: this.vote, commit: this.log.committed };
  }

  // ------------------------------------------------------------------------------------------------------------------
  // Sending

  /** Acknowledgements of votes and appends speak of what must be durable; see the head of the file. */
  mustFollowAppend(type: MessageType): boolean {
    return type === MessageType.MsgAppResp || type === MessageType.MsgVoteResp || type === MessageType.MsgPreVoteResp;
  }

  send(m: Message): void {
    if (m.from === NONE) m.from = this.id;
    const { type } = m;
    switch (type) {
      case MessageType.MsgVote:
      case MessageType.MsgVoteResp:
      case MessageType.MsgPreVote:
      case MessageType.MsgPreVoteResp:
        // These name the term that is voted on, which need not be ours.
        if (m.term === 0) throw new InvariantError(`term should be set when sending ${messageTypeName(type)}`);
        break;
      default:
        if (m.term !== 0) {
          throw new InvariantError(`term should not be set when sending ${messageTypeName(type)} (was ${m.term})`);
        }
        // Forwarded requests stay without a term, as if they were local at the leader.
        if (type !== MessageType.MsgProp && type !== MessageType.MsgReadIndex) m.term = this.term;
    }
    if (this.mustFollowAppend(type)) {
      this.messagesAfterAppend.push(m);
    } else if (m.to === this.id) {
      throw new InvariantError(`message should not be self-addressed when sending ${messageTypeName(type)}`);
    } else {
      this.messages.push(m);
    }
  }

  #sendAppend(to: NodeId, progress: Progress): void {
    this.maybeSendAppend(to, progress, true);
  }

  /**
   * The next entries for one member, with the commit index. An empty append goes only if `evenIfEmpty`. When the log no
   * longer reaches back far enough, a snapshot goes instead. False when nothing was sent.
   */
  maybeSendAppend(to: NodeId, progress: Progress, evenIfEmpty: boolean): boolean {
    if (progress.isPaused) return false;
    const previous = progress.next - 1;
    const previousTerm = this.log.term(previous);
    if (previousTerm === UNKNOWN_TERM) return this.#maybeSendSnapshot(to, progress);

    // A full window lets only empty appends through: were all messages in it lost, their rejection would be the only
    // way to find out.
    const entries =
      progress.state === "replicate" && progress.inflights.isFull
        ? []
        : this.log.entriesFrom(progress.next, this.messageBytesMax);
    if (entries?.length === 0 && !evenIfEmpty) return false;
    if (entries === undefined) return evenIfEmpty ? this.#maybeSendSnapshot(to, progress) : false;

    const m = newMessage(MessageType.MsgApp, to);
    m.index = previous;
    m.logTerm = previousTerm;
    m.entries = entries;
    m.commit = this.log.committed;
    this.send(m);
    progress.sentEntries(entries.length, payloadsSize(entries));
    progress.sentCommit = this.log.committed;
    return true;
  }

  #maybeSendSnapshot(to: NodeId, progress: Progress): boolean {
    const debug = this.#logger.isDebugEnabled;
    if (!progress.isRecentlyActive) {
      if (debug) this.#logger.debug(`ignore sending snapshot to ${hexId(to)} since it is not recently active`);
      return false;
    }
    let snapshot: Snapshot;
    try {
      snapshot = this.log.snapshot();
    } catch (error) {
      if (!(error instanceof RaftStorageError) || error.kind !== "snapshotTemporarilyUnavailable") throw error;
      if (debug) {
        this.#logger.debug(
          `${this.#hex} failed to send snapshot to ${hexId(to)} because snapshot is temporarily unavailable`,
        );
      }
      return false;
    }
    const index = snapshotIndex(snapshot);
    assert(index !== 0, "need non-empty snapshot");
    if (debug) {
      this.#logger.debug(
        `${this.#hex} [firstindex: ${this.log.firstIndex()}, commit: ${this.log.committed}] sent snapshot[index: ` +
          `${index}, term: ${snapshotTerm(snapshot)}] to ${hexId(to)} [${progress}]`,
      );
    }
    progress.becomeSnapshot(index);
    if (debug) {
      this.#logger.debug(`${this.#hex} paused sending replication messages to ${hexId(to)} [${progress}]`);
    }
    const m = newMessage(MessageType.MsgSnap, to);
    m.snapshot = snapshot;
    this.send(m);
    return true;
  }

  /** What a follower may take for committed: no more than what it is known to have. */
  heartbeatCommit(progress: Progress): number {
    return Math.min(progress.match, this.log.committed);
  }

  #broadcastAppend(): void {
    for (const [id, progress] of this.tracker.progress) if (id !== this.id) this.#sendAppend(id, progress);
  }

  #broadcastHeartbeat(context: Uint8Array | undefined): void {
    for (const [id, progress] of this.tracker.progress) {
      if (id === this.id) continue;
      const m = newMessage(MessageType.MsgHeartbeat, id);
      m.commit = this.heartbeatCommit(progress);
      m.context = context?.length ? context : undefined;
      this.send(m);
      progress.sentCommit = m.commit;
    }
  }

  #sendTimeoutNow(to: NodeId): void {
    this.send(newMessage(MessageType.MsgTimeoutNow, to));
  }

  // ------------------------------------------------------------------------------------------------------------------
  // The log's end: append, commit, apply

  /**
   * Appends proposals as entries of this term (copies: a message may come twice). False, and nothing appended, when the
   * uncommitted tail would grow too large.
   */
  appendProposals(proposals: readonly Entry[]): boolean {
    if (!this.#increaseUncommitted(proposals)) {
      this.#logger.warn(
        `${this.#hex} appending new entries to log would exceed uncommitted entry size limit; dropping proposal`,
      );
      return false;
    }
    const last = this.log.lastIndex();
    const { term } = this;
    const entries = proposals.map(({ type, data }, i): Entry => ({ term, index: last + 1 + i, type, data }));
    this.#acknowledgeOwn(this.log.append(entries));
    return true;
  }

  /** The leader counts its own log only when it is durable: by a message to itself. */
  #acknowledgeOwn(index: number): void {
    if (this.#joinsOwnAcks) {
      const newest = this.messagesAfterAppend.at(-1);
      if (newest?.type === MessageType.MsgAppResp && newest.to === this.id && newest.term === this.term) {
        newest.index = index;
        return;
      }
    }
    const ack = newMessage(MessageType.MsgAppResp, this.id);
    ack.index = index;
    this.send(ack);
  }

  /** Empty payloads are never refused: a leader's first entry, and leaving a joint configuration. */
  #increaseUncommitted(entries: readonly Entry[]): boolean {
    const bytes = payloadsSize(entries);
    if (this.uncommittedBytes > 0 && bytes > 0 && this.uncommittedBytes + bytes > this.uncommittedBytesMax) {
      return false;
    }
    this.uncommittedBytes += bytes;
    return true;
  }

  /** True when the commit index moved. Only a leader asks. */
  maybeCommit(): boolean {
    return this.log.maybeCommit({ term: this.term, index: this.tracker.committed() });
  }

  /** Entries up to `index` are applied: so many encoded and payload bytes. */
  appliedEntries(index: number, bytes: number, payloadBytes: number): void {
    this.#appliedTo(index, bytes);
    this.uncommittedBytes = Math.max(0, this.uncommittedBytes - payloadBytes);
    const snapshot = this.#deferredSnapshot;
    if (snapshot && this.log.applied === this.log.applying) {
      this.#deferredSnapshot = undefined;
      this.step(snapshot);
    }
  }

  #appliedTo(index: number, bytes: number): void {
    const applied = Math.max(index, this.log.applied);
    this.log.appliedTo(applied, bytes);
    if (!this.tracker.config.autoLeave || applied < this.pendingConfIndex || this.state !== "leader") return;
    // Tried again at every apply: a leadership transfer may stand in the way.
    const refusal = this.step(this.newConfChangeProposal(undefined));
    const text = `transition out of joint configuration ${configurationText(this.tracker.config)}`;
    if (refusal) {
      if (this.#logger.isDebugEnabled) {
        this.#logger.debug(`not initiating automatic ${text}: ${refusal.message}`);
      }
    } else {
      this.#logger.info(`initiating automatic ${text}`);
    }
  }

  newConfChangeProposal(change: AnyConfChange | undefined): Message {
    const m = newMessage(MessageType.MsgProp, NONE);
    m.entries = [{ term: 0, index: 0, ...confChangeEntry(change) }];
    return m;
  }

  #appliedSnapshot(snapshot: Snapshot): void {
    const index = snapshotIndex(snapshot);
    this.log.unstable.stableSnapshotTo(index);
    this.#appliedTo(index, 0);
  }

  // ------------------------------------------------------------------------------------------------------------------
  // Roles

  #reset(term: number): void {
    if (this.term !== term) {
      this.term = term;
      this.vote = NONE;
    }
    this.lead = NONE;
    this.electionElapsed = 0;
    this.heartbeatElapsed = 0;
    this.randomizedElectionTicks = this.electionTicks + this.#random.below(this.electionTicks);
    this.leadTransferee = NONE;
    this.tracker.resetVotes();

    const last = this.log.lastIndex();
    const progress = new Map<NodeId, Progress>();
    for (const [id, { isLearner }] of this.tracker.progress) {
      const match = id === this.id ? last : 0;
      const inflights = this.tracker.newInflights();
      progress.set(id, new Progress({ match, next: last + 1, inflights, isLearner, isRecentlyActive: false }));
    }
    this.tracker.progress = progress;
    this.pendingConfIndex = 0;
    this.uncommittedBytes = 0;
    // Reads that wait are lost, as any request may be: who asked asks again.
    this.readOnly = new ReadOnlyQueue();
    this.pendingReadIndexMessages = [];
  }

  becomeFollower(term: number, lead: NodeId): void {
    this.#reset(term);
    this.lead = lead;
    this.state = "follower";
    this.#logger.info(`${this.#hex} became follower at term ${this.term}`);
  }

  #becomeCandidate(): void {
    assert(this.state !== "leader", "invalid transition [leader -> candidate]");
    this.#reset(this.term + 1);
    this.vote = this.id;
    this.state = "candidate";
    this.#logger.info(`${this.#hex} became candidate at term ${this.term}`);
  }

  /** Alters neither term nor vote: the others are only asked. */
  #becomePreCandidate(): void {
    assert(this.state !== "leader", "invalid transition [leader -> pre-candidate]");
    this.tracker.resetVotes();
    this.lead = NONE;
    this.state = "preCandidate";
    this.#logger.info(`${this.#hex} became pre-candidate at term ${this.term}`);
  }

  becomeLeader(): void {
    assert(this.state !== "follower", "invalid transition [follower -> leader]");
    this.#reset(this.term);
    this.lead = this.id;
    this.state = "leader";
    const own = this.tracker.progress.get(this.id);
    assert(own, "a leader is a member");
    own.becomeReplicate();
    own.isRecentlyActive = true;
    // There may be a configuration change in the tail of the log. Looking for it could take long; waiting is safe.
    this.pendingConfIndex = this.log.lastIndex();
    this.appendProposals([{ term: 0, index: 0, type: EntryType.EntryNormal, data: undefined }]);
    this.#logger.info(`${this.#hex} became leader at term ${this.term}`);
  }

  // ------------------------------------------------------------------------------------------------------------------
  // Time

  tick(): void {
    this.#ticks++;
    if (this.state === "leader") this.#tickHeartbeat();
    else this.#tickElection();
  }

  #tickElection(): void {
    this.electionElapsed++;
    if (this.isPromotable() && this.electionElapsed >= this.randomizedElectionTicks) {
      this.electionElapsed = 0;
      this.step(newMessage(MessageType.MsgHup, NONE));
    }
  }

  #tickHeartbeat(): void {
    this.heartbeatElapsed++;
    this.electionElapsed++;
    if (this.electionElapsed >= this.electionTicks) {
      this.electionElapsed = 0;
      if (this.checkQuorum) this.#checkQuorum();
      // A transfer that takes longer than an election is given up.
      if (this.state === "leader") this.leadTransferee = NONE;
    }
    if (this.state === "leader" && this.#checkQuorumEachTick) this.#stepDownUnlessHeard();
    if (this.state === "leader" && this.heartbeatElapsed >= this.heartbeatTicks) {
      this.heartbeatElapsed = 0;
      this.#broadcastHeartbeat(this.readOnly.lastContext);
    }
  }

  /** A leader that nobody answers must not go on believing in itself (thesis 6.2). */
  #checkQuorum(): void {
    if (!this.tracker.isQuorumActive()) this.#stepDownUnheard();
    for (const [id, progress] of this.tracker.progress) if (id !== this.id) progress.isRecentlyActive = false;
  }

  #stepDownUnlessHeard(): void {
    if (!this.tracker.isQuorumHeard(this.id, this.#ticks, this.electionTicks)) this.#stepDownUnheard();
  }

  #stepDownUnheard(): void {
    this.#logger.warn(`${this.#hex} stepped down to follower since quorum is not active`);
    this.becomeFollower(this.term, NONE);
  }

  #heardOf(progress: Progress): void {
    progress.isRecentlyActive = true;
    progress.heardAtTick = this.#ticks;
  }

  // ------------------------------------------------------------------------------------------------------------------
  // Elections

  /** A voter, as far as it knows, and not in the middle of taking in a snapshot. */
  isPromotable(): boolean {
    const own = this.tracker.progress.get(this.id);
    return own !== undefined && !own.isLearner && !this.log.hasNextOrInProgressSnapshot;
  }

  #hup(kind: CampaignKind): void {
    if (this.state === "leader") {
      if (this.#logger.isDebugEnabled) this.#logger.debug(`${this.#hex} ignoring MsgHup because already leader`);
      return;
    }
    if (!this.isPromotable()) {
      this.#logger.warn(`${this.#hex} is unpromotable and can not campaign`);
      return;
    }
    if (this.hasUnappliedConfChanges()) {
      this.#logger.warn(
        `${this.#hex} cannot campaign at term ${this.term} since there are still pending configuration changes to apply`,
      );
      return;
    }
    this.#logger.info(`${this.#hex} is starting a new election at term ${this.term}`);
    this.#campaign(kind);
  }

  /** Until they are applied, this node counts votes by an old configuration. */
  hasUnappliedConfChanges(): boolean {
    const { applied, committed, applyingBytesMax } = this.log;
    if (applied >= committed) return false;
    return this.log.some(applied + 1, committed + 1, applyingBytesMax, (entry) => entry.type !== EntryType.EntryNormal);
  }

  #campaign(kind: CampaignKind): void {
    let type: MessageType;
    let term: number;
    if (kind === "preElection") {
      this.#becomePreCandidate();
      type = MessageType.MsgPreVote;
      term = this.term + 1;
    } else {
      this.#becomeCandidate();
      type = MessageType.MsgVote;
      term = this.term;
    }
    const last = this.log.lastEntryId();
    for (const id of this.tracker.voterIds()) {
      if (id === this.id) {
        // Its own vote counts when it is durable.
        const own = newMessage(voteResponseType(type), id);
        own.term = term;
        this.send(own);
        continue;
      }
      this.#logger.info(
        `${this.#hex} [logterm: ${last.term}, index: ${last.index}] sent ${messageTypeName(type)} request to ` +
          `${hexId(id)} at term ${this.term}`,
      );
      const m = newMessage(type, id);
      m.term = term;
      m.index = last.index;
      m.logTerm = last.term;
      if (kind === "transfer") m.context = TRANSFER_CONTEXT;
      this.send(m);
    }
  }

  #poll(m: Message): VoteResult {
    const type = messageTypeName(m.type);
    this.#logger.info(
      `${this.#hex} received ${type}${m.reject ? " rejection" : ""} from ${hexId(m.from)} at term ${this.term}`,
    );
    this.tracker.recordVote(m.from, !m.reject);
    const { granted, rejected, result } = this.tracker.tallyVotes();
    this.#logger.info(`${this.#hex} has received ${granted} ${type} votes and ${rejected} vote rejections`);
    return result;
  }

  /** A live leader protects its followers from candidates (thesis 4.2.3), unless it hands over itself. */
  isInLease(m: Message): boolean {
    const isForced = m.context !== undefined && equalBytes(m.context, TRANSFER_CONTEXT);
    return !isForced && this.checkQuorum && this.lead !== NONE && this.electionElapsed < this.electionTicks;
  }

  /** Again for whom it was given; or if there is neither vote nor leader in this term; or a mere question of the future. */
  canVote(m: Message): boolean {
    return (
      this.vote === m.from ||
      (this.vote === NONE && this.lead === NONE) ||
      (m.type === MessageType.MsgPreVote && m.term > this.term)
    );
  }

  /** The candidate's log must hold all that may be committed (thesis 3.6.1). */
  isCandidateUpToDate(m: Message): boolean {
    return this.log.isUpToDate({ term: m.logTerm, index: m.index });
  }

  /** `6e [logterm: 1, index: 4, vote: 0]` and, after the verb, what the candidate said. */
  #logVote(verb: string, preposition: "from" | "for", m: Message, tail = ""): void {
    const last = this.log.lastEntryId();
    this.#logger.info(
      `${this.#hex} [logterm: ${last.term}, index: ${last.index}, vote: ${hexId(this.vote)}] ${verb} ` +
        `${messageTypeName(m.type)} ${preposition} ${hexId(m.from)} [logterm: ${m.logTerm}, index: ${m.index}] ` +
        `at term ${this.term}${tail}`,
    );
  }

  /** Learners vote too: they may have been promoted without knowing, and their vote may be needed for that to commit. */
  #handleVote(m: Message): void {
    const response = newMessage(voteResponseType(m.type), m.from);
    if (this.canVote(m) && this.isCandidateUpToDate(m)) {
      this.#logVote("cast", "for", m);
      // The candidate's term, which for a pre-vote is not ours: it would ignore an answer of a lower one.
      response.term = m.term;
      this.send(response);
      if (m.type === MessageType.MsgVote) {
        this.electionElapsed = 0;
        this.vote = m.from;
      }
    } else {
      this.#logVote("rejected", "from", m);
      response.term = this.term;
      response.reject = true;
      this.send(response);
    }
  }

  // ------------------------------------------------------------------------------------------------------------------
  // Messages in

  /** The one way in. Undefined, or why a proposal was not taken. */
  step(m: Message): RaftError | undefined {
    // Term 0: local, or forwarded as if it were.
    if (m.term > this.term) {
      if (!this.stepHigherTerm(m)) return undefined;
    } else if (m.term !== 0 && m.term < this.term) {
      this.stepLowerTerm(m);
      return undefined;
    }

    switch (m.type) {
      case MessageType.MsgHup:
        this.#hup(this.preVote ? "preElection" : "election");
        return undefined;
      case MessageType.MsgStorageAppendResp:
        if (m.index !== 0) this.log.unstable.stableTo(m.index, m.logTerm);
        if (m.snapshot) this.#appliedSnapshot(m.snapshot);
        return undefined;
      case MessageType.MsgStorageApplyResp: {
        const last = m.entries.at(-1);
        if (last) this.appliedEntries(last.index, entriesSize(m.entries), payloadsSize(m.entries));
        return undefined;
      }
      case MessageType.MsgVote:
      case MessageType.MsgPreVote:
        this.#handleVote(m);
        return undefined;
      default:
        switch (this.state) {
          case "leader":
            return this.#stepLeader(m);
          case "follower":
            return this.#stepFollower(m);
          case "candidate":
          case "preCandidate":
            return this.#stepCandidate(m);
          default:
            return assertNever(this.state);
        }
    }
  }

  /** False when the message goes no further. */
  stepHigherTerm(m: Message): boolean {
    if ((m.type === MessageType.MsgVote || m.type === MessageType.MsgPreVote) && this.isInLease(m)) {
      const ticks = this.electionTicks - this.electionElapsed;
      this.#logVote("ignored", "from", m, `: lease is not expired (remaining ticks: ${ticks})`);
      return false;
    }
    // A pre-vote is about a term that nobody is in yet, and so is a vote granted to it.
    if (m.type === MessageType.MsgPreVote || (m.type === MessageType.MsgPreVoteResp && !m.reject)) return true;
    this.#logger.info(
      `${this.#hex} [term: ${this.term}] received a ${messageTypeName(m.type)} message with higher term from ` +
        `${hexId(m.from)} [term: ${m.term}]`,
    );
    const isFromLeader =
      m.type === MessageType.MsgApp || m.type === MessageType.MsgHeartbeat || m.type === MessageType.MsgSnap;
    this.becomeFollower(m.term, isFromLeader ? m.from : NONE);
    return true;
  }

  stepLowerTerm(m: Message): void {
    if ((this.checkQuorum || this.preVote) && (m.type === MessageType.MsgHeartbeat || m.type === MessageType.MsgApp)) {
      // Votes alone no longer raise terms, so a leader that was left behind must learn of ours by an answer; else this
      // node, whose term rose while it was cut off, could never come back under it.
      this.send(newMessage(MessageType.MsgAppResp, m.from));
    } else if (m.type === MessageType.MsgPreVote) {
      // Silence would leave a candidate with an old term and a new log waiting for ever.
      this.#logVote("rejected", "from", m);
      const response = newMessage(MessageType.MsgPreVoteResp, m.from);
      response.term = this.term;
      response.reject = true;
      this.send(response);
    } else if (m.type === MessageType.MsgStorageAppendResp) {
      if (m.index !== 0) {
        // A write of a later term may be about to overwrite what this one made durable: keep it unstable.
        this.#logger.info(
          `${this.#hex} [term: ${this.term}] ignored entry appends from a ${messageTypeName(m.type)} message with ` +
            `lower term [term: ${m.term}]`,
        );
      }
      // A snapshot is committed state: no term can take it back.
      if (m.snapshot) this.#appliedSnapshot(m.snapshot);
    } else {
      this.#logger.info(
        `${this.#hex} [term: ${this.term}] ignored a ${messageTypeName(m.type)} message with lower term from ` +
          `${hexId(m.from)} [term: ${m.term}]`,
      );
    }
  }

  // ------------------------------------------------------------------------------------------------------------------
  // Leader

  #stepLeader(m: Message): RaftError | undefined {
    switch (m.type) {
      case MessageType.MsgBeat:
        this.#broadcastHeartbeat(this.readOnly.lastContext);
        return undefined;
      case MessageType.MsgCheckQuorum:
        this.#checkQuorum();
        return undefined;
      case MessageType.MsgProp:
        return this.#handleProposal(m);
      case MessageType.MsgReadIndex:
        this.#handleReadIndex(m);
        return undefined;
      case MessageType.MsgForgetLeader:
        return undefined;
      default:
    }

    const progress = this.tracker.progress.get(m.from);
    if (!progress) {
      if (this.#logger.isDebugEnabled) {
        this.#logger.debug(`${this.#hex} no progress available for ${hexId(m.from)}`);
      }
      return undefined;
    }
    switch (m.type) {
      case MessageType.MsgAppResp:
        this.#heardOf(progress);
        if (m.reject) this.#handleAppendRejection(m, progress);
        else this.#handleAppendAck(m, progress);
        return undefined;
      case MessageType.MsgHeartbeatResp:
        this.#handleHeartbeatResponse(m, progress);
        return undefined;
      case MessageType.MsgSnapStatus:
        this.#handleSnapshotStatus(m, progress);
        return undefined;
      case MessageType.MsgUnreachable:
        // What was sent ahead is probably lost.
        if (progress.state === "replicate") progress.becomeProbe();
        if (this.#logger.isDebugEnabled) {
          this.#logger.debug(
            `${this.#hex} failed to send message to ${hexId(m.from)} because it is unreachable [${progress}]`,
          );
        }
        return undefined;
      case MessageType.MsgTransferLeader:
        this.#handleTransfer(m, progress);
        return undefined;
      default:
        return undefined;
    }
  }

  #handleProposal(m: Message): RaftError | undefined {
    assert(m.entries.length > 0, () => `${this.#hex} stepped empty MsgProp`);
    // Removed from the configuration while leading.
    if (!this.tracker.progress.has(this.id)) return PROPOSAL_DROPPED;
    if (this.leadTransferee !== NONE) {
      if (this.#logger.isDebugEnabled) {
        this.#logger.debug(
          `${this.#hex} [term ${this.term}] transfer leadership to ${hexId(this.leadTransferee)} is in progress; ` +
            "dropping proposal",
        );
      }
      return PROPOSAL_DROPPED;
    }
    let proposals: readonly Entry[] = m.entries;
    for (let i = 0; i < proposals.length; i++) {
      const entry = proposals[i] as Entry;
      if (entry.type === EntryType.EntryNormal) continue;
      const checked = this.#checkConfChange(entry, this.log.lastIndex() + 1 + i);
      if (!checked) return PROPOSAL_DROPPED;
      if (checked !== entry) proposals = proposals.with(i, checked);
    }
    if (!this.appendProposals(proposals)) return PROPOSAL_DROPPED;
    this.#broadcastAppend();
    return undefined;
  }

  /** The entry itself, or an empty one in its place when the change does not fit now; undefined: malformed. */
  #checkConfChange(entry: Entry, index: number): Entry | undefined {
    let change: AnyConfChange | undefined;
    try {
      change = decodeConfChange(entry);
    } catch (error) {
      this.#logger.error(`${this.#hex} dropping malformed conf change proposal: ${String(error)}`);
      return undefined;
    }
    if (!change) return entry;
    const isJoint = this.tracker.config.outgoing.size > 0;
    const leaves = asV2(change).changes.length === 0;
    let problem: string | undefined;
    if (this.hasPendingConfChange()) {
      problem = `possible unapplied conf change at index ${this.pendingConfIndex} (applied to ${this.log.applied})`;
    } else if (isJoint && !leaves) {
      problem = "must transition out of joint config first";
    } else if (!isJoint && leaves) {
      problem = "not in joint state; refusing empty conf change";
    }
    if (problem !== undefined && !this.#disableConfChangeValidation) {
      this.#logger.info(
        `${this.#hex} ignoring conf change ${confChangeGoText(change)} at config ` +
          `${configurationText(this.tracker.config)}: ${problem}`,
      );
      return { term: 0, index: 0, type: EntryType.EntryNormal, data: undefined };
    }
    this.pendingConfIndex = index;
    return entry;
  }

  /** One change at a time: majorities of configurations two changes apart need not overlap. */
  hasPendingConfChange(): boolean {
    return this.pendingConfIndex > this.log.applied;
  }

  #handleAppendRejection(m: Message, progress: Progress): void {
    const debug = this.#logger.isDebugEnabled;
    if (debug) {
      this.#logger.debug(
        `${this.#hex} received MsgAppResp(rejected, hint: (index ${m.rejectHint}, term ${m.logTerm})) from ` +
          `${hexId(m.from)} for index ${m.index}`,
      );
    }
    // The follower's term at the hint bounds its terms before it, as ours are bounded: wherever our term is larger the
    // logs differ, so one probe per term suffices, not one per entry.
    const hint = m.logTerm > 0 ? this.log.findConflictByTerm(m.rejectHint, m.logTerm).index : m.rejectHint;
    if (!progress.maybeDecreaseTo(m.index, hint)) return;
    if (debug) this.#logger.debug(`${this.#hex} decreased progress of ${hexId(m.from)} to [${progress}]`);
    if (progress.state === "replicate") progress.becomeProbe();
    this.#sendAppend(m.from, progress);
  }

  #handleAppendAck(m: Message, progress: Progress): void {
    // Even old news brings a probed follower back: it agrees with us at least up to its match.
    const isNews = progress.maybeUpdate(m.index);
    if (!isNews && !(progress.match === m.index && progress.state === "probe")) return;
    switch (progress.state) {
      case "probe":
        progress.becomeReplicate();
        break;
      case "snapshot":
        // Whatever snapshot it has taken: what counts is that our log goes on from there.
        if (progress.match + 1 >= this.log.firstIndex()) {
          if (this.#logger.isDebugEnabled) {
            this.#logger.debug(
              `${this.#hex} recovered from needing snapshot, resumed sending replication messages to ` +
                `${hexId(m.from)} [${progress}]`,
            );
          }
          progress.becomeProbe();
          progress.becomeReplicate();
        }
        break;
      case "replicate":
        progress.inflights.freeUpTo(m.index);
        break;
      default:
        assertNever(progress.state);
    }

    if (this.maybeCommit()) {
      this.#releasePendingReads();
      this.#broadcastAppend();
    } else if (m.from !== this.id && progress.canBumpCommit(this.log.committed)) {
      // Not needed (a heartbeat would do), but sooner.
      this.#sendAppend(m.from, progress);
    }
    if (m.from !== this.id) {
      // Room in the window may now allow for several messages.
      while (this.maybeSendAppend(m.from, progress, false));
    }
    if (m.from === this.leadTransferee && progress.match === this.log.lastIndex()) {
      this.#logger.info(`${this.#hex} sent MsgTimeoutNow to ${hexId(m.from)} after received MsgAppResp`);
      this.#sendTimeoutNow(m.from);
    }
  }

  #handleHeartbeatResponse(m: Message, progress: Progress): void {
    this.#heardOf(progress);
    progress.isAppendPaused = false;
    // A full window still gets an empty append, and a probed follower that has everything one that it can acknowledge.
    if (progress.match < this.log.lastIndex() || progress.state === "probe") this.#sendAppend(m.from, progress);

    if (this.readOnlyOption !== "safe" || !m.context?.length) return;
    const acks = this.readOnly.acknowledge(m.from, m.context);
    if (!acks || !this.isLeadershipConfirmed(acks)) return;
    for (const { request, index } of this.readOnly.release(m.context)) this.#answerRead(request, index);
  }

  isLeadershipConfirmed(acks: ReadonlyMap<NodeId, boolean>): boolean {
    return jointVoteResult(this.tracker.config, acks) === "won";
  }

  #handleSnapshotStatus(m: Message, progress: Progress): void {
    if (progress.state !== "snapshot") return;
    // A failed one must not be where probing starts.
    if (m.reject) progress.pendingSnapshot = 0;
    progress.becomeProbe();
    if (this.#logger.isDebugEnabled) {
      this.#logger.debug(
        `${this.#hex} snapshot ${m.reject ? "failed" : "succeeded"}, resumed sending replication messages to ` +
          `${hexId(m.from)} [${progress}]`,
      );
    }
    // Its acknowledgement is on the way, or else a heartbeat comes first.
    progress.isAppendPaused = true;
  }

  #handleTransfer(m: Message, progress: Progress): void {
    const debug = this.#logger.isDebugEnabled;
    const to = m.from;
    const toHex = hexId(to);
    if (progress.isLearner) {
      if (debug) this.#logger.debug(`${this.#hex} is learner. Ignored transferring leadership`);
      return;
    }
    const before = this.leadTransferee;
    if (before !== NONE) {
      if (before === to) {
        this.#logger.info(
          `${this.#hex} [term ${this.term}] transfer leadership to ${toHex} is in progress, ignores request to same ` +
            `node ${toHex}`,
        );
        return;
      }
      this.leadTransferee = NONE;
      this.#logger.info(`${this.#hex} [term ${this.term}] abort previous transferring leadership to ${hexId(before)}`);
    }
    if (to === this.id) {
      if (debug) this.#logger.debug(`${this.#hex} is already leader. Ignored transferring leadership to self`);
      return;
    }
    this.#logger.info(`${this.#hex} [term ${this.term}] starts to transfer leadership to ${toHex}`);
    this.electionElapsed = 0;
    this.leadTransferee = to;
    if (progress.match === this.log.lastIndex()) {
      this.#sendTimeoutNow(to);
      this.#logger.info(
        `${this.#hex} sends MsgTimeoutNow to ${toHex} immediately as ${toHex} already has up-to-date log`,
      );
    } else {
      this.#sendAppend(to, progress);
    }
  }

  // ------------------------------------------------------------------------------------------------------------------
  // Linearizable reads

  /**
   * The only voter waits for its first commit as well (etcd/raft does not make it wait): after a restart, the commit index
   * it finds on its disk may be older than what it had answered.
   */
  #handleReadIndex(m: Message): void {
    if (this.hasCommittedInTerm()) this.#startRead(m);
    else this.pendingReadIndexMessages.push(m);
  }

  /** Before that, a leader may not know of all that its predecessor committed. */
  hasCommittedInTerm(): boolean {
    return this.log.matchesTerm(this.log.committed, this.term);
  }

  #startRead(m: Message): void {
    // A leader that removed itself may lead a single voter without being it, and then has to ask.
    if (this.tracker.isQuorum(this.id)) {
      this.#answerRead(m, this.log.committed);
      return;
    }
    switch (this.readOnlyOption) {
      case "safe": {
        const context = readContext(m);
        this.readOnly.add(this.log.committed, m);
        this.readOnly.acknowledge(this.id, context);
        this.#broadcastHeartbeat(context);
        return;
      }
      case "leaseBased":
        this.#answerRead(m, this.log.committed);
        return;
      default:
        assertNever(this.readOnlyOption);
    }
  }

  #answerRead(request: Message, index: number): void {
    if (request.from === NONE || request.from === this.id) {
      this.readStates.push({ index, context: readContext(request) });
      return;
    }
    const m = newMessage(MessageType.MsgReadIndexResp, request.from);
    m.index = index;
    m.entries = request.entries;
    this.send(m);
  }

  #releasePendingReads(): void {
    if (this.pendingReadIndexMessages.length === 0) return;
    if (!this.hasCommittedInTerm()) {
      this.#logger.error("pending MsgReadIndex should be released only after first commit in current term");
      return;
    }
    const waiting = this.pendingReadIndexMessages;
    this.pendingReadIndexMessages = [];
    for (const m of waiting) this.#startRead(m);
  }

  // ------------------------------------------------------------------------------------------------------------------
  // Candidate and follower

  #stepCandidate(m: Message): RaftError | undefined {
    switch (m.type) {
      case MessageType.MsgProp:
        this.#logger.info(`${this.#hex} no leader at term ${this.term}; dropping proposal`);
        return PROPOSAL_DROPPED;
      case MessageType.MsgApp:
        this.becomeFollower(m.term, m.from);
        this.handleAppend(m);
        return undefined;
      case MessageType.MsgHeartbeat:
        this.becomeFollower(m.term, m.from);
        this.#handleHeartbeat(m);
        return undefined;
      case MessageType.MsgSnap:
        this.becomeFollower(m.term, m.from);
        this.#handleSnapshot(m);
        return undefined;
      case MessageType.MsgVoteResp:
      case MessageType.MsgPreVoteResp:
        if (this.isVoteOfThisCampaign(m)) this.#countVote(m);
        return undefined;
      case MessageType.MsgTimeoutNow:
        if (this.#logger.isDebugEnabled) {
          const state = this.state === "preCandidate" ? "StatePreCandidate" : "StateCandidate";
          this.#logger.debug(
            `${this.#hex} [term ${this.term} state ${state}] ignored MsgTimeoutNow from ${hexId(m.from)}`,
          );
        }
        return undefined;
      default:
        return undefined;
    }
  }

  /** Answers to the pre-vote of the same term may still arrive during the vote. */
  isVoteOfThisCampaign(m: Message): boolean {
    return (m.type === MessageType.MsgPreVoteResp) === (this.state === "preCandidate");
  }

  #countVote(m: Message): void {
    switch (this.#poll(m)) {
      case "won":
        if (this.state === "preCandidate") {
          this.#campaign("election");
        } else {
          this.becomeLeader();
          this.#broadcastAppend();
        }
        return;
      case "lost":
        // A pre-vote's answer carries the term after ours.
        this.becomeFollower(this.term, NONE);
        return;
      case "pending":
        return;
    }
  }

  #stepFollower(m: Message): RaftError | undefined {
    switch (m.type) {
      case MessageType.MsgProp:
        if (this.lead === NONE) {
          this.#logger.info(`${this.#hex} no leader at term ${this.term}; dropping proposal`);
          return PROPOSAL_DROPPED;
        }
        if (this.#disableProposalForwarding) {
          this.#logger.info(
            `${this.#hex} not forwarding to leader ${hexId(this.lead)} at term ${this.term}; dropping proposal`,
          );
          return PROPOSAL_DROPPED;
        }
        this.#forward(m);
        return undefined;
      case MessageType.MsgApp:
        this.#heardFrom(m);
        this.handleAppend(m);
        return undefined;
      case MessageType.MsgHeartbeat:
        this.#heardFrom(m);
        this.#handleHeartbeat(m);
        return undefined;
      case MessageType.MsgSnap:
        this.#heardFrom(m);
        this.#handleSnapshot(m);
        return undefined;
      case MessageType.MsgTransferLeader:
        if (this.lead === NONE) {
          this.#logger.info(`${this.#hex} no leader at term ${this.term}; dropping leader transfer msg`);
        } else {
          this.#forward(m);
        }
        return undefined;
      case MessageType.MsgForgetLeader:
        this.#forgetLeader();
        return undefined;
      case MessageType.MsgTimeoutNow:
        this.#logger.info(
          `${this.#hex} [term ${this.term}] received MsgTimeoutNow from ${hexId(m.from)} and starts an election to get ` +
            "leadership.",
        );
        // No pre-vote: the leader itself wants it.
        this.#hup("transfer");
        return undefined;
      case MessageType.MsgReadIndex:
        if (this.lead === NONE) {
          this.#logger.info(`${this.#hex} no leader at term ${this.term}; dropping index reading msg`);
        } else {
          this.#forward(m);
        }
        return undefined;
      case MessageType.MsgReadIndexResp:
        if (m.entries.length !== 1) {
          this.#logger.error(
            `${this.#hex} invalid format of MsgReadIndexResp from ${hexId(m.from)}, entries count: ${m.entries.length}`,
          );
        } else {
          this.readStates.push({ index: m.index, context: m.entries[0]?.data ?? EMPTY_BYTES });
        }
        return undefined;
      default:
        return undefined;
    }
  }

  /** A copy goes: the message may be somebody's, or come again. Its `from` stays, so that the answer finds its way. */
  #forward(m: Message): void {
    this.send({ ...m, term: 0, to: this.lead });
  }

  #heardFrom(m: Message): void {
    this.electionElapsed = 0;
    this.lead = m.from;
  }

  #forgetLeader(): void {
    if (this.readOnlyOption === "leaseBased") {
      // The lease is a promise not to.
      this.#logger.error("ignoring MsgForgetLeader due to ReadOnlyLeaseBased");
      return;
    }
    if (this.lead === NONE) return;
    this.#logger.info(`${this.#hex} forgetting leader ${hexId(this.lead)} at term ${this.term}`);
    this.lead = NONE;
  }

  handleAppend(m: Message): void {
    const response = newMessage(MessageType.MsgAppResp, m.from);
    const { committed } = this.log;
    if (m.index < committed) {
      response.index = committed;
      this.send(response);
      return;
    }
    const last = this.log.maybeAppend({ term: m.logTerm, index: m.index }, m.entries, m.commit);
    if (last !== undefined) {
      response.index = last;
      this.send(response);
      return;
    }
    if (this.#logger.isDebugEnabled) {
      this.#logger.debug(
        `${this.#hex} [logterm: ${Math.max(0, this.log.term(m.index))}, index: ${m.index}] rejected MsgApp [logterm: ` +
          `${m.logTerm}, index: ${m.index}] from ${hexId(m.from)}`,
      );
    }
    // The leader's terms up to there are at most m.logTerm, so our entries of later terms are not in its log: skip them.
    const hint: EntryId = this.log.findConflictByTerm(Math.min(m.index, this.log.lastIndex()), m.logTerm);
    response.index = m.index;
    response.reject = true;
    response.rejectHint = hint.index;
    response.logTerm = hint.term;
    this.send(response);
  }

  #handleHeartbeat(m: Message): void {
    this.log.commitTo(m.commit);
    const response = newMessage(MessageType.MsgHeartbeatResp, m.from);
    response.context = m.context;
    this.send(response);
  }

  /**
   * A snapshot brings its configuration at once, while entries from before it that were handed out may still be on their
   * way through the state machine, with configuration changes among them: so it waits until they are applied. (etcd/raft
   * leaves that order to chance.)
   */
  #handleSnapshot(m: Message): void {
    if (this.log.applying > this.log.applied) {
      this.#deferredSnapshot = m;
      return;
    }
    const index = snapshotIndex(m.snapshot);
    const term = snapshotTerm(m.snapshot);
    const isRestored = m.snapshot !== undefined && this.restore(m.snapshot);
    this.#logger.info(
      `${this.#hex} [commit: ${this.log.committed}] ${isRestored ? "restored" : "ignored"} snapshot ` +
        `[index: ${index}, term: ${term}]`,
    );
    const response = newMessage(MessageType.MsgAppResp, m.from);
    response.index = isRestored ? this.log.lastIndex() : this.log.committed;
    this.send(response);
  }

  /** The snapshot takes the place of the log. False when it is of no use. */
  restore(snapshot: Snapshot): boolean {
    const index = snapshotIndex(snapshot);
    const term = snapshotTerm(snapshot);
    if (index <= this.log.committed) return false;
    if (this.state !== "follower") {
      this.#logger.warn(`${this.#hex} attempted to restore snapshot as leader; should never happen`);
      this.becomeFollower(this.term + 1, NONE);
      return false;
    }
    const confState = snapshot.metadata?.confState ?? emptyConfState();
    const { voters, learners, votersOutgoing } = confState;
    if (![voters, learners, votersOutgoing].some((ids) => ids.includes(this.id))) {
      this.#logger.warn(
        `${this.#hex} attempted to restore snapshot but it is not in the ConfState ${confStateGoText(confState)}; ` +
          "should never happen",
      );
      return false;
    }
    const texts = (): string => {
      const last = this.log.lastEntryId();
      return `${this.#hex} [commit: ${this.log.committed}, lastindex: ${last.index}, lastterm: ${last.term}]`;
    };
    if (this.log.matchesTerm(index, term)) {
      // The log already holds it: only the commit index is news.
      this.#logger.info(`${texts()} fast-forwarded commit to snapshot [index: ${index}, term: ${term}]`);
      this.log.commitTo(index);
      return false;
    }
    this.log.restore(snapshot);
    this.tracker.resetVotes();
    this.#restoreMembership(confState, this.log.lastIndex());
    this.#logger.info(`${texts()} restored snapshot [index: ${index}, term: ${term}]`);
    return true;
  }

  // ------------------------------------------------------------------------------------------------------------------
  // Configuration

  #restoreMembership(confState: ConfState, lastIndex: number): void {
    const membership = restoreMembership(confState, {
      lastIndex,
      newInflights: () => this.tracker.newInflights(),
    });
    const restored = this.#switchTo(membership);
    if (!hasSameMembers(confState, restored)) {
      throw new InvariantError(
        `ConfStates not equivalent after sorting:\n${confStateGoText(confState)}\n${confStateGoText(restored)}`,
      );
    }
  }

  /** Throws ConfChangeError when the change does not fit: members would diverge if it were skipped. */
  applyConfChange(change: AnyConfChange): ConfState {
    const v2 = asV2(change);
    const from: Membership = this.tracker;
    const context = { lastIndex: this.log.lastIndex(), newInflights: () => this.tracker.newInflights() };
    const joint = wantsToEnterJoint(v2);
    if (wantsToLeaveJoint(v2)) return this.#switchTo(leaveJoint(from));
    if (joint) return this.#switchTo(enterJoint(from, joint.autoLeave, v2.changes, context));
    return this.#switchTo(simpleChange(from, v2.changes, context));
  }

  #switchTo({ config, progress }: Membership): ConfState {
    this.tracker.config = config;
    this.tracker.progress = progress;
    this.#logger.info(`${this.#hex} switched to configuration ${configurationText(config)}`);
    const confState = confStateOf(config);
    if (this.state !== "leader") return confState;

    const own = progress.get(this.id);
    if (!own || own.isLearner) {
      // Removed or demoted. Until another is elected it may go on leading, without counting itself.
      if (this.#stepDownOnRemoval) this.becomeFollower(this.term, NONE);
      return confState;
    }
    if (confState.voters.length === 0) return confState;
    if (this.maybeCommit()) {
      // A smaller quorum may have committed more.
      this.#broadcastAppend();
    } else {
      for (const [id, one] of progress) if (id !== this.id) this.maybeSendAppend(id, one, false);
    }
    if (this.leadTransferee !== NONE && !isJointVoter(config, this.leadTransferee)) this.leadTransferee = NONE;
    return confState;
  }
}

/** As Go prints the struct. */
function confStateGoText(state: ConfState): string {
  const ids = (list: readonly NodeId[]) => `[${list.join(" ")}]`;
  return (
    `{${ids(state.voters)} ${ids(state.learners)} ${ids(state.votersOutgoing)} ${ids(state.learnersNext)} ` +
    `${state.autoLeave}}`
  );
}
