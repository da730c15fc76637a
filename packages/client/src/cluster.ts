/**
 * Who is in the cluster.
 *
 * ```ts
 * const { members } = await client.cluster.memberList();
 * client.setEndpoints(members.flatMap((member) => member.clientUrls));
 * ```
 */
import type { Client } from "./client.ts";
import type { CallOptions } from "./options.ts";
import {
  Cluster,
  type MemberAddResponse,
  type MemberListResponse,
  type MemberPromoteResponse,
  type MemberRemoveResponse,
  type MemberUpdateResponse,
} from "./wire/index.ts";

/** The members of the cluster. */
export class ClusterClient {
  readonly #client: Client;

  constructor(client: Client) {
    this.#client = client;
  }

  /** All members by id. Linearizable unless told otherwise: needs a majority. */
  memberList(options: CallOptions & { linearizable?: boolean | undefined } = {}): Promise<MemberListResponse> {
    return this.#client.call(Cluster.methods.memberList, { linearizable: options.linearizable ?? true }, options);
  }

  /** Announces a member before it is started; a learner has no vote until promoted. */
  memberAdd(
    peerUrls: readonly string[],
    options: CallOptions & { isLearner?: boolean | undefined } = {},
  ): Promise<MemberAddResponse> {
    return this.#client.call(Cluster.methods.memberAdd, { peerUrls, isLearner: options.isLearner ?? false }, options);
  }

  /** Takes a member out of the cluster. */
  memberRemove(id: bigint, options: CallOptions = {}): Promise<MemberRemoveResponse> {
    return this.#client.call(Cluster.methods.memberRemove, { id }, options);
  }

  /** Replaces a member's peer URLs. */
  memberUpdate(id: bigint, peerUrls: readonly string[], options: CallOptions = {}): Promise<MemberUpdateResponse> {
    return this.#client.call(Cluster.methods.memberUpdate, { id, peerUrls }, options);
  }

  /** Gives a learner its vote; refused while it lags too far behind. */
  memberPromote(id: bigint, options: CallOptions = {}): Promise<MemberPromoteResponse> {
    return this.#client.call(Cluster.methods.memberPromote, { id }, options);
  }
}
