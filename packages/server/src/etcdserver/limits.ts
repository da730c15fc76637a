/** Bounds and periods of this room. Sources: etcd 3.5 `server/etcdserver`, unless said otherwise. */

/** Committed entries that apply may be behind before new proposals are refused. */
export const APPLY_LAG_MAX = 5000;

/** Entries applied in one go before other work is let in: at 10 us an entry, about 5 ms. */
export const APPLY_CHUNK_ENTRIES = 512;

/** The same in time, for entries that cost more. */
export const APPLY_CHUNK_MS = 10;

/** Entries whose effects share one write of the backend, and so one consistent index. Our own. */
export const APPLY_GROUP_ENTRIES = 64;

/** Proposals that may wait for a leader; above it they are refused as too many requests. Our own. */
export const WAITING_PROPOSALS_MAX = 20_000;

/** The same in bytes: proposals of 1.5 MB each must not fill the heap while there is no leader. Our own. */
export const WAITING_PROPOSAL_BYTES_MAX = 256 * 1024 * 1024;

/**
 * This thread waits for the disk itself, instead of letting another one do it, when no more callers than this wait for it
 * and nobody has read anything for a while: a read must not queue behind a sync. Our own.
 */
export const BLOCKING_SAVE_CALLERS_MAX = 16;
export const BLOCKING_SAVE_QUIET_MS = 100;
export const BLOCKING_SAVE_BYTES_MAX = 32 * 1024;

/** Peer messages that may wait for the loop; above it they are dropped, which raft is made for. */
export const WAITING_MESSAGES_MAX = 4096;

export const READ_INDEX_RETRY_MS = 500;

/** How long a lease renewal, a TTL query or a promotion waits for apply to catch up. */
export const APPLIED_INDEX_WAIT_MS = 1000;

export const EXPIRED_LEASE_SCAN_MS = 500;
export const LEASE_REVOKES_IN_FLIGHT_MAX = 16;

export const CLUSTER_VERSION_CHECK_MS = 4000;
export const FILE_PURGE_INTERVAL_MS = 30_000;
export const PUBLISH_RETRY_MS = 500;

/** A member must have been connected this long before it counts as healthy for a membership change. */
export const HEALTHY_PERIOD_MS = 5000;

/** A voter's log must have reached this part of the leader's before a learner may be promoted. */
export const LEARNER_READY_PORTION = 0.9;

export const DEFAULT_QUOTA_BYTES = 2 * 1024 * 1024 * 1024;
export const RECOMMENDED_QUOTA_BYTES_MAX = 8 * 1024 * 1024 * 1024;

export const RAFT_MESSAGE_BYTES_MAX = 1024 * 1024;
export const RAFT_INFLIGHT_MAX = 512;

/** What we say of ourselves where versions are compared. */
export const SERVER_VERSION = "3.5.16";
export const MIN_CLUSTER_VERSION = "3.0.0";

/** How long a snapshot may take to be read before a warning is logged: at this rate, and at least so long. */
export const SNAPSHOT_BYTES_PER_SECOND = 100 * 1024 * 1024;
export const SNAPSHOT_WARNING_MS = 30_000;
