/**
 * Clients and watchers that write down everything they do and are told, for the checks of linearizability.ts,
 * listings.ts and watching.ts. Few keys and many clients, so that they get into each other's way; each value is written once.
 */
import { type Client, compare, connect, deleteOp, getOp, putOp, toText } from "@etcd-ts/client";
import { type Init, type RangeResponse, type RequestOp, type TxnResponse, Watch } from "@etcd-ts/client/wire";
import type { Answer, Input, Operation, Step, StepResult } from "./linearizability.ts";
import type { Listing } from "./listings.ts";
import { isRetriable, pause } from "./load.ts";
import type { RecordedResponse, RecordedStream } from "./watching.ts";

export const TRAFFIC_PREFIX = "traffic/";

/** How far back listings of the past go, in revisions. */
const PAST_REVISIONS = 200;

/** A sequence of numbers that a seed decides. */
export class Chance {
  #state: number;

  constructor(seed: number) {
    this.#state = seed | 0;
  }

  /** At least 0, less than `bound`. */
  below(bound: number): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let x = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return ((x ^ (x >>> 14)) >>> 0) % bound;
  }

  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)] as T;
  }
}

export interface TrafficOptions {
  readonly endpoints: readonly string[];
  readonly seed: number;
  readonly clients?: number | undefined;
  readonly keys?: number | undefined;
  readonly pauseMs?: number | undefined;
  readonly timeoutMs?: number | undefined;
}

export class Traffic implements AsyncDisposable {
  readonly operations: Operation[] = [];
  readonly listings: Listing[] = [];
  readonly streams: RecordedStream[] = [];
  readonly unexpected: string[] = [];
  readonly #options: TrafficOptions;
  readonly #client: Client;
  readonly #chance: Chance;
  readonly #keys: readonly string[];
  /** Each key's revision as somebody saw it last: what transactions compare with. */
  readonly #lastSeen = new Map<string, number>();
  readonly #stopClients = new AbortController();
  readonly #stopWatchers = new AbortController();
  #clients: Promise<unknown> = Promise.resolve();
  #watchers: Promise<unknown> = Promise.resolve();
  #values = 0;
  /** The highest revision that any answer has told. */
  #highest = 1;

  private constructor(client: Client, options: TrafficOptions) {
    this.#client = client;
    this.#options = options;
    this.#chance = new Chance(options.seed);
    this.#keys = Array.from({ length: options.keys ?? 6 }, (_, n) => `${TRAFFIC_PREFIX}${n}`);
  }

