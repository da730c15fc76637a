import { spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { systemClock, VirtualClock } from "../../lib/clock.ts";
import { crc32c } from "../../lib/crc32c.ts";
import { type Logger, silentLogger } from "../../lib/log.ts";
import { SeededRandom } from "../../lib/random.ts";
import { InternalRaftRequest, Metadata } from "../../pb/etcdserverpb.ts";
import { ConfChange, Entry, EntryType, HardState } from "../../pb/raftpb.ts";
import { Record, Snapshot } from "../../pb/walpb.ts";
import { computeClusterId, computeMemberId, memberToJson } from "../schema/index.ts";
import { InjectedError, MemoryFiles } from "../testing/memory-files.ts";
import { createWal, openWal, readWal, validSnapshots, verifyWal, walExists } from "./open.ts";
import { RecordReader } from "./reader.ts";
import { RecordBuffer, RecordType } from "./record-buffer.ts";
import { type Wal, WalError, type WalOptions, WalWriteError } from "./types.ts";

const METADATA = Metadata.encode({ nodeId: 0x8e9e05c52164694dn, clusterId: 0xcdf818194e3a8c32n });
const GOLDEN = path.join(import.meta.dirname, "testdata/etcd-3.5.16.wal");
const FIRST = "0000000000000000-0000000000000000.wal";

interface LoggedLine {
  readonly level: string;
  readonly message: string;
}

function listeningLogger(): { logger: Logger; lines: LoggedLine[] } {
  const lines: LoggedLine[] = [];
  const at = (level: string) => (message: string) => void lines.push({ level, message });
  return {
    lines,
    logger: { debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error"), isDebugEnabled: false },
  };
}

function memoryOptions(files: MemoryFiles, segmentBytes = 64_000): WalOptions {
  return { clock: systemClock, logger: silentLogger, fileSystem: files, segmentBytes };
}

const entry = (index: number, text = `value ${index}`, term = 1): Entry => ({
  type: 0,
  term,
  index,
  data: Buffer.from(text),
});
const state = (commit: number, term = 1): HardState => ({ term, vote: 0x8e9e05c52164694dn, commit });
const START = { index: 0, term: 0 };

async function recordsOf(files: MemoryFiles, name: string): Promise<{ record: Record; end: number }[]> {
  const file = await files.open(name, "read");
  const reader = new RecordReader([{ file, size: await file.size() }]);
  const records: { record: Record; end: number }[] = [];
  for (let record = await reader.next(); record; record = await reader.next()) {
    records.push({ record, end: reader.offset });
  }
  return records;
}

let dir: string;
beforeEach(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), "wal-test-"));
});
afterEach(() => {
  fs.rmSync(dir, { recursive: true, force: true });
});

