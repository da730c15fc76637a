/**
 * Who waits for what: proposals for the result of their apply, reads for an applied index. Every wait has an end: the
 * result, a deadline that is the same for all (so one timer serves the oldest), or the stop of the server.
 */
import { assert } from "../lib/assert.ts";
import type { Clock, Timer } from "../lib/clock.ts";
import { Later } from "../lib/wait.ts";
import type { InternalRaftRequest } from "../pb/etcdserverpb.ts";
import { SUFFIX_END } from "./request-ids.ts";

/** One proposal of this member and who waits for its result. `R` is what apply gives, `T` what the caller gets. */
class Waiter<R, T> extends Later<T> {
  readonly suffix: number;
  readonly startMs: number;
  /** The bytes that were proposed; raft hands them out again when they are committed. */
  readonly data: Uint8Array | undefined;
  readonly request: InternalRaftRequest | undefined;
  readonly finish: (result: R) => T;
  isHandedOver = false;

  constructor(
    suffix: number,
    startMs: number,
    proposed: { readonly data: Uint8Array; readonly request: InternalRaftRequest } | undefined,
    finish: (result: R) => T,
  ) {
    super();
    this.suffix = suffix;
    this.startMs = startMs;
    this.data = proposed?.data;
    this.request = proposed?.request;
    this.finish = finish;
  }
}

const FIRST_SLOTS = 64;

/** So many of what is done with may stand at the front of the queue before they are cut off. */
const HANDED_OVER_DONE_MAX = 1024;

/**
 * Proposals of this member whose results are waited for, each with the same time to live.
 *
 * They are numbered in ascending order, so they lie in a ring, the place of each being its number; those that are done
 * leave holes. What raft was given comes back in the order in which it was given, as the very bytes that were proposed:
 * so the next entry is compared with the oldest that was handed over, and need not be decoded when it is that one. (A
 * follower gets its entries back as copies from the leader. Those are found by their id.)
 */
export class PendingRequests<R> {
  readonly #clock: Clock;
  readonly #timeoutMs: number;
  readonly #timedOut: (startMs: number, isHandedOver: boolean) => Error;
  /** A power of two of places; the waiter with number n lies at n modulo their count. */
  #slots: (Waiter<R, unknown> | undefined)[] = new Array(FIRST_SLOTS).fill(undefined);
  /** Invariant: the numbers of all who wait are among the #span from #first on, and #span <= #slots.length. */
  #first = 0;
  #span = 0;
  #size = 0;
  /** What raft has been given, in that order; those before #nextOwn are done with. */
  #handedOver: Waiter<R, unknown>[] = [];
  #nextOwn = 0;
  #timer: Timer | undefined;

  constructor(options: {
    clock: Clock;
    timeoutMs: number;
    /** Makes the error for a request that began at `startMs` and got no result; whether raft ever had it. */
    timedOut: (startMs: number, isHandedOver: boolean) => Error;
  }) {
    this.#clock = options.clock;
    this.#timeoutMs = options.timeoutMs;
    this.#timedOut = options.timedOut;
  }

  get size(): number {
    return this.#size;
  }

  has(suffix: number): boolean {
    return this.#at(suffix) !== undefined;
  }

