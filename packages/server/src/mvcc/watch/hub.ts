/**
 * All watchers of a store. A watcher gets every event of its range from its start revision on, once and in order, or is
 * told that a compaction was quicker.
 *
 *   synced    at the head: told as each write ends, from memory, one response for each revision
 *   unsynced  behind: told from the `key` table, in slices between which others work
 *   victim    its stream's outbox was full: waits for room, then catches up as an unsynced one
 *
 * Catching up is one sweep for all: a cursor moves over history and serves each watcher whose position it passes; who
 * joined behind it is served by the next sweep. So many watchers that are behind cost one reading, and none starves.
 *
 * A response that finds the outbox full is not kept: the watcher's position stays in front of it, and it is read again
 * from history. So memory is bounded by the outboxes.
 */
import { assert } from "../../lib/assert.ts";
import { type KeyString, keyString } from "../../lib/bytes.ts";
import type { Clock, Timer } from "../../lib/clock.ts";
import {
  type BackendReader,
  isTombstoneKey,
  keyOfKeyValue,
  mainOfRevisionKey,
  readKeyValue,
  revisionKey,
} from "../../storage/index.ts";
import {
  CATCH_UP_EVENTS,
  CATCH_UP_REVISIONS_MAX,
  CATCH_UP_SLICE_BYTES,
  CATCH_UP_SLICES_PER_TURN,
  CATCH_UP_TURN_MS,
} from "../limits.ts";
import { loadAt } from "../range.ts";
import { encodeEvent, type EventLog, type WatchEvent } from "./event.ts";
import { WatchStream } from "./stream.ts";
import { type Watcher, WatcherGroup } from "./watcher.ts";

/** The store, as far as watching needs it. */
export interface WatchSource {
  reader(): BackendReader;
  currentRevision(): number;
  compactRevision(): number;
}

export interface WatchHubOptions {
  readonly source: WatchSource;
  readonly clock: Clock;
  readonly outboxResponsesMax: number;
  readonly onFatal: (error: unknown) => void;
}

export interface WatchStats {
  readonly streams: number;
  readonly watchers: number;
  /** Unsynced ones and victims. */
  readonly slowWatchers: number;
  /** In outboxes. */
  readonly pendingEvents: number;
  /** Put into outboxes since the start. */
  readonly events: number;
}

/** A change read from history on its way to watchers; both events are made when first wanted and shared by who wants them. */
class PastChange {
  readonly key: KeyString;
  readonly isDelete: boolean;
  readonly revision: number;
  readonly #stored: Uint8Array;
  readonly #source: WatchSource;
  #plain: WatchEvent | undefined;
  #withPrev: WatchEvent | undefined;

  constructor(source: WatchSource, at: { readonly isDelete: boolean; readonly revision: number }, stored: Uint8Array) {
    this.#source = source;
    this.key = keyString(keyOfKeyValue(stored));
    this.#stored = stored;
    this.isDelete = at.isDelete;
    this.revision = at.revision;
  }

  eventFor(watcher: Watcher): WatchEvent {
    const { isDelete, revision } = this;
    const stored = this.#stored;
    if (!watcher.prevKv) {
      this.#plain ??= encodeEvent({ isDelete, revision, stored });
      return this.#plain;
    }
    this.#withPrev ??= encodeEvent({ isDelete, revision, stored, prevStored: previousOf(this.#source, this, stored) });
    return this.#withPrev;
  }
}

/** The pair at the revision before; none for a new key, and none where that revision is compacted. */
function previousOf(
  source: WatchSource,
  { isDelete, revision }: { readonly isDelete: boolean; readonly revision: number },
  stored: Uint8Array,
): Uint8Array | undefined {
  const before = revision - 1;
  if (before < source.compactRevision()) return undefined;
  if (!isDelete && readKeyValue(stored).createRevision === revision) return undefined;
  return loadAt(source.reader(), keyOfKeyValue(stored), before);
}

