/**
 * KV.RangeStream, a call of etcd 3.7: the answer of a Range in chunks, so that neither side holds all of it. All
 * chunks are read at one revision. Only the last one carries header, `more` and `count`; joining all chunks field by
 * field gives what Range answers.
 */
import { checkRangeRequest } from "../../mvcc/index.ts";
import {
  Code,
  type KeyValue,
  RangeRequest,
  RangeResponse,
  type RangeStreamResponse,
  SortOrder,
  SortTarget,
} from "@etcd-ts/client/wire";
import type { EtcdServer, RequestContext } from "../../etcdserver/index.ts";
import { EncodedMessage, type ResponseSink, StatusError } from "../../rpc/index.ts";

const FIRST_CHUNK_KEYS = 10;

function lengthPrefix(tag: number, length: number): Uint8Array {
  const bytes = [tag];
  let rest = length;
  for (; rest >= 0x80; rest = Math.floor(rest / 128)) bytes.push((rest & 0x7f) | 0x80);
  bytes.push(rest);
  return Uint8Array.from(bytes);
}

/** A RangeStreamResponse around a RangeResponse that is encoded already: field 1. */
function wrapped(encoded: Uint8Array): EncodedMessage {
  return new EncodedMessage([lengthPrefix(0x0a, encoded.length), encoded]);
}

function keyAfter(kv: KeyValue): Uint8Array {
  return Buffer.concat([kv.key, new Uint8Array(1)]);
}

export async function streamRange(
  server: EtcdServer,
  request: RangeRequest,
  out: ResponseSink<Partial<RangeStreamResponse>>,
  caller: RequestContext,
  requestBytesMax: number,
): Promise<void> {
  checkRangeRequest(request);
  const isPlain =
    request.sortOrder === SortOrder.None ||
    (request.sortOrder === SortOrder.Ascend && request.sortTarget === SortTarget.Key);
  if (!isPlain) throw new StatusError(Code.Unimplemented, "RangeStream does not support custom sort orders");
  if (
    request.minModRevision !== 0 ||
    request.maxModRevision !== 0 ||
    request.minCreateRevision !== 0 ||
    request.maxCreateRevision !== 0
  ) {
    throw new StatusError(Code.Unimplemented, "RangeStream does not support revision filters");
  }
  const plain = { ...request, sortOrder: SortOrder.None, sortTarget: SortTarget.Key };
  if (request.countOnly || request.rangeEnd.length === 0) {
    out.write(wrapped(RangeResponse.encode(await server.range(plain, caller))));
    return;
  }
  let chunkKeys = FIRST_CHUNK_KEYS;
  let left = request.limit > 0 ? request.limit : Number.POSITIVE_INFINITY;
  let next = RangeRequest.create({ ...plain, limit: Math.min(chunkKeys, left) });
  const first = await server.range(next, caller);
  const { header, count } = first;
  let chunk: { readonly kvs: readonly KeyValue[]; readonly more: boolean } = first;
  // The first read was as current as asked for; the rest stays at its revision, which this member has applied.
  const revision = request.revision > 0 ? request.revision : (header?.revision ?? 0);
  for (;;) {
    left -= chunk.kvs.length;
    const isLast = !chunk.more || left <= 0;
    const encoded = RangeResponse.encode(
      isLast ? { header, kvs: chunk.kvs, more: chunk.more, count } : { kvs: chunk.kvs },
    );
    if (!out.write(wrapped(encoded))) await out.drained();
    if (isLast) return;
    if (encoded.length < requestBytesMax / 2) chunkKeys *= 2;
    else if (encoded.length > requestBytesMax * 2) chunkKeys = Math.max(1, Math.floor(chunkKeys / 2));
    const last = chunk.kvs.at(-1) as KeyValue;
    next = RangeRequest.create({
      ...plain,
      key: keyAfter(last),
      revision,
      limit: Math.min(chunkKeys, left),
    });
    chunk = await server.rangePart(next, caller);
  }
}
