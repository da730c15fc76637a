/**
 * Trace lines: an operation that took longer than 100 ms is told of with the steps that it went through, under etcd's
 * names. Nothing is kept for operations that are quick: whoever runs one knows when its steps ended, and asks here only
 * when it was slow.
 */
import type { Clock } from "../lib/clock.ts";
import { formatLogTime, goDuration } from "../lib/go-format.ts";
import type { Logger } from "../lib/log.ts";
import { systemRandom } from "../lib/random.ts";

/** What is longer is told of. etcd's number; no flag changes it. */
export const TRACE_THRESHOLD_MS = 100;

export type TraceFields = Readonly<Record<string, string | number | boolean>>;

export interface TraceStep {
  readonly text: string;
  /** On the monotonic clock; it began when the one before ended. */
  readonly endMs: number;
  readonly fields?: TraceFields;
}

export interface TracedOperation {
  readonly operation: string;
  /** On the monotonic clock. */
  readonly startMs: number;
  readonly detail: TraceFields;
  readonly steps: readonly TraceStep[];
  /** All steps, not only those that count for something. */
  readonly hasAllSteps?: boolean;
}

export interface TraceDeps {
  readonly clock: Clock;
  readonly logger: Logger;
}

function braces(fields: TraceFields): string {
  const parts = Object.entries(fields).map(([key, value]) => `${key}:${value}; `);
  return parts.length === 0 ? "" : `{${parts.join("")}}`;
}

/** Writes the line of an operation that has just ended, if it took long. */
export function traceIfLong({ clock, logger }: TraceDeps, traced: TracedOperation): void {
  if (logger.isInfoEnabled === false) return;
  const endMs = clock.monotonicMs();
  const { operation, startMs, steps } = traced;
  if (endMs - startMs <= TRACE_THRESHOLD_MS) return;
  const name = `trace[${systemRandom.below(2 ** 31)}]`;
  const leastMs = traced.hasAllSteps ? 0 : TRACE_THRESHOLD_MS / (steps.length + 1);
  const told: string[] = [];
  let lastMs = startMs;
  for (const { text, endMs: stepEndMs, fields = {} } of steps) {
    const tookMs = stepEndMs - lastMs;
    if (tookMs > leastMs) told.push(`${name} '${text}' ${braces(fields)} (duration: ${goDuration(tookMs)})`);
    lastMs = stepEndMs;
  }
  const wallMs = (monotonicMs: number): number => clock.nowMs() - (endMs - monotonicMs);
  logger.info(`${name} ${operation}`, {
    detail: braces(traced.detail),
    duration: goDuration(endMs - startMs),
    start: formatLogTime(wallMs(startMs)),
    end: formatLogTime(wallMs(endMs)),
    steps: told,
    step_count: told.length,
  });
}
