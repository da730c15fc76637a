/**
 * The lessor. Two sides that must not be mixed up:
 *
 *   applied    which leases exist, their TTL and checkpointed rest. Changed by apply alone, the same on every member:
 *              grant, revoke, checkpoint. Which keys hang on a lease is mvcc's to know.
 *   primary    deadlines. Only the leader has them; they are its own clock's business and never change what is applied.
 *              promote() starts them all, with an election timeout on top because the old leader may have renewed a
 *              lease a moment ago; demote() forgets them.
 *
 * Whoever finds a lease expired proposes its revocation; only the applied revoke removes it.
 */
import { EtcdError } from "@etcd-ts/client/wire";
import { assert } from "../lib/assert.ts";
import type { Clock } from "../lib/clock.ts";
import { type Deferred, deferred } from "../lib/wait.ts";
import { Lease as LeaseRecord } from "../pb/leasepb.ts";
import type { BackendReader, BackendTxn } from "../storage/index.ts";
import { DeadlineQueue } from "./deadline-queue.ts";
import {
  CHECKPOINT_BATCH_MAX,
  CHECKPOINT_INTERVAL_SECONDS,
  EXPIRED_LEASES_PER_SCAN_MAX,
  LEASE_REVOKES_PER_SECOND,
  LEASE_TTL_MAX_SECONDS,
} from "./limits.ts";

/** The keys of leases, which mvcc keeps beside its own rows. */
export interface LeaseKeys {
  /** In byte order; empty for a lease without keys. */
  keysOfLease(id: bigint): Uint8Array[];
  /** All of them go in one revision; none, and there is no revision. */
  deleteKeys(tx: BackendTxn, keys: readonly Uint8Array[]): unknown;
}

export interface LessorOptions {
  readonly clock: Clock;
  /** Floor of every TTL: no lease may end before an election could. */
  readonly minTtlSeconds: number;
  /** An expired lease that is still there is given out again after this long. */
  readonly expiredRetryMs: number;
  /** Whether the leader schedules checkpoints (`--experimental-enable-lease-checkpoint`). */
  readonly checkpoints: boolean;
  /** Whether an applied checkpoint is stored. Asked at each one, as it depends on the cluster's version. */
  persistsCheckpoints(): boolean;
}

export interface LeaseInfo {
  readonly id: bigint;
  readonly grantedTtlSeconds: number;
  /** Until the deadline, may be negative; Infinity where there is none (on followers). */
  readonly remainingMs: number;
}

export interface ExpiredLease {
  readonly id: bigint;
}

export type RenewOutcome =
  | { readonly kind: "renewed"; readonly ttlSeconds: number }
  /** The lease has a checkpointed rest: clear it through raft, then renew again. */
  | { readonly kind: "checkpointed" }
  | { readonly kind: "unknown" }
  | { readonly kind: "notPrimary" }
  /** Too late: its revocation is on the way. `settled` resolves when it is applied, or leadership is gone. */
  | { readonly kind: "expired"; readonly settled: Promise<void> };

interface Lease {
  readonly id: bigint;
  readonly ttlSeconds: number;
  /** From a checkpoint; 0 = none, the whole TTL counts. */
  remainingTtlSeconds: number;
  /** On the monotonic clock. Infinity unless this member is primary. */
  expiresAtMs: number;
  /** When the queue looks at it: not after its deadline, and before it by {@link QUEUE_LAG_PART} of its time at most. */
  queuedAtMs: number;
  gone: Deferred | undefined;
}

/** A lease that is renewed again after so small a part of its time keeps its place in the queue. */
const QUEUE_LAG_PART = 1 / 16;

export class Lessor {
  readonly #options: LessorOptions;
  readonly #clock: Clock;
  readonly #leases = new Map<bigint, Lease>();
  readonly #expiries = new DeadlineQueue();
  readonly #checkpoints = new DeadlineQueue();
  #isPrimary = false;

  /** Reads the granted leases. Nobody is primary until {@link promote}. */
  static open(reader: BackendReader, options: LessorOptions): Lessor {
    const lessor = new Lessor(options);
    lessor.reload(reader);
    return lessor;
  }

  private constructor(options: LessorOptions) {
    this.#options = options;
    this.#clock = options.clock;
  }

