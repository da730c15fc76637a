/**
 * The raft loop: the one place where the pure state machine meets disk, network and apply.
 *
 *      proposals, reads, messages, ticks            queues with bounds, taken together
 *                   |
 *                   v
 *        node.step ... -> Ready ---+--> transport      messages; a leader sends while its own disk works: thesis 10.2.1
 *                                  +--> disk.save      responses are stepped or sent when it is durable
 *                                  +--> apply          responses are stepped when it is applied
 *
 * The node runs with asynchronous storage writes: a save in flight holds up neither reads nor the next proposals, and
 * saves that wait together share one fdatasync. What must not be said before it is durable (votes, acknowledgements, the
 * leader's own) are the responses that come with each append; they go out in the order of the saves.
 *
 * Everything between two turns of the event loop is synchronous. The loop is one promise: it rejects when disk, apply or
 * state machine fail, and then the member ends.
 */
import type { Clock } from "../lib/clock.ts";
import type { Logger } from "../lib/log.ts";
import { type Deferred, deferred, yieldToEventLoop } from "../lib/wait.ts";
import type { ConfChange, Entry, HardState, Message, Snapshot } from "../pb/raftpb.ts";
import {
  LOCAL_APPEND_THREAD,
  LOCAL_APPLY_THREAD,
  type MemoryStorage,
  type RaftError,
  type RawNode,
  type Ready,
  type ReadState,
} from "../raft/index.ts";
import { Gathering } from "./gathering.ts";
import { BLOCKING_SAVE_BYTES_MAX, WAITING_MESSAGES_MAX } from "./limits.ts";
import type { Transport } from "./transport.ts";

/** Something that wants to get into the log. */
export type Proposal =
  | { readonly kind: "entry"; readonly suffix: number; readonly data: Uint8Array }
  | { readonly kind: "confChange"; readonly suffix: number; readonly change: ConfChange };

/** What the loop needs of the WAL and the `.snap` files. Calls take effect in their order. */
export interface RaftDisk {
  /**
   * Resolves when it is durable, as far as raft needs it. `mayBlock`: this thread may stand still for as long as the disk
   * takes, since nobody wants anything else of it.
   */
  save(hardState: HardState | undefined, entries: readonly Entry[], mayBlock: boolean): Promise<void>;
  /** A snapshot that came from the leader: the `.snap` file, then its record in the WAL. */
  saveSnapshot(snapshot: Snapshot): Promise<void>;
}

/** Who takes what is committed. Batches come in order, each entry once. */
export interface ApplySink {
  /** Calls `done` when all of it is applied: at once, or in a later turn when there is much. */
  apply(entries: readonly Entry[], done: () => void): void;
  /** Replaces the whole state by a received snapshot whose file is durable, after all that came before. */
  install(snapshot: Snapshot): void;
}

export interface RaftLoopDeps {
  readonly node: RawNode;
  readonly storage: MemoryStorage;
  readonly disk: RaftDisk;
  readonly transport: Transport;
  readonly sink: ApplySink;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly memberId: bigint;
  readonly tickMs: number;
  /** Whether somebody still waits for the proposal. */
  isAwaited(suffix: number): boolean;
  /** False when nobody waits for the proposal any more: then it is left out. */
  handOver(suffix: number): boolean;
  /** Raft would not take it. */
  dropped(suffix: number, error: Error): void;
  /** Whether that member has been removed from the cluster. */
  isRemoved(memberId: bigint): boolean;
  /** Whether this member has nothing to do but what waits for the disk. */
  isIdle(): boolean;
  /** How many callers wait, when it is worth while to let them share a sync; 0: each should get to the disk at once. */
  callersToGather(): number;
  readStates(states: readonly ReadState[]): void;
  /** The leader changed; 0 when there is none now. */
  leaderChanged(leaderId: bigint): void;
}

interface Append {
  readonly entries: readonly Entry[];
  readonly snapshot: Snapshot | undefined;
  readonly responses: readonly Message[];
  isSaved: boolean;
}

