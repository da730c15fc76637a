/** Bounds of this room. Sources: etcd `server/lease/lessor.go`. */

/** Seconds; about 285 years. Above it a grant is refused. */
export const LEASE_TTL_MAX_SECONDS = 9_000_000_000;

/** Leases a second that a promotion spreads expiries for, and twice what one scan (500 ms) gives out. */
export const LEASE_REVOKES_PER_SECOND = 1000;

/** Leases found expired in one scan. */
export const EXPIRED_LEASES_PER_SCAN_MAX = LEASE_REVOKES_PER_SECOND / 2;

/** Checkpoints proposed in one request. */
export const CHECKPOINT_BATCH_MAX = 1000;

/** Leases with more left than this are checkpointed each time it passes, in seconds. */
export const CHECKPOINT_INTERVAL_SECONDS = 300;
