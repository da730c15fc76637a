import { afterEach, describe, expect, it } from "vitest";
import { utf8Bytes, utf8Text } from "../lib/bytes.ts";
import { VirtualClock } from "../lib/clock.ts";
import { silentLogger } from "../lib/log.ts";
import { SeededRandom } from "../lib/random.ts";
import { type Deferred, deferred, yieldToEventLoop } from "../lib/wait.ts";
import { ConfChange, ConfChangeType, Entry, EntryType, type HardState, Message, MessageType } from "../pb/raftpb.ts";
import { MemoryStorage, RawNode } from "../raft/index.ts";
import { BLOCKING_SAVE_BYTES_MAX } from "./limits.ts";
import { RaftLoop } from "./raft-loop.ts";
import { nullTransport } from "./transport.ts";

/** One voter that has just been bootstrapped, on a disk whose saves end when the test says so. */
function setUp(options: { manualDisk?: boolean } = {}) {
  const clock = new VirtualClock();
  const storage = new MemoryStorage();
  const change = ConfChange.encode({ id: 0n, type: ConfChangeType.ConfChangeAddNode, nodeId: 1n });
  storage.setHardState({ term: 1, vote: 0n, commit: 1 });
  storage.append([Entry.create({ term: 1, index: 1, type: EntryType.EntryConfChange, data: change })]);
  const node = new RawNode({
    id: 1n,
    electionTicks: 10,
    heartbeatTicks: 1,
    storage,
    asyncStorageWrites: true,
    messageBytesMax: 1024 * 1024,
    inflightMessagesMax: 512,
    checkQuorum: true,
    preVote: true,
    logger: silentLogger,
    random: new SeededRandom(1),
  });
  const state = { isManual: options.manualDisk ?? false, leader: 0n, callers: 0, isIdle: false };
  const saves: {
    readonly entries: string[];
    readonly hardState: HardState | undefined;
    readonly mayBlock: boolean;
    readonly done: Deferred;
  }[] = [];
  const applied: string[] = [];
  const reads: string[] = [];
  const dropped: number[] = [];
  const loop: RaftLoop = new RaftLoop({
    node,
    storage,
    disk: {
      save(hardState, entries, mayBlock) {
        const done = deferred();
        const texts = entries.map((entry) => utf8Text(entry.data ?? new Uint8Array()));
        saves.push({ entries: texts, hardState, mayBlock, done });
        if (!state.isManual) done.resolve();
        return done.promise;
      },
      saveSnapshot: () => Promise.resolve(),
    },
    transport: nullTransport,
    sink: {
      apply(entries, done) {
        for (const entry of entries) {
          if (entry.type === EntryType.EntryConfChange)
            node.applyConfChange(ConfChange.decode(entry.data as Uint8Array));
          else applied.push(utf8Text(entry.data ?? new Uint8Array()));
        }
        done();
      },
      install: () => {},
    },
    clock,
    logger: silentLogger,
    memberId: 1n,
    tickMs: 100,
    isRemoved: (memberId) => memberId === 66n,
    isIdle: () => state.isIdle,
    callersToGather: () => state.callers,
    isAwaited: (suffix) => suffix !== 13,
    handOver: (suffix) => suffix !== 13,
    dropped: (suffix) => void dropped.push(suffix),
    readStates: (states) => reads.push(...states.map((one) => `${utf8Text(one.context)}@${one.index}`)),
    leaderChanged: (leader) => {
      state.leader = leader;
    },
  });
  return { clock, loop, saves, applied, reads, dropped, state };
}

const loops: RaftLoop[] = [];
afterEach(async () => {
  for (const loop of loops.splice(0)) await loop.stop();
});

/** Lets everything happen that needs no time to pass. */
async function settle(): Promise<void> {
  for (let i = 0; i < 10; i++) await yieldToEventLoop();
}

