/** Requests to peers over node:http, over plain connections, TLS or unix sockets. */
import http from "node:http";
import https from "node:https";

/** How to speak TLS on the next connection to a peer: certificates may have changed. Throws when they cannot be read. */
export type PeerTls = () => Pick<
  https.RequestOptions,
  | "ca"
  | "cert"
  | "key"
  | "rejectUnauthorized"
  | "servername"
  | "ciphers"
  | "minVersion"
  | "maxVersion"
  | "checkServerIdentity"
>;

export interface PeerRequest {
  /** Base URL of the peer; its own path is replaced. */
  readonly url: string;
  readonly path: string;
  readonly method: "GET" | "POST";
  readonly headers: Readonly<Record<string, string>>;
  /** Gives up when there is no connection after so long. */
  readonly dialTimeoutMs: number;
  /** Gives up when nothing moves on the connection for so long. */
  readonly idleTimeoutMs: number;
  readonly signal?: AbortSignal | undefined;
  /** Connections to reuse; without one each request gets its own. */
  readonly agent?: http.Agent | undefined;
}

export interface PeerResponse {
  readonly status: number;
  readonly headers: http.IncomingHttpHeaders;
  readonly body: Buffer;
}

/** The peer could not be asked, or its answer broke off. */
export class PeerRequestError extends Error {
  override readonly name = "PeerRequestError";
}

/**
 * Starts a request; the caller writes the body, if any, and ends it. Errors come as events of the request. Throws when
 * there are no certificates to start it with.
 */
export function startRequest(request: PeerRequest, tls: PeerTls | undefined): http.ClientRequest {
  const url = new URL(request.url);
  const isTls = url.protocol === "https:" || url.protocol === "unixs:";
  const isUnix = url.protocol === "unix:" || url.protocol === "unixs:";
  const target: http.RequestOptions = isUnix
    ? {
        socketPath: url.host + (url.pathname === "/" ? "" : url.pathname),
        headers: { Host: url.host, ...request.headers },
      }
    : {
        hostname: url.hostname.replace(/^\[|\]$/g, ""),
        port: url.port || (isTls ? 443 : 80),
        headers: { ...request.headers },
      };
  const options: https.RequestOptions = {
    ...target,
    ...(isTls ? tls?.() : {}),
    path: request.path,
    method: request.method,
    timeout: request.dialTimeoutMs,
    agent: request.agent ?? false,
    ...(request.signal ? { signal: request.signal } : {}),
  };
  const started = isTls ? https.request(options) : http.request(options);
  started.setNoDelay(true);
  started.on("timeout", () => started.destroy(new PeerRequestError("i/o timeout")));
  started.once("socket", (socket) => {
    const connected = () => socket.setTimeout(request.idleTimeoutMs);
    if (socket.connecting) socket.once(isTls ? "secureConnect" : "connect", connected);
    else connected();
  });
  return started;
}

/** Writes a piece of the body; resolves when the system has taken it, so that its memory may be used again. */
export function writeBody(request: http.ClientRequest, bytes: Uint8Array): Promise<void> {
  return new Promise((resolve, reject) => {
    const onClose = () => reject(request.errored ?? new PeerRequestError("connection closed while writing"));
    request.once("close", onClose);
    request.write(bytes, (error) => {
      request.off("close", onClose);
      if (error) reject(error);
      else resolve();
    });
  });
}

/** Waits for the head of the answer. */
export function responseOf(request: http.ClientRequest): Promise<http.IncomingMessage> {
  return new Promise((resolve, reject) => {
    request.once("response", resolve);
    request.on("error", reject);
    request.once("close", () => reject(new PeerRequestError("connection closed before the answer")));
  });
}

/** The whole body, up to `bytesMax`. */
export async function readBody(stream: AsyncIterable<Buffer>, bytesMax: number): Promise<Buffer> {
  const pieces: Buffer[] = [];
  let size = 0;
  for await (const piece of stream) {
    size += piece.length;
    if (size > bytesMax) throw new PeerRequestError(`body of more than ${bytesMax} bytes`);
    pieces.push(piece);
  }
  return pieces.length === 1 ? (pieces[0] as Buffer) : Buffer.concat(pieces);
}

/** Rejects when there is no whole answer; any status is an answer. */
export async function request(
  options: PeerRequest & { readonly body?: Uint8Array | undefined; readonly bytesMax: number },
  tls: PeerTls | undefined,
): Promise<PeerResponse> {
  const { body } = options;
  const headers = body ? { ...options.headers, "Content-Length": String(body.length) } : options.headers;
  for (let attempt = 0; ; attempt++) {
    const started = startRequest({ ...options, headers }, tls);
    started.end(body);
    try {
      const response = await responseOf(started);
      return {
        status: response.statusCode ?? 0,
        headers: response.headers,
        body: await readBody(response, options.bytesMax),
      };
    } catch (error) {
      // The peer closes connections that were idle; the one that was reused may be closing just now.
      const isStale = started.reusedSocket && (error as NodeJS.ErrnoException).code === "ECONNRESET";
      if (!isStale || attempt > 0 || options.signal?.aborted) throw error;
    } finally {
      if (!started.destroyed && !started.reusedSocket && options.agent === undefined) started.destroy();
    }
  }
}