  /** Forgets all and reads again: after a start, and when a received snapshot replaced the backend. */
  reload(reader: BackendReader): void {
    for (const lease of this.#leases.values()) lease.gone?.resolve();
    this.#leases.clear();
    this.#expiries.clear();
    this.#checkpoints.clear();
    reader.scan("lease", {}, (_key, value) => {
      const record = LeaseRecord.decode(value);
      this.#leases.set(record.id, {
        id: record.id,
        ttlSeconds: Math.max(record.ttl, this.#options.minTtlSeconds),
        remainingTtlSeconds: record.remainingTtl,
        expiresAtMs: Number.POSITIVE_INFINITY,
        queuedAtMs: Number.POSITIVE_INFINITY,
        gone: undefined,
      });
    });
    if (this.#isPrimary) this.promote(0);
  }

  get size(): number {
    return this.#leases.size;
  }

  get isPrimary(): boolean {
    return this.#isPrimary;
  }

  has(id: bigint): boolean {
    return this.#leases.has(id);
  }

  /**
   * Grants a lease with the id that the proposing member chose. Returns the TTL granted, which is at least the floor.
   * Throws LeaseNotFound for id 0, LeaseTTLTooLarge, LeaseExist.
   */
  grant(tx: BackendTxn, request: { readonly id: bigint; readonly ttlSeconds: number }): number {
    if (request.id === 0n) throw new EtcdError("LeaseNotFound");
    if (request.ttlSeconds > LEASE_TTL_MAX_SECONDS) throw new EtcdError("LeaseTTLTooLarge");
    if (this.#leases.has(request.id)) throw new EtcdError("LeaseExist");
    const lease: Lease = {
      id: request.id,
      ttlSeconds: Math.max(request.ttlSeconds, this.#options.minTtlSeconds),
      remainingTtlSeconds: 0,
      expiresAtMs: Number.POSITIVE_INFINITY,
      queuedAtMs: Number.POSITIVE_INFINITY,
      gone: undefined,
    };
    this.#leases.set(lease.id, lease);
    this.#store(tx, lease);
    if (this.#isPrimary) this.#refresh(lease, 0);
    return lease.ttlSeconds;
  }

  /** Removes the lease and deletes its keys, in byte order, in one revision. Throws LeaseNotFound. */
  revoke(tx: BackendTxn, id: bigint, keys: LeaseKeys): void {
    const lease = this.#leases.get(id);
    if (!lease) throw new EtcdError("LeaseNotFound");
    const attached = keys.keysOfLease(id);
    if (attached.length > 0) keys.deleteKeys(tx, attached);
    this.#leases.delete(id);
    this.#expiries.delete(id);
    this.#checkpoints.delete(id);
    tx.delete("lease", leaseKey(id));
    lease.gone?.resolve();
  }

  /** Sets what is left of the lease, in seconds; 0 clears it. Throws LeaseNotFound. */
  checkpoint(tx: BackendTxn, id: bigint, remainingTtlSeconds: number): void {
    const lease = this.#leases.get(id);
    if (!lease) throw new EtcdError("LeaseNotFound");
    lease.remainingTtlSeconds = remainingTtlSeconds;
    if (this.#options.persistsCheckpoints()) this.#store(tx, lease);
    if (this.#isPrimary) this.#scheduleCheckpoint(lease);
  }

  lookup(id: bigint): LeaseInfo | undefined {
    const lease = this.#leases.get(id);
    return lease && this.#info(lease);
  }

  /** All leases, those that end first in front; those without deadline in the order of their ids. */
  leases(): LeaseInfo[] {
    return [...this.#leases.values()]
      .sort((a, b) => (a.expiresAtMs === b.expiresAtMs ? compareIds(a.id, b.id) : a.expiresAtMs - b.expiresAtMs))
      .map((lease) => this.#info(lease));
  }

  /** Starts the lease's TTL again. Only on the primary, and only before its deadline. */
  renew(id: bigint): RenewOutcome {
    if (!this.#isPrimary) return { kind: "notPrimary" };
    const lease = this.#leases.get(id);
    if (!lease) return { kind: "unknown" };
    if (lease.expiresAtMs <= this.#clock.monotonicMs()) {
      lease.gone ??= deferred();
      return { kind: "expired", settled: lease.gone.promise };
    }
    if (this.#options.checkpoints && lease.remainingTtlSeconds > 0) return { kind: "checkpointed" };
    this.#refresh(lease, 0);
    return { kind: "renewed", ttlSeconds: lease.ttlSeconds };
  }

  /**
   * This member leads now: every lease gets its time (or what a checkpoint left of it) and `extendMs` on top. Many that
   * would end in the same second are spread, so that their revocations do not come all at once.
   */
  promote(extendMs: number): void {
    this.#isPrimary = true;
    this.#expiries.clear();
    this.#checkpoints.clear();
    for (const lease of this.#leases.values()) {
      lease.queuedAtMs = Number.POSITIVE_INFINITY;
      this.#refresh(lease, extendMs);
    }
    if (this.#leases.size >= LEASE_REVOKES_PER_SECOND) this.#spreadExpiries(extendMs);
  }

  /** This member does not lead any more: leases have no deadline here. */
  demote(): void {
    this.#isPrimary = false;
    this.#expiries.clear();
    this.#checkpoints.clear();
    for (const lease of this.#leases.values()) {
      lease.expiresAtMs = Number.POSITIVE_INFINITY;
      lease.queuedAtMs = Number.POSITIVE_INFINITY;
      this.#wakeWaiters(lease);
    }
  }

  /** Lets go of everyone who waits for an expired lease; for shutdown. */
  stop(): void {
    this.demote();
  }

  /**
   * Leases past their deadline, at most as many as one scan may give out. One that is still there after
   * `expiredRetryMs`, because its revocation got lost, is given out again.
   */
  takeExpired(limit: number = EXPIRED_LEASES_PER_SCAN_MAX): ExpiredLease[] {
    const expired: ExpiredLease[] = [];
    if (!this.#isPrimary) return expired;
    const now = this.#clock.monotonicMs();
    while (expired.length < limit) {
      const due = this.#expiries.peek();
      if (!due || due.atMs > now) break;
      const lease = this.#leases.get(due.id);
      assert(lease, () => `lease ${due.id} has a deadline but does not exist`);
      if (lease.expiresAtMs > now) {
        this.#enqueue(lease, lease.expiresAtMs);
        continue;
      }
      this.#enqueue(lease, now + this.#options.expiredRetryMs);
      expired.push({ id: lease.id });
    }
    return expired;
  }

  /** Checkpoints that are due, at most one request's worth: propose them as a LeaseCheckpointRequest. */
  takeCheckpoints(): { readonly id: bigint; readonly remainingTtlSeconds: number }[] {
    const due: { id: bigint; remainingTtlSeconds: number }[] = [];
    if (!this.#isPrimary) return due;
    const now = this.#clock.monotonicMs();
    while (due.length < CHECKPOINT_BATCH_MAX) {
      const next = this.#checkpoints.peek();
      if (!next || next.atMs > now) break;
      this.#checkpoints.delete(next.id);
      const lease = this.#leases.get(next.id);
      if (!lease || lease.expiresAtMs <= now) continue;
      const remainingTtlSeconds = Math.ceil((lease.expiresAtMs - now) / 1000);
      if (remainingTtlSeconds < lease.ttlSeconds) due.push({ id: lease.id, remainingTtlSeconds });
    }
    return due;
  }

  #info(lease: Lease): LeaseInfo {
    return {
      id: lease.id,
      grantedTtlSeconds: lease.ttlSeconds,
      remainingMs: lease.expiresAtMs - this.#clock.monotonicMs(),
    };
  }

  #refresh(lease: Lease, extendMs: number): void {
    const seconds = lease.remainingTtlSeconds > 0 ? lease.remainingTtlSeconds : lease.ttlSeconds;
    lease.expiresAtMs = this.#clock.monotonicMs() + seconds * 1000 + extendMs;
    const lagMs = lease.expiresAtMs - lease.queuedAtMs;
    if (!(lagMs >= 0 && lagMs < seconds * 1000 * QUEUE_LAG_PART)) this.#enqueue(lease, lease.expiresAtMs);
    this.#wakeWaiters(lease);
    this.#scheduleCheckpoint(lease);
  }

  #enqueue(lease: Lease, atMs: number): void {
    lease.queuedAtMs = atMs;
    this.#expiries.set(lease.id, atMs);
  }

  #wakeWaiters(lease: Lease): void {
    lease.gone?.resolve();
    lease.gone = undefined;
  }

  #scheduleCheckpoint(lease: Lease): void {
    if (!this.#options.checkpoints) return;
    const seconds = lease.remainingTtlSeconds > 0 ? lease.remainingTtlSeconds : lease.ttlSeconds;
    if (seconds > CHECKPOINT_INTERVAL_SECONDS) {
      this.#checkpoints.set(lease.id, this.#clock.monotonicMs() + CHECKPOINT_INTERVAL_SECONDS * 1000);
    }
  }

  /** Leaves three quarters of the revoke rate to each second, and pushes the rest of a crowded second back. */
  #spreadExpiries(extendMs: number): void {
    const now = this.#clock.monotonicMs();
    const ordered = [...this.#leases.values()].sort((a, b) => a.expiresAtMs - b.expiresAtMs);
    const perSecond = (3 * LEASE_REVOKES_PER_SECOND) / 4;
    let baseMs = (ordered[0] as Lease).expiresAtMs - now;
    let nextMs = baseMs + 1000;
    let count = 0;
    for (const lease of ordered) {
      const remainingMs = lease.expiresAtMs - now;
      if (remainingMs > nextMs) {
        baseMs = remainingMs;
        nextMs = baseMs + 1000;
        count = 1;
        continue;
      }
      count++;
      if (count <= perSecond) continue;
      // Those that end later in the window have part of the delay already.
      const delayMs = 1000 * (count / perSecond) - (remainingMs - baseMs);
      nextMs = baseMs + delayMs;
      this.#refresh(lease, delayMs + extendMs);
    }
  }

  #store(tx: BackendTxn, lease: Lease): void {
    tx.put(
      "lease",
      leaseKey(lease.id),
      LeaseRecord.encode({ id: lease.id, ttl: lease.ttlSeconds, remainingTtl: lease.remainingTtlSeconds }),
    );
  }
}

/** Rows are in the order of the id's 8 bytes, big endian. */
function leaseKey(id: bigint): Uint8Array {
  const bytes = Buffer.allocUnsafe(8);
  bytes.writeBigUInt64BE(BigInt.asUintN(64, id));
  return bytes;
}

function compareIds(a: bigint, b: bigint): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
