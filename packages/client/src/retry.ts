/**
 * What may be repeated. etcd's rule (client/v3/retry.go): a call that changes nothing, or nothing that matters twice, is
 * asked again at the next endpoint while the answer is Unavailable; any other call is not, since the first attempt
 * may have been carried out. It still waits for a connection before it is sent, and is repeated when it was never
 * sent, which is always safe.
 */
import { ATTEMPTS_MAX, RETRY_PAUSE_MS } from "./options.ts";
import { Auth, Cluster, Code, KV, Lease, Maintenance, type TxnRequest, type RequestOp } from "./wire/index.ts";

const REPEATABLE_PATHS: ReadonlySet<string> = new Set(
  [
    KV.methods.range,
    // A lease granted twice runs out unseen; one revoked twice is gone.
    Lease.methods.leaseGrant,
    Lease.methods.leaseRevoke,
    Lease.methods.leaseTimeToLive,
    Lease.methods.leaseLeases,
    Cluster.methods.memberList,
    Maintenance.methods.alarm,
    Maintenance.methods.status,
    Maintenance.methods.hash,
    Maintenance.methods.hashKv,
    Maintenance.methods.moveLeader,
    Auth.methods.authStatus,
    Auth.methods.userGet,
    Auth.methods.userList,
    Auth.methods.roleGet,
    Auth.methods.roleList,
    Auth.methods.authenticate,
  ].map((method) => method.path),
);

function writes(op: { readonly request?: RequestOp["request"] }): boolean {
  switch (op.request?.kind) {
    case "requestRange":
    case undefined:
      return false;
    case "requestTxn":
      return isWriteTxn(op.request.value);
    default:
      return true;
  }
}

/** Whether a transaction could change anything, whichever branch it takes. */
export function isWriteTxn(request: Pick<TxnRequest, "success" | "failure">): boolean {
  return request.success.some(writes) || request.failure.some(writes);
}

/** Whether this call may be asked again after its connection broke under it. */
export function isRepeatable(path: string, request: unknown): boolean {
  if (REPEATABLE_PATHS.has(path)) return true;
  if (path === KV.methods.txn.path) {
    const { success = [], failure = [] } = request as Partial<TxnRequest>;
    return !isWriteTxn({ success, failure });
  }
  return false;
}

/** Whether grpc says that it never had a connection to send this attempt on. */
export function wasNeverSent(code: number, details: string): boolean {
  return code === Code.Unavailable && /^(?:No connection established|Name resolution failed)/.test(details);
}

/** Whether to try again after `attempt` (from 0) ended with this status. */
export function shouldRepeat(repeatable: boolean, code: number, attempt: number): boolean {
  return repeatable && code === Code.Unavailable && attempt + 1 < ATTEMPTS_MAX;
}

/** The pause before the next attempt: 25 ms, give or take a tenth, so that many clients do not come back at once. */
export function pauseMs(): number {
  return RETRY_PAUSE_MS * (0.9 + Math.random() * 0.2);
}

/** Resolves after `ms`, or rejects with the signal's reason when it is aborted first. */
export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) {
      reject(signal.reason);
      return;
    }
    const onAbort = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", onAbort);
      resolve();
    }, ms);
    signal?.addEventListener("abort", onAbort, { once: true });
  });
}
