/**
 * The Raft paper (Ongaro, Ousterhout: In Search of an Understandable Consensus Algorithm, 2014), section by section: what
 * it demands, shown on single nodes that get messages and on small clusters that exchange them.
 */
import { describe, expect, test } from "vitest";
import { utf8Bytes, utf8Text } from "../lib/bytes.ts";
import { silentLogger } from "../lib/log.ts";
import { SeededRandom } from "../lib/random.ts";
import { type Entry, type Message, MessageType, MessageTypeInfo } from "../pb/raftpb.ts";
import { newMessage } from "./messages.ts";
import { Raft } from "./raft.ts";
import { RawNode } from "./raw-node.ts";
import { emptyConfState, MemoryStorage } from "./storage.ts";
import type { RaftConfig, RaftState } from "./types.ts";

const { MsgApp, MsgAppResp, MsgHeartbeat, MsgVote, MsgVoteResp, MsgProp, MsgSnap } = MessageType;

/** One member, with its storage: every Ready is handled at once, what it sends is kept in `sent`. */
class Member {
  readonly storage = new MemoryStorage();
  readonly applied: string[] = [];
  readonly core: Raft;
  readonly raw: RawNode;
  sent: Message[] = [];

  constructor(
    id: bigint,
    voters: bigint[],
    init: { log?: number[]; term?: number; vote?: bigint; commit?: number; seed?: number } & Partial<RaftConfig> = {},
  ) {
    const { log = [], term = 0, vote = 0n, commit = 0, seed = Number(id), ...config } = init;
    // A snapshot at 0 cannot be stored, so the configuration comes with the storage itself.
    this.storage.initialState = () => {
      return { hardState: { term, vote, commit }, confState: { ...emptyConfState(), voters } };
    };
    this.storage.append(log.map((entryTerm, i) => entry(entryTerm, i + 1)));
    let core: Raft | undefined;
    this.raw = new RawNode({
      id,
      electionTicks: 10,
      heartbeatTicks: 1,
      storage: this.storage,
      messageBytesMax: Number.POSITIVE_INFINITY,
      inflightMessagesMax: 256,
      logger: silentLogger,
      random: new SeededRandom(seed),
      newCore: (one) => {
        core = new Raft(one);
        return core;
      },
      ...config,
    });
    this.core = core as unknown as Raft;
  }

  /** Handles all Readies; gives what was sent since the last time. */
  take(): Message[] {
    while (this.raw.hasReady()) {
      const ready = this.raw.ready();
      if (ready.hardState) this.storage.setHardState(ready.hardState);
      this.storage.append(ready.entries);
      this.sent.push(...ready.messages, ...ready.messagesAfterAppend);
      this.applied.push(...ready.committedEntries.map(({ data }) => utf8Text(data ?? new Uint8Array())));
      this.raw.advance(ready);
    }
    return this.sent.splice(0);
  }

  receive(type: number, from: bigint, term: number, fields: Partial<Message> = {}): Message[] {
    this.raw.step(Object.assign(newMessage(type, this.core.id), { from, term }, fields));
    return this.take();
  }

  tick(count: number): Message[] {
    for (let i = 0; i < count; i++) this.raw.tick();
    return this.take();
  }

  /** As a leader of term 1 (or the next one), elected by all. */
  lead(): this {
    this.raw.campaign();
    for (const { to } of this.take()) this.receive(MsgVoteResp, to, this.core.term);
    return this;
  }

  terms(): number[] {
    return Array.from({ length: this.core.log.lastIndex() }, (_, i) => this.core.log.term(i + 1));
  }
}

function entry(term: number, index: number, text = ""): Entry {
  return { term, index, type: 0, data: utf8Bytes(text) };
}

/** `MsgVote 1->2 term 3` */
function texts(messages: readonly Message[]): string[] {
  return messages.map((m) => {
    const reject = m.reject ? " rejected" : "";
    return `${MessageTypeInfo.nameOf[m.type]} ${m.from}->${m.to} term ${m.term}${reject}`;
  });
}

