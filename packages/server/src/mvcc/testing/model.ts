/** A store too plain to be wrong: the list of all changes ever made, and every question answered by going through it. */
import {
  type Compare,
  CompareResult,
  CompareTarget,
  type RangeRequest,
  type RequestOp,
  SortOrder,
  SortTarget,
  type TxnRequest,
} from "@etcd-ts/client/wire";
import { type KeyString, keyString } from "../../lib/bytes.ts";

export interface ModelRow {
  readonly main: number;
  readonly sub: number;
  readonly key: KeyString;
  readonly isDelete: boolean;
  readonly value: string;
  readonly createRevision: number;
  readonly version: number;
  readonly lease: bigint;
}

export interface ModelRange {
  readonly kvs: readonly ModelRow[];
  readonly more: boolean;
  readonly count: number;
}

export function isInModelRange(key: KeyString, start: KeyString, end: KeyString): boolean {
  if (end === "") return key === start;
  return key >= start && (end === "\0" || key < end);
}

export class Model {
  readonly rows: ModelRow[] = [];
  currentRevision = 1;
  compactRevision = -1;
  #open: ModelRow[] | undefined;

  /** Living keys at a revision, in key order. */
  at(revision: number): ModelRow[] {
    const living = new Map<KeyString, ModelRow>();
    for (const row of [...this.rows, ...(this.#open ?? [])]) {
      if (row.main > revision) break;
      if (row.isDelete) living.delete(row.key);
      else living.set(row.key, row);
    }
    return [...living.values()].sort((a, b) => (a.key < b.key ? -1 : 1));
  }

  get #newest(): number {
    return this.currentRevision + (this.#open && this.#open.length > 0 ? 1 : 0);
  }

  #get(key: KeyString): ModelRow | undefined {
    return this.at(this.#newest).find((row) => row.key === key);
  }

  #write<T>(fn: () => T): T {
    if (this.#open) return fn();
    this.#open = [];
    try {
      return fn();
    } finally {
      if (this.#open.length > 0) this.currentRevision++;
      this.rows.push(...this.#open);
      this.#open = undefined;
    }
  }

  #append(row: Omit<ModelRow, "main" | "sub">): void {
    const open = this.#open as ModelRow[];
    open.push({ ...row, main: this.currentRevision + 1, sub: open.length });
  }

  put(key: KeyString, value: string, lease: bigint): void {
    this.#write(() => {
      const before = this.#get(key);
      const createRevision = before?.createRevision ?? this.currentRevision + 1;
      this.#append({ key, isDelete: false, value, createRevision, version: (before?.version ?? 0) + 1, lease });
    });
  }

  deleteRange(start: KeyString, end: KeyString): ModelRow[] {
    return this.#write(() => {
      const doomed = this.at(this.#newest).filter((row) => isInModelRange(row.key, start, end));
      for (const { key } of doomed) {
        this.#append({ key, isDelete: true, value: "", createRevision: 0, version: 0, lease: 0n });
      }
      return doomed;
    });
  }

  range(request: RangeRequest): ModelRange {
    const start = keyString(request.key);
    const end = keyString(request.rangeEnd);
    const revision = request.revision > 0 ? request.revision : this.#newest;
    const all = this.at(revision).filter((row) => isInModelRange(row.key, start, end));
    if (request.countOnly) return { kvs: [], more: false, count: all.length };
    const passed = all.filter(
      (row) =>
        (request.minModRevision === 0 || row.main >= request.minModRevision) &&
        (request.maxModRevision === 0 || row.main <= request.maxModRevision) &&
        (request.minCreateRevision === 0 || row.createRevision >= request.minCreateRevision) &&
        (request.maxCreateRevision === 0 || row.createRevision <= request.maxCreateRevision),
    );
    const isFiltered =
      request.minModRevision !== 0 ||
      request.maxModRevision !== 0 ||
      request.minCreateRevision !== 0 ||
      request.maxCreateRevision !== 0;
    const limit = request.limit > 0 ? request.limit : Number.POSITIVE_INFINITY;
    let kvs = passed;
    if (request.sortOrder === SortOrder.None && !isFiltered) kvs = passed.slice(0, limit + 1);
    const by: Record<number, (row: ModelRow) => number | string> = {
      [SortTarget.Key]: (row) => row.key,
      [SortTarget.Version]: (row) => row.version,
      [SortTarget.Create]: (row) => row.createRevision,
      [SortTarget.Mod]: (row) => row.main,
      [SortTarget.Value]: (row) => row.value,
    };
    const of = by[request.sortTarget] as (row: ModelRow) => number | string;
    const sign = request.sortOrder === SortOrder.Descend ? -1 : 1;
    kvs = [...kvs].sort((a, b) => (of(a) < of(b) ? -sign : of(a) > of(b) ? sign : 0));
    const more = kvs.length > limit;
    if (more) kvs = kvs.slice(0, limit);
    if (request.keysOnly) kvs = kvs.map((row) => ({ ...row, value: "" }));
    return { kvs, more, count: all.length };
  }

