/** The conf state as the `meta` table keeps it: JSON with ids in bare digits, empty lists left out. */
import { stringifyJson } from "../../lib/json.ts";
import type { ConfState } from "../../pb/raftpb.ts";

export function confStateToJson(confState: ConfState): string {
  const orAbsent = (ids: readonly bigint[]) => (ids.length > 0 ? ids : undefined);
  return stringifyJson({
    voters: orAbsent(confState.voters),
    learners: orAbsent(confState.learners),
    voters_outgoing: orAbsent(confState.votersOutgoing),
    learners_next: orAbsent(confState.learnersNext),
    auto_leave: confState.autoLeave,
  });
}
