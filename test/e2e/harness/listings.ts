/**
 * Listings of a range, held against the sequence of all changes: each must show every key as it was at one revision, with
 * its value and its three counters. One of the present says which revision that is, and unless it was answered by one
 * member alone, that is none before what anybody had been told when it was asked.
 */
import type { Change } from "./linearizability.ts";

export interface ListedRow {
  readonly key: string;
  readonly value: string;
  readonly createRevision: number;
  readonly modRevision: number;
  readonly version: number;
}

export interface Listing {
  readonly endpoint: string;
  /** The revision that was asked for; 0: the present. */
  readonly revision: number;
  readonly isSerializable: boolean;
  /** The highest revision of which anybody had been told when this was asked. */
  readonly knownBefore: number;
  /** Of the answer's header. */
  readonly answeredAt: number;
  readonly count: number;
  readonly rows: readonly ListedRow[];
}

/** What was broken, in words; nothing when all is well. `changes` are those of the listed range, in order. */
export function checkListings(listings: readonly Listing[], changes: readonly Change[]): string[] {
  const problems: string[] = [];
  const shownAt = ({ revision, answeredAt }: Listing): number => revision || answeredAt;
  const state = new Map<string, ListedRow>();
  let next = 0;
  for (const listing of listings.toSorted((a, b) => shownAt(a) - shownAt(b))) {
    const at = shownAt(listing);
    for (let change = changes[next]; change && change.revision <= at; change = changes[++next]) apply(state, change);
    const complain = (text: string): void => {
      const what = listing.revision === 0 ? "the present" : `revision ${listing.revision}`;
      problems.push(`listing of ${what} at ${listing.endpoint}, answered at ${listing.answeredAt}: ${text}`);
    };
    if (listing.answeredAt < listing.revision) complain("that is before the revision it shows");
    if (listing.revision === 0 && !listing.isSerializable && listing.answeredAt < listing.knownBefore) {
      complain(`${listing.knownBefore} was known already`);
    }
    const due = [...state.values()].sort((a, b) => (a.key < b.key ? -1 : 1));
    if (listing.count !== due.length) complain(`${listing.count} keys are counted where ${due.length} live`);
    const wrong = Array.from({ length: Math.max(due.length, listing.rows.length) }, (_, i) => i).find(
      (i) => text(listing.rows[i]) !== text(due[i]),
    );
    if (wrong !== undefined) complain(`${text(listing.rows[wrong])} is listed where ${text(due[wrong])} was due`);
  }
  return problems;
}

function apply(state: Map<string, ListedRow>, { revision, key, value }: Change): void {
  if (value === undefined) {
    state.delete(key);
    return;
  }
  const before = state.get(key);
  state.set(key, {
    key,
    value,
    createRevision: before?.createRevision ?? revision,
    modRevision: revision,
    version: (before?.version ?? 0) + 1,
  });
}

const text = (row: ListedRow | undefined): string =>
  row
    ? `${row.key}=${row.value} (created ${row.createRevision}, changed ${row.modRevision}, version ${row.version})`
    : "nothing";
