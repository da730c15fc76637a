/**
 * What is done to a cluster while a load of writes runs. Each scenario starts its own cluster, ends with the account of
 * {@link WriteLoad} held against every member and hashKV equal on all of them, and throws when a promise was broken.
 * The tests run them small, `npm run soak` for as long as one likes.
 */
import { type ClusterOptions, type Slot, TestCluster, threeOfOurs } from "./test-cluster.ts";
import { errorSummary, type LoadOptions, pause, quantile, WriteLoad } from "./load.ts";
import { until } from "./processes.ts";

export type Say = (line: string) => void;

export interface ScenarioOptions {
  readonly bins?: readonly string[] | undefined;
  /** How often it is done. */
  readonly rounds: number;
  readonly say?: Say | undefined;
  readonly cluster?: Partial<ClusterOptions> | undefined;
  readonly load?: Partial<LoadOptions> | undefined;
}

export interface Outcome {
  readonly acknowledged: number;
  readonly unacknowledged: number;
  readonly events: number;
  readonly errors: string;
  /** How long writes stood still, for each round that took the leader away. */
  readonly gapsMs: readonly number[];
  /** The longest of them, in election time-outs. */
  readonly worstGap: number;
}

async function underLoad(
  options: ScenarioOptions,
  body: (cluster: TestCluster, load: WriteLoad, gapsMs: number[]) => Promise<void>,
): Promise<Outcome> {
  await using cluster = await TestCluster.start({ bins: options.bins ?? threeOfOurs, ...options.cluster });
  await using load = await WriteLoad.start({
    endpoints: cluster.slots.map(({ endpoint }) => endpoint),
    pauseMs: 5,
    ...options.load,
  });
  const gapsMs: number[] = [];
  try {
    await load.writes(100);
    await body(cluster, load, gapsMs);
    await load.writes(100);
    await load.stop();
    const { revision } = await cluster.settledHash();
    const { events, unacknowledged } = await load.verify(
      cluster.slots.map(({ endpoint }) => endpoint),
      revision,
    );
    if (load.unexpected.length > 0)
      throw new Error(`errors that are not to be repeated: ${load.unexpected.join("; ")}`);
    const outcome = {
      acknowledged: load.acknowledged.size,
      unacknowledged,
      events,
      errors: errorSummary(load.errors),
      gapsMs,
      worstGap: Math.max(0, ...gapsMs) / cluster.electionMs,
    };
    options.say?.(summary(outcome));
    return outcome;
  } catch (error) {
    throw new Error(`${(error as Error).message}\n${cluster.logs()}`, { cause: error });
  }
}

function summary({ acknowledged, unacknowledged, events, gapsMs, worstGap, errors }: Outcome): string {
  const gaps =
    gapsMs.length === 0
      ? ""
      : `; writes stood still for ${quantile(gapsMs, 0.5).toFixed(0)} ms in the median, ` +
        `${Math.max(...gapsMs).toFixed(0)} ms at most (${worstGap.toFixed(2)} election time-outs)`;
  return (
    `${acknowledged} writes acknowledged, ${unacknowledged} more applied, ${events} events the same on all members` +
    `${gaps}\n  errors: ${errors || "none"}`
  );
}

/** When writes stood still for long: what the members said of it, in order. */
function explain(cluster: TestCluster, say: Say | undefined, sinceMs: number): void {
  if (!say || performance.now() - sinceMs < SLOW_ELECTION_TIMEOUTS * cluster.electionMs) return;
  const from = Date.now() - (performance.now() - sinceMs) - 500;
  const lines: { readonly at: number; readonly text: string }[] = [];
  for (const { name, member } of cluster.slots) {
    for (const line of (member?.log ?? "").split("\n")) {
      if (!/elect|leader|vote|term|streaming|active|overloaded/i.test(line)) continue;
      const at = Date.parse(/"ts":"([^"]+)"/.exec(line)?.[1] ?? "");
      if (at >= from) lines.push({ at, text: `   ${name} +${at - from - 500} ms ${line.replace(/^.*?"msg":/, "")}` });
    }
  }
  for (const { text } of lines.sort((a, b) => a.at - b.at)) say(text);
}

const SLOW_ELECTION_TIMEOUTS = 3;

const rounds = (count: number): number[] => Array.from({ length: count }, (_, round) => round);

/** kill -9 of whoever leads; it comes back when the others have taken writes. */
export function leaderKills(options: ScenarioOptions): Promise<Outcome> {
  return underLoad(options, async (cluster, load, gapsMs) => {
    for (const round of rounds(options.rounds)) {
      const leader = await cluster.leader();
      await cluster.kill(leader);
      const startMs = performance.now();
      gapsMs.push((await load.nextWrite()) - startMs);
      explain(cluster, options.say, startMs);
      options.say?.(`round ${round + 1}: ${leader.name} killed, writes after ${gapsMs.at(-1)?.toFixed(0)} ms`);
      await load.writes(20);
      await cluster.restart(leader);
      await load.writes(50);
    }
  });
}

/** SIGSTOP of one member after the other, the leader as often as not, for longer than an election takes. */
export function pauses(options: ScenarioOptions): Promise<Outcome> {
  return underLoad(options, async (cluster, load, gapsMs) => {
    for (const round of rounds(options.rounds)) {
      const leader = await cluster.leader();
      const followers = cluster.slots.filter((slot) => slot !== leader);
      const slot = round % 2 === 0 ? leader : (followers[round % followers.length] as Slot);
      const startMs = performance.now();
      cluster.pause(slot);
      const atMs = await load.nextWrite();
      explain(cluster, options.say, startMs);
      if (slot === leader) gapsMs.push(atMs - startMs);
      await pause(Math.max(0, (round % 3) * cluster.electionMs));
      await load.writes(20);
      cluster.resume(slot);
      options.say?.(`round ${round + 1}: ${slot.name} stood still, writes after ${(atMs - startMs).toFixed(0)} ms`);
      await load.writes(50);
    }
  });
}

