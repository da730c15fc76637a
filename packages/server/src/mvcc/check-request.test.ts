import { EtcdError, PutRequest, RangeRequest, type RequestOp, TxnRequest } from "@etcd-ts/client/wire";
import { describe, expect, it } from "vitest";
import {
  checkPutRequest,
  checkRangeRequest,
  checkTxnRequest,
  isTxnReadOnly,
  isTxnSerializable,
} from "./check-request.ts";

const bytes = (text: string): Uint8Array => Buffer.from(text, "latin1");
const put = (key: string): RequestOp => ({
  request: { kind: "requestPut", value: PutRequest.create({ key: bytes(key) }) },
});
const del = (key: string, end = ""): RequestOp => ({
  request: { kind: "requestDeleteRange", value: { key: bytes(key), rangeEnd: bytes(end), prevKv: false } },
});
const get = (key: string, serializable = false): RequestOp => ({
  request: { kind: "requestRange", value: RangeRequest.create({ key: bytes(key), serializable }) },
});
const nested = (success: RequestOp[], failure: RequestOp[] = []): RequestOp => ({
  request: { kind: "requestTxn", value: { compare: [], success, failure } },
});
const txn = (success: RequestOp[], failure: RequestOp[] = []): TxnRequest => TxnRequest.create({ success, failure });
const check =
  (request: TxnRequest, operationsMax = 128) =>
  () =>
    checkTxnRequest(request, operationsMax);
const many = (count: number, prefix: string): RequestOp[] => Array.from({ length: count }, (_, i) => put(prefix + i));

describe("the form of requests", () => {
  it("wants a key everywhere", () => {
    expect(() => checkRangeRequest(RangeRequest.create())).toThrow(new EtcdError("EmptyKey"));
    expect(() => checkPutRequest(PutRequest.create())).toThrow(new EtcdError("EmptyKey"));
    expect(check(txn([nested([del("")])]))).toThrow(new EtcdError("EmptyKey"));
    expect(check(TxnRequest.create({ compare: [{}] }))).toThrow(new EtcdError("EmptyKey"));
    expect(check(txn([{ request: undefined }]))).toThrow(new EtcdError("KeyNotFound"));
  });

  it("refuses what an ignored value or lease contradicts", () => {
    const key = bytes("k");
    expect(() => checkPutRequest(PutRequest.create({ key, ignoreValue: true, value: key }))).toThrow(
      new EtcdError("ValueProvided"),
    );
    expect(() => checkPutRequest(PutRequest.create({ key, ignoreLease: true, lease: 1n }))).toThrow(
      new EtcdError("LeaseProvided"),
    );
  });

  it("refuses unknown sort orders and targets, which 3.5.16 dies of", () => {
    const key = bytes("k");
    expect(() => checkRangeRequest(RangeRequest.create({ key, sortTarget: 5 as 0 }))).toThrow(
      new EtcdError("InvalidSortOption"),
    );
    expect(() => checkRangeRequest(RangeRequest.create({ key, sortOrder: -1 as 0 }))).toThrow(
      new EtcdError("InvalidSortOption"),
    );
  });

  it("counts operations against a budget that nested transactions share", () => {
    expect(check(txn(many(128, "k")))).not.toThrow();
    expect(check(txn(many(129, "k")))).toThrow(new EtcdError("TooManyOps"));
    expect(check(txn([...many(63, "k"), nested(many(64, "n"))]))).not.toThrow();
    expect(check(txn([...many(63, "k"), nested(many(65, "n"))]))).toThrow(new EtcdError("TooManyOps"));
  });

  it("refuses two writes of a key on one path, in etcd's order of looking", () => {
    const duplicate = new EtcdError("DuplicateKey");
    expect(check(txn([put("a"), put("a")]))).toThrow(duplicate);
    expect(check(txn([put("b"), del("a", "c")]))).toThrow(duplicate);
    expect(check(txn([del("a", "c"), del("b")]))).not.toThrow();
    expect(check(txn([put("a")], [put("a")]))).not.toThrow();
    expect(check(txn([nested([put("a")], [put("a")])]))).not.toThrow();
    expect(check(txn([nested([put("a")]), put("a")]))).toThrow(duplicate);
    expect(check(txn([nested([put("a")]), nested([put("a")])]))).toThrow(duplicate);
    expect(check(txn([nested([del("a")]), nested([put("a")])]))).toThrow(duplicate);
    expect(check(txn([nested([put("a")]), nested([del("a")])]))).not.toThrow();
    expect(check(txn([nested([put("a")]), del("a")]))).toThrow(duplicate);
    expect(check(txn([del("a", "c"), put("c")]))).not.toThrow();
    expect(check(txn([del("a", "c"), del("b", "z"), put("x")]))).toThrow(duplicate);
    // The end is taken literally: "from b on" is not seen to cover k.
    expect(check(txn([put("k"), del("b", "\0")]))).not.toThrow();
  });

  it("knows which transactions only read", () => {
    expect(isTxnReadOnly(txn([get("a")], [get("b")]))).toBe(true);
    expect(isTxnReadOnly(txn([]))).toBe(true);
    expect(isTxnReadOnly(txn([nested([])]))).toBe(false);
    expect(isTxnReadOnly(txn([get("a")], [put("b")]))).toBe(false);
    expect(isTxnSerializable(txn([get("a", true)], [get("b", true)]))).toBe(true);
    expect(isTxnSerializable(txn([get("a", true)], [get("b")]))).toBe(false);
  });
});
