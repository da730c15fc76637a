/**
 * A large range, a page at a time, all of it as it was at the revision of the first page: neither end holds more than two
 * pages. It needs nothing of the server but Range, so any etcd will do.
 */
import type { Client } from "./client.ts";
import type { CallOptions } from "./options.ts";
import { type Init, KV, type RangeRequest, type RangeResponse, SortOrder, SortTarget } from "./wire/index.ts";

/** Keys asked for at first, and at most. */
const PAGE_KEYS_FIRST = 64;
const PAGE_KEYS_MAX = 16_384;
/** Pages grow while they stay below this many bytes, and shrink above four times as many. */
const PAGE_BYTES = 1 << 20;

/** Only what comes in the order of keys can be continued after a key. */
export function canPage({ rangeEnd, sortOrder, sortTarget, countOnly }: Init<RangeRequest>): boolean {
  if (rangeEnd === undefined || rangeEnd.length === 0 || countOnly) return false;
  // Any other target sorts, whether an order is named or not.
  if ((sortTarget ?? SortTarget.Key) !== SortTarget.Key) return false;
  return (sortOrder ?? SortOrder.None) === SortOrder.None || sortOrder === SortOrder.Ascend;
}

/**
 * The pages of a request that {@link canPage}, at least one. Each has the first one's header and `count`; `more` says that
 * keys follow, in another page or, on the last one, beyond `limit`. The next page is asked for while one is looked at.
 * Throws etcd's error when a compaction goes beyond the revision meanwhile.
 */
export async function* rangePages(
  client: Pick<Client, "call">,
  request: Init<RangeRequest>,
  options: CallOptions = {},
): AsyncGenerator<RangeResponse, void> {
  if (!canPage(request)) throw new RangeError("only a range in the order of its keys can be read page by page");
  const wanted = request.limit !== undefined && request.limit > 0 ? request.limit : Number.POSITIVE_INFINITY;
  const ask = (change: Init<RangeRequest>): Promise<RangeResponse> =>
    client.call(KV.methods.range, { ...request, ...change }, options);
  let size = PAGE_KEYS_FIRST;
  let page = await ask({ limit: Math.min(size, wanted) });
  const { header, count } = page;
  const revision = request.revision || header?.revision || 0;
  for (let taken = 0; ; ) {
    taken += page.kvs.length;
    const last = page.kvs.at(-1);
    if (!page.more || !last || taken >= wanted) {
      yield { ...page, header, count };
      return;
    }
    const bytes = page.kvs.reduce((sum, kv) => sum + kv.key.length + kv.value.length, 0);
    if (bytes < PAGE_BYTES) size = Math.min(size * 2, PAGE_KEYS_MAX);
    else if (bytes > 4 * PAGE_BYTES) size = Math.max(1, Math.floor(size / 4));
    const key = new Uint8Array(last.key.length + 1);
    key.set(last.key);
    // Another member may be asked, and must have reached the revision of the first page: so it is never asked for less.
    const next = ask({ key, revision, limit: Math.min(size, wanted - taken), serializable: false });
    next.catch(() => {}); // heard of when it is this page's turn, if ever
    yield { ...page, header, count };
    page = await next;
  }
}
