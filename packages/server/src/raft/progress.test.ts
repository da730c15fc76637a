import { describe, expect, test } from "vitest";
import { Inflights } from "./inflights.ts";
import { Progress, progressText } from "./progress.ts";
import type { ProgressState } from "./types.ts";

/** match 4; in probe and replicate 5 to 7 may be on their way (next 8), in snapshot one at 9. */
function progressIn(state: ProgressState): Progress {
  const inflights = new Inflights(2, Number.POSITIVE_INFINITY);
  const progress = new Progress({ match: 4, next: 8, inflights, isLearner: false, isRecentlyActive: true });
  if (state === "replicate") {
    progress.becomeReplicate();
    progress.sentEntries(3, 30);
  }
  if (state === "snapshot") progress.becomeSnapshot(9);
  return progress;
}

/** What raft tells a Progress. */
const EVENTS = {
  "becomeProbe()": (progress) => progress.becomeProbe(),
  "becomeReplicate()": (progress) => progress.becomeReplicate(),
  "becomeSnapshot(20)": (progress) => progress.becomeSnapshot(20),
  "sent two entries": (progress) => progress.sentEntries(2, 20),
  "sent an empty append": (progress) => progress.sentEntries(0, 0),
  "acknowledged 4: old news": (progress) => progress.maybeUpdate(4),
  "acknowledged 6": (progress) => progress.maybeUpdate(6),
  "acknowledged 12": (progress) => progress.maybeUpdate(12),
  "rejected 7, hint 5": (progress) => progress.maybeDecreaseTo(7, 5),
  "rejected 7, hint 2": (progress) => progress.maybeDecreaseTo(7, 2),
  "rejected 3: stale": (progress) => progress.maybeDecreaseTo(3, 2),
} satisfies Record<string, (progress: Progress) => unknown>;

type EventName = keyof typeof EVENTS;

const TABLE: Readonly<Record<ProgressState, Readonly<Record<EventName, string>>>> = {
  probe: {
    "becomeProbe()": "StateProbe match=4 next=5",
    "becomeReplicate()": "StateReplicate match=4 next=5",
    "becomeSnapshot(20)": "StateSnapshot match=4 next=21 paused pendingSnap=20",
    "sent two entries": "StateProbe match=4 next=8 paused",
    "sent an empty append": "StateProbe match=4 next=8",
    "acknowledged 4: old news": "StateProbe match=4 next=8",
    "acknowledged 6": "StateProbe match=6 next=8",
    "acknowledged 12": "StateProbe match=12 next=13",
    "rejected 7, hint 5": "StateProbe match=4 next=6",
    "rejected 7, hint 2": "StateProbe match=4 next=5",
    "rejected 3: stale": "StateProbe match=4 next=8",
  },
  replicate: {
    "becomeProbe()": "StateProbe match=4 next=5",
    "becomeReplicate()": "StateReplicate match=4 next=5",
    "becomeSnapshot(20)": "StateSnapshot match=4 next=21 paused pendingSnap=20",
    "sent two entries": "StateReplicate match=4 next=10 paused inflight=2[full]",
    "sent an empty append": "StateReplicate match=4 next=8 inflight=1",
    "acknowledged 4: old news": "StateReplicate match=4 next=8 inflight=1",
    "acknowledged 6": "StateReplicate match=6 next=8 inflight=1",
    "acknowledged 12": "StateReplicate match=12 next=13 inflight=1",
    "rejected 7, hint 5": "StateReplicate match=4 next=5 inflight=1",
    "rejected 7, hint 2": "StateReplicate match=4 next=5 inflight=1",
    "rejected 3: stale": "StateReplicate match=4 next=8 inflight=1",
  },
  snapshot: {
    "becomeProbe()": "StateProbe match=4 next=10",
    "becomeReplicate()": "StateReplicate match=4 next=5",
    "becomeSnapshot(20)": "StateSnapshot match=4 next=21 paused pendingSnap=20",
    "sent two entries": "InvariantError: sending append in unhandled state StateSnapshot",
    "sent an empty append": "InvariantError: sending append in unhandled state StateSnapshot",
    "acknowledged 4: old news": "StateSnapshot match=4 next=10 paused pendingSnap=9",
    "acknowledged 6": "StateSnapshot match=6 next=10 paused pendingSnap=9",
    "acknowledged 12": "StateSnapshot match=12 next=13 paused pendingSnap=9",
    // Not the append that is out: there is none.
    "rejected 7, hint 5": "StateSnapshot match=4 next=10 paused pendingSnap=9",
    "rejected 7, hint 2": "StateSnapshot match=4 next=10 paused pendingSnap=9",
    "rejected 3: stale": "StateSnapshot match=4 next=10 paused pendingSnap=9",
  },
};

describe("Progress", () => {
  for (const [state, outcomes] of Object.entries(TABLE)) {
    for (const [event, outcome] of Object.entries(outcomes)) {
      test(`in ${state}: ${event}`, () => {
        const progress = progressIn(state as ProgressState);
        let text: string;
        try {
          EVENTS[event as EventName](progress);
          text = progressText(progress.status());
        } catch (error) {
          text = String(error);
        }
        expect(text).toBe(outcome);
      });
    }
  }

  test("tells a new commit index only where it can move the follower's", () => {
    const progress = progressIn("replicate");
    progress.sentCommit = 5;
    expect(progress.canBumpCommit(5)).toBe(false);
    expect(progress.canBumpCommit(6)).toBe(true);
    progress.sentCommit = 7;
    expect(progress.canBumpCommit(9)).toBe(false);
  });
});

describe("Inflights", () => {
  test("frees up to an index, also around the end of its ring", () => {
    const window = new Inflights(4, Number.POSITIVE_INFINITY);
    for (const index of [1, 2, 3, 4]) window.add(index, 10);
    expect(window.isFull).toBe(true);
    window.freeUpTo(2);
    expect([window.count, window.bytes]).toEqual([2, 20]);
    window.add(5, 1);
    window.add(6, 1);
    expect(window.isFull).toBe(true);
    window.freeUpTo(0);
    expect(window.count).toBe(4);
    window.freeUpTo(5);
    expect([window.count, window.bytes]).toEqual([1, 1]);
    window.freeUpTo(100);
    expect([window.count, window.bytes]).toEqual([0, 0]);
  });

  test("is full when its bytes are reached, and takes no more", () => {
    const window = new Inflights(100, 10);
    window.add(1, 9);
    expect(window.isFull).toBe(false);
    window.add(2, 9);
    expect(window.isFull).toBe(true);
    expect(() => window.add(3, 1)).toThrow("cannot add into a Full inflights");
    window.freeUpTo(1);
    expect(window.isFull).toBe(false);
  });
});
