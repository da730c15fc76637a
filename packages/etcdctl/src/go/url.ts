// URLs as Go's net/url reads them, as far as etcdctl looks at them: scheme, host and path, and each fault with Go's text.
import { quote } from "./quote.ts";

export class UrlError extends Error {
  override readonly name = "UrlError";
}

export interface GoUrl {
  /** Lower case; empty when there is none. */
  readonly scheme: string;
  /** `host` or `host:port`, without user information. */
  readonly host: string;
  readonly path: string;
}

/** @throws UrlError `parse "TEXT": REASON` */
export function parseUrl(text: string): GoUrl {
  const [body, fragment] = cut(text, "#");
  const url = worded(body, () => parseBody(body));
  worded(text, () => checkEscapes(fragment, false));
  return url;
}

function worded<T>(text: string, parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    throw new UrlError(`parse ${quote(text)}: ${(error as Error).message}`);
  }
}

function parseBody(text: string): GoUrl {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is looked for
  if (/[\u0000-\u001f\u007f]/.test(text)) throw new Error("net/url: invalid control character in URL");
  if (text === "*") return { scheme: "", host: "", path: "*" };
  if (text.startsWith(":")) throw new Error("missing protocol scheme");
  const found = /^([A-Za-z][A-Za-z0-9+.-]*):/.exec(text);
  const scheme = (found?.[1] ?? "").toLowerCase();
  const [rest] = cut(text.slice(found?.[0].length ?? 0), "?");
  if (!rest.startsWith("/")) {
    if (scheme !== "") return { scheme, host: "", path: "" };
    if (cut(rest, "/")[0].includes(":")) throw new Error("first path segment in URL cannot contain colon");
  }
  if (!rest.startsWith("//") || (scheme === "" && rest.startsWith("///"))) {
    return { scheme, host: "", path: checkEscapes(rest, false) };
  }
  const slash = rest.indexOf("/", 2);
  const authority = rest.slice(2, slash < 0 ? undefined : slash);
  const host = parseAuthority(authority);
  return { scheme, host, path: slash < 0 ? "" : checkEscapes(rest.slice(slash), false) };
}

function parseAuthority(authority: string): string {
  const at = authority.lastIndexOf("@");
  const host = parseHost(authority.slice(at + 1));
  if (at < 0) return host;
  const user = authority.slice(0, at);
  if (!/^[A-Za-z0-9\-._:~!$&'()*+,;=%@]*$/.test(user)) throw new Error("net/url: invalid userinfo");
  checkEscapes(user, false);
  return host;
}

function parseHost(text: string): string {
  const bracket = text.lastIndexOf("]");
  if (text.startsWith("[") && bracket < 0) throw new Error("missing ']' in host");
  const colon = text.startsWith("[") ? bracket + 1 : text.lastIndexOf(":");
  const port = colon < 0 ? "" : text.slice(colon);
  if (!/^(?::[0-9]*)?$/.test(port)) throw new Error(`invalid port ${quote(port)} after host`);
  return checkEscapes(text, true);
}

/** Percent signs must stand before two hexadecimal digits; in hosts only before those of bytes that are not ASCII. */
function checkEscapes(text: string, isHost: boolean): string {
  for (let i = 0; i < text.length; i++) {
    const triple = text.slice(i, i + 3);
    if (triple.startsWith("%")) {
      const isGood = /^%[0-9A-Fa-f]{2}$/.test(triple) && (!isHost || /^%(?:[89A-Fa-f]|25)/.test(triple));
      if (!isGood) throw new Error(`invalid URL escape ${quote(triple)}`);
      i += 2;
    } else if (isHost && /[^A-Za-z0-9\-_.~!$&'()*+,;=:[\]<>"\u0080-\uffff]/.test(text.charAt(i))) {
      throw new Error(`invalid character ${quote(text.charAt(i))} in host name`);
    }
  }
  return text;
}

function cut(text: string, mark: string): [before: string, after: string] {
  const at = text.indexOf(mark);
  return at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + mark.length)];
}

/** Whether Go's net.SplitHostPort takes it. */
export function hasHostAndPort(host: string): boolean {
  return /^(?:\[[^[\]]*\]|[^:[\]]*):[^:[\]]*$/.test(host);
}
