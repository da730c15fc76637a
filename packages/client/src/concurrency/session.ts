/**
 * A session: a lease kept alive for as long as its owner lives. What hangs on it (locks, candidacies) goes when the owner
 * dies or is cut off for longer than the time to live.
 */
import type { CallOptions } from "../index.ts";
import { EtcdError, Lease } from "../wire/index.ts";
import type { Holder, RecipeClient } from "./holder.ts";

/** Seconds; etcd's own default. */
export const DEFAULT_SESSION_TTL_SECONDS = 60;

/** A client that can also keep leases alive; `Client` is one. */
export interface SessionClient extends RecipeClient {
  readonly lease: {
    keepAlive(id: bigint, options?: { readonly signal?: AbortSignal | undefined }): AsyncIterable<unknown>;
  };
}

/** How long a session outlives its owner, and on which lease it stands. */
export interface SessionOptions {
  /** How long the session outlives its owner's silence, in seconds. Default 60. */
  readonly ttlSeconds?: number | undefined;
  /** Stand on this lease instead of a new one. Closing the session revokes it all the same. */
  readonly leaseId?: bigint | undefined;
  /** Ends the wait for the grant, not the session. */
  readonly signal?: AbortSignal | undefined;
}

/** A lease that is kept alive. */
export class Session implements Holder, AsyncDisposable {
  readonly client: SessionClient;
  readonly leaseId: bigint;
  readonly ttlSeconds: number;
  /**
   * Resolves when the lease is no longer kept alive: it expired, was revoked, or {@link orphan} or {@link close} was
   * called. Who holds a lock must then take it as lost.
   */
  readonly lost: Promise<void>;
  readonly #stop = new AbortController();
  #isLost = false;

  private constructor(client: SessionClient, leaseId: bigint, ttlSeconds: number) {
    this.client = client;
    this.leaseId = leaseId;
    this.ttlSeconds = ttlSeconds;
    this.lost = this.#keepAlive();
  }

  /** Grants a lease, or takes the given one, and keeps it alive from now on. */
  static async open(client: SessionClient, options: SessionOptions = {}): Promise<Session> {
    const ttl = options.ttlSeconds ?? DEFAULT_SESSION_TTL_SECONDS;
    let leaseId = options.leaseId ?? 0n;
    if (leaseId === 0n) {
      const granted = await client.call(Lease.methods.leaseGrant, { ttl }, { signal: options.signal });
      leaseId = granted.id;
    }
    return new Session(client, leaseId, ttl);
  }

  /** Whether {@link lost} has resolved. */
  get isLost(): boolean {
    return this.#isLost;
  }

  async #keepAlive(): Promise<void> {
    try {
      for await (const _answer of this.client.lease.keepAlive(this.leaseId, { signal: this.#stop.signal })) {
        if (this.#stop.signal.aborted) break;
      }
    } catch {
      // However it ended, the lease is not kept alive any more.
    }
    this.#isLost = true;
  }

  /** Stops keeping the lease alive, and leaves it to run out. */
  async orphan(): Promise<void> {
    this.#stop.abort();
    await this.lost;
  }

  /** Revokes the lease: all its keys go at once. Waits for that no longer than the lease would have lived. */
  async close(options: Pick<CallOptions, "signal"> = {}): Promise<void> {
    await this.orphan();
    try {
      const timeoutMs = this.ttlSeconds * 1000;
      await this.client.call(Lease.methods.leaseRevoke, { id: this.leaseId }, { ...options, timeoutMs });
    } catch (error) {
      if (!(error instanceof EtcdError && error.kind === "LeaseNotFound")) throw error;
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