/** The events of a transaction in the forms that not everybody gets: made when first wanted, and shared. */
class OtherForms {
  readonly #source: WatchSource;
  readonly #events: readonly WatchEvent[];
  readonly #withPrev: WatchEvent[] = [];
  readonly #detached: WatchEvent[] = [];

  constructor(source: WatchSource, events: readonly WatchEvent[]) {
    this.#source = source;
    this.#events = events;
  }

  withPrev(index: number): WatchEvent {
    const made = this.#withPrev[index];
    if (made) return made;
    const { isDelete, modRevision: revision, row: stored } = this.#events[index] as WatchEvent;
    const at = { isDelete, revision };
    const event = encodeEvent({ ...at, stored, prevStored: previousOf(this.#source, at, stored) });
    this.#withPrev[index] = event;
    return event;
  }

  detached(index: number): WatchEvent {
    const made = this.#detached[index];
    if (made) return made;
    const event = (this.#events[index] as WatchEvent).detached();
    this.#detached[index] = event;
    return event;
  }
}

export class WatchHub {
  readonly #source: WatchSource;
  readonly #clock: Clock;
  readonly #outboxResponsesMax: number;
  readonly #onFatal: (error: unknown) => void;
  readonly #streams = new Set<WatchStream>();
  /** Every watcher that is not gone is in exactly one of these three. */
  readonly #synced = new WatcherGroup();
  readonly #unsynced = new WatcherGroup();
  readonly #victims = new Set<Watcher>();
  /** Written, and synced watchers have not been told yet. */
  #pending: { readonly revision: number; readonly log: EventLog }[] = [];
  /** Where the sweep over history goes on. */
  #cursor = 0;
  #turn: Timer | undefined;
  #isClosed = false;
  #events = 0;

  constructor(options: WatchHubOptions) {
    this.#source = options.source;
    this.#clock = options.clock;
    this.#outboxResponsesMax = options.outboxResponsesMax;
    this.#onFatal = options.onFatal;
  }

  newStream(): WatchStream {
    const stream = new WatchStream(this, this.#outboxResponsesMax);
    this.#streams.add(stream);
    return stream;
  }

  get stats(): WatchStats {
    let pendingEvents = 0;
    for (const stream of this.#streams) pendingEvents += stream.pendingEvents;
    const slowWatchers = this.#unsynced.size + this.#victims.size;
    return {
      streams: this.#streams.size,
      watchers: this.#synced.size + slowWatchers,
      slowWatchers,
      pendingEvents,
      events: this.#events,
    };
  }

  get currentRevision(): number {
    return this.#source.currentRevision();
  }

  /** Whether a watcher has been given everything up to now. One that starts in the future has not begun. */
  isAtHead(watcher: Watcher): boolean {
    return watcher.state === "synced" && watcher.position <= this.currentRevision + 1;
  }

  // -------------------------------------------------------------------------------------- from the write path

  /** Whether anybody is at the head, to be told of what is written. */
  get isWatched(): boolean {
    return this.#synced.size > 0;
  }

  /** Notes what a write transaction changed. Nothing to do when nobody is at the head: others read it from history. */
  written(revision: number, log: EventLog): void {
    this.#pending.push({ revision, log });
  }

  /** Tells the synced watchers of what has been noted. */
  deliver(): void {
    if (this.#pending.length === 0) return;
    const pending = this.#pending;
    this.#pending = [];
    for (const { revision, log } of pending) {
      if (log.events.length === 1) this.#notifyOne(revision, log);
      else this.#notify(revision, log);
    }
  }

  #notify(revision: number, { events, keys }: EventLog): void {
    const told = new Map<Watcher, number[]>();
    let index = 0;
    const tell = (watcher: Watcher): void => {
      if (revision < watcher.position || !watcher.wants((events[index] as WatchEvent).isDelete)) return;
      const list = told.get(watcher);
      if (list) list.push(index);
      else told.set(watcher, [index]);
    };
    for (const key of keys) {
      this.#synced.match(keyString(key), tell);
      index++;
    }
    let others: OtherForms | undefined;
    for (const [watcher, list] of told) {
      let given: readonly WatchEvent[] = events;
      if (watcher.prevKv || list.length < events.length) {
        others ??= new OtherForms(this.#source, events);
        const forms = others;
        given = list.map((at) => (watcher.prevKv ? forms.withPrev(at) : forms.detached(at)));
      }
      if (this.#give(watcher, revision, given)) watcher.position = revision + 1;
      else this.#block(watcher, revision);
    }
  }

  /** A revision of one change, as most are: all its watchers get the same list. */
  #notifyOne(revision: number, { events, keys }: EventLog): void {
    const [event] = events as [WatchEvent];
    let withPrev: WatchEvent[] | undefined;
    let blocked: Watcher[] | undefined;
    this.#synced.match(keyString(keys[0] as Uint8Array), (watcher) => {
      if (revision < watcher.position || !watcher.wants(event.isDelete)) return;
      if (watcher.prevKv) withPrev ??= [new OtherForms(this.#source, events).withPrev(0)];
      if (this.#give(watcher, revision, watcher.prevKv && withPrev ? withPrev : events)) {
        watcher.position = revision + 1;
      } else {
        // The groups must not change while they are gone through.
        blocked ??= [];
        blocked.push(watcher);
      }
    });
    if (blocked) for (const watcher of blocked) this.#block(watcher, revision);
  }

  #block(watcher: Watcher, revision: number): void {
    watcher.position = revision;
    this.#move(watcher, "victim");
  }

  #give(watcher: Watcher, revision: number, events: readonly WatchEvent[]): boolean {
    if (!watcher.stream.offer({ watchId: watcher.id, revision, compactRevision: 0, events })) return false;
    this.#events += events.length;
    return true;
  }

  // ------------------------------------------------------------------------------------------- from streams

  add(watcher: Watcher): void {
    // What has been noted may be due to others, and must not become visible to this one out of order.
    this.#move(watcher, watcher.position > this.currentRevision ? "synced" : "unsynced");
  }

  remove(watcher: Watcher): void {
    this.#move(watcher, "gone");
  }

  forget(stream: WatchStream): void {
    this.#streams.delete(stream);
  }

  /** Their outbox has room again. */
  unblock(watchers: readonly Watcher[]): void {
    for (const watcher of watchers) if (watcher.state === "victim") this.#move(watcher, "unsynced");
  }

  #move(watcher: Watcher, state: Watcher["state"]): void {
    if (watcher.state === "synced") this.#synced.delete(watcher);
    else if (watcher.state === "unsynced") this.#unsynced.delete(watcher);
    else if (watcher.state === "victim") this.#victims.delete(watcher);
    watcher.state = state;
    if (state === "synced") this.#synced.add(watcher);
    else if (state === "unsynced") {
      this.#unsynced.add(watcher);
      this.#schedule();
    } else if (state === "victim") {
      this.#victims.add(watcher);
      watcher.stream.addVictim(watcher);
    }
  }

  // -------------------------------------------------------------------------------------------- catching up

  #schedule(): void {
    if (this.#turn || this.#isClosed) return;
    this.#turn = this.#clock.after(0, () => {
      this.#turn = undefined;
      try {
        this.#catchUp();
      } catch (error) {
        this.#onFatal(error);
      }
    });
  }

  #catchUp(): void {
    const untilMs = this.#clock.monotonicMs() + CATCH_UP_TURN_MS;
    for (let slice = 0; slice < CATCH_UP_SLICES_PER_TURN && this.#unsynced.size > 0; slice++) {
      this.catchUpSlice();
      if (this.#clock.monotonicMs() >= untilMs) break;
    }
    if (this.#unsynced.size > 0) this.#schedule();
  }

  /**
   * One slice of the sweep: reads some revisions and serves the unsynced watchers whose positions lie in them. Called by
   * the hub's own timer; tests call it to go step by step.
   */
  catchUpSlice(): void {
    this.#endCompacted();
    const from = this.#nextPosition();
    if (from === undefined) return;
    assert(from <= this.currentRevision, "a watcher that is behind wants what has not happened");
    const { shared, upTo } = this.#readHistory(from);
    const told = new Map<Watcher, WatchEvent[]>();
    for (const change of shared) {
      this.#unsynced.match(change.key, (watcher) => {
        const { position } = watcher;
        if (position < from || position > change.revision || !watcher.wants(change.isDelete)) return;
        const events = told.get(watcher);
        if (events) events.push(change.eventFor(watcher));
        else told.set(watcher, [change.eventFor(watcher)]);
      });
    }
    const { currentRevision } = this;
    for (const watcher of [...this.#unsynced]) {
      if (watcher.position < from || watcher.position > upTo) continue;
      const events = told.get(watcher);
      if (events && !this.#give(watcher, currentRevision, events)) {
        this.#move(watcher, "victim");
        continue;
      }
      watcher.position = upTo + 1;
      if (watcher.position > currentRevision) this.#move(watcher, "synced");
    }
    this.#cursor = upTo + 1;
  }

  /** Tells the watchers that want what is no longer there. */
  #endCompacted(): void {
    const compactRevision = this.#source.compactRevision();
    for (const watcher of [...this.#unsynced]) {
      if (watcher.position >= compactRevision) continue;
      this.#move(watcher, "gone");
      watcher.stream.pushCompacted(watcher, compactRevision);
    }
  }

  /** The nearest position at or behind the cursor; past the last one the sweep begins again at the first. */
  #nextPosition(): number | undefined {
    let first: number | undefined;
    let ahead: number | undefined;
    for (const { position } of this.#unsynced) {
      if (first === undefined || position < first) first = position;
      if (position >= this.#cursor && (ahead === undefined || position < ahead)) ahead = position;
    }
    return ahead ?? first;
  }

  /** Whole revisions from `from` on, up to the bounds of a slice; `upTo` is the last revision that is covered. */
  #readHistory(from: number): { readonly shared: readonly PastChange[]; readonly upTo: number } {
    const shared: PastChange[] = [];
    const { currentRevision } = this;
    // Every revision may be for every watcher: the more there are, the shorter the slice.
    const revisionsMax = Math.max(
      1,
      Math.min(CATCH_UP_REVISIONS_MAX, Math.floor(CATCH_UP_EVENTS / this.#unsynced.size)),
    );
    let upTo = currentRevision;
    let last = 0;
    let revisions = 0;
    let bytes = 0;
    this.#source.reader().scan("key", { start: revisionKey(from, 0) }, (rowKey, stored) => {
      const revision = mainOfRevisionKey(rowKey);
      assert(revision <= currentRevision, "a row lies beyond the current revision");
      if (revision !== last) {
        if (revisions >= revisionsMax || bytes >= CATCH_UP_SLICE_BYTES) {
          upTo = last;
          return false;
        }
        revisions++;
        last = revision;
      }
      bytes += stored.length;
      shared.push(new PastChange(this.#source, { isDelete: isTombstoneKey(rowKey), revision }, stored));
      return true;
    });
    return { shared, upTo };
  }

  // --------------------------------------------------------------------------------------------- life cycle

  /**
   * The state has been replaced by a received snapshot: everyone reads on from history. `toldRevision` is the current
   * revision as it was before: the synced watchers know everything up to there.
   */
  restart(toldRevision: number): void {
    this.#cursor = 0;
    for (const watcher of [...this.#synced]) {
      // What starts in the future is not pulled back.
      watcher.position = Math.max(watcher.position, toldRevision + 1);
      if (watcher.position <= this.currentRevision) this.#move(watcher, "unsynced");
    }
  }

  close(): void {
    this.#isClosed = true;
    this.#turn?.cancel();
    this.#turn = undefined;
    for (const stream of [...this.#streams]) stream.close();
  }
}
