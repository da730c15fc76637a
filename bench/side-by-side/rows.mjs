// The rows of the table: what is measured on both servers, from what state, and what it should come to.
//
// A row gives a figure for each run; `better` says which way it should go, `goal` what ratio to the peer's figure (or,
// with `goalIs: "limit"`, what figure) is wanted.

const KEYS_WRITTEN = 100_000;
const VALUE_BYTES = 300;
const MANY = { connections: 100, streams: 10 };
const TEN = { connections: 10, streams: 1 };
const ONE = { connections: 1, streams: 1 };

const put = { name: "put", keys: KEYS_WRITTEN, valueBytes: VALUE_BYTES };

const closedLoop = (load, operations, more = {}) => ({
  unit: "/s",
  better: "more",
  fixture: "empty",
  run: ({ generate, seconds }) => generate({ kind: "unary", ...load, seconds, operations }),
  figure: (found) => found.perSecond,
  ...more,
});

const watching = (job, more = {}) => ({
  unit: " events/s",
  better: "more",
  fixture: "empty",
  run: ({ generate, seconds }) => generate({ kind: "watch", seconds, valueBytes: VALUE_BYTES, ...job }),
  figure: (found) => found.perSecond,
  ...more,
});

const restart = (fixture, more = {}) => ({
  unit: " ms",
  better: "less",
  fixture,
  /** The server is started by the row itself. */
  startsItself: true,
  async run({ cluster, firstRead }) {
    const startedAt = await cluster.launch();
    const { atNs } = await firstRead();
    return { ms: Number(BigInt(atNs) - startedAt) / 1e6 };
  },
  figure: (found) => found.ms,
  ...more,
});

const memory = (fixture, more = {}) => ({
  unit: " MB",
  better: "less",
  fixture,
  async run({ settle, memoryNow }) {
    await settle();
    return memoryNow();
  },
  figure: (found) => found.anonymous / 1e6,
  goalIs: "limit",
  ...more,
});

