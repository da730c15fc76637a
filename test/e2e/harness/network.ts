/**
 * The network between members, as a set of TCP proxies: each member advertises the port of its proxy, so every byte
 * from one member to another passes here, and each direction of each pair can be cut or delayed.
 *
 * ```
 *   a --dials--> proxy of b --> b        a's requests go a -> b, b's answers (and b's streams to a!) go b -> a
 *   b --dials--> proxy of a --> a
 * ```
 *
 * Who dialled is read from the first request, whose `X-Server-From` names the member; what does not say (probes, the
 * questions of one that joins) counts as coming from nobody, and is held up only where a member is cut off altogether.
 */
import { once } from "node:events";
import net from "node:net";

/**
 * - `hold`: bytes stay where they are, as packets that are lost and sent again until the link is back;
 * - `reset`: connections are torn down and new ones refused.
 */
export type CutKind = "hold" | "reset";

interface Link {
  cut: CutKind | undefined;
  delayMs: number;
}

/** Bytes of a direction that may wait here; behind it the sender's own buffers fill up. */
const HELD_BYTES_MAX = 256 * 1024;
const HEAD_BYTES_MAX = 64 * 1024;

/** One direction of one connection. */
class Flow {
  readonly #source: net.Socket;
  readonly #sink: net.Socket;
  readonly #link: () => Link;
  readonly #waiting: { readonly bytes: Buffer; readonly dueMs: number }[] = [];
  #held = 0;
  #timer: NodeJS.Timeout | undefined;
  #isEnded = false;

  constructor(source: net.Socket, sink: net.Socket, link: () => Link) {
    this.#source = source;
    this.#sink = sink;
    this.#link = link;
    sink.on("drain", () => this.pump());
    source.on("end", () => {
      this.#isEnded = true;
      this.pump();
    });
  }

  push(bytes: Buffer): void {
    this.#waiting.push({ bytes, dueMs: Date.now() + this.#link().delayMs });
    this.#held += bytes.length;
    if (this.#held >= HELD_BYTES_MAX) this.#source.pause();
    this.pump();
  }

  pump(): void {
    if (this.#sink.destroyed || this.#link().cut) return;
    for (let next = this.#waiting[0]; next; next = this.#waiting[0]) {
      const leftMs = next.dueMs - Date.now();
      if (leftMs > 0) {
        clearTimeout(this.#timer);
        this.#timer = setTimeout(() => this.pump(), leftMs);
        return;
      }
      this.#waiting.shift();
      this.#held -= next.bytes.length;
      if (!this.#sink.write(next.bytes)) return;
    }
    if (this.#isEnded) this.#sink.end();
    else if (this.#source.isPaused()) this.#source.resume();
  }

  close(): void {
    clearTimeout(this.#timer);
  }
}

interface Connection {
  from: string | undefined;
  readonly to: string;
  readonly flows: readonly Flow[];
  destroy(): void;
}

export class Network {
  readonly #links = new Map<string, Link>();
  /** Member ids, in hexadecimal, and the names that links go by. */
  readonly #names = new Map<string, string>();
  readonly #connections = new Set<Connection>();
  readonly #servers: net.Server[] = [];

  /** Makes a member known, so that its links can be told apart. */
  name(memberId: bigint, name: string): void {
    this.#names.set(memberId.toString(16), name);
  }

  /** Opens `port` as the way to member `to`, which listens on `target`. */
  async listen(to: string, port: number, target: number): Promise<void> {
    const server = net.createServer((client) => this.#accept(client, to, target));
    server.listen(port, "127.0.0.1");
    await once(server, "listening");
    this.#servers.push(server);
  }

  #link(from: string | undefined, to: string | undefined): Link {
    const key = `${from ?? "?"}>${to ?? "?"}`;
    let link = this.#links.get(key);
    if (!link) {
      link = { cut: undefined, delayMs: 0 };
      this.#links.set(key, link);
    }
    return link;
  }

  #accept(client: net.Socket, to: string, target: number): void {
    const server = net.connect(target, "127.0.0.1");
    const there = new Flow(client, server, () => this.#link(connection.from, to));
    const back = new Flow(server, client, () => this.#link(to, connection.from));
    const connection: Connection = {
      from: undefined,
      to,
      flows: [there, back],
      destroy: () => {
        client.destroy();
        server.destroy();
      },
    };
    this.#connections.add(connection);
    let head: Buffer | undefined = Buffer.alloc(0);
    client.on("data", (bytes: Buffer) => {
      if (head === undefined) {
        there.push(bytes);
        return;
      }
      head = Buffer.concat([head, bytes]);
      if (head.indexOf("\r\n\r\n") < 0 && head.length < HEAD_BYTES_MAX) return;
      const id = /\r\nx-server-from: *([0-9a-f]+)/i.exec(head.toString("latin1"))?.[1];
      connection.from = id === undefined ? undefined : this.#names.get(id);
      const first = head;
      head = undefined;
      if (this.#isReset(connection)) connection.destroy();
      else there.push(first);
    });
    server.on("data", (bytes: Buffer) => back.push(bytes));
    const end = () => {
      connection.destroy();
      for (const flow of connection.flows) flow.close();
      this.#connections.delete(connection);
    };
    for (const socket of [client, server]) {
      socket.setNoDelay(true);
      socket.on("error", end);
      socket.on("close", end);
    }
  }

  #isReset({ from, to }: Connection): boolean {
    return this.#link(from, to).cut === "reset" || this.#link(to, from).cut === "reset";
  }

  #changed(): void {
    for (const connection of [...this.#connections]) {
      if (this.#isReset(connection)) connection.destroy();
      else for (const flow of connection.flows) flow.pump();
    }
  }

  /** What `from` sends no longer reaches `to`; the other direction goes on. */
  cut(from: string, to: string, kind: CutKind): void {
    this.#link(from, to).cut = kind;
    this.#changed();
  }

  /** Nothing from or to this member gets through, whoever asks. */
  isolate(name: string, others: readonly string[], kind: CutKind): void {
    for (const other of [...others.filter((one) => one !== name), undefined]) {
      this.#link(name, other).cut = kind;
      this.#link(other, name).cut = kind;
    }
    this.#changed();
  }

  /** From now on bytes from `from` to `to` arrive this much later. */
  delay(from: string, to: string, delayMs: number): void {
    this.#link(from, to).delayMs = delayMs;
  }

  /** All links as they should be. */
  heal(): void {
    this.#links.clear();
    this.#changed();
  }

  close(): void {
    for (const server of this.#servers) server.close();
    for (const connection of [...this.#connections]) connection.destroy();
  }
}
