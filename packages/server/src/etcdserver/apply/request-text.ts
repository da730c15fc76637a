/**
 * Requests and responses as etcd's log lines show them: protobuf's compact text, with the sizes of values in place of
 * the values, and without passwords. Made only for lines that are written.
 */
import {
  AlarmRequest,
  CompactionRequest,
  DeleteRangeRequest,
  RangeRequest,
  type TxnResponse,
} from "@etcd-ts/client/wire";
import { InternalRaftRequest, RequestHeader } from "../../pb/etcdserverpb.ts";
import { putText, textOf, txnText } from "../../pb/text.ts";

export { txnText };

export function rangeText(request: RangeRequest): string {
  return textOf(RangeRequest, request);
}

/** The text of a request that went through raft. */
export function raftRequestText(request: InternalRaftRequest): string {
  const header = `header:<${request.header ? textOf(RequestHeader, request.header) : ""}>`;
  if (request.put) return `${header} put:<${putText(request.put)}>`;
  if (request.txn) return `${header} txn:<${txnText(request.txn)}>`;
  if (request.leaseGrant) {
    return `${header} lease_grant:<ttl:${request.leaseGrant.ttl}-second id:${leaseHex(request.leaseGrant.id)}>`;
  }
  if (request.leaseRevoke) return `${header} lease_revoke:<id:${leaseHex(request.leaseRevoke.id)}>`;
  if (request.authenticate) {
    const { name, simpleToken } = request.authenticate;
    return `${header} authenticate:<name:${name} simple_token:${simpleToken}>`;
  }
  if (request.authUserAdd) return `${header} auth_user_add:<name:${request.authUserAdd.name}>`;
  if (request.authUserChangePassword) {
    return `${header} auth_user_change_password:<name:${request.authUserChangePassword.name}>`;
  }
  if (request.deleteRange) return `${header} delete_range:<${textOf(DeleteRangeRequest, request.deleteRange)}> `;
  if (request.compaction) return `${header} compaction:<${textOf(CompactionRequest, request.compaction)}> `;
  if (request.alarm) return `${header} alarm:<${textOf(AlarmRequest, request.alarm)}> `;
  return textOf(InternalRaftRequest, request);
}

export function leaseHex(id: bigint): string {
  return BigInt.asUintN(64, id).toString(16).padStart(16, "0");
}

/** `responses:<range_response_count:5 range_response_count:0> size:614` */
export function txnResponseText(response: TxnResponse, sizeBytes: number): string {
  const responses = response.responses.map((op) =>
    op.response?.kind === "responseRange" ? `range_response_count:${op.response.value.kvs.length}` : "",
  );
  return `responses:<${responses.join(" ")}> size:${sizeBytes}`;
}
