// make-mirror: copies the keys under a prefix to another cluster, then follows the changes, one transaction for each
// source revision. Leases are not copied.
//
// A broken connection to the source is mended by the watch. When the source has compacted away what we had not seen, the
// copy is made again and what has gone at the source meanwhile is deleted: but only keys that were written at the
// destination after the mirror began, so that what stood there before, and is nobody's copy, stays.
import { type Event, EventType, type Init, KV, type RequestOp } from "@etcd-ts/client/wire";
import type { CommandContext, CtlClient } from "../context.ts";
import { badArgs, ERROR, ExitError } from "../exit.ts";
import { toBytes } from "../go/bytes.ts";
import { type KeyRange, prefixRange } from "../keys.ts";

/** Keys read at a time. */
const PAGE_KEYS = 1000;
/** Operations written in one transaction: the server's default limit. */
const TXN_OPERATIONS_MAX = 128;
/** How often the number of copied keys is printed. */
const REPORT_INTERVAL_MS = 30_000;

/** `make-mirror DESTINATION` */
export async function runMakeMirror(context: CommandContext, args: readonly string[]): Promise<void> {
  const [endpoint] = args;
  if (endpoint === undefined || args.length > 1) throw badArgs("make-mirror takes one destination argument");
  const { flags, io } = context;
  await using destination = await context.connectTo(endpoint, "dest-");
  await using connected = await context.connectFully();
  const destPrefix = flags.string("dest-prefix");
  if (flags.bool("no-dest-prefix") && destPrefix !== "") {
    throw badArgs("`--dest-prefix` and `--no-dest-prefix` cannot be set at the same time, choose one");
  }
  const prefix = flags.string("prefix");
  const mirror = new Mirror({
    source: connected.client,
    destination,
    prefix: toBytes(prefix),
    destPrefix: toBytes(flags.bool("no-dest-prefix") ? "" : destPrefix === "" ? prefix : destPrefix),
  });
  const report = setInterval(() => io.out.write(`${mirror.copied}\n`), REPORT_INTERVAL_MS);
  try {
    await mirror.run();
  } finally {
    clearInterval(report);
  }
  throw new ExitError(ERROR, "the watch of the source ended");
}

export interface MirrorOptions {
  readonly source: Pick<CtlClient, "call" | "watch">;
  readonly destination: Pick<CtlClient, "call">;
  readonly prefix: Uint8Array;
  readonly destPrefix: Uint8Array;
  readonly signal?: AbortSignal;
}

export class Mirror {
  readonly #options: MirrorOptions;
  /** Keys written or deleted at the destination so far. */
  copied = 0;
  /** What the destination's revision was when we began. */
  #destinationStart: number | undefined;

  constructor(options: MirrorOptions) {
    this.#options = options;
  }

  /** Runs until the source's watch ends for another reason than compaction. */
  async run(): Promise<void> {
    let revision = await this.#copyAll();
    while (await this.#follow(revision)) {
      revision = await this.#copyAll();
      await this.#deleteGone(revision);
    }
  }

  /** Copies what there is; resolves with the revision it was read at. */
  async #copyAll(): Promise<number> {
    const { source, destination, prefix } = this.#options;
    let revision = 0;
    for await (const page of pages(source, prefixRange(prefix), (at) => (revision = at))) {
      for (const kv of page) {
        const request = { key: this.#renamed(kv.key), value: kv.value };
        const { header } = await destination.call(KV.methods.put, request);
        this.#destinationStart ??= header?.revision ?? 0;
        this.copied++;
      }
    }
    return revision;
  }

  /** Follows the source from a revision on. True: what comes next was compacted away before we saw it. */
  async #follow(revision: number): Promise<boolean> {
    const { source, prefix, signal } = this.#options;
    const watcher = source.watch({ ...prefixRange(prefix), startRevision: revision + 1 }, signal ? { signal } : {});
    for await (const { events, canceled, compactRevision, cancelReason } of watcher) {
      if (compactRevision > 0) return true;
      if (canceled) throw new ExitError(ERROR, cancelReason === "" ? "watch is canceled by the server" : cancelReason);
      for (const same of byRevision(events)) await this.#write(same);
    }
    return false;
  }

  async #write(events: readonly Event[]): Promise<void> {
    for (let i = 0; i < events.length; i += TXN_OPERATIONS_MAX) {
      const success = events.slice(i, i + TXN_OPERATIONS_MAX).map((event): Init<RequestOp> => {
        const key = this.#renamed(event.kv?.key ?? new Uint8Array(0));
        return event.type === EventType.Delete
          ? { request: { kind: "requestDeleteRange", value: { key } } }
          : { request: { kind: "requestPut", value: { key, value: event.kv?.value ?? new Uint8Array(0) } } };
      });
      const { header } = await this.#options.destination.call(KV.methods.txn, { success });
      this.#destinationStart ??= header?.revision ?? 0;
      this.copied += success.length;
    }
  }

  /** Deletes copies of keys that the source no longer has. */
  async #deleteGone(revision: number): Promise<void> {
    const { source, destination, prefix, destPrefix } = this.#options;
    const since = this.#destinationStart ?? 0;
    for await (const page of pages(destination, prefixRange(destPrefix), () => {})) {
      for (const { key, modRevision } of page) {
        if (modRevision < since) continue;
        const original = Buffer.concat([prefix, key.subarray(destPrefix.length)]);
        const { count } = await source.call(KV.methods.range, { key: original, revision, countOnly: true });
        if (count > 0) continue;
        await destination.call(KV.methods.deleteRange, { key });
        this.copied++;
      }
    }
  }

  #renamed(key: Uint8Array): Uint8Array {
    const { prefix, destPrefix } = this.#options;
    return Buffer.concat([destPrefix, key.subarray(prefix.length)]);
  }
}

/** A range page by page, all at the revision of the first. */
async function* pages(
  client: Pick<CtlClient, "call">,
  range: KeyRange,
  onRevision: (revision: number) => void,
): AsyncGenerator<readonly { key: Uint8Array; value: Uint8Array; modRevision: number }[]> {
  let revision = 0;
  let { key } = range;
  for (;;) {
    const request = { key, rangeEnd: range.rangeEnd, limit: PAGE_KEYS, revision };
    const { header, kvs, more } = await client.call(KV.methods.range, request);
    if (revision === 0) {
      revision = header?.revision ?? 0;
      onRevision(revision);
    }
    yield kvs;
    const last = kvs.at(-1);
    if (!more || !last) return;
    key = Buffer.concat([last.key, Uint8Array.of(0)]);
  }
}

/** Neighbouring events of one revision together. */
function byRevision(events: readonly Event[]): Event[][] {
  const groups: Event[][] = [];
  let revision: number | undefined;
  for (const event of events) {
    const at = event.kv?.modRevision ?? 0;
    if (at !== revision) groups.push([]);
    revision = at;
    groups.at(-1)?.push(event);
  }
  return groups;
}
