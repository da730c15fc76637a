// What the announcement of etcd 3.5 names and an operator can see from outside, as far as no other test looks at it.
import { X509Certificate } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { connect, watchInit } from "@etcd-ts/client";
import { PutRequest, SortOrder, SortTarget } from "@etcd-ts/client/wire";
import { describe, expect, it } from "vitest";
import { httpGet, Member, must, run, temporaryFolder, until } from "./harness/processes.ts";

const metric = async (member: Member, name: string): Promise<number> => {
  const text = await httpGet(`${member.clientUrl}/metrics`);
  return Number(new RegExp(`^${name} (\\S+)$`, "m").exec(text)?.[1]);
};

describe("logs", () => {
  it("are one JSON object a line, and the old logger is refused", async () => {
    using folder = temporaryFolder("announced");
    await using member = await Member.start({ dataDir: path.join(folder.path, "data") });
    await member.stop();
    const lines = member.log.split("\n").filter((line) => line !== "");
    expect(lines.length).toBeGreaterThan(20);
    for (const line of lines)
      expect(JSON.parse(line)).toMatchObject({ level: expect.any(String), msg: expect.any(String) });
    const refused = await run("etcd", ["--logger=capnslog"], { cwd: folder.path });
    expect([refused.code, refused.stderr]).toEqual([
      1,
      expect.stringContaining("--logger=capnslog is removed in v3.5"),
    ]);
  });

  it("are rotated by size, and only so many are kept", async () => {
    using folder = temporaryFolder("announced");
    const file = path.join(folder.path, "etcd.log");
    const rotation = '{"maxsize": 1, "maxage": 0, "maxbackups": 2, "localtime": false, "compress": false}';
    await using member = await Member.start({
      dataDir: path.join(folder.path, "data"),
      flags: [
        ...["--log-outputs", file, "--log-level", "debug"],
        ...["--enable-log-rotation", "--log-rotation-config-json", rotation],
      ],
    });
    await using client = await connect({ endpoints: [member.endpoint] });
    const rotated = () =>
      fs.readdirSync(folder.path).filter((name) => /^etcd-\d{4}-\d\d-\d\dT[\d.-]+\.log$/.test(name));
    const seen = new Set<string>();
    // Long keys, which the log spells out: of one message only the first hundred lines of a second are written.
    await until("the log has been rotated three times", async () => {
      await Promise.all(Array.from({ length: 200 }, (_, i) => client.kv.put(`${i}${"x".repeat(20_000)}`, "v")));
      for (const name of rotated()) seen.add(name);
      return seen.size >= 3;
    });
    expect(rotated().length).toBeLessThanOrEqual(2);
  });
});

it("a start opens the database once, and takes away what a crashed defragmentation left", async () => {
  using folder = temporaryFolder("announced");
  const dataDir = path.join(folder.path, "data");
  {
    await using first = await Member.start({ dataDir });
    await using client = await connect({ endpoints: [first.endpoint] });
    await client.kv.put("a", "b");
    await first.stop();
  }
  const snap = path.join(dataDir, "member/snap");
  fs.writeFileSync(path.join(snap, "db.tmp.123456"), "half a database of a real etcd");
  fs.writeFileSync(path.join(snap, "db.lmdb.tmp.1"), "half a database of ours");
  await using second = await Member.start({ dataDir });
  expect(second.log.match(/"msg":"opened backend db"/g)).toHaveLength(1);
  expect(fs.readdirSync(snap).filter((name) => name.includes("tmp"))).toEqual([]);
  await using client = await connect({ endpoints: [second.endpoint] });
  expect((await client.kv.get("a")).count).toBe(1);
});

it("a watcher that is cancelled is gone at the server", async () => {
  using folder = temporaryFolder("announced");
  await using member = await Member.start({ dataDir: path.join(folder.path, "data") });
  await using client = await connect({ endpoints: [member.endpoint] });
  const [first, second] = [client.watch(watchInit("a")), client.watch(watchInit("b"))];
  const reading = [first, second].map(async (watcher) => {
    for await (const _response of watcher);
  });
  await until("both watch", async () => (await metric(member, "etcd_debugging_mvcc_watcher_total")) === 2);
  first.cancel(0n);
  await until("one is gone", async () => (await metric(member, "etcd_debugging_mvcc_watcher_total")) === 1);
  second.cancel(0n);
  await Promise.allSettled(reading);
});

it("--unsafe-no-fsync: the count of fsyncs of the WAL stands still", async () => {
  using folder = temporaryFolder("announced");
  await using member = await Member.start({ dataDir: path.join(folder.path, "data"), flags: ["--unsafe-no-fsync"] });
  await using client = await connect({ endpoints: [member.endpoint] });
  const name = "etcd_disk_wal_fsync_duration_seconds_count";
  const before = await metric(member, name);
  for (let i = 0; i < 50; i++) await client.kv.put(`k${i}`, "v");
  expect(await metric(member, name)).toBe(before);
});

