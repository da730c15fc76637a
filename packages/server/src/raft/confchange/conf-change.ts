/** The two forms of a configuration change, and what each asks for. */
import { EMPTY_BYTES } from "../../lib/bytes.ts";
import {
  ConfChange,
  type ConfChangeSingle,
  ConfChangeTransition,
  ConfChangeTransitionInfo,
  ConfChangeType,
  ConfChangeTypeInfo,
  ConfChangeV2,
  type Entry,
  EntryType,
} from "../../pb/raftpb.ts";
import { ConfChangeError } from "./changer.ts";

export type AnyConfChange = ConfChange | ConfChangeV2;

export function isV2(change: AnyConfChange): change is ConfChangeV2 {
  return "changes" in change;
}

export function asV2(change: AnyConfChange): ConfChangeV2 {
  if (isV2(change)) return change;
  return {
    transition: ConfChangeTransition.ConfChangeTransitionAuto,
    changes: [{ type: change.type, nodeId: change.nodeId }],
    context: change.context,
  };
}

/** Undefined is the empty change, without any bytes: it leaves a joint configuration and is never refused for size. */
export function confChangeEntry(change: AnyConfChange | undefined): { type: number; data: Uint8Array | undefined } {
  if (!change) return { type: EntryType.EntryConfChangeV2, data: undefined };
  return isV2(change)
    ? { type: EntryType.EntryConfChangeV2, data: ConfChangeV2.encode(change) }
    : { type: EntryType.EntryConfChange, data: ConfChange.encode(change) };
}

/** The change in an entry; undefined when the entry is a normal one. Throws WireError when it is malformed. */
export function decodeConfChange(entry: Entry): AnyConfChange | undefined {
  switch (entry.type) {
    case EntryType.EntryConfChange:
      return ConfChange.decode(entry.data ?? EMPTY_BYTES);
    case EntryType.EntryConfChangeV2:
      return ConfChangeV2.decode(entry.data ?? EMPTY_BYTES);
    default:
      return undefined;
  }
}

export function wantsToLeaveJoint(change: ConfChangeV2): boolean {
  return change.transition === ConfChangeTransition.ConfChangeTransitionAuto && change.changes.length === 0;
}

/** Undefined: a simple change will do. */
export function wantsToEnterJoint(change: ConfChangeV2): { autoLeave: boolean } | undefined {
  switch (change.transition) {
    case ConfChangeTransition.ConfChangeTransitionAuto:
      return change.changes.length > 1 ? { autoLeave: true } : undefined;
    case ConfChangeTransition.ConfChangeTransitionJointImplicit:
      return { autoLeave: true };
    case ConfChangeTransition.ConfChangeTransitionJointExplicit:
      return { autoLeave: false };
    default:
      throw new ConfChangeError(`unknown transition: ${change.transition}`);
  }
}

const LETTERS: ReadonlyMap<string, number> = new Map([
  ["v", ConfChangeType.ConfChangeAddNode],
  ["l", ConfChangeType.ConfChangeAddLearnerNode],
  ["r", ConfChangeType.ConfChangeRemoveNode],
  ["u", ConfChangeType.ConfChangeUpdateNode],
]);

/** `v1 l2 r3 u4`: make a voter, make a learner, remove, update. */
export function parseConfChanges(text: string): ConfChangeSingle[] {
  const words = text.trim() === "" ? [] : text.trim().split(/ +/);
  return words.map((word) => {
    if (word.length < 2) throw new ConfChangeError(`unknown token ${word}`);
    const type = LETTERS.get(word[0] as string);
    if (type === undefined || !/^\d+$/.test(word.slice(1))) throw new ConfChangeError(`unknown input: ${word}`);
    return { type, nodeId: BigInt(word.slice(1)) };
  });
}

export function confChangesText(changes: readonly ConfChangeSingle[]): string {
  const letterOf = (type: number) => [...LETTERS].find(([, one]) => one === type)?.[0] ?? "unknown";
  return changes.map(({ type, nodeId }) => `${letterOf(type)}${nodeId}`).join(" ");
}

/** As Go prints the struct; stands in one log line. */
export function confChangeGoText(change: AnyConfChange): string {
  const typeName = (type: number) => ConfChangeTypeInfo.nameOf[type] ?? String(type);
  const bytes = (data: Uint8Array | undefined) => `[${data ? [...data].join(" ") : ""}]`;
  if (!isV2(change)) {
    return `{${typeName(change.type)} ${change.nodeId} ${bytes(change.context)} ${change.id}}`;
  }
  const transition = ConfChangeTransitionInfo.nameOf[change.transition] ?? String(change.transition);
  const singles = change.changes.map(({ type, nodeId }) => `{${typeName(type)} ${nodeId}}`).join(" ");
  return `{${transition} [${singles}] ${bytes(change.context)}}`;
}
