/**
 * A lock that all clients of a cluster can share.
 *
 * ```ts
 * const session = await Session.open(client, { ttlSeconds: 10 });
 * const mutex = new Mutex(session, "jobs/nightly");
 * await mutex.lock({ signal });
 * // ... while session.lost is pending; guard writes with mutex.isOwner():
 * await client.kv.txn().if(mutex.isOwner()).then(putOp("report", "done")).commit();
 * await mutex.unlock();
 * await session.close();
 * ```
 */

import type { CallOptions } from "../index.ts";
import { type BytesLike, toBytes } from "../index.ts";
import { type Compare, EtcdError, type Init, KV, type ResponseHeader, type TxnResponse } from "../wire/index.ts";
import {
  CLEAN_UP_TIMEOUT_MS,
  contenderKey,
  createRevisionIs,
  firstUnder,
  foundBy,
  type Holder,
  prefixOf,
  putOp,
  rangeOp,
  type WaitOptions,
  waitDeletes,
} from "./holder.ts";

const NOTHING = new Uint8Array(0);

/** A lock under a name, held by a lease. */
export class Mutex {
  readonly #holder: Holder;
  readonly #prefix: Uint8Array;
  #key: Uint8Array | undefined;
  #createRevision = 0;
  #header: ResponseHeader | undefined;

  /** `holder` is a session; its lease stands for the owner. */
  constructor(holder: Holder, name: BytesLike) {
    this.#holder = holder;
    this.#prefix = prefixOf(toBytes(name));
  }

  /** The key that stands for this contender; undefined while it neither holds the lock nor waits for it. */
  get key(): Uint8Array | undefined {
    return this.#key;
  }

  /** Create revision of {@link key}: a fencing token, larger for each later owner. */
  get createRevision(): number {
    return this.#createRevision;
  }

  /** Header of the answer with which the lock was won. */
  get header(): ResponseHeader | undefined {
    return this.#header;
  }

  /** The condition that this contender still has its key; for transactions that only the owner may carry out. */
  isOwner(): Init<Compare> {
    return createRevisionIs(this.#key ?? Uint8Array.of(0), this.#key ? this.#createRevision : -1);
  }

  /**
   * Waits until the lock is held. Throws SessionExpired when the lease ended meanwhile, and the signal's reason when
   * aborted; then the key is deleted again. Locking twice with one lease is one lock.
   */
  async lock(options: WaitOptions = {}): Promise<void> {
    const response = await this.#enter(options);
    if (this.#isFirst(response)) {
      this.#header = response.header;
      return;
    }
    const { client } = this.#holder;
    const key = this.#key as Uint8Array;
    try {
      await waitDeletes(client, this.#prefix, this.#createRevision - 1, options);
      const { header, kvs } = await client.call(KV.methods.range, { key }, options);
      if (kvs.length === 0) {
        this.#forget();
        throw new EtcdError("SessionExpired");
      }
      this.#header = header;
    } catch (error) {
      // The key may be there still; if it cannot be deleted now, it goes with the lease.
      if (this.#key) await this.unlock({ timeoutMs: CLEAN_UP_TIMEOUT_MS }).catch(() => {});
      throw error;
    }
  }

  /** Takes the lock if nobody has it; throws Locked otherwise, without waiting. */
  async tryLock(options: CallOptions = {}): Promise<void> {
    const response = await this.#enter(options);
    if (this.#isFirst(response)) {
      this.#header = response.header;
      return;
    }
    await this.unlock(options);
    throw new EtcdError("Locked");
  }

  /** Deletes the key. Without one there is nothing to do. */
  async unlock(options: CallOptions = {}): Promise<void> {
    const key = this.#key;
    if (key === undefined) return;
    await this.#holder.client.call(KV.methods.deleteRange, { key }, options);
    this.#forget();
  }

  #forget(): void {
    this.#key = undefined;
    this.#createRevision = 0;
  }

  /** Puts the key unless it is there already, and looks who is first. */
  async #enter(options: CallOptions): Promise<TxnResponse> {
    const { client, leaseId } = this.#holder;
    const key = contenderKey(this.#prefix, leaseId);
    const first = rangeOp(firstUnder(this.#prefix));
    const response = await client.call(
      KV.methods.txn,
      {
        compare: [createRevisionIs(key, 0)],
        success: [putOp(key, NOTHING, leaseId), first],
        failure: [rangeOp({ key }), first],
      },
      options,
    );
    this.#key = key;
    this.#createRevision = response.succeeded
      ? (response.header?.revision ?? 0)
      : (foundBy(response, 0)[0]?.createRevision ?? 0);
    return response;
  }

  #isFirst(response: TxnResponse): boolean {
    const owner = foundBy(response, 1)[0];
    return owner === undefined || owner.createRevision === this.#createRevision;
  }
}
