/**
 * What one gRPC watch stream has of the hub: its watchers by id, and an outbox of answers that its handler takes. The
 * outbox is bounded, so a client that does not read turns its watchers into victims instead of filling memory.
 */
import { EtcdError } from "@etcd-ts/client/wire";
import { assert } from "../../lib/assert.ts";
import { copyBytes } from "../../lib/bytes.ts";
import { isEmptyRange, type KeyRange } from "../key-range.ts";
import { OUTBOX_BYTES_MAX } from "../limits.ts";
import type { WatchEvent } from "./event.ts";
import type { WatchHub } from "./hub.ts";
import { Watcher, type WatcherState } from "./watcher.ts";

/** What a client asks a watcher for. */
export interface WatchCreate {
  /** 0 = the stream picks the next free one. */
  readonly watchId?: bigint | undefined;
  /** Not empty. */
  readonly key: Uint8Array;
  /** `undefined` = the key alone; empty = everything from the key on. */
  readonly rangeEnd: Uint8Array | undefined;
  /** 0 = what comes after now. */
  readonly startRevision?: number | undefined;
  readonly noPut?: boolean | undefined;
  readonly noDelete?: boolean | undefined;
  readonly prevKv?: boolean | undefined;
}

/** One answer to write. Without events: progress, or, when `compactRevision` is set, the end of a watcher. */
export interface WatchDelivery {
  /** -1 for progress of the whole stream. */
  readonly watchId: bigint;
  /** For the header. Of the events when the watcher was synced, else the store's; 0 with `compactRevision`. */
  readonly revision: number;
  /** Not 0: the watcher asked for what has been compacted away, and is gone. */
  readonly compactRevision: number;
  readonly events: readonly WatchEvent[];
}

/** Answers in the order in which they were put in. */
class Outbox {
  #queue: WatchDelivery[] = [];
  #head = 0;
  #bytes = 0;

  get size(): number {
    return this.#queue.length - this.#head;
  }

  get bytes(): number {
    return this.#bytes;
  }

  push(delivery: WatchDelivery): void {
    this.#queue.push(delivery);
    this.#bytes += sizeOf(delivery);
  }

  shift(): WatchDelivery | undefined {
    const delivery = this.#queue[this.#head];
    if (!delivery) return undefined;
    this.#head++;
    this.#bytes -= sizeOf(delivery);
    if (this.#head === this.#queue.length) {
      this.#queue = [];
      this.#head = 0;
    } else if (this.#head >= 64) {
      this.#queue.splice(0, this.#head);
      this.#head = 0;
    }
    return delivery;
  }

  /** Drops what was meant for a watcher. */
  dropFor(watchId: bigint): void {
    this.#queue = this.#queue.filter((delivery, index) => index >= this.#head && delivery.watchId !== watchId);
    this.#head = 0;
    this.#bytes = this.#queue.reduce((sum, delivery) => sum + sizeOf(delivery), 0);
  }

  get pendingEvents(): number {
    let events = 0;
    for (let i = this.#head; i < this.#queue.length; i++) events += this.#queue[i]?.events.length ?? 0;
    return events;
  }
}

function sizeOf(delivery: WatchDelivery): number {
  let bytes = 0;
  for (const event of delivery.events) bytes += event.sizeBytes;
  return bytes;
}

export class WatchStream {
  /**
   * Called when {@link take} has something after it had nothing. Runs inside the write path or a slice of catching up, so
   * it must only note the fact; it may call take() only later.
   */
  onReadable: (() => void) | undefined;
  readonly #hub: WatchHub;
  readonly #responsesMax: number;
  readonly #watchers = new Map<bigint, Watcher>();
  readonly #victims = new Set<Watcher>();
  readonly #outbox = new Outbox();
  #nextId = 0n;
  #isClosed = false;

  /** Made by {@link WatchHub.newStream}. */
  constructor(hub: WatchHub, responsesMax: number) {
    this.#hub = hub;
    this.#responsesMax = responsesMax;
  }

  /** Watchers with an id, those included that a compaction has ended. */
  get size(): number {
    return this.#watchers.size;
  }

  get pendingEvents(): number {
    return this.#outbox.pendingEvents;
  }

