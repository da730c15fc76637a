/** Creating, opening, repairing and looking at a WAL directory. */
import path from "node:path";
import { equalBytes } from "../../lib/bytes.ts";
import { type Logger, silentLogger } from "../../lib/log.ts";
import { Entry, HardState } from "../../pb/raftpb.ts";
import { type Record, Snapshot } from "../../pb/walpb.ts";
import { type FileSystem, hasCode, type OpenFile, systemFiles, writeFully } from "../file-system.ts";
import { listSegments, type SegmentName, segmentName, selectSegments } from "./names.ts";
import { RecordReader, type SegmentFile } from "./reader.ts";
import { RecordBuffer, RecordType } from "./record-buffer.ts";
import { SEGMENT_BYTES, type Wal, type WalContent, WalError, type WalOptions, type WalSnapshot } from "./types.ts";
import { WalWriter } from "./writer.ts";

export interface OpenedWal extends WalContent {
  readonly wal: Wal;
}

/** What reading needs; nothing is written. */
export interface WalReadOptions {
  readonly logger?: Logger | undefined;
  readonly fileSystem?: FileSystem | undefined;
}

/** Where to read from: a snapshot's place in the log; zeros for the beginning. */
export type WalStart = Pick<WalSnapshot, "index" | "term">;

export async function walExists(dir: string, files: FileSystem = systemFiles): Promise<boolean> {
  try {
    return (await files.list(dir)).some((name) => name.endsWith(".wal"));
  } catch (error) {
    if (hasCode(error, "ENOENT") || hasCode(error, "ENOTDIR")) return false;
    throw error;
  }
}

/**
 * A new log in `dir`, with `metadata` (bytes of etcdserverpb.Metadata) at the head of every segment. It is made beside
 * its place and renamed into it, so a crash leaves a whole log or none.
 */
export async function createWal(dir: string, metadata: Uint8Array, options: WalOptions): Promise<Wal> {
  const files = options.fileSystem ?? systemFiles;
  if (await walExists(dir, files)) throw new WalError("exists", `wal: ${dir} holds a log already`);
  const temporary = `${path.resolve(dir)}.tmp`;
  await files.removeTree(temporary);
  await files.makeDirectory(temporary, 0o700);
  const first = segmentName(0, 0);
  const header = new RecordBuffer();
  header.crc(0);
  let crc = header.data(RecordType.metadata, metadata, 0);
  crc = header.data(RecordType.snapshot, Snapshot.encode({ index: 0, term: 0 }), crc);
  const created = await files.open(path.join(temporary, first.name), "create", 0o600);
  try {
    await created.truncate(options.segmentBytes ?? SEGMENT_BYTES);
    await writeFully(created, header.bytes, header.length, 0);
    if (!options.unsafeNoFsync) await created.sync();
  } finally {
    await created.close();
  }
  if (!options.unsafeNoFsync) await files.syncDirectory(temporary);
  // Without a segment in it, what stands in the place is a leftover.
  await files.removeTree(dir);
  await files.rename(temporary, dir);
  if (!options.unsafeNoFsync) await files.syncDirectory(path.dirname(path.resolve(dir)));
  const file = await files.open(path.join(dir, first.name), "write");
  return new WalWriter(
    {
      dir,
      metadata,
      hardState: HardState.create(),
      segments: [first],
      file,
      offset: header.length,
      crc,
      lastIndex: 0,
    },
    options,
  );
}

interface Scan extends WalContent {
  readonly crc: number;
  readonly offset: number;
  readonly lastIndex: number;
}

function decodeOr<T>(codec: { readonly typeName: string; decode(bytes: Uint8Array): T }, record: Record): T {
  try {
    return codec.decode(record.data ?? new Uint8Array(0));
  } catch (error) {
    throw new WalError("badRecord", `wal: cannot decode ${codec.typeName}`, { cause: error });
  }
}

/** The index of an entry whose fields come in the order in which all writers put them: type, term, index. */
function plainEntryIndex(data: Uint8Array): number | undefined {
  let at = 0;
  if (data[at] === 0x08) at += 2;
  if (data[at] === 0x10) {
    at++;
    while ((data[at++] as number) >= 0x80);
  }
  if (data[at++] !== 0x18) return undefined;
  let index = 0;
  for (let scale = 1; scale <= 2 ** 49; scale *= 128) {
    const byte = data[at++];
    if (byte === undefined) return undefined;
    index += (byte & 0x7f) * scale;
    if (byte < 0x80) return index <= Number.MAX_SAFE_INTEGER ? index : undefined;
  }
  return undefined;
}

