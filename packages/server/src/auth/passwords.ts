/**
 * Passwords: bcrypt, away from the thread that serves. Threads are started when they are needed, and end with the
 * member. Go writes `$2a$` in front of its hashes, so these have it too.
 */
import { createHash } from "node:crypto";
import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import { EtcdError } from "@etcd-ts/client/wire";
import bcrypt from "bcryptjs";
import { assert } from "../lib/assert.ts";
import { utf8Bytes } from "../lib/bytes.ts";
import type { Random } from "../lib/random.ts";
import { workerFile } from "../lib/worker-file.ts";
import { PASSWORD_BYTES_MAX, PASSWORD_JOBS_MAX, PASSWORD_THREADS_MAX } from "./limits.ts";

const SALT_BYTES = 16;

export type PasswordJob =
  | { readonly kind: "hash"; readonly password: string; readonly salt: string }
  | { readonly kind: "compare"; readonly password: string; readonly hash: string };

/** The hash; or whether the password fits. */
export type PasswordResult = string | boolean;

export interface Passwords {
  /** The bcrypt text. Rejects with PasswordTooLong. */
  hash(password: string): Promise<string>;
  /** Whether the password fits a stored text; false when that is none of bcrypt's. */
  compare(password: string, hash: string): Promise<boolean>;
  stop(): Promise<void>;
}

export interface PasswordsOptions {
  readonly cost: number;
  readonly random: Random;
  /** `"inline"`: on the calling thread, for tests and tools where nothing else waits. */
  readonly threads: "worker" | "inline";
}

function saltText(cost: number, bytes: Uint8Array): string {
  return `$2a$${String(cost).padStart(2, "0")}$${bcrypt.encodeBase64(bytes, SALT_BYTES)}`;
}

function newSalt({ cost, random }: PasswordsOptions): string {
  const bytes = Buffer.allocUnsafe(SALT_BYTES);
  bytes.writeBigUInt64LE(random.bits64(), 0);
  bytes.writeBigUInt64LE(random.bits64(), 8);
  return saltText(cost, bytes);
}

function checkLength(password: string): void {
  if (Buffer.byteLength(password) > PASSWORD_BYTES_MAX) throw new EtcdError("PasswordTooLong");
}

/**
 * The bcrypt text for a password that stands in the log in clear, where servers before 3.5 put it. Apply must be a
 * function of the entry, so the salt is one too.
 */
export function hashOldPassword(entry: {
  readonly password: string;
  readonly cost: number;
  readonly seed: string;
}): Uint8Array {
  if (Buffer.byteLength(entry.password) > PASSWORD_BYTES_MAX) throw new EtcdError("NoPasswordUser");
  const salt = createHash("sha256").update(entry.seed).digest().subarray(0, SALT_BYTES);
  return utf8Bytes(bcrypt.hashSync(entry.password, saltText(entry.cost, salt)));
}

export function openPasswords(options: PasswordsOptions): Passwords {
  return options.threads === "worker" ? new WorkerPasswords(options) : inlinePasswords(options);
}

function inlinePasswords(options: PasswordsOptions): Passwords {
  return {
    async hash(password) {
      checkLength(password);
      return bcrypt.hashSync(password, newSalt(options));
    },
    async compare(password, hash) {
      try {
        return bcrypt.compareSync(password, hash);
      } catch {
        return false;
      }
    },
    stop: () => Promise.resolve(),
  };
}

interface Waiting {
  readonly job: PasswordJob;
  resolve(result: PasswordResult): void;
  reject(error: Error): void;
}

class WorkerPasswords implements Passwords {
  readonly #options: PasswordsOptions;
  readonly #threadsMax = Math.max(1, Math.min(PASSWORD_THREADS_MAX, availableParallelism() - 1));
  readonly #threads = new Set<Worker>();
  readonly #idle: Worker[] = [];
  readonly #running = new Map<Worker, Waiting>();
  readonly #queue: Waiting[] = [];
  #nextId = 1;
  #isStopped = false;

  constructor(options: PasswordsOptions) {
    this.#options = options;
  }

  async hash(password: string): Promise<string> {
    checkLength(password);
    const hash = await this.#run({ kind: "hash", password, salt: newSalt(this.#options) });
    assert(typeof hash === "string", "the password thread could not hash");
    return hash;
  }

  async compare(password: string, hash: string): Promise<boolean> {
    return (await this.#run({ kind: "compare", password, hash })) === true;
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    for (const { reject } of this.#queue.splice(0)) reject(new EtcdError("Stopped"));
    await Promise.all([...this.#threads].map((thread) => thread.terminate()));
  }

  #run(job: PasswordJob): Promise<PasswordResult> {
    if (this.#isStopped) return Promise.reject(new EtcdError("Stopped"));
    if (this.#queue.length >= PASSWORD_JOBS_MAX) return Promise.reject(new EtcdError("TooManyRequests"));
    return new Promise((resolve, reject) => {
      this.#queue.push({ job, resolve, reject });
      this.#next();
    });
  }

  #next(): void {
    const [waiting] = this.#queue;
    if (!waiting) return;
    const thread = this.#idle.pop() ?? (this.#threads.size < this.#threadsMax ? this.#start() : undefined);
    if (!thread) return;
    this.#queue.shift();
    this.#running.set(thread, waiting);
    thread.postMessage({ id: this.#nextId++, job: waiting.job });
  }

  #start(): Worker {
    const thread = new Worker(workerFile("bcrypt-worker"), { name: "bcrypt" });
    thread.unref();
    this.#threads.add(thread);
    thread.on("message", ({ result }: { result: PasswordResult }) => {
      const waiting = this.#running.get(thread);
      this.#running.delete(thread);
      this.#idle.push(thread);
      waiting?.resolve(result);
      this.#next();
    });
    thread.once("error", (error) => this.#ended(thread, error instanceof Error ? error : new Error(String(error))));
    thread.once("exit", () => this.#ended(thread, new EtcdError("Stopped")));
    return thread;
  }

  #ended(thread: Worker, error: Error): void {
    this.#threads.delete(thread);
    const waiting = this.#running.get(thread);
    this.#running.delete(thread);
    const at = this.#idle.indexOf(thread);
    if (at >= 0) this.#idle.splice(at, 1);
    waiting?.reject(error);
    if (!this.#isStopped) this.#next();
  }
}
