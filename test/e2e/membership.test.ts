/**
 * What goes wrong when members come and go: etcd's texts and exit codes. The same steps are taken with the real programs
 * where they are there, and must tell the same.
 */
import path from "node:path";
import { describe, expect, it } from "vitest";
import {
  freePort,
  httpGet,
  Member,
  type MemberOptions,
  ourBin,
  realBin,
  run,
  temporaryFolder,
  until,
} from "./harness/processes.ts";

/** One line a step: its name, the exit code, and what was said, without what differs from run to run. */
type Transcript = Record<string, string>;

function normalized(text: string): string {
  return (
    text
      .split("\n")
      .filter((line) => line !== "" && !line.startsWith("{"))
      .join("\n")
      // IDs are padded to 16 digits.
      .replace(/ +(?=[0-9a-f]{13,16}\b)/g, " ")
      .replace(/\b[0-9a-f]{13,16}\b/g, "ID")
      .replace(/127\.0\.0\.1:\d+/g, "ADDRESS")
  );
}

/** The last words of a server that would not start: the error that its log gives as the reason. */
async function refusal(options: MemberOptions): Promise<string> {
  await using member = await Member.launch(options);
  await member.ended();
  const errors = member.log
    .split("\n")
    .flatMap((line) => /"level":"fatal".*"error":"((?:[^"\\]|\\.)*)"/.exec(line)?.[1] ?? []);
  return `${member.process.exitCode} ${normalized((errors.at(-1) ?? member.log.slice(-500)).replaceAll('\\"', '"'))}`;
}

