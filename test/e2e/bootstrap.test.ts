/**
 * Members that cannot start, or may not go on: with the words and exit codes of etcd. Where the real programs are, the
 * same is expected of them, so that these stay etcd's words.
 */
import fs from "node:fs";
import { describe, expect, it } from "vitest";
import { ctl, launchAt, type Place, placesFor, statusOf, tryCtl } from "./harness/cluster.ts";
import {
  type Ended,
  freePort,
  type Member,
  ourBin,
  realBin,
  run,
  temporaryFolder,
  until,
} from "./harness/processes.ts";

interface Line {
  readonly level: string;
  readonly msg: string;
  readonly error?: string;
}

function lines(log: string): Line[] {
  return log
    .split("\n")
    .filter((line) => line.startsWith("{"))
    .map((line) => JSON.parse(line) as Line);
}

/** A server that must end by itself: how it ended, and the error it died of. */
async function refused(
  bin: string,
  args: readonly string[],
): Promise<{ code: number | null; reason: string; all: Line[] }> {
  const ended: Ended = await run("etcd", args, { bin });
  const all = lines(ended.stderr);
  const last = all.findLast(({ level }) => level === "fatal");
  expect(last?.msg).toBe("discovery failed");
  return { code: ended.code, reason: last?.error ?? "", all };
}

const peerFlags = (place: Place, initial: string, ...more: string[]) => [
  ...["--name", place.name, "--data-dir", place.dataDir],
  ...["--listen-client-urls", `http://127.0.0.1:${place.clientPort}`],
  ...["--advertise-client-urls", `http://127.0.0.1:${place.clientPort}`],
  ...["--listen-peer-urls", place.peerUrl, "--initial-advertise-peer-urls", place.peerUrl],
  ...["--initial-cluster", initial, ...more],
];

async function pair(all: readonly [Place, Place], flags: readonly string[] = []): Promise<[Member, Member]> {
  const first = await launchAt(all[0], all, flags);
  const second = await launchAt(all[1], all, flags);
  await Promise.all([first.ready(), second.ready()]);
  return [first, second];
}

const bins: readonly (readonly [string, string])[] = [
  ["ours", ourBin],
  ...(realBin ? [["the real one", realBin] as const] : []),
];

