import { type Event, KV, type WatchResponse } from "@etcd-ts/client/wire";
import { expect, test } from "vitest";
import type { CtlClient } from "../context.ts";
import { bytes, etcdctl, header, kv, watchResponse } from "../testing/harness.ts";
import { Mirror } from "./make-mirror.ts";

const text = (value: Uint8Array | undefined): string => Buffer.from(value ?? []).toString();

/** A store of keys as a client sees it: what the mirror uses of one, and nothing more. */
class Store {
  readonly keys = new Map<string, { value: string; modRevision: number }>();
  readonly transactions: string[][] = [];
  revision = 1;

  put(key: string, value: string): void {
    this.keys.set(key, { value, modRevision: ++this.revision });
  }

  readonly call = (method: { path: string }, request: Record<string, unknown>): Promise<unknown> => {
    const key = text(request.key as Uint8Array);
    switch (method.path) {
      case KV.methods.put.path:
        this.put(key, text(request.value as Uint8Array));
        break;
      case KV.methods.deleteRange.path:
        this.keys.delete(key);
        this.revision++;
        break;
      case KV.methods.txn.path: {
        const names: string[] = [];
        this.revision++;
        for (const { request: op } of request.success as {
          request: { kind: string; value: { key: Uint8Array; value: Uint8Array } };
        }[]) {
          names.push(`${op.kind} ${text(op.value.key)}`);
          if (op.kind === "requestPut")
            this.keys.set(text(op.value.key), { value: text(op.value.value), modRevision: this.revision });
          else this.keys.delete(text(op.value.key));
        }
        this.transactions.push(names);
        break;
      }
      case KV.methods.range.path: {
        const end = text(request.rangeEnd as Uint8Array | undefined);
        const found = [...this.keys.entries()]
          .filter(([name]) => (end === "" ? name === key : name >= key && (end === "\0" || name < end)))
          .toSorted(([a], [b]) => (a < b ? -1 : 1))
          .map(([name, { value, modRevision }]) => ({ ...kv(name, value), modRevision }));
        const limit = (request.limit as number | undefined) || found.length;
        const kvs = request.countOnly ? [] : found.slice(0, limit);
        return Promise.resolve({ header: header(this.revision), kvs, more: found.length > limit, count: found.length });
      }
    }
    return Promise.resolve({ header: header(this.revision) });
  };
}

const event = (type: number, key: string, value: string, revision: number): Event => ({
  type,
  kv: kv(key, value, revision),
  prevKv: undefined,
});

async function mirror(
  source: Store,
  destination: Store,
  prefixes: readonly [string, string],
  watches: readonly (readonly WatchResponse[])[],
): Promise<readonly number[]> {
  const starts: number[] = [];
  const client = {
    call: source.call,
    watch(request: { startRevision: number }) {
      starts.push(request.startRevision);
      return (async function* () {
        yield* watches[starts.length - 1] ?? [];
      })();
    },
  };
  await new Mirror({
    source: client as unknown as CtlClient,
    destination: destination as unknown as CtlClient,
    prefix: bytes(prefixes[0]),
    destPrefix: bytes(prefixes[1]),
  }).run();
  return starts;
}

const contents = (store: Store) => Object.fromEntries([...store.keys].map(([key, { value }]) => [key, value]));

test("make-mirror copies what there is, then follows from the next revision", async () => {
  const source = new Store();
  const destination = new Store();
  for (let i = 0; i < 2500; i++) source.put(`p/${i}`, String(i));
  source.put("q", "not ours");
  const starts = await mirror(
    source,
    destination,
    ["p/", "copy/"],
    [[watchResponse({ events: [event(0, "p/x", "1", 3000), event(1, "p/0", "", 3000), event(0, "p/y", "2", 3001)] })]],
  );
  expect(starts).toEqual([source.revision + 1]);
  expect(destination.transactions).toEqual([["requestPut copy/x", "requestDeleteRange copy/0"], ["requestPut copy/y"]]);
  expect(destination.keys.size).toBe(2501);
  expect(contents(destination)).toMatchObject({ "copy/1": "1", "copy/2499": "2499", "copy/x": "1", "copy/y": "2" });
});

test("make-mirror divides a large source revision", async () => {
  const source = new Store();
  const destination = new Store();
  const events = Array.from({ length: 300 }, (_, i) => event(0, `k${i}`, "v", 5));
  await mirror(source, destination, ["", ""], [[watchResponse({ events })]]);
  expect(destination.transactions.map(({ length }) => length)).toEqual([128, 128, 44]);
});

test("make-mirror makes its copy good after the source compacted what it had not seen", async () => {
  const source = new Store();
  const destination = new Store();
  destination.put("mine", "stood here before");
  source.put("a", "1");
  source.put("b", "2");
  const compacted = watchResponse({ canceled: true, compactRevision: 9 });
  const watches = [[compacted], [] as WatchResponse[]];
  const original = source.call;
  let copies = 0;
  Object.assign(source, {
    call: (method: { path: string }, request: Record<string, unknown>) => {
      // While nobody watches: b goes, c comes.
      if (method.path === KV.methods.range.path && request.limit && ++copies === 2) {
        source.keys.delete("b");
        source.put("c", "3");
      }
      return original(method, request);
    },
  });
  await mirror(source, destination, ["", ""], watches);
  expect(contents(destination)).toEqual({ mine: "stood here before", a: "1", c: "3" });
});

test.each([
  [["make-mirror"], "make-mirror takes one destination argument"],
  [
    ["make-mirror", "d", "--prefix=a", "--dest-prefix=b", "--no-dest-prefix"],
    "`--dest-prefix` and `--no-dest-prefix` cannot be set at the same time, choose one",
  ],
])("%j is refused", async (words, message) => {
  expect(await etcdctl(words)).toMatchObject({ exit: 128, err: `Error: ${message}\n` });
});
