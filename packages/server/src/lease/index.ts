/**
 * Leases: a time to live that many keys share. The lessor keeps which leases exist and, on the leader only, when they
 * end. It promises that a lease's keys go in one revision, that a lease never ends by a follower's clock, and that what
 * is granted survives a restart (table `lease`).
 *
 * It is synchronous and never proposes: the server asks it for what is due and sends that through raft. Which keys hang
 * on a lease is mvcc's to know, behind `LeaseKeys`.
 */
export {
  type ExpiredLease,
  type LeaseInfo,
  type LeaseKeys,
  Lessor,
  type LessorOptions,
  type RenewOutcome,
} from "./lessor.ts";
export { LEASE_TTL_MAX_SECONDS } from "./limits.ts";
