/**
 * proxy: what stands between clients and a cluster without being part of it. `etcd gateway` forwards connections. Knows
 * the network and the log, nothing of members.
 */
export {
  type GatewayDeps,
  type GatewayNames,
  type GatewayOutcome,
  runGateway,
  systemGatewayNames,
} from "./gateway.ts";
export { type Target, TcpProxy, type TcpProxyOptions } from "./tcp-proxy.ts";
