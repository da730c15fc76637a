/**
 * What must hold in every cluster at every moment, checked against all that any node ever did (Raft paper, figure 3):
 *
 *  - election safety: one leader a term;
 *  - one vote a node and term, crashes notwithstanding;
 *  - log matching: an index and a term name one entry, and one predecessor of it;
 *  - leader completeness: a leader has all that was committed in terms before its own;
 *  - state machine safety: all nodes apply the same at an index, and get the same state and configuration by it;
 *  - what a leader commits is of its own term, or before such an entry, and durable on a quorum of its configuration;
 *  - terms rise; applied <= applying <= committed <= last; nothing committed is taken back;
 *  - a linearizable read sees all that was committed when it was asked for;
 *  - a leader adds a configuration change only when it has applied all before it, and nobody campaigns who knows of a
 *    committed one that it has not applied.
 *
 * The oracle only looks. Since it remembers everything, it suffices to look at the node that has just acted.
 */
import { equalBytes, EMPTY_BYTES, hexId } from "../../lib/bytes.ts";
import { type ConfState, type Entry, EntryType, type HardState, type Message, MessageType } from "../../pb/raftpb.ts";
import { describeConfState, describeEntry } from "../describe.ts";
import type { RaftLog } from "../log.ts";
import type { Raft } from "../raft.ts";
import { NONE, type NodeId } from "../types.ts";
import { UNKNOWN_TERM } from "../unstable.ts";

export class Violation extends Error {
  override readonly name = "Violation";
}

/** What the oracle must know of the world to judge durability. */
export interface Witness {
  /** Whether the node's disk is sure to hold the entry after a crash. */
  isDurable(id: NodeId, index: number, term: number): boolean;
}

interface Seen {
  term: number;
  committed: number;
}

function sameEntry(a: Entry, b: Entry): boolean {
  if (a === b) return true;
  return a.term === b.term && a.type === b.type && equalBytes(a.data ?? EMPTY_BYTES, b.data ?? EMPTY_BYTES);
}

/** In [lo, hi). */
function hasConfChange(log: RaftLog, lo: number, hi: number): boolean {
  return lo < hi && log.some(lo, hi, Number.POSITIVE_INFINITY, (entry) => entry.type !== EntryType.EntryNormal);
}

function quorumOf(voters: ReadonlySet<NodeId>, has: (id: NodeId) => boolean): boolean {
  if (voters.size === 0) return true;
  return [...voters].filter(has).length > voters.size / 2;
}

export class Oracle {
  readonly #witness: Witness;
  readonly #leaders = new Map<number, NodeId>();
  readonly #votes = new Map<string, NodeId>();
  /** By `term/index`. */
  readonly #entries = new Map<string, { readonly entry: Entry; readonly previousTerm: number }>();
  /** By index: the term of the committed entry, and the term in which it was seen to be committed. */
  readonly #committed: { readonly term: number; readonly inTerm: number }[] = [];
  readonly #applied: (Entry | undefined)[] = [];
  readonly #digests: (number | undefined)[] = [];
  readonly #confStates = new Map<number, string>();
  readonly #seen = new Map<NodeId, Seen>();
  readonly #reads = new Map<string, number>();

  /** All nodes start with a snapshot at `index` of `term`. */
  constructor(witness: Witness, index: number, term: number, digest: number) {
    this.#witness = witness;
    for (let i = 0; i <= index; i++) this.#committed.push({ term, inTerm: term });
    this.#digests[index] = digest;
  }

  /** The highest index known to be committed. */
  get committedMax(): number {
    return this.#committed.length - 1;
  }

