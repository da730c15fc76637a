/**
 * Takes committed entries in order and applies them, synchronously, a chunk at a time.
 *
 * A group of entries shares one `backend.write`, which never ends a batch inside, and one write of the consistent index
 * behind their rows: so what the backend holds after a crash is always the effect of exactly the entries up to its
 * consistent index. Watchers are told and callers answered when the group is in.
 *
 * Invariant: appliedIndex >= consistentIndex, except while a restart replays entries that the backend already holds; of
 * those only the membership part, which lives in memory, happens again.
 */
import { AlarmType, EtcdError } from "@etcd-ts/client/wire";
import { assert } from "../../lib/assert.ts";
import { hexId } from "../../lib/bytes.ts";
import type { Clock } from "../../lib/clock.ts";
import { goDuration } from "../../lib/go-format.ts";
import { yieldToEventLoop } from "../../lib/wait.ts";
import { decodeConfChangeContext } from "../../membership/index.ts";
import { InternalRaftRequest } from "../../pb/etcdserverpb.ts";
import { ConfChange, ConfChangeType, type ConfState, type Entry, EntryType, type Snapshot } from "../../pb/raftpb.ts";
import { type Backend, type BackendTxn, writeConfStateJson, writeConsistentIndex } from "../../storage/index.ts";
import { APPLY_CHUNK_ENTRIES, APPLY_CHUNK_MS, APPLY_GROUP_ENTRIES } from "../limits.ts";
import type { ApplySink } from "../raft-loop.ts";
import type { Transport } from "../transport.ts";
import { type ApplyDeps, type ApplyResult, applyMembership, applyRequest } from "./applier.ts";
import { confStateToJson } from "./conf-state.ts";
import { applyErrorText } from "./error-text.ts";
import { raftRequestText } from "./request-text.ts";
import { applyV2Request, asV2Request } from "./v2-request.ts";

/** An applied request and the store's revision right behind it. */
export interface Applied extends ApplyResult {
  readonly revision: number;
  /** When its apply began, on the monotonic clock; 0 for what changes the cluster. */
  readonly appliedAtMs: number;
}

/** A request of this member, as its caller made it: it need not be decoded again. */
export interface OwnRequest {
  readonly suffix: number;
  readonly request: InternalRaftRequest | undefined;
}

export interface ApplyLoopDeps extends ApplyDeps {
  readonly backend: Backend;
  readonly transport: () => Transport;
  readonly clock: Clock;
  readonly memberId: bigint;
  readonly warningDurationMs: number;
  /** Index of the last entry whose effects the backend holds already. */
  readonly consistentIndex: number;
  /** Index that raft starts to hand out entries behind: that of the snapshot. */
  readonly appliedIndex: number;
  /** Of that entry; 0 without a snapshot. */
  readonly appliedTerm: number;
  readonly confState: ConfState;
  applyConfChange(change: ConfChange): ConfState;
  /** The request behind this data when it was proposed here and its caller still waits. */
  takeOwn(data: Uint8Array): OwnRequest | undefined;
  /** The number of a request that was proposed here, from its id in the log. */
  waitingSuffix(id: bigint): number | undefined;
  resolve(suffix: number, result: Applied): void;
  /** An entry of a new leader: with it, everything of former terms is applied. */
  firstCommitInTerm(): void;
  /** After each chunk. */
  appliedTo(index: number, confState: ConfState): void;
  /** A write was applied that ran over the quota. Resolves when the alarm is up, or could not be raised. */
  raiseNoSpace(): Promise<void>;
  /** This member is no longer part of the cluster. */
  removed(): void;
  slowApply(): void;
  requestApplied(request: InternalRaftRequest, result: ApplyResult, durationMs: number): void;
  installSnapshot(snapshot: Snapshot): Promise<void>;
  failed(error: unknown): void;
}

type Work =
  | { readonly kind: "entries"; readonly entries: readonly Entry[]; at: number; readonly done: () => void }
  | { readonly kind: "snapshot"; readonly snapshot: Snapshot };

