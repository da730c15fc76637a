/**
 * Watch: one gRPC stream, many watchers. Requests are read in one loop, and what the store's outbox holds is sent in
 * another; both write to the same sink, so nothing overtakes anything. The pump takes from the outbox only while the
 * caller reads: a slow caller fills its outbox, and the store then parks the watcher and reads its events again later.
 *
 * Answers to create and cancel are written when the request is read, before anything the new watcher may have to say.
 * Half-closing by the caller does not end the stream.
 */
import {
  codeName,
  EtcdError,
  FilterType,
  type ResponseHeader,
  Watch,
  type WatchCreateRequest,
  type WatchRequest,
  WatchResponse,
} from "@etcd-ts/client/wire";
import type { EtcdServer, RequestContext } from "../../etcdserver/index.ts";
import type { Timer } from "../../lib/clock.ts";
import { deferred } from "../../lib/wait.ts";
import { piecesOf, type WatchDelivery, type WatchStream } from "../../mvcc/index.ts";
import {
  type CallContext,
  EncodedMessage,
  type ResponseSink,
  type ServiceRegistration,
  serve,
} from "../../rpc/index.ts";
import { type ApiDeps, callerOf } from "./context.ts";
import type { LocalEvents } from "./local-client.ts";
import { Turns } from "./turns.ts";

/** Stands for "no watcher" in answers: a refused create, a progress note for the whole stream. */
const NO_WATCHER = -1n;
const PROGRESS_INTERVAL_MIN_MS = 100;
/** Answers that all watch streams together send in one turn of the event loop, and events of one that count as much. */
const ANSWERS_PER_TURN = 256;
const EVENTS_PER_UNIT = 8;
type Sink = ResponseSink<Partial<WatchResponse>>;

/** What a refused create says as it is; anything else is told as a lack of permission. */
const watchRefusals: ReadonlySet<string> = new Set(["InvalidAuthToken", "AuthOldRevision", "UserEmpty"]);

interface WatcherFlags {
  /** Field `watch_id` of its answers. */
  readonly idBytes: Uint8Array;
  /** Wants progress notes; true while no event was sent since the last tick. */
  isQuiet: boolean;
  readonly wantsProgress: boolean;
  readonly fragment: boolean;
}

const FRAGMENT_BYTES = WatchResponse.encode({ fragment: true });

/** Field `header` of answers: encoded once for all that are of one revision, whatever stream they are for. */
class Headers {
  readonly #server: EtcdServer;
  #term = -1;
  #revision = -1;
  #bytes: Uint8Array = new Uint8Array(0);

  constructor(server: EtcdServer) {
    this.#server = server;
  }

  at(revision: number): Uint8Array {
    const header = this.#server.header();
    if (revision !== this.#revision || header.raftTerm !== this.#term) {
      this.#revision = revision;
      this.#term = header.raftTerm;
      this.#bytes = WatchResponse.encode({ header: { ...header, revision } });
    }
    return this.#bytes;
  }
}

/** Single key: undefined. "\0" as the end: everything from the key on, which the store is told by an empty end. */
function storeRangeEnd(rangeEnd: Uint8Array): Uint8Array | undefined {
  if (rangeEnd.length === 0) return undefined;
  return rangeEnd.length === 1 && rangeEnd[0] === 0 ? new Uint8Array(0) : rangeEnd;
}

class WatchSession {
  readonly #deps: ApiDeps;
  readonly #out: Sink;
  readonly #caller: RequestContext;
  readonly #signal: AbortSignal;
  readonly #stream: WatchStream;
  readonly #flags = new Map<bigint, WatcherFlags>();
  #wake = deferred();
  #ticker: Timer | undefined;
  readonly #turns: Turns;
  readonly #headers: Headers;

  constructor(deps: ApiDeps, shared: { turns: Turns; headers: Headers }, out: Sink, call: CallContext) {
    this.#deps = deps;
    this.#turns = shared.turns;
    this.#headers = shared.headers;
    this.#out = out;
    this.#caller = callerOf(call);
    this.#signal = call.signal;
    this.#stream = deps.server.watch.newStream();
    this.#stream.onReadable = () => this.#wake.resolve();
  }

