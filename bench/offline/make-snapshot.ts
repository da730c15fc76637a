/** Writes the snapshot that run.mjs measures on: `node make-snapshot.mjs FILE KEYS VALUE_BYTES`, bundled by run.mjs. */
import { createHash, randomFillSync } from "node:crypto";
import fs from "node:fs";
import { BoltWriter } from "../../packages/server/src/storage/bolt/writer.ts";
import { encodeKeyValue } from "../../packages/server/src/storage/schema/key-value.ts";
import { revisionKey } from "../../packages/server/src/storage/schema/revision.ts";

const [file = "", keys = "1000000", valueBytes = "650"] = process.argv.slice(2);
const fd = fs.openSync(file, "w+");
let pending: Uint8Array[] = [];
let pendingBytes = 0;
let at = 8_192;

function flush(): void {
  const bytes = Buffer.concat(pending);
  fs.writeSync(fd, bytes, 0, bytes.length, at);
  at += bytes.length;
  pending = [];
  pendingBytes = 0;
}

const writer = new BoltWriter(
  {
    write(bytes, position) {
      if (position < 8_192) {
        fs.writeSync(fd, bytes, 0, bytes.length, position);
        return;
      }
      pending.push(bytes);
      pendingBytes += bytes.length;
      if (pendingBytes > 4_000_000) flush();
    },
  },
  { fill: 0.9 },
);
const counter = (value: number): Buffer => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(value));
  return bytes;
};
const count = Number(keys);
for (const name of ["alarm", "auth", "authRoles", "authUsers", "cluster"]) writer.bucket(name).finish();
const bucket = writer.bucket("key");
const value = Buffer.alloc(Number(valueBytes));
for (let i = 0; i < count; i++) {
  // Keys come in no order, as they do from many writers.
  const key = Buffer.from(`/registry/${createHash("md5").update(String(i)).digest("hex")}`);
  randomFillSync(value, 0, Math.min(64, value.length));
  const main = i + 2;
  bucket.put(
    revisionKey(main, 0),
    encodeKeyValue({ key, value, createRevision: main, modRevision: main, version: 1, lease: 0n }),
  );
}
bucket.finish();
for (const name of ["lease", "members", "members_removed"]) writer.bucket(name).finish();
const meta = writer.bucket("meta");
meta.put(Buffer.from("consistent_index"), counter(count + 5));
meta.put(Buffer.from("term"), counter(2));
meta.finish();
const size = writer.finish();
flush();
const hash = createHash("sha256");
const piece = Buffer.alloc(1024 * 1024);
for (let from = 0; from < size; ) {
  const length = fs.readSync(fd, piece, 0, Math.min(piece.length, size - from), from);
  hash.update(piece.subarray(0, length));
  from += length;
}
fs.writeSync(fd, hash.digest(), 0, 32, size);
fs.closeSync(fd);
