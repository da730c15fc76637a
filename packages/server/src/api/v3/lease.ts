/** Lease. A keep-alive stream answers each message in turn; half-closing it ends it well. */
import { Lease } from "@etcd-ts/client/wire";
import { type ServiceRegistration, serve } from "../../rpc/index.ts";
import { type ApiDeps, callerOf } from "./context.ts";

export function leaseService({ server }: ApiDeps): ServiceRegistration {
  return serve(Lease, {
    leaseGrant: (request, call) => server.leaseGrant(request, callerOf(call)),
    leaseRevoke: (request, call) => server.leaseRevoke(request, callerOf(call)),
    leaseTimeToLive: (request, call) => server.leaseTimeToLive(request, callerOf(call)),
    leaseLeases: (_request, call) => server.leaseLeases(callerOf(call)),
    async leaseKeepAlive(requests, out, call) {
      const caller = callerOf(call);
      for await (const request of requests) {
        const answer = server.leaseKeepAlive(request.id, caller);
        if (!out.write(answer instanceof Promise ? await answer : answer)) await out.drained();
      }
    },
  });
}
