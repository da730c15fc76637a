import type { BackendReader } from "../backend/index.ts";
import type { BoltExport } from "./types.ts";

/**
 * Writes etcd's buckets of `snapshot` as a compact bbolt file to `temporaryPath` (on the data disk, overwritten when
 * present) in bounded pieces that let other work in between. `live` and `past` are left out: they follow from `key`.
 * The snapshot may be closed once this resolves.
 */
export function exportBolt(
  _snapshot: BackendReader,
  _options: { readonly temporaryPath: string; readonly signal?: AbortSignal },
): Promise<BoltExport> {
  throw new Error("exportBolt: being written");
}
