// Times, counts and CPU within a window of time.
import { readFileSync } from "node:fs";

/** Latencies in ms, of which quantiles are wanted at the end. */
export class Latencies {
  #values = new Float64Array(65_536);
  #count = 0;

  add(value) {
    if (this.#count === this.#values.length) {
      const grown = new Float64Array(this.#count * 2);
      grown.set(this.#values);
      this.#values = grown;
    }
    this.#values[this.#count++] = value;
  }

  get count() {
    return this.#count;
  }

  summary() {
    const sorted = this.#values.subarray(0, this.#count).sort();
    const at = (part) =>
      sorted.length === 0 ? null : sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))];
    return { count: sorted.length, p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: at(1) };
  }
}

const TICKS_PER_SECOND = 100;

/** CPU that processes have used, in ms. */
export function cpuOf(pids) {
  let ticks = 0;
  for (const pid of pids ?? []) {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    ticks += Number(fields[11]) + Number(fields[12]);
  }
  return (ticks / TICKS_PER_SECOND) * 1000;
}

/** What the time between two moments cost the servers and the generator. */
export class CostWindow {
  #pids;
  #start;

  constructor(pids) {
    this.#pids = pids;
    this.#start = { time: performance.now(), own: process.cpuUsage(), servers: cpuOf(pids) };
  }

  end() {
    const { user, system } = process.cpuUsage(this.#start.own);
    return {
      tookMs: performance.now() - this.#start.time,
      generatorCpuMs: (user + system) / 1000,
      serverCpuMs: cpuOf(this.#pids) - this.#start.servers,
    };
  }
}

/** A busy machine may stretch a window to so many times its length. */
const STRETCH_MAX = 4;
/** CPU the servers must have had, as a part of the window's length, before the window may end. */
const CPU_SHARE_MIN = 0.6;

/**
 * Waits so many seconds, and on a machine where others leave the servers little CPU longer: until they have had as much
 * as makes a measurement, or there is no hope.
 */
export async function window(seconds, pids) {
  const start = performance.now();
  const cpuWanted = cpuOf(pids) + seconds * 1000 * CPU_SHARE_MIN;
  await sleep(seconds * 1000);
  if (!pids) return;
  while (cpuOf(pids) < cpuWanted && performance.now() - start < seconds * 1000 * STRETCH_MAX) await sleep(50);
}

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
