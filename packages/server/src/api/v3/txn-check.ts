/**
 * The form of key-value requests, looked at before anything else happens to them. A transaction may have so many
 * operations at each level of nesting, and must not put a key twice, nor put and delete it in one branch.
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
import { type KeyString, keyString } from "../../lib/bytes.ts";

const sortOrders: ReadonlySet<number> = new Set(Object.values(SortOrder));
const sortTargets: ReadonlySet<number> = new Set(Object.values(SortTarget));

export function checkRange(request: RangeRequest): void {
  if (request.key.length === 0) throw new EtcdError("EmptyKey");
  if (!sortOrders.has(request.sortOrder) || !sortTargets.has(request.sortTarget)) {
    throw new EtcdError("InvalidSortOption");
  }
}

export function checkPut(request: PutRequest): void {
  if (request.key.length === 0) throw new EtcdError("EmptyKey");
  if (request.ignoreValue && request.value.length !== 0) throw new EtcdError("ValueProvided");
  if (request.ignoreLease && request.lease !== 0n) throw new EtcdError("LeaseProvided");
}

export function checkDeleteRange(request: DeleteRangeRequest): void {
  if (request.key.length === 0) throw new EtcdError("EmptyKey");
}

export function checkTxn(request: TxnRequest, maxTxnOps: number): void {
  checkSizes(request, maxTxnOps);
  checkOverlap(request.success);
  checkOverlap(request.failure);
}

function checkSizes(request: TxnRequest, budget: number): void {
  const used = Math.max(request.compare.length, request.success.length, request.failure.length);
  if (used > budget) throw new EtcdError("TooManyOps");
  for (const compare of request.compare) if (compare.key.length === 0) throw new EtcdError("EmptyKey");
  for (const op of request.success) checkOp(op, budget - used);
  for (const op of request.failure) checkOp(op, budget - used);
}

function checkOp(op: RequestOp, budget: number): void {
  switch (op.request?.kind) {
    case "requestRange":
      checkRange(op.request.value);
      break;
    case "requestPut":
      checkPut(op.request.value);
      break;
    case "requestDeleteRange":
      checkDeleteRange(op.request.value);
      break;
    case "requestTxn":
      checkSizes(op.request.value, budget);
      break;
    default:
      throw new EtcdError("KeyNotFound");
  }
}

interface Interval {
  readonly start: KeyString;
  /** Exclusive; undefined is the end of the key space. */
  readonly end: KeyString | undefined;
}

/** Deleted intervals. Filled first, asked later; asking sorts and joins what was added since. */
class IntervalSet {
  #intervals: Interval[] = [];
  #isJoined = true;

  add(interval: Interval): void {
    this.#intervals.push(interval);
    this.#isJoined = false;
  }

  addAll(other: IntervalSet): void {
    for (const interval of other.#intervals) this.add(interval);
  }

  has(key: KeyString): boolean {
    if (!this.#isJoined) this.#join();
    let low = 0;
    let high = this.#intervals.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#intervals[middle] as Interval).start <= key) low = middle + 1;
      else high = middle;
    }
    const candidate = this.#intervals[low - 1];
    return candidate !== undefined && (candidate.end === undefined || key < candidate.end);
  }

  #join(): void {
    const joined: { start: KeyString; end: KeyString | undefined }[] = [];
    this.#intervals.sort((a, b) => (a.start < b.start ? -1 : a.start > b.start ? 1 : 0));
    for (const { start, end } of this.#intervals) {
      const last = joined.at(-1);
      if (last && (last.end === undefined || start <= last.end)) {
        if (last.end !== undefined && (end === undefined || end > last.end)) last.end = end;
      } else {
        joined.push({ start, end });
      }
    }
    this.#intervals = joined;
    this.#isJoined = true;
  }
}

interface Touched {
  readonly puts: Set<KeyString>;
  readonly deletes: IntervalSet;
}

const EVERYTHING_AFTER = "\0";

function deletedInterval(request: DeleteRangeRequest): Interval | undefined {
  const start = keyString(request.key);
  if (request.rangeEnd.length === 0) return { start, end: `${start}\0` as KeyString };
  const end = keyString(request.rangeEnd);
  if (end === EVERYTHING_AFTER) return { start, end: undefined };
  return start < end ? { start, end } : undefined;
}

/**
 * Own deletes first; then nested transactions in order, each against own deletes and those of the ones before it;
 * own puts last, against all. So a nested delete before a nested put of its key is refused, and after it is not.
 */
function checkOverlap(ops: readonly RequestOp[]): Touched {
  const deletes = new IntervalSet();
  const puts = new Set<KeyString>();
  for (const { request } of ops) {
    if (request?.kind !== "requestDeleteRange") continue;
    const interval = deletedInterval(request.value);
    if (interval) deletes.add(interval);
  }
  for (const { request } of ops) {
    if (request?.kind !== "requestTxn") continue;
    const then = checkOverlap(request.value.success);
    const otherwise = checkOverlap(request.value.failure);
    for (const key of then.puts) {
      if (puts.has(key) || deletes.has(key)) throw new EtcdError("DuplicateKey");
      puts.add(key);
    }
    for (const key of otherwise.puts) {
      // One of the two branches runs, so they may name the same key.
      if ((puts.has(key) && !then.puts.has(key)) || deletes.has(key)) throw new EtcdError("DuplicateKey");
      puts.add(key);
    }
    deletes.addAll(then.deletes);
    deletes.addAll(otherwise.deletes);
  }
  for (const { request } of ops) {
    if (request?.kind !== "requestPut") continue;
    const key = keyString(request.value.key);
    if (puts.has(key) || deletes.has(key)) throw new EtcdError("DuplicateKey");
    puts.add(key);
  }
  return { puts, deletes };
}