describe("the format", () => {
  it("reads what etcd 3.5.16 wrote, and writes the same bytes for it", async () => {
    const golden = fs.readFileSync(GOLDEN);
    const files = new MemoryFiles();
    files.setBytes(`/wal/${FIRST}`, golden);
    const buffer = new RecordBuffer();
    let crc = 0;
    const kinds: Record["type"][] = [];
    for (const { record } of await recordsOf(files, `/wal/${FIRST}`)) {
      kinds.push(record.type);
      if (record.type === RecordType.crc) buffer.crc(crc);
      else if (record.type === RecordType.entry) crc = buffer.entry(Entry.decode(record.data as Uint8Array), crc);
      else if (record.type === RecordType.state)
        crc = buffer.hardState(HardState.decode(record.data as Uint8Array), crc);
      else if (record.type === RecordType.snapshot) {
        crc = buffer.data(record.type, Snapshot.encode(Snapshot.decode(record.data as Uint8Array)), crc);
      } else crc = buffer.data(record.type, Metadata.encode(Metadata.decode(record.data as Uint8Array)), crc);
    }
    expect(new Set(kinds)).toEqual(new Set([1, 2, 3, 4, 5]));
    expect(buffer.bytes.subarray(0, buffer.length).equals(golden)).toBe(true);

    const content = await readWal("/wal", START, { fileSystem: files });
    expect(content.entries.map((e) => e.index)).toEqual(content.entries.map((_, i) => i + 1));
    expect(content.hardState.commit).toBe(content.entries.length);
    expect((await validSnapshots("/wal", { fileSystem: files })).map((s) => [s.term, s.index])).toEqual([
      [0, 0],
      [2, 6],
      [2, 12],
    ]);
    const fromSnapshot = await readWal("/wal", { index: 12, term: 2 }, { fileSystem: files });
    expect(fromSnapshot.entries[0]?.index).toBe(13);
  });

  it("encodes entries and states as the generated codecs do, whatever length the crc's varint has", () => {
    const lengths = new Set<number>();
    fc.assert(
      fc.property(
        fc.record({
          type: fc.integer({ min: 0, max: 2 }),
          term: fc.maxSafeNat(),
          index: fc.maxSafeNat(),
          data: fc.option(fc.uint8Array({ maxLength: 300 }), { nil: undefined }),
        }),
        fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
        fc.integer({ min: 0, max: 2 ** 32 - 1 }),
        (e, vote, previous) => {
          for (const [type, data, write] of [
            [RecordType.entry, Entry.encode(e), (b: RecordBuffer) => b.entry(e, previous)],
            [
              RecordType.state,
              HardState.encode({ term: e.term, vote, commit: e.index }),
              (b: RecordBuffer) => b.hardState({ term: e.term, vote, commit: e.index }, previous),
            ],
          ] as const) {
            const buffer = new RecordBuffer();
            const crc = write(buffer);
            expect(crc).toBe(crc32c(data, previous));
            const record = Record.encode({ type, crc, data });
            lengths.add(crc < 2 ** 28 ? 4 : 5);
            const pad = (8 - (record.length % 8)) % 8;
            expect(buffer.length).toBe(8 + record.length + pad);
            expect(buffer.bytes.subarray(8, 8 + record.length).equals(Buffer.from(record))).toBe(true);
            expect(buffer.bytes.readBigUInt64LE(0)).toBe(
              BigInt(record.length) | (pad === 0 ? 0n : (0x80n | BigInt(pad)) << 56n),
            );
          }
        },
      ),
      { numRuns: 300 },
    );
    expect(lengths).toEqual(new Set([4, 5]));
  });

  it("keeps absent and empty data apart", async () => {
    const files = new MemoryFiles();
    const wal = await createWal("/d/wal", METADATA, memoryOptions(files));
    await wal.save(undefined, [
      { type: 0, term: 1, index: 1, data: undefined },
      { type: 0, term: 1, index: 2, data: new Uint8Array(0) },
    ]);
    await wal.close();
    const { entries } = await readWal("/d/wal", START, { fileSystem: files });
    expect(entries.map((e) => e.data?.length)).toEqual([undefined, 0]);
  });
});

