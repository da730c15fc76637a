/**
 * Every command of etcdctl on real processes, as a script with its answers in testdata/etcdctl.txt: our tool on our
 * server. `ETCD_TEST_BIN=DIR` runs the same script with other programs; the answers are those of etcd 3.5.16 too.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { type Ended, Member, must, ourBin, run, temporaryFolder, until } from "./harness/processes.ts";

const file = fileURLToPath(new URL("testdata/etcdctl.txt", import.meta.url));

/** The script's own lines: comments, blank lines and commands; what stands between is what was answered. */
const isScript = (line: string): boolean => line === "" || /^(#|<|\$|\^C)/.test(line);

test("the script of all commands", { timeout: 600_000 }, async () => {
  using folder = temporaryFolder("etcdctl");
  // The usual ids: they follow from the peer address that is announced.
  const flags = [
    "--initial-advertise-peer-urls=http://localhost:2380",
    "--initial-cluster=default=http://localhost:2380",
  ];
  await using member = await Member.start({ dataDir: path.join(folder.path, "d"), flags });
  const names = new Map([
    ["tmp", folder.path],
    ["endpoint", member.endpoint],
  ]);
  const hide = (text: string): string => {
    const found = /lease ([0-9a-f]{16}) granted/.exec(text)?.[1];
    if (found) names.set("lease", found);
    const added = /^Member +([0-9a-f]+) added/m.exec(text)?.[1];
    if (added) names.set("member", added);
    let hidden = text;
    for (const [name, value] of names) hidden = hidden.replaceAll(value, `<${name}>`);
    // The new member's id is chance, and with it its width and its place among the members.
    const byName = (list: string): string => list.split(",").sort().join(",");
    return hidden
      .replace(/^Member +</gm, "Member <")
      .replace(/(ETCD_INITIAL_CLUSTER=")([^"]*)/, (_, name: string, list: string) => name + byName(list))
      .replace(/\/[0-9a-f]{15,16}$/gm, "/<session>")
      .replace(/took = \S+/g, "took = T")
      .replace(/remaining\(\d+s\)/g, "remaining(Ns)")
      .replace(/attached keys\(\[.*\]\)/g, "attached keys([...])")
      .replace(/("(?:Raft\w*|DBSize|Size)" : )\d+/g, "$1N")
      .replace(/("(?:Hash|Keys)" : |, )\d+$/gm, "$1N")
      .replace(/"raft_term":\d+/g, '"raft_term":N');
  };
  const answer = ({ code, signal, stdout, stderr }: Ended): string[] => {
    const lines = (text: string): string[] =>
      hide(text)
        .split("\n")
        .slice(0, text.endsWith("\n") ? -1 : undefined);
    const complaints = stderr.replace(/^(\{"level".*|\d{4}-\S+Z\t.*)\n/gm, "");
    return [
      ...lines(stdout)
        .filter((line, _, all) => line !== "" || all.length > 1)
        .map((line) => `| ${line}`.trimEnd()),
      ...(complaints === "" ? [] : lines(complaints).map((line) => `! ${line}`.trimEnd())),
      ...(code === 0 ? [] : [`exit ${code ?? signal}`]),
    ];
  };

  const written = fs.readFileSync(file, "utf8");
  const result: string[] = [];
  let stdin = "";
  let background: Background | undefined;
  for (const line of written.trimEnd().split("\n").filter(isScript)) {
    result.push(line);
    const words = (text: string): string[] =>
      (text.match(/"[^"]*"|\S+/g) ?? []).map((word) =>
        word.replaceAll('"', "").replace(/<(\w+)>/g, (all, name: string) => names.get(name) ?? all),
      );
    const all = (text: string): string[] => ["--endpoints", member.endpoint, ...words(text)];
    if (line.startsWith("< ")) stdin = line.slice(2).replaceAll("\\n", "\n");
    else if (line.startsWith("$& ")) background = startInBackground(all(line.slice(3)));
    else if (line === "^C") {
      if (background) result.push(...answer(await stopped(background, member)));
    } else if (line.startsWith("$ ")) {
      const env = { ETCDUTL_BACKEND: "bbolt" };
      result.push(...answer(await run("etcdctl", all(line.slice(2)), { stdin, cwd: folder.path, env })));
      stdin = "";
    }
  }
  const fresh = `${result.join("\n")}\n`;
  if (process.env["UPDATE_GOLDEN"]) fs.writeFileSync(file, fresh);
  expect(fresh).toBe(process.env["UPDATE_GOLDEN"] ? fresh : written);

  // No command was forgotten: those that the help lists are all in the script.
  const help = await must("etcdctl", ["help"]);
  const listed = [...(/COMMANDS:\n([\s\S]*?)\n\n/.exec(help)?.[1]?.matchAll(/^\t([a-z -]+?)\t/gm) ?? [])].map(
    ([, name]) => name,
  );
  const forgotten = listed.filter(
    (name) => !/^(help|completion)/.test(name ?? "") && !new RegExp(`^\\$&? ${name}\\b`, "m").test(written),
  );
  expect(listed.length).toBeGreaterThan(40);
  expect(forgotten).toEqual([]);
});

interface Background {
  readonly words: readonly string[];
  /** What it has printed so far. */
  readonly shown: () => string;
  readonly interrupt: () => void;
  readonly ended: Promise<Ended>;
}

function startInBackground(words: readonly string[]): Background {
  const child = spawn(path.join(ourBin, "etcdctl"), words, { stdio: ["ignore", "pipe", "pipe"] });
  let stdout = "";
  let stderr = "";
  child.stdout.on("data", (chunk: Buffer) => {
    stdout += chunk.toString();
  });
  child.stderr.on("data", (chunk: Buffer) => {
    stderr += chunk.toString();
  });
  const ended = once(child, "close").then(([code, signal]) => ({ code, signal, stdout, stderr }) as Ended);
  return { words, shown: () => stdout, interrupt: () => void child.kill("SIGINT"), ended };
}

/** Interrupts it when it has done what it was started for. */
async function stopped({ words, shown, interrupt, ended }: Background, member: Member): Promise<Ended> {
  await until("the command in the background has done its work", async () => {
    if (!words.includes("make-mirror")) return shown() !== "";
    return (await must("etcdctl", ["--endpoints", member.endpoint, "get", "copied/"])) !== "";
  });
  interrupt();
  return ended;
}

test.runIf(fs.statSync("/dev/full", { throwIfNoEntry: false })?.isCharacterDevice())(
  "output that cannot be written is an error, and an error keeps its exit code",
  async () => {
    const shell = async (line: string): Promise<unknown> => {
      const child = spawn("sh", ["-c", line, "sh", path.join(ourBin, "etcdctl")], { stdio: "ignore" });
      return (await once(child, "close"))[0];
    };
    expect(await shell('"$1" version > /dev/full')).toBe(1);
    expect(await shell('"$1" del a b c 2> /dev/full')).toBe(128);
    expect(await shell('"$1" lease revoke xyz 2> /dev/full')).toBe(128);
  },
);

test("a hangup does not end what nohup keeps", async () => {
  using folder = temporaryFolder("etcdctl-hangup");
  await using member = await Member.start({ dataDir: path.join(folder.path, "d") });
  const child = spawn(
    "nohup",
    [path.join(ourBin, "etcdctl"), "--endpoints", member.endpoint, "watch", "k", "--rev", "1"],
    { stdio: ["ignore", "pipe", "ignore"], env: { ...process.env, _: "/usr/bin/nohup" } },
  );
  let seen = "";
  child.stdout.on("data", (chunk: Buffer) => {
    seen += chunk.toString();
  });
  try {
    await must("etcdctl", ["--endpoints", member.endpoint, "put", "k", "1"]);
    await until("the watch has begun", () => seen.includes("1\n"));
    child.kill("SIGHUP");
    await must("etcdctl", ["--endpoints", member.endpoint, "put", "k", "2"]);
    await until(
      "the watch goes on",
      () => {
        if (child.signalCode !== null) throw new Error(`ended by ${child.signalCode}`);
        return seen.includes("2\n");
      },
      20_000,
    );
  } finally {
    child.kill("SIGKILL");
  }
});

test("a signal to lock leaves its command alone; the lock is released when that has ended", async () => {
  using folder = temporaryFolder("etcdctl");
  await using member = await Member.start({ dataDir: path.join(folder.path, "d") });
  const go = path.join(folder.path, "go");
  const script = `echo held; while ! test -e '${go}'; do sleep 0.05; done; echo done`;
  const words = ["--endpoints", member.endpoint, "lock", "l", "--", "sh", "-c", script];
  const child = spawn(path.join(ourBin, "etcdctl"), words, { stdio: ["ignore", "pipe", "inherit"] });
  let out = "";
  child.stdout.on("data", (chunk: Buffer) => {
    out += chunk.toString();
  });
  const ended = once(child, "close");
  const keys = () => must("etcdctl", ["--endpoints", member.endpoint, "get", "l/", "--prefix", "--keys-only"]);
  await until("the lock is held", () => out.includes("held"));
  child.kill("SIGINT");
  child.kill("SIGTERM");
  expect(await keys()).toContain("l/");
  fs.writeFileSync(go, "");
  expect(await ended).toEqual([0, null]);
  expect(out).toBe("held\ndone\n");
  expect(await keys()).toBe("");
});
