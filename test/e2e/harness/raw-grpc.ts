/** gRPC calls over node:http2, for tests that need to say or leave out what a client library would not. */
import { once } from "node:events";
import http2 from "node:http2";

export interface RawAnswer {
  readonly status: number;
  readonly message: string;
  readonly messages: readonly Buffer[];
}

export function framed(message: Uint8Array): Buffer {
  const prefix = Buffer.alloc(5);
  prefix.writeUInt32BE(message.length, 1);
  return Buffer.concat([prefix, message]);
}

/** The whole messages in `bytes`; a part of one at the end is left out. */
export function unframed(bytes: Buffer): Buffer[] {
  const messages: Buffer[] = [];
  let at = 0;
  while (bytes.length - at >= 5) {
    const end = at + 5 + bytes.readUInt32BE(at + 1);
    if (end > bytes.length) break;
    messages.push(bytes.subarray(at + 5, end));
    at = end;
  }
  return messages;
}

export async function connect(url: string, options: http2.SecureClientSessionOptions = {}) {
  const session = http2.connect(url, options);
  session.on("error", () => {});
  await once(session, "connect");
  return session;
}

/** One request message, all that is answered, and how it ended. */
export async function call(
  session: http2.ClientHttp2Session,
  path: string,
  message: Uint8Array,
  headers: Readonly<Record<string, string>> = {},
): Promise<RawAnswer> {
  const stream = session.request({
    ":method": "POST",
    ":path": path,
    "content-type": "application/grpc",
    te: "trailers",
    ...headers,
  });
  const pieces: Buffer[] = [];
  let last: http2.IncomingHttpHeaders = {};
  stream.on("response", (head) => {
    last = head;
  });
  stream.on("trailers", (trailers) => {
    last = trailers;
  });
  stream.on("data", (piece: Buffer) => pieces.push(piece));
  stream.end(framed(message));
  await once(stream, "close");
  return {
    status: Number(last["grpc-status"] ?? -1),
    message: decodeURIComponent(String(last["grpc-message"] ?? "")),
    messages: unframed(Buffer.concat(pieces)),
  };
}
