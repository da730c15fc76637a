/**
 * The members of one raft cluster: who they are, who was removed for ever, which version all of them understand.
 *
 * The state is what etcd keeps in its version 2 store. It changes only as entries are applied, and each change takes
 * the open backend transaction: the `members`, `members_removed` and `cluster` tables follow in the same batch as the
 * entry's consistent index. While a restart replays entries that the backend already holds, `undefined` is passed
 * instead and only memory changes.
 */
import { EtcdError } from "@etcd-ts/client/wire";
import { assert, assertNever } from "../lib/assert.ts";
import { hexId, utf8Bytes, utf8Text } from "../lib/bytes.ts";
import { isJsonObject, parseJson, stringifyJson } from "../lib/json.ts";
import type { Logger } from "../lib/log.ts";
import { type ConfChange, ConfChangeType } from "../pb/raftpb.ts";
import {
  type Attributes,
  type BackendReader,
  type BackendTxn,
  compareIds,
  computeClusterId,
  computeMemberId,
  decodeConfChangeContext,
  decodeV2Store,
  emptyV2Content,
  encodeV2Store,
  hasV2UserData,
  isStarted,
  type Member,
  memberFromJson,
  memberToJson,
  type RaftAttributes,
  readDowngradeJson,
  type V2Content,
  writeClusterVersion,
  writeDowngradeJson,
} from "../storage/index.ts";
import {
  compareVersions,
  formatVersion,
  parseVersion,
  shortVersion,
  toClusterVersion,
  type Version,
} from "./version.ts";

export const LEARNERS_MAX = 1;

/** `targetVersion` is `x.y.0`, and empty while no downgrade is allowed. */
export interface DowngradeInfo {
  readonly enabled: boolean;
  readonly targetVersion: string;
}

const NO_DOWNGRADE: DowngradeInfo = { enabled: false, targetVersion: "" };

export interface ClusterOptions {
  readonly logger: Logger;
  /** The release we report ourselves as. */
  readonly serverVersion: string;
  /** Told of each new cluster version. */
  readonly onVersion?: ((version: string, previous: string | undefined) => void) | undefined;
}

/** The member must not run: its version and the cluster's, or a downgrade that is going on, do not go together. */
export class InvalidDowngradeError extends Error {
  override readonly name = "InvalidDowngradeError";
  /** For the log line that says so. */
  readonly fields: Readonly<Record<string, string>>;

  constructor(message: string, fields: Readonly<Record<string, string>>) {
    super(message);
    this.fields = fields;
  }
}

const REMOVED = utf8Bytes("removed");
const memberKey = (id: bigint): Uint8Array => utf8Bytes(hexId(id));

export class Cluster {
  readonly #logger: Logger;
  readonly #serverVersion: Version;
  readonly #onVersion: ((version: string, previous: string | undefined) => void) | undefined;
  #id = 0n;
  #localId = 0n;
  /** Invariant: no id is in both. Removed ids never leave the set. */
  #members = new Map<bigint, Member>();
  #removed = new Set<bigint>();
  #version: Version | undefined;
  #downgrade = NO_DOWNGRADE;
  #foreign: V2Content["foreign"] = {};

  constructor(options: ClusterOptions) {
    const version = parseVersion(options.serverVersion);
    assert(version, `server version ${options.serverVersion}`);
    this.#logger = options.logger;
    this.#serverVersion = version;
    this.#onVersion = options.onVersion;
  }

