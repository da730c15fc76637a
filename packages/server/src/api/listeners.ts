/**
 * The ports of a member. All are bound before the data dir is touched, so that a second server on the same addresses
 * fails first; peers are served when raft runs, clients when the member has told the cluster its name.
 */
import type { EtcdServer } from "../etcdserver/index.ts";
import type { Clock, Timer } from "../lib/clock.ts";
import { isTlsScheme, parseEtcdUrl } from "../lib/listen-url.ts";
import type { Logger } from "../lib/log.ts";
import type { Family } from "../lib/metrics.ts";
import type { Random } from "../lib/random.ts";
import {
  type CallHooks,
  canReusePort,
  createGrpcJsServer,
  createNativeServer,
  type HttpHandler,
  OnePortListener,
  type RpcServer,
  type ServiceRegistration,
  type TlsAcceptor,
  type TlsDialler,
} from "../rpc/index.ts";
import { createGateway } from "./gateway/gateway.ts";
import { fileDescriptors, ServerMetrics } from "./http/metrics.ts";
import { pprofRoutes } from "./http/pprof.ts";
import { clientHandler, type HttpDeps, metricsHandler, notFound } from "./http/routes.ts";
import { acceptorOf, checkSchemes, diallerOf, type SideTls, tlsOf, type TlsPortsConfig } from "./tls-ports.ts";
import { admitCall } from "./v3/guard.ts";
import { type ApiServices, apiServices } from "./v3/services.ts";

/** What gRPC may add to a request that raft takes. */
const GRPC_OVERHEAD_BYTES = 512 * 1024;
const FILES_CHECK_INTERVAL_MS = 10 * 60 * 1000;

/** What the ports need to know of the configuration; `Config` has it all. */
export interface ListenersConfig extends TlsPortsConfig {
  readonly listenPeerUrls: readonly string[];
  readonly listenClientUrls: readonly string[];
  readonly listenClientHttpUrls: readonly string[];
  readonly listenMetricsUrls: readonly string[];
  readonly socketReusePort: boolean;
  /** Node sets SO_REUSEADDR on every listener anyhow. */
  readonly socketReuseAddress: boolean;
  readonly maxRequestBytes: number;
  readonly maxTxnOps: number;
  readonly maxConcurrentStreams: number;
  readonly grpcKeepAliveMinTimeMs: number;
  readonly grpcKeepAliveIntervalMs: number;
  readonly grpcKeepAliveTimeoutMs: number;
  readonly grpcTransport: "grpc-js" | "native";
  readonly cors: readonly string[];
  readonly hostWhitelist: readonly string[];
  readonly metrics: string;
  readonly watchProgressNotifyIntervalMs: number;
  readonly tickMs: number;
  readonly electionTicks: number;
  readonly stopGrpcServiceOnDefrag: boolean;
  readonly enableGrpcGateway: boolean;
  readonly enablePprof: boolean;
}

export interface ListenersDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  /** A broken invariant in a handler: the process must end. */
  readonly onFatal: (error: unknown) => void;
  /** Goes around every service, closest to its handlers. */
  readonly around?: ((registration: ServiceRegistration) => ServiceRegistration) | undefined;
}

type Traffic = "grpc+http" | "grpc" | "http";

interface ClientPort {
  readonly listener: OnePortListener;
  readonly traffic: Traffic;
  readonly isTls: boolean;
  readonly isPlain: boolean;
}

export class BoundListeners {
  readonly #config: ListenersConfig;
  readonly #deps: ListenersDeps;
  readonly #peers: OnePortListener[] = [];
  /** Addresses of those that answer. */
  readonly #servedPeers: string[] = [];
  readonly #clients: ClientPort[] = [];
  readonly #metricsPorts: OnePortListener[] = [];
  readonly #rpcServers: RpcServer[] = [];
  #services: ApiServices | undefined;
  #filesTimer: Timer | undefined;
  readonly metrics: ServerMetrics;
  #peerTls: SideTls | undefined;

  private constructor(config: ListenersConfig, deps: ListenersDeps) {
    this.#config = config;
    this.#deps = deps;
    this.metrics = new ServerMetrics(() => deps.clock.monotonicMs(), config.metrics === "extensive");
  }

  /** Binds every address. Throws an Error with Go's text for the first that cannot be had, and lets go of the rest. */
  static async bind(config: ListenersConfig, deps: ListenersDeps): Promise<BoundListeners> {
    const bound = new BoundListeners(config, deps);
    try {
      await bound.#bindAll();
    } catch (error) {
      bound.close();
      throw error;
    }
    return bound;
  }

