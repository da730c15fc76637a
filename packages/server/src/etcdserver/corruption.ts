/**
 * Whether members still hold the same. Three checks, all of them etcd's, over the hash that members of ours and of real
 * etcd compute alike:
 *
 *   initial    a member that restarts compares its store with the others' before it serves, and does not start if they
 *              differ; those that cannot be asked, or have compacted elsewhere, say nothing
 *   periodic   the leader compares the whole history up to a revision, round a linearizable read, so that nobody may be
 *              ahead of it
 *   compact    the leader compares the hashes that compactions left behind: cheap, and every member has them
 *
 * A contradiction that the leader finds raises the CORRUPT alarm, which ends all writes. It names no member: two that
 * differ do not tell which of them is wrong.
 */
import { EtcdError } from "@etcd-ts/client/wire";
import { hexId } from "../lib/bytes.ts";
import type { Clock } from "../lib/clock.ts";
import { goDuration } from "../lib/go-format.ts";
import type { Logger } from "../lib/log.ts";
import type { Member } from "../membership/index.ts";

/** A hash of history up to a revision, and where the member that gave it stood. */
export interface HistoryHash {
  readonly hash: number;
  /** The revision up to which was hashed. */
  readonly revision: number;
  readonly compactRevision: number;
  /** The newest revision of the member. */
  readonly currentRevision: number;
}

/** What a peer tells of its history. */
export type PeerHash = Omit<HistoryHash, "revision">;

export interface CorruptionDeps {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly memberId: bigint;
  readonly requestTimeoutMs: number;
  /** Up to `revision`, 0 for the newest. */
  hashKv(revision: number, signal?: AbortSignal): Promise<HistoryHash>;
  /** Of finished compactions, in any order. */
  compactionHashes(): readonly Omit<HistoryHash, "currentRevision">[];
  /** All members, this one too. */
  members(): readonly Member[];
  /** Asks at one peer URL. Rejects with an EtcdError when the peer refuses, with another error when it cannot be asked. */
  peerHashKv(url: string, revision: number, signal: AbortSignal): Promise<PeerHash>;
  linearizableRead(signal: AbortSignal): Promise<void>;
  raiseCorrupt(): void;
}

/** What a check needs that is made before the member takes part. */
export type InitialCheckDeps = Pick<
  CorruptionDeps,
  "clock" | "logger" | "memberId" | "requestTimeoutMs" | "hashKv" | "members" | "peerHashKv"
>;

interface Answer {
  readonly id: bigint;
  readonly urls: readonly string[];
  readonly found: PeerHash | undefined;
  readonly error: unknown;
}

/** Rejects when another member holds something else. To be run before this member takes part. */
export async function checkInitially(deps: InitialCheckDeps): Promise<void> {
  const { logger, memberId, requestTimeoutMs } = deps;
  const local = { "local-member-id": hexId(memberId) };
  logger.info("starting initial corruption check", { ...local, timeout: goDuration(requestTimeoutMs) });
  let own: HistoryHash;
  try {
    own = await deps.hashKv(0);
  } catch (error) {
    throw new Error(`${hexId(memberId)} failed to fetch hash (${(error as Error).message})`, { cause: error });
  }
  let mismatches = 0;
  for (const { id, urls, found, error } of await askPeers(deps, own.revision)) {
    const fields = {
      ...local,
      "local-member-revision": own.revision,
      "local-member-compact-revision": own.compactRevision,
      "local-member-hash": own.hash,
      "remote-peer-id": hexId(id),
      "remote-peer-endpoints": urls,
    };
    if (!found) {
      const line = refusalLine(error);
      if (line) logger.warn(line, { ...fields, error });
    } else if (found.hash !== own.hash) {
      const isSameHistory = found.compactRevision === own.compactRevision;
      if (isSameHistory) mismatches++;
      logger.warn(`found different ${isSameHistory ? "hash" : "compact revision"} values from remote peer`, {
        ...fields,
        "remote-peer-revision": found.currentRevision,
        "remote-peer-compact-revision": found.compactRevision,
        "remote-peer-hash": found.hash,
      });
    }
  }
  if (mismatches > 0) throw new Error(`${hexId(memberId)} found data inconsistency with peers`);
  logger.info("initial corruption checking passed; no corruption", local);
}