/** Delivers until nobody has anything to say. Messages to `deaf` members, and from them, are lost. */
function converse(members: readonly Member[], deaf: readonly bigint[] = []): void {
  for (let isDone = false; !isDone; ) {
    isDone = true;
    for (const member of members) {
      for (const m of member.take()) {
        isDone = false;
        if (deaf.includes(m.to) || deaf.includes(m.from)) continue;
        members.find(({ core }) => core.id === m.to)?.raw.step(m);
      }
    }
  }
}

function cluster(size: number, init: Partial<RaftConfig> = {}): Member[] {
  const ids = Array.from({ length: size }, (_, i) => BigInt(i + 1));
  return ids.map((id) => new Member(id, ids, init));
}

const THREE = [1n, 2n, 3n];

describe("5.1 Raft basics", () => {
  for (const state of ["follower", "candidate", "leader"] as const) {
    test(`a ${state} that sees a higher term takes it over and follows`, () => {
      const member = new Member(1n, THREE, { term: 1 });
      if (state === "candidate") member.raw.campaign();
      if (state === "leader") member.lead();
      expect(member.core.state).toBe(state);
      member.receive(MsgApp, 2n, 9);
      expect(member.raw.basicStatus()).toMatchObject({ state: "follower", term: 9, lead: 2n });
    });
  }

  test("requests of an older term are refused", () => {
    const member = new Member(1n, THREE, { term: 5 });
    expect(member.receive(MsgApp, 2n, 4, { entries: [entry(4, 1)] })).toEqual([]);
    expect(member.receive(MsgVote, 2n, 4, { index: 9, logTerm: 4 })).toEqual([]);
    expect(member.raw.basicStatus()).toMatchObject({ term: 5, vote: 0n });
    expect(member.terms()).toEqual([]);
  });

  test("servers begin as followers", () => {
    expect(new Member(1n, THREE).core.state).toBe("follower");
  });
});

describe("5.2 Leader election", () => {
  test("a leader sends heartbeats to everybody, every heartbeat interval", () => {
    const leader = new Member(1n, THREE, { heartbeatTicks: 2 }).lead();
    leader.take();
    expect(texts(leader.tick(1))).toEqual([]);
    expect(texts(leader.tick(1))).toEqual(["MsgHeartbeat 1->2 term 1", "MsgHeartbeat 1->3 term 1"]);
  });

  for (const state of ["follower", "candidate"] as const) {
    test(`a ${state} that hears of nobody for an election timeout begins a new election`, () => {
      const member = new Member(1n, THREE, { term: 1 });
      if (state === "candidate") member.raw.campaign();
      member.take();
      const { term } = member.core;
      expect(texts(member.tick(20)).slice(0, 2)).toEqual([
        `MsgVote 1->2 term ${term + 1}`,
        `MsgVote 1->3 term ${term + 1}`,
      ]);
      expect(member.raw.basicStatus()).toMatchObject({ state: "candidate", vote: 1n });
    });
  }

  test("a candidate wins with the votes of a majority of the full cluster", () => {
    const cases: [size: number, votes: (boolean | undefined)[], state: RaftState][] = [
      [1, [], "leader"],
      [3, [true, true], "leader"],
      [3, [true], "leader"],
      [5, [true, true], "leader"],
      [3, [false, false], "follower"],
      [5, [false, false, false], "follower"],
      [5, [true, false, false, false], "follower"],
      [3, [], "candidate"],
      [5, [true], "candidate"],
      [5, [false, false], "candidate"],
    ];
    for (const [size, votes, state] of cases) {
      const ids = Array.from({ length: size }, (_, i) => BigInt(i + 1));
      const member = new Member(1n, ids);
      member.raw.campaign();
      member.take();
      for (const [i, vote] of votes.entries()) member.receive(MsgVoteResp, BigInt(i + 2), 1, { reject: !vote });
      expect(member.core.state, `${size}: ${votes}`).toBe(state);
      expect(member.core.term).toBe(1);
    }
  });

  test("a server votes for one candidate a term, first come first served", () => {
    const cases: [vote: bigint, asker: bigint, granted: boolean][] = [
      [0n, 2n, true],
      [0n, 3n, true],
      [2n, 2n, true],
      [3n, 3n, true],
      [2n, 3n, false],
      [3n, 2n, false],
    ];
    for (const [vote, asker, granted] of cases) {
      const member = new Member(1n, THREE, { term: 1, vote });
      const [response] = member.receive(MsgVote, asker, 1);
      expect(response?.reject, `${vote} ${asker}`).toBe(!granted);
    }
  });

  test("a candidate that hears of a leader of its term, or a later one, follows", () => {
    for (const term of [1, 2]) {
      const member = new Member(1n, THREE);
      member.raw.campaign();
      member.receive(MsgApp, 2n, term);
      expect(member.raw.basicStatus()).toMatchObject({ state: "follower", term, lead: 2n });
    }
  });

  test("election timeouts are drawn from [n, 2n - 1] ticks, all of them, and anew each time", () => {
    for (const state of ["follower", "candidate"] as const) {
      const member = new Member(1n, THREE);
      const drawn = new Set<number>();
      for (let i = 0; i < 500; i++) {
        if (state === "follower") member.core.becomeFollower(member.core.term + 1, 2n);
        else member.raw.campaign();
        member.take();
        let ticks = 0;
        const { term } = member.core;
        while (member.core.term === term) {
          member.tick(1);
          ticks++;
        }
        drawn.add(ticks);
      }
      expect([...drawn].sort((a, b) => a - b)).toEqual([10, 11, 12, 13, 14, 15, 16, 17, 18, 19]);
    }
  });

  test("most elections are not split: five members rarely time out in the same tick", () => {
    let conflicts = 0;
    for (let round = 0; round < 300; round++) {
      const members = [1n, 2n, 3n, 4n, 5n].map(
        (id) => new Member(id, [1n, 2n, 3n, 4n, 5n], { seed: round * 5 + Number(id) }),
      );
      let candidates = 0;
      while (candidates === 0) {
        for (const member of members) member.tick(1);
        candidates = members.filter(({ core }) => core.state === "candidate").length;
      }
      if (candidates > 1) conflicts++;
    }
    expect(conflicts / 300).toBeLessThan(0.4);
  });
});