it("the WAL holds no password", async () => {
  using folder = temporaryFolder("announced");
  const dataDir = path.join(folder.path, "data");
  await using member = await Member.start({ dataDir, flags: ["--bcrypt-cost=4"] });
  await using client = await connect({ endpoints: [member.endpoint] });
  await client.auth.userAdd("somebody", "a-very-secret-word");
  await member.stop();
  const wal = path.join(dataDir, "member/wal");
  const bytes = Buffer.concat(fs.readdirSync(wal).map((file) => fs.readFileSync(path.join(wal, file))));
  expect(bytes.includes("somebody")).toBe(true);
  expect(bytes.includes("a-very-secret-word")).toBe(false);
});

it("a slow request is told of with its steps, as etcd does", async () => {
  using folder = temporaryFolder("announced");
  await using member = await Member.start({ dataDir: path.join(folder.path, "data") });
  await using client = await connect({ endpoints: [member.endpoint] });
  let keys = 0;
  const fill = async (batches: number) => {
    for (let i = 0; i < batches; i++) {
      const puts = Array.from({ length: 100 }, () => ({
        request: {
          kind: "requestPut" as const,
          value: PutRequest.create({
            key: Buffer.from(`key/${++keys}`),
            value: Buffer.from(`${(keys * 7919) % 100_003}`),
          }),
        },
      }));
      await client.kv
        .txn()
        .then(...puts)
        .commit();
    }
  };
  const traces = () =>
    member.log
      .split("\n")
      .filter((line) => /"msg":"trace\[\d+\] range"/.test(line))
      .map((line) => JSON.parse(line) as Record<string, unknown>);
  // Until sorting by value takes longer than 100 ms, which is sooner or later on any machine.
  await until("a range is slow", async () => {
    await fill(200);
    await client.kv.get("key/", { prefix: true, sortTarget: SortTarget.Value, sortOrder: SortOrder.Descend, limit: 1 });
    return traces().length > 0;
  });
  const [line = {}] = traces();
  expect(Object.keys(line).filter((key) => key !== "caller")).toEqual([
    ...["level", "ts", "msg", "detail", "duration", "start", "end", "steps", "step_count"],
  ]);
  expect(line["detail"]).toMatch(/^\{range_begin:key\/; range_end:key0; response_count:1; response_revision:\d+; \}$/);
  const steps = line["steps"] as string[];
  expect(line["step_count"]).toBe(steps.length);
  for (const step of steps) expect(step).toMatch(/^trace\[\d+\] '[a-z -]+' ( |\{.*\} )?\(duration: [\d.]+m?s\)$/);
  expect(member.log).toContain('"msg":"apply request took too long"');
});

it("transactions tell the same with and without a shared buffer", async () => {
  using folder = temporaryFolder("announced");
  const told: unknown[] = [];
  for (const isShared of [true, false]) {
    const flags = [`--experimental-txn-mode-write-with-shared-buffer=${isShared}`];
    await using member = await Member.start({ dataDir: path.join(folder.path, String(isShared)), flags });
    const ctl = (stdin: string) => must("etcdctl", ["--endpoints", member.endpoint, "txn"], { stdin });
    told.push([
      await ctl('version("a") = "0"\n\nput a 1\nget a\nput b 2\nget a b0\n\nget a\n\n'),
      await ctl('value("a") = "1"\n\ndel a\nget a\nput c 3\nget a --rev=2\nget c\n\nget a\n\n'),
      await must("etcdctl", ["--endpoints", member.endpoint, "get", "", "--prefix", "-w", "fields"]).then((text) =>
        text.replace(/"(ClusterID|MemberID|RaftTerm)" : \d+\n/g, ""),
      ),
    ]);
  }
  expect(told[0]).toEqual(told[1]);
  expect(told[0]).toMatchObject([expect.stringContaining("SUCCESS"), expect.stringContaining("SUCCESS"), /./]);
});

it("--self-signed-cert-validity says for how many years", async () => {
  using folder = temporaryFolder("announced");
  const dataDir = path.join(folder.path, "data");
  await using member = await Member.start({ dataDir, flags: ["--auto-tls", "--self-signed-cert-validity=3"] });
  expect(member.isRunning).toBe(true);
  const pem = fs.readFileSync(path.join(dataDir, "fixtures/client/cert.pem"));
  const { validFrom, validTo } = new X509Certificate(pem);
  const years = (Date.parse(validTo) - Date.parse(validFrom)) / (365 * 24 * 3600 * 1000);
  expect(Math.round(years)).toBe(3);
});

it("every feature that was announced names a test that exists", () => {
  const root = path.dirname(path.dirname(path.dirname(fileURLToPath(import.meta.url))));
  const page = fs.readFileSync(path.join(root, "docs/monitoring.md"), "utf8");
  const section = page.slice(page.indexOf("## What each announced feature"));
  const rows = [...section.matchAll(/^\| (\d+) \| [^|]+ \| (.+) \|$/gm)];
  expect(rows.map(([, number]) => Number(number))).toEqual(Array.from({ length: 22 }, (_, i) => i + 1));
  for (const [row, , tests = ""] of rows) {
    const named = [...tests.matchAll(/`([^`]+\.test\.ts)`: "([^"]+)"/g)];
    expect(named.length > 0 || tests.includes("nothing to observe"), row).toBe(true);
    for (const [, file = "", name = ""] of named) {
      expect(fs.readFileSync(path.join(root, file), "utf8"), `${file} has a test called ${name}`).toContain(name);
    }
  }
});