async function elect(set: ReturnType<typeof setUp>): Promise<{ readonly ended: Promise<void> }> {
  loops.push(set.loop);
  const ended = set.loop.run();
  ended.catch(() => {}); // whoever asks
  await settle();
  set.loop.call((node) => node.campaign());
  await settle();
  expect(set.state.leader).toBe(1n);
  return { ended };
}

const propose = (loop: RaftLoop, suffix: number, text: string) =>
  loop.propose({ kind: "entry", suffix, data: utf8Bytes(text) });

describe("RaftLoop", () => {
  it("elects a single voter, and holds proposals back until then", async () => {
    const set = setUp();
    propose(set.loop, 1, "early");
    await elect(set);
    expect(set.applied).toEqual(["", "early"]);
    expect(set.loop.isLeader).toBe(true);
    expect(set.loop.term).toBe(2);
    expect(set.loop.committedIndex).toBe(3);
  });

  it("waits for the disk itself when it is idle, unless much goes to it", async () => {
    const set = setUp();
    await elect(set);
    const blocksFor = async (text: string) => {
      const from = set.saves.length;
      propose(set.loop, from, text);
      await settle();
      const saves = set.saves.slice(from).filter(({ entries }) => entries.length > 0);
      expect(saves.map(({ entries }) => entries)).toEqual([[text]]);
      return saves[0]?.mayBlock;
    };
    expect(await blocksFor("busy")).toBe(false);
    set.state.isIdle = true;
    expect(await blocksFor("idle")).toBe(true);
    expect(await blocksFor("x".repeat(BLOCKING_SAVE_BYTES_MAX))).toBe(true);
    expect(await blocksFor("x".repeat(BLOCKING_SAVE_BYTES_MAX + 1))).toBe(false);
    expect(set.saves.filter(({ entries }) => entries.length === 0).some(({ mayBlock }) => mayBlock)).toBe(false);
  });

  it("keeps nothing that nobody waits for while there is no leader", async () => {
    const { loop, clock } = setUp();
    loops.push(loop);
    void loop.run();
    propose(loop, 1, "waited for");
    propose(loop, 13, "given up");
    await settle();
    expect([loop.waitingProposals, loop.waitingProposalBytes]).toEqual([2, 18]);
    clock.advance(100);
    await settle();
    expect(loop.leaderId).toBe(0n);
    expect([loop.waitingProposals, loop.waitingProposalBytes]).toEqual([1, 10]);
  });

  it("holds a proposal back that arrives in the turn in which the leader is lost", async () => {
    const set = setUp();
    await elect(set);
    // Another node stands for election by order of a leader, so this one leads no longer; a caller knows nothing of it.
    const context = utf8Bytes("CampaignTransfer");
    set.loop.process(Message.create({ type: MessageType.MsgVote, from: 2n, to: 1n, term: 9, context }));
    propose(set.loop, 1, "late");
    await settle();
    expect(set.state.leader).toBe(0n);
    expect(set.dropped).toEqual([]);
    set.loop.call((node) => node.campaign());
    await settle();
    expect(set.applied).toEqual(["", "", "late"]);
  });

  it("holds proposals back while the leader is one that has removed itself", async () => {
    const set = setUp();
    await elect(set);
    set.loop.process(Message.create({ type: MessageType.MsgHeartbeat, from: 66n, to: 1n, term: 9 }));
    await settle();
    expect(set.state.leader).toBe(66n);
    propose(set.loop, 1, "held back");
    propose(set.loop, 13, "given up");
    set.clock.advance(100);
    await settle();
    expect(set.loop.waitingProposals).toBe(1);
    set.loop.call((node) => node.campaign());
    await settle();
    expect(set.applied).toEqual(["", "", "held back"]);
  });

  it("puts what arrives together into one save, and leaves out what nobody waits for", async () => {
    const set = setUp();
    await elect(set);
    const before = set.saves.length;
    for (const [suffix, text] of [
      [1, "a"],
      [13, "gone"],
      [2, "b"],
    ] as const) {
      propose(set.loop, suffix, text);
    }
    await settle();
    expect(set.saves.slice(before).map((save) => save.entries)).toEqual([["a", "b"], []]);
    expect(set.applied).toEqual(["", "a", "b"]);
  });

  it("applies nothing before it is durable, and takes more in meanwhile", async () => {
    const set = setUp();
    await elect(set);
    set.state.isManual = true;
    const before = set.saves.length;
    propose(set.loop, 1, "a");
    await settle();
    propose(set.loop, 2, "b");
    await settle();
    expect(set.saves.slice(before).map((save) => save.entries)).toEqual([["a"], ["b"]]);
    expect(set.applied).toEqual([""]);
    set.saves[before]?.done.resolve();
    await settle();
    expect(set.applied).toEqual(["", "a"]);
    set.saves[before + 1]?.done.resolve();
    await settle();
    expect(set.applied).toEqual(["", "a", "b"]);
    set.state.isManual = false;
    for (const save of set.saves) save.done.resolve();
  });

  it("gathers what comes while the disk works, and a little longer, when told how many make a group", async () => {
    const set = setUp();
    await elect(set);
    set.state.isManual = true;
    set.state.callers = 100;
    const before = set.saves.length;
    const groups = () =>
      set.saves
        .slice(before)
        .map((save) => save.entries)
        .filter((entries) => entries.length > 0);
    for (const [suffix, text] of ["a", "b", "c"].entries()) propose(set.loop, suffix + 20, text);
    await settle();
    expect(groups()).toEqual([["a", "b", "c"]]);
    // Behind a save, however many they are.
    for (const [suffix, text] of ["d", "e", "f", "g"].entries()) propose(set.loop, suffix + 30, text);
    await settle();
    expect(groups().length).toBe(1);
    const finish = async () => {
      for (let i = 0; i < 3; i++) {
        for (const save of set.saves) save.done.resolve();
        await settle();
      }
    };
    await finish();
    expect(groups().slice(1)).toEqual([["d", "e", "f", "g"]]);
    await finish();
    // Fewer than a group are not held for ever.
    propose(set.loop, 40, "h");
    await yieldToEventLoop();
    propose(set.loop, 41, "i");
    await settle();
    expect(groups().slice(2)).toEqual([["h", "i"]]);
    await finish();
    expect(set.applied.slice(1).join("")).toBe("abcdefghi");
  });

  it("lets no save that has less to wait for speak for an older one", async () => {
    const set = setUp();
    await elect(set);
    set.state.isManual = true;
    propose(set.loop, 1, "a");
    await settle();
    propose(set.loop, 2, "b");
    await settle();
    set.saves.at(-1)?.done.resolve();
    await settle();
    expect(set.applied).toEqual([""]);
    set.state.isManual = false;
    for (const save of set.saves) save.done.resolve();
    await settle();
    expect(set.applied).toEqual(["", "a", "b"]);
  });

  it("answers reads while a save is in flight, at the index that is committed", async () => {
    const set = setUp();
    await elect(set);
    set.state.isManual = true;
    propose(set.loop, 1, "a");
    await settle();
    set.loop.readIndex(utf8Bytes("r"));
    await settle();
    expect(set.reads).toEqual(["r@2"]);
    set.state.isManual = false;
    for (const save of set.saves) save.done.resolve();
  });

  it("ends with the error of a disk that refuses, and acknowledges nothing", async () => {
    const set = setUp();
    const { ended } = await elect(set);
    set.state.isManual = true;
    propose(set.loop, 1, "a");
    await settle();
    set.saves.at(-1)?.done.reject(new Error("no space left on device"));
    await expect(ended).rejects.toThrow("no space left");
    expect(set.applied).toEqual([""]);
  });

  it("ticks on the clock, once for what was missed", async () => {
    const set = setUp();
    await elect(set);
    expect(set.loop.hasTickedWithin(100)).toBe(true);
    set.clock.advance(1000);
    expect(set.loop.hasTickedWithin(300)).toBe(false);
    await settle();
    expect(set.loop.hasTickedWithin(300)).toBe(true);
    expect(set.loop.isLeader).toBe(true);
  });
});
