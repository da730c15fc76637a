/** An etcd 3.5 server to embed: `startEtcd(config, deps)` resolves when clients are served. */
export { type BootDeps, type RunningEtcd, startEtcd, startMember } from "./boot.ts";
export type { Config } from "./config.ts";
export { defaultServerConfig, type EtcdServer, type RequestContext, type ServerConfig } from "./etcdserver/index.ts";
export { type Clock, systemClock } from "./lib/clock.ts";
export { type Logger, silentLogger } from "./lib/log.ts";
export { type Random, systemRandom } from "./lib/random.ts";
