/**
 * etcdutl between the real server and ours. Needs ETCD_REAL_BIN (a folder with etcd 3.5's programs); data of the line
 * before comes from ETCD_REAL_BIN_34, when that is there too.
 */
import fs from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { hashKv, Member, must, ourBin, realBin, run, temporaryFolder } from "./harness/processes.ts";

const oldBin = process.env["ETCD_REAL_BIN_34"];

/** On a machine that has other things to do a command may take longer than etcdctl's own five seconds. */
const PATIENCE = { ETCDCTL_API: "3", ETCDCTL_COMMAND_TIMEOUT: "60s", ETCDCTL_DIAL_TIMEOUT: "60s" };

/** Old revisions, deletions, a compaction, leases, users and roles. */
async function writeHistory(member: Member, bin: string): Promise<void> {
  const ctl = (...args: string[]) => must("etcdctl", ["--endpoints", member.endpoint, ...args], { bin, env: PATIENCE });
  for (let i = 0; i < 30; i++) await ctl("put", `key-${i % 7}`, `value ${i} ${"x".repeat(i * 50)}`);
  await ctl("del", "key-3");
  await ctl("put", "key-3", "again");
  await ctl("compaction", "15");
  const lease = /lease ([0-9a-f]+) granted/.exec(await ctl("lease", "grant", "36000"))?.[1];
  await ctl("put", "leased", "1", `--lease=${lease}`);
  await ctl("del", "key-4");
  await ctl("role", "add", "reader");
  await ctl("role", "grant-permission", "reader", "read", "key-", "key.");
  await ctl("user", "add", "ann:secret");
  await ctl("user", "grant-role", "ann", "reader");
}

/** What etcd does when a write would exceed the quota, which is 16 MB here; the alarm stays until it is disarmed. */
const SMALL_QUOTA = ["--quota-backend-bytes", String(16 * 1024 * 1024)];

async function raiseNoSpace(member: Member, bin: string): Promise<void> {
  const ctl = (...args: string[]) => run("etcdctl", ["--endpoints", member.endpoint, ...args], { bin, env: PATIENCE });
  for (let i = 0; i < 40; i++) {
    const { code, stderr } = await run("etcdctl", ["--endpoints", member.endpoint, "put", `big-${i}`], {
      bin: ourBin,
      env: PATIENCE,
      stdin: "x".repeat(1_000_000),
    });
    if (code === 0) continue;
    expect(stderr).toContain("database space exceeded");
    expect((await ctl("alarm", "list")).stdout).toContain("alarm:NOSPACE");
    return;
  }
  throw new Error("40 MB fitted into a quota of 16 MB");
}

/** All that a client can see, and the hash of the keys. */
async function seen(member: Member): Promise<string> {
  const bin = ourBin;
  const ctl = (...args: string[]) => must("etcdctl", ["--endpoints", member.endpoint, ...args], { bin, env: PATIENCE });
  const parts: string[] = [`hash ${await hashKv(member, bin)}`];
  for (const revision of [0, 16, 20, 25, 30]) {
    const got = JSON.parse(await ctl("get", "", "--prefix", "-w", "json", `--rev=${revision}`));
    parts.push(`${revision}: ${JSON.stringify([got.kvs, got.count])}`);
  }
  const leases = (await ctl("lease", "list")).split("\n").slice(1).join();
  parts.push(leases, await ctl("user", "list"), await ctl("role", "get", "reader"), await ctl("user", "get", "ann"));
  const { members } = JSON.parse(await ctl("member", "list", "-w", "json")) as {
    members: { ID: bigint; name: string }[];
  };
  parts.push(JSON.stringify(members.map(({ name }) => name)), (await ctl("alarm", "list")).trim());
  return parts.join("\n");
}

const utl = (...args: string[]) => must("etcdutl", args);

/** Starts a server on the directory, compares, and stops it. */
async function atStop(what: string, dataDir: string, bin: string, before: string | undefined): Promise<string> {
  await using member = await Member.start({ dataDir, bin });
  const now = await seen(member);
  if (before !== undefined) expect(now, what).toBe(before);
  await member.stop();
  return now;
}

async function clean(dataDir: string): Promise<void> {
  const { stdout, code } = await run("etcdutl", ["verify", "--data-dir", dataDir]);
  expect(`${code} ${stdout}`).toMatch(/^0 [\s\S]*clean\n$/);
}

