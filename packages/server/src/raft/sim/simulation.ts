/**
 * A whole cluster on virtual time, from one seed: nodes with disks that forget, a network that loses, repeats, delays,
 * reorders and splits, clients that propose, read, reconfigure and transfer leadership. After a time of faults comes a
 * quiet one, at whose end the members must agree and be able to go on. The oracle looks after every step.
 *
 * Everything that is drawn is drawn from the seed, so a failure is replayed by its number.
 */
import { assertNever } from "../../lib/assert.ts";
import { asBuffer } from "../../lib/bytes.ts";
import { type Logger, silentLogger } from "../../lib/log.ts";
import { type Random, SeededRandom } from "../../lib/random.ts";
import {
  type ConfChange,
  ConfChangeTransition,
  ConfChangeType,
  type ConfChangeV2,
  type ConfState,
  type Entry,
  Message,
  MessageType,
  type Snapshot,
} from "../../pb/raftpb.ts";
import { ConfChangeError } from "../confchange/changer.ts";
import { decodeConfChange } from "../confchange/conf-change.ts";
import { describeConfState, describeMessage, describeReady } from "../describe.ts";
import { Raft } from "../raft.ts";
import { RawNode } from "../raw-node.ts";
import { emptyConfState, type MemoryStorage, snapshotIndex } from "../storage.ts";
import { confStateOf } from "../tracker.ts";
import { isLocalThread, type NodeId, type RaftConfig, type Ready } from "../types.ts";
import { type DiskWrite, SimDisk } from "./disk.ts";
import { EventQueue } from "./event-queue.ts";
import { Oracle, Violation } from "./oracle.ts";

const TICK_MS = 100;
const ELECTION_TICKS = 10;
const NODES_MAX = 9;
/** How long things must be quiet until the members agree. */
const QUIET_MS = 20_000;
/** Before the end, nothing new is asked for, so that all may catch up. */
const LAST_MS = 5_000;

/** Alters a core before it is used: a test's way to break a rule. */
export type Sabotage = (core: Raft) => void;

export interface SimulationOptions {
  readonly seed: number;
  readonly sabotage?: Sabotage | undefined;
  /** In place of what the seed would choose. */
  readonly plan?: Partial<Plan> | undefined;
  /** Ends with the faults: nobody asks whether the members come to agree. */
  readonly isShort?: boolean | undefined;
  /** Called with each thing that happens. */
  readonly trace?: ((line: string) => void) | undefined;
}

export interface SimulationResult {
  readonly virtualMs: number;
  readonly events: number;
  /** Entries that all agreed on. */
  readonly committed: number;
  /**
   * The cluster cannot go on, and Raft has no way out. Either there is no leader and cannot be one: who is needed to elect
   * it was removed, and some member has not heard of it, as when a leader goes right after it has removed itself or
   * demoted a quorum. Or, without CheckQuorum and PreVote, a member that campaigned among the voters of an old
   * configuration is in a later term than the leader, which never hears of it: see #isOutOfReach.
   */
  readonly isStuck: boolean;
  readonly violation: Error | undefined;
}

export type Fault =
  | "crash"
  | "stall"
  | "split"
  | "cut"
  | "isolate"
  | "heal"
  | "transfer"
  | "rivalry"
  | "campaign"
  | "forgetLeader";

/** As often as they stand here. */
const FAULTS: readonly Fault[] = [
  "crash",
  "crash",
  "crash",
  "stall",
  "split",
  "cut",
  "isolate",
  "heal",
  "transfer",
  "rivalry",
  "campaign",
  "forgetLeader",
];

/** What a seed makes of a cluster. */
export interface Plan {
  readonly nodes: number;
  readonly raft: Pick<
    RaftConfig,
    | "asyncStorageWrites"
    | "messageBytesMax"
    | "committedBytesPerReadyMax"
    | "uncommittedBytesMax"
    | "inflightMessagesMax"
    | "checkQuorum"
    | "checkQuorumEachTick"
    | "preVote"
    | "stepDownOnRemoval"
  >;
  readonly faultyMs: number;
  readonly delayMs: number;
  readonly lossRate: number;
  readonly repeatRate: number;
  readonly diskMs: number;
  /** Mean time between faults of the whole cluster; 0: none. */
  readonly faultEveryMs: number;
  readonly faults: readonly Fault[];
  readonly proposeEveryMs: number;
  readonly confChangeEveryMs: number;
  readonly snapshotEvery: number;
  readonly keptEntries: number;
  /** Messages go through their encoding. */
  readonly usesWire: boolean;
}

