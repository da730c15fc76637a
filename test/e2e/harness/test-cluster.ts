/**
 * A cluster of real processes, ours or the real ones or both, that members join and leave while it runs. Every member
 * can be killed, paused and started again on the same ports and folder; with `hasProxies` the links between them go
 * through a {@link Network}.
 */
import { once } from "node:events";
import http from "node:http";
import net from "node:net";
import path from "node:path";
import { type Client, connect } from "@etcd-ts/client";
import type { Member as MemberRecord, StatusResponse } from "@etcd-ts/client/wire";
import { Network } from "./network.ts";
import { Member, ourBin, temporaryFolder, until } from "./processes.ts";

/** Below the range that outgoing connections take their ports from: a member that is down finds its own free again. */
const PORTS_FROM = 15_000;
const PORTS_TO = 32_000;

async function isFree(port: number): Promise<boolean> {
  const server = net.createServer();
  try {
    server.listen(port, "127.0.0.1");
    await once(server, "listening");
    return true;
  } catch {
    return false;
  } finally {
    server.close();
  }
}

const taken = new Set<number>();

/** A port that stays free while its owner is down, as far as that can be had. */
async function stablePort(): Promise<number> {
  for (;;) {
    const port = PORTS_FROM + Math.floor(Math.random() * (PORTS_TO - PORTS_FROM));
    if (taken.has(port) || !(await isFree(port))) continue;
    taken.add(port);
    return port;
  }
}

export interface ClusterOptions {
  /** One entry a member: the folder of its programs. */
  readonly bins: readonly string[];
  readonly hasProxies?: boolean | undefined;
  readonly flags?: readonly string[] | undefined;
  readonly heartbeatMs?: number | undefined;
  readonly electionMs?: number | undefined;
}

/** A place in the cluster: a name, ports and a folder, whether its process runs or not. */
export interface Slot {
  readonly name: string;
  readonly bin: string;
  readonly clientPort: number;
  readonly peerPort: number;
  readonly peerUrl: string;
  readonly endpoint: string;
  readonly dataDir: string;
  member: Member | undefined;
  /** The arguments of its last start. */
  flags: readonly string[];
  id: bigint | undefined;
  isPaused: boolean;
}

/** Asks a member over its JSON port, without the connections of a client. */
export function ask(endpoint: string, route: string, body: unknown, timeoutMs = 2_000): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const request = http.request(
      `http://${endpoint}${route}`,
      { method: "POST", timeout: timeoutMs, agent: false },
      (response) => {
        let text = "";
        response.setEncoding("utf8");
        response.on("data", (chunk: string) => {
          text += chunk;
        });
        response.on("end", () => {
          if (response.statusCode === 200) resolve(JSON.parse(text));
          else reject(new Error(`${route} on ${endpoint}: ${response.statusCode} ${text}`));
        });
        response.on("error", reject);
      },
    );
    request.on("timeout", () => request.destroy(new Error(`${route} on ${endpoint}: no answer`)));
    request.on("error", reject);
    request.end(JSON.stringify(body));
  });
}

export interface MemberState {
  readonly slot: Slot;
  readonly memberId: bigint;
  readonly leader: bigint;
  readonly term: number;
  readonly revision: number;
  readonly appliedIndex: number;
}

interface StatusJson {
  readonly header: { readonly member_id: string; readonly raft_term: string; readonly revision?: string };
  readonly leader?: string;
  readonly raftAppliedIndex?: string;
}

export class TestCluster implements AsyncDisposable {
  readonly folder = temporaryFolder("cluster");
  readonly network = new Network();
  readonly heartbeatMs: number;
  readonly electionMs: number;
  slots: Slot[] = [];
  readonly #options: ClusterOptions;
  #made = 0;
  #client: Client | undefined;

  private constructor(options: ClusterOptions) {
    this.#options = options;
    this.heartbeatMs = options.heartbeatMs ?? 100;
    this.electionMs = options.electionMs ?? 1_000;
  }

  /** Starts all members at once and waits until each of them serves. */
  static async start(options: ClusterOptions): Promise<TestCluster> {
    const cluster = new TestCluster(options);
    try {
      for (const bin of options.bins) await cluster.#addSlot(bin);
      const initial = cluster.slots.map(({ name, peerUrl }) => `${name}=${peerUrl}`).join();
      for (const slot of cluster.slots) slot.flags = cluster.#flags(initial, "new");
      await Promise.all(cluster.slots.map((slot) => cluster.restart(slot)));
      await cluster.refreshIds();
      return cluster;
    } catch (error) {
      const logs = cluster.logs();
      await cluster[Symbol.asyncDispose]();
      throw new Error(`${(error as Error).message}\n${logs}`, { cause: error });
    }
  }

