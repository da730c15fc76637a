/**
 * Leases: a time to live that many keys share. The lessor keeps which leases exist, which keys hang on them and, on
 * the leader only, when they end. It promises that a lease's keys go in one revision, that a lease never ends by a
 * follower's clock, and that what is granted survives a restart (table `lease`).
 *
 * It is synchronous and never proposes: the server asks it for what is due and sends that through raft. Which keys hang
 * on a lease is not stored; mvcc tells it again from the key records after a start.
 */
export {
  type ExpiredLease,
  type KeyDeleter,
  type LeaseInfo,
  Lessor,
  type LessorOptions,
  type RenewOutcome,
} from "./lessor.ts";
export { LEASE_TTL_MAX_SECONDS } from "./limits.ts";
