/**
 * One port for everything a client may speak. The first bytes of a connection decide: a TLS handshake is taken off
 * when certificates are configured; then HTTP/2 goes to the gRPC server and everything else to node:http.
 *
 * A port is bound early and served late: connections that come in between are held, silent, as etcd does while a
 * member has not found its cluster.
 */
import { rmSync, statSync } from "node:fs";
import type { IncomingMessage, Server as HttpServer, ServerResponse } from "node:http";
import { createServer, type Server, type Socket } from "node:net";
import type { TLSSocket } from "node:tls";
import { type EtcdUrl, isUnixScheme, parseEtcdUrl, splitHostPort } from "../lib/listen-url.ts";
import type { Logger } from "../lib/log.ts";
import type { PeerInfo } from "./handlers.ts";
import type { RpcServer } from "./server.ts";

export type HttpHandler = (request: IncomingMessage, response: ServerResponse) => void;

/** Who gets what arrives. Without `http`, or without `grpc`, such connections are closed. */
export interface PortServices {
  readonly grpc?: RpcServer | undefined;
  readonly http?: HttpHandler | undefined;
}

/** Takes TLS off a connection. `accept` calls back once the handshake is done; a failed one is closed and logged. */
export interface TlsAcceptor {
  accept(socket: Socket, onSecure: (secure: TLSSocket, commonName: string | undefined) => void): void;
  /** Closes a connection that does not begin with a handshake, where one is demanded. */
  refusePlain(socket: Socket): void;
}

export interface ListenOptions {
  readonly url: string;
  readonly tls?: TlsAcceptor | undefined;
  /** With TLS: whether connections without it are served too. Default: no. */
  readonly alsoPlain?: boolean;
  /** SO_REUSEPORT, where Node offers it. */
  readonly reusePort?: boolean;
  readonly logger: Logger;
}

const PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "latin1");
const TLS_HANDSHAKE = 0x16;

/** Time that a connection may stay silent before it shows what it speaks: as long as Go gives a handshake of HTTP/2. */
const FIRST_BYTES_TIMEOUT_MS = 120_000;
/** Time that a request of HTTP/1 has for its headers: a client that sends them byte by byte is cut off. */
const HEADERS_TIMEOUT_MS = 60_000;
/** How often that is looked at. */
const HEADERS_CHECK_MS = 10_000;

/** SO_REUSEPORT came with Node 22.12 and 23.1. */
export function canReusePort(): boolean {
  const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
  return major > 23 || (major === 23 && minor >= 1) || (major === 22 && minor >= 12);
}

/** The file of a unix socket: host and path of its URL, relative to the working directory. */
export function unixSocketPath(url: EtcdUrl): string {
  return url.host + url.path;
}

/** As Go prints the other end of a connection. */
export function remoteAddressOf(socket: Socket): string {
  const { remoteAddress, remotePort } = socket;
  if (remoteAddress === undefined) return "@";
  const host = remoteAddress.startsWith("::ffff:") ? remoteAddress.substring(7) : remoteAddress;
  return host.includes(":") ? `[${host}]:${remotePort}` : `${host}:${remotePort}`;
}

/** Go's text for an address that cannot be listened on. */
export function listenErrorText(network: "tcp" | "unix", address: string, error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  const reasons: Readonly<Record<string, string>> = {
    EADDRINUSE: "address already in use",
    EACCES: "permission denied",
    EADDRNOTAVAIL: "cannot assign requested address",
    EINVAL: "invalid argument",
    ENOENT: "no such file or directory",
  };
  return `listen ${network} ${address}: bind: ${reasons[code ?? ""] ?? message}`;
}

function bindError(url: EtcdUrl, error: NodeJS.ErrnoException): Error {
  const text = isUnixScheme(url.scheme)
    ? listenErrorText("unix", unixSocketPath(url), error)
    : listenErrorText("tcp", goListenHost(url), error);
  return new Error(text, { cause: error });
}

/** Go resolves localhost before it binds, and says the address that it tried. */
function goListenHost(url: EtcdUrl): string {
  return url.host.replace(/^localhost:/, "127.0.0.1:");
}

export class OnePortListener {
  readonly url: string;
  readonly #server: Server;
  readonly #tls: TlsAcceptor | undefined;
  readonly #alsoPlain: boolean;
  readonly #logger: Logger;
  readonly #socketFile: string | undefined;
  #http: HttpServer | undefined;
  #services: PortServices | undefined;
  #isClosed = false;
  readonly #held = new Set<Socket>();
  readonly #open = new Set<Socket>();

