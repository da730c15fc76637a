/**
 * Watches that outlive their connection.
 *
 * One gRPC stream carries all ranges of a {@link Watcher}. When it breaks, the watcher opens another, at the next endpoint,
 * and asks for each range from the revision after the last it has handed out; so the consumer sees every revision
 * once and in order. It is an async iterable that reads ahead no further than the transport's own window: a
 * slow consumer slows its stream, and the server keeps its place.
 *
 * ```
 *   open stream -> create request for each range -> created -> events ... -> broken -> wait -> open stream -> ...
 *                     from nextRevision                         \-> canceled by the server: handed out, range is done
 * ```
 *
 * It ends when all its ranges are done, when {@link Watcher.close} is called or the loop is left, and throws when its
 * signal is aborted or an error comes that another connection would not mend.
 */
import { type BytesLike, type KeyRange, keyAndEnd } from "./bytes.ts";
import type { Client, Duplex } from "./client.ts";
import { isBrokenConnection } from "./errors.ts";
import type { CallOptions } from "./options.ts";
import { sleep } from "./retry.ts";
import {
  Code,
  type EtcdError,
  type Event,
  etcdErrorFromStatus,
  type Init,
  Watch,
  type WatchCreateRequest,
  type WatchRequest,
  type WatchResponse,
} from "./wire/index.ts";

/** What to watch: the fields of etcd's WatchCreateRequest. */
export type WatchInit = Init<WatchCreateRequest>;

/** How to watch. */
export interface WatchOptions extends Omit<CallOptions, "timeoutMs"> {
  /** Told after the stream broke and another stands; `error` is what broke it. */
  readonly onReconnect?: ((error: unknown) => void) | undefined;
  /** Also hand out the server's answer to each first create request (`created`, no events). */
  readonly createdNotify?: boolean | undefined;
}

/** Pause before a new stream: short at first, since a restarted member is often back at once. */
const RECONNECT_FIRST_MS = 10;
const RECONNECT_MAX_MS = 500;

interface Range {
  readonly create: WatchInit;
  /** The next revision to hand out; 0 while the server has not said where "now" is. */
  nextRevision: number;
  /** What the consumer knows it by: the id of its first creation. */
  stableId: bigint | undefined;
  /** Its id on the present stream. */
  streamId: bigint | undefined;
  isDone: boolean;
  /** Events of a response that the server sends in parts. */
  fragments: Event[];
}

/** Events of one range or several, as an async iterable. */
export class Watcher implements AsyncIterable<WatchResponse> {
  readonly #client: Client;
  readonly #options: WatchOptions;
  readonly #ranges: Range[];
  readonly #stop = new AbortController();
  #stream: Duplex<Init<WatchRequest>, WatchResponse> | undefined;
  #isIterated = false;

