/** Bounds of this room, with unit and source. etcd's numbers unless said otherwise. */

/** Rows that one batch of a compaction removes before others may work. */
export const COMPACTION_BATCH_ROWS = 1000;

/** Rows that one slice of a hash or of a rebuild reads before others may work. Ours. */
export const SCAN_SLICE_ROWS = 2000;

/** Bytes that such a slice reads at most, but for one row that is larger. Ours. */
export const SCAN_SLICE_BYTES = 2 * 1024 * 1024;

/** Hashes of finished compactions that are remembered. */
export const COMPACTION_HASHES_MAX = 10;

/** Bytes of an answer to a range that are held; one of more is read again, a part at a time, as it is sent. Ours. */
export const ANSWER_BYTES_MAX = 4 * 1024 * 1024;

/**
 * Bytes beyond that which all answers that are being sent may hold together. A list that fits in is read once, and needs no
 * snapshot; one that does not is measured first. Ours.
 */
export const HELD_ANSWERS_BYTES_MAX = 64 * 1024 * 1024;

/** A part ends with the pair that makes it so large, in bytes, or so many, in pairs. Ours. */
export const ANSWER_PART_BYTES = 256 * 1024;
export const ANSWER_PART_KEYS = 1000;

/** Pairs that a listing without a limit reads at once; a larger one is read in slices. Ours. */
export const LIST_AT_ONCE_KEYS = 1000;

/** Pairs of such a slice, which is about what others wait for: a quarter of a millisecond. Ours. */
export const LIST_SLICE_KEYS = 256;

/** Bytes of encoded pairs that are kept from one listing for the next. Ours. */
export const PAIR_CACHE_BYTES_MAX = 48 * 1024 * 1024;

/** A block of more bytes is not kept. Ours. */
export const PAIR_CACHE_BLOCK_BYTES_MAX = 256 * 1024;

/** Milliseconds after its last use for which a block is not given up for another one. Ours. */
export const PAIR_CACHE_RESIDENT_MS = 10_000;

/** Milliseconds after its last use when a block is given up; looked at as often. Ours. */
export const PAIR_CACHE_IDLE_MS = 60_000;

/** Times that a listing begins anew because a compaction was quicker; then it is read from a snapshot. Ours. */
export const LIST_ATTEMPTS_MAX = 3;

/** Bytes that either reads at most, but for one pair that is larger. Ours. */
export const LIST_SLICE_BYTES = 1024 * 1024;

/** Pairs that a listing with a limit reads at once: its count comes from blocks then. Ours. */
export const LIMITED_LIST_KEYS_MAX = 5000;

/** Keys that a listing with a larger limit counts behind it before others may work. Ours. */
export const COUNT_SLICE_KEYS = 4000;

/** Listings in slices that run at a time; others wait. Ours. */
export const LISTS_MAX = 4;

/**
 * Milliseconds for which an answer that is read as it is sent keeps its snapshot open, and how many do so at a time. Beyond
 * either it reads the store at its revision, which a compaction may remove. Ours.
 */
export const LONG_RANGE_HELD_MS = 60_000;
export const LONG_RANGES_HELD_MAX = 64;

/** Live keys that a range at an old revision takes at a time. Ours. */
export const OLD_RANGE_CHUNK_KEYS = 1000;

/** Responses that may wait in a watch stream's outbox; then its watchers become victims. */
export const OUTBOX_RESPONSES_MAX = 128;

/** Distinct revisions in one response of a watcher that catches up. */
export const CATCH_UP_REVISIONS_MAX = 1000;

/** Events that one slice of catching up hands out, should every revision be for every watcher. Ours. */
export const CATCH_UP_EVENTS = 50_000;

/** Bytes of events that may wait in a watch stream's outbox, but for one response that is larger. Ours. */
export const OUTBOX_BYTES_MAX = 8 * 1024 * 1024;

/** Slices of catching up that run before others may work, within {@link CATCH_UP_TURN_MS}. Ours. */
export const CATCH_UP_SLICES_PER_TURN = 8;

/** Milliseconds after which no further slice is begun in a turn. Ours. */
export const CATCH_UP_TURN_MS = 4;

/** Bytes of history that one slice of catching up reads; ends at the next whole revision. Ours. */
export const CATCH_UP_SLICE_BYTES = 4 * 1024 * 1024;

/** Operations a level of a transaction may have, all nested ones counted: `--max-txn-ops`. */
export const TXN_OPERATIONS_MAX = 128;

/** Memory that events of a transaction share, in bytes; who gets few of them has them copied. Our own. */
export const EVENT_MEMORY_BYTES = 64 * 1024;
