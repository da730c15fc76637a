/**
 * The families of all rooms but the API's own, with etcd's names, labels and buckets. Rooms report to the observers
 * made here, or are asked when somebody scrapes; none of them knows of metrics.
 */
import type { EtcdServer, ServerObserver } from "./etcdserver/index.ts";
import { hexId } from "./lib/bytes.ts";
import {
  counter,
  exponentialBounds,
  type Family,
  gauge,
  Histogram,
  LabelledHistograms,
  LabelledValues,
} from "./lib/metrics.ts";
import type { MvccStats, MvccTimes } from "./mvcc/index.ts";
import type { BackendObserver, SnapObserver, WalObserver } from "./storage/index.ts";
import type { TransportObserver } from "./transport/index.ts";

/** What is asked at a scrape. */
export interface MetricSources {
  readonly server: EtcdServer & { readonly pendingProposals?: number };
  readonly store: {
    readonly stats: MvccStats;
    readonly times: MvccTimes;
    readonly currentRevision: number;
    readonly compactRevision: number;
    readonly watch: {
      readonly stats: {
        readonly streams: number;
        readonly watchers: number;
        readonly slowWatchers: number;
        readonly pendingEvents: number;
        readonly events: number;
      };
    };
  };
  readonly backend: { sizeBytes(): number; sizeInUseBytes(): number };
  readonly quotaBytes: number;
}

const milliseconds = exponentialBounds(0.001, 2, 14);
const seconds = (durationMs: number) => durationMs / 1000;

