import { type Init, PutRequest, RangeRequest, type RequestOp, TxnRequest } from "@etcd-ts/client/wire";
import { describe, expect, it } from "vitest";
import { checkPut, checkRange, checkTxn } from "./txn-check.ts";

const bytes = (text: string) => Buffer.from(text, "latin1");
const put = (key: string): Init<RequestOp> => ({ request: { kind: "requestPut", value: { key: bytes(key) } } });
const del = (key: string, rangeEnd = ""): Init<RequestOp> => ({
  request: { kind: "requestDeleteRange", value: { key: bytes(key), rangeEnd: bytes(rangeEnd) } },
});
const txn = (success: Init<RequestOp>[], failure: Init<RequestOp>[] = []): Init<RequestOp> => ({
  request: { kind: "requestTxn", value: { success, failure } },
});
const outcome = (success: Init<RequestOp>[], failure: Init<RequestOp>[] = [], maxTxnOps = 128): string => {
  try {
    checkTxn(TxnRequest.create({ success, failure }), maxTxnOps);
    return "ok";
  } catch (error) {
    return (error as Error).message.replace("etcdserver: ", "");
  }
};

const DUPLICATE = "duplicate key given in txn request";
const TOO_MANY = "too many operations in txn request";

describe("checkTxn()", () => {
  it.each<[string, Init<RequestOp>[], Init<RequestOp>[], string]>([
    ["puts of two keys", [put("a"), put("b")], [], "ok"],
    ["two puts of one key", [put("a"), put("a")], [], DUPLICATE],
    ["the same key in both branches", [put("a")], [put("a")], "ok"],
    ["a put and a delete of one key", [put("a"), del("a")], [], DUPLICATE],
    ["a put inside a deleted range", [del("a", "c"), put("b")], [], DUPLICATE],
    ["a put at the end of a deleted range", [del("a", "c"), put("c")], [], "ok"],
    ["a put under a delete of everything after", [del("b", "\0"), put("z")], [], DUPLICATE],
    ["a put before a delete of everything after", [del("b", "\0"), put("a")], [], "ok"],
    ["overlapping deletes", [del("a", "c"), del("b", "d")], [], "ok"],
    ["a put in the second of joined deletes", [del("a", "c"), del("b", "z"), put("x")], [], DUPLICATE],
    ["one key in then and else of a nested txn", [txn([put("a")], [put("a")])], [], "ok"],
    ["one key in two nested txns", [txn([put("a")]), txn([put("a")])], [], DUPLICATE],
    ["a key of a nested txn and an own put", [put("a"), txn([put("a")])], [], DUPLICATE],
    ["a nested delete before a nested put", [txn([del("a")]), txn([put("a")])], [], DUPLICATE],
    ["a nested put before a nested delete", [txn([put("a")]), txn([del("a")])], [], "ok"],
    ["an operation that is none", [{}], [], "key not found"],
    ["an empty key deep inside", [txn([], [put("")])], [], "key is not provided"],
  ])("%s", (_name, success, failure, expected) => {
    expect(outcome(success, failure)).toBe(expected);
  });

  it("gives a nested txn what the outer level has left over", () => {
    const puts = (n: number, prefix: string) => Array.from({ length: n }, (_, i) => put(`${prefix}${i}`));
    expect(outcome([...puts(63, "a"), txn(puts(64, "b"))])).toBe("ok");
    expect(outcome([...puts(63, "a"), txn(puts(65, "b"))])).toBe(TOO_MANY);
    expect(outcome(puts(129, "a"))).toBe(TOO_MANY);
  });
});

describe("the form of single requests", () => {
  it.each([
    [{ key: bytes("") }, "etcdserver: key is not provided"],
    [{ key: bytes("a"), ignoreValue: true, value: bytes("x") }, "etcdserver: value is provided"],
    [{ key: bytes("a"), ignoreLease: true, lease: 1n }, "etcdserver: lease is provided"],
  ])("refuses the put %#", (init, message) => {
    expect(() => checkPut(PutRequest.create(init))).toThrow(message);
  });

  it("refuses sort options that are none", () => {
    const request = RangeRequest.create({ key: bytes("a"), sortOrder: 9 as never });
    expect(() => checkRange(request)).toThrow("etcdserver: invalid sort option");
  });
});
