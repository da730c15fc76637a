/**
 * Compaction by the clock. Periodic: keep about the last `retentionMs` of history; revision: keep the last `retention`
 * revisions. Only the leader compacts; the others go on sampling, so that whoever leads next knows the past.
 */
import { EtcdError } from "@etcd-ts/client/wire";
import type { Clock } from "../lib/clock.ts";
import { goDuration } from "../lib/go-format.ts";
import type { Logger } from "../lib/log.ts";

const HOUR_MS = 3_600_000;
const REVISION_INTERVAL_MS = 300_000;
const SAMPLES_PER_INTERVAL = 10;

export interface AutoCompactionDeps {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly mode: "periodic" | "revision";
  /** Milliseconds, or revisions. */
  readonly retention: number;
  currentRevision(): number;
  isLeader(): boolean;
  compact(revision: number): Promise<unknown>;
}

/** Runs until the signal is aborted. */
export function runAutoCompaction(deps: AutoCompactionDeps, signal: AbortSignal): Promise<void> {
  return deps.mode === "periodic" ? runPeriodic(deps, signal) : runRevision(deps, signal);
}

/**
 * Samples the revision ten times an interval and keeps the samples of one period. The first compaction comes when the
 * window is full, then one each interval, always to the oldest sample; one that failed is tried again at the next sample.
 */
async function runPeriodic(deps: AutoCompactionDeps, signal: AbortSignal): Promise<void> {
  const periodMs = deps.retention;
  const intervalMs = Math.min(periodMs, HOUR_MS);
  const sampleMs = intervalMs / SAMPLES_PER_INTERVAL;
  const samplesMax = Math.floor(periodMs / sampleMs) + 1;
  const samples: number[] = [deps.currentRevision()];
  let dueMs = deps.clock.monotonicMs() + periodMs;
  for await (const _tick of deps.clock.every(sampleMs, signal)) {
    samples.push(deps.currentRevision());
    if (samples.length > samplesMax) samples.shift();
    const now = deps.clock.monotonicMs();
    if (now < dueMs || !deps.isLeader()) continue;
    const revision = samples[0] as number; // never empty
    const fields = { revision, "compact-period": goDuration(periodMs) };
    deps.logger.info("starting auto periodic compaction", fields);
    try {
      await orCompacted(deps.compact(revision));
      deps.logger.info("completed auto periodic compaction", {
        ...fields,
        took: goDuration(deps.clock.monotonicMs() - now),
      });
      dueMs = now + intervalMs;
    } catch (error) {
      if (signal.aborted) return;
      deps.logger.warn("failed auto periodic compaction", {
        ...fields,
        "retry-interval": goDuration(sampleMs),
        error,
      });
    }
  }
}

async function runRevision(deps: AutoCompactionDeps, signal: AbortSignal): Promise<void> {
  let previous = 0;
  for await (const _tick of deps.clock.every(REVISION_INTERVAL_MS, signal)) {
    const revision = deps.currentRevision() - deps.retention;
    if (!deps.isLeader() || revision <= 0 || revision === previous) continue;
    const now = deps.clock.monotonicMs();
    const fields = { revision, "revision-compaction-retention": deps.retention };
    deps.logger.info("starting auto revision compaction", fields);
    try {
      await orCompacted(deps.compact(revision));
      previous = revision;
      deps.logger.info("completed auto revision compaction", {
        ...fields,
        took: goDuration(deps.clock.monotonicMs() - now),
      });
    } catch (error) {
      if (signal.aborted) return;
      deps.logger.warn("failed auto revision compaction", {
        ...fields,
        "retry-interval": goDuration(REVISION_INTERVAL_MS),
        error,
      });
    }
  }
}

/** Somebody else has compacted further: that is as good. */
async function orCompacted(compaction: Promise<unknown>): Promise<void> {
  try {
    await compaction;
  } catch (error) {
    if (!(error instanceof EtcdError && error.kind === "Compacted")) throw error;
  }
}
