/**
 * Entries that are not InternalRaftRequests but etcd's bare version 2 `Request`: in 3.5 still how a member publishes its
 * name and client URLs and how the cluster version is set.
 */
import { isJsonObject, parseJson } from "../../lib/json.ts";
import { attributesFromJson, type Cluster } from "../../membership/index.ts";
import { Request } from "../../pb/etcdserverpb.ts";
import type { BackendTxn } from "../../storage/index.ts";

const METHODS: ReadonlySet<string> = new Set(["PUT", "POST", "DELETE", "QGET", "SYNC"]);
const ATTRIBUTES_PATH = /^\/0\/members\/([0-9a-f]{1,16})\/attributes$/;
const VERSION_PATH = "/0/version";

export function attributesPath(memberIdHex: string): string {
  return `/0/members/${memberIdHex}/attributes`;
}

export const versionPath: string = VERSION_PATH;

/**
 * The request, or undefined for an InternalRaftRequest. A bare Request always begins with field 1 as a varint and has
 * its method in field 2, where the other has a message; 3.5 never writes field 1 of the other.
 */
export function asV2Request(data: Uint8Array): Request | undefined {
  if (data[0] !== 0x08) return undefined;
  let at = 1;
  while (at < data.length && at < 11 && (data[at] as number) >= 0x80) at++;
  at++;
  if (data[at] !== 0x12) return undefined;
  const length = data[at + 1] ?? 0;
  const method = Buffer.from(data.subarray(at + 2, at + 2 + length)).toString("latin1");
  return METHODS.has(method) ? Request.decode(data) : undefined;
}

/** Only the cluster's own records are kept; the version 2 key space is not served, so its writes change nothing. */
export function applyV2Request(cluster: Cluster, tx: BackendTxn | undefined, request: Request): void {
  if (request.method !== "PUT") return;
  if (request.path === VERSION_PATH) {
    cluster.setVersion(tx, request.val);
    return;
  }
  const match = ATTRIBUTES_PATH.exec(request.path);
  if (!match) return;
  const attributes = parseJson(request.val);
  if (!isJsonObject(attributes)) throw new Error(`member attributes are not an object: ${request.val}`);
  cluster.updateAttributes(tx, BigInt(`0x${match[1]}`), attributesFromJson(attributes));
}
