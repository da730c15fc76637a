/**
 * Messages as Go's protobuf prints them on one line: `key:"k" range_end:"l" limit:1 `. The slow-request lines of the
 * log show requests so; values and passwords are left out of them.
 */
import type { Codec, Compare, FieldInfo, Init, PutRequest, RequestOp, TxnRequest } from "@etcd-ts/client/wire";
import { Compare as CompareCodec, RequestOp as RequestOpCodec } from "@etcd-ts/client/wire";
import { asBuffer, utf8Bytes } from "../lib/bytes.ts";

const escapes: Readonly<Record<number, string>> = { 9: "\\t", 10: "\\n", 13: "\\r", 34: '\\"', 92: "\\\\" };

export function quotedBytes(bytes: Uint8Array): string {
  let text = '"';
  for (const byte of asBuffer(bytes)) {
    text +=
      escapes[byte] ??
      (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : `\\${byte.toString(8).padStart(3, "0")}`);
  }
  return `${text}"`;
}

function scalarText(field: FieldInfo, value: unknown): string {
  switch (field.type) {
    case "bytes":
      return quotedBytes(value as Uint8Array);
    case "string":
      return quotedBytes(utf8Bytes(String(value)));
    case "enum":
      return field.enum?.nameOf[Number(value)] ?? String(value);
    default:
      return String(value);
  }
}

function isZero(value: unknown): boolean {
  return value === undefined || value === 0 || value === 0n || value === false || (value as string).length === 0;
}

/** Fields in declaration order, each followed by a blank; those that are zero are left out. */
export function textOf<T>(codec: Codec<T>, message: Init<T>): string {
  const plain = message as Readonly<Record<string, unknown>>;
  let text = "";
  for (const field of codec.fields) {
    let value: unknown;
    if (field.oneof === undefined) {
      value = plain[field.key];
      if (field.type === "message" ? value === undefined : isZero(value)) continue;
    } else {
      const union = plain[field.oneof] as { readonly kind: string; readonly value: unknown } | undefined;
      if (union?.kind !== field.key) continue;
      value = union.value;
    }
    for (const item of field.isRepeated ? (value as readonly unknown[]) : [value]) {
      text += field.message
        ? `${field.name}:<${textOf(field.message(), item as never)}> `
        : `${field.name}:${scalarText(field, item)} `;
    }
  }
  return text;
}

/** A put without its value, whose size is told instead. */
export function putText(put: Init<PutRequest>): string {
  let text = "";
  if (put.key?.length) text += `key:${quotedBytes(put.key)} `;
  if (put.value?.length) text += `value_size:${put.value.length} `;
  if (put.lease) text += `lease:${put.lease} `;
  if (put.prevKv) text += "prev_kv:true ";
  if (put.ignoreValue) text += "ignore_value:true ";
  if (put.ignoreLease) text += "ignore_lease:true ";
  return text;
}

function compareText(compare: Init<Compare>): string {
  if (compare.targetUnion?.kind !== "value") return textOf(CompareCodec, compare);
  const { value } = compare.targetUnion;
  let text = textOf(CompareCodec, { ...compare, targetUnion: undefined, rangeEnd: undefined });
  if (value.length > 0) text += `value_size:${value.length} `;
  if (compare.rangeEnd?.length) text += `range_end:${quotedBytes(compare.rangeEnd)} `;
  return text;
}

function opText(op: Init<RequestOp>): string {
  switch (op.request?.kind) {
    case "requestPut":
      return `request_put:<${putText(op.request.value)}>`;
    case "requestTxn":
      return `request_txn:<${txnText(op.request.value)}>`;
    default:
      return textOf(RequestOpCodec, op);
  }
}

export function txnText(txn: Init<TxnRequest>): string {
  const join = (parts: readonly string[] | undefined) => (parts ?? []).join(" ");
  return `compare:<${join(txn.compare?.map(compareText))}> success:<${join(txn.success?.map(opText))}> failure:<${join(txn.failure?.map(opText))}>`;
}
