/**
 * Linearizable reads. A read may be served once this member has applied everything that was committed when the read
 * began; raft's ReadIndex names that point after the leader has made sure that it still leads (thesis 6.4).
 *
 * All reads that arrive while a round is under way share the next one. A round whose answer gets lost is asked for again,
 * with the same id, because an answer to an older request of ours must not pass for one to this.
 */
import { EtcdError } from "@etcd-ts/client/wire";
import type { Clock } from "../lib/clock.ts";
import { goDuration } from "../lib/go-format.ts";
import type { Logger } from "../lib/log.ts";
import { type Deferred, deferred } from "../lib/wait.ts";
import type { ReadState } from "../raft/index.ts";
import { READ_INDEX_RETRY_MS } from "./limits.ts";
import { traceIfLong } from "./trace.ts";
import type { IndexWaiters } from "./waiters.ts";

export interface ReadIndexDeps {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly timeoutMs: number;
  readonly applied: IndexWaiters;
  /** A fresh id, for the context of a round. */
  nextId(): bigint;
  /** Asks raft; the answer comes to {@link ReadIndex.receive}. */
  request(context: Uint8Array): void;
  /** For metrics: a round that had to be asked for again, and one that came to nothing. */
  retried?(): void;
  failed?(): void;
}

interface Round {
  readonly context: Buffer;
  readonly id: bigint;
  readonly index: Deferred<number>;
}

export class ReadIndex {
  readonly #deps: ReadIndexDeps;
  /** Whom the next round serves; undefined when nobody waits. */
  #next: Deferred | undefined;
  #round: Round | undefined;
  #isRunning = false;
  #isStopped = false;

  constructor(deps: ReadIndexDeps) {
    this.#deps = deps;
  }

  /** Resolves when a read that began with this call may be served from what is applied. */
  wait(): Promise<void> {
    if (this.#isStopped) return Promise.reject(new EtcdError("Stopped"));
    this.#next ??= deferred();
    const { promise } = this.#next;
    if (!this.#isRunning) void this.#run();
    return promise;
  }

  receive(states: readonly ReadState[]): void {
    for (const state of states) {
      const round = this.#round;
      if (round && Buffer.compare(round.context, state.context) === 0) {
        round.index.resolve(state.index);
      } else {
        const received = state.context.length === 8 ? Buffer.from(state.context).readBigUInt64BE() : 0n;
        this.#deps.logger.warn(
          "ignored out-of-date read index response; local node read indexes queueing up and waiting to be in sync with leader",
          { "sent-request-id": round?.id ?? 0n, "received-request-id": received },
        );
      }
    }
  }

  /** Another leader: what the old one confirmed or not is unknown. Reads that wait end; their callers try again. */
  leaderChanged(): void {
    this.#round?.index.reject(new EtcdError("LeaderChanged"));
  }

  /** Until a leader has committed an entry of its term it answers no reads, so the first commit is a reason to ask. */
  firstCommitInTerm(): void {
    if (!this.#round) return;
    this.#deps.logger.info("first commit in current term: resending ReadIndex request");
    this.#deps.request(this.#round.context);
  }

  stop(): void {
    this.#isStopped = true;
    this.#round?.index.reject(new EtcdError("Stopped"));
    this.#next?.reject(new EtcdError("Stopped"));
    this.#next = undefined;
  }

  async #run(): Promise<void> {
    this.#isRunning = true;
    while (this.#next && !this.#isStopped) {
      const readers = this.#next;
      this.#next = undefined;
      const startMs = this.#deps.clock.monotonicMs();
      try {
        const index = await this.#confirmedIndex();
        const confirmedMs = this.#deps.clock.monotonicMs();
        const appliedIndex = this.#deps.applied.reached;
        await this.#deps.applied.wait(index);
        readers.resolve();
        traceIfLong(this.#deps, {
          operation: "linearizableReadLoop",
          startMs,
          detail: { readStateIndex: index, appliedIndex },
          steps: [
            { text: "read index received", endMs: confirmedMs },
            { text: "applied index is now lower than readState.Index", endMs: this.#deps.clock.monotonicMs() },
          ],
          hasAllSteps: true,
        });
      } catch (error) {
        readers.reject(error);
      }
    }
    this.#isRunning = false;
  }

  async #confirmedIndex(): Promise<number> {
    const { clock, logger, timeoutMs } = this.#deps;
    const id = this.#deps.nextId();
    const context = Buffer.allocUnsafe(8);
    context.writeBigUInt64BE(BigInt.asUintN(64, id));
    const round: Round = { context, id, index: deferred<number>() };
    this.#round = round;
    this.#deps.request(context);

    const retry = (): void => {
      this.#deps.retried?.();
      logger.warn("waiting for ReadIndex response took too long, retrying", {
        "sent-request-id": id,
        "retry-timeout": goDuration(READ_INDEX_RETRY_MS),
      });
      this.#deps.request(context);
      retryTimer = clock.after(READ_INDEX_RETRY_MS, retry, { unref: true });
    };
    let retryTimer = clock.after(READ_INDEX_RETRY_MS, retry, { unref: true });
    const timeoutTimer = clock.after(
      timeoutMs,
      () => {
        this.#deps.failed?.();
        logger.warn("timed out waiting for read index response (local node might have slow network)", {
          timeout: goDuration(timeoutMs),
        });
        round.index.reject(new EtcdError("Timeout"));
      },
      { unref: true },
    );
    try {
      return await round.index.promise;
    } finally {
      retryTimer.cancel();
      timeoutTimer.cancel();
      this.#round = undefined;
    }
  }
}
