/** Messages: making them, and which of them stay inside a node. */
import { type Message, MessageType, MessageTypeInfo } from "../pb/raftpb.ts";
import type { NodeId } from "./types.ts";

/** Everything but type and addressee is zero or empty; the maker fills in the rest. */
export function newMessage(type: MessageType, to: NodeId): Message {
  return {
    type,
    to,
    from: 0n,
    term: 0,
    logTerm: 0,
    index: 0,
    entries: [],
    commit: 0,
    snapshot: undefined,
    reject: false,
    rejectHint: 0,
    context: undefined,
    vote: 0n,
    responses: [],
  };
}

export function messageTypeName(type: MessageType): string {
  return MessageTypeInfo.nameOf[type] ?? String(type);
}

const LOCAL: ReadonlySet<MessageType> = new Set([
  MessageType.MsgHup,
  MessageType.MsgBeat,
  MessageType.MsgUnreachable,
  MessageType.MsgSnapStatus,
  MessageType.MsgCheckQuorum,
  MessageType.MsgStorageAppend,
  MessageType.MsgStorageAppendResp,
  MessageType.MsgStorageApply,
  MessageType.MsgStorageApplyResp,
]);

const RESPONSES: ReadonlySet<MessageType> = new Set([
  MessageType.MsgAppResp,
  MessageType.MsgVoteResp,
  MessageType.MsgHeartbeatResp,
  MessageType.MsgUnreachable,
  MessageType.MsgReadIndexResp,
  MessageType.MsgPreVoteResp,
  MessageType.MsgStorageAppendResp,
  MessageType.MsgStorageApplyResp,
]);

/** Never travels between nodes: one that arrives from outside is refused. */
export function isLocalMessage(type: MessageType): boolean {
  return LOCAL.has(type);
}

/** Answers something, so it is of use from a known member only. */
export function isResponseMessage(type: MessageType): boolean {
  return RESPONSES.has(type);
}
