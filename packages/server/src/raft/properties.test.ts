/** Properties against models too plain to be wrong. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { silentLogger } from "../lib/log.ts";
import { type ConfChangeSingle, ConfChangeType, Entry } from "../pb/raftpb.ts";
import { enterJoint, leaveJoint, type Membership, simpleChange } from "./confchange/changer.ts";
import { restore } from "./confchange/restore.ts";
import { entrySize, limitSize } from "./entry-size.ts";
import { Inflights } from "./inflights.ts";
import { RaftLog } from "./log.ts";
import { jointVoteResult } from "./quorum/joint.ts";
import { majorityCommittedIndex, majorityVoteResult } from "./quorum/majority.ts";
import { emptyConfState, MemoryStorage, RaftStorageError } from "./storage.ts";
import { confStateOf, emptyConfiguration } from "./tracker.ts";

const ids = fc.uniqueArray(fc.bigInt(1n, 9n), { maxLength: 9 });
const entry = (term: number, index: number, data = new Uint8Array()): Entry => ({ term, index, type: 0, data });

describe("quorums", () => {
  test("the committed index is the highest that more than half have", () => {
    fc.assert(
      fc.property(ids, fc.array(fc.nat(20), { minLength: 9, maxLength: 9 }), (voters, indexes) => {
        fc.pre(voters.length > 0);
        const indexOf = (id: bigint) => indexes[Number(id) - 1] as number;
        const committed = majorityCommittedIndex(new Set(voters), indexOf);
        const having = (index: number) => voters.filter((id) => indexOf(id) >= index).length;
        expect(having(committed)).toBeGreaterThan(voters.length / 2);
        expect(having(committed + 1)).toBeLessThanOrEqual(voters.length / 2);
      }),
    );
  });

  test("a vote is won or lost as soon as the missing votes cannot alter it", () => {
    fc.assert(
      fc.property(
        ids,
        fc.array(fc.constantFrom(true, false, undefined), { minLength: 9, maxLength: 9 }),
        (voters, v) => {
          const votes = new Map<bigint, boolean>();
          for (const id of voters) {
            const vote = v[Number(id) - 1];
            if (vote !== undefined) votes.set(id, vote);
          }
          const endings = [true, false].map((missing) => {
            const yes = voters.filter((id) => votes.get(id) ?? missing).length;
            return voters.length === 0 || yes > voters.length / 2;
          });
          const expected = endings[0] === endings[1] ? (endings[0] ? "won" : "lost") : "pending";
          expect(majorityVoteResult(new Set(voters), votes)).toBe(expected);
          expect(jointVoteResult({ incoming: new Set(voters), outgoing: new Set(voters) }, votes)).toBe(expected);
        },
      ),
    );
  });
});

const change = fc.record({
  type: fc.constantFrom(...Object.values(ConfChangeType)),
  nodeId: fc.bigInt(0n, 6n),
}) satisfies fc.Arbitrary<ConfChangeSingle>;

describe("configuration changes", () => {
  const context = { lastIndex: 7, newInflights: () => new Inflights(1, Number.POSITIVE_INFINITY) };

  test("any that succeeds can be stored and restored, and overlaps in quorums with what it came from", () => {
    const step = fc.record({
      kind: fc.constantFrom("simple", "enter", "leave"),
      changes: fc.array(change, { maxLength: 3 }),
      autoLeave: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 12 }), (steps) => {
        let membership: Membership = { config: emptyConfiguration(), progress: new Map() };
        for (const { kind, changes, autoLeave } of steps) {
          const before = membership;
          try {
            if (kind === "simple") membership = simpleChange(before, changes, context);
            else if (kind === "enter") membership = enterJoint(before, autoLeave, changes, context);
            else membership = leaveJoint(before);
          } catch (error) {
            expect(String(error)).toMatch(/^ConfChangeError: /);
            continue;
          }
          const state = confStateOf(membership.config);
          expect(confStateOf(restore(state, context).config)).toEqual(state);
          // Any majority of the one meets any majority of the other: in one of two votes, who votes yes in both is shared.
          if (kind !== "simple" || before.config.incoming.size === 0) continue;
          const all = new Set([...before.config.incoming, ...membership.config.incoming]);
          for (let mask = 0; mask < 1 << all.size; mask++) {
            const yes = new Map([...all].map((id, i) => [id, (mask & (1 << i)) !== 0]));
            const no = new Map([...yes].map(([id, vote]) => [id, !vote]));
            const bothWin =
              majorityVoteResult(before.config.incoming, yes) === "won" &&
              majorityVoteResult(membership.config.incoming, no) === "won";
            expect(bothWin).toBe(false);
          }
        }
      }),
    );
  });

  test("an empty configuration is stored as nothing", () => {
    expect(confStateOf(emptyConfiguration())).toEqual(emptyConfState());
  });
});

describe("sizes", () => {
  test("an entry's size is that of its encoding", () => {
    const anyEntry = fc.record({
      term: fc.maxSafeNat(),
      index: fc.maxSafeNat(),
      type: fc.constantFrom(0, 1, 2),
      data: fc.option(fc.uint8Array({ maxLength: 300 }), { nil: undefined }),
    });
    fc.assert(
      fc.property(anyEntry, (one) => {
        expect(entrySize(one)).toBe(Entry.encode(one).length);
      }),
    );
  });

  test("a limit keeps the longest run that fits, and one entry at least", () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 20 })), fc.nat(200), (payloads, bytesMax) => {
        const entries = payloads.map((data, i) => entry(1, i + 1, data));
        const end = limitSize(entries, 0, entries.length, bytesMax);
        const size = (count: number) => entries.slice(0, count).reduce((sum, one) => sum + entrySize(one), 0);
        if (entries.length > 0) expect(end).toBeGreaterThan(0);
        if (end > 1) expect(size(end)).toBeLessThanOrEqual(bytesMax);
        if (end < entries.length) expect(size(end + 1)).toBeGreaterThan(bytesMax);
      }),
    );
  });
});

describe("the log", () => {
  /** A model: the terms of entries 1, 2, ... */
  const action = fc.oneof(
    fc.record({ kind: fc.constant("append" as const), back: fc.nat(5), count: fc.nat(4) }),
    fc.record({ kind: fc.constant("persist" as const) }),
    fc.record({ kind: fc.constant("stable" as const) }),
    fc.record({ kind: fc.constant("commit" as const), ahead: fc.nat(4) }),
    fc.record({ kind: fc.constant("apply" as const) }),
    fc.record({ kind: fc.constant("compact" as const) }),
  );

  test("reads the same whether entries are unstable, being written, stored or half of each", () => {
    fc.assert(
      fc.property(fc.array(action, { maxLength: 40 }), fc.nat(120), (actions, bytesMax) => {
        const storage = new MemoryStorage();
        const log = new RaftLog(storage, silentLogger, Number.POSITIVE_INFINITY);
        const model: Entry[] = [];
        const written: Entry[][] = [];
        let term = 1;
        for (const one of actions) {
          if (one.kind === "append") {
            // A leader of a new term replaces some of what is not committed.
            term++;
            const from = Math.max(log.committed, model.length - one.back);
            const entries = Array.from({ length: one.count }, (_, i) => entry(term, from + i + 1, new Uint8Array(i)));
            if (entries.length > 0) model.length = from;
            model.push(...entries);
            log.append(entries);
          } else if (one.kind === "persist") {
            written.push(log.unstable.nextEntries());
            log.unstable.acceptInProgress();
          } else if (one.kind === "stable") {
            for (const entries of written.splice(0)) storage.append(entries);
            const last = model.at(-1);
            if (last && !log.unstable.hasNextEntries && log.hasNextOrInProgressEntries) {
              log.unstable.stableTo(last.index, last.term);
            }
          } else if (one.kind === "commit") {
            log.commitTo(Math.min(model.length, log.committed + one.ahead));
          } else if (one.kind === "apply") {
            const entries = log.nextCommitted(true);
            expect(entries).toEqual(model.slice(log.applying, log.committed));
            log.appliedTo(log.committed, 0);
          } else if (log.applied > storage.firstIndex() && log.applied < log.unstable.offset) {
            storage.compact(log.applied);
          }
          expect(log.lastIndex()).toBe(model.length);
          expect(log.lastEntryId()).toEqual({ index: model.length, term: model.at(-1)?.term ?? 0 });
          for (let index = log.firstIndex(); index <= model.length; index++) {
            expect(log.term(index)).toBe((model[index - 1] as Entry).term);
          }
          const all = log.entriesFrom(log.firstIndex(), bytesMax) as Entry[];
          const end = limitSize(model, log.firstIndex() - 1, model.length, bytesMax);
          expect(all).toEqual(model.slice(log.firstIndex() - 1, end));
        }
      }),
    );
  });

  test("finds where it may agree with another log, as a search entry by entry does", () => {
    const terms = fc.array(fc.nat(3), { minLength: 1, maxLength: 12 });
    fc.assert(
      fc.property(terms, fc.nat(14), fc.nat(10), (steps, index, term) => {
        const storage = new MemoryStorage();
        let current = 1;
        for (const [i, step] of steps.entries()) {
          current += step;
          storage.append([entry(current, i + 1)]);
        }
        const log = new RaftLog(storage, silentLogger, Number.POSITIVE_INFINITY);
        const from = Math.min(index, log.lastIndex());
        let expected = from;
        while (expected > 0 && log.term(expected) > term) expected--;
        expect(log.findConflictByTerm(from, term)).toEqual({ index: expected, term: expected && log.term(expected) });
      }),
    );
  });
});

