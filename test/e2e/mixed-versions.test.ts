/** Members of ours beside members of real etcd 3.4: the cluster stays at 3.4 until the last of those has gone. */
import { expect, it } from "vitest";
import { ctl, launchAt, makeLeader, type Place, placesFor, statusOf, tryCtl } from "./harness/cluster.ts";
import { hashKv, httpGet, type Member, ourBin, temporaryFolder, until } from "./harness/processes.ts";

/** A folder with the programs of etcd 3.4. */
const oldBin = process.env["ETCD_REAL_34_BIN"];

const clusterVersion = async (member: Member): Promise<string> =>
  (JSON.parse(await httpGet(`${member.clientUrl}/version`)) as { etcdcluster: string }).etcdcluster;

async function add(to: Member, place: Place): Promise<void> {
  await until("the member is added", async () => {
    return (await tryCtl(to, "member", "add", place.name, "--peer-urls", place.peerUrl)).code === 0;
  });
}

async function agree(members: readonly Member[]): Promise<void> {
  for (const member of members) await ctl(member, "get", "any");
  expect(new Set(await Promise.all(members.map((member) => hashKv(member)))).size).toBe(1);
}

it.skipIf(!oldBin)("a 3.4 cluster takes ours in, is led by it, and becomes 3.5 when only ours are left", async () => {
  using folder = temporaryFolder("mixed-versions");
  const all = await placesFor(folder.path, [oldBin as string, ourBin, ourBin]);
  const [first, second, third] = all as [Place, Place, Place];
  // 3.4 writes plain log lines unless it is told otherwise, and keeps its v2 store on.
  await using old = await launchAt(first, [first], ["--logger", "zap"]);
  await old.ready();
  for (let i = 0; i < 20; i++) await ctl(old, "put", `k${i % 7}`, `${i}`);
  await ctl(old, "del", "k3");
  await ctl(old, "compaction", "12");
  expect(await clusterVersion(old)).toBe("3.4.0");

  await add(old, second);
  await using ours = await launchAt(second, [first, second], ["--initial-cluster-state", "existing"]);
  await ours.ready();
  expect(await clusterVersion(ours)).toBe("3.4.0");
  expect(await ctl(ours, "get", "k5", "--print-value-only")).toBe("19\n");
  await ctl(ours, "put", "by", "ours");
  await ctl(old, "put", "by", "3.4");
  await agree([old, ours]);

  await makeLeader(ours, [old, ours]);
  const lease = /lease ([0-9a-f]+) granted/.exec(await ctl(old, "lease", "grant", "600"))?.[1] ?? "";
  await ctl(old, "put", "leased", "1", `--lease=${lease}`);
  await ctl(ours, "lease", "revoke", lease);
  await agree([old, ours]);
  expect(await clusterVersion(ours)).toBe("3.4.0");

  await add(ours, third);
  await using last = await launchAt(third, all, ["--initial-cluster-state", "existing"]);
  await last.ready();
  await ctl(last, "put", "by", "the last");
  await agree([old, ours, last]);
  const { memberId } = await statusOf(old);
  await until("the old member is removed", async () => (await tryCtl(ours, "member", "remove", memberId)).code === 0);
  await until("the cluster has become 3.5", async () => (await clusterVersion(ours)) === "3.5.0");
  await until("and everybody has heard", async () => (await clusterVersion(last)) === "3.5.0");
  await agree([ours, last]);
});