function pick<T>(random: Random, values: readonly T[]): T {
  return values[random.below(values.length)] as T;
}

function makePlan(random: Random): Plan {
  const chance = (rate: number): boolean => random.fraction() < rate;
  return {
    nodes: pick(random, [1, 2, 3, 3, 3, 4, 5, 5, 6, 7]),
    raft: {
      asyncStorageWrites: chance(0.5),
      messageBytesMax: pick(random, [0, 60, 1000, Number.POSITIVE_INFINITY]),
      committedBytesPerReadyMax: pick(random, [undefined, undefined, 60]),
      uncommittedBytesMax: pick(random, [undefined, undefined, 400]),
      inflightMessagesMax: pick(random, [1, 3, 256]),
      checkQuorum: chance(0.5),
      preVote: chance(0.5),
      stepDownOnRemoval: chance(0.5),
      checkQuorumEachTick: chance(0.5),
    },
    faultyMs: pick(random, [5_000, 15_000, 30_000]),
    delayMs: pick(random, [2, 10, 60]),
    lossRate: pick(random, [0, 0.01, 0.1]),
    repeatRate: pick(random, [0, 0.02, 0.2]),
    diskMs: pick(random, [1, 10, 80]),
    faultEveryMs: pick(random, [0, 400, 1500, 4000]),
    faults: FAULTS,
    proposeEveryMs: pick(random, [30, 150, 500]),
    confChangeEveryMs: pick(random, [0, 0, 400, 2000]),
    snapshotEvery: pick(random, [10, 50, 1_000_000]),
    keptEntries: pick(random, [0, 5, 30]),
    usesWire: chance(0.1),
  };
}

class SimNode {
  readonly id: NodeId;
  readonly disk = new SimDisk();
  /** Counts lives: what an earlier life asked for must not reach a later one. */
  life = 0;
  isAlive = false;
  isPaused = false;
  /** Without asynchronous writes: a Ready is being handled. */
  isBusy = false;
  core!: Raft;
  raw!: RawNode;
  storage!: MemoryStorage;
  appliedIndex = 0;
  digest = 0;
  confState: ConfState = emptyConfState();
  /** With asynchronous writes: what the local threads have to do, in order. */
  appendWork: { readonly m: Message; readonly write: DiskWrite; readonly written: number }[] = [];
  applyWork: Message[] = [];
  isAppending = false;
  isApplying = false;
  /** Its clock runs at this rate. */
  readonly tickMs: number;

  constructor(id: NodeId, tickMs: number) {
    this.id = id;
    this.tickMs = tickMs;
  }
}

/** By its own view. */
function isMember({ id, confState: { voters, votersOutgoing, learners } }: SimNode): boolean {
  return voters.includes(id) || votersOutgoing.includes(id) || learners.includes(id);
}

/** One step of a hash over all that was applied (FNV-1a). */
function mix(digest: number, entry: Entry): number {
  let hash = Math.imul(digest ^ entry.index, 16777619) ^ entry.type;
  for (const byte of entry.data ?? []) hash = Math.imul(hash ^ byte, 16777619);
  return hash >>> 0;
}

export class Simulation {
  readonly #options: SimulationOptions;
  readonly #random: Random;
  readonly #plan: Plan;
  readonly #queue = new EventQueue();
  readonly #nodes = new Map<NodeId, SimNode>();
  readonly #oracle: Oracle;
  /** Directed links that lose everything: `from>to`. */
  readonly #cut = new Set<string>();
  #isQuiet = false;
  #isLastStretch = false;
  #isStuck = false;
  #counter = 0;
  #events = 0;
  readonly #trace: ((line: string) => void) | undefined;

