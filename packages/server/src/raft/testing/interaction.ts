/**
 * A few nodes and the messages between them, moved by the directives of a golden script. Nothing happens unless a
 * directive says so; the output of a directive is what the nodes logged and what the directive shows.
 */
import { EMPTY_BYTES, utf8Bytes } from "../../lib/bytes.ts";
import type { Logger } from "../../lib/log.ts";
import { SeededRandom } from "../../lib/random.ts";
import {
  type ConfChange,
  ConfChangeTransition,
  type ConfChangeV2,
  type ConfState,
  type Entry,
  type HardState,
  type Message,
  MessageType,
  MessageTypeInfo,
  type Snapshot,
} from "../../pb/raftpb.ts";
import { decodeConfChange, parseConfChanges } from "../confchange/conf-change.ts";
import { describeEntries, describeMessage, describeReady, raftStateName } from "../describe.ts";
import { newMessage } from "../messages.ts";
import { progressMapText } from "../progress.ts";
import { Raft } from "../raft.ts";
import { RawNode } from "../raw-node.ts";
import { emptyConfState, MemoryStorage, snapshotIndex } from "../storage.ts";
import { isLocalThread, NONE, type RaftConfig } from "../types.ts";
import { argument, type Directive } from "./script.ts";

const LEVELS = ["DEBUG", "INFO", "WARN", "ERROR", "FATAL", "NONE"] as const;
const NO_OUTPUT = LEVELS.indexOf("NONE");

class Output {
  level = 0;
  text = "";

  get isQuiet(): boolean {
    return this.level === NO_OUTPUT;
  }

  write(text: string): void {
    if (!this.isQuiet) this.text += text;
  }

  log(level: (typeof LEVELS)[number], message: string): void {
    if (LEVELS.indexOf(level) >= this.level) this.write(`${level} ${message}\n`);
  }

  /** What `body` writes comes out indented, empty lines included. */
  indented(body: () => void): void {
    const before = this.text;
    this.text = "";
    body();
    const lines = this.text === "" ? [] : this.text.replace(/\n$/, "").split("\n");
    this.text = before + lines.map((line) => `  ${line}\n`).join("");
  }
}

/** Gives the newest snapshot of the state machine, whatever has been compacted. */
class HistoryStorage extends MemoryStorage {
  history: Snapshot[] = [];

  override snapshot(): Snapshot {
    return this.history.at(-1) as Snapshot;
  }
}

interface Node {
  readonly id: bigint;
  readonly raw: RawNode;
  readonly core: Raft;
  readonly storage: HistoryStorage;
  readonly isAsync: boolean;
  /** The state machine appends what it applies; one snapshot per applied entry. */
  readonly history: Snapshot[];
  appendWork: Message[];
  applyWork: Message[];
}

type Options = {
  -readonly [K in keyof RaftConfig]?: RaftConfig[K];
};

export class Interaction {
  readonly #nodes: Node[] = [];
  readonly #output = new Output();
  readonly #logger: Logger;
  #messages: Message[] = [];
  readonly #random = new SeededRandom(1);

