/** The log and the `.snap` files, read record by record from the first segment that is there. */
import fs from "node:fs";
import path from "node:path";
import { equalBytes, hexId } from "../../../lib/bytes.ts";
import { silentLogger } from "../../../lib/log.ts";
import { Metadata } from "../../../pb/etcdserverpb.ts";
import { ConfChange, ConfChangeType, ConfChangeV2, Entry, EntryType, HardState } from "../../../pb/raftpb.ts";
import { type Record, Snapshot as WalSnapshot } from "../../../pb/walpb.ts";
import { type OpenFile, systemFiles } from "../../file-system.ts";
import { decodeConfChangeContext, decodeV2Store, type V2Content } from "../../schema/index.ts";
import { decodeSnapFile, snapFileName } from "../../snap/index.ts";
import { WalError } from "../../wal/index.ts";
import { listSegments, type SegmentName } from "../../wal/names.ts";
import { RecordReader } from "../../wal/reader.ts";
import { RecordType } from "../../wal/record-buffer.ts";
import type { Report } from "./report.ts";

export interface ConfEntry {
  readonly index: number;
  readonly change: "add" | "remove" | "other";
  readonly nodeId: bigint;
}

export interface LogContent {
  readonly memberId: bigint;
  readonly clusterId: bigint;
  readonly firstIndex: number;
  readonly lastIndex: number;
  readonly commit: number;
  readonly term: number;
  readonly entries: number;
  readonly snapshots: readonly { readonly index: number; readonly term: number }[];
  /** Committed changes of membership, in order. */
  readonly confEntries: readonly ConfEntry[];
}

interface State {
  metadata: Uint8Array | undefined;
  firstIndex: number;
  lastIndex: number;
  lastTerm: number;
  hardState: HardState;
  entries: number;
  crc: number;
  readonly snapshots: { readonly index: number; readonly term: number }[];
  confEntries: ConfEntry[];
}

const CONSEQUENCE_CORRUPT =
  "the server refuses to start on it; what the log held from here on is lost to this member: take the entries from the others by removing and adding it, or restore a snapshot";

export async function verifyLog(walDir: string, report: Report): Promise<LogContent | undefined> {
  let segments: SegmentName[];
  try {
    segments = await listSegments(systemFiles, walDir, silentLogger);
  } catch (error) {
    report.add("lost", walDir, (error as Error).message, "the member has no log, and so no identity");
    return undefined;
  }
  const state: State = {
    metadata: undefined,
    firstIndex: 0,
    lastIndex: 0,
    lastTerm: 0,
    hardState: HardState.create(),
    entries: 0,
    crc: 0,
    snapshots: [],
    confEntries: [],
  };
  for (const [i, segment] of segments.entries()) {
    const file = path.join(walDir, segment.name);
    const before = segments[i - 1];
    if (before && before.sequence + 1 !== segment.sequence) {
      report.add("lost", walDir, `nothing lies between ${before.name} and ${segment.name}`, CONSEQUENCE_CORRUPT);
    }
    if (!(await verifySegment(file, state, { isFirst: i === 0, isLast: i === segments.length - 1 }, report))) break;
  }
  if (state.hardState.commit > state.lastIndex && state.entries > 0) {
    report.add(
      "lost",
      walDir,
      `the log ends with entry ${state.lastIndex}, and says that ${state.hardState.commit} is committed`,
      `entries ${state.lastIndex + 1} to ${state.hardState.commit} are lost to this member`,
    );
  }
  if (!state.metadata) return undefined;
  const { nodeId, clusterId } = Metadata.decode(state.metadata);
  const { commit, term } = state.hardState;
  return {
    memberId: nodeId,
    clusterId,
    firstIndex: state.firstIndex,
    lastIndex: state.lastIndex,
    commit,
    term,
    entries: state.entries,
    snapshots: state.snapshots.filter(({ index }) => index <= commit),
    confEntries: state.confEntries.filter(({ index }) => index <= commit),
  };
}

