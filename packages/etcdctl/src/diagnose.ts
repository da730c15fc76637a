// Why does an endpoint not answer? Goes the way a call goes, step by step (name, TCP, TLS, etcd itself), and names the
// first that fails, with what to try next.
import dns from "node:dns/promises";
import net from "node:net";
import tls from "node:tls";
import type { TlsOptions } from "@etcd-ts/client";

export type Step = "dns" | "tcp" | "tls" | "no leader" | "time-out";

export interface Finding {
  readonly endpoint: string;
  readonly step: Step;
  readonly problem: string;
  readonly advice: string;
}

const STEP_TIMEOUT_MS = 1_000;

export interface DiagnoseOptions {
  readonly tls: TlsOptions | undefined;
  /** Asks the member itself; resolves with whether it knows a leader. */
  readonly hasLeader: (endpoint: string) => Promise<boolean>;
}

/** The first step that fails for an endpoint; undefined when all is well now. */
export async function diagnose(endpoint: string, options: DiagnoseOptions): Promise<Finding | undefined> {
  const found = (step: Step, problem: string, advice: string): Finding => ({ endpoint, step, problem, advice });
  const [, scheme = "", rest = endpoint] = /^([a-z]+):\/\/(.*)$/.exec(endpoint) ?? [];
  const isUnix = scheme.startsWith("unix");
  const isTls = scheme === "https" || scheme === "unixs" || (options.tls !== undefined && scheme !== "http");
  const { host, port } = splitHost(rest);
  if (!isUnix && net.isIP(host) === 0) {
    try {
      await dns.lookup(host);
    } catch (error) {
      return found("dns", `${host}: ${reason(error)}`, "check the name in --endpoints, or give the address");
    }
  }
  const where: net.NetConnectOpts = isUnix ? { path: rest } : { host, port };
  let socket: net.Socket;
  try {
    socket = await opened(net.connect(where), "connect");
  } catch (error) {
    return found("tcp", reason(error), tcpAdvice(error));
  }
  try {
    if (isTls) {
      const secure = tls.connect({
        socket,
        ALPNProtocols: ["h2"],
        rejectUnauthorized: options.tls?.skipVerify !== true,
        ...(net.isIP(host) === 0 ? { servername: options.tls?.serverName ?? host } : {}),
        ...(options.tls?.ca ? { ca: Buffer.from(options.tls.ca) } : {}),
        ...(options.tls?.cert ? { cert: Buffer.from(options.tls.cert) } : {}),
        ...(options.tls?.key ? { key: Buffer.from(options.tls.key) } : {}),
      });
      try {
        await opened(secure, "secureConnect");
      } catch (error) {
        return found("tls", reason(error), tlsAdvice(error));
      }
    } else if (await speaksTlsOnly(socket)) {
      return found("tls", "the connection was closed at once", "if the server wants TLS: https:// and --cacert");
    }
  } finally {
    socket.destroy();
  }
  try {
    if (await options.hasLeader(endpoint)) return undefined;
    return found(
      "no leader",
      "the member answers but knows no leader",
      "see `etcdctl endpoint status --cluster -w table`: more than half of the members must be up",
    );
  } catch {
    return found(
      "time-out",
      "the port is open but etcd does not answer",
      "is it etcd's client port? see the server's log",
    );
  }
}

function splitHost(text: string): { host: string; port: number } {
  const [, bracketed, plain, port = "2379"] = /^(?:\[([^\]]*)\]|([^:/]*))(?::(\d+))?/.exec(text) ?? [];
  return { host: bracketed ?? plain ?? text, port: Math.min(Number(port), 65535) };
}

function opened<T extends net.Socket>(socket: T, event: string): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => socket.destroy(new Error("no answer")), STEP_TIMEOUT_MS);
    socket.once("error", (error) => {
      clearTimeout(timer);
      reject(error);
    });
    socket.once(event, () => {
      clearTimeout(timer);
      socket.on("error", () => {});
      resolve(socket);
    });
  });
}

/** A TLS server hangs up on HTTP/2's plain opening; a plain one answers with its settings. */
function speaksTlsOnly(socket: net.Socket): Promise<boolean> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve(false), STEP_TIMEOUT_MS);
    const finish = (isClosed: boolean): void => {
      clearTimeout(timer);
      resolve(isClosed);
    };
    socket.once("data", (data: Buffer) => finish(data[0] === 0x15));
    socket.once("close", () => finish(true));
    const EMPTY_SETTINGS = Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    socket.write(Buffer.concat([Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), EMPTY_SETTINGS]));
  });
}

function reason(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  switch (code) {
    case "ENOTFOUND":
      return "no such host";
    case "EAI_AGAIN":
      return "the name server does not answer";
    case "ECONNREFUSED":
      return "connection refused";
    case "ECONNRESET":
      return "connection reset";
    case "EHOSTUNREACH":
    case "ENETUNREACH":
      return "no route";
    case "ENOENT":
      return "no such socket";
    default:
      return message;
  }
}

function tcpAdvice(error: unknown): string {
  const { code } = error as NodeJS.ErrnoException;
  return code === "ECONNREFUSED" || code === "ENOENT"
    ? "is etcd running there? does --listen-client-urls name this address?"
    : "check the address, and firewalls on the way";
}

function tlsAdvice(error: unknown): string {
  const { code = "", message } = error as NodeJS.ErrnoException;
  if (/WRONG_VERSION|wrong version number/i.test(code + message))
    return "the server speaks plain text: http://, and no TLS files";
  if (/CERT_HAS_EXPIRED|expired/i.test(code + message)) return "the certificate has expired";
  if (/ALTNAME/i.test(code)) return "the certificate is for another name: use one of its names in --endpoints";
  if (/SELF_SIGNED|UNABLE_TO|VERIFY/i.test(code)) return "give the authority that signed it: --cacert";
  return "the server may want a client certificate: --cert and --key";
}