async function trouble(bin: string): Promise<Transcript> {
  using folder = temporaryFolder("membership");
  const told: Transcript = {};
  const [firstPort, secondPort] = [await freePort(), await freePort()];
  const urlOf = (port: number) => `http://127.0.0.1:${port}`;
  const [firstUrl, secondUrl, unusedUrl] = [urlOf(firstPort), urlOf(secondPort), urlOf(await freePort())];
  const first = await Member.start({
    bin,
    name: "first",
    dataDir: path.join(folder.path, "first"),
    peerPort: firstPort,
    flags: ["--initial-advertise-peer-urls", firstUrl, "--initial-cluster", `first=${firstUrl}`],
  });
  await using _first = first;
  const ctl = (member: Member, ...args: string[]) =>
    run("etcdctl", ["--endpoints", member.endpoint, "--command-timeout", "10s", ...args], { bin });
  const step = async (name: string, member: Member, ...args: string[]) => {
    const { code, stdout, stderr } = await ctl(member, ...args);
    told[name] = `${code} ${normalized(stdout + stderr)}`;
  };
  const members = async (member: Member) => {
    const { stdout } = await ctl(member, "member", "list");
    return new Map(stdout.split("\n").flatMap((line) => (line ? [[line.split(", ")[3], line.split(", ")[0]]] : [])));
  };

  const added = await ctl(first, "member", "add", "second", "--learner", "--peer-urls", secondUrl);
  told["add a learner"] = `${added.code} ${normalized(added.stdout).split("\n")[0]}`;
  const ids = await members(first);
  const [firstId, secondId] = [ids.get(firstUrl) as string, ids.get(secondUrl) as string];
  await step("promote too early", first, "member", "promote", secondId);
  await step("promote a voter", first, "member", "promote", firstId);
  await step("promote nobody", first, "member", "promote", "1234");
  await step("a second learner", first, "member", "add", "third", "--learner", "--peer-urls", unusedUrl);
  await step("add with a used URL", first, "member", "add", "third", "--peer-urls", firstUrl);
  await step("update to a used URL", first, "member", "update", secondId, "--peer-urls", firstUrl);
  await step("remove nobody", first, "member", "remove", "1234");
  await step("move to a learner", first, "move-leader", secondId);

  const joining = {
    bin,
    name: "second",
    dataDir: path.join(folder.path, "second"),
    peerPort: secondPort,
    flags: [
      ...["--initial-advertise-peer-urls", secondUrl, "--initial-cluster-state", "existing"],
      ...["--initial-cluster", `first=${firstUrl},second=${secondUrl}`],
    ],
  };
  await using second = await Member.launch(joining);
  await until("the learner serves", () => httpGet(`${second.clientUrl}/version`));
  await step("read at a learner", second, "get", "key");
  await step("write at a learner", second, "put", "key", "value");
  await until("the learner is promoted", async () => (await ctl(first, "member", "promote", secondId)).code === 0);
  await step("promote twice", first, "member", "promote", secondId);
  await until("the leader may go", async () => {
    // It may go before its answer has left.
    if (!first.isRunning) return true;
    const { code, stdout } = await ctl(first, "member", "remove", firstId);
    if (code !== 0) return false;
    told["remove the leader"] = normalized(stdout);
    return true;
  });
  await first.ended();
  told["the removed leader ends with"] = String(first.process.exitCode);
  await until("the other one leads", async () => (await ctl(second, "put", "key", "value")).code === 0);
  const removed = await Member.launch({
    bin,
    name: "first",
    dataDir: first.dataDir,
    peerPort: firstPort,
    flags: ["--initial-advertise-peer-urls", firstUrl, "--initial-cluster", `first=${firstUrl}`],
  });
  await using _removed = removed;
  await removed.ended();
  told["started again it ends with"] = String(removed.process.exitCode);

  const wrong = (name: string, flags: string[], peerPort?: number): Promise<string> =>
    refusal({ bin, name: "third", dataDir: path.join(folder.path, name), flags, ...(peerPort ? { peerPort } : {}) });
  const advertise = ["--initial-advertise-peer-urls", unusedUrl];
  told["not in the initial cluster"] = await wrong("w1", [...advertise, "--initial-cluster", `other=${unusedUrl}`]);
  told["other URLs than advertised"] = await wrong("w2", [...advertise, "--initial-cluster", `third=${firstUrl}`]);
  const existing = ["--initial-cluster-state", "existing"];
  const both = `second=${secondUrl},third=${unusedUrl}`;
  told["not added before"] = await wrong("w3", [...advertise, ...existing, "--initial-cluster", both]);
  const nobody = `gone=${firstUrl},third=${unusedUrl}`;
  told["nobody answers"] = await wrong("w4", [...advertise, ...existing, "--initial-cluster", nobody]);

  await using stranger = await Member.launch({
    bin,
    name: "third",
    dataDir: path.join(folder.path, "stranger"),
    flags: [...advertise, "--initial-cluster", both, "--initial-cluster-token", "another"],
  });
  await until("the stranger hears that it is one", () => stranger.log.includes("cluster ID mismatch"));
  told["of another cluster"] = stranger.isRunning ? "goes on, and says cluster ID mismatch" : "ends";
  return told;
}

const expected: Transcript = {
  "add a learner": "0 Member ID added to cluster ID",
  "promote too early": "1 Error: etcdserver: can only promote a learner member which is in sync with leader",
  "promote a voter": "1 Error: etcdserver: can only promote a learner member",
  "promote nobody": "1 Error: etcdserver: member not found",
  "a second learner": "1 Error: etcdserver: too many learner members in cluster",
  "add with a used URL": "1 Error: etcdserver: Peer URLs already exists",
  "update to a used URL": "1 Error: etcdserver: Peer URLs already exists",
  "remove nobody": "1 Error: etcdserver: member not found",
  "move to a learner": "1 Error: etcdserver: bad leader transferee",
  "read at a learner": "1 Error: etcdserver: rpc not supported for learner",
  "write at a learner": "1 Error: etcdserver: rpc not supported for learner",
  "promote twice": "1 Error: etcdserver: can only promote a learner member",
};

describe("members that come and go", () => {
  it("are refused in etcd's words", async () => {
    const ours = await trouble(ourBin);
    expect(ours).toMatchObject(expected);
    if (!realBin) return;
    const theirs = await trouble(realBin);
    for (const [told, other] of [
      [ours, theirs],
      [theirs, ours],
    ] as const) {
      if (!("remove the leader" in told)) delete other["remove the leader"];
    }
    expect(ours).toEqual(theirs);
  }, 300_000);
});