describe("a member's data", () => {
  it.skipIf(!realBin)("goes from the real server through migrate and defrag to ours and back, unchanged", async () => {
    const real = realBin as string;
    using folder = temporaryFolder("utl-migrate");
    const dataDir = path.join(folder.path, "m.etcd");
    const snapDir = path.join(dataDir, "member", "snap");
    let before: string;
    {
      await using member = await Member.start({
        dataDir,
        bin: real,
        flags: ["--snapshot-count", "20", ...SMALL_QUOTA],
      });
      await writeHistory(member, real);
      await raiseNoSpace(member, real);
      before = await seen(member);
      await member.stop();
    }
    await clean(dataDir);
    await utl("defrag", "--data-dir", dataDir);
    await atStop("defragmented bbolt", dataDir, real, before);
    await utl("migrate", "--data-dir", dataDir, "--to", "lmdb");
    expect(fs.existsSync(path.join(snapDir, "db"))).toBe(false);
    await clean(dataDir);
    await atStop("lmdb", dataDir, ourBin, before);
    await utl("defrag", "--data-dir", dataDir);
    await clean(dataDir);
    await atStop("defragmented lmdb", dataDir, ourBin, before);
    await utl("migrate", "--data-dir", dataDir, "--to", "bbolt");
    expect(fs.readdirSync(snapDir).filter((name) => name.startsWith("db"))).toEqual(["db"]);
    await clean(dataDir);
    await atStop("back in bbolt", dataDir, real, before);
    // There and back again by version: 3.6's mark comes and goes.
    await utl("migrate", "--data-dir", dataDir, "--target-version", "3.6");
    await utl("migrate", "--data-dir", dataDir, "--target-version", "3.5");
    await atStop("after 3.6 and back", dataDir, real, before);
  });

  it.skipIf(!realBin)("goes through save, status and restore to either server, as the real tool has it", async () => {
    const real = realBin as string;
    using folder = temporaryFolder("utl-restore");
    const dataDir = path.join(folder.path, "m.etcd");
    const file = path.join(folder.path, "s.db");
    let before: string;
    {
      await using member = await Member.start({ dataDir, bin: real, flags: SMALL_QUOTA });
      await writeHistory(member, real);
      await raiseNoSpace(member, real);
      before = await seen(member);
      await must("etcdctl", ["--endpoints", member.endpoint, "snapshot", "save", file], { bin: real, env: PATIENCE });
      await member.stop();
    }
    for (const format of ["simple", "json", "fields", "table"]) {
      const args = ["snapshot", "status", file, "-w", format];
      expect(await utl(...args)).toBe(await must("etcdutl", args, { bin: real }));
    }
    const [ours, theirs] = [path.join(folder.path, "ours"), path.join(folder.path, "theirs")];
    await utl("snapshot", "restore", file, "--data-dir", ours);
    await utl("snapshot", "restore", file, "--data-dir", theirs, "--backend", "bbolt");
    await clean(ours);
    await clean(theirs);
    await atStop("restored for ours", ours, ourBin, before);
    await atStop("restored for the real one", theirs, real, before);
    // A snapshot of the stopped member is one that the real tool restores.
    const saved = path.join(folder.path, "saved.db");
    await utl("snapshot", "save", saved, "--data-dir", ours);
    const again = path.join(folder.path, "again");
    await must("etcdutl", ["snapshot", "restore", saved, "--data-dir", again], { bin: real });
    await atStop("saved offline", again, real, before);
    // The revision moves on, and what was before is compacted.
    const bumped = path.join(folder.path, "bumped");
    await utl(
      "snapshot",
      "restore",
      file,
      "--data-dir",
      bumped,
      "--backend",
      "bbolt",
      "--bump-revision",
      "1000",
      "--mark-compacted",
    );
    await using member = await Member.start({ dataDir: bumped, bin: real });
    const got = await must("etcdctl", ["--endpoints", member.endpoint, "get", "key-1", "-w", "json"], {
      env: PATIENCE,
    });
    const alarms = await must("etcdctl", ["--endpoints", member.endpoint, "alarm", "list"], { env: PATIENCE });
    expect(alarms).toContain("alarm:NOSPACE");
    expect(JSON.parse(got).header.revision).toBeGreaterThan(1_030);
    const old = await run("etcdctl", ["--endpoints", member.endpoint, "get", "key-1", "--rev=30"], { env: PATIENCE });
    expect(old.stderr).toContain("required revision has been compacted");
  });

  it.skipIf(!oldBin || !realBin)("of 3.4 is restored, and served by ours and by 3.5", async () => {
    using folder = temporaryFolder("utl-34");
    const file = path.join(folder.path, "s.db");
    let before: string;
    {
      await using member = await Member.start({
        dataDir: path.join(folder.path, "m.etcd"),
        bin: oldBin as string,
        flags: SMALL_QUOTA,
      });
      await writeHistory(member, oldBin as string);
      await raiseNoSpace(member, oldBin as string);
      before = await seen(member);
      await must("etcdctl", ["--endpoints", member.endpoint, "snapshot", "save", file], {
        bin: oldBin as string,
        env: PATIENCE,
      });
    }
    expect(await utl("snapshot", "status", file)).toBe(
      await must("etcdutl", ["snapshot", "status", file], { bin: realBin as string }),
    );
    const ours = path.join(folder.path, "ours");
    await utl("snapshot", "restore", file, "--data-dir", ours);
    await atStop("ours", ours, ourBin, before);
    await utl("migrate", "--data-dir", ours, "--to", "bbolt");
    await atStop("3.5", ours, realBin as string, before);
  });

  it.skipIf(!realBin)("that a real etcd went on with is not lost beside an older database of ours", async () => {
    const real = realBin as string;
    using folder = temporaryFolder("utl-overtaken");
    for (const [what, flags] of [
      ["with snapshots", ["--snapshot-count", "10"]],
      ["with the log alone", []],
    ] as const) {
      const dataDir = path.join(folder.path, what);
      const snapDir = path.join(dataDir, "member", "snap");
      const [ours, theirs] = [path.join(snapDir, "db.lmdb"), path.join(snapDir, "db")];
      const put = (member: Member, i: number) =>
        must("etcdctl", ["--endpoints", member.endpoint, "put", `key-${i}`, `value ${i}`], { env: PATIENCE });
      {
        await using member = await Member.start({ dataDir });
        for (let i = 0; i < 5; i++) await put(member, i);
        await member.stop();
      }
      fs.copyFileSync(ours, path.join(folder.path, "kept"));
      await utl("migrate", "--data-dir", dataDir, "--to", "bbolt");
      let before: string;
      {
        await using member = await Member.start({ dataDir, bin: real, flags: [...flags] });
        for (let i = 5; i < 35; i++) await put(member, i);
        before = await must("etcdctl", ["--endpoints", member.endpoint, "get", "", "--prefix", "-w", "json"], {
          env: PATIENCE,
        });
        await member.stop();
      }
      fs.copyFileSync(path.join(folder.path, "kept"), ours);
      const kvs = (json: string) => JSON.stringify(JSON.parse(json).kvs);
      const checked = async (): Promise<void> => {
        await using member = await Member.start({ dataDir });
        const now = await must("etcdctl", ["--endpoints", member.endpoint, "get", "", "--prefix", "-w", "json"], {
          env: PATIENCE,
        });
        expect(kvs(now), what).toBe(kvs(before));
        await member.stop();
      };
      const { stdout, code } = await run("etcdutl", ["verify", "--data-dir", dataDir]);
      for (const args of [
        ["defrag"],
        ["migrate", "--to", "bbolt"],
        ["snapshot", "save", path.join(folder.path, "x")],
      ]) {
        const refused = await run("etcdutl", [...args, "--data-dir", dataDir]);
        expect(`${refused.code} ${refused.stderr}`, what).toMatch(/^1 [\s\S]*ahead of .*db\.lmdb/);
      }
      if (flags.length === 0) {
        // The log holds all of it, so the older database catches up by itself.
        expect(code, stdout).toBe(0);
        await checked();
        continue;
      }
      expect(code, stdout).toBe(10);
      expect(stdout).toMatch(/do not remove it.*\n?.*Move .*db\.lmdb away/);
      await using refusing = await Member.launch({ dataDir });
      await refusing.ended();
      expect(refusing.log).toMatch(/another etcd went on with the one; move the other one away/);
      expect(fs.existsSync(theirs)).toBe(true);
      fs.renameSync(ours, path.join(folder.path, "away"));
      await checked();
    }
  });

  it.skipIf(!realBin)("is left alone while a server has it", async () => {
    using folder = temporaryFolder("utl-used");
    for (const bin of [ourBin, realBin as string]) {
      const dataDir = path.join(folder.path, bin === ourBin ? "ours" : "real");
      await using member = await Member.start({ dataDir, bin });
      for (const args of [["defrag"], ["migrate", "--to", "bbolt"], ["migrate", "--to", "lmdb"], ["verify"]]) {
        const { code, stderr } = await run("etcdutl", [...args, "--data-dir", dataDir]);
        expect(code, args.join(" ")).toBe(1);
        expect(stderr).toMatch(/in use by another process|is locked by another process/);
      }
      await must("etcdctl", ["--endpoints", member.endpoint, "put", "still", "there"], { env: PATIENCE });
    }
  });
});
