/**
 * api: what clients see. `v3/` holds the gRPC handlers, `http/` health, metrics and version, `listeners.ts` the ports.
 * Everything is asked of an EtcdServer; nothing here writes a store or knows raft.
 */
export { allowMethod, httpError, notFound, versionRoute } from "./http/routes.ts";
export { bindListeners, BoundListeners, type ListenersConfig, type ListenersDeps } from "./listeners.ts";
