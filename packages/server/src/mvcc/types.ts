/** What mvcc needs of others, and what it hands out. */
import type { Histogram } from "../lib/metrics.ts";
import type { Clock } from "../lib/clock.ts";
import type { Logger } from "../lib/log.ts";
import type { Backend } from "../storage/index.ts";
import type { RangeResult } from "./range.ts";

/** The lessor, as far as mvcc needs it: whether a lease exists. Which keys hang on it is mvcc's own `leased` table. */
export interface LeaseAttacher {
  has(leaseId: bigint): boolean;
}

export interface MvccOptions {
  readonly backend: Backend;
  readonly leases: LeaseAttacher;
  readonly clock: Clock;
  readonly logger: Logger;
  /** A background job (compaction, catching up) failed: state can no longer be trusted. Default: thrown unhandled. */
  readonly onFatal?: ((error: unknown) => void) | undefined;
  readonly limits?: Partial<MvccLimits> | undefined;
  /** Between two slices of a long listing, and two parts of its answer. Default: a turn of the event loop. */
  readonly giveWay?: (() => Promise<void>) | undefined;
}

export interface MvccLimits {
  /** Rows that a compaction removes before others may work: `--experimental-compaction-batch-limit`. */
  readonly compactionBatchRows: number;
  /** Pause after each such batch: `--experimental-compaction-sleep-interval`. */
  readonly compactionPauseMs: number;
  /** Responses that may wait in a watch stream's outbox. */
  readonly outboxResponsesMax: number;
  /** Milliseconds for which an answer that is sent in parts keeps the state it reads from pinned. */
  readonly longRangeHeldMs: number;
  /** Keys of a counted block when it is made. */
  readonly countBlockKeys: number;
  /** Bytes that all answers of more than ANSWER_BYTES_MAX hold together while they are sent. */
  readonly heldAnswersBytesMax: number;
  /** Pairs that a slice of a listing reads. */
  readonly listSliceKeys: number;
}

/** A large answer, measured but not made yet. All of it is of the revision at which it was measured. */
export interface LargeRange {
  readonly byteLength: number;
  /** Some pieces at a time. Throws Compacted when a compaction was quicker than the reader. */
  pieces(): Iterable<readonly Uint8Array[]>;
  /** To be awaited between two of them. */
  readonly giveWay: () => Promise<void>;
}

/** A range answered as bytes: fields `kvs`, `more` and `count` of a RangeResponse; the header goes before them. */
export interface EncodedRange {
  readonly pieces: readonly Uint8Array[];
  /** Set when the pairs are too many bytes to hold: then `pieces` is empty, and these are read as they are asked for. */
  readonly rest?: LargeRange | undefined;
  readonly more: boolean;
  readonly count: number;
  /** Pairs in the answer. */
  readonly pairs: number;
  /** As of {@link RangeResult}. */
  readonly marks?: RangeResult["marks"];
}

export interface KeyValueHash {
  readonly hash: number;
  /** The revision up to which history was hashed. */
  readonly revision: number;
  /** -1 when the store had never been compacted. */
  readonly compactRevision: number;
}

/** A hash that was asked for, and where the store stood when it was. */
export interface HashAt extends KeyValueHash {
  readonly currentRevision: number;
}

/** How long work of the background took. */
export interface MvccTimes {
  /** Milliseconds of one batch of a compaction, and of all of it. */
  readonly compactionPause: Histogram;
  readonly compactionTotal: Histogram;
  /** Seconds of a hash of everything, and of one up to a revision. */
  readonly hash: Histogram;
  readonly hashAtRevision: Histogram;
}

/** Counted since the store was opened, for metrics. */
export interface MvccStats {
  /** Living keys; `undefined` for the first moments after a start, while they are being counted. */
  readonly keys: number | undefined;
  readonly ranges: number;
  readonly puts: number;
  readonly deletes: number;
  readonly txns: number;
  readonly putBytes: number;
  readonly compactedRows: number;
  /** Wall clock of the last finished compaction, ms; 0 when there was none. */
  readonly lastCompactionMs: number;
}
