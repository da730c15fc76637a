/**
 * HashKV computed from what a client can read, independently of the server: CRC-32C over the text "key" and, for each
 * revision in order, its 17-byte key and the encoded KeyValue. Right only for histories without deletions,
 * overwrites and compactions, one put a transaction, which is what the crash tests write.
 */
import { KeyValue } from "@etcd-ts/client/wire";

const TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  let c = n;
  for (let k = 0; k < 8; k++) c = c & 1 ? (c >>> 1) ^ 0x82f63b78 : c >>> 1;
  return c;
});

function update(crc: number, bytes: Uint8Array): number {
  let c = crc;
  for (const byte of bytes) c = (c >>> 8) ^ (TABLE[(c ^ byte) & 0xff] as number);
  return c;
}

/** `kvs` in order of their revisions. */
export function hashOfPuts(kvs: readonly KeyValue[]): number {
  const revision = Buffer.alloc(17);
  revision[8] = "_".charCodeAt(0);
  let crc = update(-1, Buffer.from("key"));
  for (const kv of kvs) {
    revision.writeBigUInt64BE(BigInt(kv.modRevision), 0);
    crc = update(update(crc, revision), KeyValue.encode(kv));
  }
  return ~crc >>> 0;
}
