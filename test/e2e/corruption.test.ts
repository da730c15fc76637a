/** Members of ours and of real etcd compare what they hold, and agree on when they do not. */
import fs from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { ctl, launchAt, makeLeader, type Place, placesFor, tryCtl } from "./harness/cluster.ts";
import { ourBin, realBin, temporaryFolder, until } from "./harness/processes.ts";

/** In every place of the database file where `from` stands, `to` stands now. */
function corrupt({ dataDir, bin }: Place, from: string, to: string): void {
  const file = path.join(dataDir, "member", "snap", bin === realBin ? "db" : "db.lmdb");
  const bytes = fs.readFileSync(file);
  for (let at = bytes.indexOf(from); at >= 0; at = bytes.indexOf(from, at + 1)) bytes.write(to, at, "latin1");
  fs.writeFileSync(file, bytes);
}

const checks = [
  ...["--experimental-corrupt-check-time", "500ms"],
  ...["--experimental-compact-hash-check-enabled", "--experimental-compact-hash-check-time", "500ms"],
];

describe.skipIf(!realBin)("a mixed cluster with corruption checks", () => {
  it("finds nothing while all is well, whoever leads, and both kinds of leader find what is not", async () => {
    using folder = temporaryFolder("corruption");
    const all = await placesFor(folder.path, [ourBin, realBin as string, ourBin]);
    const [first, second, third] = all as [Place, Place, Place];
    await using ours = await launchAt(first, all, checks);
    await using real = await launchAt(second, all, checks);
    let last = await launchAt(third, all, checks);
    try {
      for (const member of [ours, real, last]) await member.ready();
      for (let i = 0; i < 20; i++) await ctl(ours, "put", `k${i % 7}`, `value-${i}-right`);
      await ctl(ours, "del", "k3");
      await ctl(ours, "compaction", "12");
      for (const leader of [real, ours]) {
        await makeLeader(leader, [ours, real, last]);
        const from = leader.log.length;
        await until("the leader has looked at both", () =>
          leader.log.substring(from).includes('"finished peer corruption check","number-of-peers-checked":2'),
        );
        if (leader === real) await ctl(real, "compaction", "16");
        await until("and at the compactions", () =>
          leader.log.includes('"successfully checked hash on whole cluster","number-of-peers-checked":2'),
        );
      }
      expect(await ctl(ours, "alarm", "list")).toBe("");

      for (const leader of [real, ours]) {
        await makeLeader(leader, [ours, real, last]);
        await last.stop();
        corrupt(third, "value-19-right", "value-19-wrong");
        const refused = await launchAt(third, all, [...checks, "--experimental-initial-corrupt-check"]);
        await refused.ended();
        expect(refused.process.exitCode).toBe(1);
        expect(refused.log).toMatch(/"checkInitialHashKV failed".*found data inconsistency with peers/);
        expect(refused.log).toMatch(
          /"fatal".*"discovery failed","error":"[0-9a-f]+ found data inconsistency with peers"/,
        );
        last = await launchAt(third, all, checks);
        await until("the alarm is up", async () => (await ctl(real, "alarm", "list")).includes("alarm:CORRUPT"));
        for (const member of [ours, real]) {
          const refusal = await tryCtl(member, "put", "k", "v");
          expect(refusal.stderr).toContain("etcdserver: corrupt cluster");
          expect(await ctl(member, "get", "k5", "--print-value-only")).toBe("value-19-right\n");
        }
        await last.stop();
        corrupt(third, "value-19-wrong", "value-19-right");
        last = await launchAt(third, all, checks);
        await ctl(ours, "alarm", "disarm");
        await last.ready();
        await ctl(last, "put", "well", "again");
      }
    } finally {
      await last.kill();
    }
  }, 600_000);
});
