/** Maintenance: this member's own state, and the image of its store. */
import { createHash } from "node:crypto";
import { Maintenance, SnapshotResponse } from "@etcd-ts/client/wire";
import { humanBytes } from "../../lib/go-format.ts";
import { EncodedMessage, type ServiceRegistration, serve } from "../../rpc/index.ts";
import { type ApiDeps, callerOf } from "./context.ts";
import type { ServingState } from "./health.ts";

/** Pieces of a snapshot stream; what etcd sends. */
const SNAPSHOT_PIECE_BYTES = 32 * 1024;

/** `blob` of a SnapshotResponse. */
const BLOB_TAG = 0x1a;

/** A SnapshotResponse around bytes that are not copied. */
function pieceOf(remainingBytes: number, blob: Uint8Array): EncodedMessage {
  const start = SnapshotResponse.encode({ remainingBytes });
  const head = Buffer.allocUnsafe(start.length + 6);
  head.set(start);
  let at = start.length;
  head[at++] = BLOB_TAG;
  let length = blob.length;
  for (; length >= 0x80; length >>>= 7) head[at++] = (length & 0x7f) | 0x80;
  head[at++] = length;
  return new EncodedMessage([head.subarray(0, at), blob]);
}

/** The same bytes in pieces of equal size, the last one smaller. */
async function* inPieces(chunks: AsyncIterable<Uint8Array>, size: number): AsyncGenerator<readonly Uint8Array[]> {
  let rest: Uint8Array = new Uint8Array(0);
  for await (const chunk of chunks) {
    const bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    const pieces: Uint8Array[] = [];
    let at = 0;
    for (; bytes.length - at >= size; at += size) pieces.push(bytes.subarray(at, at + size));
    rest = bytes.subarray(at);
    yield pieces;
  }
  if (rest.length > 0) yield [rest];
}

export function maintenanceService({ server, logger, limits }: ApiDeps, serving: ServingState): ServiceRegistration {
  return serve(Maintenance, {
    alarm: (request, call) => server.alarm(request, callerOf(call)),
    status: (_request, call) => server.status(callerOf(call)),
    async defragment(_request, call) {
      // Who may not do this must not be able to stop the service either.
      let isStarted = false;
      const started = () => {
        isStarted = true;
        logger.info("starting defragment");
        if (!limits.stopGrpcServiceOnDefrag) return;
        serving.set(false);
        logger.warn("grpc service status changed", { service: "", status: "NOT_SERVING", reason: "defrag" });
      };
      try {
        const response = await server.defragment(callerOf(call), started);
        logger.info("finished defragment");
        return response;
      } catch (error) {
        if (isStarted) logger.warn("failed to defragment", { error });
        throw error;
      } finally {
        if (isStarted && limits.stopGrpcServiceOnDefrag) {
          serving.set(true);
          logger.info("grpc service status changed", { service: "", status: "SERVING" });
        }
      }
    },
    hash: (_request, call) => server.hash(callerOf(call)),
    hashKv: (request, call) => server.hashKv(request, callerOf(call)),
    async snapshot(requests, out, call) {
      for await (const _request of requests) {
        const snapshot = await server.snapshot(callerOf(call));
        try {
          const { totalBytes } = snapshot;
          const size = humanBytes(totalBytes);
          logger.info("sending database snapshot to client", { "total-bytes": totalBytes, size });
          const hash = createHash("sha256");
          let sentBytes = 0;
          for await (const blobs of inPieces(snapshot.chunks(), SNAPSHOT_PIECE_BYTES)) {
            for (const blob of blobs) {
              hash.update(blob);
              sentBytes += blob.length;
              if (!out.write(pieceOf(totalBytes - sentBytes, blob))) await out.drained();
            }
          }
          const blob = hash.digest();
          logger.info("sending database sha256 checksum to client", {
            "total-bytes": totalBytes,
            "checksum-size": blob.length,
          });
          out.write({ remainingBytes: 0, blob });
          logger.info("successfully sent database snapshot to client", {
            "total-bytes": totalBytes,
            size,
            took: "now",
          });
        } finally {
          await snapshot.close();
        }
      }
    },
    moveLeader: (request, call) => server.moveLeader(request, callerOf(call)),
    downgrade: (request, call) => server.downgrade(request, callerOf(call)),
  });
}
