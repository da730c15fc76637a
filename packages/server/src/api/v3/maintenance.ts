/** Maintenance: this member's own state, and the image of its store. */
import { Maintenance, SnapshotResponse } from "@etcd-ts/client/wire";
import { humanBytes } from "../../lib/go-format.ts";
import { EncodedMessage, type ServiceRegistration, serve } from "../../rpc/index.ts";
import { type ApiDeps, callerOf } from "./context.ts";
import type { ServingState } from "./health.ts";

/** Pieces of a snapshot stream; what etcd sends. Chunks of the image are multiples of it, but for the last. */
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
          let leftBytes = totalBytes;
          for await (const chunk of snapshot.chunks()) {
            for (let at = 0; at < chunk.length; at += SNAPSHOT_PIECE_BYTES) {
              const blob = chunk.subarray(at, at + SNAPSHOT_PIECE_BYTES);
              leftBytes -= blob.length;
              if (!out.write(pieceOf(leftBytes, blob)) && !out.sent) await out.drained();
            }
            // The next one may come in the same memory.
            await out.sent?.();
          }
          const blob = snapshot.sha256();
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