  /** How each watcher stands, for tests and for a person who looks. */
  describe(): { readonly watchId: bigint; readonly state: WatcherState; readonly position: number }[] {
    return [...this.#watchers.values()].map(({ id, state, position }) => ({ watchId: id, state, position }));
  }

  /**
   * Registers a watcher and returns its id. The answer that it was created is the caller's to write, before it takes
   * anything. Throws an Error whose message is the reason to send: an empty range, an id in use, a negative revision.
   */
  create(request: WatchCreate): bigint {
    assert(!this.#isClosed, "the watch stream is closed");
    const range: KeyRange = {
      start: copyBytes(request.key),
      end: request.rangeEnd && request.rangeEnd.length > 0 ? copyBytes(request.rangeEnd) : undefined,
      isSingle: request.rangeEnd === undefined,
    };
    if (isEmptyRange(range)) throw new Error("mvcc: watcher range is empty");
    const startRevision = request.startRevision ?? 0;
    // 3.5.16 takes it for "long ago"; since 3.5.24 it is refused.
    if (startRevision < 0) throw new EtcdError("Compacted");
    const id = this.#chooseId(request.watchId ?? 0n);
    const watcher = new Watcher({
      stream: this,
      id,
      range,
      position: startRevision === 0 ? this.#hub.currentRevision + 1 : startRevision,
      noPut: request.noPut ?? false,
      noDelete: request.noDelete ?? false,
      prevKv: request.prevKv ?? false,
    });
    this.#watchers.set(id, watcher);
    this.#hub.add(watcher);
    return id;
  }

  #chooseId(wanted: bigint): bigint {
    if (wanted !== 0n) {
      if (this.#watchers.has(wanted)) throw new Error("mvcc: duplicate watch ID provided on the WatchStream");
      return wanted;
    }
    while (this.#watchers.has(this.#nextId)) this.#nextId++;
    return this.#nextId++;
  }

  /** Whether there was such a watcher; then nothing more comes for its id. */
  cancel(watchId: bigint): boolean {
    const watcher = this.#watchers.get(watchId);
    if (!watcher) return false;
    this.#watchers.delete(watchId);
    this.#victims.delete(watcher);
    this.#hub.remove(watcher);
    this.#outbox.dropFor(watchId);
    return true;
  }

  /** Puts an answer without events into the outbox if the watcher has seen everything up to now. */
  requestProgress(watchId: bigint): void {
    const watcher = this.#watchers.get(watchId);
    this.#hub.deliver();
    if (watcher && this.#hub.isAtHead(watcher)) this.#offerProgress(watchId);
  }

  /** The same for the stream: one answer with id -1, only when there are watchers and all have seen everything. */
  requestProgressAll(): void {
    this.#hub.deliver();
    let live = 0;
    for (const watcher of this.#watchers.values()) {
      if (watcher.state === "gone") continue;
      if (!this.#hub.isAtHead(watcher)) return;
      live++;
    }
    if (live > 0) this.#offerProgress(-1n);
  }

  #offerProgress(watchId: bigint): void {
    this.offer({ watchId, revision: this.#hub.currentRevision, compactRevision: 0, events: [] });
  }

  /** The next answer to write, or `undefined`. */
  take(): WatchDelivery | undefined {
    const delivery = this.#outbox.shift();
    if (this.#victims.size > 0 && this.#outbox.size <= this.#responsesMax / 2) {
      const victims = [...this.#victims];
      this.#victims.clear();
      this.#hub.unblock(victims);
    }
    return delivery;
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    for (const watcher of this.#watchers.values()) this.#hub.remove(watcher);
    this.#watchers.clear();
    this.#victims.clear();
    this.#hub.forget(this);
  }

  // What follows is for the hub.

  /** False when the outbox is full: then nothing was put in. */
  offer(delivery: WatchDelivery): boolean {
    const { size, bytes } = this.#outbox;
    if (size >= this.#responsesMax || bytes >= OUTBOX_BYTES_MAX) return false;
    this.#push(delivery);
    return true;
  }

  /** Ends a watcher whose revision is compacted. At most one for each watcher, so it needs no bound. Its id stays taken. */
  pushCompacted(watcher: Watcher, compactRevision: number): void {
    this.#push({ watchId: watcher.id, revision: 0, compactRevision, events: [] });
  }

  addVictim(watcher: Watcher): void {
    this.#victims.add(watcher);
  }

  #push(delivery: WatchDelivery): void {
    const wasEmpty = this.#outbox.size === 0;
    this.#outbox.push(delivery);
    if (wasEmpty) this.onReadable?.();
  }
}
