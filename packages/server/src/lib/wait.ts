/** Small helpers around promises. Every wait here ends: by its value, its error or its signal. */
import { assert } from "./assert.ts";

export interface Deferred<T = void> {
  readonly promise: Promise<T>;
  resolve(value: T): void;
  reject(reason: unknown): void;
}

/** A promise with its handles outside, as `Promise.withResolvers` of newer Nodes. */
export function deferred<T = void>(): Deferred<T> {
  let resolve!: (value: T) => void;
  let reject!: (reason: unknown) => void;
  const promise = new Promise<T>((res, rej) => {
    resolve = res;
    reject = rej;
  });
  return { promise, resolve, reject };
}

/** Who is told of a {@link Later}'s outcome, once. Must not throw. */
export interface LaterListener<T> {
  resolved(value: T): void;
  rejected(error: unknown): void;
}

/** The side of a {@link Later} that is given away. */
export interface Outcome<T> extends PromiseLike<T> {
  listen(listener: LaterListener<T>): void;
  observe(fn: (value: T | undefined) => void): void;
}

/**
 * A result that comes later, told to one listener in the very turn in which it is there: what a request that is made a
 * hundred thousand times a second waits on. A promise costs a closure for each handle and a job in the microtask queue
 * for each link of a chain. Where that does not matter, it can be awaited like one.
 *
 * Invariant: settled at most once, one listener is ever told, by `listen` or `then`, and one observer.
 */
export class Later<T> implements Outcome<T> {
  #state: "waiting" | "resolved" | "rejected" = "waiting";
  #outcome: unknown;
  #listener: LaterListener<T> | undefined;
  #observer: ((value: T | undefined) => void) | undefined;

  get isSettled(): boolean {
    return this.#state !== "waiting";
  }

  resolve(value: T): void {
    if (this.#state !== "waiting") return;
    this.#state = "resolved";
    this.#observer?.(value);
    if (this.#listener) this.#listener.resolved(value);
    else this.#outcome = value;
  }

  reject(error: unknown): void {
    if (this.#state !== "waiting") return;
    this.#state = "rejected";
    this.#observer?.(undefined);
    if (this.#listener) this.#listener.rejected(error);
    else this.#outcome = error;
  }

  /** At once when the outcome is there already. */
  listen(listener: LaterListener<T>): void {
    assert(!this.#listener, "a Later has one listener");
    this.#listener = listener;
    if (this.#state === "resolved") listener.resolved(this.#outcome as T);
    else if (this.#state === "rejected") listener.rejected(this.#outcome);
  }

  /** Calls `fn` just before the listener: with the value, or with nothing after a failure. Once. */
  observe(fn: (value: T | undefined) => void): void {
    assert(!this.#observer, "a Later has one observer");
    if (this.#state === "waiting") this.#observer = fn;
    else fn(this.#state === "resolved" ? (this.#outcome as T) : undefined);
  }

  // biome-ignore lint/suspicious/noThenProperty: it is meant to be awaited.
  then<R = T, E = never>(
    onResolved?: ((value: T) => R | PromiseLike<R>) | null,
    onRejected?: ((error: unknown) => E | PromiseLike<E>) | null,
  ): Promise<R | E> {
    const promise = new Promise<T>((resolved, rejected) => this.listen({ resolved, rejected }));
    return promise.then(onResolved, onRejected);
  }
}

/** Rejects with the signal's reason when it is aborted before `promise` settles. The listener is always removed. */
export function orAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return promise;
  if (signal.aborted) {
    promise.catch(() => {}); // nobody waits for it any more
    return Promise.reject(signal.reason);
  }
  return new Promise<T>((resolve, reject) => {
    const onAbort = () => reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}

/** So many may be inside at a time; the others wait in the order of their coming. */
export class Slots {
  #free: number;
  readonly #waiting: Deferred[] = [];

  constructor(count: number) {
    this.#free = count;
  }

  /** Rejects with the signal's reason when it is aborted first; then nothing has been taken. */
  async enter(signal: AbortSignal | undefined): Promise<void> {
    if (this.#free > 0) {
      this.#free--;
      return;
    }
    const turn = deferred();
    this.#waiting.push(turn);
    try {
      await orAborted(turn.promise, signal);
    } catch (error) {
      const at = this.#waiting.indexOf(turn);
      if (at >= 0) this.#waiting.splice(at, 1);
      else this.leave(); // its turn came in the same moment
      throw error;
    }
  }

  leave(): void {
    const next = this.#waiting.shift();
    if (next) next.resolve();
    else this.#free++;
  }
}

/** Lets I/O and timers run; for long synchronous work that is cut into pieces. */
export function yieldToEventLoop(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
