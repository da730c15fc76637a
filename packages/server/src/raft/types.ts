/**
 * What raft takes and what it hands out: configuration, Ready, status, errors. The rules are in raft.ts.
 */
import type { Logger } from "../lib/log.ts";
import type { Random } from "../lib/random.ts";
import type { ConfState, Entry, HardState, Message, Snapshot } from "../pb/raftpb.ts";
import type { Raft } from "./raft.ts";
import type { RaftStorage } from "./storage.ts";

/** A member as raft sees it. */
export type NodeId = bigint;

/** Stands for "no node": no leader, no vote. */
export const NONE: NodeId = 0n;

/** The local party that makes entries, votes and snapshots durable; addressee of MsgStorageAppend. */
export const LOCAL_APPEND_THREAD: NodeId = 0xffff_ffff_ffff_ffffn;

/** The local party that applies committed entries; addressee of MsgStorageApply. */
export const LOCAL_APPLY_THREAD: NodeId = 0xffff_ffff_ffff_fffen;

export function isLocalThread(id: NodeId): boolean {
  return id === LOCAL_APPEND_THREAD || id === LOCAL_APPLY_THREAD;
}

export type RaftState = "follower" | "preCandidate" | "candidate" | "leader";

/**
 * How a linearizable read is confirmed: `safe` by a round of heartbeats to a quorum; `leaseBased` by the leader's lease,
 * which clocks that drift can break (needs checkQuorum).
 */
export type ReadOnlyOption = "safe" | "leaseBased";

export interface RaftConfig {
  /** Not {@link NONE}, not a local thread. */
  readonly id: NodeId;
  /** Ticks without a leader before an election; drawn anew from [n, 2n - 1] at each change of state. */
  readonly electionTicks: number;
  /** Ticks between heartbeats of a leader; below `electionTicks`. */
  readonly heartbeatTicks: number;
  readonly storage: RaftStorage;
  /** Index up to which the application has applied; entries up to it are not handed out again. Default 0. */
  readonly applied?: number | undefined;
  /**
   * True: Ready carries MsgStorageAppend and MsgStorageApply, whose responses are delivered when the work is done, and
   * `advance` is not used. Several appends may then be under way. Default false.
   */
  readonly asyncStorageWrites?: boolean | undefined;
  /** Encoded bytes of entries in one MsgApp (always at least one entry); Infinity: no limit. */
  readonly messageBytesMax: number;
  /** Encoded bytes of entries being applied at once. Default `messageBytesMax`. */
  readonly committedBytesPerReadyMax?: number | undefined;
  /** Payload bytes of uncommitted entries a leader accepts before it drops proposals. Default: no limit. */
  readonly uncommittedBytesMax?: number | undefined;
  /** MsgApp on their way to one follower. */
  readonly inflightMessagesMax: number;
  /** Payload bytes on their way to one follower. Default: no limit. */
  readonly inflightBytesMax?: number | undefined;
  /** A leader that has not heard of a quorum for an election timeout steps down. */
  readonly checkQuorum?: boolean | undefined;
  /**
   * With `checkQuorum`: that timeout ends at the tick at which it has passed (thesis 6.2). Without, a leader looks once in each
   * timeout whether it heard of a quorum since it looked last, as the Go library does, and steps down after one to two.
   */
  readonly checkQuorumEachTick?: boolean | undefined;
  /** Ask whether an election could be won before starting it (thesis 9.6). */
  readonly preVote?: boolean | undefined;
  /** Default `safe`. */
  readonly readOnlyOption?: ReadOnlyOption | undefined;
  /** Followers drop proposals instead of forwarding them. */
  readonly disableProposalForwarding?: boolean | undefined;
  /** Leaves the validation of configuration changes at propose time to the application. */
  readonly disableConfChangeValidation?: boolean | undefined;
  /** A leader that is removed or demoted steps down when that change is applied. */
  readonly stepDownOnRemoval?: boolean | undefined;
  readonly logger: Logger;
  /** Draws election timeouts. */
  readonly random: Random;
  /** For tests alone: another core, such as one with a deliberately broken rule. */
  readonly newCore?: ((config: RaftConfig) => Raft) | undefined;
}