export const rows = {
  "put-1": closedLoop(ONE, [put], { title: "put, 1 client", goal: 1.2, checksP99: true }),
  "put-10": closedLoop(TEN, [put], { title: "put, 10 clients", goal: 1.5, checksP99: true }),
  "put-1000": closedLoop(MANY, [put], { title: "put, 100 connections x 10 streams", goal: 2.5, checksP99: true }),
  "range-linearizable": closedLoop(MANY, [{ name: "range", keys: 10_000 }], {
    title: "range of one key, linearizable, 100 x 10",
    fixture: "10k",
    goal: 2,
  }),
  "range-serializable": closedLoop(MANY, [{ name: "range", keys: 10_000, serializable: true }], {
    title: "range of one key, serializable, 100 x 10",
    fixture: "10k",
    goal: 2,
  }),
  "h2load-range": {
    ...closedLoop(MANY, []),
    title: "the same from h2load, linearizable, always the same key",
    fixture: "10k",
    run: ({ h2load, seconds }) => h2load({ ...MANY, seconds, serializable: false }),
    goal: 2,
  },
  "range-10k": closedLoop(ONE, [{ name: "list" }], {
    title: "range of 10,000 keys, 1 client",
    fixture: "10k",
    goal: 2,
  }),
  "range-10k-4": closedLoop({ connections: 4, streams: 1 }, [{ name: "list" }], {
    title: "range of 10,000 keys, 4 clients",
    fixture: "10k",
    goal: 2,
  }),
  "limit-500": closedLoop(TEN, [{ name: "list", limit: 500 }], {
    title: "500 of 100,000 keys with count, 10 clients",
    fixture: "100k",
    goal: 20,
  }),
  "limit-10": closedLoop(TEN, [{ name: "list", limit: 10 }], {
    title: "10 of 1 million keys with count, 10 clients",
    fixture: "1m",
    goal: 100,
  }),
  count: closedLoop(TEN, [{ name: "list", countOnly: true }], {
    title: "count_only over 1 million keys, 10 clients",
    fixture: "1m",
    goal: 100,
  }),
  txn: closedLoop(MANY, [{ name: "txn", keys: KEYS_WRITTEN, valueBytes: VALUE_BYTES }], {
    title: "txn (compare, put, get), 100 x 10",
    goal: 2,
  }),
  "mixed-8-1": closedLoop(
    MANY,
    [
      { name: "range", keys: 10_000, weight: 8 },
      { ...put, keys: 10_000, weight: 1 },
    ],
    { title: "mixed, 8 reads to 1 write, 100 x 10", fixture: "10k", goal: 2 },
  ),
  "mixed-1-8": closedLoop(
    MANY,
    [
      { name: "range", keys: 10_000, weight: 1 },
      { ...put, keys: 10_000, weight: 8 },
    ],
    { title: "mixed, 1 read to 8 writes, 100 x 10", fixture: "10k", goal: 2 },
  ),
  "lease-keepalive": closedLoop(MANY, [], {
    title: "lease keep-alive, 1,000 streams",
    run: ({ generate, seconds }) => generate({ kind: "keepAlive", ...MANY, seconds }),
    goal: 1.5,
  }),
  "lease-grant": closedLoop(MANY, [{ name: "leaseGrant" }], { title: "lease grant, 100 x 10", goal: 1.5 }),
  "watch-1": watching(
    { connections: 1, watchers: 1, watchAll: true, keys: 100_000, writerConnections: 4, writerStreams: 4, perTxn: 100 },
    { title: "watch: 1 watcher of all, txns of 100 puts", goal: 1.5 },
  ),
  "watch-history": watching(
    { connections: 1, watchers: 1, watchAll: true, backlog: 100_000 },
    { title: "watch: 1 watcher, 100,000 events of history", fixture: "100k", goal: 1.5 },
  ),
  "watch-1000": watching(
    { connections: 100, watchers: 1000, keys: 1, writerConnections: 4, writerStreams: 1 },
    { title: "watch: 1,000 watchers of one key, 4 writers", goal: 1.5 },
  ),
  "watch-10000": watching(
    { connections: 100, watchers: 10_000, keys: 10_000, writerConnections: 10, writerStreams: 10 },
    { title: "watch: 10,000 watchers of a key each, 10 x 10 writers", goal: 1.5 },
  ),
  "put-beside-list": closedLoop(TEN, [], {
    title: "put p99 while another client lists 100,000 keys, 10 clients",
    fixture: "100k",
    unit: " ms",
    better: "less",
    run: ({ generate, seconds }) =>
      generate({
        kind: "unary",
        ...TEN,
        seconds,
        operations: [put],
        beside: [{ ...ONE, operations: [{ name: "list" }] }],
      }),
    figure: (found) => found.latencyMs.p99,
    goal: 0.5,
  }),
  "defrag-stall": {
    title: "longest read during a defrag of 500,000 keys of 1 kB",
    fixture: "500k-1kb",
    unit: " ms",
    better: "less",
    run: ({ generate }) =>
      generate({
        kind: "stall",
        action: "defragment",
        operations: [{ name: "range", keys: 500_000 }],
      }),
    figure: (found) => found.latencyMs.max,
    goal: 100,
    goalIs: "limit",
  },
  "restart-1m": restart("1m", {
    title: "restart to first linearizable read, 1 million keys",
    goal: 500,
    goalIs: "limit",
  }),
  "restart-100k": restart("100k", {
    title: "restart to first linearizable read, 100,000 keys",
    goal: 500,
    goalIs: "limit",
  }),
  "memory-idle": memory("empty", { title: "anonymous resident memory, idle", goal: 80 }),
  "memory-1m": memory("1m", {
    title: "anonymous resident memory with 1 million keys, after 5 s of random reads",
    async run({ generate, seconds, settle, memoryNow }) {
      await generate({ kind: "unary", ...TEN, seconds, operations: [{ name: "range", keys: 1_000_000 }] });
      await settle();
      return memoryNow();
    },
    goal: 200,
  }),
  "memory-fill": {
    ...memory("empty"),
    title: "anonymous resident memory after 1 million puts",
    async run({ generate, settle, memoryNow, quick }) {
      const keys = quick ? 100_000 : 1_000_000;
      await generate({ kind: "fill", ...MANY, keys, valueBytes: VALUE_BYTES });
      await settle();
      return memoryNow();
    },
    goal: 200,
  },
  snapshot: {
    title: "snapshot save of 1 GB",
    fixture: "1gb",
    unit: " MB/s",
    better: "more",
    run: ({ generate, scratch }) => generate({ kind: "snapshot", path: `${scratch}/snapshot.db` }),
    figure: (found) => found.perSecond / 1e6,
    goal: 1,
  },
  "put-three": closedLoop(MANY, [put], { title: "three members, put 100 x 10", members: 3, goal: 1.5 }),
};

/** States to begin from: so many keys, put one by one or many a transaction. */
export const fixtures = {
  empty: undefined,
  "10k": { keys: 10_000, valueBytes: VALUE_BYTES, perTxn: 1 },
  "100k": { keys: 100_000, valueBytes: VALUE_BYTES, perTxn: 1 },
  "1m": { keys: 1_000_000, valueBytes: VALUE_BYTES, perTxn: 1 },
  "500k-1kb": { keys: 500_000, valueBytes: 1000, perTxn: 50 },
  "1gb": { keys: 900_000, valueBytes: 1000, perTxn: 50 },
};