  /** What each operation that ran has answered, in the order of running; nested ones flat. */
  txn(request: TxnRequest): { succeeded: boolean; ranges: ModelRange[] } {
    const paths = new Map<TxnRequest, boolean>();
    const decide = (level: TxnRequest): void => {
      const succeeded = level.compare.every((compare) => this.#holds(compare));
      paths.set(level, succeeded);
      for (const operation of succeeded ? level.success : level.failure) {
        if (operation.request?.kind === "requestTxn") decide(operation.request.value);
      }
    };
    decide(request);
    const ranges: ModelRange[] = [];
    const run = (operations: readonly RequestOp[]): void => {
      for (const { request: operation } of operations) {
        if (operation?.kind === "requestPut") {
          const { key, value, lease, ignoreValue, ignoreLease } = operation.value;
          const before = this.#get(keyString(key));
          this.put(
            keyString(key),
            ignoreValue ? (before?.value ?? "") : keyString(value),
            ignoreLease ? (before?.lease ?? 0n) : lease,
          );
        } else if (operation?.kind === "requestDeleteRange") {
          this.deleteRange(keyString(operation.value.key), keyString(operation.value.rangeEnd));
        } else if (operation?.kind === "requestRange") {
          ranges.push(this.range(operation.value));
        } else if (operation?.kind === "requestTxn") {
          const nested = operation.value;
          run(paths.get(nested) ? nested.success : nested.failure);
        }
      }
    };
    const succeeded = paths.get(request) as boolean;
    this.#write(() => run(succeeded ? request.success : request.failure));
    return { succeeded, ranges };
  }

  #holds(compare: Compare): boolean {
    const matched = this.at(this.currentRevision).filter((row) =>
      isInModelRange(row.key, keyString(compare.key), keyString(compare.rangeEnd)),
    );
    if (matched.length === 0) {
      if (compare.target === CompareTarget.Value) return false;
      return holdsFor(compare, { version: 0, createRevision: 0, main: 0, lease: 0n, value: "" });
    }
    return matched.every((row) => holdsFor(compare, row));
  }

  compact(revision: number): void {
    this.compactRevision = revision;
  }
}

function holdsFor(
  { target, result, targetUnion }: Compare,
  row: Pick<ModelRow, "version" | "createRevision" | "main" | "lease" | "value">,
): boolean {
  const wanted = targetUnion?.value instanceof Uint8Array ? keyString(targetUnion.value) : targetUnion?.value;
  const actual = {
    [CompareTarget.Version]: row.version,
    [CompareTarget.Create]: row.createRevision,
    [CompareTarget.Mod]: row.main,
    [CompareTarget.Value]: row.value,
    [CompareTarget.Lease]: row.lease,
  }[target] as number | string | bigint;
  if (wanted === undefined) throw new Error("the model wants a full compare");
  const order = actual === wanted ? 0 : actual > wanted ? 1 : -1;
  return {
    [CompareResult.Equal]: order === 0,
    [CompareResult.NotEqual]: order !== 0,
    [CompareResult.Greater]: order > 0,
    [CompareResult.Less]: order < 0,
  }[result] as boolean;
}
