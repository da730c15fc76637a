/**
 * Keys: get, put, delete, compact, and transactions.
 *
 * ```ts
 * await client.kv.put("greeting", "hello");
 * const { kvs } = await client.kv.get("greeting");
 * const { succeeded } = await client.kv
 *   .txn()
 *   .if(compare("greeting", "value", "=", "hello"))
 *   .then(putOp("greeting", "hi"))
 *   .commit();
 * ```
 */
import { type BytesLike, type KeyRange, keyAndEnd, toBytes } from "./bytes.ts";
import type { Client } from "./client.ts";
import type { CallOptions } from "./options.ts";
import { rangePages } from "./range-pages.ts";
import {
  type CompactionResponse,
  type Compare,
  CompareResult,
  CompareTarget,
  type DeleteRangeRequest,
  type DeleteRangeResponse,
  type Init,
  KV,
  type PutRequest,
  type PutResponse,
  type RangeRequest,
  type RangeResponse,
  type RequestOp,
  type TxnRequest,
  type TxnResponse,
} from "./wire/index.ts";

/** How to read. */
export interface GetOptions extends CallOptions, KeyRange {
  /** At most this many keys; 0 or absent: all. `more` then tells of others. */
  readonly limit?: number | undefined;
  /** Read the store as it was at this revision. */
  readonly revision?: number | undefined;
  readonly sortOrder?: number | undefined;
  readonly sortTarget?: number | undefined;
  /** Answer from the asked member alone, without asking the leader: cheaper, and possibly stale. */
  readonly serializable?: boolean | undefined;
  readonly keysOnly?: boolean | undefined;
  readonly countOnly?: boolean | undefined;
  readonly minModRevision?: number | undefined;
  readonly maxModRevision?: number | undefined;
  readonly minCreateRevision?: number | undefined;
  readonly maxCreateRevision?: number | undefined;
}

/** How to write. */
export interface PutOptions extends CallOptions {
  /** The key goes when this lease does. */
  readonly lease?: bigint | undefined;
  /** Answer with the pair as it was before. */
  readonly prevKv?: boolean | undefined;
  /** Keep the value and change only the lease; the key must exist. */
  readonly ignoreValue?: boolean | undefined;
  /** Keep the lease and change only the value; the key must exist. */
  readonly ignoreLease?: boolean | undefined;
}

/** What to delete. */
export interface DeleteOptions extends CallOptions, KeyRange {
  /** Answer with the deleted pairs. */
  readonly prevKv?: boolean | undefined;
}

function rangeRequest(key: BytesLike, options: GetOptions): Init<RangeRequest> {
  return {
    ...keyAndEnd(key, options),
    limit: options.limit ?? 0,
    revision: options.revision ?? 0,
    sortOrder: options.sortOrder ?? 0,
    sortTarget: options.sortTarget ?? 0,
    serializable: options.serializable ?? false,
    keysOnly: options.keysOnly ?? false,
    countOnly: options.countOnly ?? false,
    minModRevision: options.minModRevision ?? 0,
    maxModRevision: options.maxModRevision ?? 0,
    minCreateRevision: options.minCreateRevision ?? 0,
    maxCreateRevision: options.maxCreateRevision ?? 0,
  };
}

function putRequest(key: BytesLike, value: BytesLike, options: PutOptions): Init<PutRequest> {
  return {
    key: toBytes(key),
    value: toBytes(value),
    lease: options.lease ?? 0n,
    prevKv: options.prevKv ?? false,
    ignoreValue: options.ignoreValue ?? false,
    ignoreLease: options.ignoreLease ?? false,
  };
}

function deleteRequest(key: BytesLike, options: DeleteOptions): Init<DeleteRangeRequest> {
  return { ...keyAndEnd(key, options), prevKv: options.prevKv ?? false };
}

/** A read inside a transaction. */
export function getOp(key: BytesLike, options: GetOptions = {}): Init<RequestOp> {
  return { request: { kind: "requestRange", value: rangeRequest(key, options) } };
}

/** A write inside a transaction. */
export function putOp(key: BytesLike, value: BytesLike, options: PutOptions = {}): Init<RequestOp> {
  return { request: { kind: "requestPut", value: putRequest(key, value, options) } };
}

/** A deletion inside a transaction. */
export function deleteOp(key: BytesLike, options: DeleteOptions = {}): Init<RequestOp> {
  return { request: { kind: "requestDeleteRange", value: deleteRequest(key, options) } };
}

/** A transaction inside a transaction. */
export function txnOp(request: Init<TxnRequest>): Init<RequestOp> {
  return { request: { kind: "requestTxn", value: request } };
}

/** How the stored attribute relates to the operand. */
export type CompareOperator = "=" | "!=" | "<" | ">";

const RESULTS: Record<CompareOperator, number> = {
  "=": CompareResult.Equal,
  "!=": CompareResult.NotEqual,
  "<": CompareResult.Less,
  ">": CompareResult.Greater,
};

