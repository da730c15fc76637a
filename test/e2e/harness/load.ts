/**
 * A load of writes that keeps its own account: every write carries a number that is written once, and for every one that
 * was acknowledged its revision is kept. {@link WriteLoad.verify} then holds the account against what each member tells
 * through a watch from the first revision on:
 *
 * - each acknowledged write is there, at the revision it was acknowledged with, and with its value;
 * - nothing is there twice, and nothing that was not sent;
 * - no revision was given to two writes;
 * - all members tell the same history.
 *
 * A write whose answer was an error may be there or not. Errors are sorted into those that a client may repeat and
 * others; of the latter there must be none.
 */
import { createHash, type Hash } from "node:crypto";
import { type Client, Code, codeOf, compare, connect, putOp, toText, watchInit } from "@etcd-ts/client";

/** Codes that say: try again, here or elsewhere; the write may or may not have happened. */
const RETRIABLE_CODES: ReadonlySet<number> = new Set([
  Code.Unavailable,
  Code.DeadlineExceeded,
  Code.ResourceExhausted,
  Code.Canceled,
]);

/** What grpc says of a connection that broke under a call. */
const BROKEN_CONNECTION = /RST_STREAM|Received HTTP|ECONNRESET|transport|stream/i;

export function isRetriable(error: unknown): boolean {
  const code = codeOf(error);
  if (code === undefined) return false;
  if (RETRIABLE_CODES.has(code)) return true;
  if (code === Code.Internal || code === Code.Unknown) {
    const text = error instanceof Error ? error.message : "";
    // A real leader that is about to hand over answers so.
    return BROKEN_CONNECTION.test(text) || text.includes("raft proposal dropped");
  }
  return false;
}

export interface LoadOptions {
  readonly endpoints: readonly string[];
  readonly workers?: number | undefined;
  readonly valueBytes?: number | undefined;
  /** Pause of each worker between two writes. */
  readonly pauseMs?: number | undefined;
  /** Keys of each worker; it goes round among them. */
  readonly keysPerWorker?: number | undefined;
  readonly timeoutMs?: number | undefined;
}

export interface HistoryEvent {
  readonly revision: number;
  readonly key: string;
  /** Undefined: deleted. */
  readonly value: string | undefined;
}

const PREFIX = "load/";
/** The number in a value: `worker:number:padding`. */
const labelOf = (value: string): string => value.substring(0, value.indexOf(":", value.indexOf(":") + 1));

const PROBE_PAUSE_MS = 25;

export class WriteLoad implements AsyncDisposable {
  /** By label: the revision that the write was acknowledged with. */
  readonly acknowledged = new Map<string, number>();
  readonly #sent = new Set<string>();
  /** Texts of errors and how often each came. */
  readonly errors = new Map<string, number>();
  /** Errors that a client may not simply repeat. */
  readonly unexpected: string[] = [];
  readonly latenciesMs: number[] = [];
  #endpoints: readonly string[];
  readonly #options: LoadOptions;
  readonly #client: Client;
  readonly #stop = new AbortController();
  #running: Promise<unknown> = Promise.resolve();
  #held: { readonly promise: Promise<void>; release(): void } | undefined;
  #holding = 0;
  #probes = 0;
  #probing: Promise<unknown> = Promise.resolve();

  private constructor(client: Client, options: LoadOptions) {
    this.#client = client;
    this.#options = options;
    this.#endpoints = options.endpoints;
  }

  static async start(options: LoadOptions): Promise<WriteLoad> {
    const load = new WriteLoad(await connect({ endpoints: options.endpoints, keepAliveTimeMs: 10_000 }), options);
    const workers = options.workers ?? 8;
    load.#running = Promise.all(Array.from({ length: workers }, (_, worker) => load.#work(worker)));
    return load;
  }

  /** Members came or went: writes go to these from now on. */
  setEndpoints(endpoints: readonly string[]): void {
    this.#endpoints = endpoints;
    this.#client.setEndpoints(endpoints);
  }

