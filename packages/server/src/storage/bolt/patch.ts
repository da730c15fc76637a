/**
 * A small change to the bucket `meta` of a stopped etcd's file, made as bbolt makes its own: the changed page goes
 * behind all others, and when it is durable a meta page points at it. Whatever stops us leaves the old state or the new.
 */
import { compareBytes } from "../../lib/bytes.ts";
import { type FileSystem, writeFully } from "../file-system.ts";
import {
  BUCKET_HEADER_BYTES,
  ELEMENT_BYTES,
  ELEMENT_IS_BUCKET,
  encodeMetaPage,
  FLAG_LEAF,
  PAGE_HEADER_BYTES,
} from "./format.ts";
import { openBolt } from "./reader.ts";
import { BoltPages, LeafWalk } from "./walk.ts";

interface Element {
  readonly key: Buffer;
  readonly value: Buffer;
  readonly flags: number;
}

function elementsOf(buffer: Buffer, page: number, count: number): Element[] {
  const elements: Element[] = [];
  for (let i = 0; i < count; i++) {
    const at = page + PAGE_HEADER_BYTES + i * ELEMENT_BYTES;
    const keyAt = at + buffer.readUInt32LE(at + 4);
    const valueAt = keyAt + buffer.readUInt32LE(at + 8);
    elements.push({
      flags: buffer.readUInt32LE(at),
      key: Buffer.from(buffer.subarray(keyAt, valueAt)),
      value: Buffer.from(buffer.subarray(valueAt, valueAt + buffer.readUInt32LE(at + 12))),
    });
  }
  return elements;
}

function leafPage(elements: readonly Element[], number: number, unit: number): Buffer {
  let size = PAGE_HEADER_BYTES;
  for (const { key, value } of elements) size += ELEMENT_BYTES + key.length + value.length;
  const page = Buffer.alloc(Math.ceil(size / unit) * unit);
  page.writeBigUInt64LE(BigInt(number), 0);
  page.writeUInt16LE(FLAG_LEAF, 8);
  page.writeUInt16LE(elements.length, 10);
  page.writeUInt32LE(unit === 1 ? 0 : page.length / unit - 1, 12);
  let data = PAGE_HEADER_BYTES + elements.length * ELEMENT_BYTES;
  for (const [i, { key, value, flags }] of elements.entries()) {
    const at = PAGE_HEADER_BYTES + i * ELEMENT_BYTES;
    page.writeUInt32LE(flags, at);
    page.writeUInt32LE(data - at, at + 4);
    page.writeUInt32LE(key.length, at + 8);
    page.writeUInt32LE(value.length, at + 12);
    page.set(key, data);
    page.set(value, data + key.length);
    data += key.length + value.length;
  }
  return page;
}

/**
 * Sets (or with a null value removes) rows of `meta`. False, and nothing done, when the file is not in the form in which
 * etcd leaves it, a root of one page with a small `meta` inside: then it takes a rewrite.
 */
export async function patchMeta(
  path: string,
  set: readonly (readonly [key: Uint8Array, value: Uint8Array | null])[],
  files: FileSystem,
): Promise<boolean> {
  const bolt = openBolt(path);
  const { meta } = bolt;
  bolt.close();
  const pages = new BoltPages(path, meta, false);
  let buckets: Element[];
  try {
    const walk = new LeafWalk(pages, meta.root);
    walk.next();
    if (walk.number !== meta.root) return false;
    buckets = elementsOf(walk.buffer, walk.at, walk.count);
  } finally {
    pages.close();
  }
  const at = buckets.findIndex(({ key }) => key.equals(Buffer.from("meta")));
  const bucket = buckets[at];
  if (bucket?.value.readBigUInt64LE(0) !== 0n) return false;
  const inline = bucket.value.subarray(BUCKET_HEADER_BYTES);
  let rows = elementsOf(inline, 0, inline.readUInt16LE(10));
  for (const [key, value] of set) {
    rows = rows.filter((row) => !row.key.equals(key));
    if (value) rows.push({ key: Buffer.from(key), value: Buffer.from(value), flags: 0 });
  }
  rows.sort((a, b) => compareBytes(a.key, b.key));
  const content = leafPage(rows, 0, 1);
  if (content.length > meta.pageSizeBytes / 4) return false;
  buckets[at] = {
    ...bucket,
    value: Buffer.concat([bucket.value.subarray(0, BUCKET_HEADER_BYTES), content]),
    flags: ELEMENT_IS_BUCKET,
  };
  const root = leafPage(buckets, meta.highWater, meta.pageSizeBytes);
  const transactionId = meta.transactionId + 1n;
  const head = encodeMetaPage(Number(transactionId % 2n), {
    pageSizeBytes: meta.pageSizeBytes,
    root: meta.highWater,
    // Not stored from now on: the old root is free.
    freelist: undefined,
    highWater: meta.highWater + root.length / meta.pageSizeBytes,
    transactionId,
  });
  const file = await files.open(path, "write");
  try {
    await writeFully(file, root, root.length, meta.highWater * meta.pageSizeBytes);
    await file.sync();
    await writeFully(file, head, head.length, Number(transactionId % 2n) * meta.pageSizeBytes);
    await file.sync();
  } finally {
    await file.close();
  }
  return true;
}
