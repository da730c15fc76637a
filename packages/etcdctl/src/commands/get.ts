import { type Init, KV, type RangeRequest, type RangeResponse } from "@etcd-ts/client/wire";
import type { CommandContext, Connected } from "../context.ts";
import { badArgs } from "../exit.ts";
import type { RangePages } from "../print/printer.ts";
import { rangeRequest } from "./requests.ts";

/** Keys asked for at first, and at most, when a range is read page by page. */
const PAGE_KEYS_FIRST = 64;
const PAGE_KEYS_MAX = 16_384;
/** Pages grow while they stay below this many bytes, and shrink above four times as many. */
const PAGE_BYTES = 1 << 20;

/**
 * `get KEY [RANGE_END]`. Big ranges are read page by page at the revision of the first page, and printed as they come:
 * neither end holds more than a page. What is printed is the same.
 */
export async function runGet(context: CommandContext, args: readonly string[]): Promise<void> {
  const { flags } = context;
  const request = rangeRequest(flags, args);
  const valueOnly = flags.bool("print-value-only");
  await using connected = await context.connect();
  const { client, printer, timeoutMs } = connected;
  const check = (): void => {
    if (flags.bool("count-only") && printer.format !== "fields") {
      throw badArgs("--count-only is only for `--write-out=fields`");
    }
    if (valueOnly && printer.format !== "simple") {
      throw badArgs("print-value-only is only for `--write-out=simple`");
    }
  };
  // A member that is asked alone may not have reached the revision of the page that another gave.
  const canWander = request.serializable === true && client.endpoints.length > 1;
  if (!printer.pagedRange || !canPage(request) || canWander) {
    const response = await client.call(KV.methods.range, request, { timeoutMs });
    check();
    printer.print("get", response, { valueOnly });
    return;
  }
  await printPages(connected, request, () => {
    check();
    return printer.pagedRange?.({ valueOnly }) as RangePages;
  });
}

/** Only what comes in the order of keys can be continued after a key. */
const canPage = ({ rangeEnd, sortOrder, sortTarget, countOnly }: Init<RangeRequest>): boolean =>
  rangeEnd !== undefined && rangeEnd.length > 0 && sortOrder === 0 && sortTarget === 0 && !countOnly;

async function printPages(
  { client, timeoutMs }: Pick<Connected, "client" | "timeoutMs">,
  request: Init<RangeRequest>,
  open: () => RangePages,
): Promise<void> {
  const wanted = request.limit !== undefined && request.limit > 0 ? request.limit : Number.POSITIVE_INFINITY;
  const ask = (key: Uint8Array | undefined, revision: number | undefined, limit: number): Promise<RangeResponse> =>
    client.call(KV.methods.range, { ...request, key, revision, limit }, { timeoutMs });
  let size = PAGE_KEYS_FIRST;
  let page = await ask(request.key, request.revision, Math.min(size, wanted));
  const pages = open();
  const { count } = page;
  const revision = request.revision || page.header?.revision || 0;
  for (let taken = 0; ; ) {
    taken += page.kvs.length;
    const last = page.kvs.at(-1);
    if (!page.more || !last || taken >= wanted) {
      pages.page(page);
      pages.end({ more: page.more, count });
      return;
    }
    const bytes = page.kvs.reduce((sum, kv) => sum + kv.key.length + kv.value.length, 0);
    if (bytes < PAGE_BYTES) size = Math.min(size * 2, PAGE_KEYS_MAX);
    else if (bytes > 4 * PAGE_BYTES) size = Math.max(1, Math.floor(size / 4));
    // The server reads the next page while this one is printed.
    const next = ask(Buffer.concat([last.key, Uint8Array.of(0)]), revision, Math.min(size, wanted - taken));
    next.catch(() => {});
    pages.page(page);
    page = await next;
  }
}
