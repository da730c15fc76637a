/**
 * A forwarder of TCP connections to the members of a cluster: what `etcd gateway` is. It knows nothing of what goes
 * through it. A member that cannot be dialled is left out until it has been dialled again with success, which is tried at
 * a fixed interval; others are picked as DNS demands of SRV records (RFC 2782): by priority, within one by weight, and in
 * turn where there are no weights.
 *
 * As soon as either side of a connection has said its last word, both are closed.
 */
import net from "node:net";
import type { Clock } from "../lib/clock.ts";
import { dialErrorText } from "../lib/go-errors.ts";
import { goDuration } from "../lib/go-format.ts";
import type { Logger } from "../lib/log.ts";
import type { Random } from "../lib/random.ts";

/** Where to, with the preferences of an SRV record. */
export interface Target {
  readonly host: string;
  readonly port: number;
  /** The lowest is tried first. */
  readonly priority: number;
  /** 0: no weight. */
  readonly weight: number;
}

/** etcd's interval where none is given. */
const MONITOR_INTERVAL_DEFAULT_MS = 5 * 60 * 1000;
const PRIORITY_MAX = 65_535;

interface Remote {
  readonly target: Target;
  /** `host:port` */
  readonly address: string;
  isActive: boolean;
}

export interface TcpProxyOptions {
  readonly targets: readonly Target[];
  /** How long a member that failed is left alone; 0 stands for etcd's five minutes. */
  readonly monitorIntervalMs: number;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
}

export class TcpProxy {
  readonly #options: TcpProxyOptions;
  readonly #intervalMs: number;
  readonly #remotes: readonly Remote[];
  /** How many picks were made in turn. */
  #picks = 0;
  readonly #sockets = new Set<net.Socket>();
  readonly #stop = new AbortController();

  constructor(options: TcpProxyOptions) {
    this.#options = options;
    this.#intervalMs = options.monitorIntervalMs > 0 ? options.monitorIntervalMs : MONITOR_INTERVAL_DEFAULT_MS;
    this.#remotes = options.targets.map((target) => ({
      target,
      address: `${target.host}:${target.port}`,
      isActive: true,
    }));
  }

  /** Serves what comes to a listening server until {@link stop}. */
  serve(listener: net.Server): void {
    this.#options.logger.info("ready to proxy client requests", {
      endpoints: this.#remotes.map(({ address }) => address),
    });
    listener.on("connection", (socket: net.Socket) => {
      void this.#forward(socket);
    });
    void this.#monitor();
  }

  /** Cuts every connection and ends all attempts. The listener is its owner's. */
  stop(): void {
    this.#stop.abort();
    for (const socket of this.#sockets) socket.destroy();
  }

  /** The member that gets the next connection; `undefined` when none is active. */
  pick(): Target | undefined {
    return this.#pick()?.target;
  }

  #pick(): Remote | undefined {
    const active = this.#remotes.filter(({ isActive }) => isActive);
    const best = active.reduce((least, { target }) => Math.min(least, target.priority), PRIORITY_MAX);
    const preferred = active.filter(({ target }) => target.priority === best);
    const weighted = preferred.filter(({ target }) => target.weight > 0);
    const others = preferred.filter(({ target }) => target.weight === 0);
    if (weighted.length > 0) {
      const { random } = this.#options;
      // Beside those with a weight, one without gets a very small share.
      if (others.length > 0 && random.below(100) === 1) return others[this.#picks++ % others.length];
      let choice = random.below(weighted.reduce((sum, { target }) => sum + target.weight, 0));
      for (const remote of weighted) {
        choice -= remote.target.weight;
        if (choice < 0) return remote;
      }
    }
    if (others.length === 0) return undefined;
    for (;;) {
      const remote = this.#remotes[this.#picks++ % this.#remotes.length] as Remote;
      if (others.includes(remote)) return remote;
    }
  }

  async #forward(incoming: net.Socket): Promise<void> {
    this.#keep(incoming);
    let outgoing: net.Socket | undefined;
    while (!outgoing && !incoming.destroyed && !this.#stop.signal.aborted) {
      const remote = this.#pick();
      if (!remote) break;
      try {
        outgoing = await this.#dial(remote);
      } catch (error) {
        remote.isActive = false;
        this.#options.logger.warn("deactivated endpoint", { ...this.#fieldsOf(remote), error: dialErrorText(error) });
      }
    }
    if (!outgoing || incoming.destroyed) {
      incoming.destroy();
      outgoing?.destroy();
      return;
    }
    join(incoming, outgoing);
    join(outgoing, incoming);
  }

  #keep(socket: net.Socket): void {
    this.#sockets.add(socket);
    socket.setNoDelay(true);
    socket.on("error", () => {});
    socket.once("close", () => this.#sockets.delete(socket));
  }

  #dial({ target }: Remote): Promise<net.Socket> {
    return new Promise((resolve, reject) => {
      const socket = net.connect({ host: target.host, port: target.port, allowHalfOpen: true });
      this.#keep(socket);
      socket.once("error", reject);
      // Cut by stop() before there was a connection.
      socket.once("close", () => reject(new Error("closed")));
      socket.once("connect", () => resolve(socket));
    });
  }

  async #monitor(): Promise<void> {
    const { clock } = this.#options;
    for await (const _tick of clock.every(this.#intervalMs, this.#stop.signal)) {
      await Promise.all(this.#remotes.filter(({ isActive }) => !isActive).map((remote) => this.#revive(remote)));
    }
  }

  async #revive(remote: Remote): Promise<void> {
    const { logger } = this.#options;
    try {
      (await this.#dial(remote)).destroy();
      remote.isActive = true;
      logger.info("activated", { address: remote.address });
    } catch (error) {
      if (this.#stop.signal.aborted) return;
      logger.warn("failed to activate endpoint (stay inactive for another interval)", {
        ...this.#fieldsOf(remote),
        error: dialErrorText(error),
      });
    }
  }

  #fieldsOf({ address }: Remote): { readonly address: string; readonly interval: string } {
    return { address, interval: goDuration(this.#intervalMs) };
  }
}

/** What comes from one side goes to the other, as quickly as that one takes it; the end of either is the end of both. */
function join(from: net.Socket, to: net.Socket): void {
  from.pipe(to, { end: false });
  from.once("end", () => {
    to.end();
    to.once("finish", () => to.destroy());
    from.destroySoon();
  });
  from.once("close", () => to.destroySoon());
}
