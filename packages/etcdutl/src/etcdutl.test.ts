import { type ChildProcess, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { BoltWriter, encodeKeyValue, openBolt, revisionKey, summarize } from "@etcd-ts/server/storage";
import { afterEach, describe, expect, it } from "vitest";
import { FlagError, FlagSet, type FlagSpec } from "./cli/flags.ts";
import { runCli } from "./cli/run.ts";
import { progressBar, progressLine } from "./progress.ts";

const folders: string[] = [];

function temporaryFolder(): string {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "etcdutl-"));
  folders.push(folder);
  return folder;
}

afterEach(() => {
  for (const folder of folders.splice(0)) fs.rmSync(folder, { recursive: true, force: true });
});

interface Result {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

async function run(words: readonly string[], env: Record<string, string> = {}): Promise<Result> {
  let out = "";
  let err = "";
  const code = await runCli({
    argv: words,
    env,
    out: {
      write: (text) => {
        out += text;
      },
      isTerminal: false,
    },
    err: {
      write: (text) => {
        err += text;
      },
      isTerminal: false,
    },
  });
  return { code, out, err };
}

/** A `.db` file of `count` keys, as `snapshot save` would have left it. */
function writeSnapshot(file: string, count: number): void {
  const descriptor = fs.openSync(file, "w+");
  const writer = new BoltWriter({
    write: (bytes, position) => {
      fs.writeSync(descriptor, bytes, 0, bytes.length, position);
    },
  });
  const bucket = writer.bucket("key");
  for (let main = 2; main < count + 2; main++) {
    const fields = { createRevision: main, modRevision: main, version: 1, lease: 0n, value: Buffer.alloc(100, main) };
    bucket.put(revisionKey(main, 0), encodeKeyValue({ ...fields, key: Buffer.from(`key${main}`) }));
  }
  bucket.finish();
  writer.bucket("meta").finish();
  const size = writer.finish();
  const image = Buffer.alloc(size);
  fs.readSync(descriptor, image, 0, size, 0);
  fs.writeSync(descriptor, createHash("sha256").update(image).digest(), 0, 32, size);
  fs.closeSync(descriptor);
}

describe("flags", () => {
  const specs: readonly FlagSpec[] = [
    { name: "name", short: "n", type: "string", default: "x", usage: "" },
    { name: "yes", short: "y", type: "bool", default: "false", usage: "" },
    { name: "count", type: "uint", default: "0", usage: "" },
  ];
  const parse = (...words: string[]) => {
    const flags = new FlagSet(specs);
    flags.parse(words);
    return { name: flags.string("name"), yes: flags.bool("yes"), count: flags.uint("count"), args: flags.args };
  };

  it("mix with arguments, take values behind = or a blank, and end with --", () => {
    expect(parse("a", "--name", "b", "c", "--yes", "--", "--count")).toEqual({
      name: "b",
      yes: true,
      count: 0n,
      args: ["a", "c", "--count"],
    });
    expect(parse("-nb", "-y", "--count=0x10")).toMatchObject({ name: "b", yes: true, count: 16n });
    expect(parse("-n=b", "--yes=false", "--count=1_000")).toMatchObject({ name: "b", yes: false, count: 1000n });
    expect(parse("-yn", "b", "--count", "010")).toMatchObject({ name: "b", yes: true, count: 8n });
  });

  it.each([
    [["--nosuch"], "unknown flag: --nosuch"],
    [["-q"], "unknown shorthand flag: 'q' in -q"],
    [["--name"], "flag needs an argument: --name"],
    [["-yn"], "flag needs an argument: 'n' in -n"],
    [
      ["--yes=maybe"],
      'invalid argument "maybe" for "-y, --yes" flag: strconv.ParseBool: parsing "maybe": invalid syntax',
    ],
    [["--count=-5"], 'invalid argument "-5" for "--count" flag: strconv.ParseUint: parsing "-5": invalid syntax'],
    [
      ["--count=18446744073709551616"],
      'invalid argument "18446744073709551616" for "--count" flag: strconv.ParseUint: parsing "18446744073709551616": value out of range',
    ],
    [["--=x"], "bad flag syntax: --=x"],
  ])("%j is refused in pflag's words", (words, message) => {
    expect(() => parse(...words)).toThrow(new FlagError(message));
  });
});

describe("etcdutl", () => {
  it("snapshot status prints each format", async () => {
    const file = path.join(temporaryFolder(), "s.db");
    writeSnapshot(file, 10);
    const bolt = openBolt(file);
    const { hash } = summarize(bolt);
    bolt.close();
    const hex = hash.toString(16);
    expect(await run(["snapshot", "status", file])).toEqual({ code: 0, out: `${hex}, 11, 10, 16 kB\n`, err: "" });
    expect(JSON.parse((await run(["snapshot", "status", file, "-w", "json"])).out)).toEqual({
      hash,
      revision: 11,
      totalKey: 10,
      totalSize: 16384,
    });
    expect((await run(["-w", "fields", "snapshot", "status", file])).out).toBe(
      `"Hash" : ${hash}\n"Revision" : 11\n"Keys" : 10\n"Size" : 16384\n`,
    );
    expect((await run(["snapshot", "status", file, "-wtable"])).out).toContain("|   HASH   | REVISION | TOTAL KEYS |");
    expect(await run(["snapshot", "status", file, "-w", "protobuf"])).toEqual({
      code: 4,
      out: "",
      err: "Error: protobuf not supported as output format\n",
    });
  });

  it("hashkv prints hash and revisions", async () => {
    const file = path.join(temporaryFolder(), "s.db");
    writeSnapshot(file, 10);
    const { hash } = JSON.parse((await run(["hashkv", file, "-w", "json"])).out);
    expect(await run(["hashkv", file])).toEqual({ code: 0, out: `${hash}, 11, -1\n`, err: "" });
    expect((await run(["hashkv", file, "--rev", "12"])).err).toBe(
      "Error: mvcc: required revision is a future revision\n",
    );
  });

  it("mistakes get etcd's words and codes", async () => {
    const unknown = 'Error: unknown command "bogus" for "etcdutl"';
    expect(await run(["bogus"])).toEqual({
      code: 1,
      out: "",
      err: `${unknown}\nRun 'etcdutl --help' for usage.\n${unknown}\n`,
    });
    const missing = await run(["defrag"]);
    expect(missing.code).toBe(1);
    expect(missing.err).toMatch(
      /^Error: required flag\(s\) "data-dir" not set\nUsage:\n {2}etcdutl defrag \[flags\]\n/,
    );
    expect(missing.err).toMatch(/\n\nError: required flag\(s\) "data-dir" not set\n$/);
    expect((await run(["snapshot", "status"])).code).toBe(128);
    expect(await run(["snapshot", "status", "/no/such"])).toMatchObject({
      code: 1,
      err: "Error: stat /no/such: no such file or directory\n",
    });
    expect((await run(["snapshot", "bogus"])).code).toBe(0);
    expect(await run(["defrag", "--data-dir", "/no/such"])).toEqual({
      code: 2,
      out: "",
      err:
        "Error: Failed to defragment etcd data[/no/such] " +
        "(open /no/such/member/snap/db: no such file or directory)\n",
    });
    const folder = temporaryFolder();
    const backup = await run(["backup", "--data-dir", path.join(folder, "no"), "--backup-dir", path.join(folder, "b")]);
    expect(backup.code).toBe(1);
    expect(backup.err).toMatch(/\tfatal\t.*\tsaveSnap\(Snapshoter.Load\) failed\t\{"error": "open .*: no such file/);
    expect(await run(["snapshot", "save", "x"])).toEqual({
      code: 128,
      out: "",
      err:
        'Command "save" is deprecated, Use `etcdctl snapshot save` to download snapshot\n' +
        "Error: In order to download snapshot use: `etcdctl snapshot save ...`\n",
    });
  });

  it("restore and defrag work on what restore made, and log in zap's console form", async () => {
    const folder = temporaryFolder();
    const file = path.join(folder, "s.db");
    writeSnapshot(file, 500);
    const dataDir = path.join(folder, "data");
    const restored = await run(["snapshot", "restore", file, "--data-dir", dataDir]);
    expect(restored.code).toBe(0);
    expect(restored.out).toBe("");
    expect(restored.err.split("\n").map((line) => line.split("\t").slice(1, 4))).toEqual([
      ["info", "snapshot/v3_snapshot.go:265", "restoring snapshot"],
      ["info", "membership/store.go:141", "Trimming membership information from the backend..."],
      ["info", "membership/cluster.go:421", "added member"],
      ["info", "snapshot/v3_snapshot.go:293", "restored snapshot"],
      [],
    ]);
    expect(restored.err).toContain(`{"path": "${file}", "wal-dir": "${dataDir}/member/wal", "data-dir": "${dataDir}"`);
    expect((await run(["defrag", "--data-dir", dataDir])).code).toBe(0);
    expect((await run(["snapshot", "restore", file, "--data-dir", dataDir])).err).toBe(
      `Error: data-dir "${dataDir}" not empty or could not be read\n`,
    );
    const other = path.join(folder, "other");
    await run(["snapshot", "restore", file, "--data-dir", other], { ETCDUTL_BACKEND: "bbolt" });
    expect(fs.readdirSync(path.join(other, "member", "snap")).sort()).toEqual([
      "0000000000000001-0000000000000001.snap",
      "db",
    ]);
    expect((await run(["snapshot", "restore", file, "--data-dir", "x", "--backend", "y"])).code).toBe(128);
  });

  it("every command answers in JSON, and dry runs say what would be", async () => {
    const folder = temporaryFolder();
    const file = path.join(folder, "s.db");
    writeSnapshot(file, 100);
    const dataDir = path.join(folder, "data");
    const json = async (...words: string[]) => {
      const { code, out, err } = await run([...words, "-w", "json"]);
      expect(`${code} ${err}`).toMatch(/^0/);
      return JSON.parse(out);
    };
    const restore = ["snapshot", "restore", file, "--data-dir", dataDir];
    expect(await json(...restore, "--dry-run")).toMatchObject({
      dryRun: true,
      revision: 101,
      memberId: "8e9e05c52164694d",
    });
    expect(fs.existsSync(dataDir)).toBe(false);
    expect((await run([...restore, "--dry-run"])).out).toMatch(/^would restore {2}.*revision 101\n/);
    expect(await json(...restore)).toMatchObject({ backend: "lmdb", clusterId: "cdf818194e3a8c32", revision: 101 });
    const { hash } = await json("snapshot", "status", path.join(dataDir, "member", "snap", "db.lmdb"));
    const verified = await json("verify", "--data-dir", dataDir);
    expect(verified).toMatchObject({ verdict: "clean", findings: [], hash, memberId: "8e9e05c52164694d" });
    expect(await json("defrag", "--data-dir", dataDir, "--dry-run")).toMatchObject({ dryRun: true });
    expect(await json("defrag", "--data-dir", dataDir)).toMatchObject({ backend: "lmdb" });
    const migrate = ["migrate", "--data-dir", dataDir];
    expect(await json(...migrate, "--to", "bbolt", "--dry-run")).toMatchObject({ dryRun: true, isChanged: true });
    expect(await json(...migrate, "--to", "bbolt")).toMatchObject({ from: "lmdb", to: "bbolt", hash });
    expect(await json(...migrate, "--target-version", "3.6")).toMatchObject({
      from: "3.5",
      to: "3.6",
      isChanged: true,
    });
    expect(await json(...migrate, "--target-version", "3.6")).toMatchObject({ isChanged: false });
    const saved = path.join(folder, "saved.db");
    expect(await json("snapshot", "save", saved, "--data-dir", dataDir)).toMatchObject({ path: saved, revision: 101 });
    expect(await json("hashkv", saved)).toMatchObject({ hashRevision: 101 });
    expect(await json("backup", "--data-dir", dataDir, "--backup-dir", path.join(folder, "b"))).toMatchObject({
      dataDir,
    });
    expect((await run([...migrate, "--to", "lmdb", "--target-version", "3.5"])).code).toBe(128);
    expect((await run(migrate)).err).toBe('Error: one of the flags "target-version" and "to" is needed\n');
    expect((await run([...migrate, "--target-version", "3"])).code).toBe(128);
  }, 120_000);

  it("verify names the damage, and its exit code tells how bad it is", async () => {
    const folder = temporaryFolder();
    const file = path.join(folder, "s.db");
    writeSnapshot(file, 100);
    const dataDir = path.join(folder, "data");
    await run(["snapshot", "restore", file, "--data-dir", dataDir]);
    const database = path.join(dataDir, "member", "snap", "db.lmdb");
    const whole = fs.readFileSync(database);
    const flip = (at: number): void => {
      const bytes = Buffer.from(whole);
      bytes[at] = (bytes[at] as number) ^ 1;
      fs.writeFileSync(database, bytes);
    };
    flip(whole.indexOf(Buffer.alloc(100, 50)) + 3);
    const lost = await run(["verify", "--data-dir", dataDir]);
    expect(lost.code).toBe(20);
    expect(lost.out).toMatch(
      /^lost: .*db\.lmdb: revision 50 of key "key50" is damaged \(page \d+\): its checksum is wrong\n/,
    );
    // A number in `live`, which follows from the keys.
    flip(whole.lastIndexOf(Buffer.from("key50")) + 6);
    const repairable = await run(["verify", "--data-dir", dataDir]);
    expect([repairable.code, repairable.out.trim().split("\n").at(-1)]).toEqual([10, "repairable"]);
    expect(repairable.out).toContain('"live" does not fit the keys');
    expect((await run(["verify", "--data-dir", path.join(folder, "none")])).code).toBe(1);
  }, 120_000);

  it("a bar shows on a terminal after a second, with what is left", () => {
    const gigabyte = 1e9;
    expect(progressLine({ what: "restoring", doneBytes: 0.25 * gigabyte, totalBytes: gigabyte }, 500)).toBe(
      "restoring  [=======>                      ]  25%  250 MB of 1.0 GB  500 MB/s  2 s left",
    );
    let err = "";
    let now = 0;
    const io = (isTerminal: boolean) => ({
      argv: [],
      env: {},
      out: { write: () => {}, isTerminal: false },
      err: {
        write: (text: string) => {
          err += text;
        },
        isTerminal,
      },
    });
    const progress = { what: "reading", doneBytes: 1, totalBytes: 2 };
    expect(progressBar(io(false)).onProgress).toBeUndefined();
    const bar = progressBar(io(true), () => now);
    bar.onProgress?.(progress);
    expect(err).toBe("");
    now = 1_500;
    for (let i = 0; i < 64; i++) bar.onProgress?.(progress);
    expect(err.startsWith("\r\u001b[Kreading  [===")).toBe(true);
    bar.end();
    expect(err.endsWith("\r\u001b[K")).toBe(true);
  });

  it("help lists the commands and flags that scripts know, and ours apart", async () => {
    const { out } = await run(["--help"]);
    expect(out).toContain("\nAvailable Commands:\n  backup      [legacy] offline backup of etcd directory\n");
    expect(out).toContain("\nFurther Commands:\n  hashkv ");
    expect(out).not.toContain("save");
    expect((await run(["help", "snapshot", "restore"])).out).toBe((await run(["snapshot", "restore", "-h"])).out);
    for (const shell of ["bash", "zsh", "fish", "powershell"]) {
      expect((await run(["completion", shell])).out).toContain("restore");
    }
  });
});

const bundle = fileURLToPath(new URL("../../../dist/etcdutl.mjs", import.meta.url));

describe.skipIf(!fs.existsSync(bundle))("etcdutl killed at any moment", () => {
  const start = (words: readonly string[]): ChildProcess =>
    spawn(process.execPath, [bundle, ...words], { stdio: "ignore" });

  async function finish(child: ChildProcess): Promise<number | null> {
    const [code] = (await once(child, "exit")) as [number | null];
    return code;
  }

  /** Kills the process as soon as something has appeared in the folder, and a little work more has been done. */
  async function killWhenBusy(child: ChildProcess, folder: string, turns: number): Promise<void> {
    const exited = once(child, "exit");
    let left = turns;
    while (child.exitCode === null && left > 0) {
      if (fs.existsSync(folder) && fs.readdirSync(folder).some((name) => name.includes(".tmp"))) left--;
      await new Promise((resolve) => setImmediate(resolve));
    }
    child.kill("SIGKILL");
    await exited;
  }

  it("SIGINT takes away what was begun", async () => {
    const folder = temporaryFolder();
    const file = path.join(folder, "s.db");
    writeSnapshot(file, 60_000);
    const dataDir = path.join(folder, "data");
    const child = start(["snapshot", "restore", file, "--data-dir", dataDir]);
    while (child.exitCode === null && !fs.existsSync(path.join(dataDir, "member.tmp", "snap", "db.lmdb"))) {
      await new Promise((resolve) => setImmediate(resolve));
    }
    child.kill("SIGINT");
    const code = await finish(child);
    // It may have been too quick for us; then all of it is there.
    if (code === 130) expect(fs.existsSync(dataDir)).toBe(false);
    else expect([code, fs.readdirSync(dataDir)]).toEqual([0, ["member"]]);
  }, 120_000);

  it("restore leaves no member or a whole one, defrag the old file or the new, and both succeed when run again", async () => {
    const folder = temporaryFolder();
    const file = path.join(folder, "s.db");
    writeSnapshot(file, 30_000);
    const dataDir = path.join(folder, "data");
    const snapDir = path.join(dataDir, "member", "snap");
    const restore = ["snapshot", "restore", file, "--data-dir", dataDir];
    for (const turns of [1, 50, 400, 3_000]) {
      fs.rmSync(dataDir, { recursive: true, force: true });
      await killWhenBusy(start(restore), dataDir, turns);
      if (!fs.existsSync(path.join(dataDir, "member"))) expect(await finish(start(restore))).toBe(0);
      expect(fs.readdirSync(dataDir)).toEqual(["member"]);
      await killWhenBusy(start(["defrag", "--data-dir", dataDir]), snapDir, turns);
      expect(await finish(start(["defrag", "--data-dir", dataDir]))).toBe(0);
      expect(fs.readdirSync(snapDir).filter((name) => name.includes(".tmp"))).toEqual([]);
      // A backup with all of v3 reads the whole database; its size and hash tell that nothing is missing.
      const backupDir = path.join(folder, `backup${turns}`);
      const backup = ["backup", "--data-dir", dataDir, "--backup-dir", backupDir, "--backend", "bbolt"];
      expect(await finish(start(backup))).toBe(0);
      const [original, copy] = [openBolt(file), openBolt(path.join(backupDir, "member", "snap", "db"))];
      expect([...copy.rows("key")].length).toBe(30_000);
      expect(summarize({ ...keysOnly(copy) })).toEqual(summarize({ ...keysOnly(original) }));
      original.close();
      copy.close();
    }
  }, 300_000);
});

const keysOnly = (bolt: ReturnType<typeof openBolt>) => ({
  buckets: ["key"],
  scan: (bucket: string, from: Uint8Array | undefined, visit: (key: Uint8Array, value: Uint8Array) => unknown) =>
    bolt.scan(bucket, from, visit),
});
