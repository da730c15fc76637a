/**
 * Transactions of compares and operations. All compares of all levels are decided on the state before; then the
 * operations of the branches chosen are checked, and only when none can fail is anything written.
 */
import {
  type Compare,
  CompareResult,
  CompareTarget,
  EtcdError,
  type RequestOp,
  type ResponseOp,
  type TxnRequest,
  type TxnResponse,
} from "@etcd-ts/client/wire";
import { assertNever } from "../lib/assert.ts";
import { compareBytes, EMPTY_BYTES } from "../lib/bytes.ts";
import { type BackendReader, decodeLiveRow, type LiveRow, readKeyValue } from "../storage/index.ts";
import { readLive, walkLive } from "./key-index.ts";
import { keyRange } from "./key-range.ts";
import { loadLive, type RangeView, runRange } from "./range.ts";
import { DecodedKeyValues } from "./range-body.ts";
import { emptyHeader, revisionHeader } from "./response-header.ts";
import type { LeaseAttacher } from "./types.ts";
import type { WriteTxn } from "./write-txn.ts";

/** Which way a transaction goes: its own branch, and the ways of the nested ones in that branch, in order. */
export interface TxnPath {
  readonly succeeded: boolean;
  readonly operations: readonly RequestOp[];
  readonly nested: readonly TxnPath[];
}

const NONE_NESTED: readonly TxnPath[] = [];

/** What compares look at. */
export interface CompareView {
  readonly reader: BackendReader;
  /** The row of `live`. */
  live(key: Uint8Array): LiveRow | undefined;
}

/** Decides all levels on the state as `view` has it. */
export function choosePath(view: CompareView, request: TxnRequest): TxnPath {
  const succeeded = request.compare.every((compare) => holds(view, compare));
  const operations = succeeded ? request.success : request.failure;
  let nested: TxnPath[] | undefined;
  for (const { request: operation } of operations) {
    if (operation?.kind !== "requestTxn") continue;
    nested ??= [];
    nested.push(choosePath(view, operation.value));
  }
  return { succeeded, operations, nested: nested ?? NONE_NESTED };
}

interface Compared {
  readonly version: number;
  readonly createRevision: number;
  readonly modRevision: number;
  readonly lease: bigint;
  readonly value: Uint8Array;
}

const NO_KEY: Compared = { version: 0, createRevision: 0, modRevision: 0, lease: 0n, value: EMPTY_BYTES };

/** Whether a condition holds for every key of its interval. No key at all counts as zeros, but has no value. */
function holds(view: CompareView, compare: Compare): boolean {
  const { reader } = view;
  let isFound = false;
  let result = true;
  const range = keyRange(compare.key, compare.rangeEnd);
  if (range.isSingle) {
    const live = view.live(compare.key);
    if (live) return holdsForRow(reader, compare, live);
  } else {
    walkLive(reader, range, (_userKey, row) => {
      isFound = true;
      result = holdsForRow(reader, compare, decodeLiveRow(row));
      return result;
    });
  }
  if (isFound) return result;
  return compare.target !== CompareTarget.Value && holdsFor(compare, NO_KEY);
}

function holdsForRow(reader: BackendReader, compare: Compare, live: LiveRow): boolean {
  const { main, createRevision, version, lease } = live;
  const value = compare.target === CompareTarget.Value ? readKeyValue(loadLive(reader, live, true)).value : EMPTY_BYTES;
  return holdsFor(compare, { version, createRevision, modRevision: main, lease, value });
}

function holdsFor(compare: Compare, pair: Compared): boolean {
  const order = compareWith(compare, pair);
  switch (compare.result) {
    case CompareResult.Equal:
      return order === 0;
    case CompareResult.NotEqual:
      return order !== 0;
    case CompareResult.Greater:
      return order > 0;
    case CompareResult.Less:
      return order < 0;
    default:
      return true;
  }
}

