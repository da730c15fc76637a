/**
 * Linearizable reads that wait for their leader to be confirmed: in order of arrival, each known by its context. A
 * heartbeat carries a context; when a quorum has echoed it, that read and all before it may be answered with the commit
 * index of their arrival (thesis 6.4).
 */
import { EMPTY_BYTES, keyString } from "../lib/bytes.ts";
import type { Message } from "../pb/raftpb.ts";
import type { NodeId } from "./types.ts";

export interface PendingRead {
  readonly request: Message;
  /** The commit index when the read arrived. */
  readonly index: number;
  readonly acks: Map<NodeId, boolean>;
}

export function readContext(request: Message): Uint8Array {
  return request.entries[0]?.data ?? EMPTY_BYTES;
}

export class ReadOnlyQueue {
  /** A Map keeps the order of arrival. */
  readonly #pending = new Map<string, PendingRead>();
  #lastContext: Uint8Array | undefined;

  /** Of two reads with the same context the second is ignored: the first one's answer is for both. */
  add(index: number, request: Message): void {
    const context = readContext(request);
    const key = keyString(context);
    if (this.#pending.has(key)) return;
    this.#pending.set(key, { request, index, acks: new Map() });
    this.#lastContext = context;
  }

  /** Undefined when no read waits under this context. */
  acknowledge(id: NodeId, context: Uint8Array): ReadonlyMap<NodeId, boolean> | undefined {
    const read = this.#pending.get(keyString(context));
    read?.acks.set(id, true);
    return read?.acks;
  }

  /** Takes out the read with this context and all that arrived before it. */
  release(context: Uint8Array): PendingRead[] {
    const key = keyString(context);
    if (!this.#pending.has(key)) return [];
    const released: PendingRead[] = [];
    for (const [one, read] of this.#pending) {
      released.push(read);
      this.#pending.delete(one);
      if (one === key) break;
    }
    if (this.#pending.size === 0) this.#lastContext = undefined;
    return released;
  }

  /** Of the newest read that waits; heartbeats carry it, since it speaks for all. */
  get lastContext(): Uint8Array | undefined {
    return this.#lastContext;
  }
}