  #require(holds: boolean, text: () => string): void {
    if (!holds) throw new Violation(text());
  }

  /** A node begins another life. */
  started(id: NodeId, core: Raft): void {
    this.#seen.set(id, { term: core.term, committed: core.log.committed });
  }

  sent(m: Message): void {
    if (m.type === MessageType.MsgVoteResp && !m.reject) this.#voted(m.from, m.term, m.to);
  }

  hardStateIsDurable(id: NodeId, { term, vote }: HardState): void {
    if (vote !== NONE) this.#voted(id, term, vote);
  }

  #voted(id: NodeId, term: number, vote: NodeId): void {
    const key = `${id}/${term}`;
    const before = this.#votes.get(key) ?? vote;
    this.#require(
      before === vote,
      () => `${hexId(id)} voted for ${hexId(before)} and for ${hexId(vote)} in term ${term}`,
    );
    this.#votes.set(key, vote);
  }

  /** Entries as they are handed out to be written. */
  appended(id: NodeId, entries: readonly Entry[], { log, term, state }: Raft): void {
    const [first] = entries;
    if (!first) return;
    let previous = log.term(first.index - 1);
    for (const entry of entries) {
      const key = `${entry.term}/${entry.index}`;
      const known = this.#entries.get(key);
      if (known) {
        this.#require(
          sameEntry(known.entry, entry) && (known.previousTerm === previous || previous === UNKNOWN_TERM),
          () =>
            `log matching: ${hexId(id)} has ${describeEntry(entry)} behind term ${previous}, another ` +
            `${describeEntry(known.entry)} behind term ${known.previousTerm}`,
        );
      } else {
        this.#entries.set(key, { entry, previousTerm: previous });
      }
      this.#require(
        entry.term >= previous,
        () => `terms fall in the log of ${hexId(id)}: ${describeEntry(entry)} behind term ${previous}`,
      );
      previous = entry.term;
      if (entry.type !== EntryType.EntryNormal && state === "leader" && entry.term === term) {
        this.#require(
          !hasConfChange(log, log.applied + 1, entry.index),
          () =>
            `${hexId(id)} adds ${describeEntry(entry)}, having applied ${log.applied} and not all changes before it`,
        );
      }
    }
  }

  /** The digest is the state machine's after the entry. */
  applied(id: NodeId, entry: Entry, digest: number): void {
    const known = this.#applied[entry.index];
    this.#require(
      !known || sameEntry(known, entry),
      () => `${hexId(id)} applies ${describeEntry(entry)}, another ${known && describeEntry(known)}`,
    );
    this.#applied[entry.index] = entry;
    const committed = this.#committed[entry.index];
    this.#require(
      committed?.term === entry.term,
      () => `${hexId(id)} applies ${describeEntry(entry)}, which is not committed`,
    );
    this.restored(id, entry.index, digest);
  }

  restored(id: NodeId, index: number, digest: number): void {
    const known = this.#digests[index] ?? digest;
    this.#require(known === digest, () => `${hexId(id)} has another state at ${index} than others had`);
    this.#digests[index] = digest;
  }

  configured(id: NodeId, index: number, confState: ConfState): void {
    const text = describeConfState(confState);
    const known = this.#confStates.get(index) ?? text;
    this.#require(known === text, () => `${hexId(id)} has ${text} at ${index}, another ${known}`);
    this.#confStates.set(index, text);
  }

  readAsked(key: string): void {
    this.#reads.set(key, this.committedMax);
  }

  readAnswered(id: NodeId, key: string, index: number): void {
    const floor = this.#reads.get(key);
    if (floor === undefined) return;
    this.#require(index >= floor, () => `${hexId(id)} reads at ${index} although ${floor} was committed before`);
  }

  /** To be called after every step, for the node that acted. */
  checkInvariants(id: NodeId, core: Raft): void {
    const { log, term } = core;
    const seen = this.#seen.get(id) as Seen;
    const last = log.lastIndex();
    this.#require(
      log.applied <= log.applying && log.applying <= log.committed && log.committed <= last,
      () => `${hexId(id)}: [${log}] last=${last}`,
    );
    this.#require(term >= seen.term, () => `the term of ${hexId(id)} falls from ${seen.term} to ${term}`);
    this.#require(
      log.committed >= seen.committed,
      () => `${hexId(id)} takes back its commit index from ${seen.committed} to ${log.committed}`,
    );
    seen.term = term;
    if (core.state === "leader") this.#checkLeader(id, core);
    if (core.state === "candidate" || core.state === "preCandidate") {
      this.#require(
        !hasConfChange(log, log.applied + 1, log.committed + 1),
        () => `${hexId(id)} campaigns, having applied ${log.applied} and not all changes up to ${log.committed}`,
      );
    }
    if (log.committed > seen.committed) {
      for (let index = seen.committed + 1; index <= log.committed; index++) this.#checkCommitted(id, core, index);
      if (core.state === "leader") {
        this.#require(
          log.term(log.committed) === term,
          () => `${hexId(id)} commits ${log.term(log.committed)}/${log.committed} by counting, leading in term ${term}`,
        );
        this.#checkDurable(id, core);
      }
      seen.committed = log.committed;
    }
  }

  #checkLeader(id: NodeId, { term, log }: Raft): void {
    const other = this.#leaders.get(term);
    if (other === id) return;
    this.#require(other === undefined, () => `${hexId(id)} and ${hexId(other ?? NONE)} lead in term ${term}`);
    this.#leaders.set(term, id);
    for (let index = this.#committed.length - 1; index > log.firstIndex(); index--) {
      const committed = this.#committed[index];
      if (!committed || committed.inTerm >= term) continue;
      this.#require(
        log.term(index) === committed.term,
        () =>
          `${hexId(id)} leads in term ${term} without the entry ${committed.term}/${index}, committed in term ` +
          `${committed.inTerm}`,
      );
      return; // By log matching, it has all before.
    }
  }

  #checkCommitted(id: NodeId, { log, term }: Raft, index: number): void {
    const ours = log.term(index);
    const known = this.#committed[index];
    if (!known) {
      this.#committed[index] = { term: ours === UNKNOWN_TERM ? 0 : ours, inTerm: term };
      return;
    }
    this.#require(
      ours === UNKNOWN_TERM || ours === known.term,
      () => `${hexId(id)} commits ${ours}/${index}, another ${known.term}/${index}`,
    );
  }

  #checkDurable(id: NodeId, { log, tracker }: Raft): void {
    const index = log.committed;
    const term = log.term(index);
    const has = (one: NodeId): boolean => this.#witness.isDurable(one, index, term);
    this.#require(
      quorumOf(tracker.config.incoming, has) && quorumOf(tracker.config.outgoing, has),
      () => `${hexId(id)} commits ${term}/${index}, which is not durable on a quorum`,
    );
  }
}
