import fs from "node:fs";
import path from "node:path";
import { beforeEach, describe, expect, it } from "vitest";
import { systemClock } from "../../lib/clock.ts";
import { silentLogger } from "../../lib/log.ts";
import type { Snapshot } from "../../pb/raftpb.ts";
import { InjectedError, MemoryFiles } from "../testing/memory-files.ts";
import { decodeSnapFile, encodeSnapFile, SnapFileError, SnapStore, snapFileName } from "./snap-store.ts";

const GOLDEN = fs.readFileSync(path.join(import.meta.dirname, "testdata/0000000000000002-000000000000000c.snap"));
const DIR = "/d/member/snap";

const snapshot = (index: number, term = 2): Snapshot => ({
  data: Buffer.from(`{"at":${index}}`),
  metadata: {
    index,
    term,
    confState: { voters: [5n], learners: [], votersOutgoing: [], learnersNext: [], autoLeave: false },
  },
});

let files: MemoryFiles;
let store: SnapStore;
beforeEach(async () => {
  files = new MemoryFiles();
  await files.makeDirectory(DIR);
  store = new SnapStore({ dir: DIR, clock: systemClock, logger: silentLogger, fileSystem: files });
});

describe(".snap files", () => {
  it("are read and written byte for byte as etcd 3.5.16 does", () => {
    const decoded = decodeSnapFile(GOLDEN);
    expect([decoded.metadata.term, decoded.metadata.index]).toEqual([2, 12]);
    expect(decoded.metadata.confState.voters.length).toBe(1);
    expect(Buffer.from(encodeSnapFile(decoded)).equals(GOLDEN)).toBe(true);
  });

  it("name their damage, whichever byte it is in", () => {
    for (let at = 0; at < GOLDEN.length; at += 13) {
      const broken = Buffer.from(GOLDEN);
      broken[at] = (broken[at] as number) ^ 0x10;
      expect(() => decodeSnapFile(broken), `byte ${at}`).toThrow(SnapFileError);
      expect(() => decodeSnapFile(GOLDEN.subarray(0, at)), `cut at ${at}`).toThrow(SnapFileError);
    }
  });
});

describe("SnapStore", () => {
  it("pushes a received database to the disk on the way", async () => {
    let synced = 0;
    const open = files.open.bind(files);
    files.open = async (name, mode) => {
      const file = await open(name, mode);
      const datasync = file.datasync.bind(file);
      file.datasync = () => {
        synced++;
        return datasync();
      };
      return file;
    };
    const database = (async function* () {
      for (let n = 0; n < 20; n++) yield Buffer.alloc(1024 * 1024, n);
    })();
    expect(await store.saveDatabase(database, 7)).toBe(20 * 1024 * 1024);
    expect(synced).toBe(2);
  });

  it("loads the newest that the WAL vouches for, and sets broken ones aside", async () => {
    for (const [index, term] of [
      [10, 2],
      [20, 2],
      [15, 3],
      [30, 3],
    ] as const) {
      await store.save(snapshot(index, term));
    }
    files.setBytes(path.join(DIR, snapFileName({ term: 3, index: 15 })), Buffer.from("\x08\x01\x12\x01a", "latin1"));
    const all = [10, 20].map((index) => ({ term: 2, index }));
    expect((await store.loadNewestAvailable([...all, { term: 3, index: 15 }]))?.metadata.index).toBe(20);
    expect(await store.loadNewestAvailable([{ term: 9, index: 10 }])).toBeUndefined();
    expect((await store.loadNewest())?.metadata.index).toBe(30);
    expect(await files.list(DIR)).toContain(`${snapFileName({ term: 3, index: 15 })}.broken`);
  });

  it("does not write an empty snapshot", async () => {
    await store.save(snapshot(0, 0));
    expect(await files.list(DIR)).toEqual([]);
  });

  it("leaves a whole file or none when the disk fails or the machine dies at any step", async () => {
    for (let step = 1; step <= 6; step++) {
      for (const seed of [0, 1]) {
        const crashing = new MemoryFiles();
        await crashing.makeDirectory(DIR);
        const at = new SnapStore({ dir: DIR, clock: systemClock, logger: silentLogger, fileSystem: crashing });
        crashing.hooks = {
          before: (operation) => {
            if (operation >= step) throw new InjectedError("ENOSPC");
          },
        };
        const saved = await at.save(snapshot(7)).then(
          () => true,
          () => false,
        );
        const after = crashing.crash((bound) => (seed === 0 ? 0 : bound - 1));
        const again = new SnapStore({ dir: DIR, clock: systemClock, logger: silentLogger, fileSystem: after });
        await again.removeTemporaries();
        const loaded = await again.loadNewest();
        if (saved) expect(loaded?.metadata.index).toBe(7);
        else expect([undefined, 7]).toContain(loaded?.metadata.index);
        expect((await after.list(DIR)).filter((name) => !name.endsWith(".snap"))).toEqual([]);
      }
    }
  });

  it("purges the oldest of each kind", async () => {
    for (const index of [1, 2, 3, 4]) {
      await store.save(snapshot(index));
      await store.saveDatabase(
        (async function* () {
          yield Buffer.from("db");
        })(),
        index,
      );
    }
    expect(await store.purge(0)).toEqual([]);
    expect((await store.purge(3)).length).toBe(2);
    await store.releaseDatabases(4);
    expect(await files.list(DIR)).toEqual([
      "0000000000000002-0000000000000002.snap",
      "0000000000000002-0000000000000003.snap",
      "0000000000000002-0000000000000004.snap",
      "0000000000000004.snap.db",
    ]);
    expect(await store.findDatabase(4)).toBe(store.databasePath(4));
    await expect(store.findDatabase(3)).rejects.toThrow("snap: snapshot file doesn't exist");
  });

  it("keeps nothing of a database whose stream breaks", async () => {
    const broken = async function* () {
      yield Buffer.from("half");
      throw new Error("connection reset");
    };
    await expect(store.saveDatabase(broken(), 5)).rejects.toThrow("connection reset");
    expect(await files.list(DIR)).toEqual([]);
  });
});