/** False: nothing behind it can be read. */
async function verifySegment(
  path_: string,
  state: State,
  place: { readonly isFirst: boolean; readonly isLast: boolean },
  report: Report,
): Promise<boolean> {
  const file = await systemFiles.open(path_, "read");
  try {
    const size = await file.size();
    const reader = new RecordReader([{ file, size }]);
    let count = 0;
    for (;;) {
      const at = reader.offset;
      let record: Record | undefined;
      try {
        record = await reader.next();
      } catch (error) {
        if (!(error instanceof WalError)) throw error;
        const isTorn = error.kind === "unexpectedEof" && place.isLast;
        if (isTorn) {
          report.add(
            "repairable",
            path_,
            `${error.message}`,
            `the next start cuts the log off behind entry ${state.lastIndex}, at byte ${reader.offset}; a record that was never whole was never acknowledged`,
          );
        } else
          report.add(
            "lost",
            path_,
            `${error.message}`,
            `${CONSEQUENCE_CORRUPT} (the last entry before it is ${state.lastIndex})`,
          );
        return false;
      }
      if (record === undefined) break;
      const problem = takeRecord(record, count, state, place.isFirst);
      if (problem === undefined && reader.offset % 8 !== 0) {
        report.add("repairable", path_, `the record at byte ${at} has a wrong padding`, "it is read all the same");
      }
      if (problem !== undefined) {
        report.add("lost", path_, `the record at byte ${at}: ${problem}`, CONSEQUENCE_CORRUPT);
        return false;
      }
      count++;
    }
    await verifyRest(file, size, reader.offset, path_, { ...place, state }, report);
    state.crc = reader.crc;
    return true;
  } finally {
    await file.close();
  }
}

/** Behind the last record there is nothing but zeros, and in a finished segment nothing at all. */
async function verifyRest(
  file: OpenFile,
  size: number,
  from: number,
  path_: string,
  { isLast, state }: { readonly isLast: boolean; readonly state: State },
  report: Report,
): Promise<void> {
  if (!isLast && from < size) {
    report.add("lost", path_, `a finished segment that ends at byte ${from} of ${size}`, CONSEQUENCE_CORRUPT);
    return;
  }
  const buffer = Buffer.allocUnsafeSlow(1024 * 1024);
  const zeros = Buffer.alloc(buffer.length);
  for (let at = from; at < size; ) {
    const count = await file.read(buffer, 0, Math.min(buffer.length, size - at), at);
    if (count === 0) return;
    if (buffer.compare(zeros, 0, count, 0, count) !== 0) {
      const first = at + buffer.subarray(0, count).findIndex((byte) => byte !== 0);
      report.add(
        "lost",
        path_,
        `the log ends at byte ${from}, and there is data behind it, from byte ${first} on`,
        `unless a crash left it there, it was entries from ${state.lastIndex + 1} on, which the next start cuts off`,
      );
      return;
    }
    at += count;
  }
}

/** Everything is checked against what the writer would have written: the checksum covers the contents alone. */
function takeRecord(record: Record, count: number, state: State, isFirstSegment: boolean): string | undefined {
  const data = record.data ?? new Uint8Array(0);
  if (count === 0 && record.type !== RecordType.crc) return "a segment begins with its checksum, and this one does not";
  if (count === 1 && record.type !== RecordType.metadata)
    return "the second record of a segment is its metadata, and here is not";
  try {
    switch (record.type) {
      case RecordType.crc:
        if (count > 0) return "a checksum record in the middle of a segment";
        if (!isFirstSegment && record.crc !== state.crc)
          return "it does not continue the checksum of the segment before";
        return undefined;
      case RecordType.metadata:
        if (!equalBytes(Metadata.encode(Metadata.decode(data)), data)) return "no metadata";
        if (state.metadata && !equalBytes(state.metadata, data)) return "another identity than before";
        state.metadata = data;
        return undefined;
      case RecordType.state: {
        const hardState = HardState.decode(data);
        if (!equalBytes(HardState.encode(hardState), data)) return "no state of raft";
        if (hardState.term < state.hardState.term) return `term ${hardState.term} after ${state.hardState.term}`;
        if (hardState.commit < state.hardState.commit) {
          return `commit ${hardState.commit} after ${state.hardState.commit}`;
        }
        state.hardState = hardState;
        return undefined;
      }
      case RecordType.snapshot: {
        const snapshot = WalSnapshot.decode(data);
        if (!equalBytes(WalSnapshot.encode(snapshot), data)) return "no snapshot";
        state.snapshots.push(snapshot);
        if (snapshot.index > state.lastIndex) {
          state.lastIndex = snapshot.index;
          state.lastTerm = snapshot.term;
        }
        return undefined;
      }
      case RecordType.entry:
        return takeEntry(data, state);
      default:
        return `a record of unknown type ${record.type}`;
    }
  } catch (error) {
    return (error as Error).message;
  }
}

