/** Members that talk to each other over TLS: who is let in, who is not, and certificates that change while they run. */
import fs from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { Authority, type CertificateFiles } from "./harness/certificates.ts";
import { freePort, hashKv, Member, must, ourBin, realBin, run, temporaryFolder, until } from "./harness/processes.ts";

interface Place {
  readonly name: string;
  readonly url: string;
  readonly peerPort: number;
  readonly clientPort: number;
  readonly dataDir: string;
  readonly bin: string;
}

async function places(folder: string, bins: readonly string[]): Promise<Place[]> {
  const found: Place[] = [];
  for (const [i, bin] of bins.entries()) {
    const name = `m${i}`;
    const peerPort = await freePort();
    const dataDir = path.join(folder, `${name}.etcd`);
    found.push({ name, peerPort, url: `https://127.0.0.1:${peerPort}`, clientPort: await freePort(), dataDir, bin });
  }
  return found;
}

function launch(place: Place, cluster: readonly Place[], flags: readonly string[]): Promise<Member> {
  return Member.launch({
    ...place,
    flags: [
      ...["--listen-peer-urls", place.url, "--initial-advertise-peer-urls", place.url],
      ...["--initial-cluster", cluster.map(({ name, url }) => `${name}=${url}`).join(",")],
      ...flags,
    ],
  });
}

const mutual = (authority: Authority, { certFile, keyFile }: CertificateFiles): string[] => [
  ...["--peer-cert-file", certFile, "--peer-key-file", keyFile],
  ...["--peer-trusted-ca-file", authority.caFile, "--peer-client-cert-auth"],
];

const put = (member: Member, key: string, value: string) =>
  must("etcdctl", ["--endpoints", member.endpoint, "put", key, value]);

const get = (member: Member, key: string) =>
  must("etcdctl", ["--endpoints", member.endpoint, "get", key, "--print-value-only"]);

async function agree(members: readonly Member[]): Promise<void> {
  for (const member of members) await get(member, "any");
  const hashes = await Promise.all(members.map((member) => hashKv(member)));
  expect(new Set(hashes).size).toBe(1);
}