/** Reads all records from `start` on. `tolerateTornEnd`: for those who only look, a torn end is an end. */
async function scan(
  segments: readonly SegmentFile[],
  start: WalStart,
  tolerateTornEnd: boolean,
): Promise<Scan & { readonly hasStart: boolean }> {
  const reader = new RecordReader(segments);
  const entries: Entry[] = [];
  let metadata: Uint8Array | undefined;
  let hardState = HardState.create();
  let lastIndex = 0;
  let hasStart = false;
  for (;;) {
    let record: Record | undefined;
    try {
      const next = reader.next();
      record = next instanceof Promise ? await next : next;
    } catch (error) {
      if (tolerateTornEnd && error instanceof WalError && error.kind === "unexpectedEof") break;
      throw error;
    }
    if (record === undefined) break;
    switch (record.type) {
      case RecordType.entry: {
        // What comes before the start is not wanted: its index is all that is looked at.
        const index = record.data && plainEntryIndex(record.data);
        if (index !== undefined && index <= start.index) {
          lastIndex = index;
          break;
        }
        const entry = decodeOr(Entry, record);
        lastIndex = entry.index;
        if (entry.index <= start.index) break;
        const at = entry.index - start.index - 1;
        if (at > entries.length) {
          throw new WalError(
            "sliceOutOfRange",
            `wal: slice bounds out of range, snapshot[Index: ${start.index}, Term: ${start.term}], ` +
              `current entry[Index: ${entry.index}, Term: ${entry.term}], len(ents): ${entries.length}`,
          );
        }
        // What a later leader wrote at an index takes the place of that entry and of all behind it.
        entries.length = at;
        entries.push(entry);
        break;
      }
      case RecordType.state:
        hardState = decodeOr(HardState, record);
        break;
      case RecordType.metadata: {
        const data = record.data ?? new Uint8Array(0);
        if (metadata && !equalBytes(metadata, data)) {
          throw new WalError("metadataConflict", "wal: conflicting metadata found");
        }
        metadata = data;
        break;
      }
      case RecordType.crc:
        break;
      case RecordType.snapshot: {
        const snapshot = decodeOr(Snapshot, record);
        lastIndex = Math.max(lastIndex, snapshot.index);
        if (snapshot.index !== start.index) break;
        if (snapshot.term !== start.term) throw new WalError("snapshotMismatch", "wal: snapshot mismatch");
        hasStart = true;
        break;
      }
      default:
        throw new WalError("badRecord", `wal: unexpected block type ${record.type}`);
    }
  }
  return {
    metadata: metadata ?? new Uint8Array(0),
    hardState,
    entries,
    crc: reader.crc,
    offset: reader.offset,
    lastIndex,
    hasStart,
  };
}

async function withSegments<T>(
  files: FileSystem,
  dir: string,
  segments: readonly SegmentName[],
  use: (opened: readonly SegmentFile[]) => Promise<T>,
): Promise<T> {
  const opened: SegmentFile[] = [];
  try {
    for (const segment of segments) {
      const file = await files.open(path.join(dir, segment.name), "read");
      opened.push({ file, size: 0 });
      opened[opened.length - 1] = { file, size: await file.size() };
    }
    return await use(opened);
  } finally {
    for (const { file } of opened) await file.close();
  }
}

function requireStart(found: Scan & { readonly hasStart: boolean }): Scan {
  if (!found.hasStart) throw new WalError("snapshotNotFound", "wal: snapshot not found");
  return found;
}

/**
 * Opens a log for writing and reads what follows `start`, the snapshot that the state machine begins with. A torn end
 * is repaired once: the damaged file is kept as `<name>.broken`, its torn record is cut off, and a line names it. Any
 * other damage is refused with a WalError.
 */
export async function openWal(dir: string, start: WalStart, options: WalOptions): Promise<OpenedWal> {
  const files = options.fileSystem ?? systemFiles;
  const { logger } = options;
  let repaired = false;
  for (;;) {
    const segments = selectSegments(await listSegments(files, dir, logger), start.index);
    try {
      const found = requireStart(await withSegments(files, dir, segments, (opened) => scan(opened, start, false)));
      return await startWriting(dir, segments, found, options);
    } catch (error) {
      if (repaired || !(error instanceof WalError) || error.kind !== "unexpectedEof") throw error;
      if (!(await repairWal(dir, options))) throw error;
      logger.info("repaired WAL", { error: error.message });
      repaired = true;
    }
  }
}

