/**
 * Applying: the function of the log that every member computes alike. Each request goes through the same gates in the
 * same order: permission, alarms, the operation itself, and the quota, which lets the write through but answers that
 * space is short, so that the alarm is raised.
 *
 * An EtcdError is a result: it follows from the entry and the state before it. Anything else thrown here means that this
 * member computed something other than the others would; it passes through and ends the process.
 */
import {
  AlarmAction,
  type AlarmRequest,
  type AlarmResponse,
  AlarmType,
  type CompactionRequest,
  EtcdError,
  type LeaseGrantRequest,
  type TxnRequest,
} from "@etcd-ts/client/wire";
import type { AuthStore } from "../../auth/index.ts";
import { hexId } from "../../lib/bytes.ts";
import type { Logger } from "../../lib/log.ts";
import type { Lessor } from "../../lease/index.ts";
import type { Cluster } from "../../membership/index.ts";
import type { MvccStore } from "../../mvcc/index.ts";
import type { InternalRaftRequest, LeaseCheckpointRequest } from "../../pb/etcdserverpb.ts";
import type { BackendTxn } from "../../storage/index.ts";
import { type AlarmStore, alarmName } from "./alarms.ts";
import { costOfLeaseGrant, costOfPut, costOfTxn, type Quota } from "./quota.ts";

export interface ApplyDeps {
  readonly store: MvccStore;
  readonly lessor: Lessor;
  readonly cluster: Cluster;
  readonly alarms: AlarmStore;
  readonly quota: Quota;
  readonly auth: AuthStore;
  readonly logger: Logger;
}

/** What the waiting caller gets. `response` is without header. */
export interface ApplyResult {
  readonly response?: unknown;
  readonly error?: Error | undefined;
  /** Of a compaction: resolves when the old revisions are gone. */
  readonly compacted?: Promise<void> | undefined;
}

export interface ApplyOptions {
  /** Log index of the entry. */
  readonly index: number;
  /** Whether a caller of this member waits: some answers are worked out for it alone. */
  readonly isAwaited: boolean;
}

/** Applies one v3 request inside the open backend batch. */
export function applyRequest(
  deps: ApplyDeps,
  tx: BackendTxn,
  request: InternalRaftRequest,
  options: ApplyOptions,
): ApplyResult {
  try {
    if (applyMembership(deps, tx, request)) return {};
    if (deps.auth.isEnabled) deps.auth.checkApply(request, request.header);
    refuseByAlarm(deps.alarms, request);
    return applyOperation(deps, tx, request, options);
  } catch (error) {
    if (error instanceof EtcdError) return { error };
    throw error;
  }
}

/** The requests of 3.6 that concern the cluster; also when the entry is only replayed, with `tx` undefined. */
export function applyMembership(
  deps: Pick<ApplyDeps, "cluster">,
  tx: BackendTxn | undefined,
  request: InternalRaftRequest,
): boolean {
  const { cluster } = deps;
  if (request.clusterVersionSet) {
    cluster.setVersion(tx, request.clusterVersionSet.ver);
    return true;
  }
  if (request.clusterMemberAttrSet) {
    const { memberId, memberAttributes } = request.clusterMemberAttrSet;
    cluster.updateAttributes(tx, memberId, {
      name: memberAttributes?.name ?? "",
      clientUrls: memberAttributes?.clientUrls ?? [],
    });
    return true;
  }
  if (request.downgradeInfoSet) {
    const { enabled, ver } = request.downgradeInfoSet;
    cluster.setDowngradeInfo(tx, { enabled, targetVersion: enabled ? ver : "" });
    return true;
  }
  return false;
}

function refuseByAlarm(alarms: AlarmStore, request: InternalRaftRequest): void {
  if (alarms.has(AlarmType.Corrupt)) {
    if (
      request.range ||
      request.put ||
      request.deleteRange ||
      request.txn ||
      request.compaction ||
      request.leaseGrant ||
      request.leaseRevoke
    ) {
      throw new EtcdError("Corrupt");
    }
  }
  if (alarms.has(AlarmType.NoSpace)) {
    if (request.put || request.leaseGrant || (request.txn && costOfTxn(request.txn) > 0)) {
      throw new EtcdError("NoSpace");
    }
  }
}

