/** KV: checks the form of a request, then leaves it to the server. */
import { EtcdError, KV } from "@etcd-ts/client/wire";
import { checkDeleteRangeRequest, checkPutRequest, checkRangeRequest, checkTxnRequest } from "../../mvcc/index.ts";
import type { EncodedRange } from "../../etcdserver/index.ts";
import { EncodedMessage, type ServiceRegistration, StreamedMessage, serve } from "../../rpc/index.ts";
import { type ApiDeps, callerOf } from "./context.ts";
import { streamRange } from "./range-stream.ts";

function answerOf({ pieces, count, rest }: EncodedRange): EncodedMessage | StreamedMessage {
  const head = new EncodedMessage(pieces, count);
  if (!rest) return head;
  const all = function* () {
    yield pieces;
    yield* rest.pieces();
  };
  return new StreamedMessage(head.byteLength + rest.byteLength, all, { items: count, giveWay: rest.giveWay });
}

export function kvService({ server, limits }: ApiDeps): ServiceRegistration {
  return serve(KV, {
    range(request, call) {
      checkRangeRequest(request);
      if (!request.serializable && server.raftView().isLearner) throw new EtcdError("NotSupportedForLearner");
      // Stored pairs go out as they are stored, without being decoded.
      const answer = server.rangeEncoded(request, callerOf(call));
      return answer instanceof Promise ? answer.then(answerOf) : answerOf(answer);
    },
    put(request, call) {
      checkPutRequest(request);
      return server.put(request, callerOf(call));
    },
    deleteRange(request, call) {
      checkDeleteRangeRequest(request);
      return server.deleteRange(request, callerOf(call));
    },
    txn(request, call) {
      checkTxnRequest(request, limits.maxTxnOps);
      return server.txn(request, callerOf(call));
    },
    compact(request, call) {
      return server.compact(request, callerOf(call));
    },
    async rangeStream(requests, out, call) {
      for await (const request of requests) {
        await streamRange(server, request, out, callerOf(call), limits.messageBytesMax);
      }
    },
  });
}
