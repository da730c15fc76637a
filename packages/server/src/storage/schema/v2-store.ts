/**
 * The `data` of a raft snapshot: etcd's version 2 store as JSON. Of it only the membership matters to a version 3
 * server: members, removed members, cluster version. We read what any 3.x wrote, and write the smallest form that
 * every 3.x accepts. Keys of the version 2 API, if a cluster ever had them, are carried along untouched.
 */
import { hexId, utf8Bytes, utf8Text } from "../../lib/bytes.ts";
import { isJsonObject, type JsonObject, type JsonValue, parseJson, stringifyJson } from "../../lib/json.ts";
import {
  attributesFromJson,
  attributesToJson,
  compareIds,
  isStarted,
  type Member,
  raftAttributesFromJson,
  raftAttributesToJson,
} from "./member.ts";

export interface V2Content {
  readonly members: ReadonlyMap<bigint, Member>;
  readonly removed: ReadonlySet<bigint>;
  /** `3.5.0`; undefined while the members have not agreed on one. */
  readonly version: string | undefined;
  /** Top-level nodes that are not ours (all but `/0`), as they were read. */
  readonly foreign: JsonObject;
}

export class V2StoreError extends Error {
  override readonly name = "V2StoreError";
}

export function emptyV2Content(): V2Content {
  return { members: new Map(), removed: new Set(), version: undefined, foreign: {} };
}

/** Whether there is data of the version 2 API, which 3.6 refuses to start with. */
export function hasV2UserData(content: V2Content): boolean {
  return Object.entries(content.foreign).some(([name, node]) => {
    const children = isJsonObject(node) ? node["Children"] : undefined;
    return name !== "1" || !isJsonObject(children) || Object.keys(children).length > 0;
  });
}

function children(node: JsonValue | undefined, what: string): JsonObject {
  if (node === undefined) return {};
  if (!isJsonObject(node)) throw new V2StoreError(`v2 store: ${what} is not a node`);
  const found = node["Children"];
  if (found === undefined || found === null) return {};
  if (!isJsonObject(found)) throw new V2StoreError(`v2 store: children of ${what} are not an object`);
  return found;
}

function nodeValue(node: JsonValue | undefined, what: string): string | undefined {
  if (node === undefined) return undefined;
  const value = isJsonObject(node) ? node["Value"] : undefined;
  if (typeof value !== "string") throw new V2StoreError(`v2 store: ${what} has no value`);
  return value;
}

function idFromName(name: string): bigint {
  if (!/^[0-9a-fA-F]{1,16}$/.test(name)) throw new V2StoreError(`v2 store: ${JSON.stringify(name)} is not a member id`);
  return BigInt(`0x${name}`);
}

/** Throws {@link V2StoreError} or a JsonError when the data is not what any etcd 3.x would accept. */
export function decodeV2Store(data: Uint8Array): V2Content {
  const store = parseJson(utf8Text(data));
  if (!isJsonObject(store) || !isJsonObject(store["Root"])) throw new V2StoreError("v2 store: no root");
  const root = children(store["Root"], "/");
  const cluster = children(root["0"], "/0");
  const members = new Map<bigint, Member>();
  for (const [name, node] of Object.entries(children(cluster["members"], "/0/members"))) {
    const id = idFromName(name);
    const parts = children(node, `member ${name}`);
    for (const part of Object.keys(parts)) {
      if (part !== "raftAttributes" && part !== "attributes")
        throw new V2StoreError(`unknown key ${JSON.stringify(part)}`);
    }
    const raftAttributes = nodeValue(parts["raftAttributes"], "raftAttributes");
    if (raftAttributes === undefined) throw new V2StoreError("raftAttributes key doesn't exist");
    const attributes = nodeValue(parts["attributes"], "attributes");
    members.set(id, { id, ...raftAttributesFromJson(raftAttributes), ...attributesFromJson(attributes ?? "{}") });
  }
  const removed = new Set(
    Object.keys(children(cluster["removed_members"], "/0/removed_members")).map((name) => idFromName(name)),
  );
  const foreign = Object.fromEntries(Object.entries(root).filter(([name]) => name !== "0"));
  return { members, removed, version: nodeValue(cluster["version"], "/0/version"), foreign };
}

type Tree = { readonly [name: string]: Tree | string };

function toNode(path: string, tree: Tree | string): JsonObject {
  if (typeof tree === "string") return { Path: path, Value: tree };
  const prefix = path === "/" ? "" : path;
  return {
    Path: path,
    Children: Object.fromEntries(
      Object.entries(tree).map(([name, child]) => [`${name}`, toNode(`${prefix}/${name}`, child)]),
    ),
  };
}

/** Deterministic: ids ascending, so that equal content gives equal bytes. */
export function encodeV2Store(content: V2Content): Uint8Array {
  const members: Record<string, Tree> = {};
  for (const member of [...content.members.values()].sort((a, b) => compareIds(a.id, b.id))) {
    members[hexId(member.id)] = {
      ...(isStarted(member) || member.clientUrls.length > 0 ? { attributes: attributesToJson(member) } : {}),
      raftAttributes: raftAttributesToJson(member),
    };
  }
  const removed: Record<string, string> = {};
  for (const id of [...content.removed].sort(compareIds)) removed[hexId(id)] = "";
  const cluster: Tree = {
    members,
    ...(content.removed.size > 0 ? { removed_members: removed } : {}),
    ...(content.version === undefined ? {} : { version: content.version }),
  };
  const root = toNode("/", { "0": cluster });
  const all: JsonObject = { ...(root["Children"] as JsonObject), "1": toNode("/1", {}), ...content.foreign };
  return utf8Bytes(stringifyJson({ Root: { Path: "/", Children: all }, CurrentVersion: 2 }));
}