  constructor(options: SimulationOptions) {
    this.#options = options;
    this.#random = new SeededRandom(options.seed);
    this.#plan = { ...makePlan(this.#random), ...options.plan };
    const { trace } = options;
    this.#trace = trace && ((line) => trace(`${this.#queue.nowMs.toFixed(1).padStart(9)} ${line}`));
    this.#trace?.(JSON.stringify(this.#plan));

    const voters = Array.from({ length: this.#plan.nodes }, (_, i) => BigInt(i + 1));
    const first: Snapshot = {
      data: this.#snapshotData(1),
      metadata: { index: 1, term: 1, confState: { ...emptyConfState(), voters } },
    };
    this.#oracle = new Oracle(
      { isDurable: (id, index, term) => this.#nodes.get(id)?.disk.holds(index, term) ?? false },
      1,
      1,
      1,
    );
    for (const id of voters) {
      const node = this.#addNode(id);
      node.disk.initialize(first);
      this.#start(node);
    }
  }

  run(): SimulationResult {
    let violation: Error | undefined;
    try {
      this.#startClients();
      this.#runUntil(this.#plan.faultyMs);
      if (!this.#options.isShort) this.#comeToAgree();
    } catch (error) {
      violation = error as Error;
      this.#trace?.(`${violation}`);
    }
    return {
      virtualMs: this.#queue.nowMs,
      events: this.#events,
      committed: this.#oracle.committedMax,
      isStuck: this.#isStuck,
      violation,
    };
  }

  #comeToAgree(): void {
    const { faultyMs } = this.#plan;
    this.#heal();
    this.#runUntil(faultyMs + QUIET_MS);
    this.#isLastStretch = true;
    this.#runUntil(faultyMs + QUIET_MS + LAST_MS);
    this.#checkConvergence();
  }

  #runUntil(untilMs: number): void {
    while (this.#queue.step(untilMs)) this.#events++;
  }

  #chance(rate: number): boolean {
    return this.#random.fraction() < rate;
  }

  /** Of exponential distribution. */
  #about(meanMs: number): number {
    return -Math.log(1 - this.#random.fraction()) * meanMs;
  }

  // ------------------------------------------------------------------------------------------------------------------
  // Nodes

  #addNode(id: NodeId): SimNode {
    const node = new SimNode(id, TICK_MS * (0.9 + 0.2 * this.#random.fraction()));
    this.#nodes.set(id, node);
    return node;
  }

  #start(node: SimNode): void {
    node.life++;
    node.isAlive = true;
    node.isBusy = false;
    node.isPaused = false;
    node.storage = node.disk.load();
    node.raw = new RawNode({
      ...this.#plan.raft,
      id: node.id,
      electionTicks: ELECTION_TICKS,
      heartbeatTicks: 1,
      storage: node.storage,
      logger: this.#trace ? this.#logger(this.#trace) : silentLogger,
      random: new SeededRandom(this.#random.below(2 ** 32)),
      newCore: (config) => {
        node.core = new Raft(config);
        this.#options.sabotage?.(node.core);
        return node.core;
      },
    });
    node.appendWork = [];
    node.applyWork = [];
    node.isAppending = false;
    node.isApplying = false;
    this.#restoreState(node, node.storage.snapshot());
    this.#oracle.started(node.id, node.core);
    this.#trace?.(`${node.id} starts: ${node.core.log}, term ${node.core.term}`);
    this.#later(node, this.#random.fraction() * node.tickMs, () => this.#tick(node));
  }

  #logger(trace: (line: string) => void): Logger {
    const log = (message: string): void => trace(`  log ${message}`);
    return { debug: log, info: log, warn: log, error: log, isDebugEnabled: true };
  }

  #crash(node: SimNode): void {
    if (!node.isAlive) return;
    this.#trace?.(`${node.id} crashes`);
    node.isAlive = false;
    node.life++;
    node.disk.crash(this.#random);
    this.#oracle.hardStateIsDurable(node.id, node.disk.hardState);
  }

  /** In this life of the node; when it is paused, when it goes on. */
  #later(node: SimNode, delayMs: number, run: () => void): void {
    const { life } = node;
    const attempt = (): void => {
      if (node.life !== life || !node.isAlive) return;
      if (node.isPaused) {
        this.#queue.after(20, attempt);
        return;
      }
      run();
      this.#settle(node);
    };
    this.#queue.after(delayMs, attempt);
  }