  private constructor(options: ListenOptions, server: Server, socketFile: string | undefined) {
    this.url = options.url;
    this.#tls = options.tls;
    this.#alsoPlain = options.tls === undefined || options.alsoPlain === true;
    this.#logger = options.logger;
    this.#server = server;
    this.#socketFile = socketFile;
    server.on("connection", (socket: Socket) => this.#arrived(socket));
  }

  /** Throws an Error with Go's text when the address cannot be had. */
  static async bind(options: ListenOptions): Promise<OnePortListener> {
    const url = parseEtcdUrl(options.url);
    const server = createServer({ noDelay: true, pauseOnConnect: true });
    const isUnix = isUnixScheme(url.scheme);
    const socketFile = isUnix ? unixSocketPath(url) : undefined;
    if (socketFile !== undefined) removeStaleSocket(socketFile);
    const listener = new OnePortListener(options, server, socketFile);
    await new Promise<void>((resolve, reject) => {
      const onError = (error: NodeJS.ErrnoException) => reject(bindError(url, error));
      server.once("error", onError);
      const onListening = () => {
        server.off("error", onError);
        resolve();
      };
      if (socketFile !== undefined) {
        server.listen({ path: socketFile }, onListening);
      } else {
        const parts = splitHostPort(url.host);
        server.listen(
          {
            host: parts?.host === "localhost" ? "127.0.0.1" : parts?.host,
            port: Number(parts?.port),
            backlog: 4096,
            ...(options.reusePort && canReusePort() ? { reusePort: true } : {}),
          },
          onListening,
        );
      }
    });
    server.on("error", (error) => options.logger.warn("closing peer listener", { address: options.url, error }));
    return listener;
  }

  /** Port that was bound; of use when the URL asked for port 0. */
  get port(): number {
    const address = this.#server.address();
    return typeof address === "object" && address ? address.port : 0;
  }

  /** Starts to answer, also those that came before. */
  async serve(services: PortServices): Promise<void> {
    if (services.http) {
      const { createServer: createHttpServer } = await import("node:http");
      this.#http = createHttpServer(
        {
          keepAliveTimeout: 0,
          headersTimeout: HEADERS_TIMEOUT_MS,
          // A body may take its time: streams of the gateway are requests without an end.
          requestTimeout: 0,
          connectionsCheckingInterval: HEADERS_CHECK_MS,
        },
        services.http,
      );
      this.#http.on("clientError", (_error, socket) => socket.destroy());
      // It is given its connections and never listens itself; this is when it begins to look after their time-outs.
      this.#http.emit("listening");
    }
    this.#services = services;
    for (const socket of this.#held) this.#classify(socket);
    this.#held.clear();
  }

  /** No new connections. Those that are open go on. */
  stopAccepting(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#server.close();
    if (this.#socketFile !== undefined) rmSync(this.#socketFile, { force: true });
  }

  /** Ends everything that is still open here. */
  destroy(): void {
    this.stopAccepting();
    this.#http?.closeAllConnections();
    for (const socket of this.#open) socket.destroy();
  }

  #arrived(socket: Socket): void {
    this.#open.add(socket);
    socket.on("error", () => {});
    socket.once("close", () => {
      this.#open.delete(socket);
      this.#held.delete(socket);
    });
    if (this.#services) this.#classify(socket);
    else this.#held.add(socket);
  }

  /** Reads until the first bytes tell what is spoken, puts them back, and hands the connection over. */
  #classify(socket: Socket): void {
    const onReadable = () => {
      const chunk = socket.read() as Buffer | null;
      if (chunk === null) return;
      socket.unshift(chunk);
      if (this.#tls && chunk[0] === TLS_HANDSHAKE) {
        found();
        this.#tls.accept(socket, (secure, commonName) => this.#secured(secure, socket, commonName));
        return;
      }
      if (!this.#alsoPlain) {
        found();
        this.#tls?.refusePlain(socket);
        return;
      }
      const length = Math.min(chunk.length, PREFACE.length);
      const isPreface = chunk.compare(PREFACE, 0, length, 0, length) === 0;
      if (isPreface && chunk.length < PREFACE.length) return;
      found();
      this.#hand(socket, isPreface, { address: remoteAddressOf(socket), isTls: false, commonName: undefined });
    };
    const onTimeout = () => socket.destroy();
    const found = () => {
      socket.off("readable", onReadable);
      socket.setTimeout(0, onTimeout);
    };
    socket.setTimeout(FIRST_BYTES_TIMEOUT_MS, onTimeout);
    socket.on("readable", onReadable);
  }

  #secured(secure: TLSSocket, raw: Socket, commonName: string | undefined): void {
    secure.on("error", () => {});
    const peer: PeerInfo = { address: remoteAddressOf(raw), isTls: true, commonName };
    this.#hand(secure, secure.alpnProtocol === "h2", peer);
  }

  #hand(socket: Socket, isHttp2: boolean, peer: PeerInfo): void {
    if (isHttp2 && this.#services?.grpc) {
      this.#services.grpc.accept(socket, peer);
    } else if (!isHttp2 && this.#http) {
      this.#http.emit("connection", socket);
      socket.resume();
    } else {
      this.#logger.debug("closing a connection that speaks what is not served here", { address: peer.address });
      socket.destroy();
    }
  }
}

/** What a killed server left behind; a socket that somebody listens on makes the bind fail all the same. */
function removeStaleSocket(file: string): void {
  try {
    if (statSync(file).isSocket()) rmSync(file);
  } catch {
    // Not there: as it should be.
  }
}
