import { expect, test } from "vitest";
import { bytes, etcdctl, kv, watchResponse } from "../testing/harness.ts";
import { childProblem, watchWords } from "./watch.ts";

const put = (key: string, value: string, revision: number) => ({
  type: 0,
  kv: kv(key, value, revision),
  prevKv: undefined,
});

test("watch prints events until the server ends it", async () => {
  const watch = () => [
    watchResponse({ events: [put("a", "1", 2), { type: 1, kv: kv("a", "", 3), prevKv: kv("a", "1") }] }),
  ];
  const { out, err, exit, calls } = await etcdctl(["watch", "a", "--rev=2", "--prev-kv"], { watch });
  expect(out).toBe("PUT\na\n1\nDELETE\na\n1\na\n\n");
  expect({ err, exit }).toEqual({ err: "Error: watch is canceled by the server\n", exit: 5 });
  expect(calls[0]?.request).toMatchObject({ key: bytes("a"), startRevision: 2, prevKv: true, progressNotify: false });
});

test("watch says why it was canceled", async () => {
  const watch = () => [watchResponse({ canceled: true, compactRevision: 5 })];
  const { err, out } = await etcdctl(["watch", "a", "-w", "json"], { watch });
  expect(err).toBe(
    "watch was canceled (etcdserver: mvcc: required revision has been compacted)\nError: watch is canceled by the server\n",
  );
  expect(out).toContain('"Events":[],"CompactRevision":5,"Canceled":true,"Created":false}');
});

test("watch that is refused prints an empty response", async () => {
  const cancelReason = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";
  const watch = () => [watchResponse({ created: true, canceled: true, cancelReason })];
  const { err, out } = await etcdctl(["watch", "a", "-w", "json"], { watch });
  expect(err).toContain(`watch was canceled (${cancelReason})\n`);
  expect(out).toBe('{"Header":{},"Events":null,"CompactRevision":0,"Canceled":true,"Created":false}\n');
});

test("watch tells of progress in any format", async () => {
  const { out } = await etcdctl(["watch", "a", "--progress-notify"], { watch: () => [watchResponse({})] });
  expect(out).toBe("progress notify: 7\n");
});

test("watch takes an answer without a revision for no progress", async () => {
  const header = { clusterId: 1n, memberId: 2n, revision: 0, raftTerm: 2 };
  const watch = () => [watchResponse({ header })];
  const { exit, out } = await etcdctl(["watch", "a", "--rev=-5"], { watch });
  expect([exit, out]).toEqual([5, ""]);
});

test("watch runs a command for each event, with the event in its environment", async () => {
  const watch = () => [watchResponse({ events: [put('k"', "v\n", 2), put("l", "w", 3)] })];
  const { children } = await etcdctl(["watch", "a", "--", "echo", "-n", "x"], { watch });
  expect(children).toEqual([
    {
      words: ["echo", "-n", "x"],
      env: {
        ETCD_WATCH_REVISION: "7",
        ETCD_WATCH_EVENT_TYPE: '"PUT"',
        ETCD_WATCH_KEY: '"k\\""',
        ETCD_WATCH_VALUE: '"v\\n"',
      },
    },
    { words: ["echo", "-n", "x"], env: expect.objectContaining({ ETCD_WATCH_KEY: '"l"' }) as unknown },
  ]);
});

test("watch ends with 1 when the command fails", async () => {
  const watch = () => [watchResponse({ events: [put("k", "v", 2)] })];
  const child = () => ({ kind: "exited", code: 7 }) as const;
  const { exit, err } = await etcdctl(["watch", "a", "--", "sh", "-c", "exit 7"], { watch, child });
  expect({ exit, err }).toEqual({ exit: 1, err: 'command ["sh" "-c" "exit 7"] error (exit status 7)\n' });
});

test("childProblem() words ends as Go does", () => {
  expect(childProblem({ kind: "exited", code: 0 })).toBeUndefined();
  expect(childProblem({ kind: "killed", signal: "SIGKILL" })).toBe("signal: killed");
  expect(childProblem({ kind: "notStarted", reason: "exec: no" })).toBe("exec: no");
});

test("watchWords() divides keys from command", () => {
  const words = (line: string, args: string, env: string[] = []) =>
    watchWords(line.split(" "), args === "" ? [] : args.split(" "), env);
  expect(words("watch a", "a")).toEqual({ keys: ["a"], command: [] });
  expect(words("--endpoints x watch a b --rev 3 -- echo b", "a b echo b")).toEqual({
    keys: ["a", "b"],
    command: ["echo", "b"],
  });
  expect(words("watch -- echo", "echo", ["k", "l"])).toEqual({ keys: ["k", "l"], command: ["echo"] });
});

test.each([
  [["watch"], {}, "bad number of arguments"],
  [["watch", "--prefix"], {}, "bad number of arguments"],
  [["watch", "a", "--"], {}, "bad number of arguments (found separator --, but no commands)"],
  [["watch", "a"], { ETCDCTL_WATCH_KEY: "k" }, "bad number of arguments (found conflicting environment key)"],
  [
    ["watch", "a", "--", "x"],
    { ETCDCTL_WATCH_KEY: "k" },
    "bad number of arguments (found conflicting environment key)",
  ],
  [["watch", "a", "b", "--prefix"], {}, "`range_end` and `--prefix` are mutually exclusive"],
  [["watch"], { ETCDCTL_WATCH_RANGE_END: "b" }, 'ETCDCTL_WATCH_KEY is empty but got ETCDCTL_WATCH_RANGE_END="b"'],
])("%j with %j is refused", async (words, env, message) => {
  const { exit, err } = await etcdctl(words, { env });
  expect({ exit, err }).toEqual({ exit: 128, err: `Error: ${message}\n` });
});

test("watch -i reads requests, and names what it does not know", async () => {
  const stdin = "get a\n\nwatch\nwatch a --rev=2 -- run it\nprogress\n";
  const watch = () => [watchResponse({ events: [put("a", "1", 2)] })];
  const { exit, err, calls } = await etcdctl(["watch", "-i"], { stdin, watch });
  expect(exit).toBe(3);
  expect(err).toBe(
    "Invalid command get a (only support watch)\n" +
      "Invalid command:  (watch and progress supported)\n" +
      "Invalid command watch (command type or key is not provided)\n" +
      "Error: error reading watch request line: EOF\n",
  );
  expect(calls[0]?.request).toMatchObject({ key: bytes("a"), startRevision: 2 });
});

test.each([
  ["watch a --nosuch\n", "unknown flag: --nosuch"],
  ["watch a --\n", "bad number of arguments (found separator --, but no commands)"],
])("watch -i ends at %j", async (stdin, message) => {
  const { exit, err } = await etcdctl(["watch", "-i"], { stdin });
  expect({ exit, err }).toEqual({ exit: 128, err: `Error: ${message}\n` });
});