describe.each(bins)("a member that cannot start (%s)", (_which, bin) => {
  it("says what is wrong with --initial-cluster, and ends with 1", async () => {
    using folder = temporaryFolder("bootstrap");
    const [place] = (await placesFor(folder.path, [bin])) as [Place];
    const url = place.peerUrl;
    const other = `http://127.0.0.1:${await freePort()}`;
    const refusals: (readonly [initial: string, reason: string])[] = [
      [`x=${url}`, `couldn't find local name "m0" in the initial cluster configuration`],
      [
        `m0=${other}`,
        `--initial-cluster has m0=${other} but missing from --initial-advertise-peer-urls=${url} ` +
          `(resolved urls: "${url}" != "${other}")`,
      ],
      [
        `m0=${url},m0=${other}`,
        `--initial-cluster has m0=${other} but missing from --initial-advertise-peer-urls=${url} ` +
          `(len(["${url}"]) != len([${[url, other]
            .sort()
            .map((u) => JSON.stringify(u))
            .join(" ")}]))`,
      ],
      [`m0=${url},m1=${url}`, `initial cluster m0=${url},m1=${url} has duplicate url`],
    ];
    for (const [initial, reason] of refusals) {
      const ended = await refused(bin, peerFlags(place, initial));
      expect(ended).toMatchObject({ code: 1, reason });
      expect(ended.all.some(({ level, msg }) => level === "warn" && msg === "failed to start etcd")).toBe(true);
      fs.rmSync(place.dataDir, { recursive: true, force: true });
    }
  });

  it("says why it cannot join, and ends with 1", async () => {
    using folder = temporaryFolder("bootstrap");
    const [first, second, third] = (await placesFor(folder.path, [bin, bin, bin])) as [Place, Place, Place];
    const join = (initial: string) => {
      fs.rmSync(second.dataDir, { recursive: true, force: true });
      return refused(bin, peerFlags(second, initial, "--initial-cluster-state", "existing"));
    };
    const both = `${first.name}=${first.peerUrl},${second.name}=${second.peerUrl}`;
    const alone = await join(both);
    expect(alone).toMatchObject({
      code: 1,
      reason: "cannot fetch cluster info from peer urls: could not retrieve cluster information from the given URLs",
    });
    const failure = alone.all.find(({ msg }) => msg === "failed to get cluster response");
    const { host } = new URL(first.peerUrl);
    expect(failure).toMatchObject({
      level: "warn",
      address: `${first.peerUrl}/members`,
      error: `Get "${first.peerUrl}/members": dial tcp ${host}: connect: connection refused`,
    });

    await using member = await launchAt(first, [first]);
    await member.ready();
    const { memberId } = await statusOf(member);
    const client = `http://127.0.0.1:${first.clientPort}`;
    const described =
      `&{ID:${memberId} RaftAttributes:{PeerURLs:[${first.peerUrl}] IsLearner:false} ` +
      `Attributes:{Name:${first.name} ClientURLs:[${client}]}}`;
    const { reason } = await join(both);
    expect(reason).toMatch(/^error validating peerURLs \{ClusterID:[0-9a-f]+ Members:\[/);
    expect(reason.endsWith(`Members:[${described}] RemovedMemberIDs:[]}: member count is unequal`)).toBe(true);

    await ctl(member, "member", "add", third.name, "--learner", "--peer-urls", third.peerUrl);
    const mismatch = await join(both);
    expect(mismatch.code).toBe(1);
    expect(mismatch.reason).toMatch(/: PeerURLs: no match found for existing member \(/);
    expect(mismatch.reason).toContain(`[${third.peerUrl}]), last resolver error (resolved urls: "`);
  });

  it("is not bootstrapped twice, and not let in again once it was removed", async () => {
    using folder = temporaryFolder("bootstrap");
    const all = (await placesFor(folder.path, [bin, bin])) as [Place, Place];
    const [one, two] = await pair(all);
    await using first = one;
    await using second = two;
    const { memberId } = await statusOf(second);
    await second.stop();
    const aside = `${all[1].dataDir}.aside`;
    fs.renameSync(all[1].dataDir, aside);
    const initial = all.map(({ name, peerUrl }) => `${name}=${peerUrl}`).join(",");
    expect(await refused(bin, peerFlags(all[1], initial))).toMatchObject({
      code: 1,
      reason: `member ${memberId} has already been bootstrapped`,
    });
    fs.rmSync(all[1].dataDir, { recursive: true, force: true });
    fs.renameSync(aside, all[1].dataDir);

    // Removed while it runs, it ends by itself; so it does when it is started again.
    await using back = await launchAt(all[1], all);
    await back.ready();
    await until("it is removed", async () => (await tryCtl(first, "member", "remove", memberId)).code === 0);
    await back.ended();
    const expectRemoved = (member: Member) => {
      expect(member.process.exitCode).toBe(0);
      expect(lines(member.log)).toContainEqual(
        expect.objectContaining({
          level: "warn",
          msg: "server error",
          error: "the member has been permanently removed from the cluster",
        }),
      );
      expect(lines(member.log)).toContainEqual(
        expect.objectContaining({ level: "warn", msg: "data-dir used by this member must be removed" }),
      );
    };
    expectRemoved(back);
    await using again = await launchAt(all[1], all);
    await again.ended();
    expectRemoved(again);
    await ctl(first, "put", "goes", "on");
  });

  it("of another cluster is not listened to", async () => {
    using folder = temporaryFolder("bootstrap");
    const all = (await placesFor(folder.path, [bin, bin])) as [Place, Place];
    await using first = await launchAt(all[0], all);
    await using second = await launchAt(all[1], all, ["--initial-cluster-token", "other"]);
    await until("both have noticed", () =>
      [first, second].every(
        ({ log }) =>
          log.includes('"request cluster ID mismatch"') &&
          log.includes('"request sent was ignored by remote peer due to cluster ID mismatch"'),
      ),
    );
    expect(first.isRunning && second.isRunning).toBe(true);
  });

  it("goes on alone with --force-new-cluster, without the others and their learner", async () => {
    using folder = temporaryFolder("bootstrap");
    const all = await placesFor(folder.path, [bin, bin, bin]);
    const [one, two] = await pair(all.slice(0, 2) as [Place, Place]);
    await using first = one;
    await ctl(first, "put", "k", "v");
    const { memberId, leader } = await statusOf(first);
    const learner = all[2] as Place;
    await until("the members have been connected for long enough", async () => {
      const added = await tryCtl(first, "member", "add", "--learner", learner.name, "--peer-urls", learner.peerUrl);
      return added.code === 0;
    });
    await first.kill();
    await two.kill();
    await using alone = await launchAt(all[0] as Place, all, ["--force-new-cluster"]);
    await alone.ready();
    expect((await statusOf(alone)).memberId).toBe(memberId);
    expect(leader).not.toBe("0");
    expect(await ctl(alone, "get", "k", "--print-value-only")).toBe("v\n");
    expect((await ctl(alone, "member", "list")).trim().split("\n")).toHaveLength(1);
    expect(lines(alone.log)).toContainEqual(
      expect.objectContaining({ msg: "forcing restart member", "local-member-id": memberId }),
    );
    await ctl(alone, "put", "k", "after");
  });
});
