/** Cluster: the member list and its changes. */
import { Cluster, EtcdError } from "@etcd-ts/client/wire";
import { parseEtcdUrls } from "../../lib/listen-url.ts";
import { type ServiceRegistration, serve } from "../../rpc/index.ts";
import { type ApiDeps, callerOf } from "./context.ts";

function checkedUrls(urls: readonly string[]): string[] {
  try {
    if (urls.length === 0) throw new Error("no valid URLs given");
    return urls.flatMap((url) => parseEtcdUrls(url)).sort();
  } catch (error) {
    throw new EtcdError("MemberBadURLs", { cause: error });
  }
}

export function clusterService({ server }: ApiDeps): ServiceRegistration {
  return serve(Cluster, {
    memberAdd: (request, call) =>
      server.memberAdd({ ...request, peerUrls: checkedUrls(request.peerUrls) }, callerOf(call)),
    memberRemove: (request, call) => server.memberRemove(request, callerOf(call)),
    // etcd 3.5 passes on what is no URL, and its members die of it.
    memberUpdate: (request, call) =>
      server.memberUpdate({ ...request, peerUrls: checkedUrls(request.peerUrls) }, callerOf(call)),
    memberList: (request, call) => server.memberList(request, callerOf(call)),
    memberPromote: (request, call) => server.memberPromote(request, callerOf(call)),
  });
}