  async #addSlot(bin: string): Promise<Slot> {
    const name = `m${++this.#made}`;
    const [clientPort, peerPort] = [await stablePort(), await stablePort()];
    let advertised = peerPort;
    if (this.#options.hasProxies) {
      advertised = await stablePort();
      await this.network.listen(name, advertised, peerPort);
    }
    const slot: Slot = {
      name,
      bin,
      clientPort,
      peerPort,
      peerUrl: `http://127.0.0.1:${advertised}`,
      endpoint: `127.0.0.1:${clientPort}`,
      dataDir: path.join(this.folder.path, name),
      member: undefined,
      flags: [],
      id: undefined,
      isPaused: false,
    };
    this.slots.push(slot);
    return slot;
  }

  #flags(initialCluster: string, state: "new" | "existing"): string[] {
    return [
      ...["--initial-cluster", initialCluster, "--initial-cluster-state", state],
      ...["--initial-cluster-token", path.basename(this.folder.path)],
      ...["--heartbeat-interval", `${this.heartbeatMs}`, "--election-timeout", `${this.electionMs}`],
      ...(this.#options.flags ?? []),
    ];
  }

  get client(): Promise<Client> {
    return (async () => {
      this.#client ??= await connect({ endpoints: this.slots.map(({ endpoint }) => endpoint) });
      return this.#client;
    })();
  }

  /** Starts the process of a member that is down, without waiting for it. */
  async launch(slot: Slot): Promise<Member> {
    slot.isPaused = false;
    slot.member = await Member.launch({
      dataDir: slot.dataDir,
      bin: slot.bin,
      name: slot.name,
      clientPort: slot.clientPort,
      peerPort: slot.peerPort,
      flags: [...slot.flags, "--initial-advertise-peer-urls", slot.peerUrl],
    });
    return slot.member;
  }

  /** As {@link launch}, and waits until it answers a linearizable read. */
  async restart(slot: Slot): Promise<void> {
    const member = await this.launch(slot);
    await member.ready();
  }

  async kill(slot: Slot): Promise<void> {
    await slot.member?.kill();
    slot.isPaused = false;
  }

  pause(slot: Slot): void {
    slot.member?.process.kill("SIGSTOP");
    slot.isPaused = true;
  }

  resume(slot: Slot): void {
    slot.member?.process.kill("SIGCONT");
    slot.isPaused = false;
  }

  get running(): Slot[] {
    return this.slots.filter(({ member, isPaused }) => member?.isRunning && !isPaused);
  }

  /** What one member says of itself. */
  async state(slot: Slot): Promise<MemberState> {
    const status = (await ask(slot.endpoint, "/v3/maintenance/status", {})) as StatusJson;
    return {
      slot,
      memberId: BigInt(status.header.member_id),
      leader: BigInt(status.leader ?? 0),
      term: Number(status.header.raft_term),
      revision: Number(status.header.revision ?? 0),
      appliedIndex: Number(status.raftAppliedIndex ?? 0),
    };
  }

  async states(): Promise<MemberState[]> {
    const asked = await Promise.allSettled(this.running.map((slot) => this.state(slot)));
    return asked.flatMap((result) => (result.status === "fulfilled" ? [result.value] : []));
  }

  /** The member that leads in the highest term, as it says itself and a majority of the voters agrees. */
  leader(): Promise<Slot> {
    return until("there is one leader", async () => {
      const states = await this.states();
      const term = Math.max(...states.map((state) => state.term));
      const leading = states.find((state) => state.term === term && state.leader === state.memberId);
      if (!leading) return undefined;
      const agreeing = states.filter((state) => state.leader === leading.memberId && state.term === term).length;
      return agreeing * 2 > this.slots.length ? leading.slot : undefined;
    });
  }

  /** Learns the members' ids by their names, also for the network. */
  async refreshIds(): Promise<readonly MemberRecord[]> {
    const client = await this.client;
    const { members } = await client.cluster.memberList({ timeoutMs: 20_000 });
    for (const { id, name, peerUrls } of members) {
      const slot = this.slots.find((candidate) => candidate.name === name || peerUrls.includes(candidate.peerUrl));
      if (!slot) continue;
      slot.id = id;
      this.network.name(id, slot.name);
    }
    return members;
  }

  /** Announces a member by MemberAdd; its process is not started. */
  async announce(bin: string, { isLearner = false } = {}): Promise<Slot> {
    const slot = await this.#addSlot(bin);
    const client = await this.client;
    const { member, members } = await until(`${slot.name} can be added`, () =>
      client.cluster.memberAdd([slot.peerUrl], { isLearner, timeoutMs: 10_000 }),
    );
    slot.id = member?.id;
    if (slot.id !== undefined) this.network.name(slot.id, slot.name);
    const initial = members
      .map((one) => {
        const of = this.slots.find(({ peerUrl }) => one.peerUrls.includes(peerUrl));
        return `${of?.name ?? one.name}=${one.peerUrls[0]}`;
      })
      .join();
    slot.flags = this.#flags(initial, "existing");
    return slot;
  }

  /** Takes a member out by MemberRemove and ends its process. */
  async remove(slot: Slot): Promise<void> {
    const client = await this.client;
    const id = slot.id;
    if (id === undefined) throw new Error(`${slot.name} has no id yet`);
    await until(`${slot.name} can be removed`, async () => {
      const { members } = await client.cluster.memberList({ timeoutMs: 10_000 });
      if (!members.some((member) => member.id === id)) return true;
      await client.cluster.memberRemove(id, { timeoutMs: 10_000 });
      return true;
    });
    this.slots = this.slots.filter((other) => other !== slot);
    client.setEndpoints(this.slots.map(({ endpoint }) => endpoint));
    await slot.member?.kill();
  }

  /** A learner gets its vote, as soon as the leader finds it ready. */
  async promote(slot: Slot): Promise<void> {
    const client = await this.client;
    const id = slot.id as bigint;
    await until(`${slot.name} can be promoted`, async () => {
      const { members } = await client.cluster.memberList({ timeoutMs: 10_000 });
      if (members.some((member) => member.id === id && !member.isLearner)) return true;
      await client.cluster.memberPromote(id, { timeoutMs: 10_000 });
      return true;
    });
  }

  async moveLeader(to: Slot): Promise<void> {
    const client = await this.client;
    await until(`${to.name} leads`, async () => {
      const leader = await this.leader();
      if (leader === to) return true;
      await client.maintenance.moveLeader(to.id as bigint, { endpoint: leader.endpoint, timeoutMs: 10_000 });
      return (await this.leader()) === to;
    });
  }

  /**
   * Waits until all running members have applied the same, with no write under way, and throws unless all have the same
   * hashKV then. Gives the hash and its revision.
   */
  async settledHash(): Promise<{ readonly hash: number; readonly revision: number }> {
    const client = await this.client;
    const revision = await until("all members have applied the same", async () => {
      const states = await this.states();
      if (states.length < this.slots.length) return undefined;
      const [first] = states;
      return states.every((state) => state.revision === first?.revision) ? first?.revision : undefined;
    });
    const hashes = await Promise.all(
      this.slots.map(({ endpoint }) => client.maintenance.hashKv({ endpoint, revision, timeoutMs: 60_000 })),
    );
    const told = this.slots.map(({ name }, i) => `${name}=${hashes[i]?.hash}`).join(" ");
    if (new Set(hashes.map(({ hash }) => hash)).size !== 1) {
      throw new Error(`hashKV at revision ${revision} differs: ${told}`);
    }
    return { hash: hashes[0]?.hash ?? Number.NaN, revision };
  }

  status(slot: Slot): Promise<StatusResponse> {
    return this.client.then((client) => client.maintenance.status({ endpoint: slot.endpoint, timeoutMs: 5_000 }));
  }

  /** The ends of the members' logs, for a failure's message. */
  logs(lines = 20): string {
    return this.slots
      .map(({ name, member }) => `--- ${name}\n${(member?.log ?? "").split("\n").slice(-lines).join("\n")}`)
      .join("\n");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#client?.close();
    await Promise.all(this.slots.map(({ member }) => member?.kill()));
    this.network.close();
    this.folder[Symbol.dispose]();
  }
}

/** Three members of ours. */
export const threeOfOurs: readonly string[] = [ourBin, ourBin, ourBin];
