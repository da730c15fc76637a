/** Snapshots cross over in both directions, and hashKV stays equal at each stop. */
import fs from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { hashKv, Member, must, ourBin, realBin, run, temporaryFolder } from "./harness/processes.ts";

/** A history with everything that a snapshot must carry: old revisions, deletions, a compaction, a lease, odd bytes. */
async function writeHistory(member: Member, bin: string): Promise<void> {
  const ctl = (...args: string[]) => must("etcdctl", ["--endpoints", member.endpoint, ...args], { bin });
  for (let i = 0; i < 20; i++) await ctl("put", `key-${i % 7}`, `value ${i} ${"x".repeat(i * 50)}`);
  await ctl("del", "key-3");
  await ctl("put", "key-3", "again");
  await ctl("compaction", "15");
  await must("etcdctl", ["--endpoints", member.endpoint, "put", "from-stdin"], {
    bin,
    stdin: Uint8Array.of(0, 1, 2, 0xff, 0xfe, 10),
  });
  const lease = /lease ([0-9a-f]+) granted/.exec(await ctl("lease", "grant", "3600"))?.[1];
  await ctl("put", "leased", "1", `--lease=${lease}`);
  await ctl("del", "key-4");
}

async function everything(member: Member, bin: string): Promise<string> {
  const text = await must("etcdctl", ["--endpoints", member.endpoint, "get", "", "--prefix", "-w", "json"], { bin });
  const { kvs, count } = JSON.parse(text) as { kvs: unknown[]; count: number };
  return JSON.stringify({ kvs, count });
}

/** From a live server through save, status and restore to a new one. Each program may be ours or the real one. */
async function roundTrip(bins: { source: string; save: string; restore: string; target: string }): Promise<void> {
  using folder = temporaryFolder("snapshot");
  const file = path.join(folder.path, "backup.db");
  const restored = path.join(folder.path, "restored.etcd");
  let hash: number;
  let content: string;
  {
    await using member = await Member.start({ dataDir: path.join(folder.path, "source.etcd"), bin: bins.source });
    await writeHistory(member, bins.save);
    hash = await hashKv(member, bins.save);
    content = await everything(member, bins.save);
    await must("etcdctl", ["--endpoints", member.endpoint, "snapshot", "save", file], { bin: bins.save });
  }
  const status = JSON.parse(await must("etcdutl", ["snapshot", "status", file, "-w", "json"], { bin: bins.restore }));
  expect(status.revision).toBeGreaterThan(20);
  await must("etcdutl", ["snapshot", "restore", file, "--data-dir", restored], { bin: bins.restore });
  await using member = await Member.start({ dataDir: restored, bin: bins.target });
  expect(await hashKv(member, bins.save)).toBe(hash);
  expect(await everything(member, bins.save)).toBe(content);
  await must("etcdctl", ["--endpoints", member.endpoint, "put", "after", "restore"], { bin: bins.save });
  const leases = await must("etcdctl", ["--endpoints", member.endpoint, "lease", "list"], { bin: bins.save });
  expect(leases).toContain("found 1 leases");
}

describe("snapshots", () => {
  it("saved from our server are restored by our etcdutl and served again", async () => {
    await roundTrip({ source: ourBin, save: ourBin, restore: ourBin, target: ourBin });
  });

  it.skipIf(!realBin)("saved from ours are restored by the real etcdutl and served by the real etcd", async () => {
    const real = realBin as string;
    await roundTrip({ source: ourBin, save: ourBin, restore: real, target: real });
  });

  it.skipIf(!realBin)("saved from the real server are restored by our etcdutl and served by ours", async () => {
    const real = realBin as string;
    await roundTrip({ source: real, save: real, restore: ourBin, target: ourBin });
  });

  it("that are truncated, changed or no database are refused in one line, and leave no data dir", async () => {
    using folder = temporaryFolder("bad-snapshot");
    const good = path.join(folder.path, "good.db");
    {
      await using member = await Member.start({ dataDir: path.join(folder.path, "source.etcd") });
      await must("etcdctl", ["--endpoints", member.endpoint, "put", "a", "b"]);
      await must("etcdctl", ["--endpoints", member.endpoint, "snapshot", "save", good]);
    }
    const bytes = fs.readFileSync(good);
    const flipped = Buffer.from(bytes);
    flipped[bytes.length >> 1] = (flipped[bytes.length >> 1] as number) ^ 1;
    const damaged = {
      "cut.db": bytes.subarray(0, bytes.length >> 1),
      "flipped.db": flipped,
      "empty.db": Buffer.alloc(0),
      "text.db": Buffer.from("this is not a database\n"),
    };
    for (const [name, content] of Object.entries(damaged)) {
      const file = path.join(folder.path, name);
      const target = path.join(folder.path, `${name}.etcd`);
      fs.writeFileSync(file, content);
      const ended = await run("etcdutl", ["snapshot", "restore", file, "--data-dir", target]);
      expect(ended.code, `${name}: ${ended.stderr}`).not.toBe(0);
      expect(ended.stderr).not.toMatch(/^\s+at /m);
      expect(fs.existsSync(path.join(target, "member", "wal")), name).toBe(false);
    }
  });
});
