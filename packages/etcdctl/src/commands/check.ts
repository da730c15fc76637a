// check perf and check datascale: what the cluster can bear.
import { type Init, KV, Maintenance, type PutRequest } from "@etcd-ts/client/wire";
import type { CommandContext, Connected, CtlClient } from "../context.ts";
import { errorText } from "../errors.ts";
import { BAD_FEATURE, ERROR, ExitError, exitSilently, INVALID_INPUT } from "../exit.ts";
import { quote } from "../go/quote.ts";
import { prefixRange } from "../keys.ts";
import { toBytes } from "../go/bytes.ts";
import { bar, startProgress } from "../progress.ts";

const loads: Readonly<Record<string, "s" | "m" | "l" | "xl">> = {
  s: "s",
  small: "s",
  m: "m",
  medium: "m",
  l: "l",
  large: "l",
  xl: "xl",
  xLarge: "xl",
};

type Loads = Readonly<Record<"s" | "m" | "l" | "xl", { readonly limit: number; readonly clients: number }>>;

/** Puts a second, and how many of them may be on their way at once. */
const perfLoads: Loads = {
  s: { limit: 150, clients: 50 },
  m: { limit: 1000, clients: 200 },
  l: { limit: 8000, clients: 500 },
  xl: { limit: 15000, clients: 1000 },
};
const PERF_SECONDS = 60;
const PERF_KEY_BYTES = 256;
const PERF_VALUE_BYTES = 1024;

/** Puts in all. */
const dataLoads: Loads = {
  s: { limit: 10_000, clients: 50 },
  m: { limit: 100_000, clients: 200 },
  l: { limit: 1_000_000, clients: 500 },
  xl: { limit: 3_000_000, clients: 1000 },
};
const DATA_BYTES = 1024;

/** Workers that share a connection. */
const CLIENTS_PER_CONNECTION = 50;
const CLEAN_UP_TIMEOUT_MS = 30_000;
const PACE_MS = 5;

/** What the requests of a check took. */
export class Report {
  readonly #start: number;
  readonly #seconds: number[] = [];
  readonly #errors = new Map<string, number>();

  constructor(startMs: number) {
    this.#start = startMs;
  }

  success(seconds: number): void {
    this.#seconds.push(seconds);
  }

  failure(text: string): void {
    this.#errors.set(text, (this.#errors.get(text) ?? 0) + 1);
  }

  get errors(): ReadonlyMap<string, number> {
    return this.#errors;
  }