  async #work(worker: number): Promise<void> {
    const { pauseMs = 0 } = this.#options;
    let at = worker;
    for (let n = 0; !this.#stop.signal.aborted; n++) {
      if (this.#held) {
        this.#holding++;
        await this.#held.promise;
        this.#holding--;
      }
      if (!(await this.#write(`${worker}`, n, this.#endpoints[at % this.#endpoints.length] as string))) {
        at++;
        await pause(20);
      } else if (pauseMs > 0) {
        await pause(pauseMs);
      }
    }
  }

  /** Whether it was acknowledged. */
  async #write(writer: string, n: number, endpoint: string): Promise<boolean> {
    const { valueBytes = 100, keysPerWorker = 50, timeoutMs = 2_000 } = this.#options;
    const label = `${writer}:${n}`;
    const key = `${PREFIX}${writer}/${n % keysPerWorker}`;
    const value = `${label}:${"v".repeat(valueBytes)}`;
    this.#sent.add(label);
    const startMs = performance.now();
    try {
      const options = { endpoint, timeoutMs };
      // Now and then as a transaction of two writes, which must be found together.
      const { header } =
        n % 8 === 7
          ? await this.#client.kv
              .txn()
              .if(compare(key, "version", ">", -1))
              .then(putOp(key, value), putOp(`${key}/twin`, value))
              .commit(options)
          : await this.#client.kv.put(key, value, options);
      this.acknowledged.set(label, header?.revision ?? 0);
      this.latenciesMs.push(performance.now() - startMs);
      return true;
    } catch (error) {
      if (this.#stop.signal.aborted && codeOf(error) === Code.Canceled) return false;
      const text = `${codeOf(error) ?? "?"} ${error instanceof Error ? error.message : error}`;
      this.errors.set(text, (this.errors.get(text) ?? 0) + 1);
      if (!isRetriable(error)) this.unexpected.push(text);
      return false;
    }
  }

