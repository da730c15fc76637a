/**
 * Requests and responses as etcd's log lines show them: protobuf's compact text, with the sizes of values in place of
 * the values, and without passwords. Made only for lines that are written.
 */
import {
  AlarmRequest,
  type Codec,
  type Compare,
  CompareResult,
  CompareTarget,
  CompactionRequest,
  DeleteRangeRequest,
  type FieldInfo,
  PutRequest,
  RangeRequest,
  type RequestOp,
  type TxnRequest,
  type TxnResponse,
} from "@etcd-ts/client/wire";
import { InternalRaftRequest, RequestHeader } from "../../pb/etcdserverpb.ts";

/** `key:"k" limit:1 `: every field that is set, each with a blank behind it. */
export function protoText<T>(codec: Codec<T>, message: T): string {
  let text = "";
  const record = message as unknown as Record<string, unknown>;
  for (const field of codec.fields) {
    const value = fieldValue(record, field);
    const values = field.isRepeated ? (value as readonly unknown[]) : value === undefined ? [] : [value];
    for (const each of values) {
      if (!field.isRepeated && isZero(each, field)) continue;
      text += `${field.name}:${valueText(field, each)} `;
    }
  }
  return text;
}

function fieldValue(record: Record<string, unknown>, field: FieldInfo): unknown {
  if (field.oneof === undefined) return record[field.key];
  const chosen = record[field.oneof] as { kind: string; value: unknown } | undefined;
  return chosen?.kind === field.key ? chosen.value : undefined;
}

function isZero(value: unknown, field: FieldInfo): boolean {
  if (field.oneof !== undefined || field.type === "message") return false;
  return (
    value === 0 ||
    value === 0n ||
    value === false ||
    value === "" ||
    (value instanceof Uint8Array && value.length === 0)
  );
}

function valueText(field: FieldInfo, value: unknown): string {
  if (field.message) return `<${protoText(field.message(), value)}>`;
  if (field.enum) return field.enum.nameOf[value as number] ?? String(value);
  if (value instanceof Uint8Array) return quoted(value);
  if (typeof value === "string") return quoted(Buffer.from(value, "utf8"));
  return String(value);
}

/** As Go's protobuf text form: C escapes, octal for what is not printable ASCII. */
function quoted(bytes: Uint8Array): string {
  let text = '"';
  for (const byte of bytes) {
    if (byte === 0x0a) text += "\\n";
    else if (byte === 0x0d) text += "\\r";
    else if (byte === 0x09) text += "\\t";
    else if (byte === 0x22) text += '\\"';
    else if (byte === 0x5c) text += "\\\\";
    else if (byte >= 0x20 && byte < 0x7f) text += String.fromCharCode(byte);
    else text += `\\${byte.toString(8).padStart(3, "0")}`;
  }
  return `${text}"`;
}

export function rangeText(request: RangeRequest): string {
  return protoText(RangeRequest, request);
}

function putText(request: PutRequest): string {
  const rest = protoText(PutRequest, { ...request, value: Buffer.alloc(0) });
  if (request.value.length === 0) return rest;
  const key = request.key.length > 0 ? `key:${quoted(request.key)} ` : "";
  return `${key}value_size:${request.value.length} ${rest.replace(key, "")}`;
}

function compareText(compare: Compare): string {
  const { targetUnion } = compare;
  let text = "";
  if (compare.result !== 0) text += `result:${enumName(CompareResult, compare.result)} `;
  if (compare.target !== 0) text += `target:${enumName(CompareTarget, compare.target)} `;
  if (compare.key.length > 0) text += `key:${quoted(compare.key)} `;
  if (targetUnion?.kind === "value") text += `value_size:${targetUnion.value.length} `;
  else if (targetUnion) text += `${snakeCase(targetUnion.kind)}:${targetUnion.value} `;
  if (compare.rangeEnd.length > 0) text += `range_end:${quoted(compare.rangeEnd)} `;
  return text;
}

function enumName(values: Readonly<Record<string, number>>, value: number): string {
  const name = Object.keys(values).find((key) => values[key] === value);
  return name ? snakeCase(name).toUpperCase() : String(value);
}

function snakeCase(name: string): string {
  return name.replace(/(?<=[a-z])[A-Z]/g, (letter) => `_${letter}`).toLowerCase();
}

function opText({ request }: RequestOp): string {
  switch (request?.kind) {
    case "requestPut":
      return `request_put:<${putText(request.value)}>`;
    case "requestTxn":
      return `request_txn:<${txnText(request.value)}>`;
    case "requestRange":
      return `request_range:<${rangeText(request.value)}> `;
    case "requestDeleteRange":
      return `request_delete_range:<${protoText(DeleteRangeRequest, request.value)}> `;
    default:
      return "";
  }
}

export function txnText(request: TxnRequest): string {
  const parts = [request.compare.map(compareText), request.success.map(opText), request.failure.map(opText)];
  const [compare, success, failure] = parts.map((texts) => texts.join(" "));
  return `compare:<${compare}> success:<${success}> failure:<${failure}>`;
}

/** The text of a request that went through raft. */
export function raftRequestText(request: InternalRaftRequest): string {
  const header = `header:<${request.header ? protoText(RequestHeader, request.header) : ""}>`;
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
  if (request.deleteRange) return `${header} delete_range:<${protoText(DeleteRangeRequest, request.deleteRange)}> `;
  if (request.compaction) return `${header} compaction:<${protoText(CompactionRequest, request.compaction)}> `;
  if (request.alarm) return `${header} alarm:<${protoText(AlarmRequest, request.alarm)}> `;
  return protoText(InternalRaftRequest, request);
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
