/** What run.mjs measures. */
import { PutRequest, RangeRequest } from "@etcd-ts/client/wire";
import {
  defaultServerConfig,
  silentLogger,
  startMember,
  systemClock,
  systemRandom,
} from "../../packages/server/src/index.ts";

export interface BenchOptions {
  readonly dir: string;
  readonly clients: readonly number[];
  readonly seconds: number;
  readonly valueBytes: number;
  readonly keys: number;
  readonly only: string | undefined;
}

export async function bench(options: BenchOptions): Promise<void> {
  const member = await startMember(defaultServerConfig(options.dir), {
    clock: systemClock,
    random: systemRandom,
    logger: {
      ...silentLogger,
      warn: (message, fields) => console.error(message, fields),
      error: (message, fields) => console.error(message, fields),
    },
    onFatal: (error) => {
      throw error;
    },
  });
  const { server } = member;
  await server.ready;
  const value = Buffer.alloc(options.valueBytes, "x");
  const key = () => Buffer.from(`key-${String(Math.floor(Math.random() * options.keys)).padStart(12, "0")}`);
  const operations = {
    put: () => server.put(PutRequest.create({ key: key(), value }), {}),
    read: () => server.rangeEncoded(RangeRequest.create({ key: key() }), {}),
    "serializable read": () => server.rangeEncoded(RangeRequest.create({ key: key(), serializable: true }), {}),
  };
  for (const [name, operation] of Object.entries(operations)) {
    if (options.only !== undefined && options.only !== name) continue;
    for (const clients of options.clients) {
      const latencies: number[] = [];
      const cpu = process.cpuUsage();
      const start = performance.now();
      const end = start + options.seconds * 1000;
      await Promise.all(
        Array.from({ length: clients }, async () => {
          for (let before = performance.now(); before < end; ) {
            await operation();
            const after = performance.now();
            latencies.push(after - before);
            before = after;
          }
        }),
      );
      const tookMs = performance.now() - start;
      const { user, system } = process.cpuUsage(cpu);
      latencies.sort((a, b) => a - b);
      const at = (part: number) => (latencies[Math.floor(latencies.length * part)] ?? 0).toFixed(2);
      console.log(
        `${name.padEnd(18)} ${String(clients).padStart(5)} callers: ${Math.round((latencies.length / tookMs) * 1000)}/s, ` +
          `p50 ${at(0.5)} ms, p99 ${at(0.99)} ms, CPU ${((user + system) / latencies.length).toFixed(1)} us each`,
      );
    }
  }
  await member.stop();
}
