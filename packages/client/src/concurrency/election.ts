/**
 * Elects one leader among all who campaign under a name. Each candidate brings a value, which is what the others see of
 * the leader.
 *
 * ```ts
 * const election = new Election(session, "scheduler");
 * await election.campaign("10.0.0.7:80", { signal }); // returns when elected
 * await election.proclaim("10.0.0.8:80");
 * await election.resign();
 *
 * for await (const { kv } of election.observe({ signal })) console.log("leader:", toText(kv.value));
 * ```
 */

import type { CallOptions } from "../index.ts";
import { type BytesLike, toBytes } from "../index.ts";
import { EtcdError, EventType, type KeyValue, KV, type RangeResponse, type ResponseHeader } from "../wire/index.ts";
import {
  CLEAN_UP_TIMEOUT_MS,
  contenderKey,
  createRevisionIs,
  deleteOp,
  endOf,
  firstUnder,
  foundBy,
  type Holder,
  prefixOf,
  putOp,
  rangeOp,
  throwIfCanceled,
  type WaitOptions,
  waitDeletes,
} from "./holder.ts";

/** Who leads, as of the revision in `header`. */
export interface Leadership {
  readonly header: ResponseHeader | undefined;
  readonly kv: KeyValue;
}

/** A candidacy: what `proclaim` and `resign` act upon. */
export interface Candidacy {
  readonly key: Uint8Array;
  /** Create revision of the key: a fencing token. */
  readonly createRevision: number;
}

/** An election under a name, in which a lease stands. */
export class Election {
  readonly #holder: Holder;
  readonly #prefix: Uint8Array;
  #candidacy: Candidacy | undefined;
  #header: ResponseHeader | undefined;

  /** `resume` continues a candidacy that was won before, for instance by another process with the same lease. */
  constructor(holder: Holder, name: BytesLike, resume?: Candidacy) {
    this.#holder = holder;
    this.#prefix = prefixOf(toBytes(name));
    this.#candidacy = resume;
  }

  /** The key of this candidate; undefined when it neither leads nor campaigns. */
  get key(): Uint8Array | undefined {
    return this.#candidacy?.key;
  }

  /** Create revision of {@link key}; 0 without one. */
  get createRevision(): number {
    return this.#candidacy?.createRevision ?? 0;
  }

  /** Header of the answer with which the last campaign, proclaim or resign was carried out. */
  get header(): ResponseHeader | undefined {
    return this.#header;
  }

  /**
   * Waits until this candidate is elected. Campaigning again with the same lease keeps the place in the queue and
   * changes the value. When the signal is aborted the candidate resigns and the signal's reason is thrown.
   */
  async campaign(value: BytesLike, options: WaitOptions = {}): Promise<void> {
    const { client, leaseId } = this.#holder;
    const key = contenderKey(this.#prefix, leaseId);
    const bytes = toBytes(value);
    const response = await client.call(
      KV.methods.txn,
      {
        compare: [createRevisionIs(key, 0)],
        success: [putOp(key, bytes, leaseId)],
        failure: [rangeOp({ key })],
      },
      options,
    );
    const present = response.succeeded ? undefined : foundBy(response, 0)[0];
    const createRevision = present ? present.createRevision : (response.header?.revision ?? 0);
    this.#candidacy = { key, createRevision };
    try {
      if (present && Buffer.compare(present.value, bytes) !== 0) await this.proclaim(bytes, options);
      await waitDeletes(client, this.#prefix, createRevision - 1, options);
    } catch (error) {
      // The key may be there still; if it cannot be deleted now, it goes with the lease.
      await this.resign({ timeoutMs: CLEAN_UP_TIMEOUT_MS }).catch(() => {});
      this.#candidacy = undefined;
      throw error;
    }
    this.#header = response.header;
  }

  /** Changes the leader's value without an election. Throws ElectionNotLeader when the key has gone. */
  async proclaim(value: BytesLike, options: CallOptions = {}): Promise<void> {
    const candidacy = this.#candidacy;
    if (candidacy === undefined) throw new EtcdError("ElectionNotLeader");
    const response = await this.#holder.client.call(
      KV.methods.txn,
      {
        compare: [createRevisionIs(candidacy.key, candidacy.createRevision)],
        success: [putOp(candidacy.key, toBytes(value), this.#holder.leaseId)],
      },
      options,
    );
    if (!response.succeeded) {
      this.#candidacy = undefined;
      throw new EtcdError("ElectionNotLeader");
    }
    this.#header = response.header;
  }

  /** Gives leadership up, so that the next in the queue is elected. Who does not lead has nothing to do. */
  async resign(options: CallOptions = {}): Promise<void> {
    const candidacy = this.#candidacy;
    if (candidacy === undefined) return;
    const response = await this.#holder.client.call(
      KV.methods.txn,
      {
        compare: [createRevisionIs(candidacy.key, candidacy.createRevision)],
        success: [deleteOp(candidacy.key)],
      },
      options,
    );
    this.#header = response.header;
    this.#candidacy = undefined;
  }

  /** The present leader. Throws ElectionNoLeader when there is none. */
  async leader(options: CallOptions = {}): Promise<Leadership> {
    const { header, kvs } = await this.#first(options);
    const kv = kvs[0];
    if (kv === undefined) throw new EtcdError("ElectionNoLeader");
    return { header, kv };
  }

  #first(options: CallOptions): Promise<RangeResponse> {
    return this.#holder.client.call(KV.methods.range, firstUnder(this.#prefix), options);
  }

  /**
   * The present leader, then each new one and each new value of it. Waits while there is none. A leader that is
   * replaced while nobody looks may be left out; the order never turns back.
   */
  async *observe(options: WaitOptions = {}): AsyncGenerator<Leadership, void, void> {
    for (;;) {
      const { header, kvs } = await this.#first(options);
      const now = kvs[0];
      const leadership = now ? { header, kv: now } : await this.#firstPut(header?.revision ?? 0, options);
      yield leadership;
      const { kv } = leadership;
      const seenRevision = leadership.header?.revision ?? kv.modRevision;
      for await (const next of this.#changes(kv.key, seenRevision + 1, options)) yield next;
    }
  }

  /** Waits for the first key under the prefix. */
  async #firstPut(startRevision: number, options: WaitOptions): Promise<Leadership> {
    const request = { key: this.#prefix, rangeEnd: endOf(this.#prefix), startRevision };
    for await (const { events, header, ...response } of this.#holder.client.watch(request, options)) {
      const kv = events.find((event) => event.type === EventType.Put)?.kv;
      if (kv) return { header: header && { ...header, revision: kv.modRevision }, kv };
      throwIfCanceled({ events, header, ...response });
    }
    options.signal?.throwIfAborted();
    throw new Error("lost watcher waiting for a leader");
  }

  /** New values of the leader's key, until it is deleted. */
  async *#changes(
    key: Uint8Array,
    startRevision: number,
    options: WaitOptions,
  ): AsyncGenerator<Leadership, void, void> {
    for await (const response of this.#holder.client.watch({ key, startRevision }, options)) {
      for (const { type, kv } of response.events) {
        if (type === EventType.Delete) return;
        if (kv) yield { header: response.header && { ...response.header, revision: kv.modRevision }, kv };
      }
      throwIfCanceled(response);
    }
    options.signal?.throwIfAborted();
    throw new Error("lost watcher waiting for the leader's end");
  }
}