describe("save()", () => {
  it("gives back after a restart what it resolved for, over many segments", async () => {
    const options: WalOptions = { clock: systemClock, logger: silentLogger, segmentBytes: 4096 };
    const wal = await createWal(path.join(dir, "wal"), METADATA, options);
    for (let i = 1; i <= 200; i++) await wal.save(state(i - 1), [entry(i, "x".repeat(i))]);
    await wal.saveSnapshot({
      index: 150,
      term: 1,
      confState: { voters: [1n], learners: [], votersOutgoing: [], learnersNext: [], autoLeave: false },
    });
    await wal.save(state(200), []);
    await wal.close();
    const names = fs.readdirSync(path.join(dir, "wal"));
    expect(names.length).toBeGreaterThan(5);
    expect(names.every((name) => name.endsWith(".wal"))).toBe(true);

    const opened = await openWal(path.join(dir, "wal"), START, options);
    expect(Buffer.from(opened.metadata).equals(METADATA)).toBe(true);
    expect(opened.hardState).toEqual(state(200));
    expect(opened.entries.map((e) => e.data?.length)).toEqual(Array.from({ length: 200 }, (_, i) => i + 1));
    await opened.wal.save(state(200), [entry(201)]);
    await opened.wal.close();

    const fromSnapshot = await openWal(path.join(dir, "wal"), { index: 150, term: 1 }, options);
    expect(fromSnapshot.entries.map((e) => e.index)).toEqual(Array.from({ length: 51 }, (_, i) => i + 151));
    await fromSnapshot.wal.close();
    expect(await verifyWal(path.join(dir, "wal"), { index: 150, term: 1 })).toEqual(state(200));
  });

  it("has segments of full size, cut to their content when they are full", async () => {
    const options: WalOptions = { clock: systemClock, logger: silentLogger };
    const walDir = path.join(dir, "wal");
    const wal = await createWal(walDir, METADATA, options);
    await wal.save(undefined, [entry(1)]);
    expect(fs.statSync(path.join(walDir, FIRST)).size).toBe(64_000_000);
    expect(fs.statSync(path.join(walDir, FIRST)).mode & 0o777).toBe(0o600);
    await wal.close();
  });

  it("shares one fdatasync among all that wait", async () => {
    const files = new MemoryFiles();
    const wal = await createWal("/d/wal", METADATA, memoryOptions(files));
    const syncs: string[] = [];
    files.hooks = { before: (_, what) => void (what.startsWith("datasync") && syncs.push(what)) };
    const saves = Array.from({ length: 50 }, (_, i) => wal.save(undefined, [entry(i + 1)]));
    await Promise.all(saves);
    expect(syncs.length).toBe(1);
    await Promise.all(Array.from({ length: 50 }, (_, i) => wal.save(undefined, [entry(i + 51)])));
    expect(syncs.length).toBe(2);
    await wal.close();
  });

  it("waits for the disk itself when all of its callers may and nothing is being written", async () => {
    const files = new MemoryFiles();
    const wal = await createWal("/d/wal", METADATA, memoryOptions(files));
    let syncs: string[] = [];
    files.hooks = { before: (_, what) => void (what.includes("datasync") && syncs.push(what.split(" ")[0] as string)) };
    const expectSyncs = async (expected: string[], saves: Promise<void>[]) => {
      await Promise.all(saves);
      expect(syncs).toEqual(expected);
      syncs = [];
    };
    await expectSyncs(["datasyncNow"], [wal.save(undefined, [entry(1)], true)]);
    await expectSyncs(["datasyncNow"], [wal.save(undefined, [entry(2)], true), wal.save(undefined, [entry(3)], true)]);
    await expectSyncs(["datasync"], [wal.save(undefined, [entry(4)], true), wal.save(undefined, [entry(5)])]);
    await expectSyncs(["datasync"], [wal.save(state(5, 2), [])]);
    // Nothing but a commit rides along.
    await expectSyncs(["datasyncNow"], [wal.save(state(5, 2), []), wal.save(undefined, [entry(6, "x", 2)], true)]);
    const behind = wal.save(undefined, [entry(7, "x", 2)]);
    await Promise.resolve();
    await Promise.resolve();
    await expectSyncs(["datasync", "datasync"], [behind, wal.save(undefined, [entry(8, "x", 2)], true)]);
    await wal.close();
    const { entries } = await readWal("/d/wal", START, { fileSystem: files });
    expect(entries.map(({ index }) => index)).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
  });

  it("lets others wait for a disk that has been slow", async () => {
    const files = new MemoryFiles();
    const clock = new VirtualClock();
    const wal = await createWal("/d/wal", METADATA, { ...memoryOptions(files), clock });
    const syncs: string[] = [];
    let tookMs = 26;
    files.hooks = {
      before: (_, what) => {
        if (!what.includes("datasync")) return;
        clock.advance(tookMs);
        syncs.push(what.split(" ")[0] as string);
      },
    };
    for (let i = 1; i <= 3; i++) await wal.save(undefined, [entry(i)], true);
    clock.advance(1000);
    tookMs = 1;
    for (let i = 4; i <= 6; i++) await wal.save(undefined, [entry(i)], true);
    expect(syncs).toEqual(["datasyncNow", "datasync", "datasync", "datasyncNow", "datasyncNow", "datasyncNow"]);
    await wal.close();
  });

  it("syncs for entries, another term or another vote, and not for a commit", async () => {
    const files = new MemoryFiles();
    const wal = await createWal("/d/wal", METADATA, memoryOptions(files));
    let syncs = 0;
    files.hooks = { before: (_, what) => void (what.startsWith("datasync") && syncs++) };
    const expectSyncs = async (count: number, save: Promise<void>) => {
      syncs = 0;
      await save;
      expect(syncs).toBe(count);
    };
    await expectSyncs(1, wal.save(state(0, 1), []));
    await expectSyncs(1, wal.save(state(0, 1), [entry(1)]));
    await expectSyncs(0, wal.save(state(1, 1), []));
    await expectSyncs(0, wal.save(undefined, []));
    await expectSyncs(0, wal.save(HardState.create(), []));
    await expectSyncs(1, wal.save(state(1, 2), []));
    await expectSyncs(1, wal.save({ term: 2, vote: 5n, commit: 1 }, []));
    await wal.save({ term: 2, vote: 5n, commit: 7 }, []);
    await expectSyncs(1, wal.sync());
    await wal.close();
    expect((await readWal("/d/wal", START, { fileSystem: files })).hardState.commit).toBe(7);
  });

  it("does not sync with unsafeNoFsync", async () => {
    const files = new MemoryFiles();
    const synced: string[] = [];
    files.hooks = { before: (_, what) => void (what.includes("sync") && synced.push(what)) };
    const options = { ...memoryOptions(files, 4096), unsafeNoFsync: true };
    const wal = await createWal("/d/wal", METADATA, options);
    for (let i = 1; i < 100; i++) await wal.save(state(i), [entry(i, "y".repeat(100))]);
    await wal.close();
    expect(synced).toEqual([]);
    expect((await readWal("/d/wal", START, { fileSystem: files })).entries.length).toBe(99);
  });

  it("finishes writes that the system cuts short", async () => {
    const files = new MemoryFiles();
    const wal = await createWal("/d/wal", METADATA, memoryOptions(files));
    files.hooks = { shorten: (length) => Math.ceil(length / 3) };
    await wal.save(undefined, [entry(1, "z".repeat(5000))]);
    files.hooks = {};
    await wal.close();
    expect((await readWal("/d/wal", START, { fileSystem: files })).entries[0]?.data?.length).toBe(5000);
  });

  it("writes zeros ahead of small batches, behind all records and within the segment", async () => {
    const segmentBytes = 1024 * 1024;
    const files = new MemoryFiles();
    const wal = await createWal("/d/wal", METADATA, memoryOptions(files, segmentBytes));
    const writes: { length: number; position: number }[] = [];
    files.hooks = {
      shorten: (length, position) => {
        writes.push({ length, position });
        return length;
      },
    };
    await wal.save(undefined, [entry(1)], true);
    await wal.save(undefined, [entry(2)]);
    const [first, ahead, second] = writes;
    expect(writes.length).toBe(3);
    expect(ahead?.position).toBe((first?.position ?? 0) + (first?.length ?? 0));
    expect(ahead?.length).toBeGreaterThan(100_000);
    expect(second?.position).toBe(ahead?.position);
    for (let i = 3; i < 60; i++) await wal.save(undefined, [entry(i, "y".repeat(20_000))], i % 2 === 0);
    files.hooks = {};
    await wal.close();
    for (const { length, position } of writes) {
      if (length > 100_000) expect(position + length).toBeLessThanOrEqual(segmentBytes);
    }
    const { entries } = await readWal("/d/wal", START, { fileSystem: files });
    expect(entries.map(({ index }) => index)).toEqual(Array.from({ length: 59 }, (_, i) => i + 1));
  });

  it("saves when there is no room for zeros ahead", async () => {
    const files = new MemoryFiles();
    const wal = await createWal("/d/wal", METADATA, memoryOptions(files, 4 * 1024 * 1024));
    let refused = 0;
    files.hooks = {
      shorten: (length) => {
        if (length < 100_000) return length;
        refused++;
        throw new InjectedError("ENOSPC");
      },
    };
    for (let i = 1; i <= 100; i++) await wal.save(undefined, [entry(i, "y".repeat(10_000))], i % 2 === 0);
    expect(refused).toBe(1);
    await wal.close();
    expect((await readWal("/d/wal", START, { fileSystem: files })).entries.length).toBe(100);
  });

  it("rejects for good after a failed write or fsync, and never tries again", async () => {
    for (const failing of ["write", "datasync", "datasyncNow"]) {
      const files = new MemoryFiles();
      const wal = await createWal("/d/wal", METADATA, memoryOptions(files));
      await wal.save(undefined, [entry(1)]);
      let failures = 0;
      files.hooks = {
        before: (_, what) => {
          if (!what.startsWith(`${failing} `)) return;
          failures++;
          throw new InjectedError(failing === "write" ? "ENOSPC" : "EIO");
        },
      };
      const mayBlock = failing === "datasyncNow";
      const saves = [wal.save(undefined, [entry(2)], mayBlock), wal.save(undefined, [entry(3)], mayBlock)];
      for (const save of saves) await expect(save).rejects.toThrow(WalWriteError);
      files.hooks = {};
      await expect(wal.save(undefined, [entry(4)])).rejects.toThrow(/ENOSPC|EIO/);
      await expect(wal.saveSnapshot({ index: 0, term: 0, confState: undefined })).rejects.toThrow(WalWriteError);
      await expect(wal.sync()).rejects.toThrow(WalWriteError);
      expect(failures).toBe(1);
      await expect(wal.close()).rejects.toThrow(WalWriteError);
    }
  });
});

