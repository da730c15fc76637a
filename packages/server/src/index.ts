/**
 * An etcd 3.5 server to embed.
 *
 * ```ts
 * const etcd = await startEtcd(configFromArguments(["--data-dir", "data"]), {
 *   logger: silentLogger, clock: systemClock, random: systemRandom, onFatal: (error) => process.abort(),
 * }); // clients are served
 * await etcd.stop();
 * ```
 */
export { type BootDeps, type RunningEtcd, startEtcd, startMember } from "./boot.ts";
export { type Config, configFromArguments } from "./config.ts";
export { defaultServerConfig, type EtcdServer, type RequestContext, type ServerConfig } from "./etcdserver/index.ts";
export { type Clock, systemClock } from "./lib/clock.ts";
export { type Logger, silentLogger } from "./lib/log.ts";
export { type Random, systemRandom } from "./lib/random.ts";
