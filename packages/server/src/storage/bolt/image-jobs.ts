/**
 * Images of the backend made away from the thread that serves: each has a worker of its own, which reads the pages of the
 * LMDB file, makes those of the bbolt file, and hands them over a chunk at a time. It works a few chunks ahead of whoever
 * takes them and then waits: so a slow reader costs memory for those, and its snapshot of the backend for as long as it
 * takes, as in etcd.
 */
import { createHash } from "node:crypto";
import { Worker } from "node:worker_threads";
import { assert } from "../../lib/assert.ts";
import { workerFile } from "../../lib/worker-file.ts";
import { AGREEMENT, type Backend, type BackendSnapshot } from "../backend/types.ts";
import { type BoltImage, imageOfBackend } from "./image.ts";
import type { BoltExport } from "./types.ts";

/** Of the memory that both threads share; small enough to be in the processor's caches when the next in the chain reads it. */
const CHUNK_BYTES = 256 * 1024;
const CHUNKS = 16;

/** Images that are not in the background, and so threads for them, at a time; more wait for their turn. */
const IMAGES_MAX = 16;

export interface ExportOptions {
  /** Ends the work early; what waits for a chunk then rejects with its reason. */
  readonly signal?: AbortSignal | undefined;
  /** Whether {@link BoltExport.sha256} is wanted. */
  readonly wantsHash?: boolean | undefined;
  /** The worker steps back behind the other threads and waits for no turn: for snapshots whose number others bound. */
  readonly isBackground?: boolean | undefined;
  /** On the calling thread, for tests, where nothing else waits. */
  readonly isInline?: boolean | undefined;
}

export interface ImageJob {
  readonly path: string;
  readonly descriptor: number;
  readonly wantsHash: boolean;
  readonly isBackground: boolean;
  /** Chunks, one after the other and again from the start. */
  readonly memory: SharedArrayBuffer;
  readonly chunkBytes: number;
  /** One number that both threads see: how many chunks were taken. */
  readonly taken: Int32Array;
  readonly agreement: string;
}

export type ImageMessage =
  | { readonly kind: "planned"; readonly sizeBytes: number }
  | { readonly kind: "chunks"; readonly lengths: readonly number[] }
  | { readonly kind: "end"; readonly sha256: Uint8Array | undefined }
  | { readonly kind: "failed"; readonly error: unknown };

let running = 0;
const waiting: (() => void)[] = [];

async function takeTurn(signal: AbortSignal | undefined): Promise<void> {
  if (running < IMAGES_MAX) {
    running++;
    return;
  }
  await new Promise<void>((resolve, reject) => {
    const onTurn = () => {
      signal?.removeEventListener("abort", onAbort);
      resolve();
    };
    const onAbort = () => {
      waiting.splice(waiting.indexOf(onTurn), 1);
      reject(signal?.reason);
    };
    waiting.push(onTurn);
    signal?.addEventListener("abort", onAbort, { once: true });
  });
}

/** The turn goes on to whoever has waited for the longest. */
function giveTurn(): void {
  const next = waiting.shift();
  if (next) next();
  else running--;
}

/**
 * etcd's `.db` of the state that the backend has when its turn comes or some moments later, all of it durable. The image
 * holds a snapshot of the backend until it is closed.
 */
export async function exportBolt(
  backend: Pick<Backend, "openSnapshot">,
  options: ExportOptions = {},
): Promise<BoltExport> {
  const { signal, isBackground = false, isInline = false } = options;
  signal?.throwIfAborted();
  const takesTurns = !isBackground && !isInline;
  if (takesTurns) await takeTurn(signal);
  const done = () => {
    if (takesTurns) giveTurn();
  };
  let snapshot: BackendSnapshot | undefined;
  try {
    const pinned = await backend.openSnapshot();
    snapshot = pinned;
    signal?.throwIfAborted();
    const closed = () => {
      pinned.close();
      done();
    };
    return isInline ? new InlineExport(pinned, closed, options) : await WorkerExport.begin(pinned, closed, options);
  } catch (error) {
    snapshot?.close();
    done();
    throw error;
  }
}

class InlineExport implements BoltExport {
  readonly #closed: () => void;
  readonly #image: BoltImage;
  readonly #hash: ReturnType<typeof createHash> | undefined;
  readonly #signal: AbortSignal | undefined;
  #isOpen = true;

  constructor({ file }: BackendSnapshot, closed: () => void, { signal, wantsHash }: ExportOptions) {
    this.#closed = closed;
    this.#image = imageOfBackend(file.path, file.descriptor);
    this.#hash = wantsHash ? createHash("sha256") : undefined;
    this.#signal = signal;
  }

  get sizeBytes(): number {
    return this.#image.sizeBytes;
  }

