/**
 * What the recipes stand on. A {@link Holder} is a lease and a way to reach the store: a {@link Session} of a client,
 * or the lock and election services of a server, which hold a caller's lease and ask their own member.
 *
 * The layout of keys is that of etcd's clientv3/concurrency, so that all clients stand in one queue: under the prefix
 * `NAME/` each contender owns the key `NAME/LEASE` (the lease in lower-case hex), and who has the smallest create revision is
 * first. Each one watches only the key just before its own, so that a release wakes one contender, not all.
 */
import type { CallOptions, MethodOf } from "../index.ts";
import {
  type Compare,
  CompareResult,
  CompareTarget,
  EtcdError,
  EventType,
  type Init,
  type KeyValue,
  KV,
  type RangeRequest,
  type RangeResponse,
  type RequestOp,
  type ResponseHeader,
  SortOrder,
  SortTarget,
  type TxnResponse,
  type WatchCreateRequest,
  type WatchResponse,
} from "../wire/index.ts";

/** What the recipes need of a client; `Client` is one. */
export interface RecipeClient {
  call<Request, Response>(
    method: MethodOf<Request, Response>,
    request: Request,
    options?: CallOptions,
  ): Promise<Response>;
  /** Must end when its iterator is returned or the signal is aborted. */
  watch(
    request: Init<WatchCreateRequest>,
    options?: { readonly signal?: AbortSignal | undefined },
  ): AsyncIterable<WatchResponse>;
}

/** A lease, and the client through which its owner acts. */
export interface Holder {
  readonly client: RecipeClient;
  readonly leaseId: bigint;
}

/** How long to wait. */
export interface WaitOptions {
  /** Gives up: the contender's key is deleted again, and the signal's reason thrown. */
  readonly signal?: AbortSignal | undefined;
}

/** Cleaning up after a wait that was given up must not hang on a cluster that is gone. */
export const CLEAN_UP_TIMEOUT_MS = 5_000;

/** `NAME/` */
export function prefixOf(name: Uint8Array): Uint8Array {
  return Buffer.concat([name, Buffer.from("/")]);
}

/** `NAME/LEASE` */
export function contenderKey(prefix: Uint8Array, leaseId: bigint): Uint8Array {
  return Buffer.concat([prefix, Buffer.from(leaseId.toString(16))]);
}

/** The end of the keys under a prefix that ends with `/`: the next byte is `0`. */
export function endOf(prefix: Uint8Array): Uint8Array {
  const end = Uint8Array.from(prefix);
  end[end.length - 1] = "0".charCodeAt(0);
  return end;
}

/** The oldest key under the prefix. */
export function firstUnder(prefix: Uint8Array): Init<RangeRequest> {
  return {
    key: prefix,
    rangeEnd: endOf(prefix),
    limit: 1,
    sortOrder: SortOrder.Ascend,
    sortTarget: SortTarget.Create,
  };
}

export function createRevisionIs(key: Uint8Array, revision: number): Init<Compare> {
  return {
    key,
    target: CompareTarget.Create,
    result: CompareResult.Equal,
    targetUnion: { kind: "createRevision", value: revision },
  };
}

export function rangeOp(value: Init<RangeRequest>): Init<RequestOp> {
  return { request: { kind: "requestRange", value } };
}

export function putOp(key: Uint8Array, value: Uint8Array, lease: bigint): Init<RequestOp> {
  return { request: { kind: "requestPut", value: { key, value, lease } } };
}

export function deleteOp(key: Uint8Array): Init<RequestOp> {
  return { request: { kind: "requestDeleteRange", value: { key } } };
}

/** The pairs that the range operation at `index` of a transaction found. */
export function foundBy(response: TxnResponse, index: number): readonly KeyValue[] {
  const choice = response.responses[index]?.response;
  return choice?.kind === "responseRange" ? choice.value.kvs : [];
}

/** What a watch answer says besides its events: an error when the server ended the watch. */
export function throwIfCanceled(response: WatchResponse): void {
  if (!response.canceled) return;
  if (response.compactRevision !== 0) throw new EtcdError("Compacted");
  throw new Error(response.cancelReason === "" ? "the watch was canceled" : response.cancelReason);
}

async function waitDelete(
  client: RecipeClient,
  key: Uint8Array,
  startRevision: number,
  options: WaitOptions,
): Promise<void> {
  for await (const response of client.watch({ key, startRevision }, options)) {
    if (response.events.some((event) => event.type === EventType.Delete)) return;
    throwIfCanceled(response);
  }
  options.signal?.throwIfAborted();
  throw new Error("lost watcher waiting for delete");
}

/**
 * Waits until no key under the prefix was created at or before `createRevisionMax`: always for the newest of them, as
 * the others have gone when that one was first. Resolves with the header of the read that found none.
 */
export async function waitDeletes(
  client: RecipeClient,
  prefix: Uint8Array,
  createRevisionMax: number,
  options: WaitOptions,
): Promise<ResponseHeader | undefined> {
  const request: Init<RangeRequest> = {
    key: prefix,
    rangeEnd: endOf(prefix),
    limit: 1,
    sortOrder: SortOrder.Descend,
    sortTarget: SortTarget.Create,
    maxCreateRevision: createRevisionMax,
  };
  for (;;) {
    const response: RangeResponse = await client.call(KV.methods.range, request, options);
    const newest = response.kvs[0];
    if (newest === undefined) return response.header;
    await waitDelete(client, Uint8Array.from(newest.key), response.header?.revision ?? 0, options);
  }
}
