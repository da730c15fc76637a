import { EtcdError } from "@etcd-ts/client/wire";
import { describe, expect, it } from "vitest";
import { VirtualClock } from "../lib/clock.ts";
import type { Logger } from "../lib/log.ts";
import type { Member } from "../membership/index.ts";
import {
  CorruptionChecker,
  type CorruptionDeps,
  checkInitially,
  type HistoryHash,
  type PeerHash,
  runCorruptionChecks,
} from "./corruption.ts";

const member = (id: bigint): Member => ({
  id,
  name: `m${id}`,
  peerUrls: [`http://m${id}`],
  clientUrls: [],
  isLearner: false,
});

interface Setting {
  /** What this member's hashes are, one call after the other; the last one again and again. */
  readonly own?: readonly Partial<HistoryHash>[];
  readonly stored?: readonly Omit<HistoryHash, "currentRevision">[];
  /** By id: what the peer says, or an error of it. */
  readonly peers: Readonly<Record<string, (revision: number) => Partial<PeerHash> | Error>>;
}

function setUp(setting: Setting) {
  const lines: string[] = [];
  const asked: number[] = [];
  let alarms = 0;
  let reads = 0;
  let calls = 0;
  const own = setting.own ?? [{}];
  const base = { hash: 7, revision: 10, compactRevision: 3, currentRevision: 10 };
  const log = (level: string) => (message: string) => void lines.push(`${level} ${message}`);
  const logger: Logger = {
    debug: () => {},
    info: log("info"),
    warn: log("warn"),
    error: log("error"),
    isDebugEnabled: false,
  };
  const deps: CorruptionDeps = {
    clock: new VirtualClock(),
    logger,
    memberId: 1n,
    requestTimeoutMs: 7000,
    hashKv: async () => ({ ...base, ...own[Math.min(calls++, own.length - 1)] }),
    compactionHashes: () => setting.stored ?? [],
    members: () => [member(1n), ...Object.keys(setting.peers).map((id) => member(BigInt(id)))],
    peerHashKv: async (url, revision) => {
      asked.push(revision);
      const answer = setting.peers[url.substring("http://m".length)]?.(revision);
      if (answer instanceof Error) throw answer;
      return { ...base, ...answer };
    },
    linearizableRead: async () => void reads++,
    raiseCorrupt: () => void alarms++,
  };
  return { deps, lines, asked, alarms: () => alarms, reads: () => reads };
}

const signal = new AbortController().signal;
const same = () => ({});

describe("the initial check", () => {
  it("passes when everybody has the same", async () => {
    const { deps, lines, asked } = setUp({ peers: { 2: same, 3: same } });
    await checkInitially(deps);
    expect(asked).toEqual([10, 10]);
    expect(lines).toEqual([
      "info starting initial corruption check",
      "info initial corruption checking passed; no corruption",
    ]);
  });

  it("refuses the start when a hash differs at the same compaction", async () => {
    const { deps, lines } = setUp({ peers: { 2: same, 3: () => ({ hash: 8 }) } });
    await expect(checkInitially(deps)).rejects.toThrow("1 found data inconsistency with peers");
    expect(lines).toContain("warn found different hash values from remote peer");
  });

  it.each([
    ["has compacted elsewhere", () => ({ hash: 8, compactRevision: 4 }), "found different compact revision values"],
    ["is behind", () => new EtcdError("FutureRevision"), "cannot fetch hash from slow remote peer"],
    ["has compacted more", () => new EtcdError("Compacted"), "cannot fetch hash from remote peer; local member is"],
    ["is of another cluster", () => new EtcdError("ClusterIDMismatch"), "cluster ID mismatch"],
    ["is not there", () => new Error("connection refused"), "failed hash kv request"],
  ])("lets it pass when a peer %s, and says so", async (_what, peer, line) => {
    const { deps, lines } = setUp({ peers: { 2: peer } });
    await checkInitially(deps);
    expect(lines.some((text) => text.startsWith(`warn ${line}`))).toBe(true);
  });

  it("does not start a member that cannot hash its own store", async () => {
    const { deps } = setUp({ peers: {} });
    const broken = { ...deps, hashKv: () => Promise.reject(new EtcdError("Compacted")) };
    await expect(checkInitially(broken)).rejects.toThrow("1 failed to fetch hash (");
  });
});

