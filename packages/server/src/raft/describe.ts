/** Raft's state and messages as text, in the notation of golden scripts. For tests and for debugging. */
import { asBuffer, EMPTY_BYTES, hexId } from "../lib/bytes.ts";
import {
  type ConfState,
  type Entry,
  EntryTypeInfo,
  type HardState,
  type Message,
  type Snapshot,
} from "../pb/raftpb.ts";
import { asV2, confChangesText, decodeConfChange } from "./confchange/conf-change.ts";
import { messageTypeName } from "./messages.ts";
import { snapshotIndex, snapshotTerm } from "./storage.ts";
import { LOCAL_APPEND_THREAD, LOCAL_APPLY_THREAD, NONE, type NodeId, type RaftState, type Ready } from "./types.ts";

const STATE_NAMES: Readonly<Record<RaftState, string>> = {
  follower: "StateFollower",
  preCandidate: "StatePreCandidate",
  candidate: "StateCandidate",
  leader: "StateLeader",
};

export function raftStateName(state: RaftState): string {
  return STATE_NAMES[state];
}

const ESCAPES: ReadonlyMap<number, string> = new Map([
  [0x07, "\\a"],
  [0x08, "\\b"],
  [0x09, "\\t"],
  [0x0a, "\\n"],
  [0x0b, "\\v"],
  [0x0c, "\\f"],
  [0x0d, "\\r"],
  [0x22, '\\"'],
  [0x5c, "\\\\"],
]);

/** Quoted as Go quotes a string; bytes beyond ASCII are escaped one by one. */
export function quoted(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) {
    const isPlain = byte >= 0x20 && byte < 0x7f;
    text +=
      ESCAPES.get(byte) ??
      (isPlain ? String.fromCharCode(byte) : `\\x${asBuffer(Uint8Array.of(byte)).toString("hex")}`);
  }
  return `"${text}"`;
}

export function describeEntry(entry: Entry): string {
  const change = decodeConfChange(entry);
  const content = change ? confChangesText(asV2(change).changes) : quoted(entry.data ?? EMPTY_BYTES);
  const type = EntryTypeInfo.nameOf[entry.type] ?? String(entry.type);
  return `${entry.term}/${entry.index} ${type}${content === "" ? "" : ` ${content}`}`;
}

export function describeEntries(entries: readonly Entry[]): string {
  return entries.map((entry) => `${describeEntry(entry)}\n`).join("");
}

function describeTarget(id: NodeId): string {
  if (id === NONE) return "None";
  if (id === LOCAL_APPEND_THREAD) return "AppendThread";
  if (id === LOCAL_APPLY_THREAD) return "ApplyThread";
  return hexId(id);
}

export function describeConfState(state: ConfState): string {
  const ids = (list: readonly NodeId[]) => `[${list.join(" ")}]`;
  return (
    `Voters:${ids(state.voters)} VotersOutgoing:${ids(state.votersOutgoing)} Learners:${ids(state.learners)} ` +
    `LearnersNext:${ids(state.learnersNext)} AutoLeave:${state.autoLeave}`
  );
}

export function describeSnapshot(snapshot: Snapshot): string {
  const confState = snapshot.metadata?.confState;
  const text = confState ? describeConfState(confState) : "";
  return `Index:${snapshotIndex(snapshot)} Term:${snapshotTerm(snapshot)} ConfState:${text}`;
}

/** Also of several lines; each line after the first is indented further than `indent`. */
export function describeMessage(m: Message, indent = ""): string {
  let text =
    `${indent}${describeTarget(m.from)}->${describeTarget(m.to)} ${messageTypeName(m.type)} Term:${m.term} ` +
    `Log:${m.logTerm}/${m.index}`;
  if (m.reject) text += ` Rejected (Hint: ${m.rejectHint})`;
  if (m.commit !== 0) text += ` Commit:${m.commit}`;
  if (m.vote !== NONE) text += ` Vote:${m.vote}`;
  const [entry] = m.entries;
  if (entry && m.entries.length === 1) {
    text += ` Entries:[${describeEntry(entry)}]`;
  } else if (entry) {
    text += ` Entries:[${m.entries.map((one) => `\n${indent}  ${describeEntry(one)}`).join("")}\n${indent}]`;
  }
  if (m.snapshot && snapshotIndex(m.snapshot) !== 0) text += `\n${indent}  Snapshot: ${describeSnapshot(m.snapshot)}`;
  if (m.responses.length > 0) {
    text += ` Responses:[${m.responses.map((one) => `\n${describeMessage(one, `${indent}  `)}`).join("")}\n${indent}]`;
  }
  return text;
}

function describeHardState({ term, vote, commit }: HardState): string {
  return `Term:${term}${vote === NONE ? "" : ` Vote:${vote}`} Commit:${commit}`;
}

export function describeReady(ready: Ready): string {
  let text = "";
  if (ready.softState) text += `Lead:${ready.softState.lead} State:${raftStateName(ready.softState.state)}\n`;
  if (ready.hardState) text += `HardState ${describeHardState(ready.hardState)}\n`;
  if (ready.readStates.length > 0) {
    const reads = ready.readStates.map(({ index, context }) => `{${index} [${[...context].join(" ")}]}`);
    text += `ReadStates [${reads.join(" ")}]\n`;
  }
  if (ready.entries.length > 0) text += `Entries:\n${describeEntries(ready.entries)}`;
  if (ready.snapshot) text += `Snapshot ${describeSnapshot(ready.snapshot)}\n`;
  if (ready.committedEntries.length > 0) text += `CommittedEntries:\n${describeEntries(ready.committedEntries)}`;
  const messages = [...ready.messages, ...ready.messagesAfterAppend];
  if (messages.length > 0) text += `Messages:\n${messages.map((m) => `${describeMessage(m)}\n`).join("")}`;
  return text === "" ? "<empty Ready>" : `Ready MustSync=${ready.mustSync}:\n${text}`;
}