  #at(suffix: number): Waiter<R, unknown> | undefined {
    const waiter = this.#slots[suffix & (this.#slots.length - 1)];
    return waiter?.suffix === suffix ? waiter : undefined;
  }

  /** `suffix` is above all that were registered before. `finish` makes the caller's value of what apply gave. */
  register<T>(
    suffix: number,
    proposed: { readonly data: Uint8Array; readonly request: InternalRaftRequest } | undefined,
    finish: (result: R) => T,
  ): Later<T> {
    const waiter = new Waiter<R, T>(suffix, this.#clock.monotonicMs(), proposed, finish);
    if (this.#size === 0) {
      this.#first = suffix;
      this.#span = 0;
    }
    const offset = suffix >= this.#first ? suffix - this.#first : suffix - this.#first + SUFFIX_END;
    assert(offset >= this.#span, "request numbers ascend");
    while (offset >= this.#slots.length) this.#grow();
    this.#slots[suffix & (this.#slots.length - 1)] = waiter as Waiter<R, unknown>;
    this.#span = offset + 1;
    this.#size++;
    if (!this.#timer) this.#arm(this.#timeoutMs);
    return waiter;
  }

  #grow(): void {
    const old = this.#slots;
    const slots: (Waiter<R, unknown> | undefined)[] = new Array(old.length * 2).fill(undefined);
    for (const waiter of old) if (waiter) slots[waiter.suffix & (slots.length - 1)] = waiter;
    this.#slots = slots;
  }

  /** Raft gets it now. False when nobody waits for it any more. */
  handOver(suffix: number): boolean {
    const waiter = this.#at(suffix);
    if (!waiter) return false;
    waiter.isHandedOver = true;
    if (waiter.data) this.#handedOver.push(waiter);
    return true;
  }

  /** The proposal behind an entry's bytes, if it is the oldest that raft has. */
  takeOwn(
    data: Uint8Array,
  ): { readonly suffix: number; readonly request: InternalRaftRequest | undefined } | undefined {
    const queue = this.#handedOver;
    while (this.#nextOwn < queue.length) {
      const waiter = queue[this.#nextOwn] as Waiter<R, unknown>;
      if (waiter.data !== data) {
        if (!waiter.isSettled) return undefined;
        this.#nextOwn++;
        continue;
      }
      if (++this.#nextOwn >= queue.length || this.#nextOwn >= HANDED_OVER_DONE_MAX) {
        queue.splice(0, this.#nextOwn);
        this.#nextOwn = 0;
      }
      return waiter;
    }
    queue.length = 0;
    this.#nextOwn = 0;
    return undefined;
  }

  /** Who waits for it, and since when on the monotonic clock. */
  waiting(suffix: number): { readonly startMs: number; readonly request: InternalRaftRequest | undefined } | undefined {
    return this.#at(suffix);
  }

  /** False when nobody waits for it (any more). */
  resolve(suffix: number, result: R): boolean {
    const waiter = this.#take(suffix);
    waiter?.resolve(waiter.finish(result));
    return waiter !== undefined;
  }

  reject(suffix: number, error: Error): void {
    this.#take(suffix)?.reject(error);
  }

  rejectAll(makeError: () => Error): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    for (const waiter of this.#inOrder()) this.reject(waiter.suffix, makeError());
    this.#handedOver = [];
    this.#nextOwn = 0;
  }

  #take(suffix: number): Waiter<R, unknown> | undefined {
    const waiter = this.#at(suffix);
    if (!waiter) return undefined;
    this.#slots[suffix & (this.#slots.length - 1)] = undefined;
    this.#size--;
    // The front moves on over the holes: the ring need only be as long as the time from the oldest to the newest.
    if (suffix === this.#first) {
      const mask = this.#slots.length - 1;
      do {
        this.#first = this.#first + 1 === SUFFIX_END ? 0 : this.#first + 1;
        this.#span--;
      } while (this.#span > 0 && !this.#slots[this.#first & mask]);
    }
    return waiter;
  }

  /** Insertion order is deadline order. */
  #inOrder(): Waiter<R, unknown>[] {
    const waiting: Waiter<R, unknown>[] = [];
    for (let offset = 0; offset < this.#span; offset++) {
      const waiter = this.#slots[(this.#first + offset) & (this.#slots.length - 1)];
      if (waiter) waiting.push(waiter);
    }
    return waiting;
  }

  #arm(delayMs: number): void {
    this.#timer = this.#clock.after(delayMs, () => this.#expire(), { unref: true });
  }

  #expire(): void {
    this.#timer = undefined;
    const now = this.#clock.monotonicMs();
    for (const waiter of this.#inOrder()) {
      const leftMs = waiter.startMs + this.#timeoutMs - now;
      if (leftMs > 0) {
        this.#arm(leftMs);
        return;
      }
      this.#take(waiter.suffix);
      waiter.reject(this.#timedOut(waiter.startMs, waiter.isHandedOver));
    }
  }
}

/** Waits for an index to be reached. Few wait at a time, so a list does. */
export class IndexWaiters {
  #reached = 0;
  #waiting: { readonly index: number; readonly resolve: () => void; readonly reject: (e: Error) => void }[] = [];

  get reached(): number {
    return this.#reached;
  }

  /** Raises the index; never lowers it. */
  reach(index: number): void {
    if (index <= this.#reached) return;
    this.#reached = index;
    if (this.#waiting.length === 0) return;
    const still = [];
    for (const waiter of this.#waiting) {
      if (waiter.index <= index) waiter.resolve();
      else still.push(waiter);
    }
    this.#waiting = still;
  }

  /** Rejects with the signal's reason when it is aborted first. */
  wait(index: number, signal?: AbortSignal): Promise<void> {
    if (index <= this.#reached) return Promise.resolve();
    if (!signal) return new Promise((resolve, reject) => this.#waiting.push({ index, resolve, reject }));
    if (signal.aborted) return Promise.reject(signal.reason);
    return new Promise((resolve, reject) => {
      const onAbort = () => {
        this.#waiting = this.#waiting.filter((other) => other !== waiter);
        reject(signal.reason);
      };
      const settled = () => signal.removeEventListener("abort", onAbort);
      const waiter = {
        index,
        resolve: () => {
          settled();
          resolve();
        },
        reject: (error: Error) => {
          settled();
          reject(error);
        },
      };
      this.#waiting.push(waiter);
      signal.addEventListener("abort", onAbort, { once: true });
    });
  }

  rejectAll(makeError: () => Error): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const waiter of waiting) waiter.reject(makeError());
  }
}
