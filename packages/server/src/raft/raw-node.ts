/**
 * The door to one raft state machine: calls that feed it, and Ready, which is all it asks of the world.
 *
 * Everything is synchronous and nothing happens between calls. See {@link Ready} for the order in which its parts must be
 * handled. Methods that may refuse return a {@link RaftError} instead of throwing; a broken invariant throws
 * InvariantError, after which the node must not be used.
 */
import { assert } from "../lib/assert.ts";
import {
  ConfChange,
  ConfChangeType,
  type ConfState,
  type Entry,
  EntryType,
  type HardState,
  type Message,
  MessageType,
  type Snapshot,
} from "../pb/raftpb.ts";
import type { AnyConfChange } from "./confchange/conf-change.ts";
import { entriesSize, payloadsSize } from "./entry-size.ts";
import { isLocalMessage, isResponseMessage, newMessage } from "./messages.ts";
import { Raft } from "./raft.ts";
import { emptyHardState } from "./storage.ts";
import { confStateOf } from "./tracker.ts";
import {
  type BasicStatus,
  isLocalThread,
  LOCAL_APPEND_THREAD,
  LOCAL_APPLY_THREAD,
  NONE,
  type NodeId,
  type RaftConfig,
  RaftError,
  type Ready,
  type SoftState,
  type Status,
} from "./types.ts";

const STEP_LOCAL_MESSAGE = new RaftError("stepLocalMessage");
const STEP_PEER_NOT_FOUND = new RaftError("stepPeerNotFound");

/** A first member and what its configuration change carries for the application. */
export interface BootstrapPeer {
  readonly id: NodeId;
  readonly context: Uint8Array | undefined;
}

/** What `advance` does for the Ready that was handed out last. */
interface Pending {
  /** Acknowledgements to itself, then the news that entries or a snapshot are durable. */
  readonly steps: readonly Message[];
  readonly appliedIndex: number;
  readonly appliedBytes: number;
  readonly appliedPayloadBytes: number;
}

function sameHardState(a: HardState, b: HardState): boolean {
  return a.term === b.term && a.vote === b.vote && a.commit === b.commit;
}

export class RawNode {
  readonly #raft: Raft;
  readonly #isAsync: boolean;
  #previousSoftState: SoftState;
  #previousHardState: HardState;
  #pending: Pending | undefined;

  /** Reads the storage and starts as a follower. Throws when the configuration is not valid. */
  constructor(config: RaftConfig) {
    this.#raft = config.newCore?.(config) ?? new Raft(config);
    this.#isAsync = config.asyncStorageWrites ?? false;
    this.#previousSoftState = this.#raft.softState();
    this.#previousHardState = this.#raft.hardState();
  }

  /**
   * For an empty storage: starts the log with one committed configuration change per first member, at term 1. They come
   * out of the first Readies to be applied like any other.
   */
  bootstrap(peers: readonly BootstrapPeer[]): void {
    const raft = this.#raft;
    if (peers.length === 0) throw new Error("must provide at least one peer to Bootstrap");
    if (raft.log.storage.lastIndex() !== 0) throw new Error("can't bootstrap a nonempty Storage");
    this.#previousHardState = emptyHardState;
    raft.becomeFollower(1, NONE);
    const changes = peers.map(({ id, context }): ConfChange => {
      return { type: ConfChangeType.ConfChangeAddNode, nodeId: id, context, id: 0n };
    });
    const entries = changes.map((change, i): Entry => {
      return { term: 1, index: i + 1, type: EntryType.EntryConfChange, data: ConfChange.encode(change) };
    });
    raft.log.append(entries);
    raft.log.committed = entries.length;
    // Now as well as when they are applied, so that this node may campaign at once.
    for (const change of changes) raft.applyConfChange(change);
  }

  /** The clock: electionTicks and heartbeatTicks count these. */
  tick(): void {
    this.#raft.tick();
  }

  /** Start an election now. */
  campaign(): void {
    this.#raft.step(newMessage(MessageType.MsgHup, NONE));
  }

  /** Append data to the log (as leader) or forward it to the leader. The bytes are raft's from now on. */
  propose(data: Uint8Array): RaftError | undefined {
    return this.proposeBatch([data]);
  }

