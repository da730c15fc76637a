/** v3lock: a mutex of etcd's own, for clients that would rather not build one. */
import { EtcdError, Lock } from "@etcd-ts/client/wire";
import { EMPTY_BYTES } from "../../lib/bytes.ts";
import { type ServiceRegistration, serve } from "../../rpc/index.ts";
import { type ApiDeps, callerOf } from "./context.ts";
import { asUnknown, createOrGet, keyUnder, LocalClient, prefixOf, rangeOf } from "./local-client.ts";

export function lockService({ server }: ApiDeps): ServiceRegistration {
  return serve(Lock, {
    lock: (request, call) =>
      asUnknown(async () => {
        const client = new LocalClient(server, callerOf(call));
        const lease = await client.session(request.lease);
        const prefix = prefixOf(request.name);
        const key = keyUnder(prefix, lease);
        const acquired = await client.txn(createOrGet({ key, value: EMPTY_BYTES, lease, prefix }));
        const own = acquired.succeeded
          ? (acquired.header?.revision ?? 0)
          : (rangeOf(acquired, 0)[0]?.createRevision ?? 0);
        const [owner] = rangeOf(acquired, 1);
        if (!owner || owner.createRevision === own) return { header: acquired.header, key };
        try {
          await client.waitDeletes(prefix, own - 1);
          const mine = await client.get(key);
          if (mine.kvs.length === 0) throw new EtcdError("SessionExpired");
          return { header: mine.header, key };
        } catch (error) {
          // Whoever gives up must not stand in the way of those behind.
          if (!(error instanceof EtcdError && error.kind === "SessionExpired")) {
            await client
              .detached()
              .delete(key)
              .catch(() => {});
          }
          throw error;
        }
      }),
    unlock: (request, call) =>
      asUnknown(async () => {
        if (request.key.length === 0) throw new EtcdError("EmptyKey");
        const { header } = await new LocalClient(server, callerOf(call)).delete(request.key);
        return { header };
      }),
  });
}