/**
 * A condition of a transaction. Of a missing key, version, create and mod are 0 and the value equals nothing. With a
 * range (third field of `range`) every key in it must meet the condition.
 */
export function compare(
  key: BytesLike,
  target: "value",
  operator: CompareOperator,
  operand: BytesLike,
  range?: KeyRange,
): Init<Compare>;
export function compare(
  key: BytesLike,
  target: "version" | "create" | "mod",
  operator: CompareOperator,
  operand: number,
  range?: KeyRange,
): Init<Compare>;
export function compare(
  key: BytesLike,
  target: "lease",
  operator: CompareOperator,
  operand: bigint,
  range?: KeyRange,
): Init<Compare>;
export function compare(
  key: BytesLike,
  target: "value" | "version" | "create" | "mod" | "lease",
  operator: CompareOperator,
  operand: BytesLike | number | bigint,
  range: KeyRange = {},
): Init<Compare> {
  const base = { ...keyAndEnd(key, range), result: RESULTS[operator] };
  switch (target) {
    case "value":
      return {
        ...base,
        target: CompareTarget.Value,
        targetUnion: { kind: "value", value: toBytes(operand as BytesLike) },
      };
    case "version":
      return { ...base, target: CompareTarget.Version, targetUnion: { kind: "version", value: operand as number } };
    case "create":
      return {
        ...base,
        target: CompareTarget.Create,
        targetUnion: { kind: "createRevision", value: operand as number },
      };
    case "mod":
      return { ...base, target: CompareTarget.Mod, targetUnion: { kind: "modRevision", value: operand as number } };
    case "lease":
      return { ...base, target: CompareTarget.Lease, targetUnion: { kind: "lease", value: operand as bigint } };
  }
}

/** A transaction being put together; nothing is sent before {@link commit}. */
export class TxnBuilder {
  readonly #client: Client;
  readonly #compare: Init<Compare>[] = [];
  readonly #success: Init<RequestOp>[] = [];
  readonly #failure: Init<RequestOp>[] = [];

  constructor(client: Client) {
    this.#client = client;
  }

  /** All of these must hold for {@link then}'s operations to be carried out; without any they always are. */
  if(...conditions: Init<Compare>[]): this {
    this.#compare.push(...conditions);
    return this;
  }

  /** These are carried out, in order, when all conditions hold. */
  // biome-ignore lint/suspicious/noThenProperty: etcd's own word for it; not a promise, as commit() is needed anyway.
  then(...operations: Init<RequestOp>[]): this {
    this.#success.push(...operations);
    return this;
  }

  /** These are carried out when a condition of {@link if} does not hold. */
  else(...operations: Init<RequestOp>[]): this {
    this.#failure.push(...operations);
    return this;
  }

  /** Sends it. One revision for all its writes; `succeeded` tells which branch was taken. */
  commit(options: CallOptions = {}): Promise<TxnResponse> {
    const request = { compare: this.#compare, success: this.#success, failure: this.#failure };
    return this.#client.call(KV.methods.txn, request, options);
  }
}

/** Reads and writes of keys. */
export class KvClient {
  readonly #client: Client;

  constructor(client: Client) {
    this.#client = client;
  }

  /** Reads one key or a range; `count` is the number of keys in the range, whatever the limit. */
  get(key: BytesLike, options: GetOptions = {}): Promise<RangeResponse> {
    return this.#client.call(KV.methods.range, rangeRequest(key, options), options);
  }

  /**
   * Reads a range page by page, in the order of its keys, all of it as it was at the revision of the first page; see
   * {@link rangePages}. For what is too large to be held.
   *
   * ```ts
   * for await (const { kvs } of client.kv.getStream("logs/", { prefix: true })) for (const kv of kvs) use(kv);
   * ```
   */
  getStream(key: BytesLike, options: GetOptions = {}): AsyncGenerator<RangeResponse, void> {
    return rangePages(this.#client, rangeRequest(key, options), options);
  }

  /** Writes one key. When it resolves, the write is durable on a majority. */
  put(key: BytesLike, value: BytesLike, options: PutOptions = {}): Promise<PutResponse> {
    return this.#client.call(KV.methods.put, putRequest(key, value, options), options);
  }

  /** Deletes one key or a range; `deleted` counts them. */
  delete(key: BytesLike, options: DeleteOptions = {}): Promise<DeleteRangeResponse> {
    return this.#client.call(KV.methods.deleteRange, deleteRequest(key, options), options);
  }

  /** Begins a transaction. */
  txn(): TxnBuilder {
    return new TxnBuilder(this.#client);
  }

  /** Drops the history before `revision`. With `physical` it resolves when the space is free for reuse. */
  compact(revision: number, options: CallOptions & { physical?: boolean } = {}): Promise<CompactionResponse> {
    return this.#client.call(KV.methods.compact, { revision, physical: options.physical ?? false }, options);
  }
}
