import { readFileSync, writeFileSync } from "node:fs";
import { EtcdError } from "@etcd-ts/client/wire";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { keyString, utf8Bytes, utf8Text } from "../lib/bytes.ts";
import { VirtualClock } from "../lib/clock.ts";
import type { BackendTxn, ScanOptions } from "../storage/index.ts";
import { DeadlineQueue } from "./deadline-queue.ts";
import { Lessor, type LessorOptions } from "./lessor.ts";

/** Table `lease` and nothing else. */
function memoryTable(): BackendTxn {
  const rows = new Map<string, Uint8Array>();
  const read = (key: Uint8Array) => rows.get(keyString(key));
  return {
    get: (_table, key) => read(key),
    peek: (_table, key) => read(key),
    has: (_table, key) => rows.has(keyString(key)),
    scan(_table, _options: ScanOptions, visit) {
      for (const key of [...rows.keys()].sort()) visit(Buffer.from(key, "latin1"), rows.get(key) as Uint8Array);
    },
    first: () => undefined,
    count: () => rows.size,
    ahead: () => ({ key: undefined, count: 0 }),
    put: (_table, key, value) => void rows.set(keyString(key), value),
    reserve: () => {
      throw new Error("leases are put whole");
    },
    delete: (_table, key) => void rows.delete(keyString(key)),
  };
}

function setUp(options: Partial<LessorOptions> = {}) {
  const clock = new VirtualClock();
  const tx = memoryTable();
  const lessor = Lessor.open(tx, {
    clock,
    minTtlSeconds: 2,
    expiredRetryMs: 7000,
    checkpoints: false,
    persistsCheckpoints: () => false,
    ...options,
  });
  return { clock, tx, lessor };
}

/** Runs one command of a golden script and says what happened. */
function interpreter() {
  const { clock, tx, lessor } = setUp();
  const keys = new Map<bigint, Uint8Array[]>();
  const seconds = (ms: number) => (Number.isFinite(ms) ? `${ms / 1000}s` : "never");
  return (line: string): string => {
    const [command, ...words] = line.split(" ");
    const named = Object.fromEntries(words.filter((w) => w.includes("=")).map((w) => w.split("="))) as Record<
      string,
      string
    >;
    const id = () => BigInt(words[0] as string);
    try {
      switch (command) {
        case "grant":
          return `granted ${lessor.grant(tx, { id: id(), ttlSeconds: Number(named["ttl"]) })}s`;
        case "revoke": {
          const deleted: string[] = [];
          lessor.revoke(tx, id(), {
            keysOfLease: (lease) => keys.get(lease) ?? [],
            deleteKeys: (_tx, gone) => deleted.push(...gone.map(utf8Text)),
          });
          return `revoked, keys [${deleted.join(" ")}]`;
        }
        case "renew": {
          const outcome = lessor.renew(id());
          return outcome.kind === "renewed" ? `renewed ${outcome.ttlSeconds}s` : outcome.kind;
        }
        case "keys":
          keys.set(id(), words.slice(1).map(utf8Bytes));
          return "ok";
        case "leases":
          return lessor
            .leases()
            .map((l) => `${l.id}: granted ${l.grantedTtlSeconds}s, ends ${seconds(l.remainingMs)}`)
            .join("\n");
        case "remaining":
          return seconds(lessor.lookup(id())?.remainingMs ?? Number.NaN);
        case "expired":
          return `[${lessor
            .takeExpired()
            .map((l) => l.id)
            .join(" ")}]`;
        case "promote":
          lessor.promote(Number(named["extend"]));
          return "ok";
        case "demote":
          lessor.demote();
          return "ok";
        case "advance":
          clock.advance(Number(words[0]));
          return "ok";
        case "reload":
          lessor.demote();
          lessor.reload(tx);
          return "ok";
        default:
          throw new Error(`unknown command: ${line}`);
      }
    } catch (error) {
      if (error instanceof EtcdError) return `error: ${error.message}`;
      throw error;
    }
  };
}

