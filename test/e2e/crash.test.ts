/**
 * kill -9 under load: whatever was acknowledged is there after the restart, nothing is there that was never sent, and
 * HashKV is what the surviving history must hash to.
 */
import path from "node:path";
import { type Client, connect } from "@etcd-ts/client";
import { type KeyValue, SortTarget } from "@etcd-ts/client/wire";
import { describe, expect, it } from "vitest";
import { hashOfPuts } from "./harness/hash.ts";
import { Member, temporaryFolder } from "./harness/processes.ts";

const ROUNDS = 20;
const PUTS = 100_000;
const VALUE_BYTES = 300;
const IN_FLIGHT = 200;
const PAGE = 10_000;

const keyOf = (n: number): string => `key-${n}`;
const pairValueOf = (n: number): string => `${n}:`.padEnd(VALUE_BYTES, "v");

/** Puts keys 0, 1, 2, ... until the server is gone or all are written; gives which were acknowledged and sent. */
async function load(
  client: Client,
  onAcknowledged: (count: number) => void,
): Promise<{ acked: Set<number>; sent: number }> {
  const acked = new Set<number>();
  let sent = 0;
  let isGone = false;
  await Promise.all(
    Array.from({ length: IN_FLIGHT }, async () => {
      while (!isGone && sent < PUTS) {
        const n = sent++;
        try {
          await client.kv.put(keyOf(n), pairValueOf(n), { timeoutMs: 10_000 });
          acked.add(n);
          onAcknowledged(acked.size);
        } catch {
          isGone = true;
        }
      }
    }),
  );
  return { acked, sent };
}

/** Every pair of the store, in order of revision. */
async function readAll(client: Client): Promise<{ kvs: KeyValue[]; revision: number }> {
  const kvs: KeyValue[] = [];
  let from = 1;
  for (;;) {
    const { header, kvs: page } = await client.kv.get("", {
      prefix: true,
      minModRevision: from,
      maxModRevision: from + PAGE - 1,
      sortTarget: SortTarget.Mod,
    });
    kvs.push(...page);
    from += PAGE;
    const revision = header?.revision ?? 0;
    if (from > revision) return { kvs, revision };
  }
}

describe("a server killed under load", () => {
  it(`loses nothing that was acknowledged, ${ROUNDS} times over`, async () => {
    const restartsMs: number[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      using folder = temporaryFolder("crash");
      const dataDir = path.join(folder.path, "d");
      const killAt = 1 + Math.floor(Math.random() * PUTS);
      let written: Awaited<ReturnType<typeof load>>;
      {
        await using member = await Member.start({ dataDir });
        await using client = await connect({ endpoints: [member.endpoint] });
        let killed: Promise<void> | undefined;
        written = await load(client, (count) => {
          if (count >= killAt) killed ??= member.kill();
        });
        await killed;
      }
      const begun = Date.now();
      await using member = await Member.start({ dataDir });
      restartsMs.push(Date.now() - begun);
      await using client = await connect({ endpoints: [member.endpoint] });
      const { kvs, revision } = await readAll(client);
      const context = `round ${round}, killed after ${killAt} acknowledged of ${written.sent} sent`;

      const found = new Set<number>();
      for (const kv of kvs) {
        const n = Number(Buffer.from(kv.key).toString().slice("key-".length));
        found.add(n);
        if (Buffer.from(kv.value).toString() !== pairValueOf(n))
          expect.fail(`${context}: the value of ${keyOf(n)} is bent`);
      }
      const missing = [...written.acked].filter((n) => !found.has(n));
      expect(missing, context).toEqual([]);
      expect(found.size, context).toBe(kvs.length);
      expect(
        [...found].filter((n) => n >= written.sent),
        context,
      ).toEqual([]);
      expect(revision, context).toBe(1 + kvs.length);
      const { hash } = await client.maintenance.hashKv();
      expect(hash, context).toBe(hashOfPuts(kvs));
    }
    restartsMs.sort((a, b) => a - b);
    process.stdout.write(`restart to healthy: median ${restartsMs[ROUNDS >> 1]} ms, longest ${restartsMs.at(-1)} ms\n`);
  }, 900_000);
});
