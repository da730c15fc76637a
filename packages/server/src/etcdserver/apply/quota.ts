/**
 * The size quota of the backend. A request's cost is a guess of what it adds to the file; those without cost (reads,
 * deletes, compaction) always pass, because they are the way back below the quota.
 */
import type { LeaseGrantRequest, PutRequest, RequestOp, TxnRequest } from "@etcd-ts/client/wire";
import { humanBytes } from "../../lib/go-format.ts";
import type { Logger } from "../../lib/log.ts";
import { DEFAULT_QUOTA_BYTES, RECOMMENDED_QUOTA_BYTES_MAX } from "../limits.ts";

/** Bytes of bookkeeping that a key costs, and a lease. */
const KEY_OVERHEAD_BYTES = 256;
const LEASE_OVERHEAD_BYTES = 64;

/**
 * What an empty database takes here above one of bbolt: its two meta pages, the tables that bbolt has none of, and the
 * pages that the commits of a first start left free. The quota leaves it out, so that one that is small, as in tests of
 * alarms, holds as many keys as it does in etcd.
 */
export const LAYOUT_ALLOWANCE_BYTES = 48 * 1024;

export interface Quota {
  /** 0: no quota. */
  readonly limitBytes: number;
  /** The same for people: `2.1 GB`. */
  readonly limitText: string;
  hasRoomFor(costBytes: number): boolean;
}

/** `configuredBytes`: 0 for the default, negative for none. Says in the log which. */
export function createQuota(options: {
  readonly configuredBytes: number;
  readonly sizeBytes: () => number;
  readonly logger: Logger;
}): Quota {
  const { configuredBytes, sizeBytes, logger } = options;
  const name = { "quota-name": "v3-applier" };
  if (configuredBytes < 0) {
    logger.info("disabled backend quota", { ...name, "quota-size-bytes": configuredBytes });
    return { limitBytes: 0, limitText: humanBytes(0), hasRoomFor: () => true };
  }
  const limitBytes = configuredBytes === 0 ? DEFAULT_QUOTA_BYTES : configuredBytes;
  const size = { "quota-size-bytes": limitBytes, "quota-size": humanBytes(limitBytes) };
  if (configuredBytes === 0) {
    logger.info("enabled backend quota with default value", { ...name, ...size });
  } else {
    if (limitBytes > RECOMMENDED_QUOTA_BYTES_MAX) {
      logger.warn("quota exceeds the maximum value", {
        ...name,
        ...size,
        "quota-maximum-size-bytes": RECOMMENDED_QUOTA_BYTES_MAX,
        "quota-maximum-size": humanBytes(RECOMMENDED_QUOTA_BYTES_MAX),
      });
    }
    logger.info("enabled backend quota", { ...name, ...size });
  }
  return {
    limitBytes,
    limitText: humanBytes(limitBytes),
    hasRoomFor: (costBytes) =>
      costBytes === 0 || Math.max(0, sizeBytes() - LAYOUT_ALLOWANCE_BYTES) + costBytes < limitBytes,
  };
}

export function costOfPut(request: PutRequest): number {
  return KEY_OVERHEAD_BYTES + request.key.length + request.value.length;
}

export function costOfLeaseGrant(_request: LeaseGrantRequest): number {
  return LEASE_OVERHEAD_BYTES;
}

/** The dearer branch counts, with what is nested in it. */
export function costOfTxn(request: TxnRequest): number {
  return Math.max(costOfOps(request.success), costOfOps(request.failure));
}

function costOfOps(ops: readonly RequestOp[]): number {
  let cost = 0;
  for (const { request } of ops) {
    if (request?.kind === "requestPut") cost += costOfPut(request.value);
    else if (request?.kind === "requestTxn") cost += costOfTxn(request.value);
  }
  return cost;
}
