/**
 * Leases: keys that go when nobody keeps their lease alive.
 *
 * ```ts
 * const { id } = await client.lease.grant(10);
 * await client.kv.put("alive", "yes", { lease: id });
 * for await (const { ttl } of client.lease.keepAlive(id)) console.log(`good for another ${ttl} s`);
 * ```
 *
 * All leases that a client keeps alive share one stream: each is renewed when a third of its TTL has passed. A broken
 * stream is opened again, and a lease whose time ran out meanwhile is given up.
 */
import type { Client, Duplex } from "./client.ts";
import { isBrokenConnection } from "./errors.ts";
import type { CallOptions } from "./options.ts";
import { sleep } from "./retry.ts";
import {
  EtcdError,
  type Init,
  Lease,
  type LeaseGrantResponse,
  type LeaseKeepAliveRequest,
  type LeaseKeepAliveResponse,
  type LeaseLeasesResponse,
  type LeaseRevokeResponse,
  type LeaseTimeToLiveResponse,
} from "./wire/index.ts";

/** How often it is looked which leases are due; etcd's client does the same. */
const KEEP_ALIVE_TICK_MS = 500;
/** What a lease is assumed to be good for before the first answer says. */
const FIRST_TTL_MS = 5_000;
/** Answers that a consumer has not taken; older ones give way, as only the newest counts. */
const ANSWERS_KEPT = 16;

/** One consumer of {@link LeaseClient.keepAlive}. */
class Keeper {
  readonly id: bigint;
  readonly answers: LeaseKeepAliveResponse[] = [];
  nextSendMs = 0;
  deadlineMs: number;
  end: { error?: unknown } | undefined;
  #wake: (() => void) | undefined;

  constructor(id: bigint, nowMs: number) {
    this.id = id;
    this.deadlineMs = nowMs + FIRST_TTL_MS;
  }

  take(response: LeaseKeepAliveResponse, nowMs: number): void {
    if (response.ttl <= 0) {
      this.finish({});
      return;
    }
    this.nextSendMs = nowMs + (response.ttl * 1000) / 3;
    this.deadlineMs = nowMs + response.ttl * 1000;
    this.answers.push(response);
    if (this.answers.length > ANSWERS_KEPT) this.answers.shift();
    this.#wake?.();
  }

  finish(end: { error?: unknown }): void {
    this.end ??= end;
    this.#wake?.();
  }

  wait(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }
}

/** Leases, and keeping them alive. */
export class LeaseClient {
  readonly #client: Client;
  readonly #keepers = new Set<Keeper>();
  /** Ends the run of the shared stream; undefined while none runs. */
  #stop: AbortController | undefined;

  constructor(client: Client) {
    this.#client = client;
  }

  /** A new lease of at least `ttlSeconds`; the answer holds what the server made of it. Id 0 or absent: the server picks. */
  grant(ttlSeconds: number, options: CallOptions & { id?: bigint | undefined } = {}): Promise<LeaseGrantResponse> {
    return this.#client.call(Lease.methods.leaseGrant, { ttl: ttlSeconds, id: options.id ?? 0n }, options);
  }

  /** Ends a lease and deletes its keys, in one revision. */
  revoke(id: bigint, options: CallOptions = {}): Promise<LeaseRevokeResponse> {
    return this.#client.call(Lease.methods.leaseRevoke, { id }, options);
  }

  /** What is left of a lease, in seconds; `ttl` is -1 for one that does not exist. */
  timeToLive(id: bigint, options: CallOptions & { keys?: boolean | undefined } = {}): Promise<LeaseTimeToLiveResponse> {
    return this.#client.call(Lease.methods.leaseTimeToLive, { id, keys: options.keys ?? false }, options);
  }

  /** All leases. */
  list(options: CallOptions = {}): Promise<LeaseLeasesResponse> {
    return this.#client.call(Lease.methods.leaseLeases, {}, options);
  }

