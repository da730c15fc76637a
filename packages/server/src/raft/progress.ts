/**
 * What a leader knows of one member, and how it therefore sends to it.
 *
 *            accepted append                     snapshot needed
 *   probe ---------------------> replicate ----+
 *     ^  <---------------------                |
 *     |   rejection, unreachable               v
 *     +------------------------------------ snapshot   (from probe as well)
 *        reported sent or failed, or the follower
 *        acknowledges an index the log reaches
 *
 * In `probe` one append goes out per heartbeat interval, to find where the logs agree. In `replicate`, `next` runs ahead
 * of acknowledgements, bounded by the inflights. In `snapshot` nothing goes out.
 * Invariant: match < next.
 */
import { assertNever, InvariantError } from "../lib/assert.ts";
import type { Inflights } from "./inflights.ts";
import type { ProgressState, ProgressStatus } from "./types.ts";

const STATE_NAMES: Readonly<Record<ProgressState, string>> = {
  probe: "StateProbe",
  replicate: "StateReplicate",
  snapshot: "StateSnapshot",
};

export interface ProgressInit {
  readonly match: number;
  readonly next: number;
  readonly inflights: Inflights;
  readonly isLearner: boolean;
  readonly isRecentlyActive: boolean;
}

export class Progress {
  match: number;
  next: number;
  state: ProgressState = "probe";
  /** The highest commit index on its way to the follower. In `snapshot`, the snapshot's index. */
  sentCommit = 0;
  /** In `snapshot`: the index of the snapshot that was sent; else 0. */
  pendingSnapshot = 0;
  /** Heard of since the last CheckQuorum. Always true for the leader itself. */
  isRecentlyActive: boolean;
  /** The leader's tick at which it was heard of last; undefined until then, or until it is first looked for. */
  heardAtTick: number | undefined;
  /** No MsgApp until the next heartbeat response: a probe is out, or the window is full. */
  isAppendPaused = false;
  isLearner: boolean;
  readonly inflights: Inflights;

  constructor(init: ProgressInit) {
    this.match = init.match;
    this.next = init.next;
    this.inflights = init.inflights;
    this.isLearner = init.isLearner;
    this.isRecentlyActive = init.isRecentlyActive;
  }

  /** Shares the inflights: for a configuration change, which alters only `isLearner`. */
  clone(): Progress {
    const copy = new Progress(this);
    copy.state = this.state;
    copy.sentCommit = this.sentCommit;
    copy.pendingSnapshot = this.pendingSnapshot;
    copy.isAppendPaused = this.isAppendPaused;
    copy.heardAtTick = this.heardAtTick;
    return copy;
  }

  #enter(state: ProgressState): void {
    this.isAppendPaused = false;
    this.pendingSnapshot = 0;
    this.state = state;
    this.inflights.reset();
  }

  /** After a snapshot was sent, the follower is believed to have it. */
  becomeProbe(): void {
    const from = this.state === "snapshot" ? Math.max(this.match, this.pendingSnapshot) : this.match;
    this.#enter("probe");
    this.next = from + 1;
    this.sentCommit = Math.min(this.sentCommit, this.next - 1);
  }

  becomeReplicate(): void {
    this.#enter("replicate");
    this.next = this.match + 1;
  }

  becomeSnapshot(index: number): void {
    this.#enter("snapshot");
    this.pendingSnapshot = index;
    this.next = index + 1;
    this.sentCommit = index;
  }

  /** An append with this many entries and payload bytes has been sent. */
  sentEntries(count: number, bytes: number): void {
    switch (this.state) {
      case "replicate":
        if (count > 0) {
          this.next += count;
          this.inflights.add(this.next - 1, bytes);
        }
        // The message that fills the window is a probe of its own.
        this.isAppendPaused = this.inflights.isFull;
        return;
      case "probe":
        if (count > 0) this.isAppendPaused = true;
        return;
      case "snapshot":
        throw new InvariantError(`sending append in unhandled state ${STATE_NAMES[this.state]}`);
      default:
        assertNever(this.state);
    }
  }

  /** Whether telling the follower of `commit` could move its own commit index beyond what it was already told. */
  canBumpCommit(commit: number): boolean {
    return commit > this.sentCommit && this.sentCommit < this.next - 1;
  }

  /** The follower acknowledges up to `index`; false when that is old news. */
  maybeUpdate(index: number): boolean {
    if (index <= this.match) return false;
    this.match = index;
    this.next = Math.max(this.next, index + 1);
    this.isAppendPaused = false;
    return true;
  }

  /**
   * The follower rejected the append behind `rejected` and hints that the logs may agree up to `hint`.
   * False when the rejection is stale: late or repeated.
   */
  maybeDecreaseTo(rejected: number, hint: number): boolean {
    if (this.state === "replicate") {
      if (rejected <= this.match) return false;
      this.next = this.match + 1;
      this.sentCommit = Math.min(this.sentCommit, this.next - 1);
      return true;
    }
    // One probe is out at a time: another rejected index belongs to an older one.
    if (this.next - 1 !== rejected) return false;
    this.next = Math.max(Math.min(rejected, hint + 1), this.match + 1);
    this.sentCommit = Math.min(this.sentCommit, this.next - 1);
    this.isAppendPaused = false;
    return true;
  }

  get isPaused(): boolean {
    return this.state === "snapshot" || this.isAppendPaused;
  }

  status(): ProgressStatus {
    return {
      match: this.match,
      next: this.next,
      state: this.state,
      isLearner: this.isLearner,
      isRecentlyActive: this.isRecentlyActive,
      isPaused: this.isPaused,
      pendingSnapshot: this.pendingSnapshot,
      inflightMessages: this.inflights.count,
      isInflightFull: this.inflights.isFull,
    };
  }

  toString(): string {
    return progressText(this.status());
  }
}

export function progressText(status: ProgressStatus): string {
  let text = `${STATE_NAMES[status.state]} match=${status.match} next=${status.next}`;
  if (status.isLearner) text += " learner";
  if (status.isPaused) text += " paused";
  if (status.pendingSnapshot > 0) text += ` pendingSnap=${status.pendingSnapshot}`;
  if (!status.isRecentlyActive) text += " inactive";
  if (status.inflightMessages > 0) {
    text += ` inflight=${status.inflightMessages}`;
    if (status.isInflightFull) text += "[full]";
  }
  return text;
}

/** One line a member, in the order of the map. */
export function progressMapText(progress: ReadonlyMap<bigint, ProgressStatus>): string {
  let text = "";
  for (const [id, status] of progress) text += `${id}: ${progressText(status)}\n`;
  return text;
}