export class MemberMetrics {
  readonly #walSync = new Histogram(milliseconds);
  #walBytes = 0;
  readonly #commit = new Histogram(milliseconds);
  readonly #defragment = new Histogram(exponentialBounds(0.1, 2, 13));
  readonly #backendSnapshot = new Histogram(exponentialBounds(0.01, 2, 17));
  readonly #snapMarshal = new Histogram(milliseconds);
  readonly #snapSync = new Histogram(milliseconds);
  readonly #snapSave = new Histogram(milliseconds);
  readonly #snapDatabaseSync = new Histogram(milliseconds);
  readonly #snapDatabaseSave = new Histogram(exponentialBounds(0.1, 2, 10));
  readonly #roundTrip = new LabelledHistograms(exponentialBounds(0.0001, 2, 16));
  readonly #sentBytes = new LabelledValues();
  readonly #receivedBytes = new LabelledValues();
  readonly #sendFailures = new LabelledValues();
  readonly #receiveFailures = new LabelledValues();
  readonly #activePeers = new LabelledValues();
  readonly #disconnectedPeers = new LabelledValues();
  readonly #snapshots = {
    send: { inflight: new LabelledValues(), success: new LabelledValues(), failures: new LabelledValues() },
    receive: { inflight: new LabelledValues(), success: new LabelledValues(), failures: new LabelledValues() },
  };
  readonly #snapshotDurations = {
    send: new LabelledHistograms(exponentialBounds(0.1, 2, 10)),
    receive: new LabelledHistograms(exponentialBounds(0.1, 2, 10)),
  };
  #proposalsFailed = 0;
  #leaderChanges = 0;
  readonly #applied = new LabelledHistograms(exponentialBounds(0.0001, 2, 20));
  readonly #leaseTtls = new Histogram(exponentialBounds(1, 2, 24));
  /** Of {@link #applied}, by operation. */
  readonly #succeeded = new Map<string, Histogram>();
  readonly #failed = new Map<string, Histogram>();
  #leasesGranted = 0;
  #leasesRevoked = 0;
  #leasesRenewed = 0;
  #leasesExpired = 0;
  #lateHeartbeats = 0;
  #promotions = 0;
  readonly #refusedPromotions = new LabelledValues();
  #isInstalling = false;
  #slowApplies = 0;
  #slowReads = 0;
  #failedReads = 0;
  #sources: MetricSources | undefined;
  #localId = "";

  readonly wal: WalObserver = {
    synced: (durationMs) => this.#walSync.observe(seconds(durationMs)),
    wrote: (bytes) => {
      this.#walBytes += bytes;
    },
  };

  readonly backend: BackendObserver = {
    committed: ({ durationMs }) => this.#commit.observe(seconds(durationMs)),
    defragmented: (durationMs) => this.#defragment.observe(seconds(durationMs)),
    snapshotted: (durationMs) => this.#backendSnapshot.observe(seconds(durationMs)),
  };

  readonly snap: SnapObserver = {
    marshalled: (durationMs) => this.#snapMarshal.observe(seconds(durationMs)),
    synced: (durationMs) => this.#snapSync.observe(seconds(durationMs)),
    saved: (durationMs) => this.#snapSave.observe(seconds(durationMs)),
    databaseSynced: (durationMs) => this.#snapDatabaseSync.observe(seconds(durationMs)),
    databaseSaved: (durationMs) => this.#snapDatabaseSave.observe(seconds(durationMs)),
  };

  readonly server: ServerObserver = {
    proposalFailed: () => {
      this.#proposalsFailed++;
    },
    leaderChanged: (hasLeader) => {
      if (hasLeader) this.#leaderChanges++;
    },
    slowApply: () => {
      this.#slowApplies++;
    },
    slowRead: () => {
      this.#slowReads++;
    },
    readFailed: () => {
      this.#failedReads++;
    },
    requestApplied: (operation, isOk, durationMs) => {
      const known = isOk ? this.#succeeded : this.#failed;
      let histogram = known.get(operation);
      if (!histogram) {
        histogram = this.#applied.at({ version: "v3", op: operation, success: String(isOk) });
        known.set(operation, histogram);
      }
      histogram.observe(seconds(durationMs));
    },
    leaseGranted: (ttlSeconds) => {
      this.#leasesGranted++;
      this.#leaseTtls.observe(ttlSeconds);
    },
    leaseRevoked: () => {
      this.#leasesRevoked++;
    },
    leaseRenewed: () => {
      this.#leasesRenewed++;
    },
    leaseExpired: () => {
      this.#leasesExpired++;
    },
    heartbeatLate: () => {
      this.#lateHeartbeats++;
    },
    learnerPromoted: (refusal) => {
      if (refusal === undefined) this.#promotions++;
      else this.#refusedPromotions.add({ Reason: refusal });
    },
    installing: (isInstalling) => {
      this.#isInstalling = isInstalling;
    },
  };

  readonly transport: TransportObserver = {
    sentBytes: (to, bytes) => this.#sentBytes.add({ To: hexId(to) }, bytes),
    receivedBytes: (from, bytes) => this.#receivedBytes.add({ From: hexId(from) }, bytes),
    sendFailed: (to) => this.#sendFailures.add({ To: hexId(to) }),
    receiveFailed: (from) => this.#receiveFailures.add({ From: hexId(from) }),
    roundTrip: (to, durationMs) => this.#roundTrip.observe({ To: hexId(to) }, seconds(durationMs)),
    peerActive: (peer, isActive) => {
      const labels = { Local: this.#localId, Remote: hexId(peer) };
      this.#activePeers.set(labels, isActive ? 1 : 0);
      if (!isActive) this.#disconnectedPeers.add(labels);
    },
    snapshotStarted: (direction, peer) => {
      this.#snapshots[direction].inflight.add(this.#peerLabel(direction, peer));
    },
    snapshotEnded: (direction, peer, ok, durationMs) => {
      const label = this.#peerLabel(direction, peer);
      const { inflight, success, failures } = this.#snapshots[direction];
      inflight.add(label, -1);
      (ok ? success : failures).add(label);
      if (ok) this.#snapshotDurations[direction].observe(label, seconds(durationMs));
    },
  };

  #peerLabel(direction: "send" | "receive", peer: bigint): Readonly<Record<string, string>> {
    return direction === "send" ? { To: hexId(peer) } : { From: hexId(peer) };
  }

  /** The id of this member, for labels; known before there is anything to ask. */
  setLocalId(id: bigint): void {
    this.#localId = hexId(id);
  }

  attach(sources: MetricSources): void {
    this.#sources = sources;
  }

  families(): Family[] {
    return [...this.#disk(), ...this.#network(), ...this.#members(), ...this.#stored()];
  }

  #disk(): Family[] {
    return [
      this.#walSync.family("etcd_disk_wal_fsync_duration_seconds", "The latency distributions of fsync called by WAL."),
      gauge("etcd_disk_wal_write_bytes_total", "Total number of bytes written in WAL.", this.#walBytes),
      this.#commit.family(
        "etcd_disk_backend_commit_duration_seconds",
        "The latency distributions of commit called by backend.",
      ),
      this.#defragment.family(
        "etcd_disk_backend_defrag_duration_seconds",
        "The latency distribution of backend defragmentation.",
      ),
      this.#backendSnapshot.family(
        "etcd_disk_backend_snapshot_duration_seconds",
        "The latency distribution of backend snapshots.",
      ),
      this.#snapMarshal.family(
        "etcd_debugging_snap_save_marshalling_duration_seconds",
        "The marshalling cost distributions of save called by snapshot.",
      ),
      this.#snapSave.family(
        "etcd_debugging_snap_save_total_duration_seconds",
        "The total latency distributions of save called by snapshot.",
      ),
      this.#snapSync.family("etcd_snap_fsync_duration_seconds", "The latency distributions of fsync called by snap."),
      this.#snapDatabaseSync.family(
        "etcd_snap_db_fsync_duration_seconds",
        "The latency distributions of fsyncing .snap.db file",
      ),
      this.#snapDatabaseSave.family(
        "etcd_snap_db_save_total_duration_seconds",
        "The total latency distributions of v3 snapshot save",
      ),
    ];
  }

  #network(): Family[] {
    const { send, receive } = this.#snapshots;
    return [
      this.#roundTrip.family("etcd_network_peer_round_trip_time_seconds", "Round-Trip-Time histogram between peers"),
      this.#activePeers.family("gauge", "etcd_network_active_peers", "The current number of active peer connections."),
      this.#disconnectedPeers.family(
        "counter",
        "etcd_network_disconnected_peers_total",
        "The total number of disconnected peers.",
      ),
      this.#sentBytes.family(
        "counter",
        "etcd_network_peer_sent_bytes_total",
        "The total number of bytes sent to peers.",
      ),
      this.#receivedBytes.family(
        "counter",
        "etcd_network_peer_received_bytes_total",
        "The total number of bytes received from peers.",
      ),
      this.#sendFailures.family(
        "counter",
        "etcd_network_peer_sent_failures_total",
        "The total number of send failures from peers.",
      ),
      this.#receiveFailures.family(
        "counter",
        "etcd_network_peer_received_failures_total",
        "The total number of receive failures from peers.",
      ),
      send.inflight.family(
        "gauge",
        "etcd_network_snapshot_send_inflights_total",
        "Total number of inflight snapshot sends",
      ),
      send.success.family("counter", "etcd_network_snapshot_send_success", "Total number of successful snapshot sends"),
      send.failures.family("counter", "etcd_network_snapshot_send_failures", "Total number of snapshot send failures"),
      this.#snapshotDurations.send.family(
        "etcd_network_snapshot_send_total_duration_seconds",
        "Total latency distributions of v3 snapshot sends",
      ),
      receive.inflight.family(
        "gauge",
        "etcd_network_snapshot_receive_inflights_total",
        "Total number of inflight snapshot receives",
      ),
      receive.success.family(
        "counter",
        "etcd_network_snapshot_receive_success",
        "Total number of successful snapshot receives",
      ),
      receive.failures.family(
        "counter",
        "etcd_network_snapshot_receive_failures",
        "Total number of snapshot receive failures",
      ),
      this.#snapshotDurations.receive.family(
        "etcd_network_snapshot_receive_total_duration_seconds",
        "Total latency distributions of v3 snapshot receives",
      ),
    ];
  }

  #members(): Family[] {
    return [
      counter("etcd_server_leader_changes_seen_total", "The number of leader changes seen.", this.#leaderChanges),
      counter(
        "etcd_server_proposals_failed_total",
        "The total number of failed proposals seen.",
        this.#proposalsFailed,
      ),
      gauge(
        "etcd_server_proposals_pending",
        "The current number of pending proposals to commit.",
        this.#sources?.server.pendingProposals ?? 0,
      ),
      this.#applied.family(
        "etcd_server_apply_duration_seconds",
        "The latency distributions of v2 apply called by backend.",
      ),
      counter("etcd_debugging_lease_granted_total", "The total number of granted leases.", this.#leasesGranted),
      counter("etcd_debugging_lease_revoked_total", "The total number of revoked leases.", this.#leasesRevoked),
      counter(
        "etcd_debugging_lease_renewed_total",
        "The number of renewed leases seen by the leader.",
        this.#leasesRenewed,
      ),
      counter("etcd_debugging_server_lease_expired_total", "The total number of expired leases.", this.#leasesExpired),
      counter(
        "etcd_server_heartbeat_send_failures_total",
        "The total number of leader heartbeat send failures (likely overloaded from slow disk).",
        this.#lateHeartbeats,
      ),
      counter(
        "etcd_server_learner_promote_successes",
        "The total number of successful learner promotions while this member is leader.",
        this.#promotions,
      ),
      this.#refusedPromotions.family(
        "counter",
        "etcd_server_learner_promote_failures",
        "The total number of failed learner promotions (likely learner not ready) while this member is leader.",
      ),
      gauge(
        "etcd_server_snapshot_apply_in_progress_total",
        "1 if the server is applying the incoming snapshot. 0 if none.",
        this.#isInstalling ? 1 : 0,
      ),
      this.#leaseTtls.family("etcd_debugging_lease_ttl_total", "Bucketed histogram of lease TTLs."),
      counter(
        "etcd_server_slow_apply_total",
        "The total number of slow apply requests (likely overloaded from slow disk).",
        this.#slowApplies,
      ),
      counter(
        "etcd_server_slow_read_indexes_total",
        "The total number of pending read indexes not in sync with leader's or timed out read index requests.",
        this.#slowReads,
      ),
      counter(
        "etcd_server_read_indexes_failed_total",
        "The total number of failed read indexes seen.",
        this.#failedReads,
      ),
    ];
  }

  #stored(): Family[] {
    const sources = this.#sources;
    if (!sources) return [];
    const { store, backend, quotaBytes } = sources;
    const { stats, times } = store;
    const watch = store.watch.stats;
    return [
      gauge("etcd_server_quota_backend_bytes", "Current backend storage quota size in bytes.", quotaBytes),
      gauge(
        "etcd_mvcc_db_total_size_in_bytes",
        "Total size of the underlying database physically allocated in bytes.",
        backend.sizeBytes(),
      ),
      gauge(
        "etcd_mvcc_db_total_size_in_use_in_bytes",
        "Total size of the underlying database logically in use in bytes.",
        backend.sizeInUseBytes(),
      ),
      counter("etcd_mvcc_range_total", "Total number of ranges seen by this member.", stats.ranges),
      counter("etcd_debugging_mvcc_range_total", "Total number of ranges seen by this member.", stats.ranges),
      counter("etcd_mvcc_put_total", "Total number of puts seen by this member.", stats.puts),
      counter("etcd_mvcc_delete_total", "Total number of deletes seen by this member.", stats.deletes),
      counter("etcd_mvcc_txn_total", "Total number of txns seen by this member.", stats.txns),
      gauge("etcd_debugging_mvcc_keys_total", "Total number of keys.", stats.keys ?? 0),
      gauge(
        "etcd_debugging_mvcc_total_put_size_in_bytes",
        "The total size of put kv pairs seen by this member.",
        stats.putBytes,
      ),
      gauge("etcd_debugging_mvcc_current_revision", "The current revision of store.", store.currentRevision),
      gauge(
        "etcd_debugging_mvcc_compact_revision",
        "The revision of the last compaction in store.",
        store.compactRevision,
      ),
      counter(
        "etcd_debugging_mvcc_db_compaction_keys_total",
        "Total number of db keys compacted.",
        stats.compactedRows,
      ),
      gauge(
        "etcd_debugging_mvcc_db_compaction_last",
        "The unix time of the last db compaction. Resets to 0 on start.",
        Math.floor(stats.lastCompactionMs / 1000),
      ),
      times.compactionPause.family(
        "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds",
        "Bucketed histogram of db compaction pause duration.",
      ),
      times.compactionTotal.family(
        "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds",
        "Bucketed histogram of db compaction total duration.",
      ),
      times.hash.family("etcd_mvcc_hash_duration_seconds", "The latency distribution of storage hash operation."),
      times.hashAtRevision.family(
        "etcd_mvcc_hash_rev_duration_seconds",
        "The latency distribution of storage hash by revision operation.",
      ),
      gauge("etcd_debugging_mvcc_watch_stream_total", "Total number of watch streams.", watch.streams),
      gauge("etcd_debugging_mvcc_watcher_total", "Total number of watchers.", watch.watchers),
      gauge("etcd_debugging_mvcc_slow_watcher_total", "Total number of unsynced slow watchers.", watch.slowWatchers),
      gauge(
        "etcd_debugging_mvcc_pending_events_total",
        "Total number of pending events to be sent.",
        watch.pendingEvents,
      ),
      counter("etcd_debugging_mvcc_events_total", "Total number of events sent by this member.", watch.events),
    ];
  }
}
