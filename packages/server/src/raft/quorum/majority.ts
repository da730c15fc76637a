/**
 * Majorities: what a set of voters has agreed on. An empty set agrees to everything, so that a joint configuration with
 * one empty half behaves like the other half alone.
 */

/** More than half of the set has acknowledged this index; Infinity for the empty set. */
export function majorityCommittedIndex(
  voters: ReadonlySet<bigint>,
  ackedIndex: (id: bigint) => number | undefined,
): number {
  const n = voters.size;
  if (n === 0) return Number.POSITIVE_INFINITY;
  if (n === 1) {
    for (const id of voters) return ackedIndex(id) ?? 0;
  }
  const indexes: number[] = [];
  for (const id of voters) {
    // Kept in descending order; sets of voters are small.
    const index = ackedIndex(id) ?? 0;
    let at = indexes.length;
    indexes.push(index);
    while (at > 0 && (indexes[at - 1] as number) < index) {
      indexes[at] = indexes[at - 1] as number;
      at--;
    }
    indexes[at] = index;
  }
  return indexes[Math.floor(n / 2)] as number;
}

export type VoteResult = "pending" | "lost" | "won";

/** Missing voters have not voted yet. Votes of others do not count. */
export function majorityVoteResult(voters: ReadonlySet<bigint>, votes: ReadonlyMap<bigint, boolean>): VoteResult {
  if (voters.size === 0) return "won";
  let yes = 0;
  let missing = 0;
  for (const id of voters) {
    const vote = votes.get(id);
    if (vote === undefined) missing++;
    else if (vote) yes++;
  }
  const quorum = Math.floor(voters.size / 2) + 1;
  if (yes >= quorum) return "won";
  return yes + missing >= quorum ? "pending" : "lost";
}

export function sortedIds(ids: Iterable<bigint>): bigint[] {
  return [...ids].sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
}

/** `(1 2 3)`: decimal, ascending. */
export function majorityText(voters: ReadonlySet<bigint>): string {
  return `(${sortedIds(voters).join(" ")})`;
}

/** A chart of who has acknowledged what, for golden scripts: the further ahead, the longer the bar. */
export function majorityChart(voters: ReadonlySet<bigint>, ackedIndex: (id: bigint) => number | undefined): string {
  if (voters.size === 0) return "<empty majority quorum>";
  const n = voters.size;
  const rows = sortedIds(voters).map((id) => ({ id, index: ackedIndex(id), bar: 0 }));
  const byIndex = [...rows].sort((a, b) => (a.index ?? 0) - (b.index ?? 0));
  for (let i = 1; i < n; i++) {
    const row = byIndex[i] as (typeof rows)[number];
    if ((byIndex[i - 1]?.index ?? 0) < (row.index ?? 0)) row.bar = i;
  }
  const lines = rows.map(({ id, index, bar }) => {
    const drawn = index === undefined ? `?${" ".repeat(n)}` : `${"x".repeat(bar)}>${" ".repeat(n - bar)}`;
    return `${drawn} ${String(index ?? 0).padStart(5)}    (id=${id})\n`;
  });
  return `${" ".repeat(n)}    idx\n${lines.join("")}`;
}
