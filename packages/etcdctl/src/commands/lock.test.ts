import { expect, test } from "vitest";
import { etcdctl, type FakeOptions, header, kv } from "../testing/harness.ts";

/** A store in which our key is always the first, as for the only contender. */
const alone = (name: string, value = "") => ({
  LeaseGrant: () => ({ header: header(1), id: 0x1fn, ttl: 10 }),
  Txn: () => ({
    header: header(3),
    succeeded: true,
    responses: [{ response: { kind: "responsePut", value: {} } }, { response: { kind: "responseRange", value: {} } }],
  }),
  Range: ({ key, limit }: { key: Uint8Array; limit?: number }) => ({
    header: header(3),
    kvs: limit ? [] : [{ ...kv(`${name}/1f`, value, 3), key }],
    count: 1,
  }),
  DeleteRange: () => ({ header: header(4), deleted: 1 }),
});

const held = (signal: AbortSignal): FakeOptions => ({ answers: alone("l"), signal });

test("lock with a command runs it under the lock and takes over its exit code", async () => {
  const stop = new AbortController();
  const child = () => ({ kind: "exited", code: 42 }) as const;
  const { exit, err, children, calls } = await etcdctl(["lock", "l", "--ttl=20", "sh"], {
    ...held(stop.signal),
    child,
  });
  expect({ exit, err }).toEqual({ exit: 42, err: "Error: exit status 42\n" });
  expect(children[0]).toMatchObject({ words: ["sh"], env: { ETCD_LOCK_KEY: "l/1f", ETCD_LOCK_REV: "3" } });
  expect(calls.map(({ method }) => method)).toEqual(["LeaseGrant", "Txn", "DeleteRange"]);
  expect(calls[0]?.request).toMatchObject({ ttl: 20 });
});

test.each([
  [{ kind: "killed", signal: "SIGKILL" } as const, 255, "Error: signal: killed\n"],
  [
    { kind: "notStarted", reason: 'exec: "x": executable file not found in $PATH' } as const,
    1,
    'Error: exec: "x": executable file not found in $PATH\n',
  ],
  [{ kind: "exited", code: 0 } as const, 0, ""],
])("lock with a command that ends as %j", async (end, exit, err) => {
  const outcome = await etcdctl(["lock", "l", "x"], { ...held(new AbortController().signal), child: () => end });
  expect(outcome).toMatchObject({ exit, err });
});

test("lock alone prints its key, and releases it when a signal comes", async () => {
  const stop = new AbortController();
  const running = etcdctl(["lock", "l", "--ttl=0"], {
    ...held(stop.signal),
    answers: {
      ...alone("l"),
      Range: (request: { key: Uint8Array; limit?: number }) => {
        queueMicrotask(() => stop.abort("SIGINT"));
        return alone("l").Range(request);
      },
    },
  });
  const { exit, out, calls } = await running;
  expect({ exit, out }).toEqual({ exit: 0, out: "l/1f\n\n" });
  expect(calls[0]?.request).toMatchObject({ ttl: 60 });
  expect(calls.at(-1)?.method).toBe("DeleteRange");
});

test("lock alone ends with 1 when its session is lost", async () => {
  const { exit, err } = await etcdctl(["lock", "l"], { ...held(new AbortController().signal), keepAlive: () => [] });
  expect({ exit, err }).toEqual({ exit: 1, err: "Error: session expired\n" });
});

test("elect prints the key when elected, and resigns when a signal comes", async () => {
  const stop = new AbortController();
  const answers = alone("e", "me");
  const running = etcdctl(["elect", "e", "me"], {
    signal: stop.signal,
    answers: {
      ...answers,
      Range: (request: { key: Uint8Array; limit?: number }) => {
        if (!request.limit) queueMicrotask(() => stop.abort("SIGTERM"));
        return answers.Range(request);
      },
    },
  });
  expect(await running).toMatchObject({ exit: 0, out: "e/1f\nme\n" });
});

test.each([
  [["lock"], "lock takes a lock name argument and an optional command to execute"],
  [["elect"], "elect takes one election name argument and an optional proposal argument"],
  [["elect", "a", "b", "c"], "elect takes one election name argument and an optional proposal argument"],
  [["elect", "e"], "no proposal argument but -l not set"],
  [["elect", "-l", "e", "p"], "proposal given but -l is set"],
])("%j is refused", async (words, message) => {
  expect(await etcdctl(words)).toMatchObject({ exit: 128, err: `Error: ${message}\n` });
});