  async #bindAll(): Promise<void> {
    const { logger } = this.#deps;
    const config = this.#config;
    if (config.socketReusePort || config.socketReuseAddress) {
      logger.info("configuring socket options", {
        "reuse-address": config.socketReuseAddress,
        "reuse-port": config.socketReusePort,
      });
    }
    if (config.socketReusePort && !canReusePort()) {
      logger.warn("this version of Node cannot set SO_REUSEPORT; 22.12 and later can", { node: process.version });
    }
    logger.info("configuring peer listeners", { "listen-peer-urls": config.listenPeerUrls });
    const peerTls = await tlsOf("peer", config.listenPeerUrls, config, this.#deps);
    checkSchemes("peer", config.listenPeerUrls, peerTls, config.peerTls, logger);
    this.#peerTls = peerTls;
    // Certificates that nobody can dial with are found out before anything runs.
    this.peerDialler("");
    const acceptPeer = peerTls && acceptorOf("peer", peerTls, config, logger, true);
    for (const url of config.listenPeerUrls) {
      try {
        this.#peers.push(await this.#bind(url, isTlsScheme(parseEtcdUrl(url).scheme) ? acceptPeer : undefined));
      } catch (error) {
        logger.error("creating peer listener failed", { error });
        throw error;
      }
    }
    logger.info("configuring client listeners", { "listen-client-urls": config.listenClientUrls });
    const clientUrls = [...config.listenClientUrls, ...config.listenClientHttpUrls];
    const clientTls = await tlsOf("client", clientUrls, config, this.#deps);
    checkSchemes("client", clientUrls, clientTls, config.clientTls, logger);
    const acceptClient = clientTls && acceptorOf("client", clientTls, config, logger, false);
    const isSplit = config.listenClientHttpUrls.length > 0;
    // Several URLs may name one address: http and https live together on it.
    const ports = new Map<string, { url: string; traffic: Traffic; isTls: boolean; isPlain: boolean }>();
    const collect = (urls: readonly string[], traffic: Traffic) => {
      for (const url of urls) {
        const { scheme, host, path } = parseEtcdUrl(url);
        const isTls = isTlsScheme(scheme);
        const before = ports.get(host + path);
        if (before && before.traffic !== traffic) {
          throw new Error(`cannot bind both --client-listen-urls and --client-listen-http-urls on the same url ${url}`);
        }
        ports.set(host + path, {
          url,
          traffic,
          isTls: isTls || before?.isTls === true,
          isPlain: !isTls || before?.isPlain === true,
        });
      }
    };
    collect(config.listenClientUrls, isSplit ? "grpc" : "grpc+http");
    collect(config.listenClientHttpUrls, "http");
    for (const { url, traffic, isTls, isPlain } of ports.values()) {
      const listener = await this.#bind(url, isTls ? acceptClient : undefined, isPlain);
      this.#clients.push({ listener, traffic, isTls, isPlain });
    }
    for (const url of config.listenMetricsUrls) {
      const isTls = isTlsScheme(parseEtcdUrl(url).scheme);
      if (isTls && !clientTls) {
        throw new Error("client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url");
      }
      const acceptor = isTls && clientTls ? acceptorOf("client", clientTls, config, logger, true) : undefined;
      this.#metricsPorts.push(await this.#bind(url, acceptor));
    }
  }

  /**
   * How this member dials others that speak TLS: by the certificates of its own peer ports. `serverName`: what theirs must
   * stand for, in place of the host that is dialled.
   */
  peerDialler(serverName: string): TlsDialler {
    return diallerOf(this.#peerTls, serverName, this.#config, this.#deps.logger);
  }

  #bind(url: string, tls: TlsAcceptor | undefined, alsoPlain = false): Promise<OnePortListener> {
    const { logger } = this.#deps;
    return OnePortListener.bind({ url, logger, tls, alsoPlain, reusePort: this.#config.socketReusePort });
  }

  async #rpcServer(services: readonly ServiceRegistration[], server: EtcdServer): Promise<RpcServer> {
    const { clock, logger, onFatal } = this.#deps;
    const config = this.#config;
    const create = config.grpcTransport === "native" ? createNativeServer : createGrpcJsServer;
    const created = await create({
      services,
      limits: {
        requestBytesMax: config.maxRequestBytes + GRPC_OVERHEAD_BYTES,
        concurrentStreamsMax: config.maxConcurrentStreams,
      },
      keepAlive: {
        minTimeMs: config.grpcKeepAliveMinTimeMs,
        intervalMs: config.grpcKeepAliveIntervalMs,
        timeoutMs: config.grpcKeepAliveTimeoutMs,
      },
      clock,
      logger,
      onFatal,
      hooks: this.#hooks(server),
    });
    this.#rpcServers.push(created);
    return created;
  }

  #gateway(services: readonly ServiceRegistration[], server: EtcdServer): HttpHandler {
    const { clock, onFatal } = this.#deps;
    const { maxRequestBytes, maxConcurrentStreams } = this.#config;
    return createGateway({
      services,
      hooks: this.#hooks(server),
      clock,
      messageBytesMax: maxRequestBytes + GRPC_OVERHEAD_BYTES,
      concurrentStreamsMax: maxConcurrentStreams,
      onFatal,
    });
  }

  #hooks(server: EtcdServer): CallHooks {
    return {
      ...this.metrics.hooks,
      admit: (call) => {
        this.metrics.clientRequest(call);
        admitCall(server, call);
      },
    };
  }

