/** Several members of one cluster: ours, real ones, or both. */
import path from "node:path";
import { freePort, Member, must, run, until } from "./processes.ts";

export interface Place {
  readonly name: string;
  readonly peerUrl: string;
  readonly peerPort: number;
  readonly clientPort: number;
  readonly dataDir: string;
  readonly bin: string;
}

/** Where members may live; nothing runs there yet. */
export async function placesFor(folder: string, bins: readonly string[]): Promise<Place[]> {
  const places: Place[] = [];
  for (const [i, bin] of bins.entries()) {
    const name = `m${i}`;
    const peerPort = await freePort();
    const clientPort = await freePort();
    const dataDir = path.join(folder, `${name}.etcd`);
    places.push({ name, peerPort, peerUrl: `http://127.0.0.1:${peerPort}`, clientPort, dataDir, bin });
  }
  return places;
}

/** Starts the member of a place, as one of `cluster`. Returns at once. */
export function launchAt(place: Place, cluster: readonly Place[], flags: readonly string[] = []): Promise<Member> {
  return Member.launch({
    ...place,
    flags: [
      ...["--initial-advertise-peer-urls", place.peerUrl],
      ...["--initial-cluster", cluster.map(({ name, peerUrl }) => `${name}=${peerUrl}`).join(",")],
      ...flags,
    ],
  });
}

/** etcdctl of ours against one member; its standard output. */
export function ctl(member: Member, ...args: string[]): Promise<string> {
  return must("etcdctl", ["--endpoints", member.endpoint, ...args]);
}

/** The same, whatever comes of it. */
export function tryCtl(member: Member, ...args: string[]) {
  return run("etcdctl", ["--endpoints", member.endpoint, ...args]);
}

export interface MemberStatus {
  readonly memberId: string;
  readonly leader: string;
  readonly term: number;
  readonly revision: number;
  readonly appliedIndex: number;
}

/** Ids in hex. Throws when the member does not answer. */
export async function statusOf(member: Member): Promise<MemberStatus> {
  const text = await ctl(member, "endpoint", "status", "-w", "fields");
  const field = (name: string) => new RegExp(`"${name}" : (\\d+)`).exec(text)?.[1] ?? "0";
  return {
    memberId: BigInt(field("MemberID")).toString(16),
    leader: BigInt(field("Leader")).toString(16),
    term: Number(field("RaftTerm")),
    revision: Number(field("Revision")),
    appliedIndex: Number(field("RaftAppliedIndex")),
  };
}

/** Makes `member` the leader, whoever leads now, and waits until everybody has heard. */
export async function makeLeader(member: Member, members: readonly Member[]): Promise<void> {
  const endpoints = members.map(({ endpoint }) => endpoint).join(",");
  await until("the member leads", async () => {
    const { memberId, leader } = await statusOf(member);
    if (memberId !== leader) {
      await run("etcdctl", ["--endpoints", endpoints, "move-leader", memberId]);
      return false;
    }
    const others = await Promise.all(members.map(statusOf));
    return others.every((other) => other.leader === memberId);
  });
}