export class CorruptionChecker {
  readonly #deps: CorruptionDeps;
  /** Compactions up to this revision were found equal on all members. */
  #checkedRevision = 0;

  constructor(deps: CorruptionDeps) {
    this.#deps = deps;
  }

  /** As the leader. Rejects when the check could not be made. */
  async checkHistory(signal: AbortSignal): Promise<void> {
    const { logger } = this.#deps;
    const before = await this.#deps.hashKv(0, signal);
    const answers = await askPeers(this.#deps, before.revision, signal);
    await this.#deps.linearizableRead(signal);
    const after = await this.#deps.hashKv(0, signal);
    let isCorrupt = false;
    const contradiction = (line: string, fields: Readonly<Record<string, unknown>>) => {
      logger.warn(line, fields);
      isCorrupt = true;
    };
    if (
      after.revision === before.revision &&
      after.compactRevision === before.compactRevision &&
      after.hash !== before.hash
    ) {
      contradiction("found hash mismatch", {
        "revision-1": before.revision,
        "compact-revision-1": before.compactRevision,
        "hash-1": before.hash,
        "revision-2": after.revision,
        "compact-revision-2": after.compactRevision,
        "hash-2": after.hash,
      });
    }
    let checked = 0;
    for (const { id, found } of answers) {
      if (!found) continue;
      checked++;
      const peer = { "follower-peer-id": hexId(id) };
      // Whatever the peer had when it was asked was committed, so the leader has it after the read.
      if (found.currentRevision > after.revision) {
        contradiction("revision from follower must be less than or equal to leader's", {
          "leader-revision": after.revision,
          "follower-revision": found.currentRevision,
          ...peer,
        });
      }
      if (found.compactRevision > after.compactRevision) {
        contradiction("compact revision from follower must be less than or equal to leader's", {
          "leader-compact-revision": after.compactRevision,
          "follower-compact-revision": found.compactRevision,
          ...peer,
        });
      }
      if (found.compactRevision === before.compactRevision && found.hash !== before.hash) {
        contradiction("same compact revision then hashes must match", {
          "leader-compact-revision": after.compactRevision,
          "leader-hash": before.hash,
          "follower-compact-revision": found.compactRevision,
          "follower-hash": found.hash,
          ...peer,
        });
      }
    }
    if (isCorrupt) this.#deps.raiseCorrupt();
    logger.info("finished peer corruption check", { "number-of-peers-checked": checked });
  }

  /** As the leader. */
  async checkCompactions(signal: AbortSignal): Promise<void> {
    const { logger, memberId, requestTimeoutMs } = this.#deps;
    logger.info("starting compact hash check", {
      "local-member-id": hexId(memberId),
      timeout: goDuration(requestTimeoutMs),
    });
    const unchecked = this.#deps
      .compactionHashes()
      .filter(({ revision }) => revision > this.#checkedRevision)
      .sort((a, b) => b.revision - a.revision);
    // A newer one that is equal everywhere vouches for the older ones.
    for (const [i, own] of unchecked.entries()) {
      const answers = await askPeers(this.#deps, own.revision, signal);
      if (answers.length === 0) continue;
      let checked = 0;
      for (const { id, found } of answers) {
        if (found?.compactRevision !== own.compactRevision) continue;
        if (found.hash !== own.hash) {
          this.#deps.raiseCorrupt();
          logger.error("failed compaction hash check", {
            revision: own.revision,
            "leader-compact-revision": own.compactRevision,
            "leader-hash": own.hash,
            "follower-compact-revision": found.compactRevision,
            "follower-hash": found.hash,
            "follower-peer-id": hexId(id),
          });
          return;
        }
        checked++;
        logger.info("successfully checked hash on follower", { revision: own.revision, "peer-id": hexId(id) });
      }
      const fields = { "number-of-peers-checked": checked, revision: own.revision };
      if (checked === answers.length) {
        logger.info("successfully checked hash on whole cluster", fields);
        this.#checkedRevision = Math.max(this.#checkedRevision, own.revision);
        logger.info("finished compaction hash check", { "number-of-hashes-checked": i + 1 });
        return;
      }
      logger.warn("skipped revision in compaction hash check; was not able to check all peers", {
        ...fields,
        "number-of-peers": answers.length,
      });
    }
    logger.info("finished compaction hash check", { "number-of-hashes-checked": unchecked.length });
  }
}

/** All others at once, each at its URLs in turn. */
function askPeers(deps: InitialCheckDeps, revision: number, signal?: AbortSignal): Promise<Answer[]> {
  const { logger, memberId } = deps;
  const others = deps.members().filter(({ id, peerUrls }) => id !== memberId && peerUrls.length > 0);
  return Promise.all(
    others.map(async ({ id, peerUrls: urls }): Promise<Answer> => {
      let refusal: unknown;
      for (const url of urls) {
        try {
          return { id, urls, found: await ask(deps, url, revision, signal), error: undefined };
        } catch (error) {
          refusal = error;
          logger.warn("failed hash kv request", {
            "local-member-id": hexId(memberId),
            "requested-revision": revision,
            "remote-peer-endpoint": url,
            error,
          });
        }
      }
      return { id, urls, found: undefined, error: refusal };
    }),
  );
}

async function ask(
  deps: InitialCheckDeps,
  url: string,
  revision: number,
  signal: AbortSignal | undefined,
): Promise<PeerHash> {
  const overdue = new AbortController();
  const timer = deps.clock.after(deps.requestTimeoutMs, () => overdue.abort(new Error("context deadline exceeded")), {
    unref: true,
  });
  try {
    const end = signal ? AbortSignal.any([signal, overdue.signal]) : overdue.signal;
    return await deps.peerHashKv(url, revision, end);
  } finally {
    timer.cancel();
  }
}

/** What a start says of a peer that was asked and refused; undefined when it was not reached. */
function refusalLine(error: unknown): string | undefined {
  switch (error instanceof EtcdError ? error.kind : undefined) {
    case "FutureRevision":
      return "cannot fetch hash from slow remote peer";
    case "Compacted":
      return "cannot fetch hash from remote peer; local member is behind";
    case "ClusterIDMismatch":
      return "cluster ID mismatch";
    default:
      return undefined;
  }
}

export interface CorruptionSchedule {
  /** 0: never. */
  readonly corruptCheckIntervalMs: number;
  readonly compactHashCheck: boolean;
  readonly compactHashCheckIntervalMs: number;
}

/** Runs the leader's checks until the signal is aborted. */
export async function runCorruptionChecks(
  checker: CorruptionChecker,
  schedule: CorruptionSchedule,
  deps: Pick<CorruptionDeps, "clock" | "logger" | "memberId"> & { isLeader(): boolean },
  signal: AbortSignal,
): Promise<void> {
  const { clock, logger, memberId } = deps;
  const run = async (intervalMs: number, check: (signal: AbortSignal) => Promise<void>): Promise<void> => {
    // Each pause begins when the check before it has ended, so that checks that take long do not follow at once.
    for (;;) {
      try {
        await clock.sleep(intervalMs, signal);
      } catch {
        return;
      }
      if (!deps.isLeader()) continue;
      try {
        await check(signal);
      } catch (error) {
        if (signal.aborted) return;
        logger.warn("failed to check hash KV", { error });
      }
    }
  };
  const running: Promise<void>[] = [];
  const { corruptCheckIntervalMs, compactHashCheck, compactHashCheckIntervalMs } = schedule;
  if (corruptCheckIntervalMs > 0) {
    logger.info("enabled corruption checking", {
      "local-member-id": hexId(memberId),
      interval: goDuration(corruptCheckIntervalMs),
    });
    running.push(run(corruptCheckIntervalMs, (end) => checker.checkHistory(end)));
  }
  if (compactHashCheck) running.push(run(compactHashCheckIntervalMs, (end) => checker.checkCompactions(end)));
  await Promise.all(running);
}
