/**
 * Real processes for the end-to-end tests: our programs from bin/, or the real ones from ETCD_REAL_BIN.
 * Everything listens on 127.0.0.1 and free ports, lives in a temporary folder, and is ended by its pid.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import http from "node:http";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

export const repoRoot = path.dirname(path.dirname(path.dirname(path.dirname(fileURLToPath(import.meta.url)))));
/** The programs under test; ETCD_TEST_BIN names another folder, for instance the real ones to check a test itself. */
export const ourBin = process.env["ETCD_TEST_BIN"] ?? path.join(repoRoot, "bin");

/** The server under test speaks through its reference transport, which does not do all that its own does. */
export const isOnReferenceTransport = path.basename(ourBin) === "bin-grpc-js";
/** A folder with the real etcd, etcdctl and etcdutl, for the tests that compare; undefined where there is none. */
export const realBin = process.env["ETCD_REAL_BIN"];
/** The folder with facts, recordings and fixtures beside the checkout; undefined where there is none. */
export const sharedFolder = ((folder) => (fs.existsSync(folder) ? folder : undefined))(
  path.join(path.dirname(repoRoot), "shared"),
);

export type Program = "etcd" | "etcdctl" | "etcdutl";

/** How long a condition may take on a busy machine before the test gives up. */
export const WAIT_LIMIT_MS = 120_000;

export function temporaryFolder(name: string): { path: string; [Symbol.dispose](): void } {
  const folder = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), `etcd-ts-${name}-`)));
  return {
    path: folder,
    [Symbol.dispose]: () => fs.rmSync(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 }),
  };
}

/** A port that was free a moment ago. Bound and closed again, so it is ours unless another process is unlucky too. */
export async function freePort(): Promise<number> {
  const server = net.createServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as net.AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}

