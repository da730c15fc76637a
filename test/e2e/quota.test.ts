/** The space quota from outside: the alarm, what it refuses, and the way back. */
import { connect } from "@etcd-ts/client";
import { expect, it } from "vitest";
import { httpGet, Member, must, run, temporaryFolder } from "./harness/processes.ts";

const PAGE = 4096;

it("a database of a few pages fills up, and compaction and defrag make room again", async () => {
  using folder = temporaryFolder("quota");
  await using member = await Member.start({
    dataDir: folder.path,
    flags: ["--quota-backend-bytes", String(13 * PAGE)],
  });
  const ctl = (...args: string[]) => must("etcdctl", ["--endpoints", member.endpoint, ...args]);
  await ctl("put", "small", "s".repeat(64));

  const client = await connect({ endpoints: [member.endpoint] });
  try {
    let written = 0;
    const fill = async () => {
      for (; written < 100; written++) await client.kv.put("large", "l".repeat(PAGE));
    };
    await expect(fill()).rejects.toThrow("etcdserver: mvcc: database space exceeded");
    expect(written).toBeGreaterThan(0);
  } finally {
    client.close();
  }
  expect(await ctl("alarm", "list")).toMatch(/^memberID:\d+ alarm:NOSPACE \n$/);
  expect(await httpGet(`http://${member.endpoint}/health`)).toBe('{"health":"false","reason":"ALARM NOSPACE"}\n');
  const refused = await run("etcdctl", ["--endpoints", member.endpoint, "put", "small", "again"]);
  expect(refused.stderr).toContain("etcdserver: mvcc: database space exceeded");

  const { Status: status } = JSON.parse(await ctl("endpoint", "status", "-w", "json"))[0];
  await ctl("compaction", "--physical", String(status.header.revision));
  await ctl("defrag");
  await ctl("alarm", "disarm");
  expect(await ctl("put", "small", "again")).toBe("OK\n");
});