export class ApplyLoop implements ApplySink {
  readonly #deps: ApplyLoopDeps;
  #queue: Work[] = [];
  #isRunning = false;
  #isStopped = false;
  #appliedIndex: number;
  #appliedTerm: number;
  #consistentIndex: number;
  #confState: ConfState;
  /** Results of the group that is being applied; told when it is in the backend's batch. */
  #results: { readonly suffix: number; readonly result: Applied }[] = [];
  /** When the last request had been applied, or the group began: when the next one begins. */
  #lapMs = 0;
  /** What must wait for the end of the group: it touches other rooms. */
  #after: (() => void)[] = [];

  constructor(deps: ApplyLoopDeps) {
    this.#deps = deps;
    this.#appliedIndex = deps.appliedIndex;
    this.#appliedTerm = deps.appliedTerm;
    this.#consistentIndex = deps.consistentIndex;
    this.#confState = deps.confState;
  }

  get appliedIndex(): number {
    return this.#appliedIndex;
  }

  get confState(): ConfState {
    return this.#confState;
  }

  /** Of the last applied entry. */
  get appliedTerm(): number {
    return this.#appliedTerm;
  }

  apply(entries: readonly Entry[], done: () => void): void {
    this.#queue.push({ kind: "entries", entries, at: 0, done });
    if (!this.#isRunning) this.#run();
  }

  install(snapshot: Snapshot): void {
    this.#queue.push({ kind: "snapshot", snapshot });
    if (!this.#isRunning) this.#run();
  }

  stop(): void {
    this.#isStopped = true;
    this.#queue = [];
  }

  /** A snapshot was installed: everything up to it is part of the state now, and its database may be ahead of it. */
  restored(at: { index: number; term: number; confState: ConfState; consistentIndex: number }): void {
    this.#appliedIndex = at.index;
    this.#appliedTerm = at.term;
    this.#confState = at.confState;
    this.#consistentIndex = at.consistentIndex;
  }

  /** The first chunk at once, the rest in later turns of the event loop. */
  #run(): void {
    try {
      const pause = this.#applySome();
      if (!pause) return;
      this.#isRunning = true;
      pause.then(
        () => {
          this.#isRunning = false;
          this.#run();
        },
        (error) => this.#deps.failed(error),
      );
    } catch (error) {
      this.#isStopped = true;
      this.#deps.failed(error);
    }
  }

  /** Applies one chunk. Gives what to wait for before the next one, or undefined when nothing is left. */
  #applySome(): Promise<void> | undefined {
    const deps = this.#deps;
    const startMs = deps.clock.monotonicMs();
    let budget = APPLY_CHUNK_ENTRIES;
    while (!this.#isStopped) {
      const work = this.#queue[0];
      if (!work) return undefined;
      const pressure = deps.backend.pressure();
      if (pressure) return pressure;
      if (work.kind === "snapshot") {
        this.#queue.shift();
        return deps.installSnapshot(work.snapshot);
      }
      if (budget <= 0 || deps.clock.monotonicMs() - startMs > APPLY_CHUNK_MS) return yieldToEventLoop();
      const end = Math.min(work.entries.length, work.at + Math.min(APPLY_GROUP_ENTRIES, budget));
      this.#applyGroup(work.entries, work.at, end);
      budget -= end - work.at;
      work.at = end;
      if (end === work.entries.length) {
        this.#queue.shift();
        deps.appliedTo(this.#appliedIndex, this.#confState);
        work.done();
      }
    }
    return undefined;
  }

  #applyGroup(entries: readonly Entry[], from: number, to: number): void {
    if (from === to) return;
    const { backend, store, clock } = this.#deps;
    this.#lapMs = clock.monotonicMs();
    backend.write((tx) => {
      let last: Entry | undefined;
      for (let i = from; i < to; i++) {
        const entry = entries[i] as Entry; // from <= i < to <= length
        assert(
          entry.index === this.#appliedIndex + 1,
          () => `entry ${entry.index} cannot be applied behind ${this.#appliedIndex}`,
        );
        const isReplayed = entry.index <= this.#consistentIndex;
        this.#applyEntry(isReplayed ? undefined : tx, entry);
        this.#appliedIndex = entry.index;
        this.#appliedTerm = entry.term;
        if (!isReplayed) last = entry;
      }
      if (last) {
        writeConsistentIndex(tx, last);
        this.#consistentIndex = last.index;
      }
    });
    store.endWrite();
    if (this.#after.length > 0) for (const fn of this.#after.splice(0)) fn();
    if (this.#results.length > 0) {
      for (const { suffix, result } of this.#results.splice(0)) this.#deps.resolve(suffix, result);
    }
  }

  /** `tx` is undefined for an entry whose effects the backend holds already. */
  #applyEntry(tx: BackendTxn | undefined, entry: Entry): void {
    switch (entry.type) {
      case EntryType.EntryNormal:
        this.#applyNormal(tx, entry);
        return;
      case EntryType.EntryConfChange:
        this.#applyConfChange(tx, entry);
        return;
      default:
        // etcd never proposes the second form, and 3.5 panics on it.
        throw new Error(`entry ${entry.index} has the unknown type ${entry.type}`);
    }
  }

  #applyNormal(tx: BackendTxn | undefined, entry: Entry): void {
    const { data } = entry;
    if (!data || data.length === 0) {
      this.#after.push(() => this.#deps.firstCommitInTerm());
      return;
    }
    const own = this.#deps.takeOwn(data);
    if (own?.request) {
      this.#applyV3(tx, own.request, entry.index, own.suffix);
      return;
    }
    const v2 = asV2Request(data);
    if (v2) {
      applyV2Request(this.#deps.cluster, tx, v2);
      this.#answer(own?.suffix ?? this.#deps.waitingSuffix(v2.id), { response: {} });
      return;
    }
    if (!tx && !mayConcernMembership(data)) return;
    const request = InternalRaftRequest.decode(data);
    if (request.v2) {
      applyV2Request(this.#deps.cluster, tx, request.v2);
      this.#answer(this.#deps.waitingSuffix(request.v2.id), { response: {} });
      return;
    }
    const id = request.id !== 0n ? request.id : (request.header?.id ?? 0n);
    this.#applyV3(tx, request, entry.index, this.#deps.waitingSuffix(id));
  }

  #applyV3(tx: BackendTxn | undefined, request: InternalRaftRequest, index: number, suffix: number | undefined): void {
    const deps = this.#deps;
    if (!tx) {
      applyMembership(deps, undefined, request);
      return;
    }
    const result = applyRequest(deps, tx, request, { index, isAwaited: suffix !== undefined });
    const now = deps.clock.monotonicMs();
    const tookMs = now - this.#lapMs;
    this.#lapMs = now;
    deps.requestApplied(request, result, tookMs);
    if (tookMs > deps.warningDurationMs) this.#warnSlow(request, result, tookMs);
    const { error } = result;
    if (error) {
      if (!(error instanceof EtcdError && error.kind === "Compacted")) this.#warnFailed(request, error, tookMs);
      if (error instanceof EtcdError && error.kind === "NoSpace" && !deps.alarms.has(AlarmType.NoSpace)) {
        this.#overQuota(suffix, result, error);
        return;
      }
    }
    this.#answer(suffix, result, now - tookMs);
  }

  #answer(suffix: number | undefined, result: ApplyResult, appliedAtMs = 0): void {
    if (suffix === undefined) return;
    this.#results.push({
      suffix,
      result: {
        response: result.response,
        error: result.error,
        compacted: result.compacted,
        revision: this.#deps.store.currentRevision,
        appliedAtMs,
      },
    });
  }

  /** The caller hears of it when the alarm is up, so that its next write meets it. */
  #overQuota(suffix: number | undefined, result: ApplyResult, error: Error): void {
    const { quota, logger } = this.#deps;
    logger.warn("message exceeded backend quota; raising alarm", {
      "quota-size-bytes": quota.limitBytes,
      "quota-size": quota.limitText,
      error: applyErrorText(error),
    });
    const revision = this.#deps.store.currentRevision;
    this.#after.push(() => {
      void this.#deps.raiseNoSpace().then(() => {
        if (suffix !== undefined) this.#deps.resolve(suffix, { ...result, revision, appliedAtMs: 0 });
      });
    });
  }

  #warnSlow(request: InternalRaftRequest, result: ApplyResult, tookMs: number): void {
    this.#deps.slowApply();
    this.#deps.logger.warn("apply request took too long", {
      took: goDuration(tookMs),
      "expected-duration": goDuration(this.#deps.warningDurationMs),
      prefix: "",
      request: raftRequestText(request),
      response: "",
      ...(result.error ? { error: applyErrorText(result.error) } : {}),
    });
  }

  #warnFailed(request: InternalRaftRequest, error: Error, tookMs: number): void {
    this.#deps.logger.warn("failed to apply request", {
      took: goDuration(tookMs),
      request: raftRequestText(request),
      response: "",
      error: applyErrorText(error),
    });
  }

  #applyConfChange(tx: BackendTxn | undefined, entry: Entry): void {
    const deps = this.#deps;
    const { cluster, logger } = deps;
    const change = ConfChange.decode(entry.data ?? new Uint8Array(0));
    const suffix = deps.waitingSuffix(change.id);
    try {
      cluster.validateConfChange(change);
    } catch (error) {
      if (!(error instanceof EtcdError)) throw error;
      // Raft still must hear of it: until then it takes no other change.
      this.#confState = deps.applyConfChange({ ...change, nodeId: 0n });
      logger.error("Validation on configuration change failed", { shouldApplyV3: tx !== undefined, error });
      if (tx) writeConfStateJson(tx, confStateToJson(this.#confState));
      this.#answer(suffix, { error });
      return;
    }
    this.#confState = deps.applyConfChange(change);
    if (tx) writeConfStateJson(tx, confStateToJson(this.#confState));
    const isSelf = change.nodeId === deps.memberId;
    switch (change.type) {
      case ConfChangeType.ConfChangeAddNode:
      case ConfChangeType.ConfChangeAddLearnerNode: {
        const { member, isPromote } = decodeConfChangeContext(change.context ?? new Uint8Array(0));
        assert(member.id === change.nodeId, () => `conf change of ${hexId(change.nodeId)} names ${hexId(member.id)}`);
        if (isPromote) {
          cluster.promoteMember(tx, member.id);
        } else {
          cluster.addMember(tx, member);
          if (!isSelf) deps.transport().addPeer(member.id, member.peerUrls);
        }
        break;
      }
      case ConfChangeType.ConfChangeRemoveNode:
        cluster.removeMember(tx, change.nodeId);
        if (isSelf) this.#after.push(() => deps.removed());
        else deps.transport().removePeer(change.nodeId);
        break;
      case ConfChangeType.ConfChangeUpdateNode: {
        const { member } = decodeConfChangeContext(change.context ?? new Uint8Array(0));
        const isLearner = cluster.member(change.nodeId)?.isLearner ?? false;
        cluster.updateRaftAttributes(tx, change.nodeId, { peerUrls: member.peerUrls, isLearner });
        if (!isSelf) deps.transport().updatePeer(change.nodeId, member.peerUrls);
        break;
      }
    }
    this.#answer(suffix, { response: cluster.members() });
  }
}

/**
 * Whether a replayed entry may hold one of the three requests that concern the cluster. Their numbers are above that of
 * the header, so such an entry begins with the header; all those that are frequent begin with a field below it.
 */
function mayConcernMembership(data: Uint8Array): boolean {
  const isHeaderFirst = data[0] === 0xa2 && data[1] === 0x06;
  const isOldId = data[0] === 0x08 || data[0] === 0x12;
  return isHeaderFirst || isOldId;
}