describe("opening", () => {
  it("refuses to create over a log, and replaces leftovers of a creation", async () => {
    const files = new MemoryFiles();
    await files.makeDirectory("/d/wal.tmp");
    files.setBytes("/d/wal.tmp/rest", Buffer.from("x"));
    expect(await walExists("/d/wal", files)).toBe(false);
    await (await createWal("/d/wal", METADATA, memoryOptions(files))).close();
    expect(await walExists("/d/wal", files)).toBe(true);
    expect(await files.list("/d/wal")).toEqual([FIRST]);
    await expect(createWal("/d/wal", METADATA, memoryOptions(files))).rejects.toMatchObject({ kind: "exists" });
  });

  it("names what is missing: log, snapshot, segment", async () => {
    const files = new MemoryFiles();
    await expect(openWal("/none", START, memoryOptions(files))).rejects.toMatchObject({ kind: "notFound" });
    const wal = await createWal("/d/wal", METADATA, memoryOptions(files, 1024));
    for (let i = 1; i < 60; i++) await wal.save(undefined, [entry(i, "w".repeat(100))]);
    await wal.close();
    await expect(openWal("/d/wal", { index: 7, term: 1 }, memoryOptions(files))).rejects.toMatchObject({
      kind: "snapshotNotFound",
    });
    await expect(openWal("/d/wal", { index: 0, term: 9 }, memoryOptions(files))).rejects.toMatchObject({
      kind: "snapshotMismatch",
    });
    const names = await files.list("/d/wal");
    await files.remove(`/d/wal/${names[2]}`);
    await expect(openWal("/d/wal", START, memoryOptions(files))).rejects.toMatchObject({ kind: "sequenceGap" });
  });

  it("drops entries that a later leader wrote over", async () => {
    const files = new MemoryFiles();
    const wal = await createWal("/d/wal", METADATA, memoryOptions(files));
    await wal.save(
      state(1, 1),
      [1, 2, 3, 4, 5].map((i) => entry(i)),
    );
    await wal.save(state(1, 2), [entry(3, "other", 2)]);
    await wal.close();
    const { entries } = await readWal("/d/wal", START, { fileSystem: files });
    expect(entries.map((e) => [e.index, e.term])).toEqual([
      [1, 1],
      [2, 1],
      [3, 2],
    ]);
  });

  it("repairs a torn end once, keeps a copy, and says so", async () => {
    const files = new MemoryFiles();
    const wal = await createWal("/d/wal", METADATA, memoryOptions(files));
    await wal.save(state(0), [entry(1), entry(2, "q".repeat(2000))]);
    await wal.close();
    const records = await recordsOf(files, `/d/wal/${FIRST}`);
    const second = records.filter(({ record }) => record.type === RecordType.entry)[1];
    const whole = Buffer.from(files.bytes(`/d/wal/${FIRST}`));
    for (const damage of ["cut", "zero sector"]) {
      const bytes = Buffer.from(whole);
      const end = (second as { end: number }).end;
      if (damage === "zero sector") bytes.fill(0, Math.floor((end - 700) / 512) * 512, end + 4096);
      files.setBytes(`/d/wal/${FIRST}`, damage === "cut" ? bytes.subarray(0, end - 700) : bytes);
      // Those who only look do not repair.
      expect((await readWal("/d/wal", START, { fileSystem: files })).entries.length).toBe(1);
      const { logger, lines } = listeningLogger();
      const opened = await openWal("/d/wal", START, { ...memoryOptions(files), logger });
      expect(opened.entries.map((e) => e.index)).toEqual([1]);
      expect(lines.map((line) => line.message)).toEqual(
        expect.arrayContaining(["repairing", "repaired", "repaired WAL"]),
      );
      expect(files.bytes(`/d/wal/${FIRST}.broken`).length).toBeGreaterThan(0);
      await opened.wal.save(state(1), [entry(2, "again")]);
      await opened.wal.close();
      expect((await readWal("/d/wal", START, { fileSystem: files })).entries.length).toBe(2);
    }
  });

  it("refuses a broken record without a torn sector, and one in an earlier segment", async () => {
    const files = new MemoryFiles();
    const wal = await createWal("/d/wal", METADATA, memoryOptions(files, 2048));
    for (let i = 1; i < 40; i++) await wal.save(undefined, [entry(i, "v".repeat(100))]);
    await wal.close();
    for (const name of (await files.list("/d/wal")).slice(0, 2)) {
      const bytes = Buffer.from(files.bytes(`/d/wal/${name}`));
      const broken = Buffer.from(bytes);
      broken[bytes.lastIndexOf("v") as number] = 0x56;
      files.setBytes(`/d/wal/${name}`, broken);
      await expect(openWal("/d/wal", START, memoryOptions(files))).rejects.toMatchObject({ kind: "crcMismatch" });
      await expect(openWal("/d/wal", START, memoryOptions(files))).rejects.toThrow(name);
      files.setBytes(`/d/wal/${name}`, bytes);
    }
  });

  it("writes over garbage behind a zero length", async () => {
    const files = new MemoryFiles();
    const wal = await createWal("/d/wal", METADATA, memoryOptions(files));
    await wal.save(undefined, [entry(1)]);
    await wal.close();
    const bytes = Buffer.from(files.bytes(`/d/wal/${FIRST}`));
    bytes.fill(0xee, 5000, 6000);
    files.setBytes(`/d/wal/${FIRST}`, bytes);
    const opened = await openWal("/d/wal", START, memoryOptions(files));
    for (let i = 2; i < 60; i++) await opened.wal.save(undefined, [entry(i, "u".repeat(100))]);
    await opened.wal.close();
    expect((await readWal("/d/wal", START, { fileSystem: files })).entries.length).toBe(59);
  });
});

