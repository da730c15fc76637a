/**
 * A follower that comes back so far behind that only a snapshot helps: what that costs the leader's writers, and whether
 * the cluster notices otherwise. The latency is that of single small puts at the leader, one after the other, first while
 * the follower is away and then while it catches up.
 */
import { connect } from "@etcd-ts/client";
import { type ClusterOptions, type Slot, TestCluster, threeOfOurs } from "./test-cluster.ts";
import { pause, quantile } from "./load.ts";
import { until } from "./processes.ts";

export interface LaggingOptions {
  readonly bins?: readonly string[] | undefined;
  readonly entries: number;
  readonly valueBytes: number;
  readonly fillInFlight?: number | undefined;
  /** How long the idle latency is measured. */
  readonly idleMs: number;
  readonly cluster?: Partial<ClusterOptions> | undefined;
  readonly say?: ((line: string) => void) | undefined;
}

export interface LaggingOutcome {
  readonly idleP99Ms: number;
  readonly busyP99Ms: number;
  readonly busyMaxMs: number;
  readonly catchUpMs: number;
  readonly termsBefore: number;
  readonly termsAfter: number;
  readonly isSameLeader: boolean;
  readonly hash: number;
  /** By the follower's log. */
  readonly snapshotsApplied: number;
}

const FILL_IN_FLIGHT = 64;
/** Between two measured puts. */
const PUT_PAUSE_MS = 2;

export async function laggingFollower(options: LaggingOptions): Promise<LaggingOutcome> {
  const { entries, valueBytes, idleMs, say = () => {} } = options;
  await using cluster = await TestCluster.start({ bins: options.bins ?? threeOfOurs, ...options.cluster });
  const leader = await cluster.leader();
  const follower = cluster.slots.find((slot) => slot !== leader) as Slot;
  await using client = await connect({ endpoints: [leader.endpoint] });
  await cluster.kill(follower);

  let startMs = performance.now();
  let sent = 0;
  await Promise.all(
    Array.from({ length: options.fillInFlight ?? FILL_IN_FLIGHT }, async () => {
      while (sent < entries) {
        const n = sent++;
        // The same again changes nothing that matters here.
        await until(`entry ${n} is written`, async () => {
          await client.kv.put(`fill/${n}`, `${n}:`.padEnd(valueBytes, "v"), { timeoutMs: 60_000 });
          return true;
        });
      }
    }),
  );
  const seconds = (performance.now() - startMs) / 1000;
  say(
    `${entries} entries of ${valueBytes} bytes written in ${seconds.toFixed(0)} s (${(entries / seconds).toFixed(0)}/s)`,
  );

  /** Puts one after the other until `isOver`. */
  const measure = async (isOver: () => boolean): Promise<number[]> => {
    const latencies: number[] = [];
    for (let n = 0; !isOver(); n++) {
      const beganMs = performance.now();
      await client.kv.put(`small/${n % 100}`, "v", { timeoutMs: 60_000 });
      latencies.push(performance.now() - beganMs);
      await pause(PUT_PAUSE_MS);
    }
    return latencies;
  };
  const before = await cluster.state(leader);
  startMs = performance.now();
  const idle = await measure(() => performance.now() - startMs > idleMs);
  say(`alone:       ${latencyText(idle)}`);

  startMs = performance.now();
  let catchUpMs: number | undefined;
  const caughtUp = (async () => {
    await cluster.launch(follower);
    let isTold = false;
    const isLevel = async () => {
      if (!isTold && /applying snapshot/.test(follower.member?.log ?? "")) {
        isTold = true;
        say(`the snapshot was there after ${((performance.now() - startMs) / 1000).toFixed(1)} s`);
      }
      const [there, here] = await Promise.all([cluster.state(follower), cluster.state(leader)]);
      return there.appliedIndex >= here.appliedIndex - 100;
    };
    await until("the follower has caught up", isLevel, 600_000);
    catchUpMs = performance.now() - startMs;
  })();
  const busy = await Promise.all([
    measure(() => catchUpMs !== undefined || performance.now() - startMs > 600_000),
    caughtUp,
  ]);
  say(`catching up: ${latencyText(busy[0])} over ${((catchUpMs ?? 0) / 1000).toFixed(1)} s`);

  const { hash } = await cluster.settledHash();
  const after = await cluster.state(leader);
  const outcome = {
    idleP99Ms: quantile(idle, 0.99),
    busyP99Ms: quantile(busy[0], 0.99),
    busyMaxMs: Math.max(...busy[0]),
    catchUpMs: catchUpMs ?? Number.NaN,
    termsBefore: before.term,
    termsAfter: after.term,
    isSameLeader: before.leader === after.leader,
    hash,
    snapshotsApplied: follower.member?.log.match(/"msg":"applied snapshot"/g)?.length ?? 0,
  };
  say(
    `p99 ${(outcome.busyP99Ms / outcome.idleP99Ms).toFixed(2)} times its value alone; ` +
      `term ${before.term} -> ${after.term}; snapshots applied: ${outcome.snapshotsApplied}; hashKV ${hash} on all`,
  );
  return outcome;
}

function latencyText(values: readonly number[]): string {
  const [p50, p99, p999] = [0.5, 0.99, 0.999].map((share) => quantile(values, share).toFixed(2));
  return `put p50 ${p50} ms, p99 ${p99} ms, p99.9 ${p999} ms, longest ${Math.max(...values).toFixed(1)} ms (${values.length})`;
}