/** Volatile; for logs and for the server to know who leads. */
export interface SoftState {
  readonly lead: NodeId;
  readonly state: RaftState;
}

/** The answer to one readIndex call: reads may be served once applied >= index. */
export interface ReadState {
  readonly index: number;
  readonly context: Uint8Array;
}

/**
 * Work that raft hands out. Read-only; the arrays are the receiver's to keep, entries and messages are shared.
 *
 * Without asyncStorageWrites, in this order:
 *  1. `messages` may be sent at once, before anything is durable (a leader's disk works while its followers' do);
 *  2. save `snapshot`, `hardState`, `entries`; durably when `mustSync`;
 *  3. then send `messagesAfterAppend` (votes and acknowledgements, which speak of what must be durable);
 *  4. apply `snapshot`, then `committedEntries` (applyConfChange for configuration changes);
 *  5. `advance(ready)`.
 * Between `ready()` and `advance()` the node may be stepped, ticked and proposed to, but not asked for another Ready.
 *
 * With asyncStorageWrites, `messages` holds everything, `messagesAfterAppend` is empty, and the other fields only
 * mirror what the messages to the local threads carry.
 */
export interface Ready {
  /** Undefined when unchanged. */
  readonly softState: SoftState | undefined;
  /** Undefined when unchanged. */
  readonly hardState: HardState | undefined;
  readonly readStates: readonly ReadState[];
  readonly entries: readonly Entry[];
  readonly snapshot: Snapshot | undefined;
  readonly committedEntries: readonly Entry[];
  readonly messages: readonly Message[];
  readonly messagesAfterAppend: readonly Message[];
  /** Whether `hardState` and `entries` must be durable before `messagesAfterAppend` go. */
  readonly mustSync: boolean;
}

/** How a leader treats one follower. */
export type ProgressState = "probe" | "replicate" | "snapshot";

/** A copy of what a leader knows of one member (itself included). */
export interface ProgressStatus {
  /** The member's log is known to agree up to here. */
  readonly match: number;
  /** The next entry to send. */
  readonly next: number;
  readonly state: ProgressState;
  readonly isLearner: boolean;
  readonly isRecentlyActive: boolean;
  readonly isPaused: boolean;
  /** Index of the snapshot that is on its way; 0: none. */
  readonly pendingSnapshot: number;
  readonly inflightMessages: number;
  readonly isInflightFull: boolean;
}

export interface BasicStatus {
  readonly id: NodeId;
  readonly term: number;
  readonly vote: NodeId;
  readonly commit: number;
  readonly lead: NodeId;
  readonly state: RaftState;
  readonly applied: number;
  /** {@link NONE} when no transfer is under way. */
  readonly leadTransferee: NodeId;
}

export interface Status extends BasicStatus {
  readonly confState: ConfState;
  /** By id, ascending; empty unless this node leads. */
  readonly progress: ReadonlyMap<NodeId, ProgressStatus>;
}

export type RaftErrorKind = "proposalDropped" | "stepLocalMessage" | "stepPeerNotFound";

const RAFT_ERROR_TEXTS: Readonly<Record<RaftErrorKind, string>> = {
  proposalDropped: "raft proposal dropped",
  stepLocalMessage: "raft: cannot step raft local message",
  stepPeerNotFound: "raft: cannot step as peer not found",
};

/** Expected refusals. {@link RawNode} returns them instead of throwing: a dropped proposal is no exception. */
export class RaftError extends Error {
  override readonly name = "RaftError";
  readonly kind: RaftErrorKind;

  constructor(kind: RaftErrorKind) {
    super(RAFT_ERROR_TEXTS[kind]);
    this.kind = kind;
  }
}
