import { PutRequest } from "@etcd-ts/client/wire";
import { describe, expect, it } from "vitest";
import { Harness } from "../testing/harness.ts";
import type { WatchStream } from "./stream.ts";
import type { WatcherState } from "./watcher.ts";

type WatcherEvent =
  | "write with room"
  | "write without room"
  | "slice with room"
  | "slice without room"
  | "room"
  | "compaction"
  | "snapshot installed"
  | "cancel";

/**
 * What becomes of a watcher in each state. "-": cannot happen, or changes nothing and is not looked at. A compaction
 * ends only who is behind it, and that is found by the next slice.
 */
const transitions: Record<Exclude<WatcherState, "gone">, Record<WatcherEvent, WatcherState | "-">> = {
  synced: {
    "write with room": "synced",
    "write without room": "victim",
    "slice with room": "synced",
    "slice without room": "-",
    room: "synced",
    compaction: "synced",
    "snapshot installed": "synced",
    cancel: "gone",
  },
  unsynced: {
    "write with room": "unsynced",
    "write without room": "unsynced",
    "slice with room": "synced",
    "slice without room": "victim",
    room: "unsynced",
    compaction: "gone",
    "snapshot installed": "unsynced",
    cancel: "gone",
  },
  victim: {
    "write with room": "-",
    "write without room": "victim",
    "slice with room": "-",
    "slice without room": "victim",
    room: "unsynced",
    compaction: "victim",
    "snapshot installed": "victim",
    cancel: "gone",
  },
};

const OUTBOX_RESPONSES = 4;
const KEY = Buffer.from("k");
const OTHER = Buffer.from("other");

class Setting {
  readonly harness: Harness;
  readonly stream: WatchStream;
  id = 0n;

  constructor(harness: Harness) {
    this.harness = harness;
    this.stream = harness.store.watch.newStream();
  }

  put(key: Uint8Array): void {
    const { store } = this.harness;
    this.harness.write((tx) => store.put(tx, PutRequest.create({ key })));
  }

  /** Another watcher of the stream takes all the room; it wants nothing else. */
  fillOutbox(): void {
    this.stream.create({ key: OTHER, rangeEnd: undefined });
    for (let i = 0; i < OUTBOX_RESPONSES; i++) this.put(OTHER);
  }

  emptyOutbox(): void {
    while (this.stream.take()) {}
  }

  stateOf(id: bigint): WatcherState {
    return this.stream.describe().find(({ watchId }) => watchId === id)?.state ?? "gone";
  }

  enter(state: Exclude<WatcherState, "gone">): void {
    this.put(KEY);
    this.put(KEY);
    this.id = this.stream.create({ key: KEY, rangeEnd: undefined, startRevision: state === "unsynced" ? 2 : 0 });
    if (state === "victim") {
      this.fillOutbox();
      this.put(KEY);
    }
    expect(this.stateOf(this.id)).toBe(state);
  }

  async on(event: WatcherEvent): Promise<void> {
    const { store } = this.harness;
    if (event.endsWith("without room") && this.stream.pendingEvents === 0) this.fillOutbox();
    switch (event) {
      case "write with room":
      case "write without room":
        this.put(KEY);
        break;
      case "slice with room":
      case "slice without room":
        store.watch.catchUpSlice();
        break;
      case "room":
        this.emptyOutbox();
        break;
      case "compaction":
        await this.harness.write((tx) => store.compact(tx, store.currentRevision)).done;
        store.watch.catchUpSlice();
        break;
      case "snapshot installed":
        await store.reload(this.harness.backend);
        break;
      default:
        this.stream.cancel(this.id);
    }
  }
}

describe("a watcher's states", () => {
  for (const [state, outcomes] of Object.entries(transitions)) {
    for (const [event, outcome] of Object.entries(outcomes)) {
      if (outcome === "-") continue;
      it(`${state}, ${event} -> ${outcome}`, async () => {
        await using harness = await Harness.open({ outboxResponsesMax: OUTBOX_RESPONSES });
        const setting = new Setting(harness);
        setting.enter(state as Exclude<WatcherState, "gone">);
        await setting.on(event as WatcherEvent);
        expect(setting.stateOf(setting.id)).toBe(outcome);
      });
    }
  }

  it("synced behind an installed snapshot -> unsynced, and nothing is told twice or left out", async () => {
    await using leader = await Harness.open();
    await using follower = await Harness.open();
    const put = (harness: Harness, value: string): void => {
      harness.write((tx) => harness.store.put(tx, PutRequest.create({ key: KEY, value: Buffer.from(value) })));
    };
    for (const harness of [leader, follower]) put(harness, "both");
    const stream = follower.store.watch.newStream();
    stream.create({ key: KEY, rangeEnd: undefined });
    put(leader, "missed");
    put(leader, "missed too");
    await follower.store.reload(leader.backend);
    expect(stream.describe()).toEqual([{ watchId: 0n, state: "unsynced", position: 3 }]);
    follower.store.watch.catchUpSlice();
    const told = stream.take()?.events.map((event) => Buffer.from(event.kv.value).toString());
    expect(told).toEqual(["missed", "missed too"]);
    await follower.store.reload(follower.backend);
  });
});