function applyOperation(
  deps: ApplyDeps,
  tx: BackendTxn,
  request: InternalRaftRequest,
  options: ApplyOptions,
): ApplyResult {
  const { store, lessor, quota } = deps;
  if (request.put) {
    const hasRoom = quota.hasRoomFor(costOfPut(request.put));
    return orNoSpace(hasRoom, { response: store.put(tx, request.put) });
  }
  if (request.range) return options.isAwaited ? { response: store.range(request.range) } : {};
  if (request.deleteRange) return { response: store.deleteRange(tx, request.deleteRange) };
  if (request.txn) {
    const hasRoom = quota.hasRoomFor(costOfTxn(request.txn));
    const txn = options.isAwaited ? request.txn : withoutNewestRanges(request.txn);
    return orNoSpace(hasRoom, { response: store.txn(tx, txn) });
  }
  if (request.compaction) return applyCompaction(store, tx, request.compaction);
  if (request.leaseGrant) {
    const hasRoom = quota.hasRoomFor(costOfLeaseGrant(request.leaseGrant));
    return orNoSpace(hasRoom, applyLeaseGrant(lessor, tx, request.leaseGrant));
  }
  if (request.leaseRevoke) {
    lessor.revoke(tx, request.leaseRevoke.id, store);
    return { response: {} };
  }
  if (request.leaseCheckpoint) return applyLeaseCheckpoint(lessor, tx, request.leaseCheckpoint);
  if (request.alarm) return { response: applyAlarm(deps, tx, request.alarm) };
  const response = deps.auth.apply(tx, request, options.index);
  if (response !== undefined) return { response };
  throw new Error("an entry asks for nothing that this server knows");
}

function orNoSpace(hasRoom: boolean, result: ApplyResult): ApplyResult {
  return hasRoom ? result : { ...result, error: new EtcdError("NoSpace") };
}

/**
 * The ranges of a transaction change nothing, and only the member that answers needs what they read. But one that names a
 * revision may refuse the whole transaction, which every member must do alike, and again when it replays the entry: so
 * only ranges of the newest state, which cannot fail, are left out.
 */
function withoutNewestRanges(request: TxnRequest): TxnRequest {
  const keep = (ops: TxnRequest["success"]) =>
    ops.filter(({ request: op }) => op?.kind !== "requestRange" || op.value.revision !== 0);
  return { compare: request.compare, success: keep(request.success), failure: keep(request.failure) };
}

function applyCompaction(store: MvccStore, tx: BackendTxn, request: CompactionRequest): ApplyResult {
  const { done } = store.compact(tx, request.revision);
  return { response: {}, compacted: done };
}

function applyLeaseGrant(lessor: Lessor, tx: BackendTxn, request: LeaseGrantRequest): ApplyResult {
  const ttl = lessor.grant(tx, { id: request.id, ttlSeconds: request.ttl });
  return { response: { id: request.id, ttl, error: "" } };
}

function applyLeaseCheckpoint(lessor: Lessor, tx: BackendTxn, request: LeaseCheckpointRequest): ApplyResult {
  for (const checkpoint of request.checkpoints) {
    lessor.checkpoint(tx, checkpoint.id, checkpoint.remainingTtl);
  }
  return { response: {} };
}

function applyAlarm(deps: ApplyDeps, tx: BackendTxn, request: AlarmRequest): AlarmResponse {
  const { alarms, logger } = deps;
  const alarm = { memberId: request.memberId, alarm: request.alarm };
  switch (request.action) {
    case AlarmAction.Get:
      return { header: undefined, alarms: alarms.get(request.alarm) };
    case AlarmAction.Activate: {
      if (request.alarm === AlarmType.None) break;
      const isFirst = !alarms.has(request.alarm);
      alarms.activate(tx, alarm);
      if (isFirst) {
        logger.warn("alarm raised", { alarm: alarmName(request.alarm), from: hexId(request.memberId) });
      }
      return { header: undefined, alarms: [alarm] };
    }
    case AlarmAction.Deactivate: {
      if (!alarms.deactivate(tx, alarm)) break;
      if (!alarms.has(request.alarm)) {
        logger.warn("alarm disarmed", { alarm: alarmName(request.alarm), from: hexId(request.memberId) });
      }
      return { header: undefined, alarms: [alarm] };
    }
  }
  return { header: undefined, alarms: [] };
}