function takeEntry(data: Uint8Array, state: State): string | undefined {
  const entry = Entry.decode(data);
  if (!equalBytes(Entry.encode(entry), data)) return "no entry";
  if (state.entries === 0 && state.lastIndex === 0) state.firstIndex = entry.index;
  else if (entry.index > state.lastIndex + 1 && state.entries > 0) {
    return `entry ${entry.index} follows entry ${state.lastIndex}`;
  }
  if (state.firstIndex === 0) state.firstIndex = entry.index;
  if (entry.index <= state.hardState.commit && state.entries > 0 && entry.index <= state.lastIndex) {
    return `entry ${entry.index} is written again after it was committed`;
  }
  state.entries++;
  state.lastIndex = entry.index;
  state.lastTerm = entry.term;
  state.confEntries = state.confEntries.filter(({ index }) => index < entry.index);
  for (const change of confChangesOf(entry)) state.confEntries.push({ index: entry.index, ...change });
  return undefined;
}

function confChangesOf({ type, data = new Uint8Array(0) }: Entry): Omit<ConfEntry, "index">[] {
  const kind = (change: number): ConfEntry["change"] =>
    change === ConfChangeType.ConfChangeRemoveNode
      ? "remove"
      : change === ConfChangeType.ConfChangeUpdateNode
        ? "other"
        : "add";
  if (type === EntryType.EntryConfChange) {
    const { type: change, nodeId, context } = ConfChange.decode(data);
    const isPromote = context !== undefined && context.length > 0 && decodeConfChangeContext(context).isPromote;
    return [{ change: isPromote ? "other" : kind(change), nodeId }];
  }
  if (type === EntryType.EntryConfChangeV2) {
    return ConfChangeV2.decode(data).changes.map(({ type: change, nodeId }) => ({ change: kind(change), nodeId }));
  }
  return [];
}

export interface SnapContent {
  readonly index: number;
  readonly term: number;
  readonly voters: readonly bigint[];
  readonly learners: readonly bigint[];
  readonly store: V2Content;
}

/** The newest snapshot that the log vouches for. */
export function verifySnaps(snapDir: string, log: LogContent | undefined, report: Report): SnapContent | undefined {
  const known = new Set((log?.snapshots ?? []).map(snapFileName));
  let newest: SnapContent | undefined;
  const damaged: { readonly file: string; readonly problem: string }[] = [];
  const names = fs.readdirSync(snapDir).filter((name) => name.endsWith(".snap"));
  for (const name of names.sort()) {
    const file = path.join(snapDir, name);
    try {
      const snapshot = decodeSnapFile(fs.readFileSync(file));
      const { index, term, confState } = snapshot.metadata;
      if (snapFileName({ index, term }) !== name) throw new Error(`it is the snapshot at term ${term}, index ${index}`);
      const store = decodeV2Store(snapshot.data ?? new Uint8Array(0));
      if (log && !known.has(name)) {
        report.add("note", file, "the log does not mention it", "it is not used");
        continue;
      }
      newest = { index, term, voters: confState.voters, learners: confState.learners, store };
    } catch (error) {
      damaged.push({ file, problem: (error as Error).message });
    }
  }
  const isWholeLog = log !== undefined && log.firstIndex === 1;
  for (const { file, problem } of damaged) {
    const canDoWithout = newest !== undefined || isWholeLog;
    report.add(
      canDoWithout ? "repairable" : "lost",
      file,
      problem,
      canDoWithout
        ? "the next start sets it aside and begins with an older one and the log"
        : "no other snapshot is there, and the log does not begin at the start: membership is lost to this member",
    );
  }
  if (newest) verifyMembershipOf(newest, path.join(snapDir, snapFileName(newest)), report);
  else if (log && damaged.length === 0 && log.firstIndex > 1) {
    report.add("lost", snapDir, "no snapshot is there", "the log does not begin at the start: membership is lost");
  }
  return newest;
}

function verifyMembershipOf(snap: SnapContent, file: string, report: Report): void {
  const members = new Set(snap.store.members.keys());
  for (const id of [...snap.voters, ...snap.learners]) {
    if (members.has(id)) members.delete(id);
    else
      report.add(
        "repairable",
        file,
        `raft has member ${hexId(id)}, and the cluster's records do not`,
        "the next snapshot mends it",
      );
  }
  for (const id of members) {
    report.add(
      "repairable",
      file,
      `member ${hexId(id)} is in the cluster's records, and raft does not have it`,
      "the next snapshot mends it",
    );
  }
}

/** Who is a member once the entries up to `index` are applied. */
export function membersAt(index: number, snap: SnapContent | undefined, log: LogContent): Set<bigint> {
  const members = new Set(snap?.store.members.keys() ?? []);
  for (const { index: at, change, nodeId } of log.confEntries) {
    if (at <= (snap?.index ?? 0) || at > index) continue;
    if (change === "add") members.add(nodeId);
    else if (change === "remove") members.delete(nodeId);
  }
  return members;
}
