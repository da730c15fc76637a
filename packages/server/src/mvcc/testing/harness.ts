/** A store on a real backend in a folder of its own, for tests: with virtual time, and open for restarts. */
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { EtcdError } from "@etcd-ts/client/wire";
import { VirtualClock } from "../../lib/clock.ts";
import { silentLogger } from "../../lib/log.ts";
import { type Backend, type BackendTxn, INDEX_MARKER_KEY, openBackend } from "../../storage/index.ts";
import { MvccStore } from "../store.ts";
import type { MvccLimits } from "../types.ts";

export class Harness implements AsyncDisposable {
  readonly clock = new VirtualClock();
  readonly leases = new Set<bigint>();
  readonly #folder: string;
  readonly #limits: Partial<MvccLimits>;
  backend!: Backend;
  store!: MvccStore;

  static async open(limits: Partial<MvccLimits> = {}): Promise<Harness> {
    const harness = new Harness(limits);
    await harness.#start();
    return harness;
  }

  private constructor(limits: Partial<MvccLimits>) {
    this.#folder = fs.mkdtempSync(path.join(os.tmpdir(), "mvcc-"));
    this.#limits = limits;
  }

  async #start(): Promise<void> {
    const onFatal = (error: unknown): never => {
      throw error;
    };
    this.backend = await openBackend({
      path: path.join(this.#folder, "db.lmdb"),
      clock: this.clock,
      logger: silentLogger,
      onFatal,
      commits: "inline",
      mapSizeBytes: 2 ** 30,
    });
    this.store = await MvccStore.open({
      backend: this.backend,
      leases: this.leases,
      clock: this.clock,
      logger: silentLogger,
      onFatal,
      limits: this.#limits,
    });
  }

  /** One applied entry. A refusal is an answer, so like apply this lets it out only after the backend's write. */
  write<T>(fn: (tx: BackendTxn) => T): T {
    const outcome = this.backend.write((tx): { result: T } | { refusal: EtcdError } => {
      try {
        return { result: fn(tx) };
      } catch (error) {
        if (error instanceof EtcdError) return { refusal: error };
        throw error;
      }
    });
    this.store.endWrite();
    if ("refusal" in outcome) throw outcome.refusal;
    return outcome.result;
  }

  async restart(options: { readonly withoutIndex?: boolean } = {}): Promise<void> {
    await this.store.close();
    if (options.withoutIndex) this.backend.write((tx) => tx.delete("past", INDEX_MARKER_KEY));
    await this.backend.close();
    await this.#start();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.store.close();
    await this.backend.close();
    fs.rmSync(this.#folder, { recursive: true, force: true });
  }
}
