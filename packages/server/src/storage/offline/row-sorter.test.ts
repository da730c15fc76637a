import fs from "node:fs";
import path from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { systemFiles } from "../file-system.ts";
import { removeFolders, temporaryFolder } from "../testing/small-members.ts";
import { RECORD_HEADER_BYTES, RowSorter } from "./row-sorter.ts";

afterEach(removeFolders);

const RECORD_BYTES = RECORD_HEADER_BYTES + 4 + 1;

/** Records with keys of four bytes and payloads of one, in descending order. */
function addRecords(sorter: RowSorter, count: number): void {
  for (let n = count; n > 0; n--) {
    expect(sorter.hasRoom(RECORD_BYTES)).toBe(true);
    const { arena, used } = sorter;
    arena.writeUInt32LE(4, used);
    arena.writeUInt32LE(1, used + 4);
    arena.writeUInt32BE(n, used + RECORD_HEADER_BYTES);
    arena[used + RECORD_BYTES - 1] = n & 255;
    sorter.commit(used + RECORD_BYTES);
  }
}

async function keysOf(sorter: RowSorter): Promise<number[]> {
  const rows = await sorter.sorted();
  const keys: number[] = [];
  while (rows.next()) keys.push(rows.buffer.readUInt32BE(rows.keyAt));
  return keys;
}

describe("RowSorter", () => {
  it("merges what lies in a file with what is in memory", async () => {
    const file = path.join(temporaryFolder(), "keys");
    const sorter = new RowSorter(file, systemFiles);
    addRecords(sorter, 300);
    await sorter.spill();
    addRecords(sorter, 200);
    const keys = await keysOf(sorter);
    expect(keys).toHaveLength(500);
    expect(keys).toEqual(keys.toSorted((a, b) => a - b));
    await sorter.close();
    expect(fs.existsSync(file)).toBe(false);
  });

  it.each([
    ["between two records", 100 * RECORD_BYTES],
    ["within a header", 100 * RECORD_BYTES + 3],
    ["within a record", 100 * RECORD_BYTES + RECORD_HEADER_BYTES + 1],
  ])("does not take a file that ends %s for a whole one", async (_where, bytes) => {
    const file = path.join(temporaryFolder(), "keys");
    const sorter = new RowSorter(file, systemFiles);
    addRecords(sorter, 300);
    await sorter.spill();
    fs.truncateSync(file, bytes);
    await expect(keysOf(sorter)).rejects.toThrow("cut short");
    await sorter.close();
  });
});