/** Only the member of the union that the target names counts; another one, or none, stands for zero. */
function compareWith({ target, targetUnion: wanted }: Compare, pair: Compared): number {
  switch (target) {
    case CompareTarget.Value:
      return compareBytes(pair.value, wanted?.kind === "value" ? wanted.value : EMPTY_BYTES);
    case CompareTarget.Create:
      return pair.createRevision - (wanted?.kind === "createRevision" ? wanted.value : 0);
    case CompareTarget.Mod:
      return pair.modRevision - (wanted?.kind === "modRevision" ? wanted.value : 0);
    case CompareTarget.Version:
      return pair.version - (wanted?.kind === "version" ? wanted.value : 0);
    case CompareTarget.Lease: {
      const lease = wanted?.kind === "lease" ? wanted.value : 0n;
      return pair.lease === lease ? 0 : pair.lease > lease ? 1 : -1;
    }
    default:
      return 0;
  }
}

/**
 * Refuses what would fail half-way: keeping the value or lease of a key that does not exist, an unknown lease, a
 * revision that cannot be read. Unlike in a plain range, a negative revision is not "the newest" here. All puts are looked
 * at before any range, as in etcd: the first failure is what the client is told.
 */
export function checkPath(view: RangeView, leases: LeaseAttacher, path: TxnPath): void {
  checkPuts(view, leases, path);
  checkRanges(view, path);
}

function checkPuts(view: RangeView, leases: LeaseAttacher, path: TxnPath): void {
  let nested = 0;
  for (const { request } of path.operations) {
    if (request?.kind === "requestTxn") checkPuts(view, leases, path.nested[nested++] as TxnPath);
    if (request?.kind !== "requestPut") continue;
    const { key, lease, ignoreValue, ignoreLease } = request.value;
    if ((ignoreValue || ignoreLease) && !readLive(view.reader, key)) throw new EtcdError("KeyNotFound");
    if (lease !== 0n && !leases.has(lease)) throw new EtcdError("LeaseNotFound");
  }
}

function checkRanges(view: RangeView, path: TxnPath): void {
  let nested = 0;
  for (const { request } of path.operations) {
    if (request?.kind === "requestTxn") checkRanges(view, path.nested[nested++] as TxnPath);
    if (request?.kind !== "requestRange" || request.value.revision === 0) continue;
    const { revision } = request.value;
    if (revision > view.currentRevision) throw new EtcdError("FutureRevision");
    if (revision < view.compactRevision) throw new EtcdError("Compacted");
  }
}

/** Runs a checked path. The header of the answer is empty: the caller of the outermost one fills it. */
export function runPath(txn: WriteTxn, path: TxnPath): TxnResponse {
  let nested = 0;
  let lastPut: ResponseOp | undefined;
  const responses = path.operations.map(({ request }, index): ResponseOp => {
    if (!request) throw new EtcdError("KeyNotFound");
    txn.following = path.operations.length - 1 - index;
    switch (request.kind) {
      case "requestRange":
        return { response: { kind: "responseRange", value: txn.range(request.value) } };
      case "requestPut": {
        const value = txn.putUnchecked(request.value);
        // Most puts have the same answer.
        if (lastPut?.response?.value !== value) lastPut = { response: { kind: "responsePut", value } };
        return lastPut;
      }
      case "requestDeleteRange":
        return { response: { kind: "responseDeleteRange", value: txn.deleteRange(request.value) } };
      case "requestTxn":
        return { response: { kind: "responseTxn", value: runPath(txn, path.nested[nested++] as TxnPath) } };
      default:
        return assertNever(request, "operation");
    }
  });
  return { header: emptyHeader(), succeeded: path.succeeded, responses };
}

/** Runs a checked path that has ranges only. */
export function runReadOnlyPath(view: RangeView, path: TxnPath): TxnResponse {
  const responses = path.operations.map(({ request }): ResponseOp => {
    if (request?.kind !== "requestRange") throw new EtcdError("KeyNotFound");
    const sink = new DecodedKeyValues();
    const { more, count } = runRange(view, request.value, sink);
    const value = { header: revisionHeader(view.currentRevision), kvs: sink.kvs, more, count };
    return { response: { kind: "responseRange", value } };
  });
  return { header: emptyHeader(), succeeded: path.succeeded, responses };
}
