/**
 * A running member: joins raft loop, apply, reads, leases and membership, and is the {@link EtcdServer} that the api
 * talks to. What it is made of is opened before (bootstrap.ts, boot.ts) and closed after it by whoever opened it.
 */
import {
  AlarmAction,
  type AlarmRequest,
  type AlarmResponse,
  AlarmType,
  type AuthDisableRequest,
  type AuthDisableResponse,
  type AuthEnableRequest,
  type AuthEnableResponse,
  type AuthenticateRequest,
  type AuthenticateResponse,
  type AuthRoleAddRequest,
  type AuthRoleAddResponse,
  type AuthRoleDeleteRequest,
  type AuthRoleDeleteResponse,
  type AuthRoleGetRequest,
  type AuthRoleGetResponse,
  type AuthRoleGrantPermissionRequest,
  type AuthRoleGrantPermissionResponse,
  type AuthRoleListRequest,
  type AuthRoleListResponse,
  type AuthRoleRevokePermissionRequest,
  type AuthRoleRevokePermissionResponse,
  type AuthStatusRequest,
  type AuthStatusResponse,
  type AuthUserAddRequest,
  type AuthUserAddResponse,
  type AuthUserChangePasswordRequest,
  type AuthUserChangePasswordResponse,
  type AuthUserDeleteRequest,
  type AuthUserDeleteResponse,
  type AuthUserGetRequest,
  type AuthUserGetResponse,
  type AuthUserGrantRoleRequest,
  type AuthUserGrantRoleResponse,
  type AuthUserListRequest,
  type AuthUserListResponse,
  type AuthUserRevokeRoleRequest,
  type AuthUserRevokeRoleResponse,
  type CompactionRequest,
  type CompactionResponse,
  type DefragmentResponse,
  type DeleteRangeRequest,
  type DeleteRangeResponse,
  DowngradeAction,
  type DowngradeRequest,
  type DowngradeResponse,
  type ErrorKind,
  EtcdError,
  type HashKVRequest,
  type HashKVResponse,
  type HashResponse,
  type LeaseGrantRequest,
  type LeaseGrantResponse,
  type LeaseKeepAliveResponse,
  type LeaseLeasesResponse,
  type LeaseRevokeRequest,
  type LeaseRevokeResponse,
  type LeaseTimeToLiveRequest,
  type LeaseTimeToLiveResponse,
  type MemberAddRequest,
  type MemberAddResponse,
  type MemberListRequest,
  type MemberListResponse,
  type MemberPromoteRequest,
  type MemberPromoteResponse,
  type MemberRemoveRequest,
  type MemberRemoveResponse,
  type MemberUpdateRequest,
  type MemberUpdateResponse,
  type MoveLeaderRequest,
  type MoveLeaderResponse,
  PutRequest,
  type PutResponse,
  type RangeRequest,
  RangeResponse,
  type ResponseHeader,
  StatusResponse,
  type TxnRequest,
  TxnResponse,
} from "@etcd-ts/client/wire";
import type { Auth, Caller } from "../auth/index.ts";
import { hexId, utf8Text } from "../lib/bytes.ts";
import type { Clock, Timer } from "../lib/clock.ts";
import { goDuration, humanBytes } from "../lib/go-format.ts";
import type { Logger } from "../lib/log.ts";
import { deferred, type Later, orAborted } from "../lib/wait.ts";
import type { Lessor } from "../lease/index.ts";
import {
  allowedDowngradeVersion,
  attributesToJson,
  type Cluster,
  compareVersions,
  computeMemberId,
  encodeConfChangeContext,
  type Member,
  parseVersion,
  shortVersion,
} from "../membership/index.ts";
import {
  type EncodedRange as StoredRange,
  isTxnReadOnly,
  isTxnSerializable,
  type MvccStore,
  type WatchHub,
} from "../mvcc/index.ts";
import { InternalRaftRequest, Request } from "../pb/etcdserverpb.ts";
import {
  type ConfChange,
  ConfChangeType,
  ConfChangeTypeInfo,
  type ConfState,
  type Message,
  type Snapshot,
} from "../pb/raftpb.ts";
import type { MemoryStorage, RawNode } from "../raft/index.ts";
import { type Backend, type BoltExport, type ExportOptions, readConsistentIndex } from "../storage/index.ts";
import { AlarmStore, alarmName } from "./apply/alarms.ts";
import type { ApplyResult } from "./apply/applier.ts";
import { type Applied, ApplyLoop } from "./apply/apply-loop.ts";
import { costOfLeaseGrant, costOfPut, costOfTxn, createQuota, type Quota } from "./apply/quota.ts";
import { leaseHex, rangeText, txnResponseText, txnText } from "./apply/request-text.ts";
import { attributesPath, versionPath } from "./apply/v2-request.ts";
import { runAutoCompaction } from "./auto-compaction.ts";
import {
  decideClusterVersion,
  isDowngraded,
  logClusterVersionProposal,
  nextClusterVersion,
} from "./cluster-version.ts";
import { CorruptionChecker, runCorruptionChecks } from "./corruption.ts";
import type {
  AlarmView,
  Answer,
  EncodedRange,
  EtcdServer,
  LocalMember,
  RaftStatus,
  RaftView,
  RequestContext,
  SnapshotStream,
} from "./door.ts";
import { fastForwardElection } from "./fast-forward.ts";
import { HeartbeatWatch } from "./heartbeat-watch.ts";
import { TRACE_THRESHOLD_MS, type TraceStep, traceIfLong } from "./trace.ts";
import {
  APPLIED_INDEX_WAIT_MS,
  APPLY_LAG_MAX,
  BLOCKING_SAVE_CALLERS_MAX,
  BLOCKING_SAVE_QUIET_MS,
  CLUSTER_VERSION_CHECK_MS,
  EXPIRED_LEASE_SCAN_MS,
  HEALTHY_PERIOD_MS,
  LEARNER_READY_PORTION,
  LEASE_REVOKES_IN_FLIGHT_MAX,
  PUBLISH_RETRY_MS,
  SNAPSHOT_BYTES_PER_SECOND,
  SNAPSHOT_WARNING_MS,
  SERVER_VERSION,
  WAITING_PROPOSAL_BYTES_MAX,
  WAITING_PROPOSALS_MAX,
} from "./limits.ts";
import { type RaftDisk, RaftLoop } from "./raft-loop.ts";
import { ReadIndex } from "./read-index.ts";
import { RequestIds } from "./request-ids.ts";
import { electionTimeoutMs, requestTimeoutMs, type ServerConfig } from "./server-config.ts";
import { type SnapshotDisk, Snapshotter } from "./snapshotter.ts";
import type { Transport, TransportSink } from "./transport.ts";
import { IndexWaiters, PendingRequests } from "./waiters.ts";

/** The cluster goes on without this member, for good. */
export class MemberRemovedError extends Error {
  override readonly name = "MemberRemovedError";

  constructor() {
    super("the member has been permanently removed from the cluster");
  }
}

/** What the server is made of. */
export interface ServerDeps {
  readonly config: ServerConfig;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly cluster: Cluster;
  readonly backend: Backend;
  readonly store: MvccStore;
  readonly lessor: Lessor;
  readonly auth: Auth;
  readonly node: RawNode;
  readonly storage: MemoryStorage;
  readonly disk: RaftDisk & SnapshotDisk;
  /** Of the snapshot that the member starts from; 0 without one. */
  readonly snapshotIndex: number;
  readonly confState: ConfState;
  readonly consistentIndex: number;
  /** The backend as it is now, or some moments later, as etcd's `.db`. */
  exportImage(options: ExportOptions): Promise<BoltExport>;
  /** Puts a received snapshot in the place of the backend and everything read from it. */
  installSnapshot(snapshot: Snapshot): Promise<void>;
  observer?: ServerObserver | undefined;
}

/** What the server tells of its work; metrics are made of it. */
export interface ServerObserver {
  proposed?(): void;
  proposalFailed?(): void;
  applied?(entries: number): void;
  leaderChanged?(hasLeader: boolean): void;
  /** One request was applied: its kind (`Put`, `LeaseGrant` ...), whether it succeeded, and how long it took. */
  requestApplied?(operation: string, isOk: boolean, durationMs: number): void;
  slowApply?(): void;
  /** A read round was asked for again. */
  slowRead?(): void;
  readFailed?(): void;
  leaseGranted?(ttlSeconds: number): void;
  leaseRevoked?(): void;
  leaseRenewed?(): void;
  /** This member, as the leader, revoked a lease because its time was over. */
  leaseExpired?(): void;
  /** As the leader it sent a heartbeat late. */
  heartbeatLate?(): void;
  /** As the leader it promoted a learner, or refused to, for this reason. */
  learnerPromoted?(refusal: string | undefined): void;
  /** A snapshot of the leader is being installed, or no longer. */
  installing?(isInstalling: boolean): void;
}

/** On the monotonic clock: when a read was asked for, and when it could be served. */
interface Begun {
  readonly startMs: number;
  readonly agreedMs: number;
}

/** A body of InternalRaftRequest: exactly one of its fields. */
type Body = Partial<Omit<InternalRaftRequest, "header" | "id">>;

const asApplied = (applied: Applied): Applied => applied;

/** A request that is made here. The bodies that it has not are fields of the prototype: it has over thirty of them. */
class OwnRequest {
  readonly header: InternalRaftRequest["header"];

  static of(header: InternalRaftRequest["header"], body: Body): InternalRaftRequest {
    const request = new OwnRequest(header) as unknown as Record<string, unknown>;
    for (const key in body) request[key] = body[key as keyof Body];
    return request as unknown as InternalRaftRequest;
  }

  private constructor(header: InternalRaftRequest["header"]) {
    this.header = header;
  }
}
Object.assign(OwnRequest.prototype, InternalRaftRequest.create());

/** Refusals with the texts that they have inside of etcd. */
const bluntKinds: Partial<Record<ErrorKind, ErrorKind>> = {
  UserEmpty: "AuthInnerUserEmpty",
  UserNotFound: "AuthInnerUserNotFound",
  PermissionDenied: "AuthInnerPermissionDenied",
  InvalidAuthToken: "AuthInnerInvalidToken",
  AuthOldRevision: "AuthInnerOldRevision",
};

/** What a leader says of a learner that asking again would not change. */
const promotionVerdicts: ReadonlySet<ErrorKind> = new Set([
  "LearnerNotReady",
  "MemberNotFound",
  "MemberNotLearner",
  "MemberNotEnoughStarted",
  "Stopped",
]);

