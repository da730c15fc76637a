/**
 * Whether two lists of peer URLs name the same places. They may be written differently, by name here and by address
 * there: so lists that differ as text are compared again with their hosts resolved, for as long as a name may need to
 * become known (30 s, etcd's budget).
 */
import { lookup } from "node:dns/promises";
import type { Clock } from "../lib/clock.ts";
import { dialErrorText } from "../lib/go-errors.ts";
import { isUnixScheme, parseEtcdUrl, splitHostPort } from "../lib/listen-url.ts";
import type { Logger } from "../lib/log.ts";

/** The address of a host name. */
export type ResolveHost = (host: string) => Promise<string>;

/** As the machine resolves names, IPv4 first. */
export const resolveHost: ResolveHost = async (host) => {
  const [first] = await lookup(host, { all: true, order: "ipv4first" });
  if (!first) throw new Error(`lookup ${host}: no such host`);
  return first.address;
};

const RESOLVE_BUDGET_MS = 30_000;
const RETRY_INTERVAL_MS = 1000;

export interface PeerUrlDeps {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly resolveHost: ResolveHost;
}

function goList(urls: readonly string[]): string {
  return `[${urls.map((url) => JSON.stringify(url)).join(" ")}]`;
}

/** Undefined when they are the same places; otherwise why not, in etcd's words. */
export async function whyDifferent(
  a: readonly string[],
  b: readonly string[],
  deps: PeerUrlDeps,
): Promise<string | undefined> {
  if (a.length !== b.length) return `len(${goList(a)}) != len(${goList(b)})`;
  const [left, right] = [a.toSorted(), b.toSorted()];
  if (left.every((url, i) => url === right[i])) return undefined;
  const deadlineMs = deps.clock.monotonicMs() + RESOLVE_BUDGET_MS;
  let resolved: readonly [string[], string[]];
  try {
    const all = (urls: readonly string[]) => Promise.all(urls.map((url) => resolveUrl(url, deadlineMs, deps)));
    const [x, y] = await Promise.all([all(left), all(right)]);
    resolved = [x.sort(), y.sort()];
  } catch (error) {
    return dialErrorText(error);
  }
  for (const [i, url] of resolved[0].entries()) {
    if (url !== resolved[1][i]) return `resolved urls: ${JSON.stringify(url)} != ${JSON.stringify(resolved[1][i])}`;
  }
  return undefined;
}

/** The URL with its host as an address. `localhost` stays: which address it has is nobody else's business. */
async function resolveUrl(url: string, deadlineMs: number, deps: PeerUrlDeps): Promise<string> {
  const { scheme, host } = parseEtcdUrl(url);
  const parts = splitHostPort(host);
  if (isUnixScheme(scheme) || !parts || parts.host === "localhost") return url;
  for (;;) {
    try {
      const address = await deps.resolveHost(parts.host);
      const place = `${address.includes(":") ? `[${address}]` : address}:${parts.port}`;
      deps.logger.info("resolved URL Host", { url, host, "resolved-addr": place });
      return `${scheme}://${place}`;
    } catch (error) {
      const fields = { url, host, "retry-interval": "1s", error: dialErrorText(error) };
      if (deps.clock.monotonicMs() + RETRY_INTERVAL_MS > deadlineMs) {
        deps.logger.warn("failed to resolve URL Host; returning", fields);
        throw error;
      }
      deps.logger.warn("failed to resolve URL Host", fields);
      await deps.clock.sleep(RETRY_INTERVAL_MS);
    }
  }
}