  constructor() {
    const output = this.#output;
    this.#logger = {
      debug: (message) => output.log("DEBUG", message),
      info: (message) => output.log("INFO", message),
      warn: (message) => output.log("WARN", message),
      error: (message) => output.log("ERROR", message),
      get isDebugEnabled() {
        return output.level === 0;
      },
    };
  }

  run(directive: Directive): string {
    const output = this.#output;
    output.text = "";
    try {
      this.#handle(directive);
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      if (output.isQuiet) return error.message;
      output.write(error.message);
    }
    return output.text === "" ? "ok" : output.text;
  }

  readonly #commands: Readonly<Record<string, (d: Directive) => void>> = {
    _breakpoint: () => {},
    "log-level": (d) => this.#setLevel(d.args[0]?.key ?? ""),
    "add-nodes": (d) => this.#addNodes(d),
    campaign: (d) => this.#node(d).raw.campaign(),
    propose: (d) => refuse(this.#node(d).raw.propose(utf8Bytes(d.args[1]?.key ?? ""))),
    "propose-conf-change": (d) => this.#proposeConfChange(d),
    "tick-election": (d) => this.#tick(this.#node(d), this.#node(d).core.electionTicks),
    "tick-heartbeat": (d) => this.#tick(this.#node(d), this.#node(d).core.heartbeatTicks),
    "process-ready": (d) => this.#each(d, "handling Ready", (node) => this.#processReady(node)),
    "process-append-thread": (d) => this.#each(d, "processing append thread", (node) => this.#processAppend(node)),
    "process-apply-thread": (d) => this.#each(d, "processing apply thread", (node) => this.#processApply(node)),
    "deliver-msgs": (d) => this.#deliverDirective(d),
    stabilize: (d) => this.#stabilize(d),
    status: (d) => this.#output.write(progressMapText(this.#node(d).raw.status().progress)),
    "raft-state": () => this.#raftState(),
    "raft-log": (d) => this.#raftLog(this.#node(d)),
    compact: (d) => {
      this.#node(d).storage.compact(Number(d.args[1]?.key));
      this.#raftLog(this.#node(d));
    },
    "set-randomized-election-timeout": (d) => {
      this.#node(d).core.randomizedElectionTicks = Number(argument(d, "timeout"));
    },
    "transfer-leadership": (d) => {
      this.#byId(argument(d, "from")).raw.transferLeadership(BigInt(argument(d, "to") ?? "0"));
    },
    "forget-leader": (d) => this.#node(d).raw.forgetLeader(),
    "report-unreachable": (d) => this.#node(d).raw.reportUnreachable(BigInt(d.args[1]?.key ?? "0")),
    "report-snapshot": (d) => {
      this.#node(d).raw.reportSnapshot(BigInt(d.args[1]?.key ?? "0"), argument(d, "ok") !== "false");
    },
    "send-snapshot": (d) => this.#sendSnapshot(d),
    "read-index": (d) => this.#node(d).raw.readIndex(utf8Bytes(d.args[1]?.key ?? "")),
    restart: (d) => this.#restart(this.#node(d)),
  };

  #handle(d: Directive): void {
    const command = this.#commands[d.command];
    if (!command) throw new Error("unknown command");
    command(d);
  }

  #tick({ raw }: Node, ticks: number): void {
    for (let i = 0; i < ticks; i++) raw.tick();
  }

  #byId(id: string | undefined): Node {
    const node = this.#nodes[Number(id) - 1];
    if (!node) throw new Error(`no node ${id}`);
    return node;
  }

  #node(d: Directive): Node {
    return this.#byId(d.args[0]?.key);
  }

  #nodesOf(d: Directive): Node[] {
    return d.args.filter(({ values }) => values.length === 0).map(({ key }) => this.#byId(key));
  }

  #each(d: Directive, what: string, handle: (node: Node) => void): void {
    const nodes = this.#nodesOf(d);
    for (const node of nodes) {
      if (nodes.length === 1) handle(node);
      else this.#under(node, what, () => handle(node));
    }
  }

  #under(node: Node, what: string, body: () => void): void {
    this.#output.write(`> ${node.id} ${what}\n`);
    this.#output.indented(body);
  }

  #setLevel(name: string): void {
    const level = (LEVELS as readonly string[]).indexOf(name.toUpperCase());
    if (level < 0) throw new Error(`log levels must be either of [${LEVELS.join(" ")}]`);
    this.#output.level = level;
  }

  #addNodes(d: Directive): void {
    const options: Options = {};
    const confState = emptyConfState();
    let index: number | undefined;
    let data: Uint8Array | undefined;
    let isBootstrapped = false;
    for (const { key, values } of d.args.slice(1)) {
      const value = values[0] as string;
      isBootstrapped ||= ["voters", "learners", "index", "content"].includes(key);
      switch (key) {
        case "voters":
          confState.voters = values.map(BigInt);
          break;
        case "learners":
          confState.learners = values.map(BigInt);
          break;
        case "index":
          index = Number(value);
          options.applied = index;
          break;
        case "content":
          data = utf8Bytes(value);
          break;
        case "inflight":
          options.inflightMessagesMax = Number(value);
          break;
        case "async-storage-writes":
          options.asyncStorageWrites = value === "true";
          break;
        case "prevote":
          options.preVote = value === "true";
          break;
        case "checkquorum":
          options.checkQuorum = value === "true";
          break;
        case "max-committed-size-per-ready":
          options.committedBytesPerReadyMax = Number(value);
          break;
        case "max-size-per-msg":
          options.messageBytesMax = Number(value);
          break;
        case "max-uncommitted-size":
          options.uncommittedBytesMax = Number(value);
          break;
        case "max-inflight-bytes":
          options.inflightBytesMax = Number(value);
          break;
        case "disable-proposal-forwarding":
          options.disableProposalForwarding = value === "true";
          break;
        case "disable-conf-change-validation":
          options.disableConfChangeValidation = value === "true";
          break;
        case "read-only":
          if (value !== "safe" && value !== "lease-based") throw new Error(`invalid read-only option "${value}"`);
          options.readOnlyOption = value === "safe" ? "safe" : "leaseBased";
          break;
        case "step-down-on-removal":
          options.stepDownOnRemoval = value === "true";
          break;
        default:
          throw new Error(`unknown option ${key}`);
      }
    }
    if (isBootstrapped && !(index !== undefined && index > 1)) {
      throw new Error("index must be specified as > 1 due to bootstrap");
    }
    for (let i = 0; i < Number(d.args[0]?.key); i++) {
      const snapshot = { data, metadata: { confState, index: index ?? 0, term: isBootstrapped ? 1 : 0 } };
      const storage = new HistoryStorage();
      if (isBootstrapped) storage.applySnapshot(snapshot);
      storage.history = [snapshot];
      this.#nodes.push(this.#start(BigInt(this.#nodes.length + 1), storage, options));
    }
  }

  #start(id: bigint, storage: HistoryStorage, options: Options): Node {
    let core: Raft | undefined;
    const raw = new RawNode({
      electionTicks: 3,
      heartbeatTicks: 1,
      messageBytesMax: Number.POSITIVE_INFINITY,
      inflightMessagesMax: 2 ** 31 - 1,
      ...options,
      id,
      storage,
      logger: this.#logger,
      random: this.#random,
      newCore: (config) => {
        core = new Raft(config);
        return core;
      },
    });
    const isAsync = options.asyncStorageWrites ?? false;
    const node = {
      id,
      raw,
      core: core as unknown as Raft,
      storage,
      isAsync,
      history: storage.history,
      appendWork: [],
      applyWork: [],
    };
    this.#optionsOf.set(id, options);
    return node;
  }

  readonly #optionsOf = new Map<bigint, Options>();

  /** What is in the storage survives; what was handed out but not processed does not. Applied: the newest history. */
  #restart(node: Node): void {
    const options = { ...this.#optionsOf.get(node.id), applied: snapshotIndex(node.history.at(-1)) };
    this.#nodes[Number(node.id) - 1] = this.#start(node.id, node.storage, options);
  }

  #proposeConfChange(d: Directive): void {
    const node = this.#node(d);
    const isV1 = argument(d, "v1") === "true";
    const transition = argument(d, "transition");
    const changes = parseConfChanges(d.input);
    let change: ConfChange | ConfChangeV2;
    if (isV1) {
      const [only] = changes;
      if (!only || changes.length !== 1 || transition !== undefined) {
        throw new Error("v1 conf change can only have one operation and no transition");
      }
      change = { ...only, context: undefined, id: 0n };
    } else {
      const transitions = {
        auto: ConfChangeTransition.ConfChangeTransitionAuto,
        implicit: ConfChangeTransition.ConfChangeTransitionJointImplicit,
        explicit: ConfChangeTransition.ConfChangeTransitionJointExplicit,
      };
      const wanted = transitions[(transition ?? "auto") as keyof typeof transitions];
      if (wanted === undefined) throw new Error(`unknown transition ${transition}`);
      change = { transition: wanted, changes, context: undefined };
    }
    refuse(node.raw.proposeConfChange(change));
  }

  #processReady(node: Node): void {
    const ready = node.raw.ready();
    this.#output.write(describeReady(ready));
    if (!node.isAsync) {
      this.#store(node, ready.hardState, ready.entries, ready.snapshot);
      this.#apply(node, ready.committedEntries);
    }
    for (const m of [...ready.messages, ...ready.messagesAfterAppend]) {
      if (m.type === MessageType.MsgStorageAppend) node.appendWork.push(m);
      else if (m.type === MessageType.MsgStorageApply) node.applyWork.push(m);
      else this.#messages.push(m);
    }
    if (!node.isAsync) node.raw.advance(ready);
  }

  #store(
    { storage }: Node,
    hardState: HardState | undefined,
    entries: readonly Entry[],
    snapshot: Snapshot | undefined,
  ): void {
    if (hardState) storage.setHardState(hardState);
    if (snapshot) {
      if (entries.length > 0) throw new Error("can't apply snapshot and entries at the same time");
      storage.applySnapshot(snapshot);
      return;
    }
    storage.append(entries);
  }

  #apply({ raw, history }: Node, entries: readonly Entry[]): void {
    for (const entry of entries) {
      const last = history.at(-1) as Snapshot;
      const change = decodeConfChange(entry);
      const confState: ConfState | undefined = change
        ? raw.applyConfChange(change)
        : (last.metadata?.confState ?? emptyConfState());
      const added = (change ? change.context : entry.data) ?? EMPTY_BYTES;
      const data = Buffer.concat([last.data ?? EMPTY_BYTES, added]);
      history.push({ data, metadata: { confState, index: entry.index, term: entry.term } });
    }
  }

  /** Takes one piece of work; its responses become messages. */
  #processWork(m: Message, perform: (m: Message) => void): void {
    const write = (title: string, list: readonly Message[]): void => {
      this.#output.write(`${title}:\n${list.map((one) => `${describeMessage(one)}\n`).join("")}`);
    };
    write("Processing", [{ ...m, responses: [] }]);
    perform(m);
    write("Responses", m.responses);
    this.#messages.push(...m.responses);
  }

  #processAppend(node: Node): void {
    const m = node.appendWork.shift();
    if (!m) {
      this.#output.write("no append work to perform");
      return;
    }
    this.#processWork(m, ({ term, vote, commit, entries, snapshot }) => {
      const isEmpty = term === 0 && vote === NONE && commit === 0;
      this.#store(node, isEmpty ? undefined : { term, vote, commit }, entries, snapshot);
    });
  }

  #processApply(node: Node): void {
    const m = node.applyWork.shift();
    if (!m) {
      this.#output.write("no apply work to perform");
      return;
    }
    this.#processWork(m, ({ entries }) => this.#apply(node, entries));
  }

  /** What a node says to itself, or to and from its threads, is not lost. */
  #isLocal(m: Message): boolean {
    return m.from === m.to || isLocalThread(m.from) || isLocalThread(m.to);
  }

  #takeMessages(to: bigint, type: number | undefined, isDropped: boolean): Message[] {
    const isWanted = (m: Message): boolean =>
      m.to === to && !(isDropped && this.#isLocal(m)) && (type === undefined || m.type === type);
    const taken = this.#messages.filter(isWanted);
    this.#messages = this.#messages.filter((m) => !isWanted(m));
    return taken;
  }

  #deliver(to: bigint, type: number | undefined, isDropped: boolean): number {
    const messages = this.#takeMessages(to, type, isDropped);
    for (const m of messages) {
      this.#output.write(`${isDropped ? "dropped: " : ""}${describeMessage(m)}\n`);
      if (isDropped) continue;
      const refusal = this.#byId(String(to)).raw.step(m);
      if (refusal) this.#output.write(`${refusal.message}\n`);
    }
    return messages.length;
  }

  #deliverDirective(d: Directive): void {
    let type: number | undefined;
    const recipients: { id: bigint; isDropped: boolean }[] = [];
    for (const { key, values } of d.args) {
      if (values.length === 0) recipients.push({ id: BigInt(key), isDropped: false });
      else if (key === "drop") recipients.push(...values.map((id) => ({ id: BigInt(id), isDropped: true })));
      else if (key === "type") type = MessageTypeInfo.numberOf[values[0] as string];
    }
    let count = 0;
    for (const { id, isDropped } of recipients) count += this.#deliver(id, type, isDropped);
    if (count === 0) this.#output.write("no messages\n");
  }

  #stabilize(d: Directive): void {
    const level = this.#output.level;
    const wanted = argument(d, "log-level");
    if (wanted !== undefined) this.#setLevel(wanted);
    const named = this.#nodesOf(d);
    const nodes = named.length > 0 ? named : this.#nodes;
    for (let isDone = false; !isDone; ) {
      isDone = true;
      const all = (isDue: (node: Node) => boolean, what: string, body: (node: Node) => void): void => {
        for (const node of nodes) {
          if (!isDue(node)) continue;
          isDone = false;
          this.#under(node, what, () => body(node));
        }
      };
      all(
        (node) => node.raw.hasReady(),
        "handling Ready",
        (node) => this.#processReady(node),
      );
      all(
        (node) => this.#messages.some((m) => m.to === node.id),
        "receiving messages",
        (node) => this.#deliver(node.id, undefined, false),
      );
      all(
        (node) => node.appendWork.length > 0,
        "processing append thread",
        (node) => {
          while (node.appendWork.length > 0) this.#processAppend(node);
        },
      );
      all(
        (node) => node.applyWork.length > 0,
        "processing apply thread",
        (node) => {
          while (node.applyWork.length > 0) this.#processApply(node);
        },
      );
    }
    this.#output.level = level;
  }

  #raftState(): void {
    for (const { raw } of this.#nodes) {
      const { id, state, term, lead, confState } = raw.status();
      const isVoter = confState.voters.includes(id) || confState.votersOutgoing.includes(id);
      const kind = isVoter ? "(Voter)" : "(Non-Voter)";
      this.#output.write(`${id}: ${raftStateName(state)} ${kind} Term:${term} Lead:${lead}\n`);
    }
  }

  #raftLog({ storage }: Node): void {
    const first = storage.firstIndex();
    const last = storage.lastIndex();
    if (last < first) this.#output.write(`log is empty: first index=${first}, last index=${last}`);
    else this.#output.write(describeEntries(storage.entries(first, last + 1, Number.POSITIVE_INFINITY)));
  }

  #sendSnapshot(d: Directive): void {
    const [from, to] = this.#nodesOf(d);
    if (!from || !to) throw new Error("send-snapshot takes two nodes");
    const m = newMessage(MessageType.MsgSnap, to.id);
    m.from = from.id;
    m.term = from.raw.basicStatus().term;
    m.snapshot = from.storage.snapshot();
    this.#messages.push(m);
    this.#output.write(describeMessage(m));
  }
}

function refuse(refusal: Error | undefined): void {
  if (refusal) throw refusal;
}
