/**
 * One registration on a watch stream, and groups of them that find who watches a key.
 *
 *            starts at the head, or later          starts in the past
 *                       |                                  |
 *                       v       caught up                  v
 *                    synced  <----------------------  unsynced  -- its revision was compacted --> gone
 *                       |                                 ^ |                                      ^
 *                       | outbox full             room    | | outbox full                          |
 *                       +----------------> victim --------+ |                                      |
 *                                             ^-------------+      cancelled, from any state ------+
 */
import { assert } from "../../lib/assert.ts";
import { type KeyString, keyString } from "../../lib/bytes.ts";
import type { KeyRange } from "../key-range.ts";
import { IntervalTree } from "./interval-tree.ts";
import type { WatchStream } from "./stream.ts";

export type WatcherState = "synced" | "unsynced" | "victim" | "gone";

export interface WatcherInit {
  readonly stream: WatchStream;
  readonly id: bigint;
  readonly range: KeyRange;
  /** The first revision it wants. */
  readonly position: number;
  readonly noPut: boolean;
  readonly noDelete: boolean;
  readonly prevKv: boolean;
}

export class Watcher {
  readonly stream: WatchStream;
  readonly id: bigint;
  readonly start: KeyString;
  /** `undefined` for a single key and for a range without end. */
  readonly end: KeyString | undefined;
  readonly isSingle: boolean;
  readonly noPut: boolean;
  readonly noDelete: boolean;
  readonly prevKv: boolean;
  state: WatcherState = "gone";
  /**
   * The revision of the next event it may get. Invariant: every event of its range from its start revision up to here
   * (exclusive) has been put into the outbox or filtered out. While synced it may lie behind the head, as nothing is
   * done for watchers without events.
   */
  position: number;

  constructor(init: WatcherInit) {
    this.stream = init.stream;
    this.id = init.id;
    this.start = keyString(init.range.start);
    this.end = init.range.isSingle || !init.range.end ? undefined : keyString(init.range.end);
    this.isSingle = init.range.isSingle;
    this.position = init.position;
    this.noPut = init.noPut;
    this.noDelete = init.noDelete;
    this.prevKv = init.prevKv;
  }

  wants(isDelete: boolean): boolean {
    return isDelete ? !this.noDelete : !this.noPut;
  }
}

export class WatcherGroup implements Iterable<Watcher> {
  readonly #all = new Set<Watcher>();
  readonly #byKey = new Map<KeyString, Set<Watcher>>();
  readonly #byRange = new IntervalTree<Watcher>();
  #ranges = 0;

  get size(): number {
    return this.#all.size;
  }

  [Symbol.iterator](): Iterator<Watcher> {
    return this.#all[Symbol.iterator]();
  }

  add(watcher: Watcher): void {
    assert(!this.#all.has(watcher), "a watcher is twice in a group");
    this.#all.add(watcher);
    if (!watcher.isSingle) {
      this.#ranges++;
      this.#byRange.add(watcher.start, watcher.end, watcher);
      return;
    }
    const watchers = this.#byKey.get(watcher.start);
    if (watchers) watchers.add(watcher);
    else this.#byKey.set(watcher.start, new Set([watcher]));
  }

  delete(watcher: Watcher): void {
    if (!this.#all.delete(watcher)) return;
    if (!watcher.isSingle) {
      this.#ranges--;
      this.#byRange.delete(watcher.start, watcher.end, watcher);
      return;
    }
    const watchers = this.#byKey.get(watcher.start);
    watchers?.delete(watcher);
    if (watchers?.size === 0) this.#byKey.delete(watcher.start);
  }

  /** Calls `visit` for each watcher whose range holds the key. The group must not be changed meanwhile. */
  match(key: KeyString, visit: (watcher: Watcher) => void): void {
    const watchers = this.#byKey.get(key);
    if (watchers) watchers.forEach(visit);
    if (this.#ranges > 0) this.#byRange.stab(key, visit);
  }
}
