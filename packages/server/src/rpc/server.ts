/** What a transport offers to the listener in front of it, and the limits that every transport keeps. */
import type { Duplex } from "node:stream";
import type { Clock } from "../lib/clock.ts";
import type { Logger } from "../lib/log.ts";
import type { CallHooks, PeerInfo, ServiceRegistration } from "./handlers.ts";

export interface RpcLimits {
  /** Largest request message, in bytes; above it the call ends with ResourceExhausted. */
  readonly requestBytesMax: number;
  /** Streams that one connection may have open; announced in SETTINGS. */
  readonly concurrentStreamsMax: number;
}

export interface RpcKeepAlive {
  /** A client that pings more often than this is told to go away; 0 turns the check off. */
  readonly minTimeMs: number;
  /** How long a connection may be silent before the server pings it; 0 turns pings off. */
  readonly intervalMs: number;
  /** How long the server waits for the answer before it closes the connection. */
  readonly timeoutMs: number;
}

export interface RpcServerOptions {
  readonly services: readonly ServiceRegistration[];
  readonly limits: RpcLimits;
  readonly keepAlive: RpcKeepAlive;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly hooks?: CallHooks;
  /** A broken invariant inside a handler. Does not return to the caller of the handler. */
  readonly onFatal: (error: unknown) => void;
}

export interface RpcServer {
  /** Takes over a connection on which HTTP/2 is spoken; bytes already read have been put back with `unshift`. */
  accept(socket: Duplex, peer: PeerInfo): void;
  /**
   * Graceful stop: GOAWAY to all, no new calls; resolves when the open ones have ended, or after `graceMs`, when what
   * is left is cut.
   */
  stop(graceMs: number): Promise<void>;
  /** Cuts everything now. */
  destroy(): void;
}