describe("MemoryStorage", () => {
  const filled = (): MemoryStorage => {
    const storage = new MemoryStorage();
    storage.append([1, 2, 3, 4, 5].map((index) => entry(index, index)));
    return storage;
  };

  test("keeps the term of the last compacted entry, and nothing before it", () => {
    const storage = filled();
    storage.compact(3);
    expect([storage.firstIndex(), storage.lastIndex(), storage.term(3), storage.term(5)]).toEqual([4, 5, 3, 5]);
    expect(() => storage.term(2)).toThrow(new RaftStorageError("compacted"));
    expect(() => storage.term(6)).toThrow(new RaftStorageError("unavailable"));
    expect(() => storage.entries(3, 5, 100)).toThrow(new RaftStorageError("compacted"));
    expect(() => storage.compact(3)).toThrow(new RaftStorageError("compacted"));
    expect(storage.entries(4, 6, 0).map(({ index }) => index)).toEqual([4]);
  });

  test("appending replaces what stands there, skips what is compacted and refuses a gap", () => {
    const storage = filled();
    storage.compact(2);
    storage.append([entry(7, 1), entry(7, 2), entry(7, 3)]);
    expect([storage.lastIndex(), storage.term(2), storage.term(3)]).toEqual([3, 2, 7]);
    storage.append([entry(7, 1)]);
    expect(storage.lastIndex()).toBe(3);
    expect(() => storage.append([entry(7, 5)])).toThrow("missing log entry [last: 3, append at: 5]");
  });

  test("handed-out entries do not change when the log does", () => {
    const storage = filled();
    const before = storage.entries(4, 6, Number.POSITIVE_INFINITY);
    storage.append([entry(9, 4)]);
    expect(before.map(({ term }) => term)).toEqual([4, 5]);
  });

  test("refuses snapshots older than its own", () => {
    const storage = filled();
    const snapshot = storage.createSnapshot(4, { ...emptyConfState(), voters: [1n] }, undefined);
    expect(snapshot.metadata).toEqual({ index: 4, term: 4, confState: { ...emptyConfState(), voters: [1n] } });
    expect(() => storage.createSnapshot(4, undefined, undefined)).toThrow(new RaftStorageError("snapshotOutOfDate"));
    expect(() => storage.applySnapshot(snapshot)).toThrow(new RaftStorageError("snapshotOutOfDate"));
    storage.applySnapshot({ data: undefined, metadata: { index: 9, term: 8, confState: emptyConfState() } });
    expect([storage.firstIndex(), storage.lastIndex(), storage.term(9)]).toEqual([10, 9, 8]);
  });
});
