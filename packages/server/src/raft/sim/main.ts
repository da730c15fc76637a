/** `npm run sim`: many seeds, or one with everything that happens. scripts/sim.mjs bundles and starts this. */
import { runSeed } from "./simulation.ts";

export interface SimArguments {
  readonly seeds: number;
  readonly from: number;
  /** One seed only. */
  readonly seed: number | undefined;
  readonly trace: boolean;
}

export interface SimConsole {
  write(text: string): void;
  /** Milliseconds of the real world. */
  nowMs(): number;
}

/** Gives the exit code. */
export function runSimulations(args: SimArguments, console: SimConsole, run = runSeed): number {
  const first = args.seed ?? args.from;
  const count = args.seed === undefined ? args.seeds : 1;
  const startedMs = console.nowMs();
  const failures: number[] = [];
  let virtualMs = 0;
  let events = 0;
  let committed = 0;
  let stuck = 0;
  for (let seed = first; seed < first + count; seed++) {
    const trace = args.trace ? (line: string) => console.write(`${line}\n`) : undefined;
    const result = run({ seed, trace });
    virtualMs += result.virtualMs;
    events += result.events;
    committed += result.committed;
    if (result.isStuck) stuck++;
    if (result.violation) {
      failures.push(seed);
      console.write(`seed ${seed}: ${result.violation}\n`);
      console.write(`replay: npm run sim -- --seed ${seed} --trace\n`);
    }
  }
  const seconds = (console.nowMs() - startedMs) / 1000;
  console.write(
    `${count} seeds from ${first}, ${failures.length} failed; ${(count / seconds).toFixed(1)} seeds/s, ` +
      `${(virtualMs / 3_600_000).toFixed(2)} simulated hours, ${events} events, ${committed} entries committed, ${stuck} ended without a quorum\n`,
  );
  if (failures.length > 0) console.write(`failed: ${failures.join(" ")}\n`);
  return failures.length === 0 ? 0 : 1;
}