/** All processes gone at the same moment, and started again together. */
export function restartsOfAll(options: ScenarioOptions): Promise<Outcome> {
  return underLoad(options, async (cluster, load) => {
    for (const round of rounds(options.rounds)) {
      await Promise.all(cluster.slots.map((slot) => cluster.kill(slot)));
      const startMs = performance.now();
      await Promise.all(cluster.slots.map((slot) => cluster.restart(slot)));
      options.say?.(`round ${round + 1}: all down and up again in ${(performance.now() - startMs).toFixed(0)} ms`);
      await load.writes(50);
    }
  });
}

/** Links cut by a proxy: each way, both ways, a member off altogether; held or torn down, and slow ones in between. */
export function linkCuts(options: ScenarioOptions): Promise<Outcome> {
  return underLoad({ ...options, cluster: { ...options.cluster, hasProxies: true } }, async (cluster, load, gapsMs) => {
    const names = cluster.slots.map(({ name }) => name);
    const { network } = cluster;
    for (const round of rounds(options.rounds)) {
      const leader = await cluster.leader();
      const [one, two] = cluster.slots.filter((slot) => slot !== leader) as [Slot, Slot];
      const kind = round % 2 === 0 ? "hold" : "reset";
      const cuts: readonly (readonly [what: string, isLeaderGone: boolean, apply: () => void])[] = [
        ["the leader is cut off", true, () => network.isolate(leader.name, names, kind)],
        ["a follower is cut off", false, () => network.isolate(one.name, names, kind)],
        ["leader to one follower, one way", false, () => network.cut(leader.name, one.name, kind)],
        ["one follower to the leader, one way", false, () => network.cut(one.name, leader.name, kind)],
        ["between the followers", false, () => both(one, two)],
        ["between the leader and one follower", false, () => both(leader, one)],
        [
          "the leader hears nobody",
          true,
          () => {
            network.cut(one.name, leader.name, kind);
            network.cut(two.name, leader.name, kind);
          },
        ],
        [
          "nobody hears the leader",
          true,
          () => {
            network.cut(leader.name, one.name, kind);
            network.cut(leader.name, two.name, kind);
          },
        ],
        [
          "slow both ways",
          false,
          () => {
            for (const a of names) for (const b of names) network.delay(a, b, 50);
          },
        ],
      ];
      const both = (a: Slot, b: Slot) => {
        network.cut(a.name, b.name, kind);
        network.cut(b.name, a.name, kind);
      };
      const [what, isLeaderGone, apply] = cuts[round % cuts.length] as (typeof cuts)[number];
      const startMs = performance.now();
      apply();
      const atMs = await load.nextWrite();
      explain(cluster, options.say, startMs);
      if (isLeaderGone) gapsMs.push(atMs - startMs);
      await pause(2 * cluster.electionMs);
      await load.writes(20);
      network.heal();
      options.say?.(`round ${round + 1}: ${what} (${kind}), writes after ${(atMs - startMs).toFixed(0)} ms`);
      await load.writes(50);
      await until("all members know the leader again", async () => {
        const states = await cluster.states();
        return states.length === cluster.slots.length && new Set(states.map(({ leader: id }) => id)).size === 1;
      });
    }
  });
}

/** Joins as a learner, is promoted when it has caught up, and takes the place of `old`. */
async function replace(cluster: TestCluster, load: WriteLoad, old: Slot, bin: string, say?: Say): Promise<void> {
  const added = await cluster.announce(bin, { isLearner: true });
  await cluster.launch(added);
  await cluster.promote(added);
  await added.member?.ready();
  await load.writes(50);
  // Whoever leads hands over before it goes, as an operator would have it.
  if ((await cluster.leader()) === old) {
    await cluster.moveLeader(cluster.slots.find((slot) => slot !== old && slot !== added) as Slot);
  }
  load.setEndpoints(cluster.slots.filter((slot) => slot !== old).map(({ endpoint }) => endpoint));
  await cluster.remove(old);
  await load.writes(50);
  await cluster.refreshIds();
  say?.(`${old.name} replaced by ${added.name}`);
}

/** hashKV of all members, while no write is under way. */
async function stop(cluster: TestCluster, load: WriteLoad, what: string, say?: Say): Promise<void> {
  await load.hold();
  const { hash, revision } = await cluster.settledHash();
  load.goOn();
  say?.(`${what}: hashKV ${hash} at revision ${revision} on ${cluster.slots.length} members`);
}

/**
 * A live cluster changes its make, member by member, and back: each of `from` gives its place to one of `to`, those lead
 * each in turn, and then it goes the other way. A round is there and back.
 */
export function migration(options: ScenarioOptions & { readonly from: string; readonly to: string }): Promise<Outcome> {
  const { from, to, say } = options;
  return underLoad({ ...options, bins: [from, from, from] }, async (cluster, load) => {
    await stop(cluster, load, "at the start", say);
    for (let round = 0; round < options.rounds; round++) {
      for (const bin of [to, from]) {
        const there = bin === to ? "there" : "back";
        for (const old of [...cluster.slots]) {
          await replace(cluster, load, old, bin, say);
          await stop(cluster, load, `on the way ${there}`, say);
        }
        for (const slot of cluster.slots) {
          await cluster.moveLeader(slot);
          await load.writes(20);
        }
        await stop(cluster, load, `${there}, each has led`, say);
      }
    }
  });
}