  /**
   * The cluster of `--initial-cluster`: member ids follow from URLs and token, the cluster id from the member ids.
   * Throws when two names would get the same id.
   */
  static fromInitial(
    initial: { readonly urls: ReadonlyMap<string, readonly string[]>; readonly token: string },
    options: ClusterOptions,
  ): Cluster {
    const cluster = new Cluster(options);
    for (const [name, peerUrls] of initial.urls) {
      const id = computeMemberId(peerUrls, { token: initial.token });
      if (cluster.#members.has(id)) throw new Error(`member exists with identical ID ${hexId(id)}`);
      if (id === 0n) throw new Error("cannot use 0 as member id");
      cluster.#members.set(id, { id, name, peerUrls: peerUrls.toSorted(), clientUrls: [], isLearner: false });
    }
    cluster.#id = computeClusterId(cluster.#members.keys());
    return cluster;
  }

  get id(): bigint {
    return this.#id;
  }

  /** 0 until {@link setId}. */
  get localId(): bigint {
    return this.#localId;
  }

  setId(localId: bigint, clusterId: bigint): void {
    this.#localId = localId;
    this.#id = clusterId;
  }

  /** Ascending by id. */
  members(): Member[] {
    return [...this.#members.values()].sort((a, b) => compareIds(a.id, b.id));
  }

  votingMembers(): Member[] {
    return this.members().filter((member) => !member.isLearner);
  }

  memberIds(): bigint[] {
    return [...this.#members.keys()].sort(compareIds);
  }

  member(id: bigint): Member | undefined {
    return this.#members.get(id);
  }

  memberByName(name: string): Member | undefined {
    return this.members().find((member) => member.name === name);
  }

  localMember(): Member | undefined {
    return this.#members.get(this.#localId);
  }

  isLocalMemberLearner(): boolean {
    return this.localMember()?.isLearner ?? false;
  }

  isRemoved(id: bigint): boolean {
    return this.#removed.has(id);
  }

  /** Of all members, in byte order. */
  peerUrls(): string[] {
    return this.members()
      .flatMap((member) => member.peerUrls)
      .sort();
  }

  clientUrls(): string[] {
    return this.members()
      .flatMap((member) => member.clientUrls)
      .sort();
  }

  /** `3.5.0`; undefined while the members have not agreed on one. */
  version(): string | undefined {
    return this.#version && formatVersion(this.#version);
  }

  downgradeInfo(): DowngradeInfo {
    return this.#downgrade;
  }

  hasV2UserData(): boolean {
    return hasV2UserData(this.#content());
  }

  // Stores.

  #content(): V2Content {
    return { members: this.#members, removed: this.#removed, version: this.version(), foreign: this.#foreign };
  }

  /** The `data` of a raft snapshot taken now. */
  v2StoreBytes(): Uint8Array {
    return encodeV2Store(this.#content());
  }

  /**
   * Takes over the content of a raft snapshot; without one (`undefined`) begins empty, as when the whole log is
   * replayed. `backend` gives what only it holds, the downgrade record. Throws {@link InvalidDowngradeError}.
   */
  recover(v2Store: Uint8Array | undefined, backend: BackendReader | undefined): void {
    const content = v2Store ? decodeV2Store(v2Store) : emptyV2Content();
    this.#members = new Map(content.members);
    this.#removed = new Set(content.removed);
    for (const id of this.#removed) this.#members.delete(id);
    this.#foreign = content.foreign;
    const previous = this.version();
    this.#version = content.version === undefined ? undefined : readVersion(content.version);
    this.#downgrade = (backend && downgradeFromJson(readDowngradeJson(backend))) ?? NO_DOWNGRADE;
    this.#checkVersion();
    for (const member of this.members()) {
      this.#logger.info("recovered/added member from store", {
        "cluster-id": hexId(this.#id),
        "local-member-id": hexId(this.#localId),
        "recovered-remote-peer-id": hexId(member.id),
        "recovered-remote-peer-urls": member.peerUrls,
      });
    }
    if (this.#version) {
      this.#logger.info("set cluster version from store", { "cluster-version": shortVersion(this.#version) });
      this.#onVersion?.(formatVersion(this.#version), previous);
    }
  }

  // Changes, in the order of the log.

  /**
   * Throws EtcdError when a conf change may not take effect. All members judge alike: it depends on applied state only.
   * A context that does not parse throws other errors; every member would, so that is the end of the process.
   */
  validateConfChange(change: ConfChange): void {
    const id = change.nodeId;
    if (this.#removed.has(id)) throw new EtcdError("MemberNotFound");
    switch (change.type) {
      case ConfChangeType.ConfChangeAddNode:
      case ConfChangeType.ConfChangeAddLearnerNode: {
        const { member, isPromote } = decodeConfChangeContext(change.context ?? new Uint8Array(0));
        const known = this.#members.get(id);
        if (isPromote) {
          if (!known) throw new EtcdError("MemberNotFound");
          if (!known.isLearner) throw new EtcdError("MemberNotLearner");
          return;
        }
        if (known) throw new EtcdError("MemberExist");
        this.#refuseKnownUrls(member.peerUrls, undefined);
        if (member.isLearner) {
          const learners = this.members().filter((other) => other.isLearner).length;
          if (learners + 1 > LEARNERS_MAX) throw new EtcdError("TooManyLearners");
        }
        return;
      }
      case ConfChangeType.ConfChangeRemoveNode:
        if (!this.#members.has(id)) throw new EtcdError("MemberNotFound");
        return;
      case ConfChangeType.ConfChangeUpdateNode: {
        if (!this.#members.has(id)) throw new EtcdError("MemberNotFound");
        const { member } = decodeConfChangeContext(change.context ?? new Uint8Array(0));
        this.#refuseKnownUrls(member.peerUrls, id);
        return;
      }
      default:
        assertNever(change.type as never, "ConfChange type");
    }
  }

  #refuseKnownUrls(urls: readonly string[], except: bigint | undefined): void {
    for (const member of this.#members.values()) {
      if (member.id === except) continue;
      if (member.peerUrls.some((url) => urls.includes(url))) throw new EtcdError("PeerURLExist");
    }
  }

  /** A replayed addition may meet a member that is there already: it is taken as it is in the entry. */
  addMember(tx: BackendTxn | undefined, member: Member): void {
    assert(!this.#removed.has(member.id), () => `member ${hexId(member.id)} was removed and cannot be added`);
    this.#members.set(member.id, member);
    if (tx) putMember(tx, member);
    this.#logger.info("added member", {
      ...this.#ids(),
      "added-peer-id": hexId(member.id),
      "added-peer-peer-urls": member.peerUrls,
    });
  }

  removeMember(tx: BackendTxn | undefined, id: bigint): void {
    const member = this.#members.get(id);
    this.#members.delete(id);
    this.#removed.add(id);
    if (tx) {
      tx.delete("members", memberKey(id));
      tx.put("members_removed", memberKey(id), REMOVED);
    }
    const fields = { ...this.#ids(), "removed-remote-peer-id": hexId(id) };
    if (member) this.#logger.info("removed member", { ...fields, "removed-remote-peer-urls": member.peerUrls });
    else this.#logger.warn("skipped removing already removed member", fields);
  }

  promoteMember(tx: BackendTxn | undefined, id: bigint): void {
    this.#change(tx, id, { isLearner: false });
    this.#logger.info("promote member", this.#ids());
  }

  updateRaftAttributes(tx: BackendTxn | undefined, id: bigint, attributes: RaftAttributes): void {
    this.#change(tx, id, { peerUrls: attributes.peerUrls, isLearner: attributes.isLearner });
    this.#logger.info("updated member", {
      ...this.#ids(),
      "updated-remote-peer-id": hexId(id),
      "updated-remote-peer-urls": attributes.peerUrls,
    });
  }

  /** What a member published of itself. Nothing happens when it was removed in the meantime. */
  updateAttributes(tx: BackendTxn | undefined, id: bigint, attributes: Attributes): void {
    if (this.#members.has(id)) {
      this.#change(tx, id, { name: attributes.name, clientUrls: attributes.clientUrls });
      return;
    }
    assert(this.#removed.has(id), () => `failed to update; member unknown: ${hexId(id)}`);
    this.#logger.warn("skipped attributes update of removed member", {
      ...this.#ids(),
      "updated-peer-id": hexId(id),
    });
  }

  #change(tx: BackendTxn | undefined, id: bigint, changes: Partial<Omit<Member, "id">>): void {
    const member = this.#members.get(id);
    assert(member, () => `member ${hexId(id)} is not known`);
    const changed: Member = { ...member, ...changes };
    this.#members.set(id, changed);
    if (tx) putMember(tx, changed);
  }

  /** `version` is `x.y.z`. Throws {@link InvalidDowngradeError} when this server is too old for it. */
  setVersion(tx: BackendTxn | undefined, version: string): void {
    const next = readVersion(version);
    const previous = this.#version;
    if (previous) {
      this.#logger.info("updated cluster version", {
        ...this.#ids(),
        from: shortVersion(previous),
        to: shortVersion(next),
      });
    } else {
      this.#logger.info("set initial cluster version", { ...this.#ids(), "cluster-version": shortVersion(next) });
    }
    this.#version = next;
    this.#checkVersion();
    if (tx) writeClusterVersion(tx, formatVersion(next));
    this.#onVersion?.(formatVersion(next), previous && formatVersion(previous));
  }

  setDowngradeInfo(tx: BackendTxn | undefined, info: DowngradeInfo): void {
    if (tx) writeDowngradeJson(tx, downgradeToJson(info));
    this.#downgrade = info;
    if (info.enabled) {
      this.#logger.info("The server is ready to downgrade", {
        "target-version": info.targetVersion,
        "server-version": formatVersion(this.#serverVersion),
      });
    }
  }

  /** An old server must not serve a newer cluster, nor one join that is being downgraded below it. */
  #checkVersion(): void {
    const own = toClusterVersion(this.#serverVersion);
    const { enabled, targetVersion } = this.#downgrade;
    if (enabled && targetVersion !== "") {
      if (compareVersions(own, readVersion(targetVersion)) !== 0) {
        throw new InvalidDowngradeError(
          "invalid downgrade; server version is not allowed to join when downgrade is enabled",
          { "current-server-version": formatVersion(this.#serverVersion), "target-cluster-version": targetVersion },
        );
      }
      if (this.#version) {
        this.#logger.info("cluster is downgrading to target version", {
          "target-cluster-version": targetVersion,
          "determined-cluster-version": shortVersion(this.#version),
          "current-server-version": formatVersion(this.#serverVersion),
        });
      }
      return;
    }
    if (this.#version && compareVersions(own, this.#version) < 0) {
      throw new InvalidDowngradeError("invalid downgrade; server version is lower than determined cluster version", {
        "current-server-version": formatVersion(this.#serverVersion),
        "determined-cluster-version": shortVersion(this.#version),
      });
    }
  }

  // Strict reconfiguration: may the quorum of after the change be reached with who is started now?

  isReadyToAddVotingMember(): boolean {
    const voters = this.votingMembers();
    const started = voters.filter(isStarted).length;
    // One started member of one: the way back from a restored backup.
    if (started === 1 && voters.length === 1) return true;
    return this.#hasStartedQuorum("add", started, voters.length + 1);
  }

  isReadyToRemoveVotingMember(id: bigint): boolean {
    const rest = this.votingMembers().filter((member) => member.id !== id);
    return this.#hasStartedQuorum("remove", rest.filter(isStarted).length, rest.length);
  }

  isReadyToPromoteMember(): boolean {
    const voters = this.votingMembers();
    return this.#hasStartedQuorum("promote", voters.filter(isStarted).length + 1, voters.length + 1);
  }

  #hasStartedQuorum(change: "add" | "remove" | "promote", started: number, voters: number): boolean {
    const quorum = Math.floor(voters / 2) + 1;
    if (started >= quorum) return true;
    this.#logger.warn(`rejecting member ${change}; started member will be less than quorum`, {
      "number-of-started-member": started,
      quorum,
      ...this.#ids(),
    });
    return false;
  }

  #ids(): { readonly "cluster-id": string; readonly "local-member-id": string } {
    return { "cluster-id": hexId(this.#id), "local-member-id": hexId(this.#localId) };
  }
}

function readVersion(text: string): Version {
  const version = parseVersion(text);
  assert(version, () => `cluster version ${JSON.stringify(text)} is not x.y.z`);
  return version;
}

/** The members as the backend has them, which may be ahead of what a log that is replayed knows yet. Ascending by id. */
export function storedMembers(reader: BackendReader): Member[] {
  const members: Member[] = [];
  reader.scan("members", {}, (_key, value) => {
    members.push(memberFromJson(utf8Text(value)));
    return true;
  });
  return members.sort((a, b) => compareIds(a.id, b.id));
}

function putMember(tx: BackendTxn, member: Member): void {
  tx.put("members", memberKey(member.id), utf8Bytes(memberToJson(member)));
}

export function downgradeToJson(info: DowngradeInfo): string {
  return stringifyJson({ "target-version": info.targetVersion, enabled: info.enabled });
}

function downgradeFromJson(text: string | undefined): DowngradeInfo | undefined {
  if (text === undefined) return undefined;
  const value = parseJson(text);
  if (!isJsonObject(value)) return undefined;
  const target = value["target-version"];
  return { enabled: value["enabled"] === true, targetVersion: typeof target === "string" ? target : "" };
}