describe("damage", () => {
  /** A log of one segment, and the offsets at which its records end. */
  async function sample(): Promise<{ bytes: Buffer; ends: { end: number; entries: number }[] }> {
    const files = new MemoryFiles();
    const wal = await createWal("/d/wal", METADATA, memoryOptions(files));
    const random = new SeededRandom(42);
    for (let i = 1; i <= 30; i++) await wal.save(state(i), [entry(i, "t".repeat(random.below(800)))]);
    await wal.close();
    let entries = 0;
    const ends = (await recordsOf(files, `/d/wal/${FIRST}`)).map(({ record, end }) => {
      if (record.type === RecordType.entry) entries++;
      return { end, entries };
    });
    const last = ends.at(-1) as { end: number };
    return { bytes: Buffer.from(files.bytes(`/d/wal/${FIRST}`).subarray(0, last.end)), ends };
  }

  it("cut at any byte: exactly the whole records before the cut are recovered", async () => {
    const { bytes, ends } = await sample();
    const headEnd = (ends[2] as { end: number }).end;
    for (let cut = headEnd; cut <= bytes.length; cut += 1 + (cut % 11)) {
      const files = new MemoryFiles();
      files.setBytes(`/d/wal/${FIRST}`, bytes.subarray(0, cut));
      const whole = ends.filter(({ end }) => end <= cut).at(-1) as { entries: number };
      const opened = await openWal("/d/wal", START, memoryOptions(files));
      expect(opened.entries.length).toBe(whole.entries);
      await opened.wal.close();
    }
    for (let cut = 0; cut < headEnd; cut++) {
      const files = new MemoryFiles();
      files.setBytes(`/d/wal/${FIRST}`, bytes.subarray(0, cut));
      await expect(openWal("/d/wal", START, memoryOptions(files)), `cut ${cut}`).rejects.toThrow(WalError);
    }
  });

  it("a flipped bit in what the crc covers is always named", async () => {
    const { bytes } = await sample();
    const files = new MemoryFiles();
    files.setBytes(`/d/wal/${FIRST}`, bytes);
    const covered: number[] = [];
    let from = 0;
    for (const { record, end } of await recordsOf(files, `/d/wal/${FIRST}`)) {
      if (record.data) {
        // The data is the last field; padding is behind it.
        const start = bytes.indexOf(Buffer.from(record.data), from + 8);
        for (let i = start; i < start + record.data.length; i++) covered.push(i);
      }
      from = end;
    }
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 0, max: covered.length - 1 }),
        fc.integer({ min: 0, max: 7 }),
        async (n, bit) => {
          const at = covered[n] as number;
          const flipped = Buffer.from(bytes);
          flipped[at] = (flipped[at] as number) ^ (1 << bit);
          files.setBytes(`/d/wal/${FIRST}`, flipped);
          await expect(openWal("/d/wal", START, memoryOptions(files))).rejects.toThrow(WalError);
        },
      ),
      { numRuns: 300 },
    );
  });
});

