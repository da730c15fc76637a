/**
 * etcd's promises to watchers, held against the sequence of all changes:
 *
 * - ordered: revisions ascend within a stream;
 * - unique: nothing is told twice;
 * - atomic: what one revision changed is told in one response, all of it;
 * - reliable: between the first and the last event that was told none is missing;
 * - resumable: a stream from a revision on begins with the first event that is not older;
 * - bookmarkable: a progress notice of a revision comes after all events up to it;
 * - the value before a change is the one that the change before it wrote.
 */
import type { Change } from "./linearizability.ts";

export interface RecordedEvent extends Change {
  /** The value before, where there was one. */
  readonly previous: string | undefined;
}

export interface RecordedResponse {
  /** Of the header. */
  readonly revision: number;
  /** An answer to a progress request, which speaks for all watches of the stream. */
  readonly isForAll: boolean;
  readonly events: readonly RecordedEvent[];
}

export interface RecordedStream {
  readonly name: string;
  readonly endpoint: string;
  /** The revision that the watch was asked to begin with. */
  readonly from: number;
  readonly responses: readonly RecordedResponse[];
}

/** What was broken, in words; nothing when all is well. `changes` are those of the watched range, in order. */
export function checkStream(stream: RecordedStream, changes: readonly Change[]): string[] {
  const problems: string[] = [];
  const where = `watch ${stream.name} from ${stream.from}`;
  const complain = (text: string): void => {
    if (problems.length < 5) problems.push(`${where}: ${text}`);
  };
  const before = new Map<string, string | undefined>();
  let next = 0;
  for (; next < changes.length && (changes[next] as Change).revision < stream.from; next++) {
    const { key, value } = changes[next] as Change;
    before.set(key, value);
  }
  let lastOfResponse = 0;
  for (const { events, revision } of stream.responses) {
    if (events.length === 0) {
      const due = changes[next];
      if (due && due.revision <= revision) {
        complain(`told that all up to ${revision} was told, but ${text(due)} was not`);
      }
      continue;
    }
    for (const event of events) {
      if (event.revision <= lastOfResponse) {
        complain(`revision ${event.revision} comes in a later response than revision ${lastOfResponse}`);
      }
      const expected = changes[next];
      if (!expected || !isSame(event, expected)) {
        complain(`told of ${text(event)} where ${expected ? text(expected) : "nothing"} was due`);
        return problems;
      }
      if (event.previous !== before.get(event.key)) {
        complain(`${text(event)} came with ${event.previous} as the value before, not ${before.get(event.key)}`);
      }
      before.set(event.key, event.value);
      next++;
    }
    const last = events.at(-1)?.revision ?? 0;
    if (changes[next]?.revision === last) complain(`revision ${last} was told in part`);
    lastOfResponse = last;
  }
  return problems;
}

const isSame = (a: Change, b: Change): boolean => a.revision === b.revision && a.key === b.key && a.value === b.value;

const text = ({ revision, key, value }: Change): string =>
  `revision ${revision} ${value === undefined ? `delete ${key}` : `put ${key}=${value}`}`;