  /** Renews a lease once; throws LeaseNotFound when it is gone. */
  async keepAliveOnce(id: bigint, options: CallOptions = {}): Promise<LeaseKeepAliveResponse> {
    for (;;) {
      try {
        const stream = await this.#client.duplex<Init<LeaseKeepAliveRequest>, LeaseKeepAliveResponse>(
          Lease.methods.leaseKeepAlive,
          options,
        );
        stream.write({ id });
        for await (const response of stream) {
          if (response.ttl <= 0) throw new EtcdError("LeaseNotFound");
          return response;
        }
        throw new EtcdError("LeaseNotFound");
      } catch (error) {
        if (!isBrokenConnection(error)) throw error;
        await sleep(KEEP_ALIVE_TICK_MS, options.signal);
      }
    }
  }

  /**
   * Keeps a lease alive for as long as the loop runs; yields each answer of the server. Ends when the lease is gone,
   * throws when the signal is aborted or the server refuses.
   */
  async *keepAlive(
    id: bigint,
    options: { signal?: AbortSignal | undefined } = {},
  ): AsyncGenerator<LeaseKeepAliveResponse, void, void> {
    const { signal } = options;
    signal?.throwIfAborted();
    const keeper = new Keeper(id, Date.now());
    this.#keepers.add(keeper);
    this.#start();
    const onAbort = () => keeper.finish({ error: signal?.reason });
    signal?.addEventListener("abort", onAbort, { once: true });
    try {
      for (;;) {
        const answer = keeper.answers.shift();
        if (answer) yield answer;
        else if (keeper.end) {
          if (keeper.end.error !== undefined) throw keeper.end.error;
          return;
        } else await keeper.wait();
      }
    } finally {
      signal?.removeEventListener("abort", onAbort);
      this.#keepers.delete(keeper);
      if (this.#keepers.size === 0) this.stop();
    }
  }

  /** Ends the shared stream; running keepAlive loops end. Called when the client closes. */
  stop(): void {
    this.#stop?.abort();
    this.#stop = undefined;
    for (const keeper of this.#keepers) keeper.finish({});
  }

  /** Runs the shared stream while there are leases to keep. Each run has a signal of its own, so that two never mix. */
  #start(): void {
    if (this.#stop) return;
    const stop = new AbortController();
    this.#stop = stop;
    // A lease also runs out while no endpoint can be reached, when the loop below waits for one.
    const watchdog = setInterval(() => this.#giveUpLate(), KEEP_ALIVE_TICK_MS);
    void this.#run(stop.signal).finally(() => {
      clearInterval(watchdog);
      if (this.#stop !== stop) return;
      this.#stop = undefined;
      // Somebody came while this run was ending.
      if ([...this.#keepers].some((keeper) => !keeper.end)) this.#start();
    });
  }

  async #run(signal: AbortSignal): Promise<void> {
    while (this.#keepers.size > 0 && !signal.aborted) {
      let stream: Duplex<Init<LeaseKeepAliveRequest>, LeaseKeepAliveResponse> | undefined;
      try {
        stream = await this.#client.duplex(Lease.methods.leaseKeepAlive, { signal });
        for (const keeper of this.#keepers) keeper.nextSendMs = 0;
        const sender = this.#send(stream, signal);
        for await (const response of stream) {
          for (const keeper of this.#keepers) if (keeper.id === response.id) keeper.take(response, Date.now());
        }
        stream.cancel();
        await sender;
      } catch (error) {
        stream?.cancel();
        if (signal.aborted) return;
        if (this.#client.isTokenError(error)) await this.#client.login().catch(() => {});
        else if (!isBrokenConnection(error)) {
          for (const keeper of this.#keepers) keeper.finish({ error });
          return;
        }
      }
      try {
        await sleep(KEEP_ALIVE_TICK_MS, signal);
      } catch {
        return;
      }
      this.#giveUpLate();
    }
  }

  async #send(stream: Duplex<Init<LeaseKeepAliveRequest>, LeaseKeepAliveResponse>, outer: AbortSignal): Promise<void> {
    let isOpen = true;
    const cancel = stream.cancel.bind(stream);
    stream.cancel = () => {
      isOpen = false;
      cancel();
    };
    while (isOpen && !outer.aborted) {
      const now = Date.now();
      for (const keeper of this.#keepers) {
        if (keeper.nextSendMs > now) continue;
        // Asked again at the next tick but one if no answer comes.
        keeper.nextSendMs = now + 2 * KEEP_ALIVE_TICK_MS;
        stream.write({ id: keeper.id });
      }
      this.#giveUpLate();
      try {
        await sleep(KEEP_ALIVE_TICK_MS, outer);
      } catch {
        return;
      }
    }
  }

  /** A lease that was not renewed in its time is gone, whatever the reason. */
  #giveUpLate(): void {
    const now = Date.now();
    for (const keeper of this.#keepers) if (keeper.deadlineMs < now) keeper.finish({});
  }
}