describe("5.3 Log replication", () => {
  test("a leader appends a command as a new entry and sends it to all", () => {
    const leader = new Member(1n, THREE).lead();
    for (const id of [2n, 3n]) leader.receive(MsgAppResp, id, 1, { index: 1 });
    leader.raw.propose(utf8Bytes("x"));
    const appends = leader.take();
    expect(texts(appends)).toEqual(["MsgApp 1->2 term 1", "MsgApp 1->3 term 1"]);
    leader.receive(MsgAppResp, 2n, 1, { index: 2 });
    expect(leader.terms()).toEqual([1, 1]);
  });

  test("an entry is committed, and applied, when a majority has it", () => {
    for (const [size, others, isCommitted] of [
      [1, 0, true],
      [3, 0, false],
      [3, 1, true],
      [5, 1, false],
      [5, 2, true],
    ] as const) {
      const members = cluster(size);
      const leader = members[0] as Member;
      leader.raw.campaign();
      converse(members);
      leader.raw.propose(utf8Bytes("x"));
      const deaf = members.slice(1 + others).map(({ core }) => core.id);
      converse(members, deaf);
      expect(leader.core.log.committed, `${size} ${others}`).toBe(isCommitted ? 2 : 1);
      expect(leader.applied).toEqual(isCommitted ? ["", "x"] : [""]);
    }
  });

  test("the entries before it are committed with it, those of earlier leaders too", () => {
    for (const log of [[], [1], [1, 2], [2, 2]]) {
      const leader = new Member(1n, THREE, { log, term: 2 }).lead();
      expect(leader.core.term).toBe(3);
      leader.raw.propose(utf8Bytes("x"));
      leader.take();
      expect(leader.core.log.committed).toBe(0);
      leader.receive(MsgAppResp, 2n, 3, { index: log.length + 2 });
      expect(leader.core.log.committed).toBe(log.length + 2);
      expect(leader.applied).toEqual([...log.map(() => ""), "", "x"]);
    }
  });

  test("a follower learns what is committed from the leader's messages, and applies it in order", () => {
    for (const commit of [1, 2, 3]) {
      const member = new Member(1n, THREE, { term: 1 });
      const entries = [entry(1, 1, "a"), entry(1, 2, "b")];
      member.receive(MsgApp, 2n, 1, { entries, commit });
      expect(member.core.log.committed).toBe(Math.min(commit, 2));
      expect(member.applied).toEqual(["a", "b"].slice(0, commit));
    }
  });

  test("a follower that does not have the entry before refuses, and says where they may agree", () => {
    const cases: [logTerm: number, index: number, rejected: boolean, hint: number][] = [
      [0, 0, false, 0],
      [1, 1, false, 0],
      [2, 2, false, 0],
      [1, 2, true, 1],
      [3, 3, true, 2],
    ];
    for (const [logTerm, index, rejected, hint] of cases) {
      const member = new Member(1n, THREE, { log: [1, 2], term: 2, commit: 0 });
      const [response] = member.receive(MsgApp, 2n, 2, { logTerm, index });
      expect(response, `${logTerm}/${index}`).toMatchObject({ type: MsgAppResp, reject: rejected, rejectHint: hint });
    }
  });

  test("a follower removes its own entry, and all after it, where it conflicts with the leader's", () => {
    const cases: [logTerm: number, index: number, entries: Entry[], terms: number[]][] = [
      [2, 2, [entry(3, 3)], [1, 2, 3]],
      [1, 1, [entry(3, 2), entry(4, 3)], [1, 3, 4]],
      [0, 0, [entry(1, 1)], [1, 2]],
      [0, 0, [entry(3, 1)], [3]],
    ];
    for (const [logTerm, index, entries, terms] of cases) {
      const member = new Member(1n, THREE, { log: [1, 2], term: 2 });
      member.receive(MsgApp, 2n, 4, { logTerm, index, entries });
      expect(member.terms()).toEqual(terms);
    }
  });

  /** Figure 7: logs that followers may have when the leader of term 8 comes to power. */
  const figure7: Readonly<Record<string, number[]>> = {
    a: [1, 1, 1, 4, 4, 5, 5, 6, 6],
    b: [1, 1, 1, 4],
    c: [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
    d: [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
    e: [1, 1, 1, 4, 4, 4, 4],
    f: [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
  };
  for (const [name, log] of Object.entries(figure7)) {
    test(`figure 7 ${name}: the leader brings the follower's log in line with its own`, () => {
      const leader = new Member(1n, THREE, { log: [1, 1, 1, 4, 4, 5, 5, 6, 6, 6], term: 7 });
      const follower = new Member(2n, THREE, { log, term: 7 });
      const third = new Member(3n, THREE, { term: 7 });
      leader.raw.campaign();
      converse([leader, follower, third]);
      if (leader.core.state !== "leader") throw new Error("3 should have voted for it");
      expect(leader.core.term).toBe(8);
      leader.raw.propose(utf8Bytes("x"));
      converse([leader, follower, third]);
      expect(follower.terms()).toEqual(leader.terms());
      expect(follower.terms()).toEqual([1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 8, 8]);
    });
  }
});

describe("5.4.1 Election restriction", () => {
  test("a vote request carries the candidate's last entry", () => {
    const member = new Member(1n, THREE, { log: [1, 2], term: 2 });
    member.raw.campaign();
    for (const m of member.take()) expect(m).toMatchObject({ type: MsgVote, term: 3, index: 2, logTerm: 2 });
  });

  test("a voter refuses a candidate whose log is less up to date than its own", () => {
    const cases: [log: number[], logTerm: number, index: number, rejected: boolean][] = [
      [[1], 1, 1, false],
      [[1], 1, 2, false],
      [[1, 1], 1, 1, true],
      [[1], 2, 1, false],
      [[1], 2, 2, false],
      [[1, 1], 2, 1, false],
      [[2], 1, 1, true],
      [[2], 1, 2, true],
      [[2, 1], 1, 1, true],
    ];
    for (const [log, logTerm, index, rejected] of cases) {
      const member = new Member(1n, THREE, { log, term: 2 });
      const [response] = member.receive(MsgVote, 2n, 3, { logTerm, index });
      expect(response?.reject, `${log} ${logTerm}/${index}`).toBe(rejected);
    }
  });
});

describe("5.4.2 Committing entries from previous terms", () => {
  test("a leader commits by counting only what is of its own term", () => {
    for (const [index, committed] of [
      [1, 0],
      [2, 0],
      [3, 3],
    ] as const) {
      const leader = new Member(1n, THREE, { log: [1, 2], term: 2 }).lead();
      leader.raw.propose(utf8Bytes("x"));
      leader.take();
      leader.receive(MsgAppResp, 2n, 3, { index });
      expect(leader.core.log.committed, `acknowledged ${index}`).toBe(committed);
    }
  });
});

describe("5.5 Follower and candidate crashes", () => {
  test("messages that come twice do no harm", () => {
    const member = new Member(1n, THREE, { term: 1 });
    const append = { entries: [entry(1, 1, "a"), entry(1, 2, "b")], commit: 1 };
    expect(member.receive(MsgApp, 2n, 1, append)).toMatchObject([{ reject: false, index: 2 }]);
    expect(member.receive(MsgApp, 2n, 1, append)).toMatchObject([{ reject: false, index: 1 }]);
    expect(member.terms()).toEqual([1, 1]);
    expect(member.applied).toEqual(["a"]);
    const vote = { index: 2, logTerm: 1 };
    expect(member.receive(MsgVote, 3n, 2, vote)).toEqual(member.receive(MsgVote, 3n, 2, vote));
  });

  test("a leader goes on trying to reach a follower that is down", () => {
    const members = cluster(3);
    const [leader, , third] = members as [Member, Member, Member];
    leader.raw.campaign();
    converse(members);
    leader.raw.propose(utf8Bytes("x"));
    converse(members, [3n]);
    expect(third.applied).toEqual([""]);
    for (const m of leader.tick(1)) members.find(({ core }) => core.id === m.to)?.raw.step(m);
    converse(members);
    expect(third.applied).toEqual(["", "x"]);
  });
});

describe("5.6 Timing and availability", () => {
  test("nobody campaigns while the leader's heartbeats arrive", () => {
    const members = cluster(3);
    (members[0] as Member).raw.campaign();
    converse(members);
    for (let i = 0; i < 100; i++) {
      for (const member of members) member.raw.tick();
      converse(members);
    }
    expect(members.map(({ core }) => `${core.state} ${core.term}`)).toEqual(["leader 1", "follower 1", "follower 1"]);
  });
});

describe("thesis 6.2 A leader that nobody answers steps down", () => {
  const ledCluster = (size: number, checkQuorumEachTick: boolean) => {
    const members = cluster(size, { checkQuorum: true, checkQuorumEachTick });
    (members[0] as Member).raw.campaign();
    converse(members);
    return members;
  };
  /** How many ticks a leader lasts that has heard of everybody `after` ticks into an election timeout. */
  const lasts = (members: readonly Member[], after: number): number => {
    const leader = members[0] as Member;
    for (let i = 0; i < after; i++) {
      leader.raw.tick();
      converse(members);
    }
    let ticks = 0;
    for (; leader.core.state === "leader"; ticks++) leader.raw.tick();
    return ticks;
  };

  test("when an election timeout has passed, with checkQuorumEachTick", () => {
    const members = ledCluster(3, true);
    const { electionTicks } = (members[0] as Member).core;
    for (const after of [0, 1, electionTicks - 1]) expect(lasts(ledCluster(3, true), after)).toBe(electionTicks);
  });

  test("at the second look at the latest, without", () => {
    const { electionTicks } = (ledCluster(3, false)[0] as Member).core;
    expect(lasts(ledCluster(3, false), 1)).toBe(2 * electionTicks - 1);
  });

  test("one of two who answers is enough, and a new member has a timeout to do so", () => {
    const members = ledCluster(3, true);
    const [leader, second, third] = members as [Member, Member, Member];
    const { electionTicks } = leader.core;
    for (let i = 0; i < 3 * electionTicks; i++) {
      leader.raw.tick();
      converse([leader, second]);
    }
    expect(leader.core.state).toBe("leader");
    // With a fourth, three are a quorum.
    leader.raw.applyConfChange({ type: 0, nodeId: 4n, context: undefined, id: 0n });
    let ticks = 0;
    for (; leader.core.state === "leader"; ticks++) {
      leader.raw.tick();
      converse([leader, second]);
    }
    expect(ticks).toBe(electionTicks + 1);
    expect(third.core.state).toBe("follower");
  });
});

describe("6 Cluster membership changes", () => {
  test("a server removed from the cluster cannot disturb it while the leader is heard of", () => {
    const members = cluster(3, { checkQuorum: true });
    const [leader, second] = members as [Member, Member];
    leader.raw.campaign();
    converse(members);
    expect(second.receive(MsgVote, 9n, 50, { index: 100, logTerm: 40 })).toEqual([]);
    expect(second.raw.basicStatus()).toMatchObject({ term: 1, lead: 1n });
    // When it has not been heard of for an election timeout, the request is taken seriously.
    second.core.electionElapsed = second.core.electionTicks;
    expect(texts(second.receive(MsgVote, 9n, 50, { index: 100, logTerm: 40 }))).toEqual(["MsgVoteResp 2->9 term 50"]);
  });

  test("a change takes part in majorities from when it is applied, and only one is under way", () => {
    const members = cluster(1);
    const leader = members[0] as Member;
    leader.raw.campaign();
    converse(members);
    const add = (nodeId: bigint) => ({ type: 0, nodeId, context: undefined, id: 0n });
    leader.raw.proposeConfChange(add(2n));
    leader.raw.proposeConfChange(add(3n));
    leader.take();
    const types = leader.storage.entries(2, 4, Number.POSITIVE_INFINITY).map(({ type }) => type);
    expect(types).toEqual([1, 0]);
    leader.raw.applyConfChange(add(2n));
    leader.raw.propose(utf8Bytes("x"));
    leader.take();
    expect(leader.core.log.committed).toBe(3);
    leader.receive(MsgAppResp, 2n, 1, { index: 4 });
    expect(leader.core.log.committed).toBe(4);
  });
});

describe("7 Log compaction", () => {
  test("a follower that is too far behind gets a snapshot, and what it stands for is not applied again", () => {
    const members = cluster(2);
    const [leader, follower] = members as [Member, Member];
    leader.raw.campaign();
    converse(members);
    leader.raw.propose(utf8Bytes("x"));
    converse(members);
    const confState = { ...emptyConfState(), voters: [1n, 2n] };
    leader.storage.createSnapshot(2, confState, utf8Bytes("state"));
    leader.storage.compact(2);
    const progress = leader.core.tracker.progress.get(2n);
    progress?.becomeProbe();
    if (progress) {
      progress.match = 0;
      progress.next = 1;
    }
    leader.raw.tick();
    const [heartbeat] = leader.take();
    expect(heartbeat?.type).toBe(MsgHeartbeat);
    follower.raw.step(heartbeat as Message);
    for (const m of follower.take()) leader.raw.step(m);
    const [snapshot] = leader.take();
    expect(snapshot).toMatchObject({ type: MsgSnap, snapshot: { metadata: { index: 2, term: 1 } } });
    follower.raw.step(snapshot as Message);
    expect(texts(follower.take())).toEqual(["MsgAppResp 2->1 term 1"]);
    expect(follower.applied).toEqual(["", "x"]);
  });
});

describe("8 Client interaction", () => {
  test("a follower hands proposals to its leader; without one they are refused", () => {
    const member = new Member(1n, THREE, { term: 1 });
    expect(member.raw.propose(utf8Bytes("x"))?.message).toBe("raft proposal dropped");
    member.receive(MsgHeartbeat, 2n, 1);
    expect(member.raw.propose(utf8Bytes("x"))).toBeUndefined();
    expect(member.take()).toMatchObject([{ type: MsgProp, from: 1n, to: 2n, term: 0 }]);
  });

  test("a leader starts its term with an empty entry, so that it learns what is committed", () => {
    const leader = new Member(1n, THREE, { log: [1], term: 1 }).lead();
    expect(leader.terms()).toEqual([1, 2]);
    const appends = leader.take().filter(({ type }) => type === MsgApp);
    expect(appends.every(({ entries }) => entries.at(-1)?.data === undefined)).toBe(true);
  });

  test("a read waits for a round of heartbeats, so that a deposed leader cannot answer it", () => {
    const leader = new Member(1n, THREE).lead();
    leader.take();
    leader.receive(MsgAppResp, 2n, 1, { index: 1 });
    leader.raw.readIndex(utf8Bytes("r"));
    expect(leader.raw.ready().readStates).toEqual([]);
  });
});