  /** The same for many entries at once: one append, one message to each follower. All are taken, or none. */
  proposeBatch(data: readonly Uint8Array[]): RaftError | undefined {
    if (data.length === 0) return undefined;
    const m = newMessage(MessageType.MsgProp, NONE);
    m.from = this.#raft.id;
    m.entries = data.map((one): Entry => ({ term: 0, index: 0, type: EntryType.EntryNormal, data: one }));
    return this.#raft.step(m);
  }

  /** Undefined leaves a joint configuration. */
  proposeConfChange(change: AnyConfChange | undefined): RaftError | undefined {
    return this.#raft.step(this.#raft.newConfChangeProposal(change));
  }

  /**
   * To be called when a committed configuration change is applied; with a nodeId of 0 when the application refuses it.
   * Gives the configuration that is now in force.
   */
  applyConfChange(change: AnyConfChange): ConfState {
    return this.#raft.applyConfChange(change);
  }

  /** A message from another node, or a response from a local thread. */
  step(m: Message): RaftError | undefined {
    if (!isLocalThread(m.from)) {
      if (isLocalMessage(m.type)) return STEP_LOCAL_MESSAGE;
      if (isResponseMessage(m.type) && !this.#raft.tracker.progress.has(m.from)) return STEP_PEER_NOT_FOUND;
    }
    return this.#raft.step(m);
  }

  /** Ask for a ReadState that carries `context`; may be lost, so ask again (with a new context) after a while. */
  readIndex(context: Uint8Array): void {
    const m = newMessage(MessageType.MsgReadIndex, NONE);
    m.entries = [{ term: 0, index: 0, type: EntryType.EntryNormal, data: context }];
    this.#raft.step(m);
  }

  hasReady(): boolean {
    const raft = this.#raft;
    const { log } = raft;
    return (
      raft.messages.length > 0 ||
      raft.messagesAfterAppend.length > 0 ||
      log.unstable.hasNextEntries ||
      log.hasNextCommitted(!this.#isAsync) ||
      raft.readStates.length > 0 ||
      log.unstable.nextSnapshot() !== undefined ||
      this.#changedSoftState() !== undefined ||
      this.#changedHardState() !== undefined
    );
  }

  #changedSoftState(): SoftState | undefined {
    const { lead, state } = this.#raft;
    const before = this.#previousSoftState;
    return lead === before.lead && state === before.state ? undefined : { lead, state };
  }

  #changedHardState(): HardState | undefined {
    const now = this.#raft.hardState();
    return sameHardState(now, this.#previousHardState) || sameHardState(now, emptyHardState) ? undefined : now;
  }

  /** All work there is. It must be handled, whatever it is. */
  ready(): Ready {
    assert(!this.#pending, "two accepted Ready structs without call to Advance");
    const raft = this.#raft;
    const { log } = raft;
    const softState = this.#changedSoftState();
    const hardState = this.#changedHardState();
    const entries = log.unstable.nextEntries();
    const snapshot = log.unstable.nextSnapshot();
    const committedEntries = log.nextCommitted(!this.#isAsync);
    const mustSync =
      entries.length > 0 ||
      (hardState !== undefined &&
        (hardState.term !== this.#previousHardState.term || hardState.vote !== this.#previousHardState.vote));
    const { messages, readStates } = raft;
    let { messagesAfterAppend } = raft;

    const hasWritten = log.hasNextOrInProgressEntries || snapshot !== undefined;
    const lastCommitted = committedEntries.at(-1);
    const committedBytes = entriesSize(committedEntries);
    if (this.#isAsync) {
      if (entries.length > 0 || hardState || snapshot || messagesAfterAppend.length > 0) {
        if (hasWritten) messagesAfterAppend.push(this.#storageAppendResponse(snapshot));
        messages.push(this.#storageAppend(hardState, entries, snapshot, messagesAfterAppend));
      }
      if (lastCommitted) messages.push(this.#storageApply(committedEntries));
      messagesAfterAppend = [];
    } else {
      const steps: Message[] = [];
      const others: Message[] = [];
      for (const m of messagesAfterAppend) (m.to === raft.id ? steps : others).push(m);
      messagesAfterAppend = others;
      if (hasWritten) steps.push(this.#storageAppendResponse(snapshot));
      this.#pending = {
        steps,
        appliedIndex: lastCommitted?.index ?? 0,
        appliedBytes: committedBytes,
        appliedPayloadBytes: payloadsSize(committedEntries),
      };
    }

    // From here on it counts as handed out.
    if (softState) this.#previousSoftState = softState;
    if (hardState) this.#previousHardState = hardState;
    raft.messages = [];
    raft.messagesAfterAppend = [];
    raft.readStates = [];
    log.unstable.acceptInProgress();
    if (lastCommitted) log.acceptApplying(lastCommitted.index, committedBytes, !this.#isAsync);
    return {
      softState,
      hardState,
      readStates,
      entries,
      snapshot,
      committedEntries,
      messages,
      messagesAfterAppend,
      mustSync,
    };
  }

  /** Carries what must be made durable, and the responses to be delivered when it is. */
  #storageAppend(
    hardState: HardState | undefined,
    entries: Entry[],
    snapshot: Snapshot | undefined,
    responses: Message[],
  ): Message {
    const m = newMessage(MessageType.MsgStorageAppend, LOCAL_APPEND_THREAD);
    m.from = this.#raft.id;
    m.entries = entries;
    if (hardState) {
      m.term = hardState.term;
      m.vote = hardState.vote;
      m.commit = hardState.commit;
    }
    m.snapshot = snapshot;
    m.responses = responses;
    return m;
  }

  /**
   * Says that all entries up to the log's end of now are durable, not just those of this Ready: if its predecessors' word
   * was ignored because the term changed meanwhile, this one replaces it. It is itself ignored in another term, since then
   * a write may be under way that puts others in their place and later these again.
   */
  #storageAppendResponse(snapshot: Snapshot | undefined): Message {
    const { log, id, term } = this.#raft;
    const m = newMessage(MessageType.MsgStorageAppendResp, id);
    m.from = LOCAL_APPEND_THREAD;
    m.term = term;
    if (log.hasNextOrInProgressEntries) {
      const last = log.lastEntryId();
      m.index = last.index;
      m.logTerm = last.term;
    }
    m.snapshot = snapshot;
    return m;
  }

  #storageApply(entries: Entry[]): Message {
    const response = newMessage(MessageType.MsgStorageApplyResp, this.#raft.id);
    response.from = LOCAL_APPLY_THREAD;
    response.entries = entries;
    const m = newMessage(MessageType.MsgStorageApply, LOCAL_APPLY_THREAD);
    m.from = this.#raft.id;
    m.entries = entries;
    m.responses = [response];
    return m;
  }

  /** The Ready has been handled. Not with asyncStorageWrites. */
  advance(_ready: Ready): void {
    assert(!this.#isAsync, "Advance must not be called when using AsyncStorageWrites");
    const pending = this.#pending;
    if (!pending) return;
    this.#pending = undefined;
    for (const m of pending.steps) this.#raft.step(m);
    if (pending.appliedIndex > 0) {
      this.#raft.appliedEntries(pending.appliedIndex, pending.appliedBytes, pending.appliedPayloadBytes);
    }
  }

  /** Whom this node takes for the leader right now, which the next Ready will tell; 0 for nobody. */
  get lead(): NodeId {
    return this.#raft.lead;
  }

  status(): Status {
    const { tracker, state } = this.#raft;
    const progress = state === "leader" ? [...tracker.progress].map(([id, one]) => [id, one.status()] as const) : [];
    return { ...this.basicStatus(), confState: confStateOf(tracker.config), progress: new Map(progress) };
  }

  basicStatus(): BasicStatus {
    const { id, term, vote, log, lead, state, leadTransferee } = this.#raft;
    return { id, term, vote, commit: log.committed, lead, state, applied: log.applied, leadTransferee };
  }

  /** The last message to `id` was not delivered. */
  reportUnreachable(id: NodeId): void {
    const m = newMessage(MessageType.MsgUnreachable, NONE);
    m.from = id;
    this.#raft.step(m);
  }

  /** The snapshot sent to `id` has arrived, or not. Must be called for each MsgSnap. */
  reportSnapshot(id: NodeId, ok: boolean): void {
    const m = newMessage(MessageType.MsgSnapStatus, NONE);
    m.from = id;
    m.reject = !ok;
    this.#raft.step(m);
  }

  transferLeadership(to: NodeId): void {
    const m = newMessage(MessageType.MsgTransferLeader, NONE);
    m.from = to;
    this.#raft.step(m);
  }

  /** A follower drops its leader and may then vote for others in this term's lease. */
  forgetLeader(): void {
    this.#raft.step(newMessage(MessageType.MsgForgetLeader, NONE));
  }
}