export class RaftLoop {
  readonly #deps: RaftLoopDeps;
  readonly #node: RawNode;
  #proposals: Proposal[] = [];
  /** Of what {@link #proposals} holds. */
  #proposalBytes = 0;
  #messages: Message[] = [];
  #reads: Uint8Array[] = [];
  #calls: ((node: RawNode) => void)[] = [];
  /** Of finished saves and applies; never dropped. */
  #responses: Message[] = [];
  readonly #gathering = new Gathering();
  /** Proposals wait in this round of the pump. */
  #isGathering = false;
  #hasTick = false;
  #lastTickMs: number;
  #leaderId = 0n;
  #term: number;
  #committedIndex: number;
  #isWaking = false;
  #isPumping = false;
  #state: "new" | "running" | "ended" = "new";
  /** Saves behind a received snapshot wait for its file; undefined when there is none on its way. */
  #behindSnapshot: Promise<void> | undefined;
  /**
   * Saves whose responses have not gone out, oldest first. A save may resolve before an older one (one that only moves
   * the commit has nothing to wait for), but its responses speak for all entries up to it: so they go out in this order.
   */
  #appends: Append[] = [];
  #saved: Deferred | undefined;
  readonly #stop = new AbortController();
  readonly #end: Deferred = deferred();

  constructor(deps: RaftLoopDeps) {
    this.#deps = deps;
    this.#node = deps.node;
    this.#lastTickMs = deps.clock.monotonicMs();
    const { hardState } = deps.storage.initialState();
    this.#term = hardState.term;
    this.#committedIndex = hardState.commit;
  }

  get term(): number {
    return this.#term;
  }

  get committedIndex(): number {
    return this.#committedIndex;
  }

  get leaderId(): bigint {
    return this.#leaderId;
  }

  get isLeader(): boolean {
    return this.#leaderId === this.#deps.memberId;
  }

  get waitingProposals(): number {
    return this.#proposals.length;
  }

  get waitingProposalBytes(): number {
    return this.#proposalBytes;
  }

  /** Whether ticks come: who hangs must not think that it still leads. */
  hasTickedWithin(ms: number): boolean {
    return this.#deps.clock.monotonicMs() - this.#lastTickMs <= ms;
  }

  propose(proposal: Proposal): void {
    this.#proposals.push(proposal);
    this.#proposalBytes += bytesOf(proposal);
    this.#wake();
  }

  readIndex(context: Uint8Array): void {
    this.#reads.push(context);
    this.#wake();
  }

  /** A message from a peer. Dropped when too many wait, which raft is made for. */
  process(message: Message): void {
    if (this.#messages.length >= WAITING_MESSAGES_MAX) return;
    this.#messages.push(message);
    this.#wake();
  }

  /** Runs `fn` on the node before the next Ready. */
  call(fn: (node: RawNode) => void): void {
    this.#calls.push(fn);
    this.#wake();
  }

  /** Runs until {@link stop}. Rejects when the member cannot go on. */
  run(): Promise<void> {
    this.#state = "running";
    void this.#tick();
    this.#wake();
    return this.#end.promise;
  }

  /** Takes nothing more, and resolves when the saves in flight are done. */
  async stop(): Promise<void> {
    this.#finish(undefined);
    if (this.#appends.length > 0) {
      this.#saved ??= deferred();
      await this.#saved.promise;
    }
  }

  #finish(error: unknown): void {
    if (this.#state === "ended") return;
    this.#state = "ended";
    this.#stop.abort();
    if (error === undefined) this.#end.resolve();
    else this.#end.reject(error);
  }

  async #tick(): Promise<void> {
    for await (const _tick of this.#deps.clock.every(this.#deps.tickMs, this.#stop.signal)) {
      this.#hasTick = true;
      this.#wake();
    }
  }

  /** Not at once: what else arrives in this turn of the event loop joins the same batch. */
  #wake(): void {
    if (this.#isWaking || this.#isPumping || this.#state !== "running") return;
    this.#isWaking = true;
    void yieldToEventLoop().then(() => {
      this.#isWaking = false;
      this.#pump();
    });
  }