async function startWriting(
  dir: string,
  segments: readonly SegmentName[],
  found: Scan,
  options: WalOptions,
): Promise<OpenedWal> {
  const files = options.fileSystem ?? systemFiles;
  const last = segments.at(-1) as SegmentName;
  const file = await files.open(path.join(dir, last.name), "write");
  try {
    // Behind the end there may be parts of a write that was never whole. New records must not run into them.
    const size = Math.max(await file.size(), options.segmentBytes ?? SEGMENT_BYTES);
    await file.truncate(found.offset);
    await file.truncate(size);
    if (!options.unsafeNoFsync) await file.sync();
  } catch (error) {
    await file.close();
    throw error;
  }
  const { metadata, hardState, entries, offset, crc, lastIndex } = found;
  const wal = new WalWriter({ dir, metadata, hardState, segments, file, offset, crc, lastIndex }, options);
  return { wal, metadata, hardState, entries };
}

/** Reads what follows `start` without writing anything; a torn end counts as the end. For tools, and for looking. */
export async function readWal(dir: string, start: WalStart, options: WalReadOptions = {}): Promise<WalContent> {
  const files = options.fileSystem ?? systemFiles;
  const segments = selectSegments(await listSegments(files, dir, options.logger ?? silentLogger), start.index);
  const found = requireStart(await withSegments(files, dir, segments, (opened) => scan(opened, start, true)));
  return { metadata: found.metadata, hardState: found.hardState, entries: found.entries };
}

/** Reads the log from `start` on and gives its last hard state; throws a WalError for any damage but a torn end. */
export async function verifyWal(dir: string, start: WalStart, options: WalReadOptions = {}): Promise<HardState> {
  return (await readWal(dir, start, options)).hardState;
}

/**
 * The snapshots that the log vouches for, oldest first: recorded, and at or before the last commit that was saved. A
 * `.snap` file is used only when it is one of these.
 */
export async function validSnapshots(dir: string, options: WalReadOptions = {}): Promise<WalSnapshot[]> {
  const files = options.fileSystem ?? systemFiles;
  const segments = await listSegments(files, dir, options.logger ?? silentLogger);
  return withSegments(files, dir, segments, async (opened) => {
    const reader = new RecordReader(opened);
    const snapshots: WalSnapshot[] = [];
    let commit = 0;
    try {
      for (;;) {
        const next = reader.next();
        const record = next instanceof Promise ? await next : next;
        if (record === undefined) break;
        if (record.type === RecordType.snapshot) snapshots.push(decodeOr(Snapshot, record));
        else if (record.type === RecordType.state) commit = decodeOr(HardState, record).commit;
      }
    } catch (error) {
      if (!(error instanceof WalError) || error.kind !== "unexpectedEof") throw error;
    }
    return snapshots.filter((snapshot) => snapshot.index <= commit);
  });
}

/**
 * Cuts the torn record off the last segment, after keeping a copy of the file as `<name>.broken`. False when the damage
 * is of another kind, or the disk refuses; nothing was lost that had been synced.
 */
export async function repairWal(dir: string, options: WalOptions): Promise<boolean> {
  const files = options.fileSystem ?? systemFiles;
  const { logger } = options;
  const segments = await listSegments(files, dir, logger);
  const name = path.join(dir, (segments.at(-1) as SegmentName).name);
  logger.info("repairing", { path: name });
  const file = await files.open(name, "write");
  try {
    const size = await file.size();
    const reader = new RecordReader([{ file, size }]);
    try {
      while ((await reader.next()) !== undefined) {
        // Only the end is of interest.
      }
    } catch (error) {
      if (!(error instanceof WalError) || error.kind !== "unexpectedEof") {
        logger.warn("failed to repair", { path: name, error: error instanceof Error ? error.message : String(error) });
        return false;
      }
      await copyTo(files, file, size, `${name}.broken`, options.unsafeNoFsync === true);
      await file.truncate(reader.offset);
      if (!options.unsafeNoFsync) await file.sync();
      logger.info("repaired", { path: name, error: "unexpected EOF" });
      return true;
    }
    logger.info("repaired", { path: name, error: "EOF" });
    return true;
  } finally {
    await file.close();
  }
}

async function copyTo(
  files: FileSystem,
  from: OpenFile,
  size: number,
  target: string,
  unsafeNoFsync: boolean,
): Promise<void> {
  const copy = await files.open(target, "create", 0o600);
  try {
    const chunk = Buffer.allocUnsafe(1024 * 1024);
    for (let at = 0; at < size; ) {
      const count = await from.read(chunk, 0, Math.min(chunk.length, size - at), at);
      if (count === 0) break;
      // Zeros stay a hole: most of a segment is one.
      if (!chunk.subarray(0, count).every((byte) => byte === 0)) await writeFully(copy, chunk, count, at);
      at += count;
    }
    await copy.truncate(size);
    if (!unsafeNoFsync) await copy.sync();
  } finally {
    await copy.close();
  }
}
