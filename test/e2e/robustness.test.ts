/**
 * Clients and watchers write down what they are told while members are killed, stand still and are cut off; then all of it
 * must fit together: the operations into one order, what each watch told into the sequence of changes. The same with
 * real members shows that the checks ask for nothing that etcd does not keep; and a history that is bent must not pass.
 */
import { describe, expect, it } from "vitest";
import { checkLinearizable, type Operation } from "./harness/linearizability.ts";
import { checkListings, type Listing } from "./harness/listings.ts";
import { realBin } from "./harness/processes.ts";
import { robustness, type RobustnessOutcome } from "./harness/robustness.ts";

/** The same history, but for one answer that a member that lags behind would have given. */
function withStaleRead(operations: readonly Operation[]): Operation[] {
  const at = operations.findLastIndex(({ answer }) => answer?.results[0]?.kind === "got" && answer.revision > 50);
  return operations.map((operation, i) => {
    if (i !== at || !operation.answer) return operation;
    return { ...operation, answer: { ...operation.answer, results: [{ kind: "got", found: undefined }], revision: 2 } };
  });
}

/** The same history, but for one write that claims the revision of another. */
function withSharedRevision(operations: readonly Operation[]): Operation[] {
  const isPut = ({ answer }: Operation) => answer?.results[0]?.kind === "put" && answer.revision > 50;
  const at = operations.findIndex(isPut);
  const claimed = operations.find((operation, i) => i > at && isPut(operation))?.answer?.revision ?? 0;
  return operations.map((operation, i) => {
    if (i !== at || !operation.answer) return operation;
    return { ...operation, answer: { ...operation.answer, revision: claimed } };
  });
}

/** The same listings, but for a key that one of them shows as it was a change before. */
function withOldValue(listings: readonly Listing[]): Listing[] {
  const at = listings.findLastIndex(({ rows }) => rows.length > 0);
  expect(at).toBeGreaterThanOrEqual(0);
  return listings.map((listing, i) => {
    if (i !== at) return listing;
    const [first, ...others] = listing.rows;
    return { ...listing, rows: first ? [{ ...first, version: first.version - 1 }, ...others] : [] };
  });
}

function expectSound(outcome: RobustnessOutcome): void {
  const { operations, answered, changes, listings, watched, streams } = outcome;
  expect(answered).toBeGreaterThan(100);
  expect(changes.length).toBeGreaterThan(50);
  expect(streams).toBeGreaterThanOrEqual(4);
  expect(watched).toBeGreaterThanOrEqual(4 * changes.length);
  expect(listings.filter(({ revision }) => revision > 0).length).toBeGreaterThan(10);
  expect(listings.filter(({ revision, isSerializable }) => revision === 0 && !isSerializable).length).toBeGreaterThan(
    10,
  );
  expect(checkListings(withOldValue(listings), changes)).not.toEqual([]);
  expect(checkLinearizable(withStaleRead(operations)).kind).toBe("violated");
  expect(checkLinearizable(withSharedRevision(operations)).kind).toBe("violated");
}

describe("what clients and watchers see under faults", () => {
  it("fits together, with three members of ours", async () => {
    expectSound(await robustness({ rounds: 3, seed: Math.floor(Math.random() * 1e9) }));
  }, 300_000);

  it.skipIf(!realBin)(
    "fits together, with three real members",
    async () => {
      const real = realBin as string;
      const seed = Math.floor(Math.random() * 1e9);
      expectSound(await robustness({ bins: [real, real, real], rounds: 3, seed }));
    },
    300_000,
  );
});
