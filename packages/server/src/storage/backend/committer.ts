/**
 * Who makes a frozen layer durable: a worker thread that owns the writer, or, for tools and tests, the caller's thread.
 * Layers are committed one at a time and in order; the promise of each resolves when it is durable.
 */
import { Worker } from "node:worker_threads";
import { assert } from "../../lib/assert.ts";
import { workerFile } from "../../lib/worker-file.ts";
import type { Environment, FileSizes } from "./environment.ts";
import type { Layer } from "./layer.ts";
import { AGREEMENT } from "./types.ts";

export interface Committed {
  readonly sizes: FileSizes;
  readonly durationMs: number;
}

export interface Committer {
  commit(layer: Layer): Promise<Committed>;
  /** After what was asked before. Harmless when repeated. */
  close(): Promise<void>;
}

/** Main thread to worker. `id` comes back with the answer. */
export type WorkerRequest =
  | {
      readonly kind: "commit";
      readonly id: number;
      readonly chunks: readonly SharedArrayBuffer[];
      readonly used: readonly number[];
    }
  | { readonly kind: "copyFrom"; readonly id: number; readonly path: string }
  | { readonly kind: "close"; readonly id: number };

export type WorkerResponse =
  | { readonly kind: "ready" }
  | { readonly kind: "done"; readonly id: number; readonly sizes: FileSizes; readonly durationMs: number }
  | { readonly kind: "failed"; readonly id: number; readonly message: string; readonly code: string | undefined };

export interface WorkerSettings {
  readonly path: string;
  readonly noSync: boolean;
  readonly mapSizeBytes: number | undefined;
}

interface Waiting {
  resolve(result: Committed): void;
  reject(error: Error): void;
}

export class WorkerCommitter implements Committer {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, Waiting>();
  readonly #ready: Promise<void>;
  readonly #ended: Promise<void>;
  #nextId = 1;
  #failure: Error | undefined;
  #closing: Promise<void> | undefined;

  private constructor(settings: WorkerSettings) {
    this.#worker = new Worker(workerFile("backend-worker"), {
      workerData: { ...settings, agreement: AGREEMENT },
      name: "backend",
    });
    this.#ready = new Promise((resolve, reject) => {
      this.#waiting.set(0, { resolve: () => resolve(), reject });
    });
    this.#ended = new Promise((resolve) => this.#worker.once("exit", () => resolve()));
    this.#worker.on("message", (response: WorkerResponse) => this.#receive(response));
    this.#worker.once("error", (error) => this.#fail(error instanceof Error ? error : new Error(String(error))));
    this.#worker.once("exit", () => this.#fail(new Error("the backend's writer thread has ended")));
  }

  /** Does not wait for the thread: what it is asked meanwhile it finds when it has started; if it cannot, that fails. */
  static begin(settings: WorkerSettings): WorkerCommitter {
    const committer = new WorkerCommitter(settings);
    committer.#ready.catch(() => undefined);
    return committer;
  }

  static async start(settings: WorkerSettings): Promise<WorkerCommitter> {
    const committer = new WorkerCommitter(settings);
    await committer.#ready;
    return committer;
  }

  commit(layer: Layer): Promise<Committed> {
    const chunks = layer.chunks.map((chunk) => chunk.buffer as unknown as SharedArrayBuffer);
    return this.#ask({ kind: "commit", id: this.#nextId++, chunks, used: layer.used });
  }

  /** Copies all rows of another LMDB file into this one, which must be empty. */
  copyFrom(file: string): Promise<Committed> {
    return this.#ask({ kind: "copyFrom", id: this.#nextId++, path: file });
  }

  close(): Promise<void> {
    this.#closing ??= (async () => {
      if (!this.#failure) await this.#ask({ kind: "close", id: this.#nextId++ }).catch(() => undefined);
      await this.#ended;
    })();
    return this.#closing;
  }

  #ask(request: WorkerRequest): Promise<Committed> {
    if (this.#failure) return Promise.reject(this.#failure);
    return new Promise((resolve, reject) => {
      this.#waiting.set(request.id, { resolve, reject });
      this.#worker.postMessage(request);
    });
  }

  #receive(response: WorkerResponse): void {
    const id = response.kind === "ready" ? 0 : response.id;
    const waiting = this.#waiting.get(id);
    assert(waiting, "an answer of the backend's writer thread to no question");
    this.#waiting.delete(id);
    switch (response.kind) {
      case "ready":
        waiting.resolve({ sizes: { fileBytes: 0, inUseBytes: 0 }, durationMs: 0 });
        return;
      case "done":
        waiting.resolve({ sizes: response.sizes, durationMs: response.durationMs });
        return;
      case "failed":
        waiting.reject(Object.assign(new Error(response.message), { code: response.code }));
    }
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    for (const waiting of this.#waiting.values()) waiting.reject(this.#failure);
    this.#waiting.clear();
  }
}

export class InlineCommitter implements Committer {
  readonly #environment: Environment;
  readonly #nowMs: () => number;

  constructor(environment: Environment, nowMs: () => number) {
    this.#environment = environment;
    this.#nowMs = nowMs;
  }

  async commit(layer: Layer): Promise<Committed> {
    const start = this.#nowMs();
    this.#environment.commit(layer.chunks, layer.used);
    return { sizes: this.#environment.sizes(), durationMs: this.#nowMs() - start };
  }

  async close(): Promise<void> {}
}
