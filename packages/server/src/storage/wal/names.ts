/** Segment files: `<sequence>-<first index>.wal`, both 16 digits of hex. */
import path from "node:path";
import type { Logger } from "../../lib/log.ts";
import { type FileSystem, hasCode } from "../file-system.ts";
import { WalError } from "./types.ts";

export interface SegmentName {
  readonly name: string;
  readonly sequence: number;
  /** Index of the first entry that may be in it. */
  readonly firstIndex: number;
}

const hex16 = (value: number): string => value.toString(16).padStart(16, "0");

export function segmentName(sequence: number, firstIndex: number): SegmentName {
  return { name: `${hex16(sequence)}-${hex16(firstIndex)}.wal`, sequence, firstIndex };
}

export function parseSegmentName(name: string): SegmentName | undefined {
  const match = /^([0-9a-f]{16})-([0-9a-f]{16})\.wal$/.exec(name);
  if (!match) return undefined;
  const sequence = Number.parseInt(match[1] as string, 16);
  const firstIndex = Number.parseInt(match[2] as string, 16);
  return Number.isSafeInteger(sequence) && Number.isSafeInteger(firstIndex)
    ? { name, sequence, firstIndex }
    : undefined;
}

/** All segments of a directory in their order. Throws WalError "notFound" when there are none. */
export async function listSegments(files: FileSystem, dir: string, logger: Logger): Promise<SegmentName[]> {
  let names: string[];
  try {
    names = await files.list(dir);
  } catch (error) {
    if (hasCode(error, "ENOENT")) throw new WalError("notFound", `wal: file not found: ${dir}`, { cause: error });
    throw error;
  }
  const segments: SegmentName[] = [];
  for (const name of names) {
    const segment = parseSegmentName(name);
    if (segment) segments.push(segment);
    else if (!name.endsWith(".tmp")) logger.warn("ignored file in WAL directory", { path: path.join(dir, name) });
  }
  if (segments.length === 0) throw new WalError("notFound", `wal: file not found: ${dir}`);
  return segments;
}

/** Those needed to read from `index` on: the last one that begins at or before it, and all that follow. */
export function selectSegments(segments: readonly SegmentName[], index: number): SegmentName[] {
  const start = segments.findLastIndex((segment) => segment.firstIndex <= index);
  if (start < 0) throw new WalError("notFound", `wal: file not found: no segment begins at or before index ${index}`);
  const selected = segments.slice(start);
  for (let i = 1; i < selected.length; i++) {
    const before = selected[i - 1] as SegmentName;
    const after = selected[i] as SegmentName;
    if (after.sequence !== before.sequence + 1) {
      throw new WalError("sequenceGap", `wal: file not found: nothing between ${before.name} and ${after.name}`);
    }
  }
  return selected;
}