describe("members with certificates", () => {
  it("form a cluster, keep out a stranger, and read their certificates anew for each connection", {
    // Ran out of a wait once, for a reason not yet known; the logs below would tell.
    retry: 1,
  }, async () => {
    using folder = temporaryFolder("peer-tls");
    const authority = await Authority.create(folder.path);
    const all = await places(folder.path, [ourBin, ourBin, ourBin]);
    const [first, second, third] = all as [Place, Place, Place];
    const flags = async (place: Place, cn: string) => [
      ...mutual(authority, await authority.issue(place.name, cn)),
      ...["--peer-cert-allowed-cn", "peer", "--tls-min-version", "TLS1.3"],
    ];
    const firstFlags = await flags(first, "peer");
    let one = await launch(first, all, firstFlags);
    const two = await launch(second, all, await flags(second, "peer"));
    const three = await launch(third, all, await flags(third, "stranger"));
    try {
      // Two of three with the right name are a quorum; the third has the right authority and the wrong name.
      await one.ready();
      await put(one, "before", "1");
      const refused = /"rejected connection on peer endpoint".*"client certificate authentication failed"/;
      await until("the stranger is refused", () => refused.test(one.log) && refused.test(two.log));
      expect(await hasHealth(three)).toBe(false);

      // The third gets the right name, without a restart.
      await authority.issue(third.name, "peer");
      await three.ready();
      expect((await get(three, "before")).trim()).toBe("1");

      // And the wrong one again: old connections live on, new ones do not.
      await authority.issue(third.name, "stranger");
      await one.kill();
      one = await launch(first, all, firstFlags);
      await one.ready();
      await until("the stranger is refused again", () => refused.test(one.log));

      // Files that somebody is just writing stop nobody; the next connection reads them again.
      const { certFile, keyFile } = await authority.issue(third.name, "stranger");
      for (const file of [certFile, keyFile]) {
        const whole = fs.readFileSync(file);
        const before = three.log.length;
        fs.writeFileSync(file, whole.subarray(0, whole.length / 2));
        await until("the third could not read its certificate", () => /DECODER|PEM/.test(three.log.slice(before)));
        expect(three.isRunning).toBe(true);
        fs.writeFileSync(file, whole);
      }
      await authority.issue(third.name, "peer");
      await until("all are healthy", () => status([one, two, three]));
      await put(three, "after", "2");
      await agree([one, two, three]);
      expect(one.log).toContain('"starting with peer TLS"');
    } catch (error) {
      const logs = [one, two, three].map((member, i) => `member ${i}:\n${member.log.slice(-4000)}`);
      throw new Error(`${(error as Error).message}\n${logs.join("\n")}`, { cause: error });
    } finally {
      for (const member of [one, two, three]) await member.kill();
    }
  });

  it("do not believe a member whose certificate another authority has signed", async () => {
    using folder = temporaryFolder("peer-tls");
    const authority = await Authority.create(folder.path);
    const other = await Authority.create(folder.path, "other");
    const all = await places(folder.path, [ourBin, ourBin, ourBin]);
    const [first, second, third] = all as [Place, Place, Place];
    await using one = await launch(first, all, mutual(authority, await authority.issue(first.name, "peer")));
    await using two = await launch(second, all, mutual(authority, await authority.issue(second.name, "peer")));
    await using three = await launch(third, all, mutual(other, await other.issue(third.name, "peer")));
    await one.ready();
    await two.ready();
    await put(two, "k", "v");
    await until("both ends say why", () =>
      [one, three].every(({ log }) => log.includes("x509: certificate signed by unknown authority")),
    );
    expect(await hasHealth(three)).toBe(false);
  });

  it("that they make themselves talk to each other, whoever they are", async () => {
    using folder = temporaryFolder("peer-tls");
    const all = await places(folder.path, [ourBin, ourBin, ourBin]);
    const [first, second, third] = all as [Place, Place, Place];
    await using one = await launch(first, all, ["--peer-auto-tls"]);
    await using two = await launch(second, all, ["--peer-auto-tls"]);
    await using three = await launch(third, all, ["--peer-auto-tls"]);
    for (const member of [one, two, three]) await member.ready();
    await put(three, "k", "v");
    await agree([one, two, three]);
  });

  it.skipIf(!realBin)("join a cluster of real etcd over TLS, and lead it", async () => {
    using folder = temporaryFolder("peer-tls");
    const authority = await Authority.create(folder.path);
    const all = await places(folder.path, [realBin as string, realBin as string, ourBin]);
    const [first, second, third] = all as [Place, Place, Place];
    const flags = async (place: Place) => [
      ...mutual(authority, await authority.issue(place.name, "peer")),
      ...["--peer-cert-allowed-cn", "peer"],
    ];
    const pair = [first, second];
    await using one = await launch(first, pair, await flags(first));
    await using two = await launch(second, pair, await flags(second));
    await one.ready();
    await two.ready();
    await put(one, "before", "1");
    await until("the real members have been connected for long enough", async () => {
      const added = await run("etcdctl", [
        ...["--endpoints", one.endpoint, "member", "add", third.name],
        ...["--peer-urls", third.url],
      ]);
      return added.code === 0;
    });
    await using three = await launch(third, all, [...(await flags(third)), "--initial-cluster-state", "existing"]);
    await three.ready();
    expect((await get(three, "before")).trim()).toBe("1");
    const text = await must("etcdctl", ["--endpoints", three.endpoint, "endpoint", "status", "-w", "fields"]);
    const id = /"MemberID" : (\d+)/.exec(text)?.[1] ?? "0";
    const endpoints = [one, two, three].map(({ endpoint }) => endpoint).join(",");
    await must("etcdctl", ["--endpoints", endpoints, "move-leader", BigInt(id).toString(16)]);
    await put(one, "after", "2");
    await put(two, "last", "3");
    await agree([one, two, three]);
  });
});

async function hasHealth(member: Member): Promise<boolean> {
  const ended = await run("etcdctl", [
    ...["--endpoints", member.endpoint, "--command-timeout", "1s", "--dial-timeout", "1s"],
    "endpoint",
    "health",
  ]);
  return ended.code === 0;
}

async function status(members: readonly Member[]): Promise<string> {
  return must("etcdctl", ["--endpoints", members.map(({ endpoint }) => endpoint).join(","), "endpoint", "health"]);
}
