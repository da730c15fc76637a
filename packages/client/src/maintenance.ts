/**
 * Operating a cluster: status, alarms, hashes, defragmentation, snapshots. Most of these speak of one member: name it by
 * `endpoint`.
 *
 * ```ts
 * for await (const bytes of client.maintenance.snapshot()) file.write(bytes);
 * ```
 */
import { createHash } from "node:crypto";
import type { Client } from "./client.ts";
import { RpcError } from "./errors.ts";
import type { CallOptions } from "./options.ts";
import {
  AlarmAction,
  type AlarmResponse,
  AlarmType,
  Code,
  type DefragmentResponse,
  type HashKVResponse,
  type HashResponse,
  Maintenance,
  type MoveLeaderResponse,
  type SnapshotResponse,
  type StatusResponse,
} from "./wire/index.ts";

/** The SHA-256 that follows the database in a snapshot. */
const DIGEST_BYTES = 32;

/** Status, alarms, hashes, defragmentation, snapshots, leadership. */
export class MaintenanceClient {
  readonly #client: Client;

  constructor(client: Client) {
    this.#client = client;
  }

  /** The state of the member that answers: version, size, leader, indexes, alarms. */
  status(options: CallOptions = {}): Promise<StatusResponse> {
    return this.#client.call(Maintenance.methods.status, {}, options);
  }

  /** Gives free space of one member's database back to the disk; that member may pause meanwhile. */
  defragment(options: CallOptions = {}): Promise<DefragmentResponse> {
    return this.#client.call(Maintenance.methods.defragment, {}, options);
  }

  /** A hash over the whole database of one member, layout included. */
  hash(options: CallOptions = {}): Promise<HashResponse> {
    return this.#client.call(Maintenance.methods.hash, {}, options);
  }

  /** A hash over all keys up to a revision (0 or absent: the current one); equal on all members. */
  hashKv(options: CallOptions & { revision?: number | undefined } = {}): Promise<HashKVResponse> {
    return this.#client.call(Maintenance.methods.hashKv, { revision: options.revision ?? 0 }, options);
  }

  /** All alarms that are raised. */
  alarmList(options: CallOptions = {}): Promise<AlarmResponse> {
    return this.alarm(AlarmAction.Get, AlarmType.None, 0n, options);
  }

  /** Takes back one alarm of one member. */
  alarmDisarm(memberId: bigint, alarm: number, options: CallOptions = {}): Promise<AlarmResponse> {
    return this.alarm(AlarmAction.Deactivate, alarm, memberId, options);
  }

  /** Lists, raises or takes back alarms: AlarmAction, AlarmType and the member concerned. */
  alarm(action: number, alarm: number, memberId: bigint, options: CallOptions = {}): Promise<AlarmResponse> {
    return this.#client.call(Maintenance.methods.alarm, { action, alarm, memberId }, options);
  }

  /** Hands leadership to another member; the leader must be the one that is asked. */
  moveLeader(targetId: bigint, options: CallOptions = {}): Promise<MoveLeaderResponse> {
    return this.#client.call(Maintenance.methods.moveLeader, { targetId }, options);
  }

  /**
   * The member's database as the bytes of a snapshot file: a bbolt database and its SHA-256, which is verified. Throws
   * RpcError with code DataLoss when it does not match or the stream ends early. The bytes are the caller's.
   */
  async *snapshot(options: CallOptions = {}): AsyncGenerator<Uint8Array, void, void> {
    const hash = createHash("sha256");
    let held: Uint8Array | undefined;
    const responses = this.#client.serverStream<Record<string, never>, SnapshotResponse>(
      Maintenance.methods.snapshot,
      {},
      options,
    );
    for await (const { blob } of responses) {
      if (blob.length === 0) continue;
      if (held) hash.update(held);
      held = blob;
      yield blob;
    }
    const digest = hash.digest();
    if (held?.length !== DIGEST_BYTES || !digest.equals(held)) {
      throw new RpcError(Code.DataLoss, "the snapshot does not match its checksum");
    }
  }
}