  async run(requests: AsyncIterable<WatchRequest>): Promise<void> {
    const onAbort = () => this.#wake.resolve();
    this.#signal.addEventListener("abort", onAbort, { once: true });
    this.#startTicker();
    const failed = deferred<never>();
    this.#read(requests).catch((error: unknown) => failed.reject(error));
    failed.promise.catch(() => {});
    try {
      await Promise.race([this.#pump(), failed.promise]);
    } finally {
      this.#signal.removeEventListener("abort", onAbort);
      this.#ticker?.cancel();
      this.#stream.close();
    }
  }

  async #read(requests: AsyncIterable<WatchRequest>): Promise<void> {
    for await (const { requestUnion } of requests) {
      switch (requestUnion?.kind) {
        case "createRequest":
          await this.#send(await this.#create(requestUnion.value));
          break;
        case "cancelRequest": {
          const { watchId } = requestUnion.value;
          this.#flags.delete(watchId);
          if (this.#stream.cancel(watchId)) {
            await this.#send({ header: this.#header(), watchId, canceled: true });
          }
          break;
        }
        case "progressRequest":
          this.#stream.requestProgressAll();
          break;
        default:
          // Nothing that is known: not worth ending the stream.
          break;
      }
    }
  }

  /** A promise only when it takes time to learn who asks. */
  #create(request: WatchCreateRequest): Partial<WatchResponse> | Promise<Partial<WatchResponse>> {
    const { server } = this.#deps;
    // The empty key cannot be watched; etcd takes the smallest one instead.
    const key = request.key.length === 0 ? new Uint8Array(1) : request.key;
    const forbidden = (error: unknown) => {
      if (!(error instanceof EtcdError)) throw error;
      // Who is not known any more is told no more than who may not.
      const { code, message } = watchRefusals.has(error.kind) ? error : new EtcdError("PermissionDenied");
      return this.#refused(`rpc error: code = ${codeName(code)} desc = ${message}`);
    };
    try {
      const checked = server.checkWatchPermission(key, request.rangeEnd, this.#caller);
      if (checked) return checked.then(() => this.#open(request, key), forbidden);
    } catch (error) {
      return forbidden(error);
    }
    return this.#open(request, key);
  }

  #refused(cancelReason: string): Partial<WatchResponse> {
    return { header: this.#header(), watchId: NO_WATCHER, created: true, canceled: true, cancelReason };
  }

  #open(request: WatchCreateRequest, key: Uint8Array): Partial<WatchResponse> {
    const header = this.#header();
    let watchId: bigint;
    try {
      watchId = this.#stream.create({
        watchId: request.watchId,
        key,
        rangeEnd: storeRangeEnd(request.rangeEnd),
        startRevision: request.startRevision,
        noPut: request.filters.includes(FilterType.NoPut),
        noDelete: request.filters.includes(FilterType.NoDelete),
        prevKv: request.prevKv,
      });
    } catch (error) {
      return this.#refused((error as Error).message);
    }
    this.#flags.set(watchId, {
      idBytes: WatchResponse.encode({ watchId }),
      wantsProgress: request.progressNotify,
      isQuiet: true,
      fragment: request.fragment,
    });
    return { header, watchId, created: true };
  }

  async #pump(): Promise<void> {
    for (;;) {
      if (this.#signal.aborted) throw this.#signal.reason;
      const delivery = this.#stream.take();
      if (delivery) {
        if (!this.#deliver(delivery)) await this.#out.drained();
        if (this.#turns.pay(1 + delivery.events.length / EVENTS_PER_UNIT)) await this.#turns.next();
      } else {
        await this.#wake.promise;
        this.#wake = deferred();
      }
    }
  }

  #deliver(delivery: WatchDelivery): boolean {
    const { watchId, revision, compactRevision, events } = delivery;
    if (compactRevision !== 0) {
      this.#flags.delete(watchId);
      return this.#out.write({ header: this.#header(revision), watchId, canceled: true, compactRevision });
    }
    if (events.length === 0) return this.#out.write({ header: this.#header(revision), watchId });
    const flags = this.#flags.get(watchId);
    if (flags) flags.isQuiet = false;
    const header = this.#headers.at(revision);
    const idBytes = flags ? flags.idBytes : WatchResponse.encode({ watchId });
    // Everything is there already, and shared with others: it is only put in a row.
    const whole = new EncodedMessage([header, idBytes, ...piecesOf(events)]);
    return flags?.fragment ? this.#writeFragments(whole, [header, idBytes], events) : this.#out.write(whole);
  }

  /** Parts below the limit, all but the last marked; one event that is larger goes as it is. */
  #writeFragments(whole: EncodedMessage, head: readonly Uint8Array[], events: WatchDelivery["events"]): boolean {
    const limit = this.#deps.limits.messageBytesMax;
    if (whole.byteLength < limit || events.length < 2) return this.#out.write(whole);
    const marked = [...head, FRAGMENT_BYTES];
    const headLength = marked.reduce((sum, piece) => sum + piece.length, 0);
    let isRoom = true;
    let from = 0;
    while (from < events.length) {
      let to = from;
      let length = headLength;
      while (to < events.length) {
        const event = events[to] as WatchDelivery["events"][number];
        const next = event.to - event.from;
        if (to > from && length + next >= limit) break;
        length += next;
        to++;
      }
      const pieces = piecesOf(events.slice(from, to));
      isRoom = this.#out.write(new EncodedMessage([...(to < events.length ? marked : head), ...pieces]));
      from = to;
    }
    return isRoom;
  }

  async #send(message: Partial<WatchResponse>): Promise<void> {
    if (!this.#out.write(message)) await this.#out.drained();
  }

  #header(revision?: number): ResponseHeader {
    const header = this.#deps.server.header();
    return revision === undefined ? header : { ...header, revision };
  }

  /** Streams tick at different times, so that a restart of many clients does not make them all be told at once. */
  #startTicker(): void {
    const { clock, random, limits } = this.#deps;
    const base = Math.max(PROGRESS_INTERVAL_MIN_MS, limits.watchProgressNotifyIntervalMs);
    const intervalMs = base + (random.fraction() * base) / 10;
    const tick = () => {
      for (const [watchId, flags] of this.#flags) {
        if (!flags.wantsProgress) continue;
        if (flags.isQuiet) this.#stream.requestProgress(watchId);
        flags.isQuiet = true;
      }
      this.#ticker = clock.after(intervalMs, tick, { unref: true });
    };
    this.#ticker = clock.after(intervalMs, tick, { unref: true });
  }
}