export class Server implements EtcdServer, TransportSink {
  readonly member: LocalMember;
  readonly stopped: Promise<Error | undefined>;
  readonly ready: Promise<void>;
  readonly #deps: ServerDeps;
  readonly #config: ServerConfig;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #cluster: Cluster;
  readonly #store: MvccStore;
  readonly #lessor: Lessor;
  readonly #auth: Auth;
  readonly #transport: Transport;
  readonly #alarms: AlarmStore;
  readonly #quota: Quota;
  readonly #ids: RequestIds;
  readonly #pending: PendingRequests<Applied>;
  /** Configuration changes of this member's callers; they wait as long as their callers do. */
  readonly #pendingChanges = new Map<number, { resolve(value: Applied): void; reject(error: Error): void }>();
  readonly #applied = new IndexWaiters();
  readonly #readIndex: ReadIndex;
  readonly #apply: ApplyLoop;
  readonly #loop: RaftLoop;
  readonly #snapshotter: Snapshotter;
  readonly #timeoutMs: number;
  readonly #stop = new AbortController();
  readonly #stoppedResult = deferred<Error | undefined>();
  readonly #readyResult = deferred();
  readonly #jobs: Promise<void>[] = [];
  readonly #leaderListeners = new Set<(leaderId: bigint) => void>();
  /** The leader that the log was told of last. */
  #toldLeaderId = 0n;
  readonly #raftLogger: Logger;
  readonly #heartbeats: HeartbeatWatch;
  #firstCommitListeners: (() => void)[] = [];
  #leaderElectedAtMs = Number.NEGATIVE_INFINITY;
  #leaderLostAtMs: number | undefined;
  #lastReadMs = Number.NEGATIVE_INFINITY;
  #failure: Error | undefined;
  #stopping: Promise<void> | undefined;
  /** The last header that was encoded, and what it says. */
  #headerBytes: { readonly term: number; readonly revision: number; readonly bytes: Uint8Array } | undefined;

