/**
 * The door to one raft state machine: calls that feed it, and Ready, which is all it asks of the world.
 *
 * Everything is synchronous and nothing happens between calls. See {@link Ready} for the order in which its parts must be
 * handled. Methods that may refuse return a {@link RaftError} instead of throwing; a broken invariant throws
 * InvariantError, after which the node must not be used.
 */
import type { ConfChange, ConfChangeV2, ConfState, Message } from "../pb/raftpb.ts";
import type { BasicStatus, NodeId, RaftConfig, RaftError, Ready, Status } from "./types.ts";

const soon = (): never => {
  throw new Error("soon");
};

export class RawNode {
  /** Reads the storage and starts as a follower. Throws when the configuration is not valid. */
  constructor(_config: RaftConfig) {}

  /** The clock: electionTicks and heartbeatTicks count these. */
  tick(): void {
    soon();
  }

  /** Start an election now. */
  campaign(): void {
    soon();
  }

  /** Append data to the log (as leader) or forward it to the leader. The bytes are raft's from now on. */
  propose(_data: Uint8Array): RaftError | undefined {
    return soon();
  }

  /** The same for many entries at once: one append, one message to each follower. All are taken, or none. */
  proposeBatch(_data: readonly Uint8Array[]): RaftError | undefined {
    return soon();
  }

  /** Undefined leaves a joint configuration. */
  proposeConfChange(_change: ConfChange | ConfChangeV2 | undefined): RaftError | undefined {
    return soon();
  }

  /**
   * To be called when a committed configuration change is applied; with a nodeId of 0 when the application refuses it.
   * Gives the configuration that is now in force.
   */
  applyConfChange(_change: ConfChange | ConfChangeV2): ConfState {
    return soon();
  }

  /** A message from another node, or a response from a local thread. */
  step(_message: Message): RaftError | undefined {
    return soon();
  }

  /** Ask for a ReadState that carries `context`; may be lost, so ask again (with a new context) after a while. */
  readIndex(_context: Uint8Array): void {
    soon();
  }

  hasReady(): boolean {
    return soon();
  }

  ready(): Ready {
    return soon();
  }

  /** The Ready has been handled. Not with asyncStorageWrites. */
  advance(_ready: Ready): void {
    soon();
  }

  status(): Status {
    return soon();
  }

  basicStatus(): BasicStatus {
    return soon();
  }

  /** The last message to `id` was not delivered. */
  reportUnreachable(_id: NodeId): void {
    soon();
  }

  /** The snapshot sent to `id` has arrived, or not. Must be called for each MsgSnap. */
  reportSnapshot(_id: NodeId, _ok: boolean): void {
    soon();
  }

  transferLeadership(_to: NodeId): void {
    soon();
  }

  /** A follower drops its leader and may then vote for others in this term's lease. */
  forgetLeader(): RaftError | undefined {
    return soon();
  }
}
