/**
 * Random faults while clients and watchers write down what they see; then the checks of linearizability.ts,
 * listings.ts and watching.ts over all of it. One seed decides what is done; the machine decides when, so a seed does not
 * replay a run.
 */
import { type ClusterOptions, type Slot, TestCluster, threeOfOurs } from "./test-cluster.ts";
import { type Change, checkLinearizable, type Operation, settleUnanswered } from "./linearizability.ts";
import { checkListings, type Listing } from "./listings.ts";
import { history, pause } from "./load.ts";
import { until } from "./processes.ts";
import { Chance, Traffic, type TrafficOptions, TRAFFIC_PREFIX } from "./traffic.ts";
import { checkStream } from "./watching.ts";

export interface RobustnessOptions {
  readonly bins?: readonly string[] | undefined;
  /** Faults, one after the other. */
  readonly rounds: number;
  readonly seed: number;
  readonly cluster?: Partial<ClusterOptions> | undefined;
  readonly traffic?: Partial<TrafficOptions> | undefined;
  readonly say?: ((line: string) => void) | undefined;
}

export interface RobustnessOutcome {
  readonly operations: readonly Operation[];
  readonly answered: number;
  readonly changes: readonly Change[];
  readonly listings: readonly Listing[];
  readonly streams: number;
  readonly watched: number;
}

/** Operations between a fault and its end, and behind it. */
const OPERATIONS_A_PHASE = 60;

/** So short a log that who was away for a while is sent a snapshot. */
const SHORT_LOG = ["--snapshot-count=20", "--experimental-snapshot-catchup-entries=5"];

export async function robustness(options: RobustnessOptions): Promise<RobustnessOutcome> {
  const { say = () => {}, rounds, seed } = options;
  await using cluster = await TestCluster.start({
    bins: options.bins ?? threeOfOurs,
    hasProxies: true,
    flags: SHORT_LOG,
    ...options.cluster,
  });
  const endpoints = cluster.slots.map(({ endpoint }) => endpoint);
  await using traffic = await Traffic.start({ endpoints, seed, ...options.traffic });
  try {
    const chance = new Chance(seed);
    const answered = () => traffic.operations.reduce((count, { answer }) => count + (answer ? 1 : 0), 0);
    const more = async (count: number) => {
      const wanted = answered() + count;
      await until(`${count} more operations`, () => answered() >= wanted);
    };
    await more(OPERATIONS_A_PHASE);
    for (let round = 0; round < rounds; round++) {
      const { what, mend } = await someFault(cluster, chance);
      say(`fault ${round + 1}: ${what}`);
      await pause(chance.below(2 * cluster.electionMs));
      await mend();
      await more(OPERATIONS_A_PHASE);
    }
    await traffic.stopClients();
    const { revision, hash } = await cluster.settledHash();
    const changes = await allChanges(cluster, revision);
    const last = changes.at(-1)?.revision ?? 0;
    await until("all watchers have been told everything", () =>
      [...traffic.watchedTo.values()].every((at) => at >= last),
    );
    const problems = [
      ...traffic.streams.flatMap((stream) => checkStream(stream, changes)),
      ...checkListings(traffic.listings, changes),
    ];
    if (problems.length > 0) throw new Error(problems.slice(0, 10).join("\n"));
    if (traffic.unexpected.length > 0) throw new Error(`unexpected errors: ${traffic.unexpected.join("; ")}`);
    const settled = settleUnanswered(traffic.operations, changes);
    const verdict = checkLinearizable(settled);
    if (verdict.kind !== "linearizable") throw new Error(`the history is not linearizable: ${JSON.stringify(verdict)}`);
    const watched = traffic.streams.reduce(
      (sum, { responses }) => sum + responses.reduce((events, response) => events + response.events.length, 0),
      0,
    );
    say(
      `${answered()} of ${traffic.operations.length} operations answered, linearizable in ${verdict.steps} steps; ` +
        `${changes.length} changes, ${watched} events told by ${traffic.streams.length} streams; ` +
        `${traffic.listings.length} listings; ${snapshotsApplied(cluster)} snapshots in the running processes; ` +
        `hashKV ${hash} on all`,
    );
    const { listings, streams } = traffic;
    return { operations: settled, answered: answered(), changes, listings, streams: streams.length, watched };
  } catch (error) {
    throw new Error(`${(error as Error).message}\nseed ${seed}\n${cluster.logs()}`, { cause: error });
  }
}

function snapshotsApplied({ slots }: TestCluster): number {
  return slots.reduce((sum, { member }) => sum + (member?.log.split('"applied snapshot"').length ?? 1) - 1, 0);
}

async function allChanges(cluster: TestCluster, revision: number): Promise<Change[]> {
  const client = await cluster.client;
  let first: Change[] | undefined;
  for (const { endpoint } of cluster.slots) {
    const changes: Change[] = [];
    for await (const change of history(client, endpoint, revision)) {
      if (change.key.startsWith(TRAFFIC_PREFIX)) changes.push(change);
    }
    first ??= changes;
    if (JSON.stringify(changes) !== JSON.stringify(first)) throw new Error(`${endpoint} tells another history`);
  }
  return first ?? [];
}

async function someFault(
  cluster: TestCluster,
  chance: Chance,
): Promise<{ readonly what: string; mend(): Promise<void> | void }> {
  const { network, slots } = cluster;
  const names = slots.map(({ name }) => name);
  const leader = await cluster.leader();
  const slot = chance.below(2) === 0 ? leader : chance.pick(slots);
  const others = slots.filter((one) => one !== slot);
  const kind = chance.pick(["hold", "reset"] as const);
  const role = slot === leader ? "leader" : "follower";
  switch (chance.below(7)) {
    case 0:
    case 1:
      await cluster.kill(slot);
      return { what: `kill -9 of the ${role}`, mend: () => cluster.restart(slot) };
    case 2:
      cluster.pause(slot);
      return { what: `the ${role} stands still`, mend: () => cluster.resume(slot) };
    case 3:
      network.isolate(slot.name, names, kind);
      return { what: `the ${role} is cut off (${kind})`, mend: () => network.heal() };
    case 4: {
      const other = chance.pick(others);
      network.cut(slot.name, other.name, kind);
      return { what: `from the ${role} to one other nothing arrives (${kind})`, mend: () => network.heal() };
    }
    case 5: {
      for (const other of others) network.cut(other.name, slot.name, kind);
      return { what: `the ${role} hears nobody (${kind})`, mend: () => network.heal() };
    }
    default: {
      const all = chance.below(2) === 0 ? slots : [leader, chance.pick(slots.filter((one) => one !== leader))];
      await Promise.all(all.map((one) => cluster.kill(one)));
      const restart = async () => {
        await Promise.all(all.map((one: Slot) => cluster.restart(one)));
      };
      return { what: `kill -9 of ${all.length} members at once`, mend: restart };
    }
  }
}
