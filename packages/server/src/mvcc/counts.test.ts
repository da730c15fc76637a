import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type KeyString, keyBytes } from "../lib/bytes.ts";
import { systemClock } from "../lib/clock.ts";
import { silentLogger } from "../lib/log.ts";
import { yieldToEventLoop } from "../lib/wait.ts";
import { type Backend, liveKey, openBackend } from "../storage/index.ts";
import { Counts } from "./counts.ts";
import { keyRange } from "./key-range.ts";

async function withBackend(use: (backend: Backend) => Promise<void>): Promise<void> {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "counts-"));
  const backend = await openBackend({
    path: path.join(folder, "db.lmdb"),
    clock: systemClock,
    logger: silentLogger,
    onFatal: (error) => {
      throw error;
    },
    commits: "inline",
    mapSizeBytes: 2 ** 30,
  });
  try {
    await use(backend);
  } finally {
    await backend.close();
    fs.rmSync(folder, { recursive: true, force: true });
  }
}

const key = fc.oneof(
  { weight: 20, arbitrary: fc.integer({ min: 0, max: 99 }).map((n) => `k${String(n).padStart(2, "0")}` as KeyString) },
  { weight: 1, arbitrary: fc.constantFrom("\0", "a", "k", "k5", "k50\0", "z", "\xff") as fc.Arbitrary<KeyString> },
);
const bound = fc.oneof(key, fc.constantFrom("\0", "k1", "k55x", "x") as fc.Arbitrary<KeyString>);

describe("Counts", () => {
  it("knows what a walk would count, while blocks are cut and joined and a start is still counting", async () => {
    const step = fc.oneof(
      { weight: 6, arbitrary: fc.record({ kind: fc.constant("add" as const), key }) },
      { weight: 4, arbitrary: fc.record({ kind: fc.constant("remove" as const), key }) },
      { weight: 3, arbitrary: fc.record({ kind: fc.constant("count" as const), key: bound, end: bound }) },
      { weight: 1, arbitrary: fc.constant({ kind: "restart" as const }) },
      { weight: 1, arbitrary: fc.constant({ kind: "yield" as const }) },
    );
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 300, size: "max" }), (steps) =>
        withBackend(async (backend) => {
          const size = { blockKeys: 4, groupBlocks: 2 };
          const jobs = new AbortController();
          const model = new Set<KeyString>();
          let counts = new Counts(size);
          counts.start(backend, jobs.signal);
          const check = (from: KeyString, end: KeyString): void => {
            const expected = [...model].filter((one) => one >= from && (end === "\0" || one < end)).length;
            expect(counts.count(backend, keyRange(keyBytes(from), keyBytes(end)))).toBe(expected);
          };
          for (const one of steps) {
            if (one.kind === "add" && !model.has(one.key)) {
              model.add(one.key);
              backend.write((tx) => {
                tx.put("live", liveKey(keyBytes(one.key)), Buffer.from("row"));
                counts.added(tx, keyBytes(one.key), 2);
              });
            } else if (one.kind === "remove" && model.delete(one.key)) {
              backend.write((tx) => tx.delete("live", keyBytes(one.key)));
              counts.removed(keyBytes(one.key), 2);
            } else if (one.kind === "count") {
              check(one.key, one.end);
            } else if (one.kind === "yield") {
              await yieldToEventLoop();
            } else if (one.kind === "restart") {
              await counts.stopped();
              expect(counts.total).toBe(model.size);
              counts = new Counts(size);
              counts.start(backend, jobs.signal);
            }
          }
          await counts.stopped();
          expect(counts.total).toBe(model.size);
          for (const from of ["\0", "k", "k10", "k50", "k77"] as KeyString[]) {
            for (const end of ["\0", "k20", "k51", "k99", "z"] as KeyString[]) check(from, end);
          }
        }),
      ),
      { numRuns: 40 },
    );
  });
});