  /**
   * Resolves with the time (of `performance.now()`) at which a write that was sent after this call is acknowledged. The
   * workers may all be waiting for answers that will not come, so writes are sent to every endpoint again and again.
   */
  async nextWrite(): Promise<number> {
    let answeredMs: number | undefined;
    const probes: Promise<void>[] = [];
    for (; answeredMs === undefined && !this.#stop.signal.aborted; await pause(PROBE_PAUSE_MS)) {
      for (const endpoint of this.#endpoints) {
        const probe = this.#write("probe", this.#probes++, endpoint).then((isAcknowledged) => {
          if (isAcknowledged) answeredMs ??= performance.now();
        });
        probes.push(probe);
      }
    }
    this.#probing = Promise.all([this.#probing, ...probes]);
    return answeredMs ?? Number.NaN;
  }

  /** Resolves when this many more writes have been acknowledged. */
  async writes(count: number): Promise<void> {
    const wanted = this.acknowledged.size + count;
    while (this.acknowledged.size < wanted) await pause(10);
  }

  /** Until {@link goOn} nothing is written; resolves when all that is under way has its answer. */
  async hold(): Promise<void> {
    let release = (): void => {};
    const promise = new Promise<void>((resolve) => {
      release = resolve;
    });
    this.#held ??= { promise, release };
    await this.#probing;
    while (this.#holding < (this.#options.workers ?? 8)) await pause(10);
  }

  goOn(): void {
    this.#held?.release();
    this.#held = undefined;
  }

  /** No new writes; resolves when those under way have their answers. */
  async stop(): Promise<void> {
    this.goOn();
    this.#stop.abort();
    await Promise.all([this.#running, this.#probing]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.goOn();
    this.#stop.abort();
    this.#client.close();
    await Promise.all([this.#running, this.#probing]);
  }

  /** Throws unless what each of these members tells agrees with the account and with the others. */
  async verify(endpoints: readonly string[], revision: number): Promise<{ events: number; unacknowledged: number }> {
    const revisions = new Map<number, string>();
    for (const [label, at] of this.acknowledged) {
      const other = revisions.get(at);
      if (other !== undefined) throw new Error(`revision ${at} was given to both ${other} and ${label}`);
      revisions.set(at, label);
    }
    const digests = new Map<string, string>();
    let events = 0;
    let unacknowledged = 0;
    for (const endpoint of endpoints) {
      const found = new Map<string, { revision: number; count: number }>();
      const digest = createHash("sha256");
      events = 0;
      for await (const event of history(this.#client, endpoint, revision)) {
        hashEvent(digest, event);
        if (!event.key.startsWith(PREFIX) || event.value === undefined) continue;
        events++;
        const label = labelOf(event.value);
        if (!this.#sent.has(label)) throw new Error(`${endpoint}: revision ${event.revision} was never sent: ${label}`);
        const before = found.get(label);
        if (before && before.revision !== event.revision) {
          throw new Error(`${endpoint}: ${label} was written twice, at ${before.revision} and ${event.revision}`);
        }
        if (before) before.count++;
        else found.set(label, { revision: event.revision, count: 1 });
      }
      for (const [label, at] of this.acknowledged) {
        const there = found.get(label);
        if (!there) throw new Error(`${endpoint}: ${label}, acknowledged with revision ${at}, is lost`);
        if (there.revision !== at) {
          throw new Error(`${endpoint}: ${label}, acknowledged with revision ${at}, is at ${there.revision}`);
        }
      }
      for (const [label, { count, revision: at }] of found) {
        const expected = Number(label.split(":")[1]) % 8 === 7 ? 2 : 1;
        if (count !== expected) throw new Error(`${endpoint}: half of ${label} at ${at}: ${count} of ${expected}`);
      }
      unacknowledged = found.size - this.acknowledged.size;
      digests.set(endpoint, digest.digest("hex"));
    }
    if (new Set(digests.values()).size > 1) throw new Error(`histories differ: ${JSON.stringify([...digests])}`);
    return { events, unacknowledged };
  }
}

function hashEvent(hash: Hash, { revision, key, value }: HistoryEvent): void {
  hash.update(`${revision} ${key.length} ${key} ${value === undefined ? "-" : value.length} `).update(value ?? "");
}

/** Everything that one member has applied, from the first revision up to `until`, in order. */
export async function* history(client: Client, endpoint: string, until: number): AsyncGenerator<HistoryEvent> {
  if (until < 2) return;
  const all = watchInit("", { fromKey: true, startRevision: 1 });
  // A last revision that deleted nothing has no event: a progress notice then tells that the end is reached.
  const watcher = client.watch(all, { endpoint, createdNotify: true });
  let last = 0;
  for await (const { created, canceled, events, header, cancelReason } of watcher) {
    if (canceled) throw new Error(`the watch on ${endpoint} was cancelled: ${cancelReason}`);
    if (created) {
      watcher.requestProgress();
      continue;
    }
    for (const { kv, type } of events) {
      const at = kv?.modRevision ?? 0;
      if (at < last) throw new Error(`${endpoint}: a watch told of revision ${at} after ${last}`);
      last = at;
      yield {
        revision: at,
        key: toText(kv?.key ?? new Uint8Array(0)),
        value: type === 1 ? undefined : toText(kv?.value ?? new Uint8Array(0)),
      };
    }
    if (last >= until) return;
    if (events.length === 0) {
      if ((header?.revision ?? 0) >= until) return;
      await pause(10);
      watcher.requestProgress();
    }
  }
}

export const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** The value below which a share of them lies. */
export function quantile(values: readonly number[], share: number): number {
  if (values.length === 0) return Number.NaN;
  const sorted = Float64Array.from(values).sort();
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] as number;
}

/** The error texts of a load, the frequent ones first. */
export function errorSummary(errors: ReadonlyMap<string, number>): string {
  return [...errors]
    .sort((a, b) => b[1] - a[1])
    .map(([text, count]) => `${count} x ${text}`)
    .join("; ");
}