describe("crashes", () => {
  interface Model {
    entries: Entry[];
    state: HardState;
  }

  const text = (model: Model) =>
    JSON.stringify([
      model.entries.map((e) => [e.index, e.term, Buffer.from(e.data ?? []).toString("latin1")]),
      [model.state.term, String(model.state.vote), model.state.commit],
    ]);

  /** The process dies at a random operation, the machine forgets what was not synced; twice in a row. */
  async function crashOnce(seed: number): Promise<void> {
    const random = new SeededRandom(seed);
    const chance = (bound: number) => random.below(bound);
    const segmentBytes = 1024 + chance(3000);
    // Time stands still, so that the calling thread may always wait for the disk when its callers let it.
    const options = () => ({ ...memoryOptions(files, segmentBytes), clock: new VirtualClock() });
    let files = new MemoryFiles();
    let model: Model = { entries: [], state: HardState.create() };
    let wal: Wal | undefined;
    for (let life = 0; life < 3; life++) {
      const dieAt = files.operations + 1 + chance(60);
      files.hooks = {
        before: (operation) => {
          if (operation >= dieAt) throw new InjectedError("EIO");
        },
        // A page cache takes whole blocks: a write is interrupted between two of them, not inside.
        shorten: (length, position) => {
          const end = Math.ceil((position + 1 + chance(length)) / 512) * 512;
          return chance(10) === 0 ? Math.min(length, end - position) : length;
        },
      };
      // Every state the log went through, record by record, and how many of them are acknowledged.
      const history: string[] = [text(model)];
      let acknowledged = 0;
      try {
        wal =
          life === 0 || !(await walExists("/d/wal", files))
            ? await createWal("/d/wal", METADATA, options())
            : (await openWal("/d/wal", START, options())).wal;
        for (let round = 0; round < 100; round++) {
          const saves: Promise<unknown>[] = [];
          const mayBlock = chance(2) === 0;
          for (let n = 1 + chance(3); n > 0; n--) {
            const last = model.entries.length;
            const overwrites = chance(8) === 0 && last > model.state.commit;
            const from = overwrites ? model.state.commit + 1 + chance(last - model.state.commit) : last + 1;
            const term = model.state.term + (overwrites || chance(10) === 0 ? 1 : 0) || 1;
            const added = Array.from({ length: chance(4) }, (_, i) => entry(from + i, "d".repeat(chance(600)), term));
            let next: Model = model;
            for (const e of added) {
              next = { entries: [...next.entries.slice(0, e.index - 1), e], state: next.state };
              history.push(text(next));
            }
            const hardState: HardState = {
              term,
              vote: 7n,
              commit: Math.min(next.entries.length, model.state.commit + chance(3)),
            };
            next = { entries: next.entries, state: hardState };
            history.push(text(next));
            const position = history.length - 1;
            const mustSync = added.length > 0 || hardState.term !== model.state.term || model.state.vote !== 7n;
            model = next;
            saves.push(
              wal.save(hardState, added, mayBlock).then(() => {
                if (mustSync) acknowledged = Math.max(acknowledged, position);
              }),
            );
          }
          await Promise.all(saves);
        }
        await wal.close();
      } catch (error) {
        expect(error instanceof WalWriteError || error instanceof InjectedError, String(error)).toBe(true);
      }
      files = files.crash(chance);
      if (!(await walExists("/d/wal", files))) {
        expect(acknowledged).toBe(0);
        model = { entries: [], state: HardState.create() };
        continue;
      }
      const opened = await openWal("/d/wal", START, options());
      await opened.wal.close();
      const recovered = { entries: opened.entries, state: opened.hardState };
      const at = history.lastIndexOf(text(recovered));
      expect(
        at,
        `seed ${seed}, life ${life}: not a state that ever was, or older than ${acknowledged}`,
      ).toBeGreaterThanOrEqual(acknowledged);
      model = recovered;
    }
  }

  it("never lose what was acknowledged, nor invent anything", async () => {
    for (let seed = 1; seed <= 150; seed++) await crashOnce(seed);
  });
});

