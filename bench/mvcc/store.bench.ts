/** What run.mjs runs: argv is an empty folder, a number of keys and the bytes of a value. */
import fs from "node:fs";
import path from "node:path";
import { PutRequest, RangeRequest } from "@etcd-ts/client/wire";
import { systemClock } from "../../packages/server/src/lib/clock.ts";
import { silentLogger } from "../../packages/server/src/lib/log.ts";
import { SeededRandom } from "../../packages/server/src/lib/random.ts";
import { MvccStore } from "../../packages/server/src/mvcc/index.ts";
import { openBackend } from "../../packages/server/src/storage/index.ts";

const [folder, keysText, valueText] = process.argv.slice(2) as [string, string, string];
const keys = Number(keysText);
const random = new SeededRandom(1);
const value = Buffer.alloc(Number(valueText), "v");
const keyOf = (n: number): Buffer => Buffer.from(`/registry/pods/default/pod-${String(n).padStart(8, "0")}`);
const clock = systemClock;

async function open() {
  const backend = await openBackend({
    path: path.join(folder, "db.lmdb"),
    clock,
    logger: silentLogger,
    onFatal: (error) => {
      throw error;
    },
  });
  const store = await MvccStore.open({ backend, leases: { has: () => true }, clock, logger: silentLogger });
  return { backend, store };
}

function report(name: string, text: string): void {
  process.stdout.write(`  ${name.padEnd(44)} ${text}\n`);
}

const since = (startMs: number): number => clock.monotonicMs() - startMs;

function cpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

/** Mean CPU time of a synchronous function in ms, the backend's worker being idle: steadier than wall time. */
function mean(runs: number, fn: () => void): number {
  fn();
  const startMs = cpuMs();
  for (let i = 0; i < runs; i++) fn();
  return (cpuMs() - startMs) / runs;
}

let { backend, store } = await open();

/** Puts in groups of 64 entries, as apply does. */
async function puts(count: number, next: (i: number) => number): Promise<void> {
  const cpu = process.cpuUsage();
  const startMs = clock.monotonicMs();
  for (let i = 0; i < count; ) {
    backend.write((tx) => {
      for (let j = 0; j < 64 && i < count; j++, i++) {
        store.put(tx, PutRequest.create({ key: keyOf(next(i)), value }));
      }
    });
    store.endWrite();
    if (i % 1024 === 0) await new Promise(setImmediate);
    await backend.pressure();
  }
  await backend.flush();
  const { user, system } = process.cpuUsage(cpu);
  const ms = since(startMs);
  report("", `${Math.round((count / ms) * 1000)}/s, ${((user + system) / count).toFixed(1)} us of CPU each`);
}

report("puts of new keys, ascending", "");
await puts(keys, (i) => i);
report("overwrites, random", "");
await puts(keys, () => random.below(keys));
const sizeMb = (): string => `${(fs.statSync(path.join(folder, "db.lmdb")).size / 1e6).toFixed(0)} MB`;
report("file", sizeMb());

const request = (from: number, count: number, more: Partial<RangeRequest> = {}) =>
  RangeRequest.create({ key: keyOf(from), rangeEnd: keyOf(from + count), ...more });
const all = (more: Partial<RangeRequest> = {}) =>
  RangeRequest.create({ key: Buffer.from("/registry/"), rangeEnd: Buffer.from("/registry0"), ...more });
const ms = (value: number): string => `${value.toFixed(3)} ms`;
const ten = Math.min(keys / 2, 10_000);
report(`range of ${ten} keys, encoded`, ms(mean(21, () => store.rangeEncoded(request(keys / 4, ten)))));
report(`range of ${ten} keys, decoded`, ms(mean(11, () => store.range(request(keys / 4, ten)))));
report(
  `range of ${ten} keys, keys only`,
  ms(mean(11, () => store.rangeEncoded(request(keys / 4, ten, { keysOnly: true })))),
);
const old = store.currentRevision - Math.round(keys / 10);
report(`range of ${ten} keys, older`, ms(mean(5, () => store.rangeEncoded(request(keys / 4, ten, { revision: old })))));
report("limit 500 of all, with count", ms(mean(21, () => store.rangeEncoded(all({ limit: 500 })))));
report("limit 10 of all, with count", ms(mean(101, () => store.rangeEncoded(all({ limit: 10 })))));
report("count of all", ms(mean(101, () => store.rangeEncoded(all({ countOnly: true })))));
report(
  "count of a third",
  ms(mean(101, () => store.rangeEncoded(request(777, Math.round(keys / 3), { countOnly: true })))),
);
const gets = 50_000;
report(
  "get of one key",
  `${Math.round(
    (gets /
      mean(3, () => {
        for (let i = 0; i < gets; i++) store.rangeEncoded(RangeRequest.create({ key: keyOf(random.below(keys)) }));
      })) *
      1000,
  )}/s`,
);

const stream = store.watch.newStream();
stream.create({ key: Buffer.from("\0"), rangeEnd: Buffer.alloc(0), startRevision: 2 });
let startMs = clock.monotonicMs();
let events = 0;
while (events < 2 * keys) {
  const delivery = stream.take();
  if (!delivery) await new Promise(setImmediate);
  else for (const event of delivery.events) events += event.bytes.length > 0 ? 1 : 0;
}
report("watch catching up", `${Math.round((events / since(startMs)) * 1000)} events/s`);
stream.close();

startMs = clock.monotonicMs();
let worstMs = 0;
let tickMs = startMs;
const { done } = backend.write((tx) => store.compact(tx, store.currentRevision));
let isDone = false;
void done.then(() => {
  isDone = true;
});
while (!isDone) {
  await new Promise(setImmediate);
  worstMs = Math.max(worstMs, since(tickMs));
  tickMs = clock.monotonicMs();
}
report("compaction of all overwritten", `${ms(since(startMs))}, longest hold ${ms(worstMs)}`);
await store.close();
await backend.close();
report("file", sizeMb());

startMs = clock.monotonicMs();
let startCpuMs = cpuMs();
({ backend, store } = await open());
store.rangeEncoded(RangeRequest.create({ key: keyOf(1) }));
report("open to first range", `${ms(since(startMs))}, CPU ${ms(cpuMs() - startCpuMs)}`);
startCpuMs = cpuMs();
startMs = clock.monotonicMs();
while (store.stats.keys === undefined) await new Promise(setImmediate);
report("until counted", `${ms(since(startMs))}, CPU ${ms(cpuMs() - startCpuMs)}`);
(globalThis as { gc?: () => void }).gc?.();
const memory = process.memoryUsage();
report("memory", `rss ${(memory.rss / 1e6).toFixed(0)} MB, heap ${(memory.heapUsed / 1e6).toFixed(0)} MB`);
await store.close();
await backend.close();