  constructor(deps: ServerDeps, transport: Transport) {
    const { config, clock, logger, cluster, backend } = deps;
    this.#deps = deps;
    this.#config = config;
    this.#clock = clock;
    this.#logger = logger;
    this.#raftLogger = logger.named?.("raft") ?? logger;
    this.#heartbeats = new HeartbeatWatch({
      clock,
      logger,
      intervalMs: config.tickMs,
      late: () => deps.observer?.heartbeatLate?.(),
    });
    this.#cluster = cluster;
    this.#store = deps.store;
    this.#lessor = deps.lessor;
    this.#auth = deps.auth;
    this.#transport = transport;
    this.#timeoutMs = requestTimeoutMs(config);
    this.#leaderLostAtMs = clock.monotonicMs();
    this.member = { id: cluster.localId, clusterId: cluster.id, name: config.name };
    this.stopped = this.#stoppedResult.promise;
    this.ready = this.#readyResult.promise;
    this.ready.catch(() => {}); // whoever waits hears of it; nobody must
    this.#ids = new RequestIds(cluster.localId, clock.nowMs());
    this.#alarms = AlarmStore.open(backend);
    this.#quota = createQuota({
      configuredBytes: config.quotaBackendBytes,
      sizeBytes: () => backend.sizeBytes(),
      logger,
    });
    this.#pending = new PendingRequests<Applied>({
      clock,
      timeoutMs: this.#timeoutMs,
      timedOut: (startMs, isHandedOver) => this.#timeoutError(startMs, isHandedOver),
    });
    this.#readIndex = new ReadIndex({
      clock,
      logger,
      timeoutMs: this.#timeoutMs,
      applied: this.#applied,
      nextId: () => this.#ids.idOf(this.#ids.next()),
      request: (context) => this.#loop.readIndex(context),
      retried: () => deps.observer?.slowRead?.(),
      failed: () => deps.observer?.readFailed?.(),
    });
    this.#snapshotter = new Snapshotter({
      backend,
      storage: deps.storage,
      disk: deps.disk,
      clock,
      logger,
      memberId: cluster.localId,
      snapshotCount: config.snapshotCount,
      catchupEntries: config.snapshotCatchupEntries,
      snapshotIndex: deps.snapshotIndex,
      v2StoreBytes: () => cluster.v2StoreBytes(),
      snapshotsInFlight: () => transport.snapshotsInFlight,
      failed: (error) => this.#fail(error),
    });
    this.#apply = new ApplyLoop({
      store: deps.store,
      lessor: deps.lessor,
      cluster,
      alarms: this.#alarms,
      quota: this.#quota,
      auth: deps.auth.store,
      logger,
      backend,
      transport: () => this.#transport,
      clock,
      memberId: cluster.localId,
      warningDurationMs: config.warningApplyDurationMs,
      consistentIndex: deps.consistentIndex,
      appliedIndex: deps.snapshotIndex,
      appliedTerm: deps.storage.snapshot().metadata.term,
      confState: deps.confState,
      applyConfChange: (change) => deps.node.applyConfChange(change),
      takeOwn: (data) => this.#pending.takeOwn(data),
      waitingSuffix: (id) => this.#waitingSuffix(id),
      resolve: (suffix, result) => this.#resolve(suffix, result),
      firstCommitInTerm: () => this.#firstCommitInTerm(),
      appliedTo: (index, confState) => this.#appliedTo(index, confState),
      raiseNoSpace: () => this.#raiseNoSpace(),
      removed: () => this.#removed(),
      slowApply: () => deps.observer?.slowApply?.(),
      requestApplied: (request, result, durationMs) => this.#observeApplied(request, result, durationMs),
      installSnapshot: (snapshot) => this.#installSnapshot(snapshot),
      failed: (error) => this.#fail(error),
    });
    this.#applied.reach(deps.snapshotIndex);
    this.#loop = new RaftLoop({
      node: deps.node,
      storage: deps.storage,
      disk: deps.disk,
      transport,
      sink: this.#apply,
      clock,
      logger,
      memberId: cluster.localId,
      tickMs: config.tickMs,
      isAwaited: (suffix) => this.#isAwaited(suffix),
      handOver: (suffix) => this.#pending.handOver(suffix) || this.#pendingChanges.has(suffix),
      dropped: (suffix, error) => this.#reject(suffix, error),
      isRemoved: (memberId) => cluster.isRemoved(memberId),
      isIdle: () => this.#isIdle(),
      callersToGather: () => this.#callersToGather(),
      readStates: (states) => this.#readIndex.receive(states),
      leaderChanged: (leaderId) => this.#leaderChanged(leaderId),
    });
  }

  // Life.

  /** Begins to take part. {@link ready} resolves when the cluster knows of this member. */
  start(): void {
    this.#logger.info("starting etcd server", {
      "local-member-id": hexId(this.member.id),
      "local-server-version": SERVER_VERSION,
      ...(this.#cluster.version() === undefined ? {} : { "cluster-id": hexId(this.member.clusterId) }),
      "cluster-version": this.#shortClusterVersion() ?? "to_be_decided",
    });
    for (const member of this.#cluster.members()) {
      if (member.id !== this.member.id) this.#transport.addPeer(member.id, member.peerUrls);
    }
    this.#loop.run().then(
      () => this.#fail(undefined),
      (error) => this.#fail(error),
    );
    this.#job(this.#fastForwardElection());
    this.#job(this.#snapshotter.runPurge());
    this.#job(this.#watchLeases());
    this.#job(this.#watchClusterVersion());
    this.#job(this.#watchCorruption());
    this.#job(this.#watchDowngrade());
    this.#job(this.#publish());
    if (this.#config.autoCompactionRetention > 0) {
      this.#job(
        runAutoCompaction(
          {
            clock: this.#clock,
            logger: this.#logger,
            mode: this.#config.autoCompactionMode,
            retention: this.#config.autoCompactionRetention,
            currentRevision: () => this.#store.currentRevision,
            isLeader: () => this.#loop.isLeader,
            compact: async (revision) =>
              this.#submit({ compaction: { revision, physical: false } }, undefined, asApplied),
          },
          this.#stop.signal,
        ),
      );
    }
  }

  /** Hands leadership over where there is somebody to take it, then ends. Safe to call more than once. */
  async stop(): Promise<void> {
    if (!this.#stopping) await this.#handOverLeadership();
    this.#fail(undefined);
    await this.#stopping;
  }

  /** Ends the member because of an error outside of it: its backend cannot commit any more. */
  abort(error: unknown): void {
    this.#fail(error);
  }

  /** A job that fails ends the member; its promise is awaited by the stop. */
  #job(promise: Promise<void>): void {
    this.#jobs.push(promise.catch((error) => this.#fail(this.#stop.signal.aborted ? undefined : error)));
  }

  #fail(error: unknown): void {
    if (this.#stopping) return;
    if (error !== undefined) {
      this.#failure = error instanceof Error ? error : new Error(String(error));
      this.#logger.warn("server error", { error: this.#failure });
      if (this.#failure instanceof MemberRemovedError) {
        this.#logger.warn("data-dir used by this member must be removed");
      }
    }
    this.#stopping = this.#shutDown();
  }

  async #shutDown(): Promise<void> {
    const stopped = () => new EtcdError("Stopped");
    this.#stop.abort();
    this.#readyResult.reject(this.#failure ?? stopped());
    this.#apply.stop();
    this.#readIndex.stop();
    this.#applied.rejectAll(stopped);
    this.#pending.rejectAll(stopped);
    for (const change of this.#pendingChanges.values()) change.reject(stopped());
    this.#pendingChanges.clear();
    this.#lessor.stop();
    await this.#transport.stop();
    await this.#loop.stop();
    await this.#snapshotter.stop();
    await Promise.all(this.#jobs);
    this.#stoppedResult.resolve(this.#failure);
  }

  #removed(): void {
    // Long enough for the last messages to leave, as the others must hear that the change is committed.
    this.#clock.after(this.#config.electionTicks * this.#config.tickMs, () => this.#fail(new MemberRemovedError()));
  }

  #fastForwardElection(): Promise<void> {
    const { electionTicks, tickMs, initialElectionTickAdvance } = this.#config;
    const { id } = this.member;
    return fastForwardElection(
      {
        clock: this.#clock,
        logger: this.#logger,
        memberId: id,
        electionTicks,
        tickMs,
        isEnabled: initialElectionTickAdvance,
        caughtUp: this.#applied.wait(this.#deps.storage.initialState().hardState.commit),
        isAlone: () => {
          const { voters } = this.#apply.confState;
          return voters.length === 1 && voters[0] === id;
        },
        activePeers: () =>
          this.#cluster.members().filter((member) => this.#transport.activeSinceMs(member.id) !== undefined).length,
        campaign: () => this.#loop.call((node) => node.campaign()),
        // With a leader there is nothing to wait for, and a leader's own ticks are its measure of who is there.
        advance: (ticks) =>
          this.#loop.call((node) => {
            for (let i = 0; i < ticks && this.#loop.leaderId === 0n; i++) node.tick();
          }),
      },
      this.#stop.signal,
    );
  }

  async #publish(): Promise<void> {
    const attributes = { name: this.#config.name, clientUrls: this.#config.advertiseClientUrls };
    const path = attributesPath(hexId(this.member.id));
    const fields = {
      "local-member-id": hexId(this.member.id),
      "local-member-attributes": `{Name:${attributes.name} ClientURLs:[${attributes.clientUrls.join(" ")}]}`,
      "request-path": path,
      "cluster-id": hexId(this.member.clusterId),
      "publish-timeout": goDuration(this.#timeoutMs),
    };
    for (;;) {
      try {
        await this.#submitV2({ method: "PUT", path, val: attributesToJson(attributes) });
        this.#logger.info("published local member to cluster through raft", fields);
        this.#readyResult.resolve();
        return;
      } catch (error) {
        if (this.#stop.signal.aborted) {
          this.#logger.warn("stopped publish because server is stopped", { ...fields, error });
          return;
        }
        this.#logger.warn("failed to publish local member to cluster through raft", { ...fields, error });
        await this.#pause(PUBLISH_RETRY_MS);
      }
    }
  }

  /** Resolves early, not rejects, when the server stops. */
  async #pause(ms: number): Promise<void> {
    await this.#clock.sleep(ms, this.#stop.signal).catch(() => {});
  }

  // Raft's side.

  #tellLeader(leaderId: bigint): void {
    const [me, before, now] = [this.member.id, this.#toldLeaderId, leaderId].map(hexId);
    const term = `at term ${this.#loop.term}`;
    if (leaderId === 0n) this.#raftLogger.info(`raft.node: ${me} lost leader ${before} ${term}`);
    else if (this.#toldLeaderId === 0n) this.#raftLogger.info(`raft.node: ${me} elected leader ${now} ${term}`);
    else this.#raftLogger.info(`raft.node: ${me} changed leader from ${before} to ${now} ${term}`);
    this.#toldLeaderId = leaderId;
  }

  #leaderChanged(leaderId: bigint): void {
    this.#tellLeader(leaderId);
    this.#heartbeats.reset();
    const now = this.#clock.monotonicMs();
    const hasLeader = leaderId !== 0n;
    if (hasLeader) {
      this.#leaderLostAtMs = undefined;
      this.#leaderElectedAtMs = now;
      this.#readIndex.leaderChanged();
    } else {
      this.#leaderLostAtMs = now;
    }
    // A new leader takes the leases over when it has applied everything of the terms before its own.
    if (leaderId !== this.member.id && this.#lessor.isPrimary) this.#lessor.demote();
    this.#deps.observer?.leaderChanged?.(hasLeader);
    for (const listener of this.#leaderListeners) listener(leaderId);
  }

  #firstCommitInTerm(): void {
    this.#readIndex.firstCommitInTerm();
    if (this.#loop.isLeader) this.#lessor.promote(electionTimeoutMs(this.#config));
    for (const listener of this.#firstCommitListeners.splice(0)) listener();
  }

  #appliedTo(index: number, confState: ConfState): void {
    this.#deps.observer?.applied?.(index - this.#applied.reached);
    this.#applied.reach(index);
    this.#snapshotter.appliedTo(index, confState);
  }

  #observeApplied(request: InternalRaftRequest, result: ApplyResult, durationMs: number): void {
    const { observer } = this.#deps;
    if (!observer) return;
    const { error } = result;
    const isOk = error === undefined || (error instanceof EtcdError && error.kind === "Compacted");
    observer.requestApplied?.(operationName(request), isOk, durationMs);
    if (error) return;
    if (request.leaseGrant) observer.leaseGranted?.((result.response as LeaseGrantResponse).ttl);
    else if (request.leaseRevoke) observer.leaseRevoked?.();
  }

  async #installSnapshot(snapshot: Snapshot): Promise<void> {
    const { index, term, confState } = snapshot.metadata;
    const fields = {
      "current-snapshot-index": this.#snapshotter.snapshotIndex,
      "current-applied-index": this.#apply.appliedIndex,
      "incoming-leader-snapshot-index": index,
      "incoming-leader-snapshot-term": term,
    };
    this.#logger.info("applying snapshot", fields);
    this.#logger.info("applied incoming Raft snapshot", { "snapshot-index": index });
    this.#deps.observer?.installing?.(true);
    await this.#deps.installSnapshot(snapshot);
    this.#step("alarm store", () => this.#alarms.reload(this.#deps.backend));
    this.#step("auth store", () => this.#auth.store.reload(this.#deps.backend));
    const { index: consistentIndex } = readConsistentIndex(this.#deps.backend);
    this.#apply.restored({ index, term, confState, consistentIndex });
    this.#snapshotter.installed(index);
    this.#applied.reach(index);
    this.#logger.info("removing old peers from network");
    this.#transport.removeAllPeers();
    this.#logger.info("removed old peers from network");
    this.#logger.info("adding peers from new cluster configuration");
    for (const member of this.#cluster.members()) {
      if (member.id !== this.member.id) this.#transport.addPeer(member.id, member.peerUrls);
    }
    this.#logger.info("added peers from new cluster configuration");
    this.#deps.observer?.installing?.(false);
    this.#logger.info("applied snapshot", fields);
  }

  /** A part of the state that is read from a database which came with a snapshot. */
  #step(what: string, read: () => void): void {
    this.#logger.info(`restoring ${what}`);
    read();
    this.#logger.info(`restored ${what}`);
  }

  process(message: Message): void {
    this.#loop.process(message);
  }

  reportUnreachable(id: bigint): void {
    this.#loop.call((node) => node.reportUnreachable(id));
  }

  reportSnapshot(id: bigint, ok: boolean): void {
    this.#loop.call((node) => node.reportSnapshot(id, ok));
  }

  heartbeatSent(to: bigint): void {
    this.#heartbeats.sent(to);
  }

  isRemoved(id: bigint): boolean {
    return this.#cluster.isRemoved(id);
  }

  /** What only the cluster's other members are told. */
  members(): readonly Member[] {
    return this.#cluster.members();
  }

  /** Proposals that wait for commit and apply. */
  get pendingProposals(): number {
    return this.#pending.size + this.#pendingChanges.size;
  }

  /** 0: no quota. */
  get quotaBytes(): number {
    return this.#quota.limitBytes;
  }

  isDowngradeEnabled(): boolean {
    return this.#cluster.downgradeInfo().enabled;
  }

  /**
   * A snapshot of now for a follower that is too far behind: raft's message with the members and the place in the log
   * that go with the database. The database may be a few entries ahead of that place; whoever installs it goes by its
   * consistent index and does not apply them again.
   */
  async openRaftSnapshot(message: Message): Promise<{ readonly message: Message } & SnapshotStream> {
    const metadata = {
      index: this.#apply.appliedIndex,
      term: this.#apply.appliedTerm,
      confState: this.#apply.confState,
    };
    const data = this.#cluster.v2StoreBytes();
    const image = await this.#openImage({ isBackground: true });
    return { ...image, message: { ...message, snapshot: { data, metadata } } };
  }

  // State.

  header(): ResponseHeader {
    return this.#headerAt(this.#store.currentRevision);
  }

  #headerAt(revision: number): ResponseHeader {
    return {
      clusterId: this.member.clusterId,
      memberId: this.member.id,
      revision,
      raftTerm: this.#loop.term,
    };
  }

  #memberHeader(): ResponseHeader {
    return this.#headerAt(0);
  }

  raftView(): RaftView {
    return {
      leaderId: this.#loop.leaderId,
      term: this.#loop.term,
      committedIndex: this.#loop.committedIndex,
      appliedIndex: this.#apply.appliedIndex,
      isLearner: this.#cluster.isLocalMemberLearner(),
      isLeader: this.#loop.isLeader,
    };
  }

  raftStatus(): RaftStatus {
    return this.#deps.node.status();
  }

  clusterVersion(): string | undefined {
    return this.#cluster.version();
  }

  #shortClusterVersion(): string | undefined {
    const version = parseVersion(this.#cluster.version() ?? "");
    return version && shortVersion(version);
  }

  alarms(): readonly AlarmView[] {
    return this.#alarms.get(AlarmType.None);
  }

  leaderLostSinceMs(): number | undefined {
    return this.#leaderLostAtMs;
  }

  onLeaderChange(fn: (leaderId: bigint) => void): () => void {
    this.#leaderListeners.add(fn);
    return () => this.#leaderListeners.delete(fn);
  }

  get watch(): WatchHub {
    return this.#store.watch;
  }

  // Proposals.

  /** Whoever calls, when auth is on. */
  #caller(ctx: RequestContext): Caller | undefined | Promise<Caller | undefined> {
    return this.#auth.store.isEnabled ? this.#auth.callerOf(ctx) : undefined;
  }

  async #requireAdmin(ctx: RequestContext): Promise<void> {
    if (this.#auth.store.isEnabled) this.#auth.store.checkAdmin(await this.#auth.callerOf(ctx));
  }

  /** As {@link #requireAdmin}, for the four calls whose refusals etcd passes on untranslated. */
  async #requireAdminBluntly(ctx: RequestContext): Promise<void> {
    try {
      await this.#requireAdmin(ctx);
    } catch (error) {
      const kind = error instanceof EtcdError ? bluntKinds[error.kind] : undefined;
      throw kind ? new EtcdError(kind, { cause: error }) : error;
    }
  }

  /** Any user, but a user. */
  async #requireUser(ctx: RequestContext): Promise<Caller | undefined> {
    if (!this.#auth.store.isEnabled) return undefined;
    const caller = await this.#auth.callerOf(ctx);
    this.#auth.store.checkNamed(caller);
    return caller;
  }

  authRevision(): number {
    return this.#auth.store.revision;
  }

  /** Undefined when it is applied; otherwise resolves with whether it was in time. */
  waitUntilApplied(index: number, signal: AbortSignal | undefined): Promise<boolean> | undefined {
    if (index <= this.#applied.reached) return undefined;
    const overdue = new AbortController();
    const timer = this.#clock.after(this.#timeoutMs, () => overdue.abort(), { unref: true });
    const end = signal ? AbortSignal.any([signal, overdue.signal]) : overdue.signal;
    return this.#applied
      .wait(index, end)
      .then(
        () => true,
        () => false,
      )
      .finally(() => timer.cancel());
  }

  async #propose(body: Body, ctx: RequestContext): Promise<Applied> {
    const caller = this.#auth.store.isEnabled ? await this.#auth.callerOf(ctx) : undefined;
    return this.#submit(body, caller, asApplied);
  }

  /** Proposes for whoever calls; the answer has the header that goes with the applied request. */
  #ask<T extends { header: ResponseHeader | undefined }>(body: Body, ctx: RequestContext): Answer<T> {
    if (this.#auth.store.isEnabled) return this.#askAs<T>(body, this.#auth.callerOf(ctx));
    return this.#submit<T>(body, undefined, this.#responseOf);
  }

  async #askAs<T extends { header: ResponseHeader | undefined }>(
    body: Body,
    caller: Caller | undefined | Promise<Caller | undefined>,
  ): Promise<T> {
    return this.#submit<T>(body, await caller, this.#responseOf);
  }

  /**
   * Settles when the request has been applied here: with what `finish` makes of the result, or with its error. Throws what
   * refuses it before it is proposed.
   */
  #submit<T>(body: Body, caller: Caller | undefined, finish: (applied: Applied) => T): Later<T> {
    const refusal = this.#refuseOverload();
    if (refusal) throw refusal;
    const suffix = this.#ids.next();
    const header = {
      id: this.#ids.idOf(suffix),
      username: caller?.username ?? "",
      authRevision: caller?.authRevision ?? 0,
    };
    const request = OwnRequest.of(header, body);
    const data = InternalRaftRequest.encode(request);
    if (data.length > this.#config.maxRequestBytes) throw new EtcdError("RequestTooLarge");
    const applied = this.#pending.register(suffix, { data, request }, finish);
    this.#deps.observer?.proposed?.();
    this.#loop.propose({ kind: "entry", suffix, data });
    return applied;
  }

  async #submitV2(request: { method: string; path: string; val: string }): Promise<void> {
    // Not held against the lag of apply: after a restart, replaying the log is what a member publishes itself behind.
    if (this.#stopping) throw new EtcdError("Stopped");
    const suffix = this.#ids.next();
    const applied = this.#pending.register(suffix, undefined, asApplied);
    this.#loop.propose({
      kind: "entry",
      suffix,
      data: Request.encode({ id: this.#ids.idOf(suffix), ...request }),
    });
    await applied;
  }

  #refuseOverload(): Error | undefined {
    if (this.#stopping) return new EtcdError("Stopped");
    if (
      this.#loop.committedIndex > this.#apply.appliedIndex + APPLY_LAG_MAX ||
      this.#loop.waitingProposals > WAITING_PROPOSALS_MAX ||
      this.#loop.waitingProposalBytes > WAITING_PROPOSAL_BYTES_MAX
    ) {
      return new EtcdError("TooManyRequests");
    }
    return undefined;
  }

  #isLone(): boolean {
    const { voters, learners } = this.#apply.confState;
    return voters.length === 1 && learners.length === 0;
  }

  /** A lone member whose few callers all wait for the disk, and nobody has come to read for a while. */
  #isIdle(): boolean {
    return (
      this.#pending.size <= BLOCKING_SAVE_CALLERS_MAX &&
      this.#isLone() &&
      this.#clock.monotonicMs() - this.#lastReadMs > BLOCKING_SAVE_QUIET_MS
    );
  }

  /** A leader of others sends while its own disk works, which holding back would spoil. */
  #callersToGather(): number {
    return this.#isLone() ? this.#pending.size : 0;
  }

  #reads(): void {
    this.#lastReadMs = this.#clock.monotonicMs();
  }

  #isAwaited(suffix: number): boolean {
    return this.#pending.has(suffix) || this.#pendingChanges.has(suffix);
  }

  #waitingSuffix(id: bigint): number | undefined {
    const suffix = this.#ids.suffixOf(id);
    return suffix !== undefined && this.#isAwaited(suffix) ? suffix : undefined;
  }

  /** A slow put or transaction of a caller of this member. Its parts inside of apply are one step. */
  #traceApplied(suffix: number, { appliedAtMs, revision, response }: Applied): void {
    if (this.#logger.isInfoEnabled === false) return;
    const waiting = this.#pending.waiting(suffix);
    if (!waiting?.request) return;
    const { startMs, request } = waiting;
    const { put, txn } = request;
    if (!put && !txn) return;
    const endMs = this.#clock.monotonicMs();
    if (endMs - startMs <= TRACE_THRESHOLD_MS) return;
    const steps = [
      { text: "process raft request", endMs: appliedAtMs },
      { text: "store kv pair into bolt db", endMs },
    ];
    const detail = put
      ? { key: utf8Text(put.key), req_size: PutRequest.encode(put).length, response_revision: revision }
      : {
          read_only: false,
          number_of_response: (response as TxnResponse).responses.length,
          response_revision: revision,
        };
    traceIfLong(this.#deps, { operation: put ? "put" : "transaction", startMs, detail, steps });
  }

  #resolve(suffix: number, result: Applied): void {
    if (result.error) {
      this.#reject(suffix, result.error);
      return;
    }
    this.#traceApplied(suffix, result);
    if (this.#pending.resolve(suffix, result)) return;
    const change = this.#pendingChanges.get(suffix);
    this.#pendingChanges.delete(suffix);
    change?.resolve(result);
  }

  #reject(suffix: number, error: Error): void {
    this.#pending.reject(suffix, error);
    const change = this.#pendingChanges.get(suffix);
    this.#pendingChanges.delete(suffix);
    change?.reject(error);
  }

  /** Which text a proposal gets that was not applied in time tells what was probably wrong. */
  #timeoutError(startMs: number, isHandedOver: boolean): Error {
    this.#deps.observer?.proposalFailed?.();
    if (!isHandedOver) return new EtcdError("ContextDeadlineExceeded");
    const electedAt = this.#leaderElectedAtMs;
    if (startMs > electedAt - 2 * electionTimeoutMs(this.#config) && startMs < electedAt) {
      return new EtcdError("TimeoutDueToLeaderFail");
    }
    const leaderId = this.#loop.leaderId;
    if (leaderId === this.member.id) {
      const voters = this.#cluster.votingMembers();
      const connected = voters.filter((member) => this.#isConnectedSince(member.id, startMs)).length;
      if (connected < Math.floor(voters.length / 2) + 1) return new EtcdError("TimeoutDueToConnectionLost");
    } else if (leaderId !== 0n && !this.#isConnectedSince(leaderId, startMs)) {
      return new EtcdError("TimeoutDueToConnectionLost");
    }
    return new EtcdError("Timeout");
  }

  #isConnectedSince(id: bigint, sinceMs: number): boolean {
    if (id === this.member.id) return true;
    const activeSince = this.#transport.activeSinceMs(id);
    return activeSince !== undefined && activeSince <= sinceMs;
  }

  /** The response of an applied request, with the header that goes with it. Apply made it for this caller alone. */
  readonly #responseOf = <T extends { header: ResponseHeader | undefined }>(applied: Applied): T => {
    const response = applied.response as T;
    response.header = this.#headerAt(applied.revision);
    return response;
  };

  /** Over the quota already: everyone is told through the alarm, and the caller at once. */
  async #refuseForSpace(): Promise<never> {
    await this.#raiseNoSpace();
    throw new EtcdError("NoSpace");
  }

  #raiseNoSpace(): Promise<void> {
    return this.#raiseAlarm({ memberId: this.member.id, alarm: AlarmType.NoSpace });
  }

  /** Resolves when the alarm is up, or could not be raised; whoever saw the reason will see it again. */
  async #raiseAlarm(alarm: { readonly memberId: bigint; readonly alarm: number }): Promise<void> {
    try {
      await this.#submit({ alarm: { ...alarm, action: AlarmAction.Activate } }, undefined, asApplied);
    } catch (error) {
      if (!(error instanceof EtcdError)) throw error;
    }
  }

  // Keys.

  linearizableReadNotify(ctx: RequestContext): Promise<void> {
    this.#reads();
    return orAborted(this.#readIndex.wait(), ctx.signal);
  }

  async range(request: RangeRequest, ctx: RequestContext): Promise<RangeResponse> {
    const caller = await this.#beforeRange(request, ctx);
    for (let wait = this.#store.waitToCount(request); wait; wait = this.#store.waitToCount(request)) {
      await orAborted(wait, ctx.signal);
    }
    this.#checkRange(caller, request);
    const start = this.#clock.monotonicMs();
    const response = this.#store.range(request);
    response.header = this.header();
    this.#warnSlowRead(start, "read-only range ", () => [
      rangeText(request),
      `range_response_count:${response.kvs.length} size:${RangeResponse.encode(response).length}`,
    ]);
    return response;
  }

  /** What follows in an answer that has begun: at the revision of its beginning, which this member has applied. */
  async rangePart(request: RangeRequest, ctx: RequestContext) {
    this.#checkRange(await this.#caller(ctx), request);
    return this.#store.rangePart(request);
  }

  rangeEncoded(request: RangeRequest, ctx: RequestContext): EncodedRange | Promise<EncodedRange> {
    this.#reads();
    const startMs = this.#clock.monotonicMs();
    if (request.serializable) return this.#rangeEncodedNow(request, ctx, startMs);
    return this.#readIndex.wait().then(() => this.#rangeEncodedNow(request, ctx, startMs));
  }

  #rangeEncodedNow(request: RangeRequest, ctx: RequestContext, startMs: number): EncodedRange | Promise<EncodedRange> {
    const caller = this.#caller(ctx);
    if (caller instanceof Promise) return caller.then((found) => this.#rangeEncodedFor(found, request, ctx, startMs));
    return this.#rangeEncodedFor(caller, request, ctx, startMs);
  }

  #rangeEncodedFor(
    caller: Caller | undefined,
    request: RangeRequest,
    ctx: RequestContext,
    startMs: number,
  ): EncodedRange | Promise<EncodedRange> {
    this.#checkRange(caller, request);
    const counted = this.#store.waitToCount(request);
    if (counted) return orAborted(counted, ctx.signal).then(() => this.#rangeEncodedFor(caller, request, ctx, startMs));
    const agreedMs = this.#clock.monotonicMs();
    const answer = this.#store.rangeEncodedAtOnce(request);
    if (!answer) return this.#list(caller, request, ctx, { startMs, agreedMs });
    return this.#rangeAnswer(request, { startMs, agreedMs }, this.#encodedHeader(), answer);
  }

  /** A large listing: others work in between, so the permission is looked at again in the turn that answers. */
  async #list(
    caller: Caller | undefined,
    request: RangeRequest,
    ctx: RequestContext,
    begun: Begun,
  ): Promise<EncodedRange> {
    const answer = await this.#store.list(request, ctx.signal);
    this.#checkRange(caller, request);
    return this.#rangeAnswer(request, begun, RangeResponse.encode({ header: this.#headerAt(answer.revision) }), answer);
  }

  #rangeAnswer(
    request: RangeRequest,
    { startMs, agreedMs }: Begun,
    header: Uint8Array,
    { pieces, count, pairs, more, rest, marks }: StoredRange,
  ): EncodedRange {
    const all = [header, ...pieces];
    this.#warnSlowRead(agreedMs, "read-only range ", () => [
      rangeText(request),
      `range_response_count:${pairs} size:${all.reduce((sum, piece) => sum + piece.length, rest?.byteLength ?? 0)}`,
    ]);
    const endMs = this.#clock.monotonicMs();
    if (endMs - startMs > TRACE_THRESHOLD_MS) this.#traceRange(request, { startMs, agreedMs, endMs, pairs, marks });
    return { pieces: all, count, more, rest };
  }

  #traceRange(
    request: RangeRequest,
    { startMs, agreedMs, endMs, pairs, marks }: Begun & { endMs: number } & Pick<StoredRange, "pairs" | "marks">,
  ): void {
    const steps: TraceStep[] = [];
    if (!request.serializable) {
      steps.push({ text: "agreement among raft nodes before linearized reading", endMs: agreedMs });
    }
    if (marks) {
      steps.push({ text: "range keys from in-memory index tree", endMs: marks.gatheredMs });
      steps.push({ text: "filter and sort the key-value pairs", endMs: marks.sortedMs });
    }
    const isCount = request.countOnly && request.rangeEnd.length > 0;
    steps.push({ text: isCount ? "count revisions from in-memory index tree" : "range keys from bolt db", endMs });
    const detail = {
      range_begin: utf8Text(request.key),
      range_end: utf8Text(request.rangeEnd),
      response_count: pairs,
      response_revision: this.#store.currentRevision,
    };
    traceIfLong(this.#deps, { operation: "range", startMs, detail, steps });
  }

  async #beforeRange(request: RangeRequest, ctx: RequestContext): Promise<Caller | undefined> {
    this.#reads();
    if (!request.serializable) await this.#readIndex.wait();
    return this.#caller(ctx);
  }

  /** To be followed by the read without an await, so that what is read is what the permission was checked for. */
  #checkRange(caller: Caller | undefined, { key, rangeEnd }: RangeRequest): void {
    if (this.#auth.store.isEnabled) this.#auth.store.checkRange(caller, key, rangeEnd);
  }

  /** Field 1 of a response, as bytes; the same until something is written. */
  #encodedHeader(): Uint8Array {
    const revision = this.#store.currentRevision;
    const { term } = this.#loop;
    let cached = this.#headerBytes;
    if (!cached || cached.revision !== revision || cached.term !== term) {
      // A header stands in field 1 of every response; one without anything else is the field alone.
      cached = { term, revision, bytes: RangeResponse.encode({ header: this.#headerAt(revision) }) };
      this.#headerBytes = cached;
    }
    return cached.bytes;
  }

  #warnSlowRead(startMs: number, prefix: string, texts: () => readonly [request: string, response: string]): void {
    const tookMs = this.#clock.monotonicMs() - startMs;
    if (tookMs <= this.#config.warningApplyDurationMs) return;
    const [request, response] = texts();
    this.#deps.observer?.slowApply?.();
    this.#logger.warn("apply request took too long", {
      took: goDuration(tookMs),
      "expected-duration": goDuration(this.#config.warningApplyDurationMs),
      prefix,
      request,
      response,
    });
  }

  put(request: PutRequest, ctx: RequestContext): Answer<PutResponse> {
    if (!this.#quota.hasRoomFor(costOfPut(request))) return this.#refuseForSpace();
    return this.#ask({ put: request }, ctx);
  }

  deleteRange(request: DeleteRangeRequest, ctx: RequestContext): Answer<DeleteRangeResponse> {
    return this.#ask({ deleteRange: request }, ctx);
  }

  txn(request: TxnRequest, ctx: RequestContext): Answer<TxnResponse> {
    if (isTxnReadOnly(request)) return this.#readTxn(request, ctx);
    if (!this.#quota.hasRoomFor(costOfTxn(request))) return this.#refuseForSpace();
    return this.#ask({ txn: request }, ctx);
  }

  async #readTxn(request: TxnRequest, ctx: RequestContext): Promise<TxnResponse> {
    this.#reads();
    const startMs = this.#clock.monotonicMs();
    const isSerializable = isTxnSerializable(request);
    if (!isSerializable) await this.#readIndex.wait();
    if (this.#auth.store.isEnabled) this.#auth.store.checkTxn(await this.#caller(ctx), request);
    const start = this.#clock.monotonicMs();
    const response = this.#store.txnRead(request);
    response.header = this.header();
    this.#warnSlowRead(start, "read-only txn ", () => [
      txnText(request),
      txnResponseText(response, TxnResponse.encode(response).length),
    ]);
    const agreement = { text: "agreement among raft nodes before linearized reading", endMs: start };
    traceIfLong(this.#deps, {
      operation: "transaction",
      startMs,
      detail: {
        read_only: true,
        number_of_response: response.responses.length,
        response_revision: response.header?.revision ?? 0,
      },
      steps: [
        ...(isSerializable ? [] : [agreement]),
        { text: "range keys from bolt db", endMs: this.#clock.monotonicMs() },
      ],
    });
    return response;
  }

  async compact(request: CompactionRequest, ctx: RequestContext): Promise<CompactionResponse> {
    await this.#requireAdmin(ctx);
    const startMs = this.#clock.monotonicMs();
    const applied = await this.#propose({ compaction: request }, ctx);
    const steps: TraceStep[] = [
      { text: "process raft request", endMs: applied.appliedAtMs },
      { text: "check and update compact revision", endMs: this.#clock.monotonicMs() },
    ];
    if (request.physical && applied.compacted) {
      await orAborted(applied.compacted, ctx.signal);
      await this.#deps.backend.flush();
      steps.push({ text: "physically apply compaction", endMs: this.#clock.monotonicMs() });
    }
    const detail = { revision: request.revision, response_revision: applied.revision };
    traceIfLong(this.#deps, { operation: "compact", startMs, detail, steps });
    return { header: this.#headerAt(applied.revision) };
  }

  checkWatchPermission(key: Uint8Array, rangeEnd: Uint8Array, ctx: RequestContext): void | Promise<void> {
    const { store } = this.#auth;
    if (!store.isEnabled) return undefined;
    const caller = this.#caller(ctx);
    if (!(caller instanceof Promise)) return store.checkRange(caller, key, rangeEnd);
    return caller.then((found) => store.checkRange(found, key, rangeEnd));
  }

  // Leases.

  leaseGrant(request: LeaseGrantRequest, ctx: RequestContext): Answer<LeaseGrantResponse> {
    if (!this.#quota.hasRoomFor(costOfLeaseGrant(request))) return this.#refuseForSpace();
    const leaseGrant = request.id === 0n ? { ...request, id: this.#ids.leaseId() } : request;
    return this.#askAsUser({ leaseGrant }, ctx);
  }

  leaseRevoke(request: LeaseRevokeRequest, ctx: RequestContext): Answer<LeaseRevokeResponse> {
    return this.#askAsUser({ leaseRevoke: request }, ctx);
  }

  /** As {@link #ask}, for what every named user may ask for. */
  #askAsUser<T extends { header: ResponseHeader | undefined }>(body: Body, ctx: RequestContext): Answer<T> {
    if (this.#auth.store.isEnabled) return this.#askAs<T>(body, this.#requireUser(ctx));
    return this.#submit<T>(body, undefined, this.#responseOf);
  }

  /** At once in the usual case: this member leads, nothing is left to be applied, and the lease lives. */
  leaseKeepAlive(leaseId: bigint, ctx: RequestContext): LeaseKeepAliveResponse | Promise<LeaseKeepAliveResponse> {
    this.#reads();
    // Before the renewal, so that the header is no newer than the lease was seen.
    const header = this.header();
    const ttl = this.#auth.store.isEnabled ? undefined : this.#renewNow(leaseId);
    return ttl === undefined ? this.#keepAlive(header, leaseId, ctx) : { header, id: leaseId, ttl };
  }

  async #keepAlive(header: ResponseHeader, leaseId: bigint, ctx: RequestContext): Promise<LeaseKeepAliveResponse> {
    if (this.#auth.store.isEnabled) await this.#checkRenew(leaseId, ctx);
    return { header, id: leaseId, ttl: await this.#renew(leaseId, ctx) };
  }

  /** {@link renewAsLeader} where nothing has to be waited for; undefined otherwise, with nothing done. */
  #renewNow(leaseId: bigint): number | undefined {
    const loop = this.#loop;
    if (!loop.isLeader || !this.#hasTicked() || loop.committedIndex > this.#applied.reached) return undefined;
    const outcome = this.#lessor.renew(leaseId);
    if (outcome.kind !== "renewed") return undefined;
    this.#deps.observer?.leaseRenewed?.();
    return outcome.ttlSeconds;
  }

  async #checkRenew(leaseId: bigint, ctx: RequestContext): Promise<void> {
    if (this.#loop.isLeader) await this.#waitApplied();
    this.#auth.store.checkLeaseWrite(await this.#requireUser(ctx), leaseId);
  }

  /** Renews as the leader: the TTL, 0 for a lease that is unknown or too late, undefined when another one leads. */
  async renewAsLeader(leaseId: bigint, ctx: RequestContext): Promise<number | undefined> {
    if (!this.#loop.isLeader) return undefined;
    if (!(await this.#isStillLeading())) throw new EtcdError("NotPrimaryLessor");
    await this.#waitApplied();
    for (;;) {
      const outcome = this.#lessor.renew(leaseId);
      if (outcome.kind === "renewed") {
        this.#deps.observer?.leaseRenewed?.();
        return outcome.ttlSeconds;
      }
      if (outcome.kind === "unknown") return 0;
      if (outcome.kind === "notPrimary") return undefined;
      if (outcome.kind === "expired") {
        await orAborted(outcome.settled, ctx.signal);
      } else {
        const checkpoints = [{ id: leaseId, remainingTtl: 0 }];
        await this.#submit({ leaseCheckpoint: { checkpoints } }, undefined, asApplied);
      }
    }
  }

  async #renew(leaseId: bigint, ctx: RequestContext): Promise<number> {
    const deadlineMs = this.#clock.monotonicMs() + this.#timeoutMs;
    const renewed = await this.renewAsLeader(leaseId, ctx);
    if (renewed !== undefined) return renewed;
    for (;;) {
      const leaderId = await this.#waitLeader(deadlineMs, ctx);
      const ttl = await this.#transport.renewLease(leaderId, leaseId, ctx.signal);
      if (ttl !== undefined) return ttl;
      if (this.#clock.monotonicMs() >= deadlineMs) throw new EtcdError("Timeout");
      await this.#clock.sleep(50, ctx.signal);
    }
  }

  async leaseTimeToLive(request: LeaseTimeToLiveRequest, ctx: RequestContext): Promise<LeaseTimeToLiveResponse> {
    const { store } = this.#auth;
    if (!store.isEnabled) return this.#timeToLive(request, ctx);
    const caller = await this.#requireUser(ctx);
    const { revision } = store;
    if (request.keys) store.checkLeaseRead(caller, [request.id]);
    const response = await this.#timeToLive(request, ctx);
    if (request.keys) {
      if (store.revision !== revision) throw new EtcdError("AuthOldRevision");
      // The leader may know of keys that this member had not applied when it looked.
      store.checkLeaseKeys(caller, response.keys);
    }
    return response;
  }

  async #timeToLive(request: LeaseTimeToLiveRequest, ctx: RequestContext): Promise<LeaseTimeToLiveResponse> {
    if (this.#loop.isLeader) return this.leaseTimeToLiveAsLeader(request);
    const deadlineMs = this.#clock.monotonicMs() + this.#timeoutMs;
    for (;;) {
      const leaderId = await this.#waitLeader(deadlineMs, ctx);
      const response = await this.#transport.leaseTimeToLive(leaderId, request, ctx.signal);
      if (response) return response;
      if (this.#clock.monotonicMs() >= deadlineMs) throw new EtcdError("Timeout");
      await this.#clock.sleep(50, ctx.signal);
    }
  }

  /** Only the leader knows when a lease ends. */
  async leaseTimeToLiveAsLeader(request: LeaseTimeToLiveRequest): Promise<LeaseTimeToLiveResponse> {
    await this.#waitApplied();
    const lease = this.#lessor.lookup(request.id);
    if (!lease) return { header: this.header(), id: request.id, ttl: -1, grantedTtl: 0, keys: [] };
    if (!Number.isFinite(lease.remainingMs)) throw new EtcdError("LeaderChanged");
    return {
      header: this.header(),
      id: request.id,
      ttl: Math.trunc(lease.remainingMs / 1000),
      grantedTtl: lease.grantedTtlSeconds,
      keys: request.keys ? this.#store.keysOfLease(request.id) : [],
    };
  }

  async leaseLeases(ctx: RequestContext): Promise<LeaseLeasesResponse> {
    const caller = await this.#requireUser(ctx);
    const ids = this.#lessor.leases().map(({ id }) => id);
    this.#auth.store.checkLeaseRead(caller, ids);
    return { header: this.header(), leases: ids.map((id) => ({ id })) };
  }

  /** A leader whose clock stood still may have been replaced meanwhile: only a round with the others tells. */
  async #isStillLeading(): Promise<boolean> {
    if (this.#hasTicked()) return true;
    try {
      await this.#readIndex.wait();
    } catch (error) {
      this.#logger.warn("Failed to check current member's leadership", { error });
      return false;
    }
    if (this.#loop.isLeader) return true;
    this.#logger.warn("Current member isn't a leader", {
      "local-member-id": hexId(this.member.id),
      "new-lead": hexId(this.#loop.leaderId),
    });
    return false;
  }

  #hasTicked(): boolean {
    return this.#loop.hasTickedWithin(3 * this.#config.tickMs);
  }

  /** Until what was committed at the call is applied. */
  async #waitApplied(): Promise<void> {
    const index = this.#loop.committedIndex;
    if (index <= this.#applied.reached) return;
    const overdue = new AbortController();
    const timer = this.#clock.after(APPLIED_INDEX_WAIT_MS, () =>
      overdue.abort(new EtcdError("TimeoutWaitAppliedIndex")),
    );
    try {
      await this.#applied.wait(index, overdue.signal);
    } finally {
      timer.cancel();
    }
  }

  async #waitLeader(deadlineMs: number, ctx: RequestContext): Promise<bigint> {
    while (this.#loop.leaderId === 0n) {
      const leftMs = deadlineMs - this.#clock.monotonicMs();
      if (leftMs <= 0) throw new EtcdError("NoLeader");
      if (this.#stop.signal.aborted) throw new EtcdError("Stopped");
      await this.#clock.sleep(Math.min(electionTimeoutMs(this.#config), leftMs), ctx.signal);
    }
    return this.#loop.leaderId;
  }

  /** Finds expired leases and due checkpoints twice a second and proposes what follows. */
  async #watchLeases(): Promise<void> {
    let inFlight = 0;
    for await (const _tick of this.#clock.every(EXPIRED_LEASE_SCAN_MS, this.#stop.signal)) {
      if (!this.#lessor.isPrimary) continue;
      const expired = this.#lessor.takeExpired();
      if (expired.length > 0 && !(await this.#isStillLeading())) {
        this.#logger.warn("Ignore the lease revoking request because current member isn't a leader", {
          "local-member-id": hexId(this.member.id),
        });
        continue;
      }
      for (const { id } of expired) {
        while (inFlight >= LEASE_REVOKES_IN_FLIGHT_MAX && !this.#stop.signal.aborted) await this.#pause(10);
        inFlight++;
        void this.#revokeExpired(id).finally(() => inFlight--);
      }
      const checkpoints = this.#lessor.takeCheckpoints();
      if (checkpoints.length > 0) {
        const leaseCheckpoint = {
          checkpoints: checkpoints.map(({ id, remainingTtlSeconds }) => ({ id, remainingTtl: remainingTtlSeconds })),
        };
        try {
          await this.#submit({ leaseCheckpoint }, undefined, asApplied);
        } catch (error) {
          this.#logger.warn("failed to checkpoint leases", { error });
        }
      }
    }
  }

  async #revokeExpired(id: bigint): Promise<void> {
    this.#deps.observer?.leaseExpired?.();
    try {
      await this.#submit({ leaseRevoke: { id } }, this.#auth.root(), asApplied);
    } catch (error) {
      if (this.#stop.signal.aborted) return;
      if (error instanceof EtcdError && error.kind === "LeaseNotFound") return;
      this.#logger.warn("failed to revoke lease", { "lease-id": leaseHex(id), error });
    }
  }

  // Members.

  async memberAdd(request: MemberAddRequest, ctx: RequestContext): Promise<MemberAddResponse> {
    const peerUrls = request.peerUrls.toSorted();
    if (peerUrls.length === 0 || !peerUrls.every(isPeerUrl)) throw new EtcdError("MemberBadURLs");
    await this.#requireAdmin(ctx);
    const id = computeMemberId(peerUrls, { addedAtSeconds: Math.floor(this.#clock.nowMs() / 1000) });
    const { isLearner } = request;
    if (this.#config.strictReconfigCheck) {
      const fields = { "local-member-id": hexId(this.member.id), "requested-member-add": `${hexId(id)}` };
      // A learner has no part in the quorum; but who is not connected to all should not add anybody.
      if (!isLearner && !this.#cluster.isReadyToAddVotingMember()) {
        const error = new EtcdError("MemberNotEnoughStarted");
        this.#logger.warn("rejecting member add request; not enough healthy members", { ...fields, error });
        throw error;
      }
      if (!this.#isConnectedToAll(this.#clock.monotonicMs() - HEALTHY_PERIOD_MS)) {
        const error = new EtcdError("Unhealthy");
        this.#logger.warn(
          "rejecting member add request; local member has not been connected to all peers, reconfigure breaks active quorum",
          { ...fields, error },
        );
        throw error;
      }
    }
    const member: Member = { id, name: "", peerUrls, clientUrls: [], isLearner };
    const members = await this.#changeMembers(
      isLearner ? ConfChangeType.ConfChangeAddLearnerNode : ConfChangeType.ConfChangeAddNode,
      id,
      encodeConfChangeContext({ member, isPromote: false }),
      ctx,
    );
    return {
      header: this.#memberHeader(),
      member: wireMember(member),
      members: members.map(wireMember),
    };
  }

  async memberRemove(request: MemberRemoveRequest, ctx: RequestContext): Promise<MemberRemoveResponse> {
    await this.#requireAdmin(ctx);
    const member = this.#cluster.member(request.id);
    if (this.#config.strictReconfigCheck && member && !member.isLearner) this.#refuseRemoval(member);
    const members = await this.#changeMembers(ConfChangeType.ConfChangeRemoveNode, request.id, undefined, ctx);
    return { header: this.#memberHeader(), members: members.map(wireMember) };
  }

  #refuseRemoval(member: Member): void {
    const fields = { "local-member-id": hexId(this.member.id) };
    if (!this.#cluster.isReadyToRemoveVotingMember(member.id)) {
      const error = new EtcdError("MemberNotEnoughStarted");
      this.#logger.warn("rejecting member remove request; not enough healthy members", {
        ...fields,
        "requested-member-remove-id": hexId(member.id),
        error,
      });
      throw error;
    }
    // One that cannot be reached anyway may always go.
    if (member.id !== this.member.id && this.#transport.activeSinceMs(member.id) === undefined) return;
    const voters = this.#cluster.votingMembers();
    const sinceMs = this.#clock.monotonicMs() - HEALTHY_PERIOD_MS;
    const active = voters.filter((other) => this.#isConnectedSince(other.id, sinceMs)).length;
    if (active - 1 < 1 + Math.floor((voters.length - 1) / 2)) {
      const error = new EtcdError("Unhealthy");
      this.#logger.warn(
        "rejecting member remove request; local member has not been connected to all peers, reconfigure breaks active quorum",
        { ...fields, "requested-member-remove": hexId(member.id), "active-peers": active, error },
      );
      throw error;
    }
  }

  async memberUpdate(request: MemberUpdateRequest, ctx: RequestContext): Promise<MemberUpdateResponse> {
    await this.#requireAdmin(ctx);
    if (request.peerUrls.length === 0 || !request.peerUrls.every(isPeerUrl)) throw new EtcdError("MemberBadURLs");
    const isLearner = this.#cluster.member(request.id)?.isLearner ?? false;
    const member: Member = { id: request.id, name: "", peerUrls: request.peerUrls, clientUrls: [], isLearner };
    const members = await this.#changeMembers(
      ConfChangeType.ConfChangeUpdateNode,
      request.id,
      encodeConfChangeContext({ member, isPromote: false }),
      ctx,
    );
    return { header: this.#memberHeader(), members: members.map(wireMember) };
  }

  async memberPromote(request: MemberPromoteRequest, ctx: RequestContext): Promise<MemberPromoteResponse> {
    await this.#requireAdmin(ctx);
    const members = this.#loop.isLeader
      ? await this.#promoteAsLeader(request.id, ctx)
      : await this.#promoteAtLeader(request.id, ctx);
    return { header: this.#memberHeader(), members: members.map(wireMember) };
  }

  /** Asks whoever leads, and again when that one did not decide: it may lead no longer. */
  async #promoteAtLeader(id: bigint, ctx: RequestContext): Promise<readonly Member[]> {
    const deadlineMs = this.#clock.monotonicMs() + this.#timeoutMs;
    for (;;) {
      const leaderId = await this.#waitLeader(deadlineMs, ctx);
      try {
        if (leaderId === this.member.id) return await this.#promoteAsLeader(id, ctx);
        return await this.#transport.promoteMember(leaderId, id, ctx);
      } catch (error) {
        if (ctx.signal?.aborted || (error instanceof EtcdError && promotionVerdicts.has(error.kind))) throw error;
        if (this.#clock.monotonicMs() >= deadlineMs) throw new EtcdError("Timeout", { cause: error });
      }
      await this.#clock.sleep(50, ctx.signal);
    }
  }

  /** Another member passes on what its caller, named by `ctx`, asked of it. */
  async promoteForPeer(id: bigint, ctx: RequestContext): Promise<readonly Member[]> {
    await this.#requireAdmin(ctx);
    return this.#promoteAsLeader(id, ctx);
  }

  /** Only the leader knows how far a learner is. */
  async #promoteAsLeader(id: bigint, ctx: RequestContext): Promise<readonly Member[]> {
    if (!this.#loop.isLeader) throw new EtcdError("NotLeader");
    const { observer } = this.#deps;
    try {
      const members = await this.#promote(id, ctx);
      observer?.learnerPromoted?.(undefined);
      return members;
    } catch (error) {
      observer?.learnerPromoted?.((error as Error).message);
      throw error;
    }
  }

  async #promote(id: bigint, ctx: RequestContext): Promise<readonly Member[]> {
    await this.#waitApplied();
    const { progress } = this.#deps.node.status();
    const target = progress.get(id);
    if (!target) throw new EtcdError("MemberNotFound");
    const leaderMatch = progress.get(this.member.id)?.match ?? 0;
    if (target.isLearner && target.match < leaderMatch * LEARNER_READY_PORTION) throw new EtcdError("LearnerNotReady");
    if (this.#config.strictReconfigCheck && !this.#cluster.isReadyToPromoteMember()) {
      const error = new EtcdError("MemberNotEnoughStarted");
      this.#logger.warn("rejecting member promote request; not enough healthy members", {
        "local-member-id": hexId(this.member.id),
        "requested-member-remove-id": hexId(id),
        error,
      });
      throw error;
    }
    const member: Member = { id, name: "", peerUrls: [], clientUrls: [], isLearner: false };
    const context = encodeConfChangeContext({ member, isPromote: true });
    return this.#changeMembers(ConfChangeType.ConfChangeAddNode, id, context, ctx);
  }

  async memberList(request: MemberListRequest, ctx: RequestContext): Promise<MemberListResponse> {
    if (request.linearizable) await this.linearizableReadNotify(ctx);
    await this.#requireUser(ctx);
    return { header: this.#memberHeader(), members: this.#cluster.members().map(wireMember) };
  }

  /** The members as they were when the change was applied. Waits as long as the caller does. */
  async #changeMembers(
    type: ConfChangeType,
    nodeId: bigint,
    context: Uint8Array | undefined,
    ctx: RequestContext,
  ): Promise<readonly Member[]> {
    if (this.#stopping) throw new EtcdError("Stopped");
    const suffix = this.#ids.next();
    const change: ConfChange = { id: this.#ids.idOf(suffix), type, nodeId, context };
    const applied = new Promise<Applied>((resolve, reject) => this.#pendingChanges.set(suffix, { resolve, reject }));
    this.#loop.propose({ kind: "confChange", suffix, change });
    try {
      const { response } = await orAborted(applied, ctx.signal);
      this.#logger.info("applied a configuration change through raft", {
        "local-member-id": hexId(this.member.id),
        "raft-conf-change": ConfChangeTypeInfo.nameOf[type] ?? type,
        "raft-conf-change-node-id": hexId(nodeId),
      });
      return response as readonly Member[];
    } finally {
      this.#pendingChanges.delete(suffix);
    }
  }

  /** All voters, without a break since then. */
  #isConnectedToAll(sinceMs: number): boolean {
    const voters = this.#cluster.votingMembers();
    return voters.every((member) => this.#isConnectedSince(member.id, sinceMs));
  }

  // Maintenance.

  async alarm(request: AlarmRequest, ctx: RequestContext): Promise<AlarmResponse> {
    if (request.action === AlarmAction.Get) await this.#requireUser(ctx);
    else await this.#requireAdmin(ctx);
    // A real member that applied an action or an alarm it does not know would end: so none gets into the log.
    if (request.action > AlarmAction.Deactivate || request.alarm > AlarmType.Corrupt) {
      return { header: this.header(), alarms: [] };
    }
    return this.#responseOf<AlarmResponse>(await this.#propose({ alarm: request }, ctx));
  }

  async status(ctx: RequestContext): Promise<StatusResponse> {
    await this.#requireAdmin(ctx);
    const { backend } = this.#deps;
    const errors: string[] = [];
    if (this.#loop.leaderId === 0n) errors.push(new EtcdError("NoLeader").message);
    for (const alarm of this.alarms()) errors.push(`memberID:${alarm.memberId} alarm:${alarmName(alarm.alarm)} `);
    return {
      ...StatusResponse.create(),
      header: this.header(),
      version: SERVER_VERSION,
      dbSize: backend.sizeBytes(),
      dbSizeInUse: backend.sizeInUseBytes(),
      leader: this.#loop.leaderId,
      raftIndex: this.#loop.committedIndex,
      raftAppliedIndex: this.#apply.appliedIndex,
      raftTerm: this.#loop.term,
      errors,
      isLearner: this.#cluster.isLocalMemberLearner(),
    };
  }

  async defragment(ctx: RequestContext, started?: () => void): Promise<DefragmentResponse> {
    await this.#requireAdminBluntly(ctx);
    started?.();
    await this.#deps.backend.defragment();
    return { header: undefined };
  }

  async hash(ctx: RequestContext): Promise<HashResponse> {
    await this.#requireAdminBluntly(ctx);
    const { hash, revision } = await this.#store.hash(ctx.signal);
    return { header: this.#headerAt(revision), hash };
  }

  async hashKv(request: HashKVRequest, ctx: RequestContext): Promise<HashKVResponse> {
    await this.#requireAdminBluntly(ctx);
    const header = this.header();
    const { hash, compactRevision } = await this.#store.hashKv(request.revision, ctx.signal);
    return { header, hash, compactRevision, hashRevision: 0 };
  }

  async snapshot(ctx: RequestContext): Promise<SnapshotStream> {
    await this.#requireAdminBluntly(ctx);
    return this.#openImage({ signal: ctx.signal, wantsHash: true });
  }

  async #openImage(options: ExportOptions): Promise<SnapshotStream> {
    const image = await this.#deps.exportImage(options);
    const { sizeBytes } = image;
    const startMs = this.#clock.monotonicMs();
    const patienceMs = Math.max(SNAPSHOT_WARNING_MS, (sizeBytes / SNAPSHOT_BYTES_PER_SECOND) * 1000);
    let timer: Timer;
    // A reader that takes its time keeps pages of the backend from being used again.
    const watch = () => {
      timer = this.#clock.after(
        patienceMs,
        () => {
          this.#logger.warn("snapshotting taking too long to transfer", {
            taking: goDuration(this.#clock.monotonicMs() - startMs),
            bytes: sizeBytes,
            size: humanBytes(sizeBytes),
          });
          watch();
        },
        { unref: true },
      );
    };
    watch();
    return {
      totalBytes: sizeBytes,
      chunks: () => image.chunks(),
      sha256: () => image.sha256(),
      close: () => {
        timer.cancel();
        return image.close();
      },
    };
  }

  async moveLeader(request: MoveLeaderRequest, ctx: RequestContext): Promise<MoveLeaderResponse> {
    await this.#requireAdmin(ctx);
    if (!this.#loop.isLeader) throw new EtcdError("NotLeader");
    await this.#transferLeadership(request.targetId, ctx.signal);
    return { header: undefined };
  }

  async #transferLeadership(to: bigint, signal: AbortSignal | undefined): Promise<void> {
    const target = this.#cluster.member(to);
    if (!target || target.isLearner) throw new EtcdError("BadLeaderTransferee");
    const startMs = this.#clock.monotonicMs();
    const from = this.#loop.leaderId;
    this.#logger.info("leadership transfer starting", {
      "local-member-id": hexId(this.member.id),
      "current-leader-member-id": hexId(from),
      "transferee-member-id": hexId(to),
    });
    this.#loop.call((node) => node.transferLeadership(to));
    while (this.#loop.leaderId !== to) {
      try {
        await this.#clock.sleep(this.#config.tickMs, signal);
      } catch {
        throw new EtcdError("TimeoutLeaderTransfer");
      }
      if (this.#stop.signal.aborted) throw new EtcdError("Stopped");
    }
    this.#logger.info("leadership transfer finished", {
      "local-member-id": hexId(this.member.id),
      "old-leader-member-id": hexId(from),
      "new-leader-member-id": hexId(to),
      took: goDuration(this.#clock.monotonicMs() - startMs),
    });
  }

  /** Before a stop: to the voter that has been connected for the longest. */
  async #handOverLeadership(): Promise<void> {
    const fields = {
      "local-member-id": hexId(this.member.id),
      "current-leader-member-id": hexId(this.#loop.leaderId),
    };
    if (!this.#loop.isLeader) {
      this.#logger.info("skipped leadership transfer; local server is not leader", fields);
      return;
    }
    const others = this.#cluster.votingMembers().filter((member) => member.id !== this.member.id);
    if (others.length === 0) {
      this.#logger.info("skipped leadership transfer for single voting member cluster", fields);
      return;
    }
    let target: { readonly id: bigint; readonly sinceMs: number } | undefined;
    for (const { id } of others) {
      const sinceMs = this.#transport.activeSinceMs(id);
      if (sinceMs !== undefined && (!target || sinceMs < target.sinceMs)) target = { id, sinceMs };
    }
    const deadline = new AbortController();
    const timer = this.#clock.after(this.#timeoutMs, () => deadline.abort());
    try {
      if (!target) throw new EtcdError("Unhealthy");
      await this.#transferLeadership(target.id, deadline.signal);
    } catch (error) {
      this.#logger.warn("leadership transfer failed", { "local-member-id": hexId(this.member.id), error });
    } finally {
      timer.cancel();
    }
  }

  async downgrade(request: DowngradeRequest, ctx: RequestContext): Promise<DowngradeResponse> {
    await this.#requireAdmin(ctx);
    switch (request.action) {
      case DowngradeAction.Validate:
        await this.#validateDowngrade(request.version, ctx);
        break;
      case DowngradeAction.Enable: {
        const ver = await this.#validateDowngrade(request.version, ctx);
        await this.#propose({ downgradeInfoSet: { enabled: true, ver } }, ctx);
        break;
      }
      case DowngradeAction.Cancel:
        await this.linearizableReadNotify(ctx);
        if (!this.#cluster.downgradeInfo().enabled) throw new EtcdError("NoInflightDowngrade");
        await this.#propose({ downgradeInfoSet: { enabled: false, ver: "" } }, ctx);
        break;
      default:
        throw new EtcdError("UnknownMethod");
    }
    return { header: this.header(), version: this.#cluster.version() ?? "" };
  }

  /** The target as `x.y.0`. */
  async #validateDowngrade(text: string, ctx: RequestContext): Promise<string> {
    const target = parseVersion(/^\d+\.\d+$/.test(text) ? `${text}.0` : text);
    if (!target) throw new EtcdError("WrongDowngradeVersionFormat");
    await this.linearizableReadNotify(ctx);
    const current = parseVersion(this.#cluster.version() ?? "");
    if (!current) throw new EtcdError("ClusterVersionUnavailable");
    const wanted = { ...target, patch: 0 };
    if (compareVersions(wanted, allowedDowngradeVersion(current)) !== 0) {
      throw new EtcdError("InvalidDowngradeTargetVersion");
    }
    if (this.#cluster.downgradeInfo().enabled) throw new EtcdError("DowngradeInProcess");
    return `${wanted.major}.${wanted.minor}.0`;
  }

  /** The leader ends a downgrade once every member has come to its version. */
  async #watchDowngrade(): Promise<void> {
    const intervalMs = this.#config.downgradeCheckIntervalMs;
    if (intervalMs <= 0) return;
    for await (const _tick of this.#clock.every(intervalMs, this.#stop.signal)) {
      const { enabled, targetVersion } = this.#cluster.downgradeInfo();
      if (!enabled || !this.#loop.isLeader) continue;
      const isDone = await isDowngraded({
        cluster: this.#cluster,
        memberId: this.member.id,
        targetVersion,
        transport: this.#transport,
        logger: this.#logger,
      });
      if (!isDone || !this.#loop.isLeader) continue;
      this.#logger.info("the cluster has been downgraded", { "cluster-version": targetVersion });
      try {
        await this.#submit({ downgradeInfoSet: { enabled: false, ver: "" } }, undefined, asApplied);
      } catch (error) {
        this.#logger.warn("failed to cancel downgrade", { error });
      }
    }
  }

  async #watchClusterVersion(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      await this.#nextVersionCheck();
      if (this.#stop.signal.aborted || !this.#loop.isLeader) continue;
      const found = await decideClusterVersion({
        cluster: this.#cluster,
        memberId: this.member.id,
        transport: this.#transport,
        logger: this.#logger,
      });
      const current = this.#cluster.version();
      const next = nextClusterVersion(current, found);
      if (next === undefined || !this.#loop.isLeader) continue;
      logClusterVersionProposal(this.#logger, current, next);
      try {
        await this.#submitV2({ method: "PUT", path: versionPath, val: next });
        this.#logger.info("cluster version is updated", { "cluster-version": this.#shortClusterVersion() });
      } catch (error) {
        if (this.#stop.signal.aborted) return;
        this.#logger.warn("failed to update cluster version", { error });
      }
    }
  }

  #watchCorruption(): Promise<void> {
    const deps = {
      clock: this.#clock,
      logger: this.#logger,
      memberId: this.member.id,
      requestTimeoutMs: this.#timeoutMs,
      isLeader: () => this.#loop.isLeader,
      members: () => this.#cluster.members(),
      hashKv: (revision: number, signal?: AbortSignal) => this.#store.hashKv(revision, signal),
      compactionHashes: () => this.#store.compactionHashes,
      peerHashKv: (url: string, revision: number, signal: AbortSignal) => this.#transport.hashKv(url, revision, signal),
      linearizableRead: (signal: AbortSignal) => this.linearizableReadNotify({ signal }),
      raiseCorrupt: () => void this.#raiseAlarm({ memberId: 0n, alarm: AlarmType.Corrupt }),
    };
    return runCorruptionChecks(new CorruptionChecker(deps), this.#config, deps, this.#stop.signal);
  }

  /** Some seconds, or until a leader has committed its first entry. */
  async #nextVersionCheck(): Promise<void> {
    const first = deferred();
    const listener = () => first.resolve();
    this.#firstCommitListeners.push(listener);
    await Promise.race([first.promise, this.#pause(CLUSTER_VERSION_CHECK_MS)]);
    this.#firstCommitListeners = this.#firstCommitListeners.filter((other) => other !== listener);
  }

  // Auth: every request but the queries of one's own goes through raft.

  async #proposeAuth<T extends { header: ResponseHeader | undefined }>(body: Body, ctx: RequestContext): Promise<T> {
    return this.#responseOf<T>(await this.#propose(body, ctx));
  }

  authEnable(request: AuthEnableRequest, ctx: RequestContext): Promise<AuthEnableResponse> {
    return this.#proposeAuth({ authEnable: request }, ctx);
  }

  authDisable(request: AuthDisableRequest, ctx: RequestContext): Promise<AuthDisableResponse> {
    return this.#proposeAuth({ authDisable: request }, ctx);
  }

  authStatus(request: AuthStatusRequest, ctx: RequestContext): Promise<AuthStatusResponse> {
    return this.#proposeAuth({ authStatus: request }, ctx);
  }

  async authenticate(request: AuthenticateRequest, ctx: RequestContext): Promise<AuthenticateResponse> {
    await this.linearizableReadNotify(ctx);
    for (;;) {
      const login = await this.#auth.login(request);
      const applied = await this.#submit({ authenticate: login.request }, undefined, asApplied);
      const token = await this.#auth.finishLogin(login, (applied.response as AuthenticateResponse).token);
      if (token !== undefined) return { header: this.#headerAt(applied.revision), token };
    }
  }

  /** Hashing is dear: only those who may add users get that far. */
  async userAdd(request: AuthUserAddRequest, ctx: RequestContext): Promise<AuthUserAddResponse> {
    await this.#requireAdmin(ctx);
    return this.#proposeAuth({ authUserAdd: await this.#auth.hashNewUser(request) }, ctx);
  }

  userGet(request: AuthUserGetRequest, ctx: RequestContext): Promise<AuthUserGetResponse> {
    return this.#proposeAuth({ authUserGet: request }, ctx);
  }

  userList(request: AuthUserListRequest, ctx: RequestContext): Promise<AuthUserListResponse> {
    return this.#proposeAuth({ authUserList: request }, ctx);
  }

  userDelete(request: AuthUserDeleteRequest, ctx: RequestContext): Promise<AuthUserDeleteResponse> {
    return this.#proposeAuth({ authUserDelete: request }, ctx);
  }

  async userChangePassword(
    request: AuthUserChangePasswordRequest,
    ctx: RequestContext,
  ): Promise<AuthUserChangePasswordResponse> {
    await this.#requireAdmin(ctx);
    return this.#proposeAuth({ authUserChangePassword: await this.#auth.hashNewPassword(request) }, ctx);
  }

  userGrantRole(request: AuthUserGrantRoleRequest, ctx: RequestContext): Promise<AuthUserGrantRoleResponse> {
    return this.#proposeAuth({ authUserGrantRole: request }, ctx);
  }

  userRevokeRole(request: AuthUserRevokeRoleRequest, ctx: RequestContext): Promise<AuthUserRevokeRoleResponse> {
    return this.#proposeAuth({ authUserRevokeRole: request }, ctx);
  }

  roleAdd(request: AuthRoleAddRequest, ctx: RequestContext): Promise<AuthRoleAddResponse> {
    return this.#proposeAuth({ authRoleAdd: request }, ctx);
  }

  roleGet(request: AuthRoleGetRequest, ctx: RequestContext): Promise<AuthRoleGetResponse> {
    return this.#proposeAuth({ authRoleGet: request }, ctx);
  }

  roleList(request: AuthRoleListRequest, ctx: RequestContext): Promise<AuthRoleListResponse> {
    return this.#proposeAuth({ authRoleList: request }, ctx);
  }

  roleDelete(request: AuthRoleDeleteRequest, ctx: RequestContext): Promise<AuthRoleDeleteResponse> {
    return this.#proposeAuth({ authRoleDelete: request }, ctx);
  }

  roleGrantPermission(
    request: AuthRoleGrantPermissionRequest,
    ctx: RequestContext,
  ): Promise<AuthRoleGrantPermissionResponse> {
    return this.#proposeAuth({ authRoleGrantPermission: request }, ctx);
  }

  roleRevokePermission(
    request: AuthRoleRevokePermissionRequest,
    ctx: RequestContext,
  ): Promise<AuthRoleRevokePermissionResponse> {
    return this.#proposeAuth({ authRoleRevokePermission: request }, ctx);
  }
}

/** The kind of a request as etcd's metrics name it: `Put`, `DeleteRange`, `AuthUserAdd`. */
function operationName(request: InternalRaftRequest): string {
  if (request.put) return "Put";
  if (request.txn) return "Txn";
  if (request.authStatus) return "unknown";
  for (const { key, name } of OPERATIONS) if (request[key] !== undefined) return name;
  return "unknown";
}

const OPERATIONS = InternalRaftRequest.fields
  .filter(({ key }) => key !== "header" && key !== "id")
  .map(({ key }) => ({
    key: key as keyof InternalRaftRequest,
    name: key.charAt(0).toUpperCase() + key.substring(1),
  }));

function wireMember(member: Member): MemberListResponse["members"][number] {
  return {
    id: member.id,
    name: member.name,
    peerUrls: [...member.peerUrls],
    clientUrls: [...member.clientUrls],
    isLearner: member.isLearner,
  };
}

function isPeerUrl(text: string): boolean {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  return url !== undefined && /^(https?|unixs?):$/.test(url.protocol) && url.pathname.replace("/", "") === "";
}
