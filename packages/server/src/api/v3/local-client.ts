/**
 * The store as the lock and election services see it: they are clients of this very member. Their keys are
 * `name/<lease in hex>`; whoever has the oldest key under `name/` holds the lock or leads, the others wait until the
 * key right before theirs is gone.
 */
import {
  CompareResult,
  CompareTarget,
  DeleteRangeRequest,
  type Event,
  EventType,
  type KeyValue,
  PutRequest,
  RangeRequest,
  type RangeResponse,
  type ResponseHeader,
  SortOrder,
  SortTarget,
  TxnRequest,
  type TxnResponse,
} from "@etcd-ts/client/wire";
import type { EtcdServer, RequestContext } from "../../etcdserver/index.ts";
import { concatBytes, prefixEnd, utf8Bytes } from "../../lib/bytes.ts";
import { StatusError, statusOf } from "../../rpc/index.ts";
import { watchLocally } from "./watch.ts";

/** TTL of a lease that a caller did not bring. */
const SESSION_TTL_SECONDS = 60;

/** Every error of these two services reaches clients as Unknown. */
export async function asUnknown<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw new StatusError(2, statusOf(error).message, { cause: error });
  }
}

export class LocalClient {
  readonly #server: EtcdServer;
  readonly #caller: RequestContext;

  constructor(server: EtcdServer, caller: RequestContext) {
    this.#server = server;
    this.#caller = caller;
  }

  /** The same identity, but no longer bound to the call: for cleaning up after a call that was given up. */
  detached(): LocalClient {
    const { token, certCommonName, isFromGateway } = this.#caller;
    return new LocalClient(this.#server, { token, certCommonName, isFromGateway });
  }

  /** The lease to hang keys on: the given one, renewed once, or a new one that nobody renews. */
  async session(lease: bigint): Promise<bigint> {
    if (lease === 0n) {
      const granted = await this.#server.leaseGrant({ ttl: SESSION_TTL_SECONDS, id: 0n }, this.#caller);
      return granted.id;
    }
    await this.#server.leaseKeepAlive(lease, this.#caller);
    return lease;
  }

  get(key: Uint8Array): Promise<RangeResponse> {
    return this.#server.range(RangeRequest.create({ key }), this.#caller);
  }

  async delete(key: Uint8Array): Promise<{ readonly header: ResponseHeader | undefined }> {
    return this.#server.deleteRange(DeleteRangeRequest.create({ key }), this.#caller);
  }

  /** The key of a prefix that was created first. */
  oldest(prefix: Uint8Array): Promise<RangeResponse> {
    return this.#server.range(oldestOf(prefix), this.#caller);
  }

  async txn(request: TxnRequest): Promise<TxnResponse> {
    return this.#server.txn(request, this.#caller);
  }

  watch(key: Uint8Array, rangeEnd: Uint8Array | undefined, startRevision: number): AsyncGenerator<LocalEvents> {
    return watchLocally(this.#server, { key, rangeEnd, startRevision }, this.#caller);
  }

  /** Returns when no key of the prefix is older than `maxCreateRevision + 1`. */
  async waitDeletes(prefix: Uint8Array, maxCreateRevision: number): Promise<void> {
    for (;;) {
      const newest = await this.#server.range(
        RangeRequest.create({
          key: prefix,
          rangeEnd: prefixEnd(prefix),
          limit: 1,
          sortTarget: SortTarget.Create,
          sortOrder: SortOrder.Descend,
          maxCreateRevision,
        }),
        this.#caller,
      );
      const [before] = newest.kvs;
      if (!before) return;
      await this.#waitDelete(before.key, newest.header?.revision ?? 0);
    }
  }

  async #waitDelete(key: Uint8Array, revision: number): Promise<void> {
    for await (const { events } of this.watch(key, undefined, revision + 1)) {
      if (events.some((event) => event.type === EventType.Delete)) return;
    }
  }
}

export interface LocalEvents {
  readonly header: ResponseHeader;
  readonly events: readonly Event[];
}

function oldestOf(prefix: Uint8Array): RangeRequest {
  return RangeRequest.create({
    key: prefix,
    rangeEnd: prefixEnd(prefix),
    limit: 1,
    sortTarget: SortTarget.Create,
    sortOrder: SortOrder.Ascend,
  });
}

export function prefixOf(name: Uint8Array): Uint8Array {
  return concatBytes(name, utf8Bytes("/"));
}

/** A lease as Go's %x prints it, signed and without padding. */
export function keyUnder(prefix: Uint8Array, lease: bigint): Uint8Array {
  return concatBytes(prefix, utf8Bytes(lease.toString(16)));
}

/** Puts the key unless it is there; says either way what the second step of the answer needs. */
export function createOrGet(options: {
  readonly key: Uint8Array;
  readonly value: Uint8Array;
  readonly lease: bigint;
  /** Ask for the oldest key of this prefix too. */
  readonly prefix: Uint8Array | undefined;
}): TxnRequest {
  const { key, value, lease, prefix } = options;
  const owner = prefix ? [{ request: { kind: "requestRange" as const, value: oldestOf(prefix) } }] : [];
  return TxnRequest.create({
    compare: [createdAt(key, 0)],
    success: [{ request: { kind: "requestPut", value: PutRequest.create({ key, value, lease }) } }, ...owner],
    failure: [{ request: { kind: "requestRange", value: RangeRequest.create({ key }) } }, ...owner],
  });
}

export function createdAt(key: Uint8Array, revision: number) {
  return {
    key,
    result: CompareResult.Equal,
    target: CompareTarget.Create,
    targetUnion: { kind: "createRevision" as const, value: revision },
  };
}

/** Keys of the range operation at `index` of a transaction's answer. */
export function rangeOf(response: TxnResponse, index: number): readonly KeyValue[] {
  const operation = response.responses[index]?.response;
  return operation?.kind === "responseRange" ? operation.value.kvs : [];
}