/** Asks again until `condition` answers something other than undefined or false; throws after the limit. */
export async function until<T>(
  what: string,
  condition: () => Promise<T | undefined | false> | T | undefined | false,
  limitMs = WAIT_LIMIT_MS,
): Promise<T> {
  const deadline = Date.now() + limitMs;
  let last: unknown;
  for (;;) {
    try {
      const value = await condition();
      if (value !== undefined && value !== false) return value;
    } catch (error) {
      last = error;
    }
    if (Date.now() > deadline) throw new Error(`gave up waiting: ${what}`, { cause: last });
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

function cleanEnvironment(extra: Record<string, string>): NodeJS.ProcessEnv {
  const kept = Object.entries(process.env).filter(([name]) => !/^ETCD/.test(name));
  return { ...Object.fromEntries(kept), ...extra };
}

export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program to its end. Never throws for an exit code. */
export async function run(
  program: Program,
  args: readonly string[],
  options: { bin?: string; cwd?: string; stdin?: string | Uint8Array; env?: Record<string, string> } = {},
): Promise<Ended> {
  const child = spawn(path.join(options.bin ?? ourBin, program), args, {
    cwd: options.cwd ?? os.tmpdir(),
    env: cleanEnvironment(options.env ?? {}),
    stdio: "pipe",
  });
  const out: Buffer[] = [];
  const err: Buffer[] = [];
  child.stdout.on("data", (chunk: Buffer) => out.push(chunk));
  child.stderr.on("data", (chunk: Buffer) => err.push(chunk));
  // A program that ends without reading its input closes the pipe under us; that is its right.
  child.stdin.on("error", () => {});
  child.stdin.end(options.stdin ?? "");
  const [code, signal] = (await once(child, "close")) as [number | null, NodeJS.Signals | null];
  return { code, signal, stdout: Buffer.concat(out).toString(), stderr: Buffer.concat(err).toString() };
}

/** Runs a program that must succeed, and gives what it printed on standard output. */
export async function must(program: Program, args: readonly string[], options: Parameters<typeof run>[2] = {}) {
  const ended = await run(program, args, options);
  if (ended.code !== 0) {
    throw new Error(
      `${program} ${args.join(" ").slice(0, 300)} ended with ${ended.code ?? ended.signal}: ${ended.stderr || ended.stdout}`,
    );
  }
  return ended.stdout;
}

export interface MemberOptions {
  readonly dataDir: string;
  readonly bin?: string;
  readonly name?: string;
  readonly clientPort?: number;
  readonly peerPort?: number;
  readonly flags?: readonly string[];
  readonly env?: Record<string, string>;
}

/** Servers that still run: a test that is cut off by its time limit never comes to end them. */
const running = new Set<ChildProcess>();
process.on("exit", () => {
  for (const child of running) child.kill("SIGKILL");
});

/** One running server process. */
export class Member implements AsyncDisposable {
  readonly endpoint: string;
  readonly clientUrl: string;
  readonly peerUrl: string;
  readonly dataDir: string;
  readonly process: ChildProcess;
  readonly #ended: Promise<void>;
  #log = "";

  private constructor(options: MemberOptions, clientPort: number, peerPort: number) {
    this.endpoint = `127.0.0.1:${clientPort}`;
    this.clientUrl = `http://${this.endpoint}`;
    this.peerUrl = `http://127.0.0.1:${peerPort}`;
    this.dataDir = options.dataDir;
    const name = options.name ?? "default";
    this.process = spawn(
      path.join(options.bin ?? ourBin, "etcd"),
      [
        ...["--name", name, "--data-dir", options.dataDir],
        ...["--listen-client-urls", this.clientUrl, "--advertise-client-urls", this.clientUrl],
        ...["--listen-peer-urls", this.peerUrl],
        ...(options.flags ?? []),
      ],
      {
        env: cleanEnvironment(options.env ?? {}),
        stdio: ["ignore", "pipe", "pipe"],
        cwd: path.dirname(options.dataDir),
      },
    );
    const keep = (chunk: Buffer) => {
      this.#log = (this.#log + chunk.toString()).slice(-1_000_000);
    };
    this.process.stdout?.on("data", keep);
    this.process.stderr?.on("data", keep);
    running.add(this.process);
    this.#ended = new Promise((resolve) => {
      this.process.once("close", () => {
        running.delete(this.process);
        resolve();
      });
      this.process.once("error", (error) => {
        this.#log += `${error}\n`;
        resolve();
      });
    });
  }

  /** Starts the server and returns at once. */
  static async launch(options: MemberOptions): Promise<Member> {
    return new Member(options, options.clientPort ?? (await freePort()), options.peerPort ?? (await freePort()));
  }

  /** Starts the server and waits until it answers a linearizable read. */
  static async start(options: MemberOptions): Promise<Member> {
    const member = await Member.launch(options);
    try {
      await member.ready();
      return member;
    } catch (error) {
      await member.kill();
      throw error;
    }
  }

  /** What the server wrote so far (the last megabyte). */
  get log(): string {
    return this.#log;
  }

  get isRunning(): boolean {
    return this.process.exitCode === null && this.process.signalCode === null && this.process.pid !== undefined;
  }

  async ready(): Promise<void> {
    await until(`server on ${this.endpoint} is healthy`, async () => {
      if (!this.isRunning) return true;
      return (await httpGet(`${this.clientUrl}/health?exclude=NOSPACE`)).includes('"health":"true"');
    });
    if (!this.isRunning) throw new Error(`the server ended early:\n${this.#log.slice(-3000)}`);
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    if (this.isRunning) this.process.kill(signal);
    await this.#ended;
  }

  /** `kill -9`, and waits until the process is gone. */
  kill(): Promise<void> {
    return this.#end("SIGKILL");
  }

  /** SIGTERM, and waits for the end. */
  stop(): Promise<void> {
    return this.#end("SIGTERM");
  }

  /** Waits until the process ends by itself. */
  ended(): Promise<void> {
    return this.#ended;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }
}

export function httpGet(url: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const request = http.get(url, { timeout: 2_000 }, (response) => {
      let body = "";
      response.setEncoding("utf8");
      response.on("data", (chunk: string) => {
        body += chunk;
      });
      response.on("end", () => resolve(body));
      response.on("error", reject);
    });
    request.on("timeout", () => request.destroy(new Error("no answer")));
    request.on("error", reject);
  });
}

/** The value of `etcdctl endpoint hashkv` at the current revision. */
export async function hashKv(member: Member, bin = ourBin): Promise<number> {
  const text = await must("etcdctl", ["--endpoints", member.endpoint, "endpoint", "hashkv", "-w", "json"], { bin });
  const parsed = JSON.parse(text) as { HashKV: { hash: number } }[];
  return parsed[0]?.HashKV.hash ?? Number.NaN;
}
