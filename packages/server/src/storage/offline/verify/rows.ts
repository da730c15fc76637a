/** The rows of etcd's buckets, whatever file they are in: form, and what they say of one another. */
import { equalBytes, hexId, keyString, utf8Text } from "../../../lib/bytes.ts";
import { isJsonObject, parseJson } from "../../../lib/json.ts";
import { Role, User } from "../../../pb/authpb.ts";
import { AlarmMember } from "@etcd-ts/client/wire";
import { Lease } from "../../../pb/leasepb.ts";
import type { RowCursor } from "../../rows.ts";
import { memberFromJson } from "../../schema/index.ts";
import { readKeyValue } from "../../schema/key-value.ts";
import {
  mainOfRevisionKey,
  REVISION_BYTES,
  subOfRevisionKey,
  TOMBSTONE_REVISION_BYTES,
} from "../../schema/revision.ts";
import type { Report } from "./report.ts";

export interface RowFacts {
  rows: number;
  revision: number;
  tombstones: number;
  consistentIndex: number;
  term: number;
  storageVersion: string | undefined;
  readonly leases: Set<bigint>;
  /** Leases that keys refer to, with one of the keys. */
  readonly usedLeases: Map<bigint, string>;
  readonly memberIds: Set<bigint>;
  readonly roles: Set<string>;
}

export function newRowFacts(): RowFacts {
  return {
    rows: 0,
    revision: 1,
    tombstones: 0,
    consistentIndex: 0,
    term: 0,
    storageVersion: undefined,
    leases: new Set(),
    usedLeases: new Map(),
    memberIds: new Set(),
    roles: new Set(),
  };
}

const text = (bytes: Uint8Array): string => JSON.stringify(keyString(bytes.subarray(0, 64)));

/** A row in words: `revision 12 of key "a"`. Says as much as can still be read. */
export function nameOfRowAt(bucket: string, key: Uint8Array, value: Uint8Array): string {
  if (bucket !== "key" || key.length < REVISION_BYTES) return `row ${text(key)} of "${bucket}"`;
  try {
    const main = mainOfRevisionKey(key);
    const sub = subOfRevisionKey(key);
    const revision = sub === 0 ? `revision ${main}` : `revision ${main}.${sub}`;
    try {
      return `${revision} of key ${text(readKeyValue(value).key)}`;
    } catch {
      return revision;
    }
  } catch {
    return `row ${text(key)} of "${bucket}"`;
  }
}

/** Takes a row in; returns what is wrong with it. */
export function takeRow(bucket: string, { key, value }: RowCursor, facts: RowFacts): string | undefined {
  facts.rows++;
  try {
    switch (bucket) {
      case "key":
        return takeKey(key, value, facts);
      case "lease": {
        const { id, ttl } = Lease.decode(value);
        if (key.length !== 8 || key.readBigInt64BE(0) !== id) return `it holds lease ${id.toString(16)}`;
        facts.leases.add(id);
        return Number(ttl) > 0 ? undefined : `a time to live of ${ttl}`;
      }
      case "alarm":
        AlarmMember.decode(key);
        return value.length === 0 ? undefined : "an alarm has no value";
      case "authUsers":
        return equalBytes(User.decode(value).name ?? new Uint8Array(0), key) ? undefined : "it holds another user";
      case "authRoles": {
        const name = Role.decode(value).name ?? new Uint8Array(0);
        facts.roles.add(utf8Text(name));
        return equalBytes(name, key) ? undefined : "it holds another role";
      }
      case "members": {
        const { id } = memberFromJson(utf8Text(value));
        facts.memberIds.add(id);
        return hexId(id) === utf8Text(key) ? undefined : `it holds member ${hexId(id)}`;
      }
      case "members_removed":
        return /^[0-9a-f]{1,16}$/.test(utf8Text(key)) && utf8Text(value) === "removed"
          ? undefined
          : "no removed member";
      case "meta":
        return takeMeta(utf8Text(key), value, facts);
      case "auth":
        if (utf8Text(key) === "authRevision") return value.length === 8 ? undefined : "no revision";
        if (utf8Text(key) === "authEnabled") {
          return value.length === 1 && (value[0] as number) <= 1 ? undefined : "neither on nor off";
        }
        return "unknown";
      case "cluster":
        if (utf8Text(key) === "clusterVersion")
          return /^\d+\.\d+\.\d+$/.test(utf8Text(value)) ? undefined : "no version";
        if (utf8Text(key) === "downgrade") return isJsonObject(parseJson(utf8Text(value))) ? undefined : "no downgrade";
        return "unknown";
      default:
        return undefined;
    }
  } catch (error) {
    return (error as Error).message;
  }
}

function takeKey(key: Buffer, value: Buffer, facts: RowFacts): string | undefined {
  const isTombstone = key.length === TOMBSTONE_REVISION_BYTES && key[REVISION_BYTES] === 0x74;
  if ((key.length !== REVISION_BYTES && !isTombstone) || key[8] !== 0x5f) return "its key is no revision";
  const main = mainOfRevisionKey(key);
  facts.revision = main;
  if (value.length === 0) return isTombstone ? "a deletion of no key" : undefined;
  const stored = readKeyValue(value);
  if (stored.key.length === 0) return "a value without a key";
  if (isTombstone) {
    facts.tombstones++;
    const isBare = stored.modRevision === 0 && stored.createRevision === 0 && stored.version === 0;
    return isBare && stored.lease === 0n && stored.value.length === 0 ? undefined : "a deletion with more than a key";
  }
  if (stored.modRevision !== main) return `it says that it is of revision ${stored.modRevision}`;
  if (stored.createRevision < 1 || stored.createRevision > main) return `created at ${stored.createRevision}`;
  if (stored.version < 1 || stored.version > main - stored.createRevision + 1) return `of version ${stored.version}`;
  if (stored.lease !== 0n && !facts.usedLeases.has(stored.lease)) facts.usedLeases.set(stored.lease, text(stored.key));
  return undefined;
}

function counterOf(value: Buffer): number {
  return value.length === 8 ? Number(value.readBigUInt64BE(0)) : Number.NaN;
}

function takeMeta(key: string, value: Buffer, facts: RowFacts): string | undefined {
  switch (key) {
    case "consistent_index":
      facts.consistentIndex = counterOf(value);
      return Number.isSafeInteger(facts.consistentIndex) ? undefined : "no index";
    case "term":
      facts.term = counterOf(value);
      return Number.isSafeInteger(facts.term) ? undefined : "no term";
    case "scheduledCompactRev":
    case "finishedCompactRev":
      return value.length === REVISION_BYTES && value[8] === 0x5f ? undefined : "no revision";
    case "confState":
      return isJsonObject(parseJson(utf8Text(value))) ? undefined : "no state";
    case "storageVersion":
      facts.storageVersion = utf8Text(value);
      return /^\d+\.\d+\.\d+$/.test(facts.storageVersion) ? undefined : "no version";
    default:
      return "unknown";
  }
}

/** What rows of different buckets say of one another. */
export function verifyFacts(path: string, facts: RowFacts, report: Report): void {
  for (const [lease, key] of facts.usedLeases) {
    if (facts.leases.has(lease)) continue;
    report.add(
      "note",
      path,
      `key ${key} refers to lease ${lease.toString(16)}, which does not exist`,
      "as a revoked lease leaves old revisions behind, that is usual; a living key would never expire",
    );
    break;
  }
  let idle = 0;
  for (const lease of facts.leases) if (!facts.usedLeases.has(lease)) idle++;
  if (idle > 0) report.add("note", path, `${idle} leases have no keys`, "they expire by themselves");
}