describe("lessor", () => {
  it("follows its golden script (rewritten by UPDATE_GOLDEN=1)", () => {
    const file = new URL("testdata/lessor.txt", import.meta.url);
    const run = interpreter();
    const text = readFileSync(file, "utf8");
    const actual = text
      .trimEnd()
      .split(/\n\n+/)
      .map((block) => {
        const input = (block.split("\n----")[0] as string).split("\n");
        const output = input.filter((line) => !line.startsWith("#")).map((line) => `${line} -> ${run(line)}`);
        return `${input.join("\n")}\n----\n${output.join("\n")}\n`;
      })
      .join("\n");
    if (process.env["UPDATE_GOLDEN"]) writeFileSync(file, actual);
    expect(actual).toBe(text);
  });

  it("promote() spreads a thousand leases that end together to at most 750 a second", () => {
    const { lessor, tx, clock } = setUp();
    for (let id = 1n; id <= 2000n; id++) lessor.grant(tx, { id, ttlSeconds: 10 });
    lessor.promote(0);
    const perSecond: number[] = [];
    clock.advance(9999);
    expect(lessor.takeExpired()).toEqual([]);
    for (let second = 0; second < 5; second++) {
      clock.advance(500);
      const half = lessor.takeExpired(5000).length;
      clock.advance(500);
      perSecond.push(half + lessor.takeExpired(5000).length);
    }
    expect(perSecond.reduce((a, b) => a + b, 0)).toBe(2000);
    expect(Math.max(...perSecond)).toBeLessThanOrEqual(1000);
  });

  it("takeExpired() gives out at most one scan's worth", () => {
    const { lessor, tx, clock } = setUp();
    lessor.promote(0);
    for (let id = 1n; id <= 600n; id++) lessor.grant(tx, { id, ttlSeconds: 5 });
    clock.advance(5000);
    expect(lessor.takeExpired()).toHaveLength(500);
    expect(lessor.takeExpired()).toHaveLength(100);
  });

  it("checkpoints long leases every five minutes, and a renewal asks to clear them", () => {
    const { lessor, tx, clock } = setUp({ checkpoints: true, persistsCheckpoints: () => true });
    lessor.promote(0);
    lessor.grant(tx, { id: 1n, ttlSeconds: 1000 });
    lessor.grant(tx, { id: 2n, ttlSeconds: 300 });
    clock.advance(299_999);
    expect(lessor.takeCheckpoints()).toEqual([]);
    clock.advance(1);
    expect(lessor.takeCheckpoints()).toEqual([{ id: 1n, remainingTtlSeconds: 700 }]);
    lessor.checkpoint(tx, 1n, 700);
    clock.advance(300_000);
    expect(lessor.takeCheckpoints()).toEqual([{ id: 1n, remainingTtlSeconds: 400 }]);
    expect(lessor.renew(1n)).toEqual({ kind: "checkpointed" });
    lessor.checkpoint(tx, 1n, 0);
    expect(lessor.renew(1n)).toEqual({ kind: "renewed", ttlSeconds: 1000 });

    lessor.checkpoint(tx, 1n, 500);
    lessor.demote();
    lessor.reload(tx);
    lessor.promote(0);
    expect(lessor.lookup(1n)?.remainingMs).toBe(500_000);
  });

  it("renew() of an expired lease settles when the revocation is applied", async () => {
    const { lessor, tx, clock } = setUp();
    lessor.promote(0);
    lessor.grant(tx, { id: 1n, ttlSeconds: 5 });
    clock.advance(5000);
    const outcome = lessor.renew(1n);
    if (outcome.kind !== "expired") throw new Error(outcome.kind);
    lessor.revoke(tx, 1n, { keysOfLease: () => [], deleteKeys: () => {} });
    await outcome.settled;
    expect(lessor.renew(1n)).toEqual({ kind: "unknown" });
  });
});

describe("DeadlineQueue", () => {
  it("always gives the earliest, against a plain list", () => {
    fc.assert(
      fc.property(
        fc.array(fc.record({ id: fc.bigInt(0n, 20n), at: fc.integer({ min: 0, max: 50 }), remove: fc.boolean() })),
        (steps) => {
          const queue = new DeadlineQueue();
          const model = new Map<bigint, number>();
          for (const { id, at, remove } of steps) {
            if (remove) {
              queue.delete(id);
              model.delete(id);
            } else {
              queue.set(id, at);
              model.set(id, at);
            }
            expect(queue.size).toBe(model.size);
            expect(queue.peek()?.atMs).toBe(model.size === 0 ? undefined : Math.min(...model.values()));
          }
        },
      ),
    );
  });
});
