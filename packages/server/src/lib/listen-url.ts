/** Addresses to listen on or to tell others, as lists of `scheme://host:port` (or unix sockets): sorted, without doubles. */
import { isIP } from "node:net";

export interface EtcdUrl {
  /** As given, without blanks around it. */
  readonly text: string;
  readonly scheme: string;
  /** With the port: `127.0.0.1:2379`, `[::1]:2379`; for unix sockets what stands between `//` and the path. */
  readonly host: string;
  readonly path: string;
}

/** Splits `host:port`, `[host]:port`. Undefined when there is no port. */
export function splitHostPort(host: string): { readonly host: string; readonly port: string } | undefined {
  const match = /^\[([^\]]*)\]:([^:]*)$/.exec(host) ?? /^([^:[\]]*):([^:]*)$/.exec(host);
  return match ? { host: match[1] ?? "", port: match[2] ?? "" } : undefined;
}

function quote(text: string): string {
  return JSON.stringify(text);
}

/** Go's url.Parse as far as etcd's URLs go; throws its texts. */
function parseUrl(text: string): EtcdUrl {
  const scheme = /^([a-zA-Z][a-zA-Z0-9+.-]*):/.exec(text);
  if (!scheme) {
    if (text.startsWith(":")) throw new Error(`parse ${quote(text)}: missing protocol scheme`);
    const firstSegment = text.split("/", 1)[0] ?? "";
    if (!text.startsWith("/") && firstSegment.includes(":")) {
      throw new Error(`parse ${quote(text)}: first path segment in URL cannot contain colon`);
    }
    return { text, scheme: "", host: "", path: text };
  }
  const rest = text.substring(scheme[0].length).replace(/[?#].*$/, "");
  const name = (scheme[1] as string).toLowerCase();
  if (!rest.startsWith("//")) return { text, scheme: name, host: "", path: rest };
  const slash = rest.indexOf("/", 2);
  const authority = slash === -1 ? rest.substring(2) : rest.substring(2, slash);
  const host = authority.substring(authority.lastIndexOf("@") + 1);
  if (host.startsWith("[") && !host.includes("]")) throw new Error(`parse ${quote(text)}: missing ']' in host`);
  const port = /:[^\]:]*$/.exec(host)?.[0];
  if (port !== undefined && !/^:\d*$/.test(port)) {
    throw new Error(`parse ${quote(text)}: invalid port ${quote(port)} after host`);
  }
  return { text, scheme: name, host, path: slash === -1 ? "" : rest.substring(slash) };
}

export function parseEtcdUrl(given: string): EtcdUrl {
  const text = given.trim();
  const url = parseUrl(text);
  switch (url.scheme) {
    case "http":
    case "https":
      if (!splitHostPort(url.host)) throw new Error(`URL address does not have the form "host:port": ${text}`);
      if (url.path !== "") throw new Error(`URL must not contain a path: ${text}`);
      return url;
    case "unix":
    case "unixs":
      return url;
    default:
      throw new Error(`URL scheme must be http, https, unix, or unixs: ${text}`);
  }
}

/** A comma-separated list, sorted, each URL once. */
export function parseEtcdUrls(list: string): string[] {
  const texts = list.split(",").map((text) => parseEtcdUrl(text).text);
  return [...new Set(texts)].sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
}

export function isUnixScheme(scheme: string): boolean {
  return scheme === "unix" || scheme === "unixs";
}

export function isTlsScheme(scheme: string): boolean {
  return scheme === "https" || scheme === "unixs";
}

function missingPort(host: string): Error {
  return new Error(`address ${host}: missing port in address`);
}

/** Sockets are bound to addresses, so names other than localhost are refused. */
export function checkBindUrls(urls: readonly string[]): void {
  for (const text of urls) {
    const url = parseEtcdUrl(text);
    if (isUnixScheme(url.scheme)) continue;
    const parts = splitHostPort(url.host);
    if (!parts) throw missingPort(url.host);
    if (parts.host === "localhost") continue;
    if (isIP(parts.host.replace(/%.*$/, "")) === 0) throw new Error(`expected IP in URL for binding (${text})`);
  }
}

/** What is told to others must name a host. */
export function checkHostUrls(urls: readonly string[]): void {
  for (const text of urls) {
    const parts = splitHostPort(parseEtcdUrl(text).host);
    if (!parts) throw missingPort(parseEtcdUrl(text).host);
    if (parts.host === "") throw new Error(`unexpected empty host (${text})`);
  }
}

/** `a=http://1.2.3.4:2380,b=...` to name -> URLs. A name may stand for several; blanks around parts are dropped. */
export function parseInitialCluster(text: string): Map<string, string[]> {
  const urls = new Map<string, string[]>();
  for (const part of text.split(",")) {
    const trimmed = part.trim();
    if (trimmed === "") continue;
    const equals = trimmed.indexOf("=");
    const name = equals === -1 ? trimmed : trimmed.substring(0, equals);
    const url = equals === -1 ? "" : trimmed.substring(equals + 1);
    const list = urls.get(name) ?? [];
    list.push(parseEtcdUrl(url).text);
    urls.set(name, list);
  }
  for (const [name, list] of urls) urls.set(name, [...list].sort());
  return urls;
}
