/** One member as the cluster's records have it, its ids, and its JSON in etcd's form. */
import { createHash } from "node:crypto";
import { isJsonObject, type JsonObject, type JsonValue, jsonId, parseJson, stringifyJson } from "../../lib/json.ts";

/** What raft and the peers need to know of a member. */
export interface RaftAttributes {
  readonly peerUrls: readonly string[];
  readonly isLearner: boolean;
}

/** What a member publishes of itself once it runs; empty until then. */
export interface Attributes {
  readonly name: string;
  readonly clientUrls: readonly string[];
}

export interface Member extends RaftAttributes, Attributes {
  readonly id: bigint;
}

/** Has published its name. */
export function isStarted(member: Attributes): boolean {
  return member.name !== "";
}

function first8BytesOfSha1(...parts: readonly (string | Uint8Array)[]): bigint {
  const hash = createHash("sha1");
  for (const part of parts) hash.update(part);
  return hash.digest().readBigUInt64BE(0);
}

/**
 * The id of a member: of its sorted peer URLs and the cluster's token when it is part of the first configuration, of
 * the URLs and the time in whole seconds when it is added to a running cluster.
 */
export function computeMemberId(
  peerUrls: readonly string[],
  from: { readonly token: string } | { readonly addedAtSeconds: number },
): bigint {
  const suffix = "token" in from ? from.token : String(from.addedAtSeconds);
  return first8BytesOfSha1(peerUrls.toSorted().join(""), suffix);
}

/** The id of the cluster that begins with these members; it stays when they change. */
export function computeClusterId(memberIds: Iterable<bigint>): bigint {
  const sorted = [...memberIds].sort(compareIds);
  const bytes = Buffer.alloc(8 * sorted.length);
  for (const [i, id] of sorted.entries()) bytes.writeBigUInt64BE(id, 8 * i);
  return first8BytesOfSha1(bytes);
}

export function compareIds(a: bigint, b: bigint): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

const orAbsent = (urls: readonly string[]): readonly string[] | undefined => (urls.length > 0 ? urls : undefined);

/** The member record of the `members` table, of `GET /members` and of conf change contexts. */
export function memberToJson(member: Member): string {
  return stringifyJson(memberObject(member));
}

export function membersToJson(members: readonly Member[]): string {
  return stringifyJson(members.map(memberObject));
}

function memberObject(member: Member): JsonObject {
  return {
    id: member.id,
    peerURLs: orAbsent(member.peerUrls) ?? null,
    isLearner: member.isLearner || undefined,
    name: member.name || undefined,
    clientURLs: orAbsent(member.clientUrls),
  };
}

/** The context of a ConfChange that adds or promotes: a member record that may say `isPromote`. */
export interface ConfChangeContext {
  readonly member: Member;
  readonly isPromote: boolean;
}

/** `{"id":..,"peerURLs":[..]}` for an addition or update, `{"id":..,"peerURLs":null,"isPromote":true}` to promote. */
export function encodeConfChangeContext(context: ConfChangeContext): Uint8Array {
  const object = { ...memberObject(context.member), isPromote: context.isPromote || undefined };
  return Buffer.from(stringifyJson(object), "utf8");
}

/** Throws on anything that is not a member record. */
export function decodeConfChangeContext(context: Uint8Array): ConfChangeContext {
  const value = parseJson(Buffer.from(context).toString("utf8"));
  return { member: memberFromJson(value), isPromote: isJsonObject(value) && value["isPromote"] === true };
}

export class MemberRecordError extends Error {
  override readonly name = "MemberRecordError";
}

function textList(value: JsonValue | undefined, what: string): readonly string[] {
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value) || !value.every((item) => typeof item === "string")) {
    throw new MemberRecordError(`member record: ${what} is not a list of texts`);
  }
  return value as readonly string[];
}

/** From the JSON of {@link memberToJson}; unknown names are ignored, absent ones are empty. */
export function memberFromJson(value: JsonValue | string): Member {
  const record = typeof value === "string" ? parseJson(value) : value;
  if (!isJsonObject(record)) throw new MemberRecordError("member record: not an object");
  const id = jsonId(record["id"] ?? 0);
  if (id === undefined) throw new MemberRecordError("member record: id is not a 64-bit number");
  return { id, ...raftAttributesFromJson(record), ...attributesFromJson(record) };
}

export function membersFromJson(text: string): Member[] {
  const value = parseJson(text);
  if (!Array.isArray(value)) throw new MemberRecordError("member records: not a list");
  return (value as readonly JsonValue[]).map((record) => memberFromJson(record));
}

export function raftAttributesToJson(attributes: RaftAttributes): string {
  return stringifyJson({
    peerURLs: orAbsent(attributes.peerUrls) ?? null,
    isLearner: attributes.isLearner || undefined,
  });
}

export function raftAttributesFromJson(value: JsonValue | string): RaftAttributes {
  const record = typeof value === "string" ? parseJson(value) : value;
  if (!isJsonObject(record)) throw new MemberRecordError("raftAttributes: not an object");
  return { peerUrls: textList(record["peerURLs"], "peerURLs"), isLearner: record["isLearner"] === true };
}

/** The value that a member publishes: `{"name":"..","clientURLs":[..]}`. */
export function attributesToJson(attributes: Attributes): string {
  return stringifyJson({ name: attributes.name || undefined, clientURLs: orAbsent(attributes.clientUrls) });
}

export function attributesFromJson(value: JsonValue | string): Attributes {
  const record = typeof value === "string" ? parseJson(value) : value;
  if (!isJsonObject(record)) throw new MemberRecordError("attributes: not an object");
  const name = record["name"] ?? "";
  if (typeof name !== "string") throw new MemberRecordError("attributes: name is not a text");
  return { name, clientUrls: textList(record["clientURLs"], "clientURLs") };
}