export function watchService(deps: ApiDeps): ServiceRegistration {
  if (deps.limits.watchProgressNotifyIntervalMs < PROGRESS_INTERVAL_MIN_MS) {
    deps.logger.warn("adjusting watch progress notify interval to minimum period", {
      "min-watch-progress-notify-interval": "100ms",
    });
  }
  const shared = { turns: new Turns(ANSWERS_PER_TURN), headers: new Headers(deps.server) };
  return serve(Watch, {
    watch: (requests, out, call) => new WatchSession(deps, shared, out, call).run(requests),
  });
}

/** Events of a key or a range, for services that live inside this member. Ends by throwing when the call is over. */
export async function* watchLocally(
  server: EtcdServer,
  range: { readonly key: Uint8Array; readonly rangeEnd: Uint8Array | undefined; readonly startRevision: number },
  caller: RequestContext,
): AsyncGenerator<LocalEvents> {
  await server.checkWatchPermission(range.key, range.rangeEnd ?? new Uint8Array(0), caller);
  const { signal } = caller;
  const stream = server.watch.newStream();
  let wake = deferred();
  const onWake = () => wake.resolve();
  stream.onReadable = onWake;
  signal?.addEventListener("abort", onWake, { once: true });
  try {
    stream.create({
      watchId: 0n,
      key: range.key,
      rangeEnd: range.rangeEnd === undefined ? undefined : storeRangeEnd(range.rangeEnd),
      startRevision: range.startRevision,
      noPut: false,
      noDelete: false,
      prevKv: false,
    });
    for (;;) {
      if (signal?.aborted) throw signal.reason;
      const delivery = stream.take();
      if (!delivery) {
        await wake.promise;
        wake = deferred();
        continue;
      }
      if (delivery.compactRevision !== 0) throw new EtcdError("Compacted");
      if (delivery.events.length > 0) {
        yield { header: { ...server.header(), revision: delivery.revision }, events: delivery.events };
      }
    }
  } finally {
    signal?.removeEventListener("abort", onWake);
    stream.close();
  }
}
