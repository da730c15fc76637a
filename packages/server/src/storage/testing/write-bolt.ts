/** A bbolt file of rows from anywhere, for tests. */
import { BoltWriter } from "../bolt/writer.ts";
import type { BucketRows } from "../bolt/types.ts";
import { BUCKETS } from "../backend/types.ts";
import { type OpenFile, writeFully } from "../file-system.ts";

/** etcd's buckets of `source` as an image in `file`, which is empty. Returns its size. */
export async function writeBolt(source: BucketRows, file: OpenFile): Promise<number> {
  const pages: { readonly bytes: Uint8Array; readonly position: number }[] = [];
  const writer = new BoltWriter({ write: (bytes, position) => pages.push({ bytes, position }) });
  for (const name of BUCKETS) {
    const bucket = writer.bucket(name);
    for (const [key, value] of source.rows(name)) bucket.put(key, value);
    bucket.finish();
  }
  const sizeBytes = writer.finish();
  for (const { bytes, position } of pages) await writeFully(file, bytes, bytes.length, position);
  return sizeBytes;
}