  #hasInput(): boolean {
    return (
      this.#responses.length > 0 ||
      this.#messages.length > 0 ||
      this.#reads.length > 0 ||
      this.#calls.length > 0 ||
      this.#hasTick ||
      (this.#proposals.length > 0 && this.#hasLeader() && !this.#isGathering)
    );
  }

  /**
   * Whether there is who takes proposals. A leader that has removed itself is followed until an election timeout has passed, but
   * nothing that is sent to it gets into the log: what is proposed meanwhile waits for the next one.
   */
  #hasLeader(): boolean {
    const leaderId = this.#leaderId;
    return leaderId !== 0n && (leaderId === this.#deps.memberId || !this.#deps.isRemoved(leaderId));
  }

  /** Whether proposals wait for those that come with them: while a save is under way, and then for a moment. */
  #goesOnGathering(): boolean {
    const callers = this.#deps.callersToGather();
    if (callers === 0) return false;
    return this.#isSaving() || this.#gathering.goesOn(this.#proposals.length, callers, this.#deps.clock.monotonicMs());
  }

  #isSaving(): boolean {
    for (const { entries } of this.#appends) if (entries.length > 0) return true;
    return false;
  }

  #pump(): void {
    if (this.#isPumping || this.#state !== "running") return;
    this.#isPumping = true;
    this.#isGathering = this.#goesOnGathering();
    try {
      for (;;) {
        this.#takeInputs();
        while (this.#node.hasReady() && this.#state === "running") this.#handle(this.#node.ready());
        if (!this.#hasInput() || this.#state !== "running") break;
      }
    } catch (error) {
      this.#finish(error);
    } finally {
      this.#isPumping = false;
    }
    // Those behind a save are looked at again when it is done.
    if (this.#isGathering && this.#proposals.length > 0 && this.#hasLeader() && !this.#isSaving()) this.#wake();
  }

  #takeInputs(): void {
    for (const message of take(this.#responses)) this.#node.step(message);
    for (const call of take(this.#calls)) call(this.#node);
    for (const message of take(this.#messages)) this.#node.step(message);
    if (this.#hasTick) {
      // Ticks that were missed are left out: time in which nothing could be heard must not start an election.
      this.#hasTick = false;
      this.#lastTickMs = this.#deps.clock.monotonicMs();
      this.#node.tick();
      // Without a leader nothing takes them, and callers give up: what they leave behind must not gather.
      if (this.#proposals.length > 0 && !this.#hasLeader()) {
        this.#proposals = this.#proposals.filter(({ suffix }) => this.#deps.isAwaited(suffix));
        this.#proposalBytes = this.#proposals.reduce((sum, proposal) => sum + bytesOf(proposal), 0);
      }
    }
    for (const context of take(this.#reads)) this.#node.readIndex(context);
    // What came before in this turn may have cost the leader: then they wait for the next one rather than be refused.
    if (this.#proposals.length > 0 && this.#hasLeader() && this.#node.lead !== 0n && !this.#isGathering) {
      this.#proposalBytes = 0;
      this.#gathering.took(this.#proposals.length);
      this.#stepProposals(take(this.#proposals));
    }
  }

  #stepProposals(proposals: readonly Proposal[]): void {
    let batch: { suffix: number; data: Uint8Array }[] = [];
    const flush = () => {
      if (batch.length === 0) return;
      const taken = batch;
      batch = [];
      this.#dropIf(this.#node.proposeBatch(taken.map((proposal) => proposal.data)), taken);
    };
    for (const proposal of proposals) {
      if (!this.#deps.handOver(proposal.suffix)) continue;
      if (proposal.kind === "entry") {
        batch.push(proposal);
      } else {
        flush();
        this.#dropIf(this.#node.proposeConfChange(proposal.change), [proposal]);
      }
    }
    flush();
  }

  #dropIf(error: RaftError | undefined, proposals: readonly { readonly suffix: number }[]): void {
    if (!error) return;
    for (const { suffix } of proposals) this.#deps.dropped(suffix, error);
  }

  #handle(ready: Ready): void {
    if (ready.hardState) {
      this.#term = ready.hardState.term;
      this.#committedIndex = ready.hardState.commit;
    }
    if (ready.softState && ready.softState.lead !== this.#leaderId) {
      this.#leaderId = ready.softState.lead;
      this.#deps.leaderChanged(this.#leaderId);
    }
    if (ready.readStates.length > 0) this.#deps.readStates(ready.readStates);

    const toPeers: Message[] = [];
    for (const message of ready.messages) {
      if (message.to === LOCAL_APPEND_THREAD) this.#append(ready, message);
      else if (message.to !== LOCAL_APPLY_THREAD) toPeers.push(message);
    }
    if (toPeers.length > 0) this.#deps.transport.send(toPeers);
    for (const message of ready.messages) {
      if (message.to === LOCAL_APPLY_THREAD) this.#apply(message);
    }
  }

  #append(ready: Ready, message: Message): void {
    const { disk } = this.#deps;
    const { hardState, entries } = ready;
    const snapshot = ready.snapshot && ready.snapshot.metadata.index > 0 ? ready.snapshot : undefined;
    let saving: Promise<void>;
    if (snapshot || this.#behindSnapshot) {
      saving = (this.#behindSnapshot ?? Promise.resolve())
        .then(() => (snapshot ? disk.saveSnapshot(snapshot) : undefined))
        .then(() => disk.save(hardState, entries, false));
      this.#behindSnapshot = saving;
    } else {
      saving = disk.save(hardState, entries, isSmall(entries) && this.#deps.isIdle());
    }
    const failed = (error: unknown) => {
      this.#appends = [];
      this.#saved?.resolve();
      this.#finish(error);
    };
    if (entries.length === 0 && message.responses.length === 0 && !this.#behindSnapshot) {
      // A commit alone: nobody is to hear of it.
      saving.catch(failed);
      return;
    }
    const append: Append = { entries, snapshot, responses: message.responses, isSaved: false };
    this.#appends.push(append);
    const startMs = this.#deps.clock.monotonicMs();
    saving.then(() => {
      if (entries.length > 0) this.#gathering.saved(this.#deps.clock.monotonicMs() - startMs);
      if (this.#behindSnapshot === saving) this.#behindSnapshot = undefined;
      append.isSaved = true;
      this.#finishAppends();
    }, failed);
  }

  #finishAppends(): void {
    let finished = 0;
    try {
      for (const append of this.#appends) {
        if (!append.isSaved) break;
        finished++;
        if (this.#state !== "running") continue;
        if (append.snapshot) {
          this.#deps.storage.applySnapshot(append.snapshot);
          this.#deps.sink.install(append.snapshot);
        }
        this.#deps.storage.append(append.entries);
        this.#respond(append.responses);
      }
    } catch (error) {
      this.#finish(error);
    }
    if (finished === 0) return;
    this.#appends.splice(0, finished);
    if (this.#appends.length === 0) this.#saved?.resolve();
    this.#pump();
  }

  #apply(message: Message): void {
    this.#deps.sink.apply(message.entries, () => {
      this.#respond(message.responses);
      // Done within the pump: its next round takes the responses.
      if (!this.#isPumping) this.#pump();
    });
  }

  #respond(responses: readonly Message[]): void {
    const toPeers: Message[] = [];
    for (const response of responses) {
      if (response.to === this.#deps.memberId) this.#responses.push(response);
      else toPeers.push(response);
    }
    if (toPeers.length > 0) this.#deps.transport.send(toPeers);
  }
}

/** While more than this is on its way to the disk there is better to do than to wait for it. */
function isSmall(entries: readonly Entry[]): boolean {
  let bytes = 0;
  for (const { data } of entries) bytes += data?.length ?? 0;
  return entries.length > 0 && bytes <= BLOCKING_SAVE_BYTES_MAX;
}

function bytesOf(proposal: Proposal): number {
  return proposal.kind === "entry" ? proposal.data.length : 0;
}

/** Empties the list and gives what was in it. */
function take<T>(list: T[]): T[] {
  return list.length === 0 ? list : list.splice(0, list.length);
}