  #servicesOf(server: EtcdServer): ApiServices {
    const { clock, random, logger } = this.#deps;
    const config = this.#config;
    this.#services ??= apiServices(
      {
        server,
        clock,
        random,
        logger,
        limits: {
          maxTxnOps: config.maxTxnOps,
          messageBytesMax: config.maxRequestBytes + GRPC_OVERHEAD_BYTES,
          watchProgressNotifyIntervalMs: config.watchProgressNotifyIntervalMs,
          electionTimeoutMs: config.electionTicks * config.tickMs,
          stopGrpcServiceOnDefrag: config.stopGrpcServiceOnDefrag,
        },
      },
      this.#deps.around,
    );
    return this.#services;
  }

  /** From here on peers are answered: by `handler`, and clients that call the peer port over gRPC. */
  async servePeers(server: EtcdServer, handler: HttpHandler | undefined): Promise<void> {
    const { logger } = this.#deps;
    const { onAllPorts } = this.#servicesOf(server);
    const grpc = await this.#rpcServer(onAllPorts, server);
    const http: HttpHandler = handler ?? ((_request, response) => notFound(response));
    for (const listener of this.#peers) {
      await listener.serve({ grpc, http });
      const { host: address } = parseEtcdUrl(listener.url);
      logger.info("serving peer traffic", { address });
      logger.info("cmux::serve", { address });
      this.#servedPeers.push(address);
    }
  }

  /** From here on clients are answered, also those that connected before. */
  async serveClients(server: EtcdServer): Promise<void> {
    const { logger } = this.#deps;
    const config = this.#config;
    const { onAllPorts, onClientPorts } = this.#servicesOf(server);
    const services = [...onAllPorts, ...onClientPorts];
    this.metrics.addServices(services);
    const grpc = await this.#rpcServer(services, server);
    this.#watchFiles();
    const isProfiled = config.enablePprof || logger.isDebugEnabled;
    if (isProfiled) logger.info("pprof is enabled", { path: "/debug/pprof" });
    const http: HttpDeps = {
      server,
      metrics: this.metrics,
      logger,
      cors: config.cors,
      hostWhitelist: config.hostWhitelist,
      argv: process.argv.slice(1),
      gateway: config.enableGrpcGateway ? this.#gateway(services, server) : undefined,
      profiles: isProfiled ? pprofRoutes({ clock: this.#deps.clock, argv: process.argv.slice(1) }) : undefined,
    };
    const serveMetrics = metricsHandler(http);
    for (const listener of this.#metricsPorts) {
      await listener.serve({ http: serveMetrics });
      logger.info("serving metrics", { address: listener.url });
    }
    const serveHttp = clientHandler(http);
    for (const { listener, traffic, isTls, isPlain } of this.#clients) {
      logger.info("ready to serve client requests");
      await listener.serve({
        grpc: traffic === "http" ? undefined : grpc,
        http: traffic === "grpc" ? undefined : serveHttp,
      });
      const { host, path } = parseEtcdUrl(listener.url);
      const fields = { traffic, address: host + path };
      if (isPlain) logger.info("serving client traffic insecurely; this is strongly discouraged!", fields);
      if (isTls) logger.info("serving client traffic securely", fields);
    }
  }

  /** etcd's word to operators whose limit of open files is nearly reached, which is looked at now and then. */
  #watchFiles(): void {
    const { clock, logger } = this.#deps;
    const files = fileDescriptors();
    if (!files) return;
    const { used, limit } = files;
    if (used >= (limit / 5) * 4) logger.warn("80% of file descriptors are used", { used, limit });
    this.#filesTimer = clock.after(FILES_CHECK_INTERVAL_MS, () => this.#watchFiles(), { unref: true });
  }

  /** Families that are kept elsewhere, for `/metrics`. */
  addFamilies(families: () => readonly Family[]): void {
    this.metrics.addFamilies(families);
  }

  /** No new calls; the open ones have `graceMs` to end, then they are cut. */
  async stopClients(graceMs: number): Promise<void> {
    for (const { listener } of this.#clients) listener.stopAccepting();
    await Promise.all(this.#rpcServers.map((rpc) => rpc.stop(graceMs)));
    for (const { listener } of this.#clients) listener.destroy();
  }

  /** Lets go of every port and connection. */
  close(): void {
    const { logger } = this.#deps;
    this.#filesTimer?.cancel();
    const served = this.#servedPeers.splice(0);
    for (const address of served) logger.info("stopping serving peer traffic", { address });
    for (const rpc of this.#rpcServers) rpc.destroy();
    for (const listener of [...this.#peers, ...this.#metricsPorts]) listener.destroy();
    for (const { listener } of this.#clients) listener.destroy();
    for (const address of served) logger.info("stopped serving peer traffic", { address });
  }
}

export function bindListeners(config: ListenersConfig, deps: ListenersDeps): Promise<BoundListeners> {
  return BoundListeners.bind(config, deps);
}
