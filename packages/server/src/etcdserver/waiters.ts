/**
 * Who waits for what: proposals for the result of their apply, reads for an applied index. Every wait has an end: the
 * result, a deadline that is the same for all (so one timer serves the oldest), or the stop of the server.
 */
import type { Clock, Timer } from "../lib/clock.ts";
import type { InternalRaftRequest } from "../pb/etcdserverpb.ts";

interface Waiter<T> {
  readonly startMs: number;
  readonly resolve: (value: T) => void;
  readonly reject: (error: Error) => void;
  /** The bytes that were proposed; raft hands them out again when they are committed. */
  readonly data: Uint8Array | undefined;
  readonly request: InternalRaftRequest | undefined;
  isHandedOver: boolean;
}

/**
 * Proposals of this member whose results are waited for, by number, each with the same time to live: insertion order is
 * deadline order. An entry that comes back as the very bytes that were proposed need not be decoded again.
 */
export class PendingRequests<T> {
  readonly #clock: Clock;
  readonly #timeoutMs: number;
  readonly #timedOut: (startMs: number, isHandedOver: boolean) => Error;
  readonly #waiting = new Map<number, Waiter<T>>();
  readonly #byData = new Map<Uint8Array, number>();
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
    return this.#waiting.size;
  }

  has(suffix: number): boolean {
    return this.#waiting.has(suffix);
  }

  register(
    suffix: number,
    proposed?: { readonly data: Uint8Array; readonly request: InternalRaftRequest },
  ): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const startMs = this.#clock.monotonicMs();
      const data = proposed?.data;
      this.#waiting.set(suffix, { startMs, resolve, reject, data, request: proposed?.request, isHandedOver: false });
      if (data) this.#byData.set(data, suffix);
      if (!this.#timer) this.#arm(this.#timeoutMs);
    });
  }

  /** Raft gets it now. False when nobody waits for it any more. */
  handOver(suffix: number): boolean {
    const waiter = this.#waiting.get(suffix);
    if (waiter) waiter.isHandedOver = true;
    return waiter !== undefined;
  }

  takeOwn(
    data: Uint8Array,
  ): { readonly suffix: number; readonly request: InternalRaftRequest | undefined } | undefined {
    const suffix = this.#byData.get(data);
    if (suffix === undefined) return undefined;
    this.#byData.delete(data);
    return { suffix, request: this.#waiting.get(suffix)?.request };
  }

  /** False when nobody waits for it (any more). */
  resolve(suffix: number, value: T): boolean {
    const waiter = this.#take(suffix);
    waiter?.resolve(value);
    return waiter !== undefined;
  }

  reject(suffix: number, error: Error): void {
    this.#take(suffix)?.reject(error);
  }

  rejectAll(makeError: () => Error): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    this.#byData.clear();
    for (const waiter of waiting) waiter.reject(makeError());
  }

  #take(suffix: number): Waiter<T> | undefined {
    const waiter = this.#waiting.get(suffix);
    if (!waiter) return undefined;
    this.#waiting.delete(suffix);
    if (waiter.data) this.#byData.delete(waiter.data);
    return waiter;
  }

  #arm(delayMs: number): void {
    this.#timer = this.#clock.after(delayMs, () => this.#expire(), { unref: true });
  }

  #expire(): void {
    this.#timer = undefined;
    const now = this.#clock.monotonicMs();
    for (const [suffix, waiter] of this.#waiting) {
      const leftMs = waiter.startMs + this.#timeoutMs - now;
      if (leftMs > 0) {
        this.#arm(leftMs);
        return;
      }
      this.#take(suffix);
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
