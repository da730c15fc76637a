import { expect, test } from "vitest";
import { bytes, etcdctl, header, kv } from "../testing/harness.ts";
import { parseCompare } from "./txn.ts";

const answers = {
  Txn: () => ({
    header: header(5),
    succeeded: true,
    responses: [
      { response: { kind: "responsePut", value: { header: { revision: 5 } } } },
      { response: { kind: "responseRange", value: { kvs: [kv("a", "2")], count: 1 } } },
      { response: { kind: "responseDeleteRange", value: { deleted: 1 } } },
    ],
  }),
};

test("txn sends its three parts and prints each response after an empty line", async () => {
  const stdin = 'value("a") = "1"\nver("b") > "0"\n\nput a 2 --prev-kv\n get a \ndel --prefix b\n\nget "x y"\n\n';
  const { out, exit, calls } = await etcdctl(["txn"], { stdin, answers });
  expect({ out, exit }).toEqual({ out: "SUCCESS\n\nOK\n\na\n2\n\n1\n", exit: 0 });
  expect(calls).toHaveLength(1);
  expect(calls[0]?.request).toMatchObject({
    compare: [
      { key: bytes("a"), result: 0, target: 3, targetUnion: { kind: "value", value: bytes("1") } },
      { key: bytes("b"), result: 1, target: 0, targetUnion: { kind: "version", value: 0 } },
    ],
    success: [
      { request: { kind: "requestPut", value: { key: bytes("a"), value: bytes("2"), prevKv: true } } },
      { request: { kind: "requestRange", value: { key: bytes("a") } } },
      { request: { kind: "requestDeleteRange", value: { key: bytes("b"), rangeEnd: Uint8Array.of(99) } } },
    ],
    failure: [{ request: { kind: "requestRange", value: { key: bytes("x y") } } }],
  });
});

test("txn -i says which part is read", async () => {
  const { out } = await etcdctl(["txn", "-i"], { stdin: "\n\n\n", answers });
  expect(out).toMatch(
    /^compares:\nsuccess requests \(get, put, del\):\nfailure requests \(get, put, del\):\nSUCCESS\n/,
  );
});

test.each([
  ["", "EOF", 3],
  ["\n\n", "EOF", 3],
  ["nothing\n", "malformed comparison: nothing", 3],
  ['foo("a") = "1"\n', 'malformed comparison: foo("a") = "1" (unknown target foo)', 3],
  ['value("a")\n', 'malformed comparison: value("a"); got value("a")  ""', 3],
  ['value(a) = "1"\n', 'malformed comparison: value(a) = "1"; got value("")  ""', 3],
  ['value("a")="1"\n', 'malformed comparison: value("a")="1"; got value("a")  ""', 3],
  ['value("a") = 1\n', 'malformed comparison: value("a") = 1; got value("a") = ""', 3],
  ['ver("a") = "x"\n', 'invalid txn compare request: ver("a") = "x"', 3],
  ["\nput\n", "invalid txn compare request: put", 3],
  ["\ntxn a b\n", "invalid txn request: txn a b", 3],
  ['\nput "\\q" b\n', "invalid syntax", 3],
  ["\nput a\n", "put command needs 1 argument and input from stdin or 2 arguments", 128],
  ["\nget a --order=SIDE\n", "bad sort order SIDE", 4],
])("txn refuses %j", async (stdin, message, code) => {
  const { exit, err, calls } = await etcdctl(["txn"], { stdin });
  expect({ exit, err, calls }).toEqual({ exit: code, err: `Error: ${message}\n`, calls: [] });
});

test("txn shows the usage of a request with a wrong flag", async () => {
  const { exit, err } = await etcdctl(["txn"], { stdin: "\nput a b --nosuch\n" });
  expect(exit).toBe(3);
  expect(err).toMatch(
    /^Usage:\n {3}put \[options\] <key> <value> [^\n]* \[flags\]\n\nFlags:\n {2}-h, --help {11}help for put\n[\s\S]*\n {6}--lease string {3}[^\n]* \(default "0"\)\n[\s\S]*\nError: invalid txn request: put a b --nosuch\n$/,
  );
  expect((await etcdctl(["txn"], { stdin: "\ndel a --yes\n\n\n" })).exit).toBe(3);
});

test("parseCompare() reads all targets and Go's escapes", () => {
  const target = (line: string) => parseCompare(line).targetUnion;
  expect(target('create("a") < "3"')).toEqual({ kind: "createRevision", value: 3 });
  expect(target('m("a") != "-3"')).toEqual({ kind: "modRevision", value: -3 });
  expect(target('lease("a") = "1f"')).toEqual({ kind: "lease", value: 31n });
  expect(parseCompare('val("\\x01\\xff") = "\\u00e9\\n"')).toMatchObject({
    key: Buffer.from([1, 255]),
    targetUnion: { kind: "value", value: Buffer.from("é\n") },
  });
  expect(() => parseCompare('val("a") <> "1"')).toThrow("unknown operator <>");
});