  static async start(options: TrafficOptions): Promise<Traffic> {
    const traffic = new Traffic(await connect({ endpoints: options.endpoints, keepAliveTimeMs: 10_000 }), options);
    traffic.#clients = Promise.all([
      ...Array.from({ length: options.clients ?? 8 }, (_, n) => traffic.#runClient(n)),
      ...options.endpoints.map((endpoint) => traffic.#runLister(endpoint)),
    ]);
    traffic.#watchers = Promise.all([
      // One that stays with each member, and one that goes to another whenever its stream breaks.
      ...options.endpoints.map((endpoint) => traffic.#runWatcher(`at ${endpoint}`, [endpoint])),
      traffic.#runWatcher("anywhere", options.endpoints),
    ]);
    return traffic;
  }

  #someInput(): Input {
    const chance = this.#chance;
    const key = chance.pick(this.#keys);
    const value = () => `value ${++this.#values}`;
    const plain = (...steps: Step[]): Input => ({ conditions: [], steps, otherwise: [] });
    switch (chance.below(10)) {
      case 0:
      case 1:
      case 2:
        return plain({ kind: "get", key });
      case 3:
      case 4:
      case 5:
        return plain({ kind: "put", key, value: value() });
      case 6:
        return plain({ kind: "delete", key });
      case 7: {
        const other = chance.pick(this.#keys.filter((one) => one !== key));
        return plain({ kind: "put", key, value: value() }, { kind: "put", key: other, value: value() });
      }
      default: {
        const steps: Step[] =
          chance.below(4) === 0 ? [{ kind: "delete", key }] : [{ kind: "put", key, value: value() }];
        return {
          conditions: [{ key, modRevision: this.#lastSeen.get(key) ?? 0 }],
          steps,
          otherwise: [{ kind: "get", key }],
        };
      }
    }
  }

  async #runClient(client: number): Promise<void> {
    const { endpoints, pauseMs = 5 } = this.#options;
    let at = client;
    while (!this.#stopClients.signal.aborted) {
      const input = this.#someInput();
      const callMs = performance.now();
      try {
        const answer = await this.#ask(input, endpoints[at % endpoints.length] as string);
        this.operations.push({ client, callMs, returnMs: performance.now(), input, answer });
        this.#remember(input, answer);
        if (pauseMs > 0) await pause(pauseMs);
      } catch (error) {
        this.operations.push({ client, callMs, returnMs: Number.POSITIVE_INFINITY, input, answer: undefined });
        if (!isRetriable(error)) this.unexpected.push(String(error));
        at++;
        await pause(20);
      }
    }
  }

  #remember({ steps, otherwise }: Input, { succeeded, results, revision }: Answer): void {
    this.#highest = Math.max(this.#highest, revision);
    (succeeded ? steps : otherwise).forEach((step, i) => {
      const result = results[i];
      if (result?.kind === "got") this.#lastSeen.set(step.key, result.found?.modRevision ?? 0);
      else this.#lastSeen.set(step.key, step.kind === "delete" ? 0 : revision);
    });
  }

  /** All keys, over and over: as they are, as this member has them, and as they were. */
  async #runLister(endpoint: string): Promise<void> {
    const { timeoutMs = 2_000 } = this.#options;
    while (!this.#stopClients.signal.aborted) {
      const way = this.#chance.pick(["present", "serializable", "past"] as const);
      const knownBefore = this.#highest;
      const isSerializable = way === "serializable";
      const revision = way === "past" ? Math.max(1, knownBefore - this.#chance.below(PAST_REVISIONS)) : 0;
      try {
        const { header, kvs, count } = await this.#client.kv.get(TRAFFIC_PREFIX, {
          prefix: true,
          revision,
          serializable: isSerializable,
          endpoint,
          timeoutMs,
        });
        const rows = kvs.map(({ key, value, createRevision, modRevision, version }) => ({
          key: toText(key),
          value: toText(value),
          createRevision,
          modRevision,
          version,
        }));
        const answeredAt = header?.revision ?? 0;
        this.listings.push({ endpoint, revision, isSerializable, knownBefore, answeredAt, count, rows });
        this.#highest = Math.max(this.#highest, answeredAt);
      } catch (error) {
        if (!isRetriable(error)) this.unexpected.push(`listing at ${endpoint}: ${error}`);
      }
      await pause(20);
    }
  }

  /** Plain reads, puts and deletions go their own ways; only what needs one becomes a transaction. */
  async #ask(input: Input, endpoint: string): Promise<Answer> {
    const options = { endpoint, timeoutMs: this.#options.timeoutMs ?? 2_000 };
    const [only] = input.steps;
    if (input.conditions.length === 0 && input.steps.length === 1 && only) {
      switch (only.kind) {
        case "get": {
          const response = await this.#client.kv.get(only.key, options);
          return { revision: response.header?.revision ?? 0, succeeded: true, results: [got(response)] };
        }
        case "put": {
          const { header } = await this.#client.kv.put(only.key, only.value, options);
          return { revision: header?.revision ?? 0, succeeded: true, results: [{ kind: "put" }] };
        }
        case "delete": {
          const { header, deleted } = await this.#client.kv.delete(only.key, options);
          return { revision: header?.revision ?? 0, succeeded: true, results: [{ kind: "deleted", count: deleted }] };
        }
      }
    }
    const response = await this.#client.kv
      .txn()
      .if(...input.conditions.map(({ key, modRevision }) => compare(key, "mod", "=", modRevision)))
      .then(...input.steps.map(operationOf))
      .else(...input.otherwise.map(operationOf))
      .commit(options);
    return {
      revision: response.header?.revision ?? 0,
      succeeded: response.succeeded,
      results: response.responses.map(resultOf),
    };
  }

  /** Streams one after the other, each from behind what the last one told; nothing is sorted out or left out. */
  async #runWatcher(name: string, endpoints: readonly string[]): Promise<void> {
    const { signal } = this.#stopWatchers;
    let from = 1;
    for (let attempt = 0; !signal.aborted; attempt++) {
      const endpoint = endpoints[attempt % endpoints.length] as string;
      const responses: RecordedResponse[] = [];
      this.streams.push({ name, endpoint, from, responses });
      try {
        const stream = await this.#client.duplex(Watch.methods.watch, { endpoint, signal });
        stream.write({
          requestUnion: {
            kind: "createRequest",
            value: {
              key: new TextEncoder().encode(TRAFFIC_PREFIX),
              rangeEnd: new TextEncoder().encode("traffic0"),
              startRevision: from,
              prevKv: true,
              progressNotify: true,
            },
          },
        });
        let told = 0;
        for await (const { created, canceled, cancelReason, header, events, watchId } of stream) {
          if (canceled) throw new Error(`cancelled: ${cancelReason}`);
          if (created) continue;
          responses.push({
            revision: header?.revision ?? 0,
            isForAll: watchId === -1n,
            events: events.map(({ kv, prevKv, type }) => ({
              revision: kv?.modRevision ?? 0,
              key: toText(kv?.key ?? new Uint8Array(0)),
              value: type === 1 ? undefined : toText(kv?.value ?? new Uint8Array(0)),
              previous: prevKv && toText(prevKv.value),
            })),
          });
          const last = events.at(-1)?.kv?.modRevision;
          if (last !== undefined) from = last + 1;
          if (++told % 20 === 0) stream.write({ requestUnion: { kind: "progressRequest", value: {} } });
        }
      } catch (error) {
        if (signal.aborted) return;
        if (!isRetriable(error)) this.unexpected.push(`watch ${name}: ${error}`);
      }
      await pause(50);
    }
  }

  /** The clients come to their end; the watchers go on. */
  async stopClients(): Promise<void> {
    this.#stopClients.abort();
    await this.#clients;
  }

  /** The last revision that each watcher has been told of. */
  get watchedTo(): ReadonlyMap<string, number> {
    const last = new Map<string, number>();
    for (const { name, from, responses } of this.streams) {
      const told = responses.flatMap(({ events }) => events).at(-1)?.revision ?? from - 1;
      last.set(name, Math.max(last.get(name) ?? 0, told));
    }
    return last;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopClients.abort();
    this.#stopWatchers.abort();
    this.#client.close();
    await Promise.all([this.#clients, this.#watchers]);
  }
}

function operationOf(step: Step): Init<RequestOp> {
  switch (step.kind) {
    case "get":
      return getOp(step.key);
    case "put":
      return putOp(step.key, step.value);
    case "delete":
      return deleteOp(step.key);
  }
}

function got({ kvs: [kv] }: RangeResponse): StepResult {
  return { kind: "got", found: kv && { value: toText(kv.value), modRevision: kv.modRevision } };
}

function resultOf({ response }: TxnResponse["responses"][number]): StepResult {
  switch (response?.kind) {
    case "responseRange":
      return got(response.value);
    case "responsePut":
      return { kind: "put" };
    case "responseDeleteRange":
      return { kind: "deleted", count: response.value.deleted };
    default:
      throw new Error(`an answer of the kind ${response?.kind} to a step`);
  }
}
