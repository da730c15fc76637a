import { expect, test } from "vitest";
import { bytes, etcdctl, etcdError, header, kv, type Recorded } from "../testing/harness.ts";

const got = (...kvs: ReturnType<typeof kv>[]) => ({ header: header(9), kvs, more: false, count: kvs.length });
const empty = new Uint8Array(0);

test("get prints key and value, each on a line", async () => {
  const { out, exit, calls } = await etcdctl(["get", "a"], { answers: { Range: () => got(kv("a", "1")) } });
  expect({ out, exit }).toEqual({ out: "a\n1\n", exit: 0 });
  expect(calls[0]?.request).toMatchObject({ key: bytes("a"), rangeEnd: empty, revision: 0, serializable: false });
});

test("get passes every option on", async () => {
  const line = "get a z --limit=0x10 --rev=5 --order=descend --sort-by mod --consistency s --keys-only".replace(
    "mod",
    "modify",
  );
  const { calls } = await etcdctl(line.split(" "), { answers: { Range: () => got() } });
  expect(calls[0]?.request).toEqual({
    key: bytes("a"),
    rangeEnd: bytes("z"),
    limit: 16,
    revision: 5,
    sortOrder: 2,
    sortTarget: 3,
    serializable: true,
    keysOnly: true,
    countOnly: false,
  });
});

test("get --prefix and --from-key choose ranges, an empty key all keys", async () => {
  const range = async (...words: string[]) => {
    const { calls } = await etcdctl(["get", ...words], { answers: { Range: () => got() } });
    const { key, rangeEnd } = (calls[0] as Recorded).request as unknown as { key: Uint8Array; rangeEnd: Uint8Array };
    return [Buffer.from(key).toString("latin1"), Buffer.from(rangeEnd).toString("latin1")];
  };
  expect(await range("--prefix", "a/")).toEqual(["a/", "a0"]);
  expect(await range("--prefix", "a\u{10ffff}")).toEqual(["a\xf4\x8f\xbf\xbf", "a\xf4\x8f\xbf\xc0"]);
  expect(await range("--prefix", "")).toEqual(["\0", "\0"]);
  expect(await range("--from-key", "m")).toEqual(["m", "\0"]);
  expect(await range("--from-key", "")).toEqual(["\0", "\0"]);
});

test.each([
  [["get"], 128, "get command needs one argument as key and an optional argument as range_end"],
  [
    ["get", "a", "--prefix", "--from-key"],
    128,
    "`--prefix` and `--from-key` cannot be set at the same time, choose one",
  ],
  [
    ["get", "a", "b", "--prefix"],
    128,
    "too many arguments, only accept one argument when `--prefix` or `--from-key` is set",
  ],
  [["get", "a", "--consistency=x"], 4, 'unknown consistency flag "x"'],
  [["get", "a", "--order=UP"], 4, "bad sort order UP"],
  [["get", "a", "--sort-by=SIZE"], 4, "bad sort target SIZE"],
  [["get", "a", "-w", "bogus"], 4, "unsupported output format"],
  [["put"], 128, "put command needs 1 argument and input from stdin or 2 arguments"],
  [["put", "k"], 128, "put command needs 1 argument and input from stdin or 2 arguments"],
  [["put", "k", "v", "--ignore-value"], 128, "put command needs only 1 argument when 'ignore-value' is set"],
  [
    ["put", "k", "v", "--lease=zz"],
    128,
    'bad lease ID (strconv.ParseInt: parsing "zz": invalid syntax), expecting ID in Hex',
  ],
  [["del"], 128, "del command needs one argument as key and an optional argument as range_end"],
  [["del", "a", "b", "c"], 128, "del command needs one argument as key and an optional argument as range_end"],
  [["compaction"], 128, "compaction command needs 1 argument"],
  [["compaction", "abc"], 1, 'strconv.ParseInt: parsing "abc": invalid syntax'],
])("%j is refused before any call", async (words, code, message) => {
  const { exit, err, out, calls } = await etcdctl(words);
  expect({ exit, err, out, calls }).toEqual({ exit: code, err: `Error: ${message}\n`, out: "", calls: [] });
});

test("get refuses combinations of format and flag only after the call, as scripts know it", async () => {
  const answers = { Range: () => got(kv("a", "1")) };
  const counted = await etcdctl(["get", "a", "--count-only"], { answers });
  expect(counted).toMatchObject({ exit: 128, err: "Error: --count-only is only for `--write-out=fields`\n", out: "" });
  expect(counted.calls).toHaveLength(1);
  const table = await etcdctl(["get", "a", "-w", "table"], { answers });
  expect(table).toMatchObject({ exit: 4, err: "Error: table not supported as output format\n" });
});

