import { canPage, rangePages } from "@etcd-ts/client";
import { KV } from "@etcd-ts/client/wire";
import type { CommandContext } from "../context.ts";
import { badArgs } from "../exit.ts";
import type { RangePages } from "../print/printer.ts";
import { rangeRequest } from "./requests.ts";

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
  let pages: RangePages | undefined;
  let end = { more: false, count: 0 };
  for await (const page of rangePages(client, request, { timeoutMs })) {
    if (!pages) check();
    pages ??= printer.pagedRange({ valueOnly });
    pages.page(page);
    end = page;
  }
  pages?.end(end);
}
