// What the announcement of etcd 3.5 names and an operator can see from outside, as far as no other test looks at it.
import fs from "node:fs";
import path from "node:path";
import { connect, watchInit } from "@etcd-ts/client";
import { describe, expect, it } from "vitest";
import { httpGet, Member, run, temporaryFolder, until } from "./harness/processes.ts";

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