describe("the periodic check", () => {
  const check = async (setting: Setting) => {
    const set = setUp(setting);
    await new CorruptionChecker(set.deps).checkHistory(signal);
    return set;
  };

  it("reads linearizably between the two hashes of its own", async () => {
    const { reads, alarms, lines } = await check({ peers: { 2: same, 3: () => new Error("gone") } });
    expect([reads(), alarms()]).toEqual([1, 0]);
    expect(lines.at(-1)).toBe("info finished peer corruption check");
  });

  it.each([
    ["the own hash changed without a write", { own: [{}, { hash: 8 }], peers: {} }, "found hash mismatch"],
    [
      "a follower is ahead",
      { peers: { 2: () => ({ currentRevision: 11 }) } },
      "revision from follower must be less than or equal to leader's",
    ],
    [
      "a follower has compacted more",
      { peers: { 2: () => ({ compactRevision: 4 }) } },
      "compact revision from follower must be less than or equal to leader's",
    ],
    [
      "a hash differs at the same compaction",
      { peers: { 2: () => ({ hash: 8 }), 3: () => ({ hash: 9 }) } },
      "same compact revision then hashes must match",
    ],
  ] as const)("raises the alarm once when %s", async (_what, setting, line) => {
    const { alarms, lines } = await check(setting);
    expect(alarms()).toBe(1);
    expect(lines).toContain(`warn ${line}`);
  });

  it.each([
    ["a write came between its hashes", { own: [{}, { hash: 8, revision: 11 }], peers: {} }],
    ["a compaction came between its hashes", { own: [{}, { hash: 8, compactRevision: 5 }], peers: {} }],
    ["a follower lags", { peers: { 2: () => ({ currentRevision: 2, hash: 7 }) } }],
    ["a follower has not compacted yet", { peers: { 2: () => ({ compactRevision: 1, hash: 99 }) } }],
    [
      "the leader has caught up by the time of the read",
      { own: [{}, { revision: 12, currentRevision: 12 }], peers: { 2: () => ({ currentRevision: 12 }) } },
    ],
  ] as const)("raises none when %s", async (_what, setting) => {
    expect((await check(setting)).alarms()).toBe(0);
  });
});

describe("the check of compaction hashes", () => {
  const stored = [2, 4, 6].map((revision) => ({ revision, compactRevision: revision - 2, hash: 100 + revision }));
  const right = (revision: number) => ({ compactRevision: revision - 2, hash: 100 + revision });

  it("asks for the newest first, which vouches for the older ones, and does not ask again", async () => {
    const { deps, asked, lines } = setUp({ stored, peers: { 2: right, 3: right } });
    const checker = new CorruptionChecker(deps);
    await checker.checkCompactions(signal);
    expect(asked).toEqual([6, 6]);
    expect(lines).toContain("info successfully checked hash on whole cluster");
    await checker.checkCompactions(signal);
    expect(asked).toHaveLength(2);
  });

  it("goes back to older ones while a member cannot be compared", async () => {
    const late = (revision: number) => (revision > 2 ? new EtcdError("FutureRevision") : right(revision));
    const { deps, asked, alarms } = setUp({ stored, peers: { 2: right, 3: late } });
    await new CorruptionChecker(deps).checkCompactions(signal);
    expect(asked).toEqual([6, 6, 4, 4, 2, 2]);
    expect(alarms()).toBe(0);
  });

  it("raises the alarm at the first that differs", async () => {
    const wrong = (revision: number) => ({ ...right(revision), hash: 1 });
    const { deps, asked, alarms, lines } = setUp({ stored, peers: { 2: right, 3: wrong } });
    await new CorruptionChecker(deps).checkCompactions(signal);
    expect([asked, alarms()]).toEqual([[6, 6], 1]);
    expect(lines).toContain("error failed compaction hash check");
  });

  it("says nothing of a hash from another compaction", async () => {
    const other = (revision: number) => ({ compactRevision: revision - 1, hash: 1 });
    const { deps, alarms } = setUp({ stored, peers: { 2: other } });
    await new CorruptionChecker(deps).checkCompactions(signal);
    expect(alarms()).toBe(0);
  });
});

it("the checks run while this member leads, and end with the signal", async () => {
  const { deps, reads } = setUp({ peers: { 2: same } });
  const clock = deps.clock as VirtualClock;
  const stop = new AbortController();
  let isLeader = false;
  const schedule = { corruptCheckIntervalMs: 1000, compactHashCheck: true, compactHashCheckIntervalMs: 1000 };
  const running = runCorruptionChecks(
    new CorruptionChecker(deps),
    schedule,
    { ...deps, isLeader: () => isLeader },
    stop.signal,
  );
  const settle = () => new Promise((resolve) => setImmediate(resolve));
  clock.advance(1000);
  await settle();
  expect(reads()).toBe(0);
  isLeader = true;
  clock.advance(1000);
  await settle();
  expect(reads()).toBe(1);
  stop.abort();
  await running;
});