  /** Use `client.watch`. */
  constructor(client: Client, requests: readonly WatchInit[], options: WatchOptions) {
    this.#client = client;
    this.#options = options;
    this.#ranges = requests.map((create) => ({
      create,
      nextRevision: create.startRevision ?? 0,
      stableId: undefined,
      streamId: undefined,
      isDone: false,
      fragments: [],
    }));
  }

  /** Asks the server to tell, in an event-less response with watchId -1, up to which revision everything has been sent. */
  requestProgress(): void {
    this.#stream?.write({ requestUnion: { kind: "progressRequest", value: {} } });
  }

  /** Asks the server to end one range; its answer is handed out with `canceled`. */
  cancel(watchId: bigint): void {
    const range = this.#ranges.find((candidate) => candidate.stableId === watchId);
    if (range?.streamId === undefined) return;
    this.#stream?.write({ requestUnion: { kind: "cancelRequest", value: { watchId: range.streamId } } });
  }

  /** Ends the watch; the loop over it ends without an error. */
  close(): void {
    this.#stop.abort();
  }

  [Symbol.asyncIterator](): AsyncGenerator<WatchResponse, void, void> {
    if (this.#isIterated) throw new Error("a watch is iterated once");
    this.#isIterated = true;
    return this.#run();
  }

  async *#run(): AsyncGenerator<WatchResponse, void, void> {
    const { signal: outer } = this.#options;
    const signal = outer ? AbortSignal.any([outer, this.#stop.signal]) : this.#stop.signal;
    let pauseMs = RECONNECT_FIRST_MS;
    let broken: { error: unknown } | undefined;
    while (this.#ranges.some((range) => !range.isDone)) {
      try {
        const stream = await this.#client.duplex<Init<WatchRequest>, WatchResponse>(Watch.methods.watch, {
          ...this.#options,
          signal,
        });
        this.#stream = stream;
        const waiting = this.#create(stream);
        for await (const response of stream) {
          if (broken) {
            this.#options.onReconnect?.(broken.error);
            broken = undefined;
            pauseMs = RECONNECT_FIRST_MS;
          }
          yield* this.#take(response, waiting);
          if (this.#ranges.every((range) => range.isDone)) return;
        }
        broken ??= { error: new Error("the server ended the watch stream") };
      } catch (error) {
        if (this.#stop.signal.aborted) return;
        outer?.throwIfAborted();
        if (this.#client.isTokenError(error)) await this.#client.login();
        else if (!isBrokenConnection(error)) throw error;
        broken = { error };
      } finally {
        this.#stream?.cancel();
        this.#stream = undefined;
      }
      try {
        await sleep(pauseMs, signal);
      } catch {
        outer?.throwIfAborted();
        return;
      }
      pauseMs = Math.min(pauseMs * 2, RECONNECT_MAX_MS);
    }
  }

  /** Sends the create requests; the server answers them in this order. */
  #create(stream: Duplex<Init<WatchRequest>, WatchResponse>): Range[] {
    const waiting = this.#ranges.filter((range) => !range.isDone);
    for (const range of waiting) {
      range.streamId = undefined;
      range.fragments = [];
      const create = { ...range.create, startRevision: range.nextRevision };
      stream.write({ requestUnion: { kind: "createRequest", value: create } });
    }
    return waiting;
  }

  *#take(response: WatchResponse, waiting: Range[]): Generator<WatchResponse, void, void> {
    if (response.created) {
      const range = waiting.shift();
      if (!range) return;
      const isFirst = range.stableId === undefined;
      // The token ran out: log in and open another stream, as if this one had broken.
      const refusal = response.canceled ? errorFromReason(response.cancelReason) : undefined;
      if (refusal && this.#client.isTokenError(refusal)) throw refusal;
      range.streamId = response.watchId;
      range.stableId ??= response.watchId;
      if (response.canceled) {
        range.isDone = true;
        yield { ...response, watchId: range.stableId };
        return;
      }
      // "From now on" must mean this moment also after a reconnect.
      if (range.nextRevision === 0) range.nextRevision = (response.header?.revision ?? 0) + 1;
      if (isFirst && this.#options.createdNotify) yield response;
      return;
    }
    if (response.watchId === -1n && !response.canceled) {
      yield response; // an answer to requestProgress() speaks for all ranges
      return;
    }
    const range = this.#ranges.find((candidate) => candidate.streamId === response.watchId && !candidate.isDone);
    if (!range || range.stableId === undefined) return;
    if (response.canceled) {
      range.isDone = true;
      yield { ...response, watchId: range.stableId };
      return;
    }
    if (response.fragment) {
      range.fragments.push(...response.events);
      return;
    }
    const all = range.fragments.length > 0 ? [...range.fragments, ...response.events] : response.events;
    range.fragments = [];
    if (all.length === 0) {
      // A progress notice: everything up to this revision has been sent.
      range.nextRevision = Math.max(range.nextRevision, (response.header?.revision ?? 0) + 1);
      yield { ...response, watchId: range.stableId };
      return;
    }
    const events = all.filter((event) => (event.kv?.modRevision ?? 0) >= range.nextRevision);
    if (events.length === 0) return;
    range.nextRevision = (events.at(-1)?.kv?.modRevision ?? range.nextRevision) + 1;
    yield { ...response, watchId: range.stableId, events };
  }
}

/** The error that a watch's cancel reason quotes the way Go prints a status; undefined for other reasons. */
function errorFromReason(reason: string): EtcdError | undefined {
  const [, text] = /^rpc error: code = \w+ desc = (.*)$/s.exec(reason) ?? [];
  return text === undefined ? undefined : etcdErrorFromStatus(Code.Unknown, text);
}

/** A watch of `key` and its range, from `startRevision` on (0 or absent: from now on). */
export function watchInit(key: BytesLike, options: KeyRange & Omit<WatchInit, "key" | "rangeEnd"> = {}): WatchInit {
  const { prefix, fromKey, rangeEnd, ...rest } = options;
  return { ...rest, ...keyAndEnd(key, { prefix, fromKey, rangeEnd }) };
}
