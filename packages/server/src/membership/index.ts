/**
 * Membership: the members of the cluster and their ids, which changes of them are allowed, the cluster's version, and
 * the JSON records of etcd that say so. It promises that a change is judged by applied state alone, so all members judge
 * alike. It leaves to others: proposing changes and asking peers (etcdserver), talking to them (transport).
 */
// Pure records: etcdutl needs them too, so storage has them.
export {
  type Attributes,
  attributesFromJson,
  attributesToJson,
  type ConfChangeContext,
  compareIds,
  computeClusterId,
  computeMemberId,
  decodeConfChangeContext,
  encodeConfChangeContext,
  isStarted,
  type Member,
  MemberRecordError,
  memberFromJson,
  membersFromJson,
  membersToJson,
  memberToJson,
  type RaftAttributes,
  raftAttributesFromJson,
  raftAttributesToJson,
  decodeV2Store,
  emptyV2Content,
  encodeV2Store,
  hasV2UserData,
  type V2Content,
  V2StoreError,
} from "../storage/index.ts";
export {
  Cluster,
  type ClusterOptions,
  type DowngradeInfo,
  downgradeToJson,
  InvalidDowngradeError,
  LEARNERS_MAX,
  storedMembers,
} from "./cluster.ts";
export {
  allowedDowngradeVersion,
  compareVersions,
  formatVersion,
  isValidVersionChange,
  parseVersion,
  shortVersion,
  toClusterVersion,
  type Version,
} from "./version.ts";