test("get --hex and --print-value-only change the simple format", async () => {
  const answers = { Range: () => got(kv("a", "\x00z")) };
  expect((await etcdctl(["get", "a", "--hex"], { answers })).out).toBe("\\x61\n\\x00\\x7a\n");
  expect((await etcdctl(["get", "a", "--print-value-only"], { answers })).out).toBe("\x00z\n");
});

test("an error of the server is its text and 1", async () => {
  const answers = {
    Range: () => {
      throw etcdError("etcdserver: mvcc: required revision has been compacted");
    },
  };
  const { exit, err } = await etcdctl(["get", "a", "--rev=1"], { answers });
  expect({ exit, err }).toEqual({ exit: 1, err: "Error: etcdserver: mvcc: required revision has been compacted\n" });
});

test("put takes its value from standard input, byte for byte", async () => {
  const stdin = Uint8Array.of(0, 255, 10);
  const { out, calls } = await etcdctl(["put", "k"], { stdin, answers: { Put: () => ({ header: header(2) }) } });
  expect(out).toBe("OK\n");
  expect(calls[0]?.request).toEqual({
    key: bytes("k"),
    value: stdin,
    lease: 0n,
    prevKv: false,
    ignoreValue: false,
    ignoreLease: false,
  });
});

test("put prints the previous pair when asked", async () => {
  const answers = { Put: () => ({ header: header(3), prevKv: kv("k", "old") }) };
  const { out, calls } = await etcdctl(["put", "k", "v", "--prev-kv", "--lease=-1f"], { answers });
  expect(out).toBe("OK\nk\nold\n");
  expect(calls[0]?.request).toMatchObject({ lease: -31n, prevKv: true });
});

test("put keeps bytes of arguments that are no UTF-8", async () => {
  const { calls } = await etcdctl(["put", "\udcff", "v"], { answers: { Put: () => ({ header: header(2) }) } });
  expect(calls[0]?.request.key).toEqual(Buffer.from([0xff]));
});

test("del prints the number and what was there, and remarks on a range without --range", async () => {
  const answers = { DeleteRange: () => ({ header: header(4), deleted: 2, prevKvs: [kv("a", "1"), kv("b", "2")] }) };
  const plain = await etcdctl(["del", "a", "c", "--prev-kv"], { answers });
  expect(plain.out).toBe("2\na\n1\nb\n2\n");
  expect(plain.err).toBe(
    "In etcd v3.6, the operation will be suspended for a few seconds to provide the user time to verify range.\n",
  );
  expect((await etcdctl(["del", "a", "c", "--range"], { answers })).err).toBe("");
});

test("compaction says which revision", async () => {
  const { out, calls } = await etcdctl(["compaction", "--physical", "+7"], { answers: { Compact: () => ({}) } });
  expect(out).toBe("compacted revision 7\n");
  expect(calls[0]?.request).toEqual({ revision: 7, physical: true });
});

/** A store of 1,000 keys that answers ranges as a server does. */
const thousand = (calls: unknown[] = []) => ({
  Range: (request: { key: Uint8Array; rangeEnd: Uint8Array; limit: number; revision: number }) => {
    calls.push(request.revision);
    const all = Array.from({ length: 1000 }, (_, i) => kv(`k/${String(i).padStart(4, "0")}`, `v${i}`, i + 2));
    const inRange = all.filter(({ key }) => Buffer.compare(key, request.key) >= 0);
    const kvs = request.limit > 0 ? inRange.slice(0, request.limit) : inRange;
    return { header: header(2000), kvs, more: kvs.length < inRange.length, count: inRange.length };
  },
});

test.each(["simple", "json", "fields", "protobuf", "jsonl"])(
  "get reads a big range page by page at one revision, and prints it in %s as in one piece",
  async (format) => {
    const revisions: unknown[] = [];
    for (const options of [[], ["--limit=300"], ["--limit=1000"], ["--limit=64"], ["--limit=1"]]) {
      const words = ["--prefix", "k/", "-w", format, ...options];
      const paged = await etcdctl(["get", ...words], { answers: thousand(revisions) });
      // Sorting makes the server answer in one piece.
      const whole = await etcdctl(["get", ...words, "--sort-by=CREATE"], { answers: thousand() });
      expect(whole.calls).toHaveLength(1);
      expect(paged.out).toBe(whole.out);
      expect(paged.exit).toBe(0);
    }
    expect(new Set(revisions)).toEqual(new Set([0, 2000]));
  },
);

test("get -w yaml shows text as text and other bytes as binary", async () => {
  const answers = { Range: () => got(kv("a", "line1\nline2\n"), kv("b", "\udcff")) };
  const { out } = await etcdctl(["get", "a", "c", "-w", "yaml"], { answers });
  expect(out).toContain("  - key: a\n");
  expect(out).toContain("    value: |\n      line1\n      line2\n");
  expect(out).toContain("    value: !!binary |-\n      /w==\n");
  expect(out).toContain("  member_id: 10276657743932975437\n");
});