describe("releaseTo() and purge()", () => {
  it("delete only segments whose entries are all before the index", async () => {
    const files = new MemoryFiles();
    const wal = await createWal("/d/wal", METADATA, memoryOptions(files, 1024));
    for (let i = 1; i <= 100; i++) await wal.save(state(i), [entry(i, "s".repeat(100))]);
    const all = await files.list("/d/wal");
    expect(await wal.purge(2)).toEqual([]);
    await wal.saveSnapshot({
      index: 60,
      term: 1,
      confState: { voters: [1n], learners: [], votersOutgoing: [], learnersNext: [], autoLeave: false },
    });
    wal.releaseTo(60);
    const purged = await wal.purge(2);
    expect(purged.length).toBeGreaterThan(3);
    expect(all.filter((name) => name.endsWith(".wal")).slice(0, purged.length)).toEqual(purged);
    expect(wal.neededSegments()[0]).toBe((await files.list("/d/wal")).filter((name) => name.endsWith(".wal"))[0]);
    await wal.close();
    const opened = await openWal("/d/wal", { index: 60, term: 1 }, memoryOptions(files, 1024));
    expect(opened.entries.map((e) => e.index)).toEqual(Array.from({ length: 40 }, (_, i) => 61 + i));
    await opened.wal.close();
  });
});