  /** After each step of a node: hand out what there is, and look. */
  #settle(node: SimNode): void {
    if (!node.isAlive) return;
    this.#oracle.checkInvariants(node.id, node.core);
    if (this.#plan.raft.asyncStorageWrites) this.#pumpAsync(node);
    else this.#pump(node);
  }

  #tick(node: SimNode): void {
    node.raw.tick();
    this.#later(node, node.tickMs, () => this.#tick(node));
  }

  #takeReady(node: SimNode): Ready {
    const ready = node.raw.ready();
    if (this.#trace) this.#trace(`${node.id} ${describeReady(ready).trimEnd().replaceAll("\n", "\n            ")}`);
    this.#oracle.appended(node.id, ready.entries, node.core);
    for (const { index, context } of ready.readStates) {
      this.#oracle.readAnswered(node.id, asBuffer(context).toString("latin1"), index);
    }
    return ready;
  }

  // Without asynchronous writes: one Ready at a time.

  #pump(node: SimNode): void {
    while (node.isAlive && !node.isBusy && node.raw.hasReady()) {
      const ready = this.#takeReady(node);
      for (const m of ready.messages) this.#send(m);
      const written = node.disk.write(ready);
      node.isBusy = true;
      if (!ready.mustSync && !ready.snapshot) {
        this.#finishReady(node, ready);
      } else {
        this.#later(node, this.#diskDelay(), () => {
          this.#flush(node, written);
          this.#finishReady(node, ready);
        });
      }
    }
  }

  #diskDelay(): number {
    return this.#about(this.#isQuiet ? 2 : this.#plan.diskMs);
  }

  #flush(node: SimNode, written: number): void {
    node.disk.flush(written);
    this.#oracle.hardStateIsDurable(node.id, node.disk.hardState);
  }

  #finishReady(node: SimNode, ready: Ready): void {
    this.#store(node, ready);
    for (const m of ready.messagesAfterAppend) this.#send(m);
    this.#apply(node, ready.committedEntries);
    node.isBusy = false;
    if (!node.isAlive) return;
    node.raw.advance(ready);
    this.#oracle.checkInvariants(node.id, node.core);
    this.#maybeSnapshot(node);
  }

  #store(node: SimNode, { hardState, entries, snapshot }: Pick<Ready, "hardState" | "entries" | "snapshot">): void {
    if (hardState) node.storage.setHardState(hardState);
    if (snapshot) {
      node.storage.applySnapshot(snapshot);
      this.#restoreState(node, snapshot);
    }
    node.storage.append(entries);
  }

  // With asynchronous writes: local threads with queues of their own.

  #pumpAsync(node: SimNode): void {
    while (node.isAlive && node.raw.hasReady()) {
      const { messages } = this.#takeReady(node);
      for (const m of messages) {
        if (m.type === MessageType.MsgStorageAppend) this.#startAppend(node, m);
        else if (m.type === MessageType.MsgStorageApply) this.#startApply(node, m);
        else this.#send(m);
      }
    }
  }

  #startAppend(node: SimNode, m: Message): void {
    const hasState = m.term !== 0 || m.vote !== 0n || m.commit !== 0;
    const write: DiskWrite = {
      hardState: hasState ? { term: m.term, vote: m.vote, commit: m.commit } : undefined,
      entries: m.entries,
      snapshot: m.snapshot,
    };
    node.appendWork.push({ m, write, written: node.disk.write(write) });
    this.#appendThread(node);
  }

  /** What waits together may share one sync. */
  #appendThread(node: SimNode): void {
    if (node.isAppending || node.appendWork.length === 0) return;
    node.isAppending = true;
    const count = this.#chance(0.7) ? node.appendWork.length : 1 + this.#random.below(node.appendWork.length);
    const batch = node.appendWork.splice(0, count);
    this.#later(node, this.#diskDelay(), () => {
      node.isAppending = false;
      for (const { m, write, written } of batch) {
        // Without responses nobody waits for it to be durable.
        if (m.responses.length > 0) this.#flush(node, written);
        this.#store(node, write);
        this.#respond(node, m);
      }
      this.#appendThread(node);
    });
  }

  #startApply(node: SimNode, m: Message): void {
    node.applyWork.push(m);
    this.#applyThread(node);
  }

  #applyThread(node: SimNode): void {
    const m = node.isApplying ? undefined : node.applyWork.shift();
    if (!m) return;
    node.isApplying = true;
    this.#later(node, this.#about(2), () => {
      node.isApplying = false;
      this.#apply(node, m.entries);
      if (!node.isAlive) return;
      this.#respond(node, m);
      this.#maybeSnapshot(node);
      this.#applyThread(node);
    });
  }

  #respond(node: SimNode, { responses }: Message): void {
    for (const m of responses) {
      if (m.to === node.id) node.raw.step(m);
      else this.#send(m);
    }
  }

  // ------------------------------------------------------------------------------------------------------------------
  // The state machine: a hash over everything

  #snapshotData(digest: number): Uint8Array {
    const data = new Uint8Array(4);
    new DataView(data.buffer).setUint32(0, digest);
    return data;
  }

  #restoreState(node: SimNode, snapshot: Snapshot): void {
    node.appliedIndex = snapshotIndex(snapshot);
    const data = snapshot.data ?? new Uint8Array(4);
    node.digest = new DataView(data.buffer, data.byteOffset).getUint32(0);
    node.confState = snapshot.metadata?.confState ?? emptyConfState();
    if (node.appliedIndex > 0) this.#oracle.restored(node.id, node.appliedIndex, node.digest);
  }

  #apply(node: SimNode, entries: readonly Entry[]): void {
    for (const entry of entries) {
      // A snapshot may have overtaken what was still to be applied.
      if (entry.index <= node.appliedIndex) continue;
      if (entry.index !== node.appliedIndex + 1) {
        throw new Violation(`${node.id} applies ${entry.index} after ${node.appliedIndex}`);
      }
      node.appliedIndex = entry.index;
      node.digest = mix(node.digest, entry);
      this.#oracle.applied(node.id, entry, node.digest);
      const change = decodeConfChange(entry);
      if (change) this.#applyConfChange(node, change, entry.index);
    }
  }

  #applyConfChange(node: SimNode, change: ConfChange | ConfChangeV2, index: number): void {
    try {
      node.confState = node.raw.applyConfChange(change);
    } catch (error) {
      // It does not fit, and so it does not at any other member: the same configuration came before it.
      if (!(error instanceof ConfChangeError)) throw error;
    }
    this.#oracle.configured(node.id, index, node.confState);
    if (isMember(node) || this.#chance(0.5)) return;
    // Who was removed goes, as etcd's members do, unless it has come back; some linger and disturb.
    this.#later(node, 1000, () => {
      if (!this.#isQuiet && !isMember(node)) this.#crash(node);
    });
  }

  /** What the server sends in place of raft's snapshot: its state of now, with the configuration of now. */
  #freshSnapshot({ core, appliedIndex, digest, confState }: SimNode): Snapshot {
    const term = core.log.term(appliedIndex);
    return { data: this.#snapshotData(digest), metadata: { index: appliedIndex, term, confState } };
  }

  #maybeSnapshot(node: SimNode): void {
    const { storage, appliedIndex } = node;
    if (appliedIndex - snapshotIndex(storage.snapshot()) < this.#plan.snapshotEvery) return;
    const snapshot = storage.createSnapshot(appliedIndex, node.confState, this.#snapshotData(node.digest));
    node.disk.write({ hardState: undefined, entries: [], snapshot: undefined, ownSnapshot: snapshot });
    const compactTo = appliedIndex - this.#plan.keptEntries;
    if (compactTo >= storage.firstIndex()) storage.compact(compactTo);
  }

  // ------------------------------------------------------------------------------------------------------------------
  // Network

  #send(m: Message): void {
    if (isLocalThread(m.to)) throw new Violation(`message to a local thread on the network: ${describeMessage(m)}`);
    this.#oracle.sent(m);
    const sender = this.#nodes.get(m.from);
    const isLost = this.#cut.has(`${m.from}>${m.to}`) || (!this.#isQuiet && this.#chance(this.#plan.lossRate));
    // Whether it arrived must be reported of a snapshot, and may be of anything else.
    let hasArrived = false;
    if (m.type === MessageType.MsgSnap && sender?.isAlive) {
      m.snapshot = this.#freshSnapshot(sender);
      this.#later(sender, 50 + this.#about(500), () => sender.raw.reportSnapshot(m.to, hasArrived));
    }
    if (isLost || !this.#nodes.has(m.to)) {
      if (sender && this.#chance(0.2)) this.#later(sender, 50, () => sender.raw.reportUnreachable(m.to));
      return;
    }
    const wire = this.#plan.usesWire ? Message.encode(m) : undefined;
    const times = !this.#isQuiet && this.#chance(this.#plan.repeatRate) ? 2 : 1;
    for (let i = 0; i < times; i++) {
      this.#queue.after(this.#networkDelay(m), () => {
        this.#deliver(wire ? Message.decode(wire) : m, () => {
          hasArrived = true;
        });
      });
    }
  }

  #networkDelay(m: Message): number {
    if (this.#isQuiet) return 1 + this.#random.fraction();
    // Snapshots are big. Now and then something takes very long.
    const mean = this.#plan.delayMs * (m.type === MessageType.MsgSnap ? 10 : 1);
    return this.#chance(0.01) ? this.#about(3000) : 0.5 + this.#about(mean);
  }

  #deliver(m: Message, arrived: () => void): void {
    const node = this.#nodes.get(m.to);
    if (!node?.isAlive || this.#cut.has(`${m.from}>${m.to}`)) return;
    this.#later(node, 0, () => {
      this.#trace?.(`${node.id} <- ${describeMessage(m)}`);
      node.raw.step(m);
      arrived();
    });
  }

  // ------------------------------------------------------------------------------------------------------------------
  // Clients

  #alive(): SimNode[] {
    return [...this.#nodes.values()].filter((node) => node.isAlive && !node.isPaused);
  }

  #leaders(): SimNode[] {
    return this.#alive().filter((node) => node.core.state === "leader");
  }

  #every(meanMs: number, run: () => void): void {
    if (meanMs === 0) return;
    const next = (): void => {
      if (!this.#isLastStretch) run();
      this.#queue.after(this.#about(meanMs), next);
    };
    this.#queue.after(this.#about(meanMs), next);
  }

  #withRandom(nodes: readonly SimNode[], run: (node: SimNode) => void): void {
    if (nodes.length === 0) return;
    const node = pick(this.#random, nodes);
    run(node);
    this.#settle(node);
  }

  #startClients(): void {
    const { proposeEveryMs, confChangeEveryMs, faultEveryMs } = this.#plan;
    this.#every(proposeEveryMs, () => this.#withRandom(this.#alive(), (node) => this.#propose(node)));
    this.#every(300, () => this.#withRandom(this.#alive(), (node) => this.#read(node)));
    this.#every(faultEveryMs, () => {
      if (!this.#isQuiet) this.#fault();
    });
    this.#every(confChangeEveryMs, () => {
      if (!this.#isQuiet) this.#withRandom(this.#leaders(), (node) => this.#reconfigure(node));
    });
  }

  #payload(): Uint8Array {
    const data = new Uint8Array(4 + this.#random.below(30));
    new DataView(data.buffer).setUint32(0, ++this.#counter);
    return data;
  }

  #propose(node: SimNode): void {
    node.raw.proposeBatch(Array.from({ length: 1 + this.#random.below(3) }, () => this.#payload()));
  }

  #read(node: SimNode): void {
    const context = this.#payload().subarray(0, 4);
    this.#oracle.readAsked(asBuffer(context).toString("latin1"));
    node.raw.readIndex(context);
  }

  #reconfigure(leader: SimNode): void {
    const { voters, learners, votersOutgoing } = confStateOf(leader.core.tracker.config);
    if (votersOutgoing.length > 0) {
      leader.raw.proposeConfChange(undefined);
      return;
    }
    const change = (): { type: number; nodeId: NodeId } => {
      const kind = this.#random.below(5);
      const isRoom = this.#nodes.size < NODES_MAX;
      if (kind <= 1 && isRoom) {
        const { id } = this.#addNode(BigInt(this.#nodes.size + 1));
        this.#start(this.#nodes.get(id) as SimNode);
        const type = kind === 0 ? ConfChangeType.ConfChangeAddNode : ConfChangeType.ConfChangeAddLearnerNode;
        return { type, nodeId: id };
      }
      if (kind === 2 && learners.length > 0) {
        return { type: ConfChangeType.ConfChangeAddNode, nodeId: pick(this.#random, learners) };
      }
      if (kind === 3 && voters.length > 1) {
        return { type: ConfChangeType.ConfChangeAddLearnerNode, nodeId: pick(this.#random, voters) };
      }
      const known = [...this.#nodes.keys()];
      const isRemoval = voters.length > 1 && this.#chance(0.5);
      return isRemoval
        ? { type: ConfChangeType.ConfChangeRemoveNode, nodeId: pick(this.#random, [...voters, ...learners]) }
        : { type: ConfChangeType.ConfChangeAddNode, nodeId: pick(this.#random, known) };
    };
    if (this.#chance(0.4)) {
      leader.raw.proposeConfChange({ ...change(), id: 0n, context: undefined });
      return;
    }
    const transition = pick(this.#random, [
      ConfChangeTransition.ConfChangeTransitionAuto,
      ConfChangeTransition.ConfChangeTransitionJointImplicit,
      ConfChangeTransition.ConfChangeTransitionJointExplicit,
    ]);
    const changes = Array.from({ length: 1 + this.#random.below(3) }, change);
    leader.raw.proposeConfChange({ transition, changes, context: undefined });
  }

  // ------------------------------------------------------------------------------------------------------------------
  // Faults

  #fault(): void {
    // What happens to a leader matters most.
    const leaders = this.#leaders();
    const node = pick(this.#random, leaders.length > 0 && this.#chance(0.4) ? leaders : [...this.#nodes.values()]);
    const kind = pick(this.#random, this.#plan.faults);
    switch (kind) {
      case "crash":
        this.#crash(node);
        this.#startLater(node);
        return;
      case "stall":
        // The process lives, but time passes it by.
        node.isPaused = true;
        this.#queue.after(this.#about(1500), () => {
          node.isPaused = false;
        });
        return;
      case "split":
        this.#split();
        return;
      case "cut":
        this.#cutSome();
        return;
      case "isolate":
        this.#isolateFor(node, 3000);
        return;
      case "heal":
        this.#trace?.("links heal");
        this.#cut.clear();
        return;
      case "transfer":
        this.#withRandom(leaders, (leader) => {
          leader.raw.transferLeadership(pick(this.#random, [...this.#nodes.keys()]));
        });
        return;
      case "rivalry":
        this.#rivalry(node);
        return;
      case "campaign":
        this.#withRandom(this.#alive(), (one) => one.raw.campaign());
        return;
      case "forgetLeader":
        this.#withRandom(this.#alive(), (one) => one.raw.forgetLeader());
        return;
      default:
        assertNever(kind);
    }
  }

  #startLater(node: SimNode): void {
    this.#queue.after(this.#about(pick(this.#random, [30, 1500])), () => {
      if (!node.isAlive) this.#start(node);
    });
  }

  /** Several candidates at once, and a node that crashes in the middle of it. */
  #rivalry(node: SimNode): void {
    for (const one of this.#alive()) {
      if (!this.#chance(0.5)) continue;
      one.raw.campaign();
      this.#settle(one);
    }
    this.#queue.after(this.#about(50), () => {
      this.#crash(node);
      this.#startLater(node);
    });
  }

  #split(): void {
    const side = new Map([...this.#nodes.keys()].map((id) => [id, this.#chance(0.5)]));
    this.#cut.clear();
    for (const [from, left] of side) {
      for (const [to, right] of side) if (left !== right) this.#cut.add(`${from}>${to}`);
    }
    this.#trace?.(`split: ${[...side].filter(([, left]) => left).map(([id]) => id)} alone`);
  }

  /** One direction only. */
  #cutSome(): void {
    for (const from of this.#nodes.keys()) {
      for (const to of this.#nodes.keys()) if (from !== to && this.#chance(0.25)) this.#cut.add(`${from}>${to}`);
    }
    this.#trace?.(`cut: ${[...this.#cut]}`);
  }

  /** Long enough, perhaps, to need a snapshot afterwards. */
  #isolateFor(node: SimNode, meanMs: number): void {
    const links = [...this.#nodes.keys()].flatMap((id) => [`${id}>${node.id}`, `${node.id}>${id}`]);
    for (const link of links) this.#cut.add(link);
    this.#queue.after(this.#about(meanMs), () => {
      for (const link of links) this.#cut.delete(link);
    });
  }

  #heal(): void {
    this.#trace?.("all faults end");
    this.#isQuiet = true;
    this.#cut.clear();
    for (const node of this.#nodes.values()) {
      node.isPaused = false;
      if (!node.isAlive) this.#start(node);
    }
    this.#every(500, () => this.#withRandom(this.#leaders(), (node) => this.#leaveJoint(node)));
    this.#every(3000, () => this.#stopRemoved());
  }

  #leaveJoint(leader: SimNode): void {
    const { outgoing, autoLeave } = leader.core.tracker.config;
    if (outgoing.size > 0 && !autoLeave) leader.raw.proposeConfChange(undefined);
  }

  /** The node that has applied most knows who belongs to the cluster. */
  #members(): { newest: SimNode; members: SimNode[] } {
    const nodes = [...this.#nodes.values()];
    const newest = nodes.reduce((best, node) => (node.appliedIndex > best.appliedIndex ? node : best));
    const { voters, votersOutgoing, learners } = newest.confState;
    const ids = new Set([...voters, ...votersOutgoing, ...learners]);
    return { newest, members: nodes.filter((node) => ids.has(node.id)) };
  }

  /** Whoever was removed may go when all members know; until then its vote may be needed. Who came back must run. */
  #stopRemoved(): void {
    const { newest, members } = this.#members();
    for (const node of members) if (!node.isAlive) this.#start(node);
    if (!this.#allKnow(newest, members)) return;
    for (const node of this.#nodes.values()) if (!members.includes(node)) this.#crash(node);
  }

  #allKnow(newest: SimNode, members: readonly SimNode[]): boolean {
    const text = describeConfState(newest.confState);
    return members.every(({ confState }) => describeConfState(confState) === text);
  }

  /**
   * Some are in a later term than the leader and none of them would ask for its vote. Only with CheckQuorum or PreVote is
   * a message of an earlier term answered, so that a stale leader learns of the later one. A real etcd runs with
   * CheckQuorum, always.
   */
  #isOutOfReach(leader: SimNode, members: readonly SimNode[]): boolean {
    const { checkQuorum, preVote } = this.#plan.raft;
    const later = members.filter(({ core }) => core.term > leader.core.term);
    if (checkQuorum || preVote || later.length === 0) return false;
    return !later.some(({ id, confState: { voters, votersOutgoing } }) =>
      [voters, votersOutgoing].some((half) => half.includes(id) && half.includes(leader.id)),
    );
  }

  #checkConvergence(): void {
    const { newest, members } = this.#members();
    const state = (): string =>
      members
        .map(({ id, core, appliedIndex }) => {
          return `${id}: ${core.state} term ${core.term} lead ${core.lead} ${core.log} applied ${appliedIndex}`;
        })
        .join("\n");
    const leaders = members.filter(({ core }) => core.state === "leader");
    if (leaders.length === 0 && !this.#allKnow(newest, members)) {
      this.#isStuck = true;
      return;
    }
    if (leaders.length === 0) throw new Violation(`no leader after ${QUIET_MS} quiet ms\n${state()}`);
    const [leader] = leaders;
    if (leader && this.#isOutOfReach(leader, members)) {
      this.#isStuck = true;
      return;
    }
    if (leader?.core.log.committed !== leader?.core.log.lastIndex() || !leader?.core.hasCommittedInTerm()) {
      throw new Violation(`the leader cannot commit after ${QUIET_MS} quiet ms\n${state()}`);
    }
    for (const node of members) {
      if (node.appliedIndex !== newest.appliedIndex || node.digest !== newest.digest) {
        throw new Violation(`${node.id} does not catch up in ${QUIET_MS} quiet ms\n${state()}`);
      }
    }
  }
}

export function runSeed(options: SimulationOptions): SimulationResult {
  return new Simulation(options).run();
}
