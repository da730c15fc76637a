/** Headers of answers inside a transaction: they say the revision and nothing else. */
import { ResponseHeader } from "@etcd-ts/client/wire";

export function revisionHeader(revision: number): ResponseHeader {
  return ResponseHeader.create({ revision });
}

/** A nested transaction's answer has a header with nothing in it. */
export function emptyHeader(): ResponseHeader {
  return ResponseHeader.create();
}