  async *chunks(): AsyncGenerator<Uint8Array> {
    const full: Buffer[] = [];
    const file = this.#image.writeTo({
      memory: () => Buffer.allocUnsafeSlow(CHUNK_BYTES),
      filled: (chunk) => full.push(chunk),
    });
    for (let isDone = false; !isDone; ) {
      this.#signal?.throwIfAborted();
      if (!this.#isOpen) throw new Error("the image is closed");
      isDone = file.next().done ?? false;
      if (full.length === 0) continue;
      await new Promise((resolve) => setImmediate(resolve));
      for (const chunk of full.splice(0)) {
        this.#hash?.update(chunk);
        yield chunk;
      }
    }
  }

  sha256(): Uint8Array {
    assert(this.#hash, "no hash was asked for");
    return this.#hash.digest();
  }

  async close(): Promise<void> {
    if (this.#isOpen) this.#closed();
    this.#isOpen = false;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

class WorkerExport implements BoltExport {
  readonly #signal: AbortSignal | undefined;
  readonly #memory = new SharedArrayBuffer(CHUNKS * CHUNK_BYTES);
  readonly #taken = new Int32Array(new SharedArrayBuffer(4));
  readonly #worker: Worker;
  readonly #ended: Promise<void>;
  readonly #onAbort = () => this.#fail(this.#signal?.reason);
  #sizeBytes = 0;
  /** Lengths of the chunks that have come and were not taken. */
  readonly #chunks: number[] = [];
  #isDone = false;
  #sha256: Uint8Array | undefined;
  #failure: { readonly error: unknown } | undefined;
  #wake: (() => void) | undefined;
  #closed: (() => void) | undefined;
  #closing: Promise<void> | undefined;

  private constructor(
    file: BackendSnapshot["file"],
    { signal, wantsHash = false, isBackground = false }: ExportOptions,
  ) {
    this.#signal = signal;
    const job: ImageJob = {
      ...file,
      wantsHash,
      isBackground,
      memory: this.#memory,
      chunkBytes: CHUNK_BYTES,
      taken: this.#taken,
      agreement: AGREEMENT,
    };
    this.#worker = new Worker(workerFile("image-worker"), { workerData: job, name: "bolt image" });
    this.#ended = new Promise((resolve) => this.#worker.once("exit", () => resolve()));
    this.#worker.on("message", (message: ImageMessage) => this.#receive(message));
    this.#worker.once("error", (error) => this.#fail(error));
    this.#worker.once("exit", () => {
      if (!this.#isDone) this.#fail(new Error("the thread of an image has ended"));
    });
    signal?.addEventListener("abort", this.#onAbort, { once: true });
  }

  /** Resolves when the size is known. `closed` is called when the thread has ended, unless this rejects. */
  static async begin({ file }: BackendSnapshot, closed: () => void, options: ExportOptions): Promise<WorkerExport> {
    const image = new WorkerExport(file, options);
    try {
      while (image.#sizeBytes === 0) await image.#news();
      image.#closed = closed;
      return image;
    } catch (error) {
      await image.close();
      throw error;
    }
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  async *chunks(): AsyncGenerator<Uint8Array> {
    for (let n = 0; ; ) {
      const length = this.#chunks.shift();
      if (length !== undefined) {
        yield Buffer.from(this.#memory, (n++ % CHUNKS) * CHUNK_BYTES, length);
        Atomics.add(this.#taken, 0, 1);
        Atomics.notify(this.#taken, 0);
      } else if (this.#isDone && !this.#failure) return;
      else await this.#news();
    }
  }

  sha256(): Uint8Array {
    assert(this.#sha256, "a hash that was not asked for, or before the last chunk was taken");
    return this.#sha256;
  }

  /** Waits for a message; rejects when none will come. */
  async #news(): Promise<void> {
    if (!this.#failure) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    if (this.#failure) throw this.#failure.error;
  }

  #receive(message: ImageMessage): void {
    switch (message.kind) {
      case "planned":
        this.#sizeBytes = message.sizeBytes;
        break;
      case "chunks":
        this.#chunks.push(...message.lengths);
        break;
      case "end":
        this.#sha256 = message.sha256;
        this.#isDone = true;
        break;
      case "failed":
        this.#failure ??= { error: message.error };
    }
    this.#wake?.();
  }

  #fail(error: unknown): void {
    this.#failure ??= { error };
    this.#chunks.length = 0;
    // It holds nothing but memory: what it reads from is ours.
    void this.#worker.terminate();
    this.#wake?.();
  }

  close(): Promise<void> {
    this.#closing ??= (async () => {
      this.#signal?.removeEventListener("abort", this.#onAbort);
      this.#fail(new Error("the image is closed"));
      // The pages and the descriptor are the worker's until it has ended.
      await this.#ended;
      this.#closed?.();
    })();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