const realBin = process.env["ETCD_REAL_BIN"];

async function freePort(): Promise<number> {
  const server = net.createServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as net.AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}

describe.skipIf(!realBin)("a real etcd (ETCD_REAL_BIN)", () => {
  it("starts on a log of ours, and ours opens what it went on writing", async () => {
    const peerUrl = `http://127.0.0.1:${await freePort()}`;
    const clientUrl = `http://127.0.0.1:${await freePort()}`;
    const nodeId = computeMemberId([peerUrl], { token: "etcd-cluster" });
    const clusterId = computeClusterId([nodeId]);
    const options: WalOptions = { clock: systemClock, logger: silentLogger };
    const walDir = path.join(dir, "member/wal");
    fs.mkdirSync(path.join(dir, "member/snap"), { recursive: true, mode: 0o700 });
    const wal = await createWal(walDir, Metadata.encode({ nodeId, clusterId }), options);
    const member = { id: nodeId, name: "m1", peerUrls: [peerUrl], clientUrls: [], isLearner: false };
    const change = ConfChange.encode({ nodeId, context: Buffer.from(memberToJson(member)) });
    const put = InternalRaftRequest.encode({
      header: { id: 77n },
      put: { key: Buffer.from("from"), value: Buffer.from("ours") },
    });
    await wal.save({ term: 1, vote: nodeId, commit: 2 }, [
      { type: EntryType.EntryConfChange, term: 1, index: 1, data: change },
      { type: EntryType.EntryNormal, term: 1, index: 2, data: put },
    ]);
    await wal.close();

    const flags = ["--name", "m1", "--data-dir", dir, "--log-level", "error"];
    flags.push("--listen-client-urls", clientUrl, "--advertise-client-urls", clientUrl);
    flags.push("--listen-peer-urls", peerUrl, "--initial-advertise-peer-urls", peerUrl);
    flags.push("--initial-cluster", `m1=${peerUrl}`);
    const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("ETCD_")));
    const etcd = spawn(path.join(realBin as string, "etcd"), flags, { stdio: ["ignore", "ignore", "inherit"], env });
    try {
      const etcdctl = async (...args: string[]): Promise<string> => {
        const child = spawn(path.join(realBin as string, "etcdctl"), ["--endpoints", clientUrl, ...args]);
        let out = "";
        child.stdout.on("data", (piece) => {
          out += piece;
        });
        await once(child, "close");
        return out;
      };
      expect(await etcdctl("get", "from", "--dial-timeout", "20s", "--command-timeout", "20s")).toBe("from\nours\n");
      expect(await etcdctl("put", "from", "real")).toBe("OK\n");
    } finally {
      etcd.kill("SIGTERM");
      await once(etcd, "exit");
    }
    const opened = await openWal(walDir, START, options);
    const puts = opened.entries
      .filter((e) => e.type === EntryType.EntryNormal && e.data && e.data.length > 0)
      .flatMap((e) => {
        try {
          return [InternalRaftRequest.decode(e.data as Uint8Array).put];
        } catch {
          return []; // A bare version 2 request: the member publishing itself.
        }
      })
      .filter((request) => request !== undefined);
    expect(puts.map((request) => Buffer.from(request.value).toString())).toEqual(["ours", "real"]);
    await opened.wal.close();
  });
});