  summary(nowMs: number): { perSecond: number; slowest: number; deviation: number } {
    const all = this.#seconds;
    let sum = 0;
    let slowest = 0;
    for (const seconds of all) {
      sum += seconds;
      slowest = Math.max(slowest, seconds);
    }
    const mean = sum / all.length;
    let squares = 0;
    for (const seconds of all) squares += (seconds - mean) ** 2;
    const elapsed = (nowMs - this.#start) / 1000;
    return {
      perSecond: all.length / elapsed,
      slowest,
      deviation: all.length === 0 ? 0 : Math.sqrt(squares / all.length),
    };
  }
}

function load(context: CommandContext, table: Loads): Loads["s"] {
  const given = context.flags.string("load");
  const model = Object.hasOwn(loads, given) ? loads[given] : undefined;
  if (!model) throw new ExitError(BAD_FEATURE, `unknown load option ${given}`);
  return table[model];
}

/** Connections enough for so many workers, closed together. */
async function openClients(context: CommandContext, clients: number): Promise<Connected<CtlClient>[]> {
  const connected = [await context.connectFully()];
  while (connected.length * CLIENTS_PER_CONNECTION < clients) connected.push(await context.connectFully());
  return connected;
}

const randomKey = (prefix: Uint8Array, bytes: number): Uint8Array => {
  const key = Buffer.alloc(prefix.length + bytes);
  key.set(prefix);
  for (let i = 0; i < 10; i++) key[prefix.length + i] = Math.floor(Math.random() * 256);
  return key;
};

/** Puts requests from a source until it says `undefined`; `take` may wait. */
async function work(
  context: CommandContext,
  connected: readonly Connected<CtlClient>[],
  workers: number,
  report: Report,
  take: () => Promise<Init<PutRequest> | undefined>,
): Promise<void> {
  const one = async (client: CtlClient): Promise<void> => {
    for (let request = await take(); request !== undefined; request = await take()) {
      const start = context.io.now();
      try {
        await client.call(KV.methods.put, request);
        report.success((context.io.now() - start) / 1000);
      } catch (error) {
        report.failure(errorText(error));
      }
    }
  };
  await Promise.all(
    Array.from({ length: workers }, (_, i) => one((connected[i % connected.length] as Connected<CtlClient>).client)),
  );
}

async function refuseKeys(client: CtlClient, prefix: string, mark: string): Promise<void> {
  const { kvs } = await client.call(KV.methods.range, { ...prefixRange(toBytes(prefix)), limit: 1 });
  if (kvs.length === 0) return;
  const text = `prefix ${quote(prefix)} has keys. Delete with ${mark}etcdctl del --prefix ${prefix}${mark} first`;
  throw new ExitError(INVALID_INPUT, text);
}

async function cleanUp(context: CommandContext, client: CtlClient, prefix: string): Promise<void> {
  const { flags, io } = context;
  const timeoutMs = CLEAN_UP_TIMEOUT_MS;
  const { header } = await client.call(KV.methods.deleteRange, prefixRange(toBytes(prefix)), { timeoutMs });
  if (flags.bool("auto-compact")) {
    const revision = header?.revision ?? 0;
    io.out.write(`Compacting with revision ${revision}\n`);
    await client.call(KV.methods.compact, { revision, physical: true }, { timeoutMs });
    io.out.write(`Compacted with revision ${revision}\n`);
  }
  if (flags.bool("auto-defrag")) {
    for (const endpoint of client.endpoints) {
      io.out.write(`Defragmenting ${quote(endpoint)}\n`);
      await client.call(Maintenance.methods.defragment, {}, { timeoutMs, endpoint });
      io.out.write(`Defragmented ${quote(endpoint)}\n`);
    }
  }
}

function printErrors({ io }: CommandContext, report: Report): boolean {
  if (report.errors.size === 0) return true;
  io.out.write("FAIL: too many errors\n");
  for (const [text, count] of report.errors) io.out.write(`FAIL: ERROR(${text}) -> ${count}\n`);
  return false;
}

/** `check perf` */
export async function runCheckPerf(context: CommandContext): Promise<void> {
  const { flags, io } = context;
  const { limit, clients } = load(context, perfLoads);
  const prefix = flags.string("prefix");
  await using pool = disposeAll(await openClients(context, clients));
  const [{ client }] = pool.items as [Connected<CtlClient>];
  await refuseKeys(client, prefix, "'");
  const report = new Report(io.now());
  const progress = await startProgress(io, bar(0, PERF_SECONDS));
  try {
    const pace = startPace(context, limit, clients, (left) =>
      progress.update(`${bar(PERF_SECONDS - left, PERF_SECONDS)} ${left} s to go`),
    );
    const value = new Uint8Array(PERF_VALUE_BYTES);
    const prefixBytes = toBytes(prefix);
    await work(context, pool.items, clients, report, async () =>
      (await pace.take()) ? { key: randomKey(prefixBytes, PERF_KEY_BYTES), value } : undefined,
    );
  } finally {
    progress.stop();
  }
  const summary = report.summary(io.now());
  await cleanUp(context, client, prefix);
  const isFree = printErrors(context, report);
  const isGood = judgePerf(summary, limit, (line) => io.out.write(`${line}\n`)) && isFree;
  io.out.write(isGood ? "PASS\n" : "FAIL\n");
  if (!isGood) throw exitSilently(ERROR, "the cluster did not pass");
}

/** Says what is good and what is not, in etcdctl's words. */
export function judgePerf(
  { perSecond, slowest, deviation }: { perSecond: number; slowest: number; deviation: number },
  limit: number,
  say: (line: string) => void,
): boolean {
  const isQuick = perSecond / limit > 0.9;
  const writes = Math.trunc(perSecond) + 1;
  say(isQuick ? `PASS: Throughput is ${writes} writes/s` : `FAIL: Throughput too low: ${writes} writes/s`);
  const isPrompt = slowest <= 0.5;
  const slow = `${slowest.toFixed(6)}s`;
  say(isPrompt ? `PASS: Slowest request took ${slow}` : `Slowest request took too long: ${slow}`);
  const isEven = deviation <= 0.1;
  const spread = `${deviation.toFixed(6)}s`;
  say(isEven ? `PASS: Stddev is ${spread}` : `Stddev too high: ${spread}`);
  return isQuick && isPrompt && isEven;
}

/** Hands out permits at an even rate for a minute; what nobody takes in time is lost. */
function startPace(
  { io }: CommandContext,
  perSecond: number,
  queueMax: number,
  onSecond: (left: number) => void,
): { take(): Promise<boolean> } {
  const start = io.now();
  let given = 0;
  let ready = 0;
  let isOver = false;
  const waiting: ((isPermitted: boolean) => void)[] = [];
  const timer = setInterval(() => {
    const seconds = (io.now() - start) / 1000;
    onSecond(Math.max(0, Math.ceil(PERF_SECONDS - seconds)));
    isOver = seconds >= PERF_SECONDS;
    const due = Math.floor(Math.min(seconds, PERF_SECONDS) * perSecond);
    for (; given < due; given++) {
      const next = waiting.shift();
      if (next) next(true);
      else if (ready < queueMax) ready++;
    }
    if (!isOver) return;
    clearInterval(timer);
    for (const next of waiting.splice(0)) next(false);
  }, PACE_MS);
  return {
    take() {
      if (ready > 0) {
        ready--;
        return Promise.resolve(true);
      }
      return isOver ? Promise.resolve(false) : new Promise((resolve) => waiting.push(resolve));
    },
  };
}

/** `check datascale` */
export async function runCheckDatascale(context: CommandContext): Promise<void> {
  const { flags, io } = context;
  const { limit, clients } = load(context, dataLoads);
  const prefix = flags.string("prefix");
  await using pool = disposeAll(await openClients(context, clients));
  const [{ client, tls }] = pool.items as [Connected<CtlClient>];
  const [endpoint = ""] = await context.endpoints();
  await refuseKeys(client, prefix, "");
  const { residentMemoryBytes } = await import("../metrics.ts");
  const measure = async (when: "before" | "after"): Promise<number> => {
    try {
      return await residentMemoryBytes(endpoint, tls);
    } catch (error) {
      io.out.write(`${(error as Error).message}\n`);
      io.out.write(`FAIL: Could not read process_resident_memory_bytes ${when} the put operations.\n`);
      throw exitSilently(ERROR);
    }
  };
  const before = await measure("before");
  io.out.write(
    `Start data scale check for work load [${limit} key-value pairs, ${DATA_BYTES} bytes per key-value, ${clients} concurrent clients].\n`,
  );
  const report = new Report(io.now());
  const progress = await startProgress(io, bar(0, limit));
  try {
    let done = 0;
    const value = new Uint8Array(DATA_BYTES / 2);
    const prefixBytes = toBytes(prefix);
    await work(context, pool.items, clients, report, () => {
      if (done >= limit) return Promise.resolve(undefined);
      done++;
      if (done % 1000 === 0) progress.update(`${bar(done, limit)} ${done} of ${limit}`);
      return Promise.resolve({ key: randomKey(prefixBytes, DATA_BYTES / 2), value });
    });
  } finally {
    progress.stop();
  }
  const after = await measure("after");
  await cleanUp(context, client, prefix);
  if (!printErrors(context, report)) throw exitSilently(ERROR);
  const megabytes = (after - before) / (1024 * 1024);
  io.out.write(`PASS: Approximate system memory used : ${megabytes.toFixed(2)} MB.\n`);
}

function disposeAll(
  items: Connected<CtlClient>[],
): AsyncDisposable & { readonly items: readonly Connected<CtlClient>[] } {
  return {
    items,
    async [Symbol.asyncDispose]() {
      for (const item of items) await item[Symbol.asyncDispose]();
    },
  };
}
