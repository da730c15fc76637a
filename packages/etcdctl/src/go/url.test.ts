import { expect, test } from "vitest";
import { dialText } from "../attempt-log.ts";
import { checkedUrls } from "../commands/member.ts";
import { hasHostAndPort, parseUrl } from "./url.ts";

test.each([
  ["http://h:1", { scheme: "http", host: "h:1", path: "" }],
  ["HTTP://u:p@h:1/x%20y?q#f", { scheme: "http", host: "h:1", path: "/x%20y" }],
  ["http:h:1", { scheme: "http", host: "", path: "" }],
  ["//h:1", { scheme: "", host: "h:1", path: "" }],
  ["unix://sock", { scheme: "unix", host: "sock", path: "" }],
  ["http://[::1]:2", { scheme: "http", host: "[::1]:2", path: "" }],
  ["*", { scheme: "", host: "", path: "*" }],
])("parseUrl(%s)", (text, url) => {
  expect(parseUrl(text)).toEqual(url);
});

// What the Go tool says of each.
test.each([
  ["http://h", 'URL address does not have the form "host:port": http://h'],
  ["http://h:1/x", "URL must not contain a path: http://h:1/x"],
  ["ftp://h:1", "URL scheme must be http, https, unix, or unixs: ftp://h:1"],
  ["127.0.0.1:1", 'parse "127.0.0.1:1": first path segment in URL cannot contain colon'],
  [":1", 'parse ":1": missing protocol scheme'],
  ["http://h:x", 'parse "http://h:x": invalid port ":x" after host'],
  ["http://h o:1", 'parse "http://h o:1": invalid character " " in host name'],
  ["http://[::1", "parse \"http://[::1\": missing ']' in host"],
  ["http://%zz:1", 'parse "http://%zz:1": invalid URL escape "%zz"'],
  ["http://h:1#%z", 'parse "http://h:1#%z": invalid URL escape "%z"'],
  ["http://\u0001:1", 'parse "http://\\x01:1": net/url: invalid control character in URL'],
])("peer URL %s is refused", (text, message) => {
  expect(() => checkedUrls(text)).toThrow(message);
});

test("peer URLs stay as they were typed", () => {
  expect(checkedUrls("http://b:1, http://a:1?x,unix://s")).toEqual(["http://b:1", " http://a:1?x", "unix://s"]);
});

test("hasHostAndPort() is Go's SplitHostPort", () => {
  expect(["h:1", ":1", "[::1]:1", "h:"].every(hasHostAndPort)).toBe(true);
  expect(["", "h", "::1", "[::1]", "[h:1", "a]:1"].some(hasHostAndPort)).toBe(false);
});

test.each([
  [
    "connect ECONNREFUSED 127.0.0.1:1",
    "transport: Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused",
  ],
  ["connect ENOENT /s", "transport: Error while dialing: dial unix /s: connect: no such file or directory"],
  ["Name resolution failed for target dns:h:1", "transport: Error while dialing: dial tcp: lookup h: no such host"],
  [
    "Client network socket disconnected before secure TLS connection was established",
    "transport: authentication handshake failed: EOF",
  ],
  ["Failed to connect (2026-01-02T03:04:05.678Z)", "error reading server preface: EOF"],
])("%s in Go's words", (problem, text) => {
  expect(dialText(problem)).toBe(text);
});
