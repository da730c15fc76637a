import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { BatchRows, NO_VALUE } from "./batch-rows.ts";
import { ChunkPool, Layer } from "./layer.ts";

interface Written {
  readonly table: number;
  readonly key: Buffer;
  readonly value: Buffer | undefined;
}

function layerOf(rows: readonly Written[]): Layer {
  const layer = new Layer(new ChunkPool());
  const space = { bytes: new Uint8Array(0), keyAt: 0, valueAt: 0 };
  for (const { table, key, value } of rows) {
    layer.reserve(table, key.length, value?.length, space);
    space.bytes.set(key, space.keyAt);
    if (value) space.bytes.set(value, space.valueAt);
  }
  layer.freeze();
  return layer;
}

/** What a table of the batch holds, in its order. */
function rowsOf(batch: BatchRows, table: number): [string, string | undefined][] {
  return [...batch.inOrder(table)].map((row) => {
    const keyAt = batch.keyAt[row] as number;
    const valueAt = keyAt + (batch.keyBytes[row] as number);
    const length = batch.valueBytes[row] as number;
    return [
      batch.bytes.toString("hex", keyAt, valueAt),
      length === NO_VALUE ? undefined : batch.bytes.toString("hex", valueAt, valueAt + length),
    ];
  });
}

function expected(rows: readonly Written[], table: number): [string, string | undefined][] {
  const newest = new Map<string, string | undefined>();
  for (const row of rows) if (row.table === table) newest.set(row.key.toString("hex"), row.value?.toString("hex"));
  return [...newest].sort(([a], [b]) => Buffer.compare(Buffer.from(a, "hex"), Buffer.from(b, "hex")));
}

const buffer = (options: Parameters<typeof fc.uint8Array>[0]) =>
  fc.uint8Array(options).map((bytes) => Buffer.from(bytes));

describe("the rows of a batch", () => {
  it("come by key, each key once with what was written last, whatever the keys have in common", () => {
    const prefix = fc.constantFrom("", "k/", "k/00000", "\0\0\0\0\0\0\0", "a long beginning that many share/");
    const key = fc
      .tuple(prefix, buffer({ minLength: 1, maxLength: 12, max: 3 }))
      .map(([before, rest]) => Buffer.concat([Buffer.from(before), rest]));
    const row = fc.record({
      table: fc.constantFrom(0, 5, 12),
      key,
      value: fc.option(buffer({ maxLength: 40 }), { nil: undefined }),
    });
    fc.assert(
      fc.property(fc.array(row, { maxLength: 400, size: "max" }), (rows) => {
        const { chunks, used } = layerOf(rows);
        const batch = new BatchRows(chunks, used);
        for (const table of [0, 1, 5, 12]) expect(rowsOf(batch, table)).toEqual(expected(rows, table));
      }),
      { numRuns: 150 },
    );
  });

  it("leaves out what a later row is known to have replaced", () => {
    const layer = new Layer(new ChunkPool());
    const space = { bytes: new Uint8Array(0), keyAt: 0, valueAt: 0 };
    for (const value of ["one", "two"]) {
      layer.reserve(3, 1, 3, space);
      space.bytes.set(Buffer.from("k"), space.keyAt);
      space.bytes.set(Buffer.from(value), space.valueAt);
      layer.find(3, Buffer.from("k"));
    }
    const batch = new BatchRows(layer.chunks, layer.used);
    expect(rowsOf(batch, 3)).toEqual([["6b", Buffer.from("two").toString("hex")]]);
  });

  it("sorts many rows of many chunks", () => {
    const rows = Array.from({ length: 20_000 }, (_, i): Written => {
      const key = Buffer.from(`k/${String((i * 7919) % 15_013).padStart(10, "0")}`);
      return { table: 8, key, value: i % 7 === 0 ? undefined : Buffer.alloc(60, i % 251) };
    });
    const { chunks, used } = layerOf(rows);
    expect(chunks.length).toBeGreaterThan(5);
    expect(rowsOf(new BatchRows(chunks, used), 8)).toEqual(expected(rows, 8));
  });
});
