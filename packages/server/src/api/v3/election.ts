/** v3election: leadership among clients, with the same keys as the client library's elections. */
import {
  DeleteRangeRequest,
  Election,
  EtcdError,
  EventType,
  type LeaderKey,
  PutRequest,
  TxnRequest,
} from "@etcd-ts/client/wire";
import { equalBytes, prefixEnd } from "../../lib/bytes.ts";
import { type ServiceRegistration, serve } from "../../rpc/index.ts";
import { type ApiDeps, callerOf } from "./context.ts";
import { asUnknown, createdAt, createOrGet, keyUnder, LocalClient, prefixOf, rangeOf } from "./local-client.ts";

function ifStillLeader(
  leader: Pick<LeaderKey, "key" | "rev">,
  value: Uint8Array | undefined,
  lease: bigint,
): TxnRequest {
  const { key } = leader;
  return TxnRequest.create({
    compare: [createdAt(key, leader.rev)],
    success: [
      value === undefined
        ? { request: { kind: "requestDeleteRange", value: DeleteRangeRequest.create({ key }) } }
        : { request: { kind: "requestPut", value: PutRequest.create({ key, value, lease }) } },
    ],
  });
}

function given(leader: LeaderKey | undefined): LeaderKey {
  if (!leader) throw new EtcdError("LeaderFieldMissing");
  return leader;
}

export function electionService({ server }: ApiDeps): ServiceRegistration {
  return serve(Election, {
    campaign: (request, call) =>
      asUnknown(async () => {
        const client = new LocalClient(server, callerOf(call));
        const lease = await client.session(request.lease);
        const prefix = prefixOf(request.name);
        const key = keyUnder(prefix, lease);
        const { value } = request;
        const entered = await client.txn(createOrGet({ key, value, lease, prefix: undefined }));
        const [mine] = rangeOf(entered, 0);
        const rev = entered.succeeded ? (entered.header?.revision ?? 0) : (mine?.createRevision ?? 0);
        const resign = () =>
          client
            .detached()
            .txn(ifStillLeader({ key, rev }, undefined, lease))
            .catch(() => {});
        try {
          if (!entered.succeeded && mine && !equalBytes(mine.value, value)) {
            const changed = await client.txn(ifStillLeader({ key, rev }, value, lease));
            if (!changed.succeeded) throw new EtcdError("ElectionNotLeader");
          }
          await client.waitDeletes(prefix, rev - 1);
        } catch (error) {
          await resign();
          throw error;
        }
        return { header: entered.header, leader: { name: request.name, key, rev, lease } };
      }),
    proclaim: (request, call) =>
      asUnknown(async () => {
        const leader = given(request.leader);
        const client = new LocalClient(server, callerOf(call));
        const lease = await client.session(leader.lease);
        const changed = await client.txn(ifStillLeader(leader, request.value, lease));
        if (!changed.succeeded) throw new EtcdError("ElectionNotLeader");
        return { header: changed.header };
      }),
    leader: (request, call) =>
      asUnknown(async () => {
        const { header, kvs } = await new LocalClient(server, callerOf(call)).oldest(prefixOf(request.name));
        const [kv] = kvs;
        if (!kv) throw new EtcdError("ElectionNoLeader");
        return { header, kv };
      }),
    observe: (requests, out, call) =>
      asUnknown(async () => {
        const client = new LocalClient(server, callerOf(call));
        const send = async (message: Parameters<typeof out.write>[0]) => {
          if (!out.write(message)) await out.drained();
        };
        for await (const request of requests) {
          const prefix = prefixOf(request.name);
          while (!call.signal.aborted) {
            const now = await client.oldest(prefix);
            let { header } = now;
            let [kv] = now.kvs;
            if (!kv) {
              // Nobody leads: the first key to come is the leader's.
              for await (const batch of client.watch(prefix, prefixEnd(prefix), now.header?.revision ?? 0)) {
                kv = batch.events.find((event) => event.type === EventType.Put)?.kv;
                if (!kv) continue;
                header = { ...batch.header, revision: kv.modRevision };
                break;
              }
            }
            if (!kv) return;
            await send({ header, kv });
            watching: for await (const batch of client.watch(kv.key, undefined, (header?.revision ?? 0) + 1)) {
              for (const event of batch.events) {
                if (event.type === EventType.Delete) break watching;
                if (event.kv) await send({ header: batch.header, kv: event.kv });
              }
            }
          }
        }
      }),
    resign: (request, call) =>
      asUnknown(async () => {
        const leader = given(request.leader);
        const client = new LocalClient(server, callerOf(call));
        const lease = await client.session(leader.lease);
        const { header } = await client.txn(ifStillLeader(leader, undefined, lease));
        return { header };
      }),
  });
}
