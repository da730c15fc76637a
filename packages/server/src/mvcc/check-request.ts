/**
 * The form of key-value requests: what is refused before anything is proposed, whatever the store holds. Throws
 * EtcdError; the order of the checks is etcd's, as the first failure is what the client is told.
 */
import {
  type DeleteRangeRequest,
  EtcdError,
  type PutRequest,
  type RangeRequest,
  type RequestOp,
  SortOrder,
  SortTarget,
  type TxnRequest,
} from "@etcd-ts/client/wire";
import { assertNever } from "../lib/assert.ts";
import { compareBytes, type KeyString, keyString } from "../lib/bytes.ts";

export function checkRangeRequest(request: RangeRequest): void {
  if (request.key.length === 0) throw new EtcdError("EmptyKey");
  // 3.5.16 does not look, and dies of an unknown target; 3.6 refuses.
  const isKnownOrder = request.sortOrder >= SortOrder.None && request.sortOrder <= SortOrder.Descend;
  const isKnownTarget = request.sortTarget >= SortTarget.Key && request.sortTarget <= SortTarget.Value;
  if (!isKnownOrder || !isKnownTarget) throw new EtcdError("InvalidSortOption");
}

export function checkPutRequest(request: PutRequest): void {
  if (request.key.length === 0) throw new EtcdError("EmptyKey");
  if (request.ignoreValue && request.value.length !== 0) throw new EtcdError("ValueProvided");
  if (request.ignoreLease && request.lease !== 0n) throw new EtcdError("LeaseProvided");
}

export function checkDeleteRangeRequest(request: DeleteRangeRequest): void {
  if (request.key.length === 0) throw new EtcdError("EmptyKey");
}

/** Sizes, forms of all operations at all levels, then keys that one path would write twice. */
export function checkTxnRequest(request: TxnRequest, operationsMax: number): void {
  checkTxnForm(request, operationsMax);
  if (!arePutsAscending(request.success)) checkOverlap(request.success);
  if (!arePutsAscending(request.failure)) checkOverlap(request.failure);
}

/** What is mostly so, and shows at a glance that no key is written twice: nothing but ranges, and puts of ever higher keys. */
function arePutsAscending(operations: readonly RequestOp[]): boolean {
  let last: Uint8Array | undefined;
  for (const { request } of operations) {
    if (request?.kind === "requestRange") continue;
    if (request?.kind !== "requestPut") return false;
    const { key } = request.value;
    if (last && compareBytes(last, key) >= 0) return false;
    last = key;
  }
  return true;
}

function checkTxnForm(request: TxnRequest, operationsMax: number): void {
  const operations = Math.max(request.compare.length, request.success.length, request.failure.length);
  if (operations > operationsMax) throw new EtcdError("TooManyOps");
  for (const compare of request.compare) if (compare.key.length === 0) throw new EtcdError("EmptyKey");
  for (const operation of request.success) checkOperation(operation, operationsMax - operations);
  for (const operation of request.failure) checkOperation(operation, operationsMax - operations);
}

function checkOperation(operation: RequestOp, operationsMax: number): void {
  const { request } = operation;
  if (!request) throw new EtcdError("KeyNotFound");
  switch (request.kind) {
    case "requestRange":
      checkRangeRequest(request.value);
      break;
    case "requestPut":
      checkPutRequest(request.value);
      break;
    case "requestDeleteRange":
      checkDeleteRangeRequest(request.value);
      break;
    case "requestTxn":
      checkTxnForm(request.value, operationsMax);
      break;
    default:
      assertNever(request, "operation");
  }
}

interface DeletedRange {
  readonly start: Uint8Array;
  /** Taken literally, as in etcd: a single zero byte is not read as "no end" here, and so overlaps nothing. */
  readonly end: Uint8Array;
}

function isDeletedBy(range: DeletedRange, key: Uint8Array): boolean {
  if (range.end.length === 0) return compareBytes(range.start, key) === 0;
  return compareBytes(range.start, key) <= 0 && compareBytes(key, range.end) < 0;
}

interface Writes {
  readonly puts: Map<KeyString, Uint8Array>;
  readonly deletes: DeletedRange[];
}

/**
 * Refuses two puts of a key, and a put of a key that a delete covers, on one path through a list of operations. The
 * branches of a nested transaction may touch the same key, as only one of them runs. Nested ones are looked at in order,
 * each against the list's own deletes and those of the nested ones before it; the list's own puts come last.
 */
function checkOverlap(operations: readonly RequestOp[]): Writes {
  const deletes: DeletedRange[] = [];
  for (const { request } of operations) {
    if (request?.kind === "requestDeleteRange") {
      deletes.push({ start: request.value.key, end: request.value.rangeEnd });
    }
  }
  const puts = new Map<KeyString, Uint8Array>();
  for (const { request } of operations) {
    if (request?.kind !== "requestTxn") continue;
    const success = checkOverlap(request.value.success);
    const failure = checkOverlap(request.value.failure);
    const nestedPuts = new Map([...success.puts, ...failure.puts]);
    for (const [name, key] of nestedPuts) {
      if (puts.has(name) || deletes.some((range) => isDeletedBy(range, key))) throw new EtcdError("DuplicateKey");
    }
    for (const [name, key] of nestedPuts) puts.set(name, key);
    deletes.push(...success.deletes, ...failure.deletes);
  }
  for (const { request } of operations) {
    if (request?.kind !== "requestPut") continue;
    const { key } = request.value;
    const name = keyString(key);
    if (puts.has(name) || deletes.some((range) => isDeletedBy(range, key))) throw new EtcdError("DuplicateKey");
    puts.set(name, key);
  }
  return { puts, deletes };
}

/** Nothing but ranges in both branches. A nested transaction counts as a write, even an empty one. */
export function isTxnReadOnly(request: TxnRequest): boolean {
  const isRange = ({ request: operation }: RequestOp): boolean => operation?.kind === "requestRange";
  return request.success.every(isRange) && request.failure.every(isRange);
}

/** Every operation is a range that asked to be answered locally; then a read-only transaction needs no quorum. */
export function isTxnSerializable(request: TxnRequest): boolean {
  const isSerializable = ({ request: operation }: RequestOp): boolean =>
    operation?.kind === "requestRange" && operation.value.serializable;
  return request.success.every(isSerializable) && request.failure.every(isSerializable);
}
